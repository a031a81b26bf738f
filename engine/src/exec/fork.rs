//! A volume that begins as another one was: nothing is copied but where things are.
//!
//! | step | durable after it | after a crash |
//! |---|---|---|
//! | the parent opened | nothing | again |
//! | pinned there | the parent's state, and the rows that the child is to read | a pin that no volume needs: the parent's prunes take it back when it is older than the grace |
//! | the logs forked that are tables of it ([`logs`]) | their volumes, which no database counts rows of | whoever forks under this name again makes them anew |
//! | body put, where it is too large for the record | a blob that nothing names | an orphan of the child's, should there ever be one |
//! | record put, if its name was free | the child, whole | nothing is left to do |
//!
//! The requests are those of [`Log::open`] and a handful more, whatever the size. A child's blobs lie in its parent's folder, or in that of
//! whoever the parent was forked from, and stay there for as long as the pin does; a child that needs none of them any more takes the pin
//! back when it is pruned (`exec/prune.rs`).

use super::at::{Since, prunes};
use super::restore::{At, open_at};
use crate::components::Components;
use crate::error::EngineError;
use crate::lazy::state::skeleton;
use crate::log::pins::{Pinned, Wish};
use crate::log::publish::InMemory;
use crate::log::read::tail_before_all;
use crate::log::{Log, Opened};
use crate::logs::tables::counted_at;
use bytes::Bytes;
use futures::future::BoxFuture;
use littoral_format as format;
use littoral_format::keys;
use littoral_plan::compose;
use littoral_ports::RemoteError;
use littoral_types::limits::{PRUNE_GRACE_MS, SKELETON_BYTES_MAX};
use littoral_types::{
    Child, CountedLog, Epoch, FooterFigures, Fork, Generation, Incarnation, Lsn, LsnRange, ManifestOp, Owner, Parent,
    PinPurpose, Position, Prune, Record, RecordBody, RecordHeader, Seq, SessionMark, SkeletonPage, StoreId,
    VolumeFigures, VolumeId, VolumeKind, VolumeMeta, VolumeName,
};

pub mod logs;

pub use logs::ForkedLog;

/// How often the parent is pinned anew because a prune came between.
const PINS_MAX: u32 = 5;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forked {
    /// The new volume.
    pub volume: VolumeMeta,
    /// Where it begins.
    pub position: Position,
    /// Where it comes from.
    pub parent: Parent,
    /// As of that state.
    pub figures: VolumeFigures,
    /// Bytes that were put in the object store.
    pub bytes: u64,
    /// The logs that are tables of it, and what became of each.
    pub logs: Vec<(CountedLog, ForkedLog)>,
}

/// Makes a volume of this name out of a state of another one, under the same remote.
pub async fn fork(log: &Log, components: &Components, at: &At, name: &VolumeName) -> Result<Forked, EngineError> {
    let child = Log::new(log.remote().clone(), name.clone());
    refuse_taken(&child).await?;
    let id = VolumeId(components.bits());
    let since = components.clock.boot_ms();
    let (opened, pinned) = pinned(log, components, at, (name, id), VolumeKind::Database).await?;
    let mut logs = Vec::new();
    let made = prepare(log, &child, components, opened, id, &mut logs).await;
    let (mut forked, encoded) = match made {
        Ok(made) => made,
        Err(error) if error.is_crash() => return Err(error),
        Err(error) => {
            take_back(log, &pinned, &logs).await?;
            return Err(error);
        }
    };
    components.faults.reach("fork.pinned")?;
    let landed = put(&child, components, &encoded).await;
    if let Err(EngineError::Refused(_)) = &landed {
        // The name is another's, so that nothing of this is anybody's.
        take_back(log, &pinned, &logs).await?;
    }
    landed?;
    components.faults.reach("fork.landed")?;
    still_pinned(log, components, &pinned, since).await?;
    for (_, made) in &logs {
        if let logs::Made::Forked(made) = made {
            made.stays(components).await?;
            still_pinned(&made.parent, components, &made.pinned, since).await?;
        }
    }
    forked.logs = logs.into_iter().map(|(log, made)| (log, made.told())).collect();
    Ok(forked)
}

/// The logs first, then what its own first record is to say.
async fn prepare(
    log: &Log,
    child: &Log,
    components: &Components,
    opened: Opened,
    id: VolumeId,
    made: &mut Vec<(CountedLog, logs::Made)>,
) -> Result<(Forked, format::record::Encoded), EngineError> {
    for counted in counted_at(log, &opened).await? {
        let of_log: BoxFuture<'_, Result<logs::Made, EngineError>> =
            Box::pin(logs::fork(log, child, components, &counted));
        let of_log = of_log.await?;
        made.push((counted, of_log));
    }
    make(log, child, components, opened, (id, None)).await
}

/// Nothing of what was made is anybody's.
async fn take_back(log: &Log, pinned: &Pinned, logs: &[(CountedLog, logs::Made)]) -> Result<(), EngineError> {
    for (_, made) in logs {
        if let logs::Made::Forked(made) = made {
            made.take_back().await?;
        }
    }
    log.unpin(&pinned.key).await
}

