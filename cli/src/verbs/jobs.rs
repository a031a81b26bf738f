//! `littoral jobs list|show|cancel|retry|run|clear FILE`: the work of a store that waits, runs or is over.

use super::shown::moment;
use crate::door::Door;
use crate::errands::run_due;
use crate::exit::Exit;
use crate::screen::Told;
use crate::words;
use littoral_engine::EngineError;
use littoral_engine::jobs::{Desk, Seen, look};
use littoral_engine::open::Place;
use littoral_types::{Job, JobId, JobState};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// All jobs of the store of a database, also while somebody works there
    List {
        /// The database file
        file: OsString,
    },
    /// All that is known of one job
    Show {
        /// The database file
        file: OsString,
        /// The job's number
        id: u64,
    },
    /// Stop a job, wherever it stands: what it published stays
    Cancel {
        /// The database file
        file: OsString,
        /// The job's number
        id: u64,
    },
    /// Make a job ready again that was given up, cancelled or done
    Retry {
        /// The database file
        file: OsString,
        /// The job's number
        id: u64,
    },
    /// Do now what is due of the database, as `littoral worker` does by itself
    Run {
        /// The database file
        file: OsString,
    },
    /// Forget the jobs that are over
    Clear {
        /// The database file
        file: OsString,
    },
}

impl Args {
    /// All jobs of the store of a database.
    pub(crate) fn list(file: &Path) -> Self {
        Self { what: What::List { file: file.into() } }
    }
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    match args.what {
        What::List { file } => {
            let place = place(door, &file)?.1;
            let seen = seen(&place)?;
            let rows: Vec<Vec<String>> = seen.iter().map(row).collect();
            let text = match rows.is_empty() {
                true => "no jobs\n".to_owned(),
                false => words::table(&["job", "state", "what", "database", "begun", "blobs", "since", ""], &rows),
            };
            let jobs: Vec<Value> = seen.iter().map(seen_json).collect();
            Ok(Told::done(json!({ "verb": "jobs", "jobs": jobs, "queue": summary_json(&seen) }), text))
        }
        What::Show { file, id } => {
            let place = place(door, &file)?.1;
            let found = seen(&place)?.into_iter().find(|seen| seen.job.id == JobId(id)).ok_or_else(|| unknown(id))?;
            Ok(Told::done(json!({ "verb": "jobs", "job": seen_json(&found) }), shown(&found)))
        }
        What::Cancel { file, id } => {
            let job = desk(door, &file)?.cancel(JobId(id)).await?;
            Ok(told(&job, Exit::Done))
        }
        What::Retry { file, id } => {
            let job = desk(door, &file)?.retry(JobId(id)).await?;
            Ok(told(&job, Exit::Done))
        }
        What::Run { file } => {
            let file = door.file_or_log(&file)?;
            let did = Box::pin(run_due(&door.behind(door.said().to_vec()), &file)).await?;
            let failed = did.iter().any(|(_, error)| error.is_some());
            let mut text: String = did.iter().map(|(job, _)| line(job)).collect();
            if did.is_empty() {
                text.push_str("nothing is due\n");
            }
            let jobs: Vec<Value> = did.iter().map(|(job, _)| job_json(job)).collect();
            let exit = if failed { Exit::Failed } else { Exit::Done };
            Ok(Told { json: json!({ "verb": "jobs", "jobs": jobs }), text, exit })
        }
        What::Clear { file } => {
            let gone = desk(door, &file)?.clear().await?;
            Ok(Told::done(json!({ "verb": "jobs", "forgotten": gone }), format!("{} forgotten\n", words::some(gone as u64, "job"))))
        }
    }
}

fn place(door: &Door, file: &OsString) -> anyhow::Result<(PathBuf, Place)> {
    let file = door.file_or_log(file)?;
    let place = Place::of_database(&file, &door.settings(Some(&file))?)?;
    Ok((file, place))
}

/// The jobs of a place's store; none where there is no queue.
pub(super) fn seen(place: &Place) -> anyhow::Result<Vec<Seen>> {
    let seen = place.store.as_ref().map(look).transpose().map_err(EngineError::from)?;
    Ok(seen.flatten().unwrap_or_default())
}

fn desk(door: &Door, file: &OsString) -> anyhow::Result<Desk> {
    let (file, place) = place(door, file)?;
    let components = door.components(&door.settings(Some(&file))?)?;
    let none = || EngineError::Settings(format!("{}: its store has no job queue", file.display()));
    let store = place.store.as_ref().filter(|store| store.jobs_dir().exists()).ok_or_else(none)?;
    Ok(Desk::of(store, place.manifest()?, &components).ok_or_else(none)?)
}

