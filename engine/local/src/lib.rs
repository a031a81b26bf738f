//! The files of a store: its binding, its lock, its scratch, its quota, and the files that restores make.
//!
//! What this room promises:
//! 1. A store's binding is written whole or not at all, and never lets two databases be one volume (rule P14).
//! 2. One process, and in it one holder, has a store's worker lock (rule P12); it dies with its holder.
//! 3. A staged blob that is opened again is byte for byte what was staged, or is not there.
//! 4. Bytes are asked of the quota before they are written, and given back when their file goes (invariant I7).
//! 5. A restored file appears at its place whole, or not at all; what stood there is replaced only when asked to.
//! 6. A full disk, a read-only directory and a foreign file are named errors, and leave everything as it was.
//!
//! What may never enter: the network, LMDB, what a page or a chunk is, the decision what to write.
//! Read next: [`store`], [`scratch`], [`output`].

pub mod error;
pub mod filesystem;
pub mod lock;
pub mod output;
pub mod quota;
pub mod scratch;
pub mod store;
pub mod tracker;

mod binding;
mod durable;
mod journal;

pub use binding::Binding;
pub use error::LocalError;
pub use lock::WorkerLock;
pub use output::{OutputFile, OutputState};
pub use quota::LocalQuota;
pub use scratch::{JobDir, Scratch, StagedFile, StagedWriter};
pub use store::{FileState, Found, Store, StoreOptions};
pub use tracker::Tracker;
