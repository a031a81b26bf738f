//! Which pages of a sparse database file are here, and which of them were written here.
//!
//! What this room promises:
//! 1. A page that is here was written whole, by SQLite or with what the object store holds. Whether it is, is this bitmap's word and
//!    never the file system's holes.
//! 2. Whoever installs a page holds the one lock of all processes, and so does who writes one that is not here (rule S3); it
//!    dies with its owner. A page that is here is nobody's to install.
//! 3. What was written here is known durably before SQLite is told that it is durable (rule S6). After an unclean end of the
//!    machine, only that is here: what was merely fetched is fetched again.
//!
//! The file begins with what the pages are fetched from: one state of one volume.

use super::map::Map;
use super::peek::PeekSparse;
use super::{WORD, allocate, boot};
use crate::durable::{create_dirs, parent, remove_if_there, suffixed, sync_dir};
use crate::error::{LocalError, on};
use littoral_types::{Epoch, Generation, Lsn, PageCount, PageNo, PageSize, Position, VolumeId};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Its format, which is part of the file's name.
const SUFFIX: &str = "sparse1";
const MAGIC: u64 = u64::from_le_bytes(*b"LITTSPA1");
const HEADER_BYTES: u64 = 4096;

mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VOLUME: usize = 1;
    pub(super) const EPOCH: usize = 3;
    pub(super) const LSN: usize = 4;
    pub(super) const PAGE_SIZE: usize = 5;
    pub(super) const PAGES: usize = 6;
    pub(super) const BOOT: usize = 7;
    /// Our term when we wrote last, zero for never; and as of which checkpoint.
    pub(super) const OWNED_EPOCH: usize = 9;
    pub(super) const OWNED_GENERATION: usize = 10;
    /// Counts what is noted as written here, by anybody; and how much of that is known durably.
    pub(super) const NOTED: usize = 11;
    pub(super) const SYNCED: usize = 12;
}

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
    _file: File,
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
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(on("open", &path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(on("lock", &path))?;
        Ok(Self { _file: file })
    }
}

/// The bitmap, attached to.
#[derive(Debug)]
pub struct Residency {
    path: PathBuf,
    file: File,
    map: Map,
    origin: Origin,
    /// Held in this process by who installs; across processes, the file of that name.
    installing: Mutex<()>,
    lock: File,
    /// Nobody else was attached when this one came.
    alone: bool,
}

/// The right to install pages, or to write one that is not here.
#[derive(Debug)]
pub struct Installing<'a> {
    residency: &'a Residency,
    _here: MutexGuard<'a, ()>,
}

impl Drop for Installing<'_> {
    fn drop(&mut self) {
        // It cannot fail for a lock that is held, and the end of the process does the same.
        let _ = flock(&self.residency.lock, FlockOperation::Unlock);
    }
}

impl Residency {
    /// Where a database's bitmap lies in a store's directory.
    pub fn path_of(store_root: &Path, database: &Path) -> PathBuf {
        let tracker = super::Tracker::path_of(store_root, database);
        tracker.with_extension(SUFFIX)
    }

    /// Makes the bitmap of a database of which nothing is here, durably.
    pub fn create(path: &Path, origin: &Origin) -> Result<(), LocalError> {
        create_dirs(parent(path))?;
        let fresh = suffixed(path, ".new");
        remove_if_there(&fresh)?;
        let options = OpenOptions::new().read(true).write(true).create_new(true).open(&fresh);
        let file = options.map_err(on("create", &fresh))?;
        allocate(&file, len_of(origin.page_count)).map_err(on("allocate", &fresh))?;
        let map = Map::new(&file, 0, HEADER_BYTES as usize).map_err(on("map", &fresh))?;
        let put = |at: usize, value: u64| map.word(at).store(value, Ordering::SeqCst);
        for (half, at) in origin.volume.0.chunks_exact(WORD).zip(at::VOLUME..) {
            put(at, half.try_into().map_or(0, u64::from_le_bytes));
        }
        put(at::EPOCH, origin.position.epoch.0);
        put(at::LSN, origin.position.lsn.0);
        put(at::PAGE_SIZE, origin.page_size.bytes());
        put(at::PAGES, origin.page_count.0);
        for (nth, word) in boot().unwrap_or_default().into_iter().enumerate() {
            put(at::BOOT + nth, word);
        }
        put(at::MAGIC, MAGIC);
        file.sync_all().map_err(on("sync", &fresh))?;
        std::fs::rename(&fresh, path).map_err(on("rename", path))?;
        sync_dir(parent(path))
    }

