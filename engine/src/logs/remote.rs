//! A log read where it was shipped to: by number or by time, from where nothing of it is, and on as it grows.
//!
//! What this room promises:
//! 1. What is read is verified, entry by entry: records come in the order of their LSNs, none twice and none left out but those that were not asked for.
//! 2. Of a sealed segment the index and the blocks are fetched that may hold what was asked for, and nothing else: a range costs what matches it.
//!    Where the rows travel with the manifest snapshot, the first record is there after three requests one after another: what names the log's
//!    end, then what came since and, beside it, the first index that matches, then a block.
//! 3. Who follows asks for the next name in the volume's log, and nothing else while there is none (rule P8).
//! 4. What was rolled back is given to nobody, and whoever has read some of it is told where the log goes on.

use super::restore::joined;
use super::{Range, Record};
use crate::error::EngineError;
use crate::exec::fetch::blob_path;
use crate::exec::rebuild::{Rows, apply, snapshot_rows};
use crate::log::read::is_missing;
use crate::log::{Log as VolumeLog, Opened};
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_format as format;
use littoral_format::FormatError;
use littoral_format::log::{ENTRY_HEAD_BYTES, decode_entry, decode_index, entry_bytes, read_head};
use littoral_local::log::LogError;
use littoral_local::log::void::{Void, around, is_void, newest};
use littoral_plan::follows;
use littoral_types::{
    ByteSpan, ChunkId, Head, LogEntryHead, LogEntryKind, LogHead, LogIndex, LogRow, Lsn, RecordKind, SessionName,
};
use std::collections::{BTreeMap, VecDeque};

/// Blocks that lie together travel together, up to so many bytes.
const RUN_BYTES: u64 = 1 << 20;
/// Of runs that are wanted the first goes alone, and then more and more at once, up to this.
const RUNS_MAX: usize = 8;
/// So many looks for the next name, then one for the newest: a prune may have taken the next.
const LOOKS: u64 = 32;

/// What reading has cost besides opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Requests for indexes, blocks and pieces.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Reads a log in its volume.
#[derive(Debug)]
pub struct RemoteReader {
    log: VolumeLog,
    opened: Opened,
    rows: Rows,
    range: Range,
    /// The next record.
    next: Lsn,
    /// What was read and is not yet given away.
    ready: VecDeque<Record>,
    at: Option<Place>,
    looks: u64,
    fetched: Fetched,
    /// The index of a segment that was asked for beforehand.
    foreseen: Option<(LogRow, LogIndex)>,
    /// What was rolled back.
    taken_back: Vec<Void>,
}

/// A segment that is being read.
#[derive(Debug)]
struct Place {
    head: LogHead,
    /// Names by number.
    names: BTreeMap<u32, SessionName>,
    /// Whether the names of all numbers are known that may come.
    knows_names: bool,
    /// What is left to fetch: from, to, and the LSN at its beginning.
    runs: VecDeque<(u64, u64, Lsn)>,
    at_once: usize,
    /// The LSN after the segment.
    end: Lsn,
}

impl RemoteReader {
    /// Opens a log's volume at its newest state.
    pub async fn open(log: VolumeLog, range: Range) -> Result<Self, EngineError> {
        let beside = |head: &Head| {
            let rows = head.inline.iter().flat_map(|snapshot| &snapshot.rows);
            let row =
                rows.filter_map(|row| row.segment.as_ref()).find(|row| may_hold(row, &range, range.from)).cloned();
            let (log, id) = (&log, head.volume);
            async move {
                let row = row.filter(|row| row.sealed.is_some())?;
                let read = index_of(log, &row).await;
                Some((id, row, read))
            }
        };
        let (opened, foreseen) = log.open_beside(beside).await?.ok_or_else(|| EngineError::NoVolume(log.url()))?;
        let mut reader = Self::at(log, opened, range).await?;
        // Whatever is wrong with it is found again, and told, where it is still wanted.
        if let Some((id, row, Ok((index, bytes)))) = foreseen.flatten() {
            reader.fetched.add(bytes);
            reader.foreseen = Some((row, index)).filter(|_| id == reader.opened.meta.id);
        }
        Ok(reader)
    }

