//! A checkpoint of a database that is open: begun from what its tracker knows, ended by telling it what was published.

use crate::components::Components;
use crate::error::EngineError;
use crate::exec::checkpoint::{self as publish, Checkpointed};
use crate::exec::coalesce::{Coalesced, coalesce};
use crate::exec::segment::{self, Shipped};
use crate::exec::snapshot::{Written, snapshot_if_due};
use crate::log::Log;
use crate::log::pins::{Pinned, Wish};
use crate::open::{self, Counting, Place, Totals};
use crate::settings::Settings;
use crate::volume::{Session, open_for_writing, release};
use littoral_ports::LiveSource;
use littoral_types::limits::{SEGMENT_BYTES_MAX, SEGMENTS_MAX};
use littoral_types::{ChunkId, Epoch, Generation, PinPurpose, Position, RecordSummary, SnapshotName};
use std::sync::Arc;

/// What is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Deltas stay as they are.
    pub no_coalesce: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    /// Where the volume stands now.
    pub position: Position,
    /// The checkpoint; `None` when nothing had changed.
    pub checkpoint: Option<Checkpointed>,
    /// Whether an interrupted publication was finished first.
    pub finished_intent: bool,
    /// The manifest snapshot that was due, where one was.
    pub snapshot: Option<Written>,
    /// Deltas that were merged.
    pub coalesced: Option<Coalesced>,
    /// What each step cost.
    pub cost: Cost,
    /// What was due after the checkpoint and failed: the next one does it.
    pub later: Vec<String>,
}

/// Requests and bytes, step by step.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// Opening the volume.
    pub opening: Totals,
    /// The checkpoint itself.
    pub checkpoint: Totals,
    /// The manifest snapshot.
    pub snapshot: Totals,
    /// Coalescing.
    pub coalescing: Totals,
    /// All of it.
    pub total: Totals,
}

/// Makes a checkpoint of a live database.
pub async fn checkpoint(
    place: &Place,
    settings: &Settings,
    components: &Components,
    source: &mut dyn LiveSource,
    options: Options,
) -> Result<Done, EngineError> {
    let done = async {
        let (mut session, meter) = Box::pin(opened(place, settings, components)).await?;
        Box::pin(fold(&mut session, settings, source, options, meter)).await
    };
    let done = done.await;
    told(source, done)
}

/// What it took to have every commit in the object store.
#[derive(Debug)]
pub enum Synced {
    /// Commits travelled one by one, or there was none.
    Segment(Position),
    /// Nobody could tell them apart, or they were too many: a checkpoint was made.
    Checkpoint(Box<Done>),
}

impl Synced {
    /// Where the volume stands now.
    pub fn position(&self) -> Position {
        match self {
            Synced::Segment(position) => *position,
            Synced::Checkpoint(done) => done.position,
        }
    }
}

/// Brings whatever was committed to the object store: as a segment, where its commits can be told apart, else as a checkpoint. What was
/// shipped from here before is remembered in `shipped`.
pub async fn sync(
    place: &Place,
    settings: &Settings,
    components: &Components,
    source: &mut dyn LiveSource,
    shipped: &mut Shipped,
) -> Result<Synced, EngineError> {
    let done = async {
        let (mut session, meter) = Box::pin(opened(place, settings, components)).await?;
        if let Some(position) = ship(&mut session, source, shipped).await? {
            return Ok(Synced::Segment(position));
        }
        let done = Box::pin(fold(&mut session, settings, source, Options::default(), meter)).await?;
        Ok(Synced::Checkpoint(Box::new(done)))
    };
    let done = done.await;
    told(source, done)
}

fn told<T>(source: &mut dyn LiveSource, done: Result<T, EngineError>) -> Result<T, EngineError> {
    if let Err(EngineError::Superseded { owner, epoch, .. }) = &done {
        source.superseded(*epoch, &owner.label);
    }
    done
}

/// The volume, open for writing, and the meter of what that cost. The session is held whole until the end: the store's lock is in it.
async fn opened(
    place: &Place,
    settings: &Settings,
    components: &Components,
) -> Result<(Session, Arc<Counting>), EngineError> {
    let (stores, meter) = open::stores(place, settings, components)?;
    let target = place.target(settings)?;
    Ok((Box::pin(open_for_writing(&stores, components, &target)).await?, meter))
}

async fn fold(
    session: &mut Session,
    settings: &Settings,
    source: &mut dyn LiveSource,
    options: Options,
    meter: Arc<Counting>,
) -> Result<Done, EngineError> {
    let mut before = Totals::default();
    let mut step = || {
        let now = meter.totals();
        let came = now.since(&before);
        before = now;
        came
    };
    let mut cost = Cost { opening: step(), ..Cost::default() };
    let Session { writer, scratch, finished_intent, .. } = session;
    source.begin(writer.row())?;
    let policy = publish::Options { compression: settings.compression.value, ..publish::Options::default() };
    let done = Box::pin(publish::checkpoint(writer, scratch, source, &policy)).await?;
    let tail = &writer.row().tail;
    let (position, generation) = (Position { epoch: tail.epoch, lsn: tail.lsn }, tail.figures.generation);
    source.published(writer.row());
    cost.checkpoint = step();
    // From here on the checkpoint is published, and what fails is done by the next one.
    let mut later = Vec::new();
    let snapshot = kept(&mut later, "manifest snapshot", snapshot_if_due(writer, Some(source)).await)?.flatten();
    cost.snapshot = step();
    let chunks: Vec<ChunkId> = done.iter().flat_map(|done| &done.plan.chunks).map(|chunk| chunk.chunk).collect();
    let coalesced = match options.no_coalesce || done.is_none() {
        true => None,
        false => {
            let work = Box::pin(coalesce(writer, scratch, Some(&chunks), settings.compression.value));
            kept(&mut later, "coalescing", work.await)?.filter(|done| done.records > 0)
        }
    };
    if writer.row().tail.figures.generation > generation {
        // No page is another: what is counted from the checkpoint is counted from here as well.
        source.published(writer.row());
    }
    cost.coalescing = step();
    cost.total = meter.totals();
    let finished_intent = *finished_intent;
    Ok(Done { position, checkpoint: done, finished_intent, snapshot, coalesced, cost, later })
}

