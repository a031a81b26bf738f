//! Records that are appended together: spelled as entries, one behind another, but for where they stand, which is known last.

use super::entry::{ENTRY_HEAD_BYTES, EntrySum, entry_bytes, words_of};
use crate::FormatError;
use littoral_types::limits::LOG_RECORD_MAX;
use littoral_types::{LogEntryHead, LogEntryKind, LogHead, Lsn, Serial};
use std::ops::Range;

/// Records, in their order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    records: Vec<Place>,
}

/// Where a record's entry is.
#[derive(Clone, Copy, Debug)]
struct Place {
    begin: usize,
    len: usize,
}

impl Place {
    const fn end(self) -> usize {
        self.begin + entry_bytes(self.len)
    }
}

/// What records that are appended together have in common.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The segment that they go to.
    pub log: LogHead,
    /// The first one's LSN.
    pub first: Lsn,
    /// The session's number in the segment; zero without one.
    pub session: u32,
    /// The first one's serial; zero for all without a session.
    pub serial: Serial,
    /// When they are appended.
    pub time_ms: u64,
}

impl Batch {
    /// Adds a record.
    pub fn push(&mut self, body: &[u8]) -> Result<(), FormatError> {
        self.push_with(|bytes| bytes.extend_from_slice(body))
    }

    /// Adds a record that `put` spells behind what is there. One that is too large adds nothing.
    #[inline]
    pub fn push_with(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Result<(), FormatError> {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&[0; ENTRY_HEAD_BYTES]);
        put(&mut self.bytes);
        let len = self.bytes.len() - begin - ENTRY_HEAD_BYTES;
        if len > LOG_RECORD_MAX {
            self.bytes.truncate(begin);
            return Err(FormatError::TooLarge { what: "record", len: len as u64, max: LOG_RECORD_MAX as u64 });
        }
        let place = Place { begin, len };
        self.bytes.extend_from_slice(&[0; 8][..place.end() - self.bytes.len()]);
        self.records.push(place);
        Ok(())
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes that they take in a segment.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// One of the records.
    pub fn record(&self, nth: usize) -> Option<&[u8]> {
        let place = self.records.get(nth)?;
        self.bytes.get(place.begin + ENTRY_HEAD_BYTES..)?.get(..place.len)
    }

    /// Only so many of the first ones stay.
    pub fn truncate(&mut self, records: usize) {
        self.records.truncate(records);
        self.bytes.truncate(self.records.last().map_or(0, |place| place.end()));
    }

    /// None stays. The room does, up to a MiB.
    pub fn clear(&mut self) {
        self.truncate(0);
        self.bytes.shrink_to(1 << 20);
        self.records.shrink_to(1 << 14);
    }

    /// Bytes that some of them take in a segment.
    pub fn bytes_of(&self, records: &Range<usize>) -> usize {
        self.span(records).len()
    }

    /// The next records from one on that take at most so many bytes together; one alone may take more. Empty behind the last one.
    pub fn part(&self, from: usize, bytes: usize) -> Range<usize> {
        let rest = self.records.get(from..).unwrap_or_default();
        let begin = rest.first().map_or(0, |place| place.begin);
        let many = rest.partition_point(|place| place.end() - begin <= bytes);
        from..from + many.max(rest.len().min(1))
    }

    fn span(&self, records: &Range<usize>) -> Range<usize> {
        match self.records.get(records.clone()) {
            Some([first, .., last]) => first.begin..last.end(),
            Some([only]) => only.begin..only.end(),
            _ => 0..0,
        }
    }

    /// Some of them as they are in a segment, sums and all.
    pub fn stamped(&mut self, records: &Range<usize>, stamp: &Stamp) -> &[u8] {
        let span = self.span(records);
        let places = self.records.get(records.clone()).unwrap_or_default();
        let mut sum = EntrySum::default();
        for (place, nth) in places.iter().zip(0..) {
            let Some(entry) = self.bytes.get_mut(place.begin..place.end()) else { break };
            let Some((head, body)) = entry.split_at_mut_checked(ENTRY_HEAD_BYTES) else { break };
            let body = &body[..place.len];
            let said = LogEntryHead {
                kind: LogEntryKind::Record,
                session: stamp.session,
                len: place.len as u32,
                serial: if stamp.session == 0 { Serial::ZERO } else { stamp.serial.saturating_add(nth) },
                time_ms: stamp.time_ms,
            };
            sum.take(body);
            let words = words_of(&stamp.log, Lsn(stamp.first.0 + nth), &said, &mut sum);
            for (bytes, word) in head.chunks_exact_mut(8).zip(words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
        &self.bytes[span]
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode_entry;
    use super::*;
    use littoral_types::VolumeId;

    const LOG: LogHead = LogHead { log: VolumeId(*b"identity of logs"), first: Lsn(1), created_ms: 1 };

    #[test]
    fn what_is_appended_together_is_spelled_as_one_after_another() {
        let bodies: Vec<Vec<u8>> = (0..40u8).map(|nth| vec![nth; usize::from(nth) * 23 % 700]).collect();
        let mut batch = Batch::default();
        bodies.iter().for_each(|body| batch.push(body).unwrap());
        for (records, session, serial) in [(0..40, 3, 7), (5..6, 0, 0), (11..30, 1, 1), (40..40, 1, 1)] {
            let serial = Serial::new(serial).unwrap();
            let stamp = Stamp { log: LOG, first: Lsn(100), session, serial, time_ms: 5 };
            let mut expected = Vec::new();
            for (body, nth) in bodies[records.clone()].iter().zip(0..) {
                let serial = if session == 0 { Serial::ZERO } else { Serial::new(serial.get() + nth).unwrap() };
                let kind = LogEntryKind::Record;
                let head = LogEntryHead { kind, session, len: body.len() as u32, serial, time_ms: 5 };
                expected.extend(encode_entry(&LOG, Lsn(100 + nth), &head, body).unwrap());
            }
            assert_eq!(batch.bytes_of(&records), expected.len());
            assert_eq!(batch.stamped(&records, &stamp), expected);
        }
        batch.truncate(12);
        assert_eq!((batch.len(), batch.record(11), batch.record(12)), (12, Some(&bodies[11][..]), None));
        batch.push(b"another").unwrap();
        assert_eq!(batch.record(12), Some(&b"another"[..]));
        batch.clear();
        assert!(batch.is_empty() && batch.bytes() == 0);
    }

    #[test]
    fn parts_are_of_so_many_bytes_at_most_and_one_that_is_larger_is_alone() {
        let mut batch = Batch::default();
        [10, 10, 5000, 10, 600].iter().for_each(|len| batch.push(&vec![1; *len]).unwrap());
        let mut from = 0;
        let parts = std::iter::from_fn(|| {
            let part = batch.part(from, 640);
            from = part.end;
            (!part.is_empty()).then_some(part)
        });
        assert_eq!(parts.collect::<Vec<_>>(), [0..2, 2..3, 3..4, 4..5]);
    }

    #[test]
    fn one_that_is_too_large_adds_nothing() {
        let mut batch = Batch::default();
        batch.push(b"one").unwrap();
        let bytes = batch.bytes();
        assert!(matches!(batch.push(&vec![0; LOG_RECORD_MAX + 1]), Err(FormatError::TooLarge { .. })));
        assert_eq!((batch.len(), batch.bytes()), (1, bytes));
        batch.push(&vec![0; LOG_RECORD_MAX]).unwrap();
        assert_eq!(batch.len(), 2);
    }
}
