//! Deltas into fewer: a job of its own, outside any checkpoint's cost (rule P6). No page changes, and no LSN.

use super::checkpoint::{Next, Uploads};
use super::fetch;
use super::partial;
use super::stage::{Piece, Recipe, Staged};
use crate::error::EngineError;
use crate::log::{Draft, Writer};
use bytes::Bytes;
use littoral_format::blob::Index;
use littoral_format::hash::BlobHasher;
use littoral_local::{JobDir, Scratch};
use littoral_plan::coalesce::{Into, Merge, coalesce as plan};
use littoral_ports::Unit;
use littoral_types::{
    Base, BlobKind, BlobRef, ChunkId, ChunkRow, Coalesce, Compression, Delta, FooterFigures, Geometry, ManifestOp,
    PageNo, RecordBody, VolumeFigures,
};
use std::collections::BTreeMap;

/// Rounds of one run: a merge may fill the next tier, and so on; there are only so many tiers.
const ROUNDS_MAX: usize = 8;
/// Chunks merged by one record: bounds what is held in memory and how much a crash loses.
const CHUNKS_PER_RECORD: usize = 16;

/// What was merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coalesced {
    /// Chunks.
    pub chunks: usize,
    /// Deltas that went.
    pub deltas: usize,
    /// Bytes written.
    pub bytes: u64,
    /// Records published.
    pub records: usize,
}

/// Merges where the plan says so: among these chunks, or among all.
pub async fn coalesce(
    writer: &mut Writer,
    scratch: &Scratch,
    chunks: Option<&[ChunkId]>,
    compression: Compression,
) -> Result<Coalesced, EngineError> {
    writer.settle().await?;
    let mut done = Coalesced::default();
    for _ in 0..ROUNDS_MAX {
        let merges = merges(writer, chunks).await?;
        if merges.is_empty() {
            break;
        }
        for group in merges.chunks(CHUNKS_PER_RECORD) {
            one_record(writer, scratch, group, compression, &mut done).await?;
        }
    }
    Ok(done)
}

async fn merges(writer: &mut Writer, chunks: Option<&[ChunkId]>) -> Result<Vec<(ChunkRow, Merge)>, EngineError> {
    match chunks {
        Some(chunks) => partial::rows(writer, chunks).await?,
        None => {
            let all = partial::all_chunks(writer.row());
            partial::rows(writer, &all).await?;
        }
    }
    let (manifest, id, figures) = (writer.manifest(), writer.row().meta.id, writer.row().tail.figures);
    let Some(page_size) = figures.page_size else { return Ok(Vec::new()) };
    let geometry = Geometry::new(page_size);
    let mut merges = Vec::new();
    let mut look = |row: ChunkRow| {
        if let Some(merge) = plan(&row, geometry, figures.page_count) {
            merges.push((row, merge));
        }
    };
    match chunks {
        Some(chunks) => {
            for chunk in chunks {
                manifest.row(&id, *chunk)?.map(&mut look);
            }
        }
        None => {
            let mut from = Some(ChunkId(0));
            while let Some(start) = from {
                let rows = manifest.rows(&id, start, 64)?;
                from = rows.last().and_then(|row| row.chunk.0.checked_add(1)).map(ChunkId);
                rows.into_iter().for_each(&mut look);
            }
        }
    }
    Ok(merges)
}

async fn one_record(
    writer: &mut Writer,
    scratch: &Scratch,
    group: &[(ChunkRow, Merge)],
    compression: Compression,
    done: &mut Coalesced,
) -> Result<(), EngineError> {
    let components = writer.components().clone();
    let figures = writer.row().tail.figures;
    let Some(page_size) = figures.page_size else { return Ok(()) };
    let geometry = Geometry::new(page_size);
    let birth = writer.row().tail.seq;
    let recipe = Recipe { page_size, compression, key: writer.row().meta.identity_key, birth };
    scratch.sweep()?;
    let dir = scratch.job(&writer.row().meta.id, birth)?;
    components.progress.phase("coalescing", group.len() as u64, Unit::Objects);

    // Deltas of all chunks share a pack; each new base is a blob of its own.
    let mut pages: BTreeMap<PageNo, Bytes> = BTreeMap::new();
    let mut uploads = Uploads::new(writer.log().remote().clone());
    let mut blobs: Vec<(BlobRef, Index)> = Vec::new();
    let place = Place { dir: &dir, recipe: &recipe, geometry, figures };
    for (row, merge) in group {
        let merged = only(row, merge);
        let fetched =
            fetch::pages(writer.log(), &merged, page_size, &writer.row().meta.identity_key, &merge.pages).await?;
        if merge.into == Into::Base {
            blobs.push(put(writer, &mut uploads, &place, BlobKind::Chunk, &[(row, merge)], &fetched).await?);
        } else {
            pages.extend(fetched);
        }
        components.progress.advance(1);
    }
    let deltas: Vec<(&ChunkRow, &Merge)> = group
        .iter()
        .filter(|(_, merge)| merge.into == Into::Delta && !merge.pages.is_empty())
        .map(|(row, merge)| (row, merge))
        .collect();
    if !deltas.is_empty() {
        blobs.push(put(writer, &mut uploads, &place, BlobKind::Pack, &deltas, &pages).await?);
    }
    uploads.finish(writer).await?;
    components.faults.reach("coalesce.uploaded")?;

    let generation = figures.generation.next();
    let bytes: u64 = blobs.iter().map(|(blob, _)| blob.len).sum();
    let body = RecordBody::Coalesce(Coalesce { ops: ops(group, &blobs, geometry, figures) });
    let draft = Draft {
        body,
        commits: 0,
        figures: VolumeFigures { generation, ..figures },
        added: FooterFigures { pages: 0, bytes },
        identities: Vec::new(),
    };
    writer.publish(draft).await?;
    dir.remove()?;
    done.chunks += group.len();
    done.deltas += group.iter().map(|(_, merge)| merge.deltas.len()).sum::<usize>();
    done.bytes += bytes;
    done.records += 1;
    Ok(())
}

