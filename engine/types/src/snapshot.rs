//! The manifest as one object, and the hint that points at the newest.

use crate::{
    BlobRef, ChunkId, ChunkRow, Epoch, IdentityKey, Incarnation, Lsn, ObjectMark, Owner, PageNo, RecordHash,
    SchemaSummary, Seq, SessionMark, VolumeFigures, VolumeId, VolumeName,
};

/// What kind of volume it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeKind {
    /// A SQLite database.
    Database,
    /// An append-only log.
    Log,
}

impl std::fmt::Display for VolumeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            VolumeKind::Database => "database",
            VolumeKind::Log => "log",
        })
    }
}

/// What never changes about a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMeta {
    /// Which volume.
    pub id: VolumeId,
    /// What it was called at first open.
    pub name: VolumeName,
    /// What it holds.
    pub kind: VolumeKind,
    /// Keys its page identities. A fork keeps its parent's.
    pub identity_key: IdentityKey,
    /// When it began, milliseconds since 1970.
    pub created_ms: u64,
    /// Of a log that was forked, and no other: which log its records say that they are of.
    pub began_as: Option<VolumeId>,
}

impl VolumeMeta {
    /// Which log it is, as its records and its folders say: a fork's is its parent's.
    pub fn log(&self) -> VolumeId {
        self.began_as.unwrap_or(self.id)
    }
}

/// A manifest snapshot: everything an opener needs to find any page as of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Of which volume.
    pub volume: VolumeMeta,
    /// As of which record.
    pub seq: Seq,
    /// That record's hash: the next one must name it.
    pub record: RecordHash,
    /// The term of that record.
    pub epoch: Epoch,
    /// The worker start that wrote that record.
    pub incarnation: Incarnation,
    /// The last commit.
    pub lsn: Lsn,
    /// That record's wall clock.
    pub time_ms: u64,
    /// As of that record.
    pub figures: VolumeFigures,
    /// What page 1 says.
    pub schema: Option<SchemaSummary>,
    /// Whose term it is; `None` after a release.
    pub owner: Option<Owner>,
    /// The newest prune's floor; zero for none.
    pub floor: Seq,
    /// Where the rows are, by ascending shard; shards without rows are left out.
    pub shards: Vec<ShardRef>,
    /// The rows themselves, all of them, where they are few: then no shard need be read. Else none.
    pub rows: Vec<ChunkRow>,
    /// Pages that nearly every query needs.
    pub skeleton: Skeleton,
    /// How far each named session is that there is, ascending by name.
    pub sessions: Vec<SessionMark>,
    /// What is known of each table and index that there is, ascending by number.
    pub objects: Vec<ObjectMark>,
}

/// Where the rows of up to 1,024 chunks are. Rows lie one after another in the shard blob, so that the lengths alone say
/// where each begins: one ranged GET reads one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRef {
    /// Which shard: chunks `1024 * shard ..`.
    pub shard: u64,
    /// The blob.
    pub blob: BlobRef,
    /// The chunks that have a row and the length of each, ascending.
    pub rows: Vec<(ChunkId, u32)>,
    /// A check for each of them, in the same order, so that a row read alone is known to be of this blob and of no other. None
    /// where an older version wrote the directory.
    pub checks: Vec<u32>,
}

/// Page 1, the schema's pages and the top interior pages of the B-trees, up to a byte budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skeleton {
    /// By ascending page number.
    pub pages: Vec<SkeletonPage>,
}

/// One page of a skeleton, as of the snapshot's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkeletonPage {
    /// Which page.
    pub page: PageNo,
    /// Its bytes.
    pub image: Vec<u8>,
}

/// Which snapshot, for those who only need to name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRef {
    /// As of which record.
    pub seq: Seq,
    /// That record's hash.
    pub record: RecordHash,
}

/// The overwritten hint. Never the truth: it may be old, missing, or of a writer that lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of which volume.
    pub volume: VolumeId,
    /// The term of its writer.
    pub epoch: Epoch,
    /// The newest record its writer knew of.
    pub seq: Seq,
    /// The newest manifest snapshot.
    pub snapshot: SnapshotRef,
    /// That snapshot itself, where it is small.
    pub inline: Option<Box<Snapshot>>,
}
