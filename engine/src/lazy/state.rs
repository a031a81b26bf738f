//! A state of a volume: the manifest snapshot it starts from, and what was done since.

use crate::log::Opened;
use bytes::Bytes;
use littoral_format::shard::row_span;
use littoral_types::{ByteSpan, ChunkId, ChunkRow, Generation, ManifestOp, PageNo, Seq, ShardRef};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// One telling of a state.
#[derive(Debug)]
pub(super) struct State {
    /// Counts the tellings.
    pub(super) generation: u64,
    pub(super) opened: Opened,
    /// Manifest snapshots of earlier tellings.
    pub(super) tried: Vec<Seq>,
    /// Places in `opened.ops` by chunk.
    by_chunk: HashMap<ChunkId, Vec<usize>>,
    /// Places of the operations on the whole volume.
    whole: Vec<usize>,
}

/// Where a chunk's row begins.
#[derive(Debug, PartialEq)]
pub(super) enum Start<'a> {
    /// The operations alone make it.
    Nothing,
    /// This run of a shard's blob.
    Shard(&'a ShardRef, ByteSpan),
}

impl State {
    pub(super) fn new(generation: u64, opened: Opened, tried: Vec<Seq>) -> Self {
        let mut by_chunk: HashMap<ChunkId, Vec<usize>> = HashMap::new();
        let mut whole = Vec::new();
        for (at, op) in opened.ops.iter().enumerate() {
            match op.chunk() {
                Some(chunk) => by_chunk.entry(chunk).or_default().push(at),
                None => whole.push(at),
            }
        }
        Self { generation, opened, tried, by_chunk, whole }
    }

    /// The manifest snapshot it starts from; zero for none.
    pub(super) fn start(&self) -> Seq {
        self.opened.snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq)
    }

    /// Operations that make a chunk's row, oldest first.
    fn ops(&self, chunk: ChunkId) -> Vec<&ManifestOp> {
        let mut places: Vec<usize> = self.by_chunk.get(&chunk).cloned().unwrap_or_default();
        places.extend_from_slice(&self.whole);
        places.sort_unstable();
        let ops: Vec<&ManifestOp> = places.iter().filter_map(|at| self.opened.ops.get(*at)).collect();
        // Nothing before these is left of the row.
        let anew = ops.iter().rposition(|op| matches!(op, ManifestOp::Reshape { .. } | ManifestOp::PutBase { .. }));
        ops.into_iter().skip(anew.unwrap_or(0)).collect()
    }

    /// Where a chunk's row begins: an operation that stands for all before it spares the request.
    pub(super) fn start_of(&self, chunk: ChunkId) -> Start<'_> {
        let anew = |op: &&ManifestOp| matches!(op, ManifestOp::Reshape { .. } | ManifestOp::PutBase { .. });
        if self.ops(chunk).first().is_some_and(anew) {
            return Start::Nothing;
        }
        let number = chunk.0 / littoral_types::limits::SHARD_CHUNKS;
        let shards = self.opened.snapshot.as_ref().map_or(&[][..], |snapshot| &snapshot.shards);
        let shard = shards.binary_search_by_key(&number, |shard| shard.shard).ok().and_then(|at| shards.get(at));
        shard.and_then(|shard| row_span(shard, chunk).map(|span| Start::Shard(shard, span))).unwrap_or(Start::Nothing)
    }

    /// A chunk's row as of this state, from what its start said.
    pub(super) fn finish(&self, mut row: ChunkRow) -> ChunkRow {
        for op in self.ops(row.chunk) {
            match op {
                ManifestOp::Reshape { .. } => row = ChunkRow::new(row.chunk),
                op => row.apply(op),
            }
        }
        row
    }
}

/// Takes the skeleton's pages that nothing has changed since: the others are fetched like any page.
pub(super) fn skeleton(opened: &mut Opened) -> BTreeMap<PageNo, Bytes> {
    let Some(snapshot) = &mut opened.snapshot else { return BTreeMap::new() };
    let pages = std::mem::take(&mut snapshot.skeleton.pages);
    let as_of = snapshot.figures;
    let Some(page_size) = as_of.page_size else { return BTreeMap::new() };
    let geometry = littoral_types::Geometry::new(page_size);
    let mut least = as_of.page_count;
    let mut changed: BTreeSet<PageNo> = BTreeSet::new();
    let mut rewritten: BTreeSet<ChunkId> = BTreeSet::new();
    let is_newer = |generation: u64| Generation(generation) > as_of.generation;
    for op in &opened.ops {
        match op {
            ManifestOp::Reshape { .. } => return BTreeMap::new(),
            ManifestOp::Resize { page_count } => least = least.min(*page_count),
            // Written whole since, for whatever reason.
            ManifestOp::PutBase { chunk, base } if is_newer(base.generation.0) => {
                rewritten.insert(*chunk);
            }
            ManifestOp::PutDelta { delta, .. } | ManifestOp::ReplaceDeltas { delta: Some(delta), .. }
                if is_newer(delta.id.0) =>
            {
                changed.extend(delta.table.pages());
            }
            // What an index repeats from before the snapshot, and merges of what was there.
            ManifestOp::PutBase { .. } | ManifestOp::PutDelta { .. } | ManifestOp::ReplaceDeltas { .. } => {}
        }
    }
    pages
        .into_iter()
        .filter(|kept| {
            let chunk = geometry.chunk_of(kept.page);
            least.holds(kept.page) && !changed.contains(&kept.page) && !rewritten.contains(&chunk)
        })
        .map(|kept| (kept.page, Bytes::from(kept.image)))
        .collect()
}
