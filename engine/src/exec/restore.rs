//! A database file from the object store: streamed, parallel, verified, resumable.
//!
//! What this room promises:
//! 1. Only the newest live version of each page is written, and every page of the database is: a page that no version holds is an
//!    error, never zeros (I5).
//! 2. Nothing is written that was not verified; nothing stands at the destination before everything is.
//! 3. Memory is bounded by the pieces in flight, whatever the database's size; requests by its stored bytes.

pub use littoral_types::At;

use super::at::{Found, find};
use super::fetch::blob_path;
use super::rebuild::{Rows, rows};
use crate::components::Components;
use crate::error::EngineError;
use crate::log::pins::{Pinned, Wish};
use crate::log::{Log, Opened};
use crate::logs::tables::{Brought, bring};
use littoral_format as format;
use littoral_local::output::Finished;
use littoral_local::{OutputFile, OutputState};
use littoral_plan::counted::{Looked, TABLE, counted};
use littoral_ports::{RemoteError, Unit};
use littoral_types::limits::{FRAME_PAGES_MAX, PIN_LIFE_MS, TRANSFERS_IN_FLIGHT};
use littoral_types::{
    BlobKind, BlobRef, ByteSpan, ChunkRow, ChunkSpan, CountedLog, Geometry, ObjectPath, PageNo, PageSize, PinPurpose,
    Position, Seq,
};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// One request's worth of stored bytes.
const PIECE_BYTES: u64 = 4 << 20;
/// Unwanted bytes between two wanted frames that are fetched along rather than asked for apart.
const GAP_BYTES: u64 = 256 << 10;
/// Chunks whose frames are gathered by blob before fetching: one pack serves many chunks.
const CHUNKS_AT_ONCE: usize = 16;
/// Pieces that were fetched, or are being fetched, and are not written yet: the link does not wait for the disk.
const PIECES_HELD: usize = 2 * TRANSFERS_IN_FLIGHT;
/// Threads that decompress, verify and write: more than that only take turns.
const WRITERS: usize = 4;
/// Neighbouring pages are written together, up to so many bytes.
const WRITE_BYTES: usize = 1 << 20;

// A frame fits, and fits behind another.
const _: () = assert!(WRITE_BYTES >= FRAME_PAGES_MAX * PageSize::MAX.len());

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The commit.
    pub position: Position,
    /// The record whose state it is.
    pub seq: Seq,
    /// When that commit was published.
    pub time_ms: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes that an earlier attempt had done.
    pub resumed: u64,
    /// Stored bytes that were fetched.
    pub fetched: u64,
    /// What stood in the way, and where it is now.
    pub finished: Finished,
    /// Whether a pin kept pruners away meanwhile.
    pub pinned: bool,
    /// The logs that are tables of it, where they are, and what became of each.
    pub logs: Vec<(CountedLog, PathBuf, Brought)>,
}

/// Opens the log at what the user asked for.
pub async fn open_at(log: &Log, at: &At) -> Result<Opened, EngineError> {
    find(log, at).await.map(|found| found.opened)
}

/// Restores to a plain file, and the logs that are tables of it to beside it.
pub async fn restore(
    log: &Log,
    components: &Components,
    at: &At,
    dest: &Path,
    force: bool,
) -> Result<Restored, EngineError> {
    restored(log, components, at, (dest, force), true).await
}

/// The same without its logs: of a file that is looked at, or takes another one's place.
pub async fn restore_alone(
    log: &Log,
    components: &Components,
    at: &At,
    dest: &Path,
    force: bool,
) -> Result<Restored, EngineError> {
    restored(log, components, at, (dest, force), false).await
}

