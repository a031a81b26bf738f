//! `littoral promote URL`: a copy becomes a volume of its own.

use super::shown::moment;
use crate::door::{Door, Target};
use crate::exit::Fault;
use crate::screen::Told;
use crate::words;
use littoral_engine::Spool;
use littoral_engine::copies::{Promoted, promote};
use littoral_engine::open::log_at;
use littoral_types::{CopyMark, VolumeName};
use serde_json::{Value, json};
use std::ffi::OsString;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The copy: its object store plus the volume's name
    #[arg(value_name = "URL")]
    url: OsString,
    /// Go on where the primary cannot be told: whoever writes there is stopped for good
    #[arg(long)]
    without_primary: bool,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    if !matches!(Target::read(&args.url), Target::Url(_)) {
        let way_out = "give its URL, as in s3://other/prefix/app.db";
        return Err(Fault::usage("what is promoted is a copy, in an object store", way_out).into());
    }
    let (place, settings) = door.place(&args.url, None)?;
    let components = door.components(&settings)?;
    let (copy, _) = place.log(&settings, &components)?;
    let folder = std::env::temp_dir().join(format!("littoral-promote-{}", std::process::id()));
    let spool = Spool::at(folder, u64::MAX);
    let primary = |mark: &CopyMark, name: &VolumeName| log_at(&mark.of, name, &settings, &components);
    let done = Box::pin(promote(&copy, &primary, &spool, &components, args.without_primary)).await;
    spool.clear();
    let done = done?;
    let epoch = done.position.epoch;
    let json = json!({
        "verb": "promote",
        "volume": copy.url(),
        "position": done.position.to_string(),
        "published": moment(done.time_ms),
        "epoch": epoch.0,
        "fenced": done.fenced,
        "primary": done.of,
        "was_promoted": done.was_promoted,
        "logs": done.logs.iter().map(log_json).collect::<Vec<_>>(),
    });
    let is = if done.was_promoted { "was promoted before" } else { "is a volume of its own now" };
    let fenced = match done.fenced {
        true => format!("whoever wrote at {} is superseded, and nothing that was published there is missing", done.of),
        false => format!(
            "{} was not told: whoever writes there is not stopped by this, and what he published after the last line is not here",
            done.of
        ),
    };
    let logs: String = done.logs.iter().map(log_text).collect();
    let text = format!(
        "{} {is}\n  {fenced}\n  it ends at {}, of {}\n{logs}  to write it: remote={} and --takeover={epoch}\n",
        copy.url(),
        done.position,
        words::time(done.time_ms),
        copy.remote().url()
    );
    Ok(Told::done(json, text))
}

/// A log that is a table of it, for machines.
fn log_json((volume, done): &(VolumeName, Option<Promoted>)) -> Value {
    let position = done.as_ref().map(|done| done.position.to_string());
    json!({ "volume": volume.as_str(), "position": position, "missing": done.is_none() })
}

/// The same for people.
fn log_text((volume, done): &(VolumeName, Option<Promoted>)) -> String {
    match done {
        Some(done) => format!("  its log {volume} is one, too, and ends at {}\n", done.position),
        None => format!("  its log {volume} was not copied: the rows of that table are not there\n"),
    }
}
