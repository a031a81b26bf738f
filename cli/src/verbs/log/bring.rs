//! `littoral log bring`: the logs of a database's tables that are not here, as where the database was opened from its volume.

use crate::door::Door;
use crate::screen::Told;
use crate::sqlite::{Cell, OpenDatabase};
use crate::verbs::restore::{brought_json, brought_text};
use anyhow::Context;
use littoral_engine::logs::counted::{TABLE, voids};
use littoral_engine::EngineError;
use littoral_engine::follow::Place as Following;
use littoral_engine::logs::tables::{NOT_IN_A_REPLICA, bring};
use littoral_engine::open::{Place, store_root};
use littoral_types::{CountedLog, Lsn, VolumeId};
use serde_json::json;
use std::path::Path;

/// Does it.
pub(super) async fn run(database: &Path, door: &Door) -> anyhow::Result<Told> {
    let file = door.file(database.as_os_str())?;
    let settings = door.settings(Some(&file))?;
    if Following::of(&store_root(&file, &settings), &file).is_replica() {
        return Err(EngineError::Refused(format!("{}: {NOT_IN_A_REPLICA}", file.display())).into());
    }
    let components = door.components(&settings)?;
    let opened = OpenDatabase::quietly(&file, door.said())?;
    let logs = counted(&opened)?;
    let path = opened.path().to_owned();
    drop(opened);
    let place = Place::of_database(&path, &settings)?;
    let (volume, _, _) = place.log_or_copy(&settings, &components)?;
    let brought = Box::pin(bring(&volume, &components, &path, &logs)).await?;
    let json = json!({ "verb": "log", "database": file, "logs": brought.iter().map(brought_json).collect::<Vec<_>>() });
    let mut text: String = brought.iter().map(|log| format!("{}\n", brought_text(log))).collect();
    if brought.is_empty() {
        text = format!("{} has no table that is a log\n", file.display());
    }
    Ok(Told::done(json, text))
}

/// What the database counts, as its newest commit says.
fn counted(database: &OpenDatabase) -> anyhow::Result<Vec<CountedLog>> {
    let mut rows = Vec::new();
    let is_there = format!("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{TABLE}'");
    database.run(&is_there, &mut |answer| rows.extend(answer.rows)).map_err(anyhow::Error::msg)?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    rows.clear();
    let select = format!("SELECT name, folder, log, first, last, void FROM {TABLE} ORDER BY name");
    database.run(&select, &mut |answer| rows.extend(answer.rows)).map_err(anyhow::Error::msg)?;
    rows.iter().map(|row| log_of(row).with_context(|| format!("{TABLE} says something that was not written there"))).collect()
}

fn log_of(row: &[Cell]) -> Option<CountedLog> {
    match row {
        [
            Cell::Text(table),
            Cell::Text(folder),
            Cell::Text(log),
            Cell::Number(first),
            Cell::Number(last),
            Cell::Text(void),
        ] => Some(CountedLog {
            table: table.clone(),
            folder: folder.clone(),
            log: VolumeId::from_hex(log)?,
            first: Lsn(u64::try_from(*first).ok()?),
            last: Lsn(u64::try_from(*last).ok()?),
            voids: voids(void)?,
        }),
        _ => None,
    }
}
