//! Who of a database gets how much of its quota.
//!
//! The shares are fixed, so that nobody waits for room that only he who waits could make: pages that were written go once they were
//! published, which takes room for what is staged; and what vanishes from a WAL before it was shipped is copied, which must not take the room
//! that publishing takes.

/// Local room, divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// For pages of the database itself.
    pub pages: u64,
    /// For copies of frames that wait to be shipped.
    pub copies: u64,
    /// For what is staged.
    pub staged: u64,
}

impl Shares {
    /// Of a database that is not all here: five eighths are its pages'.
    pub const fn of(quota: u64) -> Self {
        let eighth = quota / 8;
        Self { pages: quota - 3 * eighth, copies: eighth, staged: 2 * eighth }
    }
}

/// What is done about a database's pages on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Bytes that they take.
    pub taken: u64,
    /// Bytes of them that can be fetched again.
    pub clean: u64,
    /// What they may take.
    pub share: u64,
}

impl Pressure {
    /// Whether what was written takes so much that it is to be published soon: more than a quarter of the share, while three quarters are taken.
    pub const fn wants_settling(&self) -> bool {
        self.taken > self.share / 4 * 3 && self.taken.saturating_sub(self.clean) > self.share / 4
    }

    /// Whether nothing more may come.
    pub const fn is_full(&self) -> bool {
        self.taken > self.share
    }

    /// Whether not even the few pages may come that keep a backfill from ending.
    pub const fn is_overfull(&self) -> bool {
        self.taken > self.share + self.share / 8
    }

    /// How many bytes are to go, for whoever is about to bring some.
    pub const fn to_evict(&self) -> u64 {
        match self.is_full() {
            true => self.taken - self.share / 8 * 7,
            false => 0,
        }
    }

    /// The same for who sees to it that a backfill has room.
    pub const fn to_evict_ahead(&self) -> u64 {
        self.taken.saturating_sub(self.share / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i07_shares_are_all_of_the_quota_and_never_more() {
        for quota in [0, 1, 7, 8, 9, 1 << 20, (1 << 20) + 5, u64::MAX] {
            let Shares { pages, copies, staged } = Shares::of(quota);
            assert_eq!(u128::from(pages) + u128::from(copies) + u128::from(staged), u128::from(quota), "{quota}");
            assert!(pages >= staged && staged >= copies, "{quota}");
        }
    }

    #[test]
    fn what_is_done_about_pages_follows_from_how_many_can_go() {
        let pressure = |taken, clean| Pressure { taken, clean, share: 800 };
        assert!(!pressure(600, 0).wants_settling(), "there is still room");
        assert!(!pressure(700, 600).wants_settling(), "what takes it can go");
        assert!(pressure(700, 400).wants_settling());
        assert_eq!((pressure(800, 0).is_full(), pressure(800, 0).to_evict()), (false, 0));
        assert_eq!((pressure(801, 0).is_full(), pressure(801, 0).to_evict()), (true, 101));
        assert!(!pressure(900, 0).is_overfull() && pressure(901, 0).is_overfull());
        assert_eq!((pressure(300, 0).to_evict_ahead(), pressure(500, 0).to_evict_ahead()), (0, 100));
        assert!(!pressure(10, 20).wants_settling(), "counted while it moved");
    }
}
