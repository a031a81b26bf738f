//! A log as blocks, for who reads many ranges of it and knows of each block what it may hold: a table in SQL.
//!
//! 1. Where blocks begin is read once: of a sealed segment out of its index, of the last one by going on where the last look ended.
//! 2. Every entry that is given out is verified. A block is read by itself.
//! 3. What is kept beside sealed segments (`zones/`) is a cache: of another log, damaged or lost, it is made anew.

use super::error::LogError;
use super::folder::Folder;
use super::scan::{Found, Scan, name_in};
use crate::durable::{create_dirs, replace};
use crate::error::on;
use littoral_format::FormatError;
use littoral_format::log::{Fold, Zones, decode_entry, decode_zones, encode_zones, entry_bytes};
use littoral_types::{LogEntryKind, LogHead, LogIndex, LogZone, Lsn, Sessions, VolumeId};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What was published may be seen a moment later than who published it says.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// A log, as far as this process has looked at it.
#[derive(Debug)]
pub struct Blocks {
    folder: Folder,
    id: VolumeId,
    known: Mutex<Known>,
    zones: Mutex<BTreeMap<Lsn, ZonesOfBlocks>>,
    read: AtomicU64,
    skipped: AtomicU64,
}

/// Of each block of a segment, where they are known.
type ZonesOfBlocks = Vec<Option<Arc<[LogZone]>>>;

#[derive(Debug, Default)]
struct Known {
    start: Lsn,
    sealed: BTreeMap<Lsn, Arc<Part>>,
    tail: Option<(Scan, Fold)>,
}

/// A segment: where its blocks are.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    head: LogHead,
    is_sealed: bool,
    /// What its index says, or would.
    pub index: LogIndex,
}

/// A block's records.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
    records: Vec<(Lsn, u64, Range<usize>)>,
}

impl Block {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// One of them: its LSN, its time, its bytes.
    pub fn record(&self, nth: usize) -> Option<(Lsn, u64, &[u8])> {
        let (lsn, time_ms, place) = self.records.get(nth)?;
        Some((*lsn, *time_ms, self.bytes.get(place.clone())?))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Part {
    /// The LSN after the last one of a block.
    pub fn after(&self, block: usize) -> Lsn {
        self.index.blocks.get(block + 1).map_or(self.index.next(), |next| next.first)
    }

    /// Whether nothing is added to a block any more.
    pub fn is_done(&self, block: usize) -> bool {
        self.is_sealed || block + 1 < self.index.blocks.len()
    }
}

impl Blocks {
    /// Of the log in a folder.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let folder = Folder::at(path);
        let id = folder.meta()?.id;
        let (read, skipped) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { folder, id, known: Mutex::default(), zones: Mutex::default(), read, skipped })
    }

    /// Which log.
    pub fn id(&self) -> VolumeId {
        self.id
    }

    /// Where the log begins, and its segments up to a record, which must be there.
    pub fn up_to(&self, last: Lsn) -> Result<(Lsn, Vec<Arc<Part>>), LogError> {
        let mut known = locked(&self.known);
        for _ in 0..TRIES {
            let start = self.folder.meta()?.start;
            if known.start != start {
                known.sealed.retain(|first, _| *first >= start);
                locked(&self.zones).retain(|first, _| *first >= start);
                known.start = start;
            }
            if self.look(&mut known, start, last)? {
                let mut parts: Vec<Arc<Part>> = known.sealed.values().cloned().collect();
                if let Some((scan, fold)) = &known.tail {
                    let (path, head, index) = (scan.path.clone(), scan.head, fold.index());
                    parts.push(Arc::new(Part { path, head, is_sealed: false, index }));
                }
                return Ok((start, parts));
            }
            std::thread::sleep(PAUSE);
        }
        let sealed = known.sealed.last_key_value().map_or(known.start, |(_, part)| part.index.next());
        let end = known.tail.as_ref().map_or(sealed, |(_, fold)| fold.next());
        Err(LogError::Beyond { asked: last, last: Lsn(end.0.saturating_sub(1)) })
    }

    /// Looks on from where the last look ended. Whether the record is there.
    fn look(&self, known: &mut Known, start: Lsn, last: Lsn) -> Result<bool, LogError> {
        loop {
            let at = known.sealed.last_key_value().map_or(start, |(_, part)| part.index.next());
            if known.tail.as_ref().is_none_or(|(scan, _)| scan.head.first != at) {
                known.tail = None;
                if last < at && !self.folder.segment(at).exists() {
                    return Ok(true);
                }
                let Some(scan) = Scan::open(&self.folder.segment(at), at)? else { return Ok(false) };
                let fold = Fold::new(scan.head, &Sessions::new());
                known.tail = Some((scan, fold));
            }
            let Some((scan, fold)) = &mut known.tail else { return Ok(false) };
            if last >= fold.next() || fold.next() == fold.head().first {
                if let Some(index) = scan.index()? {
                    let part = Part { path: scan.path.clone(), head: scan.head, is_sealed: true, index };
                    known.sealed.insert(at, Arc::new(part));
                    known.tail = None;
                    continue;
                }
                scan.forget();
                take_all(scan, fold)?;
            }
            if last < fold.next() {
                return Ok(true);
            }
            let next = fold.next();
            if !self.folder.segment(next).exists() {
                return Ok(false);
            }
            // It is full, and not sealed yet: it is taken for what it is.
            let part = Part { path: scan.path.clone(), head: scan.head, is_sealed: true, index: fold.index() };
            known.sealed.insert(at, Arc::new(part));
            known.tail = None;
        }
    }

