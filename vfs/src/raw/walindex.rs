//! The WAL's index, as SQLite's file format fixes it: which frames are committed, and which page each holds.

use super::abi::{File, code};
use littoral_engine::tracker::WalPlace;
use std::ffi::{c_int, c_void};
use std::ptr;

/// Bytes of one region of it.
pub(crate) const REGION: c_int = 32768;
/// Bytes in front of the page numbers of the first region: two headers, then the backfill's progress and the reader marks.
const FIRST: u64 = 136;
/// Page numbers in the first region, and in each of the others.
const PAGES_FIRST: u64 = 4096 - FIRST / 4;
const PAGES: u64 = 4096;
const WORDS: usize = 12;
/// From the one word of a backfill's progress to the other.
const BEGUN: usize = 8;

/// The lock of who writes.
pub(crate) const WRITE_LOCK: c_int = 0;
/// The lock of who backfills.
pub(crate) const CHECKPOINT_LOCK: c_int = 1;
/// How many readers' locks there are.
pub(crate) const READERS: c_int = 5;
/// The first reader's lock.
pub(crate) const READ_LOCK: c_int = 3;

/// What the index says of the WAL: valid, or it would not be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    words: [u32; WORDS],
}

impl Header {
    /// Reads both copies. `None` while somebody writes them, or before they were written (rule S1).
    ///
    /// # Safety
    /// `region` is the first region of a mapped WAL index.
    pub(crate) unsafe fn read(region: *const u32) -> Option<Self> {
        let mut words = [0; WORDS];
        let mut again = [0; WORDS];
        for (at, word) in words.iter_mut().enumerate() {
            // SAFETY: R7: the first region begins with two copies of the header.
            *word = unsafe { ptr::read_volatile(region.add(at)) };
        }
        for (at, word) in again.iter_mut().enumerate() {
            // SAFETY: R7.
            *word = unsafe { ptr::read_volatile(region.add(WORDS + at)) };
        }
        let header = Self { words };
        (words == again && header.is_valid()).then_some(header)
    }

    fn is_valid(&self) -> bool {
        let is_begun = self.words[3].to_ne_bytes()[0] != 0;
        let (mut one, mut two) = (0_u32, 0_u32);
        for pair in self.words[..10].chunks_exact(2) {
            one = one.wrapping_add(pair[0]).wrapping_add(two);
            two = two.wrapping_add(pair[1]).wrapping_add(one);
        }
        is_begun && [one, two] == self.words[10..]
    }

    /// The end of what is committed.
    pub(crate) fn place(&self) -> WalPlace {
        WalPlace { salts: self.salts(), frame: self.frames() }
    }

    /// How large a page is.
    pub(crate) fn page_size(&self) -> u64 {
        // Two bytes after the flags, as the file format has them: 65,536 is spelled as one.
        let bytes = self.words[3].to_ne_bytes();
        match u16::from_ne_bytes([bytes[2], bytes[3]]) {
            1 => 65_536,
            size => u64::from(size),
        }
    }

    /// The last committed frame.
    pub(crate) fn frames(&self) -> u64 {
        u64::from(self.words[4])
    }

    /// The WAL's running checksum behind it.
    pub(crate) fn checksum(&self) -> [u32; 2] {
        [self.words[6], self.words[7]]
    }

    /// Which WAL it is: changes when it starts over.
    pub(crate) fn salts(&self) -> u64 {
        salts(self.words[8], self.words[9])
    }
}

/// How many frames are in the database file, and up to which one a backfill was begun.
///
/// # Safety
/// As for [`Header::read`].
pub(crate) unsafe fn backfill(region: *const u32) -> (u64, u64) {
    // SAFETY: R7: they follow the two headers: the one, five marks and eight bytes of locks, the other.
    let (done, begun) =
        unsafe { (ptr::read_volatile(region.add(2 * WORDS)), ptr::read_volatile(region.add(2 * WORDS + BEGUN))) };
    (u64::from(done), u64::from(begun.max(done)))
}

/// The salts as one number: two words as they lie in the index, and in the WAL's header.
pub(crate) fn salts(one: u32, two: u32) -> u64 {
    u64::from(one) << 32 | u64::from(two)
}

/// Reads which pages the frames after `from` and up to `to` hold. `None` when the index is not mapped that far.
///
/// # Safety
/// `file` is an open file of the inner VFS with a mapped WAL index, and the caller's connection holds a reader's lock, so that the WAL does
/// not start over meanwhile.
pub(crate) unsafe fn pages(file: *mut File, from: u64, to: u64) -> Option<Vec<u32>> {
    let mut found = Vec::with_capacity(usize::try_from(to.saturating_sub(from)).ok()?);
    let mut region: (u64, *const u32) = (u64::MAX, ptr::null());
    for frame in from..to {
        let (nth, at) = match frame.checked_sub(PAGES_FIRST) {
            None => (0, FIRST / 4 + frame),
            Some(beyond) => (1 + beyond / PAGES, beyond % PAGES),
        };
        if region.0 != nth {
            let mut mapped: *mut c_void = ptr::null_mut();
            // SAFETY: R1, R3: the inner file has these methods, since it has a WAL index.
            let answer =
                unsafe { (*(*file).methods).shm_map.map(|map| map(file, nth as c_int, REGION, 0, &mut mapped)) };
            if answer != Some(code::OK) || mapped.is_null() {
                return None;
            }
            region = (nth, mapped.cast());
        }
        // SAFETY: R7: inside of the region, which has room for 4,096 numbers and their hash table.
        found.push(unsafe { ptr::read_volatile(region.1.add(at as usize)) });
    }
    Some(found)
}
