//! `littoral drill FILE|URL`: a copy is restored beside everything else, SQLite is asked, and what that proves is kept.

use super::shown::{Meter, examiner, moment};
use crate::door::Door;
use crate::exit::Exit;
use crate::screen::Told;
use crate::words;
use anyhow::Context;
use littoral_engine::exec::drill::{Drill, Order, drill};
use littoral_engine::{EngineError, chores};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume: a database or a log whose volume it is, or a URL
    #[arg(value_name = "FILE|URL")]
    target: OsString,
    /// A query that the copy is asked; its answer is kept [default: what drill_probe= says]
    #[arg(long, value_name = "SQL")]
    probe: Option<String>,
    /// Where the copy is made for a while [default: the store, else the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    temp: Option<PathBuf>,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&args.target, None)?;
    let components = door.components(&settings)?;
    let (log, remote) = place.log(&settings, &components)?;
    let meter = Meter::new(remote);
    let file = chores::file(&place);
    let _turn = file.as_ref().map(|file| file.turn().map_err(EngineError::from)).transpose()?;
    let temporary = match (&args.temp, chores::drill_folder(&place)) {
        (Some(dir), _) => {
            let made = tempfile::tempdir_in(dir);
            Some(made.with_context(|| format!("{}: no temporary folder", dir.display()))?)
        }
        (None, None) => Some(tempfile::tempdir().context("the system has no temporary folder")?),
        (None, Some(_)) => None,
    };
    let own = chores::drill_folder(&place).unwrap_or_default();
    let folder = temporary.as_ref().map_or(own, |temporary| temporary.path().join("drill"));
    let probe = args.probe.or_else(|| settings.drill_probe.as_ref().map(|probe| probe.value.clone()));
    let order = Order { folder, probe: probe.clone(), examine: examiner() };
    let done = Box::pin(drill(&log, &components, order)).await?;
    if let Some(file) = &file {
        chores::note_drill(file, &components, &done, probe.clone())?;
    }
    let url = place.url();
    let at = moment(components.clock.wall_ms());
    let cost = words::cost(&meter.all());
    let json = |held: Value| {
        let mut json = json!({
            "verb": "drill",
            "volume": url,
            "at": at,
            "probe": probe,
            "kept": file.is_some(),
            "cost": words::cost_json(&meter.all()),
        });
        if let (Value::Object(json), Value::Object(held)) = (&mut json, held) {
            json.extend(held);
        }
        json
    };
    Ok(match done {
        Drill::Skipped(why) => {
            let json = json(json!({ "position": null, "bytes": null, "took_ms": null, "answer": null, "problems": [], "skipped": why }));
            Told { json, text: format!("{url}: no drill was held: {why}\n  {cost}\n"), exit: Exit::Failed }
        }
        Drill::Held(held) => {
            let position = held.position.map(|position| position.to_string());
            let mut text = match &position {
                Some(position) => format!(
                    "{url}: restored at {position}, {} in {:.1} s\n",
                    words::bytes(held.bytes),
                    held.took_ms as f64 / 1000.0
                ),
                None => format!("{url}: could not be restored\n"),
            };
            if let (Some(probe), Some(answer)) = (&probe, &held.answer) {
                text.push_str(&format!("  {probe}: {}\n", answer.replace('\n', "\n    ")));
            }
            held.problems.iter().for_each(|problem| text.push_str(&format!("  WRONG: {problem}\n")));
            text.push_str(&format!("  {cost}\n"));
            let exit = if held.problems.is_empty() { Exit::Done } else { Exit::Corrupt };
            text.push_str(match exit {
                Exit::Done if held.is_log => "proved: every record is in its place\n",
                Exit::Done => "proved: SQLite finds nothing wrong with it\n",
                _ => "NOT PROVED: littoral verify finds out what is wrong, and an earlier position may be whole (littoral restore --at)\n",
            });
            let held = json!({
                "position": position,
                "bytes": held.bytes,
                "took_ms": held.took_ms,
                "answer": held.answer,
                "problems": held.problems,
                "skipped": null,
            });
            Told { json: json(held), text, exit }
        }
    })
}
