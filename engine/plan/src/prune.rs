//! Which restore points stay.

use littoral_types::{Lsn, Seq};

/// A record that a restore can end at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestorePoint {
    /// The record.
    pub seq: Seq,
    /// Its last commit.
    pub lsn: Lsn,
    /// Its wall clock.
    pub time_ms: u64,
}

/// What the user wants kept. A point stays when either says so; the newest always stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepPolicy {
    /// The newest so many.
    pub last: u64,
    /// Those of the last so many milliseconds, and the one that was current at their beginning.
    pub within_ms: u64,
}

/// The oldest restore point that stays; everything before it may go unless pinned. `None` when there is none at all.
/// `points` are ascending.
pub fn prune_floor(points: &[RestorePoint], keep: KeepPolicy, now_ms: u64) -> Option<RestorePoint> {
    let newest = points.len().checked_sub(1)?;
    let by_count = newest.saturating_sub(usize::try_from(keep.last.max(1) - 1).unwrap_or(usize::MAX));
    let since = now_ms.saturating_sub(keep.within_ms);
    // The state at any moment of the window must be restorable: the point that was current when it began stays too.
    let by_time = points.iter().rposition(|point| point.time_ms <= since).unwrap_or(0);
    points.get(by_count.min(by_time)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays() {
        let points: Vec<RestorePoint> =
            (1..=10).map(|n| RestorePoint { seq: Seq(n), lsn: Lsn(n), time_ms: n * 1000 }).collect();
        for (last, within_ms, expected) in [
            (1, 0, 10),
            (3, 0, 8),
            (0, 0, 10),
            (1, 2500, 7),
            (5, 2500, 6),
            (100, 0, 1),
            (1, 1 << 40, 1),
            (u64::MAX, 0, 1),
        ] {
            let floor = prune_floor(&points, KeepPolicy { last, within_ms }, 10_000).unwrap();
            assert_eq!(floor.seq, Seq(expected), "last {last}, within {within_ms}");
        }
        assert_eq!(prune_floor(&[], KeepPolicy { last: 1, within_ms: 0 }, 0), None);
    }
}
