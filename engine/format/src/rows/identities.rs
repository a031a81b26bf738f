//! Identities of a group of neighbouring pages.

use crate::FormatError;
use crate::wire::{In, Out, Spell};
use littoral_types::{PageIdentity, PageNo};

/// The newest layout.
pub const VERSION: u16 = 1;
/// Pages of a group: a full row stays below the size at which LMDB gives a value pages of its own.
pub const GROUP: usize = 64;
const WHAT: &str = "identities row";

/// The group that a page belongs to, and its place there.
pub const fn place(page: PageNo) -> (u64, usize) {
    (page.index() / GROUP as u64, (page.index() % GROUP as u64) as usize)
}

/// The first page of a group; `None` for a group beyond 64 bits.
pub fn first_page(group: u64) -> Option<PageNo> {
    PageNo::new(group.checked_mul(GROUP as u64)?.checked_add(1)?)
}

/// Spells a group of exactly [`GROUP`] identities, `None` where none is known.
pub fn encode(identities: &[Option<PageIdentity>]) -> Result<Vec<u8>, FormatError> {
    let group = identities.try_into().map_err(|_| FormatError::Invalid {
        what: WHAT,
        detail: format!("a group of {} instead of {GROUP}", identities.len()),
    })?;
    super::encode(WHAT, VERSION, &Group(group))
}

/// Reads a group: [`GROUP`] of them.
pub fn decode(bytes: &[u8]) -> Result<Vec<Option<PageIdentity>>, FormatError> {
    let Group(group) = super::decode(WHAT, VERSION, bytes)?;
    Ok(group.to_vec())
}

struct Group([Option<PageIdentity>; GROUP]);

impl Spell for Group {
    fn put(&self, out: &mut Out) {
        let known = self.0.iter().enumerate().filter(|(_, identity)| identity.is_some());
        out.u64("bit per page whose identity is known", known.fold(0, |bits, (place, _)| bits | 1 << place));
        for identity in self.0.iter().flatten() {
            out.raw("identity of the next known page", &identity.0);
        }
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let known = input.u64()?;
        let mut group = [None; GROUP];
        for (place, identity) in group.iter_mut().enumerate() {
            if known >> place & 1 == 1 {
                *identity = Some(PageIdentity(input.array()?));
            }
        }
        Ok(Self(group))
    }
}
