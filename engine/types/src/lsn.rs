//! Places in time: commits, records, terms, generations.

use std::fmt;
use std::str::FromStr;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// Before the first.
            pub const ZERO: $name = $name(0);

            /// The one after this.
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// Commit sequence number of a volume: one more per committed SQLite transaction. Zero is before the first commit.
    Lsn
}
counter! {
    /// A record's place in the remote log. The first record, a volume's first claim, has 1.
    Seq
}
counter! {
    /// A writer's term; claimed in the remote log. The first has 1.
    Epoch
}
counter! {
    /// Counts the records that changed chunks (checkpoints and coalescings) of one volume.
    Generation
}
counter! {
    /// A delta's own name within its volume: newer ones are larger. See [`DeltaId::of_checkpoint`] and [`DeltaId::of_segment`].
    DeltaId
}

/// How a segment brings its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// Whole.
    Whole = 0,
    /// As differences to the versions before.
    Patched = 1,
}

impl DeltaId {
    const LOW: u32 = 32;

    /// Of what a checkpoint folded: a chunk gets at most one per generation. `None` beyond four thousand million generations.
    pub fn of_checkpoint(generation: Generation) -> Option<Self> {
        let high = u32::try_from(generation.0).ok()?;
        Some(Self(u64::from(high) << Self::LOW))
    }

    /// Of what a segment brought on top of a generation, in this form. `None` beyond two thousand million records.
    pub fn of_segment(generation: Generation, seq: Seq, form: Form) -> Option<Self> {
        let low = u32::try_from(seq.0.checked_mul(2)?.checked_add(form as u64)?).ok()?;
        (seq > Seq::ZERO && generation > Generation::ZERO).then_some(())?;
        Some(Self(Self::of_checkpoint(generation)?.0 | u64::from(low)))
    }

    /// The generation that made it, or that it goes on top of.
    pub const fn generation(self) -> Generation {
        match self.0 >> Self::LOW {
            // Of a first version.
            0 => Generation(self.0),
            generation => Generation(generation),
        }
    }

    /// Whether a segment brought it: the next checkpoint folds it. Ids of the first versions, which were a generation's bare
    /// number, are none.
    pub const fn is_of_segment(self) -> bool {
        self.0 >> Self::LOW != 0 && self.0 as u32 != 0
    }

    /// Whether its pages are differences to the versions before.
    pub const fn is_patch(self) -> bool {
        self.is_of_segment() && self.0 & 1 == 1
    }
}

/// Commits `first..=last`. Empty when `last` is just before `first`, as in records that carry no commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LsnRange {
    /// The first commit of the range; always one after the previous record's last.
    pub first: Lsn,
    /// The last commit of the range, or the one before `first`.
    pub last: Lsn,
}

impl LsnRange {
    /// No commit, standing after `last`.
    pub const fn empty_after(last: Lsn) -> Self {
        Self { first: last.next(), last }
    }

    /// Whether no commit is in it.
    pub const fn is_empty(self) -> bool {
        self.last.0 < self.first.0
    }
}

/// What users see of a place in a volume: `epoch.lsn`. One that a takeover cut off can be told from one that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The term in which the commit was published.
    pub epoch: Epoch,
    /// The commit.
    pub lsn: Lsn,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.lsn)
    }
}

/// The text is not `epoch.lsn`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position (epoch.lsn, as in 1.42): {0:?}")]
pub struct PositionError(pub String);

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (epoch, lsn) = text.split_once('.')?;
            let digits =
                |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u64>().ok()).flatten();
            Some(Position { epoch: Epoch(digits(epoch)?), lsn: Lsn(digits(lsn)?) })
        };
        parse().ok_or_else(|| PositionError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_sort_by_age_and_say_where_they_come_from() {
        let (generation, next) = (Generation(7), Generation(8));
        let whole = DeltaId::of_segment(generation, Seq(900), Form::Whole).unwrap();
        let patched = DeltaId::of_segment(generation, Seq(900), Form::Patched).unwrap();
        let later = DeltaId::of_segment(generation, Seq(901), Form::Whole).unwrap();
        let folded = DeltaId::of_checkpoint(generation).unwrap();
        // An id of the first versions, which were the generation's bare number.
        let old = DeltaId(generation.0);
        let ascending = [old, folded, whole, patched, later, DeltaId::of_checkpoint(next).unwrap()];
        assert!(ascending.is_sorted_by(|a, b| a < b), "{ascending:?}");
        assert_eq!(ascending.map(DeltaId::is_of_segment), [false, false, true, true, true, false]);
        assert_eq!(ascending.map(DeltaId::is_patch), [false, false, false, true, false, false]);
        assert!(ascending[..5].iter().all(|id| id.generation() == generation));
        assert_eq!(DeltaId::of_segment(generation, Seq(1 << 31), Form::Whole), None);
        assert_eq!(DeltaId::of_segment(Generation::ZERO, Seq(1), Form::Whole), None);
        assert_eq!(DeltaId::of_checkpoint(Generation(1 << 32)), None);
    }

    #[test]
    fn a_position_reads_back_what_it_prints_and_nothing_else() {
        let position = Position { epoch: Epoch(3), lsn: Lsn(u64::MAX) };
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", ".", "1", "1.", ".1", "+1.2", "1.2.3", "1.-2", "1. 2", "99999999999999999999.1"] {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
    }
}
