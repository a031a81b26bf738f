//! A database's changed pages into the object store, and one record that says so.
//!
//! | step | durable after it | after a crash |
//! |---|---|---|
//! | compared | nothing | again |
//! | job begun | its birth, in the manifest | the same birth, so that equal blobs get equal names |
//! | each blob staged, uploaded, noted; its file removed | the blob; the note | a noted blob is not made again |
//! | record published | see [`crate::log::publish`] | finished from the intent |
//! | scratch cleaned | | swept |
//!
//! A source that stands still is read once. One that moves (rule S16) is read in rounds: what changed while it was read is read
//! again and laid on top, until everything is of one commit. One record says all rounds, in their order. What is committed meanwhile
//! travels beside it ([`super::beside`]): a source that has shipped has moved.

use super::beside::{Beside, Meanwhile};
use super::coordinator::{Conducted, Course, Party, Record, Took, conduct};
use super::diff::{Difference, diff, reread};
use super::partial;
use super::parties::{IndexRegistry, Named, Schema, TransactionFence, WalPin};
use super::phases::{Passed, Phases};
use super::skeleton::Passing;
use super::stage::{self, Piece, ReadPage, Recipe, Staged, stage};
use crate::components::Components;
use crate::error::EngineError;
use crate::leases::{Held, STEP_MS};
use crate::log::Writer;
use crate::telemetry;
use async_trait::async_trait;
use littoral_format::blob::Index;
use littoral_format::keys;
use littoral_local::{JobDir, LocalError, Scratch, StagedFile};
use littoral_plan::participant::Participant;
use littoral_plan::phase::Phase;
use littoral_plan::{
    Action, CheckpointPlan, CheckpointPolicy, CheckpointView, ChunkPlan, Estimate, checkpoint as plan,
};
use littoral_ports::{Batch, Manifest, Paced, PageSource, Remote, RemoteError, Unit};
use littoral_types::limits::TRANSFERS_IN_FLIGHT;
use littoral_types::{
    Base, BlobKind, BlobRef, ChunkId, ChunkRuns, Compression, Delta, DeltaId, FooterFigures, FrameTable, Generation,
    Geometry, ManifestOp, PageIdentity, PageNo, Position, RecordKind, Seq, StagedBlob, VolumeFigures, VolumeRow, Work,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::task::JoinSet;

/// How a checkpoint is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Where the lines are drawn.
    pub policy: CheckpointPolicy,
    /// How frames are made smaller.
    pub compression: Compression,
}

/// What a checkpoint would do.
#[derive(Debug)]
pub struct Planned {
    /// What differs.
    pub difference: Difference,
    /// What follows; `None` when nothing differs.
    pub plan: Option<CheckpointPlan>,
    /// The phases that it went through, in their order.
    pub phases: Vec<Passed>,
    /// Who took part, and how long each took.
    pub took: Vec<Took>,
}

/// What a checkpoint did.
#[derive(Clone, Debug)]
pub struct Checkpointed {
    /// The commit it brought.
    pub position: Position,
    /// The record.
    pub seq: Seq,
    /// The generation.
    pub generation: Generation,
    /// What was decided.
    pub plan: CheckpointPlan,
    /// Bytes of its blobs.
    pub bytes: u64,
    /// Its blobs.
    pub blobs: usize,
    /// Those of them that an interrupted attempt had uploaded already.
    pub resumed: usize,
    /// The phases that it went through, in their order.
    pub phases: Vec<Passed>,
    /// Who took part, and how long each took.
    pub took: Vec<Took>,
}

/// Goes the way of a checkpoint up to its record, with all who take part in one, and changes nothing anywhere.
pub async fn planned(
    manifest: Arc<dyn Manifest>,
    row: &VolumeRow,
    source: &mut dyn PageSource,
    policy: &CheckpointPolicy,
    components: &Components,
) -> Result<Planned, EngineError> {
    let mut phases = Phases::new(components, row.meta.name.to_string(), None);
    let mut course = Course {
        phases: &mut phases,
        writer: None,
        manifest,
        row: row.clone(),
        components: components.clone(),
        source,
        scratch: None,
        options: Options { policy: *policy, ..Options::default() },
        beside: &mut Beside::nothing(),
        first: Vec::new(),
        trees: None,
        catalogue: None,
        rounds: Vec::new(),
        is_fold: false,
    };
    let mut pages = PageSet::default();
    let Conducted { phases, took, .. } = conducted(&mut pages, &mut course).await?;
    let (difference, plan) = pages.planned.unwrap_or_default();
    Ok(Planned { difference, plan, phases, took })
}

