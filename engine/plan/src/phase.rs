//! The phases of a checkpoint, in the words of concurrent prefix recovery, and which may follow which.
//!
//! | phase | what goes on | whom it waits for |
//! |---|---|---|
//! | rest | no checkpoint is made | |
//! | prepare | the marks of what changed are taken: what is committed from here on belongs to the next checkpoint, or is read again; then pages are compared | whoever keeps readers out |
//! | in-progress | pages are read, staged, and sent on their way, while others commit, and while that travels | |
//! | wait-pending | what was committed meanwhile is found, until all that was read is of one commit: of every session a prefix | whoever keeps readers out |
//! | wait-flush | uploads end, and the record is published | the object store |
//!
//! Nobody acknowledges a phase: the boundary between two checkpoints is a read transaction of SQLite's, which every session's commit lies
//! before or behind.

use std::fmt;

/// What a checkpoint does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Nothing.
    Rest,
    /// The boundary is drawn.
    Prepare,
    /// Pages are on their way.
    InProgress,
    /// Commits of others are caught up with.
    WaitPending,
    /// All of it becomes durable.
    WaitFlush,
}

impl Phase {
    /// All of them, in the order in which a checkpoint that nobody disturbs goes through them.
    pub const ALL: [Phase; 5] = [Phase::Rest, Phase::Prepare, Phase::InProgress, Phase::WaitPending, Phase::WaitFlush];

    /// The word users see.
    pub const fn word(self) -> &'static str {
        match self {
            Phase::Rest => "rest",
            Phase::Prepare => "prepare",
            Phase::InProgress => "in-progress",
            Phase::WaitPending => "wait-pending",
            Phase::WaitFlush => "wait-flush",
        }
    }

    /// Whether that phase may come next. Every one may end in rest: a checkpoint may find nothing to do, and may be given up anywhere.
    pub const fn leads_to(self, next: Phase) -> bool {
        matches!(
            (self, next),
            (_, Phase::Rest)
                | (Phase::Rest, Phase::Prepare)
                | (Phase::Prepare, Phase::InProgress | Phase::WaitPending)
                | (Phase::InProgress, Phase::WaitPending)
                // Somebody committed meanwhile: that is read too.
                | (Phase::WaitPending, Phase::InProgress | Phase::WaitFlush)
                // Somebody's commits were shipped while it waited: that is caught up with.
                | (Phase::WaitFlush, Phase::WaitPending)
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_phase_is_skipped_on_the_way_to_a_record() {
        let ways = |from: Phase| Phase::ALL.into_iter().filter(move |next| from.leads_to(*next)).collect::<Vec<_>>();
        assert_eq!(ways(Phase::Rest), [Phase::Rest, Phase::Prepare]);
        assert_eq!(ways(Phase::Prepare), [Phase::Rest, Phase::InProgress, Phase::WaitPending]);
        assert_eq!(ways(Phase::InProgress), [Phase::Rest, Phase::WaitPending]);
        assert_eq!(ways(Phase::WaitPending), [Phase::Rest, Phase::InProgress, Phase::WaitFlush]);
        assert_eq!(ways(Phase::WaitFlush), [Phase::Rest, Phase::WaitPending]);
        assert!(Phase::ALL.windows(2).all(|pair| pair[0].leads_to(pair[1])));
    }
}
