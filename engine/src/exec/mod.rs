//! Doing: each room here performs what the plan of the same name decided, and says in the past tense what came of it.
//!
//! What this room promises:
//! 1. Every step may be the last one before a crash; doing it again is harmless.
//! 2. No transaction, lock guard or page source's borrow of ours lives across an `await` that it does not need.
//!
//! Read next: [`checkpoint`], beside `plan/checkpoint.rs`.

pub mod checkpoint;
pub mod coalesce;
pub mod diff;
pub mod fetch;
pub mod partial;
pub mod prune;
pub mod rebuild;
pub mod restore;
pub mod segment;
pub mod skeleton;
pub mod snapshot;
pub mod stage;
pub mod verify;
