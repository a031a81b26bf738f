//! A segment's frames: pages that commits changed, whole or as patches, one frame after another and nothing else.
//!
//! They travel in the segment's record, between its header and its body, or where they are too many in a `seg` blob of their own.
//! There is no footer: the record's body says which frame holds what.

use crate::patch::{self, Patch};
use crate::record::HEADER_BYTES_MAX;
use crate::{FormatError, frame};
use littoral_types::limits::FRAME_PAGES_MAX;
use littoral_types::{
    BlobKind, BlobName, BlobRef, ByteSpan, ChunkId, Compression, Delta, DeltaId, Form, FrameEntry, FrameTable,
    Generation, Geometry, Home, ManifestOp, PageCount, PageNo, PageSize, Seq,
};
use std::collections::BTreeMap;

const WHAT: &str = "segment";

/// Where a segment stands, so that its frames and deltas get names of their own.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    /// The generation that it goes on top of.
    pub generation: Generation,
    /// Its record's place.
    pub seq: Seq,
    /// What its frames say of themselves.
    pub mark: u64,
    /// The database's size after it.
    pub page_count: PageCount,
}

/// A segment's frames, and the deltas that say what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    /// One for each chunk and form.
    pub ops: Vec<ManifestOp>,
    /// All of them.
    pub frames: Vec<u8>,
    /// Their name where they are a blob of their own; `None` where they travel in the record.
    pub blob: Option<BlobName>,
}

#[derive(Debug, Default)]
struct Begun {
    whole: Vec<FrameEntry>,
    zeros: Vec<PageNo>,
    patched: Vec<FrameEntry>,
    /// Not framed yet.
    pages: Vec<(PageNo, Vec<u8>)>,
    patches: Vec<(PageNo, Patch)>,
}

/// Frames a segment's pages.
#[derive(Debug)]
pub struct Writer {
    page_size: PageSize,
    compression: Compression,
    stand: Stand,
    frames: Vec<u8>,
    chunks: BTreeMap<ChunkId, Begun>,
    raw: Vec<u8>,
}

impl Writer {
    /// Of pages of this size.
    pub fn new(page_size: PageSize, compression: Compression, stand: Stand) -> Self {
        Self { page_size, compression, stand, frames: Vec::new(), chunks: BTreeMap::new(), raw: Vec::new() }
    }

    fn chunk(&mut self, page: PageNo) -> &mut Begun {
        self.chunks.entry(Geometry::new(self.page_size).chunk_of(page)).or_default()
    }

    /// A page as it is. Pages ascend.
    pub fn whole(&mut self, page: PageNo, image: Vec<u8>) -> Result<(), FormatError> {
        if frame::is_zero(&image) {
            self.chunk(page).zeros.push(page);
            return Ok(());
        }
        let chunk = self.chunk(page);
        chunk.pages.push((page, image));
        if chunk.pages.len() < FRAME_PAGES_MAX {
            return Ok(());
        }
        let pages = std::mem::take(&mut chunk.pages);
        self.put_whole(page, &pages)
    }

    /// A page as a difference. Pages ascend.
    pub fn patched(&mut self, page: PageNo, patch: Patch) -> Result<(), FormatError> {
        let chunk = self.chunk(page);
        chunk.patches.push((page, patch));
        if chunk.patches.len() < FRAME_PAGES_MAX {
            return Ok(());
        }
        let patches = std::mem::take(&mut chunk.patches);
        self.put_patched(page, &patches)
    }

    fn put_whole(&mut self, of: PageNo, pages: &[(PageNo, Vec<u8>)]) -> Result<(), FormatError> {
        let slots: Vec<(PageNo, &[u8])> = pages.iter().map(|(page, image)| (*page, image.as_slice())).collect();
        let bytes = frame::encode(self.page_size, self.compression, self.stand.mark, &slots, &mut self.raw)?;
        let entry = self.put(&bytes, pages.iter().map(|(page, _)| *page).collect());
        self.chunk(of).whole.push(entry);
        Ok(())
    }

    fn put_patched(&mut self, of: PageNo, patches: &[(PageNo, Patch)]) -> Result<(), FormatError> {
        let bytes = patch::encode(self.page_size, self.stand.mark, patches)?;
        let entry = self.put(&bytes, patches.iter().map(|(page, _)| *page).collect());
        self.chunk(of).patched.push(entry);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8], pages: Vec<PageNo>) -> FrameEntry {
        let span = ByteSpan { offset: self.frames.len() as u64, len: bytes.len() as u64 };
        self.frames.extend_from_slice(bytes);
        FrameEntry { span, pages }
    }

    /// All of it. `inline_max` bytes travel in the record; more are a blob, born at `birth`.
    pub fn finish(mut self, inline_max: usize, birth: Seq) -> Result<Framed, FormatError> {
        let ids: Vec<ChunkId> = self.chunks.keys().copied().collect();
        for id in &ids {
            let Some(chunk) = self.chunks.get_mut(id) else { continue };
            let (pages, patches) = (std::mem::take(&mut chunk.pages), std::mem::take(&mut chunk.patches));
            if let Some((page, _)) = pages.first() {
                self.put_whole(*page, &pages)?;
            }
            if let Some((page, _)) = patches.first() {
                self.put_patched(*page, &patches)?;
            }
        }
        let Self { page_size, stand, frames, chunks, .. } = self;
        let hash = crate::hash::blob(&frames);
        let travels = frames.len() <= inline_max;
        let (name, start) = match travels {
            true => (BlobName { kind: BlobKind::Record, hash, birth: stand.seq }, HEADER_BYTES_MAX as u64),
            false => (BlobName { kind: BlobKind::Segment, hash, birth }, 0),
        };
        let blob = BlobRef { home: Home::Own, name, len: frames.len() as u64 };
        let geometry = Geometry::new(page_size);
        let beyond = || FormatError::Invalid { what: WHAT, detail: "a place beyond what its numbers hold".to_owned() };
        let mut ops = Vec::new();
        for (chunk, begun) in chunks {
            let Begun { whole, mut zeros, patched, .. } = begun;
            zeros.sort_unstable();
            let last_live = geometry.span(chunk, stand.page_count).and_then(|span| span.last()).ok_or_else(beyond)?;
            for (form, entries, zeros) in [(Form::Whole, whole, zeros), (Form::Patched, patched, Vec::new())] {
                if entries.is_empty() && zeros.is_empty() {
                    continue;
                }
                let id = DeltaId::of_segment(stand.generation, stand.seq, form).ok_or_else(beyond)?;
                let mark = if entries.is_empty() { 0 } else { stand.mark };
                let moved = entries.into_iter().map(|mut entry| {
                    entry.span.offset += start;
                    entry
                });
                let delta = Delta { id, blob: blob.clone(), last_live, table: FrameTable::new(moved, zeros, mark) };
                ops.push(ManifestOp::PutDelta { chunk, delta });
            }
        }
        Ok(Framed { ops, frames, blob: (!travels).then_some(name) })
    }
}

/// Verifies one frame of a segment by itself: its sum, its blob's mark, its pages.
pub fn check(
    bytes: &[u8],
    is_patch: bool,
    mark: u64,
    pages: impl ExactSizeIterator<Item = PageNo>,
) -> Result<(), FormatError> {
    if is_patch {
        return patch::read(bytes, patch::page_size(bytes)?, mark, pages).map(drop);
    }
    let page_size = frame::page_size(bytes)?;
    let mut raw = vec![0; pages.len().min(FRAME_PAGES_MAX) * page_size.len()];
    frame::decode(bytes, page_size, mark, pages, &mut raw)
}