async fn restored(
    log: &Log,
    components: &Components,
    at: &At,
    to: (&Path, bool),
    brings_logs: bool,
) -> Result<Restored, EngineError> {
    let Found { opened, point } = find(log, at).await?;
    EngineError::unless_database(&log.url(), opened.meta.kind, "littoral restore URL DEST makes a log of it again")?;
    let Some(page_size) = opened.tail.figures.page_size else {
        let detail = "nothing was checkpointed yet".to_owned();
        return Err(EngineError::NoSuchPosition { volume: log.url(), detail });
    };
    let (rows, pinned) = futures::future::join(rows(log, &opened), pin(log, components, &opened, at)).await;
    let pinned = pinned?;
    let written = match rows {
        Ok(rows) => write_out(log, components, opened, rows, page_size, to, brings_logs).await,
        Err(error) => Err(error),
    };
    if let Some(pinned) = &pinned
        && !written.as_ref().is_err_and(EngineError::is_crash)
        && let Err(error) = log.unpin(&pinned.key).await
    {
        tracing::warn!(%error, "the restore's pin was not taken back: it expires by itself");
    }
    Ok(Restored { pinned: pinned.is_some(), time_ms: point.time_ms, ..written? })
}

async fn write_out(
    log: &Log,
    components: &Components,
    opened: Opened,
    rows: Rows,
    page_size: PageSize,
    (dest, force): (&Path, bool),
    brings_logs: bool,
) -> Result<Restored, EngineError> {
    let job = Job { log: log.clone(), rows, geometry: Geometry::new(page_size), page_size, opened };
    let bytes = job.opened.tail.figures.page_count.0 * page_size.bytes();
    let state =
        OutputState { volume: job.opened.meta.id, record: job.opened.tail.hash, len: bytes, zeros: job.zero_bytes()? };
    let out = Arc::new(OutputFile::create(dest, force, state)?);
    let resumed = out.done_bytes();
    components.progress.phase("restoring", bytes, Unit::Bytes);
    components.progress.advance(resumed);
    let fetched = job.run(components, &out).await?;
    let out = Arc::into_inner(out)
        .ok_or_else(|| log.inconsistent("a writer of the restored file is still running".to_owned()))?;
    // Whoever resumes by it must resume at the right place.
    super::sessions::agree(log, &job.opened, page_size, &mut |offset, into| out.read_at(offset, into))?;
    // Its logs are there before it is.
    let looked = if brings_logs { counted_logs(&job, page_size, &out)? } else { Looked::Found(Vec::new()) };
    let logs = match looked {
        Looked::Found(logs) => Box::pin(bring(log, components, dest, &logs)).await?,
        Looked::Unreadable(what) => {
            tracing::warn!("its table {TABLE} says nothing that can be read of {what}: no log is brought");
            Vec::new()
        }
    };
    components.faults.reach("restore.written")?;
    let finished = tokio::task::spawn_blocking(move || out.finish())
        .await
        .map_err(|error| EngineError::Interrupted(format!("the last step was cut off: {error}")))??;
    let tail = job.opened.tail;
    let position = Position { epoch: tail.epoch, lsn: tail.lsn };
    Ok(Restored {
        position,
        seq: tail.seq,
        time_ms: tail.time_ms,
        bytes,
        resumed,
        fetched,
        finished,
        pinned: false,
        logs,
    })
}

/// The logs that the restored state counts rows of.
fn counted_logs(job: &Job, page_size: PageSize, out: &OutputFile) -> Result<Looked, EngineError> {
    let count = job.opened.tail.figures.page_count;
    let looked = counted(page_size, &mut |page| {
        let mut image = vec![0; page_size.len()];
        if count.holds(page) {
            out.read_at(page.index() * page_size.bytes(), &mut image)?;
        }
        Ok::<_, std::io::Error>(image)
    });
    looked.map_err(|error| EngineError::Interrupted(format!("what was restored cannot be read back: {error}")))
}

