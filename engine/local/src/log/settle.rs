//! What a process that is gone left of a log, made sound and durable by somebody who appends nothing: who carries it elsewhere in its place.
//!
//! 1. He holds the appender's lock for the milliseconds that this takes, and never while anything travels: what he was told is durable then, whoever
//!    appends meanwhile.
//! 2. Before that lock he takes one of his own, and lets it go after it. Whoever comes to append and finds the first taken waits for as long as the second
//!    is: nobody is refused because of him.
//! 3. Nothing is begun: no segment, no record. A log whose last segment is sealed stays so.

use super::error::LogError;
use super::folder::Folder;
use super::live::Live;
use super::open::take_lock_at_once;
use super::prefix::Prefix;
use super::recover::recover;
use super::roll_back::finish;
use crate::error::LocalError;
use crate::filesystem::require_local;
use crate::lock::WorkerLock;
use littoral_ports::Faults;
use littoral_types::Lsn;
use std::path::Path;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Settled {
    /// All of the log, for who carries it elsewhere: it is durable. It holds until the log's end is rolled back.
    pub prefix: Prefix,
    /// The first record of the segment that is open, or would be: all segments before it are sealed.
    pub open: Lsn,
    /// Bytes that were torn, or stood behind what was, and were never acknowledged as durable.
    pub cut_bytes: u64,
    /// What [`appended`] says until somebody else takes the log to append.
    pub mark: String,
}

/// Who took a log to append last, and when: other words whenever it was somebody else.
pub fn appended(path: &Path) -> String {
    std::fs::read_to_string(Folder::at(path).appender_lock()).unwrap_or_default()
}

/// Makes a log sound and durable to which nobody appends. `None`: somebody does, or is at this very work.
pub fn settle(path: &Path, now_ms: u64, faults: &dyn Faults) -> Result<Option<Settled>, LogError> {
    let folder = Folder::at(path);
    folder.meta()?;
    require_local(path)?;
    let _keeper = match WorkerLock::take(folder.keeper_lock()) {
        Ok(lock) => lock,
        Err(LocalError::Busy { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let _appender = match take_lock_at_once(&folder, now_ms) {
        Ok(lock) => lock,
        Err(LogError::Busy { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let _change = folder.lock_change()?;
    make_sound(&folder, faults).map(Some)
}

/// The same for who has these locks.
pub(super) fn make_sound(folder: &Folder, faults: &dyn Faults) -> Result<Settled, LogError> {
    let meta = finish(folder, folder.meta()?, faults)?;
    let found = recover(folder, &meta, faults)?;
    let open = match &found.tail {
        Some((path, fold)) => {
            let live = Live::resume(path, fold)?;
            live.sync(folder)?;
            live.synced(fold.offset());
            fold.head().first
        }
        None => found.next,
    };
    faults.reach("log.recover.open")?;
    let last = Lsn(found.next.0 - 1);
    let prefix = Prefix::settled(folder.clone(), meta.id, last, meta.newest_cut());
    Ok(Settled { prefix, open, cut_bytes: found.recovered.cut_bytes, mark: appended(folder.path()) })
}
