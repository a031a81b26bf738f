//! A frame table in few bytes: one or two a frame for a chunk whose pages were stored in their order.

use crate::FormatError;
use crate::wire::{In, Out, Spell};
use littoral_types::limits::{CHUNK_BYTES, FRAME_PAGES_MAX};
use littoral_types::{ByteSpan, Frame, FrameEntry, FrameTable, PageNo, PageRuns, PageSize};

/// Pages of a chunk at the smallest page size.
pub(crate) const PAGES_MAX: u64 = CHUNK_BYTES / PageSize::MIN.bytes();
/// Stored bytes of one frame: sixteen of the largest pages that did not compress, and what stands around them.
pub(crate) const FRAME_BYTES_MAX: u64 = FRAME_PAGES_MAX as u64 * (PageSize::MAX.bytes() + 10) + 64;

/// The stored pages are consecutive numbers (zero pages left out), sixteen a frame: only the first is spelled.
const NATURAL: u8 = 1;
/// Each frame begins where the one before it ended: no gaps are spelled.
const CONTIGUOUS: u8 = 2;

fn is_contiguous(table: &FrameTable) -> bool {
    table.touches() || table.spans().zip(table.spans().skip(1)).all(|(span, next)| span.end() == Some(next.offset))
}

fn ascending(pages: impl Iterator<Item = PageNo>) -> bool {
    pages.is_sorted_by(|a, b| a < b)
}

/// What every table keeps to, read or written; the words say which rule it breaks. Whether it is natural.
pub(crate) fn check(table: &FrameTable) -> Result<bool, &'static str> {
    check_spans(table)?;
    // The usual order needs no look at each page.
    let natural = table.natural_order().is_some();
    if !natural && table.frames().any(|frame| frame.pages.is_empty() || frame.pages.len() > FRAME_PAGES_MAX) {
        return Err("a frame without pages, or with more than sixteen");
    }
    if !natural && !table.frames().all(|frame| ascending(frame.pages.iter())) {
        return Err("a frame whose pages do not ascend");
    }
    if !natural && !each_page_once(table) {
        return Err("a page in two places");
    }
    Ok(natural)
}

fn check_spans(table: &FrameTable) -> Result<(), &'static str> {
    if table.page_total() > PAGES_MAX {
        return Err("a frame table with more pages than a chunk has");
    }
    let mut end = 0;
    for span in table.spans() {
        if span.len == 0 || span.len > FRAME_BYTES_MAX {
            return Err("a frame of no bytes, or of more than any frame has");
        }
        if span.offset < end {
            return Err("frames that overlap or do not ascend");
        }
        end = span.end().ok_or("a frame beyond 64 bits")?;
    }
    if table.frame_count() == 0 && table.mark != 0 {
        return Err("a mark without frames");
    }
    if table.zeros().ascend() { Ok(()) } else { Err("zero pages that do not ascend") }
}

fn each_page_once(table: &FrameTable) -> bool {
    if ascending(table.stored()) {
        // The usual order: no copy.
        return table.stored().all(|page| !table.zeros().contains(page));
    }
    let mut pages: Vec<_> = table.pages().collect();
    pages.sort_unstable();
    ascending(pages.into_iter())
}

impl Spell for FrameTable {
    fn put(&self, out: &mut Out) {
        if let Err(detail) = check(self) {
            return out.refuse(detail);
        }
        let order = self.natural_order();
        let natural = order.is_some();
        let contiguous = is_contiguous(self);
        let flags = if natural { NATURAL } else { 0 } | if contiguous { CONTIGUOUS } else { 0 };
        out.u8("table: flags (1 natural order, 2 contiguous)", flags);
        out.spend_zeros(self.zeros().len() as usize);
        put_runs(out, self.zeros());
        match order {
            Some((first, total)) => {
                out.count("table: stored pages", total as usize);
                out.varint("table: first stored page", first.get());
            }
            None => out.count("table: frames", self.frame_count()),
        }
        let Some(first) = self.frame(0) else { return };
        out.u64("table: mark", self.mark);
        out.varint("table: first frame's offset", first.span.offset);
        let mut end = first.span.offset;
        let mut last = 0u64;
        for Frame { span, pages } in self.frames() {
            if !contiguous && span.offset != first.span.offset {
                out.varint("frame: gap before", span.offset - end);
            }
            out.varint("frame: stored bytes", span.len);
            end = span.offset + span.len;
            if natural {
                continue;
            }
            out.u8("frame: pages", pages.len() as u8);
            for (slot, page) in pages.iter().enumerate() {
                if slot == 0 {
                    out.zigzag("frame: first page, from the page before", page.get().wrapping_sub(last) as i64);
                } else {
                    out.varint("frame: pages left out before the next", page.get() - last - 1);
                }
                last = page.get();
            }
        }
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let flags = input.u8()?;
        if flags & !(NATURAL | CONTIGUOUS) != 0 {
            return Err(input.invalid(format!("frame table flags {flags}")));
        }
        let (natural, contiguous) = (flags & NATURAL != 0, flags & CONTIGUOUS != 0);
        let zeros = get_runs(input)?;
        let table =
            if natural { get_natural(input, contiguous, zeros)? } else { get_gathered(input, contiguous, zeros)? };
        // Pages in natural order were counted, not read: they are.
        let checked = if natural { check_spans(&table).map(|()| true) } else { check(&table) };
        let is_natural = checked.map_err(|detail| input.invalid(detail))?;
        // One spelling each, so that equal manifests are equal bytes.
        if natural != is_natural || contiguous != is_contiguous(&table) {
            return Err(input.invalid("frame table flags that do not fit"));
        }
        Ok(table)
    }
}

