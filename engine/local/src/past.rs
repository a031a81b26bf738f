//! Files of the past: pages of a volume's earlier states as they were read, kept in the store for whoever opens the same state again.
//!
//! What this room promises:
//! 1. One file for each state of each volume, named after both, shared by all processes. What of it is here its bitmap says, beside it.
//! 2. A file that somebody has open stays. Of the others up to [`PAST_FILES_MAX`] stay that take up to [`PAST_BYTES_MAX`] together: those
//!    that were used last. The others go when the next one is opened.
//! 3. All of it may be deleted at any time when nobody has it open: it is fetched again.
//!
//! What may never enter: which state a moment means, and where its pages come from.
//!
//! [`PAST_FILES_MAX`]: littoral_types::limits::PAST_FILES_MAX
//! [`PAST_BYTES_MAX`]: littoral_types::limits::PAST_BYTES_MAX

use crate::durable::{create_dirs, remove_if_there};
use crate::error::{LocalError, on};
use crate::inherited::LockFile;
use crate::tracker::residency::{self, Opening, Origin, Residency, materialise};
use littoral_types::limits::{PAST_BYTES_MAX, PAST_FILES_MAX};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const FOLDER: &str = "past";
const FILE: &str = "db";
const BITMAP: &str = residency::SUFFIX;

/// The files of the past of one store.
#[derive(Debug)]
pub struct PastFiles {
    folder: PathBuf,
}

/// One of them, open: it stays as long as this lives.
#[derive(Debug)]
pub struct PastFile {
    /// The file.
    pub path: PathBuf,
    /// Its bitmap's file.
    pub sidecar: PathBuf,
    /// Which pages are here.
    pub residency: Residency,
}

impl PastFiles {
    /// Those of a store.
    pub fn of(store_root: &Path) -> Self {
        Self { folder: store_root.join(FOLDER) }
    }

    /// Where the file of a state lies. A commit is one state of its volume for ever, whoever's term tells of it.
    pub fn path_of(&self, origin: &Origin) -> PathBuf {
        self.folder.join(format!("{}-{}.{FILE}", origin.volume, origin.position.lsn))
    }

    /// Opens the file of a state, made where there is none; files that nobody uses any more go.
    pub fn open(&self, origin: &Origin, magic: &[u8; 16]) -> Result<PastFile, LocalError> {
        create_dirs(&self.folder)?;
        // One at a time makes, opens and removes.
        let _right = Opening::wait(&self.folder.join("files"))?;
        let path = self.path_of(origin);
        let sidecar = path.with_extension(BITMAP);
        let residency = match attached(&path, &sidecar, origin)? {
            Some(residency) => residency,
            None => {
                remove(&path)?;
                materialise(&path, magic, origin.page_count.0 * origin.page_size.bytes())?;
                Residency::create(&sidecar, origin)?;
                attached(&path, &sidecar, origin)?.ok_or_else(|| LocalError::Corrupt {
                    path: sidecar.clone(),
                    detail: "it was made a moment ago and says something else".to_owned(),
                })?
            }
        };
        used_now(&sidecar);
        self.sweep()?;
        Ok(PastFile { path, sidecar, residency })
    }

    /// Removes what nobody has open, beyond the bounds.
    fn sweep(&self) -> Result<(), LocalError> {
        let mut idle: Vec<(SystemTime, PathBuf, u64, LockFile)> = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(on("list", &self.folder))? {
            let path = entry.map_err(on("list", &self.folder))?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                // Made by who died before its bitmap was.
                Some(FILE) if !path.with_extension(BITMAP).exists() => remove_if_there(&path)?,
                Some(BITMAP) => {
                    let Ok(sidecar) = LockFile::open_to_read(&path) else { continue };
                    // Whoever has it open holds a lock on it, which dies with its owner.
                    if flock(&sidecar, FlockOperation::NonBlockingLockExclusive).is_err() {
                        continue;
                    }
                    let file = path.with_extension(FILE);
                    let bytes = std::fs::metadata(&file).map_or(0, |found| found.blocks() * 512);
                    let used = sidecar.metadata().and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                    idle.push((used, file, bytes, sidecar));
                }
                _ => {}
            }
        }
        idle.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let mut total = 0;
        for (nth, (_, file, bytes, _held)) in idle.iter().enumerate() {
            total += bytes;
            if nth >= PAST_FILES_MAX || total > PAST_BYTES_MAX {
                remove(file)?;
            }
        }
        Ok(())
    }
}

/// Attaches to a bitmap that is of this state and has its file.
fn attached(path: &Path, sidecar: &Path, origin: &Origin) -> Result<Option<Residency>, LocalError> {
    let bytes = origin.page_count.0 * origin.page_size.bytes();
    if !std::fs::metadata(path).is_ok_and(|found| found.len() == bytes) {
        return Ok(None);
    }
    let residency = match Residency::attach(sidecar) {
        Ok(residency) => residency,
        // Fetched again, as if it were not there.
        Err(LocalError::Corrupt { .. }) => None,
        Err(error) => return Err(error),
    };
    let is_same = |found: &Residency| {
        let found = found.origin();
        let (there, here) = (found.position.lsn, origin.position.lsn);
        (found.volume, there, found.page_size, found.page_count)
            == (origin.volume, here, origin.page_size, origin.page_count)
    };
    Ok(residency.filter(is_same))
}

