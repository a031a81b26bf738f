//! A blob that a job is done with.

use crate::FormatError;
use crate::wire::{In, Out, Spell};
use littoral_types::JobNote;

/// The newest layout.
pub const VERSION: u16 = 1;
const WHAT: &str = "job note row";

/// Spells it.
pub fn encode(note: &JobNote) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, VERSION, note)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<JobNote, FormatError> {
    super::decode(WHAT, VERSION, bytes)
}

impl Spell for JobNote {
    fn put(&self, out: &mut Out) {
        out.text("blob: its name", &self.blob);
        out.varint("blob: bytes", self.bytes);
        out.varint("frames", self.frames);
        out.varint("pages", self.pages);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            blob: input.text()?.to_owned(),
            bytes: input.varint()?,
            frames: input.varint()?,
            pages: input.varint()?,
        })
    }
}
