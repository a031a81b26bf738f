//! Files that are there whole, or as they were before (rule P15).

use crate::error::{LocalError, on};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes names that were made or removed in a directory survive a power loss.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), LocalError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(on("sync the directory", dir))
}

/// The directory a file is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The file's path with something behind its name, as SQLite names its journals.
pub(crate) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes a directory and what lies above it, each durable in its parent.
pub(crate) fn create_dirs(dir: &Path) -> Result<(), LocalError> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = parent(dir);
    if above != dir {
        create_dirs(above)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => sync_dir(above),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(on("create the directory", dir)(error)),
    }
}

/// Replaces a file by these bytes: a reader, now or after a power loss, sees the old ones or the new ones.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), LocalError> {
    let temporary = write_beside(path, bytes)?;
    let renamed = fs::rename(&temporary, path).map_err(on("rename into place", path));
    after_rename(path, &temporary, renamed)
}

/// Writes a file that must not be there yet. False when it was: nothing was changed.
pub(crate) fn create_new(path: &Path, bytes: &[u8]) -> Result<bool, LocalError> {
    let temporary = write_beside(path, bytes)?;
    match rename_new(&temporary, path) {
        Ok(true) => after_rename(path, &temporary, Ok(())).map(|()| true),
        Ok(false) => {
            remove_if_there(&temporary)?;
            Ok(false)
        }
        Err(error) => after_rename(path, &temporary, Err(error)).map(|()| false),
    }
}

fn write_beside(path: &Path, bytes: &[u8]) -> Result<PathBuf, LocalError> {
    // Process and number keep writers apart, also those of one process; a dead one's leftover is written over.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = suffixed(path, &format!(".{}-{number}.tmp", std::process::id()));
    let written = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            // What could not be written must not lie around; the first error is the one to tell.
            let _ = fs::remove_file(&temporary);
            Err(on("write", path)(error))
        }
    }
}

fn after_rename(path: &Path, temporary: &Path, renamed: Result<(), LocalError>) -> Result<(), LocalError> {
    match renamed {
        Ok(()) => sync_dir(parent(path)),
        Err(error) => {
            let _ = fs::remove_file(temporary);
            Err(error)
        }
    }
}

/// Gives a file a name that nothing has. False when something has it.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<bool, LocalError> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // File systems without this flag have hard links that refuse just the same.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from).map(|()| true).map_err(on("remove", from)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(on("link into place", to)(error)),
        },
        Err(error) => Err(on("rename into place", to)(error)),
    }
}

/// Removes a file; one that is not there is no error.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), LocalError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(on("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_a_new_one_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/file");
        create_dirs(path.parent().unwrap()).unwrap();
        create_dirs(path.parent().unwrap()).unwrap();
        assert!(create_new(&path, b"one").unwrap());
        assert!(!create_new(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_directory_that_is_a_file_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"mine").unwrap();
        assert!(create_dirs(&path).is_err());
        assert!(create_dirs(&path.join("below")).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
