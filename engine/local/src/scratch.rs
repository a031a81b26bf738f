//! Where blobs are staged before they are uploaded: `checkpoint_scratch/{volume}-{birth}/{input}`.
//!
//! Nothing here is synced to the disk, and nothing that an earlier attempt left here is used again: what was uploaded the
//! manifest knows, the rest is staged anew, which costs work and never content. What may rest on staged bytes (a record) is
//! published after their upload. So all that lies here counts against the quota, while somebody works.

use crate::durable::{remove_if_there, suffixed};
use crate::error::{LocalError, on};
use crate::lock::WorkerLock;
use bytes::Bytes;
use littoral_format::hash::BlobHasher;
use littoral_ports::{BlobBody, Quota, Reservation};
use littoral_types::{BlobHash, ByteSpan, Seq, VolumeId};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are gathered before they are reserved, hashed and written.
const STEP: usize = 1 << 20;

/// All jobs' directories of one store.
#[derive(Clone, Debug)]
pub struct Scratch {
    dir: PathBuf,
    /// Where the locks are of those who stage beside the store's worker.
    marks: PathBuf,
    quota: Arc<dyn Quota>,
}

impl Scratch {
    pub(crate) fn new(dir: PathBuf, marks: PathBuf, quota: Arc<dyn Quota>) -> Self {
        Self { dir, marks, quota }
    }

    /// How much may lie here, all jobs together.
    pub fn room(&self) -> u64 {
        self.quota.limit()
    }

    /// The directory of the job that a volume runs since this birth, made where it is missing.
    pub fn job(&self, volume: &VolumeId, birth: Seq) -> Result<JobDir, LocalError> {
        let dir = self.dir.join(format!("{volume}-{birth}"));
        fs::create_dir_all(&dir).map_err(on("create the directory", &dir))?;
        Ok(JobDir { dir, quota: Arc::clone(&self.quota) })
    }

    /// The directory of who stages beside the store's worker, for as long as he holds this mark. Made where it is missing.
    pub fn job_beside(&self, volume: &VolumeId, birth: Seq, mark: &str) -> Result<JobDir, LocalError> {
        let dir = self.dir.join(format!("{volume}-{birth}-{mark}"));
        fs::create_dir_all(&dir).map_err(on("create the directory", &dir))?;
        Ok(JobDir { dir, quota: Arc::clone(&self.quota) })
    }

    /// Removes the directories of all jobs but those of who stages beside the worker and lives; how many. Only for the store's worker,
    /// before a job begins: nobody else has any.
    pub fn sweep(&self) -> Result<u64, LocalError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.quota.swept();
                return Ok(0);
            }
            Err(error) => return Err(on("list", &self.dir)(error)),
        };
        let mut swept = 0;
        for entry in entries {
            let path = entry.map_err(on("list", &self.dir))?.path();
            // What does not bear a job's name is not ours to remove.
            let Some((_, _, mark)) = path.file_name().and_then(|name| job_of(name.to_str()?)) else { continue };
            let lives = |mark: String| WorkerLock::held_by(&mark_of(&self.marks, &mark)).is_some();
            if !mark.is_some_and(lives) {
                fs::remove_dir_all(&path).map_err(on("remove", &path))?;
                swept += 1;
            }
        }
        self.quota.swept();
        Ok(swept)
    }
}

fn job_of(name: &str) -> Option<(VolumeId, Seq, Option<String>)> {
    let (volume, rest) = name.split_once('-')?;
    let (birth, mark) = match rest.split_once('-') {
        Some((birth, mark)) => (birth, Some(mark.to_owned())),
        None => (rest, None),
    };
    Some((VolumeId::from_hex(volume)?, Seq(birth.parse().ok()?), mark))
}

/// The lock of this name in a folder of such.
pub(crate) fn mark_of(marks: &Path, mark: &str) -> PathBuf {
    marks.join(format!("{mark}.lock"))
}

/// One job's directory.
#[derive(Clone, Debug)]
pub struct JobDir {
    dir: PathBuf,
    quota: Arc<dyn Quota>,
}

