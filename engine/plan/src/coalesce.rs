//! When a chunk's deltas become fewer (rule P6).
//!
//! Deltas are sorted into tiers by size, each [`TIER_RATIO`] times as large as the one below. Three of one tier become one of
//! the next: every byte is rewritten about once per tier, not once per checkpoint.

use littoral_types::limits::{DELTA_BYTES_MAX, DELTAS_PER_TIER, TIER_RATIO};
use littoral_types::{ChunkId, ChunkRow, DeltaId, Geometry, PageCount, PageNo};
use std::collections::BTreeSet;

/// The smallest tier's upper bound.
const TIER_FLOOR_BYTES: u64 = 16 << 10;

/// What several deltas become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// One delta.
    Delta,
    /// Together with the base, a new base.
    Base,
}

/// One chunk's merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Which chunk.
    pub chunk: ChunkId,
    /// The deltas that go: neighbours in age, so that none that stays is older than one of them and newer than another.
    pub deltas: Vec<DeltaId>,
    /// What they become.
    pub into: Into,
    /// The live pages they hold.
    pub pages: Vec<PageNo>,
    /// Why, for people: the tier's number of deltas and size bound.
    pub reason: (usize, u64),
}

/// Decides for one chunk of a database of this size; `None` when it is well as it is.
pub fn coalesce(row: &ChunkRow, geometry: Geometry, size: PageCount) -> Option<Merge> {
    let span = geometry.span(row.chunk, size)?;
    // What segments brought is folded by the next checkpoint, and stands on the versions below it: it stays, and they too.
    let folded = row.deltas.iter().position(|delta| delta.id.is_of_segment()).unwrap_or(row.deltas.len());
    let deltas = row.deltas.get(..folded)?;
    let tiers: Vec<u32> = deltas.iter().map(|delta| tier(delta.table.stored_bytes())).collect();
    let crowded = tiers.iter().copied().filter(|t| count(&tiers, *t) >= DELTAS_PER_TIER).min()?;
    let first = tiers.iter().position(|t| *t == crowded)?;
    let last = tiers.iter().rposition(|t| *t == crowded)?;
    let run = deltas.get(first..=last)?;
    let pages: BTreeSet<PageNo> =
        run.iter().flat_map(|delta| delta.table.pages().filter(|page| *page <= delta.last_live)).collect();
    let bytes: u64 = run.iter().map(|delta| delta.table.stored_bytes()).sum();
    let onto_base = bytes >= DELTA_BYTES_MAX || pages.len() as u64 * 2 > span.count.0;
    // A base holds every page of its chunk, and some may be in segments alone.
    if onto_base && folded < row.deltas.len() {
        return None;
    }
    let into = if onto_base { Into::Base } else { Into::Delta };
    let (run, pages) = match into {
        Into::Delta => (run, pages.into_iter().collect()),
        // A new base stands for everything the chunk has.
        Into::Base => (row.deltas.as_slice(), span.pages().collect()),
    };
    Some(Merge {
        chunk: row.chunk,
        deltas: run.iter().map(|delta| delta.id).collect(),
        into,
        pages,
        reason: (count(&tiers, crowded), TIER_FLOOR_BYTES.saturating_mul(TIER_RATIO.saturating_pow(crowded))),
    })
}

fn count(tiers: &[u32], tier: u32) -> usize {
    tiers.iter().filter(|other| **other == tier).count()
}

