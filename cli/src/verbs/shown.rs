//! What several verbs show the same way.

use crate::door::Door;
use crate::words;
use littoral_engine::open::{self, Counting, Place, Totals};
use littoral_engine::settings::Settings;
use littoral_engine::{Components, Session, open_for_writing};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Counts what each step of a command cost.
pub(super) struct Meter {
    remote: Arc<Counting>,
    last: Totals,
}

impl Meter {
    pub(super) fn new(remote: Arc<Counting>) -> Self {
        Self { last: remote.totals(), remote }
    }

    /// What came since the last look.
    pub(super) fn step(&mut self) -> Totals {
        let now = self.remote.totals();
        let step = now.since(&self.last);
        self.last = now;
        step
    }

    /// Everything so far.
    pub(super) fn all(&self) -> Totals {
        self.remote.totals()
    }
}

/// A moment for machines.
pub(super) fn moment(ms: u64) -> Value {
    json!({ "ms": ms, "utc": words::time(ms) })
}

/// A database's volume, opened for writing.
pub(super) async fn session(door: &Door, file: &Path) -> anyhow::Result<(Place, Settings, Components, Session, Meter)> {
    let settings = door.settings(Some(file))?;
    let place = Place::of_database(file, &settings)?;
    let components = door.components(&settings)?;
    let (stores, remote) = open::stores(&place, &settings, &components)?;
    let meter = Meter::new(remote);
    let session = Box::pin(open_for_writing(&stores, &components, &place.target(&settings)?)).await?;
    Ok((place, settings, components, session, meter))
}
