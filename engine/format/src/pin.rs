//! Pins: what anyone, anywhere, needs kept (rule P2).

use crate::FormatError;
use crate::nouns::name;
use crate::object::{self, Kind};
use crate::wire::{In, Out, Spell};
use littoral_types::{Compression, Lsn, Pin, PinId, PinPurpose, RecordHash, Seq, VolumeId};

pub(crate) const KIND: Kind =
    Kind { what: "pin", magic: b"LPIN", version: 1, compression: Compression::None, raw_max: 4096 };

/// Spells a pin.
pub fn encode(pin: &Pin) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(KIND.what, 256);
    pin.put(&mut out);
    object::wrap(&KIND, out)
}

/// Reads a pin.
pub fn decode(bytes: &[u8]) -> Result<Pin, FormatError> {
    let raw = object::unwrap(&KIND, bytes)?;
    let mut input = In::new(KIND.what, &raw);
    let pin = Pin::get(&mut input)?;
    input.end()?;
    Ok(pin)
}

impl Spell for Pin {
    fn put(&self, out: &mut Out) {
        out.raw("id", &self.id.0);
        out.raw("volume", &self.volume.0);
        out.varint("seq", self.seq.0);
        out.raw("record's hash", &self.record.0);
        out.varint("last LSN", self.lsn.0);
        const TAG: &str = "purpose (1 snapshot, 2 restore, 3 reader, 4 fork)";
        match &self.purpose {
            PinPurpose::Snapshot(name) => {
                out.u8(TAG, 1);
                out.text("purpose: name", name.as_str());
            }
            PinPurpose::Restore => out.u8(TAG, 2),
            PinPurpose::Reader => out.u8(TAG, 3),
            PinPurpose::Fork(name) => {
                out.u8(TAG, 4);
                out.text("purpose: volume", name.as_str());
            }
        }
        out.text("holder", &self.holder);
        out.varint("created, ms", self.created_ms);
        out.optional("expires", self.expires_ms, |out, at| out.varint("expires, ms", at));
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            id: PinId(input.array()?),
            volume: VolumeId(input.array()?),
            seq: Seq(input.varint()?),
            record: RecordHash(input.array()?),
            lsn: Lsn(input.varint()?),
            purpose: match input.u8()? {
                1 => PinPurpose::Snapshot(name(input)?),
                2 => PinPurpose::Restore,
                3 => PinPurpose::Reader,
                4 => PinPurpose::Fork(name(input)?),
                other => return Err(input.invalid(format!("purpose {other}"))),
            },
            holder: input.text()?.to_owned(),
            created_ms: input.varint()?,
            expires_ms: input.optional(In::varint)?,
        })
    }
}
