//! What a log holds, told by any process.

use super::error::LogError;
use super::folder::{Folder, Meta};
use super::open::appender_of;
use super::scan::Scan;
use littoral_format::log::{END_AT, Fold};
use littoral_types::{LogIndex, Lsn, Sessions, VolumeId};
use std::path::Path;

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentStats {
    /// The LSN of its first record.
    pub first: Lsn,
    /// How many records it has.
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
    /// In their order.
    pub segments: Vec<SegmentStats>,
    /// How far each session is.
    pub sessions: Sessions,
    /// Who appends, and since when.
    pub appender: Option<(String, String)>,
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
    Ok(found)
}

fn segment(index: &LogIndex, file_bytes: u64, is_sealed: bool) -> SegmentStats {
    let since = index.blocks.iter().map(|block| block.since_ms).min();
    let until = index.blocks.iter().map(|block| block.until_ms).max();
    SegmentStats {
        first: index.first,
        records: index.records,
        bytes: index.end - littoral_types::limits::LOG_HEAD_BYTES,
        file_bytes,
        is_sealed,
        times_ms: since.zip(until).filter(|(since, until)| since <= until),
    }
}
