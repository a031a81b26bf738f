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
//! again and laid on top, until everything is of one commit. One record says all rounds, in their order.

use super::diff::{Difference, diff, reread};
use super::partial;
use super::skeleton::Passing;
use super::stage::{self, Piece, ReadPage, Recipe, Staged, stage};
use crate::error::EngineError;
use crate::log::{Draft, Writer};
use littoral_format::blob::Index;
use littoral_format::keys;
use littoral_local::{JobDir, LocalError, Scratch, StagedFile};
use littoral_plan::{
    Action, CheckpointPlan, CheckpointPolicy, CheckpointView, ChunkPlan, Estimate, checkpoint as plan,
};
use littoral_ports::{Batch, CaughtUp, Manifest, PageSource, Progress, Remote, RemoteError, Unit};
use littoral_types::limits::TRANSFERS_IN_FLIGHT;
use littoral_types::{
    Base, BlobKind, BlobRef, Checkpoint, ChunkId, Compression, Delta, DeltaId, FooterFigures, FrameTable, Generation,
    Geometry, JournalMode, ManifestOp, PageIdentity, PageNo, Position, RecordBody, RecordKind, SchemaSummary, Seq,
    StagedBlob, VolumeFigures, VolumeRow,
};
use std::collections::{BTreeMap, HashMap};
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
}

/// Compares and plans, changing nothing.
pub fn planned(
    manifest: &dyn Manifest,
    row: &VolumeRow,
    source: &mut dyn PageSource,
    policy: &CheckpointPolicy,
    progress: &dyn Progress,
) -> Result<Planned, EngineError> {
    let mut difference = diff(manifest, row, source, progress)?;
    source.rest()?;
    let figures = row.tail.figures;
    let view = CheckpointView {
        page_size: source.page_size(),
        page_count: source.page_count(),
        before: figures.page_size.map(|page_size| (page_size, figures.page_count)),
        changes: std::mem::take(&mut difference.changes),
        is_overlay: false,
    };
    let plan = plan(&view, policy);
    difference.changes = view.changes;
    Ok(Planned { difference, plan })
}

/// Makes a checkpoint; `None` when nothing changed, and then nothing is written anywhere.
pub async fn checkpoint(
    writer: &mut Writer,
    scratch: &Scratch,
    source: &mut dyn PageSource,
    options: &Options,
) -> Result<Option<Checkpointed>, EngineError> {
    writer.settle().await?;
    let components = writer.components().clone();
    let manifest = writer.manifest().clone();
    partial::for_comparing(writer, source).await?;
    let Planned { difference, plan } =
        planned(&*manifest, writer.row(), source, &options.policy, &*components.progress)?;
    let mut next = plan.map(|plan| (difference, plan));
    let mut job: Option<Job> = None;
    let mut rounds: Vec<Round> = Vec::new();
    loop {
        if let Some((difference, plan)) = next.take() {
            let job = match &mut job {
                Some(job) => job,
                none => none.insert(Job::begin(writer, scratch, &plan, options)?),
            };
            rounds.push(job.round(writer, source, difference, plan).await?);
        }
        match source.catch_up()? {
            CaughtUp::Still => break,
            CaughtUp::Moved(pages) => {
                // What goes on top of a chunk depends on whether it was ever written whole.
                partial::rows(writer, &partial::chunks_of(source.page_size(), &pages)).await?;
                next = overlaid(&*manifest, writer.row(), source, &rounds, pages, options)?;
            }
        }
    }
    // What segments brought is in it.
    let mut unfolded = unfolded(writer)?;
    let is_fold = !unfolded.is_empty();
    if job.is_none() {
        // What an interrupted checkpoint had begun was undone in the database since.
        if manifest.job(&writer.row().meta.id)?.is_some() {
            writer.note(|_| {}, Batch { job: Some(None), ..Batch::default() })?;
        }
        if !is_fold {
            return Ok(None);
        }
    }
    let (dir, passing) = match job {
        Some(Job { dir, uploads, passing, .. }) => {
            uploads.finish(writer).await?;
            (Some(dir), passing)
        }
        None => (None, Passing::default()),
    };
    components.faults.reach("checkpoint.uploaded")?;

    let schema = schema(source)?;
    source.rest()?;
    let mut generation = writer.row().tail.figures.generation;
    let beyond = || writer.log().inconsistent("more generations than can be counted".to_owned());
    let (mut done, mut told) = (Done::default(), None::<CheckpointPlan>);
    for Round { difference, plan, built, resumed } in rounds {
        // Each round has a generation of its own: deltas of one chunk are told apart by it.
        generation = generation.next();
        done.ops.extend(ops(&plan, generation, &built, &mut unfolded).ok_or_else(beyond)?);
        done.identities.extend(difference.identities);
        done.bytes += built.iter().map(|(blob, _)| blob.len).sum::<u64>();
        done.blobs += built.len();
        done.resumed += resumed;
        match &mut told {
            None => told = Some(plan),
            Some(told) => {
                told.page_count = plan.page_count;
                told.chunks.extend(plan.chunks);
            }
        }
    }
    // What was shipped since the newest checkpoint was undone since: what that one had is what there is.
    let plan = told.unwrap_or_else(|| {
        generation = generation.next();
        let (page_size, page_count) = (source.page_size(), source.page_count());
        done.ops.push(ManifestOp::Resize { page_count });
        CheckpointPlan {
            page_size,
            page_count,
            page_count_before: writer.row().tail.figures.page_count,
            reshape: false,
            chunks: Vec::new(),
            unchanged: Geometry::new(page_size).chunk_count(page_count),
            packs: Vec::new(),
            estimate: Estimate::default(),
        }
    });
    done.ops.extend(unfolded.into_iter().map(|(chunk, replaced)| ManifestOp::ReplaceDeltas {
        chunk,
        replaced,
        delta: None,
    }));
    let pages = passing.published(&writer.row().meta.identity_key, &done.identities);
    let draft = Draft {
        body: RecordBody::Checkpoint(Checkpoint {
            ops: done.ops,
            schema,
            sessions: Vec::new(),
            wal: source.wal(),
            pages,
        }),
        commits: if is_fold { source.commits() } else { source.commits().max(1) },
        figures: VolumeFigures { generation, page_size: Some(plan.page_size), page_count: plan.page_count },
        added: FooterFigures { pages: plan.changed_pages(), bytes: done.bytes },
        identities: done.identities.into_iter().collect(),
    };
    let published = writer.publish(draft).await?;
    if let Some(dir) = dir {
        dir.remove()?;
    }
    components.faults.reach("checkpoint.cleaned")?;
    let tail = &writer.row().tail;
    Ok(Some(Checkpointed {
        position: Position { epoch: tail.epoch, lsn: tail.lsn },
        seq: published,
        generation,
        plan,
        bytes: done.bytes,
        blobs: done.blobs,
        resumed: done.resumed,
    }))
}

