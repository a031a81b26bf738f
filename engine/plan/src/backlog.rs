//! What waited for long: which times its commits get, and where its batches end.
//!
//! Restore points are batch ends. Who ships all that waited in one batch ships an hour of history as one point; who ships it as it would have
//! travelled takes a request for each second of it. So batches of a backlog end where a part of it has passed, the older the coarser.

use littoral_types::limits::{BACKLOG_PARTS, BACKLOG_POINT_MS};

/// How much time the commits of one batch may span, from when its first one was made: never less than those may that travel as they come.
pub const fn span_ms(age_ms: u64, interval_ms: u64) -> u64 {
    let least = if interval_ms > BACKLOG_POINT_MS { interval_ms } else { BACKLOG_POINT_MS };
    let part = age_ms / BACKLOG_PARTS;
    if part > least { part } else { least }
}

/// Where a batch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Not yet: the commit is part of it.
    Goes,
    /// With this commit, which shares its time with those before it.
    With,
    /// Before this commit.
    Before,
}

/// Whether a commit is still of the batch, and the last of it. `began_ms` is the first time that was noted in it; `known` says whether the
/// commit before this one has a time of its own, `time_ms` is this one's, where it was noted.
pub const fn end(began_ms: Option<u64>, known: bool, time_ms: Option<u64>, span_ms: u64) -> End {
    let (Some(began), Some(time)) = (began_ms, time_ms) else { return End::Goes };
    if time.saturating_sub(began) < span_ms {
        return End::Goes;
    }
    if known { End::Before } else { End::With }
}

/// Each commit's time: its own where that was noted, else that of the next one that was, else `last_ms`: nothing is told to be older than it is.
/// They are in the order of the commits, and never go back, whatever the clock did.
pub fn times(noted: &[Option<u64>], last_ms: u64) -> Vec<u64> {
    let mut next = last_ms;
    let mut times: Vec<u64> = noted
        .iter()
        .rev()
        .map(|noted| {
            next = noted.map_or(next, |time| time.min(last_ms));
            next
        })
        .collect();
    times.reverse();
    let mut newest = 0;
    for time in &mut times {
        newest = newest.max(*time);
        *time = newest;
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_gets_its_own_time_or_the_next_ones_and_times_never_go_back() {
        for (noted, last, told) in [
            (&[Some(5), None, Some(9), None][..], 20, &[5, 9, 9, 20][..]),
            (&[None, None], 20, &[20, 20]),
            (&[Some(9), Some(4), None, Some(12)], 20, &[9, 9, 12, 12]),
            // A clock that was set back, and one that is behind what was noted.
            (&[Some(90), Some(3), None], 20, &[20, 20, 20]),
            (&[Some(15), Some(3), Some(4)], 20, &[15, 15, 15]),
            (&[], 20, &[]),
        ] {
            assert_eq!(times(noted, last), told, "{noted:?}");
        }
    }

    /// The ends of the batches of commits that were made at such times, as who ships them cuts them when all of it can travel again.
    fn ends(made: &[u64], now: u64, interval: u64) -> Vec<usize> {
        let (mut ends, mut began, mut known) = (Vec::new(), None, false);
        let mut at = 0;
        while at < made.len() {
            let span = span_ms(now - began.unwrap_or(made[at]), interval);
            match end(began, known, Some(made[at]), span) {
                End::Before => {
                    ends.push(at);
                    (began, known) = (None, false);
                    continue;
                }
                End::With => {
                    ends.push(at + 1);
                    (began, known) = (None, false);
                }
                End::Goes => (began, known) = (began.or(Some(made[at])), true),
            }
            at += 1;
        }
        ends
    }

    #[test]
    fn an_outage_has_restore_points_all_along_and_costs_a_bounded_number_of_records() {
        const SECOND: u64 = 1000;
        for (seconds, most, coarsest) in [(5, 0, 5), (60, 6, 11), (600, 60, 19), (3600, 120, 115), (86_400, 230, 2800)]
        {
            let made: Vec<u64> = (0..seconds * 10).map(|nth| 1_000_000 + nth * 100).collect();
            let now = 1_000_000 + seconds * SECOND;
            let ends = ends(&made, now, SECOND);
            assert!(ends.len() <= most, "{seconds} s: {} records", ends.len());
            let mut before = 0;
            for end in ends.iter().copied().chain([made.len()]) {
                let (first, last) = (made[before], made[end - 1]);
                assert!(last - first <= coarsest * SECOND, "{seconds} s: {} ms in one", last - first);
                let most = BACKLOG_POINT_MS.max((now - first) / BACKLOG_PARTS);
                assert!(last - first <= most, "coarser than it is old");
                before = end;
            }
        }
        // Whoever wants one record an hour gets one record for an hour.
        let made: Vec<u64> = (0..3600).map(|nth| nth * SECOND).collect();
        assert!(ends(&made, 3_600_000, 3_600_000).is_empty());
        // Commits that are far apart are points of their own.
        assert_eq!(ends(&[0, 1_800_000, 3_600_000], 3_600_000, SECOND), [1, 2]);
    }

    #[test]
    fn commits_that_share_a_time_are_not_cut_apart() {
        assert_eq!(end(Some(0), false, Some(50_000), 10_000), End::With);
        assert_eq!(end(Some(0), true, Some(50_000), 10_000), End::Before);
        assert_eq!(end(Some(0), true, None, 10_000), End::Goes);
        assert_eq!(end(None, false, Some(50_000), 10_000), End::Goes);
        // Set back.
        assert_eq!(end(Some(50_000), true, Some(3), 10_000), End::Goes);
    }
}
