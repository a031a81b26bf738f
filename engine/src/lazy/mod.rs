//! A volume read page by page, as of one state, from a machine that has nothing of it.
//!
//! What this room promises:
//! 1. Opening costs the requests of [`Log::open`] and no more, whatever the database's size; pages of the skeleton cost none.
//! 2. A page is the one of the state that was opened (rule S4): its newest version that no truncation has killed (rule S11),
//!    verified; zeros only where zeros are recorded; a page that no version holds is an error (I5).
//! 3. Readers of one frame, and of one chunk's row, that come at once share one request.
//! 4. What is gone is looked for once more in the same state as the log tells it now, before it is an error (rule P2). A pin
//!    keeps pruners away; it is put behind the reader's back, and renewed.
//! 5. Memory is bounded by [`limits::LAZY_ROWS_BYTES_MAX`], [`limits::LAZY_RECORDS_BYTES_MAX`] and what is under way.
//!
//! What may never enter: SQLite, local files, what is resident: the VFS knows that.
//! Read next: `state.rs` (what a state is made of), `located.rs` (where a chunk's pages are), `frames.rs` (how they come), `kept.rs` (what came with the opening).
//!
//! [`limits::LAZY_ROWS_BYTES_MAX`]: littoral_types::limits::LAZY_ROWS_BYTES_MAX
//! [`limits::LAZY_RECORDS_BYTES_MAX`]: littoral_types::limits::LAZY_RECORDS_BYTES_MAX

mod flight;
mod frames;
mod holding;
mod kept;
mod located;
pub(crate) mod rows;
pub(crate) mod state;

pub use flight::Failure;
pub use frames::{Budget, Fetched, Frame};
pub use holding::Held;

use crate::components::Components;
use crate::error::EngineError;
use crate::exec::fetch;
use crate::exec::restore::{At, open_at};
use crate::log::read::is_missing;
use crate::log::{Log, Opened};
use bytes::Bytes;
use frames::Frames;
use futures::future::try_join_all;
use holding::Holding;
use kept::Kept;
use littoral_types::{ChunkId, Geometry, IdentityKey, PageCount, PageNo, PageSize, Position, Seq, VolumeId};
use located::{Located, Place};
use rows::Rows;
use state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// How often one call looks for what is gone in another telling of the same state.
const RELOADS_MAX: usize = 4;

/// A volume opened lazily at one state. Clones share everything.
#[derive(Clone)]
pub struct Lazy {
    shared: Arc<Shared>,
}

struct Shared {
    log: Log,
    at: At,
    volume: VolumeId,
    key: IdentityKey,
    position: Position,
    seq: Seq,
    geometry: Geometry,
    page_count: PageCount,
    skeleton: BTreeMap<PageNo, Bytes>,
    state: RwLock<Arc<State>>,
    /// One reader at a time asks the log again.
    reloading: tokio::sync::Mutex<()>,
    rows: Arc<Rows>,
    frames: Frames,
    zeros: Bytes,
    holding: Holding,
}

impl fmt::Debug for Lazy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.shared;
        f.debug_struct("Lazy")
            .field("volume", &shared.log.url())
            .field("position", &shared.position)
            .field("seq", &shared.seq)
            .field("page_count", &shared.page_count)
            .finish_non_exhaustive()
    }
}

impl Lazy {
    /// Opens a volume at a state: newest, a commit, a named snapshot.
    pub async fn open(log: &Log, components: &Components, at: &At) -> Result<Self, EngineError> {
        let log = Self::remembering(log);
        let opened = open_at(&log, at).await?;
        Self::from_opened(&log, components, at, opened)
    }

    /// A log that keeps what an opening reads of it: frames that travelled in those records cost a reader no request.
    pub fn remembering(log: &Log) -> Log {
        Log::new(Arc::new(Kept::new(log.remote().clone())), log.name().clone())
    }

    /// Goes on from a log that was opened already, at what `at` names.
    pub fn from_opened(log: &Log, components: &Components, at: &At, opened: Opened) -> Result<Self, EngineError> {
        // A named snapshot is a pin itself.
        let named = matches!(at, At::Snapshot(_));
        Self::of_state(log, at, opened, |opened| match named {
            true => Holding::not_needed(),
            false => Holding::begin(log, components, opened),
        })
    }

