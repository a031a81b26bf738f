//! Deltas into fewer: a job of its own, outside any checkpoint's cost (rule P6). No page changes, and no LSN.

use super::beside::{Meanwhile, Nothing};
use super::checkpoint::{Next, Uploads};
use super::fetch;
use super::partial;
use super::stage::{Piece, Recipe, Staged};
use crate::error::EngineError;
use crate::leases::Held;
use crate::log::{Draft, Writer};
use bytes::Bytes;
use littoral_format::blob::Index;
use littoral_format::hash::BlobHasher;
use littoral_local::{JobDir, Scratch};
use littoral_plan::Debt;
use littoral_plan::coalesce::{Into, Merge, coalesce as plan};
use littoral_ports::{Manifest, Unit};
use littoral_types::{
    Base, BlobKind, BlobRef, Change, ChunkId, ChunkRow, Coalesce, Compression, Delta, FooterFigures, Geometry,
    ManifestOp, PageCount, PageNo, RecordBody, RecordKind, Seq, VolumeFigures, VolumeRow, Work,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rounds of one run: a merge may fill the next tier, and so on; there are only so many tiers.
const ROUNDS_MAX: usize = 8;
/// Chunks merged by one record: bounds what is held in memory and how much a crash loses.
pub(super) const CHUNKS_PER_RECORD: usize = 16;

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
    coalesce_beside(writer, scratch, chunks, compression, &mut Nothing).await
}

/// The same, while something else wants its turns.
pub async fn coalesce_beside(
    writer: &mut Writer,
    scratch: &Scratch,
    chunks: Option<&[ChunkId]>,
    compression: Compression,
    meanwhile: &mut dyn Meanwhile,
) -> Result<Coalesced, EngineError> {
    writer.settle().await?;
    let mut done = Coalesced::default();
    for _ in 0..ROUNDS_MAX {
        let due: Vec<ChunkId> = merges(writer, chunks).await?.into_iter().map(|(row, _)| row.chunk).collect();
        if due.is_empty() {
            break;
        }
        let before = done.records;
        for group in due.chunks(CHUNKS_PER_RECORD) {
            // What was shipped beside the group before lies on top of what was planned then, and is of an older generation than what
            // would be made of it.
            let group = merges(writer, Some(group)).await?;
            let group = leased(writer, Work::Coalesce, group)?;
            if group.merges.is_empty() {
                continue;
            }
            if !one_record(writer, scratch, &group, compression, meanwhile, &mut done).await? {
                return Ok(done);
            }
        }
        // What others are at work on is theirs.
        if done.records == before {
            break;
        }
    }
    Ok(done)
}

/// What is owed of merging, as far as the manifest knows the volume's deltas. Chunks without one, and bases, are not looked at.
pub fn debt(manifest: &dyn Manifest, row: &VolumeRow) -> Result<Debt, EngineError> {
    let mut debt = Debt::default();
    each_with_deltas(manifest, row, |row, geometry, size| debt.add(row, geometry, size))?;
    Ok(debt)
}

/// The chunks of which deltas are to be merged, found as [`debt`] is.
pub(crate) fn owing(manifest: &dyn Manifest, row: &VolumeRow) -> Result<Vec<ChunkId>, EngineError> {
    let mut chunks = Vec::new();
    each_with_deltas(manifest, row, |row, geometry, size| {
        chunks.extend(plan(row, geometry, size).map(|merge| merge.chunk));
    })?;
    Ok(chunks)
}

