//! Frames: up to sixteen pages compressed and checksummed together, the unit of a ranged GET.
//!
//! A terabyte of 4 KiB pages has sixteen million frames, and whoever rebuilds, verifies or restores it holds the tables of all of
//! them. So what follows from a rule is not listed: pages in their natural order are the first one and how many, frames that
//! touch are their ends, zero pages are runs. Equal tables are kept in equal ways, whoever made them.

use crate::limits::FRAME_PAGES_MAX;
use crate::{ByteSpan, PageNo, PageRuns};

/// One frame by itself: where it lies in its blob and which pages it holds, in slot order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrameEntry {
    /// Its stored bytes, header and tag included.
    pub span: ByteSpan,
    /// Its pages by slot: ascending, at least one, at most [`crate::limits::FRAME_PAGES_MAX`].
    pub pages: Vec<PageNo>,
}

/// One frame of a [`FrameTable`].
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its stored bytes, header and tag included.
    pub span: ByteSpan,
    /// Its pages by slot.
    pub pages: FramePages<'a>,
}

impl Frame<'_> {
    /// The frame by itself.
    pub fn to_entry(self) -> FrameEntry {
        FrameEntry { span: self.span, pages: self.pages.iter().collect() }
    }
}

/// Which frame holds which page of one version of one chunk. What it is made of is not judged here: whoever reads or writes
/// one judges it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FrameTable {
    order: Order,
    spans: Spans,
    zeros: PageRuns,
    /// What every frame of the blob says of itself, so that no frame of another blob is taken for one of these, whatever
    /// the object store answers. Zero without frames.
    pub mark: u64,
}

/// Which pages the frames hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Order {
    /// Consecutive numbers, zero pages left out, sixteen a frame. This wherever it can be said.
    Natural { first: PageNo, count: u64 },
    /// Frame after frame; `ends` says where in `pages` each frame's end.
    Listed { pages: Box<[PageNo]>, ends: Box<[u32]>, ascends: bool },
}

impl Default for Order {
    fn default() -> Self {
        Self::Listed { pages: Box::default(), ends: Box::default(), ascends: true }
    }
}

/// Where the frames lie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Spans {
    /// One behind the other: where each ends, counted from where the first begins. This wherever it can be said.
    Touching { first: u64, ends: Box<[u32]> },
    /// With gaps, or too large for that.
    Apart(Box<[ByteSpan]>),
}

impl Default for Spans {
    fn default() -> Self {
        Self::Touching { first: 0, ends: Box::default() }
    }
}

impl FromIterator<ByteSpan> for Spans {
    fn from_iter<I: IntoIterator<Item = ByteSpan>>(spans: I) -> Self {
        let spans: Box<[ByteSpan]> = spans.into_iter().collect();
        let Some(first) = spans.first().map(|span| span.offset) else { return Self::default() };
        let mut end = 0u32;
        let ends: Option<Box<[u32]>> = spans
            .iter()
            .map(|span| {
                let touches = first.checked_add(u64::from(end)) == Some(span.offset) && span.end().is_some();
                end = u32::try_from(span.len).ok().filter(|_| touches).and_then(|len| end.checked_add(len))?;
                Some(end)
            })
            .collect();
        match ends {
            Some(ends) => Self::Touching { first, ends },
            None => Self::Apart(spans),
        }
    }
}

impl Spans {
    fn len(&self) -> usize {
        match self {
            Self::Touching { ends, .. } => ends.len(),
            Self::Apart(spans) => spans.len(),
        }
    }

    fn at(&self, frame: usize) -> ByteSpan {
        match self {
            Self::Touching { first, ends } => {
                let start = frame.checked_sub(1).map_or(0, |before| ends[before]);
                ByteSpan { offset: first + u64::from(start), len: u64::from(ends[frame] - start) }
            }
            Self::Apart(spans) => spans[frame],
        }
    }
}

/// Where a page is found in a [`FrameTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PagePlace {
    /// It is all zeros.
    Zero,
    /// In a frame, at a slot.
    Slot {
        /// Which frame, as [`FrameTable::frame`] counts them.
        frame: usize,
        /// Which of its pages.
        slot: usize,
    },
}

