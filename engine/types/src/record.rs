//! Records of the remote log: the volume's truth, one struct a kind.

use crate::{
    BlobName, BlobRef, ChunkRow, Epoch, Generation, Incarnation, Lsn, LsnRange, ManifestOp, PageCount, PageSize,
    Position, RecordHash, Seq, ShardRef, SkeletonPage, StoreId, VolumeId, VolumeMeta, VolumeName,
};
use std::fmt;

/// What a record says, as its header names it. Numbers are persisted and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum RecordKind {
    /// A writer's term begins.
    Claim = 1,
    /// A writer's term ends in order; the next may begin without a takeover.
    Release = 2,
    /// Commits and their pages.
    Segment = 3,
    /// Pages folded into chunks and deltas.
    Checkpoint = 4,
    /// Deltas folded into fewer.
    Coalesce = 5,
    /// Everything since an earlier record, summed up.
    Index = 6,
    /// What will be deleted.
    Prune = 7,
    /// The same as a checkpoint, of commits that cannot be told apart (rule P9).
    Gap = 8,
    /// The volume begins as another one was.
    Fork = 9,
}

impl RecordKind {
    /// All of them.
    pub const ALL: [RecordKind; 9] = [
        RecordKind::Claim,
        RecordKind::Release,
        RecordKind::Segment,
        RecordKind::Checkpoint,
        RecordKind::Coalesce,
        RecordKind::Index,
        RecordKind::Prune,
        RecordKind::Fork,
        RecordKind::Gap,
    ];

    /// Whether such a record's state is one that a restore ends at: the end of a batch of commits.
    pub const fn is_restore_point(self) -> bool {
        matches!(self, RecordKind::Segment | RecordKind::Checkpoint | RecordKind::Gap | RecordKind::Fork)
    }

    /// Whether such a record folds what segments brought: it is a checkpoint.
    pub const fn folds(self) -> bool {
        matches!(self, RecordKind::Checkpoint | RecordKind::Gap)
    }

    /// The word users see.
    pub const fn word(self) -> &'static str {
        match self {
            RecordKind::Claim => "claim",
            RecordKind::Release => "release",
            RecordKind::Segment => "segment",
            RecordKind::Checkpoint => "checkpoint",
            RecordKind::Coalesce => "coalesce",
            RecordKind::Index => "index",
            RecordKind::Prune => "prune",
            RecordKind::Gap => "gap",
            RecordKind::Fork => "fork",
        }
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What can be read of a record without its body. The chain goes through headers alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Which volume's log it belongs to.
    pub volume: VolumeId,
    /// Its place.
    pub seq: Seq,
    /// The term it was written in.
    pub epoch: Epoch,
    /// The worker start that wrote it.
    pub incarnation: Incarnation,
    /// The hash of the header before it; [`RecordHash::NONE`] for the first.
    pub previous: RecordHash,
    /// The commits it carries.
    pub lsns: LsnRange,
    /// Wall clock of the writer, milliseconds since 1970. For people, never for decisions about order.
    pub time_ms: u64,
    /// The newest manifest snapshot the writer knew of, zero for none: an opener at this record starts there.
    pub snapshot: Seq,
    /// Figures as of this record, so that history needs no bodies.
    pub figures: VolumeFigures,
    /// What this record added.
    pub added: FooterFigures,
}

/// A volume's figures as of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeFigures {
    /// The newest generation.
    pub generation: Generation,
    /// The page size; `None` before the first checkpoint.
    pub page_size: Option<PageSize>,
    /// How many pages the database has.
    pub page_count: PageCount,
}

/// What one record added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FooterFigures {
    /// Pages whose content it changed.
    pub pages: u64,
    /// Bytes of the blobs it names for the first time.
    pub bytes: u64,
}

/// A record: header and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The part that is chained.
    pub header: RecordHeader,
    /// The part that is hashed by the header.
    pub body: RecordBody,
}

/// Where a record's body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyPlace {
    /// Behind the header, in the same object.
    Inline {
        /// Stored bytes.
        len: u64,
    },
    /// In a blob of its own, because it is larger than [`crate::limits::RECORD_INLINE_MAX`].
    Blob(BlobRef),
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordBody {
    /// See [`RecordKind::Claim`].
    Claim(Claim),
    /// See [`RecordKind::Release`].
    Release(Release),
    /// See [`RecordKind::Segment`].
    Segment(Segment),
    /// See [`RecordKind::Checkpoint`], and [`RecordKind::Gap`] where it says that there is one.
    Checkpoint(Checkpoint),
    /// See [`RecordKind::Coalesce`].
    Coalesce(Coalesce),
    /// See [`RecordKind::Index`].
    Index(Index),
    /// See [`RecordKind::Prune`].
    Prune(Prune),
    /// See [`RecordKind::Fork`].
    Fork(Box<Fork>),
}

