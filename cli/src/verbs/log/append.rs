//! `littoral log append`: lines in, records there.

use super::ship;
use crate::bars::Bars;
use crate::door::Door;
use crate::exit::Fault;
use crate::screen::Told;
use crate::words;
use anyhow::Context;
use littoral_engine::EngineError;
use littoral_engine::logs::{self, Appender, Batch, Carrier, Log, LogError, LogSync};
use littoral_engine::settings::duration_ms;
use littoral_ports::Progress;
use littoral_ports::progress::Unit;
use littoral_types::limits::{LOG_PART_BYTES, LOG_RECORD_MAX};
use littoral_types::{Lsn, SessionName};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

/// What can be said to it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The log's folder
    path: PathBuf,
    /// Read this file instead of stdin
    file: Option<PathBuf>,
    /// Whose records they are: it goes on from its last serial
    #[arg(long, value_name = "NAME")]
    session: Option<SessionName>,
    /// When a record is durable: each before the next, after so long together with others, or at the end
    #[arg(long, value_name = "each|DURATION|none", value_parser = sync, default_value = "20ms")]
    sync: LogSync,
    /// What a line is: any bytes, or one JSON document, which is checked and stored as it is
    #[arg(long, value_name = "lines|json", default_value = "lines")]
    input: Input,
    /// Make the log where there is none
    #[arg(long)]
    create: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Input {
    Lines,
    Json,
}

fn sync(text: &str) -> Result<LogSync, String> {
    match text {
        "each" => Ok(LogSync::Each),
        "none" => Ok(LogSync::None),
        _ => duration_ms(text)
            .map(|ms| LogSync::Interval(Duration::from_millis(ms)))
            .ok_or_else(|| "say each, none, or a duration such as 20ms".to_owned()),
    }
}

/// Does it: reads and appends on a thread of its own, and ships beside it what is durable by then.
pub(super) async fn run(args: Args, door: &Door) -> anyhow::Result<Told> {
    let settings = door.settings(Some(&args.path))?;
    let components = door.components(&settings)?;
    let parts = logs::parts(&components);
    let log = match Log::open(&args.path, args.sync, parts.clone()) {
        Err(LogError::NoLog(_)) if args.create => {
            Log::create(&args.path, &parts)?;
            Log::open(&args.path, args.sync, parts)?
        }
        opened => opened?,
    };
    let cut_bytes = log.recovered().cut_bytes;
    if cut_bytes > 0 {
        door.screen.warn(&format!(
            "{}: an end that was torn was cut, {}: nothing in it had been acknowledged as durable",
            args.path.display(),
            words::bytes(cut_bytes)
        ));
    }
    let prefix = log.prefix();
    let mut carrier = Carrier::of(&args.path, &settings, &components)?;
    if let Some(carrier) = &mut carrier {
        // Before anything is appended it is known whether it may be.
        carrier.admit(&prefix).await?;
    }
    if carrier.is_none()
        && logs::table::columns(&args.path)?.is_none()
        && let Err(error) = log.retain()
    {
        door.screen.warn(&format!("{}: what it need not keep stays for now: {error}", args.path.display()));
    }
    let bars = door.screen.bars().map(|bars| Bars::new(bars.clone()));
    let (path, session) = (args.path.clone(), args.session.clone());
    let work = move || {
        let mut appended = Tally::default();
        let mut line = 0;
        let done = append_all(&log, &args, &mut line, &mut appended, bars.as_ref());
        (log, done, appended, line)
    };
    let ((log, done, appended, line), mut shipped) = match &mut carrier {
        Some(carrier) => {
            let (worked, shipped) = carrier.ship_while(&prefix, work).await?;
            (worked, Some(shipped))
        }
        None => (work(), None),
    };
    let synced = prefix.sync();
    let mut unshipped = None;
    if let (Some(carrier), Some(shipped), true) = (&mut carrier, &mut shipped, synced.is_ok()) {
        match carrier.ship(&prefix).await {
            Ok(last) => {
                shipped.records += last.records;
                shipped.bytes += last.bytes;
                shipped.sealed += last.sealed;
                shipped.position = last.position;
            }
            Err(error) => unshipped = Some(error),
        }
    }
    // What came before what went wrong is there, and said to be.
    let closed = log.close();
    let said = || format!("{} appended before it{}", words::some(appended.records, "record"), appended.range());
    if let Err(error) = done {
        let at = format!("line {line}: {error}; {}", said());
        return Err(error.context(at));
    }
    closed?;
    let mut json = json!({
        "verb": "log",
        "log": path.display().to_string(),
        "records": appended.records,
        "bytes": appended.bytes,
        "first": appended.first.map(|lsn| lsn.0),
        "last": appended.last.map(|lsn| lsn.0),
        "serial": session.as_ref().map(|_| appended.serial),
        "cut_bytes": cut_bytes,
        "shipped": null,
        "waits": null,
    });
    let records = words::some(appended.records, "record");
    let mut text = format!("{records} appended, {}{}\n", words::bytes(appended.bytes), appended.range());
    match (&carrier, &shipped, unshipped) {
        (Some(_), _, Some(error)) if is_lasting(&error) => {
            let at = format!("{error}; {}", said());
            return Err(anyhow::Error::from(error).context(at));
        }
        (Some(carrier), _, Some(error)) => {
            json["waits"] = json!(error.to_string());
            door.screen.warn(&format!(
                "{}: what was appended is durable here, and not at {} yet: {error}. The next append, or littoral log ship, brings it there",
                path.display(),
                carrier.url()
            ));
        }
        (Some(carrier), Some(shipped), None) => {
            json["shipped"] = ship::shipped_json(carrier, shipped);
            text.push_str(&format!("{}\n", ship::shipped_text(carrier, shipped)));
        }
        _ => {}
    }
    Ok(Told::done(json, text))
}

