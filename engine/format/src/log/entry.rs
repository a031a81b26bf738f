//! An entry: four words and its bytes, filled up with zeros to a multiple of eight.

use crate::FormatError;
use crate::hash::crc64;
use crc64fast_nvme::Digest;
use littoral_types::limits::LOG_RECORD_MAX;
use littoral_types::{LogEntryHead, LogEntryKind, LogHead, Lsn, Serial};

const WHAT: &str = "log entry";

/// Bytes before an entry's own.
pub const ENTRY_HEAD_BYTES: usize = 32;

const RECORD: u64 = 1;
const SESSION: u64 = 2;
const KIND_AT: u32 = 32;
const SESSION_AT: u32 = 40;
const SESSION_MAX: u64 = (1 << 24) - 1;

/// Bytes that an entry with so many of its own takes.
pub const fn entry_bytes(len: usize) -> usize {
    ENTRY_HEAD_BYTES + len.next_multiple_of(8)
}

/// Bytes of an entry that are summed together with where it stands: the sum is quick of whole lines, and slow of what is left over.
const SHORT: usize = RUN - INIT - PLACE;
/// Bytes that say where it stands.
const PLACE: usize = 40;
/// Bytes of the longest run that is summed as whole lines.
const RUN: usize = 512;
/// Bytes that the sum takes at once.
const LINE: usize = 128;
/// Bytes of what the sum begins with, which is all ones.
const INIT: usize = 8;

/// Sums entries, one after another. Where one stands is known last.
pub struct EntrySum {
    /// Bytes that end where a line ends, with room for their place.
    run: Run,
    from: usize,
    end: usize,
    /// Those that are longer, and are not copied.
    long: Option<Digest>,
}

/// Where the sum takes whole lines at once.
#[repr(align(64))]
struct Run([u8; RUN]);

impl Default for EntrySum {
    fn default() -> Self {
        let mut sum = Self { run: Run([0; RUN]), from: 0, end: 0, long: None };
        sum.take(&[]);
        sum
    }
}

impl EntrySum {
    /// Of these bytes.
    #[inline]
    pub fn of(body: &[u8]) -> Self {
        let mut sum = Self::default();
        sum.take(body);
        sum
    }

    /// Of these bytes, and of no others any more.
    #[inline]
    pub fn take(&mut self, body: &[u8]) {
        if body.len() > SHORT {
            let mut digest = Digest::new();
            digest.write(body);
            self.long = Some(digest);
            return;
        }
        self.long = None;
        self.end = (INIT + body.len() + PLACE).next_multiple_of(LINE);
        self.from = self.end - PLACE - body.len();
        self.run.0[INIT..self.from].fill(0);
        self.run.0[self.from..self.end - PLACE].copy_from_slice(body);
    }

    #[inline]
    fn at(&mut self, log: &LogHead, lsn: Lsn, first: u64, serial: u64, time_ms: u64) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = log.log.0;
        let words = [u64::from_le_bytes([a, b, c, d, e, f, g, h]), lsn.0, first, serial, time_ms];
        let mut place = [0; PLACE];
        for (bytes, word) in place.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        if let Some(digest) = &self.long {
            let mut digest = digest.clone();
            digest.write(&place);
            return digest.sum64();
        }
        let Self { run, from, end, .. } = self;
        run.0[*end - PLACE..*end].copy_from_slice(&place);
        // What the sum begins with is taken up by as many ones before everything, is nothing through all zeros, and is put back where
        // the bytes begin: so zeros before them change nothing.
        run.0[..INIT].fill(0xff);
        run.flip(*from);
        let sum = crc64(&run.0[..*end]);
        run.flip(*from);
        sum
    }
}

impl Run {
    #[inline]
    fn flip(&mut self, from: usize) {
        self.0[from..from + INIT].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

impl std::fmt::Debug for EntrySum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EntrySum(..)")
    }
}

fn first_word(head: &LogEntryHead) -> u64 {
    let kind = match head.kind {
        LogEntryKind::Record => RECORD,
        LogEntryKind::Session => SESSION,
    };
    u64::from(head.len) | kind << KIND_AT | (u64::from(head.session) & SESSION_MAX) << SESSION_AT
}

/// The four words of an entry's head: the first one is written last, and publishes it.
#[inline]
pub fn words_of(log: &LogHead, lsn: Lsn, head: &LogEntryHead, sum: &mut EntrySum) -> [u64; 4] {
    let (first, serial) = (first_word(head), head.serial.get());
    [first, sum.at(log, lsn, first, serial, head.time_ms), serial, head.time_ms]
}

