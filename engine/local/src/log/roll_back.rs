//! Rolling back a log's end: what was appended last goes.
//!
//! 1. What is neither sealed nor in the log's volume is cut off, and its LSNs are given again. What is, stays in its place and is void: no reader is given it, and
//!    no other record gets its LSN.
//! 2. It is said first, in one write, where the log ends now, and what is void; then the segment's words; then what is cut
//!    off becomes zeros. Whoever dies in between had rolled it back: the next one who opens the log does the rest, before anything is appended.

use super::cursors::{cursors_of, step_to};
use super::error::LogError;
use super::folder::{Folder, Meta};
use super::live::zero;
use super::open::{LogParts, take_lock};
use super::prefix::Prefix;
use super::recover::{recover, writable};
use super::scan::Scan;
use super::schema;
use super::settle::make_sound;
use super::void::{add, count, end_behind};
use crate::error::on;
use crate::lock::WorkerLock;
use littoral_format::log::{END_AT, SYNCED_AT};
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
    /// The last one that stays.
    pub last: Lsn,
    /// The LSN of the next record that is appended: what is between stays in its place, and is void.
    pub next: Lsn,
    /// Records that were not void, and are.
    pub voided: u64,
    /// Records that were cut off.
    pub cut: u64,
}

impl RolledBack {
    /// Of a log that ends there already.
    const fn nothing(was: Lsn) -> Self {
        Self { was, last: was, next: was.next(), voided: 0, cut: 0 }
    }
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

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// All of the log, made sound and durable, for who compares it with its volume.
    pub fn prefix(&self, faults: &dyn Faults) -> Result<Prefix, LogError> {
        let _lock = self.folder.lock_change()?;
        Ok(make_sound(&self.folder, faults)?.prefix)
    }

    /// Lets everything after a record go: what is sealed, or in the log's volume, which has it up to `shipped`, becomes void, and the rest is cut off. Not of a
    /// table, whose rows are its database's. What cursors have acknowledged stays, unless they are to go back. With `is_dry` it only says what
    /// would go.
    pub fn roll_back(
        &self,
        last: Lsn,
        shipped: Lsn,
        (past_cursors, is_dry): (bool, bool),
        faults: &dyn Faults,
    ) -> Result<RolledBack, LogError> {
        let folder = &self.folder;
        if schema::columns(folder.path())?.is_some() {
            return Err(self.refused("it is a table's, and its rows come and go with their database's transactions"));
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
        if shipped > was {
            let why =
                format!("its volume ends at LSN {shipped}, and it at LSN {was}: it was put back to an earlier state");
            return Err(self.refused(why));
        }
        // What follows it may be void by now.
        let last = end_behind(&meta.voids, last);
        if last == was {
            return Ok(RolledBack::nothing(was));
        }
        let open = found.tail.map_or(found.next, |(_, fold)| fold.head().first);
        let stays = last.max(shipped).max(Lsn(open.0 - 1));
        // Under the lock under which cursors are moved.
        self.refuse_cursors(last, stays, past_cursors)?;
        let voided = stays.0 - last.0 - count(&meta.voids, last.next(), stays);
        let done = RolledBack { was, last, next: stays.next(), voided, cut: was.0 - stays.0 };
        if is_dry {
            return Ok(done);
        }
        meta.end_at(last, stays);
        folder.replace_meta(&meta)?;
        faults.reach("log.cut.said")?;
        finish(folder, meta, faults)?;
        Ok(done)
    }

    fn refused(&self, why: impl Into<String>) -> LogError {
        LogError::NotRolledBack { path: self.folder.path().to_owned(), why: why.into() }
    }

    /// A cursor of a database stands where that says: it cannot be taken back to what stays.
    fn refuse_cursors(&self, last: Lsn, stays: Lsn, past_cursors: bool) -> Result<(), LogError> {
        for cursor in cursors_of(&self.folder)?.into_iter().filter(|cursor| cursor.acked > last) {
            let (name, acked) = (&cursor.name, cursor.acked);
            if let Some(database) = cursor.database.as_ref().filter(|_| acked > stays) {
                return Err(self.refused(format!(
                    "cursor {name} of {} is done up to LSN {acked}; only there it can be let go of (littoral_log_drop_cursor)",
                    database.display()
                )));
            }
            if !past_cursors {
                return Err(self
                    .refused(format!("cursor {name} is done up to LSN {acked}; --past-cursors takes that back, too")));
            }
        }
        Ok(())
    }
}

impl Meta {
    /// The log ends here now, and goes on behind what stays in its place.
    fn end_at(&mut self, last: Lsn, stays: Lsn) {
        self.note_end(last);
        self.is_cutting = true;
        self.voids.retain(|(from, _)| *from <= stays);
        self.voids.iter_mut().for_each(|(_, to)| *to = (*to).min(stays));
        add(&mut self.voids, (last.next(), stays));
    }

    /// Readers that stand behind it are told.
    pub(super) fn note_end(&mut self, last: Lsn) {
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
    }
}

/// Does what was said and is not done yet. The caller alone appends, and changes where the log begins.
pub(super) fn finish(folder: &Folder, mut meta: Meta, faults: &dyn Faults) -> Result<Meta, LogError> {
    let Some((_, last)) = meta.cuts.last().copied().filter(|_| meta.is_cutting) else { return Ok(meta) };
    let stays = meta.stays_up_to(last);
    cut_off(folder, stays, faults)?;
    step_to(folder, last, stays)?;
    meta.is_cutting = false;
    folder.replace_meta(&meta)?;
    faults.reach("log.cut.done")?;
    Ok(meta)
}

/// What stands behind a record becomes zeros, where its segment is not sealed: then nothing does.
fn cut_off(folder: &Folder, last: Lsn, faults: &dyn Faults) -> Result<(), LogError> {
    let missing = || LogError::Broken {
        path: folder.segment(last.next()),
        detail: "no segment has the end to which the log was rolled back".to_owned(),
    };
    let segments = folder.segments()?;
    let (first, path) = segments.into_iter().rfind(|(first, _)| *first <= last.next()).ok_or_else(missing)?;
    let mut scan = Scan::open(&path, first)?.ok_or_else(missing)?;
    if scan.index()?.is_some() {
        return Ok(());
    }
    let offset = scan.begin_of(last.next())?;
    let synced = scan.word(SYNCED_AT)?.min(offset);
    let file = writable(&path)?;
    // No word says that what goes was on the disk before it goes.
    file.write_all_at(&synced.to_le_bytes(), SYNCED_AT).map_err(on("write", &path))?;
    file.sync_data().map_err(on("sync", &path))?;
    faults.reach("log.cut.marked")?;
    zero(&file, &path, offset)?;
    faults.reach("log.cut.zeroed")?;
    file.write_all_at(&0u64.to_le_bytes(), END_AT).map_err(on("write", &path))?;
    Ok(file.sync_data().map_err(on("sync", &path))?)
}

/// Rolls back the end of a log to which nobody appends, and which has no volume.
pub fn roll_back(path: &Path, last: Lsn, how: (bool, bool), parts: &LogParts) -> Result<RolledBack, LogError> {
    Quiet::take(path, parts.clock.wall_ms())?.roll_back(last, Lsn::ZERO, how, &*parts.faults)
}
