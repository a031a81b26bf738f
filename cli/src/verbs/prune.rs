//! `littoral prune FILE`: what no kept state needs goes, named in a record first.

use super::shown::{Known, Meter, Opened, known, session};
use crate::door::Door;
use crate::screen::Told;
use crate::words;
use littoral_engine::exec::prune::{Options, Pruned, prune};
use littoral_engine::log::Writer;
use littoral_engine::settings::Milliseconds;
use littoral_engine::{KeepPolicy, Log};
use littoral_types::StoreId;
use serde_json::json;
use std::ffi::OsString;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database file
    file: OsString,
    /// Keep the newest N restore points
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    keep_last: Option<u64>,
    /// Keep what was current within this time [default: 30d, or nothing more when --keep-last is given]
    #[arg(long, value_name = "DURATION")]
    keep_within: Option<Milliseconds>,
    /// Only show what would go
    #[arg(long)]
    dry_run: bool,
}

/// What is kept when nobody says anything.
const WITHIN_MS: u64 = 30 * 86_400_000;

/// Does it. The newest state, named snapshots and running restores always stay.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let within = match (args.keep_within, args.keep_last) {
        (Some(within), _) => within.0,
        (None, Some(_)) => 0,
        (None, None) => WITHIN_MS,
    };
    let keep = KeepPolicy { last: args.keep_last.unwrap_or(1), within_ms: within };
    let (url, pruned, meter) = if args.dry_run {
        // Nothing is claimed and nothing finished: a writer that only looks.
        let Known { place, settings, components, preview } = known(door, &args.file).await?;
        let (log, remote) = place.log(&settings, &components)?;
        let meter = Meter::new(remote);
        let options = Options { keep, grace_ms: settings.grace_ms.value, dry_run: true };
        let log = Log::new(log.remote().clone(), log.name().clone());
        // It looks with the eyes of whoever's term it is.
        let store = preview.row.tail.owner.as_ref().map_or(StoreId([0; 16]), |owner| owner.store);
        let mut writer = Writer::new(log, preview.manifest, components, store, preview.row);
        (place.url(), Box::pin(prune(&mut writer, &options)).await?, meter)
    } else {
        let Opened { place, settings, mut session, meter } = session(door, &args.file).await?;
        let options = Options { keep, grace_ms: settings.grace_ms.value, dry_run: false };
        (place.url(), Box::pin(prune(&mut session.writer, &options)).await?, meter)
    };
    let something = pruned.is_some();
    let pruned: Pruned = pruned.unwrap_or_default();
    let json = json!({
        "verb": "prune",
        "volume": url,
        "dry_run": args.dry_run,
        "oldest_record": something.then_some(pruned.floor.0),
        "records": pruned.records,
        "manifest_snapshots": pruned.snapshots,
        "blobs": pruned.blobs,
        "pins_expired": pruned.pins,
        "bytes": pruned.bytes,
        "spared": pruned.spared,
        "cost": words::cost_json(&meter.all()),
    });
    let count = pruned.records + pruned.snapshots + pruned.blobs + pruned.pins;
    let mut text = match count {
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
    if pruned.spared > 0 {
        text.push_str(&format!("  {} were pinned meanwhile and stay\n", words::count(pruned.spared)));
    }
    text.push_str(&format!("  {}\n", words::cost(&meter.all())));
    Ok(Told::done(json, text))
}
