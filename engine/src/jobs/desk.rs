//! A store's queue: opened under the lock, set aside where it is damaged, refilled where it is new; and looked at by everybody.

use super::told::Told;
use super::{Shelf, shelf};
use crate::components::Components;
use crate::error::EngineError;
use crate::volume::waited_for;
use littoral_local::tracker::peek::peek;
use littoral_local::{Binding, LocalError, Store, WorkerLock};
use littoral_plan::job::{Failure, again, cancelled, failed, orphaned};
use littoral_ports::{JobError, JobQueue, Manifest};
use littoral_types::limits::{JOB_PAUSE_MS_MAX, JOB_WAIT_MS, JOBS_OVER_MAX, WORKER_WAIT_MS};
use littoral_types::{ChunkId, Cut, Job, JobId, JobState, Task, VolumeKind, Wish};
use std::sync::Arc;

/// How often it is looked whether whoever is at a job has heard that it is cancelled.
const CANCEL_PAUSE_MS: u64 = 50;
/// How often a look begins again that met somebody who was just tidying up.
const LOOKS_MAX: u32 = 4;

/// A job as somebody sees it who has no lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// It.
    pub job: Job,
    /// Blobs that it is done with.
    pub blobs: usize,
    /// It runs, and nobody is at it any more: the next one who works goes on with it.
    pub is_orphaned: bool,
}

impl Seen {
    /// Whether somebody who works should take it now.
    pub fn is_due(&self, now_ms: u64) -> bool {
        match self.job.state {
            // A clock that was ahead then keeps it from nothing.
            JobState::Ready { not_before_ms } => !(now_ms + 1..=now_ms + JOB_PAUSE_MS_MAX).contains(&not_before_ms),
            JobState::Running { .. } => self.is_orphaned,
            _ => false,
        }
    }
}

/// The jobs of a store, whoever has the queue open. `None` where there is no queue, or this process keeps no jobs.
pub fn look(store: &Store) -> Result<Option<Vec<Seen>>, JobError> {
    let Some(shelf) = shelf() else { return Ok(None) };
    let folder = store.jobs_dir();
    let mut tries = 0;
    let jobs = loop {
        if !folder.exists() {
            return Ok(None);
        }
        tries += 1;
        match shelf.look(&folder) {
            Ok(jobs) => break jobs,
            Err(error) if tries >= LOOKS_MAX => return Err(error),
            Err(_) => {}
        }
    };
    let seen = |(job, blobs): (Job, usize)| {
        let runs = matches!(job.state, JobState::Running { .. });
        let is_orphaned = runs && WorkerLock::held_by(&store.job_mark(job.id)).is_none();
        Seen { job, blobs, is_orphaned }
    };
    Ok(Some(jobs.into_iter().map(seen).collect()))
}

/// A store's queue, for who may work on it.
#[derive(Clone, Debug)]
pub struct Desk {
    shelf: Arc<dyn Shelf>,
    pub(super) store: Store,
    manifest: Option<Arc<dyn Manifest>>,
    pub(super) components: Components,
}

impl Desk {
    /// `None` where this process keeps no jobs.
    pub fn of(store: &Store, manifest: Option<Arc<dyn Manifest>>, components: &Components) -> Option<Self> {
        Some(Self { shelf: shelf()?, store: store.clone(), manifest, components: components.clone() })
    }

    /// Opens the queue, for the store's worker. It is closed by dropping it, which comes before the lock is let go of.
    pub(super) fn open(&self, _worker: &WorkerLock) -> Result<Arc<dyn JobQueue>, JobError> {
        let folder = self.store.jobs_dir();
        let is_new = !folder.exists();
        let (queue, is_new) = match self.shelf.open(&folder) {
            Err(JobError::Corrupt(why)) => {
                let aside = self.store.set_jobs_aside().map_err(|error| JobError::Failed(error.to_string()))?;
                tracing::warn!(
                    aside = %aside.display(),
                    "the job queue was damaged ({why}): it was set aside and begins anew; no data is lost by it"
                );
                (self.shelf.open(&folder)?, true)
            }
            opened => (opened?, is_new),
        };
        if is_new {
            self.refill(&*queue)?;
        }
        self.sweep(&*queue)?;
        match &self.manifest {
            Some(manifest) => Ok(Arc::new(Told::over(queue, manifest.clone())?)),
            None => Ok(queue),
        }
    }

