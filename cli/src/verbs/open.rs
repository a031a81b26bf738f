//! `littoral open FILE`: opens a database from its volume, as an application would, and says what is here.

use crate::door::Door;
use crate::screen::Told;
use crate::sqlite::{Cell, OpenDatabase};
use crate::words;
use serde_json::json;
use std::ffi::OsString;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file; made where only the volume is there, without fetching more than its beginning
    file: OsString,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let file = door.file(&args.file)?;
    let database = OpenDatabase::quietly(&file, door.said())?;
    let mut status: Vec<(String, String)> = Vec::new();
    let asked = database.run("SELECT name, value FROM littoral_status", &mut |answer| {
        status.extend(answer.rows.into_iter().filter_map(|row| match row.as_slice() {
            [Cell::Text(name), value] => Some((name.clone(), shown(value))),
            _ => None,
        }));
    });
    asked.map_err(anyhow::Error::msg)?;
    let here = database.sparse();
    let json = json!({
        "verb": "open",
        "file": file,
        "sparse": here.is_some(),
        "pages_here": here.map(|(here, _)| here),
        "pages": here.map(|(_, all)| all),
        "status": status.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    });
    let what = match here {
        Some((here, all)) => format!("{} of {} are here, the others come as they are read", words::count(here), words::some(all, "page")),
        None => "everything is here".to_owned(),
    };
    let mut text = format!("{}: {what}\n", file.display());
    for (name, value) in status.iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("  {name:<14}{value}\n"));
    }
    Ok(Told::done(json, text))
}

fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Number(number) => number.to_string(),
        Cell::Real(number) => number.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}
