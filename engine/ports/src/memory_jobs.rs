//! A queue that lives as long as the process.
//!
//! It promises what [`JobQueue`] promises, except that nothing outlives the last clone: a clone is the same queue.

use crate::jobs::{check_forget, check_put, ready_at};
use crate::{JobError, JobQueue};
use littoral_types::limits::{JOB_NOTES_MAX, JOBS_MAX};
use littoral_types::{Job, JobId, JobNote, Wish};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keeps jobs in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryJobs {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    jobs: BTreeMap<JobId, Job>,
    notes: BTreeMap<(JobId, String), JobNote>,
    last: JobId,
}

impl State {
    fn of_token(&self, token: &str) -> Option<&Job> {
        self.jobs.values().find(|job| !job.state.is_over() && job.wish.token() == token)
    }
}

impl MemoryJobs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobQueue for MemoryJobs {
    fn add(&self, wish: &Wish, now_ms: u64) -> Result<(Job, bool), JobError> {
        let mut state = self.state();
        if let Some(job) = state.of_token(&wish.token()) {
            return Ok((job.clone(), false));
        }
        if state.jobs.values().filter(|job| !job.state.is_over()).count() >= JOBS_MAX {
            return Err(JobError::Full(format!("{JOBS_MAX} jobs wait already")));
        }
        state.last = JobId(state.last.0.saturating_add(1));
        let job = Job::new(state.last, wish.clone(), now_ms);
        state.jobs.insert(job.id, job.clone());
        Ok((job, true))
    }

    fn get(&self, id: JobId) -> Result<Option<Job>, JobError> {
        Ok(self.state().jobs.get(&id).cloned())
    }

    fn all(&self) -> Result<Vec<Job>, JobError> {
        Ok(self.state().jobs.values().cloned().collect())
    }

    fn due(&self, now_ms: u64) -> Result<Option<Job>, JobError> {
        let state = self.state();
        let ready = state.jobs.values().filter_map(|job| Some((ready_at(job)?, job)));
        Ok(ready.filter(|(at, _)| *at <= now_ms).min_by_key(|(at, job)| (*at, job.id)).map(|(_, job)| job.clone()))
    }

    fn put(&self, job: &Job) -> Result<(), JobError> {
        let mut state = self.state();
        let other = state.of_token(&job.wish.token()).map(|job| job.id);
        check_put(state.jobs.get(&job.id), job, other)?;
        if job.state.is_over() {
            state.notes.retain(|(id, _), _| *id != job.id);
        }
        state.jobs.insert(job.id, job.clone());
        Ok(())
    }

    fn forget(&self, id: JobId) -> Result<(), JobError> {
        let mut state = self.state();
        check_forget(state.jobs.get(&id), id)?;
        state.jobs.remove(&id);
        Ok(())
    }

    fn note(&self, id: JobId, notes: &[JobNote]) -> Result<(), JobError> {
        if notes.len() > JOB_NOTES_MAX {
            return Err(JobError::Full(format!("{} notes at once", notes.len())));
        }
        let mut state = self.state();
        if state.jobs.get(&id).is_none_or(|job| job.state.is_over()) {
            return Err(JobError::Misuse(format!("job {id} is over, or there is none")));
        }
        for note in notes {
            state.notes.insert((id, note.blob.clone()), note.clone());
        }
        Ok(())
    }

    fn notes(&self, id: JobId) -> Result<Vec<JobNote>, JobError> {
        let state = self.state();
        let from = state.notes.range((id, String::new())..);
        Ok(from.take_while(|((of, _), _)| *of == id).map(|(_, note)| note.clone()).collect())
    }
}

#[cfg(all(test, feature = "conformance"))]
mod tests {
    use super::*;
    use crate::conformance::jobs::{Subject, all};

    struct InMemory(MemoryJobs);

    impl Subject for InMemory {
        fn open(&mut self) -> Arc<dyn JobQueue> {
            Arc::new(self.0.clone())
        }
    }

    #[test]
    fn a_job_queue_in_memory_keeps_every_promise() {
        all(&mut || Box::new(InMemory(MemoryJobs::default())));
    }
}
