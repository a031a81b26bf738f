//! Frames: up to sixteen pages compressed and checksummed together.

use crate::nouns::Ascending;
use crate::wire::{In, Out, page_size_log2};
use crate::{FormatError, codec, seal};
use littoral_types::limits::FRAME_PAGES_MAX;
use littoral_types::{Compression, PageNo, PageSize};

pub(crate) const WHAT: &str = "frame";
pub(crate) const VERSION: u16 = 1;

/// A zero page is recorded, not stored.
pub(crate) fn is_zero(page: &[u8]) -> bool {
    // Word by word; the first that is not zero ends it, which is the first one in nearly every page.
    let (words, rest) = page.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Spells one frame. `raw` is room for the pages side by side, kept by the caller from frame to frame.
pub(crate) fn encode(
    page_size: PageSize,
    compression: Compression,
    mark: u64,
    pages: &[(PageNo, &[u8])],
    raw: &mut Vec<u8>,
) -> Result<Vec<u8>, FormatError> {
    if pages.is_empty() || pages.len() > FRAME_PAGES_MAX {
        let (len, max) = (pages.len() as u64, FRAME_PAGES_MAX as u64);
        return Err(match len {
            0 => invalid("no pages"),
            _ => FormatError::TooLarge { what: WHAT, len, max },
        });
    }
    raw.clear();
    for (_, page) in pages {
        if page.len() != page_size.len() {
            return Err(invalid("a page that is not a page long"));
        }
        if is_zero(page) {
            return Err(invalid("a page of zeros: it is recorded, not stored"));
        }
        raw.extend_from_slice(page);
    }
    // What a codec may need when nothing gets smaller, so that the frame is not moved.
    let mut head = Out::new(WHAT, raw.len() + raw.len() / 8 + 512);
    head.u16("schema version", VERSION);
    // The codec is known once the payload is: its place is kept.
    let codec_at = head.len();
    codec::put(&mut head, Compression::None);
    seal::put_open(&mut head);
    head.u64("mark", mark);
    head.u8("page size, log2", page_size_log2(page_size));
    head.u32("payload: raw bytes", raw.len() as u32);
    head.u8("pages", pages.len() as u8);
    let mut place = Ascending::default();
    pages.iter().for_each(|(page, _)| place.put(&mut head, *page));
    let mut frame = head.finish()?;
    let used = codec::compress(WHAT, compression, raw, &mut frame)?;
    frame[codec_at] = codec::number(used);
    let crc = crate::hash::crc64(&frame);
    frame.extend_from_slice(&crc.to_le_bytes());
    Ok(frame)
}

/// What a frame says of its pages' size.
pub(crate) fn page_size(bytes: &[u8]) -> Result<PageSize, FormatError> {
    let mut input = In::new(WHAT, bytes);
    input.version(VERSION)?;
    codec::get(&mut input)?;
    seal::get(&mut input)?;
    input.u64()?;
    input.page_size()
}

fn invalid(detail: &str) -> FormatError {
    FormatError::Invalid { what: WHAT, detail: detail.to_owned() }
}

/// The raw pages of a frame, one after another, when it holds exactly `pages`. They fill `raw`.
pub(crate) fn decode(
    bytes: &[u8],
    page_size: PageSize,
    mark: u64,
    pages: impl ExactSizeIterator<Item = PageNo>,
    raw: &mut [u8],
) -> Result<(), FormatError> {
    In::new(WHAT, bytes).version(VERSION)?;
    let mut input = In::checked(WHAT, bytes)?;
    input.version(VERSION)?;
    let codec = codec::get(&mut input)?;
    let sealed = seal::get(&mut input)?;
    if input.u64()? != mark {
        return Err(input.invalid("it belongs to another blob"));
    }
    if input.page_size()? != page_size {
        return Err(input.invalid("another page size"));
    }
    let raw_len = input.u32()? as usize;
    let held = usize::from(input.u8()?);
    if held != pages.len() || held == 0 || held > FRAME_PAGES_MAX || raw_len != held * page_size.len() {
        return Err(input.invalid(format!("{held} pages of {raw_len} bytes instead of {}", pages.len())));
    }
    let mut place = Ascending::default();
    for page in pages {
        let held = place.get(&mut input)?;
        if held != page {
            return Err(input.invalid(format!("page {held} instead of {page}")));
        }
    }
    if sealed {
        return Err(FormatError::Sealed { what: WHAT });
    }
    if raw_len != raw.len() {
        return Err(input.invalid(format!("{raw_len} bytes where there is room for {}", raw.len())));
    }
    codec::decompress_into(WHAT, codec, input.rest(), raw)
}
