//! For how long a log keeps its records, and how much of the disk they take: said once, kept with the log, and carried out by who appends.
//!
//! Like every truncation of the head it lets whole segments go that are sealed, and nothing that a cursor has not acknowledged, unless that was said.

use super::error::LogError;
use super::folder::Folder;
use super::truncate::{Truncated, truncate, truncate_past_cursors};
use littoral_ports::Faults;
use littoral_types::{Cut, Lsn};
use std::path::Path;

/// What a log keeps. Without either limit, everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Records that are not older, in milliseconds.
    pub within_ms: Option<u64>,
    /// So many bytes of the disk.
    pub bytes: Option<u64>,
    /// Whether also what cursors have not acknowledged goes.
    pub past_cursors: bool,
}

impl Keep {
    /// Everything.
    pub const ALL: Keep = Keep { within_ms: None, bytes: None, past_cursors: false };

    /// Whether it keeps everything.
    pub const fn is_all(&self) -> bool {
        self.within_ms.is_none() && self.bytes.is_none()
    }

    fn cuts(&self, now_ms: u64) -> impl Iterator<Item = Cut> {
        let older = self.within_ms.map(|within| Cut::OlderThan(now_ms.saturating_sub(within)));
        older.into_iter().chain(self.bytes.map(Cut::KeepBytes))
    }
}

/// What a log keeps.
pub fn keep(path: &Path) -> Result<Keep, LogError> {
    Ok(Folder::at(path).meta()?.keep)
}

/// Says it, from now on.
pub fn keep_to(path: &Path, keep: Keep) -> Result<(), LogError> {
    let folder = Folder::at(path);
    folder.meta()?;
    let _lock = folder.lock_change()?;
    let mut meta = folder.meta()?;
    if meta.keep != keep {
        meta.keep = keep;
        folder.replace_meta(&meta)?;
    }
    Ok(())
}

/// Where the log would begin that keeps no more than that. `None`: where it does.
pub fn outlived(path: &Path, now_ms: u64, faults: &dyn Faults) -> Result<Option<(Lsn, Keep)>, LogError> {
    let keep = keep(path)?;
    let mut start = None;
    for cut in keep.cuts(now_ms) {
        let would = match keep.past_cursors {
            true => truncate_past_cursors(path, cut, true, faults)?,
            false => truncate(path, cut, true, faults)?,
        };
        start = start.max(Some(would.start).filter(|start| *start > would.was));
    }
    Ok(start.map(|start| (start, keep)))
}

/// Lets go of what a log need not keep, which lives here alone.
pub fn retain(path: &Path, now_ms: u64, faults: &dyn Faults) -> Result<Option<Truncated>, LogError> {
    let Some((start, keep)) = outlived(path, now_ms, faults)? else { return Ok(None) };
    let cut = Cut::Before(start);
    match keep.past_cursors {
        true => truncate_past_cursors(path, cut, false, faults).map(Some),
        false => truncate(path, cut, false, faults).map(Some),
    }
}
