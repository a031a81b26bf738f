//! Making bytes smaller, and large again up to a bound that was known before.

use crate::FormatError;
use crate::wire::{In, Out};
use littoral_types::Compression;
use std::cell::RefCell;
use std::io::Read;

/// What the format says; larger costs time that nobody here has.
const ZSTD_LEVEL: i32 = 3;

/// The codec's persisted number.
pub(crate) const fn number(codec: Compression) -> u8 {
    codec as u8
}

pub(crate) fn get(input: &mut In<'_>) -> Result<Compression, FormatError> {
    match input.u8()? {
        0 => Ok(Compression::None),
        1 => Ok(Compression::Lz4),
        2 => Ok(Compression::Zstd),
        other => Err(input.invalid(format!("codec {other}"))),
    }
}

thread_local! {
    // A zstd context is a quarter of a megabyte up to a few: one a thread, not one a frame.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Appends `raw` to `into` (which keeps what it has), smaller where that helps, and says how. `into` is not touched by a
/// codec that gained nothing.
pub(crate) fn compress(
    what: &'static str,
    wanted: Compression,
    raw: &[u8],
    into: &mut Vec<u8>,
) -> Result<Compression, FormatError> {
    let start = into.len();
    let packed = match wanted {
        Compression::None => None,
        Compression::Lz4 => {
            into.resize(start + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
            lz4_flex::block::compress_into(raw, &mut into[start..]).ok()
        }
        Compression::Zstd => {
            into.resize(start + zstd::zstd_safe::compress_bound(raw.len()), 0);
            Some(zstd(raw, &mut into[start..]).map_err(|error| refused(what, &error))?)
        }
    };
    match packed.filter(|packed| *packed < raw.len()) {
        Some(packed) => {
            into.truncate(start + packed);
            Ok(wanted)
        }
        None => {
            into.truncate(start);
            into.extend_from_slice(raw);
            Ok(Compression::None)
        }
    }
}

fn refused(what: &'static str, error: &std::io::Error) -> FormatError {
    FormatError::Invalid { what, detail: format!("zstd: {error}") }
}

fn zstd(raw: &[u8], into: &mut [u8]) -> std::io::Result<usize> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        };
        compressor.compress_to_buffer(raw, into)
    })
}

/// The `raw_len` bytes that were compressed to `packed`. The caller has bounded `raw_len`.
pub(crate) fn decompress(
    what: &'static str,
    codec: Compression,
    packed: &[u8],
    raw_len: usize,
) -> Result<Vec<u8>, FormatError> {
    let bad = |detail: &str| unpacked_badly(what, detail);
    match codec {
        // A block of lz4 cannot grow by more than 255: no need to clear memory for one that claims to.
        Compression::Lz4 if raw_len / 255 > packed.len() => return Err(bad("too short")),
        Compression::None if raw_len > packed.len() => return Err(bad("too short")),
        Compression::Zstd if raw_len > BULK_MAX => {
            // Grows as bytes come, so that a length that nothing stands behind costs nothing.
            let mut raw = Vec::with_capacity(BULK_MAX);
            let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(|error| bad(&error.to_string()))?;
            decoder.take(raw_len as u64 + 1).read_to_end(&mut raw).map_err(|error| bad(&error.to_string()))?;
            return if raw.len() == raw_len { Ok(raw) } else { Err(another_length(what, raw.len(), raw_len)) };
        }
        _ => {}
    }
    let mut raw = vec![0; raw_len];
    decompress_into(what, codec, packed, &mut raw)?;
    Ok(raw)
}

/// Fills `raw` with what was compressed to `packed`, which has exactly as many bytes.
pub(crate) fn decompress_into(
    what: &'static str,
    codec: Compression,
    packed: &[u8],
    raw: &mut [u8],
) -> Result<(), FormatError> {
    let bad = |detail: &str| unpacked_badly(what, detail);
    let len = match codec {
        Compression::None => {
            if packed.len() == raw.len() {
                raw.copy_from_slice(packed);
            }
            packed.len()
        }
        Compression::Lz4 => lz4_flex::block::decompress_into(packed, raw).map_err(|error| bad(&error.to_string()))?,
        Compression::Zstd => DECOMPRESSOR
            .with_borrow_mut(|slot| {
                let decompressor = match slot {
                    Some(decompressor) => decompressor,
                    None => slot.insert(zstd::bulk::Decompressor::new()?),
                };
                decompressor.decompress_to_buffer(packed, raw)
            })
            .map_err(|error| bad(&error.to_string()))?,
    };
    if len == raw.len() { Ok(()) } else { Err(another_length(what, len, raw.len())) }
}

fn unpacked_badly(what: &'static str, detail: &str) -> FormatError {
    FormatError::Invalid { what, detail: format!("does not decompress: {detail}") }
}

fn another_length(what: &'static str, found: usize, due: usize) -> FormatError {
    unpacked_badly(what, &format!("{found} bytes instead of {due}"))
}

/// Up to here the whole result is made room for at once: the largest frame.
const BULK_MAX: usize = 1 << 20;

/// Appends the codec's number.
pub(crate) fn put(out: &mut Out, codec: Compression) {
    out.u8("codec", number(codec));
}
