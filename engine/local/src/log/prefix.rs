//! What of a log is durable, for who carries it elsewhere while it is appended to.
//!
//! Nothing is told that a crash could still take back: an object store that is ahead of the disk would hold records that are not the log's (rule S2).
//! Of a log that this process appends to that is what it has synced. Of a table's log it is what its database counts, whoever appends: each row was
//! durable before the transaction that counts it committed. Of a log whose appender is gone it is what somebody found and synced in his place.

use super::error::LogError;
use super::folder::Folder;
use super::open::{Inner, locked};
use super::runs::Runs;
use super::scan::{Found, Scan};
use super::stats::stats;
use super::void::Void;
use crate::error::on;
use littoral_format::FormatError;
use littoral_format::log::entry_bytes;
use littoral_types::limits::LOG_SEGMENT_BYTES;
use littoral_types::{LogEntryKind, LogHead, LogIndex, Lsn, Sessions, VolumeId};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// How far somebody has come who carries a log elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// The segment, by the LSN of its first record.
    pub first: Lsn,
    /// The byte of it that is next.
    pub offset: u64,
    /// The LSN of the record that begins there.
    pub next: Lsn,
}

/// Entries of one segment, each verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// What the segment says of itself.
    pub head: LogHead,
    /// Where the last of them ends.
    pub to: u64,
    /// The LSN of the record after them.
    pub next: Lsn,
    /// The earliest time of their records. Later than the latest where there are none.
    pub since_ms: u64,
    /// The latest.
    pub until_ms: u64,
    /// Bytes of the segment's file, where it is sealed and these are its last.
    pub sealed: Option<u64>,
}

/// The durable prefix of a log.
#[derive(Clone, Debug)]
pub struct Prefix(Known);

#[derive(Clone, Debug)]
enum Known {
    /// This process appends.
    Ours(Arc<Inner>),
    /// A database counts the records up to this one; or somebody made all up to it durable who appends nothing, as long as the end was not rolled back
    /// since: it was then for the how manieth time.
    Counted(Folder, VolumeId, Lsn, Option<u64>),
}

impl Prefix {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self(Known::Ours(inner))
    }

    /// Of a table's log, up to the last record that its database counts. It may be appended to meanwhile, by whomever.
    pub fn counted(path: &Path, last: Lsn) -> Result<Self, LogError> {
        let folder = Folder::at(path);
        let id = folder.meta()?.id;
        Ok(Self(Known::Counted(folder, id, last, None)))
    }

    /// Of a log that was made durable up to this record, while nobody appended.
    pub(super) fn settled(folder: Folder, id: VolumeId, last: Lsn, cut: u64) -> Self {
        Self(Known::Counted(folder, id, last, Some(cut)))
    }

    /// Whether it holds: nobody has rolled the log's end back since.
    pub fn holds(&self) -> Result<bool, LogError> {
        match &self.0 {
            Known::Counted(folder, _, _, Some(cut)) => {
                let meta = folder.meta()?;
                Ok(meta.newest_cut() == *cut && !meta.is_cutting)
            }
            Known::Counted(..) | Known::Ours(_) => Ok(true),
        }
    }

    fn folder(&self) -> &Folder {
        match &self.0 {
            Known::Ours(inner) => &inner.folder,
            Known::Counted(folder, ..) => folder,
        }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder().path()
    }

    /// Its last record.
    pub fn last(&self) -> Lsn {
        match &self.0 {
            Known::Ours(inner) => inner.durable(),
            Known::Counted(_, _, last, _) => *last,
        }
    }

    /// The last record that the log has. Behind what a database counts there may be some of transactions that never committed, or of a state that it
    /// was taken back from.
    pub fn held(&self) -> Result<Lsn, LogError> {
        match &self.0 {
            Known::Ours(inner) => Ok(inner.durable()),
            Known::Counted(folder, ..) => Ok(stats(folder.path())?.last),
        }
    }

    /// Makes everything durable that was published before: it grows.
    pub fn sync(&self) -> Result<Lsn, LogError> {
        if let Known::Ours(inner) = &self.0 {
            inner.sync()?;
        }
        Ok(self.last())
    }

    /// Appending ends: somebody else appends elsewhere. To a table's log nothing is appended once its database is not written any more.
    pub fn fence(&self, why: &str) {
        if let Known::Ours(inner) = &self.0 {
            inner.fence(why);
        }
    }

    /// Where the log begins.
    pub fn start(&self) -> Result<Lsn, LogError> {
        Ok(self.folder().meta()?.start)
    }

    /// The same, and how far each session was before that.
    pub fn begins(&self) -> Result<(Lsn, Sessions), LogError> {
        let meta = self.folder().meta()?;
        Ok((meta.start, meta.sessions))
    }

    /// Which of its records are void.
    pub fn voids(&self) -> Result<Vec<Void>, LogError> {
        Ok(self.folder().meta()?.voids)
    }

    /// The entries of a segment from a place on, as far as they are durable. `None`: there are none, and the segment is not sealed there.
    pub fn walk(&self, from: Stand) -> Result<Option<Walked>, LogError> {
        match &self.0 {
            Known::Ours(inner) => walk_durable(inner, from),
            Known::Counted(folder, _, last, _) => walk_counted(folder, from, *last),
        }
    }

    /// Bytes of a segment's file.
    pub fn bytes(&self, first: Lsn, from: u64, to: u64) -> Result<Vec<u8>, LogError> {
        let path = self.folder().segment(first);
        let file = File::open(&path).map_err(on("open", &path))?;
        let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or_default()];
        file.read_exact_at(&mut bytes, from).map_err(on("read", &path))?;
        Ok(bytes)
    }

    /// Runs of a segment's file, as one object's bytes.
    pub fn runs(&self, first: Lsn, runs: Vec<(u64, u64)>) -> Result<Runs, LogError> {
        Runs::of(self.folder().segment(first), runs)
    }

    /// Which log it is.
    pub fn id(&self) -> VolumeId {
        match &self.0 {
            Known::Ours(inner) => inner.id(),
            Known::Counted(_, id, ..) => *id,
        }
    }
}