/// First what says that something is here.
fn remove(file: &Path) -> Result<(), LocalError> {
    let sidecar = file.with_extension(BITMAP);
    remove_if_there(&sidecar)?;
    let mut lock = sidecar.into_os_string();
    lock.push(".lock");
    remove_if_there(Path::new(&lock))?;
    remove_if_there(file)
}

fn used_now(sidecar: &Path) {
    let noted = File::open(sidecar).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = noted {
        tracing::debug!(%error, "that it is used now is not noted: it may go before others");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::{Epoch, Lsn, PageCount, PageNo, PageSize, Position, VolumeId};
    use std::io::Read;

    const MAGIC: [u8; 16] = [7; 16];

    fn origin(lsn: u64) -> Origin {
        Origin {
            volume: VolumeId([3; 16]),
            position: Position { epoch: Epoch(1), lsn: Lsn(lsn) },
            page_size: PageSize::new(4096).unwrap(),
            page_count: PageCount(10),
        }
    }

    fn page(number: u64) -> PageNo {
        PageNo::new(number).unwrap()
    }

    fn there(store: &Path) -> Vec<u64> {
        let files = PastFiles::of(store);
        (0..100).filter(|lsn| files.path_of(&origin(*lsn)).exists()).collect()
    }

    #[test]
    fn what_is_here_is_found_again_and_what_is_another_state_is_not() {
        let store = tempfile::tempdir().unwrap();
        let files = PastFiles::of(store.path());
        let first = files.open(&origin(5), &MAGIC).unwrap();
        first.residency.set_here(&first.residency.installing().unwrap(), page(3));
        let again = files.open(&origin(5), &MAGIC).unwrap();
        assert!(again.residency.is_here(page(3)) && !again.residency.is_here(page(4)));
        drop((first, again));
        // Another term tells of the same commit.
        let same = Origin { position: Position { epoch: Epoch(2), lsn: Lsn(5) }, ..origin(5) };
        assert!(files.open(&same, &MAGIC).unwrap().residency.is_here(page(3)));
        // A file whose bitmap says another size, and one without its bitmap: both anew.
        let other = Origin { page_count: PageCount(11), ..origin(5) };
        assert!(!files.open(&other, &MAGIC).unwrap().residency.is_here(page(3)));
        let file = files.open(&origin(6), &MAGIC).unwrap();
        file.residency.set_here(&file.residency.installing().unwrap(), page(1));
        std::fs::remove_file(&file.path).unwrap();
        drop(file);
        assert!(!files.open(&origin(6), &MAGIC).unwrap().residency.is_here(page(1)), "its pages went with its file");
        std::fs::write(files.path_of(&origin(7)).with_extension(BITMAP), b"damaged").unwrap();
        std::fs::write(files.path_of(&origin(7)), vec![1; 40_960]).unwrap();
        let anew = files.open(&origin(7), &MAGIC).unwrap();
        assert!(!anew.residency.is_here(page(1)));
        let mut begins = [0; 16];
        File::open(&anew.path).unwrap().read_exact(&mut begins).unwrap();
        assert_eq!(begins, MAGIC);
    }

    #[test]
    fn i07_files_that_nobody_uses_are_bounded_and_what_is_open_stays() {
        let store = tempfile::tempdir().unwrap();
        let files = PastFiles::of(store.path());
        let held = files.open(&origin(1), &MAGIC).unwrap();
        for lsn in 2..30 {
            drop(files.open(&origin(lsn), &MAGIC).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        // The one just opened is open, too, when others are counted.
        let newest: Vec<u64> = (30 - PAST_FILES_MAX as u64 - 1..30).collect();
        assert_eq!(there(store.path()), [vec![1], newest].concat());
        drop(held);
        drop(files.open(&origin(40), &MAGIC).unwrap());
        assert!(!there(store.path()).contains(&1), "the oldest of those that nobody uses goes");
        let left = std::fs::read_dir(store.path().join(FOLDER)).unwrap().count();
        assert!(left <= 3 * (PAST_FILES_MAX + 1) + 2, "{left} files are left");
    }

    #[test]
    fn those_that_open_and_remove_at_once_are_in_nobodys_way() {
        let store = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for seed in 0..4_u64 {
                let files = PastFiles::of(store.path());
                scope.spawn(move || {
                    for round in 0..60 {
                        let origin = origin((seed * 7 + round * round) % 20);
                        let file = files.open(&origin, &MAGIC).unwrap();
                        file.residency.set_here(&file.residency.installing().unwrap(), page(1 + round % 10));
                        assert!(file.path.exists() && file.sidecar.exists());
                        assert!(file.residency.is_here(page(1 + round % 10)));
                    }
                });
            }
        });
    }
}