fn tier(bytes: u64) -> u32 {
    let mut bound = TIER_FLOOR_BYTES;
    let mut tier = 0;
    while bytes > bound {
        bound = bound.saturating_mul(TIER_RATIO);
        tier += 1;
    }
    tier
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::{
        Base, BlobHash, BlobKind, BlobName, BlobRef, ByteSpan, Delta, FrameEntry, FrameTable, Generation, Home,
        ManifestOp, PageSize, Seq,
    };
    use proptest::prelude::*;

    const BYTES_PER_PAGE: u64 = 2000;

    fn blob(kind: BlobKind, len: u64) -> BlobRef {
        BlobRef { home: Home::Own, name: BlobName { kind, hash: BlobHash([0; 32]), birth: Seq(1) }, len }
    }

    fn table(pages: &BTreeSet<PageNo>) -> FrameTable {
        let mut offset = 0;
        let pages: Vec<PageNo> = pages.iter().copied().collect();
        let frames = pages.chunks(16).map(|pages| {
            let len = pages.len() as u64 * BYTES_PER_PAGE;
            let entry = FrameEntry { span: ByteSpan { offset, len }, pages: pages.to_vec() };
            offset += len;
            entry
        });
        FrameTable::new(frames, [], 0)
    }

    fn delta(id: u64, pages: &BTreeSet<PageNo>) -> Delta {
        let table = table(pages);
        Delta {
            id: DeltaId(id),
            blob: blob(BlobKind::Pack, table.stored_bytes()),
            last_live: PageNo::from_index(1 << 20),
            table,
        }
    }

    fn chance(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        *state >> 33
    }

    /// A thousand checkpoints of random updates: how many bytes coalescing writes for each byte the checkpoints wrote.
    #[test]
    fn p06_tiers_keep_write_amplification_low_and_the_number_of_deltas_bounded() {
        let geometry = Geometry::new(PageSize::new(4096).unwrap());
        let size = PageCount(geometry.pages_per_chunk());
        let span = geometry.span(ChunkId(0), size).unwrap();
        let mut row = ChunkRow::new(ChunkId(0));
        let base = |generation| Base {
            generation: Generation(generation),
            blob: blob(BlobKind::Chunk, 1),
            span,
            last_live: span.last().unwrap(),
            table: table(&span.pages().collect()),
        };
        row.apply(&ManifestOp::PutBase { chunk: ChunkId(0), base: base(0) });
        let (mut written, mut rewritten, mut naive, mut most) = (0, 0, 0, 0);
        let mut since_base: BTreeSet<PageNo> = BTreeSet::new();
        let mut seed = 7;
        for generation in 1..=1000 {
            let pages: BTreeSet<PageNo> = (0..6).map(|_| PageNo::from_index(chance(&mut seed) % size.0)).collect();
            since_base.extend(&pages);
            let put = delta(generation, &pages);
            written += put.table.stored_bytes();
            row.apply(&ManifestOp::PutDelta { chunk: ChunkId(0), delta: put });
            // What "every third delta merges with all that came before" would have written.
            if generation % 3 == 0 {
                naive += since_base.len() as u64 * BYTES_PER_PAGE;
            }
            while let Some(merge) = coalesce(&row, geometry, size) {
                let merged: BTreeSet<PageNo> = merge.pages.iter().copied().collect();
                rewritten += merged.len() as u64 * BYTES_PER_PAGE;
                match merge.into {
                    Into::Base => row.apply(&ManifestOp::PutBase { chunk: ChunkId(0), base: base(generation) }),
                    Into::Delta => row.apply(&ManifestOp::ReplaceDeltas {
                        chunk: ChunkId(0),
                        delta: Some(delta(merge.deltas.last().unwrap().0, &merged)),
                        replaced: merge.deltas,
                    }),
                }
            }
            most = most.max(row.deltas.len());
        }
        let amplification = rewritten as f64 / written as f64;
        println!(
            "write amplification {amplification:.1} (naive {:.1}), deltas at most {most}",
            naive as f64 / written as f64
        );
        assert!(amplification < 8.0, "{amplification}");
        assert!(naive as f64 / written as f64 > 5.0 * amplification);
        assert!(most <= 12, "{most}");
    }

    proptest! {
        /// Whatever the sizes, the page that a reader finds holds the same version before and after a merge.
        #[test]
        fn a_merge_never_lets_an_older_version_hide_a_newer_one(sizes in proptest::collection::vec(1u64..400, 1..12)) {
            let geometry = Geometry::new(PageSize::new(4096).unwrap());
            let size = PageCount(4000);
            let mut row = ChunkRow::new(ChunkId(0));
            let mut seed = 3;
            for (id, pages) in sizes.iter().enumerate() {
                let pages = (0..*pages).map(|_| PageNo::from_index(chance(&mut seed) % 800)).collect();
                row.apply(&ManifestOp::PutDelta { chunk: ChunkId(0), delta: delta(id as u64 + 1, &pages) });
            }
            let Some(merge) = coalesce(&row, geometry, size) else { return Ok(()) };
            let newest = |row: &ChunkRow, page| row.find(page).and_then(|found| found.delta);
            if merge.into == Into::Base {
                prop_assert_eq!(merge.deltas.len(), row.deltas.len());
                return Ok(());
            }
            let mut after = row.clone();
            let pages: BTreeSet<PageNo> = merge.pages.iter().copied().collect();
            let id = *merge.deltas.last().unwrap();
            after.apply(&ManifestOp::ReplaceDeltas { chunk: ChunkId(0), replaced: merge.deltas.clone(), delta: Some(delta(id.0, &pages)) });
            for page in (0..800).map(PageNo::from_index) {
                let (old, new) = (newest(&row, page), newest(&after, page));
                let expected = old.map(|old| if merge.deltas.contains(&old) { id } else { old });
                prop_assert_eq!(new, expected);
            }
        }
    }
}
