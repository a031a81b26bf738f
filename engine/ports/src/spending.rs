//! What the object store is asked for, by all of a store together, and how fast what nobody waits for may go.

use crate::meters::{Counter, Meters, Timed};
use littoral_types::moment::Month;
use std::fmt;
use std::time::Duration;

/// Requests, of the two kinds that object stores ask different prices for, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Those that write or list.
    pub writes: u64,
    /// Those that read.
    pub reads: u64,
    /// Bytes sent.
    pub bytes_up: u64,
    /// Bytes received.
    pub bytes_down: u64,
}

/// What has a pace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paced {
    /// Bytes of blobs that are sent.
    Upload,
    /// Bytes that are read and written here for a checkpoint, or to merge deltas.
    Io,
    /// Bytes that cold scans read.
    ScanBytes,
    /// Their requests.
    ScanRequests,
}

/// What was spent in a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spendings {
    /// Which month.
    pub month: Month,
    /// Since when it is counted, in milliseconds since 1970: the month's beginning, or when somebody began to count in it.
    pub since_ms: u64,
    /// What was spent since.
    pub spent: Spent,
}

/// The account of a store: one, for all of its processes.
pub trait Spending: Send + Sync + fmt::Debug {
    /// Something was asked for, and costs, whatever came of it.
    fn spend(&self, spent: Spent);

    /// Takes so many of what has a pace: how long to rest before they are used, in milliseconds. Who is not to wait has taken them all the same.
    fn take(&self, what: Paced, count: u64) -> u64;

    /// A cold scan begins: it takes at its own pace from here on, and nothing counts as saved before.
    fn scan_begins(&self) {}

    /// Somebody who is no cold scan has read so much: scans give way to that.
    fn read_first(&self, _requests: u64, _bytes: u64) {}

    /// What was spent so far in the month that it is now.
    fn this_month(&self) -> Spendings;

    /// Something happened that is counted.
    fn count(&self, _: Counter, _: u64) {}

    /// Something is over, and took so long.
    fn took(&self, _: Timed, _: Duration) {}

    /// Everything that was counted and timed, by all who share the account.
    fn meters(&self) -> Meters {
        Meters::default()
    }
}

/// Nothing is counted, and nothing has a pace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uncounted;

impl Spending for Uncounted {
    fn spend(&self, _: Spent) {}

    fn take(&self, _: Paced, _: u64) -> u64 {
        0
    }

    fn this_month(&self) -> Spendings {
        Spendings { month: Month::of(0), since_ms: 0, spent: Spent::default() }
    }
}
