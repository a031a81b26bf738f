//! How a prefix becomes durable: one sync for all that was published by then, and a full segment sealed on the way.

use super::error::LogError;
use super::open::{Inner, locked};
use super::retain::retain;
use crate::error::on;
use littoral_format::log::Fold;
use littoral_types::limits::LOG_SYNC_MS;
use littoral_types::{Lsn, Sessions};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// When a record counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSync {
    /// When somebody asks, or its segment is sealed.
    None,
    /// So long after it was appended, together with all that came meanwhile.
    Interval(Duration),
    /// Before its append returns, together with all that wait at the same time.
    Each,
}

impl Default for LogSync {
    fn default() -> Self {
        LogSync::Interval(Duration::from_millis(LOG_SYNC_MS))
    }
}

/// What was walked of the oldest segment that is not sealed.
#[derive(Debug)]
pub(super) struct Syncing {
    fold: Fold,
    durable: Sessions,
    /// The segment that is durable up to a place, all before it whole.
    durable_at: (Lsn, u64),
}

impl Syncing {
    pub(super) fn new(fold: Fold) -> Self {
        Self { durable: fold.sessions(), durable_at: (fold.head().first, fold.offset()), fold }
    }

    pub(super) fn durable_sessions(&self) -> Sessions {
        self.durable.clone()
    }

    pub(super) const fn durable_at(&self) -> (Lsn, u64) {
        self.durable_at
    }
}

/// What the log's thread sleeps on.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<Rung>,
    heard: Condvar,
    /// Whether the thread knows that there is something to sync.
    is_dirty: AtomicBool,
}

#[derive(Debug, Default)]
struct Rung {
    /// Since when it is rung for.
    since: Option<Instant>,
    is_over: bool,
}

impl Bell {
    /// Something was appended. Rings for the first thing after each look only.
    #[inline]
    pub(super) fn appended(&self) {
        // Either the thread, which says first that it looks, sees what was published before this, or this sees that it has said so.
        fence(Ordering::SeqCst);
        if !self.is_dirty.load(Ordering::Relaxed) && !self.is_dirty.swap(true, Ordering::SeqCst) {
            self.ring();
        }
    }

    pub(super) fn ring(&self) {
        locked(&self.rung).since.get_or_insert_with(Instant::now);
        self.heard.notify_all();
    }

    /// Sleeps until it is rung for, and gives since when it is. `None` when it is over.
    fn listen(&self) -> Option<Instant> {
        let rung = locked(&self.rung);
        let sleeping = self.heard.wait_while(rung, |rung| rung.since.is_none() && !rung.is_over);
        let mut rung = sleeping.unwrap_or_else(PoisonError::into_inner);
        rung.since.take().filter(|_| !rung.is_over)
    }

    /// Sleeps so long, unless it is over.
    fn rest(&self, time: Duration) {
        let rung = locked(&self.rung);
        drop(self.heard.wait_timeout_while(rung, time, |rung| !rung.is_over));
    }
}

/// The log's thread: syncs at intervals, seals what is full, makes segments beforehand.
#[derive(Debug)]
pub(super) struct Thread(JoinHandle<()>);

impl Thread {
    pub(super) fn start(inner: &Arc<Inner>) -> Result<Self, LogError> {
        let own = Arc::clone(inner);
        let started = std::thread::Builder::new().name("littoral-log".to_owned()).spawn(move || own.work());
        Ok(Self(started.map_err(on("start a thread for", inner.folder.path()))?))
    }

    pub(super) fn stop(self, inner: &Inner) {
        locked(&inner.bell.rung).is_over = true;
        inner.bell.heard.notify_all();
        if self.0.join().is_err() {
            tracing::error!("the thread of a log panicked");
        }
    }
}

