//! The rig of the tests that show that SQLite cannot tell: real programs with a SQLite of their own, which load the extension as
//! any user would, beside the same programs without it.
//!
//! What this room promises:
//! 1. It links nothing of ours: what is tested is the extension and the command line as they are shipped.
//! 2. The same seed takes the same decisions. What several processes do at once is decided by the machine; what must hold
//!    afterwards holds for every order.
//!
//! What may never enter: anything that other than tests depend on.
//! Read next: [`shell`], then [`model`] and [`power`], then `tests/same.rs` and `tests/rules.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

pub mod built;
pub mod chance;
pub mod ledger;
pub mod model;
pub mod place;
pub mod power;
pub mod script;
pub mod shell;
pub mod suite;
