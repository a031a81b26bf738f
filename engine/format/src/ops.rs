//! Manifest operations, as records and the change log carry them.

use crate::FormatError;
use crate::nouns::{get_page_size, put_page_size};
use crate::wire::{In, Out, Spell};
use littoral_types::limits::DELTAS_PER_CHUNK_MAX;
use littoral_types::{Base, ChunkId, Delta, DeltaId, LogRow, ManifestOp, ObjectMark, PageCount, SessionMark};

/// Bytes that any operation takes at least.
const OP_LEN_MIN: usize = 2;
/// Operations of one record: more than fit into a body.
const OPS_MAX: usize = 1 << 28;

/// How many bytes the operations take in a record's body before compression.
pub fn encoded_len(ops: &[ManifestOp]) -> usize {
    // One at a time, so that counting those of a large first checkpoint does not build them a second time.
    ops.iter()
        .map(|op| {
            let mut out = Out::new("manifest operation", 4096);
            op.put(&mut out);
            out.len()
        })
        .sum()
}

pub(crate) fn put(out: &mut Out, ops: &[ManifestOp]) {
    out.count("operations", ops.len());
    ops.iter().for_each(|op| op.put(out));
}

pub(crate) fn get(input: &mut In<'_>) -> Result<Vec<ManifestOp>, FormatError> {
    input.list(OP_LEN_MIN, OPS_MAX, ManifestOp::get)
}

impl Spell for ManifestOp {
    fn put(&self, out: &mut Out) {
        const TAG: &str = "operation (1 reshape, 2 resize, 3 put base, 4 put delta, 5 replace deltas, 6 session, 7 object, 8 put segment, 9 drop segment)";
        match self {
            ManifestOp::Reshape { page_size } => {
                out.u8(TAG, 1);
                put_page_size(out, Some(*page_size));
            }
            ManifestOp::Resize { page_count } => {
                out.u8(TAG, 2);
                out.varint("pages of the database", page_count.0);
            }
            ManifestOp::PutBase { chunk, base } => {
                out.u8(TAG, 3);
                out.varint("chunk", chunk.0);
                base.put(out);
            }
            ManifestOp::PutDelta { chunk, delta } => {
                out.u8(TAG, 4);
                out.varint("chunk", chunk.0);
                delta.put(out);
            }
            ManifestOp::ReplaceDeltas { chunk, replaced, delta } => {
                out.u8(TAG, 5);
                out.varint("chunk", chunk.0);
                out.limit(replaced.len(), DELTAS_PER_CHUNK_MAX);
                out.count("replaced deltas", replaced.len());
                replaced.iter().for_each(|id| out.varint("replaced: id", id.0));
                out.optional("something stands for them", delta.as_ref(), |out, delta| delta.put(out));
            }
            ManifestOp::Session(mark) => {
                out.u8(TAG, 6);
                mark.put(out);
            }
            ManifestOp::Object(mark) => {
                out.u8(TAG, 7);
                mark.put(out);
            }
            ManifestOp::PutSegment { chunk, segment } => {
                out.u8(TAG, 8);
                out.varint("segment's number", chunk.0);
                segment.put(out);
            }
            ManifestOp::DropSegment { chunk } => {
                out.u8(TAG, 9);
                out.varint("segment's number", chunk.0);
            }
        }
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(match input.u8()? {
            1 => match get_page_size(input)? {
                Some(page_size) => ManifestOp::Reshape { page_size },
                None => return Err(input.invalid("a reshape without a page size")),
            },
            2 => ManifestOp::Resize { page_count: PageCount(input.varint()?) },
            3 => ManifestOp::PutBase { chunk: ChunkId(input.varint()?), base: Base::get(input)? },
            4 => ManifestOp::PutDelta { chunk: ChunkId(input.varint()?), delta: Delta::get(input)? },
            5 => ManifestOp::ReplaceDeltas {
                chunk: ChunkId(input.varint()?),
                replaced: input.list(1, DELTAS_PER_CHUNK_MAX, |input| Ok(DeltaId(input.varint()?)))?,
                delta: input.optional(Delta::get)?,
            },
            6 => ManifestOp::Session(SessionMark::get(input)?),
            7 => ManifestOp::Object(ObjectMark::get(input)?),
            8 => ManifestOp::PutSegment { chunk: ChunkId(input.varint()?), segment: LogRow::get(input)? },
            9 => ManifestOp::DropSegment { chunk: ChunkId(input.varint()?) },
            other => return Err(input.invalid(format!("operation {other}"))),
        })
    }
}
