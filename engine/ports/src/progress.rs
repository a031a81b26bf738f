//! How far long work has come.

use std::fmt;

/// Told as work goes on; shown on a terminal, written to a job's row, or nothing.
pub trait Progress: Send + Sync + fmt::Debug {
    /// A phase begins: `total` of `unit` lie ahead (zero when nobody knows).
    fn phase(&self, name: &'static str, total: u64, unit: Unit);

    /// So many more are done.
    fn advance(&self, by: u64);

    /// One blob is done: its name, its bytes.
    fn blob(&self, name: &str, bytes: u64);

    /// Something a person should read.
    fn note(&self, text: &str);
}

/// What a phase counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Pages.
    Pages,
    /// Objects.
    Objects,
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _: &'static str, _: u64, _: Unit) {}
    fn advance(&self, _: u64) {}
    fn blob(&self, _: &str, _: u64) {}
    fn note(&self, _: &str) {}
}
