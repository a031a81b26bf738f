//! A lease that was taken away: a row of its own, and part of the entry of the change log that says so.

use crate::FormatError;
use crate::wire::{In, Out, Spell};
use littoral_types::{Lease, TakenAway};

/// The newest layout.
pub const VERSION: u16 = 1;
const WHAT: &str = "row of a lease that was taken away";

/// Spells it.
pub fn encode(taken: &TakenAway) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, VERSION, taken)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<TakenAway, FormatError> {
    super::decode(WHAT, VERSION, bytes)
}

impl Spell for TakenAway {
    fn put(&self, out: &mut Out) {
        self.lease.put(out);
        out.varint("taken away, ms", self.at_ms);
        out.text("by", &self.by);
        out.text("why", &self.why);
        out.u8("by force", u8::from(self.is_forced));
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            lease: Lease::get(input)?,
            at_ms: input.varint()?,
            by: input.text()?.to_owned(),
            why: input.text()?.to_owned(),
            is_forced: input.flag()?,
        })
    }
}
