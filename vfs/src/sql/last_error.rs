//! `littoral_last_error`: why an opening failed, of which SQLite says no more than "unable to open database file". It can be asked on
//! any connection, `:memory:` too.

use super::{Cell, Function};
use crate::last;

/// Answers what went wrong last on this thread, else in this process; NULL when nothing did.
pub(super) const LAST_ERROR: Function = Function {
    name: "littoral_last_error",
    arguments_max: 0,
    run: |_, _| Ok(last::here().or_else(last::last).map_or(Cell::Null, Cell::Text)),
};
