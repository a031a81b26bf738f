//! What nobody needs any more goes: named in a record first, deleted after (rules P1, P2, P5; invariant I9).
//!
//! 1. The oldest record that stays is chosen, the floor; a manifest snapshot is made to stand there. Of the restore points before it those
//!    are chosen that a coarser history keeps; each gets a manifest snapshot of its own, and needs no record then.
//! 2. Everything reachable from there on, and from every pin, is gathered; a pinned state gets a manifest snapshot, too.
//!    What else lies in the volume's folders is doomed, orphans included.
//! 3. A `Prune` record names it. From here on no record will name any of it again.
//! 4. The pins are listed once more: whoever pinned before the record was published is spared.
//! 5. The rest is deleted, in steps, each after a look at the tail: a pruner whose term has ended stops. Where nothing is to be deleted, or
//!    the object store allows it to nobody, the rest is listed: whoever may delete it needs to ask nobody any more.
//!
//! What the newest records name the change log knows, as long as it is kept for the next prune ([`super::snapshot::trim`]): they are not
//! read again. Blobs that no record names go when they are older than the grace, as whoever uploads them may be about to name them.

use super::at::kept_before;
use super::rebuild::{Rows, rows, snapshot_rows};
use super::replicate::refuse_promoted;
use super::snapshot::{put_shard, put_snapshot, replace_snapshot, travelling};
use crate::error::EngineError;
use crate::log::pins::Pinned;
use crate::log::{Draft, Log, Opened, ReadRecord, Writer};
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_format::keys::{self, Folder, ObjectKey, PinKey};
use littoral_plan::{KeepPolicy, RestorePoint, prune_floor, thinned};
use littoral_ports::{Batch, RemoteError, Unit};
use littoral_types::limits::{PRUNE_GRACE_MS, SHARD_CHUNKS, TRANSFERS_IN_FLIGHT};
use littoral_types::{
    BlobKind, BlobName, BlobRef, BodyPlace, Change, ChunkRow, Fork, Home, Lsn, ManifestOp, ObjectPath, PinPurpose,
    Prune, RecordBody, RecordKind, RecordSummary, Retention, Seq, Skeleton, Snapshot, VolumeId, Work,
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

impl Default for Options {
    /// The newest restore point, and what is young.
    fn default() -> Self {
        let keep = KeepPolicy { last: 1, within_ms: 0 };
        Self { keep, grace_ms: PRUNE_GRACE_MS, dry_run: false }
    }
}

/// How it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Whether what goes is deleted from here. Else the log says what may go, and somebody else does it.
    pub deletes: bool,
    /// The record of an earlier prune that deleted nothing: as long as it names all that may go, it is not said again.
    pub marked: Option<Seq>,
}

impl Default for How {
    fn default() -> Self {
        Self { deletes: true, marked: None }
    }
}

/// An object that the log says may go, and that lies there still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Where.
    pub path: ObjectPath,
    /// Its bytes.
    pub bytes: u64,
}

/// What went, or would go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The oldest restore point that stays. Pins may keep records before it, as the way to what they hold.
    pub floor: Seq,
    /// Restore points of before it that stay, as a coarser history.
    pub kept: u64,
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
    /// Records since the floor that were read.
    pub read: u64,
    /// Records since the floor that the change log knew.
    pub known: u64,
    /// The record that names what may go, and what of that was not deleted.
    pub marked: Option<Seq>,
    /// That.
    pub left: Vec<Left>,
    /// What the object store said when it was asked to delete.
    pub denied: Option<String>,
}

impl Pruned {
    /// Bytes that may go and lie there still.
    pub fn left_bytes(&self) -> u64 {
        self.left.iter().map(|left| left.bytes).sum()
    }
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
    /// Records after this one may have bodies that are blobs of their own, and the change log does not know their names.
    bodies_since: Option<Seq>,
    /// Some of it lies in a volume that this one was forked from, or is what another one was forked from.
    is_shared: bool,
    /// A manifest snapshot that a record names is not there: nobody can tell which shards are its own.
    every_shard: bool,
}

impl Needed {
    fn rows(&mut self, rows: &Rows) {
        rows.values().flat_map(ChunkRow::blobs).for_each(|blob| self.blob(blob));
    }

