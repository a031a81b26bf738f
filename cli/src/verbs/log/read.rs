//! `littoral log read` and `tail`: records out, as lines, JSON or CSV.

use super::{Place, parts, place};
use crate::door::{Door, Target};
use crate::exit::Fault;
use crate::screen::Told;
use crate::sqlite::hex;
use crate::words;
use littoral_engine::EngineError;
use littoral_engine::logs::schema::Schema;
use littoral_engine::logs::table::{ROW_LEADS, columns, decode_row, of_row};
use littoral_engine::logs::{LogError, Range, Reader, Record, RemoteReader, Tail, newest, stats, voids};
use littoral_engine::open::Counting;
use littoral_ports::Clock;
use littoral_types::moment::Utc;
use littoral_types::{LogCell, Moment};
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often a tail that sees nothing looks whether its reader is still there.
const LOOK: Duration = Duration::from_secs(3600);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The log's folder, or its volume's URL
    #[arg(value_name = "PATH|URL")]
    path: OsString,
    #[command(flatten)]
    shown: Shown,
    /// No record after this one, or newer than this
    #[arg(long, value_name = "LSN|TIME|-AGO", allow_hyphen_values = true)]
    to: Option<Moment>,
    /// So many records at most
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct TailArgs {
    /// The log's folder, or its volume's URL
    #[arg(value_name = "PATH|URL")]
    path: OsString,
    #[command(flatten)]
    shown: Shown,
    /// Begin with the last so many records, where --from does not say otherwise
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 10)]
    lines: u64,
    /// End after so many records
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct Shown {
    /// No record before this one, or older than this: an LSN, a time, or how long ago (-5m)
    #[arg(long, value_name = "LSN|TIME|-AGO", allow_hyphen_values = true)]
    from: Option<Moment>,
    /// How records are printed: their bytes alone, a JSON document in each line, or CSV with a header [default: text]
    #[arg(long, value_name = "text|json|csv")]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
    Csv,
}

impl Shown {
    fn format(&self, door: &Door) -> Format {
        let default = if door.screen.is_json() { Format::Json } else { Format::Text };
        self.format.unwrap_or(default)
    }

    fn range(&self, to: Option<&Moment>, now_ms: u64) -> anyhow::Result<Range> {
        let mut range = Range::ALL;
        match self.from.as_ref().map(|from| place(from, now_ms)).transpose()? {
            Some(Place::Lsn(lsn)) => range.from = lsn,
            Some(Place::Time(ms)) => range.since_ms = ms,
            None => {}
        }
        match to.map(|to| place(to, now_ms)).transpose()? {
            Some(Place::Lsn(lsn)) => range.to = lsn,
            Some(Place::Time(ms)) => range.until_ms = ms,
            None => {}
        }
        Ok(range)
    }
}

/// Prints what there is.
pub(super) async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    if let Target::Url(url) = Target::read(&args.path) {
        let Volume { log, clock, meter, .. } = volume(&args.path, door)?;
        let range = args.shown.range(args.to.as_ref(), clock.wall_ms())?;
        let mut reader = RemoteReader::open(log, range).await?;
        let mut out = Out::new(args.shown.format(door), reader.columns())?;
        while args.limit.is_none_or(|limit| out.records < limit)
            && let Some(record) = reader.next_record().await?
            && out.record(&record)?
        {}
        out.flush()?;
        let mut told = told(&url, &out);
        told.json["cost"] = words::cost_json(&meter.totals());
        return Ok(told);
    }
    let path = PathBuf::from(&args.path);
    if door.settings(Some(&path))?.cold.value {
        let message = format!("{}: a log's folder, which is read where it is: there is nothing to be read past", path.display());
        let way_out = "leave --cold out, or give the URL of its volume (littoral status tells it)";
        return Err(Fault::usage(message, way_out).into());
    }
    let range = args.shown.range(args.to.as_ref(), parts(&path, door)?.clock.wall_ms())?;
    let mut reader = Reader::open(&path, range)?;
    let mut out = Out::new(args.shown.format(door), columns(&path)?.as_deref())?;
    while args.limit.is_none_or(|limit| out.records < limit)
        && let Some(record) = reader.next_record()?
        && out.record(&record)?
    {}
    out.flush()?;
    Ok(told(&path.display().to_string(), &out))
}

