//! Decisions: state in, choice out. Pure, synchronous, total.
//!
//! What this room promises:
//! 1. The same input gives the same plan, and a plan is a value that can be printed without being run.
//! 2. Nothing here reads a clock, a disk, a network, chance or an environment variable; nothing here fails.
//!
//! What may never enter: I/O, logging, bytes as Littoral keeps them (SQLite's own pages are read in [`btree`]).
//! Each `plan/x.rs` has its `exec/x.rs` in the engine, which does what is decided here.
//! Read next: [`mod@checkpoint`].

pub mod at;
pub mod backlog;
pub mod btree;
pub mod budget;
pub mod catalogue;
pub mod chain;
pub mod checkpoint;
pub mod coalesce;
pub mod compose;
pub mod counted;
pub mod debt;
pub mod foresee;
pub mod index;
pub mod job;
pub mod measure;
pub mod participant;
pub mod phase;
pub mod pieces;
pub mod program;
pub mod prune;
pub mod readahead;
mod record;
pub mod repack;
pub mod replicate;
pub mod room;
pub mod safety;
pub mod sessions;
pub mod settle;
pub mod snapshot;
mod tree;
pub mod upkeep;
pub mod versions;

pub use at::{Asked, Choice, Label, choose, in_gap};
pub use budget::Budget;
pub use chain::{ChainBreak, Link, follows};
pub use checkpoint::{
    Action, CheckpointPlan, CheckpointPolicy, CheckpointView, ChunkChange, ChunkPlan, Estimate, checkpoint,
};
pub use coalesce::{Into as CoalesceInto, Merge, coalesce};
pub use compose::compose;
pub use debt::Debt;
pub use foresee::{Foresight, Walk};
pub use index::{IndexWalk, index_span, index_walk};
pub use pieces::{Piece, pieces};
pub use program::{Instruction, Nest};
pub use prune::{KeepPolicy, RestorePoint, prune_floor, thinned};
pub use readahead::{Readahead, Room};
pub use repack::{Packs, RepackPolicy, repack};
pub use replicate::{Next, replicate, vouched};
pub use settle::{Found, Settled, settle};
pub use snapshot::{SnapshotPressure, snapshot_due};
pub use upkeep::{Chore, Done, Wishes, due};
pub use versions::{Touched, Versions, touched};
