//! Letting go of a log's parts, here and in its volume, as a job.
//!
//! What this room promises:
//! 1. Whole segments go that are sealed in the volume, never what was not shipped. First a record says so, then the folder does, then files
//!    go; blobs go with a prune, after the grace, unless they are pinned.
//! 2. Whoever dies in between has truncated from the record on, and whoever comes next does the rest: the same job, or whoever appends.
//! 3. What is rolled back of the end is cut off where the volume does not have it, and void where it does: there and here, and LSNs go on. First the folder says so,
//!    which is the commit; then a record does, before anything else travels.
//! 4. Who is at one of those segments (a restore, a prune) holds a lease: it is waited for, refused by his name, or taken from him by who
//!    says so, and written down.

use super::ship::{Carrier, Said, amend, marks};
use crate::components::Components;
use crate::error::EngineError;
use crate::jobs;
use crate::leases::{Held, Leases, Wanted};
use crate::log::{Draft, Writer};
use crate::open::Place;
use littoral_local::Flag;
use littoral_local::log::retain::outlived;
use littoral_local::log::truncate::truncate_past_cursors;
use littoral_local::log::void::voids;
use littoral_local::log::{Cut, LogError, Quiet, RolledBack, Truncated, sessions_before, truncate};
use littoral_ports::{Faults, Manifest};
use littoral_types::limits::{LEASE_WAIT_MS, SHARD_CHUNKS};
use littoral_types::{Checkpoint, ChunkId, ChunkRuns, LogRow, Lsn, ManifestOp, RecordBody, Task, VolumeId, Work};
use std::path::Path;

/// Where a test may make a process die that truncates a log with a volume, in the order in which they are reached; between them are those of every
/// publication, and behind them those of the folder.
pub const TRUNCATE_POINTS: [&str; 2] = ["truncate.leased", "truncate.dropped"];

/// Where a test may make a process die that rolls back the end of a log with a volume: between the folder and the volume, and behind both. Before them are
/// those of the folder, between them those of every publication.
pub const TAKE_BACK_POINTS: [&str; 2] = ["log.cut.here", "log.cut.there"];

/// How often it is looked whether somebody still appends.
const PAUSE_MS: u64 = 50;

/// How often it is looked whether something has become too old.
const RETAIN_MS: u64 = 60_000;

/// How a log is truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Whatever cursors say.
    pub past_cursors: bool,
    /// Only say what would go.
    pub is_dry: bool,
    /// Wait so long for those who are at it.
    pub patience_ms: u64,
    /// And then take their leases away, instead of giving up.
    pub cancels: bool,
}

impl Default for How {
    fn default() -> Self {
        Self { past_cursors: false, is_dry: false, patience_ms: LEASE_WAIT_MS, cancels: false }
    }
}

impl Carrier {
    /// Lets go of a log's beginning, here and there: of whole segments that are sealed there, never of what was not shipped. By any process of
    /// this store, also while another one appends; kept as a job, where this process keeps jobs. Nothing goes that a cursor has not
    /// acknowledged, unless it is to go past them.
    pub async fn truncate(&mut self, cut: Cut, how: How) -> Result<Truncated, EngineError> {
        if self.place.found.is_none() {
            return Ok(cut_off(&self.path, cut, (how.past_cursors, how.is_dry), &*self.components.faults)?);
        }
        if !how.is_dry {
            self.place.allows(Flag::EnableAppendOnlyTruncation, &self.settings)?;
        }
        let task = Task::TruncateAppendOnly { cut, past_cursors: how.past_cursors };
        let errand = match how.is_dry {
            true => None,
            false => Box::pin(jobs::begin_at(&self.place, &self.components, task, None)).await?,
        };
        let work = async {
            if !how.is_dry {
                self.free(cut, how).await?;
            }
            let (mut session, meter) = Box::pin(self.session(None)).await?;
            let done = let_go(&mut session.writer, &self.path, cut, (how.past_cursors, how.is_dry)).await?;
            self.open = Some((session.rest(&self.path), meter));
            Ok(done)
        };
        Box::pin(jobs::run(errand, jobs::judge, outcome, work)).await
    }

    /// Nobody is at what would go, or is made to stop: before the volume's lock is taken, which they need to get done.
    async fn free(&self, cut: Cut, how: How) -> Result<(), EngineError> {
        let (Some(found), Some(leases)) = (&self.place.found, Leases::of(&self.place, &self.components)?) else {
            return Ok(());
        };
        let Some(manifest) = self.place.manifest()? else { return Ok(()) };
        let wish = cut_off(&self.path, cut, (how.past_cursors, true), &*self.components.faults)?;
        let rows = all_rows(&*manifest, &found.binding.id)?;
        let chunks: ChunkRuns = gone(&rows, wish.start).map(|(chunk, _)| *chunk).collect();
        if chunks.runs().is_empty() {
            return Ok(());
        }
        let why = how.cancels.then_some("a truncation was to come first");
        let (volume, url) = (found.binding.id, self.url());
        Box::pin(leases.wait((volume, &url), (Work::Truncate, Some(&chunks)), how.patience_ms, why)).await
    }
}

