//! Doing: each room here performs what the plan of the same name decided, and says in the past tense what came of it.
//!
//! What this room promises:
//! 1. Every step may be the last one before a crash; doing it again is harmless.
//! 2. No transaction, lock guard or page source's borrow of ours lives across an `await` that it does not need.
//!
//! Read next: [`checkpoint`], beside `plan/checkpoint.rs`.

pub mod at;
pub mod beside;
mod catalogue;
pub mod checkpoint;
pub mod coalesce;
pub mod coordinator;
pub mod diff;
pub mod drill;
pub mod fetch;
pub mod fork;
pub mod measure;
pub mod partial;
mod parties;
pub mod phases;
pub mod prune;
pub mod rebuild;
pub mod repack;
pub mod replicate;
pub mod restore;
pub mod salvage;
pub mod segment;
pub(crate) mod sessions;
pub mod skeleton;
pub mod snapshot;
pub mod stage;
pub mod verify;
