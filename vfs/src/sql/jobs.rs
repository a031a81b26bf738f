//! The table `littoral_jobs`: the work of the database's store that waits, runs or is over, as whoever keeps jobs has told it. The queue itself
//! is our own command's alone.

use super::{Cell, Refusal, Rows, Table, Target, ours};
use littoral_engine::{EngineError, WorkerLock};
use littoral_types::{Job, JobState};

/// The table.
pub(super) const TABLE: Table = Table {
    name: "littoral_jobs",
    columns: &[
        "job INTEGER",
        "task TEXT",
        "state TEXT",
        "database TEXT",
        "volume TEXT",
        "attempts INTEGER",
        "failures INTEGER",
        "created_ms INTEGER",
        "started_ms INTEGER",
        "changed_ms INTEGER",
        "detail TEXT",
    ],
    rows: Rows::OfDatabase(rows),
};

fn rows(target: Option<&Target>) -> Result<Vec<Vec<Cell>>, Refusal> {
    let Target { database, said, .. } = ours(target)?;
    let place = said.place(database.path())?;
    let Some((store, manifest)) = place.store.as_ref().zip(place.manifest()?) else { return Ok(Vec::new()) };
    let jobs = manifest.jobs_told().map_err(EngineError::from)?;
    // Whoever is at one holds its mark, which dies with him.
    Ok(jobs.iter().map(|job| row(job, WorkerLock::held_by(&store.job_mark(job.id)).is_some())).collect())
}

fn row(job: &Job, is_at_work: bool) -> Vec<Cell> {
    let (state, detail) = match &job.state {
        JobState::Running { .. } if !is_at_work => ("interrupted", String::new()),
        JobState::Running { by } => (job.state.word(), by.clone()),
        JobState::Ready { .. } => (job.state.word(), job.error.clone().unwrap_or_default()),
        JobState::Done { outcome } => (job.state.word(), outcome.clone()),
        JobState::Cancelled => (job.state.word(), String::new()),
        JobState::Dead { reason } => (job.state.word(), reason.clone()),
    };
    vec![
        Cell::count(job.id.0),
        Cell::text(job.wish.task),
        Cell::text(state),
        Cell::text(job.wish.database.display()),
        Cell::text(&job.wish.volume),
        Cell::count(u64::from(job.attempts)),
        Cell::count(u64::from(job.failures)),
        Cell::count(job.created_ms),
        job.started_ms.map_or(Cell::Null, Cell::count),
        Cell::count(job.changed_ms),
        Cell::text(detail),
    ]
}