/// Reads the words of a head, without what lies behind it. `None` where nothing has been published.
pub fn read_head(words: [u64; 4]) -> Result<Option<LogEntryHead>, FormatError> {
    let [first, _, serial, time_ms] = words;
    if first == 0 {
        return Ok(None);
    }
    let invalid = |detail: String| FormatError::Invalid { what: WHAT, detail };
    let kind = match first >> KIND_AT & 0xff {
        RECORD => LogEntryKind::Record,
        SESSION => LogEntryKind::Session,
        other => return Err(invalid(format!("kind {other}"))),
    };
    let len = first as u32;
    if len as usize > LOG_RECORD_MAX {
        return Err(FormatError::TooLarge { what: WHAT, len: u64::from(len), max: LOG_RECORD_MAX as u64 });
    }
    let serial = Serial::new(serial).ok_or_else(|| invalid(format!("serial {serial}")))?;
    Ok(Some(LogEntryHead { kind, session: (first >> SESSION_AT) as u32, len, serial, time_ms }))
}

/// Spells an entry.
pub fn encode_entry(log: &LogHead, lsn: Lsn, head: &LogEntryHead, body: &[u8]) -> Result<Vec<u8>, FormatError> {
    if body.len() != head.len as usize || body.len() > LOG_RECORD_MAX {
        return Err(FormatError::TooLarge { what: WHAT, len: body.len() as u64, max: LOG_RECORD_MAX as u64 });
    }
    let mut out = crate::wire::Out::new(WHAT, entry_bytes(body.len()));
    let [first, sum, serial, time_ms] = words_of(log, lsn, head, &mut EntrySum::of(body));
    out.u64("length (32 bits), kind (8: 1 record, 2 session), session (24)", first);
    out.u64("CRC64-NVME of bytes, log's id (8 bytes), LSN, length and kind and session, serial, time", sum);
    out.u64("serial", serial);
    out.u64("time, ms", time_ms);
    out.raw("bytes", body);
    out.raw("zeros", &[0; 8][..body.len().next_multiple_of(8) - body.len()]);
    out.finish()
}

/// Reads the entry that `bytes` begin with. `None` where nothing has been published there.
pub fn decode_entry<'a>(
    log: &LogHead,
    lsn: Lsn,
    bytes: &'a [u8],
) -> Result<Option<(LogEntryHead, &'a [u8])>, FormatError> {
    let ends = FormatError::Truncated { what: WHAT };
    let Some((words, rest)) = bytes.split_first_chunk::<ENTRY_HEAD_BYTES>() else { return Err(ends) };
    let words = read_words(words);
    let Some(head) = read_head(words)? else { return Ok(None) };
    let len = head.len as usize;
    let Some((body, rest)) = rest.split_at_checked(len) else { return Err(ends) };
    let Some(zeros) = rest.get(..len.next_multiple_of(8) - len) else { return Err(ends) };
    if words_of(log, lsn, &head, &mut EntrySum::of(body)) != words || zeros.iter().any(|byte| *byte != 0) {
        return Err(FormatError::Checksum { what: WHAT });
    }
    Ok(Some((head, body)))
}

fn read_words(bytes: &[u8; ENTRY_HEAD_BYTES]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::VolumeId;

    #[test]
    fn the_sum_is_of_the_bytes_and_their_place_however_long_they_are() {
        let log = LogHead { log: VolumeId(*b"identity of logs"), first: Lsn(1), created_ms: 1 };
        let bytes: Vec<u8> = (0..700).map(|nth: u32| (nth.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        let mut reused = EntrySum::default();
        for len in (0..bytes.len()).flat_map(|len| [len, bytes.len() - len]) {
            let body = &bytes[..len];
            let mut sum = EntrySum::of(body);
            reused.take(body);
            // Where it stands is known late, and may change.
            for (lsn, first, serial, time_ms) in [(7, 1 << 32, 3, 4), (u64::MAX, u64::MAX, 0, 0), (7, 1 << 32, 3, 4)] {
                let place = [lsn, first, serial, time_ms].map(u64::to_le_bytes).concat();
                let whole = [body, b"identity", &place].concat();
                for sum in [&mut sum, &mut reused] {
                    assert_eq!(sum.at(&log, Lsn(lsn), first, serial, time_ms), crc64(&whole), "{len} bytes");
                }
            }
        }
    }
}
