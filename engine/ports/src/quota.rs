//! Local bytes are asked for before they are written (invariant I7).

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// No room. The caller waits, or tells its user the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("local quota exhausted: {asked} bytes asked for {what}, {used} of {limit} in use{}", by(.holders))]
pub struct QuotaExhausted {
    /// For what.
    pub what: String,
    /// How many.
    pub asked: u64,
    /// In use already.
    pub used: u64,
    /// The bound.
    pub limit: u64,
    /// Who has what of it, the largest first, where that is known.
    pub holders: String,
}

fn by(holders: &str) -> String {
    if holders.is_empty() { String::new() } else { format!(": {holders}") }
}

/// Counts local bytes against a bound.
pub trait Quota: Send + Sync + fmt::Debug {
    /// Takes so many bytes, all or none, whatever others do meanwhile.
    fn reserve(&self, what: &str, bytes: u64) -> Result<Reservation, QuotaExhausted>;

    /// Bytes in use.
    fn used(&self) -> u64;

    /// The narrowest of the bounds. More can never be taken at once.
    fn limit(&self) -> u64;

    /// The same bound for what one store's processes take together. One that counts for itself alone stays what it is.
    fn of_store(&self, _root: &Path, _job: Job<'_>) -> Option<Arc<dyn Quota>> {
        None
    }

    /// What those had taken who have ended was removed from the disk.
    fn swept(&self) {}
}

/// For which work room is asked.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Whose: the database's file.
    pub database: &'a Path,
    /// Its own bound within those of the store and of its tenant.
    pub limit: Option<u64>,
}

/// Bytes taken; given back when dropped.
pub struct Reservation {
    bytes: u64,
    give_back: Option<Arc<dyn Fn(u64) + Send + Sync>>,
}

impl Reservation {
    /// A keeper's own: `give_back` is called once with `bytes`.
    pub fn new(bytes: u64, give_back: Arc<dyn Fn(u64) + Send + Sync>) -> Self {
        Self { bytes, give_back: Some(give_back) }
    }

    /// How many.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({})", self.bytes)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            give_back(self.bytes);
        }
    }
}
