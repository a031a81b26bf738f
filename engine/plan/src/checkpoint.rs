//! What a checkpoint does to each chunk: nothing, a delta, or a rewrite.

use littoral_types::limits::{DELTA_BYTES_MAX, FRAME_PAGES_MAX, ROOM_BYTES_MIN};
use littoral_types::{ChunkId, ChunkSpan, Geometry, PageCount, PageNo, PageSize};
use std::fmt;

/// What is known when a checkpoint is planned.
#[derive(Clone, Debug)]
pub struct CheckpointView {
    /// The database's page size now.
    pub page_size: PageSize,
    /// Its size now.
    pub page_count: PageCount,
    /// Page size and size as of the last checkpoint; `None` for the first.
    pub before: Option<(PageSize, PageCount)>,
    /// Chunks with at least one page whose content differs, by ascending chunk. After a new page size: all.
    pub changes: Vec<ChunkChange>,
    /// Whether this lies over another part of the same checkpoint (rule S16): then a chunk is not written whole a second time.
    pub is_overlay: bool,
}

/// One chunk's changed pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkChange {
    /// Which chunk.
    pub chunk: ChunkId,
    /// Its changed pages, ascending; zero pages included.
    pub pages: Vec<PageNo>,
    /// Whether the manifest has a base for it.
    pub has_base: bool,
}

/// Where the lines are drawn.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointPolicy {
    /// A delta is preferred below so many raw bytes.
    pub delta_bytes_max: u64,
    /// A pack takes up to so many raw bytes of deltas.
    pub pack_bytes_max: u64,
    /// No blob takes more raw bytes than there is local room for: what does not fit is cut into smaller ones.
    pub room_bytes: u64,
    /// Stored bytes per raw byte, in percent: an estimate, for people.
    pub ratio_percent: u64,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            delta_bytes_max: DELTA_BYTES_MAX,
            pack_bytes_max: 6 * DELTA_BYTES_MAX,
            room_bytes: u64::MAX,
            ratio_percent: 40,
        }
    }
}

impl CheckpointPolicy {
    /// The same where so much may be staged: of that a blob takes half, so that one is built while another travels, and what does not
    /// compress fits with all that goes around it.
    pub fn within(self, staged: u64) -> Self {
        Self { room_bytes: self.room_bytes.min((staged / 2).max(ROOM_BYTES_MIN)), ..self }
    }
}

impl CheckpointView {
    /// The same in parts, each of which fits into a blob: what comes later lies over what comes before. All of it where it fits.
    pub fn sliced(self, policy: &CheckpointPolicy) -> Vec<CheckpointView> {
        let max = usize::try_from(policy.room_bytes / self.page_size.bytes()).unwrap_or(usize::MAX).max(1);
        let fits = self.changes.iter().map(|change| change.pages.len()).sum::<usize>() <= max;
        if fits {
            return vec![self];
        }
        let Self { page_size, page_count, before, changes, is_overlay } = self;
        let mut parts: Vec<Vec<ChunkChange>> = Vec::new();
        let mut room = 0;
        for ChunkChange { chunk, pages, has_base } in changes {
            for pages in pages.chunks(max) {
                let part = ChunkChange { chunk, pages: pages.to_vec(), has_base };
                match parts
                    .last_mut()
                    .filter(|last| pages.len() <= room && last.last().is_some_and(|before| before.chunk != chunk))
                {
                    Some(last) => {
                        last.push(part);
                        room -= pages.len();
                    }
                    None => {
                        parts.push(vec![part]);
                        room = max - pages.len();
                    }
                }
            }
        }
        let after = Some((page_size, page_count));
        let views = parts.into_iter().enumerate().map(|(nth, changes)| CheckpointView {
            page_size,
            page_count,
            before: if nth == 0 { before } else { after },
            changes,
            is_overlay: is_overlay || nth > 0,
        });
        views.collect()
    }
}

/// What happens to a chunk, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A new base with all its pages.
    Rewrite(Reason),
    /// Its changed pages travel in a pack.
    Delta,
    /// The database ends before it now.
    Drop,
}

