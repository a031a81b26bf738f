//! A state of a volume: the manifest snapshot it starts from, and what was done since.

use crate::log::Opened;
use crate::log::read::Brought;
use bytes::Bytes;
use littoral_format::shard::row_span;
use littoral_types::{
    ByteSpan, ChunkId, ChunkRow, Generation, Geometry, ManifestOp, PageNo, Seq, ShardRef, VolumeFigures,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// One telling of a state.
#[derive(Debug)]
pub(super) struct State {
    /// Counts the tellings.
    pub(super) generation: u64,
    pub(super) opened: Opened,
    /// Manifest snapshots of earlier tellings.
    pub(super) tried: Vec<Seq>,
    pub(super) directory: Directory,
}

impl State {
    pub(super) fn new(generation: u64, mut opened: Opened, tried: Vec<Seq>) -> Self {
        let shards = opened.snapshot.as_mut().map(|snapshot| std::mem::take(&mut snapshot.shards)).unwrap_or_default();
        let rows = opened.snapshot.as_mut().map(|snapshot| std::mem::take(&mut snapshot.rows)).unwrap_or_default();
        let mut directory = Directory::new(Arc::new(shards), std::mem::take(&mut opened.ops));
        directory.rows = rows.into_iter().map(|row| (row.chunk, row)).collect();
        Self { generation, opened, tried, directory }
    }

    /// The manifest snapshot it starts from; zero for none.
    pub(super) fn start(&self) -> Seq {
        self.opened.snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq)
    }
}

/// Where rows are: in the shards of a manifest snapshot, and in what was done since.
#[derive(Debug)]
pub(crate) struct Directory {
    shards: Arc<Vec<ShardRef>>,
    /// Those that travelled with the manifest snapshot: all, or none.
    rows: HashMap<ChunkId, ChunkRow>,
    ops: Vec<ManifestOp>,
    /// Places in `ops` by chunk.
    by_chunk: HashMap<ChunkId, Vec<usize>>,
    /// Places of the operations on the whole volume.
    whole: Vec<usize>,
}

/// Where a chunk's row begins.
#[derive(Debug, PartialEq)]
pub(crate) enum Start<'a> {
    /// No request: it travelled along, or the operations alone make it.
    Nothing,
    /// This run of a shard's blob.
    Shard(&'a ShardRef, ByteSpan),
}

/// Where a manifest snapshot has a chunk's row.
pub(crate) fn listed(shards: &[ShardRef], chunk: ChunkId) -> Option<(&ShardRef, ByteSpan)> {
    let number = chunk.0 / littoral_types::limits::SHARD_CHUNKS;
    let at = shards.binary_search_by_key(&number, |shard| shard.shard).ok()?;
    let shard = shards.get(at)?;
    row_span(shard, chunk).map(|span| (shard, span))
}

impl Directory {
    pub(crate) fn new(shards: Arc<Vec<ShardRef>>, ops: Vec<ManifestOp>) -> Self {
        let mut by_chunk: HashMap<ChunkId, Vec<usize>> = HashMap::new();
        let mut whole = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            match op.chunk() {
                Some(chunk) => by_chunk.entry(chunk).or_default().push(at),
                None => whole.push(at),
            }
        }
        Self { shards, rows: HashMap::new(), ops, by_chunk, whole }
    }

    /// Operations that make a chunk's row, oldest first; and whether they make all of it.
    fn ops(&self, chunk: ChunkId) -> (Vec<&ManifestOp>, bool) {
        let mut places: Vec<usize> = self.by_chunk.get(&chunk).cloned().unwrap_or_default();
        places.extend_from_slice(&self.whole);
        places.sort_unstable();
        let mut ops: Vec<&ManifestOp> = places.iter().filter_map(|at| self.ops.get(*at)).collect();
        // Nothing before a reshape is left of the row. Of what was before a base some of what segments brought is, and that is here
        // too: it came after the state that the base holds.
        let anew = ops.iter().rposition(|op| matches!(op, ManifestOp::Reshape { .. })).unwrap_or(0);
        ops.drain(..anew);
        let is_whole = ops.iter().any(|op| matches!(op, ManifestOp::Reshape { .. } | ManifestOp::PutBase { .. }));
        (ops, is_whole)
    }

    /// Where a chunk's row begins: an operation that stands for all before it spares the request.
    pub(crate) fn start_of(&self, chunk: ChunkId) -> Start<'_> {
        if self.rows.contains_key(&chunk) || self.ops(chunk).1 {
            return Start::Nothing;
        }
        listed(&self.shards, chunk).map_or(Start::Nothing, |(shard, span)| Start::Shard(shard, span))
    }

    /// A chunk's row before the operations, where that costs nothing.
    pub(crate) fn here(&self, chunk: ChunkId) -> ChunkRow {
        self.rows.get(&chunk).cloned().unwrap_or_else(|| ChunkRow::new(chunk))
    }

    /// A chunk's row after the operations, from what its start said.
    pub(crate) fn finish(&self, mut row: ChunkRow) -> ChunkRow {
        for op in self.ops(row.chunk).0 {
            match op {
                ManifestOp::Reshape { .. } => row = ChunkRow::new(row.chunk),
                op => row.apply(op),
            }
        }
        row
    }
}

