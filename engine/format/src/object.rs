//! The envelope of small objects (manifest snapshot, head, pin): magic, version, codec, seal, lengths, payload, CRC64-NVME.

use crate::wire::{CRC_LEN, In, Out, peek_version};
use crate::{FormatError, codec, seal};
use littoral_types::Compression;

/// What tells one kind of object from another.
pub(crate) struct Kind {
    pub(crate) what: &'static str,
    pub(crate) magic: &'static [u8; 4],
    pub(crate) version: u16,
    pub(crate) compression: Compression,
    /// Bytes of the payload before compression.
    pub(crate) raw_max: usize,
}

/// Bytes before the payload.
pub(crate) const HEADER_LEN: usize = 4 + 2 + 1 + 45 + 8 + 8;

pub(crate) fn wrap(kind: &Kind, payload: Out) -> Result<Vec<u8>, FormatError> {
    wrap_as(kind, kind.version, payload)
}

/// The same of what is said by this version already.
pub(crate) fn wrap_as(kind: &Kind, version: u16, payload: Out) -> Result<Vec<u8>, FormatError> {
    let raw = payload.finish()?;
    let Kind { what, raw_max, .. } = *kind;
    if raw.len() > raw_max {
        return Err(FormatError::TooLarge { what, len: raw.len() as u64, max: raw_max as u64 });
    }
    let mut stored = Vec::new();
    let codec = codec::compress(what, kind.compression, &raw, &mut stored)?;
    let mut out = Out::new(what, HEADER_LEN + stored.len() + CRC_LEN);
    out.raw("magic", kind.magic);
    out.u16("schema version", version);
    codec::put(&mut out, codec);
    seal::put_open(&mut out);
    out.u64("payload: raw bytes", raw.len() as u64);
    out.u64("payload: stored bytes", stored.len() as u64);
    out.raw("payload", &stored);
    out.crc();
    out.finish()
}

/// The payload before compression, of a kind that has one version.
pub(crate) fn unwrap(kind: &Kind, bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    unwrap_any(kind, bytes).map(|(_, raw)| raw)
}

/// The payload before compression, and the version it was written in.
pub(crate) fn unwrap_any(kind: &Kind, bytes: &[u8]) -> Result<(u16, Vec<u8>), FormatError> {
    let what = kind.what;
    peek_version(what, bytes, kind.magic, kind.version)?;
    let mut input = In::checked(what, bytes)?;
    input.magic(kind.magic)?;
    let version = input.version(kind.version)?;
    let codec = codec::get(&mut input)?;
    if codec != Compression::None && codec != kind.compression {
        return Err(input.invalid("a codec that it is never written with"));
    }
    let sealed = seal::get(&mut input)?;
    let raw_len = input.u64()?;
    let stored_len = input.u64()?;
    if stored_len != input.left() as u64 {
        return Err(input.invalid(format!("{} bytes of payload instead of {stored_len}", input.left())));
    }
    if sealed {
        return Err(FormatError::Sealed { what });
    }
    let too_large = FormatError::TooLarge { what, len: raw_len, max: kind.raw_max as u64 };
    let raw_len = usize::try_from(raw_len).ok().filter(|len| *len <= kind.raw_max).ok_or(too_large)?;
    Ok((version, codec::decompress(what, codec, input.rest(), raw_len)?))
}
