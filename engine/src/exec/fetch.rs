//! Frames from the object store: one ranged GET each, verified before use.

use crate::error::EngineError;
use crate::log::Log;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_format as format;
use littoral_format::keys;
use littoral_format::patch::Patch;
use littoral_types::limits::TRANSFERS_IN_FLIGHT;
use littoral_types::{
    BlobRef, ByteSpan, ChunkRow, DeltaId, FrameEntry, Home, IdentityKey, ObjectPath, PageNo, PagePlace, PageSize,
};
use std::collections::{BTreeMap, HashMap};

/// Frames of one blob that lie closer together than this travel in one request.
const GAP_BYTES: u64 = 64 << 10;

/// Where a blob is.
pub fn blob_path(log: &Log, blob: &BlobRef) -> ObjectPath {
    let home = match &blob.home {
        Home::Own => log.name(),
        Home::Other(name) => name,
    };
    keys::blob(home, &blob.name)
}

/// The newest versions of some pages of a chunk, by page; a patched one out of all that it stands on. A page that no live version
/// holds is an error: a page that cannot be produced is never zeros (I5).
pub async fn pages(
    log: &Log,
    row: &ChunkRow,
    page_size: PageSize,
    key: &IdentityKey,
    wanted: &[PageNo],
) -> Result<BTreeMap<PageNo, Bytes>, EngineError> {
    let mut frames: BTreeMap<Place, Wanted> = BTreeMap::new();
    // Of each page its newest version and what that stands on, newest first.
    let mut chains: Vec<(PageNo, Vec<Link>)> = Vec::new();
    for page in wanted {
        let chain = row.chain(*page);
        if chain.is_empty() {
            return Err(log.inconsistent(format!("page {page} of chunk {} is in no version of it", row.chunk)));
        }
        let mut links = Vec::with_capacity(chain.len());
        for found in chain {
            let PagePlace::Slot { frame, slot } = found.place else {
                links.push(None);
                continue;
            };
            let entry = found.table.frame(frame);
            let entry = entry.ok_or_else(|| log.inconsistent("a frame is not in its own table".to_owned()))?;
            let place = (blob_path(log, found.blob), entry.span.offset);
            frames.entry(place.clone()).or_insert_with(|| Wanted {
                mark: found.table.mark,
                is_patch: found.delta.is_some_and(DeltaId::is_patch),
                entry: entry.to_entry(),
            });
            links.push(Some((place, slot)));
        }
        chains.push((*page, links));
    }
    let fetched: Vec<Vec<(Place, Held)>> = stream::iter(runs(frames))
        .map(|run| async move { fetch_run(log, page_size, run).await })
        .buffer_unordered(TRANSFERS_IN_FLIGHT)
        .try_collect()
        .await?;
    let held: HashMap<Place, Held> = fetched.into_iter().flatten().collect();
    let mut found = BTreeMap::new();
    for (page, links) in chains {
        let mut image: Option<Bytes> = None;
        for link in links.iter().rev() {
            let Some((place, slot)) = link else {
                image = Some(Bytes::from(vec![0; page_size.len()]));
                continue;
            };
            image = match (held.get(place), image) {
                (Some(Held::Whole(raw)), None) => {
                    let at = slot * page_size.len();
                    Some(raw.slice(at..at + page_size.len()))
                }
                (Some(Held::Patches(patches)), Some(before)) => match patches.get(*slot) {
                    Some(patch) => {
                        Some(Bytes::from(patch.apply(&before, key).map_err(EngineError::damaged(&place.0))?))
                    }
                    None => None,
                },
                _ => None,
            };
        }
        let gone = || log.inconsistent(format!("what page {page} of chunk {} stands on is not there", row.chunk));
        found.insert(page, image.ok_or_else(gone)?);
    }
    Ok(found)
}

/// A frame's object, and where in it.
type Place = (ObjectPath, u64);

/// One version of a page: its frame and slot; nothing for zeros.
type Link = Option<(Place, usize)>;

