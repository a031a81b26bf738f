//! Reading a log: from where, up to where, and on as it grows. By any process, beside the one that appends.
//!
//! 1. What is read is verified. Records come in the order of their LSNs, none twice and none left out but those that were not asked for.
//! 2. Of a sealed segment only the blocks are read that may hold what was asked for.

use super::error::LogError;
use super::folder::{Folder, Meta, Said};
use super::scan::{Found, Scan, name_in};
use super::schema;
use super::stats::stats_of;
use super::void::{Void, around, is_void};
use littoral_format::FormatError;
use littoral_format::log::{END_AT, Fold, SYNCED_AT, entry_bytes};
use littoral_types::limits::LOG_HEAD_BYTES;
use littoral_types::{LogEntryHead, LogEntryKind, LogIndex, Lsn, Serial, SessionName, Sessions};
use std::path::Path;
use std::time::{Duration, Instant};

/// A record may be seen before its bytes are; so often it is looked again, where it is not known to be durable.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);
/// How long a tail rests between two looks: as long as nothing comes, up to the second.
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_millis(10);
/// Whoever truncates removes segments after saying so: what is not there was looked for too early, or is gone for good.
const TRIES: u32 = 100;

/// What is asked for. Both ends are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// No record before this one. Zero: from where the log begins, wherever that is.
    pub from: Lsn,
    /// No record after this one.
    pub to: Lsn,
    /// No record that is older, milliseconds since 1970.
    pub since_ms: u64,
    /// No record that is newer.
    pub until_ms: u64,
}

impl Range {
    /// Everything there is.
    pub const ALL: Range = Range { from: Lsn::ZERO, to: Lsn(u64::MAX), since_ms: 0, until_ms: u64::MAX };

    /// From a record on.
    pub const fn from(lsn: Lsn) -> Self {
        Self { from: lsn, ..Self::ALL }
    }
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log.
    pub lsn: Lsn,
    /// When it was appended, milliseconds since 1970.
    pub time_ms: u64,
    /// Whose it is, where that has a name.
    pub session: Option<SessionName>,
    /// Its session's serial with it; zero where the session has no name.
    pub serial: Serial,
    /// What was appended.
    pub body: Vec<u8>,
}

/// What reading has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Segments that were opened.
    pub segments: u64,
    /// Bytes of entries that were read.
    pub bytes: u64,
}

/// Reads a log.
#[derive(Debug)]
pub struct Reader {
    folder: Folder,
    range: Range,
    /// The next record.
    next: Lsn,
    at: Option<Place>,
    read: Read,
    end: End,
}

/// What is known of the log's end.
#[derive(Debug)]
struct End {
    /// How often it had been rolled back when it was looked last.
    cuts: u64,
    /// The last record that is given out: it is just being rolled back to there.
    limit: Lsn,
    /// Records that are not given out: rolled back, or of transactions that had been found not to have committed.
    voids: Vec<Void>,
    said: Said,
}

impl End {
    fn of(meta: Meta, said: Said) -> Self {
        Self { cuts: meta.newest_cut(), limit: meta.limit(), voids: meta.voids, said }
    }

    /// Whoever stands behind an end to which it was rolled back since it was looked last, or waits there for what he asked for, is told. Whether it
    /// was rolled back.
    fn look(&mut self, folder: &Folder, asked: Lsn) -> Result<bool, LogError> {
        let (meta, said) = folder.meta_said()?;
        let since = meta.cuts.iter().filter(|(nth, _)| *nth > self.cuts);
        let end = since.map(|(_, last)| *last).min();
        if let Some(end) = end.filter(|end| asked > end.next()) {
            return Err(LogError::RolledBack { asked, end, next: meta.stays_up_to(end).next() });
        }
        *self = Self::of(meta, said);
        Ok(end.is_some())
    }

    /// The same, where anything was said since.
    fn look_again(&mut self, folder: &Folder, asked: Lsn) -> Result<bool, LogError> {
        if folder.says_more_than(&self.said) { self.look(folder, asked) } else { Ok(false) }
    }
}

/// Refuses to begin where records were rolled back: whoever asks for what follows one of them has read it.
fn refuse_taken_back(folder: &Folder, meta: &Meta, asked: Lsn) -> Result<(), LogError> {
    if !meta.cuts.is_empty() && asked > meta.start {
        let end = stats_of(folder, meta)?.last;
        if asked > end.next() {
            let end = around(&meta.voids, end).map_or(end, |(from, _)| Lsn(from.0 - 1));
            return Err(LogError::RolledBack { asked, end, next: meta.stays_up_to(end).next() });
        }
    }
    match around(&meta.voids, asked).filter(|(from, _)| asked > *from) {
        // Of a table nobody was ever given one.
        Some((from, to)) if schema::columns(folder.path())?.is_none() => {
            Err(LogError::RolledBack { asked, end: Lsn(from.0 - 1), next: to.next() })
        }
        _ => Ok(()),
    }
}

/// A segment that is being read.
#[derive(Debug)]
struct Place {
    scan: Scan,
    kind: Kind,
    offset: u64,
    lsn: Lsn,
}

