//! A volume's rows and identities from the object store alone.

use super::fetch;
use crate::components::Components;
use crate::error::EngineError;
use crate::log::read::is_missing;
use crate::log::{Log, Opened};
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_format as format;
use littoral_ports::{Batch, Manifest, Progress, RemoteError, Unit};
use littoral_types::limits::TRANSFERS_IN_FLIGHT;
use littoral_types::{
    BlobKind, BlobRef, ChunkId, ChunkRow, FrameTable, Home, ManifestOp, PageIdentity, PageNo, RecordSummary, Seq,
    ShardRef, Snapshot, VolumeRow,
};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// All rows of a volume as of one record.
pub type Rows = BTreeMap<ChunkId, ChunkRow>;

/// Does what operations say to a whole volume's rows.
pub fn apply<'a>(rows: &mut Rows, ops: impl IntoIterator<Item = &'a ManifestOp>) {
    for op in ops {
        match (op, op.chunk()) {
            (ManifestOp::Session(_) | ManifestOp::Object(_), _) => {}
            (ManifestOp::Reshape { .. }, _) => rows.clear(),
            (_, Some(chunk)) => rows.entry(chunk).or_insert_with(|| ChunkRow::new(chunk)).apply(op),
            (_, None) => rows.values_mut().for_each(|row| row.apply(op)),
        }
        if matches!(op, ManifestOp::Resize { .. } | ManifestOp::ReplaceDeltas { .. } | ManifestOp::DropSegment { .. }) {
            rows.retain(|_, row| !row.is_empty());
        }
    }
}

/// The rows that a manifest snapshot names.
pub async fn snapshot_rows(log: &Log, snapshot: &Snapshot) -> Result<Rows, EngineError> {
    let shards: Vec<Vec<ChunkRow>> = stream::iter(snapshot.shards.clone())
        .map(|shard| {
            let log = log.clone();
            async move { shard_rows(&log, &shard).await }
        })
        .buffered(TRANSFERS_IN_FLIGHT)
        .try_collect()
        .await?;
    Ok(shards.into_iter().flatten().map(|row| (row.chunk, row)).collect())
}

/// All rows of one shard.
pub(crate) async fn shard_rows(log: &Log, shard: &ShardRef) -> Result<Vec<ChunkRow>, EngineError> {
    let path = fetch::blob_path(log, &shard.blob);
    let bytes = log.blob(&path, &shard.blob.name).await?;
    let (number, mut rows) = format::shard::decode(&bytes).map_err(EngineError::damaged(&path))?;
    if let Home::Other(home) = &shard.blob.home {
        rows.iter_mut().for_each(|row| row.rehome(home));
    }
    let listed = shard.rows.iter().map(|(chunk, _)| *chunk);
    if number != shard.shard || !listed.eq(rows.iter().map(|row| row.chunk)) {
        return Err(log.inconsistent(format!("{path} does not hold the rows that the manifest snapshot lists")));
    }
    Ok(rows)
}

/// The rows of a log opened at some record.
pub async fn rows(log: &Log, opened: &Opened) -> Result<Rows, EngineError> {
    let (opened, mut rows) = standing(log, opened).await?;
    apply(&mut rows, &opened.ops);
    Ok(rows)
}

/// The rows that it starts from, and the log opened from there. Where a pruner has taken the manifest snapshot it was opened
/// from, or that one landed after its rows were pruned, the same state is read from another before that is an error (rule P2).
async fn standing<'a>(log: &Log, opened: &'a Opened) -> Result<(Cow<'a, Opened>, Rows), EngineError> {
    let Some(snapshot) = &opened.snapshot else { return Ok((Cow::Borrowed(opened), Rows::new())) };
    let error = match snapshot_rows(log, snapshot).await {
        Err(error) if is_missing(&error) => error,
        rows => return Ok((Cow::Borrowed(opened), rows?)),
    };
    for start in log.snapshots_at_or_before(opened.tail.seq).await? {
        let Some(again) = log.reopen(opened, start).await?.filter(|_| start != snapshot.seq) else { continue };
        let Some(other) = &again.snapshot else { continue };
        match snapshot_rows(log, other).await {
            Err(error) if is_missing(&error) => {}
            rows => return Ok((Cow::Owned(again), rows?)),
        }
    }
    Err(error)
}

