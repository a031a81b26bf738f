//! A source that can be taken back: whoever closes a database last is not kept by one that only reads it.

use super::Live;
use crate::forking;
use crate::raw::walindex::Header;
use littoral_ports::{CaughtUp, Changed, Commits, LiveSource, PageSource, SourceError};
use littoral_types::{CountedLog, Epoch, Gap, PageCount, PageNo, PageSize, Sessions, Tree, VolumeRow, WalMark};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLockReadGuard, Weak};
use std::time::Duration;

/// A database's pages, for work that goes on behind the application's back. Each question is answered within a slice; between two of
/// them the connection may be closed, and what is asked then is refused.
pub(crate) struct Lent(Arc<Mutex<Live>>);

/// What is known of a WAL at a moment.
pub(crate) enum WalNow {
    /// There is none.
    None,
    /// Its index says this.
    At(Header),
    /// Its index is being written, or the connection was taken back.
    Unknown,
}

/// How often it is looked for an index that nobody writes just now.
const LOOKS: u32 = 1000;
/// How often a backfill is begun that somebody else keeps from beginning, and how long apart.
const BACKFILLS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);

/// The way to take it back.
#[derive(Debug)]
pub(crate) struct Recall(Weak<Mutex<Live>>);

impl Lent {
    /// Lends it.
    pub(crate) fn new(live: Live) -> Self {
        Self(Arc::new(Mutex::new(live)))
    }

    /// A page of the database file itself, as it is now.
    pub(crate) fn page(&self, page_size: PageSize, page: u32) -> Option<Vec<u8>> {
        let mut image = vec![0; page_size.len()];
        let offset = u64::from(page.checked_sub(1)?) * page_size.bytes();
        self.inside().connection.read_main(offset, &mut image).ok()?;
        Some(image)
    }

    /// The WAL as its index says now.
    pub(crate) fn wal(&self) -> WalNow {
        let inside = self.inside();
        for _ in 0..LOOKS {
            match (inside.connection.has_index(), inside.connection.header()) {
                (_, Some(header)) => return WalNow::At(header),
                (false, None) => break,
                // Somebody writes it.
                (true, None) => std::thread::yield_now(),
            }
        }
        if inside.connection.is_closed() || inside.connection.has_index() { WalNow::Unknown } else { WalNow::None }
    }

    /// Whether nobody reads an older commit from the database file than the newest one of now, nor will: a backfill that covers it has begun,
    /// and SQLite begins none before that is so. Begins one, if there was none.
    pub(crate) fn nobody_reads_what_was_before_now(&self) -> bool {
        let newest = match self.wal() {
            WalNow::None => return true,
            WalNow::Unknown => return false,
            WalNow::At(header) => header.place(),
        };
        for tried in 0..BACKFILLS {
            match self.wal() {
                // One that started over was backfilled to its end, and read by nobody.
                WalNow::At(header) if header.salts() != newest.salts => return true,
                WalNow::At(_) => {
                    let begun = self.inside().connection.backfill_begun();
                    let is_still = matches!(self.wal(), WalNow::At(header) if header.salts() == newest.salts);
                    if is_still && begun.is_some_and(|begun| begun >= newest.frame) {
                        return true;
                    }
                }
                WalNow::None | WalNow::Unknown => return false,
            }
            if tried > 0 {
                std::thread::sleep(PAUSE);
            }
            self.backfill();
        }
        false
    }

    /// Writes what is in the WAL to the database file, as far as readers and room allow. Whether all of it is there.
    pub(crate) fn backfill(&self) -> bool {
        let inside = self.inside();
        if let Err(error) = inside.connection.backfill() {
            tracing::debug!(error = %error.message, "a backfill did nothing");
        }
        inside
            .connection
            .backfilled()
            .zip(inside.connection.header())
            .is_some_and(|(done, header)| done >= header.frames())
    }

    /// What takes it back.
    pub(crate) fn recall(&self) -> Recall {
        Recall(Arc::downgrade(&self.0))
    }

