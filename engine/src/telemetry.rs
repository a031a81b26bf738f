//! What is told of work while it happens: an event for whoever reads the log, and a count in the store's account.
//!
//! What this room promises:
//! 1. Each event is a function here, and has a name that never changes ([`NAMES`]): it is the message of a line of the log at INFO, under the
//!    target [`TARGET`]. Nothing else is logged under that target.
//! 2. What is counted is counted where it is told, so that a log and the metrics of one time say the same.
//! 3. Nothing here waits, asks the kernel or fails.
//!
//! What may never enter: a secret, the text of a statement, anything of a database's contents.

use crate::components::Components;
use crate::error::EngineError;
use littoral_ports::{
    Batch, Chunks, Counter, LeaseChange, Leased, Manifest, ManifestError, Quota, QuotaExhausted, Recovery, Reservation,
    Spending, Timed,
};
use littoral_types::{
    Change, ChangeSeq, ChunkId, ChunkRow, DeltaId, Epoch, Intent, Job, JobId, Lease, ObjectMark, PageIdentity, PageNo,
    PageOwner, Position, Seq, SessionMark, StagedBlob, TakenAway, VolumeId, VolumeName, VolumeRow,
};
use std::sync::Arc;
use std::time::Duration;

/// The target of all events.
pub const TARGET: &str = "littoral::event";

/// The names of all events, as they are documented.
pub const NAMES: [&str; 14] = [
    "checkpoint.started",
    "checkpoint.staged",
    "checkpoint.uploaded",
    "checkpoint.published",
    "checkpoint.cleaned_up",
    "checkpoint.failed",
    "checkpoint.waited",
    "segment.published",
    "job.started",
    "job.ended",
    "fence.claimed",
    "fence.released",
    "fence.superseded",
    "recovery.phase",
];

pub(crate) fn checkpoint_started(volume: &str, generation: u64) {
    tracing::info!(target: TARGET, volume, generation, "checkpoint.started");
}

pub(crate) fn checkpoint_staged(components: &Components, volume: &str, blob: &str, bytes: u64) {
    components.account.count(Counter::CheckpointBytesLocal, bytes);
    tracing::info!(target: TARGET, volume, blob, bytes, "checkpoint.staged");
}

pub(crate) fn checkpoint_uploaded(components: &Components, volume: &str, blob: &str, bytes: u64) {
    components.account.count(Counter::CheckpointBytesRemote, bytes);
    tracing::info!(target: TARGET, volume, blob, bytes, "checkpoint.uploaded");
}

pub(crate) fn checkpoint_published(
    components: &Components,
    volume: &str,
    (position, record): (Position, Seq),
    (blobs, bytes): (usize, u64),
    took_ms: u64,
) {
    components.account.count(Counter::CheckpointsSucceeded, 1);
    components.account.took(Timed::Checkpoint, Duration::from_millis(took_ms));
    let record = record.0;
    tracing::info!(target: TARGET, volume, %position, record, blobs, bytes, took_ms, "checkpoint.published");
}

pub(crate) fn checkpoint_cleaned_up(volume: &str) {
    tracing::info!(target: TARGET, volume, "checkpoint.cleaned_up");
}

pub(crate) fn checkpoint_failed(components: &Components, volume: &str, error: &EngineError, took_ms: u64) {
    components.account.count(Counter::CheckpointsFailed, 1);
    tracing::info!(target: TARGET, volume, %error, took_ms, "checkpoint.failed");
}

pub(crate) fn checkpoint_waited(account: &dyn Spending, volume: &str, phase: &str, who: &str) {
    account.count(Counter::CheckpointWaits, 1);
    tracing::info!(target: TARGET, volume, phase, who, "checkpoint.waited");
}

pub(crate) fn segment_published(components: &Components, volume: &str, position: Position, commits: u64) {
    components.account.count(Counter::SegmentsPublished, 1);
    components.account.count(Counter::CommitsShipped, commits);
    tracing::info!(target: TARGET, volume, %position, commits, "segment.published");
}

pub(crate) fn job_started(job: &Job) {
    let (id, task, attempt) = (job.id.0, job.wish.task.word(), job.attempts);
    tracing::info!(target: TARGET, volume = job.wish.volume, job = id, task, attempt, "job.started");
}

pub(crate) fn job_ended(job: &Job) {
    let (id, task, state) = (job.id.0, job.wish.task.word(), job.state.word());
    tracing::info!(target: TARGET, volume = job.wish.volume, job = id, task, state, error = job.error, "job.ended");
}

pub(crate) fn fence_claimed(volume: &str, epoch: Epoch, takes_over: Option<Epoch>) {
    let takes_over = takes_over.map(|epoch| epoch.0);
    tracing::info!(target: TARGET, volume, epoch = epoch.0, takes_over, "fence.claimed");
}

