//! Which index records there are and which of them an opener reads (rule P8).

use littoral_types::Seq;
use littoral_types::limits::INDEX_EVERY;

/// The record after which an index record's sum begins; `None` when no index stands at this place.
pub const fn index_span(seq: Seq) -> Option<Seq> {
    if seq.0 == 0 || !seq.0.is_multiple_of(INDEX_EVERY) {
        return None;
    }
    let node = seq.0 / INDEX_EVERY;
    Some(Seq((node & (node - 1)) * INDEX_EVERY))
}

/// What an opener reads between a manifest snapshot and a tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexWalk {
    /// Index records, oldest first. The first may begin before the snapshot: its operations bear repeating.
    pub indexes: Vec<Seq>,
    /// Records after the newest index, oldest first.
    pub records: Vec<Seq>,
}

/// Records that an index sums up, and that an opener reads all the same where few came since: they may have brought pages along.
const BEFORE: u64 = 3;
/// So few.
const SINCE_MAX: usize = 8;

impl IndexWalk {
    /// The last of those that the newest index sums up, oldest first.
    pub fn before(&self, snapshot: Seq) -> Vec<Seq> {
        let Some(newest) = self.indexes.last().filter(|_| self.records.len() < SINCE_MAX) else { return Vec::new() };
        let first = newest.0.saturating_sub(BEFORE).max(snapshot.0 + 1);
        (first..newest.0).map(Seq).collect()
    }
}

/// All names are known without reading anything, so that one parallel round fetches them.
pub fn index_walk(snapshot: Seq, tail: Seq) -> IndexWalk {
    let newest = tail.0 / INDEX_EVERY * INDEX_EVERY;
    let mut indexes = Vec::new();
    let mut at = Seq(newest);
    while at > snapshot {
        let Some(after) = index_span(at) else { break };
        indexes.push(at);
        at = after;
    }
    indexes.reverse();
    let first = newest.max(snapshot.0) + 1;
    IndexWalk { indexes, records: (first..=tail.0).map(Seq).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn p08_an_open_after_an_hour_of_records_reads_a_bounded_number() {
        for tail in [1, 63, 64, 65, 3600, 3647, 1 << 20] {
            let walk = index_walk(Seq(0), Seq(tail));
            assert!(walk.records.len() < INDEX_EVERY as usize);
            assert!(walk.indexes.len() <= 64 - (tail / INDEX_EVERY).leading_zeros() as usize, "{tail}: {walk:?}");
        }
        assert_eq!(index_walk(Seq(0), Seq(3600)).indexes.len(), 3);
    }

    proptest! {
        #[test]
        fn a_walk_covers_every_record_after_the_snapshot(snapshot in 0u64..5000, more in 0u64..5000) {
            let tail = snapshot + more;
            let walk = index_walk(Seq(snapshot), Seq(tail));
            let mut covered = snapshot;
            for index in walk.indexes {
                let after = index_span(index).unwrap();
                prop_assert!(after.0 <= covered, "a hole before {}", index.0);
                covered = index.0;
            }
            for record in walk.records {
                prop_assert_eq!(record.0, covered + 1);
                covered = record.0;
            }
            prop_assert_eq!(covered, tail);
        }
    }
}
