//! Doing: what the plans decided, performed on the stores.
//!
//! What this room promises:
//! 1. Each `exec/x.rs` performs what `plan/x.rs` decided, and says in the past tense what came of it.
//! 2. The log's state machines take time, chance, failure and the object store as components, so that a simulator can drive them.
//! 3. One file, [`open`], knows the brand names.
//!
//! What may never enter: SQLite's codes, FFI, text for a terminal.
//! Read next: [`volume`], then [`log`], then [`exec`].

pub mod components;
pub mod error;
pub mod exec;
pub mod lazy;
pub mod live;
pub mod log;
pub mod open;
pub mod preview;
pub mod runtime;
pub mod settings;
pub mod volume;

pub use components::Components;
pub use error::EngineError;
pub use lazy::Lazy;
pub use littoral_local::{LocalError, tracker};
pub use littoral_plan::{ChunkPlan, KeepPolicy, foresee, program, readahead};
pub use log::Log;
pub use volume::{Session, Stores, Target, open_for_writing};