impl FrameTable {
    /// Of these frames, in the order of their offsets, and of these zero pages, ascending.
    pub fn new(
        frames: impl IntoIterator<Item = FrameEntry>,
        zeros: impl IntoIterator<Item = PageNo>,
        mark: u64,
    ) -> Self {
        let zeros: PageRuns = zeros.into_iter().collect();
        let (mut pages, mut ends, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        for frame in frames {
            pages.extend(frame.pages);
            ends.push(pages.len() as u32);
            spans.push(frame.span);
        }
        let order = match natural(&pages, &ends, &zeros) {
            Some(first) => Order::Natural { first, count: pages.len() as u64 },
            None => {
                let ascends = pages.is_sorted();
                Order::Listed { pages: pages.into(), ends: ends.into(), ascends }
            }
        };
        Self { order, spans: spans.into_iter().collect(), zeros, mark }
    }

    /// Of so many pages in their natural order, from `first` on. `None` when that is no natural order: a first page that is
    /// zeros, zeros that do not ascend, another number of frames, numbers beyond 64 bits.
    pub fn natural(
        first: PageNo,
        count: u64,
        spans: impl IntoIterator<Item = ByteSpan>,
        zeros: PageRuns,
        mark: u64,
    ) -> Option<Self> {
        let spans: Spans = spans.into_iter().collect();
        let frames = count.div_ceil(FRAME_PAGES_MAX as u64);
        if count == 0 || frames != spans.len() as u64 || !zeros.ascend() || zeros.contains(first) {
            return None;
        }
        // The last one has a number, and so have all before it.
        zeros.nth_absent(first, count - 1)?;
        Some(Self { order: Order::Natural { first, count }, spans, zeros, mark })
    }

    /// First page and number of the stored pages, when they are in their natural order: consecutive numbers with the zero
    /// pages left out, sixteen a frame.
    pub fn natural_order(&self) -> Option<(PageNo, u64)> {
        match self.order {
            Order::Natural { first, count } => Some((first, count)),
            Order::Listed { .. } => None,
        }
    }

    /// How many frames there are.
    pub fn frame_count(&self) -> usize {
        self.spans.len()
    }

    /// One frame, `None` beyond the last.
    pub fn frame(&self, frame: usize) -> Option<Frame<'_>> {
        (frame < self.frame_count()).then(|| self.at(frame))
    }

    /// The frames, in the order of their offsets.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> + Clone {
        (0..self.frame_count()).map(|frame| self.at(frame))
    }

    /// Where the frames lie, without asking which pages they hold.
    pub fn spans(&self) -> impl ExactSizeIterator<Item = ByteSpan> + Clone {
        (0..self.frame_count()).map(|frame| self.spans.at(frame))
    }

    /// Whether it is known that each frame begins where the one before it ends. Where it is not, they may all the same.
    pub fn touches(&self) -> bool {
        matches!(self.spans, Spans::Touching { .. })
    }

    fn at(&self, frame: usize) -> Frame<'_> {
        let pages = match &self.order {
            Order::Natural { first, count } => {
                let before = (frame * FRAME_PAGES_MAX) as u64;
                let len = (count - before).min(FRAME_PAGES_MAX as u64) as usize;
                // Its last page was found when the table was made, and this one is no later.
                let first = self.zeros.nth_absent(*first, before).unwrap_or(*first);
                FramePages(Held::Counted { next: first, len, zeros: &self.zeros })
            }
            Order::Listed { pages, ends, .. } => {
                let start = frame.checked_sub(1).map_or(0, |before| ends[before]);
                FramePages(Held::Listed(&pages[start as usize..ends[frame] as usize]))
            }
        };
        Frame { span: self.spans.at(frame), pages }
    }

    /// Pages that hold only zeros, ascending: recorded, not stored.
    pub fn zeros(&self) -> &PageRuns {
        &self.zeros
    }

    /// The place of a page, `None` when this version does not hold it.
    pub fn find(&self, page: PageNo) -> Option<PagePlace> {
        if self.zeros.contains(page) {
            return Some(PagePlace::Zero);
        }
        match &self.order {
            Order::Natural { first, count } => {
                let skipped = || self.zeros.count_below(page) - self.zeros.count_below(*first);
                let rank = page.get().checked_sub(first.get()).map(|rank| rank - skipped());
                let rank = rank.filter(|rank| rank < count)? as usize;
                Some(PagePlace::Slot { frame: rank / FRAME_PAGES_MAX, slot: rank % FRAME_PAGES_MAX })
            }
            Order::Listed { pages, ends, ascends } => {
                let found = if *ascends {
                    pages.binary_search(&page).ok()?
                } else {
                    pages.iter().position(|held| *held == page)?
                };
                let frame = ends.partition_point(|end| *end as usize <= found);
                let start = frame.checked_sub(1).map_or(0, |before| ends[before]);
                Some(PagePlace::Slot { frame, slot: found - start as usize })
            }
        }
    }

    /// The pages that are stored, frame after frame.
    pub fn stored(&self) -> impl Iterator<Item = PageNo> + '_ {
        self.frames().flat_map(|frame| frame.pages.iter())
    }

    /// All pages, stored ones first, in no particular order.
    pub fn pages(&self) -> impl Iterator<Item = PageNo> + '_ {
        self.stored().chain(self.zeros.iter())
    }

    /// How many pages it stores.
    pub fn stored_total(&self) -> u64 {
        match &self.order {
            Order::Natural { count, .. } => *count,
            Order::Listed { pages, .. } => pages.len() as u64,
        }
    }

    /// How many pages it holds, zeros included.
    pub fn page_total(&self) -> u64 {
        self.stored_total() + self.zeros.len()
    }

    /// Bytes of all its frames.
    pub fn stored_bytes(&self) -> u64 {
        match &self.spans {
            Spans::Touching { ends, .. } => ends.last().copied().map_or(0, u64::from),
            Spans::Apart(spans) => spans.iter().map(|span| span.len).sum(),
        }
    }
}

