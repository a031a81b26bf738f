//! Shards: the rows of up to 1,024 chunks, one after another behind a fixed header, each readable by a ranged GET (rule P7).

use crate::FormatError;
use crate::wire::{In, Out, Spell, peek_version};
use littoral_types::limits::SHARD_CHUNKS;
use littoral_types::{ByteSpan, ChunkId, ChunkRow, ShardRef};

const WHAT: &str = "shard";
const ROW: &str = "shard row";
const MAGIC: &[u8; 4] = b"LSHD";
pub(crate) const VERSION: u16 = 1;
pub(crate) const ROW_VERSION: u16 = 1;

/// Bytes before the first row.
pub const HEADER_BYTES: u64 = 36;

/// How long each chunk's row is, ascending: the part of the snapshot's directory that says where rows begin.
pub type RowLengths = Vec<(ChunkId, u32)>;

/// Spells a shard: its bytes, and each row's length for the snapshot's directory. Rows ascend and belong to this shard.
pub fn encode(shard: u64, rows: &[ChunkRow]) -> Result<(Vec<u8>, RowLengths), FormatError> {
    let mut behind = Vec::new();
    let mut lengths = Vec::with_capacity(rows.len());
    for row in rows {
        let bytes = encode_row(row)?;
        // A row is bounded by its versions and their pages, far below 4 GiB.
        let len = u32::try_from(bytes.len());
        let too_large = FormatError::TooLarge { what: ROW, len: bytes.len() as u64, max: u64::from(u32::MAX) };
        lengths.push((row.chunk, len.map_err(|_| too_large)?));
        behind.extend_from_slice(&bytes);
    }
    let mut out = Out::new(WHAT, HEADER_BYTES as usize + behind.len());
    let tables = rows
        .iter()
        .flat_map(|row| row.base.iter().map(|base| &base.table).chain(row.deltas.iter().map(|delta| &delta.table)));
    tables.for_each(|table| out.spend_zeros(table.zeros().len() as usize));
    if !rows_fit(shard, rows.iter().map(|row| row.chunk)) {
        out.refuse("rows that do not ascend or belong to another shard");
    }
    out.raw("magic", MAGIC);
    out.u16("schema version", VERSION);
    out.u16("zero", 0);
    out.u64("shard", shard);
    out.u32("rows", rows.len() as u32);
    out.u64("bytes of all rows", behind.len() as u64);
    out.crc();
    let mut bytes = out.finish()?;
    bytes.extend_from_slice(&behind);
    Ok((bytes, lengths))
}

pub(crate) fn encode_row(row: &ChunkRow) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(ROW, 4096);
    out.u16("schema version", ROW_VERSION);
    row.put(&mut out);
    out.crc();
    out.finish()
}

/// Whether the chunks ascend and lie in the shard.
pub(crate) fn rows_fit(shard: u64, chunks: impl Iterator<Item = ChunkId>) -> bool {
    let mut least = shard.checked_mul(SHARD_CHUNKS);
    for ChunkId(chunk) in chunks {
        if chunk / SHARD_CHUNKS != shard || least.is_none_or(|least| chunk < least) {
            return false;
        }
        least = chunk.checked_add(1);
    }
    true
}

/// Where a chunk's row lies in the shard's blob; `None` when it has none, and for lengths that no blob has.
pub fn row_span(shard: &ShardRef, chunk: ChunkId) -> Option<ByteSpan> {
    let at = shard.rows.binary_search_by_key(&chunk, |(chunk, _)| *chunk).ok()?;
    let before = shard.rows[..at].iter().try_fold(HEADER_BYTES, |sum, (_, len)| sum.checked_add(u64::from(*len)))?;
    Some(ByteSpan { offset: before, len: u64::from(shard.rows[at].1) })
}

/// What a directory keeps of a row, to know it by: of the checksum at its end the last four bytes.
pub fn check(row: &[u8]) -> u32 {
    row.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The checks of a shard's rows, in their order.
pub fn checks(whole: &[u8], rows: &[(ChunkId, u32)]) -> Vec<u32> {
    let mut left = whole.get(HEADER_BYTES as usize..).unwrap_or_default();
    let mut next = |len: u32| {
        let (row, rest) = left.split_at_checked(len as usize).unwrap_or((left, &[]));
        left = rest;
        check(row)
    };
    rows.iter().map(|(_, len)| next(*len)).collect()
}

/// The check of a chunk's row, where the directory has one.
pub fn row_check(shard: &ShardRef, chunk: ChunkId) -> Option<u32> {
    let at = shard.rows.binary_search_by_key(&chunk, |(chunk, _)| *chunk).ok()?;
    shard.checks.get(at).copied()
}

/// Reads one row, which must be this chunk's.
pub fn decode_row(bytes: &[u8], chunk: ChunkId) -> Result<ChunkRow, FormatError> {
    In::new(ROW, bytes).version(ROW_VERSION)?;
    let mut input = In::checked(ROW, bytes)?;
    let row = get_row(&mut input)?;
    if row.chunk != chunk {
        return Err(input.invalid(format!("of chunk {} instead of {chunk}", row.chunk)));
    }
    input.end()?;
    Ok(row)
}

fn get_row(input: &mut In<'_>) -> Result<ChunkRow, FormatError> {
    input.version(ROW_VERSION)?;
    ChunkRow::get(input)
}

/// Reads a whole shard.
pub fn decode(whole: &[u8]) -> Result<(u64, Vec<ChunkRow>), FormatError> {
    peek_version(WHAT, whole, MAGIC, VERSION)?;
    let (header, behind) =
        whole.split_at_checked(HEADER_BYTES as usize).ok_or(FormatError::Truncated { what: WHAT })?;
    let mut input = In::checked(WHAT, header)?;
    input.magic(MAGIC)?;
    input.version(VERSION)?;
    let zero = input.u16()?;
    let shard = input.u64()?;
    let count = input.u32()?;
    let len = input.u64()?;
    if zero != 0 || u64::from(count) > SHARD_CHUNKS {
        return Err(input.invalid("a header that no writer writes"));
    }
    match len.cmp(&(behind.len() as u64)) {
        std::cmp::Ordering::Greater => return Err(FormatError::Truncated { what: WHAT }),
        std::cmp::Ordering::Less => return Err(input.invalid("bytes behind the last row")),
        std::cmp::Ordering::Equal => {}
    }
    // Rows do not say how long they are (the directory does): read one, then check the checksum behind it.
    let mut rows = Vec::with_capacity(count as usize);
    let mut left = In::new(ROW, behind);
    for _ in 0..count {
        let before = left.clone().rest();
        left.clone().version(ROW_VERSION)?;
        let row = get_row(&mut left)?;
        let read = before.len() - left.left();
        if crate::hash::crc64(&before[..read]) != left.u64()? {
            return Err(FormatError::Checksum { what: ROW });
        }
        rows.push(row);
    }
    left.end()?;
    if rows_fit(shard, rows.iter().map(|row| row.chunk)) {
        Ok((shard, rows))
    } else {
        Err(input.invalid("rows that do not ascend or belong to another shard"))
    }
}
