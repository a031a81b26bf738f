//! `littoral prune FILE`: what no kept state needs goes, named in a record first.

use super::shown::{Known, Meter, Opened, known, session};
use crate::door::Door;
use crate::screen::Told;
use crate::words;
use anyhow::Context;
use littoral_engine::exec::beside::Quietly;
use littoral_engine::exec::prune::{How, Options, Pruned, prune_as, prune_thinning};
use littoral_engine::exec::repack::{Repacked, repack};
use littoral_engine::leases::Leases;
use littoral_engine::log::Writer;
use littoral_engine::logs::Carrier;
use littoral_engine::logs::table::columns;
use littoral_engine::open::Place;
use littoral_engine::settings::{Milliseconds, Settings};
use littoral_engine::upkeep::UpkeepFile;
use littoral_engine::{EngineError, KeepPolicy, Log, RepackPolicy, chores, jobs};
use littoral_types::limits::LEASE_WAIT_MS;
use littoral_types::{Retention, Seq, StoreId, Task, Work};
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file
    pub(crate) file: OsString,
    /// Keep the newest N restore points, and none of before them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keep_last: Option<u64>,
    /// Keep what was current within this time, and nothing of before it [default: what retention= says]
    #[arg(long, value_name = "DURATION")]
    pub(crate) keep_within: Option<Milliseconds>,
    /// Only show what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Name in the log what may go, and delete nothing: for credentials that may not [default: what prune_deletes= says]
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) no_delete: bool,
    /// Wait so long for others who merge chunks of the volume [default: 30s]
    #[arg(long, value_name = "DURATION", conflicts_with = "dry_run")]
    pub(crate) wait: Option<Milliseconds>,
    /// And then take their leases away, so that they publish nothing, instead of giving up
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) cancel: bool,
    /// Write what may go and was not deleted into a file: bytes and URL in each line
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub(crate) export: Option<PathBuf>,
}

