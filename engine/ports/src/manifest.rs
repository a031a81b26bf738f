//! The materialised state of remote logs, kept locally.

use littoral_types::{
    Change, ChangeSeq, ChunkId, ChunkRow, DeltaId, Intent, ManifestOp, PageIdentity, PageNo, RecordKind, Seq,
    StagedBlob, VolumeId, VolumeName, VolumeRow,
};
use std::fmt;

/// Why the manifest could not answer.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A row was written by a newer Littoral. Upgrade; nothing was changed.
    #[error(
        "the local manifest holds a {what} of format {found}, this version reads up to {known}: use a newer littoral"
    )]
    Newer {
        /// What kind of row.
        what: &'static str,
        /// Its format.
        found: u16,
        /// The newest that is known.
        known: u16,
    },
    /// A row does not decode. The manifest can be rebuilt from the object store alone: delete it.
    #[error("the local manifest is damaged ({0}): delete the store's manifest folder, it is rebuilt from the remote")]
    Corrupt(String),
    /// The disk is full. Nothing was changed.
    #[error("no room for the local manifest: {0}")]
    Full(String),
    /// A caller broke the contract (a batch that does not follow the tail, an unknown volume). A bug, not a state.
    #[error("manifest misuse: {0}")]
    Misuse(String),
    /// Anything else the disk says.
    #[error("the local manifest failed: {0}")]
    Failed(String),
}

/// One atomic change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Forget everything known of the volume first (rebuild).
    pub reset: bool,
    /// The volume's row after the change. Required for a volume that is not known yet.
    pub volume: Option<VolumeRow>,
    /// What the record (or the records) did, in order; goes to the change log with `log`.
    pub ops: Vec<ManifestOp>,
    /// The change log's entry: records after `.0` up to `.1`, the last of kind `.2` at wall clock `.3`.
    pub log: Option<(Seq, Seq, RecordKind, u64)>,
    /// Identities to remember. Those beyond the end of a `Resize` are forgotten by it, all of them by a `Reshape`.
    pub identities: Vec<(PageNo, PageIdentity)>,
    /// Sets or clears the intent.
    pub intent: Option<Option<Intent>>,
    /// Sets or clears the birth seq of the running job, with its staged blobs forgotten on a clear or a change.
    pub job: Option<Option<Seq>>,
    /// Blobs to add to the running job (same input: replaces).
    pub staged: Vec<StagedBlob>,
}

/// Chunk rows in ascending order.
pub type Chunks = Vec<ChunkRow>;

/// Keeps volumes, rows, identities, intents and the change log of one store.
///
/// Every keeper promises:
/// 1. `commit` is all or nothing and durable when it returns, through kill and power loss.
/// 2. Rows are what [`ChunkRow::apply`] makes of the operations, in order; a row without versions is gone.
/// 3. Lookups seek: their cost does not grow with the number of rows, deltas or changes.
/// 4. Page numbers and chunk ids keep all 64 bits.
/// 5. The change log keeps an entry until every cursor has acknowledged it, and none longer than the next `trim`.
pub trait Manifest: Send + Sync + fmt::Debug {
    /// The volume of this name.
    fn volume(&self, name: &VolumeName) -> Result<Option<VolumeRow>, ManifestError>;

    /// All volumes, by name.
    fn volumes(&self) -> Result<Vec<VolumeRow>, ManifestError>;

    /// Applies a batch. The change log's number, when the batch had an entry for it.
    fn commit(&self, volume: &VolumeId, batch: &Batch) -> Result<Option<ChangeSeq>, ManifestError>;

    /// One chunk's row.
    fn row(&self, volume: &VolumeId, chunk: ChunkId) -> Result<Option<ChunkRow>, ManifestError>;

    /// Up to `max` rows from `from` on, ascending.
    fn rows(&self, volume: &VolumeId, from: ChunkId, max: usize) -> Result<Chunks, ManifestError>;

    /// The newest delta that holds a live version of the page, found without looking at the others.
    fn newest_delta(&self, volume: &VolumeId, page: PageNo) -> Result<Option<DeltaId>, ManifestError>;

    /// Identities of up to `max` pages from `from` on: `None` where none is known.
    fn identities(
        &self,
        volume: &VolumeId,
        from: PageNo,
        max: usize,
    ) -> Result<Vec<Option<PageIdentity>>, ManifestError>;

    /// What was about to be published.
    fn intent(&self, volume: &VolumeId) -> Result<Option<Intent>, ManifestError>;

    /// The running job's birth and its blobs.
    fn job(&self, volume: &VolumeId) -> Result<Option<(Seq, Vec<StagedBlob>)>, ManifestError>;

    /// Up to `max` entries of the change log after `after`, of all volumes.
    fn changes(&self, after: ChangeSeq, max: usize) -> Result<Vec<Change>, ManifestError>;

    /// The entries of one volume that brought records after `after` (an entry that straddles it included), oldest first.
    fn changes_since(&self, volume: &VolumeId, after: Seq) -> Result<Vec<Change>, ManifestError>;

    /// Makes a cursor that has acknowledged nothing, or finds it as it is.
    fn subscribe(&self, cursor: &str) -> Result<ChangeSeq, ManifestError>;

    /// A subscriber has done with everything up to here; going back is refused.
    fn acknowledge(&self, cursor: &str, change: ChangeSeq) -> Result<(), ManifestError>;

    /// Forgets a cursor.
    fn unsubscribe(&self, cursor: &str) -> Result<(), ManifestError>;

    /// Drops the entries that every cursor has acknowledged (all of them without cursors); how many.
    fn trim(&self) -> Result<u64, ManifestError>;
}
