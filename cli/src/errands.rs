//! Jobs that are due, done by whoever works: each is the verb of its kind, which takes it up by its token.
//!
//! What this room promises:
//! 1. A job is done by the same code as its verb. Nothing else knows how.
//! 2. One that cannot even be begun is put off, or given up, with the reason: nobody tries it in circles.
//! 3. Only jobs of databases that it was told of are done: what was said of others is not known here.
//!
//! What may never enter: what a job does.

use crate::door::Door;
use crate::verbs::{checkpoint, copy, hydrate, log, prune, verify};
use littoral_engine::jobs::{self, Desk, Seen, look};
use littoral_engine::logs::How;
use littoral_engine::open::Place;
use littoral_engine::settings::Milliseconds;
use littoral_engine::{EngineError, FailureKind, LocalError};
use littoral_ports::SourceError;
use littoral_types::{Job, JobId, Task};
use std::collections::BTreeSet;
use std::path::Path;

/// What kind of failure it was, as far as an error of this door tells.
pub fn judged(error: &anyhow::Error) -> Option<FailureKind> {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<EngineError>() {
            return jobs::judge(error);
        }
        if matches!(cause.downcast_ref::<SourceError>(), Some(SourceError::Busy(_))) {
            return Some(FailureKind::Passing);
        }
    }
    Some(FailureKind::Lasting)
}

/// Does what is due of a database, one job after the other: which, and why one failed.
pub async fn run_due(door: &Door, database: &Path) -> anyhow::Result<Vec<(Job, Option<String>)>> {
    let settings = door.settings(Some(database))?;
    let components = door.components(&settings)?;
    let mut did: Vec<(Job, Option<String>)> = Vec::new();
    let mut tried: BTreeSet<JobId> = BTreeSet::new();
    let mut is_tidy = false;
    loop {
        let place = Place::of_database(database, &settings)?;
        let Some((store, database)) = place.store.as_ref().zip(place.database.as_ref()) else { return Ok(did) };
        let Some(desk) = Desk::of(store, place.manifest()?, &components) else { return Ok(did) };
        let now = components.clock.wall_ms();
        let seen = look(store).map_err(EngineError::from)?.unwrap_or_default();
        if seen.iter().any(|seen| seen.is_orphaned) && !std::mem::replace(&mut is_tidy, true) {
            // Whoever was at it is gone: it counts as a failed attempt, and too many of those end it. Then it is looked again.
            match desk.tidy().await {
                Ok(()) => continue,
                // Somebody has the queue, and what is done without it would be done again.
                Err(EngineError::Local(LocalError::Busy { .. })) => return Ok(did),
                Err(error) => return Err(error.into()),
            }
        }
        let is_next =
            |seen: &&Seen| seen.is_due(now) && seen.job.wish.database == *database && !tried.contains(&seen.job.id);
        let Some(next) = seen.iter().find(is_next).map(|seen| seen.job.clone()) else { return Ok(did) };
        if let Err(EngineError::Local(LocalError::Busy { .. })) = desk.tidy().await {
            return Ok(did);
        }
        tried.insert(next.id);
        let error = Box::pin(done(door, &next)).await.err();
        let after = look(store).map_err(EngineError::from)?.unwrap_or_default();
        let after = after.into_iter().map(|seen| seen.job).find(|job| job.id == next.id).unwrap_or(next.clone());
        let after = match &error {
            // It was taken up, and what came of it is written down.
            _ if after.state.is_over() || after.attempts > next.attempts => after,
            Some(error) => match judged(error) {
                Some(failure) => desk.fail(next.id, failure, &error.to_string()).await?,
                None => after,
            },
            // Somebody had the queue just then: it was done, and is found so by whoever takes it up.
            None if next.wish.volume == place.url() => after,
            None => {
                let why = "nothing took it up: its database belongs to another volume by now";
                desk.fail(next.id, FailureKind::Lasting, why).await?
            }
        };
        did.push((after, error.map(|error| error.to_string())));
    }
}

async fn done(door: &Door, job: &Job) -> anyhow::Result<()> {
    let file = job.wish.database.clone().into_os_string();
    let told = match job.wish.task {
        Task::CreateCheckpoint => {
            let args =
                checkpoint::Args { file, dry_run: false, check: false, no_check: true, wait: None, no_coalesce: false };
            Box::pin(checkpoint::run(args, door)).await
        }
        Task::VerifyCheckpoint { restore } => {
            Box::pin(verify::run(verify::Args { target: file, no_restore: !restore, temp: None }, door)).await
        }
        Task::DownloadCheckpoint => Box::pin(hydrate::run(hydrate::Args { file }, door)).await,
        Task::Replicate => Box::pin(copy::run(copy::Args { target: file, to: None }, door)).await,
        Task::TruncateAppendOnly { cut, past_cursors } => {
            let how = How { past_cursors, ..How::default() };
            Box::pin(log::truncate::head(&job.wish.database, cut, how, door)).await
        }
        Task::PruneCheckpoint { keep_last, keep_within_ms } => {
            let keep_within = keep_within_ms.map(Milliseconds);
            Box::pin(prune::run(
                prune::Args {
                    file,
                    keep_last,
                    keep_within,
                    dry_run: false,
                    no_delete: false,
                    wait: None,
                    cancel: false,
                    export: None,
                },
                door,
            ))
            .await
        }
    };
    told.map(drop)
}
