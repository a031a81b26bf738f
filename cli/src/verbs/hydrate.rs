//! `littoral hydrate FILE`: fetches everything that is not here, until the database is a plain file.

use crate::door::Door;
use crate::screen::Told;
use crate::sqlite::OpenDatabase;
use crate::words;
use littoral_ports::Unit;
use serde_json::json;
use std::ffi::OsString;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file; made where only the volume is there
    pub(super) file: OsString,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let file = door.file(&args.file)?;
    let components = door.components(&door.settings(Some(&file))?)?;
    let database = OpenDatabase::open(&file, door.said())?;
    let before = database.sparse();
    let pages = before.map_or(0, |(here, all)| all - here);
    components.progress.phase("fetching", pages, Unit::Pages);
    let mut last = before.map_or(0, |(here, _)| here);
    database.hydrate(&mut |here, _| {
        components.progress.advance(here.saturating_sub(last));
        last = here;
    })?;
    drop(database);
    // Nobody else has it open: now it becomes a plain file.
    let is_plain = OpenDatabase::open(&file, door.said())?.sparse().is_none();
    let json = json!({ "verb": "hydrate", "file": file, "pages_fetched": pages, "plain": is_plain });
    let what = match (before.is_some(), is_plain) {
        (false, _) => "was all here already".to_owned(),
        (true, true) => format!("is a plain SQLite file now: {} fetched", words::some(pages, "page")),
        (true, false) => format!(
            "is all here: {} fetched; it becomes a plain SQLite file when it is opened next and nobody else has it open",
            words::some(pages, "page")
        ),
    };
    Ok(Told::done(json, format!("{} {what}\n", file.display())))
}
