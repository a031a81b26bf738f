//! What a worker does for the volumes of its databases and logs beside shipping: it prunes, verifies and holds drills, where the settings ask for it.
//!
//! What this room promises:
//! 1. One thread for all databases and logs, one chore after the other: no two drills take room at once, and nobody who ships waits for them but
//!    for the volume's lock while a prune has it.
//! 2. Only for databases that this worker is elected to ship for, and for logs, whose volume is its own to write.
//! 3. A stop ends a chore where it stands: for whoever goes on later that is a crash like any other.
//! 4. What is found wrong is told as an event and logged as an error.

use crate::keeper::{Event, Stop};
use crate::verbs::examiner;
use littoral_engine::chores::{self, Did};
use littoral_engine::exec::drill::Drill;
use littoral_engine::logs::tables_of;
use littoral_engine::open::{self, Place};
use littoral_engine::runtime::{self, Runtime};
use littoral_engine::settings::Settings;
use littoral_engine::{Chore, Components, EngineError, Wishes};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// It is looked at most and at least this often whether something is due.
const LOOK_MIN: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(30);

/// The databases that something is done for, as those who keep them say.
#[derive(Debug, Default)]
pub struct Charges(Mutex<BTreeMap<PathBuf, Arc<Settings>>>);

impl Charges {
    /// Whether a database is one of them as of now.
    pub fn set(&self, path: &Path, settings: Option<&Arc<Settings>>) {
        let mut charges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match settings.filter(|settings| chores::wishes(settings) != Wishes::default()) {
            Some(settings) if !charges.contains_key(path) => drop(charges.insert(path.to_owned(), settings.clone())),
            Some(_) => {}
            None => drop(charges.remove(path)),
        }
    }

    fn all(&self) -> BTreeMap<PathBuf, Arc<Settings>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Does what is due for them.
pub struct Caretaker<'a> {
    /// Whom.
    pub charges: &'a Charges,
    /// Where it is told what was done.
    pub tell: &'a (dyn Fn(&Path, Event) + Sync),
    /// When to end.
    pub stop: &'a Stop,
}

impl Caretaker<'_> {
    /// Until it is to end.
    pub fn run(self) {
        runtime::step_back();
        let Ok(runtime) = runtime::shared() else {
            tracing::error!("no threads can be started: nothing is pruned, verified or proved here");
            return;
        };
        let mut looked: BTreeMap<PathBuf, Instant> = BTreeMap::new();
        let mut last: BTreeMap<PathBuf, Event> = BTreeMap::new();
        while !self.stop.within(LOOK_MIN) {
            for (path, settings) in self.charges.all() {
                if looked.get(&path).is_some_and(|looked| looked.elapsed() < interval(&chores::wishes(&settings))) {
                    continue;
                }
                looked.insert(path.clone(), Instant::now());
                // The logs of its tables have volumes of their own.
                let (its, failed) = match tables_of(&path, &settings) {
                    Ok(its) => (its, None),
                    Err(error) => (Vec::new(), Some((path.clone(), error))),
                };
                let itself = std::iter::once((path, (*settings).clone()));
                let mut done: Vec<(PathBuf, Result<Option<Did>, EngineError>)> = Vec::new();
                for (path, settings) in itself.chain(its) {
                    let Some(did) = self.next(&runtime, &path, &settings) else { return };
                    done.push((path, did));
                }
                done.extend(failed.map(|(path, error)| (path, Err(error))));
                for (path, did) in done {
                    let event = match did {
                        Ok(did) => did.and_then(told),
                        Err(error) => Some(Event::ChoreFails("upkeep", error.to_string())),
                    };
                    let Some(event) = event else { continue };
                    // What fails again for the same reason is told once.
                    let is_trouble = matches!(event, Event::ChoreFails(..) | Event::NotSound(_));
                    let before = last.insert(path.clone(), event.clone());
                    if !is_trouble || before.as_ref() != Some(&event) {
                        (self.tell)(&path, event);
                    }
                }
            }
        }
    }

    /// `None` where it was to end.
    fn next(&self, runtime: &Runtime, path: &Path, settings: &Settings) -> Option<Result<Option<Did>, EngineError>> {
        let components = Components::of_this_machine(open::quota(settings));
        runtime.run_unless(self.stop.cut(), async {
            let place = Place::of_database(path, settings)?;
            Box::pin(chores::next(&place, settings, &components, &examiner())).await
        })
    }
}

/// How often it is looked: as often as the most frequent of them could be due.
fn interval(wishes: &Wishes) -> Duration {
    let least = [wishes.prune_ms, wishes.drill_ms].into_iter().flatten().min();
    least.map_or(LOOK_MAX, |ms| Duration::from_millis(ms / 2)).clamp(LOOK_MIN, LOOK_MAX)
}

/// What is told of it; nothing where nothing came of it.
fn told(did: Did) -> Option<Event> {
    match did {
        Did::Pruned(pruned, repacked, is_denied) => {
            let pruned = pruned.unwrap_or_default();
            if let Some(why) = pruned.denied.as_ref().filter(|_| is_denied) {
                tracing::warn!(why, "the credentials may not delete: prunes name what may go, and delete nothing");
                return Some(Event::MayNotDelete(why.clone()));
            }
            let objects = pruned.records + pruned.snapshots + pruned.blobs + pruned.pins;
            let event = Event::Pruned { objects, bytes: pruned.bytes, packs: repacked.packs as u64 };
            (objects > 0 || repacked.packs > 0).then_some(event)
        }
        Did::Verified(found, _) if !found.problems.is_empty() => Some(not_sound(found.problems)),
        Did::Verified(found, is_whole) => {
            is_whole.then_some(Event::Verified { blobs: found.blobs, bytes: found.bytes })
        }
        Did::Drilled(Drill::Skipped(why)) => Some(Event::ChoreFails("drill", why)),
        Did::Drilled(Drill::Held(held)) if !held.problems.is_empty() => Some(not_sound(held.problems)),
        Did::Drilled(Drill::Held(held)) => {
            Some(Event::Proved { position: held.position?, took_ms: held.took_ms, answer: held.answer })
        }
        Did::Failed(chore, error) => {
            let what = match chore {
                Chore::Prune => "prune",
                Chore::Verify(_) => "verify",
                Chore::Drill => "drill",
            };
            Some(Event::ChoreFails(what, error.to_string()))
        }
    }
}

fn not_sound(problems: Vec<String>) -> Event {
    problems.iter().for_each(|problem| tracing::error!(problem, "the volume is not sound"));
    Event::NotSound(problems)
}
