//! A page that is not here comes, and with it those that will be asked for next: by the trees (`Readahead`), and by the programs of the
//! statements that run (`Foresight`).
//!
//! What was only foreseen keeps nobody from the page that was asked for: where something of it fails, that page is fetched alone.

use super::ahead::{self, Ahead};
use super::{FETCH_DEADLINE, Reader, Sparse, SparseError, disguised};
use crate::raw::file::Bytes;
use crate::work;
use littoral_engine::foresee::Walk;
use littoral_engine::lazy::{Budget, Lazy};
use littoral_engine::program::Nest;
use littoral_engine::readahead::Room;
use littoral_ports::{Tier, Timed};
use littoral_types::PageNo;
use littoral_types::limits::{FORESEEN_BYTES_MAX, FORESEEN_LEVELS_MAX, FORESEEN_MS_MAX, FRAME_PAGES_MAX};
use std::cell::RefCell;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Pages fetched ahead of one that was missed.
const ROOM: Room = Room { bytes: 32 << 20, pages: 1 << 15 };

impl Sparse {
    /// Fetches a page, and those that will be asked for next.
    #[cold]
    pub(super) fn bring(
        &self,
        file: &mut Bytes,
        page: PageNo,
        running: &dyn Fn() -> Vec<String>,
    ) -> Result<(), SparseError> {
        let reader = self.lazy()?;
        let lazy = reader.lazy.clone();
        // It is not evicted again before it was read.
        self.residency.touch(page);
        // Came along when the volume was opened: this is no step of anybody's way through the database.
        let began = Instant::now();
        if let Some(image) = lazy.resident(page) {
            let done = self.install(file, &reader, std::iter::once((page, &image[..])));
            reader.meter.account().took(Timed::PageFetch(Tier::Memory), began.elapsed());
            return done;
        }
        let nests = self.nests(file, &lazy, running);
        let mut wanted = {
            let is_here = |page| self.residency.is_here(page) || lazy.resident(page).is_some();
            let room = self.ahead_of(ROOM);
            self.ahead.lock().unwrap_or_else(PoisonError::into_inner).trees.missed(page, &is_here, room)
        };
        let walks = self.walks(file, &lazy, nests, page);
        wanted.extend(self.level(file, &lazy, &walks));
        wanted.push(page);
        // What was only foreseen keeps nobody from the page that was asked for.
        let fetched = self.fetch(file, &reader, wanted);
        if let Err(error) = &fetched {
            tracing::debug!(%error, %page, "reading ahead failed: fetching the page alone");
        }
        let is_here = self.residency.is_here(page);
        let alone = if is_here { Ok(()) } else { self.fetch(file, &reader, vec![page]) };
        reader.meter.account().took(Timed::PageFetch(Tier::Remote), began.elapsed());
        if !is_here || alone.is_err() {
            return alone;
        }
        // The way further down, for all rows at once.
        for _ in 1..FORESEEN_LEVELS_MAX {
            let level = self.level(file, &lazy, &walks);
            if level.is_empty() || began.elapsed() > Duration::from_millis(FORESEEN_MS_MAX) {
                break;
            }
            if let Err(error) = self.fetch(file, &reader, level) {
                tracing::debug!(%error, "what was foreseen is not here");
                break;
            }
        }
        Ok(())
    }

