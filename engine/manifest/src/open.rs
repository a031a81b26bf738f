//! The LMDB environment: opened once, shared, grown, and opened anew after a fork. The only room here with `unsafe`.
//!
//! Rules; each unsafe block cites those that make it sound:
//!
//! - **U1** One environment per directory and process. [`Environment::shared`] hands out the one that is open; heed refuses
//!   a second.
//! - **U2** LMDB alone touches its files, but for a look at a data file that is refused. Nothing of ours otherwise opens `data.mdb` or `lock.mdb`: closing any descriptor of the lock
//!   file would drop LMDB's POSIX locks on it (rule S9's reason), and writing to the data file would change mapped memory.
//! - **U3** The map never moves under a transaction. Transactions live only inside [`Environment::read`] and
//!   [`Environment::write`], which hold the slot's lock shared; whoever moves the map holds it alone.
//! - **U4** No flag that weakens locks or syncs is set, and stores on network file systems are refused before (rule P12).
//! - **U5** An environment is never used by another process than the one that opened it: the process id is compared before
//!   every transaction. A forked child drops its copy, which closes its own descriptors and maps and touches no lock of the
//!   parent's (LMDB clears only readers of its own process id; POSIX locks are not inherited), and opens its own.
//! - **U6** A data file that ends before its last page is refused before a page beyond its end could be read (SIGBUS), unless all that it
//!   lacks is free, and so nobody's to read (`tail.rs`).

use crate::table::Tables;
use crate::tail;
use heed::types::Bytes;
use heed::{CommitOrAbort, Env, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};
use littoral_format::FormatError;
use littoral_format::rows::number;
use littoral_ports::ManifestError;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard, TryLockError, Weak};
use std::time::{Duration, Instant};

/// The layout of the tables as a whole. Rows have versions of their own.
const LAYOUT: u64 = 1;
/// Where `meta` keeps it.
const LAYOUT_KEY: &[u8] = b"layout";
/// What LMDB calls its data file.
const DATA: &str = "data.mdb";
/// Tables that an environment has room for: ours, and those that later versions add.
const TABLES_MAX: u32 = 64;
/// Read transactions at once, over all processes.
const READERS_MAX: u32 = 1024;
/// Address space that is asked for at first. Costs nothing until it is used.
pub(crate) const MAP_BYTES: usize = 1 << 36;
/// Least address space to go on with, where the process may not have much.
const MAP_BYTES_MIN: usize = 1 << 20;
/// Address space that is never asked for.
const MAP_BYTES_MAX: usize = 1 << 46;
/// Growing, adopting another process's growth and opening anew, for one transaction.
const TRIES: u32 = 64;
/// How long another thread's use of an environment that is about to close, or its use across a fork, is waited for.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// What a disk writes whole: of a page that was begun, its head.
const SECTOR: usize = 512;
/// A disk with less room than this may be the reason of a write that was cut short.
const ROOM_MIN: u64 = 4 << 20;

static ENVIRONMENTS: Mutex<BTreeMap<PathBuf, Weak<Environment>>> = Mutex::new(BTreeMap::new());

/// What stopped a transaction.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The map is full: grow it and begin again.
    MapFull,
    /// Another process grew the map: adopt its size and begin again.
    MapResized,
    /// LMDB refuses to go on with this environment: open it anew and begin again.
    Dead,
    /// The disk said this.
    Disk(io::Error),
    /// Tell the caller.
    Final(ManifestError),
}

impl From<heed::Error> for Fault {
    fn from(error: heed::Error) -> Self {
        match error {
            heed::Error::Mdb(MdbError::MapFull) => Fault::MapFull,
            heed::Error::Mdb(MdbError::MapResized) => Fault::MapResized,
            heed::Error::Mdb(MdbError::Panic) => Fault::Dead,
            heed::Error::Mdb(
                error @ (MdbError::Corrupted
                | MdbError::PageNotFound
                | MdbError::Invalid
                | MdbError::VersionMismatch
                | MdbError::Incompatible
                | MdbError::CursorFull
                | MdbError::PageFull),
            ) => Fault::Final(ManifestError::Corrupt(error.to_string())),
            heed::Error::Io(error) => Fault::Disk(error),
            other => Fault::Final(ManifestError::Failed(other.to_string())),
        }
    }
}

