//! Dying at a named point as a test asks: `LITTORAL_TEST_CRASH=point[:n]` kills this process with SIGKILL when the point is
//! reached for the nth time. Only with the cargo feature `faults`, which releases do not have.

use littoral_ports::{Crash, Faults};
use rustix::process::{Signal, getpid, kill_process};
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that names the point.
pub const VARIABLE: &str = "LITTORAL_TEST_CRASH";

/// Kills this process at a point.
#[derive(Debug)]
pub struct KillSelf {
    point: String,
    left: AtomicU64,
}

impl KillSelf {
    /// Reads `point[:n]`; `None` for what is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (point, nth) = match text.split_once(':') {
            Some((point, nth)) => (point, nth.parse().ok().filter(|nth| *nth > 0)?),
            None => (text, 1),
        };
        (!point.is_empty()).then(|| Self { point: point.to_owned(), left: AtomicU64::new(nth) })
    }
}

impl Faults for KillSelf {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        if point == self.point && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Nothing runs after this: no destructor, no flush. Where the kernel refuses, the error ends the work.
            let _ = kill_process(getpid(), Signal::KILL);
            return Err(Crash(point));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_and_a_count_are_read() {
        let read = |text: &str| KillSelf::parse(text).map(|kill| (kill.point, kill.left.into_inner()));
        assert_eq!(read("publish.landed"), Some(("publish.landed".to_owned(), 1)));
        assert_eq!(read("publish.landed:3"), Some(("publish.landed".to_owned(), 3)));
        assert_eq!([read(""), read(":1"), read("x:0"), read("x:y")], [None, None, None, None]);
    }

    #[test]
    fn other_points_are_passed() {
        let kill = KillSelf::parse("publish.landed:2").unwrap();
        assert_eq!(kill.reach("publish.drafted"), Ok(()));
        assert_eq!(kill.reach("publish.landed"), Ok(()));
        assert_eq!(kill.left.into_inner(), 1);
    }
}