    /// What the statements that run will look up in which trees.
    fn nests(&self, file: &mut Bytes, lazy: &Lazy, running: &dyn Fn() -> Vec<String>) -> Vec<(u64, Arc<Nest>)> {
        let mut schema = [0; 4];
        let mut nests = Vec::new();
        let statements = running();
        // Whatever changes the schema changes this number.
        if statements.is_empty() || file.read(40, &mut schema).is_err() {
            return nests;
        }
        for sql in statements {
            let name = ahead::name(&sql, schema);
            let known = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).known(name);
            let nest = known.unwrap_or_else(|| {
                // Asked without a lock: its own connection reads here too.
                let nest = ahead::program(self.library, &self.database, &sql);
                self.with_ahead(file, lazy, |ahead, here| {
                    ahead.keep(name, nest, here);
                    ahead.known(name).flatten()
                })
            });
            nests.extend(nest.map(|nest| (name, nest)));
        }
        nests
    }

    /// The rows of running statements that lead to a page, and those after them.
    fn walks(
        &self,
        file: &mut Bytes,
        lazy: &Lazy,
        nests: Vec<(u64, Arc<Nest>)>,
        page: PageNo,
    ) -> Vec<(Arc<Nest>, Walk)> {
        if nests.is_empty() {
            return Vec::new();
        }
        let recent = self.recent.newest();
        self.with_ahead(file, lazy, |ahead, here| {
            let Ahead { trees, foresight, .. } = ahead;
            let walks = nests.into_iter().filter_map(|(name, nest)| {
                let walk = foresight.begin(name, &nest, trees, page, &recent, here)?;
                Some((nest, walk))
            });
            walks.collect()
        })
    }

    /// What is missing on the way of these rows, one level of it.
    fn level(&self, file: &mut Bytes, lazy: &Lazy, walks: &[(Arc<Nest>, Walk)]) -> Vec<PageNo> {
        if walks.is_empty() {
            return Vec::new();
        }
        // A page may bring a frame.
        let frame = self.residency.origin().page_size.bytes() * FRAME_PAGES_MAX as u64;
        let bytes = self.ahead_of(Room { bytes: FORESEEN_BYTES_MAX, pages: usize::MAX }).bytes;
        let max = usize::try_from(bytes / frame).unwrap_or(1).max(1);
        self.with_ahead(file, lazy, |ahead, here| {
            walks.iter().flat_map(|(nest, walk)| walk.missing(nest, &ahead.trees, here, max)).collect()
        })
    }

    /// Looks at pages that are here. What was committed to a WAL since is not seen: for hints alone.
    fn with_ahead<T>(
        &self,
        file: &mut Bytes,
        lazy: &Lazy,
        look: impl FnOnce(&mut Ahead, &dyn Fn(PageNo) -> Option<Vec<u8>>) -> T,
    ) -> T {
        let size = self.residency.origin().page_size;
        let file = RefCell::new(file);
        let here = |page: PageNo| {
            if !self.residency.is_here(page) {
                return lazy.resident(page).map(|image| image.to_vec());
            }
            let mut image = vec![0; size.len()];
            file.borrow_mut().read(page.index() * size.bytes(), &mut image).is_ok().then_some(image)
        };
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut ahead, &here)
    }

    pub(super) fn fetch(&self, file: &mut Bytes, reader: &Reader, mut wanted: Vec<PageNo>) -> Result<(), SparseError> {
        wanted.retain(|page| !self.residency.is_here(*page));
        let lazy = reader.lazy.clone();
        let fetched = work::run_shared(FETCH_DEADLINE, async move || {
            // Few enough that the budget reaches the one that is waited for.
            lazy.fetch_many(&wanted, Budget::default()).await
        })??;
        self.install(
            file,
            reader,
            fetched.frames.iter().flat_map(|frame| &frame.pages).map(|(page, image)| (*page, &image[..])),
        )
    }

    /// Writes pages where they belong, unless they are here by now (rule S3), or the file's pages are fetched as of another state by now:
    /// then whoever wants them fetches them again. Under a quota others go meanwhile.
    fn install<'a>(
        &self,
        file: &mut Bytes,
        reader: &Reader,
        pages: impl Iterator<Item = (PageNo, &'a [u8])>,
    ) -> Result<(), SparseError> {
        let size = self.residency.origin().page_size.bytes();
        let mut pages = pages.peekable();
        while pages.peek().is_some() {
            let mut came = 0;
            {
                let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
                let right = self.residency.installing()?;
                if self.residency.turn() != reader.turn {
                    return Ok(());
                }
                for (page, image) in pages.by_ref().take(self.at_once(size)) {
                    came += 1;
                    ahead.trees.learn(page, image);
                    if self.residency.may_install(&right, page)? {
                        let offset = page.index() * size;
                        file.write(offset, &disguised(offset, image)).map_err(SparseError::Inner)?;
                        self.residency.set_here(&right, page);
                    }
                }
            }
            self.make_room(came)?;
        }
        Ok(())
    }
}