/// Why a chunk is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has no base yet.
    New,
    /// More than half of its pages changed.
    MostlyChanged,
    /// The delta would be too large.
    LargeDelta,
    /// The page size changed.
    NewPageSize,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Rewrite(Reason::New) => "rewrite: no base yet",
            Action::Rewrite(Reason::MostlyChanged) => "rewrite: more than half of its pages changed",
            Action::Rewrite(Reason::LargeDelta) => "rewrite: the delta would be too large",
            Action::Rewrite(Reason::NewPageSize) => "rewrite: new page size",
            Action::Delta => "delta: few pages changed",
            Action::Drop => "drop: the database ends before it",
        })
    }
}

impl Action {
    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Action::Rewrite(_) => "rewrite",
            Action::Delta => "delta",
            Action::Drop => "drop",
        }
    }
}

/// One chunk's part of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkPlan {
    /// Which chunk.
    pub chunk: ChunkId,
    /// Its pages in the database as it is now. For a drop: as it was.
    pub span: ChunkSpan,
    /// What happens.
    pub action: Action,
    /// The pages that are written: the changed ones of a delta, all of a rewrite, none of a drop.
    pub pages: Vec<PageNo>,
    /// How many of them differ from the last checkpoint.
    pub changed: u64,
    /// Stored bytes, roughly.
    pub bytes: u64,
}

/// What the plan will cost, roughly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes to upload.
    pub bytes: u64,
    /// PUT requests, the record's included.
    pub puts: u64,
}

/// A checkpoint that can be printed or run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointPlan {
    /// The page size from here on.
    pub page_size: PageSize,
    /// The size from here on.
    pub page_count: PageCount,
    /// The size before; zero for the first.
    pub page_count_before: PageCount,
    /// Whether all rows go first.
    pub reshape: bool,
    /// Chunks that something happens to, ascending.
    pub chunks: Vec<ChunkPlan>,
    /// Chunks that nothing happens to.
    pub unchanged: u64,
    /// Which deltas share a pack: indices into `chunks`.
    pub packs: Vec<Vec<usize>>,
    /// What it will cost.
    pub estimate: Estimate,
}

impl CheckpointPlan {
    /// Indices of the chunks to be rewritten.
    pub fn rewrites(&self) -> impl Iterator<Item = usize> + '_ {
        self.chunks.iter().enumerate().filter(|(_, chunk)| matches!(chunk.action, Action::Rewrite(_))).map(|(at, _)| at)
    }

    /// Pages whose content changed.
    pub fn changed_pages(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.changed).sum()
    }
}

/// Plans a checkpoint; `None` when nothing changed.
pub fn checkpoint(view: &CheckpointView, policy: &CheckpointPolicy) -> Option<CheckpointPlan> {
    let reshape = view.before.is_none_or(|(page_size, _)| page_size != view.page_size);
    let before = view.before.map_or(PageCount::ZERO, |(_, count)| count);
    let geometry = Geometry::new(view.page_size);
    if !reshape && view.changes.is_empty() && before == view.page_count {
        return None;
    }
    let new_page_size = view.before.is_some() && reshape;
    let mut chunks: Vec<ChunkPlan> = view
        .changes
        .iter()
        .filter_map(|change| {
            let span = geometry.span(change.chunk, view.page_count)?;
            let action = match view.is_overlay && change.has_base {
                true => Action::Delta,
                false => choose(change, span, view.page_size, new_page_size, policy),
            };
            let pages = if action == Action::Delta { change.pages.clone() } else { span.pages().collect() };
            let raw = pages.len() as u64 * view.page_size.bytes();
            let changed = change.pages.len() as u64;
            Some(ChunkPlan { chunk: change.chunk, span, action, pages, changed, bytes: stored(raw, policy) })
        })
        .collect();
    let touched = chunks.len() as u64;
    if !reshape {
        chunks.extend(dropped(geometry, before, view.page_count));
    }
    let packs = pack(&chunks, view.page_size, policy);
    let rewrites = chunks.iter().filter(|chunk| matches!(chunk.action, Action::Rewrite(_))).count();
    let estimate =
        Estimate { bytes: chunks.iter().map(|chunk| chunk.bytes).sum(), puts: (rewrites + packs.len() + 1) as u64 };
    Some(CheckpointPlan {
        page_size: view.page_size,
        page_count: view.page_count,
        page_count_before: before,
        reshape,
        chunks,
        unchanged: geometry.chunk_count(view.page_count).saturating_sub(touched),
        packs,
        estimate,
    })
}

