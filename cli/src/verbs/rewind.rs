//! `littoral rewind FILE --to MOMENT`: an earlier state becomes the newest one, as a new commit. Nothing that was published is changed.
//!
//! | step | durable | after a crash |
//! |---|---|---|
//! | what is not published yet is | the state before | again |
//! | it gets a name | the name | found, and used again |
//! | the earlier state is restored beside the database | a file in the store | goes on with it |
//! | SQLite copies it over the database, in one transaction | the database is at the earlier state | SQLite's own recovery: before or after |
//! | that is published | the volume is | the next checkpoint does it |

use super::checkpoint;
use super::restore::Args as Restoring;
use super::shown::{Meter, moment};
use crate::door::Door;
use crate::exit::{Exit, Fault};
use crate::screen::Told;
use crate::sqlite::OpenDatabase;
use crate::words;
use anyhow::Context;
use littoral_engine::exec::at::find;
use littoral_engine::open::{self, Place};
use littoral_engine::{Components, EngineError, Log, live};
use littoral_ports::Unit;
use littoral_types::{At, Moment, Position, SnapshotName};
use serde_json::json;
use std::ffi::OsString;
use std::fs;

/// Where the earlier state is restored to, in the store's folder.
const FOLDER: &str = "rewind";

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file; nobody may have it open
    file: OsString,
    /// Which moment: a time (2026-11-20T17:34:02Z), how long ago (-5m), an LSN (42, 1.42) or a snapshot
    #[arg(long, value_name = "MOMENT", allow_hyphen_values = true)]
    to: Moment,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let file = door.file(&args.file)?;
    let settings = door.settings(Some(&file))?;
    let place = Place::of_database(&file, &settings)?;
    place.target(&settings)?;
    refuse_open(&place)?;
    if !file.exists() {
        let message = format!("{}: no such file", file.display());
        let way_out = "give the database that is to be rewound; littoral open makes one from its volume".to_owned();
        return Err(Fault { exit: Exit::Source, message, way_out: Some(way_out) }.into());
    }
    let components = door.components(&settings)?;
    let (log, remote) = place.log(&settings, &components)?;
    let meter = Meter::new(remote);
    // What cannot be is refused before anything moves.
    let at = args.to.as_of(components.clock.wall_ms());
    let target = find(&log, &at).await?.point;

    let published = checkpoint::Args { file: args.file.clone(), dry_run: false, check: false, no_check: true, wait: None, no_coalesce: true };
    Box::pin(checkpoint::run(published, door)).await?;
    let newest = log.glance().await?.ok_or_else(|| EngineError::NoVolume(place.url()))?.tail;
    if newest.lsn == target.lsn {
        let json = json!({ "verb": "rewind", "volume": place.url(), "moved": false, "position": target.position().to_string() });
        return Ok(Told::done(json, format!("{} is at {} already: nothing was moved\n", place.url(), target.position())));
    }
    let before = Position { epoch: newest.epoch, lsn: newest.lsn };
    let undo = named(&log, &components, before).await?;
    components.faults.reach("rewind.named").map_err(EngineError::from)?;

    let folder = place.store_root.clone().context("a database has a store")?.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let copy = folder.join(format!("{}.db", target.lsn));
    // By its commit: a time may mean another one by now.
    let exactly = if let At::Snapshot(_) = at { at } else { At::Lsn(target.lsn) };
    let restoring = Restoring { from: args.file.clone(), dest: copy.clone(), force: true };
    Box::pin(super::restore::restored(restoring, Some(exactly), false, door)).await?;
    components.faults.reach("rewind.restored").map_err(EngineError::from)?;

    refuse_open(&place)?;
    let database = OpenDatabase::quietly(&file, door.said())?;
    let mut last = 0;
    components.progress.phase("rewinding", newest.figures.page_count.0, Unit::Pages);
    database.replace_with(&copy, &mut |done, _| {
        components.progress.advance(done.saturating_sub(last));
        last = done;
    })?;
    components.faults.reach("rewind.replaced").map_err(EngineError::from)?;
    let mut source = database.live()?;
    let done = Box::pin(live::checkpoint(&place, &settings, &components, &mut *source, live::Options::default())).await;
    let done = done.with_context(|| {
        format!("{} is rewound here, and that is not published yet: the next checkpoint does it", file.display())
    })?;
    drop((source, database));
    // Only room is lost where it cannot be removed.
    if let Err(error) = fs::remove_dir_all(&folder) {
        door.screen.warn(&format!("{}: cannot be removed: {error}", folder.display()));
    }
    let json = json!({
        "verb": "rewind",
        "volume": place.url(),
        "moved": true,
        "to": target.position().to_string(),
        "published": moment(target.time_ms),
        "position": done.position.to_string(),
        "undo": undo.as_str(),
        "before": before.to_string(),
        "cost": words::cost_json(&meter.all()),
    });
    let text = format!(
        "{} is at {}, which is {} of {} again\n  the state before, {before}, is snapshot {undo}: littoral rewind {} --to {undo} takes this back\n",
        place.url(),
        done.position,
        target.position(),
        words::time(target.time_ms),
        file.display(),
    );
    Ok(Told::done(json, text))
}

fn refuse_open(place: &Place) -> anyhow::Result<()> {
    if !open::is_open(place)? {
        return Ok(());
    }
    let file = place.database.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
    let message = format!("{file} is open: whoever uses it would see it change under them");
    Err(Fault { exit: Exit::Refused, message, way_out: Some("close it everywhere on this machine, then rewind".to_owned()) }.into())
}

/// Gives the state before a name, or finds the one that an interrupted attempt gave it.
async fn named(log: &Log, components: &Components, before: Position) -> anyhow::Result<SnapshotName> {
    let name: SnapshotName = format!("before-rewind-{before}").parse().context("a name")?;
    if log.named(&name).await?.is_some_and(|pin| pin.lsn == before.lsn) {
        return Ok(name);
    }
    live::name_state(log, components, &name, &At::Newest).await?;
    Ok(name)
}
