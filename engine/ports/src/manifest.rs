//! The materialised state of remote logs, kept locally.

use littoral_types::limits::{LEASES_MAX, NAME_LEN_MAX};
use littoral_types::{
    Change, ChangeSeq, ChunkId, ChunkRow, ChunkRuns, DeltaId, Intent, Job, JobId, Lease, LeaseToken, LeaseWish,
    ManifestOp, ObjectMark, PageIdentity, PageNo, PageOwner, RecordSummary, Seq, SessionMark, StagedBlob, TakenAway,
    VolumeId, VolumeName, VolumeRow,
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
    /// The lease that this stood on was taken away, or ran out and is somebody else's. Nothing was changed, and nothing of what was done under
    /// it is to be published.
    #[error(
        "lease {0} was taken away: littoral leases audit says by whom, and why (or its volume was forgotten here). Nothing was published of what was done under it"
    )]
    NoLease(LeaseToken),
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
    /// Whose pages are from here on, where that changed: perhaps of none. `None` comes from who does not know: where it brings a
    /// checkpoint, all that was known is forgotten; as it is by a `Reshape`.
    pub owners: Option<Vec<(PageNo, PageOwner)>>,
    /// Sets or clears the intent.
    pub intent: Option<Option<Intent>>,
    /// Sets or clears the birth seq of the running job, with its staged blobs forgotten on a clear or a change.
    pub job: Option<Option<Seq>>,
    /// Blobs to add to the running job (same input: replaces).
    pub staged: Vec<StagedBlob>,
    /// The batch counts only where this lease stands, and ends it: what was done under it is decided by now.
    pub lease: Option<LeaseToken>,
}

impl Batch {
    /// Whether it makes what was known of pages' owners untrue.
    pub fn forgets_owners(&self) -> bool {
        let folds = self.log.iter().flat_map(|(_, records)| records).any(|record| record.kind.folds());
        folds && self.owners.is_none()
    }

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

/// A lease whose time is over, as whoever wants one found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub token: LeaseToken,
    /// Why.
    pub why: String,
    /// Its holder is gone, and nobody will ever end it: it goes whether it stands in somebody's way or not.
    pub is_dead: bool,
}

/// What is done to a store's leases, at once and whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// Somebody wants one. Those of `over` that stand in his way he takes, since their holders have died or their time has run out; and
    /// with them those of the dead that stand in nobody's.
    Take {
        /// What he wants.
        wish: LeaseWish,
        /// Whose time is over.
        over: Vec<Ended>,
        /// Who says so.
        by: String,
    },
    /// Its holder lives, and perhaps works on more. Those of `over` that stand in his way then he takes, as whoever wants one does.
    Renew {
        /// Which.
        token: LeaseToken,
        /// Until when it lasts now.
        until_boot_ms: u64,
        /// What he works on besides.
        more: ChunkRuns,
        /// Whose time is over.
        over: Vec<Ended>,
        /// Who says so.
        by: String,
        /// When, by the wall clock.
        at_ms: u64,
    },
    /// Its holder is done.
    End {
        /// Which.
        token: LeaseToken,
    },
    /// Somebody takes it from its holder.
    TakeAway {
        /// Which.
        token: LeaseToken,
        /// When, by the wall clock.
        at_ms: u64,
        /// Who.
        by: String,
        /// Why.
        why: String,
        /// Whether its holder lives and has time left.
        is_forced: bool,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leased {
    /// It is held, or held for longer.
    Held(Lease),
    /// These stand in the way. Nothing was changed.
    Refused(Vec<Lease>),
    /// It is over.
    Over(Lease),
    /// It is not there: it was taken away, or never given. Nothing was changed.
    Gone,
}

/// What every keeper makes of a [`LeaseChange`]: the answer, which of the leases go, which of those were taken away, and which is there
/// afterwards. `given` is the newest number that was ever given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseEdit {
    /// What is answered.
    pub answer: Leased,
    /// These are there no more.
    pub gone: Vec<LeaseToken>,
    /// Those of them that were taken away.
    pub taken: Vec<TakenAway>,
    /// This one is there as it is here.
    pub put: Option<Lease>,
}

