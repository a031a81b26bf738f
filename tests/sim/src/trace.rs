//! What happened, line by line: the same seed writes the same lines.

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// A run's trace. Lines are dated by simulated milliseconds.
#[derive(Debug)]
pub struct Trace {
    start: Instant,
    text: Mutex<String>,
    loud: bool,
}

impl Trace {
    /// An empty one; `loud` shows it as it grows.
    pub fn new(start: Instant, loud: bool) -> Self {
        Self { start, text: Mutex::default(), loud }
    }

    /// One more line. Only within the runtime.
    pub fn line(&self, who: &str, what: std::fmt::Arguments<'_>) {
        let now = self.start.elapsed().as_millis();
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let from = text.len();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{now:>12} {who:<6} {what}");
        if self.loud {
            eprint!("{}", &text[from..]);
        }
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
