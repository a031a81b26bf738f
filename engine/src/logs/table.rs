//! A log as the rows of a SQL table (rule P11).
//!
//! 1. The row of the database decides ([`Extent`]): which records of the log are rows is read from it, in the transaction that asks. What the log holds
//!    besides was of a transaction that never committed.
//! 2. A transaction's rows are gathered in memory ([`Draft`]), and go to the log when it commits: they are appended, synced, and then the row of the
//!    database is written, in that very transaction. Whoever dies in between leaves records that no row counts.
//! 3. Before the next transaction appends, it says of those that they are void, in the log itself and in the row of the database.
//! 4. A block is read only if it may hold what was asked for.
//!
//! What may never enter: SQLite's codes, FFI. Read next: `vfs/src/raw/logtable.rs`.

use super::schema::Schema;
use super::zone::{Condition, excludes, widen};
use littoral_format::FormatError;
use littoral_local::log::{Block, Blocks, void};
use littoral_plan::counted::voids as read_voids;
use littoral_types::limits::{LOG_PART_BYTES, LOG_RECORD_MAX, LOG_TRANSACTION_BYTES_MAX};
use littoral_types::{LogCell, LogZone, Lsn, VolumeId};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{Appender, Batch, Log, LogError, LogParts, LogSync, Part, Void};
pub use littoral_format::log::{ROW_LEADS, begin_row, decode_row, put_cell};
pub use littoral_local::log::schema::{columns, keep_columns};

/// Where a test may make a process die that commits rows, in the order in which they are reached.
pub const FAULT_POINTS: [&str; 5] =
    ["log.void.said", "log.table.begun", "log.table.appended", "log.table.synced", "log.table.noted"];

/// Why a table does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The log. See there.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Too much for a row, or for a transaction. Make it smaller; nothing was added.
    #[error("{what} of {len} bytes is too large: at most {max}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large.
        len: usize,
        /// How large it may be.
        max: usize,
    },
    /// The log ends before the rows that the database counts. Restore the log that belongs to the database.
    #[error(
        "{log}: the log ends at LSN {end}, and the database has rows up to LSN {rows} of it: rows are missing. It is another log, or an \
         older state of it: restore the one that belongs to the database", log = log.display()
    )]
    Behind {
        /// Which log.
        log: PathBuf,
        /// Its last record.
        end: Lsn,
        /// The last one that is a row.
        rows: Lsn,
    },
    /// Who asked wants no more of it. Ask again.
    #[error("interrupted")]
    Interrupted,
    /// Somebody else has appended to the log since the transaction began. Roll back, and do it again.
    #[error("{log}: something else was appended to this log meanwhile: a log is one table's alone. Roll back, and do it again", log = log.display())]
    Taken {
        /// Which log.
        log: PathBuf,
    },
    /// Bytes of a record that are no row of the table. Make a table with the columns that the log has.
    #[error("{log}: LSN {lsn} is no row of this table: {source}", log = log.display())]
    NoRow {
        /// Which log.
        log: PathBuf,
        /// Which record.
        lsn: Lsn,
        /// Why.
        source: FormatError,
    },
}

/// What a database says of a log: which of its records are the table's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The first one, or where it will be.
    pub first: Lsn,
    /// The last one; before the first one where there is none.
    pub last: Lsn,
    /// Those in between that are none.
    pub voids: Vec<Void>,
}

impl Extent {
    /// Voids as text: `7-9,12-12`.
    pub fn said(&self) -> String {
        let said = |(from, to): &Void| format!("{from}-{to}");
        self.voids.iter().map(said).collect::<Vec<String>>().join(",")
    }

    /// The same, read. `None`: it is no such text.
    pub fn read(first: Lsn, last: Lsn, voids: &str) -> Option<Self> {
        let voids = read_voids(voids)?;
        Some(Self { first, last, voids })
    }
}

/// The rows that a transaction has added so far.
#[derive(Debug, Default)]
pub struct Draft {
    first: Lsn,
    rows: Batch,
    /// How many rows there were when a savepoint began.
    savepoints: Vec<(i32, usize)>,
}

impl Draft {
    /// Whether no row was added.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many rows were added.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The LSN that the first one will have.
    pub fn first(&self) -> Lsn {
        self.first
    }