/// The row as the merge sees it: only what it merges.
fn only(row: &ChunkRow, merge: &Merge) -> ChunkRow {
    let deltas = row.deltas.iter().filter(|delta| merge.deltas.contains(&delta.id)).cloned().collect();
    let base = row.base.clone().filter(|_| merge.into == Into::Base);
    ChunkRow { chunk: row.chunk, base, deltas }
}

/// Where and how blobs of one record are made.
struct Place<'a> {
    dir: &'a JobDir,
    recipe: &'a Recipe,
    geometry: Geometry,
    figures: VolumeFigures,
}

async fn put(
    writer: &mut Writer,
    uploads: &mut Uploads,
    place: &Place<'_>,
    kind: BlobKind,
    merges: &[(&ChunkRow, &Merge)],
    pages: &BTreeMap<PageNo, Bytes>,
) -> Result<(BlobRef, Index), EngineError> {
    let pieces: Vec<Piece<'_>> = merges
        .iter()
        .filter_map(|(row, merge)| {
            let span = place.geometry.span(row.chunk, place.figures.page_count)?;
            Some(Piece { chunk: row.chunk, span, pages: &merge.pages })
        })
        .collect();
    let mut hasher = BlobHasher::new();
    for (row, merge) in merges {
        hasher.update(&row.chunk.0.to_le_bytes());
        merge.deltas.iter().for_each(|delta| hasher.update(&delta.0.to_le_bytes()));
    }
    let input = hasher.finish().0.0;
    let volume = writer.log().url();
    let mut read = |page, into: &mut [u8]| match pages.get(&page) {
        Some(image) if image.len() == into.len() => {
            into.copy_from_slice(image);
            Ok(())
        }
        _ => Err(EngineError::Inconsistent {
            volume: volume.clone(),
            detail: format!("page {page} was to be merged and was not fetched"),
        }),
    };
    let next = Next { dir: place.dir, recipe: place.recipe, kind, input: &input, pieces: &pieces };
    let Staged { blob, index, file } = uploads.staged(writer, &next, &mut read).await?;
    uploads.start(writer, file, None, &blob).await?;
    Ok((blob, index))
}

fn ops(
    group: &[(ChunkRow, Merge)],
    blobs: &[(BlobRef, Index)],
    geometry: Geometry,
    figures: VolumeFigures,
) -> Vec<ManifestOp> {
    group
        .iter()
        .filter_map(|(row, merge)| {
            let span = geometry.span(row.chunk, figures.page_count)?;
            let last_live = span.last()?;
            let built = blobs.iter().find_map(|(blob, index)| {
                let chunk = index.chunks.iter().find(|chunk| chunk.chunk == row.chunk)?;
                Some((blob.clone(), chunk.table.clone()))
            });
            match (merge.into, built) {
                (Into::Base, Some((blob, table))) => Some(ManifestOp::PutBase {
                    chunk: row.chunk,
                    // It holds what was there before: what segments bring on top of that stays on top.
                    base: Base { generation: figures.generation, blob, span, last_live, table },
                }),
                (Into::Base, None) => None,
                (Into::Delta, built) => {
                    let id = *merge.deltas.last()?;
                    let delta = built.map(|(blob, table)| Delta { id, blob, last_live, table });
                    Some(ManifestOp::ReplaceDeltas { chunk: row.chunk, replaced: merge.deltas.clone(), delta })
                }
            }
        })
        .collect()
}
