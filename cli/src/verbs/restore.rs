//! `littoral restore URL|FILE DEST`: a plain database file of a published state.

use super::shown::{Meter, moment};
use crate::door::Door;
use crate::exit::Fault;
use crate::screen::Told;
use crate::words;
use littoral_engine::exec::restore::{At, restore, restore_alone};
use littoral_engine::logs::tables::Brought;
use littoral_engine::open::Place;
use littoral_engine::{Components, EngineError, Log, logs};
use littoral_types::{CountedLog, VolumeKind};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume: a URL, or a database whose volume it is
    #[arg(value_name = "URL|FILE")]
    pub(super) from: OsString,
    /// Where the database file goes
    pub(super) dest: PathBuf,
    /// Replace what stands at the destination
    #[arg(long)]
    pub(super) force: bool,
}

/// Does it: the state is the one that `--at` names, or the newest.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    restored(args, None, true, door).await
}

/// The same for a verb that knows which state it wants, and whether with its tables' logs.
pub(super) async fn restored(args: Args, at: Option<At>, brings_logs: bool, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&args.from, Some(&args.dest))?;
    let components = door.components(&settings)?;
    let (log, remote, sides) = place.log_or_copy(&settings, &components)?;
    let meter = Meter::new(remote);
    let began = Instant::now();
    let said = || settings.at.as_ref().map(|at| at.value.as_of(components.clock.wall_ms()));
    let at = at.or_else(said).unwrap_or(At::Newest);
    let taken = || sides.as_ref().map(|sides| sides.taken()).unwrap_or_default();
    let attempt = async || match brings_logs {
        true => Box::pin(restore(&log, &components, &at, &args.dest, args.force)).await,
        false => Box::pin(restore_alone(&log, &components, &at, &args.dest, args.force)).await,
    };
    let done = match attempt().await {
        // The primary went away in the middle: the state that was begun may be one that the copy does not have yet.
        Err(error) if error.is_damage() && taken().instead.is_some() => {
            tracing::warn!(%error, "beginning again with what the copy has");
            attempt().await?
        }
        // A log's: its folder is made instead.
        Err(EngineError::OtherKind { kind: VolumeKind::Log, .. }) => {
            return restored_log(&args, &place, &log, &components, &at, &meter).await;
        }
        Err(error) => return Err(sides.iter().fold(error, |error, sides| sides.explained(error)).into()),
        Ok(done) => done,
    };
    let taken = taken();
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let json = json!({
        "verb": "restore",
        "volume": place.url(),
        "dest": args.dest,
        "position": done.position.to_string(),
        "published": moment(done.time_ms),
        "record": done.seq.0,
        "bytes": done.bytes,
        "bytes_resumed": done.resumed,
        "bytes_fetched": done.fetched,
        "replaced": done.finished.replaced,
        "moved_aside": done.finished.quarantined,
        "pinned": done.pinned,
        "copy": taken.instead.as_ref().map(|(why, url)| json!({ "url": url, "why": why })),
        "from_copies": taken.objects.iter().map(|(path, url)| json!({ "object": path, "url": url })).collect::<Vec<_>>(),
        "took_ms": took,
        "logs": done.logs.iter().map(brought_json).collect::<Vec<_>>(),
        "cost": words::cost_json(&meter.all()),
    });
    let mut text = format!(
        "{} is {} at {} of {}: {} in {}\n",
        args.dest.display(),
        place.url(),
        done.position,
        words::time(done.time_ms),
        words::bytes(done.bytes),
        words::span(took)
    );
    if let Some((why, url)) = &taken.instead {
        text.push_str(&format!("  from the copy at {url}, which ends there or later: {why}\n"));
    }
    for (object, url) in &taken.objects {
        text.push_str(&format!("  {object} is lost or damaged at the primary, and came from the copy at {url}\n"));
    }
    if done.resumed > 0 {
        text.push_str(&format!("  {} were there from an interrupted restore\n", words::bytes(done.resumed)));
    }
    for aside in &done.finished.quarantined {
        text.push_str(&format!("  a leftover of the file before was moved to {}\n", aside.display()));
    }
    for log in &done.logs {
        text.push_str(&format!("  {}\n", brought_text(log)));
    }
    text.push_str(&format!("  {}\n", words::cost(&meter.all())));
    Ok(Told::done(json, text))
}

/// What became of a table's log, for machines.
pub(super) fn brought_json((log, path, brought): &(CountedLog, PathBuf, Brought)) -> Value {
    let (state, records) = match brought {
        Brought::Restored(done) => ("restored", Some(done.records())),
        Brought::Here => ("here", None),
        Brought::Missing(_) => ("missing", None),
    };
    json!({ "table": log.table, "log": path, "rows_up_to": log.last.0, "state": state, "records": records })
}

/// The same for people.
pub(super) fn brought_text((log, path, brought): &(CountedLog, PathBuf, Brought)) -> String {
    let (table, path) = (&log.table, path.display());
    match brought {
        Brought::Restored(done) => {
            let records = done.records();
            format!("the log of table {table} is {path}: {}, {}", words::some(records, "record"), words::bytes(done.bytes))
        }
        Brought::Here => format!("the log of table {table} is here already: {path}"),
        Brought::Missing(why) => format!("the log of table {table} is not brought, and its rows are not there: {why}"),
    }
}

/// The folder of a log, as its volume has it.
async fn restored_log(
    args: &Args,
    place: &Place,
    log: &Log,
    components: &Components,
    at: &At,
    meter: &Meter,
) -> anyhow::Result<Told> {
    if args.force {
        let way_out = "choose a folder that is not there yet, or empty";
        return Err(Fault::usage("a log is restored beside whatever there is, never in its place", way_out).into());
    }
    let began = Instant::now();
    let reading = Box::pin(logs::reading(place, components)).await?;
    let restoring = Box::pin(logs::restore(log, components, at, &args.dest));
    let done = match &reading {
        Some(held) => held.during(restoring).await?,
        None => restoring.await?,
    };
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let records = done.records();
    let json = json!({
        "verb": "restore",
        "volume": place.url(),
        "kind": "log",
        "dest": args.dest,
        "position": done.position.to_string(),
        "published": moment(done.time_ms),
        "record": done.seq.0,
        "start": done.start.0,
        "records": records,
        "segments": done.segments,
        "bytes_fetched": done.bytes,
        "pinned": done.pinned,
        "took_ms": took,
        "cost": words::cost_json(&meter.all()),
    });
    let text = format!(
        "{} is the log {} at {} of {}: {} in {}, {} in {}\n  {}\n",
        args.dest.display(),
        place.url(),
        done.position,
        words::time(done.time_ms),
        words::some(records, "record"),
        words::some(done.segments, "segment"),
        words::bytes(done.bytes),
        words::span(took),
        words::cost(&meter.all())
    );
    Ok(Told::done(json, text))
}
