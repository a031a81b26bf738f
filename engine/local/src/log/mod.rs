//! Append-only logs on this machine: a folder of segments.
//!
//! What this room promises:
//! 1. One process appends to a log; a second one is told who does, and since when. Any number of processes read it meanwhile.
//! 2. A record that was told to be durable is there after any crash, and so is everything before it: what is lost is only ever an end.
//! 3. Whoever reads sees a prefix, in the order of LSNs, whole records alone. What an appender published is seen at once, before it is durable.
//! 4. A session's serials go up. Whoever opens a log whose serials cannot be right is refused, and told which.
//! 5. A segment is sealed when it is full and every reservation in it was published, never before (rule P15); its bytes do not change any more.
//! 6. What was truncated or rolled back does not come back, and whoever stands there is told where the log begins or ends now, and where it goes on.
//! 7. A full disk, or one that fails, ends an append with an error; what was acknowledged stays.
//!
//! `log.toml` (which log it is, and where it begins), `{first LSN}.seg` (its segments, one after another), `cursors/` (up to where who is done), `table.toml` (the columns of
//! its rows, where it is a table's), `zones/` (between what the values of a segment's blocks are, of a
//! table's log; made anew where it is lost), `next` (a segment that was made
//! beforehand), `appender.lock` (who appends), `keeper.lock` (who makes sound what a dead one left, and has that lock for a moment), `change.lock` (who changes where
//! it begins).
//!
//! A forked child must not use what its parent opened. What may never enter: the network, what a record means.
//! Read next: `open.rs`, `live.rs`, `sync.rs`; `docs/decisions/2026-11-28-logs.md`.

pub mod appender;
pub mod blocks;
pub mod cursors;
pub mod error;
mod folder;
mod live;
mod open;
mod prefix;
pub mod reader;
mod recover;
mod restored;
pub mod retain;
mod roll_back;
mod runs;
mod scan;
pub mod schema;
mod settle;
pub mod stats;
mod sync;
pub mod truncate;
pub mod void;

pub use appender::{Appended, Appender};
pub use blocks::{Block, Blocks, Part};
pub use error::LogError;
pub use littoral_format::log::Batch;
pub use littoral_types::Cut;
pub use open::{Log, LogParts, Recovered};
pub use prefix::{Prefix, Stand, Walked};
pub use reader::{Range, Read, Reader, Record, Tail};
pub use restored::{Restoring, identity, start};
pub use roll_back::{Quiet, ROLL_BACK_POINTS, RolledBack, roll_back};
pub use runs::Runs;
pub use settle::{Settled, appended, settle};
pub use stats::{LogEnd, LogStats, SegmentStats, appender, end, stats};
pub use sync::LogSync;
pub use truncate::{Truncated, sessions_before, truncate};

/// Where a test may make a process die that works on a log, in the order in which they are reached.
pub const FAULT_POINTS: [&str; 18] = [
    "log.create.segment",
    "log.create.named",
    "log.append.reserved",
    "log.append.copied",
    "log.roll.ended",
    "log.roll.made",
    "log.roll.named",
    "log.sync.walked",
    "log.sync.synced",
    "log.seal.indexed",
    "log.seal.cut",
    "log.recover.sealed",
    "log.recover.removed",
    "log.recover.zeroed",
    "log.recover.open",
    "log.truncate.said",
    "log.truncate.removed",
    "log.close.synced",
];

#[cfg(test)]
mod tests;
