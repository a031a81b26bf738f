//! What was uploaded and is still to go to other object stores: `spool/` in the store, a file for each object.
//!
//! What this room promises:
//! 1. It is a convenience: what is not here, or is not what its name says, is read from the primary. Nothing waits for it, and losing it
//!    costs requests.
//! 2. It is bounded, in bytes and in files. What does not fit is not kept.
//! 3. A file appears whole. A blob that was staged is not written again: the file gets a second name.
//!
//! What may never enter: whether what a file holds is part of any log.

use crate::error::{LocalError, on};
use bytes::Bytes;
use littoral_format::hash::{self, BlobHasher};
use littoral_ports::BlobBody;
use littoral_types::limits::{SPOOL_BYTES_MAX, SPOOL_FILES_MAX};
use littoral_types::{BlobHash, ByteSpan, ObjectPath};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Its name in the store.
const NAME: &str = "spool";
/// What is read at once.
const STEP: u64 = 1 << 20;
/// Parts of an object's path stand side by side: no path holds this.
const BETWEEN: &str = "+";
/// What ends so is being written.
const PARTIAL: &str = ".partial";

/// A store's spool.
#[derive(Clone, Debug)]
pub struct Spool {
    dir: PathBuf,
    bytes_max: u64,
}

impl Spool {
    /// That of a store, of which local room is bounded so.
    pub fn of(root: &Path, room: Option<u64>) -> Self {
        Self::at(root.join(NAME), room.map_or(SPOOL_BYTES_MAX, |room| (room / 8).min(SPOOL_BYTES_MAX)))
    }

    /// One in a folder of its own.
    pub fn at(dir: PathBuf, bytes_max: u64) -> Self {
        Self { dir, bytes_max }
    }

    fn path(&self, object: &ObjectPath) -> PathBuf {
        self.dir.join(object.as_str().replace('/', BETWEEN))
    }

    /// Keeps an object's bytes, where there is room. Whether it did.
    pub fn keep(&self, object: &ObjectPath, body: &dyn BlobBody) -> Result<bool, LocalError> {
        let path = self.path(object);
        if path.exists() {
            return Ok(true);
        }
        fs::create_dir_all(&self.dir).map_err(on("create the directory", &self.dir))?;
        let (files, bytes) = self.taken()?;
        if files >= SPOOL_FILES_MAX || bytes.saturating_add(body.len()) > self.bytes_max {
            return Ok(false);
        }
        // What was staged gets a second name, and goes when both are gone.
        if body.file().is_some_and(|staged| fs::hard_link(staged, &path).is_ok()) {
            return Ok(true);
        }
        let mut writer = self.writer(object)?;
        let mut offset = 0;
        while offset < body.len() {
            let span = ByteSpan { offset, len: STEP.min(body.len() - offset) };
            writer.write(&body.read(span).map_err(on("read what is to be kept for", &path))?)?;
            offset += span.len;
        }
        writer.finish()?;
        Ok(true)
    }

    /// Keeps small bytes.
    pub fn keep_bytes(&self, object: &ObjectPath, bytes: &Bytes) -> Result<bool, LocalError> {
        self.keep(object, &Short { bytes: bytes.clone(), crc64: hash::crc64(bytes) })
    }