    /// Reads a log as it was at a state.
    pub async fn at(log: VolumeLog, opened: Opened, range: Range) -> Result<Self, EngineError> {
        EngineError::unless_log(&log.url(), opened.meta.kind)?;
        let rows = rows_of(&log, &opened).await?;
        let start = start_of(&rows, &opened);
        if range.from != Lsn::ZERO && range.from < start {
            return Err(LogError::Truncated { asked: range.from, start }.into());
        }
        let taken_back = taken_back(&rows);
        // Whoever asks for what follows one of them has read that.
        if let Some((from, to)) = around(&taken_back, range.from).filter(|(from, _)| range.from > *from) {
            return Err(rolled_back(range.from, (from, to)));
        }
        let next = range.from.max(start);
        let (ready, fetched, foreseen) = (VecDeque::new(), Fetched::default(), None);
        Ok(Self { log, opened, rows, range, next, ready, at: None, looks: 0, fetched, foreseen, taken_back })
    }

    /// Where the newest so many records begin that a log's volume has.
    pub async fn newest(log: &VolumeLog, records: u64) -> Result<Lsn, EngineError> {
        let reader = Self::open(log.clone(), Range::ALL).await?;
        let voids = joined(segments(&reader.rows).flat_map(|(_, row)| row.voids()));
        Ok(newest(&voids, (start_of(&reader.rows, &reader.opened), reader.last()), records))
    }

    /// The columns of its rows, where it is a table's and has some, as SQL declares them.
    pub fn columns(&self) -> Option<&[String]> {
        let newest = self.rows.values().rev().find_map(|row| row.segment.as_ref()?.table.as_ref())?;
        Some(&newest.columns)
    }

    /// The last record that the volume has, as far as it was looked.
    pub fn last(&self) -> Lsn {
        self.opened.tail.lsn
    }

    /// What reading has cost so far, besides opening.
    pub const fn fetched(&self) -> Fetched {
        self.fetched
    }

