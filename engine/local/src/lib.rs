//! The files of a store: its binding, its lock, its scratch, its quota, and the files that restores make.
//!
//! What this room promises:
//! 1. A store's binding is written whole or not at all, and never lets two databases be one volume (rule P14).
//! 2. One process, and in it one holder, has a store's worker lock (rule P12); it dies with its holder.
//! 3. A staged blob that is opened again is byte for byte what was staged, or is not there.
//! 4. Bytes are asked of the quota before they are written, and given back when their file goes (invariant I7); all processes of a store ask one.
//! 5. A restored file appears at its place whole, or not at all; what stood there is replaced only when asked to.
//! 6. A full disk, a read-only directory and a foreign file are named errors, and leave everything as it was.
//!
//! What may never enter: the network, LMDB, what a page or a chunk is, the decision what to write.
//! Read next: [`store`], [`scratch`], [`output`].

pub mod account;
pub mod copies;
pub mod error;
pub mod filesystem;
pub mod flags;
pub mod holdings;
pub mod holes;
pub mod inherited;
pub mod lock;
pub mod log;
pub mod output;
pub mod past;
pub mod quota;
pub mod replica;
pub mod scratch;
pub mod sealed;
pub mod sessions;
pub mod spool;
pub mod store;
pub mod tracker;
pub mod upkeep;

mod binding;
mod durable;
mod journal;

pub use account::{Account, Paces};
pub use binding::Binding;
pub use copies::{Copied, CopyFile};
pub use error::LocalError;
pub use flags::{Flag, Flags, Switch, Whose};
pub use lock::WorkerLock;
pub use output::{OutputFile, OutputState};
pub use quota::LocalQuota;
pub use scratch::{JobDir, Scratch, StagedFile, StagedWriter};
pub use spool::{Spool, SpoolFile, SpoolWriter};
pub use store::{FileState, Found, Store, StoreOptions};
pub use tracker::Tracker;