#[derive(Debug)]
enum Kind {
    /// Sealed when it was opened: the names by number, and the blocks that are left to read.
    Sealed { index: LogIndex, names: Vec<Option<SessionName>>, block: usize },
    /// It may be appended to: names come with its entries.
    Open { fold: Fold },
}

enum Step {
    Record(Record),
    /// An entry that is not asked for.
    Other,
    /// The segment is over.
    Over,
    /// There is no more yet.
    Waiting,
}

impl Reader {
    /// Reads a log's records of a range.
    pub fn open(path: &Path, range: Range) -> Result<Self, LogError> {
        let folder = Folder::at(path);
        let (meta, said) = folder.meta_said()?;
        let start = meta.start;
        if range.from != Lsn::ZERO && range.from < start {
            return Err(LogError::Truncated { asked: range.from, start });
        }
        refuse_taken_back(&folder, &meta, range.from)?;
        let (next, end) = (range.from.max(start), End::of(meta, said));
        Ok(Self { folder, range, next, at: None, read: Read::default(), end })
    }

    /// The next record. `None`: there is none yet, or none in the range any more; of a log that grows it may be asked again.
    pub fn next_record(&mut self) -> Result<Option<Record>, LogError> {
        if self.end.limit < Lsn(u64::MAX) {
            self.end.limit = self.folder.meta()?.limit();
            // What was read of what stood behind it is not there any more.
            if let Some(place) = &mut self.at {
                place.scan.forget();
            }
        }
        loop {
            let to = self.range.to.min(self.end.limit);
            if self.next > to {
                return Ok(None);
            }
            if self.at.is_none() {
                self.at = self.open_at(self.next)?;
            }
            let Some(place) = &mut self.at else { return Ok(None) };
            if place.lsn > to {
                return Ok(None);
            }
            let (before, stands) = (place.scan.bytes, place.lsn.max(self.next));
            let step = place.step(&self.range, self.next);
            self.read.bytes += place.scan.bytes - before;
            // What was read is there, as long as nothing else was said before.
            if place.scan.bytes > before && self.end.look_again(&self.folder, stands)? {
                (self.next, self.at) = (stands, None);
                continue;
            }
            match step? {
                Step::Record(record) => {
                    self.next = record.lsn.next();
                    if is_void(&self.end.voids, record.lsn) {
                        continue;
                    }
                    return Ok(Some(record));
                }
                Step::Other => {}
                Step::Over => {
                    // A full disk, or a death, can stand between the end of a segment and the next one.
                    let is_followed = matches!(place.kind, Kind::Sealed { .. })
                        || self.folder.segment(place.lsn).exists()
                        || self.folder.meta()?.start > place.lsn;
                    if !is_followed {
                        place.scan.forget();
                        self.end.look_again(&self.folder, stands)?;
                        return Ok(None);
                    }
                    self.next = self.next.max(place.lsn);
                    self.at = None;
                }
                Step::Waiting => {
                    place.scan.forget();
                    return Ok(None);
                }
            }
        }
    }

    /// What reading has cost so far.
    pub fn cost(&self) -> Read {
        self.read
    }

    /// Opens the segment that holds a record, or will. `None`: the one before it has only just ended.
    fn open_at(&mut self, lsn: Lsn) -> Result<Option<Place>, LogError> {
        for _ in 0..TRIES {
            let start = self.folder.meta()?.start;
            if lsn < start {
                if self.range.from == Lsn::ZERO && self.read.segments == 0 {
                    self.next = start;
                    return self.open_at(start);
                }
                return Err(LogError::Truncated { asked: lsn, start });
            }
            let segments = self.folder.segments()?;
            let found = segments.partition_point(|(first, _)| *first <= lsn).checked_sub(1);
            if let Some((first, path)) = found.and_then(|at| segments.get(at)) {
                let is_last = found.is_some_and(|at| at + 1 == segments.len());
                match self.open_segment(path, *first, lsn)? {
                    Some(Some(place)) => return Ok(Some(place)),
                    Some(None) if is_last => return Ok(None),
                    // One is missing behind it, or this one is: where it was only listed too early, it is listed the next time.
                    Some(None) | None => {}
                }
            }
            std::thread::sleep(PAUSE);
        }
        let detail = format!("no segment holds LSN {lsn}");
        Err(LogError::Broken { path: self.folder.path().to_owned(), detail })
    }

    /// The outer `None`: it is not there any more. The inner one: the record is behind its end.
    fn open_segment(&mut self, path: &Path, first: Lsn, lsn: Lsn) -> Result<Option<Option<Place>>, LogError> {
        let Some(mut scan) = Scan::open(path, first)? else { return Ok(None) };
        let offset = LOG_HEAD_BYTES;
        let kind = match scan.index()? {
            Some(index) if lsn >= index.next() => {
                // Between its seal and its successor's name a crash can stand: the record comes with the next appender.
                self.end.look_again(&self.folder, lsn)?;
                return Ok(Some(None));
            }
            Some(index) => {
                scan.stop_at(index.end);
                let mut names = vec![None; index.sessions.len() + 1];
                for session in &index.sessions {
                    if let Some(name) = names.get_mut(session.number as usize) {
                        *name = (session.number > 0).then(|| session.name.clone());
                    }
                }
                Kind::Sealed { index, names, block: 0 }
            }
            None => Kind::Open { fold: Fold::new(scan.head, &Sessions::new()) },
        };
        // Nothing of it was read yet: what is said later is seen with that.
        self.end.look_again(&self.folder, lsn)?;
        self.read.segments += 1;
        let mut place = Place { scan, kind, offset, lsn: first };
        if let Kind::Sealed { .. } = place.kind {
            place.enter(0, &self.range, self.next);
        }
        Ok(Some(Some(place)))
    }
}