    /// From where its rows go on.
    pub fn begin(&mut self, first: Lsn) {
        self.first = first;
    }

    /// Adds a row that `put` spells. Its LSN.
    #[inline]
    pub fn add(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Result<Lsn, TableError> {
        let spelled = self.rows.push_with(|bytes| {
            begin_row(bytes);
            put(bytes);
        });
        if let Err(FormatError::TooLarge { len, .. }) = spelled {
            return Err(TableError::TooLarge { what: "a row", len: len as usize, max: LOG_RECORD_MAX });
        }
        let (len, max) = (self.rows.bytes(), LOG_TRANSACTION_BYTES_MAX);
        if len > max {
            self.rows.truncate(self.rows.len() - 1);
            return Err(TableError::TooLarge { what: "a transaction with rows", len, max });
        }
        Ok(Lsn(self.first.0 + self.rows.len() as u64 - 1))
    }

    /// One of the rows.
    pub fn row(&self, nth: usize) -> Option<&[u8]> {
        self.rows.record(nth)
    }

    /// A savepoint begins; those of its number and above are over.
    pub fn savepoint(&mut self, number: i32) {
        self.release(number);
        self.savepoints.push((number, self.rows.len()));
    }

    /// A savepoint, and those above, are over; the rows stay.
    pub fn release(&mut self, number: i32) {
        self.savepoints.retain(|(begun, _)| *begun < number);
    }

    /// Back to where a savepoint began, which goes on. Of one that began before the table took part nothing is known, and no row was there then.
    pub fn rollback_to(&mut self, number: i32) {
        let rows = self.savepoints.iter().find(|(begun, _)| *begun == number).map_or(0, |(_, rows)| *rows);
        self.rows.truncate(rows);
        self.savepoint(number);
    }

    /// The transaction is over.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.savepoints.clear();
    }
}

/// A log that is a table's, as this process has it: one for all connections.
#[derive(Debug)]
pub struct TableLog {
    path: PathBuf,
    blocks: Blocks,
    writer: Mutex<Option<Writer>>,
}

#[derive(Debug)]
struct Writer {
    log: Log,
    appender: Appender,
}

