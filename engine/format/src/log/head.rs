//! A segment's first bytes, which never change, and behind them the two words that do until it is sealed.

use crate::FormatError;
use crate::wire::{CRC_LEN, In, Out, peek_version};
use littoral_types::{LogHead, Lsn, VolumeId};

const WHAT: &str = "log segment";
const MAGIC: &[u8; 4] = b"LLOG";

/// Bytes of the part that never changes.
pub const HEAD_LEN: usize = 4 + 2 + 2 + 16 + 8 + 8 + CRC_LEN;

/// Where the word lies that says where the entries end, in bytes of the segment: zero as long as entries are appended.
pub const END_AT: u64 = 64;
/// Where the word lies that says up to where everything was on the disk when it was written.
pub const SYNCED_AT: u64 = 72;

const _: () = assert!(HEAD_LEN <= END_AT as usize);

/// Spells a segment's head.
pub fn encode_head(head: &LogHead) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(WHAT, HEAD_LEN);
    out.raw("magic", MAGIC);
    out.u16("schema version", super::VERSION);
    out.u16("zero", 0);
    out.raw("the log's id", &head.log.0);
    out.u64("first LSN", head.first.0);
    out.u64("created, ms", head.created_ms);
    out.crc();
    out.finish()
}

/// Reads a segment's head.
pub fn decode_head(bytes: &[u8]) -> Result<LogHead, FormatError> {
    let bytes = bytes.get(..HEAD_LEN).ok_or(FormatError::Truncated { what: WHAT })?;
    peek_version(WHAT, bytes, MAGIC, super::VERSION)?;
    let mut input = In::checked(WHAT, bytes)?;
    input.magic(MAGIC)?;
    input.version(super::VERSION)?;
    if input.u16()? != 0 {
        return Err(input.invalid("bytes that are zero are not"));
    }
    let head = LogHead { log: VolumeId(input.array()?), first: Lsn(input.u64()?), created_ms: input.u64()? };
    if head.first == Lsn::ZERO {
        return Err(input.invalid("it begins with LSN 0"));
    }
    input.end()?;
    Ok(head)
}
