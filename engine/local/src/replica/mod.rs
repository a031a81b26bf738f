//! The files of a replica: a read-only database that follows its volume's log, shared by all processes that have it open.
//!
//! What this room promises:
//! 1. A state is named by the record that it ends with. All processes see which one is the newest, and who reads which ([`pins`]): a state
//!    that a live process reads is at or after the floor.
//! 2. The page file holds pages as they are at the floor; those that changed since lie in overlays, each with the record that changed it.
//!    Whoever reads a state finds the version that this state shows, or nothing, never another.
//! 3. A process that dies at any instruction leaves nothing that another must not find: what it read is free, what it half wrote is not
//!    said to be here, its locks are gone.
//! 4. Nothing here is worth keeping: all of it comes from the object store. After an unclean end of the machine, and whenever the log
//!    cannot be followed record by record, an *edition* ends and the next one begins beside it, for those who begin to read.
//!
//! What may never enter: the network, records, SQLite.
//! Read next: [`edition`], then [`pins`].

pub mod edition;
mod mark;
pub mod pins;

pub use edition::{Edition, Frame, Origin};
pub use mark::{Mark, mark_at};
pub use pins::Pin;

use crate::durable::{create_dirs, parent};
use crate::error::{LocalError, on};
use crate::inherited::LockFile;
use crate::tracker::{Tracker, allocate, map::Map};
use littoral_types::{Lsn, VolumeId};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What the folder of an edition is called before it has its number.
const NEXT: &str = "next-";
/// How long somebody may be about to begin one.
const BEGINS: Duration = Duration::from_secs(3600);
/// Its format, which is part of the folder's name.
const SUFFIX: &str = "replica1";
const WORDS_BYTES: u64 = 4096;

mod at {
    /// Which edition is the newest; zero for none.
    pub(super) const CURRENT: usize = 0;
    /// When the log was looked at last, milliseconds since 1970, and how often in a row that failed.
    pub(super) const LOOKED: usize = 1;
    pub(super) const FAILED: usize = 2;
    /// Somebody waits for news.
    pub(super) const WANTED: usize = 3;
}

/// A replica's folder.
#[derive(Debug)]
pub struct Replica {
    root: PathBuf,
    words: Map,
}

/// The right to find out what a replica is and to begin an edition. It dies with its owner.
#[derive(Debug)]
pub struct Opening {
    _file: LockFile,
}

/// The right to follow: one process of all has it. It dies with that process, whatever children it has (unlike `flock`'s, which they
/// inherit): a POSIX lock, whose file nobody but this room opens, and in a process that has it nobody at all.
#[derive(Debug)]
pub struct Elected {
    path: PathBuf,
    process: u32,
    _file: File,
}

/// Who is elected in this process; a forked child's list is its parent's, and says so.
static ELECTED: Mutex<Vec<(u32, PathBuf)>> = Mutex::new(Vec::new());

impl Drop for Elected {
    fn drop(&mut self) {
        let mut elected = ELECTED.lock().unwrap_or_else(PoisonError::into_inner);
        elected.retain(|(process, path)| (*process, path) != (self.process, &self.path));
    }
}

fn open_lock(path: &Path) -> Result<File, LocalError> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(on("open", path))
}

impl Replica {
    /// Where a database's replica lies in a store's directory.
    pub fn path_of(store_root: &Path, database: &Path) -> PathBuf {
        Tracker::path_of(store_root, database).with_extension(SUFFIX)
    }