pub(crate) fn fence_released(volume: &str, epoch: Epoch) {
    tracing::info!(target: TARGET, volume, epoch = epoch.0, "fence.released");
}

pub(crate) fn fence_superseded(volume: &str, epoch: Epoch, owner: &str) {
    tracing::info!(target: TARGET, volume, epoch = epoch.0, owner, "fence.superseded");
}

pub(crate) fn recovery_phase(components: &Components, volume: &str, phase: Recovery, took_ms: u64) {
    components.account.took(Timed::Recovery(phase), Duration::from_millis(took_ms));
    tracing::info!(target: TARGET, volume, phase = phase.word(), took_ms, "recovery.phase");
}

/// A write to the manifest failed. One that was refused because of what it asked for is none.
pub(crate) fn manifest_write_failed(account: &dyn Spending, error: &ManifestError) {
    if matches!(error, ManifestError::Full(_) | ManifestError::Failed(_) | ManifestError::Corrupt(_)) {
        account.count(Counter::ManifestWriteErrors, 1);
    }
}

/// A manifest that counts the writes to it that failed, whoever wanted to write what: a record's rows, a lease, a job.
#[derive(Debug)]
pub(crate) struct CountedManifest {
    pub(crate) manifest: Arc<dyn Manifest>,
    pub(crate) account: Arc<dyn Spending>,
}

impl CountedManifest {
    fn read<T>(&self, answer: Result<T, ManifestError>) -> Result<T, ManifestError> {
        answer
    }

    fn write<T>(&self, answer: Result<T, ManifestError>) -> Result<T, ManifestError> {
        answer.inspect_err(|error| manifest_write_failed(&*self.account, error))
    }
}

macro_rules! counted {
    ($($how:ident $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        impl Manifest for CountedManifest {
            $(fn $name(&self, $($argument: $kind),*) -> Result<$answer, ManifestError> {
                self.$how(self.manifest.$name($($argument),*))
            })*
        }
    };
}

counted! {
    read volume(name: &VolumeName) -> Option<VolumeRow>;
    read volumes() -> Vec<VolumeRow>;
    write commit(volume: &VolumeId, batch: &Batch) -> Option<ChangeSeq>;
    read row(volume: &VolumeId, chunk: ChunkId) -> Option<ChunkRow>;
    read has_base(volume: &VolumeId, chunk: ChunkId) -> bool;
    read rows(volume: &VolumeId, from: ChunkId, max: usize) -> Chunks;
    read deltas(volume: &VolumeId, from: ChunkId, max: usize) -> Chunks;
    read newest_delta(volume: &VolumeId, page: PageNo) -> Option<DeltaId>;
    read identities(volume: &VolumeId, from: PageNo, max: usize) -> Vec<Option<PageIdentity>>;
    read sessions(volume: &VolumeId) -> Vec<SessionMark>;
    read objects(volume: &VolumeId) -> Vec<ObjectMark>;
    read owners(volume: &VolumeId, from: PageNo, max: usize) -> Vec<PageOwner>;
    read intent(volume: &VolumeId) -> Option<Intent>;
    read job(volume: &VolumeId) -> Option<(Seq, Vec<StagedBlob>)>;
    read leases() -> Vec<Lease>;
    write lease(change: &LeaseChange) -> Leased;
    read taken_away(max: usize) -> Vec<TakenAway>;
    read jobs_told() -> Vec<Job>;
    write tell_job(id: JobId, job: Option<&Job>) -> ();
    write tell_jobs(all: &[Job]) -> ();
    read changes(after: ChangeSeq, max: usize) -> Vec<Change>;
    read changes_since(volume: &VolumeId, after: Seq) -> Vec<Change>;
    write subscribe(cursor: &str) -> ChangeSeq;
    write acknowledge(cursor: &str, change: ChangeSeq) -> ();
    write unsubscribe(cursor: &str) -> ();
    write trim() -> u64;
}

/// A quota that counts how often there was no room.
#[derive(Debug)]
pub(crate) struct CountedQuota {
    pub(crate) quota: Arc<dyn Quota>,
    pub(crate) account: Arc<dyn Spending>,
}

impl Quota for CountedQuota {
    fn reserve(&self, what: &str, bytes: u64) -> Result<Reservation, QuotaExhausted> {
        self.quota.reserve(what, bytes).inspect_err(|_| self.account.count(Counter::QuotaExhausted, 1))
    }

    fn used(&self) -> u64 {
        self.quota.used()
    }

    fn limit(&self) -> u64 {
        self.quota.limit()
    }

    fn swept(&self) {
        self.quota.swept();
    }
}
