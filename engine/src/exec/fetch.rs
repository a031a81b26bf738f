//! Frames from the object store: one ranged GET each, verified before use.

use crate::error::EngineError;
use crate::log::Log;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_format as format;
use littoral_format::keys;
use littoral_types::limits::TRANSFERS_IN_FLIGHT;
use littoral_types::{BlobRef, ByteSpan, ChunkRow, FrameEntry, Home, ObjectPath, PageNo, PagePlace, PageSize};
use std::collections::BTreeMap;

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

/// The newest versions of some pages of a chunk, by page. A page that no live version holds is an error: a page that cannot be
/// produced is never zeros (I5).
pub async fn pages(
    log: &Log,
    row: &ChunkRow,
    page_size: PageSize,
    wanted: &[PageNo],
) -> Result<BTreeMap<PageNo, Bytes>, EngineError> {
    let mut found = BTreeMap::new();
    let mut frames: BTreeMap<(String, u64), Wanted> = BTreeMap::new();
    for page in wanted {
        let Some(place) = row.find(*page) else {
            return Err(log.inconsistent(format!("page {page} of chunk {} is in no version of it", row.chunk)));
        };
        match place.place {
            PagePlace::Zero => {
                found.insert(*page, Bytes::from(vec![0; page_size.len()]));
            }
            PagePlace::Slot { frame, slot } => {
                let entry = place
                    .table
                    .frame(frame)
                    .ok_or_else(|| log.inconsistent("a frame is not in its own table".to_owned()))?;
                let key = (blob_path(log, place.blob).to_string(), entry.span.offset);
                frames
                    .entry(key)
                    .or_insert_with(|| (place.blob.clone(), place.table.mark, entry.to_entry(), Vec::new()))
                    .3
                    .push((*page, slot));
            }
        }
    }
    let runs = runs(frames.into_values().collect());
    let fetched: Vec<Vec<(PageNo, Bytes)>> = stream::iter(runs)
        .map(|run| async move { fetch_run(log, page_size, run).await })
        .buffer_unordered(TRANSFERS_IN_FLIGHT)
        .try_collect()
        .await?;
    found.extend(fetched.into_iter().flatten());
    Ok(found)
}

/// A frame: its blob, that blob's mark, its place, and which pages are wanted of which slots.
type Wanted = (BlobRef, u64, FrameEntry, Vec<(PageNo, usize)>);

/// Neighbouring frames of one blob, so that one request brings them.
fn runs(frames: Vec<Wanted>) -> Vec<Vec<Wanted>> {
    let mut runs: Vec<Vec<Wanted>> = Vec::new();
    for frame in frames {
        let near = runs.last().and_then(|run| run.last()).is_some_and(|(blob, _, entry, _)| {
            let end = entry.span.offset + entry.span.len;
            *blob == frame.0 && frame.2.span.offset >= end && frame.2.span.offset - end <= GAP_BYTES
        });
        match runs.last_mut().filter(|_| near) {
            Some(run) => run.push(frame),
            None => runs.push(vec![frame]),
        }
    }
    runs
}

async fn fetch_run(log: &Log, page_size: PageSize, run: Vec<Wanted>) -> Result<Vec<(PageNo, Bytes)>, EngineError> {
    let (Some((blob, _, first, _)), Some((_, _, last, _))) = (run.first(), run.last()) else { return Ok(Vec::new()) };
    let path = blob_path(log, blob);
    let start = first.span.offset;
    let span = ByteSpan { offset: start, len: last.span.offset + last.span.len - start };
    let bytes = log.remote().get_range(&path, span).await?;
    let mut pages = Vec::new();
    for (_, mark, entry, wanted) in &run {
        let from = usize::try_from(entry.span.offset - start).unwrap_or(usize::MAX);
        let till = from.saturating_add(usize::try_from(entry.span.len).unwrap_or(usize::MAX));
        let stored = bytes
            .get(from..till)
            .ok_or_else(|| log.inconsistent(format!("{path}: a frame lies beyond what was fetched")))?;
        let raw = Bytes::from(
            format::blob::read_frame(stored, page_size, *mark, &entry.pages).map_err(EngineError::damaged(&path))?,
        );
        for (page, slot) in wanted {
            let at = slot * page_size.len();
            pages.push((*page, raw.slice(at..at + page_size.len())));
        }
    }
    Ok(pages)
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