fn choose(
    change: &ChunkChange,
    span: ChunkSpan,
    page_size: PageSize,
    new_page_size: bool,
    policy: &CheckpointPolicy,
) -> Action {
    let changed = change.pages.len() as u64;
    if span.count.0 * page_size.bytes() > policy.room_bytes {
        Action::Delta
    } else if new_page_size {
        Action::Rewrite(Reason::NewPageSize)
    } else if !change.has_base && changed == span.count.0 {
        Action::Rewrite(Reason::New)
    } else if changed * 2 > span.count.0 {
        Action::Rewrite(Reason::MostlyChanged)
    } else if changed * page_size.bytes() >= policy.delta_bytes_max {
        Action::Rewrite(Reason::LargeDelta)
    } else {
        Action::Delta
    }
}

/// Stored bytes of so many raw ones, with a frame's overhead for each frame's worth of the smallest pages.
fn stored(raw: u64, policy: &CheckpointPolicy) -> u64 {
    (raw / 100).saturating_mul(policy.ratio_percent) + (raw % 100) + raw / (FRAME_PAGES_MAX as u64 * 64)
}

fn dropped(geometry: Geometry, before: PageCount, now: PageCount) -> impl Iterator<Item = ChunkPlan> {
    (geometry.chunk_count(now)..geometry.chunk_count(before)).filter_map(move |chunk| {
        let span = geometry.span(ChunkId(chunk), before)?;
        Some(ChunkPlan { chunk: ChunkId(chunk), span, action: Action::Drop, pages: Vec::new(), changed: 0, bytes: 0 })
    })
}