/// Keeps pruners away, where this reader may write at all.
pub(crate) async fn pin(
    log: &Log,
    components: &Components,
    opened: &Opened,
    at: &At,
) -> Result<Option<Pinned>, EngineError> {
    if matches!(at, At::Snapshot(_)) {
        return Ok(None);
    }
    let holder = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let wish = Wish { purpose: PinPurpose::Restore, holder, life_ms: Some(PIN_LIFE_MS) };
    match log.pin(components, opened, wish).await {
        Ok(Some(pinned)) => Ok(Some(pinned)),
        // The state may go while it is read. If it does, a blob is missing and the restore says so.
        Ok(None) => {
            tracing::warn!("a prune came between: restoring without a pin");
            Ok(None)
        }
        Err(EngineError::Remote(RemoteError::Denied { .. })) => {
            tracing::info!("this reader may not write to the object store: restoring without a pin");
            Ok(None)
        }
        // The one thing that a full object store is still good for must not fail.
        Err(EngineError::Remote(error @ RemoteError::Full { .. })) => {
            tracing::warn!(%error, "restoring without a pin: a prune that runs meanwhile may take what is being read");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

struct Job {
    log: Log,
    rows: Rows,
    geometry: Geometry,
    page_size: PageSize,
    opened: Opened,
}

/// One frame and where its pages go.
#[derive(Clone, Debug)]
struct Need {
    span: ByteSpan,
    /// Its blob's, as the row says.
    mark: u64,
    /// The pages it holds, in slot order.
    holds: Vec<PageNo>,
    /// The slots that are the newest live version of their page.
    wanted: Vec<usize>,
    chunk: ChunkSpan,
}

/// Where every page of one chunk comes from.
#[derive(Debug, Default)]
struct Cover {
    needs: BTreeMap<BlobRef, Vec<Need>>,
    zeros: Vec<PageNo>,
    /// Their newest versions are patches.
    patched: Vec<PageNo>,
}

/// Frames of one blob that one request brings.
#[derive(Debug)]
struct Piece {
    kind: BlobKind,
    path: ObjectPath,
    span: ByteSpan,
    needs: Vec<Need>,
}

impl Job {
    fn spans(&self) -> impl Iterator<Item = (littoral_types::ChunkId, ChunkSpan)> + '_ {
        let size = self.opened.tail.figures.page_count;
        (0..self.geometry.chunk_count(size))
            .map(littoral_types::ChunkId)
            .filter_map(move |chunk| self.geometry.span(chunk, size).map(|span| (chunk, span)))
    }

    fn zero_bytes(&self) -> Result<u64, EngineError> {
        let mut pages = 0;
        for (chunk, span) in self.spans() {
            // Most chunks are a base and nothing else, and need no look at each page.
            let base = self.rows.get(&chunk).filter(|row| row.deltas.is_empty()).and_then(|row| row.base.as_ref());
            let base = base.filter(|base| base.span == span && span.last().is_some_and(|last| last <= base.last_live));
            pages += match base.filter(|base| base.table.page_total() == span.count.0) {
                Some(base) => base.table.zeros().len(),
                None => self.cover(chunk, span)?.zeros.len() as u64,
            };
        }
        Ok(pages * self.page_size.bytes())
    }

    fn bytes(&self, span: ChunkSpan) -> ByteSpan {
        let page = self.page_size.bytes();
        ByteSpan { offset: span.first.index() * page, len: span.count.0 * page }
    }

    /// Finds every page of a chunk, or says which one no version holds.
    fn cover(&self, chunk: littoral_types::ChunkId, span: ChunkSpan) -> Result<Cover, EngineError> {
        let empty = ChunkRow::new(chunk);
        let row = self.rows.get(&chunk).unwrap_or(&empty);
        let base = row.base.iter().map(|base| (&base.blob, base.last_live, &base.table, false));
        let deltas = row.deltas.iter();
        let deltas = deltas.map(|delta| (&delta.blob, delta.last_live, &delta.table, delta.id.is_patch()));
        let versions: Vec<_> = base.chain(deltas).collect();
        // Later versions overwrite earlier ones: what remains is the newest live one.
        const ZERO: u32 = u32::MAX;
        const PATCHED: u32 = u32::MAX - 1;
        let mut places: Vec<Option<(usize, u32, u32)>> = vec![None; usize::try_from(span.count.0).unwrap_or(0)];
        for (version, (_, last_live, table, is_patch)) in versions.iter().enumerate() {
            let mut put = |page: PageNo, frame: u32, slot: u32| {
                let at = page.get().checked_sub(span.first.get()).and_then(|at| usize::try_from(at).ok());
                if let Some(place) = at.filter(|_| page <= *last_live).and_then(|at| places.get_mut(at)) {
                    *place = Some((version, frame, slot));
                }
            };
            for (frame, entry) in table.frames().enumerate() {
                for (slot, page) in entry.pages.iter().enumerate() {
                    put(page, if *is_patch { PATCHED } else { frame as u32 }, slot as u32);
                }
            }
            table.zeros().iter().for_each(|page| put(page, ZERO, 0));
        }
        let mut cover = Cover::default();
        let mut stored = Vec::with_capacity(places.len());
        for (page, place) in span.pages().zip(places) {
            match place {
                None => {
                    return Err(self.log.inconsistent(format!("page {page} of chunk {chunk} is in no version of it")));
                }
                Some((_, ZERO, _)) => cover.zeros.push(page),
                Some((_, PATCHED, _)) => cover.patched.push(page),
                Some(place) => stored.push(place),
            }
        }
        stored.sort_unstable();
        for slots in stored.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let Some((version, frame, _)) = slots.first() else { continue };
            let Some((blob, _, table, _)) = versions.get(*version) else { continue };
            let Some(entry) = table.frame(*frame as usize) else { continue };
            let wanted = slots.iter().map(|(_, _, slot)| *slot as usize).collect();
            let need = Need { span: entry.span, mark: table.mark, holds: entry.pages.to_vec(), wanted, chunk: span };
            match cover.needs.get_mut(*blob) {
                Some(needs) => needs.push(need),
                None => drop(cover.needs.insert((*blob).clone(), vec![need])),
            }
        }
        Ok(cover)
    }

    /// Fetches and writes everything that is not there yet. Gives the bytes fetched.
    async fn run(&self, components: &Components, out: &Arc<OutputFile>) -> Result<u64, EngineError> {
        let mut running: JoinSet<Result<(), EngineError>> = JoinSet::new();
        let writers = Arc::new(Semaphore::new(WRITERS));
        let done = self.transfer(components, out, &mut running, &writers).await;
        if done.is_err() {
            // Whoever tries again must find nobody at the file: what is under way ends, and writes that began are waited for.
            running.shutdown().await;
            drop(writers.acquire_many(WRITERS as u32).await);
        }
        done
    }

    async fn transfer(
        &self,
        components: &Components,
        out: &Arc<OutputFile>,
        running: &mut JoinSet<Result<(), EngineError>>,
        writers: &Arc<Semaphore>,
    ) -> Result<u64, EngineError> {
        let todo: Vec<_> = self.spans().filter(|(_, span)| !out.is_done(self.bytes(*span))).collect();
        let fetchers = Arc::new(Semaphore::new(TRANSFERS_IN_FLIGHT));
        let mut fetched = 0;
        for group in todo.chunks(CHUNKS_AT_ONCE) {
            let mut needs: BTreeMap<BlobRef, Vec<Need>> = BTreeMap::new();
            let mut left: HashMap<PageNo, usize> = HashMap::new();
            for (chunk, span) in group {
                let cover = self.cover(*chunk, *span)?;
                for (from, count) in runs(&cover.zeros) {
                    let page = self.page_size.bytes();
                    out.zero(ByteSpan { offset: from.index() * page, len: count * page })?;
                }
                fetched += self.patched(*chunk, &cover.patched, out).await?;
                let at_once = cover.zeros.len() + cover.patched.len();
                components.progress.advance(at_once as u64 * self.page_size.bytes());
                if cover.needs.is_empty() {
                    out.complete(self.bytes(*span))?;
                }
                left.insert(span.first, 0);
                for (blob, list) in cover.needs {
                    needs.entry(blob).or_default().extend(list);
                }
            }
            let mut pieces: Vec<Piece> = needs.into_iter().flat_map(|(blob, list)| self.pieces(&blob, list)).collect();
            // What serves many chunks comes first, then the file from its beginning: so chunk after chunk is complete, is
            // noted and goes to the disk while the others are still fetched.
            pieces
                .sort_by_key(|piece| (piece.kind != BlobKind::Pack, piece.needs.first().map(|need| need.chunk.first)));
            for need in pieces.iter().flat_map(|piece| &piece.needs) {
                *left.entry(need.chunk.first).or_default() += 1;
            }
            let left = Arc::new(std::sync::Mutex::new(left));
            for piece in pieces {
                while running.len() >= PIECES_HELD {
                    joined(running.join_next().await)?;
                }
                fetched += piece.span.len;
                let (remote, out, left) = (self.log.remote().clone(), out.clone(), left.clone());
                let (components, page_size, volume) = (components.clone(), self.page_size, self.log.url());
                let (fetchers, writers) = (fetchers.clone(), writers.clone());
                running.spawn(async move {
                    let piece = Arc::new(piece);
                    let mut wrong = 0;
                    loop {
                        let fetcher = fetchers.clone().acquire_owned().await;
                        let bytes = remote.get_range(&piece.path, piece.span).await?;
                        drop(fetcher);
                        let permit = writers.clone().acquire_owned().await;
                        let (piece, write_to) = (piece.clone(), (piece.clone(), out.clone(), left.clone()));
                        let (components, volume) = (components.clone(), volume.clone());
                        let write = move || {
                            let (piece, out, left) = write_to;
                            let written = write(&piece, &bytes, page_size, &out, &left, &components, &volume);
                            drop((out, permit));
                            written
                        };
                        let written = tokio::task::spawn_blocking(write).await;
                        let written = written
                            .map_err(|error| EngineError::Interrupted(format!("a write was cut off: {error}")))?;
                        match written {
                            Err(error) if error.is_wrong() && remote.distrust(&piece.path, wrong) => wrong += 1,
                            written => return written,
                        }
                    }
                });
            }
            components.faults.reach("restore.group")?;
        }
        while let Some(done) = running.join_next().await {
            joined(Some(done))?;
        }
        Ok(fetched)
    }

    /// Writes pages out of their patches and what those stand on: few, since the newest checkpoint. Gives the bytes they take.
    async fn patched(
        &self,
        chunk: littoral_types::ChunkId,
        pages: &[PageNo],
        out: &OutputFile,
    ) -> Result<u64, EngineError> {
        let Some(row) = self.rows.get(&chunk).filter(|_| !pages.is_empty()) else { return Ok(0) };
        let key = &self.opened.meta.identity_key;
        let images = super::fetch::pages(&self.log, row, self.page_size, key, pages).await?;
        for (page, image) in &images {
            out.write_at(page.index() * self.page_size.bytes(), image)?;
        }
        Ok(images.len() as u64 * self.page_size.bytes())
    }

    /// Neighbouring frames travel together.
    fn pieces(&self, blob: &BlobRef, mut needs: Vec<Need>) -> Vec<Piece> {
        needs.sort_unstable_by_key(|need| need.span.offset);
        let path = blob_path(&self.log, blob);
        let mut pieces: Vec<Piece> = Vec::new();
        for need in needs {
            let end = need.span.offset + need.span.len;
            let fitting = pieces.last_mut().filter(|piece| {
                let piece_end = piece.span.offset + piece.span.len;
                need.span.offset.saturating_sub(piece_end) <= GAP_BYTES
                    && end.saturating_sub(piece.span.offset) <= PIECE_BYTES
            });
            match fitting {
                Some(piece) => {
                    piece.span.len = end - piece.span.offset;
                    piece.needs.push(need);
                }
                None => {
                    let (kind, path) = (blob.name.kind, path.clone());
                    pieces.push(Piece { kind, path, span: need.span, needs: vec![need] });
                }
            }
        }
        pieces
    }
}

fn joined(done: Option<Result<Result<(), EngineError>, tokio::task::JoinError>>) -> Result<(), EngineError> {
    match done {
        None => Ok(()),
        Some(Ok(done)) => done,
        Some(Err(error)) => Err(EngineError::Interrupted(format!("a download was cut off: {error}"))),
    }
}

/// Consecutive pages as first and count.
fn runs(pages: &[PageNo]) -> impl Iterator<Item = (PageNo, u64)> + '_ {
    pages.chunk_by(|a, b| a.next() == *b).filter_map(|run| Some((*run.first()?, run.len() as u64)))
}

