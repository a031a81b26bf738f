//! What all processes that have a database open know of it together: which bytes may differ from the last checkpoint.
//!
//! What this room promises:
//! 1. Every write that is marked before it happens is in the marks of the next checkpoint that begins after it, or of a later one,
//!    until one was published (rule S10): two banks, flipped when a checkpoint begins.
//! 2. A database that somebody changed while nobody here looked (rule S7), that is another file than before, or that was open when the
//!    machine or its last process died, is one of which *nothing is known*. So is everything that could not be kept.
//!    While somebody is here, the place in the WAL and the change counter that the last writer of ours left tell whether anybody else
//!    has written since; who asks compares them with what the database says, and what nobody marked is marked then, or unknown.
//! 3. The file is allocated before it is touched and never shrinks (rule S19): a full disk is an answer, not a SIGBUS.
//! 4. Losing the file costs a comparison of all pages, never a change.
//!
//! Marks are kept in steps of [`UNIT`] bytes of the database file, whatever its page size: what is marked too much is found
//! to be unchanged by the pages' identities.
//!
//! What may never enter: SQLite, what a page holds, when to make a checkpoint.

pub mod bells;
pub mod convert;
pub(crate) mod map;
pub mod peek;
pub mod residency;
mod times;

pub use times::Timed;

use crate::durable::{create_dirs, parent};
use crate::error::{LocalError, on};
use crate::inherited::LockFile;
use littoral_types::{Epoch, GapReason, Generation, VolumeId};
use map::Map;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Bytes of the database that one mark stands for.
pub const UNIT: u64 = 4096;

/// Its format, which is part of the file's name: another version begins with its own, knowing nothing.
const SUFFIX: &str = "track2";
const MAGIC: u64 = u64::from_le_bytes(*b"LITTRCK2");
/// Words, and then the times of commits.
const HEADER_BYTES: u64 = 4096 + times::ENTRIES * (times::ENTRY_WORDS * WORD) as u64;
pub(crate) const WORD: usize = size_of::<u64>();
/// Marks of one block: a page of the file for each bank.
const BLOCK_UNITS: u64 = 4096 * 8;
const BANK_WORDS: usize = 4096 / WORD;
const BLOCK_BYTES: u64 = 2 * 4096;
/// Blocks are allocated so many at once: a gigabyte of database.
const BLOCKS_STEP: u64 = 8;
/// Blocks mapped at once: 128 GiB of database.
const SEGMENT_BLOCKS: u64 = 1024;
/// 32 TiB of database.
const SEGMENTS: usize = 256;
/// More marks than this are answered as "nothing is known": reading all pages in order is as quick.
const MARKS_MAX: u64 = 1 << 22;
const FENCE_TEXT: usize = 1024;
/// Why nothing is known.
const UNKNOWN: u64 = 1;
const FOREIGN: u64 = 2;

