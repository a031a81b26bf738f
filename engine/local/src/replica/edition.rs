//! One edition of a replica: pages of one page size, followed record by record from the state it began with.
//!
//! | file | holds |
//! |---|---|
//! | `state` | the newest state and the floor; for each page whether it is here and was used; which parts of the stamps are allocated |
//! | `pages` | pages as they are at the floor, each in its place |
//! | `overlays` | newer versions, each in its page's place of one of a few layers |
//! | `stamps` | for each place of a layer the record that made the version there; zero for none |
//! | `pins/` | who reads which state |
//! | `shelf/` | immutable objects of the log, for all processes |
//!
//! Nothing is read under a lock. A place of an overlay gets another version only when nobody reads the one that was there: the stamp goes
//! first and comes last, and stamps of one place only grow, so that one that is the same before and after stands for what was read between.
//! Dropping pages breaks that, and is counted: odd while it is done.

use super::pins::{self, Pin};
use crate::durable::{create_dirs, sync_dir};
use crate::error::{LocalError, on};
use crate::inherited::LockFile;
use crate::tracker::{WORD, allocate, boot, map::Map};
use littoral_types::limits::{EVICT_BYTES, OVERLAYS, REPLICA_PAGES_MIN};
use littoral_types::{Lsn, PageCount, PageNo, PageSize, Seq, VolumeId};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const MAGIC: u64 = u64::from_le_bytes(*b"LITTREP1");
const HEADER_BYTES: u64 = 4096;
/// How long the right to write is waited for.
const PATIENCE: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(1);
/// Stamps that one step of allocation holds.
const BLOCK: u64 = 512;

mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VOLUME: usize = 1;
    pub(super) const PAGE_SIZE: usize = 3;
    /// Pages that there is room for.
    pub(super) const ROOM: usize = 4;
    pub(super) const BOOT: usize = 5;
    /// The manifest snapshot that the newest state is told from.
    pub(super) const START: usize = 7;
    pub(super) const NEWEST: usize = 8;
    pub(super) const FLOOR: usize = 9;
    /// How often pages were dropped, twice; odd meanwhile.
    pub(super) const DROPS: usize = 10;
    /// Pages that are here, in the page file and in overlays; a hint.
    pub(super) const HELD: usize = 11;
    /// Where dropping goes on.
    pub(super) const HAND: usize = 12;
    /// The newest commit that was shown.
    pub(super) const LSN: usize = 13;
}

/// What an edition begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Of which volume.
    pub volume: VolumeId,
    /// Its page size.
    pub page_size: PageSize,
    /// Its size.
    pub page_count: PageCount,
    /// The manifest snapshot that the state is told from.
    pub start: Seq,
    /// The state.
    pub newest: Seq,
    /// Its last commit.
    pub lsn: Lsn,
}

/// A page to be kept: which, the record that changed it last (`None`: none since the floor that its reader knew), and its bytes.
pub type Frame<'a> = (PageNo, Option<Seq>, &'a [u8]);

/// An edition, attached to.
#[derive(Debug)]
pub struct Edition {
    dir: PathBuf,
    number: u64,
    volume: VolumeId,
    page_size: PageSize,
    room: u64,
    state: Map,
    stamps: Map,
    stamps_file: File,
    pages: File,
    overlays: File,
    /// Held in this process by who writes; across processes, the file.
    writing: Mutex<()>,
    lock: LockFile,
}

/// The right to write pages.
struct Writing<'a> {
    edition: &'a Edition,
    _here: MutexGuard<'a, ()>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // It cannot fail for a lock that is held, and the end of the process does the same.
        let _ = flock(&self.edition.lock, FlockOperation::Unlock);
    }
}

fn words(bits: u64) -> u64 {
    bits.div_ceil(64)
}

fn state_bytes(room: u64) -> u64 {
    HEADER_BYTES + (2 * words(room) + words(OVERLAYS as u64 * room.div_ceil(BLOCK))) * WORD as u64
}