/// Of bytes that were read. Those that could not be spelled are the caller's fault: see `misuse`.
impl From<FormatError> for Fault {
    fn from(error: FormatError) -> Self {
        Fault::Final(match error {
            FormatError::Newer { what, found, known } => ManifestError::Newer { what, found, known },
            other => ManifestError::Corrupt(other.to_string()),
        })
    }
}

impl From<ManifestError> for Fault {
    fn from(error: ManifestError) -> Self {
        Fault::Final(error)
    }
}

/// The environment of one directory, in this process.
#[derive(Debug)]
pub(crate) struct Environment {
    dir: PathBuf,
    map_bytes: usize,
    slot: RwLock<Slot>,
}

#[derive(Debug)]
struct Slot {
    /// The process that opened it.
    process: u32,
    opened: Option<Opened>,
}

#[derive(Debug)]
struct Opened {
    env: Env<WithoutTls>,
    tables: Tables,
}

impl Environment {
    /// The environment of this directory: the one that is open, or opened now.
    pub(crate) fn shared(dir: &Path, map_bytes: usize) -> Result<Arc<Self>, ManifestError> {
        std::fs::create_dir_all(dir).map_err(|error| disk(dir, error))?;
        let dir = dir.canonicalize().map_err(|error| disk(dir, error))?;
        // Held while opening: of two threads one opens, and both get it.
        let mut environments = ENVIRONMENTS.lock().unwrap_or_else(PoisonError::into_inner);
        environments.retain(|_, known| known.strong_count() > 0);
        if let Some(known) = environments.get(&dir).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let opened = Opened::new(&dir, map_bytes)?;
        let slot = RwLock::new(Slot { process: std::process::id(), opened: Some(opened) });
        let environment = Arc::new(Self { dir: dir.clone(), map_bytes, slot });
        environments.insert(dir, Arc::downgrade(&environment));
        Ok(environment)
    }

