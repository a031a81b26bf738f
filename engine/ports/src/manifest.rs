//! The materialised state of remote logs, kept locally.

use littoral_types::limits::NAME_LEN_MAX;
use littoral_types::{
    Change, ChangeSeq, ChunkId, ChunkRow, DeltaId, Intent, ManifestOp, PageIdentity, PageNo, RecordSummary, Seq,
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
    /// The change log's entry: the records (never none) that came after this one.
    pub log: Option<(Seq, Vec<RecordSummary>)>,
    /// Identities to remember. Those beyond the end of a `Resize` are forgotten by it, all of them by a `Reshape`.
    pub identities: Vec<(PageNo, PageIdentity)>,
    /// Sets or clears the intent.
    pub intent: Option<Option<Intent>>,
    /// Sets or clears the birth seq of the running job, with its staged blobs forgotten on a clear or a change.
    pub job: Option<Option<Seq>>,
    /// Blobs to add to the running job (same input: replaces).
    pub staged: Vec<StagedBlob>,
}

impl Batch {
    /// What every keeper asks before it applies a batch, so that all refuse the same: `known` is the volume's row before
    /// the batch, `named` the row (of any volume) that bears the name the batch gives, `job` the running job's birth.
    ///
    /// 1. Only a batch that does nothing but `reset` may leave a volume without a row: that forgets the volume.
    /// 2. A volume keeps its name, and a name its volume, except through a reset, which forgets whoever bore the name.
    /// 3. The tail never goes back except through a reset, and a log entry ends at the tail and leaves no record out.
    /// 4. Blobs are staged for a running job.
    pub fn check(
        &self,
        volume: &VolumeId,
        known: Option<&VolumeRow>,
        named: Option<&VolumeRow>,
        job: Option<Seq>,
    ) -> Result<(), ManifestError> {
        let refuse = |why: String| Err(ManifestError::Misuse(format!("volume {volume}: {why}")));
        let (known, job) = if self.reset { (None, None) } else { (known, job) };
        let Some(after) = self.volume.as_ref().or(known) else {
            let nothing_else = *self == Batch { reset: true, ..Batch::default() };
            return if nothing_else { Ok(()) } else { refuse("not known, and the batch brings no row for it".into()) };
        };
        if after.meta.id != *volume {
            return refuse(format!("the batch brings a row of volume {}", after.meta.id));
        }
        if let Some(known) = known {
            if known.meta.name != after.meta.name {
                return refuse(format!("called {}, the batch calls it {}", known.meta.name, after.meta.name));
            }
            if after.tail.seq < known.tail.seq {
                return refuse(format!("its tail would go back from {} to {}", known.tail.seq, after.tail.seq));
            }
        }
        if let Some(other) = named.filter(|row| row.meta.id != *volume && !self.reset) {
            return refuse(format!("the name {} is that of volume {}", after.meta.name, other.meta.id));
        }
        if let Some((from, records)) = &self.log {
            let ends = records.last().map(|record| record.seq);
            let ascending = records.is_sorted_by(|one, other| one.seq < other.seq);
            if ends != Some(after.tail.seq) || !ascending || records.first().is_some_and(|first| first.seq <= *from) {
                let count = records.len();
                let tail = after.tail.seq;
                return refuse(format!(
                    "a log entry of {count} records after {from} that do not lead to the tail, {tail}"
                ));
            }
            if let Some(known) = known.filter(|known| *from > known.tail.seq) {
                return refuse(format!("a log entry after {from} with the tail at {}: a gap", known.tail.seq));
            }
        }
        if !self.staged.is_empty() && self.job.unwrap_or(job).is_none() {
            return refuse("blobs are staged and no job runs".into());
        }
        Ok(())
    }
}

/// A cursor's name is stored as a key: 1 to [`NAME_LEN_MAX`] bytes.
pub fn check_cursor(cursor: &str) -> Result<(), ManifestError> {
    if (1..=NAME_LEN_MAX).contains(&cursor.len()) {
        Ok(())
    } else {
        Err(ManifestError::Misuse(format!("not a cursor's name (1 to {NAME_LEN_MAX} bytes): {cursor:?}")))
    }
}

/// What every keeper asks before it moves a cursor from `held` to `change`, with `last` the newest change there ever was.
pub fn check_acknowledge(
    cursor: &str,
    held: Option<ChangeSeq>,
    change: ChangeSeq,
    last: ChangeSeq,
) -> Result<(), ManifestError> {
    match held {
        None => Err(ManifestError::Misuse(format!("no cursor {cursor:?}: subscribe first"))),
        Some(held) if change < held => {
            Err(ManifestError::Misuse(format!("cursor {cursor:?} would go back from {} to {}", held.0, change.0)))
        }
        Some(_) if change > last => Err(ManifestError::Misuse(format!(
            "cursor {cursor:?} would acknowledge change {} and the newest is {}",
            change.0, last.0
        ))),
        Some(_) => Ok(()),
    }
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
/// 5. The change log keeps an entry until every cursor has acknowledged it, and none longer than the next `trim`. It is the
///    store's, not the volume's: a reset leaves it to its subscribers, and [`Manifest::changes_since`] begins after it.
/// 6. A batch that [`Batch::check`] refuses changes nothing.
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

    /// Identities of `max` pages from `from` on (fewer only where page numbers end): `None` where none is known.
    fn identities(
        &self,
        volume: &VolumeId,
        from: PageNo,
        max: usize,
    ) -> Result<Vec<Option<PageIdentity>>, ManifestError>;

    /// What was about to be published.
    fn intent(&self, volume: &VolumeId) -> Result<Option<Intent>, ManifestError>;

    /// The running job's birth and its blobs, ascending by input.
    fn job(&self, volume: &VolumeId) -> Result<Option<(Seq, Vec<StagedBlob>)>, ManifestError>;

    /// Up to `max` entries of the change log after `after`, of all volumes.
    fn changes(&self, after: ChangeSeq, max: usize) -> Result<Vec<Change>, ManifestError>;

    /// The entries of one volume that brought records after `after` (an entry that straddles it included), oldest first.
    fn changes_since(&self, volume: &VolumeId, after: Seq) -> Result<Vec<Change>, ManifestError>;

    /// Makes a cursor that has acknowledged nothing, or finds it as it is.
    fn subscribe(&self, cursor: &str) -> Result<ChangeSeq, ManifestError>;

    /// A subscriber has done with everything up to here; going back is refused, and so is what nobody has seen yet.
    fn acknowledge(&self, cursor: &str, change: ChangeSeq) -> Result<(), ManifestError>;

    /// Forgets a cursor.
    fn unsubscribe(&self, cursor: &str) -> Result<(), ManifestError>;

    /// Drops the entries that every cursor has acknowledged (all of them without cursors); how many.
    fn trim(&self) -> Result<u64, ManifestError>;
}
