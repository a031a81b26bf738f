//! Which restore point a moment means (rule P9): the last one that is not later than what was said.
//!
//! Restore points are batch ends, in the order of their LSNs, and times are labels on them. A log's labels never go back, whatever its
//! writers' clocks do (a writer takes the label before where its own clock is behind), so that one order serves both.

use littoral_types::{Epoch, Lsn, Position, Seq};

/// What is asked for: everything up to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A time.
    Time(u64),
    /// A commit.
    Lsn(Lsn),
}

/// What a record says of the state after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// The record.
    pub seq: Seq,
    /// Its term.
    pub epoch: Epoch,
    /// The first commit that it brought, if it brought any; `None` where only its state is left.
    pub first: Option<Lsn>,
    /// The last commit.
    pub lsn: Lsn,
    /// Its time.
    pub time_ms: u64,
    /// Whether what lies between the point before it and itself is not known.
    pub is_gap: bool,
}

impl Label {
    /// As users see it.
    pub const fn position(&self) -> Position {
        Position { epoch: self.epoch, lsn: self.lsn }
    }
}

impl Asked {
    /// Whether a state is not later than what was asked for.
    pub const fn reaches(self, label: &Label) -> bool {
        match self {
            Asked::Time(ms) => label.time_ms <= ms,
            Asked::Lsn(lsn) => label.lsn.0 <= lsn.0,
        }
    }
}

/// What a moment means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The state before, which is the last one that is not later.
    Take,
    /// A state that was pruned: it lay between the two.
    Pruned,
    /// Nothing is left that is not later.
    TooEarly,
    /// Nobody has published it yet.
    TooLate,
}

/// Chooses, from the last state that is not later and the first that is. `is_thinned` says that states between the two may have been
/// pruned.
///
/// A time means what is kept: that is what a coarse history is for. A commit means the batch that it was published with, and where that is
/// gone, no other state is passed off as it.
pub fn choose(asked: Asked, before: Option<&Label>, after: Option<&Label>, is_thinned: bool) -> Choice {
    let Some(before) = before else { return Choice::TooEarly };
    let Asked::Lsn(lsn) = asked else { return Choice::Take };
    match after {
        _ if lsn == before.lsn => Choice::Take,
        None => Choice::TooLate,
        // The batch that holds it is there, so that nothing ended between the state before and it.
        Some(after) if !is_thinned || after.first == Some(before.lsn.next()) => Choice::Take,
        Some(_) => Choice::Pruned,
    }
}

/// Whether a moment lies in a gap, between the last restore point that is not later and the next one, whose commits cannot be told apart: the
/// first of them was made then, or later; zero where nobody knows.
///
/// Both ends are known. Until the first of its commits was made, a time means the state before.
pub const fn in_gap(asked: Asked, before: &Label, after: &Label, since_ms: u64) -> bool {
    match asked {
        // Where points between the two were pruned, a time means what was kept.
        Asked::Time(ms) => {
            let follows = match after.first {
                Some(Lsn(first)) => first == before.lsn.0 + 1,
                None => true,
            };
            follows && before.time_ms < ms && since_ms <= ms && ms < after.time_ms
        }
        Asked::Lsn(Lsn(lsn)) => {
            let first = match after.first {
                Some(Lsn(first)) => first,
                None => before.lsn.0 + 1,
            };
            first <= lsn && before.lsn.0 < lsn && lsn < after.lsn.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p09_a_gap_begins_after_the_point_before_it_or_with_its_first_commit_and_ends_before_its_own_point() {
        let (before, after) = (label(1, 5, 100), label(6, 9, 200));
        for (asked, since, is_in) in [
            (Asked::Time(100), 0, false),
            (Asked::Time(101), 0, true),
            (Asked::Time(199), 0, true),
            (Asked::Time(200), 0, false),
            (Asked::Time(149), 150, false),
            (Asked::Time(150), 150, true),
            // A clock that was set back.
            (Asked::Time(101), 50, true),
            (Asked::Time(100), 50, false),
            (Asked::Lsn(Lsn(5)), 0, false),
            (Asked::Lsn(Lsn(6)), 0, true),
            (Asked::Lsn(Lsn(8)), 180, true),
            (Asked::Lsn(Lsn(9)), 0, false),
        ] {
            assert_eq!(in_gap(asked, &before, &after, since), is_in, "{asked:?}, since {since}");
        }
        // Points between the two were pruned: those are no gap.
        let (far, asked) = (label(12, 20, 300), Asked::Lsn(Lsn(8)));
        assert!(!in_gap(asked, &before, &far, 0) && in_gap(Asked::Lsn(Lsn(12)), &before, &far, 0));
        assert!(!in_gap(Asked::Time(250), &before, &far, 0));
    }

    fn label(first: u64, lsn: u64, time_ms: u64) -> Label {
        Label { seq: Seq(lsn), epoch: Epoch(1), first: Some(Lsn(first)), lsn: Lsn(lsn), time_ms, is_gap: false }
    }

    #[test]
    fn p09_the_last_restore_point_that_is_not_later_is_meant_and_what_was_pruned_between_two_is_named() {
        let (early, late) = (label(1, 5, 100), label(6, 9, 200));
        let far = label(12, 20, 300);
        for (asked, before, after, is_thinned, choice) in [
            (Asked::Lsn(Lsn(5)), Some(&early), Some(&late), false, Choice::Take),
            (Asked::Lsn(Lsn(7)), Some(&early), Some(&late), false, Choice::Take),
            (Asked::Lsn(Lsn(7)), Some(&early), Some(&late), true, Choice::Take),
            (Asked::Lsn(Lsn(5)), Some(&early), Some(&far), true, Choice::Take),
            (Asked::Lsn(Lsn(7)), Some(&early), Some(&far), true, Choice::Pruned),
            (Asked::Lsn(Lsn(15)), Some(&early), Some(&far), true, Choice::Pruned),
            (Asked::Lsn(Lsn(15)), Some(&early), Some(&Label { first: None, ..late }), true, Choice::Pruned),
            (Asked::Lsn(Lsn(3)), None, Some(&early), false, Choice::TooEarly),
            (Asked::Lsn(Lsn(21)), Some(&far), None, false, Choice::TooLate),
            (Asked::Lsn(Lsn(20)), Some(&far), None, false, Choice::Take),
            (Asked::Time(99), None, Some(&early), true, Choice::TooEarly),
            (Asked::Time(250), Some(&early), Some(&far), true, Choice::Take),
            (Asked::Time(999), Some(&far), None, false, Choice::Take),
        ] {
            assert_eq!(choose(asked, before, after, is_thinned), choice, "{asked:?}");
        }
    }
}
