//! The local manifest on LMDB: the materialised state of the remote logs of one store.
//!
//! What this room promises, beyond what [`littoral_ports::Manifest`] does:
//! 1. A batch is one LMDB transaction, synced when `commit` returns (LMDB's default; no flag weakens it).
//! 2. Lookups seek: a page's newest delta, a chunk's row, a change, what a cut kills are found without passing over others.
//! 3. One environment per directory and process, whoever opens it how often; a forked child gets its own (rule P12).
//! 4. The map grows by itself, in steps that readers and writers do not notice. A full disk changes nothing.
//! 5. A newer store is refused before anything is written; a damaged one says that it can be rebuilt.
//!
//! What may never enter: the object store, planning, bytes that `littoral_format::rows` does not spell.
//! Read next: [`LmdbManifest`], then `apply.rs` (what each operation does to the tables), then `open.rs` (all of the unsafe).

mod apply;
mod lease;
mod lookup;
mod open;
mod store;
mod table;
mod tail;

#[cfg(test)]
mod tests;

pub use store::{LmdbManifest, Options};
