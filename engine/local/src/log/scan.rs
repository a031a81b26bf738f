//! Reading a segment's entries out of its file, one after another, verified.

use super::error::LogError;
use crate::error::{LocalError, on};
use littoral_format::FormatError;
use littoral_format::log::{
    ENTRY_HEAD_BYTES, Fold, HEAD_LEN, TRAILER_BYTES, decode_entry, decode_head, decode_index, decode_trailer,
    entry_bytes, read_head,
};
use littoral_types::limits::{LOG_HEAD_BYTES, LOG_SEGMENT_BYTES};
use littoral_types::{LogEntryHead, LogEntryKind, LogHead, LogIndex, Lsn, SessionName};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// So much is read at once, where more was read before; and where it is the first look.
const STEP: usize = 256 << 10;
const FIRST_STEP: usize = 4 << 10;

/// A segment's file, and a part of it in memory.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) path: PathBuf,
    pub(super) head: LogHead,
    file: File,
    /// What was read, and where it begins in the file.
    read: Vec<u8>,
    at: u64,
    step: usize,
    /// Where reading ends: what lies there is not an entry, or is not wanted.
    until: u64,
    /// Bytes that were read in all.
    pub(super) bytes: u64,
}

/// What stands at a place.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// An entry, whole.
    Entry(LogEntryHead, &'a [u8]),
    /// Nothing yet.
    Nothing,
    /// Something that is no entry, or not yet.
    Torn(FormatError),
}

