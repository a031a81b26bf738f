//! Time that passes only when everybody waits.

use async_trait::async_trait;
use littoral_ports::Clock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Where the simulated calendar begins: 2026-01-01.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// A day.
pub const DAY_MS: u64 = 24 * 3600 * 1000;

/// One machine's clocks over the runtime's paused time. Only to be asked within the runtime.
#[derive(Debug)]
pub struct SimClock {
    start: Instant,
    /// How far the wall clock is off.
    skew_ms: AtomicI64,
}

impl SimClock {
    /// A clock that is right.
    pub fn new(start: Instant) -> Self {
        Self { start, skew_ms: AtomicI64::new(0) }
    }

    /// Somebody sets the wall clock.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }
}

#[async_trait]
impl Clock for SimClock {
    fn wall_ms(&self) -> u64 {
        (EPOCH_MS + self.boot_ms()).saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))
    }

    fn boot_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn sleep_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
