//! Dying at named points.

use littoral_ports::{Crash, Faults};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every named point of the engine. A test keeps this list and the sources the same.
pub const POINTS: [&str; 24] = [
    "checkpoint.planned",
    "checkpoint.begun",
    "checkpoint.staged",
    "checkpoint.blob-uploaded",
    "checkpoint.uploaded",
    "checkpoint.cleaned",
    "coalesce.uploaded",
    "pin.put",
    "prune.planned",
    "prune.published",
    "prune.deleted",
    "publish.body",
    "publish.drafted",
    "publish.intended",
    "publish.landed",
    "publish.committed",
    "rebuild.reset",
    "rebuild.rows",
    "rebuild.identities",
    "restore.group",
    "restore.written",
    "snapshot.shards",
    "snapshot.stored",
    "snapshot.head",
];

/// Dies at one point at a time, where a test set it.
#[derive(Debug, Default)]
pub struct CrashAt {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    armed: Option<(String, u64)>,
    passed: BTreeMap<&'static str, u64>,
    died: BTreeMap<&'static str, u64>,
}

impl CrashAt {
    /// Dies when the point is reached after it was passed `passes` times more.
    pub fn arm(&self, point: &str, passes: u64) {
        self.state().armed = Some((point.to_owned(), passes));
    }

    /// Dies nowhere. True when a point was armed and never reached.
    pub fn disarm(&self) -> bool {
        self.state().armed.take().is_some()
    }

    /// How often each point was reached and survived.
    pub fn passed(&self) -> BTreeMap<&'static str, u64> {
        self.state().passed.clone()
    }

    /// How often it died, and where.
    pub fn died(&self) -> BTreeMap<&'static str, u64> {
        self.state().died.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Faults for CrashAt {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        let mut state = self.state();
        match &mut state.armed {
            Some((armed, 0)) if armed == point => {
                state.armed = None;
                *state.died.entry(point).or_default() += 1;
                Err(Crash(point))
            }
            armed => {
                if let Some((_, left)) = armed.as_mut().filter(|(armed, _)| armed == point) {
                    *left -= 1;
                }
                *state.passed.entry(point).or_default() += 1;
                Ok(())
            }
        }
    }
}
