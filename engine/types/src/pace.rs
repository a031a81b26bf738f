//! How fast what nobody waits for may go.
//!
//! A pace is a bucket that one number describes: until when what was taken is paid for. Whoever takes more moves it on, and rests until the
//! clock has come there. One number is taken by any number of processes at once without a lock.

/// At how many a second something is taken, be it bytes or requests, and for how long it may be saved up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// So many a second; nothing is bounded by zero.
    pub per_second: u64,
    /// So much of the time in which nothing was taken counts as saved.
    pub saved_ms: u64,
}

/// No debt is longer than this: more is none, but a clock that began anew, or a file that is damaged.
pub const DEBT_MS_MAX: u64 = 3_600_000;

/// For so long, at most, those who rest give way to somebody who took before them and does not.
pub const FIRST_MS_MAX: u64 = 1_000;

impl Pace {
    /// Saves a second.
    pub const fn per_second(per_second: u64) -> Self {
        Self { per_second, saved_ms: 1_000 }
    }

    /// Takes so many now: until when all that was taken is paid for then, in microseconds like `now_us`.
    pub const fn taken(self, paid_until_us: u64, now_us: u64, count: u64) -> u64 {
        if self.per_second == 0 {
            return paid_until_us;
        }
        let oldest = now_us.saturating_sub(self.saved_ms * 1_000);
        let newest = now_us.saturating_add(DEBT_MS_MAX * 1_000);
        let from = if paid_until_us < oldest || paid_until_us > newest { oldest } else { paid_until_us };
        let price = (count as u128 * 1_000_000).div_ceil(self.per_second as u128);
        let price = if price > u64::MAX as u128 { u64::MAX } else { price as u64 };
        let until = from.saturating_add(price);
        if until > newest { newest } else { until }
    }

    /// The same by somebody who does not rest, and is not kept waiting: those who do give way to him for [`FIRST_MS_MAX`] at most after he has
    /// ended, however much he took.
    pub const fn taken_first(self, paid_until_us: u64, now_us: u64, count: u64) -> u64 {
        let until = self.taken(paid_until_us, now_us, count);
        let latest = now_us.saturating_add(FIRST_MS_MAX * 1_000);
        let stands = if paid_until_us > now_us.saturating_add(DEBT_MS_MAX * 1_000) { 0 } else { paid_until_us };
        if until <= latest {
            until
        } else if stands > latest {
            stands
        } else {
            latest
        }
    }

    /// How long whoever took that rests.
    pub const fn rest_ms(paid_until_us: u64, now_us: u64) -> u64 {
        paid_until_us.saturating_sub(now_us).div_ceil(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chance that can be had again.
    struct Chance(u64);

    impl Chance {
        fn any(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, bound: u64) -> u64 {
            self.any() % bound
        }
    }

    #[test]
    fn however_it_is_taken_no_more_goes_than_the_pace_and_what_was_saved() {
        let mut chance = Chance(0x9ace);
        for _ in 0..2_000 {
            let pace = Pace { per_second: 1 + chance.below(10_000_000), saved_ms: chance.below(5_000) };
            let begun = 10_000_000_000;
            let (mut until, mut now, mut taken) = (0, begun, 0);
            for _ in 0..60 {
                let count = 1 + chance.below(100_000);
                // Whoever takes rests first, as he is told, and does his work then.
                until = pace.taken(until, now, count);
                now += Pace::rest_ms(until, now) * 1_000;
                taken += u128::from(count);
                let time_us = u128::from(now - begun + pace.saved_ms * 1_000);
                let allowed = u128::from(pace.per_second) * time_us / 1_000_000;
                assert!(taken <= allowed + 1, "{taken} of {allowed} at {pace:?}");
                now += chance.below(3_000_000);
            }
        }
    }

    #[test]
    fn a_number_that_makes_no_sense_stops_nobody_for_ever() {
        let mut chance = Chance(7);
        for _ in 0..10_000 {
            let (until, now, count) = (chance.any(), chance.any(), chance.any());
            let taken = Pace::per_second(1 + chance.below(1_000)).taken(until, now, count);
            assert!(Pace::rest_ms(taken, now) <= DEBT_MS_MAX + 1);
        }
    }

    #[test]
    fn whoever_goes_first_is_given_way_to_and_stops_nobody_for_long() {
        let (pace, now) = (Pace::per_second(1_000), 50_000_000);
        let until = pace.taken_first(now, now, 300);
        assert_eq!(Pace::rest_ms(until, now), 300);
        assert_eq!(Pace::rest_ms(pace.taken(until, now, 100), now), 400);
        let much = pace.taken_first(until, now, 1_000_000);
        assert_eq!(Pace::rest_ms(much, now), FIRST_MS_MAX);
        // What somebody who rests has taken already stays taken.
        let reserved = pace.taken(now, now, 5_000);
        assert_eq!(pace.taken_first(reserved, now, 10), reserved);
        assert_eq!(Pace::rest_ms(pace.taken_first(u64::MAX, now, 100), now), 0, "a number that makes no sense");
        let mut chance = Chance(3);
        for _ in 0..10_000 {
            let (until, now, count) = (chance.any(), chance.any() >> 1, chance.any());
            let rest = Pace::rest_ms(Pace::per_second(1 + chance.below(1_000)).taken_first(until, now, count), now);
            assert!(rest <= DEBT_MS_MAX + 1);
        }
    }

    #[test]
    fn what_has_no_bound_rests_never() {
        let free = Pace::per_second(0);
        assert_eq!(Pace::rest_ms(free.taken(0, 5, u64::MAX), 5), 0);
    }
}
