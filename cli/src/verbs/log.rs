//! `littoral log create|append|ship|read|tail|stats|truncate|retain|cursors PATH`: append-only logs.

mod append;
mod bring;
mod cursors;
mod read;
mod retain;
mod ship;
pub(crate) mod truncate;

use crate::door::Door;
use crate::exit::Fault;
use crate::screen::Told;
use crate::words;
use littoral_engine::logs::{self, Carrier, Keep, Log, LogParts, LogStats, LogSync, SegmentStats};
use littoral_types::moment::Utc;
use littoral_types::{At, Lsn, Moment};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make a log, in a folder of its own; with --remote also its volume
    Create {
        /// The log's folder
        path: PathBuf,
    },
    /// Append a record for each line of stdin
    Append(append::Args),
    /// Bring what is not there yet to the log's volume, where nobody appends
    Ship {
        /// The log's folder
        path: PathBuf,
    },
    /// Bring the logs of a database's tables to where it finds them, from their volumes
    Bring {
        /// The database file
        database: PathBuf,
    },
    /// Print records
    Read(read::Args),
    /// Print records as they are appended, until told to stop
    Tail(read::TailArgs),
    /// What a log holds: segments, sessions, times, who appends
    Stats {
        /// The log's folder
        path: PathBuf,
    },
    /// Let the oldest records go, whole sealed segments, or roll back the end
    Truncate(truncate::Args),
    /// Say how much a log keeps, or show it: what is older, or more, goes by itself while it is appended to
    Retain(retain::Args),
    /// Who reads a log, and up to where he is done: what is not acknowledged is not truncated
    Cursors(cursors::Args),
}

impl Args {
    /// Whether it goes on until it is told to stop, and shows a line for each record.
    pub fn is_endless(&self) -> bool {
        matches!(self.what, What::Read(_) | What::Tail(_))
    }
}

/// Does it.
pub async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    match args.what {
        What::Create { path } => create(&path, door).await,
        What::Append(args) => append::run(args, door).await,
        What::Ship { path } => ship::run(&path, door).await,
        What::Bring { database } => bring::run(&database, door).await,
        What::Read(args) => read::run(args, door).await,
        What::Tail(args) => read::tail(args, door).await,
        What::Stats { path } => {
            let stats = logs::stats(&path)?;
            let keep = logs::keep(&path)?;
            let mut json = stats_json(&path, &stats);
            json["keep"] = retain::as_json(&keep);
            Ok(Told::done(json, stats_text(&path, &stats, &keep)))
        }
        What::Retain(args) => retain::run(args, door).await,
        What::Truncate(args) => truncate::run(args, door).await,
        What::Cursors(args) => cursors::run(args),
    }
}

fn parts(path: &Path, door: &Door) -> anyhow::Result<LogParts> {
    Ok(logs::parts(&door.components(&door.settings(Some(path))?)?))
}

async fn create(path: &Path, door: &Door) -> anyhow::Result<Told> {
    let settings = door.settings(Some(path))?;
    let components = door.components(&settings)?;
    let parts = logs::parts(&components);
    let id = Log::create(path, &parts)?;
    let mut text = format!("{} is a log now\n", path.display());
    let mut json = json!({ "verb": "log", "log": path.display().to_string(), "id": id.to_string(), "volume": null });
    if let Some(mut carrier) = Carrier::of(path, &settings, &components)? {
        // Whatever goes wrong from here on, it is a log: `ship` makes its volume then.
        let log = Log::open(path, LogSync::default(), parts)?;
        let position = carrier.begin(&log.prefix()).await?;
        log.close()?;
        json["volume"] = json!(carrier.url());
        text = format!("{} is a log now, and {} its volume (epoch {})\n", path.display(), carrier.url(), position.epoch);
    }
    Ok(Told::done(json, text))
}

/// A place in a log.
enum Place {
    Lsn(Lsn),
    Time(u64),
}

fn place(moment: &Moment, now_ms: u64) -> anyhow::Result<Place> {
    match moment.as_of(now_ms) {
        At::Lsn(lsn) => Ok(Place::Lsn(lsn)),
        At::Time(ms) => Ok(Place::Time(ms)),
        other => {
            let message = format!("{other} is no place in a log");
            Err(Fault::usage(message, "say an LSN such as 42, a time such as 2026-11-20T17:34:02Z, or how long ago such as -5m").into())
        }
    }
}

fn stats_json(path: &Path, stats: &LogStats) -> Value {
    let segment = |segment: &SegmentStats| {
        json!({
            "first": segment.first.0,
            "records": segment.records,
            "bytes": segment.bytes,
            "file_bytes": segment.file_bytes,
            "sealed": segment.is_sealed,
            "since": segment.times_ms.map(|(since, _)| Utc(since).to_string()),
            "until": segment.times_ms.map(|(_, until)| Utc(until).to_string()),
        })
    };
    let sessions: serde_json::Map<String, Value> =
        stats.sessions.iter().map(|(name, serial)| (name.to_string(), json!(serial.get()))).collect();
    json!({
        "verb": "log",
        "log": path.display().to_string(),
        "id": stats.id.to_string(),
        "created": Utc(stats.created_ms).to_string(),
        "start": stats.start.0,
        "last": stats.last.0,
        "records": stats.records(),
        "void": stats.void,
        "bytes": stats.segments.iter().map(|segment| segment.bytes).sum::<u64>(),
        "segments": stats.segments.iter().map(segment).collect::<Vec<_>>(),
        "sessions": sessions,
        "appender": stats.appender.as_ref().map(|(holder, since)| format!("{holder}{since}")),
    })
}

fn stats_text(path: &Path, stats: &LogStats, keep: &Keep) -> String {
    let records = stats.records();
    let bytes: u64 = stats.segments.iter().map(|segment| segment.bytes).sum();
    let mut text = format!("{}: {}, {}", path.display(), words::some(records, "record"), words::bytes(bytes));
    if records > 0 {
        text.push_str(&format!(", LSN {} to {}", stats.start, stats.last));
    }
    if stats.void > 0 {
        text.push_str(&format!("; {} of these LSNs are void", words::count(stats.void)));
    }
    text.push('\n');
    match &stats.appender {
        Some((holder, since)) => text.push_str(&format!("{holder} appends{since}\n")),
        None => text.push_str("nobody appends\n"),
    }
    if !keep.is_all() {
        text.push_str(&format!("keeps {}\n", retain::as_text(keep)));
    }
    for (name, serial) in &stats.sessions {
        text.push_str(&format!("session {name} is at serial {serial}\n"));
    }
    let time = |ms: Option<u64>| ms.map_or_else(String::new, words::time);
    let row = |segment: &SegmentStats| {
        vec![
            segment.first.to_string(),
            words::count(segment.records),
            words::bytes(segment.bytes),
            if segment.is_sealed { "sealed" } else { "open" }.to_owned(),
            time(segment.times_ms.map(|(since, _)| since)),
            time(segment.times_ms.map(|(_, until)| until)),
        ]
    };
    let rows: Vec<Vec<String>> = stats.segments.iter().map(row).collect();
    text.push_str(&words::table(&["segment from", "records", "bytes", "", "earliest", "latest"], &rows));
    text
}
