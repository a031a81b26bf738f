//! Time, chance, failure, room and progress: what the engine asks for instead of asking the machine.

use async_trait::async_trait;
use littoral_ports::{Clock, Entropy, Faults, NoFaults, Progress, Quota, Silent, Spending, Uncounted};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a simulator replaces and production takes from the machine.
#[derive(Clone, Debug)]
pub struct Components {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Where a test makes the process die.
    pub faults: Arc<dyn Faults>,
    /// Local room.
    pub quota: Arc<dyn Quota>,
    /// Who is told how far long work has come.
    pub progress: Arc<dyn Progress>,
    /// Who pays for work here, and at what pace.
    pub account: Arc<dyn Spending>,
}

impl Components {
    /// The machine's own, with local room bounded by `quota`.
    pub fn of_this_machine(quota: Arc<dyn Quota>) -> Self {
        Self {
            clock: Arc::new(MachineClock),
            entropy: Arc::new(MachineEntropy),
            faults: Arc::new(NoFaults),
            quota,
            progress: Arc::new(Silent),
            account: Arc::new(Uncounted),
        }
    }

    /// The same for work that somebody pays for.
    pub fn charged_to(&self, account: Arc<dyn Spending>) -> Self {
        Self { account, ..self.clone() }
    }

    /// Sixteen random bytes.
    pub(crate) fn bits<const N: usize>(&self) -> [u8; N] {
        let mut bits = [0; N];
        self.entropy.fill(&mut bits);
        bits
    }
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineClock;

#[async_trait]
impl Clock for MachineClock {
    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn boot_ms(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1000)
            + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
    }

    async fn sleep_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// The machine's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineEntropy;

impl Entropy for MachineEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        // The system call fails only where there is none; volume ids and identity keys must not be guessable, so that
        // going on without it is not an option.
        #[allow(clippy::expect_used, reason = "no randomness means no safe identity")]
        getrandom::fill(bytes).expect("the operating system gives no randomness");
    }
}
