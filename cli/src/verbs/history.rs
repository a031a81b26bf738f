//! `littoral history FILE|URL`: the records of a volume, newest first.

use super::shown::{Meter, moment};
use crate::door::Door;
use crate::screen::Told;
use crate::words;
use littoral_engine::EngineError;
use littoral_types::{Position, RecordKind, RecordSummary, Seq};
use serde_json::json;
use std::ffi::OsString;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume: a database whose volume it is, or a URL
    #[arg(value_name = "FILE|URL")]
    pub(super) target: OsString,
    /// How many records
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) limit: u32,
    /// Only records before this one
    #[arg(long, value_name = "RECORD")]
    pub(super) before: Option<u64>,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&args.target, None)?;
    let components = door.components(&settings)?;
    let (log, remote) = place.log(&settings, &components)?;
    let meter = Meter::new(remote);
    let opened = log.glance().await?.ok_or_else(|| EngineError::NoVolume(place.url()))?;
    let before = args.before.map_or(opened.tail.seq.next(), Seq);
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let records = log.history(&opened, before, limit).await?;
    let page_size = opened.tail.figures.page_size.map_or(0, |size| size.bytes());
    let more = records.last().map(|record| record.seq.0).filter(|seq| *seq > opened.tail.floor.0.max(1));
    let json = json!({
        "verb": "history",
        "volume": place.url(),
        "records": records.iter().map(|record| json!({
            "record": record.seq.0,
            "kind": record.kind.word(),
            "position": position(record).to_string(),
            "restorable": is_restorable(record),
            "time": moment(record.time_ms),
            "pages_changed": record.added.pages,
            "bytes": record.added.bytes,
            "pages": record.page_count.0,
            "hash": record.hash.to_string(),
        })).collect::<Vec<_>>(),
        "next_before": more,
        "cost": words::cost_json(&meter.all()),
    });
    let rows: Vec<Vec<String>> = records
        .iter()
        .map(|record| {
            let dash = || "-".to_owned();
            vec![
                record.seq.to_string(),
                words::time(record.time_ms),
                record.kind.to_string(),
                if is_restorable(record) { position(record).to_string() } else { dash() },
                if record.added.pages > 0 { words::count(record.added.pages) } else { dash() },
                if record.added.bytes > 0 { words::bytes(record.added.bytes) } else { dash() },
                words::bytes(record.page_count.0.saturating_mul(page_size)),
            ]
        })
        .collect();
    let mut text = format!("{}\n", place.url());
    text.push_str(&words::table(&["record", "time", "kind", "position", "pages", "written", "database"], &rows));
    if let Some(more) = more {
        text.push_str(&format!("older: --before {more}\n"));
    }
    text.push_str(&format!("{}\n", words::cost(&meter.all())));
    Ok(Told::done(json, text))
}

fn position(record: &RecordSummary) -> Position {
    Position { epoch: record.epoch, lsn: record.lsns.last }
}

/// Whether its position names this record's state for `restore --at`.
fn is_restorable(record: &RecordSummary) -> bool {
    matches!(record.kind, RecordKind::Checkpoint | RecordKind::Segment) && !record.lsns.is_empty()
}