    /// Looks, at one state of the tables.
    pub(crate) fn read<T>(
        &self,
        look: impl Fn(&Tables, &RoTxn<'_, WithoutTls>) -> Result<T, Fault>,
    ) -> Result<T, ManifestError> {
        self.attempt(|opened| {
            let txn = opened.env.read_txn()?;
            look(&opened.tables, &txn)
        })
    }

    /// Changes, all or nothing: durable when it returns, and nothing happened when it failed. May be called several times
    /// before one of them counts.
    pub(crate) fn write<T>(
        &self,
        change: impl Fn(&Tables, &mut RwTxn<'_>) -> Result<T, Fault>,
    ) -> Result<T, ManifestError> {
        self.attempt(|opened| {
            let mut txn = opened.env.write_txn()?;
            let answer = change(&opened.tables, &mut txn)?;
            txn.commit()?;
            Ok(answer)
        })
    }

    fn attempt<T>(&self, act: impl Fn(&Opened) -> Result<T, Fault>) -> Result<T, ManifestError> {
        for _ in 0..TRIES {
            let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
            let Some(opened) = slot.opened.as_ref().filter(|_| slot.process == std::process::id()) else {
                drop(slot);
                self.open_again()?;
                continue;
            };
            let seen = opened.env.info().map_size;
            let fault = match act(opened) {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            drop(slot);
            match fault {
                Fault::MapFull => self.grow(seen)?,
                Fault::MapResized => self.move_map(0)?,
                Fault::Dead => self.alone()?.opened = None,
                Fault::Disk(error) => return Err(disk(&self.dir, error)),
                Fault::Final(error) => return Err(error),
            }
        }
        Err(ManifestError::Failed(format!("{}: no transaction after {TRIES} tries", self.dir.display())))
    }

    /// Doubles the map, unless someone did since `seen` was its size.
    fn grow(&self, seen: usize) -> Result<(), ManifestError> {
        let now = self.slot.read().unwrap_or_else(PoisonError::into_inner).opened.as_ref().map(Opened::map_bytes);
        if now != Some(seen) {
            return Ok(());
        }
        if seen >= MAP_BYTES_MAX {
            return Err(ManifestError::Full(format!("{}: {seen} bytes", self.dir.display())));
        }
        self.move_map(seen * 2)
    }

    /// Gives the map another size; 0 is the one that another process gave it.
    #[allow(unsafe_code)]
    fn move_map(&self, bytes: usize) -> Result<(), ManifestError> {
        let mut slot = self.alone()?;
        let Some(opened) = &slot.opened else { return Ok(()) };
        if bytes != 0 && opened.map_bytes() >= bytes {
            return Ok(()); // Another thread was here first.
        }
        // SAFETY: U3: the slot's lock is held alone, so no transaction of this process exists. U5: `attempt` compared the
        // process id before, and a fork in between left the child without this thread.
        let moved = unsafe { opened.env.resize(bytes) };
        moved.map_err(|error| {
            // LMDB has unmapped the old map by now: this environment cannot be used again.
            slot.opened = None;
            ManifestError::Full(format!("{}: the map cannot grow to {bytes} bytes: {error}", self.dir.display()))
        })
    }

    /// After a fork, or after LMDB gave up: closes what is there and opens it anew.
    fn open_again(&self) -> Result<(), ManifestError> {
        let mut slot = self.alone()?;
        let process = std::process::id();
        if slot.process == process && slot.opened.is_some() {
            return Ok(());
        }
        // Closed first: heed refuses a second environment while the first is there (U1).
        slot.opened = None;
        slot.opened = Some(Opened::new(&self.dir, self.map_bytes)?);
        slot.process = process;
        Ok(())
    }

    /// The slot, with no transaction in it.
    fn alone(&self) -> Result<RwLockWriteGuard<'_, Slot>, ManifestError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.slot.try_write() {
                Ok(slot) => return Ok(slot),
                Err(TryLockError::Poisoned(slot)) => return Ok(slot.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                // A thread that stood in a transaction when this process was forked does not exist here, and its
                // transaction never ends.
                Err(TryLockError::WouldBlock) => {
                    return Err(ManifestError::Failed(format!(
                        "{}: in use by a thread that does not finish, perhaps one lost in a fork: start the process anew",
                        self.dir.display()
                    )));
                }
            }
        }
    }
}

impl Opened {
    fn new(dir: &Path, map_bytes: usize) -> Result<Self, ManifestError> {
        let env = open(dir, map_bytes)?;
        // U6: the count first, since others may be committing: the file only grows.
        let page_bytes = u64::from(env.unnamed_database_stat().page_size);
        let pages = env.info().last_page_number as u64 + 1;
        let length = env.real_disk_size().map_err(|error| failed(dir, error))?;
        if length < pages * page_bytes && !Self::lacks_nothing(dir, &env, length / page_bytes, pages - 1) {
            let text = format!("{}: {length} bytes of {} are left", dir.display(), pages * page_bytes);
            return Err(ManifestError::Corrupt(text));
        }
        let txn = env.write_txn().map_err(|error| failed(dir, error))?;
        let created = env.create_databases_and_commit(txn, |opener, txn| {
            let mut tables = Vec::with_capacity(Tables::NAMES.len());
            for name in Tables::NAMES {
                let table = opener.create_database::<Bytes, Bytes>(txn, Some(name))?;
                if tables.is_empty() {
                    // Before anything else is made: a newer store stays as it is.
                    match table.get(txn, LAYOUT_KEY)?.map(number::decode).transpose()? {
                        None => table.put(txn, LAYOUT_KEY, &number::encode(LAYOUT))?,
                        Some(found) if found > LAYOUT => return Err(newer(found)),
                        Some(_) => {}
                    }
                }
                tables.push(table);
            }
            match <[_; Tables::NAMES.len()]>::try_from(tables) {
                Ok(tables) => Ok(CommitOrAbort::Commit(tables)),
                Err(_) => Ok(CommitOrAbort::Abort(())),
            }
        });
        match created {
            Ok(CommitOrAbort::Commit(databases)) => {
                // The files' names survive a power loss too.
                for dir in [Some(dir), dir.parent()].into_iter().flatten() {
                    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| disk(dir, error))?;
                }
                Ok(Self { env, tables: Tables::new(databases) })
            }
            Ok(CommitOrAbort::Abort(())) => {
                Err(ManifestError::Failed(format!("{}: tables are missing", dir.display())))
            }
            Err(Fault::Final(error)) => Err(error),
            Err(Fault::Disk(error)) => Err(disk(dir, error)),
            Err(other) => Err(ManifestError::Failed(format!("{}: {other:?}", dir.display()))),
        }
    }

    /// Whether all pages that a data file is too short for are free.
    fn lacks_nothing(dir: &Path, env: &Env<WithoutTls>, first: u64, last: u64) -> bool {
        // As long as this reads, what was free stays as it is, whatever others commit.
        let Ok(_reader) = env.read_txn() else { return false };
        let page_bytes = env.unnamed_database_stat().page_size as usize;
        std::fs::File::open(dir.join(DATA)).is_ok_and(|file| tail::is_free(&file, page_bytes, first, last))
    }

