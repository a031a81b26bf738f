//! What a database's tracker says, for who only looks: read like any file, without attaching to it, so that nobody who has the
//! database open notices, and nothing of it changes.

use super::residency::{self, Residency};
use super::{BANK_WORDS, BLOCK_BYTES, HEADER_BYTES, MAGIC, Tracker, UNIT, WORD, at, commits_left, fence_text};
use crate::error::{LocalError, on};
use littoral_types::{Epoch, PageCount, Position};
use std::path::Path;

/// What is known of a database that somebody may have open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    /// Commits that were counted and are not in the object store. A hint.
    pub commits_since: u64,
    /// Bytes that may have changed since; `None` when nothing is known, and the next checkpoint compares all pages.
    pub bytes_changed: Option<u64>,
    /// Whose term began since ours.
    pub fenced: Option<(Epoch, String)>,
}

/// Where a database is not all here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeekSparse {
    /// What its pages are fetched from.
    pub position: Position,
    /// How many of those are here.
    pub here: u64,
    /// Of how many.
    pub pages: PageCount,
}

/// Looks at a database's tracker. `None` where it was never open here, or the tracker is of no use.
pub fn peek(store_root: &Path, database: &Path) -> Result<Option<Peek>, LocalError> {
    let path = Tracker::path_of(store_root, database);
    let Some(words) = words_of(&path)? else { return Ok(None) };
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    if word(at::MAGIC) != MAGIC {
        return Ok(None);
    }
    let known = word(at::UNKNOWN) | word(at::UNKNOWN + 1) == 0 && word(at::BASE_SET) == 1;
    let block_words = BLOCK_BYTES as usize / WORD;
    let blocks = words.get(HEADER_BYTES as usize / WORD..).unwrap_or_default().chunks_exact(block_words);
    let blocks = blocks.take(usize::try_from(word(at::BLOCKS)).unwrap_or(usize::MAX));
    let marked = blocks.flat_map(|block| {
        let (one, other) = block.split_at(BANK_WORDS);
        one.iter().zip(other).map(|(one, other)| u64::from((one | other).count_ones()))
    });
    let bytes_changed = known.then(|| marked.sum::<u64>() * UNIT);
    let fenced = (word(at::FENCED) != 0).then(|| (Epoch(word(at::FENCED)), fence_text(word)));
    Ok(Some(Peek { commits_since: commits_left(word), bytes_changed, fenced }))
}

/// Looks at a database's bitmap of pages. `None` where all of it is here.
pub fn peek_sparse(store_root: &Path, database: &Path) -> Result<Option<PeekSparse>, LocalError> {
    let words = words_of(&Residency::path_of(store_root, database))?;
    Ok(words.as_deref().and_then(residency::peek))
}

fn words_of(path: &Path) -> Result<Option<Vec<u64>>, LocalError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(on("read", path)(error)),
    };
    let word = |chunk: &[u8]| chunk.try_into().map_or(0, u64::from_le_bytes);
    Ok(Some(bytes.chunks_exact(WORD).map(word).collect()))
}
