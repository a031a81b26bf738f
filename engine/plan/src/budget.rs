//! How often commits travel, so that their requests do not cost more than somebody said.

/// So many requests may be made in a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// In all of it.
    pub a_month: u64,
    /// Made of them so far.
    pub spent: u64,
    /// So much of the month has passed.
    pub passed_ms: u64,
    /// So much of it is left.
    pub left_ms: u64,
}

/// What may be spent before its time: a day's share.
const AHEAD_MS: u64 = 86_400_000;

/// However little is left, what was committed does not wait longer than this.
pub const STRETCHED_MS_MAX: u64 = 600_000;

impl Budget {
    /// Of what was counted since a moment of a month that goes from one to another: what was to be had before that is gone.
    pub const fn since(a_month: u64, spent: u64, since_ms: u64, now_ms: u64, (from_ms, until_ms): (u64, u64)) -> Self {
        let (whole, left) = (until_ms.saturating_sub(from_ms), until_ms.saturating_sub(since_ms));
        let part = if whole == 0 { 0 } else { a_month as u128 * left as u128 / whole as u128 };
        Self {
            a_month: part as u64,
            spent,
            passed_ms: now_ms.saturating_sub(since_ms),
            left_ms: until_ms.saturating_sub(now_ms),
        }
    }

    /// Whether more was spent by now than the month's even share, and a day's beside it.
    pub const fn is_ahead(&self) -> bool {
        let month = self.passed_ms as u128 + self.left_ms as u128;
        let by_now = self.passed_ms as u128 + AHEAD_MS as u128;
        self.spent as u128 * month > self.a_month as u128 * by_now
    }

    /// How long from one publication to the next, where `asked_ms` was asked for: what is left of the budget lasts as long as the month.
    pub const fn interval_ms(&self, asked_ms: u64) -> u64 {
        if !self.is_ahead() || asked_ms >= STRETCHED_MS_MAX {
            return asked_ms;
        }
        let stretched = match self.left_ms.checked_div(self.a_month.saturating_sub(self.spent)) {
            Some(each) => each,
            None => STRETCHED_MS_MAX,
        };
        if stretched < asked_ms {
            asked_ms
        } else if stretched > STRETCHED_MS_MAX {
            STRETCHED_MS_MAX
        } else {
            stretched
        }
    }

    /// What all that was counted comes to at the end of the month, if it goes on so. `None` where too little was counted to say.
    pub const fn foreseen(&self) -> Option<u64> {
        // A minute says nothing of a month.
        if self.passed_ms < FORESEEN_FROM_MS {
            return None;
        }
        let more = self.spent as u128 * self.left_ms as u128 / self.passed_ms as u128 + self.spent as u128;
        Some(if more > u64::MAX as u128 { u64::MAX } else { more as u64 })
    }
}

/// So long it is counted before anything is foreseen.
const FORESEEN_FROM_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400_000;

    proptest! {
        #[test]
        fn a_budget_lasts_as_long_as_its_month(a_month in 5_000u64..100_000, asked_ms in 30_000u64..300_000) {
            let month = 30 * DAY;
            let (mut spent, mut now) = (0u64, 0u64);
            while now < month {
                let budget = Budget { a_month, spent, passed_ms: now, left_ms: month - now };
                now += budget.interval_ms(asked_ms);
                spent += 1;
            }
            // Who has spent it goes on, and as rarely as is bearable.
            let rarely = month / STRETCHED_MS_MAX + 1;
            prop_assert!(spent <= a_month.max(rarely) + rarely, "{spent} of {a_month}");
            prop_assert!(spent + a_month / 10 >= a_month.min(month / asked_ms), "{spent} of {a_month}: more was to be had");
        }
    }

    #[test]
    fn nothing_is_stretched_that_is_paid_for_and_nobody_waits_without_a_bound() {
        let budget = Budget { a_month: 2_600_000, spent: 80_000, passed_ms: DAY, left_ms: 29 * DAY };
        assert_eq!(budget.interval_ms(1_000), 1_000);
        let none = Budget { a_month: 0, spent: 0, passed_ms: DAY, left_ms: DAY };
        assert_eq!(none.interval_ms(1_000), 1_000, "nothing was spent");
        let none = Budget { a_month: 0, spent: 1, ..none };
        assert_eq!(none.interval_ms(1_000), STRETCHED_MS_MAX);
        assert_eq!(none.interval_ms(STRETCHED_MS_MAX * 2), STRETCHED_MS_MAX * 2, "never more often than was asked");
        // Whoever begins in the middle of a month has half of it.
        let half = Budget::since(1_000, 10, 15 * DAY, 16 * DAY, (0, 30 * DAY));
        assert_eq!(half, Budget { a_month: 500, spent: 10, passed_ms: DAY, left_ms: 14 * DAY });
        assert_eq!(half.foreseen(), Some(150));
        assert_eq!(Budget { passed_ms: 60_000, ..half }.foreseen(), None);
    }
}
