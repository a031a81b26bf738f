//! The head: an overwritten hint that points at the newest manifest snapshot, and holds it where it is small.

use crate::object::{self, Kind};
use crate::wire::{In, Out, Spell};
use crate::{FormatError, snapshot};
use littoral_types::limits::HEAD_INLINE_MAX;
use littoral_types::{Compression, Epoch, Head, RecordHash, Seq, SnapshotRef, VolumeId};

// The snapshot inside is compressed already.
pub(crate) const KIND: Kind =
    Kind { what: "head", magic: b"LHED", version: 1, compression: Compression::None, raw_max: HEAD_INLINE_MAX + 1024 };

/// Spells a head.
pub fn encode(head: &Head) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(KIND.what, 4096);
    head.put(&mut out);
    object::wrap(&KIND, out)
}

/// Reads a head.
pub fn decode(bytes: &[u8]) -> Result<Head, FormatError> {
    let raw = object::unwrap(&KIND, bytes)?;
    let mut input = In::new(KIND.what, &raw);
    let head = Head::get(&mut input)?;
    input.end()?;
    Ok(head)
}

impl Spell for Head {
    fn put(&self, out: &mut Out) {
        out.raw("volume", &self.volume.0);
        out.varint("epoch", self.epoch.0);
        out.varint("seq", self.seq.0);
        out.varint("snapshot: seq", self.snapshot.seq.0);
        out.raw("snapshot: record's hash", &self.snapshot.record.0);
        out.optional("snapshot: is inlined", self.inline.as_deref(), |out, inline| match snapshot::encode(inline) {
            Ok(object) => {
                out.limit(object.len(), HEAD_INLINE_MAX);
                out.blob("snapshot: its object", &object);
            }
            Err(error) => out.fail(error),
        });
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            volume: VolumeId(input.array()?),
            epoch: Epoch(input.varint()?),
            seq: Seq(input.varint()?),
            snapshot: SnapshotRef { seq: Seq(input.varint()?), record: RecordHash(input.array()?) },
            inline: input.optional(|input| snapshot::decode(input.blob(HEAD_INLINE_MAX)?))?.map(Box::new),
        })
    }
}
