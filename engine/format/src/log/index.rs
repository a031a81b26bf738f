//! What stands behind the entries of a sealed segment, and at its very end how long that is.

use crate::FormatError;
use crate::wire::{CRC_LEN, In, Out, peek_version};
use littoral_types::limits::{
    LOG_BLOCK_BYTES, LOG_HEAD_BYTES, LOG_INDEX_BYTES_MAX, LOG_SEGMENT_BYTES, LOG_SESSIONS_MAX, SESSION_NAME_LEN_MAX,
};
use littoral_types::{LogBlock, LogIndex, LogSession, Lsn, Serial};

const WHAT: &str = "log index";
const MAGIC: &[u8; 4] = b"LLIX";
const TRAILER: &str = "log index trailer";
const TRAILER_MAGIC: &[u8; 4] = b"LLEN";

/// Bytes of a sealed segment's end that say how long its index is, themselves included.
pub const TRAILER_BYTES: usize = 8;

const BLOCKS_MAX: usize = (LOG_SEGMENT_BYTES / LOG_BLOCK_BYTES) as usize;

/// Spells an index, and the trailer behind it.
pub fn encode_index(index: &LogIndex) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(WHAT, 64 + index.blocks.len() * 16 + index.sessions.len() * 32);
    out.raw("magic", MAGIC);
    out.u16("schema version", super::VERSION);
    out.varint("end of the entries", index.end);
    out.varint("first LSN", index.first.0);
    out.varint("records", index.records);
    out.count("blocks", index.blocks.len());
    let (mut offset, mut first) = (0, index.first.0);
    for block in &index.blocks {
        out.varint("block's offset, from the one before", block.offset.wrapping_sub(offset));
        out.varint("its first LSN, from the one before", block.first.0.wrapping_sub(first));
        out.varint("its earliest time, ms", block.since_ms);
        out.varint("its latest time, ms", block.until_ms);
        (offset, first) = (block.offset, block.first.0);
    }
    out.count("sessions", index.sessions.len());
    for session in &index.sessions {
        out.blob("session's name", session.name.as_str().as_bytes());
        out.varint("its number here", u64::from(session.number));
        out.varint("its serial", session.serial.get());
    }
    out.crc();
    let len = out.len() + TRAILER_BYTES;
    out.limit(len, LOG_INDEX_BYTES_MAX as usize);
    if let Err(detail) = check(index) {
        out.refuse(detail);
    }
    let mut bytes = out.finish()?;
    let mut out = Out::new(TRAILER, TRAILER_BYTES);
    out.u32("bytes of the index and of this", len as u32);
    out.raw("magic", TRAILER_MAGIC);
    bytes.extend(out.finish()?);
    Ok(bytes)
}

/// How many bytes at the end of a segment its index takes, the trailer included. An error where the segment is not sealed.
pub fn decode_trailer(bytes: [u8; TRAILER_BYTES]) -> Result<u64, FormatError> {
    let mut input = In::new(TRAILER, &bytes);
    let len = u64::from(input.u32()?);
    input.magic(TRAILER_MAGIC)?;
    if len > LOG_INDEX_BYTES_MAX {
        return Err(FormatError::TooLarge { what: TRAILER, len, max: LOG_INDEX_BYTES_MAX });
    }
    Ok(len)
}

/// Reads an index: all bytes that its trailer counts.
pub fn decode_index(bytes: &[u8]) -> Result<LogIndex, FormatError> {
    let (bytes, trailer) = bytes.split_last_chunk::<TRAILER_BYTES>().ok_or(FormatError::Truncated { what: WHAT })?;
    if decode_trailer(*trailer)? != (bytes.len() + TRAILER_BYTES) as u64 {
        return Err(FormatError::Invalid { what: WHAT, detail: "another length than its trailer says".to_owned() });
    }
    peek_version(WHAT, bytes, MAGIC, super::VERSION)?;
    let mut input = In::checked(WHAT, bytes)?;
    input.magic(MAGIC)?;
    input.version(super::VERSION)?;
    let (end, first, records) = (input.varint()?, Lsn(input.varint()?), input.varint()?);
    let (mut offset, mut lsn) = (0u64, first.0);
    let blocks = input.list(4, BLOCKS_MAX, |input| {
        let beyond = |input: &In<'_>| input.invalid("a block beyond 64 bits");
        offset = offset.checked_add(input.varint()?).ok_or_else(|| beyond(input))?;
        lsn = lsn.checked_add(input.varint()?).ok_or_else(|| beyond(input))?;
        Ok(LogBlock { offset, first: Lsn(lsn), since_ms: input.varint()?, until_ms: input.varint()? })
    })?;
    let sessions = input.list(3, LOG_SESSIONS_MAX, |input| {
        let name = input.blob(SESSION_NAME_LEN_MAX)?;
        let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        let name = name.ok_or_else(|| input.invalid("a session's name that is none"))?;
        let number = input.varint()?;
        let number = u32::try_from(number).map_err(|_| input.invalid(format!("session number {number}")))?;
        let serial = input.varint()?;
        let serial = Serial::new(serial).ok_or_else(|| input.invalid(format!("serial {serial}")))?;
        Ok(LogSession { name, number, serial })
    })?;
    let index = LogIndex { end, first, records, blocks, sessions };
    if let Err(detail) = check(&index) {
        return Err(input.invalid(detail));
    }
    input.end()?;
    Ok(index)
}

/// What every index keeps to, read or written; the words say which rule it breaks.
fn check(index: &LogIndex) -> Result<(), &'static str> {
    let LogIndex { end, first, records, blocks, sessions } = index;
    if !end.is_multiple_of(8) || !(LOG_HEAD_BYTES..=super::ENTRIES_END_MAX).contains(end) {
        return Err("entries end where none can");
    }
    if *first == Lsn::ZERO || first.0.checked_add(*records).is_none() {
        return Err("LSNs that there are not");
    }
    if blocks.is_empty() != (*end == LOG_HEAD_BYTES)
        || blocks.first().is_some_and(|first| first.offset != LOG_HEAD_BYTES)
    {
        return Err("its first block does not begin where entries do");
    }
    if !blocks.is_sorted_by(|one, other| {
        one.offset / LOG_BLOCK_BYTES < other.offset / LOG_BLOCK_BYTES && one.first <= other.first
    }) {
        return Err("blocks out of their order");
    }
    let inside = |block: &LogBlock| {
        block.offset.is_multiple_of(8) && block.offset < *end && block.first >= *first && block.first <= index.next()
    };
    if !blocks.iter().all(inside) {
        return Err("a block outside of the entries");
    }
    if !sessions.is_sorted_by(|one, other| one.name < other.name) {
        return Err("sessions out of their order");
    }
    let mut numbers: Vec<u32> = sessions.iter().map(|session| session.number).filter(|number| *number > 0).collect();
    numbers.sort_unstable();
    if numbers.iter().zip(1..).any(|(number, expected)| *number != expected) {
        return Err("numbers of sessions that do not follow one another");
    }
    Ok(())
}

const _: () = assert!(CRC_LEN == 8);
