//! Frames of a WAL that is about to start over, or to go: they are copied before anybody loses them (rules S14, S15).
//!
//! What this room promises:
//! 1. Nobody who commits copies more than [`limits::SEAL_AT_ONCE_BYTES`]: a thread of whoever ships copies as they come, once the WAL has
//!    got so far that it may start over soon.
//! 2. A WAL that still holds more is kept from starting over until that thread has caught up, by a tenth of its length at most. Then
//!    frames are let go: what they held is in the database file and marked, and the next publication is a checkpoint.
//! 3. Whatever fails here fails no call of SQLite's.
//! 4. Copies take a bounded part of the disk, however long nothing can be shipped: what would not fit is not copied, and what was
//!    copied goes. It is dirty bits from then on, until something was published.
//!
//! [`limits::SEAL_AT_ONCE_BYTES`]: littoral_types::limits::SEAL_AT_ONCE_BYTES

use crate::database::{Database, Reads};
use crate::shipper::SHIPPED_LATELY;
use crate::source::{Lent, salts_in_file};
use littoral_engine::LocalError;
use littoral_engine::room::Shares;
use littoral_engine::sealed::SealedWals;
use littoral_engine::tracker::bells::Ordinal;
use littoral_engine::tracker::{Dropped, Tracker, WalPlace};
use littoral_engine::wal::{FRAME_BYTES, WalHeader};
use littoral_types::limits::{OLDER_BYTES_MAX, SEAL_AT_ONCE_BYTES, SEAL_BYTES_MAX, SEALED_BYTES_MAX};
use littoral_types::{PageNo, PageSize};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many frames are let come before they are copied together.
const FRAMES: u64 = 48;
/// A WAL that nobody has seen start over is expected to do so when SQLite does it by default.
const USUAL: u64 = 1000;

/// Copies are looked at on disk whenever so much of their limit was added to them.
const LOOKS: u64 = 8;

/// Pages as they were before frames came that were copied: a bounded number, the oldest go first.
#[derive(Debug, Default)]
pub(crate) struct Older(Mutex<Pages>);

#[derive(Debug, Default)]
pub(crate) struct Pages {
    images: HashMap<u32, Vec<u8>>,
    /// In the order in which they came; some have gone since.
    order: VecDeque<u32>,
    bytes: usize,
}

impl Older {
    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn has(&self, page: u32) -> bool {
        self.images.contains_key(&page)
    }

    fn keep(&mut self, page: u32, image: Vec<u8>) {
        self.bytes += image.len();
        self.order.push_back(page);
        if let Some(gone) = self.images.insert(page, image) {
            self.bytes -= gone.len();
        }
        while self.bytes > OLDER_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            drop(self.take(oldest));
        }
        if self.order.len() > 2 * self.images.len() + 64 {
            let images = &self.images;
            self.order.retain(|page| images.contains_key(page));
        }
    }

    fn take(&mut self, page: u32) -> Option<Vec<u8>> {
        let gone = self.images.remove(&page)?;
        self.bytes -= gone.len();
        Some(gone)
    }
}

/// How far the volume is published, as a number that is never zero.
fn published(tracker: &Tracker) -> u64 {
    tracker.durable().map_or(1, |position| position.lsn.0.saturating_add(2))
}

/// Whether frames up to there are to be copied now, because the WAL may start over soon.
#[inline]
pub(crate) fn is_due(tracker: &Tracker, place: Ordinal) -> bool {
    let usual = match tracker.previous().frame {
        0 => USUAL,
        frames => frames,
    };
    place.frame() > usual / 2 && place.frame().saturating_sub(tracker.kept(place)) >= FRAMES
}

impl Database {
    /// Where its WAL lies.
    fn wal(&self) -> PathBuf {
        let mut wal = self.path().as_os_str().to_owned();
        wal.push("-wal");
        let wal = PathBuf::from(wal);
        if self.sparse().is_some() { crate::sparse::name_of(&wal) } else { wal }
    }