impl JobDir {
    /// Begins to stage the blob that comes of this input. What was staged of it before is replaced when it is finished.
    pub fn begin(&self, input: &[u8; 32]) -> Result<StagedWriter, LocalError> {
        let path = self.path(input);
        let partial = suffixed(&path, ".part");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&partial);
        Ok(StagedWriter {
            file: options.map_err(on("create", &partial))?,
            path,
            partial,
            buffer: Vec::with_capacity(STEP),
            len: 0,
            hasher: BlobHasher::new(),
            quota: Arc::clone(&self.quota),
            held: Vec::new(),
            finished: false,
        })
    }

    /// The blob that was staged of this input, if it is all there and is what it was: else it is removed, and must be
    /// staged again.
    pub fn open(&self, input: &[u8; 32], hash: &BlobHash, len: u64) -> Result<Option<StagedFile>, LocalError> {
        let path = self.path(input);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(on("open", &path)(error)),
        };
        if file.metadata().map_err(on("look at", &path))?.len() != len {
            remove_if_there(&path)?;
            return Ok(None);
        }
        let held = vec![self.quota.reserve(WHAT, len)?];
        let mut hasher = BlobHasher::new();
        let mut buffer = vec![0; STEP];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(on("read", &path)(error)),
            }
        }
        let (found, crc64) = hasher.finish();
        if found != *hash {
            remove_if_there(&path)?;
            return Ok(None);
        }
        Ok(Some(StagedFile { path, file, len, hash: found, crc64, _held: held }))
    }

    /// Removes it and all that is in it: the job is done, or given up.
    pub fn remove(self) -> Result<(), LocalError> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(on("remove", &self.dir)(error)),
            _ => Ok(()),
        }
    }

    /// Where it is.
    pub fn path_of_dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, input: &[u8; 32]) -> PathBuf {
        self.dir.join(BlobHash(*input).to_string())
    }
}

/// What the quota is told.
const WHAT: &str = "checkpoint scratch";

/// A blob that is being staged. Dropped before it is finished, it is removed.
#[derive(Debug)]
pub struct StagedWriter {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    buffer: Vec<u8>,
    len: u64,
    hasher: BlobHasher,
    quota: Arc<dyn Quota>,
    held: Vec<Reservation>,
    finished: bool,
}

