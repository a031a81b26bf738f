//! One job while somebody is at it.

use super::desk::Desk;
use crate::components::Components;
use crate::error::EngineError;
use crate::open::Place;
use crate::telemetry;
use crate::volume::Session;
use littoral_local::{LocalError, WorkerLock};
use littoral_plan::job::{Failure, begun, cancelled, done, failed};
use littoral_ports::{JobError, JobQueue, Progress, Unit};
use littoral_types::limits::{JOB_WAIT_MS, NOTES_MS_MAX};
use littoral_types::{Job, JobId, JobNote, JobState, Task, Wish};
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often it is looked whether somebody wants it to stop.
const LOOK_MS: u64 = 200;
/// Notes of who has to open the queue for them are written down this often.
const NOTES_MS: u64 = 1_000;

/// A job at work. Dropped without an end it is one whose worker died: the next one goes on.
#[derive(Debug)]
pub struct Errand {
    desk: Desk,
    job: Job,
    /// The queue, for the store's worker. Others open it when they have something to say.
    queue: Option<Arc<dyn JobQueue>>,
    noting: Option<Arc<Noting>>,
    _mark: WorkerLock,
}

/// Begins a job of the store's worker, who has a volume open for writing. `None` where work goes on without one.
pub async fn begin_in(
    session: &Session,
    database: &Path,
    task: Task,
    noting: Option<Arc<Noting>>,
) -> Result<Option<Errand>, EngineError> {
    let Some((desk, worker)) = session.desk().zip(session.worker()) else { return Ok(None) };
    let wish = Wish { task, database: database.to_owned(), volume: session.writer.log().url() };
    let taken = desk.open(worker).and_then(|queue| Ok((wished(&desk, &*queue, &wish)?, queue)));
    let begun = match taken {
        Ok((job, queue)) => {
            desk.components.faults.reach("job.wished")?;
            take(desk, job, Some(queue), noting).await
        }
        Err(error) => Err(error.into()),
    };
    without(begun)
}

/// Begins a job of a database for who needs no lock for the work itself. `None` where work goes on without one.
pub async fn begin_at(
    place: &Place,
    components: &Components,
    task: Task,
    noting: Option<Arc<Noting>>,
) -> Result<Option<Errand>, EngineError> {
    let Some((store, database)) = place.store.as_ref().zip(place.database.as_ref()) else { return Ok(None) };
    if place.found.is_none() {
        return Ok(None);
    }
    let Some(desk) = Desk::of(store, place.manifest().ok().flatten(), components) else { return Ok(None) };
    let wish = Wish { task, database: database.clone(), volume: place.url() };
    let begun = async {
        let job = desk.ask(JOB_WAIT_MS, |queue| wished(&desk, queue, &wish)).await?;
        desk.components.faults.reach("job.wished")?;
        take(desk.clone(), job, None, noting).await
    };
    without(begun.await)
}

fn wished(desk: &Desk, queue: &dyn JobQueue, wish: &Wish) -> Result<Job, JobError> {
    queue.add(wish, desk.components.clock.wall_ms()).map(|(job, _)| job)
}

/// Whoever takes it holds its mark from before it says so until after it said what came of it.
async fn take(
    desk: Desk,
    job: Job,
    queue: Option<Arc<dyn JobQueue>>,
    noting: Option<Arc<Noting>>,
) -> Result<Errand, EngineError> {
    let mark = WorkerLock::take(desk.store.job_mark(job.id))?;
    desk.store.forget_to_cancel(job.id)?;
    let by = format!("process {}", std::process::id());
    let now = desk.components.clock.wall_ms();
    let begin = |queue: &dyn JobQueue| -> Result<Job, JobError> {
        let job = begun(&job, &by, now);
        queue.put(&job)?;
        Ok(job)
    };
    let job = match &queue {
        Some(queue) => begin(&**queue)?,
        None => desk.ask(JOB_WAIT_MS, begin).await?,
    };
    telemetry::job_started(&job);
    desk.components.faults.reach("job.begun")?;
    if let Some(noting) = &noting {
        noting.begin(queue.clone(), &job);
    }
    Ok(Errand { desk, job, queue, noting, _mark: mark })
}

/// A queue that cannot be had stands in nobody's way.
fn without(begun: Result<Errand, EngineError>) -> Result<Option<Errand>, EngineError> {
    match begun {
        Ok(errand) => Ok(Some(errand)),
        Err(error) if error.is_crash() => Err(error),
        Err(EngineError::Local(LocalError::Busy { holder, .. })) => {
            tracing::info!("{holder} has the job queue, or is at the same: this is done without being kept as a job");
            Ok(None)
        }
        Err(error) => {
            tracing::warn!(%error, "this is done without being kept as a job");
            Ok(None)
        }
    }
}

/// Works, as a job where there is one: what comes of it is written down, and somebody who wants it to stop is heard. `judge` tells what
/// kind of failure an error is (none for a test's crash), `outcome` what a person reads of it, or why it will never be well.
pub async fn run<T, E: From<EngineError> + ToString>(
    errand: Option<Errand>,
    judge: impl Fn(&E) -> Option<Failure>,
    outcome: impl FnOnce(&T) -> Result<String, String>,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(errand) = errand else { return work.await };
    let did = {
        let mut work = Box::pin(work);
        tokio::select! {
            biased;
            did = &mut work => Some(did),
            () = errand.watches() => None,
        }
    };
    let (now, jitter, job) = (errand.desk.components.clock.wall_ms(), errand.desk.jitter(), &errand.job);
    let Some(did) = did else {
        let after = cancelled(job, now);
        let text = format!("job {0} was cancelled: littoral jobs retry {0} takes it up again", job.id);
        errand.end(after).await?;
        return Err(EngineError::Interrupted(text).into());
    };
    let after = match &did {
        Ok(done_it) => match outcome(done_it) {
            Ok(said) => done(job, &said, now),
            Err(why) => failed(job, Failure::Lasting, &why, jitter, now),
        },
        Err(error) => match judge(error) {
            Some(failure) => failed(job, failure, &error.to_string(), jitter, now),
            None => return did,
        },
    };
    errand.end(after).await?;
    did
}