/// Those that are open, by who opened them: a forked child has none.
static OPEN: Mutex<BTreeMap<(u32, PathBuf), Weak<TableLog>>> = Mutex::new(BTreeMap::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TableLog {
    /// The log in a folder.
    pub fn open(path: &Path) -> Result<Arc<Self>, LogError> {
        let path = path.canonicalize().map_err(|_| LogError::NoLog(path.to_owned()))?;
        let mut open = locked(&OPEN);
        let key = (std::process::id(), path.clone());
        if let Some(known) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let opened = Arc::new(Self { blocks: Blocks::open(&path)?, path, writer: Mutex::new(None) });
        open.retain(|_, known| known.strong_count() > 0);
        open.insert(key, Arc::downgrade(&opened));
        Ok(opened)
    }

    /// Which log it is.
    pub fn id(&self) -> VolumeId {
        self.blocks.id()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many blocks this process has read of it, and how many it has passed over.
    pub fn counts(&self) -> (u64, u64) {
        self.blocks.counts()
    }

    /// Makes this process the one that appends, if it is not yet. The LSN of the next record.
    pub fn begin(&self, parts: LogParts, extent: &Extent) -> Result<Lsn, TableError> {
        let mut writer = locked(&self.writer);
        // One whose disk failed is opened anew: what it has on the disk is looked at again.
        if writer.as_ref().is_some_and(|writer| writer.log.sync().is_err()) {
            *writer = None;
        }
        if writer.is_none() {
            let log = Log::open(&self.path, LogSync::None, parts)?;
            let appender = log.appender(None)?;
            *writer = Some(Writer { log, appender });
        }
        let end = writer.as_ref().map_or(Lsn::ZERO, |writer| writer.log.last());
        if end < extent.last {
            return Err(TableError::Behind { log: self.path.clone(), end, rows: extent.last });
        }
        Ok(end.next())
    }

    /// Appends the rows of a transaction, and makes them durable. What the row of the database is to say then.
    pub fn append(&self, draft: &mut Draft, extent: &Extent, parts: &LogParts) -> Result<Extent, TableError> {
        let mut writer = locked(&self.writer);
        let taken = || TableError::Taken { log: self.path.clone() };
        let Some(Writer { log, appender }) = writer.as_mut() else { return Err(taken()) };
        if log.last().next() != draft.first {
            return Err(taken());
        }
        let mut extent = extent.clone();
        let void = (extent.last.next(), Lsn(draft.first.0 - 1));
        void::add(&mut extent.voids, void);
        if !extent.voids.is_empty() {
            let start = log.void(&extent.voids)?;
            extent.voids.retain(|(_, to)| *to >= start);
        }
        parts.faults.reach("log.table.begun").map_err(LogError::from)?;
        let mut part = draft.rows.part(0, LOG_PART_BYTES);
        while let Some(appended) = appender.append_part(&mut draft.rows, part.clone())? {
            extent.last = appended.lsn;
            part = draft.rows.part(part.end, LOG_PART_BYTES);
        }
        parts.faults.reach("log.table.appended").map_err(LogError::from)?;
        log.sync()?;
        parts.faults.reach("log.table.synced").map_err(LogError::from)?;
        if extent.last.0 != draft.first.0 + draft.len() as u64 - 1 {
            return Err(taken());
        }
        Ok(extent)
    }

    /// Reads rows.
    pub fn scan(self: &Arc<Self>, schema: &Arc<Schema>, extent: &Extent, ask: Ask) -> Result<Scan, TableError> {
        let (start, parts) = match self.blocks.up_to(extent.last) {
            Err(LogError::Beyond { last, .. }) => {
                return Err(TableError::Behind { log: self.path.clone(), end: last, rows: extent.last });
            }
            other => other?,
        };
        let from = ask.from.max(extent.first).max(start);
        let to = ask.to.min(extent.last);
        let voids = extent.voids.clone();
        let mut scan = Scan {
            log: Arc::clone(self),
            schema: Arc::clone(schema),
            parts,
            ask: Ask { from, to, ..ask },
            voids,
            at: None,
            block: None,
            row: None,
            is_over: from > to,
        };
        if !scan.is_over {
            let part = match scan.ask.is_backward {
                false => scan.parts.partition_point(|part| part.index.next() <= from),
                true => scan.parts.partition_point(|part| part.index.first <= to).saturating_sub(1),
            };
            let blocks = scan.parts.get(part).map_or(&[][..], |part| part.index.blocks.as_slice());
            let lsn = if scan.ask.is_backward { to } else { from };
            // Of several blocks with one first LSN, all but the last one hold no record.
            let block = blocks.partition_point(|block| block.first <= lsn).saturating_sub(1);
            scan.at = Some((part, block));
        }
        Ok(scan)
    }
}

/// What is asked of a table. Both ends are included; what is not asked for may come all the same, but for the LSN and the time.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// No row before this one.
    pub from: Lsn,
    /// No row after this one.
    pub to: Lsn,
    /// No row that is older, milliseconds since 1970.
    pub since_ms: u64,
    /// No row that is newer.
    pub until_ms: u64,
    /// All of these hold of what is wanted.
    pub conditions: Vec<Condition>,
    /// Whether the last one comes first.
    pub is_backward: bool,
}

impl Ask {
    /// Everything, in order.
    pub const ALL: Ask = Ask {
        from: Lsn::ZERO,
        to: Lsn(u64::MAX),
        since_ms: 0,
        until_ms: u64::MAX,
        conditions: Vec::new(),
        is_backward: false,
    };
}

/// Reads rows, one after another.
#[derive(Debug)]
pub struct Scan {
    log: Arc<TableLog>,
    schema: Arc<Schema>,
    parts: Vec<Arc<Part>>,
    ask: Ask,
    voids: Vec<Void>,
    /// The next block: of which part, which.
    at: Option<(usize, usize)>,
    block: Option<Block>,
    /// The row that it stands on, within the block.
    row: Option<usize>,
    is_over: bool,
}

impl Scan {
    /// Goes to the next row. False when there is none.
    pub fn advance(&mut self) -> Result<bool, TableError> {
        self.advance_unless(&|| false)
    }

    /// The same, as long as nobody wants it to end: that is asked before each block.
    pub fn advance_unless(&mut self, ends: &dyn Fn() -> bool) -> Result<bool, TableError> {
        loop {
            if self.is_over {
                return Ok(false);
            }
            let Some(block) = &self.block else {
                self.block = self.next_block(ends)?;
                self.row = None;
                self.is_over = self.block.is_none();
                continue;
            };
            let next = match (self.row, self.ask.is_backward) {
                (None, false) => Some(0),
                (None, true) => block.len().checked_sub(1),
                (Some(row), false) => Some(row + 1),
                (Some(row), true) => row.checked_sub(1),
            };
            let Some((nth, (lsn, time_ms, _))) = next.and_then(|nth| Some((nth, block.record(nth)?))) else {
                self.block = None;
                continue;
            };
            self.row = Some(nth);
            let is_past = if self.ask.is_backward { lsn < self.ask.from } else { lsn > self.ask.to };
            if is_past {
                self.is_over = true;
                return Ok(false);
            }
            let is_asked = (self.ask.from..=self.ask.to).contains(&lsn)
                && (self.ask.since_ms..=self.ask.until_ms).contains(&time_ms)
                && !void::is_void(&self.voids, lsn);
            if is_asked {
                return Ok(true);
            }
        }
    }

    /// The row that it stands on: its LSN, when it was appended, its bytes.
    pub fn row(&self) -> Option<(Lsn, u64, &[u8])> {
        self.block.as_ref()?.record(self.row?)
    }

    fn next_block(&mut self, ends: &dyn Fn() -> bool) -> Result<Option<Block>, TableError> {
        while let Some((at, nth)) = self.at {
            if ends() {
                return Err(TableError::Interrupted);
            }
            let Some(part) = self.parts.get(at).cloned() else { break };
            let Some(found) = part.index.blocks.get(nth) else {
                // A segment without any, or behind its last one.
                self.at = self.neighbour(at);
                continue;
            };
            self.at = match self.ask.is_backward {
                false => Some((at, nth + 1)),
                true => nth.checked_sub(1).map(|nth| (at, nth)).or_else(|| self.neighbour(at)),
            };
            if found.first > self.ask.to && !self.ask.is_backward {
                break;
            }
            if part.after(nth) <= self.ask.from && self.ask.is_backward {
                break;
            }
            let is_in = part.after(nth) > self.ask.from && found.first <= self.ask.to && part.after(nth) > found.first;
            if !is_in {
                continue;
            }
            if found.until_ms < self.ask.since_ms || found.since_ms > self.ask.until_ms || self.excludes(&part, nth) {
                self.log.blocks.skip();
                continue;
            }
            let block = self.log.blocks.read(&part, nth)?;
            if !self.ask.conditions.is_empty() && part.is_done(nth) && self.zones(&part, nth).is_none() {
                let zones = self.zones_of(&block)?;
                self.log.blocks.note_zones(&part, nth, zones);
                if self.excludes(&part, nth) {
                    continue;
                }
            }
            return Ok(Some(block));
        }
        Ok(None)
    }

    fn neighbour(&self, at: usize) -> Option<(usize, usize)> {
        match self.ask.is_backward {
            false => Some((at + 1, 0)),
            true => {
                let before = at.checked_sub(1)?;
                Some((before, self.parts.get(before)?.index.blocks.len().saturating_sub(1)))
            }
        }
    }

    fn zones(&self, part: &Part, block: usize) -> Option<Arc<[LogZone]>> {
        self.log.blocks.zones(part, block, self.schema.columns.len() + ROW_LEADS)
    }

    fn excludes(&self, part: &Part, block: usize) -> bool {
        if self.ask.conditions.is_empty() {
            return false;
        }
        let Some(zones) = self.zones(part, block) else { return false };
        let is_out = |condition: &Condition| {
            let affinity = self.schema.affinity(condition.cell);
            zones.get(condition.cell).is_some_and(|zone| excludes(zone, condition, affinity))
        };
        self.ask.conditions.iter().any(is_out)
    }

    fn zones_of(&self, block: &Block) -> Result<Vec<LogZone>, TableError> {
        let mut zones = vec![LogZone::default(); self.schema.columns.len() + ROW_LEADS];
        let mut cells = Vec::new();
        for nth in 0..block.len() {
            let Some((lsn, _, bytes)) = block.record(nth) else { continue };
            // What is no row of the table is never given out, or refused when it is.
            if self.cells(lsn, bytes, &mut cells).is_err() {
                continue;
            }
            for (zone, cell) in zones.iter_mut().zip(&cells) {
                widen(zone, &of_row(cell, bytes));
            }
        }
        Ok(zones)
    }

    /// The values of a row, as places in its bytes.
    pub fn cells(&self, lsn: Lsn, bytes: &[u8], into: &mut Vec<LogCell<Range<usize>>>) -> Result<(), TableError> {
        let no_row = |source| TableError::NoRow { log: self.log.path.clone(), lsn, source };
        decode_row(bytes, into).map_err(no_row)?;
        let columns = self.schema.columns.len() + ROW_LEADS;
        if into.len() != columns {
            let detail = format!("it has {} values, and a row of the table {columns}", into.len());
            return Err(no_row(FormatError::Invalid { what: "row of a log", detail }));
        }
        Ok(())
    }
}

/// A value of a row that begins where its bytes do.
pub fn of_row<'a>(cell: &LogCell<Range<usize>>, bytes: &'a [u8]) -> LogCell<&'a [u8]> {
    let taken = |place: &Range<usize>| bytes.get(place.clone()).unwrap_or_default();
    match cell {
        LogCell::Null => LogCell::Null,
        LogCell::Integer(number) => LogCell::Integer(*number),
        LogCell::Real(number) => LogCell::Real(*number),
        LogCell::Text(place) => LogCell::Text(taken(place)),
        LogCell::Blob(place) => LogCell::Blob(taken(place)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_database_says_of_a_log_reads_as_it_was_said() {
        let extent = Extent { first: Lsn(2), last: Lsn(20), voids: vec![(Lsn(4), Lsn(4)), (Lsn(9), Lsn(12))] };
        assert_eq!(extent.said(), "4-4,9-12");
        assert_eq!(Extent::read(Lsn(2), Lsn(20), &extent.said()), Some(extent));
        assert_eq!(Extent::read(Lsn(1), Lsn(0), "").map(|extent| extent.voids), Some(Vec::new()));
        assert_eq!(Extent::read(Lsn(1), Lsn(0), "x"), None);
    }

    #[test]
    fn savepoints_nest_and_a_rollback_to_one_leaves_it_open() {
        let mut draft = Draft::default();
        draft.begin(Lsn(10));
        let add =
            |draft: &mut Draft, text: &'static [u8]| draft.add(|out| put_cell(out, &LogCell::Blob(text))).unwrap();
        assert_eq!(add(&mut draft, b"a"), Lsn(10));
        draft.savepoint(0);
        assert_eq!(add(&mut draft, b"b"), Lsn(11));
        draft.savepoint(1);
        add(&mut draft, b"c");
        draft.rollback_to(1);
        assert_eq!(draft.len(), 2);
        add(&mut draft, b"d");
        draft.release(1);
        draft.rollback_to(0);
        assert_eq!(draft.len(), 1);
        // A savepoint that began before the table took part, in a statement that is over by now.
        draft.clear();
        draft.savepoint(3);
        add(&mut draft, b"e");
        draft.rollback_to(1);
        assert!(draft.is_empty());
        add(&mut draft, b"f");
        draft.rollback_to(1);
        assert!(draft.is_empty());
        draft.clear();
        draft.savepoint(1);
        add(&mut draft, b"g");
        draft.release(1);
        draft.rollback_to(0);
        assert!(draft.is_empty());
    }

    #[test]
    fn a_row_that_is_too_large_adds_nothing() {
        let mut draft = Draft::default();
        draft.begin(Lsn(1));
        let large = vec![0; LOG_RECORD_MAX];
        assert!(matches!(draft.add(|out| put_cell(out, &LogCell::Blob(&large))), Err(TableError::TooLarge { .. })));
        assert!(draft.is_empty());
        draft.add(|out| put_cell(out, &LogCell::Null)).unwrap();
        assert_eq!(draft.row(0), Some(&[1, 0][..]));
    }
}
