//! What a name that a writer wanted turns out to hold (rule P3).

use littoral_types::Incarnation;

/// What was read back.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// Nothing is there.
    Nothing,
    /// The very bytes that were to be written.
    Same,
    /// Another record.
    Other {
        /// The worker start that wrote it.
        incarnation: Incarnation,
    },
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is published.
    Landed,
    /// It never landed: write again.
    Again,
    /// This very worker published something else there: what was planned stands on an old tail.
    Replan,
    /// Somebody else extended the log: stop, find out who, publish nothing.
    Stop,
}

/// Settles an answer that was lost or a name that was taken.
pub fn settle(found: Found, ours: Incarnation) -> Settled {
    match found {
        Found::Same => Settled::Landed,
        Found::Nothing => Settled::Again,
        Found::Other { incarnation } if incarnation == ours => Settled::Replan,
        Found::Other { .. } => Settled::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p03_the_table_of_settling() {
        let (us, them) = (Incarnation([1; 16]), Incarnation([2; 16]));
        assert_eq!(settle(Found::Same, us), Settled::Landed);
        assert_eq!(settle(Found::Nothing, us), Settled::Again);
        assert_eq!(settle(Found::Other { incarnation: us }, us), Settled::Replan);
        assert_eq!(settle(Found::Other { incarnation: them }, us), Settled::Stop);
    }
}