/// Whether waiting does not help: somebody else appends to the volume, or it is another's.
fn is_lasting(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::Log(_)
            | EngineError::Superseded { .. }
            | EngineError::Diverged { .. }
            | EngineError::NotBound { .. }
            | EngineError::WrongTakeover { .. }
            | EngineError::RemoteBehind { .. }
            | EngineError::OtherKind { .. }
            | EngineError::NotAVolume { .. }
            | EngineError::Settings(_)
            | EngineError::Refused(_)
            | EngineError::Crash(_)
    ) || error.is_damage()
}

#[derive(Debug, Default)]
struct Tally {
    records: u64,
    bytes: u64,
    first: Option<Lsn>,
    last: Option<Lsn>,
    serial: u64,
}

impl Tally {
    /// Appends what was gathered, all of it or nothing.
    fn take(&mut self, appender: &mut Appender, gathered: &mut Batch) -> Result<(), LogError> {
        let records = 0..gathered.len();
        let Some(done) = appender.append_part(gathered, records.clone())? else { return Ok(()) };
        self.records += records.len() as u64;
        self.bytes += records.clone().filter_map(|nth| gathered.record(nth)).map(|body| body.len() as u64).sum::<u64>();
        self.first.get_or_insert(Lsn(done.lsn.0 + 1 - records.len() as u64));
        (self.last, self.serial) = (Some(done.lsn), done.serial.get());
        Ok(())
    }

    fn range(&self) -> String {
        match (self.first, self.last) {
            (Some(first), Some(last)) => format!(", LSN {first} to {last}"),
            _ => String::new(),
        }
    }
}

fn append_all(
    log: &Log,
    args: &Args,
    number: &mut u64,
    appended: &mut Tally,
    bars: Option<&Bars>,
) -> anyhow::Result<()> {
    if let Some(bars) = bars {
        bars.phase("appending", 0, Unit::Objects);
    }
    let input: Box<dyn Read> = match &args.file {
        Some(file) => {
            Box::new(File::open(file).with_context(|| format!("{}: cannot be read", file.display()))?)
        }
        None => Box::new(io::stdin().lock()),
    };
    let mut lines = Lines { input: BufReader::with_capacity(1 << 20, input), line: Vec::new(), number };
    let mut appender = log.appender(args.session.clone())?;
    appended.serial = appender.serial().get();
    let mut gathered = Batch::default();
    loop {
        let read = gather(&mut lines, args.input, &mut gathered);
        // What came together is appended together; nobody waits here for a line that has not come yet.
        let is_due = args.sync == LogSync::Each || gathered.bytes() >= LOG_PART_BYTES || !lines.is_one_there();
        if is_due || !matches!(read, Ok(true)) {
            appended.take(&mut appender, &mut gathered)?;
            if let Some(bars) = bars {
                bars.advance(gathered.len() as u64);
            }
            gathered.clear();
        }
        if !read? {
            return Ok(());
        }
    }
}

/// Takes a line, as a record. False where there is none any more.
fn gather(lines: &mut Lines<'_>, input: Input, into: &mut Batch) -> anyhow::Result<bool> {
    let Some(line) = lines.next()? else { return Ok(false) };
    if input == Input::Json
        && let Err(error) = serde_json::from_slice::<Value>(line)
    {
        let message = format!("not a JSON document: {error}");
        return Err(Fault::usage(message, "give one document in each line, or leave --input json out").into());
    }
    into.push(line).map_err(|_| LogError::TooLarge { len: line.len(), max: LOG_RECORD_MAX })?;
    Ok(true)
}

/// Lines without their ends, none longer than a record.
struct Lines<'a> {
    input: BufReader<Box<dyn Read>>,
    line: Vec<u8>,
    number: &'a mut u64,
}

impl Lines<'_> {
    /// Whether the next line is there already, to its end.
    fn is_one_there(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }

    fn next(&mut self) -> anyhow::Result<Option<&[u8]>> {
        self.line.clear();
        *self.number += 1;
        let most = LOG_RECORD_MAX as u64 + 1;
        let read = Read::take(&mut self.input, most).read_until(b'\n', &mut self.line).context("cannot read the input")?;
        if read == 0 {
            return Ok(None);
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > LOG_RECORD_MAX {
            return Err(LogError::TooLarge { len: self.line.len(), max: LOG_RECORD_MAX }.into());
        }
        Ok(Some(&self.line))
    }
}
