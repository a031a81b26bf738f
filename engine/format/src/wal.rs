//! SQLite's WAL, as its file format fixes it: what is read of it, and what makes a frame follow from the one before.
//!
//! A copy of a WAL has the same bytes at the same places, as far as it goes: it is read by the same words.

use crate::FormatError;
use littoral_types::{PageSize, WalMark};

/// Bytes of the header.
pub const HEADER_BYTES: u64 = 32;
/// Bytes in front of each frame's page.
pub const FRAME_BYTES: u64 = 24;

const WHAT: &str = "a WAL";
/// The lowest bit says in which order the words of checksums were read.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// What a WAL begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalHeader {
    /// Of every frame's page.
    pub page_size: PageSize,
    /// Which WAL it is.
    pub salts: [u32; 2],
    /// What the first frame follows from.
    pub checksum: [u32; 2],
    is_big_endian: bool,
}

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Which page it holds.
    pub page: u32,
    /// The database's size after the commit that it ends; zero for one that ends none.
    pub pages: u32,
    /// Which WAL it is of.
    pub salts: [u32; 2],
    /// What the next one follows from.
    pub checksum: [u32; 2],
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn pair(bytes: &[u8], at: usize) -> [u32; 2] {
    [number(bytes, at), number(bytes, at + 4)]
}

/// Where a frame begins; they are counted from one.
pub fn frame_at(page_size: PageSize, frame: u64) -> u64 {
    HEADER_BYTES + frame.saturating_sub(1) * (FRAME_BYTES + page_size.bytes())
}

impl WalHeader {
    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let Some(bytes) = bytes.get(..HEADER_BYTES as usize) else { return Err(FormatError::Truncated { what: WHAT }) };
        let (magic, version) = (number(bytes, 0), number(bytes, 4));
        if magic & !1 != MAGIC || version != VERSION {
            return Err(FormatError::Invalid { what: WHAT, detail: "this is none".to_owned() });
        }
        let page_size = PageSize::new(u64::from(number(bytes, 8)));
        let page_size = page_size.map_err(|error| FormatError::Invalid { what: WHAT, detail: error.to_string() })?;
        let is_big_endian = magic & 1 == 1;
        let checksum = pair(bytes, 24);
        if sum(is_big_endian, [0, 0], bytes.get(..24).unwrap_or_default()) != checksum {
            return Err(FormatError::Checksum { what: WHAT });
        }
        Ok(Self { page_size, salts: pair(bytes, 16), checksum, is_big_endian })
    }

    /// Bytes of a frame, its page included.
    pub fn frame_bytes(&self) -> u64 {
        FRAME_BYTES + self.page_size.bytes()
    }

    /// A frame's head, if the frame, page and all, follows from one that left this checksum.
    pub fn following(&self, before: [u32; 2], frame: &[u8]) -> Option<FrameHead> {
        let head = FrameHead::decode(frame.get(..FRAME_BYTES as usize)?);
        let page = frame.get(FRAME_BYTES as usize..self.frame_bytes() as usize)?;
        let counted = sum(self.is_big_endian, before, frame.get(..8)?);
        let follows = head.salts == self.salts && sum(self.is_big_endian, counted, page) == head.checksum;
        follows.then_some(head)
    }

    /// The mark of a place in it.
    pub fn mark(&self, frame: u64, checksum: [u32; 2]) -> WalMark {
        WalMark { salts: self.salts, frame, checksum }
    }
}

impl FrameHead {
    /// Reads it; whether it is one, its frame tells.
    pub fn decode(bytes: &[u8]) -> Self {
        Self { page: number(bytes, 0), pages: number(bytes, 4), salts: pair(bytes, 8), checksum: pair(bytes, 16) }
    }
}

/// SQLite's own running checksum.
fn sum(is_big_endian: bool, from: [u32; 2], bytes: &[u8]) -> [u32; 2] {
    let [mut one, mut two] = from;
    let word = |bytes: &[u8]| {
        let bytes = bytes.try_into().unwrap_or_default();
        if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    for pair in bytes.chunks_exact(8) {
        let (first, second) = pair.split_at(4);
        one = one.wrapping_add(word(first)).wrapping_add(two);
        two = two.wrapping_add(word(second)).wrapping_add(one);
    }
    [one, two]
}
