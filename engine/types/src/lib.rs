//! The nouns of Littoral, one small file each. Everything to the right builds on these.
//!
//! What this room promises:
//! 1. A value that exists is valid: page numbers start at one, page sizes are SQLite's own, names fit into an object key.
//! 2. Index, count and size are different types; none is narrower than SQLite's own.
//! 3. What a manifest operation does to a chunk's row is said here once ([`ChunkRow`]), and every store obeys it.
//!
//! What may never enter: I/O, async, logging, clocks, bytes as they lie on disk (that is `format`).
//! Read next: [`record`], then [`row`], then the crate `littoral-ports`.

pub mod blob;
pub mod chunk;
pub mod compression;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod local;
pub mod lsn;
pub mod name;
pub mod op;
pub mod page;
pub mod path;
pub mod pin;
pub mod record;
pub mod row;
pub mod runs;
pub mod snapshot;

pub use blob::{BlobKind, BlobName, BlobRef, ByteSpan, Home};
pub use chunk::{ChunkId, ChunkSpan, Geometry};
pub use compression::Compression;
pub use frame::{Frame, FrameEntry, FramePages, FrameTable, PagePlace, PagesBySlot};
pub use ids::{BlobHash, IdentityKey, Incarnation, PageIdentity, PinId, RecordHash, StoreId, VolumeId};
pub use local::{Change, ChangeSeq, Intent, StagedBlob, TailRow, VolumeRow};
pub use lsn::{DeltaId, Epoch, Form, Generation, Lsn, LsnRange, Position, Seq};
pub use name::{NameError, SnapshotName, VolumeName};
pub use op::ManifestOp;
pub use page::{PageCount, PageNo, PageSize, PageSizeError};
pub use path::ObjectPath;
pub use pin::{Pin, PinPurpose};
pub use record::{
    BodyPlace, Checkpoint, Claim, Coalesce, Commit, FooterFigures, Index, JournalMode, Owner, Prune, Record,
    RecordBody, RecordHeader, RecordKind, RecordSummary, Release, SchemaSummary, Segment, VolumeFigures, WalMark,
};
pub use row::{Base, ChunkRow, Delta, Found};
pub use runs::{PageRun, PageRuns};
pub use snapshot::{Head, ShardRef, Skeleton, SkeletonPage, Snapshot, SnapshotRef, VolumeKind, VolumeMeta};
