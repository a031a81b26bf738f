//! `littoral log truncate`: a log's oldest records go.

use super::{Place, place};
use crate::door::Door;
use crate::screen::Told;
use crate::words;
use littoral_engine::logs::{self, Carrier, Cut, How, RolledBack, Truncated};
use littoral_engine::settings::{self, Milliseconds};
use littoral_types::limits::LEASE_WAIT_MS;
use littoral_types::{Lsn, Moment};
use serde_json::json;
use std::path::{Path, PathBuf};

/// What can be said to it.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["before", "keep_bytes", "after"])))]
pub(super) struct Args {
    /// The log's folder
    path: PathBuf,
    /// What is before this record, or older than this: an LSN, a time, or how long ago (-30d)
    #[arg(long, value_name = "LSN|TIME|-AGO", allow_hyphen_values = true)]
    before: Option<Moment>,
    /// The oldest, until what is left takes no more of the disk
    #[arg(long, value_name = "SIZE", value_parser = size)]
    keep_bytes: Option<u64>,
    /// The end instead: everything after this record. What is sealed or shipped is void from then on, the rest is cut off
    #[arg(long, value_name = "LSN")]
    after: Option<u64>,
    /// Also what cursors have not acknowledged; of the end, also what they have, and they go back
    #[arg(long)]
    past_cursors: bool,
    /// Wait so long for others of this store who are at it: a restore, or of the end whoever appends [default: 30s]
    #[arg(long, value_name = "DURATION", conflicts_with = "dry_run")]
    wait: Option<Milliseconds>,
    /// And then take their leases away, so that they stop, instead of giving up
    #[arg(long, conflicts_with = "dry_run")]
    cancel: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

/// Does it.
pub(super) async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let Args { path, before, keep_bytes, after, past_cursors, wait, cancel, dry_run } = args;
    let how = How {
        past_cursors,
        is_dry: dry_run,
        patience_ms: wait.map_or(LEASE_WAIT_MS, |wait| wait.0),
        cancels: cancel,
    };
    if let Some(last) = after {
        return tail(&path, Lsn(last), how, door).await;
    }
    let cut = match (before, keep_bytes) {
        (Some(moment), _) => match place(&moment, super::parts(&path, door)?.clock.wall_ms())? {
            Place::Lsn(lsn) => Cut::Before(lsn),
            Place::Time(ms) => Cut::OlderThan(ms),
        },
        (None, bytes) => Cut::KeepBytes(bytes.unwrap_or(u64::MAX)),
    };
    head(&path, cut, how, door).await
}

/// Lets the beginning go.
pub(crate) async fn head(path: &Path, cut: Cut, how: How, door: &Door) -> anyhow::Result<Told> {
    let settings = door.settings(Some(path))?;
    let components = door.components(&settings)?;
    let done = match (Carrier::of(path, &settings, &components)?, how.past_cursors) {
        (Some(mut carrier), _) => Box::pin(carrier.truncate(cut, how)).await?,
        (None, true) => logs::truncate_past_cursors(path, cut, how.is_dry, &*components.faults)?,
        (None, false) => logs::truncate(path, cut, how.is_dry, &*components.faults)?,
    };
    let Truncated { was, start, segments, bytes } = done;
    let held = logs::cursors(path)?.into_iter().min_by_key(|cursor| cursor.acked).filter(|_| !how.past_cursors);
    let mut text = match (segments, how.is_dry) {
        (0, _) => format!("nothing goes: the log begins at LSN {start}\n"),
        (_, true) => format!(
            "{} would go, {}; the log would begin at LSN {start}\n",
            words::some(segments, "segment"),
            words::bytes(bytes)
        ),
        (_, false) => {
            format!("{} went, {}; the log begins at LSN {start} now\n", words::some(segments, "segment"), words::bytes(bytes))
        }
    };
    if let Some(held) = &held {
        text.push_str(&format!("what follows LSN {} stays for cursor {}\n", held.acked, held.name));
    }
    let json = json!({
        "verb": "log", "log": path.display().to_string(), "was": was.0, "start": start.0, "segments": segments, "bytes": bytes,
        "dry_run": how.is_dry, "cursor": held.map(|held| held.name.to_string()),
    });
    Ok(Told::done(json, text))
}

/// Rolls the end back.
async fn tail(path: &Path, last: Lsn, how: How, door: &Door) -> anyhow::Result<Told> {
    let settings = door.settings(Some(path))?;
    let components = door.components(&settings)?;
    let done = match Carrier::of(path, &settings, &components)? {
        Some(mut carrier) => Box::pin(carrier.roll_back(last, how)).await?,
        None => {
            let quiet = Box::pin(logs::quiet(path, &components, how.patience_ms)).await?;
            quiet.roll_back(last, Lsn::ZERO, (how.past_cursors, how.is_dry), &*components.faults)?
        }
    };
    let json = json!({
        "verb": "log", "log": path.display().to_string(), "was": done.was.0, "last": done.last.0, "next": done.next.0,
        "records": done.voided + done.cut, "void": done.voided, "cut": done.cut, "dry_run": how.is_dry,
    });
    Ok(Told::done(json, rolled_back(&done, how.is_dry)))
}

/// What went, what of that stays in its place and is void, and where the log goes on.
fn rolled_back(done: &RolledBack, is_dry: bool) -> String {
    let RolledBack { last, next, voided, cut, .. } = *done;
    let (went, ends) = if is_dry { ("would go", "would end") } else { ("went", "ends") };
    let now = if is_dry { "" } else { " now" };
    let records = words::some(voided + cut, "record");
    match (voided, cut) {
        (0, 0) => format!("nothing goes: the log ends at LSN {last}\n"),
        (0, _) if next == last.next() => format!("{records} {went}; the log {ends} at LSN {last}{now}\n"),
        _ => {
            let is = if is_dry { "would be" } else { "is" };
            let cut = if cut > 0 { format!(", and what was not, {}, {is} cut off", words::some(cut, "record")) } else { String::new() };
            format!(
                "{records} {went}; the log {ends} at LSN {last}{now}, and its next record {is} LSN {next}\n\
                 what was sealed or shipped, {}, {is} void{cut}\n",
                words::some(voided, "record")
            )
        }
    }
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    settings::size(text).ok_or_else(|| "write a size such as 500MB or 2GiB".to_owned())
}