impl LeaseChange {
    /// Decides.
    pub fn over(&self, leases: &[Lease], given: LeaseToken) -> Result<LeaseEdit, ManifestError> {
        let find = |token: &LeaseToken| leases.iter().find(|lease| lease.token == *token).cloned();
        let nothing = |answer| LeaseEdit { answer, gone: Vec::new(), taken: Vec::new(), put: None };
        Ok(match self {
            LeaseChange::Take { wish, over, by } => {
                let taken = match taken_over(leases, wish, over, (by, wish.taken_ms)) {
                    Ok(taken) => taken,
                    Err(held) => return Ok(nothing(Leased::Refused(held))),
                };
                if leases.len() - taken.len() >= LEASES_MAX {
                    return Err(ManifestError::Failed(format!("{} leases are held at once", leases.len())));
                }
                let lease = Lease { token: LeaseToken(given.0 + 1), wish: wish.clone() };
                LeaseEdit {
                    answer: Leased::Held(lease.clone()),
                    gone: taken.iter().map(|taken| taken.lease.token).collect(),
                    taken,
                    put: Some(lease),
                }
            }
            LeaseChange::Renew { token, until_boot_ms, more, over, by, at_ms } => match find(token) {
                None => nothing(Leased::Gone),
                Some(mut lease) => {
                    lease.wish.until_boot_ms = *until_boot_ms;
                    lease.wish.chunks = lease.wish.chunks.map(|chunks| chunks.with(more));
                    let others: Vec<Lease> = leases.iter().filter(|other| other.token != *token).cloned().collect();
                    match taken_over(&others, &lease.wish, over, (by, *at_ms)) {
                        Ok(taken) => LeaseEdit {
                            gone: taken.iter().map(|taken| taken.lease.token).collect(),
                            taken,
                            put: Some(lease.clone()),
                            ..nothing(Leased::Held(lease))
                        },
                        Err(held) => nothing(Leased::Refused(held)),
                    }
                }
            },
            LeaseChange::End { token } => match find(token) {
                None => nothing(Leased::Gone),
                Some(lease) => LeaseEdit { gone: vec![*token], ..nothing(Leased::Over(lease)) },
            },
            LeaseChange::TakeAway { token, at_ms, by, why, is_forced } => match find(token) {
                None => nothing(Leased::Gone),
                Some(lease) => {
                    let (at_ms, by, why) = (*at_ms, by.clone(), why.clone());
                    let taken = vec![TakenAway { lease: lease.clone(), at_ms, by, why, is_forced: *is_forced }];
                    LeaseEdit { gone: vec![*token], taken, ..nothing(Leased::Over(lease)) }
                }
            },
        })
    }
}

