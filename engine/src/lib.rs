//! Doing: what the plans decided, performed on the stores.
//!
//! What this room promises:
//! 1. Each `exec/x.rs` performs what `plan/x.rs` decided, and says in the past tense what came of it.
//! 2. The log's state machines take time, chance, failure and the object store as components, so that a simulator can drive them.
//! 3. One file, [`open`], knows the brand names.
//!
//! What may never enter: SQLite's codes, FFI, text for a terminal.
//! Read next: [`volume`], then [`log`], then [`exec`].

pub mod chores;
pub mod components;
pub mod copies;
pub mod error;
pub mod exec;
pub mod facts;
pub mod follow;
pub mod hand_over;
pub mod jobs;
pub mod lazy;
pub mod leases;
pub mod live;
pub mod log;
pub mod logs;
pub mod open;
pub mod preview;
pub mod runtime;
pub mod sessions;
pub mod settings;
pub mod telemetry;
pub mod volume;

pub use components::Components;
pub use error::EngineError;
pub use lazy::Lazy;
pub use littoral_format::wal;
pub use littoral_local::inherited::{AllRemembered, held as held_locks};
pub use littoral_local::sealed;
pub use littoral_local::{Copied, LocalError, Spool, WorkerLock, flags, holes, past, tracker, upkeep};
pub use littoral_plan::catalogue;
pub use littoral_plan::job::Failure as FailureKind;
pub use littoral_plan::{
    Chore, ChunkPlan, Debt, KeepPolicy, RepackPolicy, Wishes, backlog, budget, foresee, measure, program, readahead,
    room, safety,
};
pub use log::Log;
pub use volume::{Session, Stores, Target, open_for_writing};
