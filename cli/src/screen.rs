//! What a command shows: one JSON document, or text; bars and warnings beside it.

use crate::exit::{Exit, Explained};
use indicatif::MultiProgress;
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

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
}

impl Screen {
    /// A screen as the command line asked for it. Bars are for terminals.
    pub fn new(json: bool, quiet: bool) -> Self {
        let bars = (!json && !quiet && io::stderr().is_terminal()).then(MultiProgress::new);
        Self { json, quiet, bars, warnings: Arc::default() }
    }

    /// Whether a machine reads.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Where bars are drawn, where they are.
    pub const fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// Sends the engine's warnings here: below the bars, or into the document.
    pub fn listen(&self, verbose: u8) {
        let default = match verbose {
            0 => "warn",
            1 => "info,hyper=warn",
            _ => "debug,hyper=info,reqwest=info",
        };
        let filter = EnvFilter::try_from_env("LITTORAL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
        let layer = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines(self.clone()));
        let layer = layer.with_target(false).with_ansi(false).without_time();
        // A second listener in one process (a test's) keeps the first.
        let _ = layer.try_init();
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

    fn suspended(&self, work: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.suspend(work),
            None => work(),
        }
    }

    fn line(&self, text: &str) {
        if self.json {
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
            print(&format!("{json:#}\n"));
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

/// Writers for the engine's warnings: each event is one line.
struct Lines(Screen);

struct Line<'a> {
    screen: &'a Screen,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { screen: &self.0, bytes: Vec::new() }
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
        if !text.trim().is_empty() {
            self.screen.line(text.trim());
        }
    }
}
