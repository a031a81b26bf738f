//! Rows of chunks: fetched once, a few neighbours in one request, kept while there is room.

use super::flight::{Failure, Flights};
use super::located::Located;
use super::state::{Directory, Start, State};
use crate::error::EngineError;
use crate::exec::fetch::blob_path;
use crate::log::Log;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_format as format;
use littoral_types::limits::{LAZY_ROWS_BYTES_MAX, TRANSFERS_IN_FLIGHT};
use littoral_types::{BlobRef, ByteSpan, ChunkId, ChunkRow, Geometry, Home, PageCount};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Chunks whose rows are asked for together.
pub(super) const CHUNKS_AT_ONCE: usize = 64;
/// Rows of one shard that one request brings.
const RUN_BYTES: u64 = 1 << 20;

type Loaded = BTreeMap<ChunkId, Arc<Located>>;

pub(super) struct Rows {
    log: Log,
    geometry: Geometry,
    page_count: PageCount,
    flights: Flights<(u64, ChunkId), Loaded>,
    kept: Mutex<Kept>,
}

/// The rows used last.
#[derive(Default)]
struct Kept {
    rows: HashMap<ChunkId, (Arc<Located>, u64)>,
    bytes: usize,
    tick: u64,
    /// Of which telling of the state.
    generation: u64,
}

/// A row on its way: from its shard, or from the operations alone.
struct Wanted {
    chunk: ChunkId,
    from: Option<(BlobRef, ByteSpan)>,
    /// What the directory knows it by.
    check: Option<u32>,
}

