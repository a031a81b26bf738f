//! A part of a file as memory that several processes share: the tracker's, and nobody else's.
//!
//! Rules; each block cites the one that makes it sound:
//! - M1 A mapping is made here, belongs to one value and is unmapped once, by its `drop`.
//! - M2 It is only ever seen as atomic words, aligned and inside of its length: whatever another process writes there is a value.
//! - M3 A word is touched only after its place in the file was allocated, and the file never shrinks (rule S19): no SIGBUS.

#![allow(unsafe_code)]

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

/// A mapping of a file.
#[derive(Debug)]
pub(super) struct Map {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: M2: nothing but atomics is reached through it.
unsafe impl Send for Map {}
// SAFETY: M2.
unsafe impl Sync for Map {}

impl Map {
    /// Maps a part of a file. The part may lie beyond the file's end as long as it is not touched (M3).
    pub(super) fn new(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        let (how, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: M1: no address is asked for, so that nothing that is mapped is replaced.
        let start = unsafe { mmap(ptr::null_mut(), len, how, kind, file, offset) }?;
        let start = NonNull::new(start).ok_or_else(|| io::Error::other("mapped to nowhere"))?;
        Ok(Self { start, len })
    }

    /// The word at a place, counted in words. A place beyond the end is a caller's mistake, and is the last word.
    pub(super) fn word(&self, at: usize) -> &AtomicU64 {
        let at = at.min(self.len / size_of::<u64>() - 1);
        // SAFETY: M2: a mapping begins on a page, so that each of its words is aligned; `at` lies inside.
        unsafe { self.start.cast::<AtomicU64>().add(at).as_ref() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: M1. It cannot fail for a mapping that is there.
        let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}