    /// Bytes that the frames up to a place take that nobody has copied. A WAL that cannot be read has pages of the largest size.
    fn uncopied(&self, tracker: &Tracker, newest: Ordinal) -> u64 {
        match newest.frame().saturating_sub(tracker.kept(newest)) {
            0 => 0,
            frames => {
                let each = SealedWals::frame_bytes(&self.wal());
                frames.saturating_mul(each.unwrap_or(PageSize::MAX.bytes() + FRAME_BYTES))
            }
        }
    }

    /// Whether there is a WAL with something in it.
    pub(crate) fn has_wal(&self) -> bool {
        std::fs::metadata(self.wal()).is_ok_and(|found| found.len() > 0)
    }

    /// The number of the newest commit in the WAL, where its frames are of any use to who ships.
    fn sealable(&self) -> Option<(&Tracker, WalPlace, Ordinal)> {
        let tracker = self.tracker()?;
        // Whoever gave up begins again when something was published since, by whomever.
        let gave_up = self.gave_up.load(Ordering::Relaxed) == published(tracker);
        let is_shipped = self.has_shipper() || tracker.was_shipped(SHIPPED_LATELY);
        if !is_shipped || tracker.is_fenced() || tracker.basis().is_none() || gave_up {
            return None;
        }
        let place = tracker.witnessed();
        Some((tracker, place, tracker.ordered(place)?))
    }

    /// Copies what came, where that is due, and remembers what the pages were before. Whether there was anything.
    pub(crate) fn seal_what_came(self: &Arc<Self>, reader: &mut Option<Lent>) -> bool {
        let Some((tracker, place, newest)) = self.sealable().filter(|(tracker, _, newest)| is_due(tracker, *newest))
        else {
            return false;
        };
        let mut came = BTreeSet::new();
        let copied = self.seal(tracker, (place, newest), &mut |header, page| {
            came.insert((header.page_size, page));
        });
        if reader.is_none() {
            *reader = self.lend(Reads::Behind).ok();
        }
        // Before it is backfilled: what the file holds then is not what was shipped last.
        for (page_size, page) in came.into_iter().filter(|(_, page)| !self.older.lock().has(*page)) {
            let lent = reader.as_ref().filter(|_| self.sparse().is_none());
            let Some(image) = lent.and_then(|lent| lent.page(page_size, page)) else {
                *reader = None;
                break;
            };
            self.older.lock().keep(page, image);
        }
        copied.is_some_and(|copied| copied > 0)
    }

    /// What a page was before frames that were copied came, as far as that is remembered: whoever uses it looks at its identity.
    pub(crate) fn take_older(&self, page: PageNo) -> Option<Vec<u8>> {
        self.older.lock().take(page.to_sqlite()?)
    }

    /// The WAL is about to start over. Whether it may; `is_asked` where somebody asked for just that, and waits for it.
    pub(crate) fn may_restart(&self, is_asked: bool) -> bool {
        let Some((tracker, place, newest)) = self.sealable() else { return true };
        let left = self.uncopied(tracker, newest);
        if left == 0 {
            return true;
        }
        if left <= if is_asked { SEAL_BYTES_MAX } else { SEAL_AT_ONCE_BYTES } {
            self.seal(tracker, (place, newest), &mut |_, _| ());
            return true;
        }
        tracker.ask_to_seal();
        let first = tracker.declined(newest);
        let goes_on = newest.frame() >= first + first / 10;
        if goes_on || is_asked {
            tracker.tell_dropped(Dropped::Late);
        }
        if goes_on {
            tracing::debug!(database = %self.path().display(), "frames are let go before anybody shipped them: the next publication is a checkpoint");
        }
        is_asked || goes_on
    }

    /// The WAL is about to be taken away.
    pub(crate) fn seal_before_it_goes(&self) {
        let Some((tracker, place, newest)) = self.sealable() else { return };
        let left = self.uncopied(tracker, newest);
        if left > 0 && left <= SEAL_BYTES_MAX {
            self.seal(tracker, (place, newest), &mut |_, _| ());
        } else if left > 0 {
            tracker.tell_dropped(Dropped::Late);
        }
    }

