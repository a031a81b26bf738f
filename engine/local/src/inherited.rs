//! Files that `flock`s are held on, which a forked child inherits: the lock belongs to the open file, and would stay held by the child
//! after its parent's death. So each of them is remembered from before it can be locked until it cannot be any more, and a child exchanges
//! its copies for nothing.
//!
//! What may never enter: a lock on a file that was opened elsewhere, or through an opening that is mapped into memory: a child has what is mapped,
//! too, and nobody can take that away.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

/// Files that are remembered for a forked child; locks on more are not, and stay held in it.
const REMEMBERED: usize = 4096;
const NONE: i32 = -1;

static HELD: [AtomicI32; REMEMBERED] = [const { AtomicI32::new(NONE) }; REMEMBERED];
/// Held for as long as a file is open and not yet remembered.
static OPENING: RwLock<()> = RwLock::new(());

/// The descriptors of all files that this process may hold locks on: what a forked child must let go of. To be asked there, where memory
/// cannot be had.
pub fn held() -> impl Iterator<Item = i32> {
    HELD.iter().map(|held| held.load(Ordering::SeqCst)).filter(|held| *held != NONE)
}

/// Nobody is between opening such a file and remembering it: to be held by who forks.
#[derive(Debug)]
pub struct AllRemembered {
    _opening: RwLockWriteGuard<'static, ()>,
}

impl AllRemembered {
    /// Waits for that.
    pub fn wait() -> Self {
        Self { _opening: OPENING.write().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// A file that may be locked. Its locks die with it, and are nobody's in a forked child.
#[derive(Debug)]
pub(crate) struct LockFile(File);

impl LockFile {
    /// Opens it, or makes it.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))
    }

    pub(crate) fn open(path: &Path, how: &OpenOptions) -> io::Result<Self> {
        let _opening = OPENING.read().unwrap_or_else(PoisonError::into_inner);
        let file = how.open(path)?;
        let number = file.as_raw_fd();
        let free = |held: &&AtomicI32| held.compare_exchange(NONE, number, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if HELD.iter().find(free).is_none() {
            tracing::debug!("more locks than are remembered: a forked child keeps this one");
        }
        Ok(Self(file))
    }

    /// The same file opened twice: for its locks, and to be mapped.
    pub(crate) fn open_both(path: &Path, how: &OpenOptions) -> io::Result<(Self, File)> {
        loop {
            let (lock, file) = (Self::open(path, how)?, how.open(path)?);
            let (one, other) = (lock.metadata()?, file.metadata()?);
            // Between the two somebody may have put another one in its place.
            if (one.dev(), one.ino()) == (other.dev(), other.ino()) {
                return Ok((lock, file));
            }
        }
    }

    pub(crate) fn open_to_read(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().read(true))
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Whoever forks just now inherits a lock that nobody holds any more.
        let _ = flock(&self.0, FlockOperation::Unlock);
        // Before it is closed: the number is soon another file's.
        let number = self.0.as_raw_fd();
        for held in &HELD {
            if held.compare_exchange(number, NONE, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return;
            }
        }
    }
}

impl Deref for LockFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_locked_is_known_to_who_forks_for_as_long_as_it_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = LockFile::create(&path).unwrap();
        let number = file.as_raw_fd();
        assert!(held().any(|held| held == number));
        flock(&file, FlockOperation::LockExclusive).unwrap();
        let theirs = File::open(&path).unwrap();
        assert!(flock(&theirs, FlockOperation::NonBlockingLockExclusive).is_err());
        // A copy, as a forked child has one, keeps nothing locked when the file is gone.
        let copy = file.try_clone().unwrap();
        drop(file);
        flock(&theirs, FlockOperation::NonBlockingLockExclusive).unwrap();
        drop(copy);
    }

    #[test]
    fn who_forks_waits_for_whoever_has_opened_and_not_yet_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let forks = AllRemembered::wait();
        let (tells, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| tells.send(LockFile::create(&path).unwrap().as_raw_fd()).unwrap());
            assert!(told.recv_timeout(std::time::Duration::from_millis(200)).is_err(), "opened while somebody forks");
            drop(forks);
            told.recv().unwrap();
        });
    }
}
