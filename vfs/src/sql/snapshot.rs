//! `littoral_snapshot`: a checkpoint, and a name for it that keeps it until it is dropped.

use super::{CHECKPOINT_DEADLINE, Cell, DEADLINE, Function, Refusal, Run, Target, shared};
use crate::work::{self, Ground};
use littoral_engine::live;
use littoral_types::{Moment, SnapshotName};

/// Answers the position that has the name.
pub(super) const SNAPSHOT: Function =
    Function { name: "littoral_snapshot", arguments_max: 1, run: Run::OfDatabase(snapshot) };

fn snapshot(target: Option<&Target>, arguments: &[Option<String>]) -> Result<Cell, Refusal> {
    let Target { database, said, .. } = shared(target)?;
    let usage = || Refusal::usage("a snapshot has a name: PRAGMA littoral_snapshot = 'before-the-migration'");
    let name = arguments.first().and_then(Option::as_deref).ok_or_else(usage)?;
    let name: SnapshotName = name.parse().map_err(|error| Refusal::usage(format!("not a snapshot's name: {error}")))?;
    if !Moment::is_snapshot(&name) {
        let why = format!(
            "a snapshot cannot be called {name}: that is an LSN, a position or a time; choose a name with a letter in it that does not \
             begin with a line"
        );
        return Err(Refusal::usage(why));
    }
    work::checkpoint(database, said, CHECKPOINT_DEADLINE)?;
    // Bound by now, so that the volume is known.
    let Ground { place, said, components } = work::ground(database.path(), said)?;
    let position = work::run(DEADLINE, async move || {
        let (log, _) = place.log(&said.settings, &components)?;
        live::name_snapshot(&log, &components, &name).await.map(|(position, _)| position)
    })?;
    Ok(Cell::text(position))
}