    /// Whether it was taken back before everything was read.
    pub(crate) fn is_recalled(&self) -> bool {
        self.inside().is_recalled
    }

    fn inside(&self) -> Inside<'_> {
        let inside = forking::inside();
        Inside { live: self.0.lock().unwrap_or_else(PoisonError::into_inner), _inside: inside }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Where no fork comes in between.
        self.inside().close();
    }
}

/// The database's pages, while no process forks.
struct Inside<'a> {
    live: MutexGuard<'a, Live>,
    _inside: RwLockReadGuard<'static, ()>,
}

impl Deref for Inside<'_> {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.live
    }
}

impl DerefMut for Inside<'_> {
    fn deref_mut(&mut self) -> &mut Live {
        &mut self.live
    }
}

impl Recall {
    /// Takes it back: when this returns, its connection is closed.
    pub(crate) fn now(self) {
        if let Some(lent) = self.0.upgrade() {
            lent.lock().unwrap_or_else(PoisonError::into_inner).recall();
        }
    }

    /// Whether it was given back.
    pub(crate) fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl LiveSource for Lent {
    fn begin(&mut self, row: &VolumeRow) -> Result<(), SourceError> {
        self.inside().begin(row)
    }

    fn published(&mut self, row: &VolumeRow) {
        self.inside().published(row);
    }

    fn given_up(&mut self) {
        self.inside().given_up();
    }

    fn superseded(&mut self, epoch: Epoch, owner: &str) {
        self.inside().superseded(epoch, owner);
    }

    fn commits_since(&mut self, row: &VolumeRow) -> Result<Option<Commits>, SourceError> {
        self.inside().commits_since(row)
    }

    fn lags(&self) -> bool {
        self.inside().lags()
    }

    fn before(&mut self, page: PageNo) -> Option<Vec<u8>> {
        self.inside().before(page)
    }

    fn sessions_gathered(&mut self) -> Option<Sessions> {
        self.inside().sessions_gathered()
    }

    fn logs(&mut self) -> Result<Vec<CountedLog>, SourceError> {
        self.inside().logs()
    }

    fn has_read(&mut self) {
        self.inside().has_read();
    }

    fn shipped(&mut self, row: &VolumeRow) {
        self.inside().shipped(row);
    }

    fn commits_left(&self) -> u64 {
        self.inside().commits_left()
    }

    fn asked(&self) -> Option<u64> {
        self.inside().asked()
    }

    fn answered(&mut self, asked: u64) {
        self.inside().answered(asked);
    }
}

impl PageSource for Lent {
    fn page_size(&self) -> PageSize {
        self.inside().page_size()
    }

    fn page_count(&self) -> PageCount {
        self.inside().page_count()
    }

    fn lock_page(&self) -> Option<PageNo> {
        self.inside().lock_page()
    }

    fn changed(&self) -> Changed {
        self.inside().changed()
    }

    fn wal(&self) -> Option<WalMark> {
        self.inside().wal()
    }

    fn commits(&self) -> u64 {
        self.inside().commits()
    }

    fn sessions(&mut self) -> Option<Sessions> {
        self.inside().sessions()
    }

    fn trees(&mut self) -> Option<Vec<Tree>> {
        self.inside().trees()
    }

    fn has(&self, page: PageNo) -> bool {
        self.inside().has(page)
    }

    fn gap(&self) -> Option<Gap> {
        self.inside().gap()
    }

    fn committed_ms(&self) -> Option<u64> {
        self.inside().committed_ms()
    }

    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        self.inside().read(page, into)
    }

    fn rest(&mut self) -> Result<(), SourceError> {
        self.inside().rest()
    }

    fn catch_up(&mut self) -> Result<CaughtUp, SourceError> {
        self.inside().catch_up()
    }

    fn live(&mut self) -> Option<&mut dyn LiveSource> {
        Some(self)
    }
}
