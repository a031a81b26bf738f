//! What nobody needs any more goes: named in a record first, deleted after (rules P1, P2, P5; invariant I9).
//!
//! 1. The oldest restore point that stays is chosen; a manifest snapshot is made to stand there.
//! 2. Everything reachable from there on, and from every pin, is gathered; a pinned state gets a manifest snapshot of its own.
//!    What else lies in the volume's folders is doomed, orphans included.
//! 3. A `Prune` record names it. From here on no record will name any of it again.
//! 4. The pins are listed once more: whoever pinned before the record was published is spared.
//! 5. The rest is deleted, in steps, each after a look at the tail: a pruner whose term has ended stops.

use super::rebuild::{Rows, rows, snapshot_rows};
use super::snapshot::{put_shard, put_snapshot, replace_snapshot, travelling};
use crate::error::EngineError;
use crate::log::pins::Pinned;
use crate::log::{Draft, Log, Opened, Writer};
use littoral_format::keys::{self, Folder, ObjectKey, PinKey};
use littoral_plan::{KeepPolicy, RestorePoint, prune_floor};
use littoral_ports::{Batch, RemoteError, Unit};
use littoral_types::limits::{PRUNE_GRACE_MS, SHARD_CHUNKS};
use littoral_types::{
    BlobKind, BlobName, BodyPlace, ChunkRow, FooterFigures, Home, ObjectPath, PinPurpose, Prune, RecordBody,
    RecordKind, Seq, Skeleton, Snapshot,
};
use std::collections::{BTreeMap, BTreeSet};

/// Deletions between two looks at the tail.
const STEP: usize = 500;

/// What is to stay.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which restore points.
    pub keep: KeepPolicy,
    /// Records younger than this stay, whatever else is said (rule P5).
    pub grace_ms: u64,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What went, or would go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The oldest restore point that stays. Pins may keep records before it, as the way to what they hold.
    pub floor: Seq,
    /// Records that went.
    pub records: u64,
    /// Manifest snapshots that went.
    pub snapshots: u64,
    /// Blobs that went, by folder.
    pub blobs: u64,
    /// Bytes of all of these.
    pub bytes: u64,
    /// Things doomed by the record and spared because a pin turned up.
    pub spared: u64,
    /// Pins that had expired and went.
    pub pins: u64,
}

/// What a state needs.
#[derive(Default)]
struct Needed {
    blobs: BTreeSet<BlobName>,
    snapshots: BTreeSet<Seq>,
    /// Records whose frames hold pages.
    records: BTreeSet<Seq>,
    /// Records from here on.
    floor: Option<Seq>,
    /// Something pinned up to here cannot be read: whatever was born before may be part of it.
    unknown_until: Option<Seq>,
}

