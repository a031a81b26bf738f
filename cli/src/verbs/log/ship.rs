//! `littoral log ship`: what waits here goes to the log's volume.

use crate::door::Door;
use crate::exit::Fault;
use crate::screen::Told;
use crate::sqlite::{Cell, OpenDatabase};
use crate::words;
use littoral_engine::logs::table::columns;
use littoral_engine::logs::{self, Carrier, Log, LogSync, Shipped};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Does it.
pub(super) async fn run(path: &Path, door: &Door) -> anyhow::Result<Told> {
    if columns(path)?.is_some() {
        return with_its_database(path, door);
    }
    let settings = door.settings(Some(path))?;
    let components = door.components(&settings)?;
    let Some(mut carrier) = Carrier::of(path, &settings, &components)? else {
        let message = format!("{}: this log has no volume", path.display());
        return Err(Fault::usage(message, "say where it is to be: --remote=URL (and --volume=NAME)").into());
    };
    // Who appends ships by himself.
    let log = Log::open(path, LogSync::default(), logs::parts(&components))?;
    let prefix = log.prefix();
    let shipped = carrier.ship(&prefix).await;
    log.close()?;
    let shipped = shipped?;
    let mut json = json!({ "verb": "log", "log": path.display().to_string() });
    json["shipped"] = shipped_json(&carrier, &shipped);
    Ok(Told::done(json, format!("{}\n", shipped_text(&carrier, &shipped))))
}

/// A table's log travels with its database, and before it.
fn with_its_database(path: &Path, door: &Door) -> anyhow::Result<Told> {
    let Some(database) = database_of(path) else {
        let message = format!("{}: is a database's table, and travels with that", path.display());
        return Err(Fault::usage(message, "ship the database: littoral checkpoint FILE (or PRAGMA littoral_sync)").into());
    };
    let opened = OpenDatabase::quietly(&database, door.said())?;
    let mut position = String::new();
    opened
        .run("PRAGMA littoral_sync", &mut |answer| {
            position.extend(answer.rows.first().and_then(|row| row.first()).map(Cell::shown));
        })
        .map_err(anyhow::Error::msg)?;
    let json = json!({
        "verb": "log", "log": path.display().to_string(), "database": database.display().to_string(), "position": position,
    });
    let text = format!("{} is at {position}, and the logs of its tables went before it\n", database.display());
    Ok(Told::done(json, text))
}

/// The database that keeps its tables' logs in such a place.
fn database_of(log: &Path) -> Option<PathBuf> {
    let log = log.canonicalize().ok()?;
    let (of, logs) = (log.parent()?, log.parent()?.parent()?);
    let database = logs.parent()?.parent()?.join(of.file_name()?);
    (logs.ends_with(".littoral/logs") && database.is_file()).then_some(database)
}

/// What of it went, for machines.
pub(super) fn shipped_json(carrier: &Carrier, shipped: &Shipped) -> Value {
    json!({
        "volume": carrier.url(),
        "position": shipped.position.map(|position| position.to_string()),
        "records": shipped.records,
        "bytes": shipped.bytes,
        "sealed": shipped.sealed,
    })
}

/// The same for people.
pub(super) fn shipped_text(carrier: &Carrier, shipped: &Shipped) -> String {
    let at = shipped.position.map_or_else(String::new, |position| format!(" at {position}"));
    match shipped.records {
        0 => format!("{} is{at}: nothing was missing there", carrier.url()),
        records => format!(
            "{} went to {}, {}; it is{at}",
            words::some(records, "record"),
            carrier.url(),
            words::bytes(shipped.bytes)
        ),
    }
}
