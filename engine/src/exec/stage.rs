//! Blobs are built on disk before they travel: verified, resumable, bounded by the quota.

use crate::error::EngineError;
use littoral_format as format;
use littoral_format::blob::{Index, Writer as BlobWriter};
use littoral_local::{JobDir, LocalError, StagedFile};
use littoral_ports::BlobBody;
use littoral_types::limits::FRAME_PAGES_MAX;
use littoral_types::{
    BlobKind, BlobName, BlobRef, ChunkId, ChunkSpan, Compression, Home, IdentityKey, PageIdentity, PageNo, PageSize,
    Seq,
};

/// What every blob of a job has in common.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// The pages' size.
    pub page_size: PageSize,
    /// How frames are made smaller.
    pub compression: Compression,
    /// Keys the identities.
    pub key: IdentityKey,
    /// The tail's seq when the job began.
    pub birth: Seq,
}

/// One chunk's part of a blob.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Which chunk.
    pub chunk: ChunkId,
    /// Its pages in the database.
    pub span: ChunkSpan,
    /// The pages that are written, ascending.
    pub pages: &'a [PageNo],
}

/// Gives a page's bytes, wherever they come from.
pub type ReadPage<'a> = &'a mut (dyn FnMut(PageNo, &mut [u8]) -> Result<(), EngineError> + Send);

/// A blob on disk.
#[derive(Debug)]
pub struct Staged {
    /// What it will be called.
    pub blob: BlobRef,
    /// What it holds.
    pub index: Index,
    /// Its bytes.
    pub file: StagedFile,
}

/// Names what goes into a blob: equal inputs make equal blobs, so that a resumed job knows which it need not make again.
/// `None` when a page's identity is not known, and then nothing may be concluded.
pub fn input(
    recipe: &Recipe,
    kind: BlobKind,
    pieces: &[Piece<'_>],
    identity: &dyn Fn(PageNo) -> Option<PageIdentity>,
) -> Option<[u8; 32]> {
    let mut hasher = format::hash::BlobHasher::new();
    hasher.update(kind.folder().as_bytes());
    hasher.update(&[recipe.compression as u8]);
    hasher.update(&recipe.key.0);
    hasher.update(&recipe.page_size.bytes().to_le_bytes());
    for piece in pieces {
        for number in [piece.chunk.0, piece.span.first.get(), piece.span.count.0, piece.pages.len() as u64] {
            hasher.update(&number.to_le_bytes());
        }
        for page in piece.pages {
            hasher.update(&page.get().to_le_bytes());
            hasher.update(&identity(*page)?.0);
        }
    }
    Some(hasher.finish().0.0)
}

/// Reads pages, frames them, writes the blob, and reads it back before anybody relies on it.
pub fn stage(
    dir: &JobDir,
    recipe: &Recipe,
    kind: BlobKind,
    input: &[u8; 32],
    pieces: &[Piece<'_>],
    read: ReadPage<'_>,
) -> Result<Staged, EngineError> {
    let page_len = recipe.page_size.len();
    let harm = || EngineError::damaged("a blob that was being staged");
    let mut file = dir.begin(input)?;
    let mark = mark(recipe, input);
    let mut writer = BlobWriter::new(kind, recipe.page_size, recipe.compression, &recipe.key, mark);
    file.write(&writer.header())?;
    let mut buffers = vec![0u8; page_len * FRAME_PAGES_MAX];
    for piece in pieces {
        writer.begin_chunk(piece.chunk, piece.span);
        let mut frame: Vec<PageNo> = Vec::with_capacity(FRAME_PAGES_MAX);
        for page in piece.pages {
            let at = frame.len() * page_len;
            let image = &mut buffers[at..at + page_len];
            read(*page, image)?;
            if image.iter().all(|byte| *byte == 0) {
                writer.zero(*page);
                continue;
            }
            frame.push(*page);
            if frame.len() == FRAME_PAGES_MAX {
                file.write(&put_frame(&mut writer, &frame, &buffers, page_len).map_err(harm())?)?;
                frame.clear();
            }
        }
        if !frame.is_empty() {
            file.write(&put_frame(&mut writer, &frame, &buffers, page_len).map_err(harm())?)?;
        }
    }
    let (footer, index) = writer.finish().map_err(harm())?;
    file.write(&footer)?;
    let (hash, len) = {
        let staged = file.finish()?;
        (staged.hash(), staged.len())
    };
    let file = dir.open(input, &hash, len)?.ok_or_else(|| {
        let changed = std::io::Error::other("it does not read back as it was written");
        LocalError::from_io("stage a blob", dir.path_of_dir(), changed)
    })?;
    let blob = BlobRef { home: Home::Own, name: BlobName { kind, hash, birth: recipe.birth }, len };
    Ok(Staged { blob, index, file })
}

/// Tells this blob's frames from those of every other blob: what goes in decides it, so that the same job makes the same blob.
pub(super) fn mark(recipe: &Recipe, input: &[u8; 32]) -> u64 {
    format::hash::mark(&[&recipe.key.0, &recipe.birth.0.to_le_bytes(), input])
}

fn put_frame(
    writer: &mut BlobWriter,
    frame: &[PageNo],
    buffers: &[u8],
    page_len: usize,
) -> Result<Vec<u8>, format::FormatError> {
    let pages: Vec<(PageNo, &[u8])> = frame.iter().copied().zip(buffers.chunks_exact(page_len)).collect();
    writer.frame(&pages)
}
