//! Work kept as jobs: wished for, begun, done, each step durable, so that whoever works next goes on where somebody was killed.
//!
//! What this room promises:
//! 1. A job is never the only place where anything is known. What it does is begun, resumed and ended by the state machines of the log,
//!    the manifest and the tracker; a queue that is lost, doubled or stale costs time and nothing else.
//! 2. The queue is opened under the store's worker lock, and closed before that is let go of (rule P12). Who does not hold it looks.
//! 3. Work goes on without a job where the queue cannot be had: nothing fails because of it but what is shown.
//! 4. Whoever is at a job holds its mark, a lock that dies with him. One that runs and whose mark is free goes on.
//! 5. Only a process that said so keeps jobs ([`keep`]): the `littoral` command. RocksDB starts threads, and the programs of others fork.
//!
//! What may never enter: the brand names ([`crate::open`] knows those), what a job does.
//! Read next: [`Errand`], then `littoral-plan`'s `job`.

mod desk;
mod errand;
mod told;

pub use desk::{Desk, Seen, look};
pub use errand::{Errand, Noting, begin_at, begin_in, run};

use crate::error::EngineError;
use littoral_local::LocalError;
use littoral_local::log::LogError;
use littoral_plan::job::Failure;
use littoral_ports::{JobError, JobQueue, ManifestError, RemoteError, SourceError};
use littoral_types::Job;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Where every job of any kind may die. What a kind's own work adds is named where it is done.
pub const POINTS: [&str; 4] = ["job.wished", "job.begun", "job.worked", "job.ended"];

/// What opens the queue in a folder.
pub trait Shelf: Send + Sync + fmt::Debug {
    /// Opens it, or makes it. Only for who holds the store's worker lock.
    fn open(&self, folder: &Path) -> Result<Arc<dyn JobQueue>, JobError>;

    /// Its jobs as they stand, each with how many blobs are noted of it, whoever has it open. Nothing is changed.
    fn look(&self, folder: &Path) -> Result<Vec<(Job, usize)>, JobError>;
}

static SHELF: OnceLock<(u32, Arc<dyn Shelf>)> = OnceLock::new();

/// From here on this process keeps its work as jobs.
pub fn keep(shelf: Arc<dyn Shelf>) {
    let _ = SHELF.set((std::process::id(), shelf));
}

/// What opens queues here, where this process keeps jobs. A forked child has not said so.
fn shelf() -> Option<Arc<dyn Shelf>> {
    SHELF.get().filter(|(process, _)| *process == std::process::id()).map(|(_, shelf)| shelf.clone())
}

/// Whether it may go better later by itself. `None` for a test's crash, after which nothing is done.
pub fn judge(error: &EngineError) -> Option<Failure> {
    Some(match error {
        EngineError::Crash(_) | EngineError::Log(LogError::Crash(_)) => return None,
        EngineError::Remote(error) => match error {
            RemoteError::Unknown { .. }
            | RemoteError::Exists { .. }
            | RemoteError::Unavailable { .. }
            | RemoteError::Throttled { .. }
            | RemoteError::Full { .. } => Failure::Passing,
            RemoteError::Missing { .. }
            | RemoteError::Denied { .. }
            | RemoteError::NoBucket { .. }
            | RemoteError::Corrupt { .. }
            | RemoteError::NotFencing { .. }
            | RemoteError::Settings(_) => Failure::Lasting,
        },
        EngineError::Jobs(JobError::Full(_) | JobError::Failed(_)) => Failure::Passing,
        EngineError::Jobs(JobError::Newer { .. } | JobError::Corrupt(_) | JobError::Misuse(_)) => Failure::Lasting,
        EngineError::Manifest(ManifestError::Full(_) | ManifestError::Failed(_) | ManifestError::NoLease(_)) => {
            Failure::Passing
        }
        EngineError::Manifest(ManifestError::Newer { .. } | ManifestError::Corrupt(_) | ManifestError::Misuse(_)) => {
            Failure::Lasting
        }
        EngineError::Local(error) | EngineError::AtWork(error) | EngineError::Log(LogError::Local(error)) => {
            match error {
                LocalError::Busy { .. }
                | LocalError::Full { .. }
                | LocalError::Quota(_)
                | LocalError::Failed { .. } => Failure::Passing,
                LocalError::Newer { .. }
                | LocalError::Conflict(_)
                | LocalError::WouldOverwrite { .. }
                | LocalError::NetworkFileSystem { .. }
                | LocalError::Denied { .. }
                | LocalError::Missing { .. }
                | LocalError::Corrupt { .. }
                | LocalError::Misuse { .. } => Failure::Lasting,
            }
        }
        EngineError::Log(LogError::Busy { .. }) => Failure::Passing,
        EngineError::Source(SourceError::Busy(_))
        | EngineError::Waited { .. }
        | EngineError::Leased { .. }
        | EngineError::SwitchedOff { .. }
        | EngineError::Quota(_)
        | EngineError::Interrupted(_) => Failure::Passing,
        EngineError::Source(SourceError::NotADatabase(_) | SourceError::Corrupt(_) | SourceError::Failed(_))
        | EngineError::Settings(_)
        | EngineError::Damaged { .. }
        | EngineError::Chain { .. }
        | EngineError::Inconsistent { .. }
        | EngineError::Serials { .. }
        | EngineError::Superseded { .. }
        | EngineError::Diverged { .. }
        | EngineError::RemoteBehind { .. }
        | EngineError::NotBound { .. }
        | EngineError::WrongTakeover { .. }
        | EngineError::NoVolume(_)
        | EngineError::NotAVolume { .. }
        | EngineError::NoSuchPosition { .. }
        | EngineError::OtherKind { .. }
        | EngineError::Log(_)
        | EngineError::Refused(_) => Failure::Lasting,
    })
}