    /// Begins a file that was fetched: it is to be had whatever room there is, and its reader removes it.
    pub fn writer(&self, object: &ObjectPath) -> Result<SpoolWriter, LocalError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.dir).map_err(on("create the directory", &self.dir))?;
        let path = self.path(object);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let partial = PathBuf::from(format!("{}.{}-{number}{PARTIAL}", path.display(), std::process::id()));
        let file = File::create(&partial).map_err(on("create", &partial))?;
        Ok(SpoolWriter { path, partial, file, len: 0, is_done: false })
    }

    /// What is kept of an object, with what it hashes to.
    pub fn open(&self, object: &ObjectPath) -> Result<Option<SpoolFile>, LocalError> {
        SpoolFile::open(&self.path(object))
    }

    /// The first bytes of what is kept of an object.
    pub fn begins(&self, object: &ObjectPath, len: usize) -> Option<Vec<u8>> {
        use std::io::Read as _;
        let mut bytes = Vec::with_capacity(len);
        File::open(self.path(object)).ok()?.take(len as u64).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// All that is kept of an object.
    pub fn read(&self, object: &ObjectPath) -> Option<Bytes> {
        fs::read(self.path(object)).ok().map(Bytes::from)
    }

    /// It is everywhere by now.
    pub fn remove(&self, object: &ObjectPath) {
        // One that stays goes with the next sweep.
        let _ = fs::remove_file(self.path(object));
    }

    /// Lets go of everything.
    pub fn clear(&self) {
        let _ = fs::remove_dir_all(&self.dir);
    }

    /// Lets go of what nobody came for within this time: what no record names, and what was cut off. How many files that were.
    pub fn sweep(&self, older_than: Duration) -> u64 {
        let Ok(entries) = fs::read_dir(&self.dir) else { return 0 };
        let now = SystemTime::now();
        let is_old = |path: &Path| {
            let modified = fs::metadata(path).and_then(|found| found.modified());
            modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > older_than))
        };
        let old = entries.flatten().map(|entry| entry.path()).filter(|path| is_old(path));
        old.filter(|path| fs::remove_file(path).is_ok()).count() as u64
    }

    /// Files and bytes that are kept.
    pub fn taken(&self) -> Result<(usize, u64), LocalError> {
        match fs::read_dir(&self.dir) {
            Ok(entries) => {
                let lens = entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|found| found.len());
                Ok(lens.fold((0, 0), |(files, bytes), len| (files + 1, bytes + len)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((0, 0)),
            Err(error) => Err(on("list", &self.dir)(error)),
        }
    }
}

/// A file that is being written. Dropped before it is finished, it is removed.
#[derive(Debug)]
pub struct SpoolWriter {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    len: u64,
    is_done: bool,
}

impl SpoolWriter {
    /// Appends.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), LocalError> {
        self.file.write_all_at(bytes, self.len).map_err(on("write", &self.partial))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Makes it one that is kept.
    pub fn finish(mut self) -> Result<(), LocalError> {
        fs::rename(&self.partial, &self.path).map_err(on("rename into place", &self.path))?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// What is kept of an object: its bytes stay what they are, readable from any thread.
#[derive(Debug)]
pub struct SpoolFile {
    file: File,
    len: u64,
    hash: BlobHash,
    crc64: u64,
}

impl SpoolFile {
    fn open(path: &Path) -> Result<Option<Self>, LocalError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(on("open", path)(error)),
        };
        let len = file.metadata().map_err(on("look at", path))?.len();
        let mut hasher = BlobHasher::new();
        let mut buffer = vec![0; usize::try_from(STEP.min(len)).unwrap_or(0)];
        let mut offset = 0;
        while offset < len {
            let step = usize::try_from((len - offset).min(STEP)).unwrap_or(0);
            let part = buffer.get_mut(..step).unwrap_or_default();
            file.read_exact_at(part, offset).map_err(on("read", path))?;
            hasher.update(part);
            offset += step as u64;
        }
        let (hash, crc64) = hasher.finish();
        Ok(Some(Self { file, len, hash, crc64 }))
    }

    /// BLAKE3 of its bytes.
    pub fn hash(&self) -> BlobHash {
        self.hash
    }
}

impl BlobBody for SpoolFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn crc64(&self) -> u64 {
        self.crc64
    }

    fn read(&self, span: ByteSpan) -> io::Result<Bytes> {
        let beyond = || io::Error::from(io::ErrorKind::UnexpectedEof);
        if span.end().is_none_or(|end| end > self.len) {
            return Err(beyond());
        }
        let mut bytes = vec![0; usize::try_from(span.len).map_err(|_| beyond())?];
        self.file.read_exact_at(&mut bytes, span.offset)?;
        Ok(bytes.into())
    }
}

#[derive(Debug)]
struct Short {
    bytes: Bytes,
    crc64: u64,
}

impl BlobBody for Short {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn crc64(&self) -> u64 {
        self.crc64
    }

    fn read(&self, span: ByteSpan) -> io::Result<Bytes> {
        let beyond = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let start = usize::try_from(span.offset).map_err(|_| beyond())?;
        let end = span.end().and_then(|end| usize::try_from(end).ok()).filter(|end| *end <= self.bytes.len());
        Ok(self.bytes.slice(start..end.ok_or_else(beyond)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str) -> ObjectPath {
        ObjectPath::parse(name).unwrap()
    }

    #[test]
    fn what_is_kept_is_read_back_with_its_hash_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::of(dir.path(), None);
        let (one, bytes) = (at("app.db/pack/one"), Bytes::from(vec![7; 3 << 20]));
        assert!(spool.open(&one).unwrap().is_none());
        assert!(spool.keep_bytes(&one, &bytes).unwrap());
        let file = spool.open(&one).unwrap().unwrap();
        assert_eq!((file.hash(), file.len()), (hash::blob(&bytes), bytes.len() as u64));
        assert_eq!(file.crc64(), hash::crc64(&bytes));
        assert_eq!(file.read(ByteSpan { offset: 1 << 20, len: 9 }).unwrap(), bytes.slice(0..9));
        assert!(file.read(ByteSpan { offset: 3 << 20, len: 1 }).is_err());
        assert_eq!(spool.begins(&one, 4).unwrap(), [7; 4]);
        spool.remove(&one);
        assert!(spool.read(&one).is_none());
        assert_eq!(spool.taken().unwrap(), (0, 0));
    }

    #[test]
    fn a_spool_that_is_full_keeps_no_more_and_takes_no_more_than_an_eighth_of_a_quota() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::of(dir.path(), Some(8_000));
        assert!(spool.keep_bytes(&at("v/log/1"), &Bytes::from(vec![1; 600])).unwrap());
        assert!(!spool.keep_bytes(&at("v/log/2"), &Bytes::from(vec![1; 600])).unwrap());
        assert!(spool.keep_bytes(&at("v/log/3"), &Bytes::from(vec![1; 400])).unwrap());
        assert_eq!(spool.taken().unwrap(), (2, 1_000));
    }

    #[test]
    fn what_was_cut_off_is_no_object_and_what_nobody_came_for_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::of(dir.path(), None);
        let mut writer = spool.writer(&at("v/log/1")).unwrap();
        writer.write(b"half").unwrap();
        assert!(spool.read(&at("v/log/1")).is_none());
        drop(writer);
        assert_eq!(spool.taken().unwrap(), (0, 0));
        spool.keep_bytes(&at("v/log/1"), &Bytes::from_static(b"whole")).unwrap();
        assert_eq!(spool.sweep(Duration::from_secs(60)), 0);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(spool.sweep(Duration::from_millis(1)), 1);
    }
}
