//! Who reads which state: a file for each connection that reads, with the state in it, locked as long as its process lives.
//!
//! A pin is set in the manner of a hazard pointer: it is written, then the newest state is looked at again. Whoever makes a newer state
//! the newest says so before it looks at the pins. So a pin that holds is always seen.

use crate::error::{LocalError, on};
use crate::tracker::{allocate, map::Map};
use littoral_types::Seq;
use rustix::fs::{FlockOperation, fcntl_lock};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

const BYTES: u64 = 4096;
const FOLDER: &str = "pins";

/// Tells this process's pins from all others', whatever its number is elsewhere.
fn tag() -> String {
    static RANDOM: OnceLock<u64> = OnceLock::new();
    let random = RANDOM.get_or_init(|| {
        use std::hash::{BuildHasher, Hasher};
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    });
    format!("{}-{random:016x}-", std::process::id())
}

/// This process's own, and its parent's where it is a forked child.
static OWN: Mutex<Vec<(PathBuf, Arc<Map>)>> = Mutex::new(Vec::new());

/// One connection's.
#[derive(Debug)]
pub struct Pin {
    path: PathBuf,
    process: u32,
    word: Arc<Map>,
    /// Locked. A POSIX lock dies with its process, whatever children it has.
    _file: File,
}

impl Pin {
    /// A new one that reads nothing yet.
    pub(super) fn create(edition: &Path) -> Result<Self, LocalError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let dir = edition.join(FOLDER);
        let name = format!("{}{}", tag(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // It gets its name when it is locked: nobody finds it free before.
        let fresh = dir.join(format!("new-{name}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&fresh);
        let file = file.map_err(on("create", &fresh))?;
        let made = || {
            allocate(&file, BYTES).map_err(on("allocate", &fresh))?;
            fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(on("lock", &fresh))?;
            let word = Map::new(&file, 0, BYTES as usize).map_err(on("map", &fresh))?;
            let path = dir.join(name);
            fs::rename(&fresh, &path).map_err(on("rename", &path))?;
            Ok((path, word))
        };
        match made() {
            Ok((path, word)) => {
                let word = Arc::new(word);
                OWN.lock().unwrap_or_else(PoisonError::into_inner).push((path.clone(), word.clone()));
                Ok(Self { path, process: std::process::id(), word, _file: file })
            }
            Err(error) => {
                let _ = fs::remove_file(&fresh);
                Err(error)
            }
        }
    }

    /// Reads this state, if it is still the newest one afterwards.
    pub(super) fn set(&self, state: Seq) {
        self.word.word(0).store(state.0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Reads nothing.
    pub fn clear(&self) {
        self.word.word(0).store(0, Ordering::SeqCst);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        // A forked child has a copy, which is its parent's.
        if self.process == std::process::id() {
            self.clear();
            let _ = fs::remove_file(&self.path);
            OWN.lock().unwrap_or_else(PoisonError::into_inner).retain(|(path, _)| *path != self.path);
        }
    }
}

/// The states that live processes read, ascending; what the dead left is removed.
pub(super) fn pinned(edition: &Path) -> Result<Vec<Seq>, LocalError> {
    fence(Ordering::SeqCst);
    let dir = edition.join(FOLDER);
    let ours = tag();
    let is_own =
        |path: &Path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&ours));
    let own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    let own = own.iter().filter(|(path, _)| path.parent() == Some(&dir) && is_own(path));
    let mut pinned: Vec<Seq> =
        own.map(|(_, word)| word.word(0).load(Ordering::SeqCst)).filter(|state| *state != 0).map(Seq).collect();
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(pinned),
        entries => entries.map_err(on("read", &dir))?,
    };
    for entry in entries {
        let entry = entry.map_err(on("read", &dir))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with("new-")) else { continue };
        // Closing a second descriptor of our own would drop its lock.
        if name.starts_with(&ours) {
            continue;
        }
        let path = entry.path();
        let mut state = [0; 8];
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            // It went meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(on("open", &path)(error)),
        };
        if fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // Its process is dead.
            let _ = fs::remove_file(&path);
            continue;
        }
        file.read_exact_at(&mut state, 0).map_err(on("read", &path))?;
        let state = u64::from_ne_bytes(state);
        if state != 0 {
            pinned.push(Seq(state));
        }
    }
    pinned.sort_unstable();
    Ok(pinned)
}