/// Where the header's words lie.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const ACTIVE: usize = 1;
    /// One for each bank: 1 where nothing is known, 2 where somebody wrote past us.
    pub(super) const UNKNOWN: usize = 2;
    /// One for each bank, inverted, so that a new file says "nowhere".
    pub(super) const CUT: usize = 4;
    pub(super) const COMMITS: usize = 6;
    pub(super) const BLOCKS: usize = 7;
    /// Whether what follows was written by whoever left last.
    pub(super) const DETACHED: usize = 8;
    pub(super) const TRACE: usize = 9;
    pub(super) const BOOT: usize = 14;
    pub(super) const BASE_SET: usize = 16;
    pub(super) const BASE_VOLUME: usize = 17;
    pub(super) const BASE_GENERATION: usize = 19;
    pub(super) const BASE_COMMITS: usize = 20;
    pub(super) const BASE_WAL: usize = 21;
    /// The epoch that fenced us, zero for none; then the text's length, then the text.
    pub(super) const FENCED: usize = 24;
    pub(super) const FENCE_LEN: usize = 25;
    pub(super) const FENCE_TEXT: usize = 26;
    /// How often whoever was elected to ship has shown that it is alive, and when it did last, milliseconds since 1970.
    pub(super) const BEATS: usize = 154;
    pub(super) const BEAT_MS: usize = 155;
    /// Where in the WAL everything is marked: salts and frame.
    pub(super) const WITNESSED: usize = 160;
    /// How often marks were taken.
    pub(super) const DRAINS: usize = 162;
    /// The change counter that the last writer of ours left, and a bit that says that there is one.
    pub(super) const COUNTER: usize = 163;
    /// Device and inode of the file that those who are here have open.
    pub(super) const FILE: usize = 164;
    /// Commits that were shipped since.
    pub(super) const SHIPPED: usize = 166;
    /// Where the WAL before this one ended: salts and frame.
    pub(super) const PREVIOUS: usize = 167;
    /// Twice how many WALs were witnessed: which one a place is of, in an order. Odd while one follows another.
    pub(super) const WALS: usize = 169;
    /// Up to which place commits are in the object store, as [`super::Tracker::ordered`] spells it.
    pub(super) const DURABLE: usize = 170;
    /// The position of that: epoch and LSN.
    pub(super) const POSITION: usize = 171;
    /// Since when commits wait to be shipped, milliseconds since 1970; zero where none does.
    pub(super) const WAITING_MS: usize = 173;
    /// Whether the shipper sleeps until the next commit, and what it sleeps on.
    pub(super) const SLEEPS: usize = 174;
    pub(super) const BELL: usize = 175;
    /// How often somebody asked for commits to be shipped now, and how many of those were served.
    pub(super) const ASKED: usize = 176;
    pub(super) const SERVED: usize = 177;
    /// Those who asked sleep on it.
    pub(super) const ANSWER: usize = 178;
    /// When shipping failed last, milliseconds since 1970; zero once it has succeeded since.
    pub(super) const FAILED_MS: usize = 179;
    /// Up to which place the WAL was copied; and where it stood when it was first kept from starting over.
    pub(super) const SEALED: usize = 180;
    pub(super) const DECLINED: usize = 181;
    /// Whether somebody was asked to copy what is not, and what he sleeps on.
    pub(super) const SEALING: usize = 182;
    pub(super) const SEAL_BELL: usize = 183;
    /// How many times of commits are noted, odd while they are moved, and how far apart they are at least, in milliseconds.
    pub(super) const TIMES: usize = 184;
    pub(super) const TIMES_TURN: usize = 185;
    pub(super) const TIMES_STEP: usize = 186;
    /// The newest commit without a WAL: the change counter that it left, its time, and what tells that they belong together.
    pub(super) const PLAIN: usize = 187;
    /// Whether frames were let go that nobody had shipped or copied, by [`super::Dropped`]; and since when, milliseconds since 1970.
    pub(super) const DROPPED: usize = 190;
    /// The times: place, checksum, time, and what tells that they belong together.
    pub(super) const ENTRIES: usize = 512;
}

/// What tells whether a file was changed: all that the file system keeps of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    words: [u64; 5],
}

impl Trace {
    /// Looks at a file without opening it (rule S9). `None` when it cannot be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        let (seconds, nanos) = (found.ctime().cast_unsigned(), found.ctime_nsec().cast_unsigned());
        Some(Self { words: [found.dev(), found.ino(), found.size(), seconds, nanos] })
    }

    /// Whether both are of one file, changed or not.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.file() == other.file()
    }

    fn file(&self) -> [u64; 2] {
        [self.words[0], self.words[1]]
    }
}

/// Why commits that wait cannot travel one by one any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Dropped {
    /// There was no room for what waited.
    Room = 1,
    /// Nobody copied them in time.
    Late = 2,
}

impl Dropped {
    /// As the volume's history says it.
    pub const fn reason(self) -> GapReason {
        match self {
            Dropped::Room => GapReason::Room,
            Dropped::Late => GapReason::Lost,
        }
    }
}

/// The state that marks are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    /// Whose.
    pub volume: VolumeId,
    /// As of which checkpoint.
    pub generation: Generation,
    /// Where in the WAL it ended: what comes after that was not in it.
    pub wal: WalPlace,
}

/// A place in a WAL. All zeros where there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalPlace {
    /// The header's salts, which change when a WAL starts over.
    pub salts: u64,
    /// The last frame.
    pub frame: u64,
}

/// What may differ, as of the moment a checkpoint began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Where they are counted from; `None` when nothing is known.
    pub basis: Option<Basis>,
    /// The database was cut to this many bytes at least once: whatever lies behind is new.
    pub cut: Option<u64>,
    /// Places that were written, in units, ascending.
    pub units: Vec<u64>,
    /// Commits that were counted up to now.
    pub commits: u64,
    /// And those of them that are in the object store.
    pub commits_before: u64,
}

/// The file, attached to.
#[derive(Debug)]
pub struct Tracker {
    path: PathBuf,
    file: File,
    /// Held shared by whoever is attached.
    lock: LockFile,
    header: Map,
    segments: Box<[OnceLock<Map>]>,
    growing: Mutex<()>,
    left: AtomicBool,
}

