//! Which packs are written anew because most of what they hold is dead.
//!
//! A pack goes when nothing in it is needed. Coalescing and new bases take its deltas one by one, so that one that is left keeps all the
//! others' bytes. What is left moves to a new pack then, and costs at most as many bytes as it sets free: each move at least halves what
//! stays.

use crate::coalesce::{Into, Merge};
use littoral_types::limits::REPACK_BYTES_MIN;
use littoral_types::{BlobKind, BlobName, ChunkRow, Delta, Home, PageNo, Seq};
use std::collections::{BTreeMap, BTreeSet};

/// Of each page its identity is said.
const SAID_BYTES: u64 = 16;

/// When a pack is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepackPolicy {
    /// Bytes of a pack that must be dead at least: a new one costs requests, and a record.
    pub dead_bytes_min: u64,
}

impl Default for RepackPolicy {
    fn default() -> Self {
        Self { dead_bytes_min: REPACK_BYTES_MIN }
    }
}

/// What the newest rows need of each pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packs {
    packs: BTreeMap<BlobName, Use>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    len: u64,
    live: u64,
}

impl Packs {
    /// One more row, each of them once.
    pub fn add(&mut self, row: &ChunkRow) {
        for delta in folded(row).iter().filter(|delta| is_pack(delta)) {
            let pack = self.packs.entry(delta.blob.name).or_default();
            pack.len = delta.blob.len;
            pack.live = pack.live.saturating_add(live_bytes(row, delta));
        }
    }

    /// Those of which less than half lives. What was born at the floor or after it is what the states that are kept are made of, dead or
    /// not: to move out of that would free nothing.
    pub fn mostly_dead(&self, floor: Seq, policy: RepackPolicy) -> BTreeSet<BlobName> {
        let is_dead = |used: &Use| {
            let dead = used.len.saturating_sub(used.live);
            used.live < used.len.div_ceil(2) && dead >= policy.dead_bytes_min.max(1)
        };
        self.packs.iter().filter(|(name, used)| name.birth < floor && is_dead(used)).map(|(name, _)| *name).collect()
    }

    /// Bytes that are dead in these packs.
    pub fn dead_bytes(&self, packs: &BTreeSet<BlobName>) -> u64 {
        packs.iter().filter_map(|name| self.packs.get(name)).map(|used| used.len.saturating_sub(used.live)).sum()
    }
}

/// The next delta of a chunk that moves out of these packs: the same one, of the pages that live, elsewhere. `None` when nothing of the
/// chunk is in them.
pub fn repack(row: &ChunkRow, packs: &BTreeSet<BlobName>) -> Option<Merge> {
    let delta = folded(row).iter().find(|delta| is_pack(delta) && packs.contains(&delta.blob.name))?;
    Some(Merge {
        chunk: row.chunk,
        deltas: vec![delta.id],
        into: Into::Delta,
        pages: live_pages(row, delta),
        reason: (1, delta.blob.len),
    })
}

/// What segments brought is folded by the next checkpoint, and stands on what lies below it.
fn folded(row: &ChunkRow) -> &[Delta] {
    let end = row.deltas.iter().position(|delta| delta.id.is_of_segment()).unwrap_or(row.deltas.len());
    row.deltas.get(..end).unwrap_or_default()
}

fn is_pack(delta: &Delta) -> bool {
    delta.blob.home == Home::Own && delta.blob.name.kind == BlobKind::Pack
}

/// Pages whose newest folded version this is.
fn live_pages(row: &ChunkRow, delta: &Delta) -> Vec<PageNo> {
    let newer = |page: PageNo| {
        let mut above = folded(row).iter().filter(|other| other.id > delta.id && page <= other.last_live);
        above.any(|other| other.table.find(page).is_some())
    };
    let pages: BTreeSet<PageNo> =
        delta.table.pages().filter(|page| *page <= delta.last_live && !newer(*page)).collect();
    pages.into_iter().collect()
}