fn opened(path: &Path, first: Lsn) -> Result<Scan, LogError> {
    let missing = || LogError::Broken { path: path.to_owned(), detail: "the segment is missing".to_owned() };
    Scan::open(path, first)?.ok_or_else(missing)
}

fn walk_durable(inner: &Inner, from: Stand) -> Result<Option<Walked>, LogError> {
    let (last, durable) = locked(&inner.syncing).durable_at();
    if from.first > last {
        return Ok(None);
    }
    let path = inner.folder.segment(from.first);
    let scan = opened(&path, from.first)?;
    let sealed = if from.first < last { scan.index()? } else { None };
    let until = match &sealed {
        Some(index) => index.end,
        None if from.first == last => durable,
        None => {
            let detail = "another one follows it, and it is not sealed".to_owned();
            return Err(LogError::Broken { path, detail });
        }
    };
    walked_to(scan, from, until, Lsn(u64::MAX), sealed)
}

/// The same up to the last record that is counted. Where that is in a later segment this one was sealed before it was synced.
fn walk_counted(folder: &Folder, from: Stand, last: Lsn) -> Result<Option<Walked>, LogError> {
    let path = folder.segment(from.first);
    if from.first > last {
        return Ok(None);
    }
    let scan = opened(&path, from.first)?;
    let sealed = scan.index()?.filter(|index| index.next() <= last.next());
    if sealed.is_none() && from.next > last {
        return Ok(None);
    }
    let until = sealed.as_ref().map_or(LOG_SEGMENT_BYTES, |index| index.end);
    walked_to(scan, from, until, last, sealed)
}

/// Verifies entries up to a place, or to a record; with an index, up to its end.
fn walked_to(
    mut scan: Scan,
    from: Stand,
    until: u64,
    last: Lsn,
    sealed: Option<LogIndex>,
) -> Result<Option<Walked>, LogError> {
    scan.stop_at(until);
    let path = scan.path.clone();
    let mut walked =
        Walked { head: scan.head, to: from.offset, next: from.next, since_ms: u64::MAX, until_ms: 0, sealed: None };
    while walked.to < until && (walked.next <= last || sealed.is_some()) {
        let damaged = LogError::damaged(&path, walked.to, walked.next);
        match scan.entry(walked.to, walked.next)? {
            Found::Entry(entry, _) => {
                walked.to += entry_bytes(entry.len as usize) as u64;
                if entry.kind == LogEntryKind::Record {
                    walked.next = walked.next.next();
                    walked.since_ms = walked.since_ms.min(entry.time_ms);
                    walked.until_ms = walked.until_ms.max(entry.time_ms);
                }
            }
            Found::Nothing => return Err(damaged(FormatError::Truncated { what: "log entry" })),
            Found::Torn(source) => return Err(damaged(source)),
        }
    }
    if let Some(index) = sealed {
        if index.next() != walked.next {
            let detail = format!("its index says that LSN {} follows, and LSN {} does", index.next(), walked.next);
            return Err(LogError::Broken { path, detail });
        }
        walked.sealed = Some(path.metadata().map_err(on("look at", &path))?.len());
    }
    Ok((walked.to > from.offset || walked.sealed.is_some()).then_some(walked))
}