/// Does it. The newest state, named snapshots and running restores always stay.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    // Said by number or by age it is said for good; else by the setting.
    let retention_of = |settings: &Settings| match (args.keep_within, args.keep_last) {
        (Some(within), _) => Retention::all_within(within.0),
        (None, Some(_)) => Retention::all_within(0),
        (None, None) => settings.retention.value.clone(),
    };
    let keep_of = |retention: &Retention| {
        let last = args.keep_last.unwrap_or(1);
        KeepPolicy { last, within_ms: retention.all_ms() }
    };
    let (url, pruned, repacked, meter) = if args.dry_run {
        // Nothing is claimed and nothing finished: a writer that only looks.
        let Known { place, settings, components, preview } = known(door, &args.file).await?;
        let (log, remote) = place.log(&settings, &components)?;
        let meter = Meter::new(remote);
        let retention = retention_of(&settings);
        let options = Options { keep: keep_of(&retention), grace_ms: settings.grace_ms.value, dry_run: true };
        let log = Log::new(log.remote().clone(), log.name().clone());
        // It looks with the eyes of whoever's term it is.
        let store = preview.row.tail.owner.as_ref().map_or(StoreId([0; 16]), |owner| owner.store);
        let mut writer = Writer::new(log, preview.manifest, components, store, preview.row);
        (place.url(), Box::pin(prune_thinning(&mut writer, &options, &retention)).await?, Repacked::default(), meter)
    } else {
        free(&args, door).await?;
        retained(&args, door).await?;
        let Opened { place, settings, mut session, meter } = session(door, &args.file).await?;
        let retention = retention_of(&settings);
        let options = Options { keep: keep_of(&retention), grace_ms: settings.grace_ms.value, dry_run: false };
        let file = chores::file(&place);
        let before = file.as_ref().map(UpkeepFile::read).transpose().map_err(EngineError::from)?.unwrap_or_default();
        let deletes = settings.prune_deletes.value && !args.no_delete;
        let how = How { deletes, marked: before.prune.and_then(|prune| prune.marked).map(Seq) };
        let task = Task::PruneCheckpoint {
            keep_last: args.keep_last,
            keep_within_ms: args.keep_within.map(|within| within.0),
        };
        let database = place.database.as_deref().unwrap_or(Path::new(""));
        // What a job says does not hold all of it: whoever went on with it would delete, or write no list.
        let errand = match args.no_delete || args.export.is_some() {
            true => None,
            false => Box::pin(jobs::begin_in(&session, database, task, None)).await?,
        };
        let work = async {
            let pruned = Box::pin(prune_as(&mut session.writer, &options, &retention, how)).await?;
            let mut repacked = Repacked::default();
            if deletes && pruned.as_ref().is_none_or(|pruned| pruned.denied.is_none()) {
                let (scratch, compression) = (&session.scratch, settings.compression.value);
                let mut quietly = Quietly::of(&place);
                let moving = repack(&mut session.writer, scratch, compression, RepackPolicy::default(), &mut quietly);
                repacked = Box::pin(moving).await?;
            }
            if let Some(file) = &file {
                let (components, newest) = (session.writer.components(), session.writer.row().tail.seq);
                chores::note_prune(file, components, pruned.as_ref(), &repacked, newest, None)?;
            }
            Ok::<_, EngineError>((pruned, repacked))
        };
        let (pruned, repacked) = Box::pin(jobs::run(errand, jobs::judge, outcome, work)).await?;
        (place.url(), pruned, repacked, meter)
    };
    let something = pruned.is_some();
    let pruned: Pruned = pruned.unwrap_or_default();
    let (remote, _) = url.rsplit_once('/').unwrap_or_default();
    let left: Vec<(u64, String)> = pruned.left.iter().map(|left| (left.bytes, format!("{remote}/{}", left.path))).collect();
    if let Some(path) = &args.export {
        let lines: String = left.iter().map(|(bytes, url)| format!("{bytes}\t{url}\n")).collect();
        std::fs::write(path, lines).with_context(|| format!("{}: the list cannot be written", path.display()))?;
    }
    if let Some(why) = &pruned.denied {
        door.screen.warn(&format!(
            "the object store does not let these credentials delete ({why}): what may go is named in record {}, lies there, and costs what it \
             costs. Give them the right to delete, or say prune_deletes=off and have somebody else delete what --export FILE lists",
            pruned.marked.unwrap_or_default()
        ));
    }
    let json = json!({
        "verb": "prune",
        "volume": url,
        "dry_run": args.dry_run,
        "oldest_record": something.then_some(pruned.floor.0),
        "kept_before": pruned.kept,
        "records": pruned.records,
        "manifest_snapshots": pruned.snapshots,
        "blobs": pruned.blobs,
        "pins_expired": pruned.pins,
        "bytes": pruned.bytes,
        "spared": pruned.spared,
        "records_read": pruned.read,
        "records_known": pruned.known,
        "repacked": { "packs": repacked.packs, "bytes_dead": repacked.dead, "bytes_moved": repacked.moved },
        "marked_record": pruned.marked.map(|seq| seq.0),
        "denied": pruned.denied,
        "left_bytes": pruned.left_bytes(),
        "left": left.iter().map(|(bytes, url)| json!({ "url": url, "bytes": bytes })).collect::<Vec<_>>(),
        "cost": words::cost_json(&meter.all()),
    });
    let count = pruned.records + pruned.snapshots + pruned.blobs + pruned.pins;
    let mut text = match count {
        0 if !pruned.left.is_empty() => format!("{url}: nothing was deleted\n"),
        0 => format!("{url}: nothing can go\n"),
        _ => format!(
            "{url}: {}: {}, {}, {}, {}; {}\n",
            if args.dry_run { "would go" } else { "gone" },
            words::some(pruned.records, "record"),
            words::some(pruned.blobs, "blob"),
            words::some(pruned.snapshots, "manifest snapshot"),
            words::some(pruned.pins, "expired pin"),
            words::bytes(pruned.bytes)
        ),
    };
    if pruned.kept > 0 {
        let points = words::some(pruned.kept, "restore point");
        text.push_str(&format!("  {points} of before record {} stay\n", pruned.floor));
    }
    if pruned.spared > 0 {
        text.push_str(&format!("  {} were pinned meanwhile and stay\n", words::count(pruned.spared)));
    }
    if let Some(marked) = pruned.marked.filter(|_| !pruned.left.is_empty()) {
        let objects = words::some(left.len() as u64, "object");
        let bytes = words::bytes(pruned.left_bytes());
        let listed = args.export.as_ref().map_or_else(
            || "--export FILE lists them".to_owned(),
            |path| format!("{} lists them", path.display()),
        );
        text.push_str(&format!("  {objects}, {bytes}, may be deleted by anybody: record {marked} names them, {listed}\n"));
    }
    if repacked.packs > 0 {
        text.push_str(&format!(
            "  {} moved out of {}, of which {} are dead: a later prune takes them\n",
            words::bytes(repacked.moved),
            words::some(repacked.packs as u64, "pack"),
            words::bytes(repacked.dead)
        ));
    }
    text.push_str(&format!("  {}\n", words::cost(&meter.all())));
    Ok(Told::done(json, text))
}

/// A log lets go first of what it need not keep.
async fn retained(args: &Args, door: &Door) -> anyhow::Result<()> {
    let path = door.file_or_log(&args.file)?;
    // Of a table's what may go its database says.
    if !path.is_dir() || columns(&path)?.is_some() {
        return Ok(());
    }
    let settings = door.settings(Some(&path))?;
    if let Some(mut carrier) = Carrier::of(&path, &settings, &door.components(&settings)?)? {
        Box::pin(carrier.retain()).await?;
    }
    Ok(())
}

/// Nobody merges chunks of the volume, or is made to stop.
async fn free(args: &Args, door: &Door) -> anyhow::Result<()> {
    let file = door.file_or_log(&args.file)?;
    let settings = door.settings(Some(&file))?;
    let place = Place::of_database(&file, &settings)?;
    let Some(found) = &place.found else { return Ok(()) };
    let Some(leases) = Leases::of(&place, &door.components(&settings)?)? else { return Ok(()) };
    let (volume, url) = (found.binding.id, place.url());
    let patience_ms = args.wait.map_or(LEASE_WAIT_MS, |wait| wait.0);
    let why = args.cancel.then_some("a prune was to come first");
    Ok(Box::pin(leases.wait((volume, &url), (Work::Prune, None), patience_ms, why)).await?)
}

fn outcome((pruned, _): &(Option<Pruned>, Repacked)) -> Result<String, String> {
    Ok(match pruned {
        None => "nothing could go".to_owned(),
        Some(gone) => format!("gone: {} records, {} blobs, {} bytes", gone.records, gone.blobs, gone.bytes),
    })
}
