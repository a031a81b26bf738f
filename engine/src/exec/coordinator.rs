//! The coordinator of a checkpoint: leads those who take part ([`littoral_plan::participant`]) through its phases.
//!
//! | phase | each participant | if one fails, or keeps waiting for too long |
//! |---|---|---|
//! | prepare | begins | those that had begun are aborted, the last one first |
//! | in-progress | works | the same |
//! | wait-pending | catches up with what was committed meanwhile; where nothing was, is prepared | the same |
//! | wait-flush | flushes, says what it brings into the record, and is told that it was published | the same, until the record is on its way |
//!
//! What this room promises:
//! 1. Whoever began is either told that it was published, or aborted; once. Once the record is published nobody is aborted, whatever fails then.
//! 2. How long each took, and whom it waited for, is told of a checkpoint that was made.
//! 3. One that is only tried goes the same way up to the record, and then everybody is aborted: nothing is written anywhere.

use super::beside::{Beside, ROUNDS};
use super::catalogue::Catalogue;
use super::checkpoint::{Options, Round};
use super::phases::{Passed, Phases};
use crate::components::Components;
use crate::error::EngineError;
use crate::leases::Held;
use crate::log::{Draft, Writer};
use async_trait::async_trait;
use littoral_local::Scratch;
use littoral_plan::participant::Participant;
use littoral_plan::phase::Phase;
use littoral_ports::{CaughtUp, Clock, Faults, Manifest, PageSource};
use littoral_types::{Checkpoint, PageNo, RecordBody, Seq, Tree, VolumeRow};
use std::sync::Arc;

/// How long a participant took, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Took {
    /// Who.
    pub who: Participant,
    /// To begin.
    pub begin_ms: u64,
    /// Until it was prepared.
    pub prepare_ms: u64,
    /// To say what it brings, and until that was durable.
    pub commit_ms: u64,
    /// Whom it waited for, where it did.
    pub waited_for: Option<String>,
}

/// A checkpoint on its way: what those who take part in it have in common.
pub(super) struct Course<'a, 'b> {
    pub(super) phases: &'a mut Phases,
    /// Nobody, where it is only tried.
    pub(super) writer: Option<&'a mut Writer>,
    pub(super) manifest: Arc<dyn Manifest>,
    /// The volume, where nobody writes.
    pub(super) row: VolumeRow,
    pub(super) components: Components,
    pub(super) source: &'a mut dyn PageSource,
    pub(super) scratch: Option<&'a Scratch>,
    pub(super) options: Options,
    pub(super) beside: &'a mut Beside<'b>,
    /// Page 1, as it was read last.
    pub(super) first: Vec<u8>,
    /// The trees that its schema names; `None` where that was not at hand.
    pub(super) trees: Option<Vec<Tree>>,
    /// What comes to be known of pages' owners.
    pub(super) catalogue: Option<Catalogue>,
    /// The readings so far, and their blobs.
    pub(super) rounds: Vec<Round>,
    /// What segments brought since the newest checkpoint is folded by it.
    pub(super) is_fold: bool,
}

impl Course<'_, '_> {
    /// The volume as it is by now.
    pub(super) fn row(&self) -> VolumeRow {
        self.writer.as_ref().map_or_else(|| self.row.clone(), |writer| writer.row().clone())
    }

    /// How many commits it brings.
    pub(super) fn commits(&self) -> u64 {
        let counted = self.source.commits();
        if self.is_fold { counted } else { counted.max(1) }
    }
}

/// Who takes part.
#[async_trait(?Send)]
pub(super) trait Party {
    /// Which one it is.
    fn who(&self) -> Participant;

    /// It begins.
    async fn begin(&mut self, _: &mut Course<'_, '_>) -> Result<(), EngineError> {
        Ok(())
    }

    /// What takes long is done, while others commit.
    async fn work(&mut self, _: &mut Course<'_, '_>) -> Result<(), EngineError> {
        Ok(())
    }

