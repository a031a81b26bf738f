//! `littoral_version`: which Littoral this is.

use super::{Cell, Function};

/// The function.
pub(super) const VERSION: Function =
    Function { name: "littoral_version", arguments_max: 0, run: |_, _| Ok(Cell::text(env!("CARGO_PKG_VERSION"))) };
