//! Time and chance, so that a simulator can replace both.

use async_trait::async_trait;
use std::fmt;

/// Time.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall clock, milliseconds since 1970. May jump; for people and for expiry with hours to spare.
    fn wall_ms(&self) -> u64;

    /// Never goes back, and counts the time the machine slept (rule P5).
    fn boot_ms(&self) -> u64;

    /// Returns after so many milliseconds of [`Clock::boot_ms`].
    async fn sleep_ms(&self, ms: u64);
}

/// Chance.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills the bytes with bits that nobody can guess (in a simulation: that the seed decides).
    fn fill(&self, bytes: &mut [u8]);

    /// A number below `bound`, or zero when `bound` is.
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes).checked_rem(bound).unwrap_or(0)
    }
}
