//! Manifest snapshots: the state of the log as objects that an opener can range-read.

use super::rebuild::{Rows, apply, shard_rows};
use super::skeleton::skeleton;
use crate::error::EngineError;
use crate::lazy::state::unchanged;
use crate::log::Writer;
use crate::log::publish::InMemory;
use crate::log::read::is_missing;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_format as format;
use littoral_format::{identity, keys};
use littoral_plan::{SnapshotPressure, snapshot_due};
use littoral_ports::{Batch, Manifest, PageSource, RemoteError};
use littoral_types::limits::{
    HEAD_INLINE_MAX, HEAD_INTERVAL_MS, PRUNE_CHANGES_MAX, SHARD_CHUNKS, SNAPSHOT_ROWS_MAX, TRANSFERS_IN_FLIGHT,
};
use littoral_types::{
    BlobKind, BlobName, BlobRef, Change, ChangeSeq, ChunkId, ChunkRow, Geometry, Head, Home, ManifestOp, PageNo, Seq,
    ShardRef, Skeleton, Snapshot, SnapshotRef, VolumeKind, VolumeRow,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The change log's cursor of those who sum up: index records and manifest snapshots.
pub const CURSOR: &str = "index";
/// That of prunes: what they would have to read of the object store otherwise.
pub const PRUNE_CURSOR: &str = "prune";

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// As of which record.
    pub seq: Seq,
    /// Shards written anew.
    pub shards: usize,
    /// Rows in them.
    pub rows: usize,
    /// Bytes of shards and snapshot.
    pub bytes: u64,
}

/// Writes a manifest snapshot when the plan says that one is due.
pub async fn snapshot_if_due(
    writer: &mut Writer,
    source: Option<&mut dyn PageSource>,
) -> Result<Option<Written>, EngineError> {
    writer.settle().await?;
    let tail = &writer.row().tail;
    let changes = writer.manifest().changes_since(&writer.row().meta.id, tail.snapshot)?;
    let ops_bytes = changes.iter().map(|change| format::ops::encoded_len(&change.ops) as u64).sum();
    let pressure = SnapshotPressure {
        exists: tail.snapshot > Seq::ZERO,
        changed: changes.iter().any(|change| !change.ops.is_empty()),
        records: tail.seq.0 - tail.snapshot.0,
        ops_bytes,
        // The head is written with snapshots only, so that the oldest change since tells how old it is at least.
        head_age_ms: changes
            .iter()
            .flat_map(|change| &change.records)
            .map(|record| record.time_ms)
            .min()
            .map(|first| writer.components().clock.wall_ms().saturating_sub(first)),
    };
    if snapshot_due(&pressure) { write_snapshot(writer, source).await.map(Some) } else { Ok(None) }
}

