//! A log's folder made of what an object store holds: beside its place until all of it was verified, then there.

use super::error::LogError;
use super::folder::{Folder, Meta};
use super::live::allocate;
use super::scan::Scan;
use super::schema::keep_columns;
use super::void::Void;
use crate::durable::{create_dirs, parent, suffixed, sync_dir};
use crate::error::on;
use crate::filesystem::require_local;
use littoral_format::FormatError;
use littoral_format::log::{END_AT, Fold, SYNCED_AT, encode_head};
use littoral_types::{LogHead, LogRow, Lsn, Sessions, VolumeId};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const BESIDE: &str = ".restoring";

/// Which log lies in a folder, and when it was made.
pub fn identity(path: &Path) -> Result<(VolumeId, u64), LogError> {
    let meta = Folder::at(path).meta()?;
    Ok((meta.id, meta.created_ms))
}

/// Where a log begins.
pub fn start(path: &Path) -> Result<Lsn, LogError> {
    Ok(Folder::at(path).meta()?.start)
}

/// A log that is being restored. What a crash leaves of it is removed by the next one.
#[derive(Debug)]
pub struct Restoring {
    dest: PathBuf,
    folder: Folder,
    meta: Meta,
    /// How far each session is after the segments that are there.
    sessions: Sessions,
    next: Lsn,
}

impl Restoring {
    /// Begins with where the log begins, and how far each session was before that. Nothing may stand at the destination.
    pub fn begin(dest: &Path, id: VolumeId, created_ms: u64, start: Lsn, sessions: Sessions) -> Result<Self, LogError> {
        let is_free = match fs::read_dir(dest) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if !is_free {
            return Err(LogError::Exists { path: dest.to_owned(), what: "something is there already" });
        }
        require_local(dest.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new(".")))?;
        let beside = suffixed(dest, BESIDE);
        if beside.exists() {
            fs::remove_dir_all(&beside).map_err(on("remove what was left of a restore,", &beside))?;
        }
        create_dirs(&beside)?;
        let meta = Meta::new(id, created_ms, start, sessions.clone());
        Ok(Self { dest: dest.to_owned(), folder: Folder::at(&beside), meta, sessions, next: start })
    }

    /// Its records are rows of a table: with these columns, and without these records.
    pub fn of_a_table(&mut self, columns: &[String], voids: Vec<Void>) -> Result<(), LogError> {
        let path = self.folder.path();
        if !columns.is_empty() {
            keep_columns(path, columns)?;
        }
        self.without(voids);
        Ok(())
    }

    /// Without these records: no reader is given them.
    pub fn without(&mut self, voids: Vec<Void>) {
        self.meta.voids = voids;
    }

    /// Writes bytes of a segment.
    pub fn put(&mut self, first: Lsn, at: u64, bytes: &[u8]) -> Result<(), LogError> {
        let path = self.folder.segment(first);
        let file = self.open(&path)?;
        Ok(file.write_all_at(bytes, at).map_err(on("write", &path))?)
    }

    fn open(&self, path: &Path) -> Result<File, LogError> {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        Ok(opened.map_err(on("create", path))?)
    }

    /// All bytes of a segment are there that its row tells of: verifies every entry, and that it follows from those before.
    pub fn end_segment(&mut self, row: &LogRow) -> Result<(), LogError> {
        let path = self.folder.segment(row.first);
        let broken = |detail: String| LogError::Broken { path: path.clone(), detail };
        if row.first != self.next {
            return Err(broken(format!("it begins with LSN {}, and LSN {} is next", row.first, self.next)));
        }
        let file = self.open(&path)?;
        if row.sealed.is_none() {
            let head = LogHead { log: self.meta.id, first: row.first, created_ms: row.created_ms };
            let bytes = encode_head(&head).map_err(LogError::damaged(&path, 0, row.first))?;
            file.write_all_at(&bytes, 0).map_err(on("write", &path))?;
            file.write_all_at(&0u64.to_le_bytes(), END_AT).map_err(on("write", &path))?;
            // All of it was durable where it came from.
            file.write_all_at(&row.end.to_le_bytes(), SYNCED_AT).map_err(on("write", &path))?;
            allocate(&file).map_err(on("make room for", &path))?;
        }
        file.sync_all().map_err(on("sync", &path))?;
        let mut scan = Scan::open(&path, row.first)?.ok_or_else(|| broken("it is not there".to_owned()))?;
        if scan.head.log != self.meta.id {
            return Err(broken("it is another log's".to_owned()));
        }
        let index = scan.index()?;
        scan.stop_at(row.end);
        let mut fold = Fold::new(scan.head, &self.sessions);
        let torn = scan.take_all(&mut fold)?;
        if fold.offset() != row.end {
            let source = torn.unwrap_or(FormatError::Truncated { what: "log entry" });
            return Err(LogError::damaged(&path, fold.offset(), fold.next())(source));
        }
        if fold.next() != row.next() {
            return Err(broken(format!("it ends before LSN {}, and LSN {} was told", fold.next(), row.next())));
        }
        if row.sealed.is_some() && index.is_none_or(|index| index != fold.index()) {
            return Err(broken("its index is not that of its entries".to_owned()));
        }
        (self.sessions, self.next) = (fold.sessions(), fold.next());
        Ok(())
    }

    /// How far each session is after the segments that are there.
    pub const fn sessions(&self) -> &BTreeMap<littoral_types::SessionName, littoral_types::Serial> {
        &self.sessions
    }

    /// All segments are there: from here on the destination is a log. A log without any gets its first one when it is opened.
    pub fn finish(self) -> Result<(), LogError> {
        if self.folder.segments()?.is_empty() {
            let path = self.folder.segment(self.meta.start);
            let head = LogHead { log: self.meta.id, first: self.meta.start, created_ms: self.meta.created_ms };
            let bytes = encode_head(&head).map_err(LogError::damaged(&path, 0, head.first))?;
            let file = self.open(&path)?;
            file.write_all_at(&bytes, 0).map_err(on("write", &path))?;
            allocate(&file).map_err(on("make room for", &path))?;
            file.sync_all().map_err(on("sync", &path))?;
        }
        self.folder.create_meta(&self.meta)?;
        self.folder.sync()?;
        fs::rename(self.folder.path(), &self.dest).map_err(on("rename into place", &self.dest))?;
        Ok(sync_dir(parent(&self.dest))?)
    }
}
