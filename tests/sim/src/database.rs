//! The databases that simulated machines have: pages in memory, shared between versions.

use crate::chance::Chance;
use littoral_ports::{Changed, PageSource, SourceError};
use littoral_types::{Geometry, PageCount, PageNo, PageSize};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A database at one commit. A clone costs a pointer a page.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    page_size: PageSize,
    pages: Vec<Arc<[u8]>>,
    /// Where SQLite's lock page lies; moved near, so that small databases reach it.
    lock_page: PageNo,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} pages of {})", self.pages.len(), self.page_size)
    }
}

/// What kind of database a seed gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Up to some dozens of pages of any size.
    Small,
    /// Several chunks: more than a thousand pages of 64 KiB, nearly all of them zeros.
    Wide,
}

impl Image {
    /// A fresh database.
    pub fn new(shape: Shape, chance: &Chance) -> Self {
        let lock_page = PageNo::from_index(chance.between(1, 40));
        let page_size = match shape {
            Shape::Small => some_page_size(chance),
            Shape::Wide => PageSize::MAX,
        };
        let mut image = Self { page_size, pages: Vec::new(), lock_page };
        let count = match shape {
            Shape::Small => chance.between(1, 40),
            Shape::Wide => chance.between(900, 2300),
        };
        let (mut touched, dense) = (BTreeSet::new(), shape == Shape::Small);
        image.resize(count, dense, chance, &mut touched);
        image.write(PageNo::FIRST, chance, &mut touched);
        image
    }

    /// One page of these bytes, for tests that need to know them.
    pub fn of_pages(page_size: PageSize, pages: &[Vec<u8>]) -> Self {
        let pages = pages.iter().map(|page| Arc::from(page.as_slice())).collect();
        Self { page_size, pages, lock_page: PageNo::from_index(1 << 20) }
    }

    /// The page size.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// How many pages.
    pub fn page_count(&self) -> PageCount {
        PageCount(self.pages.len() as u64)
    }

    /// One page's bytes.
    pub fn page(&self, page: PageNo) -> Option<&[u8]> {
        usize::try_from(page.index()).ok().and_then(|at| self.pages.get(at)).map(|page| &**page)
    }

    /// Its pages in order.
    pub fn pages(&self) -> impl Iterator<Item = &[u8]> {
        self.pages.iter().map(|page| &**page)
    }

    /// One transaction: what it touched, or `None` when all of it may be new.
    pub fn commit(&mut self, shape: Shape, chance: &Chance) -> Option<BTreeSet<PageNo>> {
        let mut touched = BTreeSet::new();
        match chance.weighed(&[60, 10, 10, 6, 3, 6, 3]) {
            // A few pages.
            0 => (0..chance.between(1, 6)).for_each(|_| self.write_somewhere(chance, &mut touched)),
            // Growth, with pages or without.
            1 => {
                let more = chance.between(1, if shape == Shape::Wide { 300 } else { 12 });
                let count = (self.pages.len() as u64 + more).min(if shape == Shape::Wide { 2600 } else { 90 });
                self.resize(count, shape == Shape::Small && chance.per_mille(700), chance, &mut touched);
            }
            // A cut, perhaps with changes to what stays.
            2 => {
                let count = chance.between(1, self.pages.len() as u64 + 1);
                self.resize(count, false, chance, &mut touched);
                self.write_somewhere(chance, &mut touched);
            }
            // VACUUM: what there is, in another order and fewer pages.
            3 => {
                let keep = chance.between(1, self.pages.len() as u64 + 1) as usize;
                let turn = chance.between(0, self.pages.len() as u64) as usize;
                self.pages.rotate_left(turn);
                self.pages.truncate(keep);
                self.keep_lock_page();
                self.write(PageNo::FIRST, chance, &mut touched);
                return None;
            }
            // VACUUM with another page size.
            4 if shape == Shape::Small => {
                let count = chance.between(1, 40);
                self.page_size = some_page_size(chance);
                self.pages.clear();
                self.resize(count, true, chance, &mut touched);
                return None;
            }
            // Pages become zeros.
            5 => {
                for _ in 0..chance.between(1, 4) {
                    let at = chance.between(0, self.pages.len() as u64) as usize;
                    self.pages[at] = zeros(self.page_size);
                    touched.insert(PageNo::from_index(at as u64));
                }
            }
            // The same content again.
            _ => {
                touched.insert(PageNo::from_index(chance.between(0, self.pages.len() as u64)));
            }
        }
        Some(touched)
    }

    fn resize(&mut self, count: u64, dense: bool, chance: &Chance, touched: &mut BTreeSet<PageNo>) {
        let before = self.pages.len() as u64;
        self.pages.resize(count as usize, zeros(self.page_size));
        for at in before..count {
            let page = PageNo::from_index(at);
            touched.insert(page);
            if dense || chance.per_mille(10) {
                self.write(page, chance, touched);
            }
        }
    }

    fn write_somewhere(&mut self, chance: &Chance, touched: &mut BTreeSet<PageNo>) {
        // Neighbourhoods of chunk borders are written more often than chance alone would.
        let count = self.pages.len() as u64;
        let border = Geometry::new(self.page_size).pages_per_chunk();
        let at = if count > border && chance.per_mille(300) {
            chance.between(border - 2, count.min(border + 2))
        } else {
            chance.between(0, count)
        };
        self.write(PageNo::from_index(at), chance, touched);
    }

    fn write(&mut self, page: PageNo, chance: &Chance, touched: &mut BTreeSet<PageNo>) {
        touched.insert(page);
        let Some(place) = self.pages.get_mut(page.index() as usize).filter(|_| page != self.lock_page) else { return };
        let mut bytes = vec![(chance.next() % 251) as u8; self.page_size.len()];
        bytes[..8].copy_from_slice(&chance.next().to_le_bytes());
        if chance.per_mille(100) {
            // One that does not compress.
            bytes.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&chance.next().to_le_bytes()));
        }
        *place = Arc::from(bytes);
    }

    fn keep_lock_page(&mut self) {
        let zeros = zeros(self.page_size);
        if let Some(page) = self.pages.get_mut(self.lock_page.index() as usize) {
            *page = zeros;
        }
    }
}

fn zeros(page_size: PageSize) -> Arc<[u8]> {
    Arc::from(vec![0; page_size.len()])
}

fn some_page_size(chance: &Chance) -> PageSize {
    PageSize::new(512 << chance.between(0, 8)).unwrap_or(PageSize::MAX)
}

/// A database standing still.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it holds.
    pub image: Image,
    /// What was watched.
    pub changed: Changed,
}

impl PageSource for Source {
    fn page_size(&self) -> PageSize {
        self.image.page_size
    }

    fn page_count(&self) -> PageCount {
        self.image.page_count()
    }

    fn lock_page(&self) -> Option<PageNo> {
        Some(self.image.lock_page).filter(|page| self.image.page_count().holds(*page))
    }

    fn changed(&self) -> Changed {
        self.changed.clone()
    }

    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        match self.image.page(page).filter(|bytes| bytes.len() == into.len()) {
            Some(bytes) => {
                into.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(SourceError::Failed(format!("page {page} of {:?}", self.image))),
        }
    }
}