    fn blob(&mut self, blob: &BlobRef) {
        match (&blob.home, blob.name.kind) {
            (Home::Other(_), _) => self.is_shared = true,
            (Home::Own, BlobKind::Record) => drop(self.records.insert(blob.name.birth)),
            (Home::Own, _) => drop(self.blobs.insert(blob.name)),
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot) {
        self.snapshots.insert(snapshot.seq);
        snapshot.shards.iter().for_each(|shard| self.blob(&shard.blob));
    }
}

/// Prunes a volume. `None` when there is nothing that could go.
pub async fn prune(writer: &mut Writer, options: &Options) -> Result<Option<Pruned>, EngineError> {
    prune_thinning(writer, options, &Retention::all_within(0)).await
}

/// The same, and of what is older than that keeps a coarser history.
pub async fn prune_thinning(
    writer: &mut Writer,
    options: &Options,
    retention: &Retention,
) -> Result<Option<Pruned>, EngineError> {
    prune_as(writer, options, retention, How::default()).await
}

/// The same for who may not be allowed to delete.
pub async fn prune_as(
    writer: &mut Writer,
    options: &Options,
    retention: &Retention,
    how: How,
) -> Result<Option<Pruned>, EngineError> {
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
    let points = points(&log, &opened).await?;
    let Some(floor) = floor(&points, options, now) else { return Ok(None) };
    let kept = kept(&log, &points, floor, opened.tail.floor, retention, now).await?;

    let (mut expired, mut pins) = (Vec::new(), Vec::new());
    for pinned in log.pins().await? {
        let is_over = pinned.pin.expires_ms.is_some_and(|end| end.saturating_add(options.grace_ms) < now)
            || is_orphan(&log, &pinned, now).await?;
        if is_over { expired.push(pinned) } else { pins.push(pinned) }
    }
    let mut needed = Needed::default();
    if !options.dry_run && floor > opened.tail.floor {
        stand_at(&log, floor).await?;
        // From here on every record says that there is nothing to start from before this manifest snapshot.
        writer.note(|row| row.tail.snapshot = row.tail.snapshot.max(floor), Batch::default())?;
    }
    // What is merged just now is an orphan to whoever looks.
    let held = if options.dry_run { None } else { writer.lease_or_refuse(Work::Prune, None)? };
    let known = known(writer, floor)?;
    let read = needed_since(&log, floor, &opened, &known, &mut needed).await?;
    let kept = needed_by_kept(&log, kept, options.dry_run, &mut needed).await?;
    for pinned in &pins {
        needed_by(&log, pinned, opened.tail.floor, options.dry_run, &mut needed).await?;
    }
    // The record that says where it was forked from stays for as long as it needs anything from there.
    let born = log.record(Seq(1)).await?;
    if needed.is_shared {
        needed.first(born.as_ref());
    }
    let doomed = doomed(&log, &needed, opened.tail.seq, (now, options.grace_ms)).await?;
    let mut pruned = Pruned { floor, kept, read, known: known.len() as u64, ..Pruned::default() };
    drop(known);
    if options.dry_run {
        doomed.iter().for_each(|object| pruned.count(object));
        pruned.pins = expired.len() as u64;
        return Ok(Some(pruned));
    }
    if doomed.is_empty() && expired.is_empty() {
        return Ok(None);
    }
    if !how.deletes
        && let Some(seq) = how.marked
        && names(log.record(seq).await?.as_ref(), &doomed)
    {
        pruned.marked = Some(seq);
        pruned.leave(&log, &doomed, &expired);
        return Ok(Some(pruned));
    }
    if let Some(held) = &held {
        held.step()?;
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
    let draft = Draft::of(RecordBody::Prune(body), figures);
    pruned.marked = Some(writer.publish_under(held.as_deref(), draft, None).await?);
    components.faults.reach("prune.published")?;

    let mut late = Needed::default();
    for pinned in log.pins().await?.iter().filter(|pinned| !pins.contains(pinned) && !expired.contains(pinned)) {
        needed_by(&log, pinned, opened.tail.floor, false, &mut late).await?;
    }
    if late.is_shared {
        late.first(born.as_ref());
    }
    let (spared, doomed): (Vec<Doomed>, Vec<Doomed>) = doomed.into_iter().partition(|object| late.needs(&object.key));
    pruned.spared = spared.len() as u64;
    if !how.deletes {
        pruned.leave(&log, &doomed, &expired);
        return Ok(Some(pruned));
    }
    if let Some(RecordBody::Fork(fork)) = born.as_ref().map(|born| &born.body)
        && doomed.iter().any(|object| object.key == ObjectKey::Record(Seq(1)))
    {
        // While the record is there, a prune that dies here is done again.
        match leave(&log, fork).await {
            Err(EngineError::Remote(RemoteError::Denied { what, detail })) => {
                pruned.denied = Some(format!("{what}: {detail}"));
                pruned.leave(&log, &doomed, &expired);
                return Ok(Some(pruned));
            }
            left => left?,
        }
        components.faults.reach("prune.left")?;
    }
    components.progress.phase("deleting", doomed.len() as u64, Unit::Objects);
    // What names goes before what is named: a manifest snapshot that is found is whole, and so is the log from any record on.
    let (mut naming, named): (Vec<Doomed>, Vec<Doomed>) =
        doomed.into_iter().partition(|object| matches!(object.key, ObjectKey::Record(_) | ObjectKey::Snapshot(_)));
    naming.sort_by(|a, b| b.path.cmp(&a.path));
    let mut steps = naming.chunks(STEP).chain(named.chunks(STEP));
    while let Some(step) = steps.next() {
        still_ours(&log, writer).await?;
        let paths: Vec<ObjectPath> = step.iter().map(|object| object.path.clone()).collect();
        match log.remote().delete(&paths).await {
            // Nothing is broken by it: what was named may go at any time, and nobody names it again.
            Err(RemoteError::Denied { what, detail }) => {
                pruned.denied = Some(format!("{what}: {detail}"));
                pruned.leave(&log, step, &expired);
                steps.for_each(|step| pruned.leave(&log, step, &[]));
                return Ok(Some(pruned));
            }
            deleted => deleted?,
        }
        step.iter().for_each(|object| pruned.count(object));
        components.progress.advance(step.len() as u64);
        components.faults.reach("prune.deleted")?;
    }
    for pinned in expired {
        log.unpin(&pinned.key).await?;
        pruned.pins += 1;
    }
    pruned.marked = None;
    Ok(Some(pruned))
}

/// What went at a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyPruned {
    /// Prunes that are done there.
    pub done: Vec<Seq>,
    /// Records, manifest snapshots and blobs that went.
    pub objects: u64,
    /// Why the next prune waits, where something at the copy holds it up.
    pub held: Option<String>,
}

/// Deletes at a copy what prunes of the primary have doomed, one prune after the other: each when its record has lain at the copy for as long
/// as the grace, and nothing there that stays, nor any pin there, needs it. The copy's own manifest snapshots say what stays.
pub async fn prune_copy(
    copy: &Log,
    components: &crate::Components,
    prunes: &[Seq],
    grace_ms: u64,
) -> Result<CopyPruned, EngineError> {
    let now = components.clock.wall_ms();
    let mut pruned = CopyPruned::default();
    let listed = copy.remote().list(&keys::folder(copy.name(), Folder::Log), None, usize::MAX).await?;
    let mut records: BTreeMap<Seq, (ObjectPath, u64)> = BTreeMap::new();
    for meta in listed {
        if let Some((_, ObjectKey::Record(seq))) = ObjectKey::parse(&meta.path) {
            records.insert(seq, (meta.path, meta.modified_ms));
        }
    }
    for seq in prunes {
        let Some((_, came_ms)) = records.get(seq) else {
            // An older one that a newer one took.
            pruned.done.push(*seq);
            continue;
        };
        if came_ms.saturating_add(grace_ms) > now {
            return Ok(pruned);
        }
        let record = copy.record(*seq).await?.ok_or_else(|| copy.gone(*seq))?;
        let RecordBody::Prune(prune) = record.body else {
            return Err(copy.inconsistent(format!("record {seq} is no prune")));
        };
        let needed = match needed_at_copy(copy, &prune, now).await? {
            Ok(needed) => needed,
            Err(why) => {
                pruned.held = Some(why);
                return Ok(pruned);
            }
        };
        let older = records.range(..prune.floor).map(|(seq, (path, _))| (ObjectKey::Record(*seq), path.clone()));
        let snapshots =
            prune.snapshots.iter().map(|seq| (ObjectKey::Snapshot(*seq), keys::snapshot(copy.name(), *seq)));
        let blobs = prune.blobs.iter().map(|name| (ObjectKey::Blob(*name), keys::blob(copy.name(), name)));
        let goes = |object: &(ObjectKey, ObjectPath)| !needed.needs(&object.0);
        let mut naming: Vec<ObjectPath> = older.chain(snapshots).filter(goes).map(|(_, path)| path).collect();
        naming.sort_by(|a, b| b.cmp(a));
        let named: Vec<ObjectPath> = blobs.filter(goes).map(|(_, path)| path).collect();
        for step in naming.chunks(STEP).chain(named.chunks(STEP)) {
            refuse_promoted(copy).await?;
            copy.remote().delete(step).await?;
            pruned.objects += step.len() as u64;
            components.faults.reach("replicate.pruned")?;
        }
        records.retain(|seq, _| *seq >= prune.floor || needed.needs(&ObjectKey::Record(*seq)));
        pruned.done.push(*seq);
    }
    Ok(pruned)
}

/// What a copy needs of what a prune has doomed; or why nobody can tell, so that nothing goes.
async fn needed_at_copy(copy: &Log, prune: &Prune, now: u64) -> Result<Result<Needed, String>, EngineError> {
    let mut needed = Needed { floor: Some(prune.floor), ..Needed::default() };
    let stays = |seq: &Seq| *seq <= prune.floor && !prune.snapshots.contains(seq);
    let standing: Vec<Seq> = copy.standing_before(prune.floor.next()).await?.into_iter().collect();
    if !standing.contains(&prune.floor) {
        return Ok(Err(format!("no manifest snapshot stands at record {}, the oldest that stays", prune.floor)));
    }
    for seq in standing.iter().filter(|seq| stays(seq)) {
        let Some(snapshot) = copy.snapshot(*seq).await? else { continue };
        match snapshot_rows(copy, &snapshot).await {
            Ok(rows) => {
                needed.rows(&rows);
                needed.snapshot(&snapshot);
            }
            // It stands for nothing.
            Err(EngineError::Remote(RemoteError::Missing { .. })) if *seq != prune.floor => {}
            Err(error) => return Err(error),
        }
    }
    for pinned in copy.pins().await? {
        let pin = &pinned.pin;
        if pin.expires_ms.is_some_and(|end| end < now) || pin.seq >= prune.floor {
            continue;
        }
        if !standing.contains(&pin.seq) {
            return Ok(Err(format!("{} holds the state of record {}", pin.holder, pin.seq)));
        }
        needed_by(copy, &pinned, prune.floor, true, &mut needed).await?;
    }
    Ok(Ok(needed))
}

/// Whether a prune's record names all of this.
fn names(record: Option<&ReadRecord>, doomed: &[Doomed]) -> bool {
    let Some(RecordBody::Prune(said)) = record.map(|record| &record.body) else { return false };
    let (blobs, snapshots): (BTreeSet<BlobName>, BTreeSet<Seq>) =
        (said.blobs.iter().copied().collect(), said.snapshots.iter().copied().collect());
    doomed.iter().all(|object| match object.key {
        ObjectKey::Blob(name) => blobs.contains(&name),
        ObjectKey::Snapshot(seq) => snapshots.contains(&seq),
        ObjectKey::Record(seq) => seq < said.floor,
        ObjectKey::Probe(_) => true,
        ObjectKey::Pin(_) | ObjectKey::Head | ObjectKey::Copy | ObjectKey::Promoted => false,
    })
}

/// What the change log knows of the newest records, one by one, without a gap up to the tail, at most from the floor on: everything that each
/// of them named.
fn known(writer: &Writer, floor: Seq) -> Result<Vec<Change>, EngineError> {
    let row = writer.row();
    let mut changes = writer.manifest().changes_since(&row.meta.id, Seq(floor.0.saturating_sub(1)))?;
    // Where it took a sum for many, what later ones undid is left out, and the states between need that.
    let is_one = |change: &Change| change.records.len() == 1 && change.after.next() == change.seq();
    let mut next = row.tail.seq;
    let broken = changes.iter().rposition(|change| {
        let leads = is_one(change) && change.seq() == next;
        next = change.after;
        !leads
    });
    Ok(changes.split_off(broken.map_or(0, |at| at + 1)))
}

/// Every record from the newest prune's floor on, ascending.
async fn points(log: &Log, opened: &Opened) -> Result<Vec<RecordSummary>, EngineError> {
    let mut history = log.history(&opened.glance(), opened.tail.seq.next(), usize::MAX).await?;
    history.reverse();
    Ok(history)
}

fn restore_point(record: &RecordSummary) -> Option<RestorePoint> {
    record.kind.is_restore_point().then_some(RestorePoint {
        seq: record.seq,
        lsn: record.lsns.last,
        time_ms: record.time_ms,
        is_folded: record.kind != RecordKind::Segment,
    })
}

/// The oldest record that stays.
fn floor(history: &[RecordSummary], options: &Options, now: u64) -> Option<Seq> {
    let points: Vec<RestorePoint> = history.iter().filter_map(restore_point).collect();
    let kept = prune_floor(&points, options.keep, now)?;
    // A name that is free again could be won by a writer that was silent: only names that are older than any silence.
    let young =
        history.iter().find(|record| record.time_ms.saturating_add(options.grace_ms) > now).map(|record| record.seq);
    let floor = young.map_or(kept.seq, |young| young.min(kept.seq));
    // The state at the floor must be a checkpoint's, so that a manifest snapshot there is one to restore.
    let mut checkpoints = history.iter().filter(|record| record.kind.folds());
    checkpoints.rfind(|record| record.seq <= floor).map(|record| record.seq)
}

/// The restore points before the floor that a coarser history keeps: of those that stood before the old floor, and of the records between
/// the old one and the new.
async fn kept(
    log: &Log,
    history: &[RecordSummary],
    floor: Seq,
    floor_before: Seq,
    retention: &Retention,
    now: u64,
) -> Result<Vec<RestorePoint>, EngineError> {
    if retention.all_ms() == 0 && retention.tiers().is_empty() {
        return Ok(Vec::new());
    }
    let standing =
        kept_before(log, floor_before.max(Seq(1)), Seq(u64::MAX), super::at::Since::All(history), usize::MAX).await?;
    let standing = standing.iter().rev().map(|label| RestorePoint {
        seq: label.seq,
        lsn: label.lsn,
        time_ms: label.time_ms,
        is_folded: true,
    });
    let records = history.iter().filter(|record| record.seq < floor).filter_map(restore_point);
    let candidates: Vec<RestorePoint> = standing.chain(records).filter(|point| point.lsn > Lsn::ZERO).collect();
    Ok(thinned(&candidates, retention, now))
}

/// What a coarser history needs: a manifest snapshot at each of its restore points, and all that it names. Gives how many there are.
async fn needed_by_kept(
    log: &Log,
    kept: Vec<RestorePoint>,
    dry_run: bool,
    needed: &mut Needed,
) -> Result<u64, EngineError> {
    let states: Vec<(Seq, Rows, Option<Snapshot>)> = stream::iter(kept)
        .map(|point| async move { state_of(log, point.seq, dry_run).await })
        .buffered(TRANSFERS_IN_FLIGHT)
        .try_filter_map(|state| async move { Ok(state) })
        .try_collect()
        .await?;
    for (seq, rows, snapshot) in &states {
        needed.rows(rows);
        match snapshot {
            Some(snapshot) => needed.snapshot(snapshot),
            // It would be made.
            None => drop(needed.snapshots.insert(*seq)),
        }
    }
    Ok(states.len() as u64)
}

/// A state's rows, and the manifest snapshot that stands there: made now, unless this is only a look. `None` for one that stands for nothing any
/// more: what it names is gone, so that nothing can be restored as of it.
async fn state_of(log: &Log, seq: Seq, dry_run: bool) -> Result<Option<(Seq, Rows, Option<Snapshot>)>, EngineError> {
    if !dry_run && !stand_at(log, seq).await? {
        tracing::warn!(volume = %log.name(), %seq, "a restore point of before is not whole any more, and goes");
        return Ok(None);
    }
    let Some(snapshot) = log.snapshot(seq).await? else {
        let Some(opened) = log.open_at(seq).await? else { return Ok(None) };
        return Ok(Some((seq, rows(log, &opened).await?, None)));
    };
    match snapshot_rows(log, &snapshot).await {
        Ok(rows) => Ok(Some((seq, rows, Some(snapshot)))),
        Err(EngineError::Remote(RemoteError::Missing { .. })) if dry_run => Ok(None),
        Err(error) => Err(error),
    }
}

/// What every record from the floor on needs: of the last ones, what the change log knows. Gives how many were read.
async fn needed_since(
    log: &Log,
    floor: Seq,
    newest: &Opened,
    known: &[Change],
    needed: &mut Needed,
) -> Result<u64, EngineError> {
    needed.floor = Some(floor);
    let opened = open_floor(log, floor).await?;
    needed.rows(&rows(log, &opened).await?);
    // The first that the change log knows is read where it is not the floor: it is the same one, or nothing is known.
    let first = known.first().and_then(|change| change.records.first());
    let last = match first {
        Some(first) => first.seq,
        // Others may have gone on meanwhile: then the newest record that was known is one of those that are read.
        None => log.newest().await?.map_or(newest.tail.seq, |last| last.max(newest.tail.seq)),
    };
    let must = first.map_or(newest.tail.hash, |first| first.hash);
    let mut came_by = opened.tail.hash == must;
    let mut read = 0;
    let mut named = BTreeSet::from([newest.tail.snapshot]);
    let end = log.walk(opened.link(), last, |record| {
        read += 1;
        named.insert(record.envelope.header.snapshot);
        came_by |= record.envelope.hash == must;
        // An index repeats what stood before the floor too; what is still alive of that, the floor's rows name.
        let ops = if record.envelope.kind == RecordKind::Index { &[] } else { record.body.ops() };
        ops.iter().flat_map(ManifestOp::blobs).for_each(|blob| needed.blob(blob));
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
    needed.bodies_since = first.map(|first| first.seq);
    known.iter().flat_map(|change| &change.ops).flat_map(ManifestOp::blobs).for_each(|blob| needed.blob(blob));
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
    // One that is gone today may be there tomorrow (I9).
    needed.every_shard = named.range(floor..).any(|seq| !needed.snapshots.contains(seq));
    Ok(read)
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
    if let PinPurpose::Fork(child) = &pinned.pin.purpose {
        // Whatever that volume needs of where this one was forked from, it needs through this one.
        needed.is_shared = true;
        match log.snapshot(child.rows).await? {
            Some(snapshot) => {
                needed.snapshot(&snapshot);
                // What stands before the floor is a restore point, all of it.
                needed.rows(&snapshot_rows(log, &snapshot).await?);
            }
            None if child.rows == Seq::ZERO => {}
            // Its maker came too late, and did not live to take the pin back. No volume was made of it.
            None => needed.unknown_until = needed.unknown_until.max(Some(seq)),
        }
    }
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

/// A fork's pin that no volume needs: its maker died before he made one, or it is gone.
async fn is_orphan(log: &Log, pinned: &Pinned, now: u64) -> Result<bool, EngineError> {
    let PinPurpose::Fork(child) = &pinned.pin.purpose else { return Ok(false) };
    // Nobody knows for how long its maker is silent (rule P5).
    if pinned.pin.created_ms.saturating_add(PRUNE_GRACE_MS) > now || child.id == VolumeId([0; VolumeId::LEN]) {
        return Ok(false);
    }
    let of_child = Log::new(log.remote().clone(), child.name.clone());
    let Some(newest) = of_child.newest().await? else { return Ok(true) };
    Ok(of_child.envelope(newest).await?.is_some_and(|envelope| envelope.header.volume != child.id))
}

/// Nothing of this volume lies in the one that it was forked from any more: what it kept there may go.
pub(super) async fn leave(log: &Log, fork: &Fork) -> Result<(), EngineError> {
    let parent = Log::new(log.remote().clone(), fork.parent.name.clone());
    for pinned in parent.pins().await? {
        if matches!(&pinned.pin.purpose, PinPurpose::Fork(child) if child.id == fork.volume.id) {
            parent.unpin(&pinned.key).await?;
        }
    }
    Ok(())
}

impl Needed {
    /// The first record of a fork.
    fn first(&mut self, born: Option<&ReadRecord>) {
        let Some(born) = born.filter(|born| born.envelope.kind == RecordKind::Fork) else { return };
        self.records.insert(Seq(1));
        if let BodyPlace::Blob(blob) = &born.envelope.body {
            self.blobs.insert(blob.name);
        }
    }

    fn needs(&self, key: &ObjectKey) -> bool {
        match key {
            // The rows of an older state may have been summed up later.
            ObjectKey::Blob(name) => {
                let unknown = self.unknown_until.is_some_and(|seq| name.birth <= seq || name.kind == BlobKind::Shard)
                    || (self.every_shard && name.kind == BlobKind::Shard);
                // A record's body is born when its writer stands on the record before it.
                let body = name.kind == BlobKind::Segment && self.bodies_since.is_some_and(|since| name.birth >= since);
                unknown || body || self.blobs.contains(name)
            }
            ObjectKey::Snapshot(seq) => {
                self.unknown_until.is_some_and(|until| *seq <= until) || self.snapshots.contains(seq)
            }
            ObjectKey::Record(seq) => {
                let unknown = self.unknown_until.is_some_and(|until| *seq <= until);
                unknown || self.records.contains(seq) || self.floor.is_some_and(|floor| *seq >= floor)
            }
            ObjectKey::Pin(_) | ObjectKey::Head | ObjectKey::Copy | ObjectKey::Promoted => true,
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

    /// What may go stays for somebody else to delete. A fork's first record is not among it: it goes with the pin at its parent's.
    fn leave(&mut self, log: &Log, doomed: &[Doomed], expired: &[Pinned]) {
        let objects = doomed.iter().filter(|object| object.key != ObjectKey::Record(Seq(1)));
        self.left.extend(objects.map(|object| Left { path: object.path.clone(), bytes: object.len }));
        self.left.extend(expired.iter().map(|pinned| Left { path: keys::pin(log.name(), &pinned.key), bytes: 0 }));
    }
}

async fn doomed(
    log: &Log,
    needed: &Needed,
    tail: Seq,
    (now, grace_ms): (u64, u64),
) -> Result<Vec<Doomed>, EngineError> {
    let mut doomed = Vec::new();
    let mut there = BTreeSet::new();
    let folders =
        [Folder::Log, Folder::Snapshots].into_iter().chain(BlobKind::ALL.map(Folder::Blobs)).chain([Folder::Probe]);
    for folder in folders {
        for meta in log.remote().list(&keys::folder(log.name(), folder), None, usize::MAX).await? {
            // What does not parse is not ours to delete.
            let Some((_, key)) = ObjectKey::parse(&meta.path) else { continue };
            if let ObjectKey::Record(seq) = key {
                there.insert(seq);
            }
            let young = match key {
                // It may be part of a race that is being run.
                ObjectKey::Probe(_) => meta.modified_ms.saturating_add(PRUNE_GRACE_MS) > now,
                // Commits that waited for long are labelled with when they were made; the name was taken when they were published (rule P5).
                ObjectKey::Record(_) => meta.modified_ms.saturating_add(grace_ms) > now,
                // Whoever uploaded it may be about to name it; what a record has named is needed for longer than that, as the record is.
                ObjectKey::Blob(_) => meta.modified_ms.saturating_add(grace_ms) > now,
                _ => false,
            };
            if !needed.needs(&key) && !young {
                doomed.push(Doomed { path: meta.path, key, len: meta.len });
            }
        }
    }
    // What the change log knows was not read: whether it is there the listing says (I9).
    let first = needed.floor.unwrap_or(tail);
    if let Some(gone) = (first.0..=tail.0).map(Seq).find(|seq| !there.contains(seq)) {
        return Err(log
            .inconsistent(format!("record {gone} is gone, and the log goes on to record {tail}: nothing is deleted")));
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
        sessions: opened.sessions.marks().cloned().collect(),
        objects: opened.objects(),
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