impl Tracker {
    /// Where a database's tracker lies in a store's directory: a name of its own for every path.
    pub fn path_of(store_root: &Path, database: &Path) -> PathBuf {
        beside(store_root, database, SUFFIX)
    }

    /// Where the lock lies of who ships what is committed to a database.
    pub fn shipper_of(store_root: &Path, database: &Path) -> PathBuf {
        beside(store_root, database, "ship")
    }

    /// Where the lock lies of who extends the log of a database's volume.
    pub fn publisher_of(store_root: &Path, database: &Path) -> PathBuf {
        beside(store_root, database, "worker.lock")
    }

    /// Where whoever ships says why it cannot, for the other processes: a word to people, which nothing is decided by.
    pub fn trouble_of(store_root: &Path, database: &Path) -> PathBuf {
        beside(store_root, database, "trouble")
    }

    /// Where the lock lies of who ships in the place of one that was elected and is silent.
    pub fn stand_in_of(store_root: &Path, database: &Path) -> PathBuf {
        beside(store_root, database, "stand")
    }

    /// Where the locks lie of who holds which of a database's named sessions.
    pub fn sessions_of(store_root: &Path, database: &Path) -> PathBuf {
        beside(store_root, database, "sessions")
    }

    /// Whether anybody here has the database of this tracker open.
    pub fn is_attached(path: &Path) -> Result<bool, LocalError> {
        let file = match LockFile::open_to_read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(on("open", path)(error)),
        };
        // Whoever is attached holds a lock, which dies with its owner.
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(on("lock", path)(error)),
        }
    }

    /// Attaches to a database's tracker, or begins one that knows nothing. `trace` is what the file says of itself now.
    pub fn attach(path: &Path, trace: Option<Trace>) -> Result<Self, LocalError> {
        create_dirs(parent(path))?;
        let how = OpenOptions::new().read(true).write(true).create(true).truncate(false).to_owned();
        let (lock, file) = LockFile::open_both(path, &how).map_err(on("open", path))?;
        allocate(&file, HEADER_BYTES).map_err(on("allocate", path))?;
        let header = Map::new(&file, 0, HEADER_BYTES as usize).map_err(on("map", path))?;
        let segments = (0..SEGMENTS).map(|_| OnceLock::new()).collect();
        let growing = Mutex::new(());
        let tracker =
            Self { path: path.to_owned(), file, lock, header, segments, growing, left: AtomicBool::new(false) };
        tracker.arrive(trace)?;
        Ok(tracker)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn arrive(&self, trace: Option<Trace>) -> Result<(), LocalError> {
        let alone = match flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(rustix::io::Errno::WOULDBLOCK) => {
                flock(&self.lock, FlockOperation::LockShared).map_err(on("lock", &self.path))?;
                false
            }
            Err(error) => return Err(on("lock", &self.path)(error)),
        };
        if alone && !self.is_whole()? {
            // New, or cut off, or never finished. Old marks that show again when it grows are too many, never too few.
            (0..HEADER_BYTES as usize / WORD).for_each(|at| self.set(at, 0));
            self.mark_unknown();
            self.set(at::MAGIC, MAGIC);
        }
        let left_in_order = self.header.word(at::DETACHED).swap(0, Ordering::SeqCst) == 1;
        // Nobody was here and nobody had said goodbye: what happened since is not known. Who finds others here joins them.
        let is_as_left = self.left_at() == trace.map(|trace| (trace, boot()));
        let known = if left_in_order { is_as_left } else { !alone };
        // Others may be here with a file that has lost its name since, and know nothing of the one that has it now.
        let file = trace.map_or([0; 2], |trace| trace.file());
        let is_theirs = [self.get(at::FILE), self.get(at::FILE + 1)] == file;
        if !known || !(alone || is_theirs) {
            // Whoever left last wrote down what he left, in this boot of the machine.
            let was_left = left_in_order && self.left_at().is_some_and(|(_, then)| then == boot());
            if was_left || !alone { self.mark_foreign() } else { self.mark_unknown() }
        }
        file.into_iter().enumerate().for_each(|(nth, word)| self.set(at::FILE + nth, word));
        if alone {
            flock(&self.lock, FlockOperation::LockShared).map_err(on("lock", &self.path))?;
        }
        Ok(())
    }

    /// Whether the file is as long as it says, so that whatever is touched is there.
    fn is_whole(&self) -> Result<bool, LocalError> {
        let len = self.file.metadata().map_err(on("look at", &self.path))?.len();
        let blocks = self.get(at::BLOCKS).min(SEGMENTS as u64 * SEGMENT_BLOCKS);
        Ok(self.get(at::MAGIC) == MAGIC && len >= HEADER_BYTES + blocks * BLOCK_BYTES)
    }

    fn left_at(&self) -> Option<(Trace, Option<[u64; 2]>)> {
        let words = std::array::from_fn(|nth| self.get(at::TRACE + nth));
        let boot = [self.get(at::BOOT), self.get(at::BOOT + 1)];
        Some((Trace { words }, Some(boot)))
    }

    /// Says goodbye, after the last connection of this process was closed. Whoever is the last one writes down what the file
    /// looked like after all that is marked, so that a change behind our back is noticed. A forked child must not call it: the lock
    /// is its parent's.
    pub fn leave(&self, trace: Option<Trace>) {
        if self.left.swap(true, Ordering::SeqCst) {
            return;
        }
        if flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok()
            && let (Some(trace), Some(boot)) = (trace, boot())
        {
            self.set_trace(&trace);
            self.set(at::BOOT, boot[0]);
            self.set(at::BOOT + 1, boot[1]);
            self.set(at::DETACHED, 1);
        }
        // The lock may have been lost in trying; either way it goes now.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }

    /// A record was published in which no page is another, by who has not the database open: what is known of its pages as of the generation
    /// before is known as of this one.
    pub fn moves_on(path: &Path, volume: VolumeId, to: Generation) {
        let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return };
        if file.metadata().is_ok_and(|found| found.len() >= HEADER_BYTES)
            && let Ok(header) = Map::new(&file, 0, HEADER_BYTES as usize)
            && header.word(at::MAGIC).load(Ordering::SeqCst) == MAGIC
            && let Some(from) = to.0.checked_sub(1)
        {
            let mut id = [0; 16];
            for (half, at) in id.chunks_exact_mut(WORD).zip(at::BASE_VOLUME..) {
                half.copy_from_slice(&header.word(at).load(Ordering::SeqCst).to_le_bytes());
            }
            if VolumeId(id) == volume {
                let word = header.word(at::BASE_GENERATION);
                let _ = word.compare_exchange(from, to.0, Ordering::SeqCst, Ordering::SeqCst);
            }
        }
    }

    /// A file looks otherwise than it was left, and only we can have done that: whoever comes does not take it for somebody else's doing.
    /// Who has it now has found out for himself.
    pub fn explain(path: &Path, trace: Option<Trace>) {
        let both = LockFile::open_both(path, OpenOptions::new().read(true).write(true));
        let (Some(trace), Ok((lock, file))) = (trace, both) else { return };
        let is_large = file.metadata().is_ok_and(|found| found.len() >= HEADER_BYTES);
        if !is_large || flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        let Ok(header) = Map::new(&file, 0, HEADER_BYTES as usize) else { return };
        let word = |nth: usize| header.word(nth);
        let is_left = word(at::MAGIC).load(Ordering::SeqCst) == MAGIC && word(at::DETACHED).load(Ordering::SeqCst) == 1;
        let is_same =
            trace.file().into_iter().zip(at::TRACE..).all(|(kept, nth)| word(nth).load(Ordering::SeqCst) == kept);
        if is_left && is_same {
            trace.words.into_iter().zip(at::TRACE..).for_each(|(new, nth)| word(nth).store(new, Ordering::SeqCst));
        }
    }

    fn set_trace(&self, trace: &Trace) {
        trace.words.into_iter().enumerate().for_each(|(nth, word)| self.set(at::TRACE + nth, word));
    }

    /// The place up to which everything in the WAL is marked. Zeros: there is no WAL, and all that was in one is marked.
    pub fn witnessed(&self) -> WalPlace {
        WalPlace { salts: self.get(at::WITNESSED), frame: self.get(at::WITNESSED + 1) }
    }

    /// Where the WAL ended that was there before this one, as far as writers of ours saw it: this one goes on from there. Zeros where
    /// nobody can say.
    pub fn previous(&self) -> WalPlace {
        WalPlace { salts: self.get(at::PREVIOUS), frame: self.get(at::PREVIOUS + 1) }
    }

    /// What comes next follows from no WAL: something was committed without one.
    pub fn forget_previous(&self) {
        self.set(at::PREVIOUS, 0);
    }

    /// A WAL ended there, however it ended: whatever came before it is not the one before any more.
    fn ends(&self, place: WalPlace) {
        if place.salts == 0 {
            return;
        }
        // In between it is nobody's end.
        self.set(at::PREVIOUS, 0);
        self.set(at::PREVIOUS + 1, place.frame);
        self.set(at::PREVIOUS, place.salts);
    }

    /// Everything up to there is marked. To be called by who holds the WAL's write lock, or found out that nobody of us does.
    #[inline]
    pub fn witness(&self, place: WalPlace) {
        let before = self.witnessed();
        let went_back = before.salts == place.salts && place.frame < before.frame;
        if before.salts != place.salts || went_back {
            match went_back {
                // Somebody put an older one in its place: nothing that was known of it holds.
                true => {
                    self.forget_previous();
                    self.forget_sealed();
                }
                // Whoever comes here has witnessed the one before to its end, or does not know what it was, and says so.
                false => self.ends(before),
            }
            // In between, less is known than is true.
            let turn = self.get(at::WALS) | 1;
            self.set(at::WALS, turn);
            self.set(at::WITNESSED + 1, 0);
            self.set(at::WITNESSED, place.salts);
            self.set(at::WALS, turn + 1);
        }
        self.set(at::WITNESSED + 1, place.frame);
    }

    /// The WAL was taken away, and everything in it is marked and in the file. `trace` is what the file looks like.
    pub fn witness_no_wal(&self, trace: Option<Trace>) {
        if let Some(trace) = trace {
            self.set_trace(&trace);
            self.witness(WalPlace::default());
        }
    }

    /// Somebody begins a WAL: has the file changed since there was none?
    pub fn has_changed_without_a_wal(&self, trace: Option<Trace>) -> bool {
        let kept = std::array::from_fn(|nth| self.get(at::TRACE + nth));
        self.witnessed() == WalPlace::default() && trace != Some(Trace { words: kept })
    }

    /// How often marks were taken by a checkpoint. Who finds another number after a commit than before it marks its pages again:
    /// they may have been taken before they were committed.
    #[inline]
    pub fn drains(&self) -> u64 {
        self.get(at::DRAINS)
    }

    /// The change counter of the database's first page, as the last writer of ours left it.
    pub fn counter(&self) -> Option<u32> {
        let word = self.get(at::COUNTER);
        (word >> 32 == 1).then_some(word as u32)
    }

    /// It is this one now.
    pub fn set_counter(&self, counter: u32) {
        self.set(at::COUNTER, 1 << 32 | u64::from(counter));
    }

    fn get(&self, at: usize) -> u64 {
        self.header.word(at).load(Ordering::SeqCst)
    }

    fn set(&self, at: usize, value: u64) {
        self.header.word(at).store(value, Ordering::SeqCst);
    }

    /// Does something to the bank that is in use. A flip that came between is noticed, and it is done to the other one too.
    #[inline]
    fn on_active(&self, act: impl Fn(usize)) {
        loop {
            let bank = self.bank();
            act(bank);
            if self.bank() == bank {
                return;
            }
        }
    }

    #[inline]
    fn bank(&self) -> usize {
        (self.get(at::ACTIVE) & 1) as usize
    }

    /// Marks bytes of the database file that are about to be written.
    #[inline]
    pub fn mark(&self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        let last = offset.saturating_add(len - 1) / UNIT;
        for unit in offset / UNIT..=last {
            self.mark_unit(unit);
        }
    }

    #[inline]
    fn mark_unit(&self, unit: u64) {
        let Some((map, start)) = self.block(unit / BLOCK_UNITS) else { return self.mark_unknown() };
        let (word, bit) = ((unit % BLOCK_UNITS / 64) as usize, 1 << (unit % 64));
        self.on_active(|bank| {
            let word = map.word(start + bank * BANK_WORDS + word);
            if word.load(Ordering::SeqCst) & bit == 0 {
                word.fetch_or(bit, Ordering::SeqCst);
            }
        });
    }

    /// The database is about to be cut to so many bytes: what grows there again is new, written or not (rule S11).
    pub fn mark_cut(&self, size: u64) {
        self.on_active(|bank| {
            self.header.word(at::CUT + bank).fetch_max(!size, Ordering::SeqCst);
        });
    }

    /// From here on nothing is known: the next checkpoint compares all pages.
    pub fn mark_unknown(&self) {
        self.on_active(|bank| {
            self.header.word(at::UNKNOWN + bank).fetch_max(UNKNOWN, Ordering::SeqCst);
        });
    }

    /// The same, because somebody wrote past us (rule S7).
    pub fn mark_foreign(&self) {
        self.on_active(|bank| self.set(at::UNKNOWN + bank, FOREIGN));
    }

    /// Whether nothing is known because somebody wrote past us.
    pub fn is_foreign(&self) -> bool {
        self.get(at::UNKNOWN).max(self.get(at::UNKNOWN + 1)) >= FOREIGN
    }

    /// Commits that wait cannot travel one by one any more: a checkpoint brings them (rule P9).
    pub fn tell_dropped(&self, why: Dropped) {
        if self.get(at::DROPPED) == 0 && self.commits_since() > 0 {
            self.set(at::DROPPED + 1, self.get(at::WAITING_MS));
            self.set(at::DROPPED, why as u64);
        }
    }

    /// Whether that is so, and since when the first of them waits, milliseconds since 1970.
    pub fn dropped(&self) -> Option<(Dropped, u64)> {
        dropped(|at| self.get(at))
    }

    /// Counts a commit. For people, and for the distance of LSNs; no page depends on it.
    #[inline]
    pub fn count_commit(&self) -> u64 {
        let before = self.header.word(at::COMMITS).fetch_add(1, Ordering::SeqCst);
        self.committed_now();
        before + 1
    }

    /// How many of those that were counted are in the object store.
    pub fn published_commits(&self) -> u64 {
        self.get(at::BASE_COMMITS).max(self.get(at::SHIPPED))
    }

    /// Commits that were counted so far.
    pub fn commits(&self) -> u64 {
        self.get(at::COMMITS)
    }

    /// So many of them are in the object store, with the last checkpoint or since.
    pub fn shipped(&self, commits: u64, is_all: bool) {
        self.header.word(at::SHIPPED).fetch_max(commits, Ordering::SeqCst);
        if is_all {
            // All of it followed from what was published: nothing was let go after all.
            self.set(at::DROPPED, 0);
        }
    }

    /// Commits that were counted and are not in the object store. A hint.
    pub fn commits_since(&self) -> u64 {
        commits_left(|at| self.get(at))
    }

    /// Where marks are counted from; `None` when nothing is known.
    pub fn basis(&self) -> Option<Basis> {
        let unknown = self.get(at::UNKNOWN) | self.get(at::UNKNOWN + 1);
        (unknown == 0 && self.get(at::BASE_SET) == 1).then(|| self.basis_word())
    }

    fn basis_word(&self) -> Basis {
        let mut id = [0; 16];
        for (half, at) in id.chunks_exact_mut(WORD).zip(at::BASE_VOLUME..) {
            half.copy_from_slice(&self.get(at).to_le_bytes());
        }
        let wal = WalPlace { salts: self.get(at::BASE_WAL), frame: self.get(at::BASE_WAL + 1) };
        Basis { volume: VolumeId(id), generation: Generation(self.get(at::BASE_GENERATION)), wal }
    }

    /// How many bytes of the database are marked now, roughly.
    pub fn marked_bytes(&self) -> u64 {
        let words = self.words().map(|(_, word)| (word(0) | word(1)).count_ones());
        words.map(u64::from).sum::<u64>() * UNIT
    }

    /// Every word of marks: where it begins, and what each bank holds.
    fn words(&self) -> impl Iterator<Item = (u64, impl Fn(usize) -> u64)> {
        (0..self.get(at::BLOCKS)).filter_map(|block| Some((block, self.block(block)?))).flat_map(
            |(block, (map, start))| {
                (0..BANK_WORDS).map(move |word| {
                    let read = move |bank| map.word(start + bank * BANK_WORDS + word).load(Ordering::SeqCst);
                    (block * BLOCK_UNITS + word as u64 * 64, read)
                })
            },
        )
    }

    /// A checkpoint begins: the marks so far are set aside, and new ones go to the other bank. One checkpoint at a time; the volume's
    /// lock sees to it. What an interrupted one had set aside is taken up again.
    pub fn begin(&self) -> Marks {
        self.header.word(at::DRAINS).fetch_add(1, Ordering::SeqCst);
        self.put_back();
        let old = self.bank();
        self.set(at::ACTIVE, 1 - old as u64);
        let commits = self.get(at::COMMITS);
        let marked: u64 = self.words().map(|(_, word)| u64::from(word(old).count_ones())).sum();
        let known = self.get(at::UNKNOWN + old) == 0 && self.get(at::BASE_SET) == 1 && marked <= MARKS_MAX;
        let units = match known {
            true => self.words().flat_map(|(first, word)| bits(word(old)).map(move |bit| first + bit)).collect(),
            false => Vec::new(),
        };
        Marks {
            basis: known.then(|| self.basis_word()),
            cut: Some(!self.get(at::CUT + old)).filter(|cut| *cut != u64::MAX),
            units,
            commits,
            commits_before: commits.saturating_sub(self.commits_since()),
        }
    }

    /// The same for what was marked since the last [`Tracker::begin`] or [`Tracker::drain`]: set aside together with what was
    /// before, so that it counts again unless the checkpoint that runs is published.
    pub fn drain(&self) -> Marks {
        self.header.word(at::DRAINS).fetch_add(1, Ordering::SeqCst);
        let (new, old) = (self.bank(), 1 - self.bank());
        let unknown = self.get(at::UNKNOWN + new);
        self.header.word(at::UNKNOWN + old).fetch_max(unknown, Ordering::SeqCst);
        let _ = self.header.word(at::UNKNOWN + new).compare_exchange(unknown, 0, Ordering::SeqCst, Ordering::SeqCst);
        let cut = self.get(at::CUT + new);
        self.header.word(at::CUT + old).fetch_max(cut, Ordering::SeqCst);
        // Cleared only as far as it was seen, and after it was set aside: what is marked meanwhile stays.
        let _ = self.header.word(at::CUT + new).compare_exchange(cut, 0, Ordering::SeqCst, Ordering::SeqCst);
        let commits = self.get(at::COMMITS);
        let units = RefCell::new(Vec::new());
        self.each_word(|map, start, word, first| {
            let fresh = map.word(start + new * BANK_WORDS + word);
            let seen = fresh.load(Ordering::SeqCst);
            if seen != 0 {
                map.word(start + old * BANK_WORDS + word).fetch_or(seen, Ordering::SeqCst);
                fresh.fetch_and(!seen, Ordering::SeqCst);
                units.borrow_mut().extend(bits(seen).map(|bit| first + bit));
            }
        });
        Marks {
            basis: (unknown == 0).then(|| self.basis_word()),
            cut: Some(!cut).filter(|cut| *cut != u64::MAX),
            units: units.into_inner(),
            commits,
            commits_before: commits.saturating_sub(self.commits_since()),
        }
    }

    /// What was set aside is in the object store, as of this state.
    pub fn published(&self, basis: Basis, commits: u64) {
        // Nothing is known while the two halves of it disagree: a kill in between costs a comparison.
        self.set(at::BASE_SET, 0);
        let old = 1 - self.bank();
        self.clear(old);
        for (half, at) in basis.volume.0.chunks_exact(WORD).zip(at::BASE_VOLUME..) {
            self.set(at, half.try_into().map_or(0, u64::from_le_bytes));
        }
        self.set(at::BASE_GENERATION, basis.generation.0);
        self.set(at::BASE_COMMITS, commits);
        self.set(at::BASE_WAL, basis.wal.salts);
        self.set(at::BASE_WAL + 1, basis.wal.frame);
        if self.commits_since() == 0 {
            self.set(at::DROPPED, 0);
        }
        self.set(at::BASE_SET, 1);
    }

    /// Nothing was published: what was set aside counts again.
    pub fn put_back(&self) {
        let (new, old) = (self.bank(), 1 - self.bank());
        self.header.word(at::UNKNOWN + new).fetch_max(self.get(at::UNKNOWN + old), Ordering::SeqCst);
        self.header.word(at::CUT + new).fetch_max(self.get(at::CUT + old), Ordering::SeqCst);
        self.each_word(|map, start, word, _| {
            let aside = map.word(start + old * BANK_WORDS + word).load(Ordering::SeqCst);
            if aside != 0 {
                map.word(start + new * BANK_WORDS + word).fetch_or(aside, Ordering::SeqCst);
            }
        });
        self.clear(old);
    }

    fn clear(&self, bank: usize) {
        self.each_word(|map, start, word, _| {
            let word = map.word(start + bank * BANK_WORDS + word);
            if word.load(Ordering::SeqCst) != 0 {
                word.store(0, Ordering::SeqCst);
            }
        });
        self.set(at::CUT + bank, 0);
        self.set(at::UNKNOWN + bank, 0);
    }

    /// Every word of marks: its block's mapping, where the block begins in it, which word, and the first unit that it stands for.
    fn each_word(&self, act: impl Fn(&Map, usize, usize, u64)) {
        for block in 0..self.get(at::BLOCKS) {
            let Some((map, start)) = self.block(block) else { continue };
            (0..BANK_WORDS).for_each(|word| act(map, start, word, block * BLOCK_UNITS + word as u64 * 64));
        }
    }

    /// A block's mapping, and the word in it where the block begins. `None` when there is no room for it.
    #[inline]
    fn block(&self, block: u64) -> Option<(&Map, usize)> {
        if block >= self.get(at::BLOCKS) && !self.grow(block) {
            return None;
        }
        let segment = block / SEGMENT_BLOCKS;
        let map = match self.segments.get(usize::try_from(segment).ok()?)?.get() {
            Some(map) => map,
            None => self.segment(segment)?,
        };
        Some((map, (block % SEGMENT_BLOCKS * BLOCK_BYTES) as usize / WORD))
    }

    #[cold]
    fn segment(&self, segment: u64) -> Option<&Map> {
        let slot = self.segments.get(usize::try_from(segment).ok()?)?;
        let bytes = SEGMENT_BLOCKS * BLOCK_BYTES;
        match Map::new(&self.file, HEADER_BYTES + segment * bytes, bytes as usize) {
            Ok(map) => Some(slot.get_or_init(|| map)),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot be mapped: the next checkpoint compares all pages");
                None
            }
        }
    }

    #[cold]
    fn grow(&self, block: u64) -> bool {
        let _one = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if block >= SEGMENTS as u64 * SEGMENT_BLOCKS {
            return false;
        }
        let blocks = (block + 1).next_multiple_of(BLOCKS_STEP);
        match allocate(&self.file, HEADER_BYTES + blocks * BLOCK_BYTES) {
            Ok(()) => {
                self.header.word(at::BLOCKS).fetch_max(blocks, Ordering::SeqCst);
                true
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "no room: the next checkpoint compares all pages");
                false
            }
        }
    }

    /// Another writer's term began (rule P4): every process that has the database open is to know.
    pub fn fence(&self, epoch: Epoch, owner: &str) {
        let mut end = owner.len().min(FENCE_TEXT);
        while !owner.is_char_boundary(end) {
            end -= 1;
        }
        let text = owner.as_bytes().get(..end).unwrap_or_default();
        for (nth, part) in text.chunks(WORD).enumerate() {
            let mut word = [0; WORD];
            word[..part.len()].copy_from_slice(part);
            self.set(at::FENCE_TEXT + nth, u64::from_le_bytes(word));
        }
        self.set(at::FENCE_LEN, text.len() as u64);
        self.set(at::FENCED, epoch.0);
    }

    /// The term is ours again.
    pub fn unfence(&self) {
        self.set(at::FENCED, 0);
    }

    /// Whether another writer's term began.
    #[inline]
    pub fn is_fenced(&self) -> bool {
        self.get(at::FENCED) != 0
    }

    /// Whose term began.
    pub fn fenced(&self) -> Option<(Epoch, String)> {
        let epoch = self.get(at::FENCED);
        if epoch == 0 {
            return None;
        }
        Some((Epoch(epoch), fence_text(|at| self.get(at))))
    }
}

