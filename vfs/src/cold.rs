//! Pages of a cold scan: read where the volume is, and kept no longer than a scan comes back to them.
//!
//! What this room promises:
//! 1. Nothing of it reaches this disk, the quota, or what is known to be here: frames lie in the memory of one connection, up to
//!    [`COLD_BYTES_MAX`], and the oldest go first.
//! 2. What is fetched at once is no more than the pace brings in half a second, so that a scan flows instead of stopping for long.
//!
//! Which state is read, and that nobody writes it, is `past.rs`'s.
//!
//! [`COLD_BYTES_MAX`]: littoral_types::limits::COLD_BYTES_MAX

use crate::sparse::SparseError;
use crate::work::run_shared;
use littoral_engine::lazy::{Budget, Frame, Lazy};
use littoral_engine::open::Counting;
use littoral_engine::readahead::{Readahead, Room};
use littoral_engine::settings::Settings;
use littoral_types::PageNo;
use littoral_types::limits::{COLD_BYTES_MAX, COLD_WINDOW_BYTES};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// For hangs alone: a slow pace may keep a page waiting for long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(7_200);
/// Requests under way at once.
const IN_FLIGHT: usize = 4;

/// Pages of a state that is scanned.
#[derive(Debug)]
pub(crate) struct Cold {
    lazy: Lazy,
    meter: Arc<Counting>,
    /// Bytes that are fetched at once.
    window: u64,
    held: Mutex<Held>,
}

/// What is at hand.
#[derive(Debug)]
struct Held {
    trees: Readahead,
    by_page: HashMap<PageNo, Arc<Frame>>,
    /// The oldest first.
    frames: VecDeque<Arc<Frame>>,
    bytes: u64,
}

impl Cold {
    pub(crate) fn new(lazy: Lazy, meter: Arc<Counting>, settings: &Settings) -> Self {
        let mut trees = Readahead::new(lazy.page_size(), lazy.page_count());
        lazy.skeleton().for_each(|(page, image)| trees.learn(page, &image));
        let rates = [settings.scan_rate.value, settings.tenant_bounds().scan_rate];
        let half_a_second = rates.into_iter().flatten().min().map_or(u64::MAX, |rate| rate / 2);
        let held = Held { trees, by_page: HashMap::new(), frames: VecDeque::new(), bytes: 0 };
        Self { lazy, meter, window: half_a_second.min(COLD_WINDOW_BYTES), held: Mutex::new(held) }
    }

    /// The database's size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.lazy.page_count().0 * self.lazy.page_size().bytes()
    }

    pub(crate) const fn lazy(&self) -> &Lazy {
        &self.lazy
    }

    pub(crate) const fn meter(&self) -> &Arc<Counting> {
        &self.meter
    }

    /// Bytes that are at hand.
    pub(crate) fn held(&self) -> u64 {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Reads; what is asked for lies within the database.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), SparseError> {
        let size = self.lazy.page_size().bytes();
        let mut place = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let page = PageNo::from_index(place / size);
            let frame = self.frame(page)?;
            let from = usize::try_from(place % size).unwrap_or(usize::MAX);
            let image = frame.page(page).and_then(|image| image.get(from..)).unwrap_or_default();
            let count = image.len().min(rest.len());
            if count == 0 {
                return Err(SparseError::Shared(Arc::new(self.nowhere(page))));
            }
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&image[..count]);
            place += count as u64;
            rest = later;
        }
        Ok(())
    }

    fn nowhere(&self, page: PageNo) -> littoral_engine::EngineError {
        let volume = self.lazy.volume().to_string();
        littoral_engine::EngineError::Inconsistent { volume, detail: format!("page {page} is not in its own frame") }
    }

    /// The frame that has a page; where it is not at hand, it comes with what will be asked for next.
    fn frame(&self, page: PageNo) -> Result<Arc<Frame>, SparseError> {
        if let Some(image) = self.lazy.resident(page) {
            return Ok(Arc::new(Frame { pages: vec![(page, image)] }));
        }
        let mut wanted = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let Held { trees, by_page, .. } = &mut *held;
            if let Some(frame) = by_page.get(&page) {
                return Ok(frame.clone());
            }
            let is_here = |page| by_page.contains_key(&page) || self.lazy.resident(page).is_some();
            trees.missed(page, &is_here, Room { bytes: self.window, pages: usize::MAX })
        };
        wanted.push(page);
        let (lazy, budget) = (self.lazy.clone(), Budget { bytes: self.window, in_flight: IN_FLIGHT });
        let ahead = run_shared(DEADLINE, async move || lazy.fetch_many(&wanted, budget).await)?;
        match ahead {
            Ok(fetched) => fetched.frames.into_iter().for_each(|frame| self.hold(frame)),
            // What was only foreseen keeps nobody from the page that was asked for.
            Err(error) => tracing::debug!(%error, %page, "reading ahead failed: fetching the page alone"),
        }
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).by_page.get(&page).cloned();
        if let Some(frame) = held {
            return Ok(frame);
        }
        let lazy = self.lazy.clone();
        let frame = run_shared(DEADLINE, async move || lazy.fetch(page).await)??;
        self.hold(frame.clone());
        Ok(frame)
    }

    fn hold(&self, frame: Arc<Frame>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = &mut *held;
        for (page, image) in &frame.pages {
            held.trees.learn(*page, image);
            held.by_page.insert(*page, frame.clone());
        }
        held.bytes += bytes_of(&frame);
        held.frames.push_back(frame);
        while held.bytes > COLD_BYTES_MAX {
            let Some(oldest) = held.frames.pop_front() else { break };
            held.bytes -= bytes_of(&oldest);
            for (page, _) in &oldest.pages {
                if held.by_page.get(page).is_some_and(|known| Arc::ptr_eq(known, &oldest)) {
                    held.by_page.remove(page);
                }
            }
        }
    }
}

fn bytes_of(frame: &Frame) -> u64 {
    frame.pages.iter().map(|(_, image)| image.len() as u64).sum()
}