/// Replaces what the local manifest knows of the volume by all that the object store says. Until all of it is there the volume
/// counts as unknown: whoever dies in the middle begins again.
pub async fn rebuild(
    log: &Log,
    opened: &Opened,
    manifest: &dyn Manifest,
    components: &Components,
) -> Result<VolumeRow, EngineError> {
    let (opened, mut rows) = standing(log, opened).await?;
    let mut row = reset(&opened, &rows, manifest, components)?;
    apply(&mut rows, &opened.ops);
    identities(log, &rows, manifest, &row, &*components.progress).await?;
    components.faults.reach("rebuild.identities")?;
    known(&mut row, manifest, components)?;
    Ok(row)
}

/// Replaces what the local manifest knows of the volume by where its log ends and what was done since the newest manifest
/// snapshot. Rows stay where they are, and so do identities, until somebody needs them ([`super::partial`]): it costs the same
/// whatever the database's size.
pub async fn begin(
    log: &Log,
    opened: &Opened,
    manifest: &dyn Manifest,
    components: &Components,
) -> Result<VolumeRow, EngineError> {
    if !stands(log, opened).await? {
        return rebuild(log, opened, manifest, components).await;
    }
    let mut row = reset(opened, &Rows::new(), manifest, components)?;
    known(&mut row, manifest, components)?;
    Ok(row)
}