    fn map_bytes(&self) -> usize {
        self.env.info().map_size
    }
}

fn newer(found: u64) -> Fault {
    let [found, known] = [found, LAYOUT].map(|layout| u16::try_from(layout).unwrap_or(u16::MAX));
    Fault::Final(ManifestError::Newer { what: "layout of tables", found, known })
}

#[allow(unsafe_code)]
fn open(dir: &Path, map_bytes: usize) -> Result<Env<WithoutTls>, ManifestError> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.max_dbs(TABLES_MAX).max_readers(READERS_MAX);
    let mut map_bytes = map_bytes.max(MAP_BYTES_MIN).next_multiple_of(MAP_BYTES_MIN);
    let until = Instant::now() + PATIENCE;
    let mut begun_anew = false;
    loop {
        options.map_size(map_bytes);
        // SAFETY: U1, U2, U4: the directory is the store's own, on a local disk, and no flag is set; U6: nothing beyond the
        // first two pages is read before the file's length was compared.
        match unsafe { options.open(dir) } {
            Ok(env) => return Ok(env),
            // The process may not have so much address space: less does, and the map grows as it can.
            Err(heed::Error::Io(error))
                if error.kind() == io::ErrorKind::OutOfMemory && map_bytes / 2 >= MAP_BYTES_MIN =>
            {
                map_bytes /= 2;
            }
            // The last one who had it is just closing it.
            Err(heed::Error::EnvAlreadyOpened) if Instant::now() < until => {
                if let Some(closing) = heed::env_closing_event(dir) {
                    closing.wait_timeout(Duration::from_millis(50));
                }
            }
            Err(heed::Error::EnvAlreadyOpened) => {
                return Err(ManifestError::Failed(format!(
                    "{}: open already in this process, past this library: one environment per store and process",
                    dir.display()
                )));
            }
            // The disk was full when the file was begun, or the power failed.
            Err(heed::Error::Mdb(MdbError::Invalid)) if !begun_anew && is_torso(dir) => {
                begun_anew = true;
                std::fs::remove_file(dir.join(DATA)).map_err(|error| disk(dir, error))?;
            }
            Err(error) => return Err(failed(dir, error)),
        }
    }
}

/// Whether the data file was never finished: it ends within its first two pages, or one of them is empty. LMDB writes both at once, before
/// anything else, and syncs them before anything that was committed: a full disk or a power failure came in between, and nothing is in it.
fn is_torso(dir: &Path) -> bool {
    let page_bytes = rustix::param::page_size() as u64;
    let Ok(file) = std::fs::File::open(dir.join(DATA)) else { return false };
    let is_empty = |page: u64| {
        let mut head = [0; SECTOR];
        file.read_exact_at(&mut head, page * page_bytes).is_ok() && head.iter().all(|byte| *byte == 0)
    };
    file.metadata().is_ok_and(|data| data.len() < 2 * page_bytes) || is_empty(0) || is_empty(1)
}

fn failed(dir: &Path, error: heed::Error) -> ManifestError {
    match Fault::from(error) {
        Fault::Final(error) => error,
        Fault::Disk(error) => disk(dir, error),
        other => ManifestError::Failed(format!("{}: {other:?}", dir.display())),
    }
}

/// What the disk said, by what the caller does next.
fn disk(dir: &Path, error: io::Error) -> ManifestError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let full = matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
        // LMDB answers EIO when the system took only a part of what it wrote, which is how a disk becomes full.
        || (error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) && room(dir) < ROOM_MIN);
    let text = format!("{}: {error}", dir.display());
    if full { ManifestError::Full(text) } else { ManifestError::Failed(text) }
}