impl Scan {
    /// Opens a segment. `None`: there is none any more.
    pub(super) fn open(path: &Path, first: Lsn) -> Result<Option<Self>, LogError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(on("open", path)(error).into()),
        };
        let mut bytes = [0; HEAD_LEN];
        let len = read_some(&file, path, &mut bytes, 0)?;
        let head = decode_head(&bytes[..len]).map_err(LogError::damaged(path, 0, first))?;
        if head.first != first {
            let detail = format!("it begins with LSN {}, which its name does not say", head.first);
            return Err(LogError::Broken { path: path.to_owned(), detail });
        }
        let until = LOG_SEGMENT_BYTES;
        Ok(Some(Self { path: path.to_owned(), head, file, read: Vec::new(), at: 0, step: STEP, until, bytes: 0 }))
    }

    /// One of the words that change until it is sealed.
    pub(super) fn word(&self, at: u64) -> Result<u64, LocalError> {
        let mut bytes = [0; 8];
        read_some(&self.file, &self.path, &mut bytes, at)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Bytes of its file.
    pub(super) fn len(&self) -> Result<u64, LocalError> {
        Ok(self.file.metadata().map_err(on("look at", &self.path))?.len())
    }

    /// Its index, where it is sealed.
    pub(super) fn index(&self) -> Result<Option<LogIndex>, LogError> {
        let path = &self.path;
        let len = self.len()?;
        let damaged = |at| LogError::damaged(path, at, self.head.first);
        let trailer_at = len.saturating_sub(TRAILER_BYTES as u64);
        let mut trailer = [0; TRAILER_BYTES];
        read_some(&self.file, path, &mut trailer, trailer_at)?;
        let begin = match decode_trailer(trailer).map(|bytes| len.checked_sub(bytes)) {
            Ok(Some(begin)) => begin,
            // It is cut when it is sealed, and never before.
            Err(_) if len == LOG_SEGMENT_BYTES => return Ok(None),
            Err(source) => return Err(damaged(trailer_at)(source)),
            Ok(None) => return Err(damaged(trailer_at)(FormatError::Truncated { what: "log index" })),
        };
        let mut bytes = vec![0; usize::try_from(len - begin).unwrap_or_default()];
        read_some(&self.file, path, &mut bytes, begin)?;
        let index = decode_index(&bytes).map_err(damaged(begin))?;
        if index.first != self.head.first || index.end != begin {
            return Err(LogError::Broken { path: path.clone(), detail: "its index is another segment's".to_owned() });
        }
        Ok(Some(index))
    }

    /// Reads no further than this.
    pub(super) fn stop_at(&mut self, until: u64) {
        self.until = until;
    }

    /// Forgets what was read: it may have been published meanwhile.
    pub(super) fn forget(&mut self) {
        self.read.clear();
        self.step = FIRST_STEP;
    }

    /// What stands at a place, where a record of this LSN would.
    pub(super) fn entry(&mut self, offset: u64, lsn: Lsn) -> Result<Found<'_>, LocalError> {
        if offset + ENTRY_HEAD_BYTES as u64 > self.until {
            return Ok(Found::Nothing);
        }
        let head = self.bytes_at(offset, ENTRY_HEAD_BYTES)?;
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(head.chunks_exact(8)) {
            *word = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        }
        let len = match read_head(words) {
            Ok(Some(head)) => entry_bytes(head.len as usize),
            Ok(None) => return Ok(Found::Nothing),
            Err(error) => return Ok(Found::Torn(error)),
        };
        let log = self.head;
        Ok(match decode_entry(&log, lsn, self.bytes_at(offset, len)?) {
            Ok(Some((head, body))) => Found::Entry(head, body),
            Ok(None) => Found::Nothing,
            Err(error) => Found::Torn(error),
        })
    }

    /// Where the entry of a record begins, or would.
    pub(super) fn begin_of(&mut self, lsn: Lsn) -> Result<u64, LogError> {
        let (mut offset, mut next) = (LOG_HEAD_BYTES, self.head.first);
        let path = self.path.clone();
        loop {
            match self.entry(offset, next)? {
                Found::Entry(entry, _) if entry.kind == LogEntryKind::Record && next >= lsn => return Ok(offset),
                Found::Entry(entry, _) => {
                    offset += entry_bytes(entry.len as usize) as u64;
                    next = if entry.kind == LogEntryKind::Record { next.next() } else { next };
                }
                // What stood here is on its way to be zeros.
                Found::Nothing | Found::Torn(_) if next >= lsn => return Ok(offset),
                Found::Nothing => {
                    return Err(LogError::damaged(&path, offset, next)(FormatError::Truncated { what: "log entry" }));
                }
                Found::Torn(source) => return Err(LogError::damaged(&path, offset, next)(source)),
            }
        }
    }

    /// Takes all entries that are whole. Why the next one is not, where there is something.
    pub(super) fn take_all(&mut self, fold: &mut Fold) -> Result<Option<FormatError>, LogError> {
        self.take_up_to(fold, Lsn(u64::MAX))
    }

    /// The same up to a record, with whatever stands before the next one.
    pub(super) fn take_up_to(&mut self, fold: &mut Fold, last: Lsn) -> Result<Option<FormatError>, LogError> {
        let path = self.path.clone();
        loop {
            let (entry, name) = match self.entry(fold.offset(), fold.next())? {
                Found::Entry(entry, _) if entry.kind == LogEntryKind::Record && fold.next() > last => return Ok(None),
                Found::Entry(entry, body) => (entry, name_in(&entry, body)),
                Found::Nothing => return Ok(None),
                Found::Torn(why) => return Ok(Some(why)),
            };
            fold.take(&entry, name.as_ref()).map_err(|source| LogError::Serials { path: path.clone(), source })?;
        }
    }

    /// Bytes of the file, fewer where it ends.
    fn bytes_at(&mut self, offset: u64, len: usize) -> Result<&[u8], LocalError> {
        let end = offset + len as u64;
        if offset < self.at || end > self.at + self.read.len() as u64 {
            let most = usize::try_from(self.until.saturating_sub(offset)).unwrap_or(STEP).min(self.step);
            self.step = (self.step * 4).min(STEP);
            self.read.resize(len.max(most), 0);
            let read = read_some(&self.file, &self.path, &mut self.read, offset)?;
            self.read.truncate(read);
            self.at = offset;
            self.bytes += read as u64;
        }
        let begin = usize::try_from(offset - self.at).unwrap_or(usize::MAX).min(self.read.len());
        Ok(&self.read[begin..(begin + len).min(self.read.len())])
    }
}

/// The name that an entry gives a session, where it does.
pub(super) fn name_in(entry: &LogEntryHead, body: &[u8]) -> Option<SessionName> {
    match entry.kind {
        LogEntryKind::Session => std::str::from_utf8(body).ok()?.parse().ok(),
        LogEntryKind::Record => None,
    }
}

/// Reads until the bytes are full or the file ends. How many.
fn read_some(file: &File, path: &Path, bytes: &mut [u8], offset: u64) -> Result<usize, LocalError> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(on("read", path)(error)),
        }
    }
    Ok(done)
}
