//! Frames from blobs: verified, neighbours together, each once for all who want it.

use super::flight::{Failure, Flights};
use super::located::{Located, Need};
use crate::error::EngineError;
use crate::log::Log;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_format as format;
use littoral_types::limits::TRANSFERS_IN_FLIGHT;
use littoral_types::{BlobName, ByteSpan, PageNo, PageSize};
use std::fmt;
use std::sync::Arc;

/// Stored bytes that one request brings at most.
const RUN_BYTES: u64 = 8 << 20;
/// Bytes that nobody wants between two frames, fetched along rather than asked for apart.
const GAP_BYTES: u64 = 64 << 10;
/// All such bytes of one request may be this part of those that are wanted, or the least below.
const WASTE_PART: u64 = 16;
const WASTE_BYTES: u64 = 32 << 10;
/// Small requests may be under way in greater number: as many as together bring this, but no more than the bound below.
const IN_FLIGHT_BYTES: u64 = 32 << 20;
const IN_FLIGHT_MAX: u64 = 128;
/// Frames of one request beyond which they are unpacked on a thread of their own.
const UNPACK_INLINE: usize = 4;

/// The live pages of one frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Ascending.
    pub pages: Vec<(PageNo, Bytes)>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pages.iter().map(|(page, _)| page)).finish()
    }
}

impl Frame {
    /// One of its pages.
    pub fn page(&self, page: PageNo) -> Option<&Bytes> {
        let at = self.pages.binary_search_by_key(&page, |(page, _)| *page).ok()?;
        self.pages.get(at).map(|(_, image)| image)
    }
}

/// How far [`super::Lazy::fetch_many`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Stored bytes of frames. One frame is always fetched.
    pub bytes: u64,
    /// Large requests under way at once; of small ones more.
    pub in_flight: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: 64 << 20, in_flight: TRANSFERS_IN_FLIGHT }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// Every frame once, with all its live pages, in no particular order.
    pub frames: Vec<Arc<Frame>>,
    /// Pages that the budget did not reach, ascending.
    pub left: Vec<PageNo>,
}

/// A frame's name.
type Key = (BlobName, u64);

/// What a request brought, each frame with what came of it: a damaged frame is nobody else's fault.
type Run = Vec<(Key, Result<Arc<Frame>, Failure>)>;

#[derive(Debug)]
pub(super) struct Frames {
    log: Log,
    page_size: PageSize,
    flights: Flights<Key, Run>,
}

impl Frames {
    pub(super) fn new(log: Log, page_size: PageSize) -> Self {
        Self { log, page_size, flights: Flights::new() }
    }

    pub(super) async fn one(&self, located: &Located, frame: usize) -> Result<Arc<Frame>, Failure> {
        let gone = || Arc::new(self.log.inconsistent("a frame is not in its own table".to_owned()));
        let need = located.need(frame).ok_or_else(gone)?;
        let key = key(&need);
        let flights = self.flights.join(vec![key], |_| vec![self.launch(vec![need])]);
        let Some(flight) = flights.into_iter().next() else { return Err(gone()) };
        let run = flight.await?;
        run.iter().find(|(found, _)| *found == key).map(|(_, frame)| frame.clone()).ok_or_else(gone)?
    }

    pub(super) async fn many(
        &self,
        chosen: &[(Arc<Located>, Vec<usize>)],
        in_flight: usize,
    ) -> Result<Vec<Arc<Frame>>, Failure> {
        let mut needs: Vec<Need> = chosen
            .iter()
            .flat_map(|(located, frames)| frames.iter().filter_map(|frame| located.need(*frame)))
            .collect();
        needs.sort_by_key(key);
        let keys: Vec<Key> = needs.iter().map(key).collect();
        let mut largest = 1;
        let flights = self.flights.join(keys.clone(), |missing| {
            needs.retain(|need| missing.binary_search(&key(need)).is_ok());
            let runs = runs(needs);
            let lens = runs.iter().map(|run| run.iter().map(|need| need.span.len).sum::<u64>());
            largest = lens.max().unwrap_or(1).max(1);
            runs.into_iter().map(|run| self.launch(run)).collect()
        });
        let many = usize::try_from((IN_FLIGHT_BYTES / largest).min(IN_FLIGHT_MAX)).unwrap_or(1);
        let in_flight = if in_flight > 1 { in_flight.max(many) } else { 1 };
        let landed: Vec<Arc<Run>> = stream::iter(flights).buffer_unordered(in_flight).try_collect().await?;
        let mut frames = Vec::with_capacity(keys.len());
        // A flight that was joined may bring more than was asked for.
        for (found, frame) in landed.iter().flat_map(|run| run.iter()) {
            if keys.binary_search(found).is_ok() {
                frames.push(frame.clone()?);
            }
        }
        Ok(frames)
    }

