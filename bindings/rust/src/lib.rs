//! SQLite databases that live in an object store, for Rust programs: a builder that gives [`libsql`] connections.
//!
//! ```no_run
//! # async fn program() -> Result<(), Box<dyn std::error::Error>> {
//! let conn = littoral::Builder::new("app.db").remote("s3://bucket/prefix").open().await?;
//! conn.execute("CREATE TABLE IF NOT EXISTS note(text)", ()).await?;
//! conn.execute("INSERT INTO note VALUES ('hello')", ()).await?;
//!
//! let position = littoral::checkpoint(&conn).await?; // what was committed is in the object store now
//! println!("safe up to {position}");
//! # Ok(())
//! # }
//! ```
//!
//! The database is an ordinary SQLite file on local disk: reading and writing go as fast as they do without us. What changed since
//! the last checkpoint is known, and is all that the next one carries.
//!
//! What this crate promises:
//! 1. It brings no SQLite of its own: connections are [`libsql`]'s, on its bundled SQLite, and everything that takes one works.
//! 2. It needs no runtime and fits any: what may wait, waits on a thread of its own, never on one of the caller's runtime.
//! 3. An error names its cause and the way out.
//!
//! [`Builder::open`] gives one connection. [`Builder::build`] gives a [`Database`], from which a pool takes as many as it likes.
//! Settings that the builder was not told come from `LITTORAL_…` variables, then from `littoral.toml` beside the database.
//! Credentials come from the environment and the standard AWS files only.

mod ask;
mod builder;
mod database;
mod entry;
mod error;
mod off;

pub use ask::{Status, checkpoint, snapshot, status};
pub use builder::Builder;
pub use database::Database;
pub use entry::register;
pub use error::Error;
pub use libsql;
pub use littoral_types::{Epoch, Lsn, Position};

/// Why SQLite just said no, where Littoral made it: SQLite's own message for a database that may not be written is
/// "attempt to write a readonly database", and nothing more.
///
/// It is kept for the thread that the statement ran on, which is the one that awaited it: ask before anything else is awaited. It is
/// told once.
pub fn last_error() -> Option<String> {
    littoral_vfs::take_error()
}

#[cfg(doctest)]
#[doc = include_str!("../../../docs/hosts/rust.md")]
struct Page;
