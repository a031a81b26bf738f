//! A local manifest that knows a part of its volume, and learns the rest when somebody needs it.
//!
//! A machine that had nothing begins with where the log ends and what was done since the newest manifest snapshot
//! ([`super::rebuild::begin`]). Rows and page identities of a chunk come when they are first needed:
//!
//! | who | needs |
//! |---|---|
//! | a checkpoint that knows which pages changed | nothing; the identities of chunks that it writes whole |
//! | a checkpoint that must compare everything | all identities |
//! | coalescing | the rows of the chunks that it looks at |
//! | a manifest snapshot | the shards that were touched: read from the snapshot before; the others are carried over by name |
//!
//! A chunk whose row has a base is known whole: whatever brought the base brought all that lies under it. One without a base is
//! known if the newest manifest snapshot has no row of it. What the operations since that snapshot left of other rows is a part of
//! the row, and is no obstacle: putting the whole row over it gives the whole row.

use super::rebuild::{Rows, identities as learn, row_ops, rows as all_rows};
use crate::error::EngineError;
use crate::lazy::rows::rows_of;
use crate::lazy::state::{Directory, listed};
use crate::log::Writer;
use crate::log::read::is_missing;
use littoral_ports::{Batch, Changed, Manifest, PageSource};
use littoral_types::{ChunkId, ChunkRow, Geometry, ManifestOp, PageNo, PageSize, VolumeRow};
use std::collections::BTreeSet;

/// Chunks that are learnt at once.
const CHUNKS_AT_ONCE: usize = 256;

/// Whether a chunk's row, as the local manifest has it, is the whole one where a manifest snapshot has a row of it.
pub(super) fn is_whole(row: Option<&ChunkRow>) -> bool {
    row.is_some_and(|row| row.base.is_some())
}

/// What was done since the newest manifest snapshot.
pub(super) fn ops_since(writer: &Writer) -> Result<Vec<ManifestOp>, EngineError> {
    ops_of(&**writer.manifest(), writer.row())
}

/// The same of a volume that nobody writes just now.
pub(super) fn ops_of(manifest: &dyn Manifest, row: &VolumeRow) -> Result<Vec<ManifestOp>, EngineError> {
    let changes = manifest.changes_since(&row.meta.id, row.tail.snapshot)?;
    Ok(changes.into_iter().flat_map(|change| change.ops).collect())
}

/// All chunks that the volume has.
pub fn all_chunks(row: &VolumeRow) -> Vec<ChunkId> {
    let figures = row.tail.figures;
    let count = figures.page_size.map_or(0, |page_size| Geometry::new(page_size).chunk_count(figures.page_count));
    (0..count).map(ChunkId).collect()
}

/// The chunks that some pages, ascending, lie in.
pub(super) fn chunks_of(page_size: PageSize, pages: &[PageNo]) -> Vec<ChunkId> {
    let geometry = Geometry::new(page_size);
    let mut chunks: Vec<ChunkId> = pages.iter().map(|page| geometry.chunk_of(*page)).collect();
    chunks.dedup();
    chunks
}

