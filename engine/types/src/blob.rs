//! Blobs: the large immutable objects, and what names them.

use crate::{BlobHash, Seq, VolumeName};
use std::fmt;

/// What a blob is, and so which folder of the volume it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobKind {
    /// A whole chunk.
    Chunk,
    /// The changed pages of many chunks.
    Pack,
    /// A record's body that was too large to travel in the record, or a segment's frames that were.
    Segment,
    /// The rows of up to 1,024 chunks.
    Shard,
    /// Frames that travel inside of a segment's record: born with it, gone with it. Offsets are the record object's.
    Record,
}

impl BlobKind {
    /// All that are objects of their own.
    pub const ALL: [BlobKind; 4] = [BlobKind::Chunk, BlobKind::Pack, BlobKind::Segment, BlobKind::Shard];

    /// The folder's name.
    pub const fn folder(self) -> &'static str {
        match self {
            BlobKind::Chunk => "chunk",
            BlobKind::Pack => "pack",
            BlobKind::Segment => "seg",
            BlobKind::Shard => "shard",
            BlobKind::Record => "log",
        }
    }
}

/// A blob's name: what it holds and when the job that made it began. A name that a prune has doomed is never used again,
/// because a later job has a later birth (rule P1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName {
    /// Its folder.
    pub kind: BlobKind,
    /// BLAKE3 of the stored bytes.
    pub hash: BlobHash,
    /// The tail's seq when the job that made it began; for frames inside of a record that record's.
    pub birth: Seq,
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.kind.folder(), self.hash, self.birth)
    }
}

/// Where a blob lives: in the volume that names it, or in one that it was forked from (rule P2). The volume that names it is the one
/// in whose folder the name stands: what is read out of another volume's object is rehomed ([`BlobRef::rehome`]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Home {
    /// In the volume itself.
    Own,
    /// In the volume of this name, under the same remote.
    Other(VolumeName),
}

/// A blob as others refer to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobRef {
    /// In whose folder.
    pub home: Home,
    /// Its name there.
    pub name: BlobName,
    /// Its size in bytes.
    pub len: u64,
}

impl BlobRef {
    /// The same blob, seen from another volume than the one it was named in.
    pub fn rehome(&mut self, from: &VolumeName) {
        if self.home == Home::Own {
            self.home = Home::Other(from.clone());
        }
    }
}

/// A run of bytes in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteSpan {
    /// From the object's start.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

impl ByteSpan {
    /// The first byte after it; `None` where 64 bits do not reach.
    pub fn end(self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }
}
