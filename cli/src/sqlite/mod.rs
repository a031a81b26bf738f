//! A database file, read consistently while others write it.
//!
//! What this room promises:
//! 1. Every page of a [`SqliteSource`] is as of one commit: SQLite's own read transaction, in WAL and in rollback mode.
//! 2. The database is never written, by no statement and by no backfill. What a crashed writer left is settled as any SQLite
//!    settles it: a hot rollback journal is rolled back, a WAL without an index gets one. A WAL that holds something is there
//!    afterwards as before; one that is empty goes with the last connection to it (but stays where the database file may only
//!    be read, as with every SQLite).
//! 3. Nothing is created where no database is, and no other descriptor of the database is opened or closed in this process
//!    (rule S9: closing one would drop the locks of every connection that this process has to it). All goes through SQLite.
//! 4. In WAL mode no writer waits for us, but the WAL cannot start over while a source lives. In rollback mode a writer's
//!    commit waits until the source is gone: SQLite has no other way to keep a reader's pages still.
//! 5. What cannot be read is an error with its reason: see [`SqliteSource::open`].
//!
//! A WAL database in a folder where its -wal and -shm can neither be made nor found is refused. SQLite could read the file
//! alone (`immutable=1`), and would answer wrong pages as soon as a writer came by another mount of the same folder, which a
//! read-only mount in a container usually has. Whoever knows that nobody writes can copy the file.
//!
//! What may never enter: what pages mean, what becomes of them.
//! Read next: `source.rs`; `raw.rs` holds all unsafe code.

mod check;
mod error;
mod header;
mod opened;
mod raw;
mod source;

pub use check::{examine, integrity_check};
pub use header::{PENDING_BYTE, change_counter, lock_page, schema_summary};
pub use opened::{Answer, OpenDatabase};
pub use raw::{Cell, hex};
pub use source::{BUSY_TIMEOUT, SqliteSource};
