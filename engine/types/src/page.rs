//! A page's place, a count of pages, a page's size.

use std::fmt;
use std::num::NonZeroU64;

/// A page's place in the database. SQLite counts from one, so zero cannot be spelled.
///
/// Sixty-four bits until SQLite's own boundary: see [`PageNo::to_sqlite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNo(NonZeroU64);

impl PageNo {
    /// Page 1, which holds the database header.
    pub const FIRST: PageNo = PageNo(NonZeroU64::MIN);

    /// `None` for zero.
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The page at a zero-based place.
    pub const fn from_index(index: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(index))
    }

    /// The number, counted from one.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The zero-based place.
    pub const fn index(self) -> u64 {
        self.0.get() - 1
    }

    /// The number as SQLite's C interface takes it; `None` beyond what SQLite can address.
    pub fn to_sqlite(self) -> Option<u32> {
        u32::try_from(self.get()).ok()
    }

    /// The page after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many pages a database, a chunk or a change has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageCount(pub u64);

impl PageCount {
    /// No pages at all.
    pub const ZERO: PageCount = PageCount(0);

    /// The last page, `None` when there is none.
    pub const fn last(self) -> Option<PageNo> {
        PageNo::new(self.0)
    }

    /// Whether a page lies inside a database of this many pages.
    pub const fn holds(self, page: PageNo) -> bool {
        page.get() <= self.0
    }
}

impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A page's size in bytes: a power of two from 512 to 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

/// The number is not a page size that SQLite knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a page size of SQLite's (a power of two from 512 to 65536): {0}")]
pub struct PageSizeError(pub u64);

impl PageSize {
    /// SQLite's smallest.
    pub const MIN: PageSize = PageSize(512);
    /// SQLite's largest.
    pub const MAX: PageSize = PageSize(65536);

    /// Refuses what SQLite does not know.
    pub fn new(bytes: u64) -> Result<Self, PageSizeError> {
        match u32::try_from(bytes) {
            Ok(size) if size.is_power_of_two() && (512..=65536).contains(&size) => Ok(Self(size)),
            _ => Err(PageSizeError(bytes)),
        }
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// In bytes, for buffers.
    pub const fn len(self) -> usize {
        self.0 as usize
    }

    /// Never: a page has bytes. Here because [`PageSize::len`] is.
    pub const fn is_empty(self) -> bool {
        false
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
