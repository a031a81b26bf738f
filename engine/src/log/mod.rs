//! The remote log: the volume itself.
//!
//! What this room promises:
//! 1. A record becomes visible only after every blob it names (I2), exactly once, and after the record it follows (P3).
//! 2. Whoever lost learns who won, and publishes nothing more (I3).
//! 3. A log is opened in a bounded number of requests, however long it is (P8); the head is a hint and may be old, missing or wrong.
//! 4. Nothing read is used before it is verified (I10).
//!
//! What may never enter: pages, SQLite, local files. `docs/protocol.md` draws the states.
//! Read next: [`read`], then [`publish`].

pub mod pins;
pub mod publish;
pub mod read;
pub mod terms;

pub use publish::{Draft, Writer};
pub use read::{Glance, Log, Opened, ReadRecord};
