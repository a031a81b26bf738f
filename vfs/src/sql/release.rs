//! `littoral_release`: the end of the term, so that another machine can go on without a takeover.

use super::{CHECKPOINT_DEADLINE, Cell, Function, Refusal, Run, Target, shared};
use crate::work;

/// Answers the position that the volume was released at. From then on the database is read-only here, until it is claimed anew.
pub(super) const RELEASE: Function =
    Function { name: "littoral_release", arguments_max: 0, run: Run::OfDatabase(release) };

fn release(target: Option<&Target>, _: &[Option<String>]) -> Result<Cell, Refusal> {
    let Target { database, said, .. } = shared(target)?;
    Ok(Cell::text(work::release(database, said, CHECKPOINT_DEADLINE)?.position))
}
