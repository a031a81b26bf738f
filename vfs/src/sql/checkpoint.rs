//! `littoral_checkpoint` and `littoral_sync`: what changed goes to the object store, now.

use super::{CHECKPOINT_DEADLINE, Cell, Function, Refusal, Run, Target, shared};
use crate::work;

/// Answers the position that the object store has when it returns.
pub(super) const CHECKPOINT: Function =
    Function { name: "littoral_checkpoint", arguments_max: 0, run: Run::OfDatabase(checkpoint) };

/// The same, the short way where there is one: commits that can be told apart travel in a segment.
pub(super) const SYNC: Function = Function { name: "littoral_sync", arguments_max: 0, run: Run::OfDatabase(sync) };

fn checkpoint(target: Option<&Target>, _: &[Option<String>]) -> Result<Cell, Refusal> {
    let Target { database, said, .. } = shared(target)?;
    let done = work::checkpoint(database, said, CHECKPOINT_DEADLINE)?;
    Ok(Cell::text(done.position))
}

fn sync(target: Option<&Target>, _: &[Option<String>]) -> Result<Cell, Refusal> {
    let Target { database, said, .. } = shared(target)?;
    Ok(Cell::text(work::sync(database, said, CHECKPOINT_DEADLINE)?))
}