/// Writes a manifest snapshot of the tail, and the head. Doing it again at the same tail finds it done. Where segments came since the
/// newest checkpoint nothing is written: that what is to be folded stands behind the newest snapshot is how the next one finds it.
pub async fn write_snapshot(writer: &mut Writer, source: Option<&mut dyn PageSource>) -> Result<Written, EngineError> {
    writer.settle().await?;
    let row = writer.row().clone();
    let tail = &row.tail;
    let faults = writer.components().faults.clone();
    if tail.snapshot == tail.seq || !super::checkpoint::unfolded(writer)?.is_empty() {
        return Ok(Written { seq: tail.snapshot, shards: 0, rows: 0, bytes: 0 });
    }
    let previous = match tail.snapshot {
        Seq::ZERO => writer.beginning().await?,
        seq => writer.log().snapshot(seq).await?,
    };
    let changes = writer.manifest().changes_since(&row.meta.id, tail.snapshot)?;
    // What is not known here was to be read from the one before.
    let gone = tail.snapshot > Seq::ZERO && previous.is_none();
    let all: Option<Vec<ChunkRow>> = if gone {
        let path = keys::snapshot(writer.log().name(), tail.snapshot).to_string();
        Some(super::partial::again(writer, RemoteError::Missing { path }.into()).await?)
    } else {
        None
    };
    let geometry = tail.figures.page_size.map(Geometry::new);
    let (chunks, touched) = match row.meta.kind {
        VolumeKind::Database => (
            geometry.map_or(0, |geometry| geometry.chunk_count(tail.figures.page_count)),
            touched(&changes, previous.as_ref(), geometry),
        ),
        VolumeKind::Log => {
            let ops = changes.iter().flat_map(|change| &change.ops);
            let touched = ops.filter_map(ManifestOp::chunk).map(|chunk| chunk.0 / SHARD_CHUNKS).collect();
            (segments(writer)?, previous.is_some().then_some(touched))
        }
    };
    let mut kept: Vec<ShardRef> = Vec::new();
    let mut fresh: Vec<(u64, Vec<ChunkRow>)> = Vec::new();
    for shard in 0..chunks.div_ceil(SHARD_CHUNKS) {
        let old = previous.as_ref().and_then(|previous| previous.shards.iter().find(|old| old.shard == shard));
        match old.filter(|_| touched.as_ref().is_some_and(|touched| !touched.contains(&shard))) {
            Some(old) => kept.push(old.clone()),
            None => {
                let first = ChunkId(shard * SHARD_CHUNKS);
                let rows = match &all {
                    Some(all) => all.clone(),
                    None => writer.manifest().rows(&row.meta.id, first, SHARD_CHUNKS as usize)?,
                };
                let mut rows = rows.into_iter().filter(|row| row.chunk.0 / SHARD_CHUNKS == shard).collect::<Vec<_>>();
                let is_told = row.meta.kind == VolumeKind::Log;
                if let Some(old) = old.filter(|old| !is_told && !knows(&rows, old)) {
                    rows = brought_up(writer, old, &changes).await?;
                }
                if !rows.is_empty() {
                    fresh.push((shard, rows));
                }
            }
        }
    }
    let known: BTreeMap<u64, Vec<ChunkRow>> = fresh.iter().cloned().collect();
    let (shards_written, rows_written) = (fresh.len(), fresh.iter().map(|(_, rows)| rows.len()).sum());
    faults.reach("snapshot.shards")?;
    let log = writer.log().clone();
    let birth = tail.seq;
    let uploaded: Vec<ShardRef> = stream::iter(fresh)
        .map(|(shard, rows)| {
            let log = log.clone();
            async move { put_shard(&log, birth, shard, &rows).await }
        })
        .buffered(TRANSFERS_IN_FLIGHT)
        .try_collect()
        .await?;
    let mut bytes = uploaded.iter().map(|shard| shard.blob.len).sum();
    let mut shards = kept;
    shards.extend(uploaded);
    shards.sort_by_key(|shard| shard.shard);
    let skeleton = match source {
        // A source that moves shows pages that are newer than the state that is summed up.
        Some(source) if tail.figures.page_size == Some(source.page_size()) => {
            let skeleton = skeleton(source)?;
            source.rest()?;
            skeleton
        }
        _ => previous.as_ref().map(|previous| previous.skeleton.clone()).unwrap_or_default(),
    };
    let skeleton = as_published(writer, skeleton, previous.as_ref(), &changes)?;
    let rows = travelling(&shards, &known, previous.as_ref());
    let snapshot = Snapshot {
        volume: row.meta.clone(),
        seq: tail.seq,
        record: tail.hash,
        epoch: tail.epoch,
        incarnation: tail.incarnation,
        lsn: tail.lsn,
        time_ms: tail.time_ms,
        figures: tail.figures,
        schema: tail.schema,
        owner: tail.owner.clone(),
        floor: tail.floor,
        shards,
        rows,
        skeleton,
        sessions: writer.manifest().sessions(&row.meta.id)?,
        objects: writer.manifest().objects(&row.meta.id)?,
    };
    let directory = snapshot.shards.clone();
    let stored = put_snapshot(&log, &snapshot).await?;
    bytes += stored;
    faults.reach("snapshot.stored")?;
    // The head has one writer and is one object: it is spared (rule P8). An old one costs openers a few records more.
    let now = writer.components().clock.wall_ms();
    let rested = previous.as_ref().is_none_or(|old| now.saturating_sub(old.time_ms) >= HEAD_INTERVAL_MS);
    // Whoever lost must not point everybody at his own state.
    if rested && log.newest().await? == Some(tail.seq) {
        put_head(&log, snapshot, stored).await?;
    }
    faults.reach("snapshot.head")?;
    let seq = row.tail.seq;
    writer.note(|row| row.tail.snapshot = seq, Batch::default())?;
    writer.remember_shards(seq, directory);
    trim(writer)?;
    Ok(Written { seq, shards: shards_written, rows: rows_written, bytes })
}

/// The rows of all shards where they are few: those just written, and those that travelled with the manifest snapshot before.
pub(crate) fn travelling(
    shards: &[ShardRef],
    fresh: &BTreeMap<u64, Vec<ChunkRow>>,
    previous: Option<&Snapshot>,
) -> Vec<ChunkRow> {
    if shards.iter().map(|shard| shard.blob.len).sum::<u64>() > SNAPSHOT_ROWS_MAX {
        return Vec::new();
    }
    let mut rows: Vec<ChunkRow> = Vec::new();
    for shard in shards {
        let of_shard = |row: &&ChunkRow| row.chunk.0 / SHARD_CHUNKS == shard.shard;
        match fresh.get(&shard.shard) {
            Some(fresh) => rows.extend(fresh.iter().cloned()),
            None => rows.extend(previous.iter().flat_map(|previous| previous.rows.iter().filter(of_shard)).cloned()),
        }
    }
    let listed = shards.iter().flat_map(|shard| shard.rows.iter().map(|(chunk, _)| *chunk));
    if listed.eq(rows.iter().map(|row| row.chunk)) { rows } else { Vec::new() }
}

