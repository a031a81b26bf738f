//! The command line's parts: the binary `littoral` is a thin shell around them.
//!
//! Read next: [`sqlite`], where a checkpoint's pages come from.

pub mod sqlite;