    /// What the manifest and the trackers know to be unfinished.
    fn refill(&self, queue: &dyn JobQueue) -> Result<(), JobError> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let now = self.components.clock.wall_ms();
        let failed = |error: LocalError| JobError::Failed(error.to_string());
        for binding in self.store.bindings().map_err(failed)? {
            let row = manifest.volume(&binding.volume).ok().flatten().filter(|row| row.meta.id == binding.id);
            if row.as_ref().is_some_and(|row| row.meta.kind == VolumeKind::Log) {
                self.refill_log(queue, &**manifest, &binding)?;
                continue;
            }
            let begun = row.is_some_and(|row| {
                let id = &row.meta.id;
                manifest.intent(id).ok().flatten().is_some() || manifest.job(id).ok().flatten().is_some()
            });
            let waits = peek(self.store.root(), &binding.path).ok().flatten();
            let waits = waits.is_some_and(|peek| peek.fenced.is_none() && peek.commits_since > 0);
            if begun || waits {
                let volume = format!("{}/{}", binding.remote, binding.volume);
                let (job, _) =
                    queue.add(&Wish { task: Task::CreateCheckpoint, database: binding.path, volume }, now)?;
                tracing::info!(job = %job.id, "a checkpoint that was begun, or is due, is a job again");
            }
        }
        Ok(())
    }

    /// A truncation of a log that its volume has heard of and its folder has not.
    fn refill_log(&self, queue: &dyn JobQueue, manifest: &dyn Manifest, binding: &Binding) -> Result<(), JobError> {
        let rows = manifest.rows(&binding.id, ChunkId(0), 1).unwrap_or_default();
        let Some(first) = rows.into_iter().find_map(|row| row.segment).map(|row| row.first) else { return Ok(()) };
        if littoral_local::log::start(&binding.path).is_ok_and(|start| start < first) {
            let task = Task::TruncateAppendOnly { cut: Cut::Before(first), past_cursors: true };
            let volume = format!("{}/{}", binding.remote, binding.volume);
            let wish = Wish { task, database: binding.path.clone(), volume };
            let (job, _) = queue.add(&wish, self.components.clock.wall_ms())?;
            tracing::info!(job = %job.id, "a truncation of a log that was begun is a job again");
        }
        Ok(())
    }

    /// What runs without anybody at it is ready again, and of what is over the newest stay.
    fn sweep(&self, queue: &dyn JobQueue) -> Result<(), JobError> {
        let now = self.components.clock.wall_ms();
        let jobs = queue.all()?;
        for job in jobs.iter().filter(|job| matches!(job.state, JobState::Running { .. })) {
            if WorkerLock::held_by(&self.store.job_mark(job.id)).is_none() {
                queue.put(&orphaned(job, now))?;
            }
        }
        let mut over: Vec<&Job> = jobs.iter().filter(|job| job.state.is_over()).collect();
        over.sort_by_key(|job| job.changed_ms);
        for job in over.iter().take(over.len().saturating_sub(JOBS_OVER_MAX)) {
            queue.forget(job.id)?;
        }
        Ok(())
    }

    /// Opens the queue for a moment, after whoever works now, and asks it.
    pub(super) async fn ask<T>(
        &self,
        wait_ms: u64,
        ask: impl FnOnce(&dyn JobQueue) -> Result<T, JobError>,
    ) -> Result<T, EngineError> {
        let lock = waited_for(&self.components, wait_ms, || self.store.lock_worker()).await?;
        let queue = self.open(&lock)?;
        let answer = ask(&*queue);
        drop(queue);
        drop(lock);
        Ok(answer?)
    }

    /// Makes the queue look after those whose workers are gone.
    pub async fn tidy(&self) -> Result<(), EngineError> {
        self.ask(JOB_WAIT_MS, |_| Ok(())).await
    }

    /// Somebody does not want a job any more. Whoever is at it stops where it stands: what was published stays.
    pub async fn cancel(&self, id: JobId) -> Result<Job, EngineError> {
        let mark = self.store.job_mark(id);
        let is_at_work = |seen: &Seen| seen.job.id == id && matches!(seen.job.state, JobState::Running { .. });
        let runs = look(&self.store)?.unwrap_or_default().iter().any(|seen| is_at_work(seen) && !seen.is_orphaned);
        if runs {
            self.store.ask_to_cancel(id)?;
            let since = self.components.clock.boot_ms();
            while WorkerLock::held_by(&mark).is_some() {
                if self.components.clock.boot_ms().saturating_sub(since) > WORKER_WAIT_MS {
                    return Err(EngineError::Interrupted(format!(
                        "job {id} was asked to stop and goes on until it comes to a place where it can: it is cancelled then"
                    )));
                }
                self.components.clock.sleep_ms(CANCEL_PAUSE_MS).await;
            }
        }
        let now = self.components.clock.wall_ms();
        self.change(id, |job| if job.state.is_over() { None } else { Some(cancelled(job, now)) }).await
    }

    /// Somebody wants a job again, whatever became of it.
    pub async fn retry(&self, id: JobId) -> Result<Job, EngineError> {
        let now = self.components.clock.wall_ms();
        let change = |job: &Job| match job.state {
            JobState::Running { .. } => None,
            _ => Some(again(job, now)),
        };
        self.change(id, change).await
    }

    /// A job could not even be begun.
    pub async fn fail(&self, id: JobId, failure: Failure, why: &str) -> Result<Job, EngineError> {
        let (now, jitter) = (self.components.clock.wall_ms(), self.jitter());
        self.change(id, |job| (!job.state.is_over()).then(|| failed(job, failure, why, jitter, now))).await
    }

    async fn change(&self, id: JobId, change: impl FnOnce(&Job) -> Option<Job>) -> Result<Job, EngineError> {
        let found = self.ask(JOB_WAIT_MS, |queue| {
            let Some(job) = queue.get(id)? else { return Ok(None) };
            let Some(after) = change(&job) else { return Ok(Some(job)) };
            queue.put(&after)?;
            Ok(Some(after))
        });
        found.await?.ok_or_else(|| {
            EngineError::Settings(format!("there is no job {id}: littoral jobs list shows those that are"))
        })
    }

    /// Forgets every job that is over. How many.
    pub async fn clear(&self) -> Result<usize, EngineError> {
        self.ask(JOB_WAIT_MS, |queue| {
            let over: Vec<Job> = queue.all()?.into_iter().filter(|job| job.state.is_over()).collect();
            over.iter().try_for_each(|job| queue.forget(job.id))?;
            Ok(over.len())
        })
        .await
    }

    pub(super) fn jitter(&self) -> u64 {
        self.components.entropy.below(u64::MAX)
    }
}
