//! Rolling back a log's end: what was appended last, and is not sealed, goes.
//!
//! It is said first, in one write, where the log ends now; then the segment is told, which is where readers look; then what was there becomes zeros.
//! Whoever dies in between had rolled it back: the next one who opens the log does the rest, before anything is appended.

use super::cursors::{cursors_of, step_back};
use super::error::LogError;
use super::folder::{Folder, Meta};
use super::live::zero;
use super::open::{LogParts, take_lock};
use super::recover::{recover, writable};
use super::scan::Scan;
use super::schema;
use crate::error::on;
use crate::lock::WorkerLock;
use littoral_format::log::{CUTS_AT, END_AT, SYNCED_AT};
use littoral_ports::Faults;
use littoral_types::Lsn;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a test may make a process die that rolls a log back, in the order in which they are reached.
pub const ROLL_BACK_POINTS: [&str; 4] = ["log.cut.said", "log.cut.marked", "log.cut.zeroed", "log.cut.done"];

/// So many ends are remembered, for readers who stood there.
const CUTS_MAX: usize = 64;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The log's last record, before.
    pub was: Lsn,
    /// And now.
    pub last: Lsn,
}

/// A log to which nobody appends, for as long as this lives.
#[derive(Debug)]
pub struct Quiet {
    folder: Folder,
    _appender: WorkerLock,
}

impl Quiet {
    /// Refused where somebody appends, who is told.
    pub fn take(path: &Path, now_ms: u64) -> Result<Self, LogError> {
        let folder = Folder::at(path);
        folder.meta()?;
        let _appender = take_lock(&folder, now_ms)?;
        Ok(Self { folder, _appender })
    }

    /// Lets everything after a record go. Only of what is not sealed, and not of a table, whose rows are its database's. What cursors have
    /// acknowledged stays, unless they are to go back. With `is_dry` it only says what would go.
    pub fn roll_back(
        &self,
        last: Lsn,
        (past_cursors, is_dry): (bool, bool),
        faults: &dyn Faults,
    ) -> Result<RolledBack, LogError> {
        let folder = &self.folder;
        let refused = |why: String| LogError::NotRolledBack { path: folder.path().to_owned(), why };
        if schema::columns(folder.path())?.is_some() {
            let why = "it is a table's, and its rows come and go with their database's transactions";
            return Err(refused(why.to_owned()));
        }
        let _lock = folder.lock_change()?;
        let mut meta = finish(folder, folder.meta()?, faults)?;
        let found = recover(folder, &meta, faults)?;
        let was = Lsn(found.next.0 - 1);
        if last > was {
            return Err(LogError::Beyond { asked: last, last: was });
        }
        if last.next() < meta.start {
            return Err(LogError::Truncated { asked: last, start: meta.start });
        }
        if last == was {
            return Ok(RolledBack { was, last });
        }
        let open = found.tail.map_or(found.next, |(_, fold)| fold.head().first);
        if last.next() < open {
            let why = format!(
                "LSN {} is in a segment that is sealed, which never changes: what is after LSN {} may go",
                last.next(),
                open.0 - 1
            );
            return Err(refused(why));
        }
        // Under the lock under which cursors are moved.
        for cursor in cursors_of(folder)?.into_iter().filter(|cursor| cursor.acked > last) {
            match &cursor.database {
                Some(database) => {
                    let (name, database) = (&cursor.name, database.display());
                    return Err(refused(format!(
                        "cursor {name} of {database} is done up to LSN {}; only there it can be let go of (littoral_log_drop_cursor)",
                        cursor.acked
                    )));
                }
                None if past_cursors => {}
                None => {
                    return Err(refused(format!(
                        "cursor {} is done up to LSN {}; --past-cursors takes it back, too",
                        cursor.name, cursor.acked
                    )));
                }
            }
        }
        if is_dry {
            return Ok(RolledBack { was, last });
        }
        meta.cut_at(last);
        folder.replace_meta(&meta)?;
        faults.reach("log.cut.said")?;
        finish(folder, meta, faults)?;
        Ok(RolledBack { was, last })
    }
}

impl Meta {
    /// The log ends here now.
    fn cut_at(&mut self, last: Lsn) {
        let nth = self.newest_cut() + 1;
        // One who stood behind an earlier end that is not before this one stands behind this one.
        self.cuts.retain(|(_, end)| *end < last);
        self.cuts.push((nth, last));
        if self.cuts.len() > CUTS_MAX {
            // Who stood behind the second one is told of the first, and reads some records once more.
            let (_, end) = self.cuts.remove(0);
            if let Some(first) = self.cuts.first_mut() {
                first.1 = end;
            }
        }
        self.is_cutting = true;
        self.voids.retain(|(from, _)| *from <= last);
        self.voids.iter_mut().for_each(|(_, to)| *to = (*to).min(last));
    }
}

/// Does what was said and is not done yet. The caller alone appends, and changes where the log begins.
pub(super) fn finish(folder: &Folder, mut meta: Meta, faults: &dyn Faults) -> Result<Meta, LogError> {
    let Some((nth, last)) = meta.cuts.last().copied().filter(|_| meta.is_cutting) else { return Ok(meta) };
    let missing = || LogError::Broken {
        path: folder.segment(last.next()),
        detail: "no segment has the end to which the log was rolled back".to_owned(),
    };
    let segments = folder.segments()?;
    let (first, path) = segments.into_iter().rfind(|(first, _)| *first <= last.next()).ok_or_else(missing)?;
    let mut scan = Scan::open(&path, first)?.ok_or_else(missing)?;
    let offset = scan.begin_of(last.next())?;
    let synced = scan.word(SYNCED_AT)?.min(offset);
    let file = writable(&path)?;
    // Whoever reads the bytes looks at the first of them after it, and is told before anything is otherwise.
    for (at, word) in [(CUTS_AT, nth), (SYNCED_AT, synced)] {
        file.write_all_at(&word.to_le_bytes(), at).map_err(on("write", &path))?;
    }
    file.sync_data().map_err(on("sync", &path))?;
    faults.reach("log.cut.marked")?;
    zero(&file, &path, offset)?;
    faults.reach("log.cut.zeroed")?;
    file.write_all_at(&0u64.to_le_bytes(), END_AT).map_err(on("write", &path))?;
    file.sync_data().map_err(on("sync", &path))?;
    step_back(folder, last)?;
    meta.is_cutting = false;
    folder.replace_meta(&meta)?;
    faults.reach("log.cut.done")?;
    Ok(meta)
}

/// Rolls back the end of a log to which nobody appends.
pub fn roll_back(
    path: &Path,
    last: Lsn,
    (past_cursors, is_dry): (bool, bool),
    parts: &LogParts,
) -> Result<RolledBack, LogError> {
    Quiet::take(path, parts.clock.wall_ms())?.roll_back(last, (past_cursors, is_dry), &*parts.faults)
}
