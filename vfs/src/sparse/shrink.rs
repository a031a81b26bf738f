//! A plain database that has no room to stay whole becomes sparse (rule S5): when the first one opens it, alone, after its pages were published.
//!
//! Nothing is lost by not doing it: whatever keeps it from being done leaves a plain database that takes more room than its quota.

use super::MAGIC;
use super::room::Room;
use crate::raw::connection::Connection;
use crate::raw::library::Library;
use crate::said::Said;
use littoral_engine::EngineError;
use littoral_engine::holes::bytes_on_disk;
use littoral_engine::tracker::convert::{Settled, convert, settled, tell};
use littoral_engine::tracker::residency::{Origin, Residency};
use littoral_engine::tracker::{Trace, UNIT};
use littoral_ports::NoFaults;
use littoral_types::{PageNo, Position};
use std::collections::BTreeSet;
use std::io::Error;
use std::path::Path;

/// Whether a database is plain, bound to its volume, and takes more room than its pages may.
pub(crate) fn wants(database: &Path, store: &Path, said: &Said) -> bool {
    Room::of(database, said).is_less_than(bytes_on_disk(database))
        && !Residency::path_of(store, database).exists()
        && said.place(database).is_ok_and(|place| place.found.is_some())
}

/// Makes a sparse one of it, if that can be done now. The caller has the right to find out what it is.
pub(crate) fn shrink(library: &'static Library, database: &Path, store: &Path, said: &Said) -> bool {
    match shrunk(library, database, store, said) {
        Ok(true) => {
            tracing::info!(database = %database.display(), "it has no room to stay whole: what can be fetched again went");
            true
        }
        Ok(false) => {
            tracing::debug!(database = %database.display(), "it takes more room than its quota, and stays whole for now");
            false
        }
        Err(why) => {
            tracing::warn!(database = %database.display(), why, "it takes more room than its quota, and stays whole for now");
            false
        }
    }
}

fn shrunk(library: &'static Library, database: &Path, store: &Path, said: &Said) -> Result<bool, String> {
    let told = |error: EngineError| crate::remedy::told(&error);
    let place = said.place(database).map_err(told)?;
    let Some(binding) = place.found.as_ref().map(|found| &found.binding) else { return Ok(false) };
    let row = place.manifest().map_err(told)?.map(|manifest| manifest.volume(&place.volume.value)).transpose();
    let row = row
        .map_err(|error| error.to_string())?
        .flatten()
        .filter(|row| row.meta.id == binding.id && row.fenced.is_none());
    let Some((page_size, tail)) = row.as_ref().and_then(|row| Some((row.tail.figures.page_size?, &row.tail))) else {
        return Ok(false);
    };
    if has_leftovers(database) {
        return Ok(false);
    }
    // Nobody else has it open from here on, ours or not.
    let alone = Connection::open(library, database, 0).map_err(|failure| failure.message)?;
    for sql in [c"PRAGMA query_only = OFF", c"PRAGMA locking_mode = EXCLUSIVE", c"BEGIN EXCLUSIVE"] {
        if let Err(failure) = alone.run(sql) {
            return if failure.primary() == crate::raw::abi::code::BUSY { Ok(false) } else { Err(failure.message) };
        }
    }
    let found = Trace::of(database).filter(|_| !has_leftovers(database));
    let known =
        found.map(|trace| settled(store, database, &trace)).transpose().map_err(EngineError::from).map_err(told)?;
    let Some((trace, Settled { basis, units })) = found.zip(known.flatten()) else { return Ok(false) };
    if (basis.volume, basis.generation) != (binding.id, tail.figures.generation) {
        return Ok(false);
    }
    let size = page_size.bytes();
    let pages_here = std::fs::metadata(database).map_err(|error| error.to_string())?.len() / size;
    // What may differ from what was published, and what it grew by, goes along.
    let marked = units.iter().flat_map(|unit| unit * UNIT / size..=(unit * UNIT + UNIT - 1) / size);
    let kept: BTreeSet<PageNo> = marked
        .chain(tail.figures.page_count.0..pages_here)
        .filter(|index| *index < pages_here)
        .map(PageNo::from_index)
        .collect();
    if Room::of(database, said).is_less_than(2 * kept.len() as u64 * size) {
        return Ok(false);
    }
    let position = Position { epoch: tail.epoch, lsn: tail.lsn };
    let origin = Origin { volume: binding.id, position, page_size, page_count: tail.figures.page_count };
    let kept: Vec<PageNo> = kept.into_iter().collect();
    let mut read = |page: PageNo, into: &mut [u8]| {
        let failed = |failure: crate::raw::connection::Failure| Error::other(failure.message);
        alone.read_main(page.index() * size, into).map_err(failed)
    };
    let sidecar = Residency::path_of(store, database);
    let done = convert(database, &sidecar, &origin, &MAGIC, &kept, &mut read, &NoFaults);
    done.map_err(EngineError::from).map_err(told)?;
    if let Some(Err(error)) =
        place.store.as_ref().map(|store| store.bind(database, &binding.volume, binding.id, &binding.remote))
    {
        tracing::debug!(%error, "which file it is now is not noted: it is found by its path");
    }
    tell(store, database, &trace).map_err(EngineError::from).map_err(told)?;
    // The lock goes with the file that has no name any more.
    drop(alone);
    Ok(true)
}

/// Whether a WAL or a journal holds anything.
fn has_leftovers(database: &Path) -> bool {
    ["-wal", "-journal"].iter().any(|suffix| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(name).is_ok_and(|found| found.len() > 0)
    })
}