impl RecordBody {
    /// Its kind.
    pub const fn kind(&self) -> RecordKind {
        match self {
            RecordBody::Claim(_) => RecordKind::Claim,
            RecordBody::Release(_) => RecordKind::Release,
            RecordBody::Segment(_) => RecordKind::Segment,
            RecordBody::Checkpoint(Checkpoint { gap: Some(_), .. }) => RecordKind::Gap,
            RecordBody::Checkpoint(_) => RecordKind::Checkpoint,
            RecordBody::Coalesce(_) => RecordKind::Coalesce,
            RecordBody::Index(_) => RecordKind::Index,
            RecordBody::Prune(_) => RecordKind::Prune,
            RecordBody::Fork(_) => RecordKind::Fork,
        }
    }

    /// What it does to a manifest. An index repeats what earlier records did and is not applied by those who saw them.
    pub fn ops(&self) -> &[ManifestOp] {
        match self {
            RecordBody::Checkpoint(checkpoint) => &checkpoint.ops,
            RecordBody::Segment(segment) => &segment.ops,
            RecordBody::Coalesce(coalesce) => &coalesce.ops,
            RecordBody::Index(index) => &index.ops,
            RecordBody::Fork(fork) => &fork.ops,
            RecordBody::Claim(_) | RecordBody::Release(_) | RecordBody::Prune(_) => &[],
        }
    }
}

/// Who writes: what a loser is told of the winner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The store whose term it is.
    pub store: StoreId,
    /// The machine's name, and the store's path on it. For people.
    pub label: String,
}

/// A writer's term begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose term.
    pub owner: Owner,
    /// The term it ends without its owner's word; `None` for the first and after a release.
    pub takes_over: Option<Epoch>,
    /// The volume, told again with each claim so that the first one may be pruned.
    pub volume: VolumeMeta,
}

/// A writer's term ends in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Whose term it was.
    pub owner: Owner,
}

/// One commit of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Which.
    pub lsn: Lsn,
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// The database's size after it.
    pub page_count: PageCount,
    /// A place in the layout that nothing is written to: sessions are among the segment's operations, as of its last commit.
    pub session: Option<(String, u64)>,
}

/// Where in the WAL the last frame stood that a record holds (rule S2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalMark {
    /// The WAL header's salts.
    pub salts: [u32; 2],
    /// The last frame's number.
    pub frame: u64,
    /// The running checksum behind it.
    pub checksum: [u32; 2],
}

/// Commits and the last version of each page they changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// In order; the header's range names the first and the last.
    pub commits: Vec<Commit>,
    /// Where the WAL stood; `None` for commits of a rollback journal.
    pub wal: Option<WalMark>,
    /// What it does to the manifest: sizes, then for each chunk the pages that changed, whole and as patches.
    pub ops: Vec<ManifestOp>,
    /// The pages' frames, where they travel in the record. Empty where they are a blob of their own.
    pub frames: Vec<u8>,
}

/// How the database commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalMode {
    /// Page 1 says rollback journal.
    Rollback,
    /// Page 1 says WAL.
    Wal,
}

/// What page 1 says of the schema: cheap to keep, telling in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaSummary {
    /// Moves with every schema change.
    pub cookie: u32,
    /// `PRAGMA user_version`.
    pub user_version: u32,
    /// `PRAGMA application_id`.
    pub application_id: u32,
    /// 1 UTF-8, 2 UTF-16le, 3 UTF-16be, 0 for a database without a schema yet.
    pub encoding: u32,
    /// How it commits.
    pub journal: JournalMode,
}

/// Pages folded into chunks and deltas, up to the last LSN of the header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// What changed.
    pub ops: Vec<ManifestOp>,
    /// What page 1 says.
    pub schema: Option<SchemaSummary>,
    /// A place in the layout that nothing is written to: sessions that changed (rule P10) are among the operations.
    pub sessions: Vec<(String, u64)>,
    /// Where the WAL stood: segments go on from there. `None` where nobody knows, or where there is no WAL.
    pub wal: Option<WalMark>,
    /// Pages that nearly every query needs, of those that changed, as of this record: whoever opens the volume has them then.
    pub pages: Vec<SkeletonPage>,
    /// Why its commits cannot be told apart, where they cannot: between the restore point before it and its own nothing is known.
    pub gap: Option<Gap>,
}

/// Commits that cannot be told apart (rule P9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// When the first of them was made, milliseconds since 1970, or earlier: until then the state before is the one. Zero where nobody
    /// knows.
    pub since_ms: u64,
}