impl Rows {
    pub(super) fn new(log: Log, geometry: Geometry, page_count: PageCount) -> Self {
        Self { log, geometry, page_count, flights: Flights::new(), kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows of an earlier telling of the state say where things were.
    pub(super) fn forget(&self) {
        let mut kept = self.kept();
        let generation = kept.generation + 1;
        *kept = Kept { generation, ..Kept::default() };
    }

    pub(super) async fn one(self: &Arc<Self>, state: &Arc<State>, chunk: ChunkId) -> Result<Arc<Located>, Failure> {
        if let Some(kept) = self.kept().take(state.generation, chunk) {
            return Ok(kept);
        }
        let mut rows = self.load(state, vec![chunk]).await?;
        rows.remove(&chunk).ok_or_else(|| Arc::new(self.log.inconsistent(format!("chunk {chunk} was not read"))))
    }

    pub(super) async fn many(self: &Arc<Self>, state: &Arc<State>, chunks: &[ChunkId]) -> Result<Loaded, Failure> {
        let mut rows = Loaded::new();
        let mut missing = Vec::new();
        for chunk in chunks {
            match self.kept().take(state.generation, *chunk) {
                Some(kept) => drop(rows.insert(*chunk, kept)),
                None => missing.push(*chunk),
            }
        }
        if !missing.is_empty() {
            rows.append(&mut self.load(state, missing).await?);
        }
        Ok(rows)
    }

    async fn load(self: &Arc<Self>, state: &Arc<State>, chunks: Vec<ChunkId>) -> Result<Loaded, Failure> {
        let keys: Vec<(u64, ChunkId)> = chunks.iter().map(|chunk| (state.generation, *chunk)).collect();
        let flights = self.flights.join(keys, |missing| {
            let wanted = missing.into_iter().map(|(_, chunk)| Wanted::new(&state.directory, chunk));
            runs(wanted.collect()).into_iter().map(|run| self.launch(state, run)).collect()
        });
        let landed: Vec<Arc<Loaded>> = stream::iter(flights).buffered(TRANSFERS_IN_FLIGHT).try_collect().await?;
        let rows = landed.iter().flat_map(|rows| rows.iter());
        Ok(rows.filter(|(chunk, _)| chunks.contains(chunk)).map(|(chunk, row)| (*chunk, row.clone())).collect())
    }

    #[allow(clippy::type_complexity, reason = "what a flight is made of")]
    fn launch(
        self: &Arc<Self>,
        state: &Arc<State>,
        run: Vec<Wanted>,
    ) -> (Vec<(u64, ChunkId)>, BoxFuture<'static, Result<Arc<Loaded>, Failure>>) {
        let keys = run.iter().map(|wanted| (state.generation, wanted.chunk)).collect();
        let (rows, state) = (self.clone(), state.clone());
        let flight = async move {
            let loaded = rows.read(&state, run).await.map_err(Arc::new)?;
            rows.kept().put(state.generation, &loaded);
            Ok(Arc::new(loaded))
        };
        (keys, flight.boxed())
    }

    async fn read(&self, state: &State, run: Vec<Wanted>) -> Result<Loaded, EngineError> {
        let mut loaded = Loaded::new();
        for row in read(&self.log, &state.directory, run).await? {
            let chunk = row.chunk;
            let span = self.geometry.span(chunk, self.page_count);
            let span = span.ok_or_else(|| self.log.inconsistent(format!("the database ends before chunk {chunk}")))?;
            loaded.insert(chunk, Arc::new(Located::new(&self.log, &row, span)));
        }
        Ok(loaded)
    }
}

impl Wanted {
    fn new(directory: &Directory, chunk: ChunkId) -> Self {
        match directory.start_of(chunk) {
            Start::Nothing => Self { chunk, from: None, check: None },
            Start::Shard(shard, span) => {
                let check = format::shard::row_check(shard, chunk);
                Self { chunk, from: Some((shard.blob.clone(), span)), check }
            }
        }
    }
}

/// The rows of some chunks, whatever they are wanted for: neighbours in one request.
pub(crate) async fn rows_of(
    log: &Log,
    directory: &Directory,
    chunks: &[ChunkId],
) -> Result<Vec<ChunkRow>, EngineError> {
    let wanted = chunks.iter().map(|chunk| Wanted::new(directory, *chunk)).collect();
    let read: Vec<Vec<ChunkRow>> = stream::iter(runs(wanted))
        .map(|run| read(log, directory, run))
        .buffer_unordered(TRANSFERS_IN_FLIGHT)
        .try_collect()
        .await?;
    Ok(read.into_iter().flatten().collect())
}

/// One run's rows, verified and brought up to date; from wherever they are right.
async fn read(log: &Log, directory: &Directory, run: Vec<Wanted>) -> Result<Vec<ChunkRow>, EngineError> {
    let mut wrong = 0;
    loop {
        let read = read_once(log, directory, &run).await;
        let path = run.iter().find_map(|wanted| wanted.from.as_ref()).map(|(blob, _)| blob_path(log, blob));
        match (&read, path) {
            (Err(error), Some(path)) if error.is_wrong() && log.remote().distrust(&path, wrong) => wrong += 1,
            _ => return read,
        }
    }
}

async fn read_once(log: &Log, directory: &Directory, run: &[Wanted]) -> Result<Vec<ChunkRow>, EngineError> {
    let spans: Vec<&(BlobRef, ByteSpan)> = run.iter().filter_map(|wanted| wanted.from.as_ref()).collect();
    let fetched = match (spans.first(), spans.last()) {
        (Some((blob, first)), Some((_, last))) => {
            let path = blob_path(log, blob);
            let beyond = || log.inconsistent(format!("{path}: rows beyond 64 bits"));
            let end = last.end().ok_or_else(beyond)?;
            let span = ByteSpan { offset: first.offset, len: end.saturating_sub(first.offset) };
            let bytes = log.remote().get_range(&path, span).await?;
            Some((path, first.offset, bytes))
        }
        _ => None,
    };
    let mut rows = Vec::with_capacity(run.len());
    for Wanted { chunk, from, check } in run {
        let start = match (from, &fetched) {
            (Some((blob, span)), Some((path, offset, bytes))) => {
                let stored = usize::try_from(span.offset - offset).ok().zip(usize::try_from(span.len).ok());
                let stored = stored.and_then(|(from, len)| bytes.get(from..from.checked_add(len)?));
                let stored = stored.ok_or_else(|| log.inconsistent(format!("{path}: a row is cut off")))?;
                if check.is_some_and(|check| check != format::shard::check(stored)) {
                    return Err(log.inconsistent(format!("{path}: the row of chunk {chunk} is another blob's")));
                }
                let mut row = format::shard::decode_row(stored, *chunk)
                    .map_err(EngineError::damaged(format!("{path}: row of chunk {chunk}")))?;
                if let Home::Other(home) = &blob.home {
                    row.rehome(home);
                }
                row
            }
            _ => directory.here(*chunk),
        };
        rows.push(directory.finish(start));
    }
    Ok(rows)
}

/// Neighbouring rows of one shard travel together; rows that need no request make a run of their own.
fn runs(wanted: Vec<Wanted>) -> Vec<Vec<Wanted>> {
    let (mut from_shards, made): (Vec<Wanted>, Vec<Wanted>) =
        wanted.into_iter().partition(|wanted| wanted.from.is_some());
    from_shards.sort_by_key(|wanted| wanted.chunk);
    let mut runs: Vec<Vec<Wanted>> = Vec::new();
    for wanted in from_shards {
        let fits = |run: &&mut Vec<Wanted>| {
            let (Some(first), Some(last), Some((blob, span))) = (
                run.first().and_then(|first| first.from.as_ref()),
                run.last().and_then(|last| last.from.as_ref()),
                &wanted.from,
            ) else {
                return false;
            };
            last.0 == *blob
                && last.1.end() == Some(span.offset)
                && span.end().is_some_and(|end| end.saturating_sub(first.1.offset) <= RUN_BYTES)
        };
        match runs.last_mut().filter(fits) {
            Some(run) => run.push(wanted),
            None => runs.push(vec![wanted]),
        }
    }
    if !made.is_empty() {
        runs.push(made);
    }
    runs
}

impl Kept {
    fn take(&mut self, generation: u64, chunk: ChunkId) -> Option<Arc<Located>> {
        if generation != self.generation {
            return None;
        }
        self.tick += 1;
        let (row, used) = self.rows.get_mut(&chunk)?;
        *used = self.tick;
        Some(row.clone())
    }

    fn put(&mut self, generation: u64, loaded: &Loaded) {
        if generation != self.generation {
            return; // Read from a telling that was given up meanwhile.
        }
        for (chunk, row) in loaded {
            self.tick += 1;
            if let Some((old, _)) = self.rows.insert(*chunk, (row.clone(), self.tick)) {
                self.bytes = self.bytes.saturating_sub(old.bytes());
            }
            self.bytes += row.bytes();
            while self.bytes > LAZY_ROWS_BYTES_MAX && self.rows.len() > 1 {
                let Some(oldest) = self.rows.iter().min_by_key(|(_, (_, used))| *used).map(|(chunk, _)| *chunk) else {
                    break;
                };
                if let Some((old, _)) = self.rows.remove(&oldest) {
                    self.bytes = self.bytes.saturating_sub(old.bytes());
                }
            }
        }
    }
}
