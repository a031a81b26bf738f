//! `littoral status FILE|URL`: where a volume stands, and whose it is.

use super::shown::{Meter, moment};
use crate::door::Door;
use crate::screen::Told;
use crate::words;
use littoral_engine::EngineError;
use littoral_engine::exec::prune::named_snapshots;
use littoral_engine::open::Place;
use littoral_types::{JournalMode, Position, TailRow};
use serde_json::json;
use std::ffi::OsString;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume: a database whose volume it is, or a URL
    #[arg(value_name = "FILE|URL")]
    target: OsString,
}

/// What this machine's store knows of the volume.
struct Here {
    word: &'static str,
    sentence: String,
    tail: Option<TailRow>,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&args.target, None)?;
    let components = door.components(&settings)?;
    let (log, remote) = place.log(&settings, &components)?;
    let meter = Meter::new(remote);
    let (opened, snapshots) = futures::try_join!(log.open(), named_snapshots(&log))?;
    let opened = opened.ok_or_else(|| EngineError::NoVolume(place.url()))?;
    let tail = &opened.tail;
    let here = here(&place, tail)?;
    let position = Position { epoch: tail.epoch, lsn: tail.lsn };
    let page_size = tail.figures.page_size.map(|size| size.bytes());
    let size = page_size.unwrap_or(0) * tail.figures.page_count.0;
    let owner = tail.owner.as_ref().map(|owner| owner.label.clone());
    let names: Vec<String> = snapshots
        .iter()
        .filter_map(|pinned| match &pinned.pin.purpose {
            littoral_types::PinPurpose::Snapshot(name) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    let now = components.clock.wall_ms();
    let json = json!({
        "verb": "status",
        "volume": place.url(),
        "name": opened.meta.name.as_str(),
        "id": opened.meta.id.to_string(),
        "created": moment(opened.meta.created_ms),
        "position": position.to_string(),
        "epoch": tail.epoch.0,
        "lsn": tail.lsn.0,
        "record": tail.seq.0,
        "owner": owner,
        "written": moment(tail.time_ms),
        "page_size": page_size,
        "pages": tail.figures.page_count.0,
        "bytes": size,
        "schema": tail.schema.map(|schema| json!({
            "cookie": schema.cookie,
            "user_version": schema.user_version,
            "application_id": schema.application_id,
            "journal": journal(schema.journal),
        })),
        "manifest_snapshot": tail.snapshot.0,
        "oldest_record": tail.floor.0.max(1),
        "snapshots": names,
        "database": place.database,
        "store": place.store.as_ref().map(|store| store.root()),
        "here": here.as_ref().map(|here| here.word),
        "local_record": here.as_ref().and_then(|here| here.tail.as_ref()).map(|tail| tail.seq.0),
        "cost": words::cost_json(&meter.all()),
    });
    let mut lines: Vec<(&str, String)> = vec![
        ("volume", format!("{} ({})", place.url(), opened.meta.id)),
        ("position", format!("{position} (record {}), {} ago", tail.seq, words::span(now.saturating_sub(tail.time_ms)))),
        ("writer", owner.unwrap_or_else(|| "nobody: it was released".to_owned())),
        (
            "database",
            match page_size {
                None => "nothing was checkpointed yet".to_owned(),
                Some(page) => {
                    format!("{} ({} of {page} bytes)", words::bytes(size), words::some(tail.figures.page_count.0, "page"))
                }
            },
        ),
    ];
    if let Some(schema) = tail.schema {
        let journal = journal(schema.journal);
        lines.push(("schema", format!("user_version {}, {journal} mode", schema.user_version)));
    }
    lines.push(("snapshots", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
    if let Some(here) = &here {
        lines.push(("here", here.sentence.clone()));
    }
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<10}{value}\n")).collect();
    text.push_str(&format!("{:<10}{}\n", "cost", words::cost(&meter.all())));
    Ok(Told::done(json, text))
}

fn journal(mode: JournalMode) -> &'static str {
    match mode {
        JournalMode::Rollback => "rollback",
        JournalMode::Wal => "wal",
    }
}

/// How this machine's database stands to what the remote holds. Value of `here` in the document.
fn here(place: &Place, tail: &TailRow) -> anyhow::Result<Option<Here>> {
    let Some(database) = &place.database else { return Ok(None) };
    let Some((store, found)) = place.store.as_ref().zip(place.found.as_ref()) else {
        let sentence = format!("{} is not bound to it", database.display());
        return Ok(Some(Here { word: "not-bound", sentence, tail: None }));
    };
    let row = place.manifest()?.map(|manifest| manifest.volume(&place.volume.value)).transpose().map_err(EngineError::from)?;
    let row = row.flatten().filter(|row| row.meta.id == found.binding.id);
    let ours = tail.owner.as_ref().is_none_or(|owner| owner.store == store.id());
    let (word, sentence) = match &row {
        None if ours => ("rebuildable", "bound; the local manifest is gone and is rebuilt by the next checkpoint".to_owned()),
        Some(row) if row.fenced.is_some() || !ours => {
            ("superseded", format!("another writer took over; --takeover={} takes it back", tail.epoch))
        }
        Some(row) if row.tail.seq < tail.seq => ("behind", format!("the remote is ahead (record {} here)", row.tail.seq)),
        Some(row) if row.tail.seq > tail.seq => ("ahead", format!("the remote lost records (record {} here)", row.tail.seq)),
        Some(row) if row.tail.hash != tail.hash => ("diverged", "record hashes differ".to_owned()),
        Some(_) if tail.owner.is_none() => ("released", "the next checkpoint claims it again".to_owned()),
        Some(_) => ("in-step", "this machine writes it, and knows every record".to_owned()),
        None => ("superseded", format!("another writer took over; --takeover={} takes it back", tail.epoch)),
    };
    Ok(Some(Here { word, sentence, tail: row.map(|row| row.tail) }))
}
