//! One chunk, ready to be read from: where each of its pages is, found without a search.

use crate::exec::fetch::blob_path;
use crate::log::Log;
use littoral_types::{BlobName, ByteSpan, ChunkId, ChunkRow, ChunkSpan, ObjectPath, PageNo};

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In no version: nobody may make it up.
    Nowhere,
    /// It is all zeros.
    Zero,
    /// In this frame.
    Frame(usize),
    /// In patches, and in what they stand on: see [`Located::row`].
    Patched,
}

/// Where the pages of one chunk are.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) chunk: ChunkId,
    span: ChunkSpan,
    blobs: Vec<Blob>,
    /// Only those that hold a live page.
    frames: Vec<FrameAt>,
    /// By page: a frame, or one of the three below.
    places: Vec<u32>,
    /// Of a chunk with patched pages.
    row: Option<ChunkRow>,
}

const NOWHERE: u32 = u32::MAX;
const ZERO: u32 = u32::MAX - 1;
const PATCHED: u32 = u32::MAX - 2;

#[derive(Debug)]
struct Blob {
    name: BlobName,
    path: ObjectPath,
    /// What its frames say of themselves.
    mark: u64,
}

#[derive(Debug)]
struct FrameAt {
    blob: u32,
    span: ByteSpan,
    /// All pages it holds, dead ones included, from the chunk's first.
    holds: Box<[u32]>,
}

/// A frame, and all that is needed to fetch and verify it.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub(super) name: BlobName,
    pub(super) path: ObjectPath,
    pub(super) mark: u64,
    pub(super) span: ByteSpan,
    /// By slot: the page, and whether this is its newest live version.
    pub(super) slots: Vec<(PageNo, bool)>,
}

impl Located {
    /// Of a chunk with this span in the state's database.
    pub(super) fn new(log: &Log, row: &ChunkRow, span: ChunkSpan) -> Self {
        let base = row.base.iter().map(|base| (&base.blob, base.last_live, &base.table, false));
        let deltas = row.deltas.iter();
        let deltas = deltas.map(|delta| (&delta.blob, delta.last_live, &delta.table, delta.id.is_patch()));
        let versions: Vec<_> = base.chain(deltas).collect();
        let index = |page: PageNo| {
            let at = page.get().checked_sub(span.first.get()).filter(|at| *at < span.count.0)?;
            u32::try_from(at).ok()
        };
        let mut places = vec![NOWHERE; usize::try_from(span.count.0).unwrap_or(0)];
        let mut blobs = Vec::with_capacity(versions.len());
        let mut frames: Vec<FrameAt> = Vec::new();
        // Later versions overwrite earlier ones: what remains is the newest live one (rule S11).
        for (version, (blob, last_live, table, is_patch)) in versions.iter().enumerate() {
            if *is_patch {
                for page in table.stored().filter(|page| page <= last_live) {
                    if let Some(place) = index(page).and_then(|at| places.get_mut(at as usize)) {
                        *place = PATCHED;
                    }
                }
            }
            blobs.push(Blob { name: blob.name, path: blob_path(log, blob), mark: table.mark });
            for entry in table.frames().filter(|_| !*is_patch) {
                let frame = frames.len() as u32;
                let mut live = false;
                for page in entry.pages.iter().filter(|page| page <= last_live) {
                    if let Some(place) = index(page).and_then(|at| places.get_mut(at as usize)) {
                        *place = frame;
                        live = true;
                    }
                }
                if live {
                    let holds = entry.pages.iter().map(|page| page.get().wrapping_sub(span.first.get()) as u32);
                    frames.push(FrameAt { blob: version as u32, span: entry.span, holds: holds.collect() });
                }
            }
            for page in table.zeros().iter().filter(|page| page <= last_live) {
                if let Some(place) = index(page).and_then(|at| places.get_mut(at as usize)) {
                    *place = ZERO;
                }
            }
        }
        let row_kept = places.contains(&PATCHED).then(|| row.clone());
        Self { chunk: row.chunk, span, blobs, frames, places, row: row_kept }
    }

    fn at(&self, page: PageNo) -> Option<u32> {
        let at = page.get().checked_sub(self.span.first.get())?;
        self.places.get(usize::try_from(at).ok()?).copied()
    }

    pub(super) fn place(&self, page: PageNo) -> Place {
        match self.at(page) {
            None | Some(NOWHERE) => Place::Nowhere,
            Some(ZERO) => Place::Zero,
            Some(PATCHED) => Place::Patched,
            Some(frame) => Place::Frame(frame as usize),
        }
    }

    /// The whole row, of a chunk with patched pages.
    pub(super) fn row(&self) -> Option<&ChunkRow> {
        self.row.as_ref()
    }

    /// A frame's stored bytes.
    pub(super) fn frame_len(&self, frame: usize) -> u64 {
        self.frames.get(frame).map_or(0, |frame| frame.span.len)
    }

    /// What it takes to fetch a frame.
    pub(super) fn need(&self, frame: usize) -> Option<Need> {
        let at = self.frames.get(frame)?;
        let blob = self.blobs.get(at.blob as usize)?;
        let slots = at.holds.iter().map(|offset| {
            let page = PageNo::from_index(self.span.first.index() + u64::from(*offset));
            (page, self.at(page) == Some(frame as u32))
        });
        Some(Need { name: blob.name, path: blob.path.clone(), mark: blob.mark, span: at.span, slots: slots.collect() })
    }

    /// What it takes of memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        let holds: usize = self.frames.iter().map(|frame| frame.holds.len() * 4 + 56).sum();
        holds + self.places.len() * 4 + self.blobs.len() * 200 + 128
    }
}
