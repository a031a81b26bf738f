//! Append-only logs (DESIGN 8): opened, appended to, read and truncated on this machine, by whoever has their folder.
//!
//! ```
//! use littoral_engine::logs::{self, Log, LogSync, Range, Reader};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("events");
//! let parts = logs::of_this_machine();
//! Log::create(&path, &parts)?;
//! let log = Log::open(&path, LogSync::default(), parts)?;
//! // One appender for each thread. One with a name has serials, and after a crash goes on from what is there.
//! let mut appender = log.appender(Some("worker-7".parse()?))?;
//! let appended = appender.append(b"first")?;
//! assert_eq!((appended.lsn.0, appended.serial.get()), (1, 1));
//! // Durable some milliseconds later by itself, or now.
//! log.sync()?;
//! // In this process or any other.
//! let mut reader = Reader::open(&path, Range::ALL)?;
//! assert_eq!(reader.next_record()?.map(|record| record.body).as_deref(), Some(&b"first"[..]));
//! log.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! `docs/logs.md` is for users, `littoral_local::log` says what is promised.

mod care;
mod remote;
mod restore;
mod ship;
mod truncation;

use crate::components::{Components, MachineClock, MachineEntropy};
use littoral_ports::NoFaults;
use std::sync::Arc;

pub mod schema;
pub mod table;
pub mod tables;
pub mod zone;

pub use care::{Tended, Tender, logs_of, store_of, tables_of};
pub use littoral_local::log::cursors::{Cursor, ack, cursor, cursors, drop_cursor, keep_cursor};
pub use littoral_local::log::retain::{Keep, keep, keep_to, retain};
pub use littoral_local::log::truncate::truncate_past_cursors;
pub use littoral_local::log::void::{Void, newest, voids};
pub use littoral_local::log::{
    Appended, Appender, Batch, Cut, FAULT_POINTS, Log, LogEnd, LogError, LogParts, LogStats, LogSync, Part, Prefix,
    Quiet, ROLL_BACK_POINTS, Range, Read, Reader, Record, Recovered, RolledBack, SegmentStats, Tail, Truncated,
    appender, end, identity, roll_back, start, stats, truncate,
};
pub use littoral_plan::counted;
pub(crate) use remote::segments_of;
pub use remote::{Fetched, RemoteReader};
pub(crate) use restore::room_of;
pub use restore::{RESTORE_POINTS, RestoredLog, restore};
pub use ship::{Carrier, SHIP_POINTS, Shipped, carry};
pub use truncation::{How, TAKE_BACK_POINTS, TRUNCATE_POINTS, let_go, quiet, reading, take_back};

#[cfg(doctest)]
#[doc = include_str!("../../docs/logs.md")]
struct Page;

/// The machine's own clock and chance.
pub fn of_this_machine() -> LogParts {
    LogParts { clock: Arc::new(MachineClock), entropy: Arc::new(MachineEntropy), faults: Arc::new(NoFaults) }
}

/// What a log takes from the engine's components.
pub fn parts(components: &Components) -> LogParts {
    LogParts { clock: components.clock.clone(), entropy: components.entropy.clone(), faults: components.faults.clone() }
}
