//! The mark of a copy: what tells its folder from a volume's that somebody writes.

use crate::FormatError;
use crate::object::{self, Kind};
use crate::wire::{In, Out};
use littoral_types::{Compression, CopyMark, CopyState, Seq, VolumeId};

/// As many pins have names here.
const PINS_MAX: usize = 1 << 16;

pub(crate) const KIND: Kind =
    Kind { what: "mark of a copy", magic: b"LCPY", version: 1, compression: Compression::None, raw_max: 1 << 24 };

/// Spells it.
pub fn encode(mark: &CopyMark) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(KIND.what, 256);
    out.raw("volume", &mark.volume.0);
    out.text("primary: its remote's URL", &mark.of);
    out.varint("began, ms", mark.began_ms);
    const TAG: &str = "state (1 follows, 2 fills, 3 promoted)";
    match &mark.state {
        CopyState::Follows => out.u8(TAG, 1),
        CopyState::Fills(seq) => {
            out.u8(TAG, 2);
            out.varint("fills: at record", seq.0);
        }
        CopyState::Promoted { at_ms, fenced, by } => {
            out.u8(TAG, 3);
            out.varint("promoted: when, ms", *at_ms);
            out.u8("promoted: the primary's log says so", u8::from(*fenced));
            out.text("promoted: by", by);
        }
    }
    out.limit(mark.pins.len(), PINS_MAX);
    out.count("pins of the primary", mark.pins.len());
    mark.pins.iter().for_each(|pin| out.text("pin", pin));
    object::wrap(&KIND, out)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<CopyMark, FormatError> {
    let raw = object::unwrap(&KIND, bytes)?;
    let mut input = In::new(KIND.what, &raw);
    let volume = VolumeId(input.array()?);
    let of = input.text()?.to_owned();
    let began_ms = input.varint()?;
    let state = match input.u8()? {
        1 => CopyState::Follows,
        2 => CopyState::Fills(Seq(input.varint()?)),
        3 => CopyState::Promoted { at_ms: input.varint()?, fenced: input.flag()?, by: input.text()?.to_owned() },
        other => return Err(input.invalid(format!("state {other}"))),
    };
    let pins = input.list(1, PINS_MAX, |input| Ok(input.text()?.to_owned()))?;
    input.end()?;
    Ok(CopyMark { volume, of, began_ms, state, pins })
}