impl Place {
    /// Goes to the first block from this one on that may hold what is asked for.
    fn enter(&mut self, from: usize, range: &Range, next: Lsn) {
        let Kind::Sealed { index, block, .. } = &mut self.kind else { return };
        for nth in from..index.blocks.len() {
            let found = index.blocks[nth];
            let after = index.blocks.get(nth + 1).map_or(index.next(), |after| after.first);
            let is_asked = after > next
                && found.first <= range.to
                && found.until_ms >= range.since_ms
                && found.since_ms <= range.until_ms;
            if is_asked {
                (*block, self.offset, self.lsn) = (nth, found.offset, found.first);
                self.scan.stop_at(index.end_of(nth));
                return;
            }
        }
        (*block, self.offset, self.lsn) = (index.blocks.len(), index.end, index.next());
    }

    fn step(&mut self, range: &Range, next: Lsn) -> Result<Step, LogError> {
        if let Kind::Sealed { index, block, .. } = &self.kind {
            if self.offset >= index.end {
                return Ok(Step::Over);
            }
            if self.offset >= index.end_of(*block) {
                let block = *block + 1;
                self.enter(block, range, next);
                return Ok(Step::Other);
            }
        }
        let (offset, lsn, path) = (self.offset, self.lsn, self.scan.path.clone());
        let mut looks = LOOKS;
        loop {
            let torn = match self.scan.entry(offset, lsn)? {
                Found::Entry(entry, body) => {
                    let is_asked = entry.kind == LogEntryKind::Record
                        && (next..=range.to).contains(&lsn)
                        && (range.since_ms..=range.until_ms).contains(&entry.time_ms);
                    let (name, record) = (name_in(&entry, body), is_asked.then(|| body.to_vec()));
                    return self.take(&entry, name, record);
                }
                Found::Nothing => None,
                Found::Torn(error) => Some(error),
            };
            let is_open = matches!(self.kind, Kind::Open { .. });
            if is_open && self.scan.word(END_AT)? == offset {
                return Ok(Step::Over);
            }
            if looks < LOOKS && (!is_open || offset < self.scan.word(SYNCED_AT)?) {
                let source = torn.unwrap_or(FormatError::Truncated { what: "log entry" });
                return Err(LogError::damaged(&path, offset, lsn)(source));
            }
            // What was read earlier may be older than what is there; and what is torn may be on its way.
            let is_again = if torn.is_some() { looks > 0 } else { looks == LOOKS };
            if !is_again {
                return Ok(Step::Waiting);
            }
            if looks < LOOKS {
                std::thread::sleep(PAUSE);
            }
            looks -= 1;
            self.scan.forget();
        }
    }

    fn take(
        &mut self,
        entry: &LogEntryHead,
        name: Option<SessionName>,
        body: Option<Vec<u8>>,
    ) -> Result<Step, LogError> {
        let lsn = self.lsn;
        let session = match &mut self.kind {
            Kind::Sealed { names, .. } => names.get(entry.session as usize).cloned().flatten(),
            Kind::Open { fold } => {
                // Where a session was before this segment is not known here, and not asked.
                if let Some(name) = &name {
                    fold.assume(name, entry.serial);
                }
                let path = &self.scan.path;
                fold.take(entry, name.as_ref()).map_err(|source| LogError::Serials { path: path.clone(), source })?;
                fold.name_of(entry.session).cloned()
            }
        };
        self.offset += entry_bytes(entry.len as usize) as u64;
        if entry.kind == LogEntryKind::Record {
            self.lsn = lsn.next();
        }
        Ok(match body {
            Some(body) => Step::Record(Record { lsn, time_ms: entry.time_ms, session, serial: entry.serial, body }),
            None => Step::Other,
        })
    }
}

/// A reader that waits for what is appended.
#[derive(Debug)]
pub struct Tail(Reader);

impl Tail {
    /// Follows a log from a record on; see [`Reader::open`].
    pub fn open(path: &Path, range: Range) -> Result<Self, LogError> {
        Reader::open(path, range).map(Self)
    }

    /// The next record, as soon as there is one. `None`: none has come for so long.
    pub fn next(&mut self, at_most: Duration) -> Result<Option<Record>, LogError> {
        let until = Instant::now() + at_most;
        let mut rest = REST_MIN;
        loop {
            if let Some(record) = self.0.next_record()? {
                return Ok(Some(record));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(rest.min(left));
            rest = (rest * 2).min(REST_MAX);
        }
    }
}
