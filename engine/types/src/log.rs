//! Append-only logs: what their segments hold.

use crate::limits::{LOG_COLUMNS_MAX, LOG_HEAD_BYTES, LOG_PIECES_MAX, LOG_SEGMENT_BYTES, LOG_VOIDS_MAX};
use crate::{BlobRef, Lsn, Serial, SessionName, VolumeId, VolumeName};
use std::fmt;

/// What a segment's beginning says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogHead {
    /// Which log it is of.
    pub log: VolumeId,
    /// The LSN of its first record.
    pub first: Lsn,
    /// When it was begun, milliseconds since 1970.
    pub created_ms: u64,
}

/// What is let go of at a log's beginning. Whole segments go, and only those that are sealed: more may stay than was asked for, never less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Everything before this record.
    Before(Lsn),
    /// Everything that is older, milliseconds since 1970.
    OlderThan(u64),
    /// The oldest, until the others' files take no more than so many bytes.
    KeepBytes(u64),
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Before(lsn) => write!(f, "before LSN {lsn}"),
            Cut::OlderThan(ms) => write!(f, "before {ms} ms"),
            Cut::KeepBytes(bytes) => write!(f, "but {bytes} B"),
        }
    }
}

/// What stands in a log at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogEntryKind {
    /// A record: bytes that an application appended. It has an LSN.
    Record,
    /// The name of a session that goes on in this segment, and its serial so far. It has no LSN.
    Session,
}

/// What stands before an entry's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogEntryHead {
    /// What it is.
    pub kind: LogEntryKind,
    /// The session's number within its segment; zero is nobody's.
    pub session: u32,
    /// How many bytes follow.
    pub len: u32,
    /// The session's serial with this record; of a [`LogEntryKind::Session`], the one before. Zero where the session has no name.
    pub serial: Serial,
    /// When it was appended, milliseconds since 1970.
    pub time_ms: u64,
}

/// Neighbouring entries that are fetched together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogBlock {
    /// Where the first of them begins in the segment. The block ends where the next one begins.
    pub offset: u64,
    /// The LSN of the first record that begins here or later.
    pub first: Lsn,
    /// The earliest time of its records. Later than [`LogBlock::until_ms`] where it holds none.
    pub since_ms: u64,
    /// The latest.
    pub until_ms: u64,
}

/// How far a session was at a segment's end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogSession {
    /// What it is called.
    pub name: SessionName,
    /// Its number in the segment; zero where the segment has nothing of it.
    pub number: u32,
    /// The serial of its last record.
    pub serial: Serial,
}

/// What a sealed segment's end says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogIndex {
    /// Where its entries end.
    pub end: u64,
    /// The LSN of its first record.
    pub first: Lsn,
    /// How many records it has.
    pub records: u64,
    /// In order of their offsets; the zone map of each by its times.
    pub blocks: Vec<LogBlock>,
    /// All sessions of the log, by name.
    pub sessions: Vec<LogSession>,
}

impl LogIndex {
    /// The LSN after its last record.
    pub const fn next(&self) -> Lsn {
        Lsn(self.first.0.saturating_add(self.records))
    }

    /// Where a block ends.
    pub fn end_of(&self, block: usize) -> u64 {
        self.blocks.get(block.saturating_add(1)).map_or(self.end, |next| next.offset)
    }
}

/// One value of a row of a log's table, as SQLite has it. Text is bytes: SQLite does not look whether they are UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub enum LogCell<B> {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL, never NaN: SQLite makes NULL of that.
    Real(f64),
    /// TEXT.
    Text(B),
    /// BLOB.
    Blob(B),
}

/// The least and the greatest of some values.
pub type LogBounds = (LogCell<Vec<u8>>, LogCell<Vec<u8>>);

/// What the values of one column of a block are between.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogZone {
    /// The least and the greatest that is not NULL, in SQLite's order: numbers, text by its bytes, blobs. `None`: all are NULL.
    pub bounds: Option<LogBounds>,
    /// Whether the greatest is only the beginning of a value: what is greater may begin with it.
    pub is_cut: bool,
    /// Whether some text may be a number: SQLite takes it for one, where it compares it with a column of numbers.
    pub like_numbers: bool,
}

/// Bytes of a segment, where the object store has them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogPiece {
    /// Where they begin in the segment.
    pub from: u64,
    /// Where they end there: between two entries, or where the file ends.
    pub to: u64,
    /// The LSN of the first record that begins here or later.
    pub first: Lsn,
    /// The object that holds them.
    pub blob: BlobRef,
    /// Where they begin in it.
    pub at: u64,
}

impl LogPiece {
    /// How many bytes.
    pub const fn len(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// Whether there are none, which no row says.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Of a log whose records are rows of a database's table: what the database says of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogTable {
    /// Its columns, as SQL declares them.
    pub columns: Vec<String>,
    /// Records that are no rows, from the first one to the last, in order: of transactions that never committed.
    pub voids: Vec<(Lsn, Lsn)>,
}

/// A log whose records are rows of a table, as a state of its database counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedLog {
    /// The table.
    pub table: String,
    /// Where the log is, as seen from the database's folder.
    pub folder: String,
    /// Which log.
    pub log: VolumeId,
    /// Its first record that is a row, or where that will be.
    pub first: Lsn,
    /// The last one; before the first one where there is none.
    pub last: Lsn,
    /// Those in between that are none, in order.
    pub voids: Vec<(Lsn, Lsn)>,
}

