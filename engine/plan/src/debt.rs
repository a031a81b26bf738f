//! What is owed of merging, and how much more slowly checkpoints are made while it is.
//!
//! Each checkpoint adds deltas, and merging takes them away again; where it fails, is left out, or others hold the chunks, they pile up: in
//! what a manifest holds, and in what whoever opens the volume reads. Then checkpoints come more rarely, and what is owed is paid first.
//! Commits travel as ever, and nobody who commits waits.

use crate::coalesce::coalesce;
use littoral_types::limits::{DEBT_BYTES_MAX, DEBT_DEPTH_MAX, DEBT_STRETCH_MAX};
use littoral_types::{ChunkRow, Geometry, PageCount};

/// What is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debt {
    /// Deltas of checkpoints that the chunk with the most of them has.
    pub depth: u64,
    /// Chunks of which deltas are to be merged.
    pub chunks: u64,
    /// Bytes of those deltas.
    pub bytes: u64,
}

impl Debt {
    /// Adds what is owed of a chunk.
    pub fn add(&mut self, row: &ChunkRow, geometry: Geometry, size: PageCount) {
        let folded = row.deltas.iter().filter(|delta| !delta.id.is_of_segment()).count();
        self.depth = self.depth.max(folded as u64);
        let Some(merge) = coalesce(row, geometry, size) else { return };
        self.chunks += 1;
        let merged = row.deltas.iter().filter(|delta| merge.deltas.contains(&delta.id));
        self.bytes = merged.map(|delta| delta.table.stored_bytes()).fold(self.bytes, u64::saturating_add);
    }

    /// How many times longer than usual a checkpoint that nobody asks for is put off: once, as long as no limit is passed; then as often as
    /// the limit goes into what there is, and never more than a few times.
    pub fn stretch(&self) -> u64 {
        let times = self.depth.div_ceil(DEBT_DEPTH_MAX).max(self.bytes.div_ceil(DEBT_BYTES_MAX));
        times.clamp(1, DEBT_STRETCH_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::{
        BlobHash, BlobKind, BlobName, BlobRef, ByteSpan, ChunkId, Delta, DeltaId, FrameEntry, FrameTable, Home,
        ManifestOp, PageNo, PageSize, Seq,
    };

    fn delta(id: u64, page: u64, len: u64) -> Delta {
        let page = PageNo::from_index(page);
        let frame = FrameEntry { span: ByteSpan { offset: 0, len }, pages: vec![page] };
        let name = BlobName { kind: BlobKind::Pack, hash: BlobHash([0; 32]), birth: Seq(1) };
        let blob = BlobRef { home: Home::Own, name, len };
        Delta { id: DeltaId(id), blob, last_live: page, table: FrameTable::new([frame], [], 0) }
    }

    fn row(deltas: u64) -> ChunkRow {
        let mut row = ChunkRow::new(ChunkId(0));
        for at in 0..deltas {
            row.apply(&ManifestOp::PutDelta { chunk: ChunkId(0), delta: delta(at + 1, at, 1000) });
        }
        row
    }

    #[test]
    fn p06_what_is_owed_puts_checkpoints_off_gracefully_and_within_bounds() {
        let (geometry, size) = (Geometry::new(PageSize::new(4096).unwrap()), PageCount(4000));
        let owed = |deltas: &[u64]| {
            let mut debt = Debt::default();
            deltas.iter().for_each(|deltas| debt.add(&row(*deltas), geometry, size));
            debt
        };
        assert_eq!(owed(&[]), Debt::default());
        assert_eq!(owed(&[0, 2, 1]), Debt { depth: 2, chunks: 0, bytes: 0 }, "two of a size are well as they are");
        assert_eq!(owed(&[3, 2, 5]), Debt { depth: 5, chunks: 2, bytes: 8000 });
        // As long as merging keeps up nothing is put off; then the more the more is owed, without a jump and without an end.
        let stretches: Vec<u64> = (0..200).map(|deltas| owed(&[deltas]).stretch()).collect();
        assert!(stretches.is_sorted() && stretches.windows(2).all(|two| two[1] - two[0] <= 1));
        assert_eq!((stretches[0], stretches[DEBT_DEPTH_MAX as usize], stretches[199]), (1, 1, DEBT_STRETCH_MAX));
        assert_eq!(owed(&[DEBT_DEPTH_MAX + 1]).stretch(), 2);
        let bytes = |bytes| Debt { depth: 1, chunks: 1, bytes }.stretch();
        assert_eq!([bytes(DEBT_BYTES_MAX), bytes(DEBT_BYTES_MAX + 1), bytes(u64::MAX)], [1, 2, DEBT_STRETCH_MAX]);
    }
}