/// The first page, when what the frames hold is the natural order.
fn natural(pages: &[PageNo], ends: &[u32], zeros: &PageRuns) -> Option<PageNo> {
    let first = *pages.first()?;
    let full = ends.iter().enumerate().all(|(frame, end)| {
        let due = ((frame + 1) * FRAME_PAGES_MAX).min(pages.len());
        *end as usize == due
    });
    let exact = ends.len() == pages.len().div_ceil(FRAME_PAGES_MAX);
    let follows = |pair: &[PageNo]| pair[0] < pair[1] && zeros.nth_absent(pair[0].next(), 0) == Some(pair[1]);
    (full && exact && zeros.ascend() && !zeros.contains(first) && pages.windows(2).all(follows)).then_some(first)
}

/// A frame's pages by slot.
#[derive(Clone, Copy, Debug)]
pub struct FramePages<'a>(Held<'a>);

#[derive(Clone, Copy, Debug)]
enum Held<'a> {
    Counted { next: PageNo, len: usize, zeros: &'a PageRuns },
    Listed(&'a [PageNo]),
}

impl<'a> FramePages<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        match self.0 {
            Held::Counted { len, .. } => len,
            Held::Listed(pages) => pages.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One after another.
    pub fn iter(&self) -> PagesBySlot<'a> {
        PagesBySlot { held: self.0, skip: None }
    }

    /// All of them.
    pub fn to_vec(&self) -> Vec<PageNo> {
        self.iter().collect()
    }
}

/// A frame's pages, one after another.
#[derive(Clone, Debug)]
pub struct PagesBySlot<'a> {
    held: Held<'a>,
    /// The first run of zeros that may lie ahead, once it was looked for.
    skip: Option<usize>,
}