fn each_with_deltas(
    manifest: &dyn Manifest,
    row: &VolumeRow,
    mut look: impl FnMut(&ChunkRow, Geometry, PageCount),
) -> Result<(), EngineError> {
    let figures = row.tail.figures;
    let Some(page_size) = figures.page_size else { return Ok(()) };
    let geometry = Geometry::new(page_size);
    let mut from = Some(ChunkId(0));
    while let Some(start) = from {
        let rows = manifest.deltas(&row.meta.id, start, 64)?;
        from = rows.last().and_then(|row| row.chunk.0.checked_add(1)).map(ChunkId);
        rows.iter().for_each(|row| look(row, geometry, figures.page_count));
    }
    Ok(())
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

/// Merges that one record says, and the right to do them.
pub(super) struct Group {
    pub(super) held: Option<Arc<Held>>,
    pub(super) merges: Vec<(ChunkRow, Merge)>,
}

/// Those of these merges that nobody else is at work on.
pub(super) fn leased(writer: &Writer, work: Work, mut merges: Vec<(ChunkRow, Merge)>) -> Result<Group, EngineError> {
    while !merges.is_empty() {
        let chunks = merges.iter().map(|(row, _)| row.chunk).collect();
        match writer.lease(work, Some(chunks))? {
            Ok(held) => return Ok(Group { held, merges }),
            Err(others) if others.is_empty() => merges.clear(),
            Err(others) => merges.retain(|(row, _)| !others.iter().any(|other| other.covers(row.chunk))),
        }
    }
    Ok(Group { held: None, merges })
}

/// Merges these. False where it was given up.
pub(super) async fn one_record(
    writer: &mut Writer,
    scratch: &Scratch,
    group: &Group,
    compression: Compression,
    meanwhile: &mut dyn Meanwhile,
    done: &mut Coalesced,
) -> Result<bool, EngineError> {
    scratch.sweep()?;
    let dir = scratch.job(&writer.row().meta.id, writer.row().tail.seq)?;
    let Some(made) = made(writer, dir, group, compression, meanwhile).await? else { return Ok(false) };
    named(writer, group, made, meanwhile, done).await
}

/// What came of a merge: blobs in the object store, which nothing names yet.
pub(super) struct Made {
    /// The tail that it was planned on.
    birth: Seq,
    figures: VolumeFigures,
    blobs: Vec<(BlobRef, Index)>,
    dir: JobDir,
}

/// Fetches what is merged, stages what comes of it, and uploads that. Whoever else extends the log meanwhile does not hinder it.
pub(super) async fn made(
    writer: &mut Writer,
    dir: JobDir,
    group: &Group,
    compression: Compression,
    meanwhile: &mut dyn Meanwhile,
) -> Result<Option<Made>, EngineError> {
    let components = writer.components().clone();
    let figures = writer.row().tail.figures;
    let Some(page_size) = figures.page_size else { return Ok(None) };
    let geometry = Geometry::new(page_size);
    let birth = writer.row().tail.seq;
    let recipe = Recipe { page_size, compression, key: writer.row().meta.identity_key, birth };
    components.progress.phase("coalescing", group.merges.len() as u64, Unit::Objects);

    // Deltas of all chunks share a pack; each new base is a blob of its own.
    let mut pages: BTreeMap<PageNo, Bytes> = BTreeMap::new();
    let mut uploads = Uploads::new(writer.log().remote().clone(), group.held.clone(), Work::Coalesce);
    let mut blobs: Vec<(BlobRef, Index)> = Vec::new();
    let place = Place { dir: &dir, recipe: &recipe, geometry, figures };
    for (row, merge) in &group.merges {
        uploads.step()?;
        let merged = only(row, merge);
        let fetched =
            fetch::pages(writer.log(), &merged, page_size, &writer.row().meta.identity_key, &merge.pages).await?;
        if merge.into == Into::Base {
            blobs.push(put(writer, &mut uploads, &place, BlobKind::Chunk, &[(row, merge)], &fetched, meanwhile).await?);
        } else {
            pages.extend(fetched);
        }
        components.progress.advance(1);
        meanwhile.turn(writer).await?;
    }
    let deltas: Vec<(&ChunkRow, &Merge)> = group
        .merges
        .iter()
        .filter(|(_, merge)| merge.into == Into::Delta && !merge.pages.is_empty())
        .map(|(row, merge)| (row, merge))
        .collect();
    if !deltas.is_empty() {
        blobs.push(put(writer, &mut uploads, &place, BlobKind::Pack, &deltas, &pages, meanwhile).await?);
    }
    uploads.all(writer, meanwhile).await?;
    components.faults.reach("coalesce.uploaded")?;
    Ok(Some(Made { birth, figures, blobs, dir }))
}

/// Publishes what a merge made, where everything is as it was planned. False where it is not: nothing names its blobs then, and the next
/// prune takes them.
pub(super) async fn named(
    writer: &mut Writer,
    group: &Group,
    made: Made,
    meanwhile: &mut dyn Meanwhile,
    done: &mut Coalesced,
) -> Result<bool, EngineError> {
    let Made { birth, figures, blobs, dir } = made;
    let Group { held, merges } = group;
    if !is_as_planned(writer, merges, birth, figures)? {
        dir.remove()?;
        return Ok(false);
    }
    let Some(page_size) = figures.page_size else { return Ok(false) };
    let geometry = Geometry::new(page_size);
    let bytes: u64 = blobs.iter().map(|(blob, _)| blob.len).sum();
    let body = RecordBody::Coalesce(Coalesce { ops: ops(merges, &blobs, geometry, figures) });
    let now = writer.row().tail.figures;
    let draft = Draft {
        added: FooterFigures { pages: 0, bytes },
        ..Draft::of(body, VolumeFigures { generation: now.generation.next(), ..now })
    };
    writer.publish_under(held.as_deref(), draft, None).await?;
    meanwhile.published(writer);
    dir.remove()?;
    done.chunks += merges.len();
    done.deltas += merges.iter().map(|(_, merge)| merge.deltas.len()).sum::<usize>();
    done.bytes += bytes;
    done.records += 1;
    Ok(true)
}

/// Whether a merge may be published as it was planned, whatever was published since:
///
/// 1. The database was not cut: what was merged may hold pages that died meanwhile.
/// 2. Nobody pruned: the blobs that were made are orphans to a pruner, and what he has named is never named again (rule P1).
/// 3. Each chunk has the deltas that were merged, as they were, and, where they become a base, nothing else but what segments brought on
///    top of it. A delta under a base that is newer than itself would hide that.
fn is_as_planned(
    writer: &Writer,
    group: &[(ChunkRow, Merge)],
    since: Seq,
    then: VolumeFigures,
) -> Result<bool, EngineError> {
    let changes = writer.manifest().changes_since(&writer.row().meta.id, since)?;
    let pruned = changes.iter().flat_map(|change| &change.records).any(|record| record.kind == RecordKind::Prune);
    if pruned || writer.row().tail.figures.page_size != then.page_size || is_cut(&changes, then.page_count) {
        return Ok(false);
    }
    for (planned, merge) in group {
        let Some(row) = writer.manifest().row(&writer.row().meta.id, planned.chunk)? else { return Ok(false) };
        let merged = |row: &ChunkRow| -> Vec<Delta> {
            row.deltas.iter().filter(|delta| merge.deltas.contains(&delta.id)).cloned().collect()
        };
        let on_top = |delta: &Delta| delta.id.is_of_segment() && delta.id.generation() >= then.generation;
        let is_alone = || row.deltas.iter().all(|delta| merge.deltas.contains(&delta.id) || on_top(delta));
        let holds = merge.into == Into::Delta || (row.base == planned.base && is_alone());
        if !holds || merged(&row) != merged(planned) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the database got smaller: what was shipped meanwhile may have cut it.
fn is_cut(changes: &[Change], before: PageCount) -> bool {
    let mut sizes = changes.iter().flat_map(|change| &change.ops).filter_map(|op| match op {
        ManifestOp::Resize { page_count } => Some(*page_count),
        _ => None,
    });
    sizes.any(|size| size < before)
}

/// The row as the merge sees it: only what it merges.
fn only(row: &ChunkRow, merge: &Merge) -> ChunkRow {
    let deltas = row.deltas.iter().filter(|delta| merge.deltas.contains(&delta.id)).cloned().collect();
    let base = row.base.clone().filter(|_| merge.into == Into::Base);
    ChunkRow { base, deltas, ..ChunkRow::new(row.chunk) }
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
    meanwhile: &mut dyn Meanwhile,
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
    let Staged { blob, index, file } = loop {
        match uploads.staged(&next, &mut read)? {
            Some(staged) => break staged,
            None => uploads.one(writer, meanwhile).await?,
        }
    };
    uploads.rest(writer, 2 * blob.len, meanwhile).await?;
    uploads.room(writer, meanwhile).await?;
    uploads.start(writer, file, None, &blob);
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
