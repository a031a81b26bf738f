//! What is found in a log's folder when it is opened to append: sealed segments, a few that were not, and an end that may be torn.
//!
//! Everything here may be killed and done again: what is removed is removed from the end, and what is left is always a log.

use super::error::LogError;
use super::folder::{Folder, Meta};
use super::live::{seal, zero};
use super::open::Recovered;
use super::scan::Scan;
use crate::error::on;
use littoral_format::FormatError;
use littoral_format::log::{END_AT, Fold, HEAD_LEN, SYNCED_AT};
use littoral_ports::Faults;
use littoral_types::limits::LOG_HEAD_BYTES;
use littoral_types::{Lsn, Sessions};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What there is.
#[derive(Debug)]
pub(super) struct Sound {
    /// The segment that is appended to, and all that it holds. `None`: the last one is sealed.
    pub(super) tail: Option<(PathBuf, Fold)>,
    /// The LSN of the next record.
    pub(super) next: Lsn,
    /// How far each session is.
    pub(super) sessions: Sessions,
    pub(super) recovered: Recovered,
}

/// Makes a log sound. The caller alone appends to it.
pub(super) fn recover(folder: &Folder, meta: &Meta, faults: &dyn Faults) -> Result<Sound, LogError> {
    folder.remove(&folder.next())?;
    let mut segments = folder.segments()?;
    // A truncation that was killed had said that they are gone.
    for (_, path) in segments.extract_if(.., |(first, _)| *first < meta.start) {
        folder.remove(&path)?;
    }
    let mut sound =
        Sound { tail: None, next: meta.start, sessions: meta.sessions.clone(), recovered: Recovered::default() };
    let Some((last, _)) = segments.last().cloned() else {
        return Err(missing(folder, meta.start));
    };
    for (nth, (first, path)) in segments.iter().enumerate() {
        if *first != sound.next {
            return Err(missing(folder, sound.next));
        }
        if *first == last && nth > 0 && is_blank(path)? {
            // Its name came to the disk and nothing else did: nothing in it was ever acknowledged.
            folder.remove(path)?;
            break;
        }
        let mut scan = Scan::open(path, *first)?.ok_or_else(|| missing(folder, *first))?;
        if scan.head.log != meta.id {
            return Err(LogError::Broken { path: path.clone(), detail: "it is another log's".to_owned() });
        }
        if let Some(index) = scan.index()? {
            sound.next = index.next();
            sound.sessions = index.sessions.into_iter().map(|session| (session.name, session.serial)).collect();
            continue;
        }
        let mut fold = Fold::new(scan.head, &sound.sessions);
        let torn = scan.take_all(&mut fold)?;
        let (end, synced) = (scan.word(END_AT)?, scan.word(SYNCED_AT)?);
        if let Some(source @ FormatError::Newer { .. }) = torn {
            return Err(LogError::damaged(path, fold.offset(), fold.next())(source));
        }
        if fold.offset() < synced {
            let source = torn.unwrap_or(FormatError::Truncated { what: "log entry" });
            return Err(LogError::damaged(path, fold.offset(), fold.next())(source));
        }
        sound.next = fold.next();
        sound.sessions = fold.sessions();
        if end == fold.offset() && end > LOG_HEAD_BYTES {
            seal(&writable(path)?, path, &fold, faults)?;
            faults.reach("log.recover.sealed")?;
            continue;
        }
        // Here it ends: what stands behind was never acknowledged.
        sound.recovered.cut_bytes = cut_after(folder, &segments[nth + 1..], faults)?;
        sound.recovered.cut_bytes += cut(path, &mut scan, fold.offset(), faults)?;
        sound.tail = Some((path.clone(), fold));
        break;
    }
    folder.sync()?;
    Ok(sound)
}

/// Removes the segments behind the log's end, newest first.
fn cut_after(folder: &Folder, after: &[(Lsn, PathBuf)], faults: &dyn Faults) -> Result<u64, LogError> {
    for (first, path) in after {
        let scan = Scan::open(path, *first);
        let is_acknowledged = match &scan {
            Ok(Some(scan)) => scan.index()?.is_some() || scan.word(SYNCED_AT)? > 0,
            Ok(None) | Err(_) => false,
        };
        if is_acknowledged {
            let detail = "records of it were durable, and some of the segment before it are not there".to_owned();
            return Err(LogError::Broken { path: path.clone(), detail });
        }
    }
    let mut bytes = 0;
    for (_, path) in after.iter().rev() {
        bytes += fs::metadata(path).map_or(0, |found| found.len().saturating_sub(LOG_HEAD_BYTES));
        folder.remove(path)?;
        folder.sync()?;
        faults.reach("log.recover.removed")?;
    }
    Ok(bytes)
}