/// Ships what was committed since the newest record. `None` where a checkpoint is due instead.
async fn ship(
    session: &mut Session,
    source: &mut dyn LiveSource,
    shipped: &mut Shipped,
) -> Result<Option<Position>, EngineError> {
    let writer = &mut session.writer;
    let pressure = segment::pressure(writer)?;
    if pressure.segments >= SEGMENTS_MAX || pressure.bytes >= SEGMENT_BYTES_MAX {
        return Ok(None);
    }
    let Some(commits) = source.commits_since(writer.row())? else { return Ok(None) };
    if commits.commits.is_empty() {
        let tail = &writer.row().tail;
        return Ok(Some(Position { epoch: tail.epoch, lsn: tail.lsn }));
    }
    let done = segment::ship(writer, commits, shipped, &mut |page| source.before(page)).await?;
    source.shipped();
    Ok(Some(done.position))
}

fn kept<T>(later: &mut Vec<String>, what: &str, done: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.is_crash() => Err(error),
        Err(error) => {
            tracing::warn!(%error, "the checkpoint is published; the {what} that was due after it failed");
            later.push(format!("{what}: {error}"));
            Ok(None)
        }
    }
}

/// Makes the volume that a database was opened from ours to write: after its writer released it, or where the user names the term that
/// ends. Refused where somebody has committed since the state that the database was made from: it would go back behind that.
pub async fn claim(
    place: &Place,
    settings: &Settings,
    components: &Components,
    made_from: Position,
) -> Result<(Epoch, Generation), EngineError> {
    let (stores, _) = open::stores(place, settings, components)?;
    let log = Log::new(stores.remote.clone(), place.volume.value.clone());
    let opened = log.open().await?.ok_or_else(|| EngineError::NoVolume(log.url()))?;
    let moved_on = |lsn| {
        EngineError::Interrupted(format!(
            "{}: somebody has committed since this database was opened from it ({made_from} then, LSN {lsn} now). Nothing was written.              Close all connections and open it again",
            log.url()
        ))
    };
    if opened.tail.lsn != made_from.lsn {
        return Err(moved_on(opened.tail.lsn));
    }
    let mut target = place.target(settings)?;
    if opened.tail.owner.is_none() {
        // Released: its next writer needs nobody's word.
        target.takeover = Some(opened.tail.epoch);
    }
    let mut session = Box::pin(open_for_writing(&stores, components, &target)).await?;
    let (id, lsn) = (session.writer.row().meta.id, session.writer.row().tail.lsn);
    if lsn == made_from.lsn {
        let tail = &session.writer.row().tail;
        return Ok((tail.epoch, tail.figures.generation));
    }
    // It came in between: nothing is to be published on top of it from here. A term that another process of this store had begun by
    // then is not ours to end.
    if session.writer.wrote_last() {
        release(&mut session.writer).await?;
        stores.store.unbind(id)?;
    }
    Err(moved_on(lsn))
}

/// How often a snapshot is pinned anew because a prune came between.
const PINS_MAX: u32 = 5;

/// Gives the newest state of a volume a name, for as long as nobody drops it.
pub async fn name_snapshot(
    log: &Log,
    components: &Components,
    name: &SnapshotName,
) -> Result<(Position, Pinned), EngineError> {
    for _ in 0..PINS_MAX {
        let opened = log.open().await?.ok_or_else(|| EngineError::NoVolume(log.url()))?;
        if opened.tail.figures.page_size.is_none() {
            let detail = "nothing was checkpointed yet".to_owned();
            return Err(EngineError::NoSuchPosition { volume: log.url(), detail });
        }
        let holder = opened.tail.owner.as_ref().map_or_else(String::new, |owner| owner.label.clone());
        let wish = Wish { purpose: PinPurpose::Snapshot(name.clone()), holder, life_ms: None };
        if let Some(pinned) = log.pin(components, &opened, wish).await? {
            return Ok((Position { epoch: opened.tail.epoch, lsn: opened.tail.lsn }, pinned));
        }
    }
    Err(EngineError::Refused(format!(
        "{}: prunes came between {PINS_MAX} times: try again when they are done",
        log.url()
    )))
}

/// The newest records of a volume's log, newest first.
pub async fn history(log: &Log, max: usize) -> Result<Vec<RecordSummary>, EngineError> {
    let glance = log.glance().await?.ok_or_else(|| EngineError::NoVolume(log.url()))?;
    log.history(&glance, glance.tail.seq.next(), max).await
}
