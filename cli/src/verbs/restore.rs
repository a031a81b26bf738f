//! `littoral restore URL|FILE DEST`: a plain database file of a published state.

use super::shown::Meter;
use crate::door::Door;
use crate::screen::Told;
use crate::words;
use littoral_engine::exec::restore::{At, restore};
use littoral_types::{Lsn, Position};
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume: a URL, or a database whose volume it is
    #[arg(value_name = "URL|FILE")]
    pub(super) from: OsString,
    /// Where the database file goes
    pub(super) dest: PathBuf,
    /// Which state: an LSN, a position (epoch.lsn) or a snapshot's name [default: the newest]
    #[arg(long, value_name = "LSN|EPOCH.LSN|SNAPSHOT", value_parser = at)]
    pub(super) at: Option<At>,
    /// Replace what stands at the destination
    #[arg(long)]
    pub(super) force: bool,
}

/// Reads what a user calls a state.
pub(super) fn at(text: &str) -> Result<At, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let lsn = text.parse().map_err(|_| "an LSN has at most 20 digits".to_owned())?;
        return Ok(At::Lsn(Lsn(lsn)));
    }
    if let Ok(position) = text.parse::<Position>() {
        return Ok(At::Position(position));
    }
    let name = text.parse().map_err(|error| format!("neither an LSN, nor a position as in 1.42, nor a snapshot: {error}"))?;
    Ok(At::Snapshot(name))
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let (place, settings) = door.place(&args.from, Some(&args.dest))?;
    let components = door.components(&settings)?;
    let (log, remote) = place.log(&settings, &components)?;
    let meter = Meter::new(remote);
    let began = Instant::now();
    let at = args.at.unwrap_or(At::Newest);
    let done = Box::pin(restore(&log, &components, &at, &args.dest, args.force)).await?;
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let json = json!({
        "verb": "restore",
        "volume": place.url(),
        "dest": args.dest,
        "position": done.position.to_string(),
        "record": done.seq.0,
        "bytes": done.bytes,
        "bytes_resumed": done.resumed,
        "bytes_fetched": done.fetched,
        "replaced": done.finished.replaced,
        "moved_aside": done.finished.quarantined,
        "pinned": done.pinned,
        "took_ms": took,
        "cost": words::cost_json(&meter.all()),
    });
    let mut text = format!(
        "{} is {} at {}: {} in {}\n",
        args.dest.display(),
        place.url(),
        done.position,
        words::bytes(done.bytes),
        words::span(took)
    );
    if done.resumed > 0 {
        text.push_str(&format!("  {} were there from an interrupted restore\n", words::bytes(done.resumed)));
    }
    for aside in &done.finished.quarantined {
        text.push_str(&format!("  a leftover of the file before was moved to {}\n", aside.display()));
    }
    text.push_str(&format!("  {}\n", words::cost(&meter.all())));
    Ok(Told::done(json, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_types::Epoch;

    #[test]
    fn a_state_is_an_lsn_a_position_or_a_snapshot() {
        assert_eq!(at("42"), Ok(At::Lsn(Lsn(42))));
        assert_eq!(at("1.42"), Ok(At::Position(Position { epoch: Epoch(1), lsn: Lsn(42) })));
        assert_eq!(at("before-v2"), Ok(At::Snapshot("before-v2".parse().unwrap())));
        for text in ["", "a b", "99999999999999999999999"] {
            assert!(at(text).is_err(), "{text:?}");
        }
    }
}
