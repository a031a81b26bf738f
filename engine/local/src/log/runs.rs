//! Runs of a segment's file as the bytes of one object, read as they are sent: a segment of 64 MiB is never in memory as a whole.

use super::error::LogError;
use crate::error::{LocalError, on};
use bytes::Bytes;
use littoral_format::hash::BlobHasher;
use littoral_ports::BlobBody;
use littoral_types::{BlobHash, ByteSpan};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Read at once while they are summed.
const STEP: u64 = 256 << 10;

/// Runs of one file, one after another. Nothing in them changes any more.
#[derive(Debug)]
pub struct Runs {
    path: PathBuf,
    file: File,
    /// From, to.
    runs: Vec<(u64, u64)>,
    len: u64,
    hash: BlobHash,
    crc64: u64,
    /// Whether they are all of the file.
    is_whole: bool,
}

impl Runs {
    pub(super) fn of(path: PathBuf, runs: Vec<(u64, u64)>) -> Result<Self, LogError> {
        let file = File::open(&path).map_err(on("open", &path))?;
        let len = runs.iter().map(|(from, to)| to.saturating_sub(*from)).sum();
        let bytes = file.metadata().map_err(on("look at", &path))?.len();
        let mut all = Self { is_whole: runs == [(0, bytes)], path, file, runs, len, hash: BlobHash([0; 32]), crc64: 0 };
        let mut hasher = BlobHasher::new();
        let mut step = vec![0; STEP as usize];
        let mut offset = 0;
        while offset < len {
            let now = (len - offset).min(STEP);
            let part = step.get_mut(..now as usize).unwrap_or_default();
            all.fill(part, offset).map_err(|error| LocalError::from_io("read", &all.path, error))?;
            hasher.update(part);
            offset += now;
        }
        (all.hash, all.crc64) = hasher.finish();
        Ok(all)
    }

    /// BLAKE3 of its bytes.
    pub fn hash(&self) -> BlobHash {
        self.hash
    }

    /// Bytes from a place on, across runs.
    fn fill(&self, mut bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut skipped = offset;
        for (from, to) in &self.runs {
            let len = to.saturating_sub(*from);
            if skipped >= len {
                skipped -= len;
                continue;
            }
            let now = usize::try_from(len - skipped).unwrap_or(usize::MAX).min(bytes.len());
            let (part, rest) = std::mem::take(&mut bytes).split_at_mut(now);
            self.file.read_exact_at(part, from + skipped)?;
            (bytes, skipped) = (rest, 0);
            if bytes.is_empty() {
                return Ok(());
            }
        }
        if bytes.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl BlobBody for Runs {
    fn len(&self) -> u64 {
        self.len
    }

    fn crc64(&self) -> u64 {
        self.crc64
    }

    fn file(&self) -> Option<&Path> {
        self.is_whole.then_some(&self.path)
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
        self.fill(&mut bytes, span.offset)?;
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_format::hash;

    #[test]
    fn runs_of_a_file_read_as_what_they_are_joined_at_any_offset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..700_000u32).map(|number| (number * 7 % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        for runs in
            [vec![(0, 700_000)], vec![(3, 3), (5, 9), (100, 600_001), (600_001, 700_000)], vec![(9, 10)], vec![]]
        {
            let joined: Vec<u8> = runs.iter().flat_map(|(from, to)| bytes[*from..*to].to_vec()).collect();
            let all =
                Runs::of(path.clone(), runs.iter().map(|(from, to)| (*from as u64, *to as u64)).collect()).unwrap();
            assert_eq!(
                (all.len(), all.hash(), all.crc64()),
                (joined.len() as u64, hash::blob(&joined), hash::crc64(&joined))
            );
            assert_eq!(all.file().is_some(), runs == [(0, 700_000)], "{runs:?}");
            for (offset, len) in
                [(0, joined.len()), (1, 4), (3, 300_000), (joined.len() / 2, joined.len() / 2), (joined.len(), 0)]
            {
                let span = ByteSpan { offset: offset as u64, len: len as u64 };
                match joined.get(offset..offset + len) {
                    Some(wanted) => assert!(all.read(span).unwrap() == wanted, "{runs:?} {span:?}"),
                    None => drop(all.read(span).unwrap_err()),
                }
            }
        }
        assert!(Runs::of(path, vec![(0, 700_001)]).is_err(), "the file ends before");
    }
}