    /// Reads a block.
    pub fn read(&self, part: &Part, block: usize) -> Result<Block, LogError> {
        let Some(found) = part.index.blocks.get(block) else {
            return Ok(Block { bytes: Vec::new(), records: Vec::new() });
        };
        self.read.fetch_add(1, Ordering::Relaxed);
        let (begin, end) = (found.offset, part.index.end_of(block));
        let mut bytes = vec![0; usize::try_from(end - begin).unwrap_or_default()];
        let file = File::open(&part.path).map_err(on("open", &part.path))?;
        file.read_exact_at(&mut bytes, begin).map_err(on("read", &part.path))?;
        let mut records = Vec::new();
        let (mut at, mut lsn) = (0, found.first);
        while at < bytes.len() {
            let damaged = |source| LogError::damaged(&part.path, begin + at as u64, lsn)(source);
            let entry = decode_entry(&part.head, lsn, &bytes[at..]).map_err(damaged)?;
            let Some((entry, body)) = entry else { return Err(damaged(FormatError::Truncated { what: "log entry" })) };
            let body =
                at + littoral_format::log::ENTRY_HEAD_BYTES..at + littoral_format::log::ENTRY_HEAD_BYTES + body.len();
            at += entry_bytes(entry.len as usize);
            if entry.kind == LogEntryKind::Record {
                records.push((lsn, entry.time_ms, body));
                lsn = lsn.next();
            }
        }
        Ok(Block { bytes, records })
    }

    /// A block was passed over: by what it is between, it holds nothing that was asked for.
    pub fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// How many blocks this process has read, and how many it has passed over.
    pub fn counts(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.skipped.load(Ordering::Relaxed))
    }

    /// What a block's values are between, where that is known.
    pub fn zones(&self, part: &Part, block: usize, columns: usize) -> Option<Arc<[LogZone]>> {
        let mut all = locked(&self.zones);
        let known = all.entry(part.head.first).or_insert_with(|| self.kept(part, columns));
        known.get(block).cloned().flatten().filter(|zones| zones.len() == columns)
    }

    /// The same, found by who has read the block: kept beside the segment, once it is sealed and all of it is known.
    pub fn note_zones(&self, part: &Part, block: usize, zones: Vec<LogZone>) {
        if !part.is_done(block) {
            return;
        }
        let columns = zones.len();
        let mut all = locked(&self.zones);
        let known = all.entry(part.head.first).or_default();
        known.resize(known.len().max(part.index.blocks.len()), None);
        let Some(place) = known.get_mut(block).filter(|place| place.is_none()) else { return };
        *place = Some(zones.into());
        if !part.is_sealed || !known.iter().all(Option::is_some) {
            return;
        }
        let zones = known.iter().flatten().flat_map(|zones| zones.iter().cloned()).collect();
        let zones = Zones { log: part.head.log, first: part.head.first, columns, zones };
        drop(all);
        let path = self.folder.zones(part.head.first);
        let kept = encode_zones(&zones).map_err(LogError::damaged(&path, 0, zones.first)).and_then(|bytes| {
            create_dirs(crate::durable::parent(&path))?;
            Ok(replace(&path, &bytes)?)
        });
        if let Err(error) = kept {
            tracing::debug!(%error, "zones are not kept, and found again");
        }
    }

    fn kept(&self, part: &Part, columns: usize) -> ZonesOfBlocks {
        let read = || {
            let bytes = std::fs::read(self.folder.zones(part.head.first)).ok()?;
            let zones = decode_zones(&bytes).ok()?;
            let is_of_it = zones.log == part.head.log
                && zones.first == part.head.first
                && zones.columns == columns
                && zones.zones.len() == columns * part.index.blocks.len();
            is_of_it.then(|| zones.zones.chunks(columns).map(|zones| Some(Arc::from(zones))).collect())
        };
        if part.is_sealed { read().unwrap_or_default() } else { Vec::new() }
    }
}

fn take_all(scan: &mut Scan, fold: &mut Fold) -> Result<(), LogError> {
    let path = scan.path.clone();
    loop {
        let (entry, name) = match scan.entry(fold.offset(), fold.next())? {
            Found::Entry(entry, body) => (entry, name_in(&entry, body)),
            Found::Nothing | Found::Torn(_) => return Ok(()),
        };
        // Where a session was before this segment is not known here, and not asked.
        if let Some(name) = &name {
            fold.assume(name, entry.serial);
        }
        fold.take(&entry, name.as_ref()).map_err(|source| LogError::Serials { path: path.clone(), source })?;
    }
}