/// A frame that is to be fetched.
struct Wanted {
    /// Its blob's.
    mark: u64,
    is_patch: bool,
    entry: FrameEntry,
}

/// What a frame holds.
enum Held {
    /// Its pages, one after another.
    Whole(Bytes),
    /// By slot.
    Patches(Vec<Patch>),
}

/// Neighbouring frames of one blob, so that one request brings them.
fn runs(frames: BTreeMap<Place, Wanted>) -> Vec<Vec<(Place, Wanted)>> {
    let mut runs: Vec<Vec<(Place, Wanted)>> = Vec::new();
    for (place, frame) in frames {
        let near = runs.last().and_then(|run| run.last()).is_some_and(|((path, _), last)| {
            let end = last.entry.span.offset + last.entry.span.len;
            *path == place.0 && place.1 >= end && place.1 - end <= GAP_BYTES
        });
        match runs.last_mut().filter(|_| near) {
            Some(run) => run.push((place, frame)),
            None => runs.push(vec![(place, frame)]),
        }
    }
    runs
}

async fn fetch_run(
    log: &Log,
    page_size: PageSize,
    run: Vec<(Place, Wanted)>,
) -> Result<Vec<(Place, Held)>, EngineError> {
    let mut wrong = 0;
    loop {
        match (fetch_once(log, page_size, &run).await, run.first()) {
            (Err(error), Some(((path, _), _))) if error.is_wrong() && log.remote().distrust(path, wrong) => wrong += 1,
            (fetched, _) => return fetched,
        }
    }
}

async fn fetch_once(
    log: &Log,
    page_size: PageSize,
    run: &[(Place, Wanted)],
) -> Result<Vec<(Place, Held)>, EngineError> {
    let (Some(((path, start), _)), Some((_, last))) = (run.first(), run.last()) else { return Ok(Vec::new()) };
    let (path, start) = (path.clone(), *start);
    let span = ByteSpan { offset: start, len: last.entry.span.offset + last.entry.span.len - start };
    let bytes = log.remote().get_range(&path, span).await?;
    let mut held = Vec::with_capacity(run.len());
    for (place, Wanted { mark, is_patch, entry }) in run {
        let from = usize::try_from(entry.span.offset - start).unwrap_or(usize::MAX);
        let till = from.saturating_add(usize::try_from(entry.span.len).unwrap_or(usize::MAX));
        let stored = bytes
            .get(from..till)
            .ok_or_else(|| log.inconsistent(format!("{path}: a frame lies beyond what was fetched")))?;
        let harm = EngineError::damaged(&path);
        let (mark, found) = (*mark, *is_patch);
        let found = match found {
            true => {
                Held::Patches(format::patch::read(stored, page_size, mark, entry.pages.iter().copied()).map_err(harm)?)
            }
            false => {
                let raw = format::blob::read_frame(stored, page_size, mark, &entry.pages).map_err(harm)?;
                Held::Whole(Bytes::from(raw))
            }
        };
        held.push((place.clone(), found));
    }
    Ok(held)
}

/// A blob's index, read from its end.
pub async fn index(log: &Log, blob: &BlobRef) -> Result<format::blob::Index, EngineError> {
    let path = blob_path(log, blob);
    let mut ask = format::blob::SUFFIX_GUESS.min(blob.len);
    loop {
        let (suffix, len) = log.remote().get_suffix(&path, ask).await?;
        if len != blob.len {
            return Err(log.inconsistent(format!("{path} has {len} bytes, its row says {}", blob.len)));
        }
        match format::blob::read_index(&suffix, len).map_err(EngineError::damaged(&path))? {
            format::blob::Footer::Index(index) => return Ok(index),
            format::blob::Footer::Need(bytes) if bytes > ask && bytes <= len => ask = bytes,
            format::blob::Footer::Need(bytes) => {
                return Err(log.inconsistent(format!("{path} asks for {bytes} bytes of footer and has {len}")));
            }
        }
    }
}
