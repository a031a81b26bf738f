//! What is done for a volume while nobody asks: prunes, verification, drills, and when each is due.
//!
//! Who does it has a worker's loop or a queue around this; here is only the choice. Nothing here makes an idle volume cost requests but what
//! the user asked for by a setting of its own (rule P8).

use littoral_types::Seq;

/// A day.
pub const DAY_MS: u64 = 24 * 3600 * 1000;
/// Verification is done in so many parts of a day's bytes, so that no part of it takes the whole link for long.
const VERIFY_PARTS: u64 = 24;
/// What failed is tried again after this, or after its interval where that is shorter.
const AGAIN_MS: u64 = 15 * 60 * 1000;
/// What is done more often than this is begun at once: whoever looks now and then could miss its moment.
const SPREAD_MIN_MS: u64 = 30 * 60 * 1000;

/// What the user wants done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Prunes, this often; `None` where no retention is set.
    pub prune_ms: Option<u64>,
    /// Verification, so many bytes a day.
    pub verify_a_day: Option<u64>,
    /// Restore drills, this often.
    pub drill_ms: Option<u64>,
}

/// When it was done last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// A prune was tried, by the wall clock.
    pub pruned_ms: Option<u64>,
    /// As of which record, where it came to its end.
    pub pruned_at: Option<Seq>,
    /// Whether it came to nothing: nothing could go, and nothing could be moved.
    pub pruned_nothing: bool,
    /// A part was verified, or tried to be.
    pub verified_ms: Option<u64>,
    /// A pass over everything came to its end, and when it had begun: the next one begins a day after that.
    pub passed_ms: Option<u64>,
    /// A drill was held, or tried to be.
    pub drilled_ms: Option<u64>,
    /// Whether the last of each failed for a reason that may pass: prune, verification, drill.
    pub failed: [bool; 3],
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// What no kept state needs goes.
    Prune,
    /// So many bytes are read and checked.
    Verify(u64),
    /// A copy is restored, and SQLite asked.
    Drill,
}

/// The chore that is due and has been for longest. `spread` is any number that is a volume's own, so that a thousand volumes of one store do
/// not have their first turn at one moment.
pub fn due(wishes: &Wishes, done: &Done, newest: Seq, spread: u64, now_ms: u64) -> Option<Chore> {
    let [prune_failed, verify_failed, drill_failed] = done.failed;
    let mut chores: Vec<(u64, Chore)> = Vec::new();
    let mut put = |every: Option<u64>, last: Option<u64>, failed: bool, chore: Chore| {
        let Some(every) = every else { return };
        let every = if failed { every.min(AGAIN_MS) } else { every };
        if let Some(late) = late(every, last, spread, now_ms) {
            chores.push((late, chore));
        }
    };
    // Where nothing was published since, and nothing could go then, an idle volume is left alone.
    let is_idle = done.pruned_nothing && done.pruned_at == Some(newest) && !prune_failed;
    put(wishes.prune_ms.filter(|_| !is_idle), done.pruned_ms, prune_failed, Chore::Prune);
    if let Some(part) = wishes.verify_a_day.map(|bytes| bytes.div_ceil(VERIFY_PARTS)).filter(|part| *part > 0) {
        match done.passed_ms {
            Some(began) => put(Some(DAY_MS), Some(began), verify_failed, Chore::Verify(part)),
            None => put(Some(DAY_MS / VERIFY_PARTS), done.verified_ms, verify_failed, Chore::Verify(part)),
        }
    }
    put(wishes.drill_ms, done.drilled_ms, drill_failed, Chore::Drill);
    chores.into_iter().max_by_key(|(late, _)| *late).map(|(_, chore)| chore)
}

