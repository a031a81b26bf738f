//! What a database's tracker says, for who only looks: read like any file, without attaching to it, so that nobody who has the
//! database open notices, and nothing of it changes.

use super::residency::{self, Residency};
use super::{
    BANK_WORDS, BLOCK_BYTES, Dropped, HEADER_BYTES, MAGIC, Tracker, UNIT, WORD, at, commits_left, dropped, fence_text,
};
use crate::error::{LocalError, on};
use littoral_types::limits::CHUNK_BYTES;
use littoral_types::{Epoch, Lsn, PageCount, Position};
use std::path::Path;

/// What is known of a database that somebody may have open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    /// Commits that were counted and are not in the object store. A hint.
    pub commits_since: u64,
    /// Bytes that may have changed since; `None` when nothing is known, and the next checkpoint compares all pages.
    pub bytes_changed: Option<u64>,
    /// Why commits that wait cannot travel one by one any more, and since when the first of them waits, milliseconds since 1970.
    pub dropped: Option<(Dropped, u64)>,
    /// Whose term began since ours.
    pub fenced: Option<(Epoch, String)>,
    /// Up to where the object store has it, as far as anybody here has published.
    pub durable: Option<Position>,
    /// Since when the oldest commit waits that is not there, milliseconds since 1970.
    pub waiting_since_ms: Option<u64>,
    /// Since when shipping fails, milliseconds since 1970.
    pub failed_since_ms: Option<u64>,
    /// When whoever was elected to ship showed last that it lives, milliseconds since 1970.
    pub beat_ms: Option<u64>,
}

/// Where a database is not all here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeekSparse {
    /// What its pages are fetched from.
    pub position: Position,
    /// How many of those are here.
    pub here: u64,
    /// How many of those differ from it: not to be evicted.
    pub written: u64,
    /// How many were evicted so far.
    pub evicted: u64,
    /// Bytes of a page.
    pub page_size: u64,
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
    let durable = Position { epoch: Epoch(word(at::POSITION)), lsn: Lsn(word(at::POSITION + 1)) };
    let commits_since = commits_left(word);
    let since = |at: usize| Some(word(at)).filter(|ms| *ms != 0);
    Ok(Some(Peek {
        commits_since,
        bytes_changed,
        dropped: dropped(word),
        fenced,
        durable: Some(durable).filter(|durable| durable.epoch.0 != 0),
        waiting_since_ms: since(at::WAITING_MS).filter(|_| commits_since > 0),
        failed_since_ms: since(at::FAILED_MS),
        beat_ms: since(at::BEAT_MS),
    }))
}

/// Looks at a database's bitmap of pages. `None` where all of it is here.
pub fn peek_sparse(store_root: &Path, database: &Path) -> Result<Option<PeekSparse>, LocalError> {
    let words = words_of(&Residency::path_of(store_root, database))?;
    Ok(words.as_deref().and_then(residency::peek))
}

/// What is known of one chunk of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkPeek {
    /// Bytes that may have changed since the last checkpoint.
    pub changed: u64,
    /// Pages that are here; `None` where all of the database is.
    pub here: Option<u64>,
}

/// Looks at a database's marks chunk by chunk, as far as there are any.
pub fn peek_chunks(store_root: &Path, database: &Path) -> Result<Vec<ChunkPeek>, LocalError> {
    let mut chunks: Vec<ChunkPeek> = Vec::new();
    let block_words = BLOCK_BYTES as usize / WORD;
    if let Some(words) = words_of(&Tracker::path_of(store_root, database))?
        && words.get(at::MAGIC) == Some(&MAGIC)
    {
        let blocks = usize::try_from(words.get(at::BLOCKS).copied().unwrap_or(0)).unwrap_or(usize::MAX);
        let all = words.get(HEADER_BYTES as usize / WORD..).unwrap_or_default();
        for block in all.chunks_exact(block_words).take(blocks) {
            let (one, other) = block.split_at(BANK_WORDS);
            let marked: Vec<u64> =
                one.iter().zip(other).map(|(one, other)| u64::from((one | other).count_ones())).collect();
            let of_chunk = |words: &[u64]| ChunkPeek { changed: words.iter().sum::<u64>() * UNIT, here: None };
            chunks.extend(marked.chunks(CHUNK_WORDS).map(of_chunk));
        }
    }
    if let Some(words) = words_of(&Residency::path_of(store_root, database))? {
        for (nth, here) in residency::peek_chunks(&words).into_iter().enumerate() {
            if chunks.len() <= nth {
                chunks.resize(nth + 1, ChunkPeek::default());
            }
            if let Some(chunk) = chunks.get_mut(nth) {
                chunk.here = Some(here);
            }
        }
    }
    Ok(chunks)
}

/// Words of marks of one chunk.
const CHUNK_WORDS: usize = (CHUNK_BYTES / UNIT / 64) as usize;
const _: () = assert!(BANK_WORDS.is_multiple_of(CHUNK_WORDS), "a chunk's marks lie in two blocks");

pub(super) fn words_of(path: &Path) -> Result<Option<Vec<u64>>, LocalError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(on("read", path)(error)),
    };
    let word = |chunk: &[u8]| chunk.try_into().map_or(0, u64::from_le_bytes);
    Ok(Some(bytes.chunks_exact(WORD).map(word).collect()))
}
