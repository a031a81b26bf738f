//! The job queue of a store, on RocksDB.
//!
//! What this room promises, beyond what [`littoral_ports::JobQueue`] does:
//! 1. What changes together is one batch, synced when the call returns; notes are written with it or before it, in one log.
//! 2. What cannot be read is told as damage, never as a job that is not there: every block and every row has a checksum.
//! 3. Beside whoever has it open it can be [looked at](RocksJobs::look), which changes nothing.
//!
//! It rests on its caller for one thing: a queue is opened by the holder of its store's worker lock, and closed before that is let go
//! of (rule P12). RocksDB's own lock is a POSIX one, which any close in this process drops; it is not relied on.
//!
//! What may never enter: the other stores, the object store, what a job does, bytes that `littoral_format::rows` does not spell; a
//! process that is not ours, since RocksDB starts threads that a forked child waits for and does not have
//! (`docs/decisions/2026-11-28-jobs.md`).
//! Read next: [`RocksJobs`].

mod queue;

#[cfg(test)]
mod tests;

pub use queue::RocksJobs;
