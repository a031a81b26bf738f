//! `littoral_at`: which moment of its history a database was opened at (`at=`), as a position. NULL for the newest state, which is the one
//! that moves. `littoral_at('schema')` asks about an attached one.

use super::{Cell, Function, Run, ours};

/// The answer for a database that is not of the past; [`crate::past::Past::answer`] gives the other.
pub(super) const AT: Function = Function {
    name: "littoral_at",
    arguments_max: 1,
    run: Run::OfDatabase(|target, _| ours(target).map(|_| Cell::Null)),
};
