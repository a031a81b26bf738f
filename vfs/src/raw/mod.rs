//! SQLite's C interface: all unsafe code of this crate.
//!
//! Rules; each block cites the one that makes it sound:
//! - R1 What SQLite hands us (a VFS, a file, a name, a buffer) is valid for the call, as its documentation says, and is not kept
//!   beyond it except where that documentation allows it.
//! - R2 Our file's memory was given by SQLite with [`file::size`] bytes; the inner file lies behind our header in it. Only [`file::open`]
//!   writes the header's pointer to our state, and only `close` takes it away: in between it is valid, and SQLite
//!   calls a file's methods from one thread at a time.
//! - R3 Function pointers come out of the host's own table and are asked for at most as late as the version that has them
//!   ([`api::Api::read`] refuses older hosts). They travel with what they belong to, never in a static: one process may
//!   have several SQLite libraries.
//! - R4 What SQLite keeps (our VFS, its name, method tables, module tables, the [`library::Library`]) is never freed: we stay loaded for good.
//! - R5 Memory that changes hands was taken from the host's allocator, and goes back to it.
//! - R6 Every callback passes [`guard`]: no panic crosses the border, and none is swallowed silently.
//! - R7 The WAL's index is memory that other processes write: read as volatile words, believed only when both of its copies agree.
//! - R8 A connection of our own is opened, used and closed by one value, and never handed to anybody else.
//! - R9 `FCNTL_PDB` tells where the B-tree above a file keeps the connection that uses it. The B-tree closes the file before it goes
//!   itself, so that the place is valid as long as the file is open. While SQLite calls the file's methods it holds the connection
//!   whose thread calls, and that thread holds its mutex, which is recursive. That connection is asked what it runs, and nothing else: never
//!   for anything that could run, prepare or change something, but for R10.
//! - R10 While SQLite calls a function or a table of ours, or asks a file for a pragma, the connection is not inside of its B-trees: statements
//!   may be prepared, run and finalised on it there, by the calling thread, as the extensions that come with SQLite do.

#![allow(unsafe_code)]

pub(crate) mod abi;
pub(crate) mod api;
pub(crate) mod asking;
pub(crate) mod connection;
pub(crate) mod entry;
pub(crate) mod file;
pub(crate) mod fork;
pub(crate) mod guard;
pub(crate) mod library;
pub(crate) mod logtable;
pub(crate) mod running;
pub(crate) mod sql;
pub(crate) mod vfs;
pub(crate) mod walindex;
