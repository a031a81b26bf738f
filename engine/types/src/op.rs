//! What a record does to a manifest.

use crate::{Base, BlobRef, ChunkId, Delta, DeltaId, LogRow, ObjectMark, PageCount, PageSize, SessionMark, VolumeName};

/// One change to a volume's manifest. Records carry them, stores apply them; [`crate::ChunkRow::apply`] says what each
/// does to a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ManifestOp {
    /// The page size is new (or the first): all rows go.
    Reshape {
        /// From here on.
        page_size: PageSize,
    },
    /// The database has this many pages now; versions of pages beyond are dead.
    Resize {
        /// From here on.
        page_count: PageCount,
    },
    /// The chunk was written whole; its deltas go, but for those that [`Base::leaves`].
    PutBase {
        /// Which chunk.
        chunk: ChunkId,
        /// Its new base.
        base: Base,
    },
    /// Some pages of the chunk are newer.
    PutDelta {
        /// Which chunk.
        chunk: ChunkId,
        /// The newer pages.
        delta: Delta,
    },
    /// Several deltas of the chunk became one, or none where all their pages were dead.
    ReplaceDeltas {
        /// Which chunk.
        chunk: ChunkId,
        /// The ones that go.
        replaced: Vec<DeltaId>,
        /// What stands for them. Its id is that of the newest one it replaces, so that order is kept.
        delta: Option<Delta>,
    },
    /// A named session is elsewhere than it was (rule P10).
    Session(SessionMark),
    /// A table or an index is another, or costs something else, than it did.
    Object(ObjectMark),
    /// So much of a log's segment is there, in these pieces and no others.
    PutSegment {
        /// Which: the segments of a log count from zero.
        chunk: ChunkId,
        /// All that is known of it.
        segment: LogRow,
    },
    /// A log's segment was truncated.
    DropSegment {
        /// Which.
        chunk: ChunkId,
    },
}

impl ManifestOp {
    /// The chunk it is about; `None` for those about the whole volume.
    pub const fn chunk(&self) -> Option<ChunkId> {
        match self {
            ManifestOp::Reshape { .. } | ManifestOp::Resize { .. } | ManifestOp::Session(_) | ManifestOp::Object(_) => {
                None
            }
            ManifestOp::PutBase { chunk, .. }
            | ManifestOp::PutDelta { chunk, .. }
            | ManifestOp::ReplaceDeltas { chunk, .. }
            | ManifestOp::PutSegment { chunk, .. }
            | ManifestOp::DropSegment { chunk } => Some(*chunk),
        }
    }

    /// The blobs that it names.
    pub fn blobs(&self) -> Vec<&BlobRef> {
        match self {
            ManifestOp::Reshape { .. }
            | ManifestOp::Resize { .. }
            | ManifestOp::Session(_)
            | ManifestOp::Object(_)
            | ManifestOp::DropSegment { .. } => Vec::new(),
            ManifestOp::PutBase { base, .. } => vec![&base.blob],
            ManifestOp::PutDelta { delta, .. } => vec![&delta.blob],
            ManifestOp::ReplaceDeltas { delta, .. } => delta.iter().map(|delta| &delta.blob).collect(),
            ManifestOp::PutSegment { segment, .. } => segment.blobs().collect(),
        }
    }

    /// The same operation, seen from another volume than the one it was read in.
    pub fn rehome(&mut self, from: &VolumeName) {
        match self {
            ManifestOp::PutBase { base, .. } => base.blob.rehome(from),
            ManifestOp::PutDelta { delta, .. } | ManifestOp::ReplaceDeltas { delta: Some(delta), .. } => {
                delta.blob.rehome(from);
            }
            ManifestOp::PutSegment { segment, .. } => segment.rehome(from),
            ManifestOp::Reshape { .. }
            | ManifestOp::Resize { .. }
            | ManifestOp::Session(_)
            | ManifestOp::Object(_)
            | ManifestOp::DropSegment { .. }
            | ManifestOp::ReplaceDeltas { delta: None, .. } => {}
        }
    }
}