impl Iterator for PagesBySlot<'_> {
    type Item = PageNo;

    #[inline]
    fn next(&mut self) -> Option<PageNo> {
        match &mut self.held {
            Held::Listed(pages) => {
                let (page, rest) = pages.split_first()?;
                *pages = rest;
                Some(*page)
            }
            Held::Counted { next, len, zeros } => {
                *len = len.checked_sub(1)?;
                let runs = zeros.runs();
                let skip = self.skip.get_or_insert_with(|| runs.partition_point(|run| run.first < *next));
                while let Some(run) = runs.get(*skip).filter(|run| run.first == *next) {
                    *next = run.last().next();
                    *skip += 1;
                }
                let page = *next;
                *next = page.next();
                Some(page)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = FramePages(self.held).len();
        (len, Some(len))
    }
}

impl ExactSizeIterator for PagesBySlot<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u64) -> PageNo {
        PageNo::new(number).unwrap()
    }

    fn frames(stored: &[PageNo], frame: usize, gap: u64) -> Vec<FrameEntry> {
        let entry = |(at, pages): (usize, &[PageNo])| FrameEntry {
            span: ByteSpan { offset: 64 + at as u64 * (100 + gap), len: 100 },
            pages: pages.to_vec(),
        };
        stored.chunks(frame).enumerate().map(entry).collect()
    }

    /// Every way of keeping a table, against the plain lists that it stands for.
    fn stands_for(entries: &[FrameEntry], zeros: &[PageNo], is_natural: bool) -> FrameTable {
        let table = FrameTable::new(entries.to_vec(), zeros.to_vec(), 7);
        assert_eq!(table.natural_order().is_some(), is_natural);
        assert_eq!(table.frames().map(Frame::to_entry).collect::<Vec<_>>(), entries);
        assert_eq!(table.zeros().iter().collect::<Vec<_>>(), zeros);
        assert_eq!(table.stored_bytes(), entries.iter().map(|entry| entry.span.len).sum::<u64>());
        assert_eq!(table.page_total() as usize, table.pages().count());
        for (frame, entry) in entries.iter().enumerate() {
            for (slot, page) in entry.pages.iter().enumerate() {
                assert_eq!(table.find(*page), Some(PagePlace::Slot { frame, slot }), "page {page}");
            }
        }
        zeros.iter().for_each(|zero| assert_eq!(table.find(*zero), Some(PagePlace::Zero)));
        assert!(table.frame(entries.len()).is_none());
        table
    }

    #[test]
    fn natural_orders_are_counted_and_others_listed_and_both_say_the_same() {
        for (seed, count) in (0..60u64).map(|seed| (seed, 1 + seed * 7 % 100)) {
            // Zeros here and there, in runs and alone, at the start and at the end.
            let is_zero = |at: u64| (at * (seed + 3) / 5) % 4 == seed % 4;
            let (zeros, stored): (Vec<_>, Vec<_>) =
                (0..count).map(|at| page(1000 + at)).partition(|page| is_zero(page.get() - 1000));
            for gap in [0, 5] {
                let natural = stands_for(&frames(&stored, 16, gap), &zeros, !stored.is_empty());
                if let Some((first, count)) = natural.natural_order() {
                    let spans = natural.frames().map(|frame| frame.span);
                    let again = FrameTable::natural(first, count, spans, natural.zeros().clone(), 7);
                    assert_eq!(again.as_ref(), Some(&natural), "equal tables are kept in equal ways");
                }
                if stored.len() > 3 {
                    stands_for(&frames(&stored, 3, gap), &zeros, false);
                    let mut turned = stored.clone();
                    turned.reverse();
                    stands_for(&frames(&turned, 1, gap), &zeros, false);
                }
                // A page that is left out and is no zero page: no natural order any more.
                let within = zeros.iter().position(|zero| stored.first() < Some(zero) && Some(zero) < stored.last());
                if let Some(within) = within {
                    let mut zeros = zeros.clone();
                    zeros.remove(within);
                    stands_for(&frames(&stored, 16, gap), &zeros, false);
                }
            }
        }
    }

    #[test]
    fn what_is_no_natural_order_is_not_made_one() {
        let span = |at| ByteSpan { offset: at * 10, len: 10 };
        let made = |first, count, spans: u64, zeros: &[u64]| {
            let zeros = zeros.iter().map(|zero| page(*zero)).collect();
            FrameTable::natural(page(first), count, (0..spans).map(span), zeros, 1)
        };
        assert!(made(1, 16, 1, &[3]).is_some());
        assert!(made(1, 17, 1, &[]).is_none() && made(1, 16, 2, &[]).is_none() && made(1, 0, 0, &[]).is_none());
        assert!(made(3, 1, 1, &[3]).is_none());
        assert!(made(1, 2, 1, &[9, 8]).is_none());
        assert!(made(u64::MAX, 1, 1, &[]).is_some());
        assert!(made(u64::MAX, 2, 1, &[]).is_none() && made(u64::MAX - 1, 2, 1, &[u64::MAX]).is_none());
    }

    #[test]
    fn a_terabyte_of_tables_takes_megabytes() {
        // 1,024 frames of 16 pages: one chunk of sixteen thousand.
        let stored: Vec<_> = (1..=16_384).map(page).collect();
        let table = FrameTable::new(frames(&stored, 16, 0), [], 1);
        let (Order::Natural { .. }, Spans::Touching { ends, .. }) = (&table.order, &table.spans) else {
            panic!("{table:?}");
        };
        assert_eq!(size_of_val(&ends[..]), 4096);
        assert!(size_of::<FrameTable>() <= 128);
    }
}
