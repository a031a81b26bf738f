//! How all databases that are served stand, looked at once for all who ask at about the same time.

use crate::door::Door;
use littoral_engine::facts::{Facts, Looker, StoreFacts, of_store};
use littoral_engine::open::Place;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Whoever asks within this time after somebody else is told the same.
const FRESH: Duration = Duration::from_millis(500);

/// Which databases there are just now: a worker's come and go.
pub type Paths = Box<dyn Fn() -> BTreeSet<PathBuf> + Send + Sync>;

/// The databases that are served.
pub struct Watched {
    paths: Paths,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looker: Looker,
    latest: Option<(Instant, Arc<Look>)>,
}

/// What was seen.
#[derive(Debug)]
pub struct Look {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// Each database, or why it cannot be told.
    pub databases: BTreeMap<PathBuf, Result<Facts, String>>,
    /// Each of their stores.
    pub stores: BTreeMap<PathBuf, Result<StoreFacts, String>>,
}

impl Watched {
    /// Those that `paths` gives.
    pub fn new(paths: Paths) -> Self {
        Self { paths, state: Mutex::default() }
    }

    /// Their files.
    pub fn paths(&self) -> BTreeSet<PathBuf> {
        (self.paths)()
    }

    /// Looks, unless somebody just did.
    pub fn look(&self, door: &Door) -> Arc<Look> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, look)) = state.latest.as_ref().filter(|(when, _)| when.elapsed() < FRESH) {
            return look.clone();
        }
        let look = Arc::new(looked(&mut state.looker, door, &self.paths()));
        state.latest = Some((Instant::now(), look.clone()));
        look
    }
}

fn looked(looker: &mut Looker, door: &Door, paths: &BTreeSet<PathBuf>) -> Look {
    looker.keep(paths);
    let mut look = Look { at_ms: 0, databases: BTreeMap::new(), stores: BTreeMap::new() };
    for path in paths {
        let facts = facts(looker, door, path, &mut look);
        look.databases.insert(path.clone(), facts.map_err(|error| error.to_string()));
    }
    look
}

fn facts(looker: &mut Looker, door: &Door, path: &Path, look: &mut Look) -> anyhow::Result<Facts> {
    let settings = door.settings(Some(path))?;
    let components = door.components(&settings)?;
    look.at_ms = components.clock.wall_ms();
    let place = Place::of_database(path, &settings)?;
    let none = Vec::new();
    let jobs = match place.account_root() {
        None => &none,
        Some(root) => {
            let store = look.stores.entry(root).or_insert_with(|| {
                let found = of_store(&place, &settings, &components).map_err(|error| error.to_string())?;
                found.ok_or_else(|| "it is gone".to_owned())
            });
            store.as_ref().map_or(&none, |store| &store.jobs)
        }
    };
    Ok(looker.facts(&place, &settings, &components, jobs)?)
}
