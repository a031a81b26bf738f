//! `littoral history FILE|URL`: the records of a volume, newest first.

use super::shown::{Meter, moment};
use crate::door::Door;
use crate::screen::Told;
use crate::words;
use littoral_engine::EngineError;
use littoral_engine::exec::at::{Since, gap_of, kept_before};
use littoral_types::{Gap, Position, RecordKind, RecordSummary, Seq};
use serde_json::json;
use std::collections::BTreeMap;
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
    /// Only restore points: records that `--at` can end at
    #[arg(long)]
    pub(super) points: bool,
    /// Only records before this one
    #[arg(long, value_name = "RECORD")]
    pub(super) before: Option<u64>,
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&args.target, None)?;
    let components = door.components(&settings)?;
    let (log, remote, _) = place.log_or_copy(&settings, &components)?;
    let meter = Meter::new(remote);
    let opened = log.glance().await?.ok_or_else(|| EngineError::NoVolume(place.url()))?;
    let before = args.before.map_or(opened.tail.seq.next(), Seq);
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let page_size = opened.tail.figures.page_size.map_or(0, |size| size.bytes());
    let floor = opened.tail.floor.max(Seq(1));
    let mut records: Vec<RecordSummary> = Vec::new();
    let mut oldest = before;
    // A page of the history may hold no restore point.
    while records.len() < limit && oldest > floor {
        let page = log.history(&opened, oldest, limit).await?;
        let Some(last) = page.last() else { break };
        oldest = last.seq;
        records.extend(page.into_iter().filter(|record| !args.points || is_restorable(record)));
    }
    records.truncate(limit);
    // Before the floor a coarser history is left.
    let room = limit - records.len();
    let kept = if room > 0 { kept_before(&log, floor, before, Since::Newest(&opened), room).await? } else { Vec::new() };
    let last = kept.last().map(|label| label.seq).or(records.last().map(|record| record.seq));
    let more = match last {
        Some(last) if last > floor => Some(last.0),
        Some(last) if !log.standing_before(floor.min(last)).await?.is_empty() => Some(last.0),
        _ => None,
    };
    // What a gap is, its record's body says; there are few.
    let mut gaps: BTreeMap<Seq, Gap> = BTreeMap::new();
    for record in records.iter().filter(|record| record.kind == RecordKind::Gap) {
        gaps.extend(gap_of(&log, record.seq).await?.map(|gap| (record.seq, gap)));
    }
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
            "gap": gaps.get(&record.seq).map(|gap| json!({
                "reason": gap.reason.word(),
                "why": gap.reason.to_string(),
                "after_lsn": record.lsns.first.0.saturating_sub(1),
                "until_lsn": record.lsns.last.0,
                "since": (gap.since_ms > 0).then(|| moment(gap.since_ms)),
                "until": moment(record.time_ms),
            })),
        })).collect::<Vec<_>>(),
        "kept": kept.iter().map(|label| json!({
            "record": label.seq.0,
            "position": label.position().to_string(),
            "time": moment(label.time_ms),
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
    for record in records.iter().rev() {
        let Some(gap) = gaps.get(&record.seq) else { continue };
        let (after, until) = (record.lsns.first.0.saturating_sub(1), words::time(record.time_ms));
        let since = if gap.since_ms > 0 { format!(" of {}", words::time(gap.since_ms)) } else { String::new() };
        text.push_str(&format!(
            "gap: what was committed after LSN {after}{since} and before {} of {until} is not told apart: {}\n",
            position(record),
            gap.reason
        ));
    }
    if !kept.is_empty() {
        text.push_str("kept of what was before:\n");
        let rows: Vec<Vec<String>> = kept
            .iter()
            .map(|label| vec![label.seq.to_string(), words::time(label.time_ms), label.position().to_string()])
            .collect();
        text.push_str(&words::table(&["record", "time", "position"], &rows));
    }
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
    record.kind.is_restore_point() && !record.lsns.is_empty()
}