    /// Attaches to a bitmap. `None` where there is none.
    pub fn attach(path: &Path) -> Result<Option<Self>, LocalError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
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
        let page_count = PageCount(get(at::PAGES));
        if len < len_of(page_count) {
            return Err(broken("cut off"));
        }
        let position = Position { epoch: Epoch(get(at::EPOCH)), lsn: Lsn(get(at::LSN)) };
        let origin = Origin { volume: VolumeId(id), position, page_size, page_count };
        let map =
            Map::new(&file, 0, usize::try_from(len_of(page_count)).unwrap_or(usize::MAX)).map_err(on("map", path))?;
        let lock_path = suffixed(path, ".lock");
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(on("open", &lock_path))?;
        let alone = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        let residency = Self { path: path.to_owned(), file, map, origin, installing: Mutex::new(()), lock, alone };
        if alone {
            residency.after_a_boot();
        }
        flock(&residency.file, FlockOperation::LockShared).map_err(on("lock", path))?;
        Ok(Some(residency))
    }

    /// What was only fetched may have been lost with the machine: what was written here is known durably.
    fn after_a_boot(&self) {
        let now = boot().unwrap_or_default();
        let then = [0, 1].map(|nth| self.map.word(at::BOOT + nth).load(Ordering::SeqCst));
        if now == then {
            return;
        }
        for word in 0..words_of(self.origin.page_count) {
            let written = self.map.word(self.written(word)).load(Ordering::SeqCst);
            self.map.word(here(word)).store(written, Ordering::SeqCst);
        }
        for (nth, word) in now.into_iter().enumerate() {
            self.map.word(at::BOOT + nth).store(word, Ordering::SeqCst);
        }
    }

    /// What pages are fetched from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The term in which we last claimed or published the volume, and as of which checkpoint. `None` as long as it was never ours.
    pub fn owned(&self) -> Option<(Epoch, Generation)> {
        let get = |at: usize| self.map.word(at).load(Ordering::SeqCst);
        (get(at::OWNED_EPOCH) != 0).then(|| (Epoch(get(at::OWNED_EPOCH)), Generation(get(at::OWNED_GENERATION))))
    }

    /// The volume is ours, durably: what is not here is what we have published, or what we began with.
    pub fn own(&self, epoch: Epoch, generation: Generation) -> Result<(), LocalError> {
        self.map.word(at::OWNED_GENERATION).store(generation.0, Ordering::SeqCst);
        self.map.word(at::OWNED_EPOCH).store(epoch.0, Ordering::SeqCst);
        self.file.sync_data().map_err(on("sync", &self.path))
    }

    /// Whether nobody else had the database open when this was attached.
    pub fn was_alone(&self) -> bool {
        self.alone
    }

    fn written(&self, word: usize) -> usize {
        here(words_of(self.origin.page_count)) + word
    }

    /// Whether a page is here. One behind the end of what was fetched from is.
    #[inline]
    pub fn is_here(&self, page: PageNo) -> bool {
        let index = page.index();
        index >= self.origin.page_count.0
            || self.map.word(here((index / 64) as usize)).load(Ordering::SeqCst) >> (index % 64) & 1 == 1
    }

    /// Whether a page was written here.
    pub fn is_written(&self, page: PageNo) -> bool {
        let index = page.index();
        index >= self.origin.page_count.0
            || self.map.word(self.written((index / 64) as usize)).load(Ordering::SeqCst) >> (index % 64) & 1 == 1
    }

    /// Waits for the right to install.
    pub fn installing(&self) -> Result<Installing<'_>, LocalError> {
        let here = self.installing.lock().unwrap_or_else(PoisonError::into_inner);
        flock(&self.lock, FlockOperation::LockExclusive).map_err(on("lock", &self.path))?;
        Ok(Installing { residency: self, _here: here })
    }

    /// A page was installed: it is here.
    pub fn set_here(&self, _: &Installing<'_>, page: PageNo) {
        self.set(page, here);
    }

    /// A page was written whole.
    pub fn set_written(&self, page: PageNo) {
        if page.index() >= self.origin.page_count.0 {
            return;
        }
        if !self.is_written(page) {
            // Counted for whoever syncs next, this process or another: who writes the page again finds it noted. Once before, for who dies
            // in between; once after, for who syncs in between.
            let noted = self.map.word(at::NOTED);
            noted.fetch_add(1, Ordering::SeqCst);
            self.set(page, |word| self.written(word));
            noted.fetch_add(1, Ordering::SeqCst);
        }
        self.set(page, here);
    }

    fn set(&self, page: PageNo, place: impl Fn(usize) -> usize) {
        let index = page.index();
        if index < self.origin.page_count.0 {
            self.map.word(place((index / 64) as usize)).fetch_or(1 << (index % 64), Ordering::SeqCst);
        }
    }

    /// Every page from here on is dead, or new (rule S11): nothing of it is fetched any more.
    pub fn cut(&self, _: &Installing<'_>, from: u64) {
        (from..self.origin.page_count.0).map(PageNo::from_index).for_each(|page| self.set_written(page));
    }

    /// Makes durable what was written here, by whomever: what one process noted and never synced, another one relies on. Costs nothing where
    /// nothing new was.
    pub fn sync(&self) -> Result<(), LocalError> {
        let noted = self.map.word(at::NOTED).load(Ordering::SeqCst);
        if self.map.word(at::SYNCED).load(Ordering::SeqCst) != noted {
            self.file.sync_data().map_err(on("sync", &self.path))?;
            self.map.word(at::SYNCED).fetch_max(noted, Ordering::SeqCst);
        }
        Ok(())
    }

    /// How many pages of those that were to be fetched are here.
    pub fn count_here(&self) -> u64 {
        let count = words_of(self.origin.page_count);
        (0..count).map(|word| u64::from(self.map.word(here(word)).load(Ordering::SeqCst).count_ones())).sum()
    }

    /// Whether all pages are here.
    pub fn is_complete(&self) -> bool {
        self.count_here() >= self.origin.page_count.0
    }

    /// Pages that are not here, ascending, from one on.
    pub fn missing(&self, from: PageNo, max: usize) -> Vec<PageNo> {
        let all = from.index()..self.origin.page_count.0;
        all.map(PageNo::from_index).filter(|page| !self.is_here(*page)).take(max).collect()
    }

    /// Pages that were written here, ascending.
    pub fn written_pages(&self) -> Vec<PageNo> {
        (0..self.origin.page_count.0).map(PageNo::from_index).filter(|page| self.is_written(*page)).collect()
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
    let pages = PageCount(word(at::PAGES));
    let bits = words.get(here(0)..here(words_of(pages))).unwrap_or_default();
    let position = Position { epoch: Epoch(word(at::EPOCH)), lsn: Lsn(word(at::LSN)) };
    Some(PeekSparse { position, here: bits.iter().map(|word| u64::from(word.count_ones())).sum(), pages })
}

