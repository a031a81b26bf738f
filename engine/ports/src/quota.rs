//! Local bytes are asked for before they are written (invariant I7).

use std::fmt;
use std::sync::Arc;

/// No room. The caller waits, or tells its user the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("local quota exhausted: {asked} bytes asked for {what}, {used} of {limit} in use")]
pub struct QuotaExhausted {
    /// For what.
    pub what: String,
    /// How many.
    pub asked: u64,
    /// In use already.
    pub used: u64,
    /// The bound.
    pub limit: u64,
}

/// Counts local bytes against a bound.
pub trait Quota: Send + Sync + fmt::Debug {
    /// Takes so many bytes, all or none, whatever others do meanwhile.
    fn reserve(&self, what: &str, bytes: u64) -> Result<Reservation, QuotaExhausted>;

    /// Bytes in use.
    fn used(&self) -> u64;
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