impl CountedLog {
    /// All records up to one that are no rows.
    pub fn voids_up_to(&self, end: Lsn) -> Vec<(Lsn, Lsn)> {
        let before = (self.first > Lsn(1)).then(|| (Lsn(1), Lsn(self.first.0 - 1)));
        let behind = (end > self.last).then(|| (self.last.next().max(self.first), end));
        before.into_iter().chain(self.voids.iter().copied()).chain(behind).filter(|(from, to)| from <= to).collect()
    }
}

/// A log's segment, as far as the object store has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogRow {
    /// The LSN of its first record.
    pub first: Lsn,
    /// When it was begun, milliseconds since 1970.
    pub created_ms: u64,
    /// Where the entries end that are there.
    pub end: u64,
    /// How many records they are.
    pub records: u64,
    /// The earliest time of these. Later than [`LogRow::until_ms`] where there are none.
    pub since_ms: u64,
    /// The latest.
    pub until_ms: u64,
    /// Bytes of its file, where it is sealed and there whole; its index is what follows the entries.
    pub sealed: Option<u64>,
    /// What it is made of, in order and without holes: from its first entry to `end`, or, where it is sealed, the whole file.
    pub pieces: Vec<LogPiece>,
    /// Where its records are rows of a table, what that is, and which of these records are none.
    pub table: Option<LogTable>,
    /// Of a log that is no table's: records that were rolled back when they were there already, from the first one to the last, in order. They never
    /// become fewer.
    pub taken_back: Vec<(Lsn, Lsn)>,
}

impl LogRow {
    /// The LSN after its last record.
    pub const fn next(&self) -> Lsn {
        Lsn(self.first.0.saturating_add(self.records))
    }

    /// Those of some voids that lie in it.
    pub fn voids_among(&self, voids: &[(Lsn, Lsn)]) -> Vec<(Lsn, Lsn)> {
        let last = Lsn(self.next().0.saturating_sub(1));
        let within = voids.iter().map(|(from, to)| ((*from).max(self.first), (*to).min(last)));
        within.filter(|(from, to)| from <= to).collect()
    }

    /// Those of its records that no reader is given: no rows of its table, or taken back.
    pub fn voids(&self) -> &[(Lsn, Lsn)] {
        self.table.as_ref().map_or(&self.taken_back, |table| &table.voids)
    }

    /// Whether no reader is given one of its records.
    pub fn is_void(&self, lsn: Lsn) -> bool {
        let voids = self.voids();
        let after = voids.partition_point(|(from, _)| *from <= lsn);
        after.checked_sub(1).and_then(|at| voids.get(at)).is_some_and(|(_, to)| lsn <= *to)
    }

    /// Where its pieces begin and where they end.
    pub fn span(&self) -> (u64, u64) {
        self.sealed.map_or((LOG_HEAD_BYTES, self.end), |bytes| (0, bytes))
    }

    /// The objects that it names.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        self.pieces.iter().map(|piece| &piece.blob)
    }

    /// The same row, seen from another volume than the one it was read in.
    pub fn rehome(&mut self, from: &VolumeName) {
        self.pieces.iter_mut().for_each(|piece| piece.blob.rehome(from));
    }

    /// What every row keeps to; the words say which rule it breaks.
    pub fn check(&self) -> Result<(), &'static str> {
        let (begin, end) = self.span();
        if self.first == Lsn::ZERO || self.first.0.checked_add(self.records).is_none() {
            return Err("LSNs that there are not");
        }
        if self.end < LOG_HEAD_BYTES || !self.end.is_multiple_of(8) || end < self.end || end > LOG_SEGMENT_BYTES {
            return Err("entries that end where none can");
        }
        if self.pieces.len() > LOG_PIECES_MAX {
            return Err("more pieces than a segment is made of");
        }
        let columns = self.table.as_ref().map_or(0, |table| table.columns.len());
        if columns > LOG_COLUMNS_MAX || self.voids().len() > LOG_VOIDS_MAX {
            return Err("more columns or voids than a segment has");
        }
        if self.table.is_some() && !self.taken_back.is_empty() {
            return Err("records of a table that were taken back by somebody else than its database");
        }
        let mut next = self.first;
        for (from, to) in self.voids() {
            if *from < next || to < from || *to >= self.next() {
                return Err("voids that do not follow one another within it");
            }
            next = to.next();
        }
        let mut at = begin;
        let mut first = self.first;
        for piece in &self.pieces {
            let fits = piece.from == at
                && piece.to > piece.from
                && piece.first >= first
                && piece.first <= self.next()
                && piece.at.checked_add(piece.len()).is_some_and(|end| end <= i64::MAX as u64);
            if !fits {
                return Err("pieces that do not follow one another");
            }
            (at, first) = (piece.to, piece.first);
        }
        if at == end { Ok(()) } else { Err("pieces that are not all of it") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_before_the_first_row_and_behind_the_last_one_is_no_row_either() {
        let (table, folder, log) = (String::new(), String::new(), VolumeId([1; 16]));
        let counted = CountedLog { table, folder, log, first: Lsn(4), last: Lsn(9), voids: vec![(Lsn(6), Lsn(7))] };
        assert_eq!(counted.voids_up_to(Lsn(9)), [(Lsn(1), Lsn(3)), (Lsn(6), Lsn(7))]);
        assert_eq!(counted.voids_up_to(Lsn(12)), [(Lsn(1), Lsn(3)), (Lsn(6), Lsn(7)), (Lsn(10), Lsn(12))]);
        let none = CountedLog { first: Lsn(1), last: Lsn(0), voids: Vec::new(), ..counted };
        assert_eq!(none.voids_up_to(Lsn(0)), []);
        assert_eq!(none.voids_up_to(Lsn(2)), [(Lsn(1), Lsn(2))]);
    }
}
