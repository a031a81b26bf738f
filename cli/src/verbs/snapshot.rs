//! `littoral snapshot create|list|drop`: named states that no prune takes away.

use super::shown::{Meter, Opened, moment, session};
use crate::door::{Door, Target};
use crate::exit::Fault;
use crate::screen::Told;
use crate::words;
use littoral_engine::exec::at::no_such_name;
use littoral_engine::exec::prune::{drop_snapshot, named_snapshots};
use littoral_engine::exec::snapshot::write_snapshot;
use littoral_engine::{EngineError, live};
use littoral_engine::logs;
use littoral_engine::settings::Key;
use littoral_types::{At, Moment, PinPurpose, SnapshotName};
use serde_json::json;
use std::ffi::OsString;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Name the newest published state (checkpoint first to have the database's latest commits in it), or the one that --at names
    Create {
        /// The volume: a database whose volume it is, or a URL
        #[arg(value_name = "FILE|URL")]
        target: OsString,
        /// The snapshot's name
        name: SnapshotName,
    },
    /// All named states of a volume
    List {
        /// The volume: a database whose volume it is, or a URL
        #[arg(value_name = "FILE|URL")]
        target: OsString,
    },
    /// Take a name away; the next prune may take the state
    Drop {
        /// The volume: a database whose volume it is, or a URL
        #[arg(value_name = "FILE|URL")]
        target: OsString,
        /// The snapshot's name
        name: SnapshotName,
    },
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let is_past = door.said().iter().any(|(key, _)| *key == Key::At);
    if is_past && !matches!(args.what, What::Create { .. }) {
        return Err(Fault::usage("--at names the state that a snapshot is made of", "leave it out").into());
    }
    match args.what {
        What::Create { target, name } => create(target, name, door).await,
        What::List { target } => list(target, door).await,
        What::Drop { target, name } => dropped(target, name, door).await,
    }
}

pub(super) async fn create(target: OsString, name: SnapshotName, door: &Door) -> anyhow::Result<Told> {
    if !Moment::is_snapshot(&name) {
        let message = format!("a snapshot cannot be called {name}: that is an LSN, a position or how long ago");
        return Err(Fault::usage(message, "choose a name with a letter in it, and no line before it").into());
    }
    let is_past = door.said().iter().any(|(key, _)| *key == Key::At);
    let (url, pinned, meter) = match Target::read(&target) {
        // A log's own process ships: what is there is what is named.
        Target::File(file) if !is_past && logs::identity(&file).is_err() => {
            let Opened { place, mut session, meter, .. } = session(door, &target).await?;
            let components = session.writer.components().clone();
            if session.writer.row().tail.figures.page_size.is_none() {
                return Err(empty(&place.url()));
            }
            // With a manifest snapshot of its own a named state outlives the records around it.
            write_snapshot(&mut session.writer, None).await?;
            let pinned = live::name_snapshot(session.writer.log(), &components, &name).await?;
            (place.url(), pinned, meter)
        }
        Target::File(_) | Target::Url(_) => {
            let (place, settings) = door.place(&target, None)?;
            let components = door.components(&settings)?;
            let (log, remote) = place.log(&settings, &components)?;
            let meter = Meter::new(remote);
            let now = components.clock.wall_ms();
            let at = settings.at.as_ref().map_or(At::Newest, |at| at.value.as_of(now));
            (place.url(), live::name_state(&log, &components, &name, &at).await?, meter)
        }
    };
    let (position, pin) = pinned;
    let json = json!({
        "verb": "snapshot create",
        "volume": url,
        "name": name.as_str(),
        "position": position.to_string(),
        "record": pin.pin.seq.0,
        "cost": words::cost_json(&meter.all()),
    });
    let text = format!("{url} at {position} is snapshot {name}\n  {}\n", words::cost(&meter.all()));
    Ok(Told::done(json, text))
}

fn empty(url: &str) -> anyhow::Error {
    EngineError::NoSuchPosition { volume: url.to_owned(), detail: "nothing was checkpointed yet".to_owned() }.into()
}

async fn list(target: OsString, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&target, None)?;
    let components = door.components(&settings)?;
    let (log, remote) = place.log(&settings, &components)?;
    let meter = Meter::new(remote);
    if log.newest().await?.is_none() {
        return Err(EngineError::NoVolume(place.url()).into());
    }
    let pins = named_snapshots(&log).await?;
    let named = || {
        pins.iter().filter_map(|pinned| match &pinned.pin.purpose {
            PinPurpose::Snapshot(name) => Some((name, &pinned.pin)),
            _ => None,
        })
    };
    let json = json!({
        "verb": "snapshot list",
        "volume": place.url(),
        "snapshots": named().map(|(name, pin)| json!({
            "name": name.as_str(),
            "lsn": pin.lsn.0,
            "record": pin.seq.0,
            "created": moment(pin.created_ms),
        })).collect::<Vec<_>>(),
        "cost": words::cost_json(&meter.all()),
    });
    let rows: Vec<Vec<String>> = named()
        .map(|(name, pin)| vec![name.to_string(), pin.lsn.to_string(), pin.seq.to_string(), words::time(pin.created_ms)])
        .collect();
    let text = match rows.is_empty() {
        true => format!("{} has no snapshots\n", place.url()),
        false => words::table(&["snapshot", "LSN", "record", "created"], &rows),
    };
    Ok(Told::done(json, text))
}

async fn dropped(target: OsString, name: SnapshotName, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&target, None)?;
    let components = door.components(&settings)?;
    let (log, remote) = place.log(&settings, &components)?;
    let meter = Meter::new(remote);
    if !drop_snapshot(&log, &name).await? {
        return Err(no_such_name(&log, &name).await?.into());
    }
    let json = json!({
        "verb": "snapshot drop",
        "volume": place.url(),
        "name": name.as_str(),
        "cost": words::cost_json(&meter.all()),
    });
    Ok(Told::done(json, format!("snapshot {name} of {} is gone; its state goes with the next prune\n", place.url())))
}