    /// The same of a state that nobody pins: retention alone keeps it.
    pub(crate) fn unheld(log: &Log, opened: Opened) -> Result<Self, EngineError> {
        let at = At::Lsn(opened.tail.lsn);
        Self::of_state(log, &at, opened, |_| Holding::not_needed())
    }

    fn of_state(
        log: &Log,
        at: &At,
        mut opened: Opened,
        hold: impl FnOnce(&Opened) -> Holding,
    ) -> Result<Self, EngineError> {
        let way = "littoral log read URL reads it where it is, littoral restore URL DEST makes a copy";
        EngineError::unless_database(&log.url(), opened.meta.kind, way)?;
        let Some(page_size) = opened.tail.figures.page_size else {
            let detail = "nothing was checkpointed yet".to_owned();
            return Err(EngineError::NoSuchPosition { volume: log.url(), detail });
        };
        let skeleton = state::skeleton(&mut opened);
        let holding = hold(&opened);
        let (tail, volume, key) = (&opened.tail, opened.meta.id, opened.meta.identity_key);
        let (position, seq) = (Position { epoch: tail.epoch, lsn: tail.lsn }, tail.seq);
        let page_count = tail.figures.page_count;
        let geometry = Geometry::new(page_size);
        let rows = Arc::new(Rows::new(log.clone(), geometry, page_count));
        Ok(Self {
            shared: Arc::new(Shared {
                log: log.clone(),
                at: at.clone(),
                volume,
                key,
                position,
                seq,
                geometry,
                page_count,
                skeleton,
                state: RwLock::new(Arc::new(State::new(0, opened, Vec::new()))),
                reloading: tokio::sync::Mutex::new(()),
                rows,
                frames: Frames::new(log.clone(), page_size),
                zeros: Bytes::from(vec![0; page_size.len()]),
                holding,
            }),
        })
    }

    /// Which volume.
    pub fn volume(&self) -> VolumeId {
        self.shared.volume
    }

    /// The page size.
    pub fn page_size(&self) -> PageSize {
        self.shared.geometry.page_size
    }

    /// The database's size.
    pub fn page_count(&self) -> PageCount {
        self.shared.page_count
    }

    /// The commit whose state this is, in the term of the record it was read from.
    pub fn position(&self) -> Position {
        self.shared.position
    }

    /// The record whose state this is.
    pub fn seq(&self) -> Seq {
        self.shared.seq
    }

