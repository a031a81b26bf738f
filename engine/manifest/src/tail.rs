//! What a data file lacks at its end.
//!
//! LMDB counts a page as its own when a transaction asks for it, and does not write one that the same transaction gave back. So a whole
//! file may end before its last page: what it lacks is free then, and says so itself. Whatever else is lacking was cut off.
//!
//! Here LMDB's own layout is read, past LMDB: asking it could touch a mapped page that is not there (U6). A file that makes no sense is
//! answered as one that was cut off.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

const MAGIC: u32 = 0xBEEF_C0DE;
/// Bytes in front of what a page holds.
const HEADER: usize = 16;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// A node whose value lies in pages of its own.
const BIG: u16 = 1;
/// No tree is higher.
const LEVELS_MAX: u32 = 32;

/// Whether all pages from `first` to `last` are free, as of the newest commit.
pub(crate) fn is_free(file: &File, page_bytes: usize, first: u64, last: u64) -> bool {
    let reader = Reader { file, page_bytes };
    let Some(root) = reader.free_list() else { return false };
    let mut free = BTreeSet::new();
    reader.gather(root, 0, &(first..=last), &mut free).is_some() && (first..=last).all(|page| free.contains(&page))
}

struct Reader<'a> {
    file: &'a File,
    page_bytes: usize,
}

impl Reader<'_> {
    fn bytes(&self, page: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, page.checked_mul(self.page_bytes as u64)?).ok()?;
        Some(bytes)
    }

    /// The root of the tree of free pages, of the newer one of the two beginnings.
    fn free_list(&self) -> Option<u64> {
        let begins = (0..2).filter_map(|page| {
            let bytes = self.bytes(page, self.page_bytes)?;
            let meta = bytes.get(HEADER..)?;
            (u32_at(meta, 0)? == MAGIC).then_some(())?;
            // Behind magic, version, address and size: two trees of 48 bytes, the free pages' first, its root last; then the last page and
            // the transaction.
            Some((u64_at(meta, 24 + 2 * 48 + 8)?, u64_at(meta, 24 + 40)?))
        });
        begins.max().map(|(_, root)| root)
    }

    /// Free pages among those that are wanted.
    fn gather(
        &self,
        page: u64,
        level: u32,
        wanted: &std::ops::RangeInclusive<u64>,
        free: &mut BTreeSet<u64>,
    ) -> Option<()> {
        if page == u64::MAX {
            return Some(());
        }
        let bytes = self.bytes(page, self.page_bytes).filter(|_| level < LEVELS_MAX)?;
        let (flags, lower) = (u16_at(&bytes, 10)?, usize::from(u16_at(&bytes, 12)?));
        let places = bytes.get(HEADER..lower)?.chunks_exact(2);
        for place in places {
            let node = bytes.get(usize::from(u16_at(place, 0)?)..)?;
            let [low, high, kind, key] = [0, 2, 4, 6].map(|at| u16_at(node, at));
            let (low, high, kind) = (u64::from(low?), u64::from(high?), kind?);
            if flags & BRANCH != 0 {
                self.gather(low | high << 16 | u64::from(kind) << 32, level + 1, wanted, free)?;
                continue;
            }
            (flags & LEAF != 0).then_some(())?;
            let value = node.get(8 + usize::from(key?)..)?;
            let len = usize::try_from(low | high << 16).ok()?;
            let list = match kind & BIG != 0 {
                true => self.bytes(u64_at(value, 0)?, HEADER.checked_add(len)?)?.split_off(HEADER),
                false => value.get(..len)?.to_vec(),
            };
            // Their count, then they.
            let pages =
                (1..=usize::try_from(u64_at(&list, 0)?).ok()?.min(list.len() / 8)).map(|nth| u64_at(&list, nth * 8));
            free.extend(pages.flatten().filter(|page| wanted.contains(page)));
        }
        Some(())
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    part(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    part(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    part(bytes, at).map(u64::from_le_bytes)
}
