//! `littoral sessions FILE|URL`: how far each named session is, here and in the object store, and who holds it (rule P10).

use super::shown::Meter;
use crate::door::{Door, Target};
use crate::screen::Told;
use crate::sqlite::{Cell, OpenDatabase};
use crate::words;
use littoral_engine::EngineError;
use littoral_engine::exec::at::find;
use littoral_types::{At, SessionName, VolumeKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume: a database whose volume it is, or a URL; --at looks at an earlier state of it
    #[arg(value_name = "FILE|URL")]
    target: OsString,
}

/// What is known of one.
#[derive(Default)]
struct Row {
    serial: Option<i64>,
    durable: Option<u64>,
    position: Option<String>,
    holder: Option<String>,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&args.target, None)?;
    let components = door.components(&settings)?;
    let (log, remote) = place.log(&settings, &components)?;
    let meter = Meter::new(remote);
    let at = settings.at.as_ref().map(|at| at.value.as_of(components.clock.wall_ms()));
    let mut rows: BTreeMap<SessionName, Row> = BTreeMap::new();
    // Of a file also what no record has yet. The past has nothing of that.
    if let (Target::File(_), None) = (Target::read(&args.target), &at) {
        let file = door.file(&args.target)?;
        let database = OpenDatabase::quietly(&file, door.said())?;
        here(&database, &mut rows).map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
    }
    let published = match find(&log, &at.clone().unwrap_or(At::Newest)).await {
        Ok(found) if found.opened.meta.kind == VolumeKind::Log => {
            let way = "littoral log stats PATH, and littoral log read URL --format json, show its sessions";
            return Err(EngineError::OtherKind { volume: place.url(), kind: VolumeKind::Log, way }.into());
        }
        Ok(found) => Some(found.opened),
        // Nothing was published yet: what is here is all there is.
        Err(EngineError::NoVolume(_) | EngineError::NoSuchPosition { .. }) if at.is_none() && place.database.is_some() => None,
        Err(error) => return Err(error.into()),
    };
    for mark in published.iter().flat_map(|opened| opened.sessions.marks()) {
        let row = rows.entry(mark.session.clone()).or_default();
        row.durable = mark.step.serial().map(|serial| serial.get());
        row.position = Some(mark.position.to_string());
    }
    let url = place.url();
    let json = json!({
        "verb": "sessions",
        "volume": url,
        "position": published.as_ref().map(|opened| format!("{}.{}", opened.tail.epoch, opened.tail.lsn)),
        "sessions": rows.iter().map(|(session, row)| json!({
            "session": session.as_str(),
            "serial": row.serial,
            "durable_serial": row.durable,
            "position": row.position,
            "holder": row.holder,
        })).collect::<Vec<Value>>(),
        "cost": words::cost_json(&meter.all()),
    });
    let shown = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
    let lines: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(session, row)| {
            vec![
                session.to_string(),
                shown(row.serial.map(|serial| serial.to_string())),
                shown(row.durable.map(|serial| serial.to_string())),
                shown(row.position),
                shown(row.holder),
            ]
        })
        .collect();
    let text = match lines.is_empty() {
        true => format!("{url} has no named sessions: PRAGMA littoral_session='NAME' makes one\n"),
        false => words::table(&["session", "serial", "durable", "position", "held by"], &lines),
    };
    Ok(Told::done(json, text))
}

/// What the database itself says, and who holds which.
fn here(database: &OpenDatabase, rows: &mut BTreeMap<SessionName, Row>) -> Result<(), String> {
    database.run("SELECT session, serial, holder FROM littoral_sessions", &mut |answer| {
        for row in answer.rows {
            let [Cell::Text(session), serial, holder] = row.as_slice() else { continue };
            let Ok(session) = session.parse() else { continue };
            let found = Row {
                serial: match serial {
                    Cell::Number(serial) => Some(*serial),
                    _ => None,
                },
                holder: match holder {
                    Cell::Text(holder) => Some(holder.clone()),
                    _ => None,
                },
                ..Row::default()
            };
            rows.insert(session, found);
        }
    })
}