/// Takes the pages of the skeleton, and those that records brought along since, that nothing has changed since: the others are fetched like
/// any page.
pub(crate) fn skeleton(opened: &mut Opened) -> BTreeMap<PageNo, Bytes> {
    let mut found: BTreeMap<PageNo, Bytes> = BTreeMap::new();
    let begin = opened.snapshot.iter_mut().map(|snapshot| Brought {
        figures: snapshot.figures,
        pages: std::mem::take(&mut snapshot.skeleton.pages),
        ops: 0,
    });
    let all: Vec<Brought> = begin.chain(std::mem::take(&mut opened.brought)).collect();
    // What a newer record brings is what it is now.
    for Brought { figures, mut pages, ops } in all.into_iter().rev() {
        pages.retain(|kept| !found.contains_key(&kept.page));
        if pages.is_empty() || figures.page_size != opened.tail.figures.page_size {
            continue;
        }
        let numbers: Vec<PageNo> = pages.iter().map(|kept| kept.page).collect();
        let unchanged = unchanged(numbers, figures, opened.ops.iter().skip(ops));
        let kept = pages.into_iter().filter(|kept| unchanged.contains(&kept.page));
        found.extend(kept.map(|kept| (kept.page, Bytes::from(kept.image))));
    }
    found
}

/// Those of some pages that operations since a state cannot have changed. Of the others nobody knows.
pub(crate) fn unchanged<'a>(
    pages: Vec<PageNo>,
    as_of: VolumeFigures,
    ops: impl Iterator<Item = &'a ManifestOp>,
) -> BTreeSet<PageNo> {
    let Some(page_size) = as_of.page_size else { return BTreeSet::new() };
    let geometry = Geometry::new(page_size);
    let mut least = as_of.page_count;
    let mut changed: BTreeSet<PageNo> = BTreeSet::new();
    let mut rewritten: BTreeSet<ChunkId> = BTreeSet::new();
    let is_newer = |generation: u64| Generation(generation) > as_of.generation;
    for op in ops {
        match op {
            ManifestOp::Reshape { .. } => return BTreeSet::new(),
            ManifestOp::Resize { page_count } => least = least.min(*page_count),
            // Written whole since, for whatever reason.
            ManifestOp::PutBase { chunk, base } if is_newer(base.generation.0) => {
                rewritten.insert(*chunk);
            }
            ManifestOp::PutDelta { delta, .. } | ManifestOp::ReplaceDeltas { delta: Some(delta), .. }
                if delta.id.is_of_segment() || is_newer(delta.id.generation().0) =>
            {
                changed.extend(delta.table.pages());
            }
            // What an index repeats from before that state, and merges of what was there.
            ManifestOp::PutBase { .. }
            | ManifestOp::PutDelta { .. }
            | ManifestOp::ReplaceDeltas { .. }
            | ManifestOp::Session(_)
            | ManifestOp::Object(_)
            | ManifestOp::PutSegment { .. }
            | ManifestOp::DropSegment { .. } => {}
        }
    }
    let holds =
        |page: &PageNo| least.holds(*page) && !changed.contains(page) && !rewritten.contains(&geometry.chunk_of(*page));
    pages.into_iter().filter(holds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::read::tail_before_all;
    use littoral_types::{IdentityKey, PageCount, PageSize, SkeletonPage, VolumeId, VolumeKind, VolumeMeta};

    fn page(number: u64) -> PageNo {
        PageNo::new(number).unwrap()
    }

    fn brought(generation: u64, pages: &[(u64, u8)], ops: usize) -> Brought {
        let size = PageSize::MIN;
        let figures =
            VolumeFigures { generation: Generation(generation), page_size: Some(size), page_count: PageCount(9) };
        let image = |byte| vec![byte; size.len()];
        let pages = pages.iter().map(|(number, byte)| SkeletonPage { page: page(*number), image: image(*byte) });
        Brought { figures, pages: pages.collect(), ops }
    }

    #[test]
    fn pages_that_travel_count_until_they_change() {
        let meta = VolumeMeta {
            id: VolumeId([1; 16]),
            name: "app.db".parse().unwrap(),
            kind: VolumeKind::Database,
            identity_key: IdentityKey([2; 32]),
            created_ms: 0,
            began_as: None,
        };
        let mut tail = tail_before_all();
        tail.figures = brought(4, &[], 0).figures;
        let cut = |page_count| ManifestOp::Resize { page_count: PageCount(page_count) };
        // The first was cut to six pages after the third page travelled, and the log was summed up behind it.
        let ops = vec![cut(8), cut(6), cut(9)];
        let all = vec![brought(1, &[(1, 1), (3, 1), (8, 1)], 1), brought(2, &[(1, 2), (7, 2)], 2)];
        let sessions = littoral_plan::sessions::Recorded::default();
        let (snapshot, recent, brought) = (None, Vec::new(), all);
        let mut opened = Opened { meta, tail, snapshot, ops, recent, brought, sessions, seen: Seq(9) };
        let told = |opened: &mut Opened| -> Vec<(u64, u8)> {
            skeleton(opened).into_iter().map(|(page, image)| (page.get(), image[0])).collect()
        };
        assert_eq!(told(&mut opened.clone()), [(1, 2), (3, 1), (7, 2)], "the newest, and none that died");
        // Of another page size: another database.
        opened.tail.figures.page_size = PageSize::new(4096).ok();
        assert_eq!(told(&mut opened), []);
    }
}
