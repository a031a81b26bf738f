//! A queue that tells the manifest what becomes of its jobs, for processes that may not open it: programs that load the extension.
//!
//! What is told is a hint, and stands until the queue is changed the next time: who reads it looks for himself whether somebody is at a job
//! that runs. Where it cannot be told, work goes on.

use littoral_ports::{JobError, JobQueue, Manifest, ManifestError};
use littoral_types::{Job, JobId, JobNote, Wish};
use std::sync::Arc;

/// Tells whatever becomes of this queue's jobs.
#[derive(Debug)]
pub(super) struct Told {
    queue: Arc<dyn JobQueue>,
    manifest: Arc<dyn Manifest>,
}

impl Told {
    /// Tells what there is, where that is not what was told last.
    pub(super) fn over(queue: Arc<dyn JobQueue>, manifest: Arc<dyn Manifest>) -> Result<Self, JobError> {
        let told = Self { queue, manifest };
        let all = told.queue.all()?;
        told.tell(|manifest| if manifest.jobs_told()? == all { Ok(()) } else { manifest.tell_jobs(&all) });
        Ok(told)
    }

    fn tell(&self, tell: impl FnOnce(&dyn Manifest) -> Result<(), ManifestError>) {
        if let Err(error) = tell(&*self.manifest) {
            tracing::warn!(%error, "what became of a job is not shown to programs that load the extension");
        }
    }
}

impl JobQueue for Told {
    fn add(&self, wish: &Wish, now_ms: u64) -> Result<(Job, bool), JobError> {
        let (job, is_new) = self.queue.add(wish, now_ms)?;
        if is_new {
            self.tell(|manifest| manifest.tell_job(job.id, Some(&job)));
        }
        Ok((job, is_new))
    }

    fn get(&self, id: JobId) -> Result<Option<Job>, JobError> {
        self.queue.get(id)
    }

    fn all(&self) -> Result<Vec<Job>, JobError> {
        self.queue.all()
    }

    fn due(&self, now_ms: u64) -> Result<Option<Job>, JobError> {
        self.queue.due(now_ms)
    }

    fn put(&self, job: &Job) -> Result<(), JobError> {
        self.queue.put(job)?;
        self.tell(|manifest| manifest.tell_job(job.id, Some(job)));
        Ok(())
    }

    fn forget(&self, id: JobId) -> Result<(), JobError> {
        self.queue.forget(id)?;
        self.tell(|manifest| manifest.tell_job(id, None));
        Ok(())
    }

    fn note(&self, id: JobId, notes: &[JobNote]) -> Result<(), JobError> {
        self.queue.note(id, notes)
    }

    fn notes(&self, id: JobId) -> Result<Vec<JobNote>, JobError> {
        self.queue.notes(id)
    }
}