/// Bytes of the frames in which a page lives, and of what is said of each page that does: one of zeros has no frame.
fn live_bytes(row: &ChunkRow, delta: &Delta) -> u64 {
    let live: BTreeSet<PageNo> = live_pages(row, delta).into_iter().collect();
    let frames = delta.table.frames().filter(|frame| frame.pages.iter().any(|page| live.contains(&page)));
    let said = live.len() as u64 * SAID_BYTES;
    frames.map(|frame| frame.span.len).sum::<u64>() + said
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::{BlobHash, BlobRef, ByteSpan, ChunkId, DeltaId, FrameEntry, FrameTable, ManifestOp};

    const LEN: u64 = 1 << 20;

    fn pack(number: u8, birth: u64) -> BlobRef {
        let name = BlobName { kind: BlobKind::Pack, hash: BlobHash([number; 32]), birth: Seq(birth) };
        BlobRef { home: Home::Own, name, len: LEN }
    }

    fn page(number: u64) -> PageNo {
        PageNo::from_index(number)
    }

    /// A delta of these pages, one in a frame, of so many bytes each.
    fn delta(id: u64, blob: BlobRef, pages: std::ops::Range<u64>, bytes: u64) -> Delta {
        let frame = |number: u64| FrameEntry {
            span: ByteSpan { offset: number * bytes, len: bytes },
            pages: vec![page(number)],
        };
        let table = FrameTable::new(pages.map(frame), [], 0);
        Delta { id: DeltaId(id), blob, last_live: page(1 << 30), table }
    }

    fn row(chunk: u64, deltas: Vec<Delta>) -> ChunkRow {
        ChunkRow { deltas, ..ChunkRow::new(ChunkId(chunk)) }
    }

    fn dead(rows: &[ChunkRow], floor: u64) -> Vec<u8> {
        let mut packs = Packs::default();
        rows.iter().for_each(|row| packs.add(row));
        packs.mostly_dead(Seq(floor), RepackPolicy::default()).into_iter().map(|name| name.hash.0[0]).collect()
    }

    #[test]
    fn a_pack_is_written_anew_when_less_than_half_of_it_lives_and_the_floor_has_passed_it() {
        let rows = |bytes: u64| {
            vec![row(0, vec![delta(1, pack(1, 5), 0..4, bytes)]), row(1, vec![delta(1, pack(1, 5), 0..4, bytes)])]
        };
        // Eight frames live: as many bytes as half of the pack are enough to leave it alone, with what is said of their pages.
        let half = LEN / 16 - SAID_BYTES;
        assert_eq!(dead(&rows(half), 6), [] as [u8; 0]);
        assert_eq!(dead(&rows(half - 1), 6), [1]);
        assert_eq!(dead(&rows(half - 1), 5), [] as [u8; 0], "it was born where history begins");
        assert_eq!(dead(&[row(0, vec![delta(1, pack(1, 5), 0..1, 0)])], 6), [1]);
    }

    #[test]
    fn little_is_left_where_it_is() {
        let small = BlobRef { len: REPACK_BYTES_MIN - 1, ..pack(1, 5) };
        assert_eq!(dead(&[row(0, vec![delta(1, small, 0..1, 1)])], 6), [] as [u8; 0]);
    }

    #[test]
    fn what_another_volume_holds_and_what_is_no_pack_stays() {
        let mut others = pack(1, 5);
        others.home = Home::Other("parent".parse().unwrap());
        let mut chunk = pack(2, 5);
        chunk.name.kind = BlobKind::Segment;
        assert_eq!(dead(&[row(0, vec![delta(1, others, 0..1, 1), delta(2, chunk, 1..2, 1)])], 6), [] as [u8; 0]);
    }

    #[test]
    fn what_a_newer_delta_brought_is_dead_in_an_older_one_but_not_what_only_a_segment_did() {
        let older = delta(1, pack(1, 5), 0..10, LEN / 10);
        let newer = delta(2, pack(2, 6), 0..9, LEN / 10);
        let rows = [row(0, vec![older, newer])];
        assert_eq!(dead(&rows, 9), [1]);
        let packs = BTreeSet::from([pack(1, 5).name]);
        let merge = repack(&rows[0], &packs).unwrap();
        assert_eq!((merge.deltas, merge.pages), (vec![DeltaId(1)], vec![page(9)]));
        assert_eq!(repack(&rows[0], &BTreeSet::new()), None);
    }

    /// Whatever moves, the newest version of each page is the one that it was.
    #[test]
    fn a_move_changes_no_page() {
        let mut state = 7_u64;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..200 {
            let mut made = row(0, Vec::new());
            for id in 1..=1 + below(6) {
                let (first, birth) = (below(30), 1 + below(4));
                let count = 1 + below(12);
                made.apply(&ManifestOp::PutDelta {
                    chunk: ChunkId(0),
                    delta: delta(id, pack(birth as u8, birth), first..first + count, LEN / 64),
                });
            }
            let mut packs = Packs::default();
            packs.add(&made);
            let dead = packs.mostly_dead(Seq(9), RepackPolicy { dead_bytes_min: 0 });
            let mut moved = made.clone();
            let mut moves = 0;
            while let Some(merge) = repack(&moved, &dead) {
                let id = merge.deltas[0];
                let frames = merge
                    .pages
                    .iter()
                    .enumerate()
                    .map(|(at, page)| FrameEntry { span: ByteSpan { offset: at as u64, len: 1 }, pages: vec![*page] });
                let table = FrameTable::new(frames, [], 0);
                let put = Delta { id, blob: pack(100, 9), last_live: page(1 << 30), table };
                let delta = Some(put).filter(|_| !merge.pages.is_empty());
                moved.apply(&ManifestOp::ReplaceDeltas { chunk: ChunkId(0), replaced: merge.deltas, delta });
                moves += 1;
            }
            assert!(moves <= made.deltas.len());
            assert!(moved.blobs().all(|blob| !dead.contains(&blob.name)), "nothing of them is left");
            for page in (0..50).map(page) {
                let version = |row: &ChunkRow| row.find(page).and_then(|found| found.delta);
                assert_eq!(version(&moved), version(&made));
            }
        }
    }
}