impl Errand {
    /// What earlier attempts at it were done with.
    pub async fn notes(&self) -> Vec<JobNote> {
        let notes = match &self.queue {
            Some(queue) => queue.notes(self.job.id).map_err(EngineError::from),
            None => self.desk.ask(JOB_WAIT_MS, |queue| queue.notes(self.job.id)).await,
        };
        notes.unwrap_or_default()
    }

    /// Whether it goes on with what an attempt did that is not long ago: what was looked at long ago may be otherwise by now.
    pub fn goes_on(&self) -> bool {
        let now = self.desk.components.clock.wall_ms();
        let is_fresh = |started: u64| started <= now && now - started <= NOTES_MS_MAX;
        self.job.attempts > 1 && self.job.started_ms.is_some_and(is_fresh)
    }

    /// Writes down what is noted, now and then, and returns when somebody wants it to stop.
    async fn watches(&self) {
        let clock = &self.desk.components.clock;
        let mut noted = None;
        loop {
            if self.desk.store.is_to_cancel(self.job.id) {
                return;
            }
            let now = clock.boot_ms();
            if noted.is_none_or(|noted| now.saturating_sub(noted) >= NOTES_MS) {
                noted = Some(now);
                self.write_down().await;
            }
            clock.sleep_ms(LOOK_MS).await;
        }
    }

    async fn write_down(&self) {
        let Some(notes) = self.noting.as_ref().map(|noting| noting.taken()).filter(|notes| !notes.is_empty()) else {
            return;
        };
        let written = match &self.queue {
            Some(queue) => queue.note(self.job.id, &notes).map_err(EngineError::from),
            // Whoever works keeps the queue: then it is told later, or not at all.
            None => self.desk.ask(0, |queue| queue.note(self.job.id, &notes)).await,
        };
        if let (Err(_), Some(noting)) = (written, &self.noting) {
            noting.give_back(notes);
        }
    }

    async fn end(self, after: Job) -> Result<(), EngineError> {
        let faults = self.desk.components.faults.clone();
        faults.reach("job.worked")?;
        let put = match &self.queue {
            Some(queue) => queue.put(&after).map_err(EngineError::from),
            None => self.desk.ask(JOB_WAIT_MS, |queue| queue.put(&after)).await,
        };
        match put {
            Ok(()) if after.state.is_over() => self.desk.store.forget_mark(self.job.id),
            Ok(()) => {}
            // It is done all the same: whoever finds the job does it again, and finds nothing to do.
            Err(error) => tracing::warn!(%error, job = %self.job.id, "what came of a job could not be written down"),
        }
        telemetry::job_ended(&after);
        if let JobState::Dead { reason } = &after.state {
            tracing::warn!(job = %after.id, task = %after.wish.task, "a job was given up: {reason}");
        }
        faults.reach("job.ended")?;
        Ok(())
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        // However it ends, the queue is closed before the lock is let go of under which it was opened.
        if let Some(noting) = &self.noting {
            noting.end();
        }
    }
}

/// Hears how far work has come, tells whoever shows it, and remembers the blobs for a job's notes.
#[derive(Debug)]
pub struct Noting {
    shows: Arc<dyn Progress>,
    state: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    is_on: bool,
    /// Where there is a queue at hand they are written at once.
    queue: Option<(Arc<dyn JobQueue>, JobId)>,
    notes: Vec<JobNote>,
}

impl Noting {
    /// The same components, whose progress is also noted. Nothing is, before a job begins.
    pub fn over(components: &Components) -> (Components, Arc<Self>) {
        let noting = Arc::new(Self { shows: components.progress.clone(), state: Mutex::default() });
        (Components { progress: noting.clone(), ..components.clone() }, noting)
    }

    fn state(&self) -> MutexGuard<'_, Notes> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, queue: Option<Arc<dyn JobQueue>>, job: &Job) {
        *self.state() = Notes { is_on: true, queue: queue.map(|queue| (queue, job.id)), notes: Vec::new() };
    }

    fn end(&self) {
        *self.state() = Notes::default();
    }

    fn taken(&self) -> Vec<JobNote> {
        std::mem::take(&mut self.state().notes)
    }

    fn give_back(&self, mut notes: Vec<JobNote>) {
        let mut state = self.state();
        notes.append(&mut state.notes);
        state.notes = notes;
    }

    /// A job is done with a blob.
    pub fn note(&self, note: JobNote) {
        let mut state = self.state();
        if let Some((queue, id)) = state.queue.clone() {
            drop(state);
            // One that is not noted is looked at again.
            drop(queue.note(id, &[note]));
        } else if state.is_on {
            state.notes.push(note);
        }
    }
}

impl Progress for Noting {
    fn phase(&self, name: &'static str, total: u64, unit: Unit) {
        self.shows.phase(name, total, unit);
    }

    fn advance(&self, by: u64) {
        self.shows.advance(by);
    }

    fn blob(&self, name: &str, bytes: u64) {
        self.note(JobNote { blob: name.to_owned(), bytes, frames: 0, pages: 0 });
        self.shows.blob(name, bytes);
    }

    fn note(&self, text: &str) {
        self.shows.note(text);
    }
}
