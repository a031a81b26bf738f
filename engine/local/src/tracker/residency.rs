//! Which pages of a sparse database file are here, and which of them were written here.
//!
//! What this room promises:
//! 1. A page that is here was written whole, by SQLite or with what the object store holds. Whether it is, is this bitmap's word and
//!    never the file system's holes.
//! 2. Whoever installs a page, writes one or evicts some holds the one lock of all processes (rule S3); it dies with its owner. A page
//!    that is here is nobody's to install, and one that was written is nobody's to evict.
//! 3. What was written here is known durably before SQLite is told that it is durable (rule S6). After an unclean end of the
//!    machine, only that is here: what was merely fetched is fetched again.
//! 4. What is not here is fetched as of one state, which is moved on ([`Residency::settle`]) to one that was published: durably, before
//!    any page that was written counts as one that may be fetched again. Dying anywhere in between costs room, and no page.
//! 5. Readers hold no lock: who reads a page that is evicted meanwhile learns of it by a count, and reads again.
//!
//! The file begins with what the pages are fetched from: one state of one volume. It grows with the database, and never shrinks.

use super::bells::Ordinal;
use super::map::Map;
use super::peek::PeekSparse;
use super::{WORD, allocate, boot};
use crate::durable::{create_dirs, parent, remove_if_there, suffixed, sync_dir};
use crate::error::{LocalError, on};
use crate::inherited::LockFile;
use littoral_ports::Faults;
use littoral_types::limits::CHUNK_BYTES;
use littoral_types::{Epoch, Generation, Lsn, PageCount, PageNo, PageSize, Position, VolumeId};
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Its format, which is part of the file's name.
pub(crate) const SUFFIX: &str = "sparse2";
const MAGIC: u64 = u64::from_le_bytes(*b"LITTSPA2");
const HEADER_BYTES: u64 = 4096;
/// Pages of one block: a page of the file for each bank.
const BLOCK_PAGES: u64 = 4096 * 8;
const BANK_WORDS: usize = 4096 / WORD;
const BANKS: usize = 4;
const BLOCK_BYTES: u64 = (BANKS * 4096) as u64;
/// Blocks mapped at once, and how often: all pages that SQLite can count.
const SEGMENT_BLOCKS: u64 = 64;
const SEGMENTS: usize = 1 << 11;
/// Bytes of a file that its system gives back at once.
const HOLE_BYTES: u64 = 4096;

/// What is known of each page.
#[derive(Clone, Copy)]
enum Bank {
    Here,
    /// It may differ from what is fetched.
    Written,
    /// It was written since [`Residency::begin_round`].
    Fresh,
    /// It was read since the hand came by.
    Used,
}

mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VOLUME: usize = 1;
    pub(super) const PAGE_SIZE: usize = 5;
    pub(super) const BOOT: usize = 7;
    /// Our term when we wrote last, zero for never; and as of which checkpoint.
    pub(super) const OWNED_EPOCH: usize = 9;
    pub(super) const OWNED_GENERATION: usize = 10;
    /// Counts what is noted as written here, by anybody; and how much of that is known durably.
    pub(super) const NOTED: usize = 11;
    pub(super) const SYNCED: usize = 12;
    /// How often the state that pages are fetched from was moved on: its last bit says which of two places holds it.
    pub(super) const TURN: usize = 13;
    /// Blocks that are allocated.
    pub(super) const BLOCKS: usize = 14;
    /// How often pages were evicted, and how many.
    pub(super) const EVICTIONS: usize = 15;
    pub(super) const EVICTED: usize = 16;
    /// The round that `Fresh` counts from.
    pub(super) const ROUND: usize = 17;
    /// Where eviction goes on, in words.
    pub(super) const HAND: usize = 18;
    /// Somebody installs, evicts or settles, or died while he did.
    pub(super) const BUSY: usize = 19;
    /// Epoch, LSN and size of a state, and up to which place of the WAL it holds everything; twice.
    pub(super) const STATES: usize = 24;
    pub(super) const STATE_WORDS: usize = 4;
}

/// Points at which a test makes the process die while pages are settled and evicted.
pub const FAULT_POINTS: [&str; 6] =
    ["settle.grown", "settle.noted", "settle.turned", "settle.cleared", "evict.cleared", "evict.punched"];

/// The state that pages are fetched from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Of which volume.
    pub volume: VolumeId,
    /// As of which commit.
    pub position: Position,
    /// Its page size.
    pub page_size: PageSize,
    /// Its size. Whatever lies behind was never fetched.
    pub page_count: PageCount,
}

/// The right to find out what a database file is and to make another of it: one opener at a time, in all processes. It dies with
/// its owner.
#[derive(Debug)]
pub struct Opening {
    _file: LockFile,
}

impl Opening {
    fn path_of(sidecar: &Path) -> PathBuf {
        suffixed(sidecar, ".opening")
    }

    /// Whether anybody here ever had it for this database: what stands there may have come out of the object store.
    pub fn was_had(sidecar: &Path) -> bool {
        Self::path_of(sidecar).exists()
    }

    /// Waits for it.
    pub fn wait(sidecar: &Path) -> Result<Self, LocalError> {
        create_dirs(parent(sidecar))?;
        let path = Self::path_of(sidecar);
        let file = LockFile::create(&path).map_err(on("open", &path))?;
        retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)).map_err(on("lock", &path))?;
        Ok(Self { _file: file })
    }
}

/// Those who have a database open, in whatever process and for whatever: as long as there is another one, nobody puts another file in its
/// place.
#[derive(Debug)]
pub struct Users {
    file: LockFile,
}

impl Users {
    /// Becomes one of them, after whoever does that just now. `None` where there is no store yet.
    pub fn join(sidecar: &Path) -> Result<Option<Self>, LocalError> {
        if !parent(sidecar).is_dir() {
            return Ok(None);
        }
        let path = suffixed(sidecar, ".users");
        let file = LockFile::create(&path).map_err(on("open", &path))?;
        retry_on_intr(|| flock(&file, FlockOperation::LockShared)).map_err(on("lock", &path))?;
        Ok(Some(Self { file }))
    }

    /// Whether he is the only one, and does something as such; the others wait until it is done.
    pub fn alone<T>(&self, does: impl FnOnce() -> T) -> Option<T> {
        let is_alone = flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok();
        let done = is_alone.then(does);
        // The lock may have been lost in trying.
        let _ = retry_on_intr(|| flock(&self.file, FlockOperation::LockShared));
        done
    }
}

/// The bitmap, attached to.
#[derive(Debug)]
pub struct Residency {
    path: PathBuf,
    file: File,
    /// Held shared by whoever is attached.
    attached: LockFile,
    header: Map,
    segments: Box<[OnceLock<Map>]>,
    volume: VolumeId,
    page_size: PageSize,
    /// Held in this process by who installs; across processes, the file of that name.
    installing: Mutex<()>,
    lock: LockFile,
    /// Nobody else was attached when this one came.
    alone: bool,
}

