//! Names that nobody chooses: random bits and hashes.

use std::fmt;

macro_rules! bits {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// How many bytes it has.
            pub const LEN: usize = $len;

            /// Reads the hexadecimal digits that `Display` prints; `None` for anything else.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bits = [0u8; $len];
                from_hex(text, &mut bits)?;
                Some(Self(bits))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

fn from_hex(text: &str, bits: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != bits.len() * 2 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in bits.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(())
}

bits! {
    /// A volume, whatever it is called: 128 random bits, in its first claim.
    VolumeId, 16
}
bits! {
    /// One start of one worker: 128 random bits.
    Incarnation, 16
}
bits! {
    /// A store (a local root directory), whatever machine it lies on: 128 random bits.
    StoreId, 16
}
bits! {
    /// A pin's own name.
    PinId, 16
}
bits! {
    /// What a page holds, as a keyed 128-bit BLAKE3: equal identities mean equal bytes, and nobody without the
    /// volume's key can make two pages meet.
    PageIdentity, 16
}
bits! {
    /// BLAKE3 of a record's header, which holds its body's: the link of the chain.
    RecordHash, 32
}
bits! {
    /// BLAKE3 of a blob's stored bytes: half of its name.
    BlobHash, 32
}

impl RecordHash {
    /// What the first record names as its predecessor.
    pub const NONE: RecordHash = RecordHash([0; 32]);
}

/// The key of a volume's page identities. A secret: `Debug` does not print it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdentityKey(pub [u8; 32]);

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints_and_nothing_else() {
        let id = VolumeId(std::array::from_fn(|i| i as u8 * 17));
        assert_eq!(VolumeId::from_hex(&id.to_string()), Some(id));
        let upper = id.to_string().to_uppercase();
        for text in ["", "00", upper.as_str(), "0g112233445566778899aabbccddeeff"] {
            assert_eq!(VolumeId::from_hex(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", IdentityKey([7; 32])), "IdentityKey(..)");
    }
}