impl Carrier {
    /// Lets everything after a record go. Nobody may append here meanwhile: who ships is waited for, or made to stop. What was begun is finished by whoever opens
    /// the log next, and said in the volume by whoever ships next. It is no job: one that was resumed after others have appended would take what is
    /// theirs.
    pub async fn roll_back(&mut self, last: Lsn, how: How) -> Result<RolledBack, EngineError> {
        if !how.is_dry {
            self.free_end(how).await?;
        }
        let quiet = quiet(&self.path, &self.components, how.patience_ms).await?;
        let faults = self.components.faults.clone();
        if self.place.found.is_none() {
            return Ok(quiet.roll_back(last, Lsn::ZERO, (how.past_cursors, how.is_dry), &*faults)?);
        }
        let prefix = quiet.prefix(&*faults)?;
        let (mut session, meter) = Box::pin(self.session(Some(&prefix))).await?;
        let done = take_back(&mut session.writer, &quiet, last, (how.past_cursors, how.is_dry)).await?;
        self.open = Some((session.rest(&self.path), meter));
        Ok(done)
    }

    /// Nobody ships the segment that is open, or is made to stop.
    async fn free_end(&self, how: How) -> Result<(), EngineError> {
        let (Some(found), Some(leases)) = (&self.place.found, Leases::of(&self.place, &self.components)?) else {
            return Ok(());
        };
        let row = self.place.manifest()?.map(|manifest| manifest.volume(&found.binding.volume)).transpose()?.flatten();
        let Some(row) = row.filter(|row| row.meta.id == found.binding.id) else { return Ok(()) };
        let open: ChunkRuns = [ChunkId(row.tail.figures.generation.0)].into_iter().collect();
        let why = how.cancels.then_some("the log's end was to be rolled back");
        let (volume, url) = (found.binding.id, self.url());
        Box::pin(leases.wait((volume, &url), (Work::Truncate, Some(&open)), how.patience_ms, why)).await
    }

    /// Lets go of what the log need not keep, where that is anything: a job like any truncation. What somebody is at stays until the next time.
    pub async fn retain(&mut self) -> Result<Option<Truncated>, EngineError> {
        let now = self.components.clock.wall_ms();
        let Some((start, keep)) = outlived(&self.path, now, &*self.components.faults)? else { return Ok(None) };
        let how = How { past_cursors: keep.past_cursors, patience_ms: 0, ..How::default() };
        self.truncate(Cut::Before(start), how).await.map(Some)
    }

    /// The same for who ships, now and then: when a segment was sealed, and when so much time has passed that others may have become too old.
    pub(super) async fn retain_if_due(&mut self, is_sealed: bool) -> Result<Option<Truncated>, EngineError> {
        let now = self.components.clock.boot_ms();
        let is_due = self.retained_boot_ms.is_none_or(|then| now.saturating_sub(then) >= RETAIN_MS);
        if !is_sealed && !is_due {
            return Ok(None);
        }
        self.retained_boot_ms = Some(now);
        match Box::pin(self.retain()).await {
            Err(error) if !error.is_crash() => {
                tracing::warn!(log = %self.path.display(), %error, "what a log need not keep stays for now");
                Ok(None)
            }
            done => done,
        }
    }
}

/// Rolls back a log's end, here and in its volume: see [`Carrier::roll_back`].
pub async fn take_back(
    writer: &mut Writer,
    quiet: &Quiet,
    last: Lsn,
    (past_cursors, is_dry): (bool, bool),
) -> Result<RolledBack, EngineError> {
    // What an earlier one had begun to ship is there, or is not.
    writer.settle().await?;
    let (shipped, open) = (writer.row().tail.lsn, ChunkId(writer.row().tail.figures.generation.0));
    let faults = writer.components().faults.clone();
    let _held = writer.lease_or_refuse(Work::Truncate, Some([open].into_iter().collect()))?;
    let done = quiet.roll_back(last, shipped, (past_cursors, is_dry), &*faults)?;
    if is_dry {
        return Ok(done);
    }
    faults.reach("log.cut.here")?;
    // Also what one that died had said here: it is said there now.
    if let Err(error) = amend(writer, &Said::TakenBack(voids(quiet.path())?)).await {
        if !error.is_crash() {
            let volume = writer.log().url();
            tracing::warn!(%volume, "the log's end was rolled back here: its volume is told by whoever ships next (littoral log ship)");
        }
        return Err(error);
    }
    faults.reach("log.cut.there")?;
    Ok(done)
}

/// A log to which nobody appends: who does is waited for.
pub async fn quiet(path: &Path, components: &Components, patience_ms: u64) -> Result<Quiet, EngineError> {
    let clock = &components.clock;
    let since = clock.boot_ms();
    loop {
        match Quiet::take(path, clock.wall_ms()) {
            Err(LogError::Busy { .. }) if clock.boot_ms().saturating_sub(since) < patience_ms => {
                clock.sleep_ms(PAUSE_MS).await;
            }
            taken => return Ok(taken?),
        }
    }
}

