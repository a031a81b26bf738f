//! Pages as runs of consecutive numbers.

use crate::PageNo;

/// Consecutive pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageRun {
    /// The first one.
    pub first: PageNo,
    /// How many; at least one.
    pub len: u64,
    /// How many are in the runs before.
    before: u64,
}

impl PageRun {
    /// The last one.
    pub const fn last(&self) -> PageNo {
        PageNo::from_index(self.first.index() + (self.len - 1))
    }
}

/// Pages in the order they were put, as runs. Whoever reads or writes them judges whether they ascend; searches take it for
/// granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageRuns {
    runs: Vec<PageRun>,
}

impl PageRuns {
    /// One page more, behind the others.
    pub fn push(&mut self, page: PageNo) {
        self.push_run(page, 1);
    }

    /// So many pages more from `first` on, behind the others. Numbers beyond 64 bits are left out.
    pub fn push_run(&mut self, first: PageNo, len: u64) {
        let len = len.min(u64::MAX - first.index());
        if len == 0 {
            return;
        }
        let before = self.len();
        match self.runs.last_mut().filter(|run| run.last().get().checked_add(1) == Some(first.get())) {
            Some(run) => run.len += len,
            None => self.runs.push(PageRun { first, len, before }),
        }
    }

    /// The runs. No run follows the one before it without a gap.
    pub fn runs(&self) -> &[PageRun] {
        &self.runs
    }

    /// How many pages.
    pub fn len(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.before + run.len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The pages, in the order they were put.
    pub fn iter(&self) -> impl Iterator<Item = PageNo> + '_ {
        self.runs.iter().flat_map(|run| (0..run.len).map(|at| PageNo::from_index(run.first.index() + at)))
    }

    /// Whether each page is above the one before it.
    pub fn ascend(&self) -> bool {
        self.runs.windows(2).all(|pair| pair[0].last() < pair[1].first)
    }

    /// Whether a page is among them.
    pub fn contains(&self, page: PageNo) -> bool {
        let after = self.runs.partition_point(|run| run.first <= page);
        after.checked_sub(1).is_some_and(|at| page <= self.runs[at].last())
    }

    /// How many of them are below a page.
    pub fn count_below(&self, page: PageNo) -> u64 {
        let after = self.runs.partition_point(|run| run.first < page);
        let Some(run) = after.checked_sub(1).map(|at| self.runs[at]) else { return 0 };
        run.before + run.len.min(page.get().saturating_sub(run.first.get()))
    }

    /// Of the pages from `from` on that are not among them, the one that `nth` come before. `None` beyond 64 bits.
    pub fn nth_absent(&self, from: PageNo, nth: u64) -> Option<PageNo> {
        let below = self.count_below(from);
        let ahead = &self.runs[self.runs.partition_point(|run| run.last() < from)..];
        // How many absent pages lie between `from` and a run that begins at or above it; the run that holds `from` is passed.
        let absent = |run: &PageRun| {
            run.first.get().checked_sub(from.get()).map_or(0, |distance| distance.saturating_sub(run.before - below))
        };
        let passed = ahead.partition_point(|run| absent(run) <= nth);
        let skipped = match passed.checked_sub(1).map(|at| ahead[at]) {
            Some(run) => run.before + run.len - below,
            None => 0,
        };
        from.get().checked_add(nth)?.checked_add(skipped).and_then(PageNo::new)
    }
}

impl FromIterator<PageNo> for PageRuns {
    fn from_iter<I: IntoIterator<Item = PageNo>>(pages: I) -> Self {
        let mut runs = Self::default();
        pages.into_iter().for_each(|page| runs.push(page));
        runs.runs.shrink_to_fit();
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn page(number: u64) -> PageNo {
        PageNo::new(number).unwrap()
    }

    #[test]
    fn runs_answer_as_the_set_of_their_pages() {
        for seed in 1..40u64 {
            let set: BTreeSet<PageNo> = (1..80).filter(|at| (at * seed / 7) % 3 == 0).map(page).collect();
            let runs: PageRuns = set.iter().copied().collect();
            assert!(runs.ascend());
            assert_eq!(runs.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            assert_eq!((runs.len(), runs.is_empty()), (set.len() as u64, set.is_empty()));
            for at in (1..90).map(page) {
                assert_eq!(runs.contains(at), set.contains(&at));
                assert_eq!(runs.count_below(at), set.range(..at).count() as u64, "below {at}, seed {seed}");
                let absent: Vec<_> = (at.get()..200).map(page).filter(|page| !set.contains(page)).take(50).collect();
                for (nth, expected) in absent.into_iter().enumerate() {
                    assert_eq!(runs.nth_absent(at, nth as u64), Some(expected), "{nth} from {at}, seed {seed}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_ascend_is_known() {
        for pages in [&[2, 1][..], &[1, 1], &[1, 2, 4, 3], &[u64::MAX, u64::MAX]] {
            let runs: PageRuns = pages.iter().map(|number| page(*number)).collect();
            assert!(!runs.ascend(), "{pages:?}");
            assert_eq!(runs.iter().map(PageNo::get).collect::<Vec<_>>(), pages);
        }
        assert_eq!(PageRuns::from_iter([page(u64::MAX)]).nth_absent(page(u64::MAX), 0), None);
    }
}
