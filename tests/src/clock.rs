//! Time that passes when the test says so.

use async_trait::async_trait;
use littoral_ports::Clock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A clock that stands still between tests' steps; sleeping moves it.
#[derive(Debug)]
pub struct TestClock(AtomicU64);

impl TestClock {
    /// Some time in 2026.
    pub const fn new() -> Self {
        Self(AtomicU64::new(1_790_000_000_000))
    }

    /// So much time passes.
    pub fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for TestClock {
    fn wall_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn boot_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    async fn sleep_ms(&self, ms: u64) {
        self.advance_ms(ms);
        tokio::task::yield_now().await;
    }
}
