//! Pins: what anyone, anywhere, needs kept (rule P2).

use crate::FormatError;
use crate::nouns::name;
use crate::object::{self, Kind};
use crate::wire::{In, Out};
use littoral_types::{Child, Compression, Lsn, Pin, PinId, PinPurpose, RecordHash, Seq, VolumeId};

pub(crate) const KIND: Kind =
    Kind { what: "pin", magic: b"LPIN", version: 2, compression: Compression::None, raw_max: 4096 };
/// Version 2 says of a fork which volume it is and which rows it reads, and is written for forks.
const OTHERS: Kind = Kind { version: 1, ..KIND };

/// Spells a pin.
pub fn encode(pin: &Pin) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(KIND.what, 256);
    put(pin, &mut out);
    object::wrap(if matches!(pin.purpose, PinPurpose::Fork(_)) { &KIND } else { &OTHERS }, out)
}

/// Reads a pin.
pub fn decode(bytes: &[u8]) -> Result<Pin, FormatError> {
    let (version, raw) = object::unwrap_any(&KIND, bytes)?;
    let mut input = In::new(KIND.what, &raw);
    let pin = get(&mut input, version)?;
    input.end()?;
    Ok(pin)
}

fn put(pin: &Pin, out: &mut Out) {
    out.raw("id", &pin.id.0);
    out.raw("volume", &pin.volume.0);
    out.varint("seq", pin.seq.0);
    out.raw("record's hash", &pin.record.0);
    out.varint("last LSN", pin.lsn.0);
    const TAG: &str = "purpose (1 snapshot, 2 restore, 3 reader, 4 fork)";
    match &pin.purpose {
        PinPurpose::Snapshot(name) => {
            out.u8(TAG, 1);
            out.text("purpose: name", name.as_str());
        }
        PinPurpose::Restore => out.u8(TAG, 2),
        PinPurpose::Reader => out.u8(TAG, 3),
        PinPurpose::Fork(child) => {
            out.u8(TAG, 4);
            out.text("purpose: volume", child.name.as_str());
            out.raw("purpose: the volume's id", &child.id.0);
            out.varint("purpose: manifest snapshot whose rows it reads", child.rows.0);
        }
    }
    out.text("holder", &pin.holder);
    out.varint("created, ms", pin.created_ms);
    out.optional("expires", pin.expires_ms, |out, at| out.varint("expires, ms", at));
}

fn get(input: &mut In<'_>, version: u16) -> Result<Pin, FormatError> {
    let id = PinId(input.array()?);
    let volume = VolumeId(input.array()?);
    let seq = Seq(input.varint()?);
    let record = RecordHash(input.array()?);
    let lsn = Lsn(input.varint()?);
    let purpose = match (version, input.u8()?) {
        (1, 1) => PinPurpose::Snapshot(name(input)?),
        (1, 2) => PinPurpose::Restore,
        (1, 3) => PinPurpose::Reader,
        (1, 4) => PinPurpose::Fork(Child { name: name(input)?, id: VolumeId([0; 16]), rows: seq }),
        (2, 4) => {
            let (name, id) = (name(input)?, VolumeId(input.array()?));
            PinPurpose::Fork(Child { name, id, rows: Seq(input.varint()?) })
        }
        (_, other) => return Err(input.invalid(format!("purpose {other} in version {version}"))),
    };
    let holder = input.text()?.to_owned();
    let (created_ms, expires_ms) = (input.varint()?, input.optional(In::varint)?);
    Ok(Pin { id, volume, seq, record, lsn, purpose, holder, created_ms, expires_ms })
}
