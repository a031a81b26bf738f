//! `littoral verify FILE|URL`: everything that the volume holds is read and checked, then a copy is restored and SQLite asked.

use super::shown::Meter;
use crate::door::Door;
use crate::errands::judged;
use crate::exit::Exit;
use crate::screen::Told;
use crate::sqlite::{BUSY_TIMEOUT, integrity_check};
use crate::words;
use anyhow::Context;
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::verify::{Verifying, verify_on};
use littoral_engine::jobs::{self, Noting};
use littoral_engine::open::Place;
use littoral_engine::{Components, EngineError, Log, chores, logs};
use littoral_types::{Task, VolumeKind};
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume: a database whose volume it is, or a URL
    #[arg(value_name = "FILE|URL")]
    pub(crate) target: OsString,
    /// Do not restore a copy for SQLite's integrity_check
    #[arg(long)]
    pub(crate) no_restore: bool,
    /// Where the copy is restored to for a while [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) temp: Option<PathBuf>,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&args.target, None)?;
    let components = door.components(&settings)?;
    let (log, remote) = place.log(&settings, &components)?;
    let meter = Meter::new(remote);
    let (components, noting) = Noting::over(&components);
    let task = Task::VerifyCheckpoint { restore: !args.no_restore };
    // What a job says does not hold where the copy is to lie.
    let errand = match args.temp.is_some() {
        true => None,
        false => Box::pin(jobs::begin_at(&place, &components, task, Some(noting.clone()))).await?,
    };
    // What an attempt that was killed had checked is not read again.
    let known = match &errand {
        Some(errand) if errand.goes_on() => errand.notes().await,
        _ => Vec::new(),
    };
    let work = checked(args, &place, &log, &meter, &components, Verifying { known, noting: Some(noting) });
    Box::pin(jobs::run(errand, judged, |told: &Told| verdict(told), work)).await
}

fn verdict(told: &Told) -> Result<String, String> {
    match told.json["problems"].as_array().map_or(0, Vec::len) {
        0 => Ok(format!("sound: {} blobs, {} bytes", told.json["blobs"], told.json["bytes"])),
        problems => Err(format!("not sound: {problems} problems, the first: {}", told.json["problems"][0])),
    }
}

async fn checked(
    args: Args,
    place: &Place,
    log: &Log,
    meter: &Meter,
    components: &Components,
    verifying: Verifying,
) -> anyhow::Result<Told> {
    let found = Box::pin(verify_on(log, components, &verifying)).await?;
    if let Some(file) = chores::file(place) {
        chores::note_whole(&file, components, &found)?;
    }
    let mut problems = found.problems.clone();
    let restored = match args.no_restore {
        true => None,
        false => restored(log, components, args.temp, &mut problems).await?,
    };
    let json = json!({
        "verb": "verify",
        "volume": place.url(),
        "records": found.records,
        "manifest_snapshots": found.snapshots,
        "rows": found.rows,
        "blobs": found.blobs,
        "frames": found.frames,
        "pages": found.pages,
        "pins": found.pins,
        "bytes": found.bytes,
        "orphans": found.orphans,
        "restored": restored.as_ref().map(|(position, _)| position),
        "problems": problems,
        "cost": words::cost_json(&meter.all()),
    });
    let mut text = format!(
        "{}: {}, {}, {} in {}, {} in {}, {}; {} read\n",
        place.url(),
        words::some(found.records, "record"),
        words::some(found.snapshots, "manifest snapshot"),
        words::some(found.frames, "frame"),
        words::some(found.blobs, "blob"),
        words::some(found.pages, "page"),
        words::some(found.rows, "snapshot row"),
        words::some(found.pins, "pin"),
        words::bytes(found.bytes)
    );
    if found.orphans > 0 {
        text.push_str(&format!("  {} that nothing names: a prune takes them\n", words::some(found.orphans, "blob")));
    }
    match &restored {
        Some((position, answer)) if problems.is_empty() => {
            text.push_str(&format!("  a copy restored at {position}: {answer}\n"));
        }
        _ => {}
    }
    for problem in &problems {
        text.push_str(&format!("  WRONG: {problem}\n"));
    }
    text.push_str(&format!("  {}\n", words::cost(&meter.all())));
    let exit = if problems.is_empty() { Exit::Done } else { Exit::Corrupt };
    text.push_str(match exit {
        Exit::Done => "sound\n",
        _ => "NOT SOUND: positions whose blobs are whole can still be restored (littoral restore --at)\n",
    });
    Ok(Told { json, text, exit })
}

/// Restores the newest state and asks SQLite. The position, where there was one to restore.
async fn restored(
    log: &Log,
    components: &Components,
    temp: Option<PathBuf>,
    problems: &mut Vec<String>,
) -> anyhow::Result<Option<(String, &'static str)>> {
    let folder = match temp {
        Some(folder) => tempfile::tempdir_in(&folder).with_context(|| format!("{}: no temporary folder", folder.display())),
        None => tempfile::tempdir().context("the system has no temporary folder"),
    }?;
    let copy = folder.path().join("copy.db");
    match Box::pin(restore(log, components, &At::Newest, &copy, false)).await {
        Ok(done) => {
            components.progress.phase("checking", 0, littoral_ports::Unit::Pages);
            problems.extend(integrity_check(&copy, BUSY_TIMEOUT)?.into_iter().map(|problem| format!("restored copy: {problem}")));
            Ok(Some((done.position.to_string(), "integrity_check ok")))
        }
        // A log is restored entry by entry, each verified, and has no SQLite to ask.
        Err(EngineError::OtherKind { kind: VolumeKind::Log, .. }) => {
            match Box::pin(logs::restore(log, components, &At::Newest, &folder.path().join("log"))).await {
                Ok(done) => Ok(Some((done.position.to_string(), "every record in its place"))),
                Err(error) if error.is_damage() || matches!(error, EngineError::Log(_)) => {
                    problems.push(format!("a copy cannot be restored: {error}"));
                    Ok(None)
                }
                Err(error) => Err(error.into()),
            }
        }
        // Nothing was checkpointed yet: nothing to restore.
        Err(EngineError::NoSuchPosition { .. }) => Ok(None),
        Err(error) if error.is_damage() => {
            problems.push(format!("a copy cannot be restored: {error}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
