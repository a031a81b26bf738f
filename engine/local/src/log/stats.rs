//! What a log holds, told by any process.

use super::error::LogError;
use super::folder::{Folder, Meta};
use super::open::appender_of;
use super::prefix::Stand;
use super::scan::{Found, Scan};
use super::void::count;
use littoral_format::log::{END_AT, Fold, entry_bytes};
use littoral_types::limits::LOG_HEAD_BYTES;
use littoral_types::{LogEntryKind, LogIndex, Lsn, Sessions, VolumeId};
use std::path::Path;

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentStats {
    /// The LSN of its first record.
    pub first: Lsn,
    /// How many records it has, those that are void included.
    pub records: u64,
    /// Bytes of its entries.
    pub bytes: u64,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Whether it is sealed.
    pub is_sealed: bool,
    /// The times of its earliest and its latest record, where it has any.
    pub times_ms: Option<(u64, u64)>,
}

/// A log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStats {
    /// Which.
    pub id: VolumeId,
    /// When it was made.
    pub created_ms: u64,
    /// The first record that was not truncated, or would be.
    pub start: Lsn,
    /// Its last record; the one before `start` where it has none.
    pub last: Lsn,
    /// How many of its records are void.
    pub void: u64,
    /// In their order.
    pub segments: Vec<SegmentStats>,
    /// How far each session is.
    pub sessions: Sessions,
    /// Who appends, and since when.
    pub appender: Option<(String, String)>,
}

/// Who appends to a log just now, and since when; nobody where that cannot be told.
pub fn appender(path: &Path) -> Option<(String, String)> {
    appender_of(&Folder::at(path))
}

/// Where a log ends, for who looks again and again: what was there the last time is not read once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    at: Stand,
    /// How often its end was rolled back by then.
    cuts: u64,
}

impl LogEnd {
    /// Its last record.
    pub fn last(&self) -> Lsn {
        Lsn(self.at.next.0.saturating_sub(1))
    }
}

/// Finds a log's end, from where it was found before.
pub fn end(path: &Path, before: Option<LogEnd>) -> Result<LogEnd, LogError> {
    let folder = Folder::at(path);
    let (meta, segments) = (folder.meta()?, folder.segments()?);
    let cuts = meta.newest_cut();
    let known = before.filter(|end| end.cuts == cuts && segments.iter().any(|(first, _)| *first == end.at.first));
    let newest = segments.last().map_or(meta.start, |(first, _)| *first);
    let mut at = known.map_or(Stand { first: newest, offset: LOG_HEAD_BYTES, next: newest }, |end| end.at);
    let from = at.first;
    for (first, path) in segments.iter().filter(|(first, _)| *first >= from) {
        if *first != at.first {
            if *first != at.next {
                break;
            }
            at = Stand { first: *first, offset: LOG_HEAD_BYTES, next: *first };
        }
        let Some(mut scan) = Scan::open(path, *first)? else { continue };
        if let Some(index) = scan.index()? {
            at = Stand { offset: index.end, next: index.next(), ..at };
            continue;
        }
        while at.next <= meta.limit() {
            // What is torn there is about to be published, or to be cut.
            let Found::Entry(entry, _) = scan.entry(at.offset, at.next)? else { break };
            at.offset += entry_bytes(entry.len as usize) as u64;
            at.next = if entry.kind == LogEntryKind::Record { at.next.next() } else { at.next };
        }
        if scan.word(END_AT)? != at.offset {
            break;
        }
    }
    Ok(LogEnd { at, cuts })
}

/// Looks at a log.
pub fn stats(path: &Path) -> Result<LogStats, LogError> {
    let folder = Folder::at(path);
    loop {
        let meta = folder.meta()?;
        let found = stats_of(&folder, &meta)?;
        // Of what goes meanwhile a part would be missing.
        if folder.meta()?.start == meta.start {
            return Ok(found);
        }
    }
}

pub(super) fn stats_of(folder: &Folder, meta: &Meta) -> Result<LogStats, LogError> {
    let mut found = LogStats {
        id: meta.id,
        created_ms: meta.created_ms,
        start: meta.start,
        last: Lsn(meta.start.0 - 1),
        void: 0,
        segments: Vec::new(),
        sessions: meta.sessions.clone(),
        appender: appender_of(folder),
    };
    let mut is_over = false;
    for (first, path) in folder.segments()?.into_iter().filter(|(first, _)| *first >= meta.start) {
        let Some(mut scan) = Scan::open(&path, first)? else { continue };
        let file_bytes = scan.len()?;
        let (index, is_sealed) = match scan.index()? {
            Some(index) => (index, true),
            // What stands behind a reservation that is not published yet is seen by nobody.
            None if is_over => break,
            None => {
                let mut fold = Fold::new(scan.head, &found.sessions);
                // What is torn there is about to be published, or to be cut.
                let _ = scan.take_up_to(&mut fold, meta.limit())?;
                is_over = scan.word(END_AT)? != fold.offset();
                (fold.index(), false)
            }
        };
        found.last = Lsn(index.next().0 - 1);
        for session in &index.sessions {
            found.sessions.insert(session.name.clone(), session.serial);
        }
        found.segments.push(segment(&index, file_bytes, is_sealed));
    }
    found.void = count(&meta.voids, found.start, found.last);
    Ok(found)
}

impl LogStats {
    /// How many records it has that are given to readers.
    pub fn records(&self) -> u64 {
        (self.last.0 + 1).saturating_sub(self.start.0).saturating_sub(self.void)
    }
}

fn segment(index: &LogIndex, file_bytes: u64, is_sealed: bool) -> SegmentStats {
    let since = index.blocks.iter().map(|block| block.since_ms).min();
    let until = index.blocks.iter().map(|block| block.until_ms).max();
    SegmentStats {
        first: index.first,
        records: index.records,
        bytes: index.end - LOG_HEAD_BYTES,
        file_bytes,
        is_sealed,
        times_ms: since.zip(until).filter(|(since, until)| since <= until),
    }
}