    /// The next record. `None`: there is none in the range, as far as it was looked.
    pub async fn next_record(&mut self) -> Result<Option<Record>, EngineError> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                self.next = record.lsn.next();
                return Ok(Some(record));
            }
            if self.next > self.range.to || self.next > self.opened.tail.lsn {
                return Ok(None);
            }
            match Box::pin(self.read_on()).await {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                // Pruned since, or folded: the same records are elsewhere by now (rule P2).
                Err(error) if is_missing(&error) => {
                    let before = self.opened.tail.seq;
                    self.look_again().await?;
                    if self.opened.tail.seq == before {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks whether the volume has more by now. Whether it has.
    pub async fn look(&mut self) -> Result<bool, EngineError> {
        self.looks += 1;
        let (before, seq) = (self.opened.tail.lsn, self.opened.tail.seq);
        if self.looks.is_multiple_of(LOOKS) {
            if self.log.newest().await? != Some(self.opened.tail.seq) {
                self.look_again().await?;
            }
            return Ok(self.opened.tail.lsn > before);
        }
        while let Some(record) = self.log.record(self.opened.tail.seq.next()).await? {
            if follows(&self.opened.link(), &record.envelope.header, record.envelope.kind).is_err() {
                self.look_again().await?;
                break;
            }
            if record.envelope.kind != RecordKind::Index {
                apply(&mut self.rows, record.body.ops());
            }
            self.opened.extend(&record).map_err(|source| self.log.serials(source))?;
            self.at = None;
        }
        if self.opened.tail.seq > seq {
            self.refuse_taken_back()?;
        }
        Ok(self.opened.tail.lsn > before)
    }

    /// Whoever has read what was rolled back since it was looked last is told.
    fn refuse_taken_back(&mut self) -> Result<(), EngineError> {
        let before = std::mem::replace(&mut self.taken_back, taken_back(&self.rows));
        let read = Lsn(self.next.0.saturating_sub(1));
        match around(&self.taken_back, read).filter(|_| !is_void(&before, read)) {
            Some(void) => Err(rolled_back(self.next, void)),
            None => Ok(()),
        }
    }

    async fn look_again(&mut self) -> Result<(), EngineError> {
        let url = self.log.url();
        let opened = self.log.open().await?.ok_or_else(|| EngineError::NoVolume(url.clone()))?;
        if opened.meta.id != self.opened.meta.id {
            let detail = "another volume was made under this name since".to_owned();
            return Err(EngineError::NotAVolume { volume: url, detail });
        }
        self.rows = rows_of(&self.log, &opened).await?;
        self.opened = opened;
        self.at = None;
        let start = start_of(&self.rows, &self.opened);
        if self.next < start {
            return Err(LogError::Truncated { asked: self.next, start }.into());
        }
        self.refuse_taken_back()
    }

    /// Fetches what comes next. False: there is nothing.
    async fn read_on(&mut self) -> Result<bool, EngineError> {
        let Some(mut place) = self.at.take() else {
            let row = self.rows.values().filter_map(|row| row.segment.as_ref()).find(|row| row.next() > self.next);
            let Some(row) = row.cloned() else { return Ok(false) };
            if row.first > self.next {
                return Err(self.log.inconsistent(format!("no segment of it holds LSN {}", self.next)));
            }
            self.at = Some(self.enter(&row).await?);
            return Ok(true);
        };
        let row = self.rows.values().filter_map(|row| row.segment.as_ref()).find(|row| row.first == place.head.first);
        let row = row.cloned().ok_or_else(|| self.log.inconsistent("a segment of it is gone".to_owned()))?;
        let runs: Vec<(u64, u64, Lsn)> = place.runs.drain(..place.at_once.min(place.runs.len())).collect();
        place.at_once = (place.at_once * 2).min(RUNS_MAX);
        if runs.is_empty() {
            self.next = self.next.max(place.end);
            return Ok(true);
        }
        let read: Vec<Vec<u8>> = stream::iter(runs.iter())
            .map(|(from, to, _)| bytes_of(&self.log, &row, *from, *to))
            .buffered(RUNS_MAX)
            .try_collect()
            .await?;
        for ((from, _, first), bytes) in runs.into_iter().zip(read) {
            self.fetched.add(bytes.len() as u64);
            let mut found = Vec::new();
            let object = object_of(&self.log, &row, from);
            let mut is_named = true;
            let place_of = &mut place;
            walk(&object, &place_of.head, first, &bytes, |lsn, entry, body| match entry.kind {
                LogEntryKind::Session => drop(name(entry, body).map(|name| place_of.names.insert(entry.session, name))),
                LogEntryKind::Record => {
                    let is_asked = (self.next..=self.range.to).contains(&lsn)
                        && !row.is_void(lsn)
                        && (self.range.since_ms..=self.range.until_ms).contains(&entry.time_ms);
                    if is_asked {
                        is_named &= entry.session == 0 || place_of.names.contains_key(&entry.session);
                        found.push((lsn, *entry, body.to_vec()));
                    }
                }
            })?;
            if !is_named && !place.knows_names {
                // Named before what was read: once, all that is before.
                let before = bytes_of(&self.log, &row, row.span().0, from).await?;
                self.fetched.add(before.len() as u64);
                let object = object_of(&self.log, &row, row.span().0);
                walk(&object, &place.head, row.first, &before, |_, entry, body| {
                    if let (LogEntryKind::Session, Some(name)) = (entry.kind, name(entry, body)) {
                        place.names.insert(entry.session, name);
                    }
                })?;
                place.knows_names = true;
            }
            for (lsn, entry, body) in found {
                let session = place.names.get(&entry.session).cloned();
                if session.is_none() != (entry.session == 0) {
                    let detail = format!("LSN {lsn} is of session {}, which its segment has not named", entry.session);
                    return Err(EngineError::Inconsistent {
                        volume: self.log.url(),
                        detail: format!("{object}: {detail}"),
                    });
                }
                let (time_ms, serial) = (entry.time_ms, entry.serial);
                self.ready.push_back(Record { lsn, time_ms, session, serial, body });
            }
        }
        self.at = Some(place);
        Ok(true)
    }

    /// What of a segment is to be fetched.
    async fn enter(&mut self, row: &LogRow) -> Result<Place, EngineError> {
        let head = LogHead { log: self.opened.meta.log(), first: row.first, created_ms: row.created_ms };
        let mut place = Place {
            head,
            names: BTreeMap::new(),
            knows_names: false,
            runs: VecDeque::new(),
            at_once: 1,
            end: row.next(),
        };
        if !may_hold(row, &self.range, self.next) {
            return Ok(place);
        }
        if row.sealed.is_none() {
            let from = row.pieces.iter().rposition(|piece| piece.first <= self.next).unwrap_or(0);
            let pieces = row.pieces.iter().skip(from).filter(|piece| piece.first <= self.range.to);
            place.runs = pieces.map(|piece| (piece.from, piece.to, piece.first)).collect();
            place.knows_names = from == 0;
            return Ok(place);
        }
        let index = match self.foreseen.take() {
            Some((foreseen, index)) if foreseen == *row => index,
            _ => {
                let (index, bytes) = index_of(&self.log, row).await?;
                self.fetched.add(bytes);
                index
            }
        };
        let named = index.sessions.iter().filter(|session| session.number > 0);
        place.names = named.map(|session| (session.number, session.name.clone())).collect();
        place.knows_names = true;
        let mut runs: Vec<(u64, u64, Lsn)> = Vec::new();
        for (nth, block) in index.blocks.iter().enumerate() {
            let after = index.blocks.get(nth + 1).map_or(index.next(), |after| after.first);
            let is_asked = after > self.next
                && around(row.voids(), block.first).is_none_or(|(_, to)| to.next() < after)
                && block.first <= self.range.to
                && block.until_ms >= self.range.since_ms
                && block.since_ms <= self.range.until_ms;
            if !is_asked {
                continue;
            }
            let end = index.end_of(nth);
            match runs.last_mut() {
                Some((from, to, _)) if *to == block.offset && end - *from <= RUN_BYTES => *to = end,
                _ => runs.push((block.offset, end, block.first)),
            }
        }
        place.runs = runs.into();
        Ok(place)
    }
}

impl Fetched {
    const fn add(&mut self, bytes: u64) {
        self.requests += 1;
        self.bytes += bytes;
    }
}

/// What was rolled back of a log, as its rows say.
fn taken_back(rows: &Rows) -> Vec<Void> {
    joined(segments(rows).flat_map(|(_, row)| &row.taken_back))
}

fn rolled_back(asked: Lsn, (from, to): Void) -> EngineError {
    LogError::RolledBack { asked, end: Lsn(from.0 - 1), next: to.next() }.into()
}

/// Whether a segment may hold something of a range, of which all before `next` is done.
fn may_hold(row: &LogRow, range: &Range, next: Lsn) -> bool {
    row.next() > next && row.first <= range.to && row.until_ms >= range.since_ms && row.since_ms <= range.until_ms
}

/// The index of a sealed segment, and its stored bytes.
async fn index_of(log: &VolumeLog, row: &LogRow) -> Result<(LogIndex, u64), EngineError> {
    let bytes = bytes_of(log, row, row.end, row.span().1).await?;
    let object = object_of(log, row, row.end);
    let index = decode_index(&bytes).map_err(EngineError::damaged(&object))?;
    if index.first != row.first || index.end != row.end || index.records != row.records {
        return Err(log.inconsistent(format!("{object}: its index is another segment's")));
    }
    Ok((index, bytes.len() as u64))
}

/// A log's segments as of a state: those that travel with the manifest snapshot, where they do, or what its shards say.
pub(crate) async fn rows_of(log: &VolumeLog, opened: &Opened) -> Result<Rows, EngineError> {
    let mut rows = Rows::new();
    if let Some(snapshot) = &opened.snapshot {
        let listed: u64 = snapshot.shards.iter().map(|shard| shard.rows.len() as u64).sum();
        if listed == snapshot.rows.len() as u64 {
            rows.extend(snapshot.rows.iter().cloned().map(|row| (row.chunk, row)));
        } else {
            rows.extend(snapshot_rows(log, snapshot).await?);
        }
    }
    apply(&mut rows, &opened.ops);
    Ok(rows)
}

/// The same, one after another.
pub(crate) async fn segments_of(log: &VolumeLog, opened: &Opened) -> Result<Vec<(ChunkId, LogRow)>, EngineError> {
    let rows = rows_of(log, opened).await?;
    Ok(rows.into_values().filter_map(|row| Some((row.chunk, row.segment?))).collect())
}

/// Where a log begins in its volume.
pub(crate) fn start_of(rows: &Rows, opened: &Opened) -> Lsn {
    rows.values().find_map(|row| row.segment.as_ref()).map_or(opened.tail.lsn.next(), |row| row.first)
}

/// The object in which a byte of a segment lies, for an error.
pub(crate) fn object_of(log: &VolumeLog, row: &LogRow, at: u64) -> String {
    let piece = row.pieces.iter().find(|piece| piece.to > at);
    piece.map_or_else(|| log.url(), |piece| blob_path(log, &piece.blob).to_string())
}

/// Bytes of a segment, from wherever they lie.
pub(crate) async fn bytes_of(log: &VolumeLog, row: &LogRow, from: u64, to: u64) -> Result<Vec<u8>, EngineError> {
    let pieces: Vec<_> = row.pieces.iter().filter(|piece| piece.to > from && piece.from < to).collect();
    let parts: Vec<bytes::Bytes> = stream::iter(pieces)
        .map(|piece| async move {
            let (begin, end) = (piece.from.max(from), piece.to.min(to));
            let span = ByteSpan { offset: piece.at + (begin - piece.from), len: end - begin };
            log.remote().get_range(&blob_path(log, &piece.blob), span).await
        })
        .buffered(RUNS_MAX)
        .try_collect()
        .await?;
    let bytes = parts.concat();
    if bytes.len() as u64 != to - from {
        let what = format!("{} bytes of it were read instead of {}", bytes.len(), to - from);
        return Err(log.inconsistent(format!("{}: {what}", object_of(log, row, from))));
    }
    Ok(bytes)
}

fn name(entry: &LogEntryHead, body: &[u8]) -> Option<SessionName> {
    match entry.kind {
        LogEntryKind::Session => std::str::from_utf8(body).ok()?.parse().ok(),
        LogEntryKind::Record => None,
    }
}

/// Shows all entries of some bytes, each verified; the bytes end with the last.
fn walk(
    object: &str,
    head: &LogHead,
    first: Lsn,
    bytes: &[u8],
    mut show: impl FnMut(Lsn, &LogEntryHead, &[u8]),
) -> Result<(), EngineError> {
    let (mut at, mut lsn) = (0, first);
    while at < bytes.len() {
        let cut = || FormatError::Truncated { what: "log entry" };
        let rest = &bytes[at..];
        let fits = rest.get(..ENTRY_HEAD_BYTES).ok_or_else(cut).map_err(EngineError::damaged(object))?;
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(fits.chunks_exact(8)) {
            *word = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        }
        let known = read_head(words).map_err(EngineError::damaged(object))?;
        let len = known.map(|known| entry_bytes(known.len as usize)).ok_or_else(cut);
        let len = len.map_err(EngineError::damaged(object))?;
        let whole = rest.get(..len).ok_or_else(cut).map_err(EngineError::damaged(object))?;
        let (entry, body) = decode_entry(head, lsn, whole)
            .and_then(|found| found.ok_or_else(cut))
            .map_err(EngineError::damaged(object))?;
        show(lsn, &entry, body);
        if entry.kind == LogEntryKind::Record {
            lsn = lsn.next();
        }
        at += len;
    }
    Ok(())
}

/// The segments of a log by their numbers, for who looks at all of them.
pub(crate) fn segments(rows: &Rows) -> impl Iterator<Item = (ChunkId, &LogRow)> {
    rows.values().filter_map(|row| Some((row.chunk, row.segment.as_ref()?)))
}

/// A blob's bytes, verified to be those it is named after, of those that a segment is made of.
pub(crate) async fn piece_of(
    log: &VolumeLog,
    piece: &littoral_types::LogPiece,
    whole: &mut Option<(littoral_types::BlobRef, bytes::Bytes)>,
) -> Result<bytes::Bytes, EngineError> {
    if whole.as_ref().is_none_or(|(blob, _)| *blob != piece.blob) {
        let path = blob_path(log, &piece.blob);
        let bytes = match piece.blob.name.kind {
            littoral_types::BlobKind::Record => {
                let span = ByteSpan { offset: format::record::HEADER_BYTES_MAX as u64, len: piece.blob.len };
                let bytes = log.remote().get_range(&path, span).await?;
                if format::hash::blob(&bytes) != piece.blob.name.hash {
                    return Err(EngineError::damaged(&path)(FormatError::Checksum {
                        what: "what travels in a record",
                    }));
                }
                bytes
            }
            _ => log.blob(&path, &piece.blob.name).await?,
        };
        *whole = Some((piece.blob.clone(), bytes));
    }
    let Some((_, bytes)) = whole else { return Ok(bytes::Bytes::new()) };
    let at = match piece.blob.name.kind {
        littoral_types::BlobKind::Record => piece.at.saturating_sub(format::record::HEADER_BYTES_MAX as u64),
        _ => piece.at,
    };
    let (from, to) =
        (usize::try_from(at).unwrap_or(usize::MAX), usize::try_from(at + piece.len()).unwrap_or(usize::MAX));
    if from > to || to > bytes.len() {
        let detail = format!("{} ends before a piece of it does", blob_path(log, &piece.blob));
        return Err(log.inconsistent(detail));
    }
    Ok(bytes.slice(from..to))
}
