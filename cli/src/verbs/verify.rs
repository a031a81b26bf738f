//! `littoral verify FILE|URL`: everything that the volume holds is read and checked, then a copy is restored and SQLite asked.

use super::shown::Meter;
use crate::door::Door;
use crate::exit::Exit;
use crate::screen::Told;
use crate::sqlite::{BUSY_TIMEOUT, integrity_check};
use crate::words;
use anyhow::Context;
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::verify::verify;
use littoral_engine::{Components, EngineError, Log};
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume: a database whose volume it is, or a URL
    #[arg(value_name = "FILE|URL")]
    target: OsString,
    /// Do not restore a copy for SQLite's integrity_check
    #[arg(long)]
    no_restore: bool,
    /// Where the copy is restored to for a while [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    temp: Option<PathBuf>,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&args.target, None)?;
    let components = door.components(&settings)?;
    let (log, remote) = place.log(&settings, &components)?;
    let meter = Meter::new(remote);
    let found = Box::pin(verify(&log, &components)).await?;
    let mut problems = found.problems.clone();
    let restored = match args.no_restore {
        true => None,
        false => restored(&log, &components, args.temp, &mut problems).await?,
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
        "restored": restored,
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
        Some(position) if problems.is_empty() => {
            text.push_str(&format!("  a copy restored at {position}: integrity_check ok\n"));
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
) -> anyhow::Result<Option<String>> {
    let folder = match temp {
        Some(folder) => tempfile::tempdir_in(&folder).with_context(|| format!("{}: no temporary folder", folder.display())),
        None => tempfile::tempdir().context("the system has no temporary folder"),
    }?;
    let copy = folder.path().join("copy.db");
    match Box::pin(restore(log, components, &At::Newest, &copy, false)).await {
        Ok(done) => {
            components.progress.phase("checking", 0, littoral_ports::Unit::Pages);
            problems.extend(integrity_check(&copy, BUSY_TIMEOUT)?.into_iter().map(|problem| format!("restored copy: {problem}")));
            Ok(Some(done.position.to_string()))
        }
        // Nothing was checkpointed yet: nothing to restore.
        Err(EngineError::NoSuchPosition { .. }) => Ok(None),
        Err(
            error @ (EngineError::Damaged { .. }
            | EngineError::Chain { .. }
            | EngineError::Inconsistent { .. }
            | EngineError::Remote(
                littoral_ports::RemoteError::Missing { .. } | littoral_ports::RemoteError::Corrupt { .. },
            )),
        ) => {
            problems.push(format!("a copy cannot be restored: {error}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
