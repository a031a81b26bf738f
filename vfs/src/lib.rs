//! SQLite's C interface, spoken exactly: a shim over the platform's own VFS, under which a database stays an ordinary SQLite
//! database on local disk while Littoral looks on.
//!
//! What this room promises:
//! 1. Every call goes to the inner VFS; locks, shared memory and memory maps are SQLite's own code (I4).
//! 2. What is written to a database or its WAL is marked before it is written; what is committed is counted.
//! 3. Nothing on the way of a commit waits for anything that SQLite would not wait for (I6).
//! 4. Pointers into a host's SQLite are carried along, never static: one process may have several.
//! 5. No panic crosses the border, and whoever loaded us stays loaded.
//!
//! What may never enter: the network, waiting without a deadline, policy.
//! Read next: [`database`](crate), `raw/file.rs`, `source.rs`; `raw/` holds all unsafe code.

mod alone;
mod beforehand;
mod code;
mod cold;
mod database;
mod durable;
mod first;
mod follow;
mod forking;
mod last;
mod logtable;
mod past;
mod pragma;
mod raw;
mod remedy;
mod said;
mod seal;
mod seat;
mod shipper;
mod source;
mod sparse;
mod sql;
pub mod uri;
pub mod watch;
mod work;

use littoral_engine::open::Totals;
use littoral_ports::{LiveSource, SourceError};
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;

/// Where this process dies while it commits rows of logs' tables, as a test asks.
#[cfg(feature = "faults")]
pub fn die_at(faults: std::sync::Arc<dyn littoral_ports::Faults>) {
    logtable::die_at(faults);
}

/// What went wrong on this thread since it was asked last, in a sentence that names cause and way out. For a door whose SQLite
/// has just answered with a code alone: SQLite calls us on the thread that calls it.
pub fn take_error() -> Option<String> {
    last::take()
}

/// The pages of a database that a connection of this process has open through the VFS, for a checkpoint of it. `None` when none has.
pub fn live(database: &Path) -> Option<Result<Box<dyn LiveSource>, SourceError>> {
    let database = database::Database::find(database)?;
    let source = source::Live::open(database.library(), database);
    Some(source.map(|source| -> Box<dyn LiveSource> { Box::new(source) }))
}

/// Fetches all pages of a database that a connection of this process has open through the VFS; `told` how many of how many are here.
/// `None` when none has it open. A database that is all here becomes a plain file when it is opened next, by nobody but one.
pub fn hydrate(database: &Path, told: &mut dyn FnMut(u64, u64)) -> Option<Result<(), String>> {
    let database = database::Database::find(database)?;
    let Some(sparse) = database.sparse() else { return Some(Ok(())) };
    let live = match source::Live::open(database.library(), database) {
        Ok(live) => live,
        Err(error) => return Some(Err(error.to_string())),
    };
    Some(live.with_file(|file| sparse.hydrate(file, told)).map_err(|error| error.to_string()))
}

/// What fetching pages of a database that a connection of this process has open has cost, and how many of the requests waited for
/// one another; counted anew from now on where that is wanted. `None` for one that is all here.
pub fn cost(database: &Path, anew: bool) -> Option<(Totals, usize)> {
    let sparse = database::Database::find(database)?.sparse()?;
    let cost = sparse.cost();
    if anew {
        sparse.count_anew();
    }
    cost
}

/// Whether a database that a connection of this process has open is not all here: how many pages are, of how many.
pub fn sparse(database: &Path) -> Option<(u64, u64)> {
    let (here, all) = database::Database::find(database)?.sparse()?.progress();
    Some((here, all.0))
}

/// The entry point of the loadable extension, as SQLite calls it: registers the VFS `littoral`, and functions and tables on every
/// connection from then on.
///
/// # Safety
/// To be called by SQLite as an extension's entry point, or with what SQLite passes to one.
#[allow(unsafe_code, reason = "the door from C, called by the rooms that export it")]
pub unsafe extern "C" fn init(db: *mut c_void, message: *mut *mut c_char, routines: *const c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { raw::entry::load(db.cast(), message, routines, false) }
}

/// The same, and makes it the VFS of every database that names none.
///
/// # Safety
/// As for [`init`].
#[allow(unsafe_code, reason = "the door from C, called by the rooms that export it")]
pub unsafe extern "C" fn init_default(db: *mut c_void, message: *mut *mut c_char, routines: *const c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { raw::entry::load(db.cast(), message, routines, true) }
}