fn get_natural(input: &mut In<'_>, contiguous: bool, zeros: PageRuns) -> Result<FrameTable, FormatError> {
    let total = input.varint()?;
    if total == 0 || total > PAGES_MAX {
        return Err(FormatError::TooLarge { what: input.what(), len: total, max: PAGES_MAX });
    }
    let count = total.div_ceil(FRAME_PAGES_MAX as u64) as usize;
    let start = input.page()?;
    if zeros.contains(start) {
        return Err(input.invalid("a page in two places"));
    }
    if count > input.left() {
        return Err(FormatError::Truncated { what: input.what() });
    }
    let mark = input.u64()?;
    let mut spans = Spans::begin(input, contiguous)?;
    let spans: Vec<_> = (0..count).map(|_| spans.next(input)).collect::<Result<_, _>>()?;
    FrameTable::natural(start, total, spans, zeros, mark).ok_or_else(|| input.invalid("pages beyond 64 bits"))
}

fn get_gathered(input: &mut In<'_>, contiguous: bool, zeros: PageRuns) -> Result<FrameTable, FormatError> {
    // Stored bytes, number of pages, and at least one page each.
    let count = input.count(3, PAGES_MAX as usize)?;
    let mut frames = Vec::with_capacity(count);
    if count == 0 {
        return Ok(FrameTable::new(frames, zeros.iter(), 0));
    }
    let mark = input.u64()?;
    let mut spans = Spans::begin(input, contiguous)?;
    let mut last = 0u64;
    for _ in 0..count {
        let span = spans.next(input)?;
        let len = usize::from(input.u8()?);
        if len > FRAME_PAGES_MAX {
            return Err(input.invalid(format!("a frame of {len} pages")));
        }
        let mut pages = Vec::with_capacity(len);
        for slot in 0..len {
            let number = if slot == 0 {
                Some(last.wrapping_add(input.zigzag()? as u64))
            } else {
                input.varint()?.checked_add(1).and_then(|step| last.checked_add(step))
            };
            let page = number.and_then(PageNo::new).ok_or_else(|| input.invalid("a page beyond 64 bits, or page 0"))?;
            last = page.get();
            pages.push(page);
        }
        frames.push(FrameEntry { span, pages });
    }
    Ok(FrameTable::new(frames, zeros.iter(), mark))
}

/// Reads where frames lie, one after another.
struct Spans {
    gaps: bool,
    end: u64,
    first: bool,
}

impl Spans {
    fn begin(input: &mut In<'_>, contiguous: bool) -> Result<Self, FormatError> {
        Ok(Self { gaps: !contiguous, end: input.varint()?, first: true })
    }

    #[inline]
    fn next(&mut self, input: &mut In<'_>) -> Result<ByteSpan, FormatError> {
        let gap = if self.gaps && !self.first { input.varint()? } else { 0 };
        self.first = false;
        let len = input.varint()?;
        let offset = self.end.checked_add(gap);
        let end = offset.and_then(|offset| offset.checked_add(len));
        let (Some(offset), Some(end)) = (offset, end) else { return Err(input.invalid("a frame beyond 64 bits")) };
        self.end = end;
        Ok(ByteSpan { offset, len })
    }
}

/// Ascending pages as runs: pages left out, then pages that follow one another.
fn put_runs(out: &mut Out, pages: &PageRuns) {
    out.count("zero pages: runs", pages.runs().len());
    let mut end = 0u64;
    for run in pages.runs() {
        // Runs after the first lie at least one page apart, or they would be one.
        let apart = u64::from(end != 0);
        out.varint("zero pages: left out before the run", run.first.get() - end - 1 - apart);
        out.varint("zero pages: in the run, less one", run.len - 1);
        end = run.last().get();
    }
}

fn get_runs(input: &mut In<'_>) -> Result<PageRuns, FormatError> {
    let runs = input.count(2, PAGES_MAX as usize)?;
    let mut pages = PageRuns::default();
    let mut end = 0u64;
    for _ in 0..runs {
        let apart = u64::from(end != 0);
        let left_out = input.varint()?;
        let more = input.varint()?;
        if more >= PAGES_MAX - pages.len() {
            return Err(FormatError::TooLarge { what: input.what(), len: more, max: PAGES_MAX });
        }
        input.spend_zeros(more + 1)?;
        let first = end.checked_add(1 + apart).and_then(|page| page.checked_add(left_out));
        let last = first.and_then(|first| first.checked_add(more));
        let (Some(first), Some(last)) = (first.and_then(PageNo::new), last) else {
            return Err(input.invalid("a page beyond 64 bits"));
        };
        pages.push_run(first, more + 1);
        end = last;
    }
    Ok(pages)
}
