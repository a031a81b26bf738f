//! Room for encryption (rule P13): which cipher, which key, nonce and tag. All zero until there are ciphers.

use crate::FormatError;
use crate::wire::{In, Out};

const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

/// Appends the seal of something that is not encrypted.
pub(crate) fn put_open(out: &mut Out) {
    out.u8("cipher", 0);
    out.u32("key id", 0);
    out.raw("nonce", &[0; NONCE_LEN]);
    out.raw("tag", &[0; TAG_LEN]);
}

/// Whether what follows is encrypted. Bytes of a seal that seals nothing are zero.
pub(crate) fn get(input: &mut In<'_>) -> Result<bool, FormatError> {
    let cipher = input.u8()?;
    let key = input.u32()?;
    let nonce: [u8; NONCE_LEN] = input.array()?;
    let tag: [u8; TAG_LEN] = input.array()?;
    let blank = key == 0 && nonce == [0; NONCE_LEN] && tag == [0; TAG_LEN];
    match (cipher, blank) {
        (0, true) => Ok(false),
        (0, false) => Err(input.invalid("a seal without a cipher")),
        _ => Ok(true),
    }
}
