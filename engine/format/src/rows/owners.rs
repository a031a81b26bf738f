//! Whose the pages of a group of neighbours are.

use crate::FormatError;
use crate::wire::{In, Out, Spell};
use littoral_types::{PageNo, PageOwner};

/// The newest layout.
pub const VERSION: u16 = 1;
/// Pages of a group: a row stays below the size at which LMDB gives a value pages of its own.
pub const GROUP: usize = 256;
const WHAT: &str = "owners row";

/// The group that a page belongs to, and its place there.
pub const fn place(page: PageNo) -> (u64, usize) {
    (page.index() / GROUP as u64, (page.index() % GROUP as u64) as usize)
}

/// Spells a group of exactly [`GROUP`] owners.
pub fn encode(owners: &[PageOwner]) -> Result<Vec<u8>, FormatError> {
    let group = owners.try_into().map_err(|_| FormatError::Invalid {
        what: WHAT,
        detail: format!("a group of {} instead of {GROUP}", owners.len()),
    })?;
    super::encode(WHAT, VERSION, &Group(group))
}

/// Reads a group: [`GROUP`] of them.
pub fn decode(bytes: &[u8]) -> Result<Vec<PageOwner>, FormatError> {
    let Group(group) = super::decode(WHAT, VERSION, bytes)?;
    Ok(group.to_vec())
}

struct Group([PageOwner; GROUP]);

impl Spell for Group {
    fn put(&self, out: &mut Out) {
        for owner in &self.0 {
            out.u32("owner: object * 8 + part (0 node, 1 overflow, 2 trunk, 3 empty) * 2 + is open", owner.bits());
        }
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let mut group = [PageOwner::UNKNOWN; GROUP];
        for owner in &mut group {
            *owner = PageOwner::of_bits(input.u32()?);
        }
        Ok(Self(group))
    }
}