fn pack(chunks: &[ChunkPlan], page_size: PageSize, policy: &CheckpointPolicy) -> Vec<Vec<usize>> {
    let mut packs: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for (at, chunk) in chunks.iter().enumerate().filter(|(_, chunk)| chunk.action == Action::Delta) {
        let raw = chunk.pages.len() as u64 * page_size.bytes();
        match packs.last_mut().filter(|_| raw <= room) {
            Some(pack) => {
                pack.push(at);
                room -= raw;
            }
            None => {
                packs.push(vec![at]);
                room = policy.pack_bytes_max.min(policy.room_bytes).saturating_sub(raw);
            }
        }
    }
    packs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE_SIZE: u64 = 65536;

    fn view(before: Option<u64>, now: u64, changed: &[u64], has_base: bool) -> CheckpointView {
        let page_size = PageSize::new(PAGE_SIZE).unwrap();
        let geometry = Geometry::new(page_size);
        let mut changes: Vec<ChunkChange> = Vec::new();
        for page in changed.iter().filter_map(|page| PageNo::new(*page)) {
            let chunk = geometry.chunk_of(page);
            match changes.last_mut().filter(|last| last.chunk == chunk) {
                Some(last) => last.pages.push(page),
                None => changes.push(ChunkChange { chunk, pages: vec![page], has_base }),
            }
        }
        CheckpointView {
            page_size,
            page_count: PageCount(now),
            before: before.map(|count| (page_size, PageCount(count))),
            changes,
            is_overlay: false,
        }
    }

    #[test]
    fn nothing_changed_is_no_plan() {
        assert_eq!(checkpoint(&view(Some(3000), 3000, &[], true), &CheckpointPolicy::default()), None);
    }

    #[test]
    fn the_table_of_choices() {
        let policy = CheckpointPolicy::default();
        let all: Vec<u64> = (1..=1024).collect();
        let most: Vec<u64> = (1..=513).collect();
        let half: Vec<u64> = (1..=512).collect();
        let ten_mib: Vec<u64> = (1..=160).collect();
        let below: Vec<u64> = (1..=159).collect();
        for (what, before, pages, has_base, expected) in [
            ("a new chunk", None, &all, false, Action::Rewrite(Reason::New)),
            ("all of an old one", Some(1024), &all, true, Action::Rewrite(Reason::MostlyChanged)),
            ("more than half", Some(1024), &most, true, Action::Rewrite(Reason::MostlyChanged)),
            ("half, and above ten MiB", Some(1024), &half, true, Action::Rewrite(Reason::LargeDelta)),
            ("ten MiB", Some(1024), &ten_mib, true, Action::Rewrite(Reason::LargeDelta)),
            ("below ten MiB", Some(1024), &below, true, Action::Delta),
        ] {
            let plan = checkpoint(&view(before, 1024, pages, has_base), &policy).unwrap();
            assert_eq!(plan.chunks[0].action, expected, "{what}");
        }
    }

    #[test]
    fn s16_what_changed_while_a_chunk_was_written_whole_goes_on_top_of_it() {
        let all: Vec<u64> = (1..=1024).collect();
        let mut over = view(Some(1024), 1024, &all, true);
        over.is_overlay = true;
        let plan = checkpoint(&over, &CheckpointPolicy::default()).unwrap();
        assert_eq!(plan.chunks[0].action, Action::Delta);
        // A chunk that only came to be meanwhile has nothing that it could go on top of.
        over.changes[0].has_base = false;
        let plan = checkpoint(&over, &CheckpointPolicy::default()).unwrap();
        assert_eq!(plan.chunks[0].action, Action::Rewrite(Reason::New));
    }

    #[test]
    fn a_cut_database_drops_the_chunks_beyond_its_end_even_when_no_page_changed() {
        let plan = checkpoint(&view(Some(3000), 1000, &[], true), &CheckpointPolicy::default()).unwrap();
        let dropped: Vec<_> = plan.chunks.iter().map(|chunk| (chunk.chunk.0, chunk.action)).collect();
        assert_eq!(dropped, [(1, Action::Drop), (2, Action::Drop)]);
        assert_eq!(plan.unchanged, 1);
        assert_eq!(plan.estimate, Estimate { bytes: 0, puts: 1 });
    }

    proptest! {
        #[test]
        fn i07_what_does_not_fit_is_cut_into_parts_that_do_and_every_changed_page_is_in_one_of_them(
            now in 1u64..5000,
            picks in proptest::collection::btree_set(1u64..5000, 0..600),
            is_first in proptest::bool::ANY,
            staged in 0u64..(64 << 20),
        ) {
            let changed: Vec<u64> = picks.into_iter().filter(|page| *page <= now).collect();
            let view = view((!is_first).then_some(now), now, &changed, !is_first);
            let policy = CheckpointPolicy::default().within(staged);
            let most = policy.room_bytes.max(PAGE_SIZE);
            let mut written: Vec<u64> = Vec::new();
            for (nth, part) in view.sliced(&policy).into_iter().enumerate() {
                let Some(plan) = checkpoint(&part, &policy) else { continue };
                prop_assert_eq!(plan.reshape, is_first && nth == 0);
                let raw = |at: &usize| plan.chunks[*at].pages.len() as u64 * PAGE_SIZE;
                for pack in &plan.packs {
                    prop_assert!(pack.iter().map(raw).sum::<u64>() <= most);
                }
                for at in plan.rewrites() {
                    prop_assert!(raw(&at) <= most);
                }
                written.extend(plan.chunks.iter().flat_map(|chunk| chunk.pages.iter().map(|page| page.get())));
            }
            written.sort_unstable();
            prop_assert!(changed.iter().all(|page| written.binary_search(page).is_ok()));
        }

        #[test]
        fn every_changed_page_is_written_exactly_once_and_every_delta_is_in_exactly_one_pack(
            now in 1u64..5000,
            picks in proptest::collection::btree_set(1u64..5000, 0..600),
        ) {
            let changed: Vec<u64> = picks.into_iter().filter(|page| *page <= now).collect();
            let view = view(Some(now), now, &changed, true);
            let policy = CheckpointPolicy::default();
            let plan = checkpoint(&view, &policy);
            prop_assert_eq!(plan.clone(), checkpoint(&view, &policy));
            let Some(plan) = plan else { prop_assert!(changed.is_empty()); return Ok(()) };
            let mut written: Vec<u64> = plan.chunks.iter().flat_map(|c| c.pages.iter().map(|p| p.get())).collect();
            let total = written.len();
            written.sort_unstable();
            written.dedup();
            prop_assert_eq!(total, written.len());
            prop_assert!(changed.iter().all(|page| written.binary_search(page).is_ok()));
            prop_assert_eq!(plan.changed_pages(), changed.len() as u64);
            let mut packed: Vec<usize> = plan.packs.concat();
            packed.sort_unstable();
            let deltas: Vec<usize> =
                (0..plan.chunks.len()).filter(|at| plan.chunks[*at].action == Action::Delta).collect();
            prop_assert_eq!(packed, deltas);
        }
    }
}