fn outcome(done: &Truncated) -> Result<String, String> {
    let Truncated { start, segments, bytes, .. } = done;
    Ok(format!("{segments} segments went, {bytes} bytes; the log begins at LSN {start}"))
}

/// The right to read all of a log in peace, where this store knows its volume: nothing of it is truncated until this is dropped, or taken away.
pub async fn reading(place: &Place, components: &Components) -> Result<Option<Held>, EngineError> {
    let (Some(found), Some(leases)) = (&place.found, Leases::of(place, components)?) else { return Ok(None) };
    let row = place.manifest()?.map(|manifest| manifest.volume(&found.binding.volume)).transpose()?.flatten();
    let Some(row) = row.filter(|row| row.meta.id == found.binding.id) else { return Ok(None) };
    let (volume, url) = (found.binding.id, place.url());
    Box::pin(leases.wait((volume, &url), (Work::Read, None), LEASE_WAIT_MS, None)).await?;
    let generation = row.tail.figures.generation;
    match leases.take(Wanted { volume, work: Work::Read, chunks: None, generation })? {
        Ok(held) => Ok(Some(held)),
        Err(held) => Err(leases.refused(&url, Work::Read, 0, &held)),
    }
}

/// The rows that go where a log is to begin at an LSN.
fn gone(rows: &[(ChunkId, LogRow)], start: Lsn) -> impl Iterator<Item = &(ChunkId, LogRow)> {
    rows.iter().take_while(move |(_, row)| row.sealed.is_some() && row.next() <= start)
}

/// Lets go of a log's beginning in its volume, and then here: see [`Carrier::truncate`].
pub async fn let_go(
    writer: &mut Writer,
    path: &Path,
    cut: Cut,
    (past_cursors, is_dry): (bool, bool),
) -> Result<Truncated, EngineError> {
    let faults = writer.components().faults.clone();
    let wish = cut_off(path, cut, (past_cursors, true), &*faults)?;
    writer.settle().await?;
    let rows = all_rows(&**writer.manifest(), &writer.row().meta.id)?;
    let goes: Vec<&(ChunkId, LogRow)> = gone(&rows, wish.start).collect();
    // What an earlier one had begun is gone there already.
    let begins = rows.first().map_or(writer.row().tail.lsn.next(), |(_, row)| row.first);
    let start = goes.last().map_or(begins, |(_, row)| row.next());
    if !is_dry && !goes.is_empty() {
        let mut ops: Vec<ManifestOp> =
            goes.iter().map(|(chunk, _)| ManifestOp::DropSegment { chunk: *chunk }).collect();
        let broken = || LogError::Broken {
            path: path.to_owned(),
            detail: format!("no sealed segment of it ends before LSN {start}, and one of its volume does"),
        };
        let known = writer.manifest().sessions(&writer.row().meta.id)?;
        let known: Vec<_> = known.into_iter().map(|mark| (mark.session, mark.step.serial())).collect();
        let sessions = sessions_before(path, start)?.ok_or_else(broken)?;
        let changed = sessions.into_iter().filter(|(name, serial)| !known.contains(&(name.clone(), Some(*serial))));
        ops.extend(marks(changed, start, writer.row().tail.epoch));
        let held = writer.lease_or_refuse(Work::Truncate, Some(goes.iter().map(|(chunk, _)| *chunk).collect()))?;
        faults.reach("truncate.leased")?;
        let body = RecordBody::Checkpoint(Checkpoint { ops, ..Checkpoint::default() });
        let figures = writer.row().tail.figures;
        writer.publish_under(held.as_deref(), Draft::of(body, figures), None).await?;
        faults.reach("truncate.dropped")?;
    }
    // What its volume has let go of is gone, whoever has come to stand there since.
    Ok(truncate_past_cursors(path, Cut::Before(start), is_dry, &*faults)?)
}

fn cut_off(
    path: &Path,
    cut: Cut,
    (past_cursors, is_dry): (bool, bool),
    faults: &dyn Faults,
) -> Result<Truncated, LogError> {
    match past_cursors {
        true => truncate_past_cursors(path, cut, is_dry, faults),
        false => truncate(path, cut, is_dry, faults),
    }
}

/// All rows of a log's volume that its store knows: all that there are.
pub(super) fn all_rows(manifest: &dyn Manifest, id: &VolumeId) -> Result<Vec<(ChunkId, LogRow)>, EngineError> {
    let (mut from, mut all) = (0, Vec::new());
    loop {
        let step = manifest.rows(id, ChunkId(from), SHARD_CHUNKS as usize)?;
        let Some(last) = step.last() else { return Ok(all) };
        from = last.chunk.0 + 1;
        all.extend(step.into_iter().filter_map(|row| Some((row.chunk, row.segment?))));
    }
}
