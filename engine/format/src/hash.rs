//! What names bytes, and what verifies them.

use littoral_types::BlobHash;

/// BLAKE3 of stored bytes: half of a blob's name.
pub fn blob(bytes: &[u8]) -> BlobHash {
    BlobHash(*blake3::hash(bytes).as_bytes())
}

/// CRC64-NVME, as S3 computes it (`x-amz-checksum-crc64nvme`). Finds damage; never an identity.
pub fn crc64(bytes: &[u8]) -> u64 {
    let mut digest = crc64fast_nvme::Digest::new();
    digest.write(bytes);
    digest.sum64()
}

/// A short name of what these parts are, one after another.
pub fn mark(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Both at once, over bytes as they come.
#[derive(Clone)]
pub struct BlobHasher {
    blake3: blake3::Hasher,
    crc64: crc64fast_nvme::Digest,
}

impl BlobHasher {
    /// Of no bytes yet.
    pub fn new() -> Self {
        Self { blake3: blake3::Hasher::new(), crc64: crc64fast_nvme::Digest::new() }
    }

    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        self.crc64.write(bytes);
    }

    /// Of all bytes so far.
    pub fn finish(self) -> (BlobHash, u64) {
        (BlobHash(*self.blake3.finalize().as_bytes()), self.crc64.sum64())
    }
}

impl Default for BlobHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for BlobHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobHasher(..)")
    }
}
