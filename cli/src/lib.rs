//! The command line's parts: the binary `littoral` is a thin shell around them.
//!
//! What this room promises:
//! 1. Each verb is one file under [`verbs`] and one line of its table.
//! 2. A command ends with an exit code that says what kind of end it was ([`exit`]), and an error says its cause and the way out.
//! 3. With `--json` stdout holds one JSON document and nothing else (a worker: one in each line), and stderr one for an error. Progress is for terminals.
//!
//! What may never enter: decisions that the engine should make; credentials in anything that is printed.
//! Read next: [`door`], then [`verbs`]; [`sqlite`], where a checkpoint's pages come from. `docs/cli.md` is for users.

pub mod bars;
pub mod caretaker;
#[cfg(feature = "faults")]
pub mod crash;
pub mod door;
pub mod errands;
pub mod exit;
pub mod keeper;
pub mod log_keeper;
pub mod notify;
pub mod screen;
pub mod serve;
pub mod sqlite;
pub mod verbs;
pub mod words;