/// Whether the manifest snapshot can be relied on to hold rows. One that landed late, when a prune had gone by, stands for nothing:
/// the shards that were made for it were nobody's when the prune looked, so that one of them tells.
async fn stands(log: &Log, opened: &Opened) -> Result<bool, EngineError> {
    let shards = opened.snapshot.iter().flat_map(|snapshot| &snapshot.shards);
    let Some(newest) = shards.max_by_key(|shard| shard.blob.name.birth) else { return Ok(true) };
    match log.remote().size(&fetch::blob_path(log, &newest.blob)).await {
        Ok(_) => Ok(true),
        Err(RemoteError::Missing { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Forgets the volume, then says where its log ends, what was done since the manifest snapshot, and these rows of that snapshot.
/// Until [`known`] the row says that its tail was never seen: whoever finds it so after a crash begins again.
fn reset(
    opened: &Opened,
    rows: &Rows,
    manifest: &dyn Manifest,
    components: &Components,
) -> Result<VolumeRow, EngineError> {
    let id = opened.meta.id;
    let start = opened.snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq);
    let mut row = VolumeRow { meta: opened.meta.clone(), tail: opened.tail.clone(), fenced: None };
    row.tail.seen_ms = 0;
    let at_start = VolumeRow { tail: crate::log::read::start_of(opened), ..row.clone() };
    manifest
        .commit(&id, &Batch { reset: true, volume: Some(at_start), ops: as_ops(rows, opened), ..Batch::default() })?;
    components.faults.reach("rebuild.reset")?;
    let (before, since): (Vec<RecordSummary>, Vec<RecordSummary>) =
        opened.recent.iter().cloned().partition(|record| record.seq <= start);
    if let Some(first) = before.first().filter(|_| before.last().is_some_and(|last| last.seq == start)) {
        let log = Some((Seq(first.seq.0 - 1), before.clone()));
        manifest.commit(&id, &Batch { log, ..Batch::default() })?;
    }
    let entry = since.last().filter(|last| last.seq == opened.tail.seq).is_some().then_some((start, since));
    let ops = if entry.is_some() { opened.ops.clone() } else { Vec::new() };
    manifest.commit(&id, &Batch { volume: Some(row.clone()), ops, log: entry, ..Batch::default() })?;
    components.faults.reach("rebuild.rows")?;
    Ok(row)
}

/// What is there is to be relied on from here on.
fn known(row: &mut VolumeRow, manifest: &dyn Manifest, components: &Components) -> Result<(), EngineError> {
    row.tail.seen_ms = components.clock.wall_ms().max(1);
    manifest.commit(&row.meta.id, &Batch { volume: Some(row.clone()), ..Batch::default() })?;
    Ok(())
}

fn as_ops(rows: &Rows, opened: &Opened) -> Vec<ManifestOp> {
    let figures = opened.snapshot.as_ref().map(|snapshot| snapshot.figures).unwrap_or_default();
    let mut ops: Vec<ManifestOp> =
        figures.page_size.map(|page_size| ManifestOp::Reshape { page_size }).into_iter().collect();
    ops.push(ManifestOp::Resize { page_count: figures.page_count });
    rows.values().for_each(|row| ops.extend(row_ops(row)));
    let sessions = opened.snapshot.iter().flat_map(|snapshot| &snapshot.sessions);
    ops.extend(sessions.cloned().map(ManifestOp::Session));
    let objects = opened.snapshot.iter().flat_map(|snapshot| &snapshot.objects);
    ops.extend(objects.cloned().map(ManifestOp::Object));
    ops
}

/// Operations that make a row, whatever part of it is there.
pub(super) fn row_ops(row: &ChunkRow) -> impl Iterator<Item = ManifestOp> + '_ {
    let base = row.base.iter().map(|base| ManifestOp::PutBase { chunk: row.chunk, base: base.clone() });
    let segment = row.segment.iter();
    let segment = segment.map(|segment| ManifestOp::PutSegment { chunk: row.chunk, segment: segment.clone() });
    let deltas = row.deltas.iter().map(|delta| ManifestOp::PutDelta { chunk: row.chunk, delta: delta.clone() });
    base.chain(deltas).chain(segment)
}

/// Learns every live page's identity from the footers of the blobs, one suffix GET each.
pub(super) async fn identities(
    log: &Log,
    rows: &Rows,
    manifest: &dyn Manifest,
    row: &VolumeRow,
    progress: &dyn Progress,
) -> Result<(), EngineError> {
    let mut blobs: Vec<BlobRef> = rows.values().flat_map(ChunkRow::blobs).cloned().collect();
    blobs.sort_by(|a, b| (&a.home, a.name).cmp(&(&b.home, b.name)));
    blobs.dedup();
    progress.phase("reading page identities", blobs.len() as u64, Unit::Objects);
    let mut packs: HashMap<BlobRef, Arc<format::blob::Index>> = HashMap::new();
    // Packs serve many chunks, so that all are read first; bases one chunk each, so that they pass by.
    let pack_blobs: Vec<BlobRef> = blobs.iter().filter(|blob| blob.name.kind == BlobKind::Pack).cloned().collect();
    let read: Vec<(BlobRef, format::blob::Index)> = stream::iter(pack_blobs)
        .map(|blob| {
            let log = log.clone();
            async move { fetch::index(&log, &blob).await.map(|index| (blob, index)) }
        })
        .buffered(TRANSFERS_IN_FLIGHT)
        .try_collect()
        .await?;
    progress.advance(read.len() as u64);
    packs.extend(read.into_iter().map(|(blob, index)| (blob, Arc::new(index))));
    let bases: Vec<(ChunkId, Option<BlobRef>)> =
        rows.values().map(|row| (row.chunk, row.base.as_ref().map(|base| base.blob.clone()))).collect();
    let mut read = stream::iter(bases)
        .map(|(chunk, blob)| {
            let log = log.clone();
            async move {
                match blob {
                    Some(blob) => fetch::index(&log, &blob).await.map(|index| (chunk, Some(index))),
                    None => Ok((chunk, None)),
                }
            }
        })
        .buffered(TRANSFERS_IN_FLIGHT);
    while let Some((chunk, base)) = read.try_next().await? {
        let Some(known) = rows.get(&chunk) else { continue };
        let mut live: BTreeMap<PageNo, PageIdentity> = BTreeMap::new();
        let mut learn = |index: &format::blob::Index, blob: &BlobRef, table: &FrameTable, last_live: PageNo| {
            // A footer that is whole may still be another blob's: what it says of pages would hide changes.
            let Some(own) = index.chunks.iter().find(|entry| entry.chunk == chunk && entry.table == *table) else {
                return Err(log.inconsistent(format!("{} is not the blob that chunk {chunk} names", blob.name)));
            };
            live.extend(own.identities.iter().filter(|(page, _)| *page <= last_live).copied());
            Ok(())
        };
        if let (Some(known), Some(index)) = (&known.base, &base) {
            learn(index, &known.blob, &known.table, known.last_live)?;
        }
        for delta in &known.deltas {
            if let Some(index) = packs.get(&delta.blob) {
                learn(index, &delta.blob, &delta.table, delta.last_live)?;
            }
        }
        let identities = live.into_iter().collect();
        manifest.commit(&row.meta.id, &Batch { identities, ..Batch::default() })?;
        progress.advance(1);
    }
    Ok(())
}
