//! A database that this process has open through the VFS: tracked, and fetched where it is not all here.

use super::raw::{Cell, Connection, Failure};
use littoral_engine::settings::Key;
use littoral_ports::{LiveSource, SourceError};
use littoral_vfs::uri;
use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};

/// Held open as long as this lives.
#[derive(Debug)]
pub struct OpenDatabase {
    path: PathBuf,
    connection: Connection,
}

/// What a statement answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The names of its columns; none for one that answers nothing.
    pub columns: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<Cell>>,
}

impl OpenDatabase {
    /// The same for a verb that publishes what it is told to, and nothing by itself.
    pub fn quietly(file: &Path, said: &[(Key, OsString)]) -> Result<Self, SourceError> {
        let mut said: Vec<(Key, OsString)> =
            said.iter().filter(|(key, _)| *key != Key::SyncInterval).cloned().collect();
        said.push((Key::SyncInterval, OsString::from("off")));
        Self::opened(file, &said, true)
    }

    /// Opens a database file, or one that is in an object store alone, with what was said of it.
    pub fn open(file: &Path, said: &[(Key, OsString)]) -> Result<Self, SourceError> {
        Self::opened(file, said, false)
    }

    fn opened(file: &Path, said: &[(Key, OsString)], has_patience: bool) -> Result<Self, SourceError> {
        let path = absolute(file)?;
        let uri = uri::spell(&path, said)
            .ok_or_else(|| SourceError::Failed(format!("{}: a zero byte in its name or a setting", file.display())))?;
        let told = |failure: Failure| {
            let why = littoral_vfs::take_error().unwrap_or(failure.message);
            SourceError::Failed(format!("{}: {why}", file.display()))
        };
        let connection = Connection::through_vfs(&uri).map_err(told)?;
        // Whoever has read takes the WAL away as the last one to leave; our readers leave it to this one.
        connection.waits(!has_patience).map_err(told)?;
        let read = connection.number(c"PRAGMA schema_version");
        connection.waits(true).map_err(told)?;
        match read {
            // Somebody keeps readers out: whoever reads next waits for him.
            Err(failure) if has_patience && failure.primary() == libsql::ffi::SQLITE_BUSY => {}
            read => drop(read.map_err(told)?),
        }
        Ok(Self { path, connection })
    }

    /// As SQLite names it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whoever closes it last cleans up, as SQLite does it for everybody: the WAL goes back into the file.
    pub fn cleans_up(&self) -> Result<(), SourceError> {
        let told = |failure: Failure| SourceError::Failed(format!("{}: {}", self.path.display(), failure.message));
        self.connection.keep_wal(false).map_err(told)
    }

    /// Whether a text ends with a whole statement.
    pub fn is_complete(sql: &str) -> bool {
        CString::new(sql).is_ok_and(|sql| Connection::is_complete(&sql))
    }

    /// Runs the statements of a text, and hands over what each answers. Ends at the first that fails, in SQLite's words and ours.
    pub fn run(&self, sql: &str, told: &mut dyn FnMut(Answer)) -> Result<(), String> {
        let mut rest = CString::new(sql).map_err(|_| "there is a zero byte in it".to_owned())?;
        loop {
            // What an earlier statement met explains nothing of this one.
            let _ = littoral_vfs::take_error();
            let (statement, behind) = self.connection.first(&rest).map_err(explained)?;
            if let Some(mut statement) = statement {
                let mut answer = Answer { columns: statement.columns(), rows: Vec::new() };
                while statement.step().map_err(explained)? {
                    answer.rows.push(statement.row());
                }
                told(answer);
            }
            let left = rest.to_bytes().get(behind..).unwrap_or_default();
            if behind == 0 || left.is_empty() {
                return Ok(());
            }
            // A part of what had no zero in it has none.
            rest = CString::new(left).unwrap_or_default();
        }
    }

    /// Its pages, for a checkpoint.
    pub fn live(&self) -> Result<Box<dyn LiveSource>, SourceError> {
        littoral_vfs::live(&self.path).unwrap_or_else(|| Err(self.lost()))
    }

    /// How many of how many pages are here; `None` when all of it is.
    pub fn sparse(&self) -> Option<(u64, u64)> {
        littoral_vfs::sparse(&self.path)
    }

    /// Fetches all pages.
    pub fn hydrate(&self, told: &mut dyn FnMut(u64, u64)) -> Result<(), SourceError> {
        match littoral_vfs::hydrate(&self.path, told) {
            Some(done) => done.map_err(SourceError::Failed),
            None => Err(self.lost()),
        }
    }

    /// Makes it a copy of a plain database file, in one transaction of SQLite's.
    pub fn replace_with(&self, plain: &Path, told: &mut dyn FnMut(u64, u64)) -> Result<(), SourceError> {
        let name = |path: &Path| path.display().to_string();
        let uri =
            uri::spell(plain, &[]).and_then(|uri| uri.split_once('?').map(|(path, _)| format!("{path}?immutable=1")));
        let uri = uri.ok_or_else(|| SourceError::Failed(format!("{}: a zero byte in its name", name(plain))))?;
        self.connection.copy_of(&uri, told).map_err(|failure| match failure.primary() {
            code if code == libsql::ffi::SQLITE_BUSY || code == libsql::ffi::SQLITE_LOCKED => {
                SourceError::Busy(format!("{}: somebody else has it open", name(&self.path)))
            }
            _ => SourceError::Failed(format!("{}: {}", name(&self.path), explained(failure))),
        })
    }

    fn lost(&self) -> SourceError {
        SourceError::Failed(format!("{}: not open through the VFS", self.path.display()))
    }
}

fn explained(failure: Failure) -> String {
    match littoral_vfs::take_error() {
        Some(why) if !failure.message.contains(&why) => format!("{}: {why}", failure.message),
        _ => failure.message,
    }
}

/// As SQLite will name it: links on the way are followed.
fn absolute(file: &Path) -> Result<PathBuf, SourceError> {
    let failed = |error: std::io::Error| SourceError::Failed(format!("{}: {error}", file.display()));
    if let Ok(path) = file.canonicalize() {
        return Ok(path);
    }
    let whole = std::path::absolute(file).map_err(failed)?;
    match (whole.parent(), whole.file_name()) {
        (Some(folder), Some(name)) => Ok(folder.canonicalize().map_err(failed)?.join(name)),
        _ => Err(SourceError::Failed(format!("{}: no file's name", file.display()))),
    }
}
