//! Rows of the local manifest and of the job queue, one file a kind: schema version, fields, CRC64-NVME.
//!
//! Keys are big-endian, so that the order of bytes is the order of numbers ([`keys`]).

pub mod base;
pub mod change;
pub mod delta;
pub mod identities;
pub mod intent;
pub mod job;
pub mod job_note;
pub mod keys;
pub mod lease;
pub mod lease_taken;
pub mod number;
pub mod object;
pub mod owners;
pub mod segment;
pub mod session;
pub mod staged;
pub mod volume;

use crate::FormatError;
use crate::wire::{In, Out, Spell};

fn encode<T: Spell>(what: &'static str, version: u16, value: &T) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(what, 256);
    out.u16("schema version", version);
    value.put(&mut out);
    out.crc();
    out.finish()
}

fn decode<T: Spell>(what: &'static str, version: u16, bytes: &[u8]) -> Result<T, FormatError> {
    decode_with(what, version, bytes, |input, _| T::get(input))
}

/// The same where versions differ.
fn decode_with<T>(
    what: &'static str,
    newest: u16,
    bytes: &[u8],
    get: impl FnOnce(&mut In<'_>, u16) -> Result<T, FormatError>,
) -> Result<T, FormatError> {
    // Before the checksum, which a newer layout may keep elsewhere.
    In::new(what, bytes).version(newest)?;
    let mut input = In::checked(what, bytes)?;
    let version = input.version(newest)?;
    let value = get(&mut input, version)?;
    input.end()?;
    Ok(value)
}
