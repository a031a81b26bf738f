//! A checkpoint of a database that is open: begun from what its tracker knows, ended by telling it what was published.

use crate::components::Components;
use crate::error::EngineError;
use crate::exec::at::{Found, find};
use crate::exec::beside::Beside;
use crate::exec::checkpoint::{self as publish, Checkpointed, checkpoint_in, dirty_bytes};
use crate::exec::coalesce::{Coalesced, coalesce_beside, debt, owing};
use crate::exec::phases::Phases;
use crate::exec::segment::{self, Shipped};
use crate::exec::snapshot::{Written, snapshot_if_due};
use crate::jobs::{self, Noting, begin_in};
use crate::log::pins::{Pinned, Wish};
use crate::log::{Log, Writer};
use crate::logs::tables::Tables;
use crate::open::{self, Counting, Place, Totals};
use crate::settings::Settings;
use crate::telemetry;
use crate::volume::{Rested, Session, open_for_shipping, open_for_writing, release};
use littoral_local::LocalError;
use littoral_plan::{CheckpointPolicy, Debt};
use littoral_ports::LiveSource;
use littoral_types::limits::{
    BACKLOG_BYTES_MAX, BACKLOG_SEGMENTS_MAX, BESIDE_BYTES_MAX, BESIDE_SEGMENTS_MAX, SEGMENT_BYTES_MAX, SEGMENTS_MAX,
};
use littoral_types::{
    At, ChunkId, Epoch, Generation, Moment, PinPurpose, Position, RecordSummary, SnapshotName, Task, VolumeKind,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Deltas stay as they are.
    pub no_coalesce: bool,
    /// So long anybody is waited for who keeps readers out; 30 seconds where nobody says otherwise.
    pub wait_ms: Option<u64>,
    /// What is owed of merging is paid in whatever chunks, and not only in those that changed.
    pub pays: bool,
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
    let (components, noting) = Noting::over(components);
    let done = async {
        let (mut session, meter) = Box::pin(opened(place, settings, &components)).await?;
        let switched = session.may_checkpoint(settings.tenant())?;
        let database = place.database.as_deref().unwrap_or(Path::new(""));
        let errand = Box::pin(begin_in(&session, database, Task::CreateCheckpoint, Some(noting))).await?;
        let mut shipped = Shipped::new();
        let work = fold(&mut session, settings, source, &mut shipped, (options, switched.policy), meter);
        Box::pin(jobs::run(errand, jobs::judge, outcome, work)).await
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

/// A database's way to its volume, kept open between publications: of what follows, the next one costs a PUT. Others of this store may
/// publish in between.
#[derive(Debug)]
pub struct Stream {
    database: PathBuf,
    settings: Arc<Settings>,
    components: Components,
    /// Pages as they were shipped from here.
    shipped: Shipped,
    noting: Arc<Noting>,
    open: Option<(Rested, Arc<Counting>)>,
    owed: Owed,
}

/// What is owed of merging, as of a generation.
#[derive(Clone, Copy, Debug, Default)]
struct Owed {
    known: Option<(Generation, Debt)>,
}

impl Owed {
    /// As of now. Deltas are looked at once for each generation: nothing else changes what is owed.
    fn of(&mut self, writer: &Writer) -> Result<Debt, EngineError> {
        let generation = writer.row().tail.figures.generation;
        if let Some(debt) = self.known_of(generation) {
            return Ok(debt);
        }
        let debt = debt(&**writer.manifest(), writer.row())?;
        self.known = Some((generation, debt));
        Ok(debt)
    }

    /// As of a generation, where that is known.
    fn known_of(&self, generation: Generation) -> Option<Debt> {
        self.known.filter(|(of, _)| *of == generation).map(|(_, debt)| debt)
    }
}

impl Stream {
    /// Nothing is opened yet.
    pub fn new(database: PathBuf, settings: Arc<Settings>) -> Self {
        let (components, noting) = Noting::over(&Components::of_this_machine(open::quota(&settings)));
        Self { database, settings, components, shipped: Shipped::new(), noting, open: None, owed: Owed::default() }
    }

    /// Brings whatever was committed to the object store: as a segment, where its commits can be told apart, else as a checkpoint. After a
    /// failure everything is opened anew.
    pub async fn sync(&mut self, source: &mut dyn LiveSource) -> Result<Synced, EngineError> {
        let done = Box::pin(self.publish(source, &|| false, true, true)).await;
        told(source, done)
    }

    /// The same for who does not wait until whoever is at work on the volume is done.
    pub async fn sync_at_once(&mut self, source: &mut dyn LiveSource) -> Result<Synced, EngineError> {
        let done = Box::pin(self.publish(source, &|| false, false, true)).await;
        told(source, done)
    }

    /// The same for who does it by himself, one record at a time: where the volume was released meanwhile, and that is to stay so, it is
    /// not claimed anew; and whoever of this store is at work just now is not waited for: he ships meanwhile what he is
    /// [asked](LiveSource::asked) to.
    pub async fn sync_unless(
        &mut self,
        source: &mut dyn LiveSource,
        stays_released: &(dyn Fn() -> bool + Sync),
    ) -> Result<Synced, EngineError> {
        let done = Box::pin(self.publish(source, stays_released, false, false)).await;
        told(source, done)
    }

    async fn publish(
        &mut self,
        source: &mut dyn LiveSource,
        stays_released: &(dyn Fn() -> bool + Sync),
        waits: bool,
        all: bool,
    ) -> Result<Synced, EngineError> {
        let resumed = match self.open.take() {
            Some((rested, meter)) => {
                let lock = match rested.turn(&self.components, waits).await {
                    Ok(lock) => lock,
                    Err(error) => {
                        self.open = Some((rested, meter));
                        return Err(error);
                    }
                };
                match rested.resume(lock) {
                    Ok(session) => Some((session, meter)),
                    Err(EngineError::Interrupted(_)) => None,
                    Err(error) => return Err(error),
                }
            }
            None => None,
        };
        // To open it anew is to claim it anew.
        let (mut session, meter) = match resumed {
            Some(resumed) => resumed,
            None if stays_released() => {
                let text = format!("{}: the volume was released meanwhile", self.database.display());
                return Err(EngineError::Interrupted(text));
            }
            None => self.opened(waits).await?,
        };
        let (settings, shipped, owed) = (&self.settings, &mut self.shipped, &mut self.owed);
        let of = Of { database: &self.database, noting: &self.noting };
        let mut done =
            shipped_or_folded(&mut session, of, settings, source, (&mut *shipped, &mut *owed), meter.clone(), all)
                .await;
        let mut meter = meter;
        if waits && matches!(done, Err(EngineError::Local(LocalError::Busy { .. }))) {
            // A checkpoint is due, and another database of this store has its own made: whoever waits for that holds nothing.
            drop(session);
            let place = Place::of_database(&self.database, settings)?;
            (session, meter) = opened(&place, settings, &self.components).await?;
            let kept = (shipped, owed);
            done = shipped_or_folded(&mut session, of, settings, source, kept, meter.clone(), all).await;
        }
        if matches!(done, Ok(_) | Err(EngineError::Local(LocalError::Busy { .. }))) {
            self.open = Some((session.rest(&self.database), meter));
        }
        done
    }

    async fn opened(&self, waits: bool) -> Result<(Session, Arc<Counting>), EngineError> {
        let place = Place::of_database(&self.database, &self.settings)?;
        let (stores, meter) = open::stores(&place, &self.settings, &self.components)?;
        let target = place.target(&self.settings)?;
        let paying = self.components.charged_to(meter.account());
        let mut session = Box::pin(open_for_shipping(&stores, &paying, &target, waits)).await?;
        session.writer.carries(Tables::of(&place, &self.settings, &self.components));
        Ok((session, meter))
    }

    /// In how many milliseconds what was shipped has lain there for so long that a checkpoint is due, as far as is known without asking
    /// anybody; `None` for never.
    pub fn folds_in_ms(&self) -> Option<u64> {
        let (rested, _) = self.open.as_ref()?;
        // What was owed before the newest checkpoint may be paid.
        let stretch = self.owed.known_of(rested.generation()).map_or(1, |debt| debt.stretch());
        rested.folds_in_ms(self.settings.tenant(), stretch, self.components.clock.wall_ms()).ok().flatten()
    }

    /// Whether it was made with these settings.
    pub fn is_for(&self, settings: &Arc<Settings>) -> bool {
        self.settings == *settings
    }
}

/// Whose checkpoint it is, and who hears of its blobs.
#[derive(Clone, Copy)]
struct Of<'a> {
    database: &'a Path,
    noting: &'a Arc<Noting>,
}

fn outcome(done: &Done) -> Result<String, String> {
    Ok(match &done.checkpoint {
        Some(checkpoint) => {
            format!("{} is durable: {} blobs, {} bytes", done.position, checkpoint.blobs, checkpoint.bytes)
        }
        None => format!("nothing had changed since {}", done.position),
    })
}

async fn shipped_or_folded(
    session: &mut Session,
    of: Of<'_>,
    settings: &Settings,
    source: &mut dyn LiveSource,
    (shipped, owed): (&mut Shipped, &mut Owed),
    meter: Arc<Counting>,
    all: bool,
) -> Result<Synced, EngineError> {
    // What a predecessor had begun comes first: how much there is to fold follows from that.
    session.writer.settle().await?;
    let pressure = segment::pressure(&session.writer)?;
    let may = session.may_checkpoint(settings.tenant());
    let folds_every = may.as_ref().ok().and_then(|switched| switched.folds_every_ms);
    let now = session.writer.components().clock.wall_ms();
    // Each page that changed, once: what a checkpoint would bring, and whoever opens the volume reads until then.
    let dirty = match settings.checkpoint_dirty.value {
        Some(_) => dirty_bytes(&**session.writer.manifest(), session.writer.row())?,
        None => 0,
    };
    let is_due_after = |times: u64| {
        let is_old = pressure.older_in_ms(folds_every.map(|every| every.saturating_mul(times)), now) == Some(0);
        let is_dirty = settings.checkpoint_dirty.value.is_some_and(|limit| dirty >= limit.saturating_mul(times));
        pressure.reaches(SEGMENTS_MAX * times, SEGMENT_BYTES_MAX * times) || is_old || is_dirty
    };
    // While more waits than one batch it is put off: it would bring all of that as one restore point.
    let is_due = match source.lags() {
        true => pressure.reaches(BACKLOG_SEGMENTS_MAX, BACKLOG_BYTES_MAX),
        // What is owed of merging puts it off, and commits travel on.
        false => is_due_after(1) && is_due_after(owed.of(&session.writer)?.stretch()),
    };
    // Where they are switched off commits travel on, as long as they can be told apart.
    let is_due = is_due && may.is_ok();
    // While another database of this store has its checkpoint made, this one's commits go on travelling, up to a bound.
    let folds = is_due && (pressure.reaches(BESIDE_SEGMENTS_MAX, BESIDE_BYTES_MAX) || session.becomes_worker().is_ok());
    if !folds {
        loop {
            let Some(sent) = segment::ship(&mut session.writer, source, shipped).await? else { break };
            if sent.is_all || !all {
                let tail = &session.writer.row().tail;
                return Ok(Synced::Segment(Position { epoch: tail.epoch, lsn: tail.lsn }));
            }
        }
    }
    let switched = may?;
    session.becomes_worker()?;
    let errand = Box::pin(begin_in(session, of.database, Task::CreateCheckpoint, Some(of.noting.clone()))).await?;
    let is_owed = owed.of(&session.writer)?.stretch() > 1;
    let options = Options { pays: is_owed, ..Options::default() };
    let work = fold(session, settings, source, shipped, (options, switched.policy), meter);
    let done = Box::pin(jobs::run(errand, jobs::judge, outcome, work)).await?;
    Ok(Synced::Checkpoint(Box::new(done)))
}

fn told<T>(source: &mut dyn LiveSource, done: Result<T, EngineError>) -> Result<T, EngineError> {
    if let Err(EngineError::Superseded { volume, owner, epoch, .. }) = &done {
        telemetry::fence_superseded(volume, *epoch, &owner.label);
        source.superseded(*epoch, &owner.label);
    }
    done
}

/// The volume, open for writing, and the meter of what that cost. The session is held whole until the end: the locks are in it.
async fn opened(
    place: &Place,
    settings: &Settings,
    components: &Components,
) -> Result<(Session, Arc<Counting>), EngineError> {
    let (stores, meter) = open::stores(place, settings, components)?;
    let target = place.target(settings)?;
    let paying = components.charged_to(meter.account());
    let mut session = Box::pin(open_for_writing(&stores, &paying, &target)).await?;
    session.writer.carries(Tables::of(place, settings, components));
    Ok((session, meter))
}

async fn fold(
    session: &mut Session,
    settings: &Settings,
    source: &mut dyn LiveSource,
    shipped: &mut Shipped,
    (options, policy): (Options, CheckpointPolicy),
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
    let policy = publish::Options { compression: settings.compression.value, policy };
    let Session { writer, scratch, finished_intent, .. } = session;
    let mut phases = Phases::new(writer.components(), writer.log().url(), options.wait_ms);
    // As rarely as anywhere else, where requests are bounded.
    let (clock, account) = (writer.components().clock.clone(), writer.components().account.clone());
    let interval =
        settings.sync_interval_ms.value.map(|asked| open::interval_ms(asked, settings, &*account, clock.wall_ms()));
    let mut beside = Beside::of(shipped, interval);
    let done = Box::pin(checkpoint_in(&mut phases, writer, scratch, source, &policy, &mut beside)).await?;
    let tail = &writer.row().tail;
    let position = Position { epoch: tail.epoch, lsn: tail.lsn };
    cost.checkpoint = step();
    // From here on the checkpoint is published, and what fails is done by the next one.
    let mut later = Vec::new();
    let snapshot = kept(&mut later, "manifest snapshot", snapshot_if_due(writer, Some(source)).await)?.flatten();
    cost.snapshot = step();
    let mut chunks: Vec<ChunkId> = done.iter().flat_map(|done| &done.plan.chunks).map(|chunk| chunk.chunk).collect();
    let coalesced = match options.no_coalesce || done.is_none() {
        true => None,
        false => {
            // From here on no page is read for the work itself.
            let mut beside = Beside::of(shipped, interval);
            let mut meanwhile = beside.with(source);
            let compression = settings.compression.value;
            if options.pays {
                chunks.extend(owing(&**writer.manifest(), writer.row())?);
                chunks.sort_unstable();
                chunks.dedup();
            }
            let work = Box::pin(coalesce_beside(writer, scratch, Some(&chunks), compression, &mut meanwhile));
            kept(&mut later, "coalescing", work.await)?.filter(|done| done.records > 0)
        }
    };
    cost.coalescing = step();
    cost.total = meter.totals();
    let finished_intent = *finished_intent;
    Ok(Done { position, checkpoint: done, finished_intent, snapshot, coalesced, cost, later })
}

fn kept<T>(later: &mut Vec<String>, what: &str, done: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.is_crash() => Err(error),
        Err(error @ (EngineError::Quota(_) | EngineError::Local(LocalError::Quota(_)))) => {
            tracing::debug!(%error, "the checkpoint is published; there is no room for the {what} that was due after it");
            later.push(format!("{what}: {error}"));
            Ok(None)
        }
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
            "{}: somebody has committed since this database was opened from it ({made_from} then, LSN {lsn} now). Nothing was written. Close all connections and open it again",
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
    let mut session = Box::pin(open_for_shipping(&stores, components, &target, true)).await?;
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
    name_state(log, components, name, &At::Newest).await
}

/// Gives a state of a volume a name, for as long as nobody drops it.
pub async fn name_state(
    log: &Log,
    components: &Components,
    name: &SnapshotName,
    at: &At,
) -> Result<(Position, Pinned), EngineError> {
    if !Moment::is_snapshot(name) {
        return Err(EngineError::Settings(format!(
            "a snapshot cannot be called {name}: that is an LSN, a position or a time; choose a name with a letter in it that does not \
             begin with a line"
        )));
    }
    for _ in 0..PINS_MAX {
        let Found { opened, point } = find(log, at).await?;
        if opened.tail.figures.page_size.is_none() && opened.meta.kind == VolumeKind::Database {
            let detail = "nothing was checkpointed yet".to_owned();
            return Err(EngineError::NoSuchPosition { volume: log.url(), detail });
        }
        let holder = opened.tail.owner.as_ref().map_or_else(String::new, |owner| owner.label.clone());
        let wish = Wish { purpose: PinPurpose::Snapshot(name.clone()), holder, life_ms: None };
        if let Some(pinned) = log.pin(components, &opened, wish).await? {
            let epoch = if matches!(at, At::Newest) { opened.tail.epoch } else { point.epoch };
            return Ok((Position { epoch, lsn: opened.tail.lsn }, pinned));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p06_what_was_owed_puts_off_nothing_once_a_checkpoint_may_have_paid_it() {
        let debt = Debt { depth: 99, chunks: 1, bytes: 1 };
        let owed = Owed { known: Some((Generation(3), debt)) };
        assert!(debt.stretch() > 1);
        assert_eq!((owed.known_of(Generation(3)), owed.known_of(Generation(4))), (Some(debt), None));
        assert_eq!(Owed::default().known_of(Generation(3)), None);
    }
}
