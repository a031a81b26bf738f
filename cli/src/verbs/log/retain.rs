//! `littoral log retain`: how much a log keeps.

use super::truncate::size;
use crate::door::Door;
use crate::exit::Fault;
use crate::screen::Told;
use crate::words;
use littoral_engine::logs::{self, Carrier, Keep};
use littoral_engine::settings::Milliseconds;
use serde_json::{Value, json};
use std::path::PathBuf;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The log's folder
    path: PathBuf,
    /// Records that are not older stay
    #[arg(long, value_name = "DURATION")]
    keep: Option<Milliseconds>,
    /// The newest stay, as long as they take no more of the disk
    #[arg(long, value_name = "SIZE", value_parser = size)]
    keep_bytes: Option<u64>,
    /// Also what cursors have not acknowledged goes
    #[arg(long)]
    past_cursors: bool,
    /// Everything stays
    #[arg(long, conflicts_with_all = ["keep", "keep_bytes", "past_cursors"])]
    all: bool,
}

/// Says it, where something is said, and carries it out where nobody appends who does so by himself.
pub(super) async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let Args { path, keep, keep_bytes, past_cursors, all } = args;
    if logs::table::columns(&path)?.is_some() {
        let message = format!("{}: is a table's log", path.display());
        return Err(Fault::usage(message, "SELECT littoral_log_truncate(TABLE, LSN) lets its oldest rows go").into());
    }
    let said = Keep { within_ms: keep.map(|keep| keep.0), bytes: keep_bytes, past_cursors };
    if said.past_cursors && said.is_all() {
        return Err(Fault::usage("--past-cursors alone keeps everything", "say how much stays: --keep, --keep-bytes").into());
    }
    if all || !said.is_all() {
        logs::keep_to(&path, said)?;
    }
    let settings = door.settings(Some(&path))?;
    let components = door.components(&settings)?;
    let gone = match Carrier::of(&path, &settings, &components)? {
        Some(mut carrier) => Box::pin(carrier.retain()).await?,
        None => logs::retain(&path, components.clock.wall_ms(), &*components.faults)?,
    };
    let keep = logs::keep(&path)?;
    let mut text = match keep.is_all() {
        true => format!("{} keeps everything\n", path.display()),
        false => format!("{} keeps {}\n", path.display(), as_text(&keep)),
    };
    if let Some(gone) = gone.filter(|gone| gone.segments > 0) {
        text.push_str(&format!(
            "{} went, {}; the log begins at LSN {} now\n",
            words::some(gone.segments, "segment"),
            words::bytes(gone.bytes),
            gone.start
        ));
    }
    let json = json!({
        "verb": "log", "log": path.display().to_string(), "keep": as_json(&keep), "start": logs::start(&path)?.0,
        "segments": gone.map_or(0, |gone| gone.segments), "bytes": gone.map_or(0, |gone| gone.bytes),
    });
    Ok(Told::done(json, text))
}

/// For machines; null where it keeps everything.
pub(super) fn as_json(keep: &Keep) -> Value {
    match keep.is_all() {
        true => Value::Null,
        false => json!({ "within_ms": keep.within_ms, "bytes": keep.bytes, "past_cursors": keep.past_cursors }),
    }
}

/// For people.
pub(super) fn as_text(keep: &Keep) -> String {
    let within = keep.within_ms.map(|ms| format!("what is not older than {}", words::span(ms)));
    let bytes = keep.bytes.map(|bytes| format!("the newest {}", words::bytes(bytes)));
    let limits: Vec<String> = within.into_iter().chain(bytes).collect();
    let cursors = if keep.past_cursors { ", whatever cursors say" } else { "" };
    format!("{}{cursors}", limits.join(", and of that "))
}