/// Compares. What changed is in the view alone.
fn viewed(course: &mut Course<'_, '_>) -> Result<(Difference, CheckpointView), EngineError> {
    let row = course.row();
    let Course { manifest, source, components, first, catalogue, .. } = course;
    let mut look = |page: PageNo, image: &[u8], count| {
        if page == PageNo::FIRST {
            *first = image.to_vec();
        }
        if let Some(catalogue) = catalogue.as_mut() {
            catalogue.look(page, image, count);
        }
    };
    let mut difference = diff(&**manifest, &row, &mut **source, &*components.progress, &mut look)?;
    if let Some(catalogue) = catalogue.as_mut() {
        catalogue.explore(&**manifest, &row, &mut **source)?;
    }
    source.rest()?;
    let figures = row.tail.figures;
    let view = CheckpointView {
        page_size: source.page_size(),
        page_count: source.page_count(),
        before: figures.page_size.map(|page_size| (page_size, figures.page_count)),
        changes: std::mem::take(&mut difference.changes),
        is_overlay: false,
    };
    Ok((difference, view))
}

/// Plans what differs, in as many parts as there is room for at once. None where nothing does.
fn sliced(
    (difference, view): (Difference, CheckpointView),
    policy: &CheckpointPolicy,
) -> Vec<(Difference, CheckpointPlan)> {
    let views = view.sliced(policy);
    let parts = views.into_iter().filter_map(|view| {
        let plan = plan(&view, policy)?;
        let pages = view.changes.iter().flat_map(|change| &change.pages);
        let identities = pages.filter_map(|page| Some((*page, difference.identity(*page)?))).collect();
        Some((Difference { changes: view.changes, identities, looked_at: difference.looked_at }, plan))
    });
    parts.collect()
}

/// Makes a checkpoint; `None` when nothing changed, and then nothing is written anywhere.
pub async fn checkpoint(
    writer: &mut Writer,
    scratch: &Scratch,
    source: &mut dyn PageSource,
    options: &Options,
) -> Result<Option<Checkpointed>, EngineError> {
    checkpoint_beside(writer, scratch, source, options, &mut Beside::nothing()).await
}

/// The same, while others commit and what they commit travels.
pub async fn checkpoint_beside(
    writer: &mut Writer,
    scratch: &Scratch,
    source: &mut dyn PageSource,
    options: &Options,
    beside: &mut Beside<'_>,
) -> Result<Option<Checkpointed>, EngineError> {
    let mut phases = Phases::new(writer.components(), writer.log().url(), None);
    checkpoint_in(&mut phases, writer, scratch, source, options, beside).await
}

/// The same in phases that somebody looks at.
pub async fn checkpoint_in(
    phases: &mut Phases,
    writer: &mut Writer,
    scratch: &Scratch,
    source: &mut dyn PageSource,
    options: &Options,
    beside: &mut Beside<'_>,
) -> Result<Option<Checkpointed>, EngineError> {
    let (components, volume) = (writer.components().clone(), writer.log().url());
    let began_ms = components.clock.boot_ms();
    let done = Box::pin(made_in(phases, writer, scratch, source, options, beside)).await;
    let took_ms = components.clock.boot_ms().saturating_sub(began_ms);
    match &done {
        Ok(Some(Checkpointed { position, seq, blobs, bytes, .. })) => {
            telemetry::checkpoint_published(&components, &volume, (*position, *seq), (*blobs, *bytes), took_ms);
        }
        Ok(None) => {}
        Err(error) => telemetry::checkpoint_failed(&components, &volume, error, took_ms),
    }
    done
}

async fn made_in(
    phases: &mut Phases,
    writer: &mut Writer,
    scratch: &Scratch,
    source: &mut dyn PageSource,
    options: &Options,
    beside: &mut Beside<'_>,
) -> Result<Option<Checkpointed>, EngineError> {
    let mut course = Course {
        phases,
        manifest: writer.manifest().clone(),
        row: writer.row().clone(),
        components: writer.components().clone(),
        writer: Some(writer),
        source,
        scratch: Some(scratch),
        options: *options,
        beside,
        first: Vec::new(),
        trees: None,
        catalogue: None,
        rounds: Vec::new(),
        is_fold: false,
    };
    let mut pages = PageSet::default();
    let Conducted { published, phases, took } = conducted(&mut pages, &mut course).await?;
    let Some(seq) = published else { return Ok(None) };
    let row = course.row();
    // Who brings no pages has planned none.
    let Made { generation, plan, bytes, blobs, resumed } =
        pages.made.unwrap_or_else(|| Made::nothing(row.tail.figures, course.source));
    let position = Position { epoch: row.tail.epoch, lsn: row.tail.lsn };
    Ok(Some(Checkpointed { position, seq, generation, plan, bytes, blobs, resumed, phases, took }))
}

/// Leads all who take part in a checkpoint through it. Here is the list of them.
async fn conducted(pages: &mut PageSet, course: &mut Course<'_, '_>) -> Result<Conducted, EngineError> {
    let (mut fence, mut pin) = (TransactionFence, WalPin::default());
    let (mut schema, mut named, mut registry) = (Schema::default(), Named::default(), IndexRegistry);
    let all: [&mut dyn Party; Participant::ALL.len()] =
        [&mut fence, &mut pin, &mut schema, &mut named, &mut registry, pages];
    let faults = course.components.faults.clone();
    let mut parties: Vec<&mut dyn Party> =
        all.into_iter().filter(|party| !faults.leaves_out(party.who().word())).collect();
    conduct(&mut parties, course).await
}