impl Inner {
    fn work(&self) {
        let mut oldest = self.oldest().head.first;
        let mut ready = (Lsn(0), 0);
        while let Some(since) = self.bell.listen() {
            self.prepare();
            let is_due = match self.how {
                LogSync::Interval(time) => {
                    // What came while others were synced has waited already: a slow disk is not kept waiting between two syncs.
                    self.bell.rest(time.saturating_sub(since.elapsed()));
                    true
                }
                LogSync::None | LogSync::Each => {
                    self.bell.rest(Duration::from_millis(LOG_SYNC_MS));
                    self.is_any_full()
                }
            };
            self.bell.is_dirty.store(false, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if is_due
                && self.check().is_ok()
                && let Err(error) = self.sync()
            {
                tracing::error!(%error, log = %self.folder.path().display(), "a log cannot be synced: appending stops");
                return;
            }
            // Whoever sealed it: there may be more now than the log need keep.
            let before = std::mem::replace(&mut oldest, self.oldest().head.first);
            if self.retains.load(Ordering::SeqCst)
                && oldest > before
                && let Err(error) = retain(self.folder.path(), self.now_ms(), self.faults())
            {
                tracing::warn!(%error, log = %self.folder.path().display(), "what a log need not keep stays for now");
            }
            self.current().make_ready(&mut ready);
        }
    }

    /// Makes everything durable that was published before, up to the first reservation that was not. Whoever comes meanwhile waits, and finds
    /// it done.
    pub(super) fn sync(&self) -> Result<(), LogError> {
        let done = self.sync_all(&mut locked(&self.syncing));
        if let Err(error) = &done {
            self.stop_for(error);
        }
        done
    }

    /// Waits until a record is durable.
    pub(super) fn sync_to(&self, lsn: Lsn) -> Result<(), LogError> {
        loop {
            let mut syncing = locked(&self.syncing);
            if self.durable.load(Ordering::SeqCst) > lsn.0 {
                return Ok(());
            }
            self.check()?;
            let done = self.sync_all(&mut syncing);
            drop(syncing);
            if let Err(error) = done {
                self.stop_for(&error);
                return Err(error);
            }
            if self.durable.load(Ordering::SeqCst) <= lsn.0 {
                // Somebody before us has reserved, and not published yet.
                std::thread::yield_now();
            }
        }
    }

    fn sync_all(&self, syncing: &mut Syncing) -> Result<(), LogError> {
        let mut live = self.oldest();
        loop {
            // Before the walk: what ends meanwhile is sealed the next time.
            let end = live.end();
            let is_new = live.walk(&mut syncing.fold)?;
            self.faults().reach("log.sync.walked")?;
            let fold = &syncing.fold;
            let is_full = end.is_some_and(|end| end.offset == fold.offset());
            if is_new || is_full {
                live.sync(&self.folder)?;
                self.faults().reach("log.sync.synced")?;
                live.synced(fold.offset());
                self.durable.store(fold.next().0, Ordering::SeqCst);
                syncing.durable = fold.sessions();
                syncing.durable_at = (fold.head().first, fold.offset());
            }
            if !is_full {
                return Ok(());
            }
            // Whoever found the end makes the next segment; until then this one stays the newest.
            if Arc::ptr_eq(&live, &self.current()) {
                return Ok(());
            }
            live.seal(fold, self.faults())?;
            live = self.sealed();
            syncing.fold = Fold::new(live.head, &syncing.durable);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;

    #[test]
    fn what_comes_while_others_are_synced_waits_from_then_on_and_not_from_when_it_is_heard_of() {
        let waited = Duration::from_millis(50);
        let bell = Bell::default();
        bell.appended();
        let first = bell.listen().unwrap();
        // The thread looks, and syncs what it finds.
        bell.is_dirty.store(false, Ordering::SeqCst);
        bell.appended();
        std::thread::sleep(waited);
        bell.appended();
        bell.ring();
        let since = bell.listen().unwrap();
        assert!(since >= first && since.elapsed() >= waited, "{:?}", since.elapsed());
        locked(&bell.rung).is_over = true;
        bell.ring();
        assert!(bell.listen().is_none());
    }
}
