//! Which version of a page a state shows: what records changed since the oldest state that anybody reads.
//!
//! A change is named by the record that made it. What is said to have changed may be more than what did, never less: a page is then fetched
//! once more than it had to be.

use littoral_types::{DeltaId, ManifestOp, PageNo, RecordBody, Seq};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Pages that a record may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// One by one.
    pub pages: BTreeSet<PageNo>,
    /// From one up to and without another.
    pub runs: Vec<(PageNo, PageNo)>,
}

/// Behind every page.
const END: PageNo = PageNo::from_index(u64::MAX - 1);

impl Touched {
    /// Whether a page is among them.
    pub fn holds(&self, page: PageNo) -> bool {
        self.pages.contains(&page) || self.runs.iter().any(|(first, end)| (*first..*end).contains(&page))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.runs.is_empty()
    }
}

/// What a record changed. `before` are the operations before it, as far as they are known.
pub fn touched(body: &RecordBody, before: &[ManifestOp]) -> Touched {
    let mut touched = Touched::default();
    // Coalescing changes no page, and an index repeats what others did.
    let (RecordBody::Segment(_) | RecordBody::Checkpoint(_)) = body else { return touched };
    for op in body.ops() {
        match op {
            ManifestOp::Reshape { .. } => touched.runs.push((PageNo::FIRST, END)),
            // What is cut off is dead, whatever grows there later (rule S11).
            ManifestOp::Resize { page_count } => touched.runs.push((PageNo::from_index(page_count.0), END)),
            ManifestOp::PutBase { base, .. } => {
                let end = PageNo::from_index(base.span.first.index() + base.span.count.0);
                touched.runs.push((base.span.first, end));
            }
            ManifestOp::PutDelta { delta, .. } => touched.pages.extend(delta.table.pages()),
            ManifestOp::Session(_)
            | ManifestOp::Object(_)
            | ManifestOp::PutSegment { .. }
            | ManifestOp::DropSegment { .. } => {}
            ManifestOp::ReplaceDeltas { chunk, replaced, delta } => {
                touched.pages.extend(delta.iter().flat_map(|delta| delta.table.pages()));
                // A checkpoint takes segments away: a page that only they had is again what it was before them.
                let mut missing: HashSet<DeltaId> = replaced.iter().copied().collect();
                for op in before.iter().rev() {
                    if missing.is_empty() {
                        break;
                    }
                    if let ManifestOp::PutDelta { chunk: of, delta } = op
                        && of == chunk
                        && missing.remove(&delta.id)
                    {
                        touched.pages.extend(delta.table.pages());
                    }
                }
                if !missing.is_empty() {
                    // Nobody here saw them come. A page of the chunk is found by none of what is known: all of them.
                    touched.runs.push((PageNo::FIRST, END));
                }
            }
        }
    }
    touched
}

/// What changed after a state, up to the newest one that is known.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    floor: Seq,
    /// Ascending.
    pages: HashMap<PageNo, Vec<Seq>>,
    /// Ascending by record.
    runs: Vec<(Seq, PageNo, PageNo)>,
}

impl Versions {
    /// Nothing changed yet after this state.
    pub fn after_state(floor: Seq) -> Self {
        Self { floor, ..Self::default() }
    }

    /// The state after which all changes are known.
    pub fn floor(&self) -> Seq {
        self.floor
    }

    /// A newer record changed these.
    pub fn add(&mut self, seq: Seq, touched: &Touched) {
        if seq <= self.floor {
            return;
        }
        touched.pages.iter().for_each(|page| self.pages.entry(*page).or_default().push(seq));
        self.runs.extend(touched.runs.iter().map(|(first, end)| (seq, *first, *end)));
    }

    fn of(&self, page: PageNo) -> impl Iterator<Item = Seq> + '_ {
        let runs = self.runs.iter().filter(move |(_, first, end)| (*first..*end).contains(&page));
        self.pages.get(&page).into_iter().flatten().copied().chain(runs.map(|(seq, ..)| *seq))
    }

    /// The record that changed a page last, as a state shows it; `None` where none did after the floor.
    pub fn at(&self, page: PageNo, state: Seq) -> Option<Seq> {
        self.of(page).filter(|seq| *seq <= state).max()
    }

    /// The record that changed a page first after another.
    pub fn next(&self, page: PageNo, after: Seq) -> Option<Seq> {
        self.of(page).filter(|seq| *seq > after).min()
    }

    /// Everything that changed up to a state.
    pub fn until(&self, state: Seq) -> Touched {
        let is_before = |seqs: &[Seq]| seqs.first().is_some_and(|first| *first <= state);
        let pages = self.pages.iter().filter(|(_, seqs)| is_before(seqs)).map(|(page, _)| *page);
        let runs = self.runs.iter().filter(|(seq, ..)| *seq <= state).map(|(_, first, end)| (*first, *end));
        Touched { pages: pages.collect(), runs: runs.collect() }
    }

    /// Nobody reads a state before this one any more.
    pub fn forget(&mut self, floor: Seq) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        self.pages.retain(|_, seqs| {
            seqs.retain(|seq| *seq > floor);
            !seqs.is_empty()
        });
        self.runs.retain(|(seq, ..)| *seq > floor);
    }
}