/// The pages that changed: compared, staged, uploaded; and where they are from then on.
#[derive(Default)]
struct PageSet {
    /// What is to be staged next.
    next: Vec<(Difference, CheckpointPlan)>,
    job: Option<Job>,
    is_cut_up: bool,
    unfolded: Unfolded,
    /// What would be done, where it is only tried.
    planned: Option<(Difference, Option<CheckpointPlan>)>,
    made: Option<Made>,
}

/// What a record brings of pages.
struct Made {
    generation: Generation,
    plan: CheckpointPlan,
    bytes: u64,
    blobs: usize,
    resumed: usize,
}

impl Made {
    /// No page is another one.
    fn nothing(figures: VolumeFigures, source: &dyn PageSource) -> Self {
        let (page_size, page_count) = (source.page_size(), source.page_count());
        let plan = CheckpointPlan {
            page_size,
            page_count,
            page_count_before: figures.page_count,
            reshape: false,
            chunks: Vec::new(),
            unchanged: Geometry::new(page_size).chunk_count(page_count),
            packs: Vec::new(),
            estimate: Estimate::default(),
        };
        Self { generation: figures.generation, plan, bytes: 0, blobs: 0, resumed: 0 }
    }
}

impl PageSet {
    /// Compares, and plans what follows within this policy.
    fn compare(&mut self, course: &mut Course<'_, '_>, policy: &CheckpointPolicy) -> Result<(), EngineError> {
        let (mut difference, view) = viewed(course)?;
        if course.writer.is_some() {
            self.next = sliced((difference, view), policy);
        } else {
            let plan = plan(&view, policy);
            difference.changes = view.changes;
            self.planned = Some((difference, plan));
        }
        Ok(())
    }

    /// What does not fit into the scratch goes in parts that do; what it takes is known when it is compressed.
    fn within(course: &Course<'_, '_>) -> CheckpointPolicy {
        course.scratch.map_or(course.options.policy, |scratch| course.options.policy.within(scratch.room()))
    }
}

#[async_trait(?Send)]
impl Party for PageSet {
    fn who(&self) -> Participant {
        Participant::PageSet
    }

    async fn begin(&mut self, course: &mut Course<'_, '_>) -> Result<(), EngineError> {
        if let Some(writer) = course.writer.as_deref_mut() {
            partial::for_comparing(writer, course.source).await?;
        }
        let policy = course.options.policy;
        self.compare(course, &policy)
    }