    /// Copies everything up to there. Gives the bytes that it took.
    fn seal(
        &self,
        tracker: &Tracker,
        (place, newest): (WalPlace, Ordinal),
        told: &mut dyn FnMut(WalHeader, u32),
    ) -> Option<u64> {
        let wal = self.wal();
        match self.copied(tracker, &wal, (place, newest), told) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::warn!(%error, "frames cannot be kept until they are shipped: the next publication is a checkpoint");
                self.give_up(tracker);
                None
            }
        }
    }

    fn copied(
        &self,
        tracker: &Tracker,
        wal: &Path,
        (place, newest): (WalPlace, Ordinal),
        told: &mut dyn FnMut(WalHeader, u32),
    ) -> Result<u64, LocalError> {
        let kept = tracker.kept(newest);
        let sealed = self.sealed();
        let previous = tracker.previous();
        if tracker.ordered(place) != Some(newest) {
            return Ok(0);
        }
        // Of a database that is not all here most of it is its pages'.
        let part = |quota| if self.sparse().is_some() { Shares::of(quota).copies } else { quota / 2 };
        let max = self.said_quota().map_or(SEALED_BYTES_MAX, |quota| part(quota).min(SEALED_BYTES_MAX));
        let bytes = self.would_take(&sealed, self.uncopied(tracker, newest), max)?;
        if bytes > max {
            tracing::warn!(
                database = %self.path().display(),
                bytes, max,
                "too much waits to be shipped: it is let go commit by commit, and kept page by page; the next publication is a checkpoint"
            );
            self.give_up(tracker);
            return Ok(0);
        }
        let of = (newest.wals(), salts_in_file(place.salts));
        let copied = sealed.copy(wal, of, previous, kept..newest.frame(), told)?;
        if copied.bytes > 0 {
            tracker.tell_sealed(Ordinal::of(newest.wals(), copied.frame));
        }
        self.sealed_bytes.fetch_add(copied.bytes, Ordering::Relaxed);
        Ok(copied.bytes)
    }

    /// How much copies would take with so much more of them.
    fn would_take(&self, sealed: &SealedWals, more: u64, max: u64) -> Result<u64, LocalError> {
        let known = self.sealed_bytes.load(Ordering::Relaxed);
        let look = self.sealed_look.load(Ordering::Relaxed);
        if known.saturating_add(more) <= look.min(max) {
            return Ok(known + more);
        }
        let bytes = sealed.bytes()?;
        self.sealed_bytes.store(bytes, Ordering::Relaxed);
        self.sealed_look.store(bytes.saturating_add(max / LOOKS), Ordering::Relaxed);
        Ok(bytes.saturating_add(more))
    }

    /// No more copies until something was published.
    fn give_up(&self, tracker: &Tracker) {
        self.gave_up.store(published(tracker), Ordering::Relaxed);
        tracker.tell_dropped(Dropped::Room);
        tracker.forget_sealed();
        self.drop_sealed();
    }

    /// All copies go.
    pub(crate) fn drop_sealed(&self) {
        // An empty range.
        if let Err(error) = self.sealed().keep_only(RangeInclusive::new(1, 0)) {
            tracing::warn!(%error, "copies of frames that nobody needs stay where they are");
        }
    }

    /// Everything in WALs before that one is in the object store; where none is named, everything in all of them.
    pub(crate) fn unseal(&self, wals: Option<u64>) {
        self.gave_up.store(0, Ordering::Relaxed);
        let newest = self.tracker().map_or(0, Tracker::wals);
        let first = wals.unwrap_or(newest + 1);
        if let Err(error) = self.sealed().keep_only(first..=newest) {
            tracing::warn!(%error, "copies of frames that were shipped stay where they are");
        }
    }
}
