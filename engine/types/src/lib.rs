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
pub mod copy;
pub mod frame;
pub mod ids;
pub mod job;
pub mod lease;
pub mod limits;
pub mod local;
pub mod log;
pub mod lsn;
pub mod moment;
pub mod name;
pub mod object;
pub mod op;
pub mod pace;
pub mod page;
pub mod path;
pub mod pin;
pub mod record;
pub mod retention;
pub mod row;
pub mod runs;
pub mod session;
pub mod snapshot;

pub use blob::{BlobKind, BlobName, BlobRef, ByteSpan, Home};
pub use chunk::{ChunkId, ChunkSpan, Geometry};
pub use compression::Compression;
pub use copy::{CopyMark, CopyState};
pub use frame::{Frame, FrameEntry, FramePages, FrameTable, PagePlace, PagesBySlot};
pub use ids::{BlobHash, IdentityKey, Incarnation, PageIdentity, PinId, RecordHash, StoreId, VolumeId};
pub use job::{Job, JobId, JobNote, JobState, TASK_WORDS, Task, Wish};
pub use lease::{ChunkRuns, Lease, LeaseToken, LeaseWish, TakenAway, Work};
pub use local::{Change, ChangeSeq, Intent, StagedBlob, TailRow, VolumeRow};
pub use log::{
    CountedLog, Cut, LogBlock, LogBounds, LogCell, LogEntryHead, LogEntryKind, LogHead, LogIndex, LogPiece, LogRow,
    LogSession, LogTable, LogZone,
};
pub use lsn::{DeltaId, Epoch, Form, Generation, Lsn, LsnRange, Position, Seq};
pub use moment::{At, Moment, MomentError};
pub use name::{NameError, SnapshotName, VolumeName};
pub use object::{Object, ObjectId, ObjectKind, ObjectMark, PageOwner, Part, Taken, Tree};
pub use op::ManifestOp;
pub use pace::Pace;
pub use page::{PageCount, PageNo, PageSize, PageSizeError};
pub use path::ObjectPath;
pub use pin::{Child, Pin, PinPurpose};
pub use record::{
    BodyPlace, Checkpoint, Claim, Coalesce, Commit, FooterFigures, Fork, Gap, GapReason, Index, JournalMode, Owner,
    Parent, Prune, Record, RecordBody, RecordHeader, RecordKind, RecordSummary, Release, SchemaSummary, Segment,
    VolumeFigures, WalMark,
};
pub use retention::{Retention, RetentionError, Tier};
pub use row::{Base, ChunkRow, Delta, Found};
pub use runs::{PageRun, PageRuns};
pub use session::{Serial, SessionMark, SessionName, SessionNameError, SessionStep, Sessions};
pub use snapshot::{Head, ShardRef, Skeleton, SkeletonPage, Snapshot, SnapshotRef, VolumeKind, VolumeMeta};
