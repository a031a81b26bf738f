//! A segment that is appended to: its file as memory that all appenders write, each where it has reserved room.
//!
//! 1. Room is reserved by one addition, of bytes and of records at once: a place has one LSN, and nobody waits for anybody.
//! 2. The first word of an entry is written last. Whoever sees it, sees all of the entry.
//! 3. The first reservation that does not fit ends the segment: its end is in the file before another segment is begun.
//! 4. Nothing behind the end is touched: the file may be cut there.

use super::error::LogError;
use super::folder::Folder;
use crate::error::{LocalError, on};
use crate::tracker::map::Map;
use littoral_format::log::{
    Batch, END_AT, ENTRIES_END_MAX, ENTRY_HEAD_BYTES, EntrySum, Fold, SYNCED_AT, Stamp, encode_head, encode_index,
    entry_bytes, read_head, words_of,
};
use littoral_ports::Faults;
use littoral_types::limits::{LOG_HEAD_BYTES, LOG_SEGMENT_BYTES};
use littoral_types::{LogEntryHead, LogEntryKind, LogHead, Lsn, Serial, SessionName};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

const WORD: u64 = 8;
const RECORDS_AT: u32 = 32;
const UNITS: u64 = u32::MAX as u64;
/// Less in one interval is no matter to whoever appends.
const READY_BYTES_MIN: u64 = 256 << 10;
/// Zeros that are written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Where a segment ends that takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) offset: u64,
    pub(super) records: u64,
}

/// A segment's file with all its room, before it has a name of its own.
#[derive(Debug)]
pub(super) struct Blank {
    path: PathBuf,
    file: File,
    map: Map,
}

#[derive(Debug)]
pub(super) struct Live {
    pub(super) head: LogHead,
    pub(super) path: PathBuf,
    file: File,
    map: Map,
    /// Reserved so far: records in the upper half, words in the lower.
    reserved: AtomicU64,
    /// Bytes of it that were written, and not through the map.
    written: AtomicU64,
    end: OnceLock<End>,
    /// Sessions that it names.
    numbers: Mutex<BTreeMap<SessionName, u32>>,
    /// Whether its name may be lost with the power.
    is_unnamed: AtomicBool,
}

impl Blank {
    /// Makes one. Its room is there then, or nothing is.
    pub(super) fn make(folder: &Folder) -> Result<Self, LocalError> {
        let path = folder.next();
        let made = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = made.map_err(on("create", &path))?;
        let map = allocate(&file).and_then(|()| Map::new(&file, 0, LOG_SEGMENT_BYTES as usize));
        match map {
            Ok(map) => Ok(Self { path, file, map }),
            Err(error) => {
                // What could not be made must not keep the room that others need.
                let _ = std::fs::remove_file(&path);
                Err(on("make room for the log's next segment,", &path)(error))
            }
        }
    }

    /// Makes a segment of it.
    pub(super) fn begin(self, folder: &Folder, head: LogHead) -> Result<Live, LogError> {
        let path = folder.segment(head.first);
        let bytes = encode_head(&head).map_err(LogError::damaged(&path, 0, head.first))?;
        self.file.write_all_at(&bytes, 0).map_err(on("write", &self.path))?;
        if !crate::durable::rename_new(&self.path, &path)? {
            let detail = "it is there already, and nobody but the appender makes it".to_owned();
            return Err(LogError::Broken { path, detail });
        }
        Ok(Live {
            head,
            path,
            file: self.file,
            map: self.map,
            reserved: AtomicU64::new(LOG_HEAD_BYTES / WORD),
            written: AtomicU64::new(0),
            end: OnceLock::new(),
            numbers: Mutex::default(),
            is_unnamed: AtomicBool::new(true),
        })
    }
}

pub(super) fn allocate(file: &File) -> std::io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, LOG_SEGMENT_BYTES) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => (0..LOG_SEGMENT_BYTES / ZEROS.len() as u64)
            .try_for_each(|at| file.write_all_at(&ZEROS, at * ZEROS.len() as u64)),
        done => Ok(done?),
    }
}

