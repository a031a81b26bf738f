//! What a store keeps locally about its volumes.

use crate::{
    BlobName, BlobRef, Epoch, Incarnation, Lsn, ManifestOp, Owner, PageIdentity, PageNo, PageOwner, RecordHash,
    RecordSummary, SchemaSummary, Seq, TakenAway, VolumeFigures, VolumeId, VolumeMeta, WalMark,
};

/// Where a volume's log ends, as far as this store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailRow {
    /// The newest record.
    pub seq: Seq,
    /// Its hash. A local directory is tied to both (rule P3).
    pub hash: RecordHash,
    /// The newest term.
    pub epoch: Epoch,
    /// The worker start that wrote the newest record.
    pub incarnation: Incarnation,
    /// Whose term it is; `None` after a release.
    pub owner: Option<Owner>,
    /// The last commit.
    pub lsn: Lsn,
    /// The newest record's wall clock.
    pub time_ms: u64,
    /// As of the newest record.
    pub figures: VolumeFigures,
    /// What page 1 says.
    pub schema: Option<SchemaSummary>,
    /// The newest manifest snapshot; zero for none.
    pub snapshot: Seq,
    /// Hash of the newest index record, and its place; zero for none.
    pub index: Option<(Seq, RecordHash)>,
    /// The newest prune's floor.
    pub floor: Seq,
    /// Where the WAL stood at the last commit, as its record says. `None` where no record says it: then nothing follows but a
    /// checkpoint.
    pub wal: Option<WalMark>,
    /// When the remote's tail was last seen to be this one, by the wall clock (rule P5). Zero while the rows behind it are
    /// still being rebuilt: then nothing here is to be relied on.
    pub seen_ms: u64,
}

/// All that is known of a volume apart from its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRow {
    /// What never changes.
    pub meta: VolumeMeta,
    /// Where its log ends.
    pub tail: TailRow,
    /// Who superseded us, once that was seen: nothing is published any more (invariant I3).
    pub fenced: Option<(Epoch, Owner)>,
}

/// What is about to be published: written before the object store is touched, gone with the batch that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The record's place.
    pub seq: Seq,
    /// Its stored bytes, so that a successor of a killed worker knows its own record when it finds it (rule P3).
    pub record: Vec<u8>,
    /// Its body's stored bytes where they are a blob of their own.
    pub body: Option<(BlobName, u64)>,
    /// Identities to remember once it is published.
    pub identities: Vec<(PageNo, PageIdentity)>,
    /// Whose pages are from then on, where that changed; `None` where that is not known.
    pub owners: Option<Vec<(PageNo, PageOwner)>>,
}

/// A blob that a running job has staged, and perhaps uploaded: what a resumed job need not do again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedBlob {
    /// Digest of what went in (chunk, pages, identities, settings): the same input makes the same blob.
    pub input: [u8; 32],
    /// The blob.
    pub blob: BlobRef,
    /// Whether the object store has it.
    pub uploaded: bool,
}

/// Numbers the change log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeSeq(pub u64);

/// One entry of the change log: what one batch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub change: ChangeSeq,
    /// Of which volume.
    pub volume: VolumeId,
    /// It brought the records after this one.
    pub after: Seq,
    /// The records it brought, oldest first; where a rebuild took a sum for many, only the last ones. Empty only where `undone` says that
    /// none came.
    pub records: Vec<RecordSummary>,
    /// What they did.
    pub ops: Vec<ManifestOp>,
    /// Work that was cut off: its lease was taken away, and nothing of it is published.
    pub undone: Option<TakenAway>,
}

impl Change {
    /// It brought the records up to this one.
    pub fn seq(&self) -> Seq {
        self.records.last().map_or(self.after, |record| record.seq)
    }
}