    #[allow(clippy::type_complexity, reason = "what a flight is made of")]
    fn launch(&self, run: Vec<Need>) -> (Vec<Key>, BoxFuture<'static, Result<Arc<Run>, Failure>>) {
        let keys = run.iter().map(key).collect();
        let (log, page_size) = (self.log.clone(), self.page_size);
        (keys, async move { fetch(log, page_size, run).await.map(Arc::new).map_err(Arc::new) }.boxed())
    }
}

fn key(need: &Need) -> Key {
    (need.name, need.span.offset)
}

/// Neighbouring frames of one blob, as one request brings them. Frames come sorted by blob and place.
fn runs(needs: Vec<Need>) -> Vec<Vec<Need>> {
    let mut runs: Vec<Vec<Need>> = Vec::new();
    let (mut wanted, mut waste) = (0, 0);
    for need in needs {
        let len = need.span.len;
        let gap = runs.last().and_then(|run| run.last()).and_then(|last| {
            let gap = need.span.offset.checked_sub(last.span.end()?)?;
            (last.name == need.name && last.path == need.path).then_some(gap)
        });
        let fits = |gap: &u64| {
            let allowed = WASTE_BYTES.max((wanted + len) / WASTE_PART);
            *gap <= GAP_BYTES && waste + gap <= allowed && wanted + waste + gap + len <= RUN_BYTES
        };
        match (gap.filter(fits), runs.last_mut()) {
            (Some(gap), Some(run)) => {
                run.push(need);
                (wanted, waste) = (wanted + len, waste + gap);
            }
            _ => {
                runs.push(vec![need]);
                (wanted, waste) = (len, 0);
            }
        }
    }
    runs
}

async fn fetch(log: Log, page_size: PageSize, run: Vec<Need>) -> Result<Run, EngineError> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(Run::new()) };
    let beyond = || log.inconsistent(format!("{}: a frame beyond 64 bits", first.path));
    let start = first.span.offset;
    let end = last.span.end().ok_or_else(beyond)?;
    let (path, span) = (first.path.clone(), ByteSpan { offset: start, len: end.saturating_sub(start) });
    let run = Arc::new(run);
    let mut wrong = 0;
    loop {
        let bytes = log.remote().get_range(&path, span).await?;
        let unpacked = match run.len() <= UNPACK_INLINE {
            true => unpack_all(&log, page_size, &run, start, &bytes),
            false => {
                let (log, run) = (log.clone(), run.clone());
                let unpacking = tokio::task::spawn_blocking(move || unpack_all(&log, page_size, &run, start, &bytes));
                let cut = |error| EngineError::Interrupted(format!("unpacking frames was cut off: {error}"));
                unpacking.await.map_err(cut)?
            }
        };
        let is_wrong = unpacked.iter().any(|(_, frame)| frame.as_ref().is_err_and(|error| error.is_wrong()));
        if !is_wrong || !log.remote().distrust(&path, wrong) {
            return Ok(unpacked);
        }
        wrong += 1;
    }
}

fn unpack_all(log: &Log, page_size: PageSize, run: &[Need], start: u64, bytes: &Bytes) -> Run {
    let unpacked = run.iter().map(|need| {
        let frame = unpack(log, page_size, need, start, bytes);
        (key(need), frame.map(Arc::new).map_err(Arc::new))
    });
    unpacked.collect()
}

/// Verifies a frame (its own sum, its blob's mark, its pages) and takes the live ones out of it.
fn unpack(log: &Log, page_size: PageSize, need: &Need, start: u64, bytes: &Bytes) -> Result<Frame, EngineError> {
    let stored = usize::try_from(need.span.offset - start).ok().zip(usize::try_from(need.span.len).ok());
    let stored = stored.and_then(|(from, len)| bytes.get(from..from.checked_add(len)?));
    let stored = stored.ok_or_else(|| log.inconsistent(format!("{}: a frame is cut off", need.path)))?;
    let holds: Vec<PageNo> = need.slots.iter().map(|(page, _)| *page).collect();
    let raw =
        format::blob::read_frame(stored, page_size, need.mark, &holds).map_err(EngineError::damaged(&need.path))?;
    let raw = Bytes::from(raw);
    let live = need.slots.iter().enumerate().filter(|(_, (_, live))| *live);
    let pages = live.map(|(slot, (page, _))| {
        let at = slot * page_size.len();
        (*page, raw.slice(at..at + page_size.len()))
    });
    Ok(Frame { pages: pages.collect() })
}
