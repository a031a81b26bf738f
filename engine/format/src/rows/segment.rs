//! A log's segment.

use crate::FormatError;
use littoral_types::LogRow;

/// The newest layout.
pub const VERSION: u16 = 1;
const WHAT: &str = "segment row";

/// Spells it.
pub fn encode(segment: &LogRow) -> Result<Vec<u8>, FormatError> {
    super::encode(WHAT, VERSION, segment)
}

/// Reads it.
pub fn decode(bytes: &[u8]) -> Result<LogRow, FormatError> {
    super::decode(WHAT, VERSION, bytes)
}