    /// Waits for the right to open.
    pub fn opening(root: &Path) -> Result<Opening, LocalError> {
        create_dirs(parent(root))?;
        let path = root.with_extension("opening");
        let file = LockFile::create(&path).map_err(on("open", &path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(on("lock", root))?;
        Ok(Opening { _file: file })
    }

    /// Opens a replica's folder, or makes it.
    pub fn open(root: &Path, _: &Opening) -> Result<Self, LocalError> {
        create_dirs(root)?;
        let path = root.join("words");
        let file = open_lock(&path)?;
        allocate(&file, WORDS_BYTES).map_err(on("allocate", &path))?;
        let words = Map::new(&file, 0, WORDS_BYTES as usize).map_err(on("map", &path))?;
        Ok(Self { root: root.to_owned(), words })
    }

    /// Forgets a replica that nobody has open, or whose file is gone.
    pub fn remove(root: &Path, _: &Opening) -> Result<(), LocalError> {
        match fs::remove_dir_all(root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(on("remove", root)(error)),
            _ => Ok(()),
        }
    }

    /// The newest edition's number; zero for none.
    pub fn current(&self) -> u64 {
        self.words.word(at::CURRENT).load(Ordering::SeqCst)
    }

    fn dir_of(&self, number: u64) -> PathBuf {
        self.root.join(number.to_string())
    }

    /// A folder for the next edition, in which what it needs can be gathered before it begins.
    pub fn prepare(&self) -> Result<PathBuf, LocalError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = self.root.join(format!("{NEXT}{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        create_dirs(&dir.join("shelf"))?;
        Ok(dir)
    }

    /// Begins the next edition, out of a folder that was prepared.
    pub fn begin(&self, prepared: &Path, origin: &Origin) -> Result<Edition, LocalError> {
        Edition::create(prepared, origin)?;
        let path = self.root.join("begin.lock");
        let lock = LockFile::create(&path).map_err(on("open", &path))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(on("lock", &path))?;
        let number = self.current() + 1;
        let dir = self.dir_of(number);
        // One that was given its place, and never its number, is nobody's.
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(on("remove", &dir))?;
        }
        fs::rename(prepared, &dir).map_err(on("rename", &dir))?;
        let edition = Edition::attach(&dir, number)?;
        self.words.word(at::CURRENT).store(number, Ordering::SeqCst);
        Ok(edition)
    }

    /// Attaches to the newest edition. `None` where there is none, or where it does not count any more.
    pub fn attach(&self) -> Result<Option<Edition>, LocalError> {
        loop {
            let number = self.current();
            if number == 0 {
                return Ok(None);
            }
            match Edition::attach(&self.dir_of(number), number) {
                Ok(edition) if edition.is_of_this_boot() => return Ok(Some(edition)),
                Ok(_) => return Ok(None),
                // Over, and swept away.
                Err(_) if self.current() != number => {}
                Err(error) => {
                    tracing::warn!(%error, "a replica's files cannot be used: it begins anew");
                    return Ok(None);
                }
            }
        }
    }

    /// Of which volume it shows what, as far as that is known: the next edition goes on from there, or not at all.
    pub fn shown(&self) -> Option<(VolumeId, Lsn)> {
        let number = self.current();
        let edition = Edition::attach(&self.dir_of(number), number).ok()?;
        Some((edition.volume(), edition.lsn()))
    }

    /// Removes editions that ended and that nobody reads any more.
    pub fn sweep(&self) {
        let current = self.current();
        let Ok(entries) = fs::read_dir(&self.root) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let age = || entry.metadata().and_then(|found| found.modified()).ok()?.elapsed().ok();
            let is_over = match name.parse::<u64>() {
                Ok(number) => number < current && pins::pinned(&entry.path()).is_ok_and(|pinned| pinned.is_empty()),
                // Of somebody who died before.
                Err(_) => name.starts_with(NEXT) && age().is_some_and(|age| age > BEGINS),
            };
            if is_over && let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::debug!(%error, "an old edition stays a while");
            }
        }
    }

    /// Asks for the right to follow. `None` while another has it.
    pub fn elect(&self) -> Result<Option<Elected>, LocalError> {
        let (process, path) = (std::process::id(), self.root.join("follower.lock"));
        let mut elected = ELECTED.lock().unwrap_or_else(PoisonError::into_inner);
        // Closing a second descriptor would drop the lock of the first.
        if elected.iter().any(|(of, known)| *of == process && *known == path) {
            return Ok(None);
        }
        let file = open_lock(&path)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Ok(None),
            Err(error) => return Err(on("lock", &path)(error)),
        }
        elected.push((process, path.clone()));
        Ok(Some(Elected { path, process, _file: file }))
    }

    /// The log was looked at, at this time.
    pub fn looked(&self, now_ms: u64) {
        self.words.word(at::LOOKED).fetch_max(now_ms, Ordering::SeqCst);
        self.words.word(at::FAILED).store(0, Ordering::SeqCst);
        let _ = fs::remove_file(self.root.join("trouble"));
    }

    /// When that was; zero for never.
    pub fn looked_ms(&self) -> u64 {
        self.words.word(at::LOOKED).load(Ordering::SeqCst)
    }

    /// Looking failed, for this reason. How often in a row it did.
    pub fn failed(&self, why: &str) -> u64 {
        let path = self.root.join("trouble");
        let fresh = self.root.join("trouble.new");
        if let Err(error) = fs::write(&fresh, why).and_then(|()| fs::rename(&fresh, &path)) {
            tracing::debug!(%error, "why following fails is not told to others");
        }
        self.words.word(at::FAILED).fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Why looking fails, while it does.
    pub fn trouble(&self) -> Option<String> {
        if self.words.word(at::FAILED).load(Ordering::SeqCst) == 0 {
            return None;
        }
        Some(fs::read_to_string(self.root.join("trouble")).unwrap_or_else(|_| "it cannot be followed".to_owned()))
    }

    /// Somebody waits for news.
    pub fn want(&self) {
        self.words.word(at::WANTED).store(1, Ordering::SeqCst);
    }

    /// Whether somebody did since this was asked last.
    pub fn is_wanted(&self) -> bool {
        self.words.word(at::WANTED).swap(0, Ordering::SeqCst) != 0
    }
}

#[cfg(test)]
mod tests;
