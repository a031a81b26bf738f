//! Why bytes were refused.

/// Why bytes could not be read, or a value could not be spelled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end too early. Damaged, or fetched short: fetch again, then treat as corrupt.
    #[error("{what}: ends too early")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// The bytes are not the ones that were written. Fetch again, then treat as corrupt.
    #[error("{what}: checksum mismatch")]
    Checksum {
        /// What was being read.
        what: &'static str,
    },
    /// Written by a newer Littoral. Upgrade; nothing is wrong with the bytes.
    #[error("{what}: format {found}, this version reads up to {known}: use a newer littoral")]
    Newer {
        /// What was being read.
        what: &'static str,
        /// Its schema version.
        found: u16,
        /// The newest that is known.
        known: u16,
    },
    /// Encrypted, and this version has no ciphers (rule P13). Upgrade, or bring the key.
    #[error("{what}: is encrypted, which this version cannot read")]
    Sealed {
        /// What was being read.
        what: &'static str,
    },
    /// The bytes say what no writer says, or the value is one that no reader would accept. Corrupt when reading, a bug of the
    /// caller's when writing.
    #[error("{what}: {detail}")]
    Invalid {
        /// What was being read or written.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// Beyond a limit, so that nothing was allocated for it. Corrupt when reading; when writing, ask for less at once.
    #[error("{what}: {len} is more than the limit of {max}")]
    TooLarge {
        /// What was being read or written.
        what: &'static str,
        /// How much.
        len: u64,
        /// The limit.
        max: u64,
    },
}
