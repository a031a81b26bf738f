//! What a command shows: one JSON document, or text; bars and warnings beside it.

use crate::exit::{Exit, Explained};
use crate::words;
use indicatif::MultiProgress;
use littoral_engine::telemetry;
use serde_json::{Map, Value, json};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// What a verb has to say.
#[derive(Debug)]
pub struct Told {
    /// For machines.
    pub json: Value,
    /// For people; ends with a newline, or is empty.
    pub text: String,
    /// How the command ends.
    pub exit: Exit,
}

impl Told {
    /// Done.
    pub fn done(json: Value, text: String) -> Self {
        Self { json, text, exit: Exit::Done }
    }
}

/// Where a command shows things.
#[derive(Clone, Debug)]
pub struct Screen {
    json: bool,
    quiet: bool,
    bars: Option<MultiProgress>,
    warnings: Arc<Mutex<Vec<String>>>,
    /// There is no end at which warnings could be shown.
    is_endless: bool,
}

impl Screen {
    /// A screen as the command line asked for it. Bars are for terminals.
    pub fn new(json: bool, quiet: bool) -> Self {
        let bars = (!json && !quiet && io::stderr().is_terminal()).then(MultiProgress::new);
        Self { json, quiet, bars, warnings: Arc::default(), is_endless: false }
    }

    /// Whether a machine reads.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Where bars are drawn, where they are.
    pub const fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// The same for a command that goes on until it is told to stop: it shows a line for each event, and warnings as they come.
    pub fn endless(self) -> Self {
        Self { is_endless: true, bars: None, ..self }
    }

    /// Sends the engine's log here: below the bars, or into the document. What a command tells by itself is not told twice.
    pub fn listen(&self, verbose: u8, tells_itself: bool, format: LogFormat) {
        let is_json = format == LogFormat::Json;
        let default = match verbose {
            0 if tells_itself && is_json => "warn,littoral_vfs::shipper=error,littoral::event=info",
            0 if tells_itself => "warn,littoral_vfs::shipper=error",
            0 if is_json => "warn,littoral::event=info",
            0 => "warn",
            1 => "info,hyper=warn",
            _ => "debug,hyper=info,reqwest=info",
        };
        let filter = EnvFilter::try_from_env("LITTORAL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
        let layer = tracing_subscriber::fmt().with_env_filter(filter);
        // A second listener in one process (a test's) keeps the first.
        let _ = match format {
            LogFormat::Text => {
                let lines = Lines { screen: self.clone(), is_json };
                layer.with_writer(lines).with_target(false).with_ansi(false).without_time().try_init()
            }
            LogFormat::Json => {
                layer.with_writer(Lines { screen: self.clone(), is_json }).event_format(JsonLines).try_init()
            }
        };
    }

    /// Something odd that a person should read, and that changes nothing about how the command ends.
    pub fn warn(&self, text: &str) {
        self.line(text);
    }

    /// A line of a story told while it happens.
    pub fn say(&self, text: &str) {
        if !self.json && !self.quiet {
            self.suspended(|| print(&format!("{text}\n")));
        }
    }

    /// Something that happened, as a line.
    pub fn event(&self, json: &Value, text: &str) {
        if self.json {
            print(&format!("{json}\n"));
        } else {
            self.say(text);
        }
    }

    fn suspended(&self, work: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.suspend(work),
            None => work(),
        }
    }

    fn line(&self, text: &str) {
        if self.json && !self.is_endless {
            self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
        } else {
            self.suspended(|| {
                let _ = writeln!(io::stderr().lock(), "{text}");
            });
        }
    }

    fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows what a verb said, as the last thing.
    pub fn show(&self, told: Told) -> Exit {
        if self.json {
            let mut json = told.json;
            if let Value::Object(fields) = &mut json {
                fields.insert("exit".to_owned(), json!(told.exit.word()));
                fields.insert("warnings".to_owned(), json!(self.warnings()));
            }
            print(&if self.is_endless { format!("{json}\n") } else { format!("{json:#}\n") });
        } else if !self.quiet || told.exit != Exit::Done {
            print(&told.text);
        }
        told.exit
    }

    /// Shows an error, as the last thing.
    pub fn fail(&self, error: &Explained) -> Exit {
        let mut stderr = io::stderr().lock();
        // Nobody is left to be told when stderr is gone.
        let _ = if self.json {
            let json = json!({
                "error": error.cause,
                "way_out": error.way_out,
                "exit": error.exit.word(),
                "code": error.exit as u8,
                "warnings": self.warnings(),
            });
            writeln!(stderr, "{json:#}")
        } else {
            writeln!(stderr, "error: {}", error.cause).and_then(|()| match &error.way_out {
                Some(way_out) => writeln!(stderr, "way out: {way_out}"),
                None => Ok(()),
            })
        };
        error.exit
    }
}

/// Prints to stdout. A reader that has gone (`| head`) ends nothing early: the work is done by now.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A document in each line.
    Json,
}

/// Writers for the engine's log: each event is one line.
struct Lines {
    screen: Screen,
    is_json: bool,
}

struct Line<'a> {
    screen: &'a Screen,
    is_json: bool,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { screen: &self.screen, is_json: self.is_json, bytes: Vec::new() }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.bytes);
        let text = text.trim();
        match self.is_json {
            _ if text.is_empty() => {}
            // The log is a stream of its own, whatever else is shown.
            true => self.screen.suspended(|| {
                let _ = writeln!(io::stderr().lock(), "{text}");
            }),
            false => self.screen.line(text),
        }
    }
}

/// Each event as a JSON document in a line: `time_ms`, `time`, `level`, `target`, `message`, and its fields below `fields`; `event` where
/// it is one of those that are documented.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.0.remove("message").unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let meta = event.metadata();
        let mut line = json!({
            "time_ms": now,
            "time": words::time(now),
            "level": meta.level().as_str(),
            "target": meta.target(),
            "message": message,
            "fields": fields.0,
        });
        if meta.target() == telemetry::TARGET {
            line["event"] = line["message"].clone();
        }
        writeln!(writer, "{line}")
    }
}

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), json!(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), json!(value));
    }
}
