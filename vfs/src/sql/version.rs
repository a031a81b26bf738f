//! `littoral_version`: which Littoral this is.

use super::{Cell, Function, Run};

/// The function.
pub(super) const VERSION: Function = Function {
    name: "littoral_version",
    arguments_max: 0,
    run: Run::OfDatabase(|_, _| Ok(Cell::text(env!("CARGO_PKG_VERSION")))),
};