fn unknown(id: u64) -> EngineError {
    EngineError::Settings(format!("there is no job {id}: littoral jobs list shows those that are"))
}

/// Depth and the like, for `status`.
pub(super) fn summary_json(seen: &[Seen]) -> Value {
    let count = |is: fn(&Seen) -> bool| seen.iter().filter(|seen| is(seen)).count();
    json!({
        "depth": count(|seen| !seen.job.state.is_over()),
        "running": count(|seen| matches!(seen.job.state, JobState::Running { .. }) && !seen.is_orphaned),
        "dead": count(|seen| matches!(seen.job.state, JobState::Dead { .. })),
    })
}

/// The same in words. `None` where there is nothing to say.
pub(super) fn summary(seen: &[Seen]) -> Option<String> {
    let counts = summary_json(seen);
    let count = |name: &str| counts[name].as_u64().unwrap_or(0);
    if count("depth") == 0 && count("dead") == 0 {
        return None;
    }
    let mut text = format!("{} not over, {} of them at work", words::some(count("depth"), "job"), count("running"));
    if count("dead") > 0 {
        text.push_str(&format!("; {} given up: littoral jobs list says why", count("dead")));
    }
    Some(text)
}

fn state(seen: &Seen) -> &'static str {
    if seen.is_orphaned { "interrupted" } else { seen.job.state.word() }
}

/// What there is to read of how it stands.
fn detail(job: &Job) -> String {
    match &job.state {
        JobState::Ready { .. } => job.error.as_ref().map_or_else(String::new, |error| format!("failed: {error}")),
        JobState::Running { by } => by.clone(),
        JobState::Done { outcome } => outcome.clone(),
        JobState::Cancelled => String::new(),
        JobState::Dead { reason } => reason.clone(),
    }
}

fn row(seen: &Seen) -> Vec<String> {
    let job = &seen.job;
    let name = job.wish.database.file_name().unwrap_or_default().to_string_lossy().into_owned();
    vec![
        job.id.to_string(),
        state(seen).to_owned(),
        job.wish.task.to_string(),
        name,
        words::some(job.attempts, "time"),
        words::count(seen.blobs as u64),
        words::time(job.changed_ms),
        detail(job),
    ]
}

fn line(job: &Job) -> String {
    let detail = detail(job);
    let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
    format!("job {} ({}) is {}{detail}\n", job.id, job.wish.task, job.state.word())
}

fn told(job: &Job, exit: Exit) -> Told {
    Told { json: json!({ "verb": "jobs", "job": job_json(job) }), text: line(job), exit }
}

fn shown(seen: &Seen) -> String {
    let job = &seen.job;
    let mut lines = vec![
        ("job", job.id.to_string()),
        ("what", job.wish.task.to_string()),
        ("database", job.wish.database.display().to_string()),
        ("volume", job.wish.volume.clone()),
        ("state", state(seen).to_owned()),
    ];
    let detail = detail(job);
    if !detail.is_empty() {
        lines.push(("", detail));
    }
    if let JobState::Ready { not_before_ms } = job.state {
        lines.push(("due", words::time(not_before_ms)));
    }
    lines.push(("created", words::time(job.created_ms)));
    lines.push(("started", job.started_ms.map_or_else(|| "not yet".to_owned(), words::time)));
    lines.push(("changed", words::time(job.changed_ms)));
    lines.push(("begun", words::some(job.attempts, "time")));
    lines.push(("failed", words::some(job.failures, "time")));
    lines.push(("blobs", words::count(seen.blobs as u64)));
    lines.iter().map(|(name, value)| format!("{name:<10}{value}\n")).collect()
}

fn job_json(job: &Job) -> Value {
    json!({
        "id": job.id.0,
        "task": job.wish.task.word(),
        "what": job.wish.task.to_string(),
        "database": job.wish.database.display().to_string(),
        "volume": job.wish.volume,
        "state": job.state.word(),
        "detail": detail(job),
        "due": match job.state { JobState::Ready { not_before_ms } => Some(moment(not_before_ms)), _ => None },
        "attempts": job.attempts,
        "failures": job.failures,
        "error": job.error,
        "created": moment(job.created_ms),
        "started": job.started_ms.map(moment),
        "changed": moment(job.changed_ms),
    })
}

fn seen_json(seen: &Seen) -> Value {
    let mut json = job_json(&seen.job);
    json["blobs"] = json!(seen.blobs);
    json["interrupted"] = json!(seen.is_orphaned);
    json
}