    /// What was committed meanwhile, if this one knows.
    async fn catch_up(&mut self, _: &mut Course<'_, '_>) -> Result<CaughtUp, EngineError> {
        Ok(CaughtUp::Still)
    }

    /// These pages changed meanwhile.
    async fn moved(&mut self, _: &mut Course<'_, '_>, _: &[PageNo]) -> Result<(), EngineError> {
        Ok(())
    }

    /// All that was read is of one commit: now is the time to take what is of it. May be asked again, of a later one.
    async fn prepare(&mut self, _: &mut Course<'_, '_>) -> Result<(), EngineError> {
        Ok(())
    }

    /// All that the record will name becomes durable.
    async fn flush(&mut self, _: &mut Course<'_, '_>) -> Result<(), EngineError> {
        Ok(())
    }

    /// Whether there is something to publish because of it.
    fn brings(&mut self, _: &mut Course<'_, '_>) -> Result<bool, EngineError> {
        Ok(false)
    }

    /// Its part of the record.
    async fn commit(&mut self, _: &mut Course<'_, '_>, _: &mut Record) -> Result<(), EngineError> {
        Ok(())
    }

    /// It was published, or there was nothing to publish. What it cannot clean up now is no failure of the checkpoint.
    fn settled(&mut self, _: &mut Course<'_, '_>) {}

    /// It comes to nothing: whatever is held is let go of.
    fn abort(&mut self, _: &mut Course<'_, '_>) {}
}

/// A record on its way, and what is told of it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) draft: Draft,
    pub(super) body: Checkpoint,
    pub(super) committed_ms: Option<u64>,
    /// The right to the chunks that it writes.
    pub(super) held: Option<Arc<Held>>,
}

impl Record {
    /// It says nothing yet.
    fn empty(row: &VolumeRow) -> Self {
        let body = Checkpoint::default();
        let draft = Draft::of(RecordBody::Checkpoint(body.clone()), row.tail.figures);
        Self { draft, body, committed_ms: None, held: None }
    }
}

/// What came of it.
pub(super) struct Conducted {
    /// The record; `None` where there was nothing to publish, or it was only tried.
    pub(super) published: Option<Seq>,
    pub(super) phases: Vec<Passed>,
    pub(super) took: Vec<Took>,
}

/// Leads those who take part through a checkpoint. Whoever drops it on its way aborts nobody: what is held then is held by the source and the
/// scratch that he has lent to it, and ends with the source. So whoever may drop it owns the source and drops that too.
pub(super) async fn conduct(
    parties: &mut [&mut dyn Party],
    course: &mut Course<'_, '_>,
) -> Result<Conducted, EngineError> {
    let clock = course.components.clock.clone();
    let took = parties.iter().map(|party| Took {
        who: party.who(),
        begin_ms: 0,
        prepare_ms: 0,
        commit_ms: 0,
        waited_for: None,
    });
    let mut watch = Watch { clock, took: took.collect(), begun: 0, is_told: false };
    let done = lead(parties, course, &mut watch).await;
    let is_tried = course.writer.is_none();
    if !watch.is_told && (done.is_err() || is_tried) {
        for party in parties.iter_mut().take(watch.begun).rev() {
            party.abort(course);
        }
    }
    let published = done?;
    tracing::debug!(took = ?watch.took, "checkpoint.participants");
    Ok(Conducted { published, phases: course.phases.rest(), took: watch.took })
}

/// Who is looked at.
struct Watch {
    clock: Arc<dyn Clock>,
    took: Vec<Took>,
    begun: usize,
    /// They are told that it was published.
    is_told: bool,
}

/// A step of a participant, whose time is taken.
enum Step {
    Begin,
    Prepare,
    Commit,
}

impl Watch {
    fn since(&mut self, at: usize, step: &Step, since_ms: u64, waited_for: Option<&str>) {
        let took_ms = self.clock.boot_ms().saturating_sub(since_ms);
        let Some(took) = self.took.get_mut(at) else { return };
        *match step {
            Step::Begin => &mut took.begin_ms,
            Step::Prepare => &mut took.prepare_ms,
            Step::Commit => &mut took.commit_ms,
        } += took_ms;
        if let Some(who) = waited_for {
            took.waited_for = Some(who.to_owned());
        }
    }
}