impl Needed {
    fn rows(&mut self, rows: &Rows) {
        for blob in rows.values().flat_map(ChunkRow::blobs).filter(|blob| blob.home == Home::Own) {
            match blob.name.kind {
                BlobKind::Record => drop(self.records.insert(blob.name.birth)),
                _ => drop(self.blobs.insert(blob.name)),
            }
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot) {
        self.snapshots.insert(snapshot.seq);
        let shards = snapshot.shards.iter().map(|shard| &shard.blob);
        self.blobs.extend(shards.filter(|blob| blob.home == Home::Own).map(|blob| blob.name));
    }
}

/// Prunes a volume. `None` when there is nothing that could go.
pub async fn prune(writer: &mut Writer, options: &Options) -> Result<Option<Pruned>, EngineError> {
    // A look finishes nothing that was interrupted, and publishes nothing that is due.
    if !options.dry_run {
        writer.settle().await?;
        writer.index_if_due().await?;
    }
    let log = writer.log().clone();
    let components = writer.components().clone();
    let now = components.clock.wall_ms();
    let Some(opened) = log.open().await? else { return Err(EngineError::NoVolume(log.url())) };
    if opened.tail.hash != writer.row().tail.hash {
        return Err(writer.find_out_who_won().await?);
    }
    let Some(floor) = floor(&log, &opened, options, now).await? else { return Ok(None) };

    let pins = log.pins().await?;
    let (expired, pins): (Vec<Pinned>, Vec<Pinned>) = pins
        .into_iter()
        .partition(|pinned| pinned.pin.expires_ms.is_some_and(|end| end.saturating_add(options.grace_ms) < now));
    let mut needed = Needed::default();
    if !options.dry_run && floor > opened.tail.floor {
        stand_at(&log, floor).await?;
        // From here on every record says that there is nothing to start from before this manifest snapshot.
        writer.note(|row| row.tail.snapshot = row.tail.snapshot.max(floor), Batch::default())?;
    }
    needed_since(&log, floor, &opened, &mut needed).await?;
    for pinned in &pins {
        needed_by(&log, pinned, opened.tail.floor, options.dry_run, &mut needed).await?;
    }
    let doomed = doomed(&log, &needed, now).await?;
    let mut pruned = Pruned { floor, ..Pruned::default() };
    if options.dry_run {
        doomed.iter().for_each(|object| pruned.count(object));
        pruned.pins = expired.len() as u64;
        return Ok(Some(pruned));
    }
    if doomed.is_empty() && expired.is_empty() {
        return Ok(None);
    }
    components.faults.reach("prune.planned")?;
    // Blobs of an interrupted checkpoint are orphans as far as anybody can see: it will make them again (rule P1).
    writer.note(|_| {}, Batch { job: Some(None), ..Batch::default() })?;
    let body = Prune {
        floor: pruned.floor,
        blobs: doomed
            .iter()
            .filter_map(|object| if let ObjectKey::Blob(name) = object.key { Some(name) } else { None })
            .collect(),
        snapshots: doomed
            .iter()
            .filter_map(|object| if let ObjectKey::Snapshot(seq) = object.key { Some(seq) } else { None })
            .collect(),
    };
    let figures = writer.row().tail.figures;
    let draft = Draft {
        body: RecordBody::Prune(body),
        commits: 0,
        figures,
        added: FooterFigures::default(),
        identities: Vec::new(),
    };
    writer.publish(draft).await?;
    components.faults.reach("prune.published")?;

    let mut late = Needed::default();
    for pinned in log.pins().await?.iter().filter(|pinned| !pins.contains(pinned) && !expired.contains(pinned)) {
        needed_by(&log, pinned, opened.tail.floor, false, &mut late).await?;
    }
    let (spared, doomed): (Vec<Doomed>, Vec<Doomed>) = doomed.into_iter().partition(|object| late.needs(&object.key));
    pruned.spared = spared.len() as u64;
    components.progress.phase("deleting", doomed.len() as u64, Unit::Objects);
    // What names goes before what is named: a manifest snapshot that is found is whole, and so is the log from any record on.
    let (mut naming, named): (Vec<Doomed>, Vec<Doomed>) =
        doomed.into_iter().partition(|object| matches!(object.key, ObjectKey::Record(_) | ObjectKey::Snapshot(_)));
    naming.sort_by(|a, b| b.path.cmp(&a.path));
    for step in naming.chunks(STEP).chain(named.chunks(STEP)) {
        still_ours(&log, writer).await?;
        let paths: Vec<ObjectPath> = step.iter().map(|object| object.path.clone()).collect();
        log.remote().delete(&paths).await?;
        step.iter().for_each(|object| pruned.count(object));
        components.progress.advance(step.len() as u64);
        components.faults.reach("prune.deleted")?;
    }
    for pinned in expired {
        log.unpin(&pinned.key).await?;
        pruned.pins += 1;
    }
    Ok(Some(pruned))
}

/// The oldest record that stays.
async fn floor(log: &Log, opened: &Opened, options: &Options, now: u64) -> Result<Option<Seq>, EngineError> {
    let mut history = log.history(&opened.glance(), opened.tail.seq.next(), usize::MAX).await?;
    history.reverse();
    let points: Vec<RestorePoint> = history
        .iter()
        .filter(|record| matches!(record.kind, RecordKind::Checkpoint | RecordKind::Segment))
        .map(|record| RestorePoint { seq: record.seq, lsn: record.lsns.last, time_ms: record.time_ms })
        .collect();
    let Some(kept) = prune_floor(&points, options.keep, now) else { return Ok(None) };
    // A name that is free again could be won by a writer that was silent: only names that are older than any silence.
    let young =
        history.iter().find(|record| record.time_ms.saturating_add(options.grace_ms) > now).map(|record| record.seq);
    let floor = young.map_or(kept.seq, |young| young.min(kept.seq));
    // The state at the floor must be a checkpoint's, so that a manifest snapshot there is one to restore.
    let checkpoints = history.iter().filter(|record| record.kind == RecordKind::Checkpoint);
    Ok(checkpoints.rev().find(|record| record.seq <= floor).map(|record| record.seq))
}

/// What every record from the floor on needs.
async fn needed_since(log: &Log, floor: Seq, newest: &Opened, needed: &mut Needed) -> Result<(), EngineError> {
    needed.floor = Some(floor);
    let opened = open_floor(log, floor).await?;
    needed.rows(&rows(log, &opened).await?);
    // Others may have gone on meanwhile: then the newest record that was known is one of those that are read.
    let last = log.newest().await?.map_or(newest.tail.seq, |last| last.max(newest.tail.seq));
    let mut came_by = opened.tail.hash == newest.tail.hash;
    let end = log.walk(opened.link(), last, |record| {
        came_by |= record.envelope.hash == newest.tail.hash;
        // An index repeats what stood before the floor too; what is still alive of that, the floor's rows name.
        let ops = if record.envelope.kind == RecordKind::Index { &[] } else { record.body.ops() };
        needed.blobs.extend(
            ops.iter()
                .filter_map(|op| match op {
                    littoral_types::ManifestOp::PutBase { base, .. } => Some(&base.blob),
                    littoral_types::ManifestOp::PutDelta { delta, .. } => Some(&delta.blob),
                    littoral_types::ManifestOp::ReplaceDeltas { delta, .. } => delta.as_ref().map(|delta| &delta.blob),
                    _ => None,
                })
                .filter(|blob| blob.home == Home::Own)
                .map(|blob| blob.name),
        );
        if let BodyPlace::Blob(blob) = &record.envelope.body {
            needed.blobs.insert(blob.name);
        }
    });
    // A record that cannot be read now may be there tomorrow, or be passed by with a later manifest snapshot: what it and those
    // behind it need is not known, and nothing may go (I9).
    let end = end.await?.seq;
    if !came_by {
        return Err(log.inconsistent(format!(
            "record {} is gone, and the log goes on to record {}: nothing is deleted",
            end.next(),
            newest.tail.seq
        )));
    }
    // The floor's own body, and every manifest snapshot from there on.
    if let Some(BodyPlace::Blob(blob)) = log.envelope(floor).await?.map(|envelope| envelope.body) {
        needed.blobs.insert(blob.name);
    }
    for meta in log.remote().list(&keys::folder(log.name(), Folder::Snapshots), None, usize::MAX).await? {
        if let Some((_, ObjectKey::Snapshot(seq))) = ObjectKey::parse(&meta.path)
            && seq >= floor
            && let Some(snapshot) = log.snapshot(seq).await?
        {
            needed.snapshot(&snapshot);
        }
    }
    Ok(())
}

async fn open_floor(log: &Log, floor: Seq) -> Result<Opened, EngineError> {
    let gone = || log.inconsistent(format!("record {floor}, the oldest that is to stay, is gone"));
    log.open_at(floor).await?.ok_or_else(gone)
}

/// What a pin needs: the manifest snapshot at its record, which is made where there is none, so that no record before the floor is
/// needed for it.
async fn needed_by(
    log: &Log,
    pinned: &Pinned,
    floor_before: Seq,
    dry_run: bool,
    needed: &mut Needed,
) -> Result<(), EngineError> {
    let seq = pinned.pin.seq;
    let standing = if dry_run { log.snapshot(seq).await?.is_some() } else { stand_at(log, seq).await? };
    if standing && let Some(snapshot) = log.snapshot(seq).await? {
        needed.rows(&snapshot_rows(log, &snapshot).await?);
        needed.snapshot(&snapshot);
        return Ok(());
    }
    match log.open_at(seq).await? {
        Some(opened) => {
            needed.rows(&rows(log, &opened).await?);
            Ok(())
        }
        // An earlier prune doomed it before it was pinned, and the pinner did not live to take the pin back (rule P2).
        None if seq < floor_before => {
            // Or its manifest snapshot is missing, today or for good: then nothing that may be part of it is deleted (I9).
            tracing::warn!(volume = %log.name(), key = ?pinned.key, %seq, "a pin holds a state that cannot be read");
            needed.unknown_until = needed.unknown_until.max(Some(seq));
            Ok(())
        }
        None => Err(log.inconsistent(format!("the state of record {seq}, which a pin holds, cannot be read"))),
    }
}

impl Needed {
    fn needs(&self, key: &ObjectKey) -> bool {
        match key {
            // The rows of an older state may have been summed up later.
            ObjectKey::Blob(name) => {
                let unknown = self.unknown_until.is_some_and(|seq| name.birth <= seq || name.kind == BlobKind::Shard);
                unknown || self.blobs.contains(name)
            }
            ObjectKey::Snapshot(seq) => {
                self.unknown_until.is_some_and(|until| *seq <= until) || self.snapshots.contains(seq)
            }
            ObjectKey::Record(seq) => {
                let unknown = self.unknown_until.is_some_and(|until| *seq <= until);
                unknown || self.records.contains(seq) || self.floor.is_some_and(|floor| *seq >= floor)
            }
            ObjectKey::Pin(_) | ObjectKey::Head => true,
            ObjectKey::Probe(_) => false,
        }
    }
}

/// One object that goes.
struct Doomed {
    path: ObjectPath,
    key: ObjectKey,
    len: u64,
}

impl Pruned {
    fn count(&mut self, object: &Doomed) {
        self.bytes += object.len;
        match object.key {
            ObjectKey::Record(_) => self.records += 1,
            ObjectKey::Snapshot(_) => self.snapshots += 1,
            _ => self.blobs += 1,
        }
    }
}

async fn doomed(log: &Log, needed: &Needed, now: u64) -> Result<Vec<Doomed>, EngineError> {
    let mut doomed = Vec::new();
    let folders =
        [Folder::Log, Folder::Snapshots].into_iter().chain(BlobKind::ALL.map(Folder::Blobs)).chain([Folder::Probe]);
    for folder in folders {
        for meta in log.remote().list(&keys::folder(log.name(), folder), None, usize::MAX).await? {
            // What does not parse is not ours to delete.
            let Some((_, key)) = ObjectKey::parse(&meta.path) else { continue };
            // A young probe object may be part of a race that is being run.
            let racing = matches!(key, ObjectKey::Probe(_)) && meta.modified_ms.saturating_add(PRUNE_GRACE_MS) > now;
            if !needed.needs(&key) && !racing {
                doomed.push(Doomed { path: meta.path, key, len: meta.len });
            }
        }
    }
    Ok(doomed)
}

/// Makes a manifest snapshot stand at a record, so that records before it can go. False when the record is gone.
async fn stand_at(log: &Log, seq: Seq) -> Result<bool, EngineError> {
    if let Some(snapshot) = log.snapshot(seq).await?
        && is_whole(log, &snapshot).await?
    {
        return Ok(true);
    }
    let Some(opened) = log.open_at(seq).await? else { return Ok(false) };
    let birth = log.newest().await?.unwrap_or(seq);
    let mut shards = Vec::new();
    let list: Vec<ChunkRow> = rows(log, &opened).await?.into_values().collect();
    let mut fresh = BTreeMap::new();
    for rows in list.chunk_by(|a, b| a.chunk.0 / SHARD_CHUNKS == b.chunk.0 / SHARD_CHUNKS) {
        if let Some(first) = rows.first() {
            fresh.insert(first.chunk.0 / SHARD_CHUNKS, rows.to_vec());
            shards.push(put_shard(log, birth, first.chunk.0 / SHARD_CHUNKS, rows).await?);
        }
    }
    let tail = &opened.tail;
    let snapshot = Snapshot {
        volume: opened.meta.clone(),
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
        rows: travelling(&shards, &fresh, None),
        shards,
        skeleton: Skeleton::default(),
    };
    put_snapshot(log, &snapshot).await?;
    // One whose writer died may land when a prune has taken the rows it names: it stands for nothing, and this one in its place.
    match log.snapshot(seq).await? {
        Some(there) if there == snapshot || is_whole(log, &there).await? => {}
        _ => replace_snapshot(log, &snapshot).await?,
    }
    Ok(true)
}

/// Whether all rows that a manifest snapshot names are there.
async fn is_whole(log: &Log, snapshot: &Snapshot) -> Result<bool, EngineError> {
    match snapshot_rows(log, snapshot).await {
        Ok(_) => Ok(true),
        Err(EngineError::Remote(RemoteError::Missing { .. })) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A pruner of a superseded epoch stops (rule P1).
async fn still_ours(log: &Log, writer: &mut Writer) -> Result<(), EngineError> {
    writer.settle().await?;
    if log.newest().await? == Some(writer.row().tail.seq) {
        return Ok(());
    }
    Err(writer.find_out_who_won().await?)
}

/// Takes back a named snapshot. True when there was one.
pub async fn drop_snapshot(log: &Log, name: &littoral_types::SnapshotName) -> Result<bool, EngineError> {
    let there = log.named(name).await?.is_some();
    if there {
        log.unpin(&PinKey::Snapshot(name.clone())).await?;
    }
    Ok(there)
}

/// All named snapshots, by name.
pub async fn named_snapshots(log: &Log) -> Result<Vec<Pinned>, EngineError> {
    let pins = log.pins().await?;
    Ok(pins.into_iter().filter(|pinned| matches!(pinned.pin.purpose, PinPurpose::Snapshot(_))).collect())
}
