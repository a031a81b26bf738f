//! Bytes: everything that is persisted, remotely and locally, is spelled here and nowhere else.
//!
//! What this room promises:
//! 1. Decoders are total: any bytes give a value or a named [`FormatError`], never a panic, and memory stays in proportion to
//!    the input and to the limits of `littoral_types::limits`.
//! 2. Every byte is covered: by a checksum, a hash in the chain, or a check of what it may say. A flipped bit, a missing end
//!    or a byte too many is an error, never a wrong value.
//! 3. One value has one spelling before compression, so that equal manifests are equal bytes.
//! 4. What an encoder accepts, the decoder of the same version reads back as it was.
//! 5. A schema version comes first; a newer one is [`FormatError::Newer`], told from damage.
//! 6. There is room for encryption (rule P13): frames, bodies, snapshots, heads and pins reserve cipher, key id, nonce and tag.
//!
//! What may never enter: I/O, clocks, chance, unsafe, a panic on input.
//! `docs/format.md` draws every byte; a test keeps it and this room the same. Read next: [`keys`], [`record`], [`blob`].

mod body;
mod codec;
mod error;
mod frame;
mod interior;
mod nouns;
mod object;
mod seal;
mod table;
mod wire;

pub mod blob;
pub mod copy;
#[cfg(any(test, feature = "fuzz"))]
pub mod entry;
pub mod hash;
pub mod head;
pub mod identity;
pub mod keys;
pub mod log;
pub mod ops;
pub mod patch;
pub mod pin;
pub mod record;
pub mod rows;
pub mod segment;
pub mod shard;
pub mod snapshot;
pub mod wal;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace;

pub use error::FormatError;

/// What is persisted, and the newest version of each that this library writes and reads.
pub const VERSIONS: [(&str, u16); 9] = [
    ("record", record::VERSION),
    ("record body", body::VERSION),
    ("blob", blob::VERSION),
    ("frame", frame::VERSION),
    ("patch frame", patch::VERSION),
    ("shard", shard::VERSION),
    ("local manifest", rows::volume::VERSION),
    ("job queue", rows::job::VERSION),
    ("log", log::VERSION),
];
