//! Work that waits, runs and is over, kept in order and durably.

use littoral_types::{Job, JobId, JobNote, JobState, Wish};
use std::fmt;

/// Why the queue could not answer. Nothing that it holds is the only copy of anything: a caller may always go on without it.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A row was written by a newer Littoral. Left as it is: go on without the queue.
    #[error("the job queue holds a {what} of format {found}, this version reads up to {known}: use a newer littoral")]
    Newer {
        /// What kind of row.
        what: &'static str,
        /// Its format.
        found: u16,
        /// The newest that is known.
        known: u16,
    },
    /// What lies there cannot be read. Set it aside and begin anew.
    #[error("the job queue is damaged: {0}")]
    Corrupt(String),
    /// There is no room: on the disk, or in the queue. Nothing was changed.
    #[error("no room in the job queue: {0}")]
    Full(String),
    /// A caller broke the contract, or asked for what makes no sense. Nothing was changed.
    #[error("{0}")]
    Misuse(String),
    /// Anything else the disk says. Nothing was changed.
    #[error("the job queue failed: {0}")]
    Failed(String),
}

/// Keeps the jobs of one store.
///
/// Every keeper promises:
/// 1. What `add`, `put` and `forget` did is durable when they return, through kill and power loss; each is all or nothing.
/// 2. Of one token there is at most one job that is not over.
/// 3. Numbers ascend, and none is given twice.
/// 4. What a job was wished for, and when, never changes, nor when it was first begun.
/// 5. `due` finds the job that may be taken for longest by seeking; of those of one moment the oldest.
/// 6. Notes are kept until their job is over, and are durable with the next `put` at the latest.
pub trait JobQueue: Send + Sync + fmt::Debug {
    /// The job of this wish: the one of its token that is not over, or a new one, and whether it is new. [`JobError::Full`] beyond
    /// [`JOBS_MAX`](littoral_types::limits::JOBS_MAX).
    fn add(&self, wish: &Wish, now_ms: u64) -> Result<(Job, bool), JobError>;

    /// One job.
    fn get(&self, id: JobId) -> Result<Option<Job>, JobError>;

    /// All jobs, by number.
    fn all(&self) -> Result<Vec<Job>, JobError>;

    /// The one to be taken next, of those that are ready.
    fn due(&self, now_ms: u64) -> Result<Option<Job>, JobError>;

    /// What became of a job that is there. Its notes go when it is over.
    fn put(&self, job: &Job) -> Result<(), JobError>;

    /// Forgets a job that is over.
    fn forget(&self, id: JobId) -> Result<(), JobError>;

    /// It is done with these blobs. Those beyond [`JOB_NOTES_MAX`](littoral_types::limits::JOB_NOTES_MAX) in one call are refused.
    fn note(&self, id: JobId, notes: &[JobNote]) -> Result<(), JobError>;

    /// What it is done with, by name.
    fn notes(&self, id: JobId) -> Result<Vec<JobNote>, JobError>;
}

/// What every keeper asks before it puts `after` in place of `before`, with `other` the job that has its token now.
pub fn check_put(before: Option<&Job>, after: &Job, other: Option<JobId>) -> Result<(), JobError> {
    let refuse = |why: String| Err(JobError::Misuse(format!("job {}: {why}", after.id)));
    let Some(before) = before else { return refuse("there is none".to_owned()) };
    if (&before.wish, before.created_ms) != (&after.wish, after.created_ms) {
        return refuse("what it was wished for and when never changes".to_owned());
    }
    if before.started_ms.is_some() && before.started_ms != after.started_ms {
        return refuse("when it was first begun never changes".to_owned());
    }
    match other {
        Some(other) if other != after.id && !after.state.is_over() => {
            refuse(format!("job {other} does the same and is not over"))
        }
        _ => Ok(()),
    }
}

/// What every keeper asks before it forgets a job.
pub fn check_forget(job: Option<&Job>, id: JobId) -> Result<(), JobError> {
    match job {
        None => Err(JobError::Misuse(format!("there is no job {id}"))),
        Some(job) if !job.state.is_over() => {
            Err(JobError::Misuse(format!("job {id} is {}: cancel it first", job.state.word())))
        }
        Some(_) => Ok(()),
    }
}

/// When a job may be taken, where it may.
pub const fn ready_at(job: &Job) -> Option<u64> {
    match job.state {
        JobState::Ready { not_before_ms } => Some(not_before_ms),
        _ => None,
    }
}