fn open(path: &Path) -> Result<File, LocalError> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(on("open", path))
}

impl Edition {
    /// Makes its files in a folder.
    pub(super) fn create(dir: &Path, origin: &Origin) -> Result<(), LocalError> {
        create_dirs(&dir.join("pins"))?;
        create_dirs(&dir.join("shelf"))?;
        // It may grow to twice its size; beyond that it begins anew.
        let room = (origin.page_count.0 * 2).next_multiple_of(BLOCK).max(REPLICA_PAGES_MIN);
        let path = dir.join("state");
        let file = open(&path)?;
        allocate(&file, state_bytes(room)).map_err(on("allocate", &path))?;
        let map = Map::new(&file, 0, HEADER_BYTES as usize).map_err(on("map", &path))?;
        let put = |at: usize, value: u64| map.word(at).store(value, Ordering::SeqCst);
        for (half, at) in origin.volume.0.chunks_exact(WORD).zip(at::VOLUME..) {
            put(at, half.try_into().map_or(0, u64::from_le_bytes));
        }
        put(at::PAGE_SIZE, origin.page_size.bytes());
        put(at::ROOM, room);
        for (nth, word) in boot().unwrap_or_default().into_iter().enumerate() {
            put(at::BOOT + nth, word);
        }
        put(at::START, origin.start.0);
        put(at::NEWEST, origin.newest.0);
        put(at::FLOOR, origin.newest.0);
        put(at::LSN, origin.lsn.0);
        put(at::MAGIC, MAGIC);
        for name in ["pages", "overlays", "stamps", "lock"] {
            open(&dir.join(name))?;
        }
        let stamps = dir.join("stamps");
        open(&stamps)?.set_len(OVERLAYS as u64 * room * WORD as u64).map_err(on("make room in", &stamps))?;
        sync_dir(dir)
    }

    /// Attaches.
    pub(super) fn attach(dir: &Path, number: u64) -> Result<Self, LocalError> {
        let path = dir.join("state");
        let broken = |detail: &str| LocalError::Corrupt { path: path.clone(), detail: detail.to_owned() };
        let old = |name: &str| {
            let path = dir.join(name);
            OpenOptions::new().read(true).write(true).open(&path).map_err(on("open", &path))
        };
        let file = old("state")?;
        let len = file.metadata().map_err(on("look at", &path))?.len();
        if len < HEADER_BYTES {
            return Err(broken("cut off"));
        }
        let header = Map::new(&file, 0, HEADER_BYTES as usize).map_err(on("map", &path))?;
        let get = |at: usize| header.word(at).load(Ordering::SeqCst);
        if get(at::MAGIC) != MAGIC {
            return Err(broken("not a replica of ours"));
        }
        let mut id = [0; 16];
        for (half, at) in id.chunks_exact_mut(WORD).zip(at::VOLUME..) {
            half.copy_from_slice(&get(at).to_le_bytes());
        }
        let page_size = PageSize::new(get(at::PAGE_SIZE)).map_err(|_| broken("no page size"))?;
        let room = get(at::ROOM);
        if room == 0 || !room.is_multiple_of(BLOCK) || room > 1 << 40 || len < state_bytes(room) {
            return Err(broken("cut off"));
        }
        let stamps_file = old("stamps")?;
        let stamps_bytes = OVERLAYS as u64 * room * WORD as u64;
        if stamps_file.metadata().map_err(on("look at", &path))?.len() < stamps_bytes {
            return Err(broken("its stamps are cut off"));
        }
        let sized = |bytes: u64| usize::try_from(bytes).map_err(|_| broken("too large for this machine"));
        let state = Map::new(&file, 0, sized(state_bytes(room))?).map_err(on("map", &path))?;
        let stamps = Map::new(&stamps_file, 0, sized(stamps_bytes)?).map_err(on("map", &path))?;
        Ok(Self {
            dir: dir.to_owned(),
            number,
            volume: VolumeId(id),
            page_size,
            room,
            state,
            stamps,
            stamps_file,
            pages: old("pages")?,
            overlays: old("overlays")?,
            writing: Mutex::new(()),
            lock: {
                let path = dir.join("lock");
                LockFile::open(&path, OpenOptions::new().read(true).write(true)).map_err(on("open", &path))?
            },
        })
    }

