//! Progress as bars below each other's place: one at a time, gone when its phase is over.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use littoral_ports::{Progress, Unit};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A bar for the phase that runs.
#[derive(Debug)]
pub struct Bars {
    place: MultiProgress,
    current: Mutex<Option<ProgressBar>>,
}

impl Bars {
    /// Bars drawn here.
    pub fn new(place: MultiProgress) -> Self {
        Self { place, current: Mutex::new(None) }
    }

    fn current(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn style(total: u64, unit: Unit) -> ProgressStyle {
    let template = match (total, unit) {
        (0, _) => "{msg:>10} {spinner} {elapsed}",
        (_, Unit::Bytes) => {
            "{msg:>10} [{bar:30}] {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left"
        }
        (_, Unit::Pages | Unit::Objects) => "{msg:>10} [{bar:30}] {human_pos} of {human_len}, {eta} left",
    };
    // A template that does not parse would be a bug in the line above; a plain bar is shown then.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

impl Progress for Bars {
    fn phase(&self, name: &'static str, total: u64, unit: Unit) {
        let mut current = self.current();
        if let Some(old) = current.take() {
            old.finish_and_clear();
        }
        let bar = self.place.add(ProgressBar::new(total).with_style(style(total, unit)).with_message(name));
        bar.enable_steady_tick(Duration::from_millis(200));
        *current = Some(bar);
    }

    fn advance(&self, by: u64) {
        if let Some(bar) = &*self.current() {
            let done = bar.position().saturating_add(by);
            // Totals are estimates where bytes are compressed on the way.
            if bar.length().is_some_and(|total| 0 < total && total < done) {
                bar.set_length(done);
            }
            bar.set_position(done);
        }
    }

    fn blob(&self, _: &str, _: u64) {}

    fn note(&self, text: &str) {
        // A terminal that cannot be written to is not worth failing for.
        let _ = self.place.println(text);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some(bar) = self.current().take() {
            bar.finish_and_clear();
        }
    }
}
