//! All that is known of a volume apart from its chunks.

use crate::wire::{In, Out, Spell};
use crate::{FormatError, body};
use littoral_types::{
    Epoch, Incarnation, Lsn, Owner, RecordHash, SchemaSummary, Seq, TailRow, VolumeFigures, VolumeMeta, VolumeRow,
    WalMark,
};

/// The newest layout.
///
/// Version 2 says where the WAL stood at the last commit, and is written where somebody knows.
pub const VERSION: u16 = 2;
const WHAT: &str = "volume row";

/// Spells it.
pub fn encode(row: &VolumeRow) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, if row.tail.wal.is_some() { VERSION } else { 1 }, row)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<VolumeRow, FormatError> {
    super::decode_with(WHAT, VERSION, bytes, |input, version| {
        let mut row = VolumeRow::get(input)?;
        row.tail.wal = if version > 1 { Some(WalMark::get(input)?) } else { None };
        Ok(row)
    })
}

impl Spell for VolumeRow {
    fn put(&self, out: &mut Out) {
        self.meta.put(out);
        self.tail.put(out);
        out.optional("is fenced", self.fenced.as_ref(), |out, (epoch, owner)| {
            out.varint("fenced: epoch", epoch.0);
            owner.put(out);
        });
        if let Some(wal) = &self.tail.wal {
            wal.put(out);
        }
    }

    /// Without what version 2 added at its end.
    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            meta: VolumeMeta::get(input)?,
            tail: TailRow::get(input)?,
            fenced: input.optional(|input| Ok((Epoch(input.varint()?), Owner::get(input)?)))?,
        })
    }
}

impl Spell for TailRow {
    fn put(&self, out: &mut Out) {
        out.varint("tail: seq", self.seq.0);
        out.raw("tail: hash", &self.hash.0);
        out.varint("tail: epoch", self.epoch.0);
        out.raw("tail: incarnation", &self.incarnation.0);
        body::put_owner(out, self.owner.as_ref());
        out.varint("tail: last LSN", self.lsn.0);
        out.varint("tail: time, ms", self.time_ms);
        self.figures.put(out);
        body::put_schema(out, self.schema.as_ref());
        out.varint("tail: newest snapshot", self.snapshot.0);
        out.optional("tail: has an index", self.index.as_ref(), |out, (seq, hash)| {
            out.varint("tail: index's seq", seq.0);
            out.raw("tail: index's hash", &hash.0);
        });
        out.varint("tail: newest prune's floor", self.floor.0);
        out.varint("tail: seen, ms", self.seen_ms);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            seq: Seq(input.varint()?),
            hash: RecordHash(input.array()?),
            epoch: Epoch(input.varint()?),
            incarnation: Incarnation(input.array()?),
            owner: input.optional(Owner::get)?,
            lsn: Lsn(input.varint()?),
            time_ms: input.varint()?,
            figures: VolumeFigures::get(input)?,
            schema: input.optional(SchemaSummary::get)?,
            snapshot: Seq(input.varint()?),
            index: input.optional(|input| Ok((Seq(input.varint()?), RecordHash(input.array()?))))?,
            floor: Seq(input.varint()?),
            seen_ms: input.varint()?,
            wal: None,
        })
    }
}
