//! The times of commits that are gathered, and where their batch ends because of them.

use littoral_engine::backlog::{self, End};
use littoral_engine::tracker::Timed;
use littoral_engine::tracker::bells::Ordinal;
use std::time::{SystemTime, UNIX_EPOCH};

/// What was noted while commits were made, beside those that are gathered, in their order.
pub(super) struct Times {
    noted: Vec<Timed>,
    /// The first that may be of a commit that comes.
    next: usize,
    /// Of each commit so far, its own.
    found: Vec<Option<u64>>,
    began_ms: Option<u64>,
    now_ms: u64,
    /// How often commits travel that nobody holds up; `None` where all that there is travels at once.
    interval_ms: Option<u64>,
    is_over: bool,
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Times {
    pub(super) fn new(noted: Vec<Timed>, now_ms: u64, interval_ms: Option<u64>) -> Self {
        Self { noted, next: 0, found: Vec::new(), began_ms: None, now_ms, interval_ms, is_over: false }
    }

    /// The time of a commit, if what was noted at its place was noted of it: the checksum says so.
    fn own(&mut self, place: Option<Ordinal>, checksum: [u32; 2]) -> Option<u64> {
        let place = place?;
        while self.noted.get(self.next).is_some_and(|noted| noted.place < place) {
            self.next += 1;
        }
        let noted = self.noted.get(self.next).filter(|noted| noted.place == place && noted.checksum == checksum);
        // Nothing was made after now: a clock that was set back since is believed.
        noted.map(|noted| noted.time_ms.min(self.now_ms))
    }

    /// A commit comes. Whether it is still of this batch.
    pub(super) fn take(&mut self, place: Option<Ordinal>, checksum: [u32; 2]) -> bool {
        if self.is_over {
            return false;
        }
        let own = self.own(place, checksum);
        if let Some(interval) = self.interval_ms {
            let age = self.now_ms.saturating_sub(self.began_ms.or(own).unwrap_or(self.now_ms));
            let is_known = self.found.last().is_some_and(Option::is_some);
            let end = backlog::end(self.began_ms, is_known, own, backlog::span_ms(age, interval));
            self.is_over = end != End::Goes;
            if end == End::Before {
                return false;
            }
        }
        self.began_ms = self.began_ms.or(own);
        self.found.push(own);
        true
    }

    /// The first that was noted.
    pub(super) fn began_ms(&self) -> Option<u64> {
        self.began_ms
    }

    /// All of them.
    pub(super) fn told(self) -> Vec<u64> {
        // What was noted after the last one is not older; nobody knows whether it is of what follows, but that it was noted then.
        let after = match self.found.last() {
            Some(None) => self.noted.get(self.next).map(|noted| noted.time_ms.min(self.now_ms)),
            _ => None,
        };
        backlog::times(&self.found, after.unwrap_or(self.now_ms))
    }
}