/// For how long something has been due; `None` where it is not yet.
fn late(every: u64, last: Option<u64>, spread: u64, now: u64) -> Option<u64> {
    match last {
        // A clock that was set back: nobody knows how long ago it was, and it is done once too often rather than never again.
        Some(last) if last > now => Some(0),
        Some(last) => (now - last).checked_sub(every),
        // The first time: somewhere in the interval, the same moment however often it is asked. What was never done has been due for longest.
        None => {
            let spread = if every < SPREAD_MIN_MS { 0 } else { spread % every };
            (now % every.max(1) >= spread).then_some(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600 * 1000;
    const NOW: u64 = 1000 * DAY_MS;
    const SEQ: Seq = Seq(7);

    const ALL: Wishes = Wishes { prune_ms: Some(6 * HOUR), verify_a_day: Some(24 << 20), drill_ms: Some(7 * DAY_MS) };

    fn fresh() -> Done {
        Done { pruned_ms: Some(NOW), verified_ms: Some(NOW), drilled_ms: Some(NOW), ..Done::default() }
    }

    #[test]
    fn each_is_due_when_its_interval_has_passed_and_not_before() {
        assert_eq!(due(&ALL, &fresh(), SEQ, 0, NOW), None);
        for (passed, expected) in [
            (HOUR - 1, None),
            (HOUR, Some(Chore::Verify(1 << 20))),
            (6 * HOUR, Some(Chore::Verify(1 << 20))),
            (8 * DAY_MS, Some(Chore::Verify(1 << 20))),
        ] {
            assert_eq!(due(&ALL, &fresh(), SEQ, 0, NOW + passed), expected, "{passed}");
        }
        let verified = Done { verified_ms: Some(NOW + 8 * DAY_MS), ..fresh() };
        assert_eq!(due(&ALL, &verified, SEQ, 0, NOW + 8 * DAY_MS), Some(Chore::Prune), "due for longer than the drill");
        let pruned = Done { pruned_ms: Some(NOW + 8 * DAY_MS), ..verified };
        assert_eq!(due(&ALL, &pruned, SEQ, 0, NOW + 8 * DAY_MS), Some(Chore::Drill));
    }

    #[test]
    fn p08_what_nobody_asked_for_is_never_due_and_an_idle_volume_is_not_pruned_again() {
        assert_eq!(due(&Wishes::default(), &Done::default(), SEQ, 0, NOW), None);
        assert_eq!(due(&Wishes { verify_a_day: Some(0), ..Wishes::default() }, &Done::default(), SEQ, 0, NOW), None);
        let wishes = Wishes { prune_ms: Some(HOUR), ..Wishes::default() };
        let done = Done { pruned_at: Some(SEQ), pruned_nothing: true, ..fresh() };
        assert_eq!(due(&wishes, &done, SEQ, 0, NOW + 30 * DAY_MS), None);
        assert_eq!(due(&wishes, &done, SEQ.next(), 0, NOW + HOUR), Some(Chore::Prune), "something was published");
        let some = Done { pruned_nothing: false, ..done };
        assert_eq!(due(&wishes, &some, SEQ, 0, NOW + HOUR), Some(Chore::Prune), "what stood an hour ago is older now");
    }

    #[test]
    fn p08_a_volume_that_is_verified_faster_than_a_day_is_verified_once_a_day() {
        let wishes = Wishes { verify_a_day: Some(24), ..Wishes::default() };
        let passed = Done { passed_ms: Some(NOW), verified_ms: Some(NOW + HOUR), ..Done::default() };
        assert_eq!(due(&wishes, &passed, SEQ, 0, NOW + DAY_MS - 1), None);
        assert_eq!(due(&wishes, &passed, SEQ, 0, NOW + DAY_MS), Some(Chore::Verify(1)));
        let running = Done { passed_ms: None, ..passed };
        assert_eq!(due(&wishes, &running, SEQ, 0, NOW + 2 * HOUR), Some(Chore::Verify(1)));
    }

    #[test]
    fn what_failed_is_tried_again_soon() {
        let failed = Done { failed: [true, false, true], pruned_at: Some(SEQ), pruned_nothing: true, ..fresh() };
        let wishes = Wishes { verify_a_day: None, ..ALL };
        assert_eq!(due(&wishes, &failed, SEQ, 0, NOW + AGAIN_MS - 1), None);
        assert!(due(&wishes, &failed, SEQ, 0, NOW + AGAIN_MS).is_some());
    }

    #[test]
    fn a_clock_that_jumps_makes_nothing_due_for_ever_and_nothing_never() {
        for jump in [HOUR, DAY_MS, 30 * DAY_MS, 3650 * DAY_MS] {
            // Set back after a chore: once more than was asked for, and then as ever.
            let back = NOW - jump.min(NOW);
            let chore = due(&ALL, &fresh(), SEQ, 0, back);
            assert!(chore.is_some(), "{jump}");
            let again = Done { pruned_ms: Some(back), verified_ms: Some(back), drilled_ms: Some(back), ..fresh() };
            assert_eq!(due(&ALL, &again, SEQ, 0, back), None, "{jump}");
            // Set forward: due, and done once.
            let ahead = NOW + jump;
            let again = Done { pruned_ms: Some(ahead), verified_ms: Some(ahead), drilled_ms: Some(ahead), ..fresh() };
            assert_eq!(due(&ALL, &again, SEQ, 0, ahead), None, "{jump}");
        }
    }

    #[test]
    fn what_was_never_done_is_not_put_off_by_what_is_due_all_the_time() {
        let wishes = Wishes { prune_ms: Some(1), drill_ms: Some(1), ..Wishes::default() };
        let done = Done { drilled_ms: Some(NOW - DAY_MS), ..Done::default() };
        assert_eq!(due(&wishes, &done, SEQ, 0, NOW), Some(Chore::Prune));
        let done = Done { pruned_ms: Some(NOW), ..done };
        assert_eq!(due(&wishes, &done, SEQ, 0, NOW + 1), Some(Chore::Drill));
    }

    #[test]
    fn the_first_time_is_spread_over_the_interval() {
        let wishes = Wishes { drill_ms: Some(DAY_MS), ..Wishes::default() };
        let hours = |spread: u64| {
            (0..24).filter(|hour| due(&wishes, &Done::default(), SEQ, spread, NOW + hour * HOUR).is_some()).count()
        };
        assert_eq!(hours(0), 24);
        assert_eq!(hours(12 * HOUR), 12);
        assert_eq!(hours(u64::MAX), hours(u64::MAX % DAY_MS));
        let often = Wishes { drill_ms: Some(1000), ..Wishes::default() };
        assert_eq!(due(&often, &Done::default(), SEQ, 999, NOW), Some(Chore::Drill), "at once");
    }
}
