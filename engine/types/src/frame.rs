//! Frames: up to sixteen pages compressed and checksummed together, the unit of a ranged GET.

use crate::{ByteSpan, PageNo};

/// Where one frame lies in its blob and which pages it holds, in slot order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrameEntry {
    /// Its stored bytes, header and tag included.
    pub span: ByteSpan,
    /// Its pages by slot: ascending, at least one, at most [`crate::limits::FRAME_PAGES_MAX`].
    pub pages: Vec<PageNo>,
}

/// Which frame holds which page of one version of one chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FrameTable {
    /// The frames, in the order of their offsets.
    pub frames: Vec<FrameEntry>,
    /// Pages that hold only zeros, ascending: recorded, not stored.
    pub zeros: Vec<PageNo>,
    /// What every frame of the blob says of itself, so that no frame of another blob is taken for one of these, whatever
    /// the object store answers. Zero without frames.
    pub mark: u64,
}

/// Where a page is found in a [`FrameTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PagePlace {
    /// It is all zeros.
    Zero,
    /// In a frame, at a slot.
    Slot {
        /// Index into [`FrameTable::frames`].
        frame: usize,
        /// Index into [`FrameEntry::pages`].
        slot: usize,
    },
}

impl FrameTable {
    /// The place of a page, `None` when this version does not hold it.
    pub fn find(&self, page: PageNo) -> Option<PagePlace> {
        if self.zeros.binary_search(&page).is_ok() {
            return Some(PagePlace::Zero);
        }
        self.frames.iter().enumerate().find_map(|(frame, entry)| {
            entry.pages.binary_search(&page).ok().map(|slot| PagePlace::Slot { frame, slot })
        })
    }

    /// All pages, stored ones first, in no particular order.
    pub fn pages(&self) -> impl Iterator<Item = PageNo> + '_ {
        self.frames.iter().flat_map(|entry| entry.pages.iter().copied()).chain(self.zeros.iter().copied())
    }

    /// How many pages it holds, zeros included.
    pub fn page_total(&self) -> u64 {
        (self.frames.iter().map(|entry| entry.pages.len()).sum::<usize>() + self.zeros.len()) as u64
    }

    /// Bytes of all its frames.
    pub fn stored_bytes(&self) -> u64 {
        self.frames.iter().map(|entry| entry.span.len).sum()
    }
}