    fn header(&self, at: usize) -> &AtomicU64 {
        self.state.word(at)
    }

    /// Whether the machine has not gone down since it began: what was fetched is not synced.
    pub(super) fn is_of_this_boot(&self) -> bool {
        boot().unwrap_or_default() == [0, 1].map(|nth| self.header(at::BOOT + nth).load(Ordering::SeqCst))
    }

    /// Which of them it is.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Of which volume.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Its page size.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Whether it has room for a database of this size.
    pub fn has_room(&self, page_count: PageCount) -> bool {
        page_count.0 <= self.room
    }

    /// Where objects of the log are kept for all processes.
    pub fn shelf(&self) -> PathBuf {
        self.dir.join("shelf")
    }

    /// The manifest snapshot that the newest state is told from.
    pub fn start(&self) -> Seq {
        Seq(self.header(at::START).load(Ordering::SeqCst))
    }

    /// It is told from a newer one from now on.
    pub fn set_start(&self, start: Seq) {
        self.header(at::START).fetch_max(start.0, Ordering::SeqCst);
    }

    /// The newest state.
    pub fn newest(&self) -> Seq {
        Seq(self.header(at::NEWEST).load(Ordering::SeqCst))
    }

    /// The newest commit that was shown, or is about to be.
    pub fn lsn(&self) -> Lsn {
        Lsn(self.header(at::LSN).load(Ordering::SeqCst))
    }

