//! `littoral_hydrate`: fetches everything that is not here. `littoral_prefetch` is the same.

use super::{Cell, Function, Refusal, Run, Target, ours, shared};
use crate::code;
use crate::source::Live;

/// Answers how many pages are here.
pub(super) const HYDRATE: Function =
    Function { name: "littoral_hydrate", arguments_max: 0, run: Run::OfDatabase(hydrate) };

/// The same: whoever wants to read without waiting later wants all of it.
pub(super) const PREFETCH: Function =
    Function { name: "littoral_prefetch", arguments_max: 0, run: Run::OfDatabase(hydrate) };

fn hydrate(target: Option<&Target>, _: &[Option<String>]) -> Result<Cell, Refusal> {
    if let Some(replica) = ours(target)?.database.replica() {
        return Ok(Cell::Text(crate::follow::hydrate(&replica)?));
    }
    let Some(sparse) = ours(target)?.database.sparse() else { return Ok(Cell::text("everything is here")) };
    let Target { database, library, .. } = shared(target)?;
    let refused = |message: String, code| {
        crate::last::error(&message);
        Refusal { code, message }
    };
    let live = Live::open(library, database.clone())
        .map_err(|error| refused(crate::remedy::told_of_source(&error), code::of_source(&error)))?;
    live.with_file(|file| sparse.hydrate(file, &mut |here, all| tracing::info!(here, all, "pages are here")))
        .map_err(|error| refused(error.to_string(), crate::raw::abi::code::IOERR))?;
    // A plain file is made of what has no WAL.
    live.empty_wal();
    let (here, all) = sparse.progress();
    Ok(Cell::Text(format!("{here} of {all} pages are here")))
}
