//! A part of a file as memory that several processes share: the tracker's, a replica's, and a log's segment.
//!
//! Rules; each block cites the one that makes it sound:
//! - M1 A mapping is made here, belongs to one value and is unmapped once, by its `drop`.
//! - M2 It is only ever seen as atomic words, aligned and inside of its length: whatever another process writes there is a value.
//! - M3 A word is touched only after its place in the file was allocated, and the file never shrinks (rule S19): no SIGBUS.
//!   A log's segment is cut once, when it is sealed, behind all that anybody touches again.

#![allow(unsafe_code)]

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What a mapping begins on.
const PAGE: usize = 4096;

/// A mapping of a file.
#[derive(Debug)]
pub(crate) struct Map {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: M2: nothing but atomics is reached through it.
unsafe impl Send for Map {}
// SAFETY: M2.
unsafe impl Sync for Map {}

impl Map {
    /// Maps a part of a file. The part may lie beyond the file's end as long as it is not touched (M3).
    pub(crate) fn new(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        let (how, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: M1: no address is asked for, so that nothing that is mapped is replaced.
        let start = unsafe { mmap(ptr::null_mut(), len, how, kind, file, offset) }?;
        let start = NonNull::new(start).ok_or_else(|| io::Error::other("mapped to nowhere"))?;
        Ok(Self { start, len })
    }

    /// The same of no file: memory that a forked child shares.
    pub(crate) fn of_memory(len: usize) -> io::Result<Self> {
        // SAFETY: M1, as above.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED) }?;
        let start = NonNull::new(start).ok_or_else(|| io::Error::other("mapped to nowhere"))?;
        Ok(Self { start, len })
    }

    /// The word at a place, counted in words. A place beyond the end is a caller's mistake, and is the last word.
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        let at = at.min(self.len / size_of::<u64>() - 1);
        // SAFETY: M2: a mapping begins on a page, so that each of its words is aligned; `at` lies inside.
        unsafe { self.start.cast::<AtomicU64>().add(at).as_ref() }
    }
}

impl Map {
    /// Bytes from a word on, filled up with zeros to the next one. Each word is written by itself.
    pub(crate) fn put(&self, at: usize, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for (word, bytes) in words.iter().enumerate() {
            self.word(at + word).store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(at + words.len()).store(u64::from_ne_bytes(last), Ordering::Relaxed);
        }
    }

    /// Has the machine make room in memory for bytes that are about to be written, whose words are what they are. A hint: whoever writes them has it
    /// made otherwise.
    pub(crate) fn make_ready(&self, offset: usize, len: usize) {
        let begin = offset.min(self.len).next_multiple_of(PAGE);
        let len = len.min(self.len.saturating_sub(begin)) / PAGE * PAGE;
        if len > 0 {
            // SAFETY: M1 and M2: what is asked for lies inside of the mapping and changes no byte of it; where M3 is not so it fails.
            let _ = unsafe { madvise(self.start.as_ptr().byte_add(begin), len, Advice::LinuxPopulateWrite) };
        }
    }

    /// The first half of a word, for who sleeps on it.
    pub(super) fn half(&self, at: usize) -> &AtomicU32 {
        // SAFETY: M2: it lies inside of the word, aligned; and who uses a word in halves never uses it as a whole.
        unsafe { &*ptr::from_ref(self.word(at)).cast::<AtomicU32>() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: M1. It cannot fail for a mapping that is there.
        let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn making_ready_changes_no_byte_and_is_harmless_where_the_file_ends() {
        let file = tempfile::tempfile().unwrap();
        let len = 16 * PAGE;
        file.set_len(len as u64).unwrap();
        let map = Map::new(&file, 0, len).unwrap();
        map.put(PAGE / 8, b"some bytes that stay");
        for (offset, count) in [(0, len), (1, 3 * PAGE), (PAGE, 7), (len - 1, len), (usize::MAX, 1), (0, usize::MAX)] {
            map.make_ready(offset, count);
        }
        let words = |count: usize| (0..count / 8).map(|at| map.word(at).load(Ordering::Relaxed)).collect::<Vec<u64>>();
        let filled = words(len).iter().filter(|word| **word != 0).count();
        assert_eq!((filled, map.word(PAGE / 8).load(Ordering::Relaxed)), (3, u64::from_ne_bytes(*b"some byt")));
        // A sealed segment is cut: what lay behind the cut is not there any more, and is asked for in vain.
        file.set_len(2 * PAGE as u64).unwrap();
        map.make_ready(0, len);
        map.make_ready(8 * PAGE, 8 * PAGE);
        assert_eq!(words(2 * PAGE).iter().filter(|word| **word != 0).count(), 3);
        assert_eq!(file.metadata().unwrap().len(), 2 * PAGE as u64);
    }
}
