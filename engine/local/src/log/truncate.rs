//! Letting go of a log's oldest segments. By any process, also while another one appends.
//!
//! It is said first, in one write, where the log begins now; then files go, oldest first. Whoever dies in between had done it: what is left is removed by
//! the next one who truncates or appends.

use super::cursors::cursors_of;
use super::error::LogError;
use super::folder::Folder;
use super::scan::Scan;
use super::stats::stats_of;
use littoral_ports::Faults;
use littoral_types::{Cut, Lsn, Sessions};
use std::path::{Path, PathBuf};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Where the log began.
    pub was: Lsn,
    /// Where it begins now.
    pub start: Lsn,
    /// Segments that went.
    pub segments: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

struct Sealed {
    next: Lsn,
    sessions: Sessions,
    until_ms: u64,
    bytes: u64,
    path: PathBuf,
}

/// Truncates a log's head, up to where the last one of its cursors is. With `is_dry` it only says what would go.
pub fn truncate(path: &Path, cut: Cut, is_dry: bool, faults: &dyn Faults) -> Result<Truncated, LogError> {
    cut_off(path, cut, false, is_dry, faults)
}

/// The same, whatever cursors say: who stands there is told, when he comes for more, where the log begins now.
pub fn truncate_past_cursors(path: &Path, cut: Cut, is_dry: bool, faults: &dyn Faults) -> Result<Truncated, LogError> {
    cut_off(path, cut, true, is_dry, faults)
}

fn cut_off(
    path: &Path,
    cut: Cut,
    past_cursors: bool,
    is_dry: bool,
    faults: &dyn Faults,
) -> Result<Truncated, LogError> {
    let folder = Folder::at(path);
    folder.meta()?;
    let _lock = folder.lock_change()?;
    let mut meta = folder.meta()?;
    let mut sealed = Vec::new();
    let mut left = 0;
    for (first, path) in folder.segments()? {
        if first < meta.start {
            if !is_dry {
                folder.remove(&path)?;
            }
            continue;
        }
        let Some(scan) = Scan::open(&path, first)? else { continue };
        let bytes = path.metadata().map_or(0, |found| found.len());
        left += bytes;
        let Some(index) = scan.index()? else { break };
        sealed.push(Sealed {
            next: index.next(),
            until_ms: index.blocks.iter().map(|block| block.until_ms).max().unwrap_or_default(),
            sessions: index.sessions.into_iter().map(|session| (session.name, session.serial)).collect(),
            bytes,
            path,
        });
    }
    if let Cut::Before(asked) = cut {
        let last = stats_of(&folder, &meta)?.last;
        if asked > last.next() {
            return Err(LogError::Beyond { asked, last });
        }
    }
    let mut done = Truncated { was: meta.start, start: meta.start, segments: 0, bytes: 0 };
    // Under the lock under which cursors are made.
    let acked = cursors_of(&folder)?.into_iter().map(|cursor| cursor.acked).min().filter(|_| !past_cursors);
    let mut goes = |segment: &Sealed| {
        let is_asked = match cut {
            Cut::Before(lsn) => segment.next <= lsn,
            Cut::OlderThan(ms) => segment.until_ms < ms,
            Cut::KeepBytes(bytes) => left > bytes,
        };
        let is_let_go = acked.is_none_or(|acked| segment.next <= acked.next());
        left -= if is_asked { segment.bytes } else { 0 };
        is_asked && is_let_go
    };
    let gone: Vec<Sealed> = sealed.into_iter().take_while(|segment| goes(segment)).collect();
    let Some(last) = gone.last() else { return Ok(done) };
    done.start = last.next;
    done.segments = gone.len() as u64;
    done.bytes = gone.iter().map(|segment| segment.bytes).sum();
    if is_dry {
        return Ok(done);
    }
    meta.start = last.next;
    meta.sessions = last.sessions.clone();
    meta.voids.retain(|(_, to)| *to >= last.next);
    folder.replace_meta(&meta)?;
    faults.reach("log.truncate.said")?;
    for segment in &gone {
        folder.remove(&segment.path)?;
        faults.reach("log.truncate.removed")?;
    }
    folder.sync()?;
    Ok(done)
}

/// How far each session was before a place where a sealed segment ends. `None`: none ends there.
pub fn sessions_before(path: &Path, start: Lsn) -> Result<Option<Sessions>, LogError> {
    let folder = Folder::at(path);
    let meta = folder.meta()?;
    if meta.start == start {
        return Ok(Some(meta.sessions));
    }
    let segments = folder.segments()?;
    let Some((first, path)) = segments.into_iter().rfind(|(first, _)| *first < start) else { return Ok(None) };
    let Some(scan) = Scan::open(&path, first)? else { return Ok(None) };
    let index = scan.index()?.filter(|index| index.next() == start);
    Ok(index.map(|index| index.sessions.into_iter().map(|session| (session.name, session.serial)).collect()))
}
