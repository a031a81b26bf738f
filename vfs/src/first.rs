//! The first time that a database is opened here: does it belong to the volume whose name it would have?
//!
//! A database that is bound to its volume is opened without asking the network. One that is not is about to be adopted: where the
//! object store holds a volume of that name already, nothing says that the two belong together, and the user has to (rules P3, P14).
//!
//! Where the object store cannot be asked, the database is opened all the same: its first checkpoint asks again before anything
//! is published.

use crate::said::Said;
use crate::work::{self, Ground, WorkError};
use littoral_engine::EngineError;
use littoral_engine::copies::refuse_lost;
use littoral_engine::tracker::residency::{Opening, Residency};
use std::path::Path;
use std::time::Duration;

/// How long the answer is waited for.
const DEADLINE: Duration = Duration::from_secs(5);

/// Refuses a database that is here, is bound to nothing, and whose volume is somebody else's, as far as anybody knows.
pub(crate) fn refuse_stranger(database: &Path, store: &Path, said: &Said) -> Result<(), String> {
    // One that came out of the volume itself, page by page, and is whole by now.
    if Opening::was_had(&Residency::path_of(store, database)) {
        return Ok(());
    }
    let Ok(place) = said.place(database) else { return Ok(()) };
    let is_chosen = said.settings.takeover.is_some();
    if place.is_unmade || place.found.is_some() || is_chosen || is_empty(database) {
        return Ok(());
    }
    let again = said;
    let (url, Ground { place, said, components }) = (place.url(), work::ground_of(place, said));
    let asked = work::run(DEADLINE, async move || {
        let (log, _) = place.log(&said.settings, &components)?;
        let glance = log.glance().await?;
        if glance.is_none() {
            refuse_lost(&place, &said.settings, &components).await?;
        }
        Ok(glance)
    });
    match asked {
        Ok(None) => Ok(()),
        // A sparse one whose bitmap is gone: no choice named here would be one.
        Ok(Some(_)) if crate::sparse::is_disguised(database) => Ok(()),
        // Another process has begun it, and bound it, since this one looked.
        Ok(Some(_)) if again.place(database).is_ok_and(|place| place.found.is_some()) => Ok(()),
        Ok(Some(glance)) => {
            let tail = &glance.tail;
            let owner =
                tail.owner.as_ref().map_or_else(|| "nobody: it was released".to_owned(), |owner| owner.label.clone());
            Err(EngineError::NotBound { volume: url, owner, epoch: tail.epoch, lsn: tail.lsn }.to_string())
        }
        Err(WorkError::Engine(EngineError::NoVolume(_))) => Ok(()),
        Err(WorkError::Engine(error @ EngineError::Refused(_))) => Err(error.to_string()),
        Err(error) => {
            crate::last::error(&format!(
                "{}: whether {url} exists already cannot be asked now: {error}. The database is open, and nothing is published before \
                 that is known",
                database.display()
            ));
            Ok(())
        }
    }
}

/// What SQLite makes by opening what is not there holds nothing, and belongs to whoever comes.
fn is_empty(database: &Path) -> bool {
    std::fs::metadata(database).map_or(true, |found| !found.is_file() || found.len() == 0)
}
