//! How frames and bodies are made smaller.

/// Which codec. Numbers are persisted and never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// As they are.
    None = 0,
    /// Quick.
    Lz4 = 1,
    /// Small; level 3.
    #[default]
    Zstd = 2,
}
