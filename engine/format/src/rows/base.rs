//! A chunk's base.

use crate::FormatError;
use littoral_types::Base;

/// The newest layout.
pub const VERSION: u16 = 1;
const WHAT: &str = "base row";

/// Spells it.
pub fn encode(base: &Base) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, VERSION, base)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<Base, FormatError> {
    super::decode(WHAT, VERSION, bytes)
}
