//! What a page holds, in 128 bits that nobody without the volume's key can make meet (rule P7).

use littoral_types::{IdentityKey, PageIdentity};

/// The identity of a page: the first 128 bits of the keyed BLAKE3 of its raw bytes.
pub fn of(key: &IdentityKey, page: &[u8]) -> PageIdentity {
    let hash = blake3::keyed_hash(&key.0, page);
    let mut bits = [0; PageIdentity::LEN];
    bits.copy_from_slice(&hash.as_bytes()[..PageIdentity::LEN]);
    PageIdentity(bits)
}
