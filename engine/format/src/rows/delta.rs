//! One delta of a chunk.

use crate::FormatError;
use littoral_types::Delta;

/// The newest layout.
pub const VERSION: u16 = 1;
const WHAT: &str = "delta row";

/// Spells it.
pub fn encode(delta: &Delta) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, VERSION, delta)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<Delta, FormatError> {
    super::decode(WHAT, VERSION, bytes)
}