    /// The pages that are here already, ascending: those of the skeleton that nothing has changed since.
    pub fn skeleton(&self) -> impl Iterator<Item = (PageNo, Bytes)> + '_ {
        self.shared.skeleton.iter().map(|(page, image)| (*page, image.clone()))
    }

    /// One page without a request: from the skeleton.
    pub fn resident(&self, page: PageNo) -> Option<Bytes> {
        self.shared.skeleton.get(&page).cloned()
    }

    /// Whether a pin keeps pruners away from this state: waits until that is known.
    pub async fn held(&self) -> Held {
        self.shared.holding.outcome().await
    }

    /// Ends: takes the pin back. Whoever only drops a reader leaves it to expire.
    pub async fn close(&self) {
        self.shared.holding.end(&self.shared.log).await;
    }

    /// The frame that holds a page, with all pages of it that are live in this state.
    pub async fn fetch(&self, page: PageNo) -> Result<Arc<Frame>, Failure> {
        let shared = &*self.shared;
        if let Some(image) = shared.skeleton.get(&page) {
            return Ok(Arc::new(Frame { pages: vec![(page, image.clone())] }));
        }
        shared.inside(page)?;
        let mut reloads = 0;
        loop {
            let state = shared.state();
            match self.fetch_from(&state, page).await {
                Err(error) if reloads < RELOADS_MAX && is_missing(&error) => {
                    shared.reload(&state, error).await?;
                    reloads += 1;
                }
                fetched => return fetched,
            }
        }
    }

    async fn fetch_from(&self, state: &Arc<State>, page: PageNo) -> Result<Arc<Frame>, Failure> {
        let shared = &*self.shared;
        let chunk = shared.geometry.chunk_of(page);
        let located = shared.rows.one(state, chunk).await?;
        match located.place(page) {
            Place::Nowhere => Err(Arc::new(shared.nowhere(page, chunk))),
            Place::Zero => Ok(Arc::new(Frame { pages: vec![(page, shared.zeros.clone())] })),
            Place::Frame(frame) => shared.frames.one(&located, frame).await,
            Place::Patched => Ok(Arc::new(Frame { pages: shared.patched(&located, &[page]).await? })),
        }
    }

    /// The frames of many pages in few requests, in parallel, as far as a budget reaches: for reading ahead, prefetching and
    /// hydrating. What it did not reach is handed back.
    pub async fn fetch_many(&self, pages: &[PageNo], budget: Budget) -> Result<Fetched, Failure> {
        let shared = &*self.shared;
        let mut wanted = pages.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.iter().try_for_each(|page| shared.inside(*page))?;
        let mut reloads = 0;
        loop {
            let state = shared.state();
            match self.fetch_many_from(&state, &wanted, budget).await {
                Err(error) if reloads < RELOADS_MAX && is_missing(&error) => {
                    shared.reload(&state, error).await?;
                    reloads += 1;
                }
                fetched => return fetched,
            }
        }
    }

    async fn fetch_many_from(&self, state: &Arc<State>, wanted: &[PageNo], budget: Budget) -> Result<Fetched, Failure> {
        let shared = &*self.shared;
        let geometry = shared.geometry;
        let mut fetched = Fetched::default();
        let mut chosen: Vec<(Arc<Located>, Vec<usize>)> = Vec::new();
        let mut patched: Vec<(Arc<Located>, Vec<PageNo>)> = Vec::new();
        let mut room = budget.bytes;
        let by_chunk: Vec<&[PageNo]> = wanted.chunk_by(|a, b| geometry.chunk_of(*a) == geometry.chunk_of(*b)).collect();
        let mut full = false;
        for group in by_chunk.chunks(rows::CHUNKS_AT_ONCE) {
            if full {
                fetched.left.extend(group.iter().copied().flatten());
                continue;
            }
            let is_skeleton = |page: &PageNo| shared.skeleton.contains_key(page);
            let chunks: Vec<ChunkId> = group
                .iter()
                .filter(|pages| !pages.iter().all(is_skeleton))
                .filter_map(|pages| pages.first().map(|first| geometry.chunk_of(*first)))
                .collect();
            let located = shared.rows.many(state, &chunks).await?;
            for pages in group {
                let row = pages.first().and_then(|first| located.get(&geometry.chunk_of(*first)));
                let mut frames: BTreeSet<usize> = BTreeSet::new();
                let mut of_patches: Vec<PageNo> = Vec::new();
                for page in *pages {
                    if let Some(image) = shared.skeleton.get(page) {
                        fetched.frames.push(Arc::new(Frame { pages: vec![(*page, image.clone())] }));
                        continue;
                    }
                    let Some(row) = row else { return Err(Arc::new(shared.nowhere(*page, geometry.chunk_of(*page)))) };
                    match row.place(*page) {
                        Place::Nowhere => return Err(Arc::new(shared.nowhere(*page, row.chunk))),
                        Place::Zero => {
                            fetched.frames.push(Arc::new(Frame { pages: vec![(*page, shared.zeros.clone())] }));
                        }
                        // What it takes is not known before: its patches, and what they stand on.
                        Place::Patched if room > 0 => {
                            room = room.saturating_sub(shared.geometry.page_size.bytes());
                            of_patches.push(*page);
                        }
                        Place::Patched => {
                            full = true;
                            fetched.left.push(*page);
                        }
                        Place::Frame(frame) if frames.contains(&frame) => {}
                        Place::Frame(frame) => {
                            let cost = row.frame_len(frame);
                            // One frame always fits, so that whoever asks again comes further.
                            let first = room == budget.bytes;
                            full |= !first && cost > room;
                            if full {
                                fetched.left.push(*page);
                            } else {
                                room = room.saturating_sub(cost);
                                frames.insert(frame);
                            }
                        }
                    }
                }
                if let Some(row) = row.filter(|_| !frames.is_empty()) {
                    chosen.push((row.clone(), frames.into_iter().collect()));
                }
                if let Some(row) = row.filter(|_| !of_patches.is_empty()) {
                    patched.push((row.clone(), of_patches));
                }
            }
        }
        let patched = patched.iter().map(|(located, pages)| shared.patched(located, pages));
        let (frames, patched) =
            futures::future::try_join(shared.frames.many(&chosen, budget.in_flight), try_join_all(patched)).await?;
        fetched.frames.extend(frames);
        fetched.frames.extend(patched.into_iter().map(|pages| Arc::new(Frame { pages })));
        Ok(fetched)
    }
}

