//! `littoral hydrate FILE`: fetches everything that is not here, until the database is a plain file.

use crate::door::Door;
use crate::errands::judged;
use crate::screen::Told;
use crate::sqlite::OpenDatabase;
use crate::words;
use littoral_engine::open::Place;
use littoral_engine::{Components, EngineError, jobs};
use littoral_ports::Unit;
use littoral_types::Task;
use serde_json::json;
use std::ffi::OsString;
use std::path::Path;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file; made where only the volume is there
    pub(crate) file: OsString,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let file = door.file(&args.file)?;
    let settings = door.settings(Some(&file))?;
    let components = door.components(&settings)?;
    let database = OpenDatabase::quietly(&file, door.said())?;
    let place = Place::of_database(&file, &settings)?;
    let errand = Box::pin(jobs::begin_at(&place, &components, Task::DownloadCheckpoint, None)).await?;
    let work = async { hydrated(&file, database, &components, door) };
    Box::pin(jobs::run(errand, judged, |told: &Told| Ok(format!("{} pages fetched", told.json["pages_fetched"])), work)).await
}

fn hydrated(file: &Path, database: OpenDatabase, components: &Components, door: &Door) -> anyhow::Result<Told> {
    let before = database.sparse();
    let pages = before.map_or(0, |(here, all)| all - here);
    components.progress.phase("fetching", pages, Unit::Pages);
    let mut last = before.map_or(0, |(here, _)| here);
    let mut died = Ok(());
    database.hydrate(&mut |here, _| {
        died = std::mem::replace(&mut died, Ok(())).and_then(|()| components.faults.reach("download.fetched"));
        components.progress.advance(here.saturating_sub(last));
        last = here;
    })?;
    died.map_err(EngineError::from)?;
    drop(database);
    components.faults.reach("download.whole").map_err(EngineError::from)?;
    // Nobody else has it open: now it becomes a plain file.
    let is_plain = OpenDatabase::quietly(file, door.said())?.sparse().is_none();
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