/// How many segments a log has had: their numbers end there.
fn segments(writer: &Writer) -> Result<u64, EngineError> {
    let (id, mut end) = (writer.row().meta.id, 0);
    loop {
        let rows = writer.manifest().rows(&id, ChunkId(end), SHARD_CHUNKS as usize)?;
        match rows.last() {
            Some(last) => end = last.chunk.0 + 1,
            None => return Ok(end),
        }
    }
}

/// Whether the local manifest knows all rows of a shard whole (see [`super::partial`]).
fn knows(rows: &[ChunkRow], old: &ShardRef) -> bool {
    old.rows.iter().all(|(chunk, _)| {
        let known = rows.binary_search_by_key(chunk, |row| row.chunk).ok().and_then(|at| rows.get(at));
        super::partial::is_whole(known)
    })
}

/// A shard's rows from the manifest snapshot before, with what was done since.
async fn brought_up(writer: &mut Writer, old: &ShardRef, changes: &[Change]) -> Result<Vec<ChunkRow>, EngineError> {
    let here = |chunk: ChunkId| chunk.0 / SHARD_CHUNKS == old.shard;
    let read = match shard_rows(writer.log(), old).await {
        Err(error) if is_missing(&error) => {
            let all = super::partial::again(writer, error).await?;
            return Ok(all.into_iter().filter(|row| here(row.chunk)).collect());
        }
        read => read?,
    };
    let mut rows: Rows = read.into_iter().map(|row| (row.chunk, row)).collect();
    let ops = changes.iter().flat_map(|change| &change.ops).filter(|op| op.chunk().is_none_or(here));
    apply(&mut rows, ops);
    Ok(rows.into_values().collect())
}

/// Puts the rows of a shard under their name.
pub(crate) async fn put_shard(
    log: &crate::log::Log,
    birth: Seq,
    shard: u64,
    rows: &[ChunkRow],
) -> Result<ShardRef, EngineError> {
    let (bytes, lengths) =
        format::shard::encode(shard, rows).map_err(EngineError::damaged(format!("shard {shard}")))?;
    let name = BlobName { kind: BlobKind::Shard, hash: format::hash::blob(&bytes), birth };
    let len = bytes.len() as u64;
    let checks = format::shard::checks(&bytes, &lengths);
    log.remote().upload(&keys::blob(log.name(), &name), &InMemory::new(Bytes::from(bytes))).await?;
    Ok(ShardRef { shard, blob: BlobRef { home: Home::Own, name, len }, rows: lengths, checks })
}

/// Puts a manifest snapshot under its name. One that is there already says the same.
pub(crate) async fn put_snapshot(log: &crate::log::Log, snapshot: &Snapshot) -> Result<u64, EngineError> {
    let path = keys::snapshot(log.name(), snapshot.seq);
    let bytes = Bytes::from(format::snapshot::encode(snapshot).map_err(EngineError::damaged(&path))?);
    let len = bytes.len() as u64;
    match log.remote().put_new(&path, bytes).await {
        Ok(()) | Err(RemoteError::Exists { .. }) => Ok(len),
        // Whether it landed decides nothing yet: reading it back does.
        Err(RemoteError::Unknown { .. }) if log.snapshot(snapshot.seq).await?.is_some() => Ok(len),
        Err(error) => Err(error.into()),
    }
}

/// Puts a manifest snapshot in place of one whose rows are gone.
pub(crate) async fn replace_snapshot(log: &crate::log::Log, snapshot: &Snapshot) -> Result<(), EngineError> {
    let path = keys::snapshot(log.name(), snapshot.seq);
    let bytes = format::snapshot::encode(snapshot).map_err(EngineError::damaged(&path))?;
    Ok(log.remote().put(&path, Bytes::from(bytes)).await?)
}

pub(crate) async fn put_head(log: &crate::log::Log, snapshot: Snapshot, stored: u64) -> Result<(), EngineError> {
    let head = Head {
        volume: snapshot.volume.id,
        epoch: snapshot.epoch,
        seq: snapshot.seq,
        snapshot: SnapshotRef { seq: snapshot.seq, record: snapshot.record },
        inline: (stored <= HEAD_INLINE_MAX as u64).then(|| Box::new(snapshot)),
    };
    let path = keys::head(log.name());
    let bytes = format::head::encode(&head).map_err(EngineError::damaged(&path))?;
    match log.remote().put(&path, Bytes::from(bytes)).await {
        Ok(()) => Ok(()),
        // A hint that was not written is an old hint.
        Err(error) => {
            tracing::warn!(%path, %error, "the head was not written: openers read a little more until the next one");
            Ok(())
        }
    }
}

