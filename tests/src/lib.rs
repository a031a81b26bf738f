//! The rig of the tests that show promises across rooms: a database under random SQL, machines that publish it, an object
//! store that fails, and the stock copies that every restore is compared with.
//!
//! What this room promises:
//! 1. The same seed does the same things. A failure prints its seed and how to run it again.
//! 2. What is expected of the engine is said here without the engine: the model knows which commits were published, by
//!    whom, and what the file held.
//!
//! What may never enter: anything that other than tests depend on.
//! Read next: [`world`], then `tests/model.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

pub mod chance;
pub mod clock;
pub mod crash;
pub mod database;
pub mod lock_page;
pub mod machine;
pub mod world;
