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
    /// A delta's own name within its volume: the generation that made it. A chunk gets at most one per generation.
    DeltaId
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
    fn a_position_reads_back_what_it_prints_and_nothing_else() {
        let position = Position { epoch: Epoch(3), lsn: Lsn(u64::MAX) };
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", ".", "1", "1.", ".1", "+1.2", "1.2.3", "1.-2", "1. 2", "99999999999999999999.1"] {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
    }
}