/// Sees to it that the local manifest has the whole rows of these chunks.
pub async fn rows(writer: &mut Writer, chunks: &[ChunkId]) -> Result<(), EngineError> {
    let (id, manifest) = (writer.row().meta.id, writer.manifest().clone());
    let mut missing = Vec::new();
    for chunk in chunks {
        if !is_whole(manifest.row(&id, *chunk)?.as_ref()) {
            missing.push(*chunk);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    match piece_by_piece(writer, &mut missing).await {
        Err(error) if is_missing(&error) => {
            let all = again(writer, error).await?;
            let wanted: BTreeSet<ChunkId> = missing.into_iter().collect();
            put(&*manifest, writer.row(), all.iter().filter(|row| wanted.contains(&row.chunk)))
        }
        done => done,
    }
}

async fn piece_by_piece(writer: &mut Writer, missing: &mut Vec<ChunkId>) -> Result<(), EngineError> {
    let shards = writer.shards().await?;
    missing.retain(|chunk| listed(&shards, *chunk).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let directory = Directory::new(shards, ops_since(writer)?);
    for group in missing.chunks(CHUNKS_AT_ONCE) {
        let read = rows_of(writer.log(), &directory, group).await?;
        put(&**writer.manifest(), writer.row(), read.iter())?;
    }
    Ok(())
}

/// Rows go into the manifest a chunk at a time: each is whole or not there.
fn put<'a>(
    manifest: &dyn Manifest,
    row: &VolumeRow,
    rows: impl Iterator<Item = &'a ChunkRow>,
) -> Result<(), EngineError> {
    for whole in rows.filter(|whole| !whole.is_empty()) {
        manifest.commit(&row.meta.id, &Batch { ops: row_ops(whole).collect(), ..Batch::default() })?;
    }
    Ok(())
}

/// All rows of the same state as the log tells it now (rule P2), where the manifest snapshot that we know of is gone.
pub(super) async fn again(writer: &mut Writer, error: EngineError) -> Result<Vec<ChunkRow>, EngineError> {
    let log = writer.log().clone();
    let opened = log.open().await?;
    match opened.filter(|opened| opened.tail.hash == writer.row().tail.hash) {
        Some(opened) => Ok(all_rows(&log, &opened).await?.into_values().collect()),
        None => Err(why(writer, error).await?),
    }
}

/// What is gone is no damage where somebody else has gone on, and pruned: then that is what there is to say.
async fn why(writer: &mut Writer, error: EngineError) -> Result<EngineError, EngineError> {
    if writer.log().newest().await? == Some(writer.row().tail.seq) {
        return Ok(error);
    }
    writer.find_out_who_won().await
}

/// Sees to it that the local manifest has the identity of every page of these chunks.
pub async fn identities(writer: &mut Writer, chunks: &[ChunkId]) -> Result<(), EngineError> {
    let missing = unknown(&**writer.manifest(), writer.row(), chunks)?;
    for group in missing.chunks(CHUNKS_AT_ONCE) {
        rows(writer, group).await?;
        let (log, row, manifest) = (writer.log().clone(), writer.row().clone(), writer.manifest().clone());
        let mut known = Rows::new();
        for chunk in group {
            known.extend(manifest.row(&row.meta.id, *chunk)?.map(|row| (*chunk, row)));
        }
        let components = writer.components().clone();
        match learn(&log, &known, &*manifest, &row, &*components.progress).await {
            Err(error) if is_missing(&error) => return Err(why(writer, error).await?),
            learnt => learnt?,
        }
        components.faults.reach("rebuild.identities")?;
    }
    Ok(())
}

/// Those of these chunks that have a page whose identity is not known.
fn unknown(manifest: &dyn Manifest, row: &VolumeRow, chunks: &[ChunkId]) -> Result<Vec<ChunkId>, EngineError> {
    let figures = row.tail.figures;
    let Some(page_size) = figures.page_size else { return Ok(Vec::new()) };
    let geometry = Geometry::new(page_size);
    let mut missing = Vec::new();
    for chunk in chunks {
        let Some(span) = geometry.span(*chunk, figures.page_count) else { continue };
        let count = usize::try_from(span.count.0).unwrap_or(usize::MAX);
        if manifest.identities(&row.meta.id, span.first, count)?.iter().any(Option::is_none) {
            missing.push(*chunk);
        }
    }
    Ok(missing)
}

/// What a comparison of a database with the manifest needs: everything, where nobody watched what changed.
pub async fn for_comparing(writer: &mut Writer, source: &dyn PageSource) -> Result<(), EngineError> {
    // Identities of pages of another size say nothing.
    let comparable = writer.row().tail.figures.page_size == Some(source.page_size());
    if comparable && source.changed() == Changed::Unknown {
        let chunks = all_chunks(writer.row());
        identities(writer, &chunks).await?;
    }
    Ok(())
}

/// Whether a manifest knows every page's identity, so that comparing a database with it says what really differs.
pub fn is_known(manifest: &dyn Manifest, row: &VolumeRow) -> Result<bool, EngineError> {
    Ok(unknown(manifest, row, &all_chunks(row))?.is_empty())
}