/// Which leases go where this is wanted; or those that stand in the way, and whose time is not over.
fn taken_over(
    leases: &[Lease],
    wish: &LeaseWish,
    over: &[Ended],
    (by, at_ms): (&str, u64),
) -> Result<Vec<TakenAway>, Vec<Lease>> {
    let (mut taken, mut held) = (Vec::new(), Vec::new());
    for lease in leases {
        let excludes = lease.excludes(wish);
        match over.iter().find(|ended| ended.token == lease.token) {
            Some(Ended { why, is_dead, .. }) if excludes || *is_dead => {
                let (lease, by, why) = (lease.clone(), by.to_owned(), why.clone());
                taken.push(TakenAway { lease, at_ms, by, why, is_forced: false });
            }
            None if excludes => held.push(lease.clone()),
            _ => {}
        }
    }
    if held.is_empty() { Ok(taken) } else { Err(held) }
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
/// 6. A batch that [`Batch::check`] refuses changes nothing, nor does one whose lease does not stand. A volume that is forgotten, and not
///    only learnt anew, takes its leases along.
/// 7. Of two changes of leases one comes first, in whatever processes: what [`LeaseChange::over`] decides is decided on what there is. A
///    lease's number is never given again. One that was taken away is remembered, and the change log says that its work was cut off, in the
///    same step.
pub trait Manifest: Send + Sync + fmt::Debug {
    /// The volume of this name.
    fn volume(&self, name: &VolumeName) -> Result<Option<VolumeRow>, ManifestError>;

    /// All volumes, by name.
    fn volumes(&self) -> Result<Vec<VolumeRow>, ManifestError>;

    /// Applies a batch. The change log's number, when the batch had an entry for it.
    fn commit(&self, volume: &VolumeId, batch: &Batch) -> Result<Option<ChangeSeq>, ManifestError>;

    /// One chunk's row.
    fn row(&self, volume: &VolumeId, chunk: ChunkId) -> Result<Option<ChunkRow>, ManifestError>;

    /// Whether a chunk has a base, without looking at it.
    fn has_base(&self, volume: &VolumeId, chunk: ChunkId) -> Result<bool, ManifestError>;

    /// Up to `max` rows from `from` on, ascending.
    fn rows(&self, volume: &VolumeId, from: ChunkId, max: usize) -> Result<Chunks, ManifestError>;

    /// The deltas of up to `max` chunks that have some, from `from` on, ascending: rows without their bases, of which none is looked at.
    fn deltas(&self, volume: &VolumeId, from: ChunkId, max: usize) -> Result<Chunks, ManifestError>;

    /// The newest delta that holds a live version of the page, found without looking at the others.
    fn newest_delta(&self, volume: &VolumeId, page: PageNo) -> Result<Option<DeltaId>, ManifestError>;

    /// Identities of `max` pages from `from` on (fewer only where page numbers end): `None` where none is known.
    fn identities(
        &self,
        volume: &VolumeId,
        from: PageNo,
        max: usize,
    ) -> Result<Vec<Option<PageIdentity>>, ManifestError>;

    /// How far each named session is that there is, ascending by name.
    fn sessions(&self, volume: &VolumeId) -> Result<Vec<SessionMark>, ManifestError>;

    /// What is known of each table and index that there is, ascending by number.
    fn objects(&self, volume: &VolumeId) -> Result<Vec<ObjectMark>, ManifestError>;

    /// Whose `max` pages from `from` on are (fewer only where page numbers end), as of the newest checkpoint.
    fn owners(&self, volume: &VolumeId, from: PageNo, max: usize) -> Result<Vec<PageOwner>, ManifestError>;

    /// What was about to be published.
    fn intent(&self, volume: &VolumeId) -> Result<Option<Intent>, ManifestError>;

    /// The running job's birth and its blobs, ascending by input.
    fn job(&self, volume: &VolumeId) -> Result<Option<(Seq, Vec<StagedBlob>)>, ManifestError>;

    /// All leases of the store, the oldest first, whoever holds them and whether he still lives.
    fn leases(&self) -> Result<Vec<Lease>, ManifestError>;

    /// Changes them.
    fn lease(&self, change: &LeaseChange) -> Result<Leased, ManifestError>;

    /// The newest `max` that were taken away, the oldest of them first.
    fn taken_away(&self, max: usize) -> Result<Vec<TakenAway>, ManifestError>;

    /// The store's jobs as they were when their queue was changed last, by number: for processes that may not open it. A hint.
    fn jobs_told(&self) -> Result<Vec<Job>, ManifestError>;

    /// Tells what became of one; `None` where it is forgotten.
    fn tell_job(&self, id: JobId, job: Option<&Job>) -> Result<(), ManifestError>;

    /// Tells that these are all.
    fn tell_jobs(&self, all: &[Job]) -> Result<(), ManifestError>;

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
