//! Which phase a checkpoint is in, for how long it was in each, and whom it waited for.
//!
//! What this room promises:
//! 1. A phase is entered when its work begins, and its end is noted when the next one's does: [`littoral_plan::phase`] says which may follow.
//! 2. Whoever keeps a checkpoint waiting is waited for up to a bound, and is named when that is reached. Nobody is kept from anything
//!    meanwhile, and nothing is published then.

use crate::components::Components;
use crate::error::EngineError;
use crate::telemetry;
use littoral_plan::phase::Phase;
use littoral_ports::{Clock, Spending};
use littoral_types::limits::CHECKPOINT_WAIT_MS;
use std::sync::Arc;

/// How often it is tried again what somebody's lock keeps from being read.
const PAUSE_MS: u64 = 50;

/// A phase that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Which.
    pub phase: Phase,
    /// How long it took.
    pub took_ms: u64,
    /// Whom it waited for, where it did.
    pub waited_for: Option<String>,
}

/// A checkpoint's way through its phases.
#[derive(Debug)]
pub struct Phases {
    clock: Arc<dyn Clock>,
    account: Arc<dyn Spending>,
    volume: String,
    now: Phase,
    since_ms: u64,
    waited_for: Option<String>,
    wait_ms: u64,
    /// How often anybody was waited for.
    waits: u64,
    passed: Vec<Passed>,
}

impl Phases {
    /// At rest. So long anybody is waited for in one phase; 30 seconds where nobody says otherwise.
    pub fn new(components: &Components, volume: String, wait_ms: Option<u64>) -> Self {
        let (clock, account) = (components.clock.clone(), components.account.clone());
        let since_ms = clock.boot_ms();
        let wait_ms = wait_ms.unwrap_or(CHECKPOINT_WAIT_MS);
        Self {
            clock,
            account,
            volume,
            now: Phase::Rest,
            since_ms,
            waited_for: None,
            wait_ms,
            waits: 0,
            passed: Vec::new(),
        }
    }

    /// The next phase begins, if it is another one, and may follow.
    pub(crate) fn enter(&mut self, next: Phase) {
        if next == self.now || !self.now.leads_to(next) {
            return;
        }
        let now_ms = self.clock.boot_ms();
        let took_ms = now_ms.saturating_sub(self.since_ms);
        let waited_for = self.waited_for.take();
        tracing::debug!(volume = %self.volume, from = %self.now, to = %next, took_ms, "checkpoint.phase");
        if self.now != Phase::Rest {
            self.passed.push(Passed { phase: self.now, took_ms, waited_for });
        }
        (self.now, self.since_ms) = (next, now_ms);
    }

    /// Somebody keeps this phase waiting: it may be tried again in a moment, as long as there is patience.
    pub(crate) async fn wait(&mut self, who: String) -> Result<(), EngineError> {
        let waited_ms = self.clock.boot_ms().saturating_sub(self.since_ms);
        if waited_ms >= self.wait_ms {
            let phase = self.now;
            self.enter(Phase::Rest);
            return Err(EngineError::Waited { volume: self.volume.clone(), phase, waited_ms, who });
        }
        // Told once in a phase: who is waited for is looked at again and again.
        if self.waited_for.is_none() {
            telemetry::checkpoint_waited(&*self.account, &self.volume, self.now.word(), &who);
        }
        (self.waited_for, self.waits) = (Some(who), self.waits + 1);
        self.clock.sleep_ms(PAUSE_MS.min(self.wait_ms - waited_ms)).await;
        Ok(())
    }

    /// How often anybody was waited for.
    pub(crate) fn waits(&self) -> u64 {
        self.waits
    }

    /// Who was waited for last in this phase.
    pub(crate) fn waits_for(&self) -> Option<&str> {
        self.waited_for.as_deref()
    }

    /// It is over: all phases that it went through, in their order.
    pub(crate) fn rest(&mut self) -> Vec<Passed> {
        self.enter(Phase::Rest);
        std::mem::take(&mut self.passed)
    }
}