/// Lets each of them do something, and takes the time.
macro_rules! each {
    ($watch:ident, $step:expr, $course:ident, $parties:ident, |$at:ident, $party:ident| $act:expr) => {
        for ($at, $party) in $parties.iter_mut().enumerate() {
            let since_ms = $watch.clock.boot_ms();
            let waits = $course.phases.waits();
            let done = $act;
            let waited_for = if $course.phases.waits() > waits { $course.phases.waits_for() } else { None };
            $watch.since($at, &$step, since_ms, waited_for);
            done?
        }
    };
}

async fn lead(
    parties: &mut [&mut dyn Party],
    course: &mut Course<'_, '_>,
    watch: &mut Watch,
) -> Result<Option<Seq>, EngineError> {
    let faults: Arc<dyn Faults> = course.components.faults.clone();
    let has = |phase: Phase| !faults.leaves_out(phase.word());
    if let Some(writer) = course.writer.as_deref_mut() {
        // What failed half-way before is finished first: nothing is planned on a tail that is about to move.
        writer.settle().await?;
    }
    course.phases.enter(Phase::Prepare);
    if has(Phase::Prepare) {
        each!(watch, Step::Begin, course, parties, |at, party| {
            watch.begun = at + 1;
            party.begin(course).await
        });
    }
    let mut readings = 0;
    loop {
        let sent = course.beside.sent();
        if has(Phase::InProgress) {
            each!(watch, Step::Prepare, course, parties, |_at, party| party.work(course).await);
        }
        course.phases.enter(Phase::WaitPending);
        let mut moved: Option<Vec<PageNo>> = None;
        if has(Phase::WaitPending) {
            each!(watch, Step::Prepare, course, parties, |_at, party| {
                party.catch_up(course).await.map(|caught_up| {
                    if let CaughtUp::Moved(pages) = caught_up {
                        moved = Some(pages);
                    }
                })
            });
        }
        match moved {
            Some(pages) => {
                each!(watch, Step::Prepare, course, parties, |_at, party| party.moved(course, &pages).await);
            }
            None => {
                // Now: what is read later may be of a later commit.
                each!(watch, Step::Prepare, course, parties, |_at, party| party.prepare(course).await);
                course.source.rest()?;
                course.phases.enter(Phase::WaitFlush);
                if has(Phase::WaitFlush) {
                    each!(watch, Step::Commit, course, parties, |_at, party| party.flush(course).await);
                }
                if course.beside.sent() == sent {
                    break;
                }
                // What was shipped meanwhile must not be undone by this checkpoint's record: it goes on top.
            }
        }
        readings += usize::from(course.beside.sent() > sent);
        if readings >= ROUNDS {
            course.beside.end();
        }
    }
    let mut brings = false;
    for party in parties.iter_mut() {
        brings |= party.brings(course)?;
    }
    let mut published = None;
    if brings {
        let mut record = Record::empty(&course.row());
        each!(watch, Step::Commit, course, parties, |_at, party| party.commit(course, &mut record).await);
        let since_ms = watch.clock.boot_ms();
        if let Some(writer) = course.writer.as_deref_mut() {
            if let Some(live) = course.source.live() {
                let logs = live.logs()?;
                writer.ship_first(&logs).await?;
            }
            let Record { mut draft, body, committed_ms, held } = record;
            draft.body = RecordBody::Checkpoint(body);
            published = Some(writer.publish_under(held.as_deref(), draft, committed_ms).await?);
        }
        // Whoever brought the pages is who they are published for.
        if let Some(last) = parties.len().checked_sub(1) {
            watch.since(last, &Step::Commit, since_ms, None);
        }
    }
    if course.writer.is_some() {
        watch.is_told = true;
        for party in parties.iter_mut() {
            party.settled(course);
        }
    }
    if published.is_some() {
        faults.reach("checkpoint.cleaned")?;
    }
    Ok(published)
}