    /// There is a newer state, for all who begin to read.
    pub fn set_newest(&self, newest: Seq, lsn: Lsn) {
        self.header(at::LSN).fetch_max(lsn.0, Ordering::SeqCst);
        self.header(at::NEWEST).fetch_max(newest.0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The oldest state that anybody may read.
    pub fn floor(&self) -> Seq {
        Seq(self.header(at::FLOOR).load(Ordering::SeqCst))
    }

    /// A pin that reads nothing yet.
    pub fn pin(&self) -> Result<Pin, LocalError> {
        Pin::create(&self.dir)
    }

    /// Pins the newest state; `None` where a newer one came meanwhile.
    pub fn try_pin(&self, pin: &Pin) -> Option<Seq> {
        let newest = self.newest();
        pin.set(newest);
        if self.newest() == newest {
            return Some(newest);
        }
        pin.clear();
        None
    }

    /// States that are read, ascending.
    pub fn pinned(&self) -> Result<Vec<Seq>, LocalError> {
        pins::pinned(&self.dir)
    }

    /// The right to write, unless somebody has it for longer than writing takes: a process that was stopped keeps nobody from reading.
    fn writing(&self) -> Result<Option<Writing<'_>>, LocalError> {
        let here = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        loop {
            match flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK | Errno::INTR) if began.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
                Err(error) => return Err(on("lock", &self.dir)(error)),
            }
        }
        let writing = Writing { edition: self, _here: here };
        // Who died while dropping pages had said so of each before.
        let drops = self.header(at::DROPS);
        if drops.load(Ordering::SeqCst) % 2 == 1 {
            drops.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Some(writing))
    }

    fn bit(&self, region: u64, index: u64) -> (&AtomicU64, u64) {
        let word = HEADER_BYTES / WORD as u64 + region + index / 64;
        (self.state.word(usize::try_from(word).unwrap_or(usize::MAX)), 1 << (index % 64))
    }

    fn here(&self, index: u64) -> (&AtomicU64, u64) {
        self.bit(0, index)
    }

    fn used(&self, index: u64) -> (&AtomicU64, u64) {
        self.bit(words(self.room), index)
    }

    fn is_here(&self, index: u64) -> bool {
        let (word, bit) = self.here(index);
        word.load(Ordering::SeqCst) & bit != 0
    }

    fn place(&self, layer: u64, index: u64) -> u64 {
        layer * self.room + index
    }

    fn block(&self, place: u64) -> (&AtomicU64, u64) {
        self.bit(2 * words(self.room), place / BLOCK)
    }

    /// What a layer has of a page; zero for nothing. A stamp is looked at only where there is room for it on the disk (rule S19).
    fn stamp(&self, layer: u64, index: u64) -> u64 {
        let place = self.place(layer, index);
        let (word, bit) = self.block(place);
        match word.load(Ordering::SeqCst) & bit {
            0 => 0,
            _ => self.stamps.word(usize::try_from(place).unwrap_or(usize::MAX)).load(Ordering::SeqCst),
        }
    }

    fn set_stamp(&self, layer: u64, index: u64, stamp: u64) -> io::Result<()> {
        let place = self.place(layer, index);
        let (word, bit) = self.block(place);
        if word.load(Ordering::SeqCst) & bit == 0 {
            if stamp == 0 {
                return Ok(());
            }
            let step = BLOCK * WORD as u64;
            fallocate(&self.stamps_file, FallocateFlags::empty(), place / BLOCK * step, step)?;
            word.fetch_or(bit, Ordering::SeqCst);
        }
        self.stamps.word(usize::try_from(place).unwrap_or(usize::MAX)).store(stamp, Ordering::SeqCst);
        Ok(())
    }

    fn held(&self, more: bool) {
        let count = |held: u64| Some(if more { held.saturating_add(1) } else { held.saturating_sub(1) });
        let _ = self.header(at::HELD).fetch_update(Ordering::SeqCst, Ordering::SeqCst, count);
    }

    /// Pages that are here, roughly, older and newer versions together.
    pub fn count_held(&self) -> u64 {
        self.header(at::HELD).load(Ordering::SeqCst)
    }

    /// Whether a version of a page is here: the one that this record made, or the one at the floor.
    pub fn has(&self, page: PageNo, version: Option<Seq>) -> bool {
        let index = page.index();
        if index >= self.room {
            return false;
        }
        match version {
            None => self.is_here(index),
            Some(version) => (0..OVERLAYS as u64).any(|layer| self.stamp(layer, index) == version.0),
        }
    }

    /// Reads a part of a version of a page. False where it is not here: then nothing that was read counts.
    pub fn read(&self, page: PageNo, version: Option<Seq>, offset: u64, into: &mut [u8]) -> Result<bool, LocalError> {
        let (index, size) = (page.index(), self.page_size.bytes());
        if index >= self.room {
            return Ok(false);
        }
        let drops = self.header(at::DROPS);
        loop {
            let before = drops.load(Ordering::SeqCst);
            if before % 2 == 1 {
                // Over when the lock is free, however that came.
                match self.writing()? {
                    Some(_) => continue,
                    None => return Ok(false),
                }
            }
            let found = match version {
                None if self.is_here(index) => {
                    self.pages.read_exact_at(into, index * size + offset).map_err(on("read", &self.dir))?;
                    fence(Ordering::SeqCst);
                    self.is_here(index)
                }
                None => false,
                Some(version) => match (0..OVERLAYS as u64).find(|layer| self.stamp(*layer, index) == version.0) {
                    Some(layer) => {
                        let place = self.place(layer, index) * size + offset;
                        self.overlays.read_exact_at(into, place).map_err(on("read", &self.dir))?;
                        fence(Ordering::SeqCst);
                        self.stamp(layer, index) == version.0
                    }
                    None => false,
                },
            };
            if drops.load(Ordering::SeqCst) != before {
                continue;
            }
            if found {
                let (word, bit) = self.used(index);
                if word.load(Ordering::Relaxed) & bit == 0 {
                    word.fetch_or(bit, Ordering::Relaxed);
                }
            }
            return Ok(found);
        }
    }

    /// Keeps versions of pages, as far as there is room: beyond the quota, pages that were not used for long are dropped. `unread` answers
    /// of a newer version whether no reader's state shows it. What the disk has no room for is not kept, and no error.
    pub fn keep(
        &self,
        frames: &[Frame<'_>],
        quota: Option<u64>,
        unread: &dyn Fn(PageNo, Seq) -> bool,
    ) -> Result<(), LocalError> {
        let Some(_right) = self.writing()? else { return Ok(()) };
        let floor = self.floor();
        for (page, version, image) in frames {
            let index = page.index();
            if index >= self.room || image.len() != self.page_size.len() {
                continue;
            }
            let kept = match version.filter(|version| *version > floor) {
                None => self.keep_at_floor(index, image),
                Some(version) => self.keep_newer(*page, version, floor, image, unread),
            };
            if let Err(error) = kept {
                tracing::debug!(%error, %page, "a page is not kept: it will be fetched again");
                break;
            }
        }
        if let Some(quota) = quota {
            self.drop_unused(quota / self.page_size.bytes());
        }
        Ok(())
    }

    fn keep_at_floor(&self, index: u64, image: &[u8]) -> io::Result<()> {
        if self.is_here(index) {
            return Ok(());
        }
        self.pages.write_all_at(image, index * self.page_size.bytes())?;
        let (word, bit) = self.here(index);
        word.fetch_or(bit, Ordering::SeqCst);
        self.held(true);
        Ok(())
    }

    fn keep_newer(
        &self,
        page: PageNo,
        version: Seq,
        floor: Seq,
        image: &[u8],
        unread: &dyn Fn(PageNo, Seq) -> bool,
    ) -> io::Result<()> {
        let index = page.index();
        let layers = 0..OVERLAYS as u64;
        if layers.clone().any(|layer| self.stamp(layer, index) == version.0) {
            return Ok(());
        }
        let is_old = |layer: &u64| self.stamp(*layer, index) <= floor.0;
        // An older version never comes after a newer one in one place.
        let is_unread = |layer: &u64| {
            let stamp = self.stamp(*layer, index);
            stamp < version.0 && unread(page, Seq(stamp))
        };
        let Some(layer) = layers.clone().find(is_old).or_else(|| layers.clone().find(is_unread)) else {
            // More versions are read at once than there are places: the rest is fetched each time.
            return Ok(());
        };
        let was = self.stamp(layer, index);
        self.set_stamp(layer, index, 0)?;
        fence(Ordering::SeqCst);
        if was != 0 {
            self.held(false);
        }
        self.overlays.write_all_at(image, self.place(layer, index) * self.page_size.bytes())?;
        self.set_stamp(layer, index, version.0)?;
        self.held(true);
        Ok(())
    }

    /// Nobody reads a state before `floor` any more: pages that changed up to it are another at the floor now, of this `version` each.
    /// Those are `pages`, one by one, and `runs`.
    pub fn raise_floor(
        &self,
        floor: Seq,
        pages: &mut dyn Iterator<Item = PageNo>,
        runs: &[(PageNo, PageNo)],
        version: &dyn Fn(PageNo) -> Option<Seq>,
    ) -> Result<(), LocalError> {
        // Somebody is in the way: the floor is raised another time.
        let Some(_right) = self.writing()? else { return Ok(()) };
        if floor <= self.floor() {
            return Ok(());
        }
        for (first, end) in runs {
            let end = end.index().min(self.room);
            let mut index = first.index();
            while index < end {
                let (word, _) = self.here(index);
                let many = (64 - index % 64).min(end - index);
                let mask = (u64::MAX >> (64 - many)) << (index % 64);
                let gone = (word.fetch_and(!mask, Ordering::SeqCst) & mask).count_ones();
                (0..gone).for_each(|_| self.held(false));
                index += many;
            }
        }
        for page in pages {
            let index = page.index();
            if index < self.room {
                self.renew(index, version(page), floor);
            }
        }
        // Last: whoever finds this floor finds no older page.
        self.header(at::FLOOR).fetch_max(floor.0, Ordering::SeqCst);
        Ok(())
    }

    /// A page at the floor is another: the version of an overlay, or not here.
    fn renew(&self, index: u64, version: Option<Seq>, floor: Seq) {
        let (word, bit) = self.here(index);
        if word.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
            self.held(false);
        }
        let size = self.page_size.bytes();
        for layer in 0..OVERLAYS as u64 {
            let stamp = self.stamp(layer, index);
            if stamp == 0 || stamp > floor.0 {
                continue;
            }
            let place = self.place(layer, index) * size;
            if version == Some(Seq(stamp)) {
                let mut image = vec![0; self.page_size.len()];
                let moved = self.overlays.read_exact_at(&mut image, place);
                if let Err(error) = moved.and_then(|()| self.keep_at_floor(index, &image)) {
                    tracing::debug!(%error, "a page is not kept: it will be fetched again");
                }
            }
            // It cannot fail where the stamp has its room.
            let _ = self.set_stamp(layer, index, 0);
            self.held(false);
            self.punch(&self.overlays, place, size);
        }
    }

    /// Gives room back to the disk, where the file system can.
    fn punch(&self, file: &File, offset: u64, bytes: u64) {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = fallocate(file, how, offset, bytes) {
            tracing::debug!(%error, dir = %self.dir.display(), "the room of a dropped page is not given back");
        }
    }

    /// Whether nothing of these pages is here: a glance, since most of a large database is not.
    fn is_empty(&self, range: std::ops::Range<u64>) -> bool {
        let is_none = |index: u64| {
            let layers = (0..OVERLAYS as u64).map(|layer| self.place(layer, index));
            let mut blocks = layers.map(|place| self.block(place));
            self.here(index).0.load(Ordering::Relaxed) == 0
                && blocks.all(|(word, bit)| word.load(Ordering::Relaxed) & bit == 0)
        };
        let first = range.start - range.start % 64;
        (first..range.end).step_by(64).all(is_none)
    }

    /// Drops pages until so many are left: first those that nobody read since the hand went past them last.
    fn drop_unused(&self, max: u64) {
        if self.count_held() <= max {
            return;
        }
        let target = max - max / 8;
        let unit = (EVICT_BYTES / self.page_size.bytes()).max(1);
        let size = self.page_size.bytes();
        let units = self.room / unit;
        let drops = self.header(at::DROPS);
        drops.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // Twice around: the first time may only find that all were used.
        for _ in 0..2 * units {
            if self.count_held() <= target {
                break;
            }
            let at = self.header(at::HAND).fetch_add(1, Ordering::SeqCst) % units;
            let range = at * unit..(at + 1) * unit;
            if self.is_empty(range.clone()) {
                continue;
            }
            let mut used = false;
            for index in range.clone() {
                let (word, bit) = self.used(index);
                used |= word.fetch_and(!bit, Ordering::SeqCst) & bit != 0;
            }
            if used {
                continue;
            }
            let mut dropped = false;
            for index in range {
                let (word, bit) = self.here(index);
                if word.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
                    self.held(false);
                    dropped = true;
                }
                for layer in 0..OVERLAYS as u64 {
                    if self.stamp(layer, index) != 0 {
                        let _ = self.set_stamp(layer, index, 0);
                        self.held(false);
                        self.punch(&self.overlays, self.place(layer, index) * size, size);
                    }
                }
            }
            if dropped {
                fence(Ordering::SeqCst);
                self.punch(&self.pages, at * unit * size, unit * size);
            }
        }
        fence(Ordering::SeqCst);
        drops.fetch_add(1, Ordering::SeqCst);
    }

    /// Bytes that its pages take on the disk.
    pub fn bytes_on_disk(&self) -> Result<u64, LocalError> {
        use std::os::unix::fs::MetadataExt;
        let mut bytes = 0;
        for file in [&self.pages, &self.overlays] {
            bytes += file.metadata().map_err(on("look at", &self.dir))?.blocks() * 512;
        }
        Ok(bytes)
    }
}