impl Shared {
    fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn inside(&self, page: PageNo) -> Result<(), Failure> {
        if self.page_count.holds(page) {
            return Ok(());
        }
        Err(Arc::new(self.log.inconsistent(format!("there is no page {page}: the database has {}", self.page_count))))
    }

    /// Pages of a chunk whose newest versions are patches: those, and what they stand on, in one round.
    async fn patched(&self, located: &Located, pages: &[PageNo]) -> Result<Vec<(PageNo, Bytes)>, Failure> {
        let gone = || Arc::new(self.log.inconsistent("a patched page without its row".to_owned()));
        let row = located.row().ok_or_else(gone)?;
        let found = fetch::pages(&self.log, row, self.geometry.page_size, &self.key, pages).await.map_err(Arc::new)?;
        Ok(found.into_iter().collect())
    }

    fn nowhere(&self, page: PageNo, chunk: ChunkId) -> EngineError {
        self.log.inconsistent(format!("page {page} of chunk {chunk} is in no version of it"))
    }

    /// Something that the state names is gone: the same state as the log tells it now (rule P2). The error itself when there is
    /// no other telling of it.
    async fn reload(&self, seen: &Arc<State>, error: Failure) -> Result<(), Failure> {
        let _one = self.reloading.lock().await;
        let now = self.state();
        if now.generation != seen.generation {
            return Ok(()); // Another reader did it meanwhile.
        }
        let Some(opened) = self.another(&now).await? else { return Err(error) };
        let (was, is) = (&now.opened.tail, &opened.tail);
        if was.lsn != is.lsn
            || (was.figures.page_size, was.figures.page_count) != (is.figures.page_size, is.figures.page_count)
            || now.opened.meta.id != opened.meta.id
        {
            return Err(error);
        }
        tracing::info!(volume = %self.log.name(), %error, "gone: reading the same state from the log as it is now");
        let mut tried = now.tried.clone();
        tried.push(now.start());
        let next = Arc::new(State::new(now.generation + 1, opened, tried));
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = next;
        self.rows.forget();
        Ok(())
    }

    /// First the newest record that leaves this commit the last one: coalescing may have moved its pages. Then this very record,
    /// read from other manifest snapshots.
    async fn another(&self, now: &State) -> Result<Option<Opened>, Failure> {
        if now.generation == 0 {
            let at = match &self.at {
                At::Snapshot(name) => At::Snapshot(name.clone()),
                At::Newest | At::Time(_) | At::Lsn(_) | At::Position(_) => At::Lsn(self.position.lsn),
            };
            match open_at(&self.log, &at).await {
                Ok(opened) => return Ok(Some(opened)),
                Err(error @ (EngineError::NoSuchPosition { .. } | EngineError::Inconsistent { .. })) => {
                    tracing::debug!(%error, "the state is in no newer record");
                }
                Err(error) if is_missing(&error) => tracing::debug!(%error, "the state is in no newer record"),
                Err(error) => return Err(Arc::new(error)),
            }
        }
        for start in self.log.snapshots_at_or_before(now.opened.tail.seq).await.map_err(Arc::new)? {
            if start == now.start() || now.tried.contains(&start) {
                continue;
            }
            if let Some(opened) = self.log.reopen(&now.opened, start).await.map_err(Arc::new)? {
                return Ok(Some(opened));
            }
        }
        Ok(None)
    }
}