impl StagedWriter {
    /// Appends. After [`LocalError::Quota`] none of these bytes were taken: the same call may be made again later.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), LocalError> {
        if !self.buffer.is_empty() && self.buffer.len() + bytes.len() > STEP {
            self.flush()?;
        }
        if bytes.len() >= STEP {
            return self.write_through(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// How many bytes were appended: where the next ones will lie.
    pub fn offset(&self) -> u64 {
        self.len + self.buffer.len() as u64
    }

    /// Makes it a staged blob. Who wants to wait for the quota calls [`StagedWriter::flush`] first, as often as needed:
    /// then nothing is left to ask for here.
    pub fn finish(mut self) -> Result<StagedFile, LocalError> {
        self.flush()?;
        fs::rename(&self.partial, &self.path).map_err(on("rename into place", &self.path))?;
        self.finished = true;
        let file = self.file.try_clone().map_err(on("open", &self.path))?;
        let (hash, crc64) = std::mem::take(&mut self.hasher).finish();
        let held = std::mem::take(&mut self.held);
        Ok(StagedFile { path: self.path.clone(), file, len: self.len, hash, crc64, _held: held })
    }

    /// Hands what was gathered to the system. After [`LocalError::Quota`] it may be called again later.
    pub fn flush(&mut self) -> Result<(), LocalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.write_through(&buffer);
        self.buffer = buffer;
        written?;
        self.buffer.clear();
        Ok(())
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<(), LocalError> {
        let reservation = self.quota.reserve(WHAT, bytes.len() as u64)?;
        self.file.write_all_at(bytes, self.len).map_err(on("write", &self.partial))?;
        self.held.push(reservation);
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for StagedWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Whoever drops it is on the way out of an error already; the sweep gets what stays.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// A staged blob: its bytes stay what they are, readable from any thread. Its bytes count against the quota as long as this
/// lives; its file stays until it or its job is removed.
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
    file: File,
    len: u64,
    hash: BlobHash,
    crc64: u64,
    _held: Vec<Reservation>,
}

impl StagedFile {
    /// BLAKE3 of its bytes.
    pub fn hash(&self) -> BlobHash {
        self.hash
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it: the object store has it now.
    pub fn remove(self) -> Result<(), LocalError> {
        remove_if_there(&self.path)
    }
}

impl BlobBody for StagedFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn crc64(&self) -> u64 {
        self.crc64
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn read(&self, span: ByteSpan) -> io::Result<Bytes> {
        let beyond = || {
            let text = format!("{}: {span:?} of {} bytes", self.path.display(), self.len);
            io::Error::new(io::ErrorKind::UnexpectedEof, text)
        };
        if span.end().is_none_or(|end| end > self.len) {
            return Err(beyond());
        }
        let mut bytes = vec![0; usize::try_from(span.len).map_err(|_| beyond())?];
        self.file.read_exact_at(&mut bytes, span.offset)?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LocalQuota;
    use littoral_format::hash;

    fn scratch(dir: &Path, limit: u64) -> (Scratch, LocalQuota) {
        let quota = LocalQuota::new("store", limit);
        (Scratch::new(dir.join("checkpoint_scratch"), dir.join("lease_marks"), Arc::new(quota.clone())), quota)
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 131 + at / 7) as u8).collect()
    }

    fn stage(job: &JobDir, input: u8, content: &[u8], step: usize) -> StagedFile {
        let mut writer = job.begin(&[input; 32]).unwrap();
        for part in content.chunks(step) {
            let before = writer.offset();
            writer.write(part).unwrap();
            assert_eq!(writer.offset(), before + part.len() as u64);
        }
        writer.finish().unwrap()
    }

    #[test]
    fn a_staged_blob_is_what_was_written_whatever_the_steps() {
        let dir = tempfile::tempdir().unwrap();
        let (scratch, quota) = scratch(dir.path(), u64::MAX);
        let job = scratch.job(&VolumeId([1; 16]), Seq(7)).unwrap();
        for (len, step) in
            [(0, 1), (1, 1), (5000, 17), (STEP, STEP), (STEP * 2 + 5, STEP - 1), (STEP * 3, STEP * 2 + 9)]
        {
            let content = bytes(len);
            let staged = stage(&job, 1, &content, step);
            assert_eq!(
                (staged.len(), staged.hash(), staged.crc64()),
                (len as u64, hash::blob(&content), hash::crc64(&content))
            );
            assert_eq!(staged.read(ByteSpan { offset: 0, len: len as u64 }).unwrap(), content);
            let (offset, count) = (len / 3, len / 2);
            let middle = staged.read(ByteSpan { offset: offset as u64, len: count as u64 }).unwrap();
            assert_eq!(middle, content[offset..offset + count]);
            for (offset, len) in [(0, len as u64 + 1), (len as u64 + 1, 0), (u64::MAX, 2)] {
                assert!(staged.read(ByteSpan { offset, len }).is_err());
            }
            assert_eq!(quota.used(), len as u64);
        }
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn a_job_goes_on_with_what_was_staged_and_with_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (scratch, quota) = scratch(dir.path(), u64::MAX);
        let content = bytes(70_000);
        let job = scratch.job(&VolumeId([1; 16]), Seq(7)).unwrap();
        let staged = stage(&job, 1, &content, 999);
        let (digest, path) = (staged.hash(), staged.path().to_path_buf());
        drop((staged, job));

        let job = scratch.job(&VolumeId([1; 16]), Seq(7)).unwrap();
        let again = job.open(&[1; 32], &digest, 70_000).unwrap().unwrap();
        assert_eq!((again.crc64(), quota.used()), (hash::crc64(&content), 70_000));
        assert!(job.open(&[2; 32], &digest, 70_000).unwrap().is_none());
        drop(again);
        for at in [0, 40_000, 69_999] {
            let mut damaged = content.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(job.open(&[1; 32], &digest, 70_000).unwrap().is_none(), "byte {at}");
            assert!(!path.exists());
        }
        fs::write(&path, &content[..69_999]).unwrap();
        assert!(job.open(&[1; 32], &digest, 70_000).unwrap().is_none());
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn a_full_quota_stops_a_blob_and_lets_it_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let (scratch, quota) = scratch(dir.path(), 3 << 20);
        let job = scratch.job(&VolumeId([1; 16]), Seq(7)).unwrap();
        let other = quota.reserve("another job", 2 << 20).unwrap();
        let content = bytes(5 << 19);
        let mut writer = job.begin(&[1; 32]).unwrap();
        let mut parts = content.chunks(1 << 19);
        let stopped = parts.by_ref().find_map(|part| writer.write(part).err().map(|error| (part, error)));
        let (part, error) = stopped.unwrap();
        assert!(matches!(&error, LocalError::Quota(told) if told.limit == 3 << 20), "{error:?}");
        assert!(error.to_string().contains("quota of store"), "{error}");
        drop(other);
        writer.write(part).unwrap();
        parts.for_each(|part| writer.write(part).unwrap());
        let last = quota.reserve("another job", 1 << 20).unwrap();
        assert!(matches!(writer.flush(), Err(LocalError::Quota(_))));
        drop(last);
        writer.flush().unwrap();
        let staged = writer.finish().unwrap();
        assert_eq!(staged.hash(), hash::blob(&content));
        assert_eq!(quota.used(), content.len() as u64);
        staged.remove().unwrap();
        assert_eq!(quota.used(), 0);
        assert_eq!(fs::read_dir(job.path_of_dir()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_given_up_is_gone_and_a_sweep_takes_jobs_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (scratch, quota) = scratch(dir.path(), u64::MAX);
        assert_eq!(scratch.sweep().unwrap(), 0);
        let job = scratch.job(&VolumeId([1; 16]), Seq(7)).unwrap();
        let mut writer = job.begin(&[1; 32]).unwrap();
        writer.write(&bytes(STEP * 2)).unwrap();
        drop(writer);
        assert_eq!((fs::read_dir(job.path_of_dir()).unwrap().count(), quota.used()), (0, 0));

        let other = scratch.job(&VolumeId([2; 16]), Seq(8)).unwrap();
        drop(stage(&other, 1, b"abandoned", 2));
        drop(stage(&job, 1, b"abandoned", 2));
        let foreign = dir.path().join("checkpoint_scratch/notes");
        fs::create_dir(&foreign).unwrap();
        assert_eq!(scratch.sweep().unwrap(), 2);
        assert!(!job.path_of_dir().exists() && !other.path_of_dir().exists() && foreign.exists());
        other.remove().unwrap();
    }
}