/// The right to install pages, to write and to evict them.
#[derive(Debug)]
pub struct Installing<'a> {
    residency: &'a Residency,
    _here: MutexGuard<'a, ()>,
}

impl Drop for Installing<'_> {
    fn drop(&mut self) {
        self.residency.put(at::BUSY, 0);
        // It cannot fail for a lock that is held, and the end of the process does the same.
        let _ = flock(&self.residency.lock, FlockOperation::Unlock);
    }
}

/// How many pages are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Here, of those that can be fetched.
    pub here: u64,
    /// Here, and written since the state that pages are fetched from: not to be evicted.
    pub written: u64,
    /// Evicted so far, ever.
    pub evicted: u64,
}

impl Residency {
    /// Where a database's bitmap lies in a store's directory.
    pub fn path_of(store_root: &Path, database: &Path) -> PathBuf {
        let tracker = super::Tracker::path_of(store_root, database);
        tracker.with_extension(SUFFIX)
    }

    /// Makes the bitmap of a database of which nothing is here, durably.
    pub fn create(path: &Path, origin: &Origin) -> Result<(), LocalError> {
        Self::create_holding(path, origin, &[])
    }

    /// The same of one of which these pages are here, and differ from what is fetched.
    pub fn create_holding(path: &Path, origin: &Origin, pages: &[PageNo]) -> Result<(), LocalError> {
        create_dirs(parent(path))?;
        let fresh = suffixed(path, ".new");
        remove_if_there(&fresh)?;
        let options = OpenOptions::new().read(true).write(true).create_new(true).open(&fresh);
        let file = options.map_err(on("create", &fresh))?;
        let last = pages.last().map_or(0, |last| last.get());
        let blocks = blocks_of(PageCount(origin.page_count.0.max(last)));
        allocate(&file, HEADER_BYTES + blocks * BLOCK_BYTES).map_err(on("allocate", &fresh))?;
        let map = Map::new(&file, 0, HEADER_BYTES as usize).map_err(on("map", &fresh))?;
        let put = |at: usize, value: u64| map.word(at).store(value, Ordering::SeqCst);
        for (half, at) in origin.volume.0.chunks_exact(WORD).zip(at::VOLUME..) {
            put(at, half.try_into().map_or(0, u64::from_le_bytes));
        }
        put(at::STATES, origin.position.epoch.0);
        put(at::STATES + 1, origin.position.lsn.0);
        put(at::STATES + 2, origin.page_count.0);
        put(at::PAGE_SIZE, origin.page_size.bytes());
        put(at::BLOCKS, blocks);
        for (nth, word) in boot().unwrap_or_default().into_iter().enumerate() {
            put(at::BOOT + nth, word);
        }
        for page in pages {
            let (block, within) = (page.index() / BLOCK_PAGES, page.index() % BLOCK_PAGES);
            for bank in [Bank::Here, Bank::Written] {
                let at = HEADER_BYTES + block * BLOCK_BYTES + bank as u64 * 4096 + within / 8;
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).map_err(on("read", &fresh))?;
                byte[0] |= 1 << (within % 8);
                file.write_all_at(&byte, at).map_err(on("write", &fresh))?;
            }
        }
        put(at::MAGIC, MAGIC);
        file.sync_all().map_err(on("sync", &fresh))?;
        std::fs::rename(&fresh, path).map_err(on("rename", path))?;
        sync_dir(parent(path))
    }

    /// Attaches to a bitmap. `None` where there is none.
    pub fn attach(path: &Path) -> Result<Option<Self>, LocalError> {
        let (attached, file) = match LockFile::open_both(path, OpenOptions::new().read(true).write(true)) {
            Ok(both) => both,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(on("open", path)(error)),
        };
        let broken = |detail: &str| LocalError::Corrupt {
            path: path.into(),
            detail: format!(
                "{detail}: which pages are here is not known; remove the database file and this one, and open it anew"
            ),
        };
        let len = file.metadata().map_err(on("look at", path))?.len();
        if len < HEADER_BYTES {
            return Err(broken("cut off"));
        }
        let header = Map::new(&file, 0, HEADER_BYTES as usize).map_err(on("map", path))?;
        let get = |at: usize| header.word(at).load(Ordering::SeqCst);
        if get(at::MAGIC) != MAGIC {
            return Err(broken("not a bitmap of ours"));
        }
        let mut id = [0; 16];
        for (half, at) in id.chunks_exact_mut(WORD).zip(at::VOLUME..) {
            half.copy_from_slice(&get(at).to_le_bytes());
        }
        let page_size = PageSize::new(get(at::PAGE_SIZE)).map_err(|_| broken("no page size"))?;
        let blocks = get(at::BLOCKS);
        let is_whole = blocks <= SEGMENTS as u64 * SEGMENT_BLOCKS && len >= HEADER_BYTES + blocks * BLOCK_BYTES;
        if !is_whole || PageCount(get(at::STATES + state_of(get(at::TURN)) + 2)).0 > blocks * BLOCK_PAGES {
            return Err(broken("cut off"));
        }
        let lock_path = suffixed(path, ".lock");
        let lock = LockFile::create(&lock_path).map_err(on("open", &lock_path))?;
        let alone = flock(&attached, FlockOperation::NonBlockingLockExclusive).is_ok();
        let residency = Self {
            path: path.to_owned(),
            file,
            attached,
            header,
            segments: (0..SEGMENTS).map(|_| OnceLock::new()).collect(),
            volume: VolumeId(id),
            page_size,
            installing: Mutex::new(()),
            lock,
            alone,
        };
        if alone {
            residency.after_a_boot();
        }
        flock(&residency.attached, FlockOperation::LockShared).map_err(on("lock", path))?;
        Ok(Some(residency))
    }

    /// What was only fetched may have been lost with the machine: what was written here is known durably.
    fn after_a_boot(&self) {
        let now = boot().unwrap_or_default();
        let then = [0, 1].map(|nth| self.get(at::BOOT + nth));
        if now == then {
            return;
        }
        for word in 0..self.words() {
            if let (Some(here), Some(written)) = (self.word(Bank::Here, word), self.word(Bank::Written, word)) {
                here.fetch_and(written.load(Ordering::SeqCst), Ordering::SeqCst);
            }
        }
        for (nth, word) in now.into_iter().enumerate() {
            self.put(at::BOOT + nth, word);
        }
    }

    fn get(&self, at: usize) -> u64 {
        self.header.word(at).load(Ordering::SeqCst)
    }

    fn put(&self, at: usize, value: u64) {
        self.header.word(at).store(value, Ordering::SeqCst);
    }

    /// Words of each bank that are allocated.
    fn words(&self) -> u64 {
        self.get(at::BLOCKS) * BANK_WORDS as u64
    }

    /// Sixty-four pages of a bank. `None` where there is no room for them yet.
    #[inline]
    fn word(&self, bank: Bank, word: u64) -> Option<&AtomicU64> {
        let block = word / BANK_WORDS as u64;
        if block >= self.get(at::BLOCKS) {
            return None;
        }
        let segment = usize::try_from(block / SEGMENT_BLOCKS).ok()?;
        let slot = self.segments.get(segment)?;
        let map = match slot.get() {
            Some(map) => map,
            None => self.segment(slot, segment as u64)?,
        };
        let start = (block % SEGMENT_BLOCKS * BLOCK_BYTES) as usize / WORD;
        Some(map.word(start + bank as usize * BANK_WORDS + (word % BANK_WORDS as u64) as usize))
    }

    #[cold]
    fn segment<'a>(&self, slot: &'a OnceLock<Map>, segment: u64) -> Option<&'a Map> {
        let bytes = SEGMENT_BLOCKS * BLOCK_BYTES;
        match Map::new(&self.file, HEADER_BYTES + segment * bytes, bytes as usize) {
            Ok(map) => Some(slot.get_or_init(|| map)),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "which pages are here cannot be mapped: nothing can be read");
                None
            }
        }
    }

    /// Room for so many pages. Under the lock: one at a time.
    fn reach_to(&self, _: &Installing<'_>, pages: u64) -> Result<(), LocalError> {
        let blocks = pages.div_ceil(BLOCK_PAGES);
        if blocks > SEGMENTS as u64 * SEGMENT_BLOCKS {
            let detail = format!("{pages} pages are more than a database can have");
            return Err(LocalError::Corrupt { path: self.path.clone(), detail });
        }
        if blocks > self.get(at::BLOCKS) {
            allocate(&self.file, HEADER_BYTES + blocks * BLOCK_BYTES).map_err(on("allocate", &self.path))?;
            self.file.sync_all().map_err(on("sync", &self.path))?;
            self.put(at::BLOCKS, blocks);
        }
        Ok(())
    }

    /// Up to which place of the WAL everything is in the state that pages are fetched as of, where that was ever known.
    pub fn holds_upto(&self) -> Option<Ordinal> {
        Ordinal::of_word(self.get(at::STATES + state_of(self.get(at::TURN)) + 3))
    }

    /// Nobody knows any more how WALs were numbered: no place in one says anything.
    pub fn forget_place(&self) -> Result<(), LocalError> {
        let _right = self.installing()?;
        let word = at::STATES + state_of(self.get(at::TURN)) + 3;
        if self.get(word) != 0 {
            self.put(word, 0);
            self.sync_now()?;
        }
        Ok(())
    }

    /// A backfill is about to write a page that the state that pages are fetched as of holds as it is to be: it is let go instead, and
    /// fetched when somebody wants it. The caller's sync makes that durable, before the WAL counts as backfilled.
    pub fn let_go(
        &self,
        page: PageNo,
        punch: &mut dyn FnMut(Range<u64>) -> std::io::Result<()>,
    ) -> Result<(), LocalError> {
        let _right = self.installing()?;
        let index = page.index();
        let Some(here) = self.word(Bank::Here, index / 64) else { return Ok(()) };
        let bit = 1 << (index % 64);
        let was_here = here.fetch_and(!bit, Ordering::SeqCst) & bit != 0;
        let was_written = self.word(Bank::Written, index / 64).is_some_and(|word| {
            word.load(Ordering::SeqCst) & bit != 0 && word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
        });
        self.note(was_here || was_written, || true);
        if was_here {
            self.header.word(at::EVICTIONS).fetch_add(1, Ordering::SeqCst);
            self.header.word(at::EVICTED).fetch_add(1, Ordering::SeqCst);
            self.punch(std::iter::once(index), punch)?;
        }
        Ok(())
    }

    /// What pages are fetched from.
    pub fn origin(&self) -> Origin {
        self.stands().1
    }

    /// The same, and how often it was moved on.
    pub fn stands(&self) -> (u64, Origin) {
        loop {
            let turn = self.get(at::TURN);
            let [epoch, lsn, pages] = [0, 1, 2].map(|nth| self.get(at::STATES + state_of(turn) + nth));
            if self.get(at::TURN) == turn {
                let position = Position { epoch: Epoch(epoch), lsn: Lsn(lsn) };
                let (volume, page_size, page_count) = (self.volume, self.page_size, PageCount(pages));
                return (turn, Origin { volume, position, page_size, page_count });
            }
        }
    }

    /// How often the state that pages are fetched from was moved on: what was fetched before is not to be installed after.
    pub fn turn(&self) -> u64 {
        self.get(at::TURN)
    }

    #[inline]
    fn count(&self) -> u64 {
        self.get(at::STATES + state_of(self.get(at::TURN)) + 2)
    }

    /// The term in which we last claimed or published the volume, and as of which checkpoint. `None` as long as it was never ours.
    pub fn owned(&self) -> Option<(Epoch, Generation)> {
        (self.get(at::OWNED_EPOCH) != 0)
            .then(|| (Epoch(self.get(at::OWNED_EPOCH)), Generation(self.get(at::OWNED_GENERATION))))
    }

    /// The volume is ours, durably: what is not here is what we have published, or what we began with.
    pub fn own(&self, epoch: Epoch, generation: Generation) -> Result<(), LocalError> {
        self.put(at::OWNED_GENERATION, generation.0);
        self.put(at::OWNED_EPOCH, epoch.0);
        self.sync_now()
    }

    /// Whether nobody else had the database open when this was attached.
    pub fn was_alone(&self) -> bool {
        self.alone
    }

    #[inline]
    fn is(&self, bank: Bank, index: u64) -> Option<bool> {
        Some(self.word(bank, index / 64)?.load(Ordering::SeqCst) >> (index % 64) & 1 == 1)
    }

    /// Whether a page is here. One behind the end of what is fetched from is.
    #[inline]
    pub fn is_here(&self, page: PageNo) -> bool {
        let index = page.index();
        index >= self.count() || self.is(Bank::Here, index).unwrap_or(false)
    }

    /// Whether a page was written here since the state that pages are fetched from. One behind its end was.
    pub fn is_written(&self, page: PageNo) -> bool {
        let index = page.index();
        index >= self.count() || self.is(Bank::Written, index).unwrap_or(true)
    }

    /// Somebody reads a page: it is evicted later than one that nobody reads.
    #[inline]
    pub fn touch(&self, page: PageNo) {
        let index = page.index();
        if let Some(word) = self.word(Bank::Used, index / 64)
            && word.load(Ordering::Relaxed) >> (index % 64) & 1 == 0
        {
            word.fetch_or(1 << (index % 64), Ordering::Relaxed);
        }
    }

    /// Counts evictions. Who asks before it looks whether a page is here, and finds the same after it has read, has read the page.
    #[inline]
    pub fn evictions(&self) -> u64 {
        self.get(at::EVICTIONS)
    }

    /// Waits for the right to install.
    pub fn installing(&self) -> Result<Installing<'_>, LocalError> {
        let here = self.installing.lock().unwrap_or_else(PoisonError::into_inner);
        retry_on_intr(|| flock(&self.lock, FlockOperation::LockExclusive)).map_err(on("lock", &self.path))?;
        let right = Installing { residency: self, _here: here };
        if self.header.word(at::BUSY).swap(1, Ordering::SeqCst) == 1 {
            // Somebody died in the middle of it: whatever he changed counts as changed, for those who read and on the disk.
            self.header.word(at::EVICTIONS).fetch_add(1, Ordering::SeqCst);
            self.header.word(at::NOTED).fetch_add(1, Ordering::SeqCst);
            self.sync_now()?;
        }
        Ok(right)
    }

    fn set(&self, bank: Bank, index: u64) -> bool {
        let Some(word) = self.word(bank, index / 64) else { return false };
        let bit = 1 << (index % 64);
        word.load(Ordering::SeqCst) & bit == 0 && word.fetch_or(bit, Ordering::SeqCst) & bit == 0
    }

    /// A page that is about to be installed: who wrote it last died before it was whole, if anybody did, and that is not to be taken for
    /// what was written.
    pub fn may_install(&self, _: &Installing<'_>, page: PageNo) -> Result<bool, LocalError> {
        let index = page.index();
        if self.is_here(page) {
            return Ok(false);
        }
        if self.is(Bank::Written, index) == Some(true)
            && let Some(word) = self.word(Bank::Written, index / 64)
        {
            word.fetch_and(!(1 << (index % 64)), Ordering::SeqCst);
            self.sync_now()?;
        }
        Ok(true)
    }

    /// A page was installed: it is here.
    pub fn set_here(&self, _: &Installing<'_>, page: PageNo) {
        self.set(Bank::Here, page.index());
    }

    /// A page is about to be written whole.
    pub fn begin_write(&self, right: &Installing<'_>, page: PageNo) -> Result<(), LocalError> {
        let index = page.index();
        self.reach_to(right, index + 1)?;
        self.set(Bank::Fresh, index);
        self.note(self.is(Bank::Written, index) != Some(true), || self.set(Bank::Written, index));
        Ok(())
    }

    /// It was written.
    pub fn end_write(&self, _: &Installing<'_>, page: PageNo) {
        let index = page.index();
        self.note(self.is(Bank::Here, index) != Some(true), || self.set(Bank::Here, index));
    }

    /// Counted for whoever syncs next, this process or another: who writes the page again finds it noted. Once before, for who dies
    /// in between; once after, for who syncs in between.
    fn note(&self, is_news: bool, set: impl FnOnce() -> bool) {
        if is_news {
            let noted = self.header.word(at::NOTED);
            noted.fetch_add(1, Ordering::SeqCst);
            set();
            noted.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Every page from here on is dead, or new (rule S11): nothing of it is fetched any more.
    pub fn cut(&self, right: &Installing<'_>, from: u64) -> Result<(), LocalError> {
        for page in (from..self.words().saturating_mul(64)).map(PageNo::from_index) {
            self.begin_write(right, page)?;
            // One that could not be fetched is nobody's to fetch either way.
            if page.index() < self.count() {
                self.end_write(right, page);
            }
        }
        Ok(())
    }

    /// Makes durable what was written here, by whomever: what one process noted and never synced, another one relies on. Costs nothing where
    /// nothing new was.
    pub fn sync(&self) -> Result<(), LocalError> {
        let noted = self.get(at::NOTED);
        if self.get(at::SYNCED) != noted {
            self.sync_now()?;
            self.header.word(at::SYNCED).fetch_max(noted, Ordering::SeqCst);
        }
        Ok(())
    }

    fn sync_now(&self) -> Result<(), LocalError> {
        self.file.sync_data().map_err(on("sync", &self.path))
    }

    /// A publication begins: what is written from here on may be newer than what it brings. Whoever ends it ([`Residency::settle`]) says
    /// which round it was.
    pub fn begin_round(&self) -> Result<u64, LocalError> {
        let _right = self.installing()?;
        let round = self.get(at::ROUND) + 1;
        self.put(at::ROUND, round);
        self.each(Bank::Fresh, |word| {
            if word.load(Ordering::SeqCst) != 0 {
                word.store(0, Ordering::SeqCst);
            }
        });
        Ok(round)
    }

    /// A state was published that holds everything that was in the file when the round began, and nobody reads an older one from the file
    /// any more: from here on pages are fetched as of it, and what was not written since the round began may be evicted. False, and
    /// nothing done, where another round has begun meanwhile.
    pub fn settle(
        &self,
        round: u64,
        position: Position,
        page_count: PageCount,
        place: Option<Ordinal>,
        faults: &dyn Faults,
    ) -> Result<bool, LocalError> {
        let right = self.installing()?;
        let (turn, before) = self.stands();
        if self.get(at::ROUND) != round || before.position.lsn > position.lsn {
            return Ok(false);
        }
        let reach = |point| faults.reach(point).map_err(|crash| on("settle", &self.path)(std::io::Error::other(crash)));
        // What it grew by came from nowhere but here.
        self.reach_to(&right, page_count.0)?;
        for index in before.page_count.0..page_count.0 {
            // One that is in the WAL alone, or was never written, takes no room that could be given back.
            if self.is(Bank::Written, index) != Some(true) {
                self.set(Bank::Written, index);
                self.set(Bank::Fresh, index);
            }
            self.set(Bank::Here, index);
        }
        reach("settle.grown")?;
        // Into the place that does not count; then that one counts.
        let state = at::STATES + state_of(turn + 1);
        self.put(state, position.epoch.0);
        self.put(state + 1, position.lsn.0);
        self.put(state + 2, page_count.0);
        self.put(state + 3, Ordinal::word(place));
        self.sync_now()?;
        reach("settle.noted")?;
        self.put(at::TURN, turn + 1);
        self.sync_now()?;
        reach("settle.turned")?;
        // Only now: who dies before this line keeps pages that could go.
        for word in 0..self.words() {
            if let (Some(written), Some(fresh)) = (self.word(Bank::Written, word), self.word(Bank::Fresh, word)) {
                let fresh = fresh.load(Ordering::SeqCst);
                if written.load(Ordering::SeqCst) & !fresh != 0 {
                    written.fetch_and(fresh, Ordering::SeqCst);
                }
            }
        }
        self.sync_now()?;
        reach("settle.cleared")?;
        Ok(true)
    }

    /// Evicts so many pages, if there are as many that may go: those that nobody has read since the hand came by last, the first page
    /// never. In one circle of the hand what was read stays; in two it goes too, if it must. `punch` gives bytes of the database's file back.
    /// How many went.
    pub fn evict(
        &self,
        pages: u64,
        circles: u64,
        faults: &dyn Faults,
        punch: &mut dyn FnMut(Range<u64>) -> std::io::Result<()>,
    ) -> Result<u64, LocalError> {
        let _right = self.installing()?;
        let reach = |point| faults.reach(point).map_err(|crash| on("evict", &self.path)(std::io::Error::other(crash)));
        let count = self.count();
        let words = count.div_ceil(64);
        if words == 0 {
            return Ok(0);
        }
        let together = (HOLE_BYTES / self.page_size.bytes()).clamp(1, 64);
        let mut hand = self.get(at::HAND) % words;
        let (mut victims, mut found) = (Vec::new(), 0);
        for _ in 0..circles * words {
            if found >= pages {
                break;
            }
            let at = hand;
            hand = (hand + 1) % words;
            let banks = (self.word(Bank::Here, at), self.word(Bank::Written, at), self.word(Bank::Used, at));
            let (Some(here), Some(written), Some(used)) = banks else { continue };
            let clean =
                here.load(Ordering::SeqCst) & !written.load(Ordering::SeqCst) & below(count, at) & !u64::from(at == 0);
            // Second chance: what was used is spared once.
            let spare = whole(clean & !used.fetch_and(!clean, Ordering::SeqCst), together);
            let spare = first_bits(spare, pages - found, together);
            if spare != 0 {
                // In this order (promise 5): gone, counted, punched. That none of it is written was made durable before it counted as
                // clean: after an unclean end of the machine it is not here either way.
                here.fetch_and(!spare, Ordering::SeqCst);
                found += u64::from(spare.count_ones());
                victims.push((at, spare));
            }
        }
        self.put(at::HAND, hand);
        if victims.is_empty() {
            return Ok(0);
        }
        reach("evict.cleared")?;
        self.header.word(at::EVICTIONS).fetch_add(1, Ordering::SeqCst);
        victims.sort_unstable();
        let indexes = victims.iter().flat_map(|(at, bits)| super::bits(*bits).map(move |bit| at * 64 + bit));
        self.punch(indexes, punch)?;
        self.header.word(at::EVICTED).fetch_add(found, Ordering::SeqCst);
        reach("evict.punched")?;
        Ok(found)
    }

    /// Gives back what pages take that are not here: whoever died while he installed or evicted some has left it.
    pub fn tidy(&self, punch: &mut dyn FnMut(Range<u64>) -> std::io::Result<()>) -> Result<(), LocalError> {
        let _right = self.installing()?;
        let count = self.count();
        // Whoever died may not have come to counting what he took from readers.
        self.header.word(at::EVICTIONS).fetch_add(1, Ordering::SeqCst);
        // The first page holds what tells others that this is no database.
        let gone = (1..count).filter(|index| self.is(Bank::Here, *index) == Some(false));
        self.punch(gone, punch)
    }

    /// Punches pages, ascending, in runs.
    fn punch(
        &self,
        indexes: impl Iterator<Item = u64>,
        punch: &mut dyn FnMut(Range<u64>) -> std::io::Result<()>,
    ) -> Result<(), LocalError> {
        let size = self.page_size.bytes();
        let mut run: Range<u64> = 0..0;
        let mut give = |run: Range<u64>| match run.is_empty() {
            true => Ok(()),
            false => punch(run.start * size..run.end * size).map_err(on("give room back of", &self.path)),
        };
        for index in indexes {
            if index != run.end {
                give(std::mem::replace(&mut run, index..index))?;
            }
            run.end = index + 1;
        }
        give(run)
    }

    fn each(&self, bank: Bank, act: impl Fn(&AtomicU64)) {
        (0..self.words()).filter_map(|word| self.word(bank, word)).for_each(act);
    }

    /// How many pages are what.
    pub fn census(&self) -> Census {
        let count = self.count();
        let mut census = Census { evicted: self.get(at::EVICTED), ..Census::default() };
        for word in 0..count.div_ceil(64) {
            if let (Some(here), Some(written)) = (self.word(Bank::Here, word), self.word(Bank::Written, word)) {
                let here = here.load(Ordering::SeqCst) & below(count, word);
                census.here += u64::from(here.count_ones());
                census.written += u64::from((here & written.load(Ordering::SeqCst)).count_ones());
            }
        }
        census
    }

    /// How many pages of those that were to be fetched are here.
    pub fn count_here(&self) -> u64 {
        self.census().here
    }

    /// Whether all pages are here.
    pub fn is_complete(&self) -> bool {
        self.count_here() >= self.count()
    }

    /// Pages that are not here, ascending, from one on.
    pub fn missing(&self, from: PageNo, max: usize) -> Vec<PageNo> {
        let all = from.index()..self.count();
        all.map(PageNo::from_index).filter(|page| !self.is_here(*page)).take(max).collect()
    }

    /// Pages that were written here, ascending.
    pub fn written_pages(&self) -> Vec<PageNo> {
        (0..self.count()).map(PageNo::from_index).filter(|page| self.is_written(*page)).collect()
    }

    /// Forgets a bitmap whose database is a plain file now, or gone.
    pub fn remove(path: &Path) -> Result<(), LocalError> {
        if !parent(path).exists() {
            return Ok(());
        }
        remove_if_there(path)?;
        remove_if_there(&suffixed(path, ".lock"))?;
        sync_dir(parent(path))
    }
}

/// The bits of a word that stand for pages below a count.
fn below(count: u64, word: u64) -> u64 {
    match count.saturating_sub(word * 64) {
        0 => 0,
        left if left >= 64 => u64::MAX,
        left => (1 << left) - 1,
    }
}

/// The bits that are set in whole groups of so many.
fn whole(bits: u64, together: u64) -> u64 {
    if together <= 1 {
        return bits;
    }
    let group = if together >= 64 { u64::MAX } else { (1 << together) - 1 };
    (0..64).step_by(together as usize).map(|at| group << at).filter(|group| bits & group == *group).sum()
}

/// The first so many bits, in whole groups.
fn first_bits(bits: u64, count: u64, together: u64) -> u64 {
    let mut kept = 0_u64;
    for bit in super::bits(bits) {
        if u64::from(kept.count_ones()) >= count.next_multiple_of(together) {
            break;
        }
        kept |= 1 << bit;
    }
    kept
}

/// Makes the file of a sparse database: of full size, and nothing in it but a beginning that no SQLite takes for a database (rule S5).
/// What an older one left beside it is moved aside (rule S8). Nothing may stand at its place.
pub fn materialise(database: &Path, magic: &[u8; 16], bytes: u64) -> Result<(), LocalError> {
    for aside in crate::output::quarantine(database)? {
        tracing::warn!(aside = %aside.display(), "left by an older database: moved aside");
    }
    // What SQLite makes by opening what is not there holds nothing.
    if std::fs::metadata(database).is_ok_and(|found| found.len() == 0) {
        remove_if_there(database)?;
    }
    let fresh = suffixed(database, ".littoral-new");
    remove_if_there(&fresh)?;
    std::fs::write(&fresh, magic).map_err(on("write", &fresh))?;
    let file = OpenOptions::new().write(true).open(&fresh).map_err(on("open", &fresh))?;
    file.set_len(bytes).map_err(on("make room in", &fresh))?;
    file.sync_all().map_err(on("sync", &fresh))?;
    if !crate::durable::rename_new(&fresh, database)? {
        remove_if_there(&fresh)?;
        return Err(LocalError::WouldOverwrite { path: database.into(), what: "a file that came to be meanwhile" });
    }
    sync_dir(parent(database))
}

/// What a bitmap says, as the words of its file.
pub(super) fn peek(words: &[u64]) -> Option<PeekSparse> {
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    if word(at::MAGIC) != MAGIC {
        return None;
    }
    let state = at::STATES + state_of(word(at::TURN));
    let position = Position { epoch: Epoch(word(state)), lsn: Lsn(word(state + 1)) };
    let pages = PageCount(word(state + 2));
    let block_words = BLOCK_BYTES as usize / WORD;
    let blocks = words.get(HEADER_BYTES as usize / WORD..).unwrap_or_default().chunks_exact(block_words);
    let both = blocks.flat_map(|block| {
        let (here, rest) = block.split_at(BANK_WORDS);
        here.iter().zip(rest)
    });
    let mut found =
        PeekSparse { position, here: 0, written: 0, evicted: word(at::EVICTED), pages, page_size: word(at::PAGE_SIZE) };
    for ((here, written), nth) in both.zip(0..) {
        let here = here & below(pages.0, nth);
        found.here += u64::from(here.count_ones());
        found.written += u64::from((here & written).count_ones());
    }
    Some(found)
}

/// Pages that are here, chunk by chunk.
pub(super) fn peek_chunks(words: &[u64]) -> Vec<u64> {
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    let each = CHUNK_BYTES.checked_div(word(at::PAGE_SIZE)).unwrap_or(0) / 64;
    let each = usize::try_from(each).unwrap_or(0).clamp(1, BANK_WORDS * 1024);
    if word(at::MAGIC) != MAGIC {
        return Vec::new();
    }
    let pages = word(at::STATES + state_of(word(at::TURN)) + 2);
    let block_words = BLOCK_BYTES as usize / WORD;
    let blocks = words.get(HEADER_BYTES as usize / WORD..).unwrap_or_default().chunks_exact(block_words);
    let here: Vec<u64> = blocks.flat_map(|block| block.iter().take(BANK_WORDS)).copied().collect();
    let here: Vec<u64> =
        here.into_iter().zip(0..).map(|(word, nth)| u64::from((word & below(pages, nth)).count_ones())).collect();
    here.chunks(each).map(|words| words.iter().sum()).collect()
}

const fn state_of(turn: u64) -> usize {
    (turn & 1) as usize * at::STATE_WORDS
}

const fn blocks_of(count: PageCount) -> u64 {
    let blocks = count.0.div_ceil(BLOCK_PAGES);
    if blocks == 0 { 1 } else { blocks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_ports::{Crash, NoFaults};
    use std::sync::atomic::AtomicBool;

    fn origin(pages: u64) -> Origin {
        Origin {
            volume: VolumeId([7; 16]),
            position: Position { epoch: Epoch(3), lsn: Lsn(99) },
            page_size: PageSize::new(4096).unwrap(),
            page_count: PageCount(pages),
        }
    }

    fn page(number: u64) -> PageNo {
        PageNo::new(number).unwrap()
    }

    fn wrote(residency: &Residency, number: u64) {
        let right = residency.installing().unwrap();
        residency.begin_write(&right, page(number)).unwrap();
        residency.end_write(&right, page(number));
    }

    fn installed(residency: &Residency, number: u64) {
        let right = residency.installing().unwrap();
        assert!(residency.may_install(&right, page(number)).unwrap());
        residency.set_here(&right, page(number));
    }

    fn at_lsn(lsn: u64) -> Position {
        Position { epoch: Epoch(3), lsn: Lsn(lsn) }
    }

    fn here(residency: &Residency, pages: impl IntoIterator<Item = u64>) -> Vec<u64> {
        pages.into_iter().filter(|number| residency.is_here(page(*number))).collect()
    }

    fn evict(residency: &Residency, pages: u64) -> (u64, Vec<(u64, u64)>) {
        let mut holes = Vec::new();
        let went = residency.evict(pages, 2, &NoFaults, &mut |range| {
            holes.push((range.start, range.end));
            Ok(())
        });
        (went.unwrap(), holes)
    }

    /// Dies at one point.
    #[derive(Debug)]
    struct At(&'static str);

    impl Faults for At {
        fn reach(&self, point: &'static str) -> Result<(), Crash> {
            if point == self.0 { Err(Crash(point)) } else { Ok(()) }
        }
    }

    #[test]
    fn i05_whoever_died_while_he_changed_pages_counts_as_having_taken_some_from_who_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sparse2");
        Residency::create(&path, &origin(100)).unwrap();
        let residency = Residency::attach(&path).unwrap().unwrap();
        drop(residency.installing().unwrap());
        let before = [residency.get(at::EVICTIONS), residency.get(at::NOTED)];
        // A kill runs no destructor.
        residency.put(at::BUSY, 1);
        drop(residency.installing().unwrap());
        let after = [residency.get(at::EVICTIONS), residency.get(at::NOTED)];
        assert_eq!(after, before.map(|count| count + 1));
        drop(residency.installing().unwrap());
        assert_eq!([residency.get(at::EVICTIONS), residency.get(at::NOTED)], after, "only once");
    }

    #[test]
    fn s05_nobody_is_alone_with_a_database_that_somebody_else_has_open() {
        let dir = tempfile::tempdir().unwrap();
        let sidecar = dir.path().join("tracker/a.sparse2");
        assert!(Users::join(&sidecar).unwrap().is_none(), "there is no store");
        std::fs::create_dir(dir.path().join("tracker")).unwrap();
        let join = || Users::join(&sidecar).unwrap().unwrap();
        let one = join();
        assert_eq!(one.alone(|| 7), Some(7));
        let two = join();
        assert_eq!((one.alone(|| 7), two.alone(|| 7)), (None, None));
        // Having tried, each still counts.
        drop(one);
        let three = join();
        assert_eq!((two.alone(|| 7), three.alone(|| 7)), (None, None));
        drop(two);
        assert_eq!(three.alone(|| 7), Some(7));
    }

    #[test]
    fn s04_only_what_the_state_that_is_fetched_from_holds_is_evicted_and_what_nobody_read_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sparse2");
        Residency::create(&path, &origin(100)).unwrap();
        let one = Residency::attach(&path).unwrap().unwrap();
        (1..=40).for_each(|number| installed(&one, number));
        (20..=30).for_each(|number| wrote(&one, number));
        (31..=40).for_each(|number| one.touch(page(number)));
        let before = one.evictions();
        let (went, holes) = evict(&one, 5);
        assert_eq!(
            (went, holes),
            (5, vec![(4096, 6 * 4096)]),
            "the first page never, and nothing that was written or read"
        );
        assert!(one.evictions() > before);
        assert_eq!(evict(&one, 1000).0, 40 - 11 - 1 - 5, "in the end what was read goes too");
        assert_eq!(here(&one, 1..=40), [1].into_iter().chain(20..=30).collect::<Vec<u64>>());
        assert_eq!(evict(&one, 1), (0, Vec::new()));
        assert_eq!(one.census(), Census { here: 12, written: 11, evicted: 28 });
    }

    #[test]
    fn s10_what_was_written_since_a_round_began_stays_and_a_round_that_another_one_overtook_settles_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sparse2");
        Residency::create(&path, &origin(100)).unwrap();
        let (one, two) = (Residency::attach(&path).unwrap().unwrap(), Residency::attach(&path).unwrap().unwrap());
        (5..=9).for_each(|number| wrote(&one, number));
        let overtaken = one.begin_round().unwrap();
        wrote(&two, 9);
        let round = two.begin_round().unwrap();
        wrote(&one, 7);
        wrote(&one, 120);
        assert!(!one.settle(overtaken, at_lsn(100), PageCount(100), None, &NoFaults).unwrap());
        assert_eq!((one.origin(), evict(&one, 100).0), (origin(100), 0));
        let turn = one.turn();
        assert!(two.settle(round, at_lsn(101), PageCount(125), None, &NoFaults).unwrap());
        assert!(!two.settle(round, at_lsn(100), PageCount(125), None, &NoFaults).unwrap(), "back behind a state");
        assert_eq!(one.origin(), Origin { position: at_lsn(101), ..origin(125) });
        assert_ne!(one.turn(), turn, "what was fetched before is not installed after");
        let stays: Vec<u64> = [7].into_iter().chain(101..=125).collect();
        let written: Vec<u64> = one.written_pages().into_iter().map(PageNo::get).collect();
        assert_eq!(written, stays, "what it grew by and nobody wrote to it takes no room");
        assert_eq!(here(&one, 1..=125), [5, 6, 7, 8, 9].into_iter().chain(101..=125).collect::<Vec<u64>>());
        evict(&one, 1000);
        assert_eq!(here(&one, 1..=125), stays);
    }

    #[test]
    fn a_page_that_a_backfill_lets_go_is_fetched_and_known_to_be_so_when_the_wal_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sparse2");
        Residency::create(&path, &origin(100)).unwrap();
        let one = Residency::attach(&path).unwrap().unwrap();
        assert_eq!(one.holds_upto(), None);
        wrote(&one, 5);
        one.sync().unwrap();
        let round = one.begin_round().unwrap();
        let place = Ordinal::of(3, 70);
        assert!(one.settle(round, at_lsn(101), PageCount(100), Some(place), &NoFaults).unwrap());
        assert_eq!(one.holds_upto(), Some(place));
        wrote(&one, 6);
        one.sync().unwrap();
        let mut holes = Vec::new();
        let evictions = one.evictions();
        for number in [5, 6, 7] {
            one.let_go(page(number), &mut |range| {
                holes.push(range);
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(holes, [4 * 4096..5 * 4096, 5 * 4096..6 * 4096], "one that was not here takes no room");
        assert!(here(&one, 5..=7).is_empty() && one.written_pages().is_empty());
        assert!(one.evictions() > evictions, "who reads it just now reads it again");
        assert_ne!(one.get(at::NOTED), one.get(at::SYNCED), "the next sync makes it durable");
    }

    #[test]
    fn s06_dying_anywhere_while_pages_are_settled_and_evicted_loses_no_page_and_invents_none() {
        for point in FAULT_POINTS {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.sparse2");
            Residency::create(&path, &origin(100)).unwrap();
            let one = Residency::attach(&path).unwrap().unwrap();
            (1..=10).for_each(|number| installed(&one, number));
            (5..=20).for_each(|number| wrote(&one, number));
            wrote(&one, 110);
            let round = one.begin_round().unwrap();
            wrote(&one, 20);
            let mut holes: Vec<u64> = Vec::new();
            let settled = one.settle(round, at_lsn(101), PageCount(110), None, &At(point));
            let evicted = match &settled {
                Ok(_) => one.evict(5, 2, &At(point), &mut |range| {
                    holes.extend(range.start / 4096 + 1..=range.end / 4096);
                    Ok(())
                }),
                Err(_) => Ok(0),
            };
            assert!(settled.is_err() != evicted.is_err(), "{point} was never reached");
            drop(one);
            // Killed: what was mapped is still there.
            for boots in [false, true] {
                let again = Residency::attach(&path).unwrap().unwrap();
                let origin = again.origin();
                assert!([at_lsn(99), at_lsn(101)].contains(&origin.position), "{point}: {origin:?}");
                for number in 1..=110 {
                    let (is_here, is_written) = (again.is_here(page(number)), again.is_written(page(number)));
                    // As of the older state nothing that was written since can be fetched.
                    let needed = number == 20 || (origin.position == at_lsn(99) && (5..=20).contains(&number));
                    assert!(!needed || (is_here && is_written), "{point} {boots}: page {number} is lost");
                    assert!(!(is_here && holes.contains(&number)), "{point} {boots}: page {number} is a hole");
                }
                again.put(at::BOOT, 4711);
            }
        }
    }

    #[test]
    fn s03_who_dies_in_the_middle_of_a_write_leaves_a_page_that_is_fetched_and_not_taken_for_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sparse2");
        Residency::create(&path, &origin(100)).unwrap();
        let one = Residency::attach(&path).unwrap().unwrap();
        one.begin_write(&one.installing().unwrap(), page(5)).unwrap();
        assert!(!one.is_here(page(5)), "it is not whole");
        installed(&one, 5);
        assert!(one.is_here(page(5)) && !one.is_written(page(5)));
        one.put(at::BOOT, 4711);
        drop(one);
        assert!(!Residency::attach(&path).unwrap().unwrap().is_here(page(5)), "fetched, and lost with the machine");
    }

    #[test]
    fn pages_smaller_than_what_a_disk_gives_back_go_together_and_what_is_left_over_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sparse2");
        Residency::create(&path, &Origin { page_size: PageSize::new(1024).unwrap(), ..origin(100) }).unwrap();
        let one = Residency::attach(&path).unwrap().unwrap();
        (1..=16).for_each(|number| installed(&one, number));
        wrote(&one, 6);
        let (went, holes) = evict(&one, 5);
        assert_eq!(
            (went, holes),
            (8, vec![(8 * 1024, 16 * 1024)]),
            "whole blocks of the disk, and none with a page that stays"
        );
        let mut left = Vec::new();
        one.tidy(&mut |range| {
            left.push(range);
            Ok(())
        })
        .unwrap();
        let rest: Range<u64> = 8 * 1024..100 * 1024;
        assert_eq!(left, [rest]);
    }

    #[test]
    fn i05_a_reader_never_takes_a_hole_for_a_page_whoever_evicts_and_installs_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sparse2");
        Residency::create(&path, &origin(64)).unwrap();
        // The file, a word for each page: zero is a hole.
        let file: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (file, is_over, path) = (&file, &is_over, &path);
                scope.spawn(move || {
                    let mine = Residency::attach(path).unwrap().unwrap();
                    while !is_over.load(Ordering::SeqCst) {
                        for number in 2..=64_u64 {
                            let right = mine.installing().unwrap();
                            if mine.may_install(&right, page(number)).unwrap() {
                                file[number as usize - 1].store(number, Ordering::SeqCst);
                                mine.set_here(&right, page(number));
                            }
                        }
                        mine.evict(20, 2, &NoFaults, &mut |range| {
                            for index in range.start / 4096..range.end / 4096 {
                                file[index as usize].store(0, Ordering::SeqCst);
                            }
                            Ok(())
                        })
                        .unwrap();
                    }
                });
            }
            let mine = Residency::attach(&path).unwrap().unwrap();
            let (mut read, mut turn, mut wrong) = (0, 0, None);
            // However the machine shares out its time, much is read, and taken away, meanwhile.
            while wrong.is_none() && (read < 50_000 || mine.evictions() < 100) {
                let number = 2 + turn % 63;
                turn += 1;
                let evictions = mine.evictions();
                if mine.is_here(page(number)) {
                    let found = file[number as usize - 1].load(Ordering::SeqCst);
                    if mine.evictions() == evictions {
                        read += 1;
                        wrong = (found != number).then_some((number, found));
                    }
                }
            }
            is_over.store(true, Ordering::SeqCst);
            assert_eq!(wrong, None, "a page, and what was read of it");
        });
    }

    #[test]
    fn what_is_here_is_known_to_everybody_who_has_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = Residency::path_of(dir.path(), Path::new("/x/app.db"));
        assert!(Residency::attach(&path).unwrap().is_none());
        Residency::create(&path, &origin(1000)).unwrap();
        let one = Residency::attach(&path).unwrap().unwrap();
        let two = Residency::attach(&path).unwrap().unwrap();
        assert!(one.was_alone() && !two.was_alone());
        assert_eq!(two.origin(), origin(1000));
        assert!(!two.is_here(page(1)) && two.is_here(page(1001)), "what lies behind is never fetched");
        one.set_here(&one.installing().unwrap(), page(1000));
        wrote(&one, 64);
        assert!(two.is_here(page(1000)) && !two.is_written(page(1000)));
        assert!(two.is_here(page(64)) && two.is_written(page(64)));
        assert_eq!((two.count_here(), two.written_pages()), (2, vec![page(64)]));
        assert_eq!(two.missing(page(63), 3), [page(63), page(65), page(66)]);
        one.cut(&one.installing().unwrap(), 10).unwrap();
        assert_eq!((two.count_here(), two.is_here(page(10)), two.is_here(page(11))), (990, false, true));
        one.sync().unwrap();
        assert_eq!(two.owned(), None);
        one.own(Epoch(4), Generation(9)).unwrap();
        assert_eq!(two.owned(), Some((Epoch(4), Generation(9))));
    }

    #[test]
    fn s06_after_another_boot_only_what_was_written_here_is_here() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sparse2");
        Residency::create(&path, &origin(200)).unwrap();
        let one = Residency::attach(&path).unwrap().unwrap();
        one.set_here(&one.installing().unwrap(), page(5));
        wrote(&one, 6);
        one.put(at::BOOT, 4711);
        let two = Residency::attach(&path).unwrap().unwrap();
        assert!(two.is_here(page(5)), "somebody has it open: the machine did not go down");
        drop((one, two));
        let three = Residency::attach(&path).unwrap().unwrap();
        assert!(!three.is_here(page(5)) && three.is_here(page(6)));
        three.set_here(&three.installing().unwrap(), page(5));
        drop(three);
        assert!(Residency::attach(&path).unwrap().unwrap().is_here(page(5)), "once for each boot");
    }

    #[test]
    fn s03_who_installs_is_alone_in_all_processes_and_threads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sparse2");
        Residency::create(&path, &origin(200)).unwrap();
        let (one, two) = (Residency::attach(&path).unwrap().unwrap(), Residency::attach(&path).unwrap().unwrap());
        let inside = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for residency in [&one, &one, &two, &two] {
                let inside = &inside;
                scope.spawn(move || {
                    for _ in 0..200 {
                        let _right = residency.installing().unwrap();
                        assert!(!inside.swap(true, Ordering::SeqCst), "two at once");
                        std::thread::yield_now();
                        inside.store(false, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn s05_a_sparse_file_is_no_database_and_never_replaces_one() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("app.db");
        std::fs::write(dir.path().join("app.db-wal"), b"old").unwrap();
        materialise(&database, b"Littoral sparse\0", 8192).unwrap();
        let bytes = std::fs::read(&database).unwrap();
        assert_eq!((bytes.len(), &bytes[..16]), (8192, &b"Littoral sparse\0"[..]));
        assert!(!dir.path().join("app.db-wal").exists());
        let kept = std::fs::read_dir(dir.path()).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        assert!(kept.into_iter().any(|bytes| bytes == b"old"), "moved aside, not deleted");
        assert!(matches!(materialise(&database, b"Littoral sparse\0", 1), Err(LocalError::WouldOverwrite { .. })));
        assert_eq!(std::fs::read(&database).unwrap().len(), 8192);
    }

    #[test]
    fn a_bitmap_that_is_damaged_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sparse2");
        Residency::create(&path, &origin(100_000)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in [0, 100, 4096, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(matches!(Residency::attach(&path), Err(LocalError::Corrupt { .. })), "{len}");
        }
        std::fs::write(&path, vec![0x5a; whole.len()]).unwrap();
        assert!(matches!(Residency::attach(&path), Err(LocalError::Corrupt { .. })));
    }
}