/// Whether commits that wait cannot travel one by one, out of the header's words.
fn dropped(word: impl Fn(usize) -> u64) -> Option<(Dropped, u64)> {
    let why = match word(at::DROPPED) {
        0 => return None,
        1 => Dropped::Room,
        _ => Dropped::Late,
    };
    Some((why, word(at::DROPPED + 1)))
}

/// Commits that are not in the object store, out of the header's words.
fn commits_left(word: impl Fn(usize) -> u64) -> u64 {
    word(at::COMMITS).saturating_sub(word(at::BASE_COMMITS).max(word(at::SHIPPED)))
}

/// Who fenced us, out of the header's words.
fn fence_text(word: impl Fn(usize) -> u64) -> String {
    let len = usize::try_from(word(at::FENCE_LEN)).unwrap_or(0).min(FENCE_TEXT);
    let bytes: Vec<u8> = (0..len.div_ceil(WORD)).flat_map(|nth| word(at::FENCE_TEXT + nth).to_le_bytes()).collect();
    bytes.get(..len).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
}

fn bits(word: u64) -> impl Iterator<Item = u64> {
    (0..64).filter(move |bit| word >> bit & 1 == 1)
}

/// A file of a database's own in the tracker's folder.
fn beside(store_root: &Path, database: &Path, suffix: &str) -> PathBuf {
    let hash = littoral_format::hash::blob(database.as_os_str().as_encoded_bytes()).to_string();
    let short = hash.get(..16).unwrap_or_default();
    store_root.join("tracker").join(format!("{short}.{suffix}"))
}

/// Room for a file's first bytes, for good.
pub(crate) fn allocate(file: &File, bytes: u64) -> std::io::Result<()> {
    Ok(fallocate(file, FallocateFlags::empty(), 0, bytes)?)
}

/// Which boot of the machine this is; memory that was mapped before another one may be lost.
pub(crate) fn boot() -> Option<[u64; 2]> {
    static BOOT: OnceLock<Option<[u64; 2]>> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let number = u128::from_str_radix(&digits, 16).ok()?;
        Some([(number >> 64) as u64, number as u64])
    })
}

#[cfg(test)]
mod tests;
