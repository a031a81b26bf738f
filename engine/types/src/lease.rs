//! Who works on which chunks of a volume: rights that end by themselves, and that can be taken away.

use crate::{ChunkId, Generation, VolumeId};
use std::fmt;

/// A lease's number in its store. Numbers ascend and are never given twice: whoever holds an older one has been overtaken (a fence).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseToken(pub u64);

impl fmt::Display for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What somebody does to chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Changed pages go to the object store.
    Checkpoint,
    /// Deltas become fewer.
    Coalesce,
    /// What lives in packs that are mostly dead moves.
    Repack,
    /// What nobody needs goes.
    Prune,
    /// Segments of a log go.
    Truncate,
    /// Segments of a log are read by somebody who wants all of them.
    Read,
}

impl Work {
    /// All kinds.
    pub const ALL: [Work; 6] =
        [Work::Checkpoint, Work::Coalesce, Work::Repack, Work::Prune, Work::Truncate, Work::Read];

    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Work::Checkpoint => "checkpoint",
            Work::Coalesce => "coalesce",
            Work::Repack => "repack",
            Work::Prune => "prune",
            Work::Truncate => "truncate",
            Work::Read => "read",
        }
    }

    /// Whether two cannot be done at once to one chunk. A checkpoint lays its pages on top of whatever a merge makes of what is below,
    /// and a prune and a checkpoint exclude each other by the volume's lock. What a log lets go of nobody else may be at; those who read
    /// exclude nobody else.
    pub const fn excludes(self, other: Work) -> bool {
        matches!(
            (self, other),
            (Work::Checkpoint, Work::Checkpoint)
                | (Work::Coalesce | Work::Repack | Work::Prune, Work::Coalesce | Work::Repack | Work::Prune)
                | (Work::Truncate, _)
                | (_, Work::Truncate)
        )
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Chunks, as runs of neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChunkRuns(Vec<(ChunkId, ChunkId)>);

impl ChunkRuns {
    /// These runs, first and last chunk of each. `None` where they do not ascend with a gap between any two.
    pub fn new(runs: Vec<(ChunkId, ChunkId)>) -> Option<Self> {
        let is_run = runs.iter().all(|(first, last)| first <= last);
        let ascends = runs.windows(2).all(|two| matches!(two, [one, next] if one.1.0 < next.0.0.saturating_sub(1)));
        (is_run && ascends).then_some(Self(runs))
    }

    /// The runs.
    pub fn runs(&self) -> &[(ChunkId, ChunkId)] {
        &self.0
    }

    /// Whether a chunk is one of them.
    pub fn contains(&self, chunk: ChunkId) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&chunk))
    }

    /// Whether a chunk is in both.
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().any(|(first, last)| other.0.iter().any(|(from, to)| first <= to && from <= last))
    }

    /// Those of both.
    pub fn with(&self, other: &Self) -> Self {
        let mut runs: Vec<(ChunkId, ChunkId)> = self.0.iter().chain(&other.0).copied().collect();
        runs.sort_unstable();
        let mut joined: Vec<(ChunkId, ChunkId)> = Vec::with_capacity(runs.len());
        for (first, last) in runs {
            match joined.last_mut().filter(|(_, end)| first.0 <= end.0.saturating_add(1)) {
                Some((_, end)) => *end = (*end).max(last),
                None => joined.push((first, last)),
            }
        }
        Self(joined)
    }
}

impl FromIterator<ChunkId> for ChunkRuns {
    fn from_iter<T: IntoIterator<Item = ChunkId>>(chunks: T) -> Self {
        Self::default().with(&Self(chunks.into_iter().map(|chunk| (chunk, chunk)).collect()))
    }
}

impl fmt::Display for ChunkRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { ", " })?;
            match first == last {
                true => write!(f, "{}", first.0)?,
                false => write!(f, "{} to {}", first.0, last.0)?,
            }
        }
        Ok(())
    }
}

/// What somebody wants to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseWish {
    /// Of which volume.
    pub volume: VolumeId,
    /// What he does.
    pub work: Work,
    /// To which chunks; `None` for all that there are and will be.
    pub chunks: Option<ChunkRuns>,
    /// The generation that he stands on.
    pub generation: Generation,
    /// Who he is.
    pub process: u32,
    /// The name of the lock that dies with him.
    pub mark: String,
    /// When it is asked for, by the wall clock, for people.
    pub taken_ms: u64,
    /// By which [clock](crate::lease) that counts suspend, and never goes back, it has run out if he does not renew it.
    pub until_boot_ms: u64,
}

/// A right to work on chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its number.
    pub token: LeaseToken,
    /// What was asked for.
    pub wish: LeaseWish,
}

impl Lease {
    /// Whether it stands in the way of a wish.
    pub fn excludes(&self, wish: &LeaseWish) -> bool {
        let meets = match (&self.wish.chunks, &wish.chunks) {
            (Some(these), Some(those)) => these.meets(those),
            _ => true,
        };
        self.wish.volume == wish.volume && self.wish.work.excludes(wish.work) && meets
    }

    /// Whether a chunk is one of its own.
    pub fn covers(&self, chunk: ChunkId) -> bool {
        self.wish.chunks.as_ref().is_none_or(|chunks| chunks.contains(chunk))
    }

    /// Its chunks, for people.
    pub fn chunks(&self) -> String {
        self.wish.chunks.as_ref().map_or_else(|| "all".to_owned(), ChunkRuns::to_string)
    }
}

/// A lease that was taken away: its holder publishes nothing of what he did under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenAway {
    /// What was held.
    pub lease: Lease,
    /// When, by the wall clock.
    pub at_ms: u64,
    /// Who took it: a user and a process.
    pub by: String,
    /// Why.
    pub why: String,
    /// Whether its holder lived and had time left.
    pub is_forced: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(chunks: &[u64]) -> ChunkRuns {
        chunks.iter().copied().map(ChunkId).collect()
    }

    #[test]
    fn chunks_are_runs_whatever_order_they_come_in() {
        let some = runs(&[7, 3, 1, 2, 2, 9, 8]);
        assert_eq!(some.to_string(), "1 to 3, 7 to 9");
        assert_eq!(ChunkRuns::new(some.runs().to_vec()), Some(some.clone()));
        assert!(some.contains(ChunkId(2)) && !some.contains(ChunkId(4)) && some.contains(ChunkId(9)));
        assert!(some.meets(&runs(&[5, 9])) && !some.meets(&runs(&[0, 4, 5, 6])) && !some.meets(&runs(&[])));
        assert_eq!(some.with(&runs(&[4, 6])).to_string(), "1 to 4, 6 to 9");
        assert_eq!(runs(&[u64::MAX, u64::MAX - 1]).to_string(), format!("{} to {}", u64::MAX - 1, u64::MAX));
        for wrong in [[(3, 1), (5, 5)], [(1, 2), (3, 4)], [(5, 6), (1, 2)], [(1, 5), (4, 6)]] {
            let wrong = wrong.map(|(first, last)| (ChunkId(first), ChunkId(last)));
            assert_eq!(ChunkRuns::new(wrong.to_vec()), None);
        }
    }

    #[test]
    fn what_excludes_excludes_both_ways_and_merges_leave_checkpoints_alone() {
        for one in Work::ALL {
            for other in Work::ALL {
                assert_eq!(one.excludes(other), other.excludes(one), "{one} and {other}");
            }
            assert_eq!(one.excludes(one), one != Work::Read, "{one}");
            assert!(one.excludes(Work::Truncate), "{one}");
        }
        assert!(!Work::Checkpoint.excludes(Work::Repack) && Work::Prune.excludes(Work::Repack));
    }
}
