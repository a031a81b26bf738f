//! What a record does to a manifest.

use crate::{Base, ChunkId, Delta, DeltaId, PageCount, PageSize};

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
}

impl ManifestOp {
    /// The chunk it is about; `None` for those about the whole volume.
    pub const fn chunk(&self) -> Option<ChunkId> {
        match self {
            ManifestOp::Reshape { .. } | ManifestOp::Resize { .. } => None,
            ManifestOp::PutBase { chunk, .. }
            | ManifestOp::PutDelta { chunk, .. }
            | ManifestOp::ReplaceDeltas { chunk, .. } => Some(*chunk),
        }
    }
}
