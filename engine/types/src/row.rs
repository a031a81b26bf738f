//! A chunk's row: everything needed to find any page of it.

use crate::{
    BlobRef, ChunkId, ChunkSpan, DeltaId, FrameTable, Generation, LogRow, ManifestOp, PageCount, PageNo, PagePlace,
    VolumeName,
};

/// A whole chunk in one blob.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// The generation whose pages it holds.
    pub generation: Generation,
    /// The blob.
    pub blob: BlobRef,
    /// The pages it was written with. The chunk knows its first page.
    pub span: ChunkSpan,
    /// Pages above this one are dead here: the database was cut below them since.
    pub last_live: PageNo,
    /// Which frame holds which page.
    pub table: FrameTable,
}

impl Base {
    /// Whether a delta that was there before stays on top of it: what segments brought since the generation that it holds. Everything
    /// else is in it. Only coalescing makes such a base, out of a chunk that no segment of its generation had touched when it was
    /// planned, and no manifest snapshot is written before its record is: whoever has the base has all that stays on it.
    pub fn leaves(&self, delta: DeltaId) -> bool {
        delta.is_of_segment() && delta.generation() >= self.generation
    }
}

/// Some pages of a chunk, newer than its base.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delta {
    /// Its own name within the volume.
    pub id: DeltaId,
    /// The pack it travels in.
    pub blob: BlobRef,
    /// Pages above this one are dead here.
    pub last_live: PageNo,
    /// Which frame holds which page. Offsets are from the start of the pack.
    pub table: FrameTable,
}

/// One chunk as of one record: a base, and deltas over it, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChunkRow {
    /// Which chunk.
    pub chunk: ChunkId,
    /// The base. A chunk that was never rewritten whole has none.
    pub base: Option<Base>,
    /// Newer pages, by ascending id.
    pub deltas: Vec<Delta>,
    /// A segment of a log, which has no pages.
    pub segment: Option<LogRow>,
}

/// The newest live version of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The blob that holds it.
    pub blob: &'a BlobRef,
    /// The table of that version.
    pub table: &'a FrameTable,
    /// Where in that table.
    pub place: PagePlace,
    /// The delta, or `None` for the base.
    pub delta: Option<DeltaId>,
}

impl ChunkRow {
    /// A chunk of which nothing is known yet.
    pub const fn new(chunk: ChunkId) -> Self {
        Self { chunk, base: None, deltas: Vec::new(), segment: None }
    }

    /// The newest version of a page that no truncation has killed.
    pub fn find(&self, page: PageNo) -> Option<Found<'_>> {
        self.find_below(page, None)
    }

    /// The same among the versions that are older than a delta.
    fn find_below(&self, page: PageNo, below: Option<DeltaId>) -> Option<Found<'_>> {
        let is_older = |delta: &&Delta| below.is_none_or(|below| delta.id < below);
        let live = |delta: &&Delta| page <= delta.last_live;
        let newest = self.deltas.iter().rev().filter(is_older).filter(live).find_map(|delta| {
            delta.table.find(page).map(|place| Found {
                blob: &delta.blob,
                table: &delta.table,
                place,
                delta: Some(delta.id),
            })
        });
        newest.or_else(|| {
            let base = self.base.as_ref().filter(|base| page <= base.last_live)?;
            let place = base.table.find(page)?;
            Some(Found { blob: &base.blob, table: &base.table, place, delta: None })
        })
    }

    /// A page's newest version, and those that it is a difference to, down to the first that stands alone. Empty where no version
    /// holds the page, or where what a patch stands on is not there.
    pub fn chain(&self, page: PageNo) -> Vec<Found<'_>> {
        let mut chain: Vec<Found<'_>> = Vec::new();
        let mut newest = self.find(page);
        while let Some(found) = newest {
            let patch = found.delta.filter(|id| id.is_patch() && found.place != PagePlace::Zero);
            chain.push(found);
            let Some(id) = patch else { return chain };
            newest = self.find_below(page, Some(id));
        }
        Vec::new()
    }

    /// Whether no version is left, so that a store can forget the row.
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.deltas.is_empty() && self.segment.is_none()
    }

    /// The blobs it names.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        let pages = self.base.iter().map(|base| &base.blob).chain(self.deltas.iter().map(|delta| &delta.blob));
        pages.chain(self.segment.iter().flat_map(LogRow::blobs))
    }

    /// The same row, seen from another volume than the one it was read in.
    pub fn rehome(&mut self, from: &VolumeName) {
        if let Some(segment) = &mut self.segment {
            segment.rehome(from);
        }
        let base = self.base.iter_mut().map(|base| &mut base.blob);
        base.chain(self.deltas.iter_mut().map(|delta| &mut delta.blob)).for_each(|blob| blob.rehome(from));
    }

    /// Does to this row what an operation on its chunk says. Operations on other chunks, and [`ManifestOp::Reshape`],
    /// are the caller's.
    ///
    /// Every operation sets or drops without looking at what was there, so that replaying a run of them, in order, over
    /// any state that already holds a prefix of the run gives the same end (index records rely on it).
    pub fn apply(&mut self, op: &ManifestOp) {
        match op {
            ManifestOp::PutBase { chunk, base } if *chunk == self.chunk => {
                self.deltas.retain(|delta| base.leaves(delta.id));
                self.base = Some(base.clone());
            }
            ManifestOp::PutDelta { chunk, delta } if *chunk == self.chunk => self.put(delta.clone()),
            ManifestOp::ReplaceDeltas { chunk, replaced, delta } if *chunk == self.chunk => {
                self.deltas.retain(|old| !replaced.contains(&old.id));
                if let Some(delta) = delta {
                    self.put(delta.clone());
                }
            }
            ManifestOp::Resize { page_count } => self.cut(*page_count),
            ManifestOp::PutSegment { chunk, segment } if *chunk == self.chunk => self.segment = Some(segment.clone()),
            ManifestOp::DropSegment { chunk } if *chunk == self.chunk => self.segment = None,
            _ => {}
        }
    }

    fn put(&mut self, delta: Delta) {
        match self.deltas.binary_search_by_key(&delta.id, |old| old.id) {
            Ok(at) => self.deltas[at] = delta,
            Err(at) => self.deltas.insert(at, delta),
        }
    }

    /// Kills every page beyond a database's new end (rule S11).
    fn cut(&mut self, size: PageCount) {
        let Some(last) = size.last() else {
            self.base = None;
            self.deltas.clear();
            return;
        };
        if let Some(base) = &mut self.base {
            base.last_live = base.last_live.min(last);
        }
        self.base.take_if(|base| base.last_live < base.span.first);
        for delta in &mut self.deltas {
            delta.last_live = delta.last_live.min(last);
        }
        self.deltas.retain(|delta| delta.table.pages().any(|page| page <= delta.last_live));
    }
}