fn write(
    piece: &Piece,
    bytes: &[u8],
    page_size: PageSize,
    out: &OutputFile,
    left: &std::sync::Mutex<HashMap<PageNo, usize>>,
    components: &Components,
    volume: &str,
) -> Result<(), EngineError> {
    let beyond = || EngineError::Inconsistent {
        volume: volume.to_owned(),
        detail: format!("{}: a frame lies beyond its blob", piece.path),
    };
    let page_len = page_size.len();
    let raw_len = piece.needs.iter().map(|need| need.holds.len() * page_len).sum::<usize>();
    let mut gathering = Gathering::new(out, raw_len.min(WRITE_BYTES));
    let mut wanted = 0;
    for need in &piece.needs {
        let from = usize::try_from(need.span.offset - piece.span.offset).map_err(|_| beyond())?;
        let till = usize::try_from(need.span.len).ok().and_then(|len| from.checked_add(len)).ok_or_else(beyond)?;
        let stored = bytes.get(from..till).ok_or_else(beyond)?;
        let (at, raw) = gathering.room(need.holds.len() * page_len)?.ok_or_else(beyond)?;
        format::blob::read_frame_into(stored, page_size, need.mark, need.holds.iter().copied(), raw)
            .map_err(EngineError::damaged(&piece.path))?;
        // Neighbouring slots with neighbouring pages go out in one write.
        for run in need
            .wanted
            .chunk_by(|a, b| b == &(a + 1) && need.holds.get(*a).map(|page| page.next()) == need.holds.get(*b).copied())
        {
            let (Some(slot), Some(page)) = (run.first(), run.first().and_then(|slot| need.holds.get(*slot))) else {
                continue;
            };
            let start = at + slot * page_len;
            gathering.take(start..start + run.len() * page_len, page.index() * page_size.bytes())?;
        }
        wanted += need.wanted.len() as u64;
    }
    gathering.finish()?;
    components.progress.advance(wanted * page_size.bytes());
    for needs in piece.needs.chunk_by(|a, b| a.chunk == b.chunk) {
        let Some(chunk) = needs.first().map(|need| need.chunk) else { continue };
        let complete = {
            let mut left = left.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let frames = left.entry(chunk.first).or_default();
            *frames = frames.saturating_sub(needs.len());
            *frames == 0
        };
        if complete {
            let span =
                ByteSpan { offset: chunk.first.index() * page_size.bytes(), len: chunk.count.0 * page_size.bytes() };
            out.complete(span)?;
            components.progress.blob(&format!("pages {}..", chunk.first), span.len);
        }
    }
    Ok(())
}

