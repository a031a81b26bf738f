//! `littoral_last_error`: why an opening failed, of which SQLite says no more than "unable to open database file". It can be asked on
//! any connection, `:memory:` too. `littoral_take_error` is for programs that turn SQLite's codes into errors of their own: what was answered
//! once is not taken for the reason of something later.

use super::{Cell, Function, Run};
use crate::last;

/// Answers what went wrong last on this thread, else in this process; NULL when nothing did.
pub(super) const LAST_ERROR: Function = Function {
    name: "littoral_last_error",
    arguments_max: 0,
    run: Run::OfDatabase(|_, _| Ok(last::here().or_else(last::last).map_or(Cell::Null, Cell::Text))),
};

/// Answers what went wrong on this thread since it was asked last; NULL when nothing did.
pub(super) const TAKE_ERROR: Function = Function {
    name: "littoral_take_error",
    arguments_max: 0,
    run: Run::OfDatabase(|_, _| Ok(last::take().map_or(Cell::Null, Cell::Text))),
};