/// Why commits cannot be told apart. Numbers are persisted and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum GapReason {
    /// Too much waited to be shipped commit by commit: capture was dropped, or all of it folded.
    Room = 1,
    /// A WAL started over, or went, with something in it that nobody had shipped or copied.
    Lost = 2,
    /// Somebody wrote past the VFS.
    Foreign = 3,
    /// Nobody kept track: a machine or the last process died, or the tracker was lost.
    Untracked = 4,
    /// They came by a rollback journal, which holds none, and waited.
    Journal = 5,
}

impl GapReason {
    /// All of them.
    pub const ALL: [GapReason; 5] =
        [GapReason::Room, GapReason::Lost, GapReason::Foreign, GapReason::Untracked, GapReason::Journal];

    /// The word that programs see.
    pub const fn word(self) -> &'static str {
        match self {
            GapReason::Room => "room",
            GapReason::Lost => "lost",
            GapReason::Foreign => "foreign",
            GapReason::Untracked => "untracked",
            GapReason::Journal => "journal",
        }
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GapReason::Room => "too much waited to travel commit by commit",
            GapReason::Lost => "a WAL started over before its commits were shipped or copied",
            GapReason::Foreign => "somebody wrote without Littoral",
            GapReason::Untracked => "a machine or a process died, and nobody had kept track",
            GapReason::Journal => "they waited, and a rollback journal keeps none apart",
        })
    }
}

/// Deltas folded into fewer; no page changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coalesce {
    /// What changed.
    pub ops: Vec<ManifestOp>,
}

/// Everything since an earlier record, summed up, so that an open never replays records one by one (rule P8).
///
/// The index at `64 k` sums up `64 (k - lowbit(k)) .. 64 k`; walking down from the newest by `previous` visits at most
/// one node per bit of `k`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Records after this one are summed up here.
    pub after: Seq,
    /// The index at `after`, unless that is zero: the next node to read, and its hash.
    pub previous: Option<RecordHash>,
    /// What the records did, in order, without what later ones undid.
    pub ops: Vec<ManifestOp>,
    /// The records since the index before (not only since `after`), oldest first, this one not included.
    pub recent: Vec<RecordSummary>,
    /// As of this record.
    pub schema: Option<SchemaSummary>,
    /// Whose term it is; `None` after a release.
    pub owner: Option<Owner>,
    /// The newest prune's floor; zero for none.
    pub floor: Seq,
}

/// What a history shows of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSummary {
    /// Its place.
    pub seq: Seq,
    /// What it said.
    pub kind: RecordKind,
    /// Its header's hash.
    pub hash: RecordHash,
    /// The term.
    pub epoch: Epoch,
    /// The commits.
    pub lsns: LsnRange,
    /// When.
    pub time_ms: u64,
    /// The database's size after it.
    pub page_count: PageCount,
    /// What it added.
    pub added: FooterFigures,
}

/// What will be deleted. Nothing may be that no such record named (rule P1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prune {
    /// The oldest restore point that stays, where a manifest snapshot stands. Records before it go, except those that a pin
    /// needs as the way to the state it holds.
    pub floor: Seq,
    /// Blobs of this volume that go, orphans included.
    pub blobs: Vec<BlobName>,
    /// Manifest snapshots that go.
    pub snapshots: Vec<Seq>,
}

/// A volume begins as another one was at one of its records: always the first record, and all of the term that it ends. The parent's
/// blobs stay where they are, and every name of one says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The new volume. Its page identities are keyed as the parent's (rule P13).
    pub volume: VolumeMeta,
    /// Who made it. Nobody writes it yet.
    pub made_by: Owner,
    /// Where it comes from.
    pub parent: Parent,
    /// As of the state that the rows are of: the parent's manifest snapshot.
    pub figures: VolumeFigures,
    /// Where those rows are.
    pub shards: Vec<ShardRef>,
    /// Those rows, all of them, where they are few. Else none.
    pub rows: Vec<ChunkRow>,
    /// What the parent did from there to the state that this begins with.
    pub ops: Vec<ManifestOp>,
    /// As of the state that this begins with.
    pub schema: Option<SchemaSummary>,
    /// Pages that nearly every query needs, as of the state that this begins with.
    pub pages: Vec<SkeletonPage>,
}

/// The state of another volume that a fork begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// What it is called, under the same remote.
    pub name: VolumeName,
    /// Which volume that is.
    pub id: VolumeId,
    /// The record.
    pub seq: Seq,
    /// Its hash.
    pub record: RecordHash,
    /// The commit.
    pub position: Position,
}
