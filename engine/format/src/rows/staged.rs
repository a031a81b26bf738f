//! A blob that a running job has staged.

use crate::FormatError;
use crate::wire::{In, Out, Spell};
use littoral_types::{BlobRef, StagedBlob};

/// The newest layout.
pub const VERSION: u16 = 1;
const WHAT: &str = "staged row";

/// Spells it.
pub fn encode(staged: &StagedBlob) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, VERSION, staged)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<StagedBlob, FormatError> {
    super::decode(WHAT, VERSION, bytes)
}

impl Spell for StagedBlob {
    fn put(&self, out: &mut Out) {
        out.raw("input: digest", &self.input);
        self.blob.put(out);
        out.u8("is uploaded", u8::from(self.uploaded));
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self { input: input.array()?, blob: BlobRef::get(input)?, uploaded: input.flag()? })
    }
}
