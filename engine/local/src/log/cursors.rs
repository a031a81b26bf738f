//! Who reads a log, and up to where he is done: by name, a file each. The head of a log is truncated up to there and not beyond.
//!
//! 1. A cursor says that everything up to its LSN is done with. It never goes beyond the log's end, and back only where that is cut off.
//! 2. One that a database keeps is moved in that database's transactions: what stands here is what had been committed when somebody looked last, or
//!    less.

use super::error::LogError;
use super::folder::Folder;
use super::stats::stats_of;
use crate::durable::{create_dirs, remove_if_there, replace};
use crate::error::{LocalError, on};
use littoral_types::{Lsn, SessionName};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const FORMAT: u64 = 1;
const CURSORS_MAX: usize = 1_000;

/// A cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// What it is called.
    pub name: SessionName,
    /// Up to here all is done with.
    pub acked: Lsn,
    /// The database that keeps it, where one does.
    pub database: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u64,
    name: String,
    acked: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<PathBuf>,
}

/// Names are any text; files are called by its bytes.
fn file(folder: &Folder, name: &SessionName) -> PathBuf {
    let hex: String = name.as_str().bytes().map(|byte| format!("{byte:02x}")).collect();
    // A name has 128 bytes at most, a file's name 255.
    let hex = hex.get(..240).map_or_else(|| hex.clone(), |short| format!("{short}-{:08x}", fold(name.as_str())));
    folder.cursors().join(hex)
}

fn fold(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn read(path: &Path) -> Result<Option<Cursor>, LogError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(on("read", path)(error).into()),
    };
    let corrupt = |detail: String| LocalError::Corrupt { path: path.into(), detail };
    let document: Document = toml::from_str(&text).map_err(|error| corrupt(error.to_string()))?;
    if document.format > FORMAT {
        return Err(
            LocalError::Newer { path: path.into(), what: "cursor", found: document.format, known: FORMAT }.into()
        );
    }
    let name = document.name.parse().map_err(|error| corrupt(format!("{error}")))?;
    Ok(Some(Cursor { name, acked: Lsn(document.acked), database: document.database }))
}

fn write(folder: &Folder, cursor: &Cursor) -> Result<(), LogError> {
    let path = file(folder, &cursor.name);
    let document = Document {
        format: FORMAT,
        name: cursor.name.to_string(),
        acked: cursor.acked.0,
        database: cursor.database.clone(),
    };
    let text = toml::to_string(&document)
        .map_err(|error| LocalError::Misuse { path: path.clone(), detail: format!("cannot be spelled: {error}") })?;
    create_dirs(&folder.cursors())?;
    Ok(replace(&path, text.as_bytes())?)
}

pub(super) fn cursors_of(folder: &Folder) -> Result<Vec<Cursor>, LogError> {
    let entries = match std::fs::read_dir(folder.cursors()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(on("list", &folder.cursors())(error).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(on("list", &folder.cursors()))?.path();
        // What is being replaced has a name with an end.
        if path.extension().is_none() {
            found.extend(read(&path)?);
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// All cursors of a log, by name.
pub fn cursors(log: &Path) -> Result<Vec<Cursor>, LogError> {
    let folder = Folder::at(log);
    folder.meta()?;
    cursors_of(&folder)
}

/// One of them.
pub fn cursor(log: &Path, name: &SessionName) -> Result<Cursor, LogError> {
    let folder = Folder::at(log);
    folder.meta()?;
    read(&file(&folder, name))?.ok_or_else(|| LogError::NoCursor { path: log.to_owned(), name: name.clone() })
}

/// Makes a cursor, or finds the one that is there. Nobody truncates beyond it from then on.
pub fn keep_cursor(
    log: &Path,
    name: &SessionName,
    acked: Option<Lsn>,
    database: Option<&Path>,
) -> Result<Cursor, LogError> {
    let folder = Folder::at(log);
    folder.meta()?;
    let _lock = folder.lock_change()?;
    let meta = folder.meta()?;
    if let Some(found) = read(&file(&folder, name))? {
        if found.database.as_deref() != database {
            return Err(LogError::OthersCursor { name: name.clone(), database: found.database });
        }
        return Ok(found);
    }
    if cursors_of(&folder)?.len() >= CURSORS_MAX {
        return Err(LogError::TooMany { what: "cursors of one log", max: CURSORS_MAX });
    }
    let before = Lsn(meta.start.0 - 1);
    let acked = acked.unwrap_or(before);
    if acked < before {
        return Err(LogError::Truncated { asked: acked.next(), start: meta.start });
    }
    let last = stats_of(&folder, &meta)?.last;
    if acked > last {
        return Err(LogError::Beyond { asked: acked, last });
    }
    let cursor = Cursor { name: name.clone(), acked, database: database.map(Path::to_owned) };
    write(&folder, &cursor)?;
    Ok(cursor)
}

/// Everything up to a record is done with. A cursor that is beyond already stays where it is.
pub fn ack(log: &Path, name: &SessionName, acked: Lsn, database: Option<&Path>) -> Result<Cursor, LogError> {
    let folder = Folder::at(log);
    folder.meta()?;
    let _lock = folder.lock_change()?;
    let meta = folder.meta()?;
    let missing = || LogError::NoCursor { path: log.to_owned(), name: name.clone() };
    let mut cursor = read(&file(&folder, name))?.ok_or_else(missing)?;
    if cursor.database.as_deref() != database {
        return Err(LogError::OthersCursor { name: name.clone(), database: cursor.database });
    }
    if acked <= cursor.acked {
        return Ok(cursor);
    }
    // A database knows how far its rows go.
    if database.is_none() {
        let last = stats_of(&folder, &meta)?.last;
        if acked > last {
            return Err(LogError::Beyond { asked: acked, last });
        }
    }
    cursor.acked = acked;
    write(&folder, &cursor)?;
    Ok(cursor)
}

/// Those that are beyond a log's end stand before its next record from now on: what is between is given to nobody, and so is done with. One that a database
/// keeps stands where that says.
pub(super) fn step_to(folder: &Folder, last: Lsn, stays: Lsn) -> Result<(), LogError> {
    let beyond = cursors_of(folder)?.into_iter().filter(|cursor| cursor.acked > last && cursor.database.is_none());
    beyond.map(|cursor| Cursor { acked: stays, ..cursor }).try_for_each(|cursor| write(folder, &cursor))
}

/// Lets a cursor go: it keeps nothing any more.
pub fn drop_cursor(log: &Path, name: &SessionName) -> Result<Cursor, LogError> {
    let folder = Folder::at(log);
    folder.meta()?;
    let _lock = folder.lock_change()?;
    let path = file(&folder, name);
    let found = read(&path)?.ok_or_else(|| LogError::NoCursor { path: log.to_owned(), name: name.clone() })?;
    remove_if_there(&path)?;
    Ok(found)
}