    async fn work(&mut self, course: &mut Course<'_, '_>) -> Result<(), EngineError> {
        let (Some(_), Some(scratch)) = (&course.writer, course.scratch) else {
            if self.planned.as_ref().is_some_and(|(_, plan)| plan.is_some()) {
                course.phases.enter(Phase::InProgress);
            }
            return Ok(());
        };
        while !self.next.is_empty() {
            for (difference, plan) in std::mem::take(&mut self.next) {
                course.phases.enter(Phase::InProgress);
                let Some(writer) = course.writer.as_deref_mut() else { continue };
                let job = match &mut self.job {
                    Some(job) => job,
                    none => none.insert(Job::begin(writer, scratch, &plan, &course.options)?),
                };
                match job.round(writer, course.source, difference, plan, course.beside).await {
                    Ok(round) => course.rounds.push(round),
                    Err(EngineError::Quota(_) | EngineError::Local(LocalError::Quota(_)))
                        if course.rounds.is_empty() && !self.is_cut_up =>
                    {
                        self.is_cut_up = true;
                        let within = Self::within(course);
                        self.compare(course, &within)?;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn moved(&mut self, course: &mut Course<'_, '_>, pages: &[PageNo]) -> Result<(), EngineError> {
        let within = Self::within(course);
        let Some(writer) = course.writer.as_deref_mut() else { return self.compare(course, &within) };
        // What goes on top of a chunk depends on whether it was ever written whole.
        partial::rows(writer, &partial::chunks_of(course.source.page_size(), pages)).await?;
        self.next = overlaid(course, pages.to_vec(), &within)?;
        Ok(())
    }

    async fn flush(&mut self, course: &mut Course<'_, '_>) -> Result<(), EngineError> {
        if let (Some(job), Some(writer)) = (&mut self.job, course.writer.as_deref_mut()) {
            job.uploads.all(writer, &mut course.beside.with(course.source)).await?;
        }
        Ok(())
    }

    fn brings(&mut self, course: &mut Course<'_, '_>) -> Result<bool, EngineError> {
        let Some(writer) = course.writer.as_deref_mut() else {
            course.is_fold = !still_unfolded(&partial::ops_of(&*course.manifest, &course.row)?).is_empty();
            return Ok(course.is_fold || self.planned.as_ref().is_some_and(|(_, plan)| plan.is_some()));
        };
        // What segments brought is in it.
        self.unfolded = unfolded(writer)?;
        course.is_fold = !self.unfolded.is_empty();
        if self.job.is_some() {
            course.components.faults.reach("checkpoint.uploaded")?;
            return Ok(true);
        }
        // What an interrupted checkpoint had begun was undone in the database since.
        if course.manifest.job(&writer.row().meta.id)?.is_some() {
            writer.note(|_| {}, Batch { job: Some(None), ..Batch::default() })?;
        }
        if course.is_fold {
            course.components.faults.reach("checkpoint.uploaded")?;
        }
        Ok(course.is_fold)
    }

    async fn commit(&mut self, course: &mut Course<'_, '_>, record: &mut Record) -> Result<(), EngineError> {
        let row = course.row();
        let passing = self.job.as_mut().map(|job| std::mem::take(&mut job.passing)).unwrap_or_default();
        let mut made = Made::nothing(row.tail.figures, course.source);
        let beyond = || EngineError::Inconsistent {
            volume: row.meta.name.to_string(),
            detail: "more generations than can be counted".to_owned(),
        };
        let (mut identities, mut told) = (BTreeMap::new(), None::<CheckpointPlan>);
        for Round { difference, plan, built, resumed } in std::mem::take(&mut course.rounds) {
            // Each round has a generation of its own: deltas of one chunk are told apart by it.
            made.generation = made.generation.next();
            record.body.ops.extend(ops(&plan, made.generation, &built, &mut self.unfolded).ok_or_else(beyond)?);
            identities.extend(difference.identities);
            made.bytes += built.iter().map(|(blob, _)| blob.len).sum::<u64>();
            made.blobs += built.len();
            made.resumed += resumed;
            match &mut told {
                None => told = Some(plan),
                Some(told) => {
                    told.page_count = plan.page_count;
                    told.chunks.extend(plan.chunks);
                }
            }
        }
        match told {
            Some(plan) => made.plan = plan,
            None => {
                // What was shipped since the newest checkpoint was undone since: what that one had is what there is.
                made.generation = made.generation.next();
                record.body.ops.push(ManifestOp::Resize { page_count: made.plan.page_count });
            }
        }
        let unfolded = std::mem::take(&mut self.unfolded).into_iter();
        record.body.ops.extend(unfolded.map(|(chunk, replaced)| ManifestOp::ReplaceDeltas {
            chunk,
            replaced,
            delta: None,
        }));
        record.body.pages = passing.published(&row.meta.identity_key, &identities);
        let Made { generation, plan, bytes, .. } = &made;
        record.draft.figures =
            VolumeFigures { generation: *generation, page_size: Some(plan.page_size), page_count: plan.page_count };
        record.draft.added = FooterFigures { pages: plan.changed_pages(), bytes: *bytes };
        record.draft.identities = identities.into_iter().collect();
        record.held = self.job.as_ref().and_then(|job| job.uploads.held.clone());
        self.made = Some(made);
        Ok(())
    }

    fn settled(&mut self, course: &mut Course<'_, '_>) {
        // Only room is lost where it stays, until the scratch is swept.
        match self.job.take().map(|job| job.dir.remove()) {
            None => {}
            Some(Ok(())) => {
                let volume = course.writer.as_deref().map(|writer| writer.log().url());
                telemetry::checkpoint_cleaned_up(&volume.unwrap_or_default());
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the checkpoint is published; what it had staged cannot be removed");
            }
        }
    }

    fn abort(&mut self, _: &mut Course<'_, '_>) {
        // Uploads that are on their way end here. What was noted as uploaded is not made again by the next checkpoint.
        (self.job, self.next) = (None, Vec::new());
    }
}

/// Plans what goes on top of the rounds so far.
fn overlaid(
    course: &mut Course<'_, '_>,
    pages: Vec<PageNo>,
    policy: &CheckpointPolicy,
) -> Result<Vec<(Difference, CheckpointPlan)>, EngineError> {
    let row = course.row();
    let Course { manifest, source, rounds, first, catalogue, .. } = course;
    let page_size = source.page_size();
    let before = match rounds.last() {
        Some(round) => Some((round.plan.page_size, round.plan.page_count)),
        None => row.tail.figures.page_size.map(|size| (size, row.tail.figures.page_count)),
    };
    let reshaped = rounds.first().is_some_and(|round| round.plan.reshape);
    let has_base = |chunk| {
        let written = rounds
            .iter()
            .flat_map(|round| &round.plan.chunks)
            .any(|plan| plan.chunk == chunk && matches!(plan.action, Action::Rewrite(_)));
        Ok(written || (!reshaped && manifest.has_base(&row.meta.id, chunk)?))
    };
    let mut look = |page: PageNo, image: &[u8], count| {
        if page == PageNo::FIRST {
            *first = image.to_vec();
        }
        if let Some(catalogue) = catalogue.as_mut() {
            catalogue.look(page, image, count);
        }
    };
    let mut difference = reread(&row, &mut **source, pages, has_base, &mut look)?;
    source.rest()?;
    let changes = std::mem::take(&mut difference.changes);
    let view = CheckpointView { page_size, page_count: source.page_count(), before, changes, is_overlay: true };
    Ok(sliced((difference, view), policy))
}

/// One reading of what changed: what was decided, and the blobs that came of it.
#[derive(Debug)]
pub(super) struct Round {
    difference: Difference,
    plan: CheckpointPlan,
    pub(super) built: Vec<(BlobRef, Index)>,
    resumed: usize,
}

/// The work on one checkpoint's blobs.
struct Job {
    recipe: Recipe,
    /// Blobs that an interrupted attempt had uploaded, by what went into them.
    done: HashMap<[u8; 32], BlobRef>,
    dir: JobDir,
    uploads: Uploads,
    passing: Passing,
}

impl Job {
    fn begin(
        writer: &mut Writer,
        scratch: &Scratch,
        plan: &CheckpointPlan,
        options: &Options,
    ) -> Result<Self, EngineError> {
        let faults = writer.components().faults.clone();
        faults.reach("checkpoint.planned")?;
        let held = writer.lease_or_refuse(Work::Checkpoint, Some(chunks_of(plan)))?;
        let (birth, done) = begin(writer)?;
        faults.reach("checkpoint.begun")?;
        let recipe = Recipe {
            page_size: plan.page_size,
            compression: options.compression,
            key: writer.row().meta.identity_key,
            birth,
        };
        scratch.sweep()?;
        let dir = scratch.job(&writer.row().meta.id, birth)?;
        telemetry::checkpoint_started(&writer.log().url(), writer.row().tail.figures.generation.next().0);
        Ok(Self {
            recipe,
            done,
            dir,
            uploads: Uploads::new(writer.log().remote().clone(), held, Work::Checkpoint),
            passing: Passing::default(),
        })
    }

    /// Stages a round's blobs and sends them on their way.
    async fn round(
        &mut self,
        writer: &mut Writer,
        source: &mut dyn PageSource,
        difference: Difference,
        plan: CheckpointPlan,
        beside: &mut Beside<'_>,
    ) -> Result<Round, EngineError> {
        let components = writer.components().clone();
        let manifest = writer.manifest().clone();
        let Self { recipe, done, dir, uploads, passing } = self;
        let mut built: Vec<(BlobRef, Index)> = Vec::new();
        let mut resumed = 0;
        if let Some(held) = &uploads.held {
            writer.widen_or_refuse(held, Work::Checkpoint, &chunks_of(&plan))?;
        }
        components.progress.phase("uploading", plan.estimate.bytes, Unit::Bytes);
        let jobs = plan
            .rewrites()
            .map(|at| (BlobKind::Chunk, vec![at]))
            .chain(plan.packs.iter().map(|pack| (BlobKind::Pack, pack.clone())));
        for (kind, chunks) in jobs {
            uploads.step()?;
            let chunks: Vec<&ChunkPlan> = chunks.iter().filter_map(|at| plan.chunks.get(*at)).collect();
            let pieces: Vec<Piece<'_>> = chunks
                .iter()
                .map(|chunk| Piece { chunk: chunk.chunk, span: chunk.span, pages: &chunk.pages })
                .collect();
            // A chunk that is written whole is known by the identities of all its pages.
            if kind == BlobKind::Chunk
                && pieces.iter().flat_map(|piece| piece.pages).any(|page| difference.identity(*page).is_none())
            {
                let whole: Vec<ChunkId> = pieces.iter().map(|piece| piece.chunk).collect();
                partial::identities(writer, &whole).await?;
            }
            let known = Known::of(&*manifest, writer.row(), &difference, kind, &pieces)?;
            let unknown = || writer.log().inconsistent("a page that did not change has no identity".to_owned());
            let input = stage::input(recipe, kind, &pieces, &|page| known.identity(page)).ok_or_else(unknown)?;
            if let Some(blob) = done.get(&input) {
                // Its frames lie where they lay: the footer tells where, and the identities vouch for the pages.
                let mark = stage::mark(recipe, &input);
                match super::fetch::index(writer.log(), blob).await {
                    Ok(index) if vouched(&index, &pieces, mark, &|page| known.identity(page)) => {
                        built.push((blob.clone(), index));
                        resumed += 1;
                        components.progress.advance(blob.len);
                        continue;
                    }
                    // Somebody took it away meanwhile, or it is not what was uploaded: it is made again, under the same name.
                    Ok(_)
                    | Err(
                        EngineError::Damaged { .. }
                        | EngineError::Inconsistent { .. }
                        | EngineError::Remote(RemoteError::Missing { .. } | RemoteError::Corrupt { .. }),
                    ) => {
                        let name = &blob.name;
                        tracing::warn!(%name, "a blob that an interrupted checkpoint had uploaded is gone: uploading it again");
                    }
                    Err(error) => return Err(error),
                }
            }
            let next = Next { dir, recipe, kind, input: &input, pieces: &pieces };
            let Staged { blob, index, file } = loop {
                let mut read = |page, into: &mut [u8]| {
                    source.read(page, into)?;
                    passing.look(page, into);
                    Ok(())
                };
                match uploads.staged(&next, &mut read)? {
                    Some(staged) => break staged,
                    None => {
                        source.rest()?;
                        uploads.one(writer, &mut beside.with(source)).await?;
                    }
                }
            };
            source.rest()?;
            telemetry::checkpoint_staged(&components, &writer.log().url(), &blob.name.to_string(), blob.len);
            components.faults.reach("checkpoint.staged")?;
            // Its pages were read, and it was written and read back.
            let pages: u64 = pieces.iter().map(|piece| piece.pages.len() as u64).sum();
            let bytes = pages * recipe.page_size.bytes() + 2 * blob.len;
            uploads.rest(writer, bytes, &mut beside.with(source)).await?;
            uploads.room(writer, &mut beside.with(source)).await?;
            uploads.start(writer, file, Some(input), &blob);
            built.push((blob, index));
            beside.with(source).turn(writer).await?;
            beside.fetch(writer).await?;
            // Lets the uploads of a single-threaded runtime move while the next blob is built.
            tokio::task::yield_now().await;
        }
        Ok(Round { difference, plan, built, resumed })
    }
}

/// The chunks of which something is written.
fn chunks_of(plan: &CheckpointPlan) -> ChunkRuns {
    plan.chunks.iter().map(|chunk| chunk.chunk).collect()
}

/// Begins a job, or goes on with the one that was interrupted.
fn begin(writer: &mut Writer) -> Result<(Seq, HashMap<[u8; 32], BlobRef>), EngineError> {
    let id = writer.row().meta.id;
    if let Some((birth, staged)) = writer.manifest().job(&id)? {
        // Blobs from before a prune may be among those that it dooms: they are made again under a new name (rule P1).
        let since = writer.manifest().changes_since(&id, birth)?;
        let pruned = since.iter().flat_map(|change| &change.records).any(|record| record.kind == RecordKind::Prune);
        if !pruned {
            let done = staged.into_iter().filter(|blob| blob.uploaded).map(|blob| (blob.input, blob.blob));
            return Ok((birth, done.collect()));
        }
    }
    let birth = writer.row().tail.seq;
    writer.note(|_| {}, Batch { job: Some(None), ..Batch::default() })?;
    writer.note(|_| {}, Batch { job: Some(Some(birth)), ..Batch::default() })?;
    Ok((birth, HashMap::new()))
}

/// Whether a blob that was found holds exactly these pieces.
fn vouched(index: &Index, pieces: &[Piece<'_>], mark: u64, identity: &dyn Fn(PageNo) -> Option<PageIdentity>) -> bool {
    index.chunks.len() == pieces.len()
        && index.chunks.iter().zip(pieces).all(|(chunk, piece)| {
            let held = chunk.identities.iter().map(|(page, found)| (*page, Some(*found)));
            (chunk.chunk, chunk.span) == (piece.chunk, piece.span)
                && (chunk.table.mark == mark || chunk.table.frame_count() == 0)
                && held.eq(piece.pages.iter().map(|page| (*page, identity(*page))))
        })
}

/// The identities of every page that goes into a blob.
struct Known<'a> {
    difference: &'a Difference,
    unchanged: HashMap<PageNo, PageIdentity>,
}

impl<'a> Known<'a> {
    fn of(
        manifest: &dyn Manifest,
        row: &VolumeRow,
        difference: &'a Difference,
        kind: BlobKind,
        pieces: &[Piece<'_>],
    ) -> Result<Self, EngineError> {
        let mut unchanged = HashMap::new();
        // Deltas hold changed pages only.
        for piece in pieces.iter().filter(|_| kind == BlobKind::Chunk) {
            let count = usize::try_from(piece.span.count.0).unwrap_or(usize::MAX);
            let known = manifest.identities(&row.meta.id, piece.span.first, count)?;
            unchanged.extend(piece.span.pages().zip(known).filter_map(|(page, identity)| Some((page, identity?))));
        }
        Ok(Self { difference, unchanged })
    }

    fn identity(&self, page: PageNo) -> Option<PageIdentity> {
        self.difference.identity(page).or_else(|| self.unchanged.get(&page).copied())
    }
}

/// The deltas that segments brought since the newest checkpoint, by chunk.
pub(super) type Unfolded = BTreeMap<ChunkId, Vec<DeltaId>>;

/// What segments brought since the newest checkpoint. No manifest snapshot that a writer starts from has any of it.
pub(super) fn unfolded(writer: &Writer) -> Result<Unfolded, EngineError> {
    Ok(still_unfolded(&partial::ops_since(writer)?))
}

/// The pages that segments brought since the newest checkpoint: whoever makes the next one looks at them, whoever shipped them. Who goes
/// on with a volume that another one wrote, or that was forked, has never seen them change.
pub(super) fn unfolded_pages(manifest: &dyn Manifest, row: &VolumeRow) -> Result<BTreeSet<PageNo>, EngineError> {
    let ops = partial::ops_of(manifest, row)?;
    let unfolded = still_unfolded(&ops);
    let mut pages = BTreeSet::new();
    for op in &ops {
        if let ManifestOp::PutDelta { chunk, delta } = op
            && unfolded.get(chunk).is_some_and(|ids| ids.contains(&delta.id))
        {
            pages.extend(delta.table.pages());
        }
    }
    Ok(pages)
}

/// Bytes of the database that changed since the newest checkpoint, as far as they travelled: each page once, however often.
pub fn dirty_bytes(manifest: &dyn Manifest, row: &VolumeRow) -> Result<u64, EngineError> {
    let Some(page_size) = row.tail.figures.page_size else { return Ok(0) };
    Ok(unfolded_pages(manifest, row)?.len() as u64 * page_size.bytes())
}

fn still_unfolded(ops: &[ManifestOp]) -> Unfolded {
    let mut unfolded = Unfolded::new();
    for op in ops {
        match op {
            ManifestOp::Reshape { .. } => unfolded.clear(),
            ManifestOp::Resize { .. }
            | ManifestOp::Session(_)
            | ManifestOp::Object(_)
            | ManifestOp::PutSegment { .. }
            | ManifestOp::DropSegment { .. } => {}
            ManifestOp::PutBase { chunk, base } => {
                if let Some(ids) = unfolded.get_mut(chunk) {
                    ids.retain(|id| base.leaves(*id));
                }
            }
            ManifestOp::PutDelta { chunk, delta } => {
                if delta.id.is_of_segment() {
                    unfolded.entry(*chunk).or_default().push(delta.id);
                }
            }
            ManifestOp::ReplaceDeltas { chunk, replaced, .. } => {
                if let Some(ids) = unfolded.get_mut(chunk) {
                    ids.retain(|id| !replaced.contains(id));
                }
            }
        }
    }
    unfolded.retain(|_, ids| !ids.is_empty());
    unfolded
}

fn ops(
    plan: &CheckpointPlan,
    generation: Generation,
    built: &[(BlobRef, Index)],
    unfolded: &mut Unfolded,
) -> Option<Vec<ManifestOp>> {
    let mut tables: HashMap<ChunkId, (&BlobRef, &FrameTable)> = HashMap::new();
    for (blob, index) in built {
        tables.extend(index.chunks.iter().map(|chunk| (chunk.chunk, (blob, &chunk.table))));
    }
    let mut ops = Vec::new();
    if plan.reshape {
        unfolded.clear();
        ops.push(ManifestOp::Reshape { page_size: plan.page_size });
    }
    ops.push(ManifestOp::Resize { page_count: plan.page_count });
    for chunk in &plan.chunks {
        let (Some((blob, table)), Some(last_live)) = (tables.get(&chunk.chunk), chunk.span.last()) else { continue };
        let (blob, table) = ((*blob).clone(), (*table).clone());
        ops.push(match chunk.action {
            Action::Rewrite(_) => {
                // Nothing that was there before stays.
                unfolded.remove(&chunk.chunk);
                let base = Base { generation, blob, span: chunk.span, last_live, table };
                ManifestOp::PutBase { chunk: chunk.chunk, base }
            }
            Action::Delta | Action::Drop => {
                let delta = Delta { id: DeltaId::of_checkpoint(generation)?, blob, last_live, table };
                match unfolded.remove(&chunk.chunk) {
                    None => ManifestOp::PutDelta { chunk: chunk.chunk, delta },
                    Some(replaced) => ManifestOp::ReplaceDeltas { chunk: chunk.chunk, replaced, delta: Some(delta) },
                }
            }
        });
    }
    Some(ops)
}

/// Uploads on their way: bounded, and each noted in the manifest when it is done. Then its file goes: local room is taken for
/// what is on its way, however large the database is (I7).
pub(crate) struct Uploads {
    remote: Arc<dyn Remote>,
    /// The right to what they are for.
    held: Option<Arc<Held>>,
    /// What they are for.
    work: Work,
    running: JoinSet<Result<Uploaded, RemoteError>>,
}

type Uploaded = (Option<[u8; 32]>, BlobRef, StagedFile);

/// What is staged next.
#[derive(Clone, Copy)]
pub(crate) struct Next<'a> {
    pub(crate) dir: &'a JobDir,
    pub(crate) recipe: &'a Recipe,
    pub(crate) kind: BlobKind,
    pub(crate) input: &'a [u8; 32],
    pub(crate) pieces: &'a [Piece<'a>],
}

impl Uploads {
    pub(crate) fn new(remote: Arc<dyn Remote>, held: Option<Arc<Held>>, work: Work) -> Self {
        Self { remote, held, work, running: JoinSet::new() }
    }

    /// Goes on, unless the right to was taken away.
    pub(crate) fn step(&self) -> Result<(), EngineError> {
        self.held.as_ref().map_or(Ok(()), |held| held.step())
    }

    /// Stages a blob. `None` where there is no room for it beside those that are on their way: one of them is to be waited for.
    pub(crate) fn staged(&self, next: &Next<'_>, read: ReadPage<'_>) -> Result<Option<Staged>, EngineError> {
        match stage(next.dir, next.recipe, next.kind, next.input, next.pieces, read) {
            Err(EngineError::Quota(_) | EngineError::Local(LocalError::Quota(_))) if !self.running.is_empty() => {
                Ok(None)
            }
            staged => staged.map(Some),
        }
    }

    /// Rests for so many bytes that were read and written here, as the store's pace has it, and holds what it holds.
    pub(crate) async fn rest(
        &self,
        writer: &mut Writer,
        bytes: u64,
        meanwhile: &mut dyn Meanwhile,
    ) -> Result<(), EngineError> {
        let clock = writer.components().clock.clone();
        let mut left_ms = writer.components().account.take(Paced::Io, bytes);
        while left_ms > 0 {
            let turn_ms = self.patience_ms(meanwhile).map_or(left_ms, |patience| patience.clamp(1, left_ms));
            clock.sleep_ms(turn_ms).await;
            left_ms -= turn_ms;
            self.step()?;
            meanwhile.turn(writer).await?;
        }
        Ok(())
    }

    /// How long it is waited at once: as long as what wants a turn has patience, and never so long that the right would run out.
    fn patience_ms(&self, meanwhile: &dyn Meanwhile) -> Option<u64> {
        let step_ms = self.held.as_ref().map(|_| STEP_MS);
        meanwhile.patience_ms().into_iter().chain(step_ms).min()
    }

    /// Waits until one more may be sent on its way.
    pub(crate) async fn room(&mut self, writer: &mut Writer, meanwhile: &mut dyn Meanwhile) -> Result<(), EngineError> {
        while self.running.len() >= TRANSFERS_IN_FLIGHT {
            self.one(writer, meanwhile).await?;
        }
        Ok(())
    }

    /// Sends a blob on its way, as fast as the store's pace lets it.
    pub(crate) fn start(&mut self, writer: &Writer, file: StagedFile, input: Option<[u8; 32]>, blob: &BlobRef) {
        let path = keys::blob(writer.log().name(), &blob.name);
        let (remote, blob) = (self.remote.clone(), blob.clone());
        let components = writer.components();
        let (rest_ms, clock) = (components.account.take(Paced::Upload, blob.len), components.clock.clone());
        self.running.spawn(async move {
            if rest_ms > 0 {
                clock.sleep_ms(rest_ms).await;
            }
            remote.upload(&path, &file).await.map(|()| (input, blob, file))
        });
    }

    /// Waits for all that are on their way.
    pub(crate) async fn all(&mut self, writer: &mut Writer, meanwhile: &mut dyn Meanwhile) -> Result<(), EngineError> {
        while !self.running.is_empty() {
            self.one(writer, meanwhile).await?;
        }
        Ok(())
    }

    /// Waits for one that is on its way, and gives others their turns meanwhile.
    pub(crate) async fn one(&mut self, writer: &mut Writer, meanwhile: &mut dyn Meanwhile) -> Result<(), EngineError> {
        let clock = writer.components().clock.clone();
        let done = loop {
            let Some(patience) = self.patience_ms(meanwhile) else { break self.running.join_next().await };
            tokio::select! {
                biased;
                done = self.running.join_next() => break done,
                () = clock.sleep_ms(patience) => {
                    self.step()?;
                    meanwhile.turn(writer).await?;
                }
            }
        };
        self.step()?;
        let Some(done) = done else { return Ok(()) };
        let progress = writer.components().progress.clone();
        let (input, blob, file) = match done {
            Ok(done) => done?,
            Err(error) => return Err(EngineError::Interrupted(format!("an upload was cut off: {error}"))),
        };
        progress.advance(blob.len);
        progress.blob(&blob.name.to_string(), blob.len);
        if self.work == Work::Checkpoint {
            telemetry::checkpoint_uploaded(writer.components(), &writer.log().url(), &blob.name.to_string(), blob.len);
        }
        writer.components().faults.reach("checkpoint.blob-uploaded")?;
        if let Some(input) = input {
            let staged = vec![StagedBlob { input, blob, uploaded: true }];
            writer.note(|_| {}, Batch { staged, ..Batch::default() })?;
        }
        Ok(file.remove()?)
    }
}
