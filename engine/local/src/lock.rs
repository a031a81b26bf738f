//! Who is a store's worker, or ships for a database (rule P12): the one who holds the lock of it.
//!
//! The lock is `flock`'s, which belongs to the open file and not to the process: a second one in the same process is
//! refused like any other, closing some other descriptor of the file lets nothing go, and the kernel lets it go when its
//! holder dies. Safety never rests on it (that is the remote log's, rule P3); it only keeps two workers from doing the
//! same work.

use crate::durable::create_dirs;
use crate::error::{LocalError, on};
use crate::inherited::LockFile;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Held as long as this lives, in this process and not in its forked children.
#[derive(Debug)]
pub struct WorkerLock {
    path: PathBuf,
    file: LockFile,
}

impl WorkerLock {
    /// Takes the lock, or says who has it.
    pub fn take(mut path: PathBuf) -> Result<Self, LocalError> {
        create_dirs(crate::durable::parent(&path))?;
        loop {
            let lock = Self { file: open(&path)?, path };
            match flock(&lock.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(LocalError::Busy { holder: holder(&lock.file), path: lock.path.clone() });
                }
                Err(error) => return Err(on("lock", &lock.path)(error)),
            }
            let mut lock = lock;
            if lock.is_at_its_place()? {
                lock.sign()?;
                return Ok(lock);
            }
            // Between open and lock someone removed the file: a lock on what nobody can find elects nobody.
            path = lock.path.clone();
        }
    }

    /// Who holds a lock, without taking it. Nobody holds one whose file is not there, or that could be had just now; where neither can be
    /// told, for want of descriptors or of rights, somebody unknown does: what is his is left alone.
    pub fn held_by(path: &Path) -> Option<String> {
        let file = match LockFile::open_to_read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => return Some(unknown(&error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => Some(holder(&file)),
            Ok(()) => None,
            Err(error) => Some(unknown(&error.into())),
        }
    }

    /// Whether the file this lock is on is still the one that others find. False after someone removed it: stop working,
    /// another may have been elected.
    pub fn is_at_its_place(&self) -> Result<bool, LocalError> {
        let held = self.file.metadata().map_err(on("look at", &self.path))?;
        match std::fs::metadata(&self.path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (held.dev(), held.ino())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(on("look at", &self.path)(error)),
        }
    }

    /// Writes one more line, behind who holds it.
    pub(crate) fn also_say(&mut self, line: &str) -> Result<(), LocalError> {
        (&*self.file).write_all(format!("{line}\n").as_bytes()).map_err(on("write", &self.path))
    }

    /// Takes its file away, while it is held. Whoever finds none makes one.
    pub(crate) fn remove(&self) {
        if matches!(self.is_at_its_place(), Ok(true)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Writes who holds it, for those who are refused. Need not be durable: the lock itself is not.
    fn sign(&mut self) -> Result<(), LocalError> {
        let text = format!("process {}\n", std::process::id());
        let sign = |mut file: &File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(text.as_bytes())
        };
        sign(&self.file).map_err(on("write", &self.path))
    }
}

fn open(path: &Path) -> Result<LockFile, LocalError> {
    LockFile::create(path).map_err(on("open", path))
}

fn unknown(why: &std::io::Error) -> String {
    format!("somebody unknown (its lock cannot be looked at: {why})")
}

/// What the holder wrote; it may be just about to.
fn holder(mut file: &File) -> String {
    let mut text = String::new();
    let read = Read::by_ref(&mut file).take(200).read_to_string(&mut text);
    let text = text.lines().next().unwrap_or_default();
    match read {
        Ok(_) if !text.trim().is_empty() => {
            let own = text.trim() == format!("process {}", std::process::id());
            let pid = text.trim().strip_prefix("process ").unwrap_or_default();
            let stopped = format!(" (which is stopped: kill -CONT {pid} lets it go on, kill -KILL {pid} ends it)");
            let more = if own {
                " (this one)"
            } else if is_stopped(pid) {
                &stopped
            } else {
                ""
            };
            format!("{}{more}", text.trim())
        }
        _ => "a process that has not said its name".to_owned(),
    }
}

/// Whether somebody has stopped a process of this machine.
fn is_stopped(pid: &str) -> bool {
    // Behind the program's name, which may hold anything, its closing bracket and a blank.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with(['T', 't']))
}

/// A short lock around a change of a file that several processes write: waits a little, then says so.
#[derive(Debug)]
pub(crate) struct ChangeLock {
    _file: LockFile,
}

impl ChangeLock {
    pub(crate) fn take(path: &Path) -> Result<Self, LocalError> {
        const PAUSE_MS: u64 = 10;
        const TRIES: u32 = 1000;
        let file = open(path)?;
        for _ in 0..TRIES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    std::thread::sleep(std::time::Duration::from_millis(PAUSE_MS));
                }
                Err(error) => return Err(on("lock", path)(error)),
            }
        }
        Err(LocalError::Busy { path: path.into(), holder: "another process, for longer than a change takes".into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p12_the_lock_is_granted_once_even_inside_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.lock");
        let held = WorkerLock::take(path.clone()).unwrap();
        let refused = WorkerLock::take(path.clone()).unwrap_err();
        assert!(matches!(&refused, LocalError::Busy { holder, .. } if holder.contains("this one")), "{refused:?}");
        assert!(refused.to_string().contains(&std::process::id().to_string()));
        // POSIX locks vanish when any descriptor of the file is closed: ours does not.
        drop(File::open(&path).unwrap());
        assert!(WorkerLock::take(path.clone()).is_err());
        drop(held);
        WorkerLock::take(path).unwrap();
    }

    #[test]
    fn p12_who_cannot_be_asked_is_not_dead() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.lock");
        assert_eq!(WorkerLock::held_by(&path), None, "no file");
        assert_eq!(WorkerLock::held_by(&dir.path().join("nowhere").join("worker.lock")), None, "no folder");
        let held = WorkerLock::take(path.clone()).unwrap();
        assert!(WorkerLock::held_by(&path).unwrap().contains("this one"));
        // Whatever else the kernel says to the open (no descriptor left, no right to): here a loop of links, which no user passes.
        let unreadable = dir.path().join("loop.lock");
        std::os::unix::fs::symlink(&unreadable, &unreadable).unwrap();
        let holder = WorkerLock::held_by(&unreadable).unwrap();
        assert!(holder.starts_with("somebody unknown"), "{holder}");
        drop(held);
        assert_eq!(WorkerLock::held_by(&path), None, "nobody holds it");
    }

    #[test]
    fn p12_a_lock_whose_file_was_removed_knows_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.lock");
        let held = WorkerLock::take(path.clone()).unwrap();
        assert!(held.is_at_its_place().unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!held.is_at_its_place().unwrap());
        let _other = WorkerLock::take(path).unwrap();
        assert!(!held.is_at_its_place().unwrap());
    }

    #[test]
    fn p12_nobody_is_elected_by_a_lock_on_a_file_that_was_removed_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.lock");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let Ok(lock) = WorkerLock::take(path.clone()) else { continue };
                        // Only whoever holds the lock removes the file here, so a fresh holder's is in its place.
                        assert!(lock.is_at_its_place().unwrap(), "elected by a file that nobody can find");
                        std::fs::remove_file(&path).unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn of_racing_threads_one_is_elected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.lock");
        for _ in 0..20 {
            let barrier = std::sync::Barrier::new(8);
            let elected: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            WorkerLock::take(path.clone()).ok()
                        })
                    })
                    .collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(elected.len(), 1);
        }
    }
}