/// How long a follower rests until it looks again: longer where nothing came for a while, or nobody answers.
pub fn rest_ms(poll_ms: u64, idle: u32, failed: u32) -> u64 {
    use littoral_types::limits::{POLL_PATIENCE, POLL_STRETCH_MAX};
    let doubled = (idle / POLL_PATIENCE).max(failed).min(16);
    poll_ms.saturating_mul((1 << doubled).min(POLL_STRETCH_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::{
        BlobHash, BlobKind, BlobName, BlobRef, ByteSpan, Checkpoint, ChunkId, Coalesce, Delta, Form, FrameEntry,
        FrameTable, Generation, Home,
    };

    fn page(number: u64) -> PageNo {
        PageNo::new(number).unwrap()
    }

    fn some(pages: &[u64], runs: &[(u64, u64)]) -> Touched {
        Touched {
            pages: pages.iter().map(|number| page(*number)).collect(),
            runs: runs.iter().map(|(first, end)| (page(*first), page(*end))).collect(),
        }
    }

    #[test]
    fn a_state_shows_the_newest_change_that_is_not_after_it() {
        let mut versions = Versions::after_state(Seq(10));
        versions.add(Seq(10), &some(&[1], &[]));
        versions.add(Seq(11), &some(&[1, 2], &[]));
        versions.add(Seq(13), &some(&[2], &[(5, 9)]));
        versions.add(Seq(14), &some(&[1], &[(7, 8)]));
        let at = |number, state| versions.at(page(number), Seq(state));
        assert_eq!([at(1, 10), at(1, 11), at(1, 13), at(1, 14)], [None, Some(Seq(11)), Some(Seq(11)), Some(Seq(14))]);
        assert_eq!([at(5, 12), at(5, 13), at(7, 13), at(7, 14)], [None, Some(Seq(13)), Some(Seq(13)), Some(Seq(14))]);
        assert_eq!([at(9, 99), at(3, 99)], [None, None]);
        assert_eq!((versions.next(page(2), Seq(11)), versions.next(page(2), Seq(13))), (Some(Seq(13)), None));
        assert_eq!(versions.until(Seq(12)), some(&[1, 2], &[]));
        assert_eq!(versions.until(Seq(13)), some(&[1, 2], &[(5, 9)]));
        versions.forget(Seq(13));
        assert_eq!((versions.at(page(2), Seq(14)), versions.at(page(7), Seq(14))), (None, Some(Seq(14))));
        versions.forget(Seq(12));
        assert_eq!(versions.floor(), Seq(13), "nothing comes back");
    }

    #[test]
    fn what_a_checkpoint_takes_away_has_changed_though_no_page_of_it_is_named() {
        let table = FrameTable::new([FrameEntry { span: ByteSpan { offset: 0, len: 9 }, pages: vec![page(7)] }], [], 0);
        let name = BlobName { kind: BlobKind::Pack, hash: BlobHash([1; 32]), birth: Seq(1) };
        let id = DeltaId::of_segment(Generation(3), Seq(9), Form::Whole).unwrap();
        let blob = BlobRef { home: Home::Own, name, len: 9 };
        let came = ManifestOp::PutDelta { chunk: ChunkId(0), delta: Delta { id, blob, last_live: page(9), table } };
        let ops = vec![ManifestOp::ReplaceDeltas { chunk: ChunkId(0), replaced: vec![id], delta: None }];
        let body = RecordBody::Checkpoint(Checkpoint { ops: ops.clone(), ..Checkpoint::default() });
        assert_eq!(touched(&body, std::slice::from_ref(&came)), some(&[7], &[]));
        // Where nobody here saw it come, it may have been any.
        assert!(touched(&body, &[]).holds(page(7)) && touched(&body, &[]).holds(page(7_000_000)));
        assert!(touched(&RecordBody::Coalesce(Coalesce { ops }), &[came]).is_empty(), "no page is another");
    }

    #[test]
    fn a_follower_rests_longer_where_nothing_comes_and_no_longer_than_its_bound() {
        use littoral_types::limits::{POLL_PATIENCE, POLL_STRETCH_MAX};
        assert_eq!(rest_ms(1000, 0, 0), 1000);
        assert_eq!(rest_ms(1000, POLL_PATIENCE - 1, 0), 1000);
        assert_eq!(rest_ms(1000, POLL_PATIENCE, 0), 2000);
        assert_eq!(rest_ms(1000, 0, 1), 2000);
        assert_eq!(rest_ms(1000, u32::MAX, u32::MAX), 1000 * POLL_STRETCH_MAX);
        assert_eq!(rest_ms(u64::MAX, 9, 9), u64::MAX);
    }
}