/// A name under which there is anything of a log is taken.
async fn refuse_taken(child: &Log) -> Result<(), EngineError> {
    let (head, newest) = futures::future::try_join(child.head(), child.newest()).await?;
    match (newest, head) {
        (None, None) => Ok(()),
        (Some(_), _) => Err(taken(child)),
        (None, Some(_)) => Err(EngineError::Refused(format!(
            "{}: something is left there of a volume that lost its records: choose another name, or remove what is left",
            child.url()
        ))),
    }
}

fn taken(child: &Log) -> EngineError {
    EngineError::Refused(format!(
        "{} exists already, and a fork never replaces a volume. Nothing was made: choose another name",
        child.url()
    ))
}

/// The parent's state, from rows that every prune so far leaves where they are. `None` where a prune was faster.
async fn opened(log: &Log, at: &At, kind: VolumeKind) -> Result<Option<Opened>, EngineError> {
    if *at == At::Newest {
        let opened = open_at(log, at).await?;
        unless(kind, log, &opened)?;
        return Ok(Some(opened));
    }
    // What holds after this look, no prune up to it takes.
    let Some(newest) = log.open().await? else { return Err(EngineError::NoVolume(log.url())) };
    let opened = Opened { seen: newest.seen, ..open_at(log, at).await? };
    unless(kind, log, &opened)?;
    let (floor, seq) = (newest.tail.floor, opened.tail.seq);
    let rows = opened.snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq);
    if rows >= floor || (matches!(at, At::Snapshot(_)) && rows == seq) {
        // A name holds its own manifest snapshot.
        return Ok(Some(opened));
    }
    if seq >= floor {
        return Ok(log.reopen(&opened, floor).await?.map(|again| Opened { seen: newest.seen, ..again }));
    }
    // A coarser history keeps it, with a manifest snapshot of its own; unless the prune that takes it is just at work.
    for prune in prunes(log, floor, Since::Newest(&newest.glance())).await? {
        let record = log.record(prune.seq).await?;
        let takes = |prune: &Prune| prune.snapshots.contains(&seq);
        if record.is_none_or(|record| matches!(&record.body, RecordBody::Prune(prune) if takes(prune))) {
            return Ok(None);
        }
    }
    Ok(Some(opened).filter(|_| rows == seq))
}

/// A log is forked with the database whose table it is, and not by itself.
fn unless(kind: VolumeKind, log: &Log, opened: &Opened) -> Result<(), EngineError> {
    let way = "a log is forked with the database whose table it is; littoral restore makes a copy";
    match kind {
        VolumeKind::Database => EngineError::unless_database(&log.url(), opened.meta.kind, way),
        VolumeKind::Log => EngineError::unless_log(&log.url(), opened.meta.kind),
    }
}

/// The parent's state, kept for a child of this name and id.
async fn pinned(
    log: &Log,
    components: &Components,
    at: &At,
    (name, id): (&VolumeName, VolumeId),
    kind: VolumeKind,
) -> Result<(Opened, Pinned), EngineError> {
    for _ in 0..PINS_MAX {
        let Some(opened) = opened(log, at, kind).await? else { continue };
        if kind == VolumeKind::Database && opened.tail.figures.page_size.is_none() {
            let detail = "nothing was checkpointed yet".to_owned();
            return Err(EngineError::NoSuchPosition { volume: log.url(), detail });
        }
        let rows = opened.snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq);
        let purpose = PinPurpose::Fork(Child { name: name.clone(), id, rows });
        let wish = Wish { purpose, holder: made_by().label, life_ms: None };
        if let Some(pinned) = log.pin(components, &opened, wish).await? {
            return Ok((opened, pinned));
        }
    }
    Err(EngineError::Refused(format!(
        "{}: prunes came between {PINS_MAX} times: try again when they are done",
        log.url()
    )))
}

/// Whoever forks is no writer.
fn made_by() -> Owner {
    let label = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Owner { store: StoreId([0; StoreId::LEN]), label }
}