/// Frames decompressed one behind the other, so that neighbours in the file go out in one write.
struct Gathering<'a> {
    out: &'a OutputFile,
    room: Vec<u8>,
    /// Where the next frame goes.
    end: usize,
    /// What is not written yet, and where in the file it begins.
    waiting: Option<(Range<usize>, u64)>,
}

impl<'a> Gathering<'a> {
    fn new(out: &'a OutputFile, room: usize) -> Self {
        Self { out, room: vec![0; room], end: 0, waiting: None }
    }

    /// Room for a frame's pages, and where in the room it is: `None` for more than any frame has.
    fn room(&mut self, len: usize) -> Result<Option<(usize, &mut [u8])>, EngineError> {
        if len > self.room.len() - self.end {
            self.write()?;
            self.end = 0;
        }
        let start = self.end;
        let Some(room) = self.room.get_mut(start..start + len) else { return Ok(None) };
        self.end += len;
        Ok(Some((start, room)))
    }

    /// These bytes of the room belong at this place of the file.
    fn take(&mut self, bytes: Range<usize>, offset: u64) -> Result<(), EngineError> {
        match &mut self.waiting {
            Some((waiting, begin)) if waiting.end == bytes.start && *begin + waiting.len() as u64 == offset => {
                waiting.end = bytes.end;
            }
            _ => {
                self.write()?;
                self.waiting = Some((bytes, offset));
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), EngineError> {
        if let Some((bytes, offset)) = self.waiting.take() {
            self.out.write_at(offset, &self.room[bytes])?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), EngineError> {
        self.write()
    }
}
