//! Giving parts of a database's file back to the disk.
//!
//! A descriptor of ours on a database file is never closed: that would drop SQLite's locks on it (rule S9). So there is one for each
//! file that was ever evicted from, kept for the process's life.

use rustix::fs::{FallocateFlags, fallocate};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

static KEPT: Mutex<Option<HashMap<FileId, &'static File>>> = Mutex::new(None);

/// Which file it is, whatever its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(u64, u64);

impl FileId {
    /// The file that has a name now. `None` where none has.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|found| Self(found.dev(), found.ino()))
    }
}

/// A file that parts are given back of.
#[derive(Clone, Copy, Debug)]
pub struct Holes {
    file: &'static File,
}

impl Holes {
    /// The file that had this name when it was opened.
    pub fn of(path: &Path, id: FileId) -> io::Result<Self> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.get_or_insert_default();
        if let Some(file) = kept.get(&id) {
            return Ok(Self { file });
        }
        if FileId::of(path) != Some(id) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "another file has its name now"));
        }
        // Kept before anything else is asked of it: from here on it must not be closed.
        let file: &'static File = Box::leak(Box::new(OpenOptions::new().read(true).write(true).open(path)?));
        let found = file.metadata()?;
        let opened = FileId(found.dev(), found.ino());
        kept.insert(opened, file);
        if opened == id {
            Ok(Self { file })
        } else {
            Err(io::Error::new(io::ErrorKind::NotFound, "another file has its name now"))
        }
    }

    /// Gives bytes back: they read as zeros afterwards, and take no room.
    pub fn punch(&self, bytes: Range<u64>) -> io::Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(self.file, how, bytes.start, bytes.end.saturating_sub(bytes.start))?)
    }
}

/// Bytes of the disk that a file takes. Zero where there is none.
pub fn bytes_on_disk(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_takes_no_room_and_one_descriptor_is_kept_for_each_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        let id = FileId::of(&path).unwrap();
        let holes = Holes::of(&path, id).unwrap();
        let before = bytes_on_disk(&path);
        holes.punch(4096..1 << 19).unwrap();
        assert!(bytes_on_disk(&path) <= before - (1 << 19) + 8192, "{before} before");
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes.len(), bytes[4095], bytes[4096], bytes[1 << 19]), (1 << 20, 7, 0, 7));
        assert!(std::ptr::eq(Holes::of(&path, id).unwrap().file, holes.file));

        // Another file under the same name is another one's to punch.
        std::fs::rename(&path, dir.path().join("b.db")).unwrap();
        std::fs::write(&path, vec![9; 8192]).unwrap();
        assert!(std::ptr::eq(Holes::of(&path, id).unwrap().file, holes.file), "known by what it is, not by its name");
        std::fs::write(dir.path().join("c.db"), b"c").unwrap();
        let third = FileId::of(&dir.path().join("c.db")).unwrap();
        assert!(Holes::of(&path, third).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), vec![9; 8192]);
    }
}
