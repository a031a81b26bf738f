//! The promises that stores keep: one trait a file, an honest in-memory keeper of each, one conformance suite for all keepers.
//!
//! What this room promises:
//! 1. A trait says what every keeper must do, in words that a test can check; its suite (feature `conformance`) checks them.
//! 2. Errors are named by what the caller does next.
//! 3. Chance, time and failure are components ([`Entropy`], [`Clock`], [`Faults`]): nothing to the right asks the machine.
//!
//! What may never enter: a concrete store, policy, the format of bytes.
//! Read next: [`remote`], [`manifest`], then `littoral-plan`.

pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod faults;
pub mod jobs;
pub mod manifest;
pub mod memory;
pub mod memory_jobs;
pub mod memory_manifest;
pub mod meters;
pub mod progress;
pub mod quota;
pub mod remote;
pub mod source;
pub mod spending;

pub use clock::{Clock, Entropy};
pub use faults::{Crash, Faults, NoFaults};
pub use jobs::{JobError, JobQueue};
pub use manifest::{Batch, Chunks, Ended, LeaseChange, LeaseEdit, Leased, Manifest, ManifestError};
pub use memory::{MemoryBody, MemoryRemote};
pub use memory_jobs::MemoryJobs;
pub use memory_manifest::MemoryManifest;
pub use meters::{Counter, Histogram, Meters, Op, Outcome, Reading, Recovery, Tier, Timed};
pub use progress::{Progress, Silent, Unit};
pub use quota::{Job, Quota, QuotaExhausted, Reservation};
pub use remote::{BlobBody, ObjectMeta, Remote, RemoteError};
pub use source::{CaughtUp, Changed, Commits, LiveSource, Noted, PageSource, SourceError};
pub use spending::{Paced, Spending, Spendings, Spent, Uncounted};