/// What a record brings, summed over its rounds.
#[derive(Default)]
struct Done {
    ops: Vec<ManifestOp>,
    identities: BTreeMap<PageNo, PageIdentity>,
    bytes: u64,
    blobs: usize,
    resumed: usize,
}

/// Plans what goes on top of the rounds so far; `None` when nothing does.
fn overlaid(
    manifest: &dyn Manifest,
    row: &VolumeRow,
    source: &mut dyn PageSource,
    rounds: &[Round],
    pages: Vec<PageNo>,
    options: &Options,
) -> Result<Option<(Difference, CheckpointPlan)>, EngineError> {
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
        Ok(written || (!reshaped && manifest.row(&row.meta.id, chunk)?.is_some_and(|row| row.base.is_some())))
    };
    let mut difference = reread(row, source, pages, has_base)?;
    source.rest()?;
    let view = CheckpointView {
        page_size,
        page_count: source.page_count(),
        before,
        changes: std::mem::take(&mut difference.changes),
        is_overlay: true,
    };
    let plan = plan(&view, &options.policy);
    difference.changes = view.changes;
    Ok(plan.map(|plan| (difference, plan)))
}

/// One reading of what changed: what was decided, and the blobs that came of it.
struct Round {
    difference: Difference,
    plan: CheckpointPlan,
    built: Vec<(BlobRef, Index)>,
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
        Ok(Self {
            recipe,
            done,
            dir,
            uploads: Uploads::new(writer.log().remote().clone()),
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
    ) -> Result<Round, EngineError> {
        let components = writer.components().clone();
        let manifest = writer.manifest().clone();
        let Self { recipe, done, dir, uploads, passing } = self;
        let mut built: Vec<(BlobRef, Index)> = Vec::new();
        let mut resumed = 0;
        components.progress.phase("uploading", plan.estimate.bytes, Unit::Bytes);
        let jobs = plan
            .rewrites()
            .map(|at| (BlobKind::Chunk, vec![at]))
            .chain(plan.packs.iter().map(|pack| (BlobKind::Pack, pack.clone())));
        for (kind, chunks) in jobs {
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
            let mut read = |page, into: &mut [u8]| {
                source.read(page, into)?;
                passing.look(page, into);
                Ok(())
            };
            let next = Next { dir, recipe, kind, input: &input, pieces: &pieces };
            let Staged { blob, index, file } = uploads.staged(writer, &next, &mut read).await?;
            source.rest()?;
            components.faults.reach("checkpoint.staged")?;
            uploads.start(writer, file, Some(input), &blob).await?;
            built.push((blob, index));
            // Lets the uploads of a single-threaded runtime move while the next blob is built.
            tokio::task::yield_now().await;
        }
        Ok(Round { difference, plan, built, resumed })
    }
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
    let mut unfolded = Unfolded::new();
    for op in partial::ops_since(writer)? {
        match op {
            ManifestOp::Reshape { .. } => unfolded.clear(),
            ManifestOp::Resize { .. } => {}
            ManifestOp::PutBase { chunk, base } => {
                if let Some(ids) = unfolded.get_mut(&chunk) {
                    ids.retain(|id| base.leaves(*id));
                }
            }
            ManifestOp::PutDelta { chunk, delta } => {
                if delta.id.is_of_segment() {
                    unfolded.entry(chunk).or_default().push(delta.id);
                }
            }
            ManifestOp::ReplaceDeltas { chunk, replaced, .. } => {
                if let Some(ids) = unfolded.get_mut(&chunk) {
                    ids.retain(|id| !replaced.contains(id));
                }
            }
        }
    }
    unfolded.retain(|_, ids| !ids.is_empty());
    Ok(unfolded)
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

/// What page 1 says.
fn schema(source: &mut dyn PageSource) -> Result<Option<SchemaSummary>, EngineError> {
    if !source.page_count().holds(PageNo::FIRST) {
        return Ok(None);
    }
    let mut page = vec![0; source.page_size().len()];
    source.read(PageNo::FIRST, &mut page)?;
    let number = |at: usize| page.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    Ok(Some(SchemaSummary {
        cookie: number(40),
        encoding: number(56),
        user_version: number(60),
        application_id: number(68),
        journal: if page.get(18) == Some(&2) { JournalMode::Wal } else { JournalMode::Rollback },
    }))
}

/// Uploads on their way: bounded, and each noted in the manifest when it is done. Then its file goes: local room is taken for
/// what is on its way, however large the database is (I7).
pub(crate) struct Uploads {
    remote: Arc<dyn Remote>,
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
    pub(crate) fn new(remote: Arc<dyn Remote>) -> Self {
        Self { remote, running: JoinSet::new() }
    }

    /// Stages a blob. Where there is no room for it beside those that are on their way, it waits for them.
    pub(crate) async fn staged(
        &mut self,
        writer: &mut Writer,
        next: &Next<'_>,
        read: ReadPage<'_>,
    ) -> Result<Staged, EngineError> {
        loop {
            match stage(next.dir, next.recipe, next.kind, next.input, next.pieces, &mut *read) {
                Err(EngineError::Quota(_) | EngineError::Local(LocalError::Quota(_))) if !self.running.is_empty() => {
                    self.one(writer).await?;
                }
                staged => return staged,
            }
        }
    }

    /// Sends a blob on its way, as soon as one more may be.
    pub(crate) async fn start(
        &mut self,
        writer: &mut Writer,
        file: StagedFile,
        input: Option<[u8; 32]>,
        blob: &BlobRef,
    ) -> Result<(), EngineError> {
        while self.running.len() >= TRANSFERS_IN_FLIGHT {
            self.one(writer).await?;
        }
        let path = keys::blob(writer.log().name(), &blob.name);
        let (remote, blob) = (self.remote.clone(), blob.clone());
        self.running.spawn(async move { remote.upload(&path, &file).await.map(|()| (input, blob, file)) });
        Ok(())
    }

    pub(crate) async fn finish(mut self, writer: &mut Writer) -> Result<(), EngineError> {
        while !self.running.is_empty() {
            self.one(writer).await?;
        }
        Ok(())
    }

    async fn one(&mut self, writer: &mut Writer) -> Result<(), EngineError> {
        let Some(done) = self.running.join_next().await else { return Ok(()) };
        let progress = writer.components().progress.clone();
        let (input, blob, file) = match done {
            Ok(done) => done?,
            Err(error) => return Err(EngineError::Interrupted(format!("an upload was cut off: {error}"))),
        };
        progress.advance(blob.len);
        progress.blob(&blob.name.to_string(), blob.len);
        writer.components().faults.reach("checkpoint.blob-uploaded")?;
        if let Some(input) = input {
            let staged = vec![StagedBlob { input, blob, uploaded: true }];
            writer.note(|_| {}, Batch { staged, ..Batch::default() })?;
        }
        Ok(file.remove()?)
    }
}