/// Shards with a row that changed; `None` when all may have.
fn touched(changes: &[Change], previous: Option<&Snapshot>, geometry: Option<Geometry>) -> Option<BTreeSet<u64>> {
    let (previous, geometry) = (previous?, geometry?);
    let mut touched = BTreeSet::new();
    for op in changes.iter().flat_map(|change| &change.ops) {
        match op {
            ManifestOp::Reshape { .. } => return None,
            // A cut reaches every row from the one it falls into.
            ManifestOp::Resize { page_count } if *page_count < previous.figures.page_count => {
                let first = geometry.chunk_count(*page_count).saturating_sub(1) / SHARD_CHUNKS;
                let last = geometry.chunk_count(previous.figures.page_count) / SHARD_CHUNKS;
                touched.extend(first..=last);
            }
            ManifestOp::Resize { .. } => {}
            _ => touched.extend(op.chunk().map(|chunk| chunk.0 / SHARD_CHUNKS)),
        }
    }
    Some(touched)
}

/// Those pages of a skeleton that hold what the newest record says they hold: as their identities say, or, where those are not
/// known here, as the skeleton before says of pages that nothing has changed since.
fn as_published(
    writer: &Writer,
    skeleton: Skeleton,
    previous: Option<&Snapshot>,
    changes: &[Change],
) -> Result<Skeleton, EngineError> {
    let row = writer.row();
    let before: HashMap<PageNo, &[u8]> = previous
        .iter()
        .flat_map(|previous| previous.skeleton.pages.iter().map(|page| (page.page, page.image.as_slice())))
        .collect();
    let same = previous.map_or_else(BTreeSet::new, |previous| {
        unchanged(before.keys().copied().collect(), previous.figures, changes.iter().flat_map(|change| &change.ops))
    });
    let mut pages = Vec::with_capacity(skeleton.pages.len());
    for page in skeleton.pages {
        let known = writer.manifest().identities(&row.meta.id, page.page, 1)?.first().copied().flatten();
        let holds = match known {
            Some(known) => known == identity::of(&row.meta.identity_key, &page.image),
            None => same.contains(&page.page) && before.get(&page.page) == Some(&page.image.as_slice()),
        };
        if holds {
            pages.push(page);
        }
    }
    Ok(Skeleton { pages })
}

/// Lets go of the change log's entries that no index record, no snapshot and no prune will ask for again, in any volume of the store.
pub fn trim(writer: &Writer) -> Result<u64, EngineError> {
    let manifest = &**writer.manifest();
    let summed_up = move_on(manifest, CURSOR, ChangeSeq(0), |row| {
        row.tail.snapshot.min(row.tail.index.map_or(Seq::ZERO, |(seq, _)| seq))
    })?;
    // What a prune would have to read again is worth some room, and no more: how much there is to read is not its correctness.
    let at_least = ChangeSeq(summed_up.0.saturating_sub(PRUNE_CHANGES_MAX));
    // Where nobody ever pruned, nobody begins with what is young.
    move_on(manifest, PRUNE_CURSOR, at_least, |row| match row.tail.floor {
        Seq::ZERO => Seq(u64::MAX),
        // The floor's own entry says that the chain is the one that was known.
        floor => Seq(floor.0 - 1),
    })?;
    Ok(manifest.trim()?)
}

/// Moves a cursor past the entries that nobody needs: up to where the first one stands that is after what its volume's row says, and in
/// any case up to `at_least`.
fn move_on(
    manifest: &dyn Manifest,
    cursor: &str,
    at_least: ChangeSeq,
    needed_after: impl Fn(&VolumeRow) -> Seq,
) -> Result<ChangeSeq, EngineError> {
    let mut done = manifest.subscribe(cursor)?.max(at_least);
    'log: loop {
        let step = manifest.changes(done, 256)?;
        if step.is_empty() {
            break;
        }
        // Looked at after the changes: others of this store extend their own logs meanwhile, and one that has no row then has none.
        let volumes = manifest.volumes()?;
        for change in step {
            let row = volumes.iter().find(|row| row.meta.id == change.volume);
            if change.seq() > row.map_or(Seq(u64::MAX), &needed_after) {
                break 'log;
            }
            done = ChangeSeq(change.change.0);
        }
    }
    manifest.acknowledge(cursor, done)?;
    Ok(done)
}