impl Live {
    /// The last segment of a log that is opened again, which was appended to as far as the fold goes.
    pub(super) fn resume(path: &Path, fold: &Fold) -> Result<Self, LogError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(on("open", path))?;
        let len = file.metadata().map_err(on("look at", path))?.len();
        if len != LOG_SEGMENT_BYTES {
            let detail = format!("it has {len} bytes, and one that is not sealed has {LOG_SEGMENT_BYTES}");
            return Err(LogError::Broken { path: path.to_owned(), detail });
        }
        let map = Map::new(&file, 0, LOG_SEGMENT_BYTES as usize).map_err(on("map", path))?;
        let head = *fold.head();
        let numbers = fold.sessions().into_keys().filter_map(|name| fold.number_of(&name).map(|number| (name, number)));
        Ok(Self {
            head,
            path: path.to_owned(),
            file,
            map,
            reserved: AtomicU64::new(((fold.next().0 - head.first.0) << RECORDS_AT) | (fold.offset() / WORD)),
            written: AtomicU64::new(0),
            end: OnceLock::new(),
            numbers: Mutex::new(numbers.collect()),
            is_unnamed: AtomicBool::new(true),
        })
    }

    /// Where it ends, once it takes no more.
    pub(super) fn end(&self) -> Option<End> {
        self.end.get().copied()
    }

    /// Whether more than half of it is reserved.
    pub(super) fn is_half_full(&self) -> bool {
        (self.reserved.load(Ordering::Relaxed) & UNITS) * WORD > LOG_SEGMENT_BYTES / 2
    }

    /// Has room made in memory for what comes next, as much as came through the map since this was asked last: whoever appends does not wait for it
    /// then.
    pub(super) fn make_ready(&self, before: &mut (Lsn, u64)) {
        let offset = (self.reserved.load(Ordering::Relaxed) & UNITS) * WORD;
        let mapped = offset.saturating_sub(self.written.load(Ordering::Relaxed));
        let (first, then) = std::mem::replace(before, (self.head.first, mapped));
        let came = if first == self.head.first { mapped.saturating_sub(then) } else { mapped };
        if came >= READY_BYTES_MIN {
            self.map.make_ready(offset as usize, came as usize);
        }
    }

    /// The LSN after the last one that was reserved.
    pub(super) fn reserved(&self) -> Lsn {
        let records = self.end().map_or_else(|| self.reserved.load(Ordering::SeqCst) >> RECORDS_AT, |end| end.records);
        Lsn(self.head.first.0 + records)
    }

    /// Room for so many bytes, and its LSN. `None`: the segment is full.
    fn reserve(&self, bytes: usize, records: u64) -> Option<(u64, Lsn)> {
        if self.end.get().is_some() {
            return None;
        }
        let before = self.reserved.fetch_add((records << RECORDS_AT) | (bytes as u64 / WORD), Ordering::SeqCst);
        let (offset, before) = ((before & UNITS) * WORD, before >> RECORDS_AT);
        if offset + bytes as u64 <= ENTRIES_END_MAX {
            return Some((offset, Lsn(self.head.first.0 + before)));
        }
        // Everybody after the first one who did not fit finds even less room: one alone sees the end.
        if offset <= ENTRIES_END_MAX {
            self.store(END_AT, offset);
            let _ = self.end.set(End { offset, records: before });
        }
        None
    }

    /// The number of a session in this segment, which is named here if it is not yet. `None`: the segment is full.
    pub(super) fn number(&self, session: &SessionName, serial: Serial, time_ms: u64) -> Option<u32> {
        // Numbers go up with the places where they are named.
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.get(session) {
            return Some(*number);
        }
        let number = numbers.len() as u32 + 1;
        let body = session.as_str().as_bytes();
        let (kind, len) = (LogEntryKind::Session, body.len() as u32);
        let (offset, lsn) = self.reserve(entry_bytes(body.len()), 0)?;
        let entry = LogEntryHead { kind, session: number, len, serial, time_ms };
        self.put(offset, body);
        self.publish(offset, words_of(&self.head, lsn, &entry, &mut EntrySum::of(body)));
        numbers.insert(session.clone(), number);
        Some(number)
    }

    /// Appends a record. `None`: the segment is full. Between the reservation and its end nothing can fail but the process.
    pub(super) fn append(
        &self,
        entry: &LogEntryHead,
        body: &[u8],
        sum: &mut EntrySum,
        faults: &dyn Faults,
    ) -> Result<Option<Lsn>, LogError> {
        let Some((offset, lsn)) = self.reserve(entry_bytes(body.len()), 1) else { return Ok(None) };
        faults.reach("log.append.reserved")?;
        self.put(offset, body);
        faults.reach("log.append.copied")?;
        self.publish(offset, words_of(&self.head, lsn, entry, sum));
        Ok(Some(lsn))
    }

    /// Appends records with one write, the first word of the first one at last: until then nobody looks behind it. The last one's LSN. `None`: the
    /// segment is full.
    pub(super) fn append_part(
        &self,
        batch: &mut Batch,
        records: &Range<usize>,
        stamp: Stamp,
        faults: &dyn Faults,
    ) -> Result<Option<Lsn>, LogError> {
        let (len, many) = (batch.bytes_of(records), records.len() as u64);
        let Some((offset, first)) = self.reserve(len, many) else { return Ok(None) };
        faults.reach("log.append.reserved")?;
        let bytes = batch.stamped(records, &Stamp { first, ..stamp });
        if let Some((word, rest)) = bytes.split_first_chunk::<{ WORD as usize }>() {
            self.file.write_all_at(rest, offset + WORD).map_err(on("write", &self.path))?;
            faults.reach("log.append.copied")?;
            self.map.word((offset / WORD) as usize).store(u64::from_ne_bytes(*word), Ordering::Release);
        }
        self.written.fetch_add(len as u64, Ordering::Relaxed);
        Ok(Some(Lsn(first.0 + many - 1)))
    }

    fn put(&self, offset: u64, body: &[u8]) {
        self.map.put((offset as usize + ENTRY_HEAD_BYTES) / WORD as usize, body);
    }

    fn publish(&self, offset: u64, [first, sum, serial, time_ms]: [u64; 4]) {
        let at = (offset / WORD) as usize;
        self.map.word(at + 1).store(sum.to_le(), Ordering::Relaxed);
        self.map.word(at + 2).store(serial.to_le(), Ordering::Relaxed);
        self.map.word(at + 3).store(time_ms.to_le(), Ordering::Relaxed);
        self.map.word(at).store(first.to_le(), Ordering::Release);
    }

    fn store(&self, at: u64, value: u64) {
        self.map.word((at / WORD) as usize).store(value.to_le(), Ordering::SeqCst);
    }

    fn load(&self, at: u64) -> u64 {
        u64::from_le(self.map.word((at / WORD) as usize).load(Ordering::Acquire))
    }

    /// Takes what was published since, up to the first reservation that was not. Whether there was anything.
    pub(super) fn walk(&self, fold: &mut Fold) -> Result<bool, LogError> {
        let begun = fold.offset();
        let end = self.end().map_or(ENTRIES_END_MAX, |end| end.offset);
        while fold.offset() < end {
            let at = fold.offset();
            let first = self.load(at);
            if first == 0 {
                break;
            }
            let words = [first, self.load(at + WORD), self.load(at + 2 * WORD), self.load(at + 3 * WORD)];
            let damaged = |source| LogError::damaged(&self.path, at, fold.next())(source);
            let Some(entry) = read_head(words).map_err(damaged)? else { break };
            let name = (entry.kind == LogEntryKind::Session).then(|| self.name_at(at, entry.len)).flatten();
            let broken = |source| LogError::Serials { path: self.path.clone(), source };
            fold.take(&entry, name.as_ref()).map_err(broken)?;
        }
        Ok(fold.offset() > begun)
    }

    fn name_at(&self, offset: u64, len: u32) -> Option<SessionName> {
        let begin = offset + ENTRY_HEAD_BYTES as u64;
        let words = (begin..begin + u64::from(len)).step_by(WORD as usize).flat_map(|at| self.load(at).to_le_bytes());
        let bytes: Vec<u8> = words.take(len as usize).collect();
        std::str::from_utf8(&bytes).ok()?.parse().ok()
    }

    /// Makes everything durable that was written before, its name too.
    pub(super) fn sync(&self, folder: &Folder) -> Result<(), LocalError> {
        // Noted before: a second one who syncs meanwhile does it once more, which is harmless.
        if self.is_unnamed.load(Ordering::SeqCst) {
            folder.sync()?;
            self.is_unnamed.store(false, Ordering::SeqCst);
        }
        self.file.sync_data().map_err(on("sync", &self.path))
    }

    /// Everything before this place is on the disk. Is there itself with the next sync.
    pub(super) fn synced(&self, offset: u64) {
        self.store(SYNCED_AT, offset);
    }

    /// Writes the index behind the last entry, and cuts the file there.
    pub(super) fn seal(&self, fold: &Fold, faults: &dyn Faults) -> Result<(), LogError> {
        self.synced(fold.offset());
        seal(&self.file, &self.path, fold, faults)
    }
}

