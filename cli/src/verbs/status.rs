//! `littoral status FILE|URL`: where a volume stands, and whose it is.

use super::shown::{Meter, moment};
use crate::door::Door;
use crate::screen::Told;
use crate::words;
use littoral_engine::EngineError;
use littoral_engine::exec::prune::named_snapshots;
use littoral_engine::open::Place;
use littoral_engine::tracker::peek::{Peek, PeekSparse, peek, peek_sparse};
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
    let (live, sparse) = live(&place)?;
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
        "live": live.as_ref().map(|live| json!({
            "commits_since": live.commits_since,
            "bytes_changed": live.bytes_changed,
            "fenced_by": live.fenced.as_ref().map(|(_, owner)| owner),
        })),
        "sparse": sparse.map(|sparse| json!({
            "position": sparse.position.to_string(),
            "pages_here": sparse.here,
            "pages": sparse.pages.0,
        })),
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
    if let Some(live) = &live {
        lines.push(("since", since(live)));
    }
    if let Some(PeekSparse { position, here, pages }) = sparse {
        lines.push(("sparse", format!("{here} of {} are here, of {position}", words::some(pages.0, "page"))));
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

/// What whoever has the database open knows of it, and where it is not all here.
fn live(place: &Place) -> anyhow::Result<(Option<Peek>, Option<PeekSparse>)> {
    let Some((database, root)) = place.database.as_ref().zip(place.store_root.as_ref()) else { return Ok((None, None)) };
    let failed = EngineError::from;
    Ok((peek(root, database).map_err(failed)?, peek_sparse(root, database).map_err(failed)?))
}

/// What came since the last checkpoint, as far as the VFS has seen it.
fn since(live: &Peek) -> String {
    let Peek { commits_since, bytes_changed, fenced } = live;
    let commits = words::some(*commits_since, "commit");
    match (fenced, bytes_changed) {
        (Some((epoch, owner)), _) => format!("{commits} kept here: {owner} took over (epoch {epoch})"),
        (None, None) => "not known: the next checkpoint compares all pages".to_owned(),
        (None, Some(0)) => "nothing: the object store has everything".to_owned(),
        // A backfill writes pages that were published out of the WAL: they are looked at again, and found unchanged.
        (None, Some(bytes)) if *commits_since == 0 => {
            format!("no commit was counted; {} came out of the WAL and are looked at again", words::bytes(*bytes))
        }
        (None, Some(bytes)) => format!("{commits}, {} to look at", words::bytes(*bytes)),
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