/// Prints what there is, and what comes.
pub(super) async fn tail(args: TailArgs, door: &Door) -> anyhow::Result<Told> {
    if let Target::Url(url) = Target::read(&args.path) {
        return follow(&url, &args, door).await;
    }
    let path = PathBuf::from(&args.path);
    let mut range = args.shown.range(None, parts(&path, door)?.clock.wall_ms())?;
    if args.shown.from.is_none() {
        let found = stats(&path)?;
        range.from = newest(&voids(&path)?, (found.start, found.last), args.lines);
    }
    let mut tail = open_tail(&path, range, args.shown.from.is_none())?;
    let mut out = Out::new(args.shown.format(door), columns(&path)?.as_deref())?;
    while args.limit.is_none_or(|limit| out.records < limit) {
        // Whatever waits to be printed is, before this sleeps.
        let record = match tail.next(Duration::ZERO)? {
            Some(record) => Some(record),
            None if out.flush()? => tail.next(LOOK)?,
            None => break,
        };
        if let Some(record) = record
            && !out.record(&record)?
        {
            break;
        }
    }
    out.flush()?;
    Ok(told(&path.display().to_string(), &out))
}

/// The same of a log's volume: looks as often as `poll` says.
async fn follow(url: &str, args: &TailArgs, door: &Door) -> anyhow::Result<Told> {
    let Volume { log, clock, poll_ms, .. } = volume(&args.path, door)?;
    let mut range = args.shown.range(None, clock.wall_ms())?;
    if args.shown.from.is_none() {
        range.from = RemoteReader::newest(&log, args.lines).await?;
    }
    let mut reader = match RemoteReader::open(log.clone(), range).await {
        Err(EngineError::Log(
            LogError::Truncated { start: from, .. } | LogError::RolledBack { next: from, .. },
        )) if args.shown.from.is_none() => RemoteReader::open(log, Range { from, ..range }).await?,
        opened => opened?,
    };
    let mut out = Out::new(args.shown.format(door), reader.columns())?;
    while args.limit.is_none_or(|limit| out.records < limit) {
        match reader.next_record().await? {
            Some(record) => {
                if !out.record(&record)? {
                    break;
                }
            }
            None => {
                if !out.flush()? {
                    break;
                }
                if !reader.look().await? {
                    clock.sleep_ms(poll_ms).await;
                }
            }
        }
    }
    out.flush()?;
    Ok(told(url, &out))
}

/// A log's volume for who only reads.
struct Volume {
    log: littoral_engine::Log,
    meter: Arc<Counting>,
    clock: Arc<dyn Clock>,
    /// How often to look for news.
    poll_ms: u64,
}

fn volume(target: &OsStr, door: &Door) -> anyhow::Result<Volume> {
    let (place, settings) = door.place(target, None)?;
    let components = door.components(&settings)?;
    let (log, meter, _) = match settings.cold.value {
        true => place.log_for_scan(&settings, &components)?,
        false => place.log_or_copy(&settings, &components)?,
    };
    Ok(Volume { log, meter, clock: components.clock, poll_ms: settings.poll_ms.value })
}

/// Where the beginning was not asked for by number, one that was truncated or rolled back meanwhile is no mistake.
fn open_tail(path: &Path, range: Range, is_loose: bool) -> Result<Tail, LogError> {
    match Tail::open(path, range) {
        Err(LogError::Truncated { start: from, .. } | LogError::RolledBack { next: from, .. }) if is_loose => {
            Tail::open(path, Range { from, ..range })
        }
        opened => opened,
    }
}

fn told(log: &str, out: &Out) -> Told {
    Told::done(json!({ "verb": "log", "log": log, "records": out.records }), String::new())
}

/// Stdout, by the buffer. A reader that has gone (`| head`) ends the work, and is no error.
struct Out {
    out: io::BufWriter<io::Stdout>,
    format: Format,
    records: u64,
    is_open: bool,
    /// Of a table's log: what its rows are called.
    names: Option<Vec<String>>,
}

impl Out {
    fn new(format: Format, columns: Option<&[String]>) -> io::Result<Self> {
        let out = io::BufWriter::with_capacity(256 << 10, io::stdout());
        let schema = columns.and_then(|columns| Schema::parse(columns.iter().map(String::as_str)).ok());
        let names = schema.map(|schema| schema.columns.into_iter().map(|column| column.name).collect());
        let mut out = Self { out, format, records: 0, is_open: true, names };
        if format == Format::Csv {
            let names = out.names.clone().unwrap_or_else(|| vec!["body".to_owned()]);
            out.put(|out| {
                out.write_all(b"lsn,time,session,serial")?;
                for name in &names {
                    out.write_all(b",")?;
                    cell(name.as_bytes(), out)?;
                }
                out.write_all(b"\r\n")
            })?;
        }
        Ok(out)
    }

    /// The values of a table's row: its session, its serial, its columns.
    fn row(&self, record: &Record) -> Option<Vec<LogCell<Vec<u8>>>> {
        let names = self.names.as_ref()?;
        let mut cells = Vec::new();
        decode_row(&record.body, &mut cells).ok()?;
        let owned = |cell| match of_row(cell, &record.body) {
            LogCell::Null => LogCell::Null,
            LogCell::Integer(number) => LogCell::Integer(number),
            LogCell::Real(number) => LogCell::Real(number),
            LogCell::Text(text) => LogCell::Text(text.to_vec()),
            LogCell::Blob(blob) => LogCell::Blob(blob.to_vec()),
        };
        (cells.len() == names.len() + ROW_LEADS).then(|| cells.iter().map(owned).collect())
    }