/// The child's first record, and its body's blob where that is too large for the record. Of a log with what a database counts of it.
async fn make(
    log: &Log,
    child: &Log,
    components: &Components,
    mut opened: Opened,
    (id, counted): (VolumeId, Option<&CountedLog>),
) -> Result<(Forked, format::record::Encoded), EngineError> {
    let said = match counted {
        Some(counted) => {
            let said: BoxFuture<'_, Result<Vec<ManifestOp>, EngineError>> = Box::pin(logs::said(log, &opened, counted));
            said.await?
        }
        None => Vec::new(),
    };
    let pages = travelling(&mut opened);
    let objects = opened.objects();
    let home = log.name();
    let Opened { meta, tail, snapshot, ops, sessions, .. } = opened;
    let mut figures = VolumeFigures::default();
    let (mut shards, mut rows) = (Vec::new(), Vec::new());
    if let Some(snapshot) = snapshot {
        (figures, shards, rows) = (snapshot.figures, snapshot.shards, snapshot.rows);
    }
    shards.iter_mut().for_each(|shard| shard.blob.rehome(home));
    rows.iter_mut().for_each(|row| row.rehome(home));
    // Positions are the child's own: it has one term so far.
    let own = |mark: &SessionMark| {
        let position = Position { epoch: Epoch(1), lsn: mark.position.lsn };
        ManifestOp::Session(SessionMark { position, ..mark.clone() })
    };
    let mut ops = compose(ops);
    ops.retain(|op| !matches!(op, ManifestOp::Session(_) | ManifestOp::Object(_)));
    ops.extend(sessions.marks().map(own));
    ops.extend(objects.into_iter().map(ManifestOp::Object));
    ops.extend(said);
    ops.iter_mut().for_each(|op| op.rehome(home));
    let now = components.clock.wall_ms();
    let began_as = counted.map(|_| meta.log());
    let volume = VolumeMeta { id, name: child.name().clone(), created_ms: now, began_as, ..meta.clone() };
    let position = Position { epoch: tail.epoch, lsn: tail.lsn };
    let parent = Parent { name: meta.name, id: meta.id, seq: tail.seq, record: tail.hash, position };
    let generation = match counted {
        // It goes on in the segment that is open.
        Some(_) => tail.figures.generation,
        // What its own segments bring is newer than what its parent's had brought: deltas are told apart by generation, then by record.
        None => Generation(tail.figures.generation.0 + 1),
    };
    let before = tail_before_all();
    let header = RecordHeader {
        volume: id,
        seq: Seq(1),
        epoch: Epoch(1),
        incarnation: Incarnation(components.bits()),
        previous: before.hash,
        lsns: LsnRange { first: Lsn(1), last: tail.lsn },
        time_ms: now,
        snapshot: Seq::ZERO,
        figures: VolumeFigures { generation, ..tail.figures },
        added: FooterFigures::default(),
    };
    let figures_now = header.figures;
    let (made_by, schema) = (made_by(), tail.schema);
    let body =
        Fork { volume: volume.clone(), made_by, parent: parent.clone(), figures, shards, rows, ops, schema, pages };
    let record = Record { header, body: RecordBody::Fork(Box::new(body)) };
    let path = keys::record(child.name(), Seq(1));
    let encoded = format::record::encode(&record, Seq::ZERO).map_err(EngineError::damaged(&path))?;
    let bytes = encoded.object.len() + encoded.body_blob.as_ref().map_or(0, |(_, bytes)| bytes.len());
    let position = Position { epoch: Epoch(1), lsn: tail.lsn };
    let forked = Forked { volume, position, parent, figures: figures_now, bytes: bytes as u64, logs: Vec::new() };
    Ok((forked, encoded))
}

/// Pages that nearly every query needs, as of the state.
fn travelling(opened: &mut Opened) -> Vec<SkeletonPage> {
    let mut room = SKELETON_BYTES_MAX;
    let mut pages = Vec::new();
    for (page, image) in skeleton(opened) {
        let Some(left) = room.checked_sub(image.len()) else { break };
        room = left;
        pages.push(SkeletonPage { page, image: image.to_vec() });
    }
    pages
}

/// Puts the child's first record under its name, if that is free.
async fn put(child: &Log, components: &Components, encoded: &format::record::Encoded) -> Result<(), EngineError> {
    if let Some((name, bytes)) = &encoded.body_blob {
        let body = InMemory::new(Bytes::copy_from_slice(bytes));
        child.remote().upload(&keys::blob(child.name(), name), &body).await?;
        components.faults.reach("fork.body")?;
    }
    let path = keys::record(child.name(), Seq(1));
    let bytes = Bytes::copy_from_slice(&encoded.object);
    match child.remote().put_new(&path, bytes.clone()).await {
        Ok(()) => Ok(()),
        Err(error @ (RemoteError::Exists { .. } | RemoteError::Unknown { .. })) => {
            match child.remote().get(&path).await {
                // Its bytes hold random bits: equal bytes are our own.
                Ok(found) if found == bytes => Ok(()),
                Ok(_) => Err(taken(child)),
                // The name was another's, and that volume is gone since; or nobody knows whether ours is on its way.
                Err(RemoteError::Missing { .. }) => Err(error.into()),
                Err(other) => Err(other.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Whoever was silent for long looks again before anybody is told (rule P5): a pin that no volume needs is taken back.
async fn still_pinned(log: &Log, components: &Components, pinned: &Pinned, since: u64) -> Result<(), EngineError> {
    if components.clock.boot_ms().saturating_sub(since) <= PRUNE_GRACE_MS / 4 {
        return Ok(());
    }
    let path = keys::pin(log.name(), &pinned.key);
    match log.remote().get(&path).await {
        Ok(_) => Ok(()),
        Err(RemoteError::Missing { .. }) => Err(EngineError::Interrupted(format!(
            "{}: this process slept so long while it forked that a prune took what the fork needs. The volume that was made cannot be \
             relied on: remove it, and fork again",
            log.url()
        ))),
        Err(error) => Err(error.into()),
    }
}