const fn here(word: usize) -> usize {
    HEADER_BYTES as usize / WORD + word
}

fn words_of(count: PageCount) -> usize {
    usize::try_from(count.0.div_ceil(64)).unwrap_or(usize::MAX / 64)
}

fn len_of(count: PageCount) -> u64 {
    HEADER_BYTES + 2 * (words_of(count) * WORD) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn what_is_here_is_known_to_everybody_who_has_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = Residency::path_of(dir.path(), Path::new("/x/app.db"));
        assert!(Residency::attach(&path).unwrap().is_none());
        Residency::create(&path, &origin(1000)).unwrap();
        let one = Residency::attach(&path).unwrap().unwrap();
        let two = Residency::attach(&path).unwrap().unwrap();
        assert!(one.was_alone() && !two.was_alone());
        assert_eq!(*two.origin(), origin(1000));
        assert!(!two.is_here(page(1)) && two.is_here(page(1001)), "what lies behind is never fetched");
        one.set_here(&one.installing().unwrap(), page(1000));
        one.set_written(page(64));
        assert!(two.is_here(page(1000)) && !two.is_written(page(1000)));
        assert!(two.is_here(page(64)) && two.is_written(page(64)));
        assert_eq!((two.count_here(), two.written_pages()), (2, vec![page(64)]));
        assert_eq!(two.missing(page(63), 3), [page(63), page(65), page(66)]);
        one.cut(&one.installing().unwrap(), 10);
        assert_eq!((two.count_here(), two.is_here(page(10)), two.is_here(page(11))), (990, false, true));
        one.sync().unwrap();
        assert_eq!(two.owned(), None);
        one.own(Epoch(4), Generation(9)).unwrap();
        assert_eq!(two.owned(), Some((Epoch(4), Generation(9))));
    }

    #[test]
    fn s06_after_another_boot_only_what_was_written_here_is_here() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sparse1");
        Residency::create(&path, &origin(200)).unwrap();
        let one = Residency::attach(&path).unwrap().unwrap();
        one.set_here(&one.installing().unwrap(), page(5));
        one.set_written(page(6));
        one.map.word(at::BOOT).store(4711, Ordering::SeqCst);
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
        let path = dir.path().join("a.sparse1");
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
        let path = dir.path().join("a.sparse1");
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