    /// Whether somebody still reads.
    fn put(&mut self, write: impl FnOnce(&mut io::BufWriter<io::Stdout>) -> io::Result<()>) -> io::Result<bool> {
        match write(&mut self.out) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.is_open = false,
            done => done?,
        }
        Ok(self.is_open)
    }

    fn flush(&mut self) -> io::Result<bool> {
        if self.is_open { self.put(Write::flush) } else { Ok(false) }
    }

    fn record(&mut self, record: &Record) -> io::Result<bool> {
        self.records += 1;
        let format = self.format;
        if let (Some(row), Some(names)) = (self.row(record), self.names.clone()) {
            return self.put(|out| match format {
                Format::Text => {
                    let values: Vec<String> = row.iter().skip(ROW_LEADS).map(shown).collect();
                    writeln!(out, "{}", values.join("|"))
                }
                Format::Json => writeln!(out, "{}", json_of_row(record, &names, &row)),
                Format::Csv => csv_of_row(record, &row, out),
            });
        }
        self.put(|out| match format {
            Format::Text => out.write_all(&record.body).and_then(|()| out.write_all(b"\n")),
            Format::Json => writeln!(out, "{}", json_of(record)),
            Format::Csv => csv_of(record, out),
        })
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // Whatever ended the work is told; what is left here has no reader, or was flushed.
        let _ = self.flush();
    }
}

fn json_of(record: &Record) -> serde_json::Value {
    let session = record.session.as_ref().map(|name| name.as_str());
    let mut json = json!({ "lsn": record.lsn.0, "time": Utc(record.time_ms).to_string(), "time_ms": record.time_ms });
    if let (Some(session), Some(fields)) = (session, json.as_object_mut()) {
        fields.insert("session".to_owned(), json!(session));
        fields.insert("serial".to_owned(), json!(record.serial.get()));
    }
    match std::str::from_utf8(&record.body) {
        Ok(text) => json["body"] = json!(text),
        Err(_) => json["body_hex"] = json!(record.body.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
    json
}

/// A value as SQLite's own programs show it.
fn shown(cell: &LogCell<Vec<u8>>) -> String {
    match cell {
        LogCell::Null => String::new(),
        LogCell::Integer(number) => number.to_string(),
        LogCell::Real(number) => format!("{number:?}"),
        LogCell::Text(text) => String::from_utf8_lossy(text).into_owned(),
        LogCell::Blob(blob) => format!("x'{}'", hex(blob)),
    }
}

fn json_of_row(record: &Record, names: &[String], row: &[LogCell<Vec<u8>>]) -> serde_json::Value {
    let value = |cell: &LogCell<Vec<u8>>| match cell {
        LogCell::Null => serde_json::Value::Null,
        LogCell::Integer(number) => json!(number),
        LogCell::Real(number) => json!(number),
        LogCell::Text(_) | LogCell::Blob(_) => json!(shown(cell)),
    };
    let mut json = json!({ "lsn": record.lsn.0, "time": Utc(record.time_ms).to_string(), "time_ms": record.time_ms });
    for (name, cell) in ["session", "serial"].iter().zip(row).filter(|(_, cell)| **cell != LogCell::Null) {
        json[*name] = value(cell);
    }
    let columns = names.iter().cloned().zip(row.iter().skip(ROW_LEADS).map(value));
    json["row"] = columns.collect::<serde_json::Map<_, _>>().into();
    json
}

fn csv_of_row(record: &Record, row: &[LogCell<Vec<u8>>], out: &mut impl Write) -> io::Result<()> {
    write!(out, "{},{}", record.lsn, Utc(record.time_ms))?;
    for value in row {
        out.write_all(b",")?;
        cell(shown(value).as_bytes(), out)?;
    }
    out.write_all(b"\r\n")
}

/// RFC 4180; a body's bytes as they are.
fn csv_of(record: &Record, out: &mut impl Write) -> io::Result<()> {
    let serial = record.session.as_ref().map(|_| record.serial.to_string()).unwrap_or_default();
    write!(out, "{},{},", record.lsn, Utc(record.time_ms))?;
    cell(record.session.as_ref().map_or("", |name| name.as_str()).as_bytes(), out)?;
    write!(out, ",{serial},")?;
    cell(&record.body, out)?;
    out.write_all(b"\r\n")
}

fn cell(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    if !bytes.iter().any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n')) {
        return out.write_all(bytes);
    }
    out.write_all(b"\"")?;
    for (nth, part) in bytes.split(|byte| *byte == b'"').enumerate() {
        if nth > 0 {
            out.write_all(b"\"\"")?;
        }
        out.write_all(part)?;
    }
    out.write_all(b"\"")
}
