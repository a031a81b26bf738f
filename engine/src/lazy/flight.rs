//! What many want at once is fetched once.

use crate::error::EngineError;
use futures::future::{BoxFuture, FutureExt, Shared, WeakShared};
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// An error that several readers met together.
pub type Failure = Arc<EngineError>;

/// What is on its way.
pub(super) type Flight<T> = Shared<BoxFuture<'static, Result<Arc<T>, Failure>>>;

type Weak<T> = WeakShared<BoxFuture<'static, Result<Arc<T>, Failure>>>;

/// Flights are swept out when there are so many more than at the last sweep.
const SWEEP: usize = 64;

/// Flights by what they bring; one flight may bring many things. Whoever waits for one drives it, so that none hangs because its
/// first reader went away, and one that nobody waits for ends.
pub(super) struct Flights<K, T> {
    table: Mutex<Table<K, T>>,
}

struct Table<K, T> {
    flights: HashMap<K, Weak<T>>,
    sweep_at: usize,
}

impl<K, T> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights(..)")
    }
}

impl<K: Eq + Hash + Clone, T> Flights<K, T> {
    pub(super) fn new() -> Self {
        Self { table: Mutex::new(Table { flights: HashMap::new(), sweep_at: SWEEP }) }
    }

    /// For each of these: the flight that brings it. Those that nothing brings yet are handed to `launch`, which says what
    /// flies together.
    pub(super) fn join(
        &self,
        wanted: Vec<K>,
        launch: impl FnOnce(Vec<K>) -> Vec<(Vec<K>, BoxFuture<'static, Result<Arc<T>, Failure>>)>,
    ) -> Vec<Flight<T>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.flights.len() >= table.sweep_at {
            table.flights.retain(|_, flight| flight.upgrade().is_some());
            table.sweep_at = table.flights.len() * 2 + SWEEP;
        }
        let mut joined: Vec<Flight<T>> = Vec::new();
        let mut missing = Vec::new();
        for key in wanted {
            match table.flights.get(&key).and_then(WeakShared::upgrade) {
                // One that failed is no help to whoever comes later.
                Some(flight) if !matches!(flight.peek(), Some(Err(_))) => {
                    if !joined.iter().any(|known| known.ptr_eq(&flight)) {
                        joined.push(flight);
                    }
                }
                _ => missing.push(key),
            }
        }
        if !missing.is_empty() {
            for (keys, flight) in launch(missing) {
                let flight = flight.shared();
                if let Some(weak) = flight.downgrade() {
                    table.flights.extend(keys.into_iter().map(|key| (key, weak.clone())));
                }
                joined.push(flight);
            }
        }
        joined
    }
}
