//! A number in a row of its own: a cursor, a job's birth, a page's newest delta.

use crate::FormatError;
use crate::wire::{In, Out, Spell};

/// The newest layout.
pub const VERSION: u16 = 1;
const WHAT: &str = "number row";

/// Spells it.
pub fn encode(number: u64) -> Vec<u8> {
    let mut out = Out::new(WHAT, 20);
    out.u16("schema version", VERSION);
    Number(number).put(&mut out);
    out.crc();
    // Every number can be spelled: nothing was refused.
    out.finish().unwrap_or_default()
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<u64, FormatError> {
    super::decode::<Number>(WHAT, VERSION, bytes).map(|Number(number)| number)
}

struct Number(u64);

impl Spell for Number {
    fn put(&self, out: &mut Out) {
        out.varint("number", self.0);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        input.varint().map(Self)
    }
}
