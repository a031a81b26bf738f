//! A chunk: a fixed range of pages worth 64 MiB.

use crate::limits::CHUNK_BYTES;
use crate::{PageCount, PageNo, PageSize};
use std::fmt;

/// Which chunk of a database, counted from zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub u64);

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The pages of one chunk: a first page and how many follow from there, itself included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkSpan {
    /// The chunk's first page, whatever the page size: nobody has to compute it again.
    pub first: PageNo,
    /// How many pages.
    pub count: PageCount,
}

impl ChunkSpan {
    /// The last page, `None` for an empty span.
    pub fn last(self) -> Option<PageNo> {
        PageNo::new(self.first.get().checked_add(self.count.0)?.checked_sub(1)?).filter(|_| self.count.0 > 0)
    }

    /// Whether the page lies in it.
    pub fn holds(self, page: PageNo) -> bool {
        page >= self.first && page.get() - self.first.get() < self.count.0
    }

    /// Its pages in order.
    pub fn pages(self) -> impl Iterator<Item = PageNo> + Clone {
        let start = self.first.index();
        (start..start + self.count.0).map(PageNo::from_index)
    }
}

/// How a page size divides a database into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// The page size everything follows from.
    pub page_size: PageSize,
}

impl Geometry {
    /// Chunks of 64 MiB of pages of this size.
    pub const fn new(page_size: PageSize) -> Self {
        Self { page_size }
    }

    /// Pages in a full chunk: 1,024 at 64 KiB, 131,072 at 512 bytes.
    pub const fn pages_per_chunk(self) -> u64 {
        CHUNK_BYTES / self.page_size.bytes()
    }

    /// The chunk a page lies in.
    pub const fn chunk_of(self, page: PageNo) -> ChunkId {
        ChunkId(page.index() / self.pages_per_chunk())
    }

    /// The first page of a chunk; `None` for one beyond what 64 bits can number.
    pub fn first_page(self, chunk: ChunkId) -> Option<PageNo> {
        PageNo::new(chunk.0.checked_mul(self.pages_per_chunk())?.checked_add(1)?)
    }

    /// The pages that a chunk holds in a database of this many pages; `None` when it lies beyond the end.
    pub fn span(self, chunk: ChunkId, size: PageCount) -> Option<ChunkSpan> {
        let first = self.first_page(chunk)?;
        let left = size.0.checked_sub(first.index()).filter(|left| *left > 0)?;
        Some(ChunkSpan { first, count: PageCount(left.min(self.pages_per_chunk())) })
    }

    /// How many chunks a database of this many pages has.
    pub const fn chunk_count(self, size: PageCount) -> u64 {
        size.0.div_ceil(self.pages_per_chunk())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_lies_in_exactly_the_span_of_its_chunk() {
        for bytes in [512, 1024, 4096, 65536] {
            let geometry = Geometry::new(PageSize::new(bytes).unwrap());
            let per = geometry.pages_per_chunk();
            assert_eq!(per * bytes, 64 << 20);
            for size in [1, per - 1, per, per + 1, 3 * per + 7] {
                let size = PageCount(size);
                let mut covered = 0;
                for chunk in 0..geometry.chunk_count(size) {
                    let span = geometry.span(ChunkId(chunk), size).unwrap();
                    assert_eq!(span.first.index(), covered);
                    assert_eq!(geometry.chunk_of(span.first), ChunkId(chunk));
                    assert_eq!(geometry.chunk_of(span.last().unwrap()), ChunkId(chunk));
                    covered += span.count.0;
                }
                assert_eq!(covered, size.0);
                assert_eq!(geometry.span(ChunkId(geometry.chunk_count(size)), size), None);
            }
        }
    }
}