/// Bytes that the data file may still grow by, as far as can be told.
fn room(dir: &Path) -> u64 {
    let free = rustix::fs::statvfs(dir).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let length = std::fs::metadata(dir.join(DATA)).map_or(0, |data| data.len());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current.unwrap_or(u64::MAX);
    free.min(limit.saturating_sub(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LmdbManifest;
    use littoral_ports::Manifest;
    use littoral_ports::conformance::manifest::{id, record, row};
    use std::process::Command;

    // SAFETY: the C library's own, called as its manual says: `fork` where no other thread exists (see `forks`).
    #[allow(unsafe_code)]
    unsafe extern "C" {
        safe fn fork() -> i32;
        safe fn _exit(code: i32) -> !;
    }

    const PLACE: &str = "LITTORAL_MANIFEST_TEST_PLACE";

    #[test]
    fn a_file_that_a_full_disk_or_a_power_failure_kept_from_beginning_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        drop(LmdbManifest::open(dir.path()).unwrap());
        let whole = std::fs::read(dir.path().join(DATA)).unwrap();
        for length in [1, 100, 4096] {
            for bytes in [vec![0; length], whole[..length].to_vec()] {
                std::fs::write(dir.path().join(DATA), bytes).unwrap();
                assert_eq!(LmdbManifest::open(dir.path()).unwrap().volumes().unwrap(), []);
            }
        }
        // The power failed before it was synced for the first time: either of its first pages may be missing.
        for (from, to) in [(0, 4096), (4096, 8192), (0, 8192)] {
            let mut bytes = whole.clone();
            bytes[from..to].fill(0);
            std::fs::write(dir.path().join(DATA), bytes).unwrap();
            assert_eq!(LmdbManifest::open(dir.path()).unwrap().volumes().unwrap(), []);
        }
        // What is as long as an environment and is none stays.
        std::fs::write(dir.path().join(DATA), vec![7; 1 << 20]).unwrap();
        assert!(matches!(LmdbManifest::open(dir.path()), Err(ManifestError::Corrupt(_))));
        assert_eq!(std::fs::metadata(dir.path().join(DATA)).unwrap().len(), 1 << 20);
    }

    #[test]
    fn p12_one_environment_per_store_and_process() {
        let dir = tempfile::tempdir().unwrap();
        let one = Environment::shared(&dir.path().join("manifest"), 1).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("manifest"), &link).unwrap();
        let two = Environment::shared(&link, 1).unwrap();
        assert!(Arc::ptr_eq(&one, &two), "whatever the path, it is the same one");
        drop((one, two));

        // Opened past us, it is refused by name, and works when the other is gone.
        #[allow(unsafe_code)]
        // SAFETY: U1 to U4 as in `open`: the directory is this test's own.
        let foreign = unsafe { EnvOpenOptions::new().max_dbs(20).open(dir.path().join("manifest")) }.unwrap();
        let refused = Environment::shared(&link, 1).unwrap_err();
        assert!(refused.to_string().contains("one environment per store and process"), "{refused}");
        drop(foreign);
        Environment::shared(&link, 1).unwrap();
    }

    #[test]
    fn threads_that_open_and_drop_at_once_all_get_it() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let dir = dir.path();
                scope.spawn(move || {
                    for seq in 1..30 {
                        let manifest = LmdbManifest::open(dir).unwrap();
                        manifest.commit(&id(thread), &record(thread, seq, vec![])).unwrap();
                    }
                });
            }
        });
        let manifest = LmdbManifest::open(dir.path()).unwrap();
        assert_eq!(manifest.volumes().unwrap(), [0, 1, 2, 3].map(|thread| row(thread, 29)));
    }

    /// Runs below as the only test of a process of its own: nobody else's locks are held when it forks.
    #[test]
    #[ignore = "the other half of the next test, which starts it"]
    fn forks() {
        let Some(place) = std::env::var_os(PLACE) else { return };
        let manifest = LmdbManifest::open(Path::new(&place)).unwrap();
        manifest.commit(&id(1), &record(1, 1, vec![])).unwrap();
        match fork() {
            0 => {
                // Inherited, and opened by name: both are this process's own environment now, and the same.
                let seen = manifest.volumes().ok() == Some(vec![row(1, 1)]);
                let wrote = manifest.commit(&id(1), &record(1, 2, vec![])).is_ok();
                let opened = LmdbManifest::open(Path::new(&place));
                let again = opened.is_ok_and(|opened| opened.volumes().ok() == Some(vec![row(1, 2)]));
                _exit(if seen && wrote && again { 0 } else { 1 });
            }
            child => {
                let status = rustix::process::Pid::from_raw(child)
                    .map(|child| rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap());
                assert_eq!(status.unwrap().unwrap().1.exit_status(), Some(0));
                manifest.commit(&id(1), &record(1, 3, vec![])).unwrap();
                assert_eq!(manifest.volumes().unwrap(), [row(1, 3)], "the parent goes on where the child ended");
            }
        }
    }

    #[test]
    fn p12_a_forked_child_uses_an_environment_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "open::tests::forks", "--include-ignored", "--test-threads=1"])
            .env(PLACE, dir.path())
            .output()
            .unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
        assert!(String::from_utf8_lossy(&status.stdout).contains("1 passed"));
        assert_eq!(LmdbManifest::open(dir.path()).unwrap().volumes().unwrap(), [row(1, 3)]);
    }

    #[test]
    fn a_newer_layout_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data.mdb");
        let environment = Environment::shared(dir.path(), 1).unwrap();
        environment.write(|tables, txn| Ok(tables.meta.put(txn, LAYOUT_KEY, &number::encode(LAYOUT + 1))?)).unwrap();
        drop(environment);
        let before = std::fs::read(&data).unwrap();
        for _ in 0..2 {
            let refused = LmdbManifest::open(dir.path()).unwrap_err();
            assert!(matches!(refused, ManifestError::Newer { found: 2, known: 1, .. }), "{refused:?}");
            assert!(refused.to_string().contains("use a newer littoral"), "{refused}");
        }
        assert_eq!(std::fs::read(&data).unwrap(), before);
    }

    #[test]
    fn a_damaged_data_file_is_refused_and_never_read_beyond_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data.mdb");
        let manifest = LmdbManifest::open(dir.path()).unwrap();
        for seq in 1..50 {
            manifest.commit(&id(1), &record(1, seq, vec![])).unwrap();
        }
        drop(manifest);
        let whole = std::fs::read(&data).unwrap();
        for length in [whole.len() / 2, 3 * 4096, 8192] {
            std::fs::write(&data, &whole[..length]).unwrap();
            let refused = LmdbManifest::open(dir.path()).unwrap_err();
            assert!(matches!(refused, ManifestError::Corrupt(_)), "{length}: {refused:?}");
            assert!(refused.to_string().contains("rebuilt from the remote"), "{refused}");
        }
        std::fs::write(&data, [0x5a; 40_000]).unwrap();
        let refused = LmdbManifest::open(dir.path()).unwrap_err();
        assert!(matches!(refused, ManifestError::Corrupt(_)), "{refused:?}");
        std::fs::write(&data, &whole).unwrap();
        assert_eq!(LmdbManifest::open(dir.path()).unwrap().volumes().unwrap(), [row(1, 49)]);
    }

    #[test]
    fn a_file_that_ends_before_its_last_page_because_that_one_was_given_back_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data.mdb");
        let environment = Environment::shared(dir.path(), 1).unwrap();
        // Asked for and given back by one transaction: never written, and counted. Nothing that is free is large enough for the next one.
        for round in 1..9 {
            let large = vec![7; usize::from(round) * 20 * 4096];
            environment
                .write(|tables, txn| {
                    tables.meta.put(txn, b"kept", &[round])?;
                    tables.meta.put(txn, b"large", &large)?;
                    tables.meta.delete(txn, b"large")?;
                    Ok(())
                })
                .unwrap();
        }
        drop(environment);
        let pages = |bytes: &[u8]| {
            let last =
                |page: usize| u64::from_le_bytes(bytes[page * 4096 + 136..page * 4096 + 144].try_into().unwrap());
            last(0).max(last(1)) + 1
        };
        let whole = std::fs::read(&data).unwrap();
        assert!(
            (whole.len() as u64) < pages(&whole) * 4096,
            "it is too short for {} pages: {}",
            pages(&whole),
            whole.len()
        );
        assert_eq!(LmdbManifest::open(dir.path()).unwrap().volumes().unwrap(), []);
        // What is cut off besides is not free.
        std::fs::write(&data, &whole[..3 * 4096]).unwrap();
        let refused = LmdbManifest::open(dir.path()).unwrap_err();
        assert!(matches!(refused, ManifestError::Corrupt(_)), "{refused:?}");
    }

    #[test]
    fn an_environment_that_lmdb_gave_up_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = LmdbManifest::open(dir.path()).unwrap();
        manifest.commit(&id(1), &record(1, 1, vec![])).unwrap();
        let environment = Environment::shared(dir.path(), 1).unwrap();
        environment.alone().unwrap().opened = None;
        assert_eq!(manifest.volumes().unwrap(), [row(1, 1)]);
    }
}