/// Zeros behind the last whole entry. How many bytes stood there at most.
fn cut(path: &Path, scan: &mut Scan, offset: u64, faults: &dyn Faults) -> Result<u64, LogError> {
    let file = writable(path)?;
    let torn = last_byte(&file, path, offset)?;
    if torn == 0 && scan.word(END_AT)? == 0 {
        return Ok(0);
    }
    zero(&file, path, offset)?;
    faults.reach("log.recover.zeroed")?;
    // Last: as long as it says that it ends elsewhere, it is cut again.
    file.write_all_at(&0u64.to_le_bytes(), END_AT).map_err(on("write", path))?;
    file.sync_data().map_err(on("sync", path))?;
    scan.forget();
    Ok(torn)
}

/// How many bytes behind a place are anything but zeros, those between included. Room that was allocated and never written is passed over: of 64 MiB
/// there is little else, and every first append of a process would read it.
fn last_byte(file: &File, path: &Path, from: u64) -> Result<u64, LogError> {
    let mut bytes = vec![0; 64 << 10];
    let (mut at, mut last) = (from, from);
    loop {
        at = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.max(at),
            // Up to the end there is nothing but room.
            Err(Errno::NXIO) => return Ok(last - from),
            // Where it cannot be asked, all of it is read.
            Err(_) => at,
        };
        let read = file.read_at(&mut bytes, at).map_err(on("read", path))?;
        if read == 0 {
            return Ok(last - from);
        }
        if let Some(found) = bytes[..read].iter().rposition(|byte| *byte != 0) {
            last = at + found as u64 + 1;
        }
        at += read as u64;
    }
}

pub(super) fn writable(path: &Path) -> Result<File, LogError> {
    Ok(OpenOptions::new().read(true).write(true).open(path).map_err(on("open", path))?)
}

/// Whether nothing of a segment has come to the disk.
fn is_blank(path: &Path) -> Result<bool, LogError> {
    let file = File::open(path).map_err(on("open", path))?;
    let mut head = [0; HEAD_LEN];
    let read = file.read_at(&mut head, 0).map_err(on("read", path))?;
    // Nearly always it has a head, and the rest is not looked at.
    Ok(head[..read].iter().all(|byte| *byte == 0) && last_byte(&file, path, 0)? == 0)
}

fn missing(folder: &Folder, first: Lsn) -> LogError {
    LogError::Broken { path: folder.segment(first), detail: "the segment is missing".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::live::allocate;
    use crate::tracker::map::Map;
    use littoral_types::limits::LOG_SEGMENT_BYTES;
    use rustix::fs::{FallocateFlags, fallocate};

    #[test]
    fn what_stands_behind_a_lot_of_room_is_found_on_the_disk_or_not_yet() {
        let file = tempfile::tempfile().unwrap();
        allocate(&file).unwrap();
        let map = Map::new(&file, 0, LOG_SEGMENT_BYTES as usize).unwrap();
        let found = |from| last_byte(&file, Path::new("segment"), from).unwrap();
        assert_eq!((found(0), found(LOG_HEAD_BYTES), found(LOG_SEGMENT_BYTES)), (0, 0, 0));
        let places: [u64; 4] = [LOG_HEAD_BYTES, 64 << 10, 40 << 20, LOG_SEGMENT_BYTES - 8];
        for place in places {
            map.put(place as usize / 8, b"x");
            assert_eq!((found(0), found(place)), (place + 1, 1), "in memory at {place}");
            file.sync_data().unwrap();
            assert_eq!((found(0), found(place), found(place + 1)), (place + 1, 1, 0), "on the disk at {place}");
        }
        for (nth, place) in places.iter().enumerate().rev() {
            fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, place / 4096 * 4096, 4096)
                .unwrap();
            let before = nth.checked_sub(1).map_or(0, |before| places[before] + 1);
            assert_eq!(found(0), before, "a hole at {place}");
        }
    }
}