/// Seals a segment's file: the same bytes, however often.
pub(super) fn seal(file: &File, path: &Path, fold: &Fold, faults: &dyn Faults) -> Result<(), LogError> {
    let (index, end) = (fold.index(), fold.offset());
    let bytes = encode_index(&index).map_err(LogError::damaged(path, end, fold.next()))?;
    file.write_all_at(&bytes, end).map_err(on("write", path))?;
    file.sync_data().map_err(on("sync", path))?;
    faults.reach("log.seal.indexed")?;
    file.set_len(end + bytes.len() as u64).map_err(on("cut", path))?;
    file.sync_data().map_err(on("sync", path))?;
    faults.reach("log.seal.cut")?;
    Ok(())
}

/// Zeros from a place to a segment's end: what is left there of what was torn must never be taken for entries.
pub(super) fn zero(file: &File, path: &Path, from: u64) -> Result<(), LocalError> {
    let mut found = vec![0; ZEROS.len()];
    let mut at = from;
    while at < LOG_SEGMENT_BYTES {
        let most = (LOG_SEGMENT_BYTES - at).min(ZEROS.len() as u64) as usize;
        let read = file.read_at(&mut found[..most], at).map_err(on("read", path))?;
        if read == 0 {
            break;
        }
        if found[..read].iter().any(|byte| *byte != 0) {
            file.write_all_at(&ZEROS[..read], at).map_err(on("write", path))?;
        }
        at += read as u64;
    }
    file.sync_data().map_err(on("sync", path))
}
