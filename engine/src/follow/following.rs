//! One edition of a replica, as this process knows it: the log up to a state, what changed since the oldest state that is read, and views
//! of the states that are read here.

use super::record_path;
use super::shelf::{self, Shelf};
use crate::error::EngineError;
use crate::lazy::Lazy;
use crate::log::read::ReadRecord;
use crate::log::{Log, Opened};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_local::replica::{Edition, Origin, Replica};
use littoral_plan::{Link, Readahead, Versions, follows, touched};
use littoral_ports::RemoteError;
use littoral_types::limits::{FOLLOW_RECORDS_AT_ONCE, TRANSFERS_IN_FLIGHT};
use littoral_types::{ManifestOp, ObjectPath, PageCount, PageNo, PageSize, Position, RecordBody, Seq};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

/// An edition in this process.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) files: Edition,
    /// Over the shelf.
    pub(super) log: Log,
    shelf: Arc<Shelf>,
    known: RwLock<Known>,
    views: Mutex<HashMap<Seq, Weak<View>>>,
    /// One of this process learns at a time.
    learning: tokio::sync::Mutex<()>,
    pub(super) ahead: Mutex<Readahead>,
}

#[derive(Debug)]
struct Known {
    opened: Arc<Opened>,
    versions: Versions,
}

/// One state, for those who read it here.
#[derive(Debug)]
pub(super) struct View {
    pub(super) seq: Seq,
    pub(super) position: Position,
    pub(super) page_count: PageCount,
    opened: Arc<Opened>,
    lazy: OnceLock<Lazy>,
    /// When it was known to be the newest.
    current_ms: AtomicU64,
}

/// What came of learning.
#[derive(Debug)]
pub(super) enum Step {
    /// The newest state is another.
    Learnt,
    /// It cannot go on here: why.
    Turn(&'static str),
}

fn position(opened: &Opened) -> Position {
    Position { epoch: opened.tail.epoch, lsn: opened.tail.lsn }
}

fn page_size_of(log: &Log, opened: &Opened) -> Result<PageSize, EngineError> {
    opened.tail.figures.page_size.ok_or_else(|| EngineError::NoSuchPosition {
        volume: log.url(),
        detail: "nothing was committed to it yet: there is nothing to follow until its writer has published (PRAGMA littoral_checkpoint)"
            .to_owned(),
    })
}

impl View {
    pub(super) fn lazy(&self, log: &Log) -> Result<Lazy, EngineError> {
        if let Some(lazy) = self.lazy.get() {
            return Ok(lazy.clone());
        }
        let made = Lazy::unheld(log, (*self.opened).clone())?;
        Ok(self.lazy.get_or_init(|| made).clone())
    }
}

impl Following {
    fn new(files: Edition, shelf: Arc<Shelf>, log: Log, opened: Opened, versions: Versions) -> Self {
        let ahead = Readahead::new(files.page_size(), opened.tail.figures.page_count);
        Self {
            files,
            log,
            shelf,
            known: RwLock::new(Known { opened: Arc::new(opened), versions }),
            views: Mutex::default(),
            learning: tokio::sync::Mutex::default(),
            ahead: Mutex::new(ahead),
        }
    }

    /// Begins the next edition at the volume's newest state, which must not be before what was shown.
    pub(super) async fn begin(local: &Replica, bare: &Log) -> Result<Self, EngineError> {
        let dir = local.prepare()?;
        let shelf = Arc::new(Shelf::new(bare.remote().clone(), dir.join("shelf")));
        let log = Log::new(shelf.clone(), bare.name().clone());
        let opened = log.open().await?.ok_or_else(|| EngineError::NoVolume(log.url()))?;
        EngineError::unless_database(&log.url(), opened.meta.kind, "littoral log tail URL follows it")?;
        let page_size = page_size_of(&log, &opened)?;
        if let Some((volume, lsn)) = local.shown()
            && (opened.meta.id != volume || opened.tail.lsn < lsn)
        {
            return Err(EngineError::Refused(format!(
                "{}: what is there now ({}, LSN {}) does not go on from what was shown here ({volume}, LSN {lsn}): another volume was made \
                 under this name, or it lost records. To follow what is there all the same, close all connections, delete this file, and \
                 open it again",
                log.url(),
                opened.meta.id,
                opened.tail.lsn,
            )));
        }
        // Where it travelled with the head it is no object that others find.
        if let Some(snapshot) = opened.snapshot.as_ref().filter(|snapshot| snapshot.seq > Seq::ZERO) {
            let path = littoral_format::keys::snapshot(log.name(), snapshot.seq);
            if !shelf.has(&path) {
                let bytes = littoral_format::snapshot::encode(snapshot).map_err(EngineError::damaged(&path))?;
                shelf.put_there(&path, &Bytes::from(bytes));
            }
        }
        let origin = Origin {
            volume: opened.meta.id,
            page_size,
            page_count: opened.tail.figures.page_count,
            start: opened.snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq),
            newest: opened.tail.seq,
            lsn: opened.tail.lsn,
        };
        let files = local.begin(&dir, &origin)?;
        shelf.moved(files.shelf());
        let versions = Versions::after_state(opened.tail.seq);
        Ok(Self::new(files, shelf, log, opened, versions))
    }

    /// Goes on with what is here: from the shelf, without the network where that has everything.
    pub(super) async fn attach(files: Edition, bare: &Log) -> Result<Self, EngineError> {
        let shelf = Arc::new(Shelf::new(bare.remote().clone(), files.shelf()));
        let log = Log::new(shelf.clone(), bare.name().clone());
        // The floor first: what changes meanwhile is learnt later.
        let (floor, newest, mut start) = (files.floor(), files.newest(), files.start());
        let opened = loop {
            match log.load(start, None, newest).await? {
                Some(opened) => break opened,
                // The newest record knows a newer manifest snapshot.
                None => {
                    let gone =
                        || EngineError::Remote(RemoteError::Missing { path: record_path(&log, newest).to_string() });
                    let next = log.envelope(newest).await?.ok_or_else(gone)?.header.snapshot;
                    if next <= start {
                        return Err(log.inconsistent(format!("record {newest} was read twice and says two things")));
                    }
                    start = next;
                }
            }
        };
        if opened.meta.id != files.volume() {
            return Err(log.inconsistent(format!(
                "it is volume {}, and the replica is of {}",
                opened.meta.id,
                files.volume()
            )));
        }
        let mut versions = Versions::after_state(floor);
        let mut ops: Vec<ManifestOp> = opened.ops.clone();
        for seq in floor.0 + 1..=newest.0 {
            let gone = || EngineError::Remote(RemoteError::Missing { path: record_path(&log, Seq(seq)).to_string() });
            let record = log.record(Seq(seq)).await?.ok_or_else(gone)?;
            versions.add(Seq(seq), &touched(&record.body, &ops));
            if !matches!(record.body, RecordBody::Index(_)) {
                ops.extend_from_slice(record.body.ops());
            }
        }
        Ok(Self::new(files, shelf, log, opened, versions))
    }

    fn opened(&self) -> Arc<Opened> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).opened.clone()
    }

    /// Where what is known ends.
    pub(super) fn end(&self) -> Link {
        self.opened().link()
    }

    /// The same for people: position and record; and the size.
    pub(super) fn tail(&self) -> ((Position, Seq), PageCount) {
        let opened = self.opened();
        ((position(&opened), opened.tail.seq), opened.tail.figures.page_count)
    }

    /// What is known.
    pub(super) fn opened_now(&self) -> Arc<Opened> {
        self.opened()
    }

    /// A record, from the shelf or from the object store. What is damaged does not stay on the shelf.
    pub(super) async fn record(&self, seq: Seq) -> Result<Option<ReadRecord>, EngineError> {
        let record = self.log.record(seq).await;
        if record.is_err() {
            self.shelf.forget(&record_path(&self.log, seq));
        }
        record
    }

    /// A page could not be had: what it was to be made of is asked for again.
    pub(super) fn distrust(&self, error: &EngineError) {
        match error {
            EngineError::Damaged { object, .. } => match ObjectPath::parse(object) {
                Some(path) => self.shelf.forget(&path),
                None => self.shelf.forget_ranges(),
            },
            _ => self.shelf.forget_ranges(),
        }
    }

    /// Records in order; `None` where one of them is gone.
    pub(super) async fn records(&self, first: Seq, last: Seq) -> Result<Option<Vec<ReadRecord>>, EngineError> {
        let found: Vec<Option<ReadRecord>> = stream::iter(first.0..=last.0)
            .map(|seq| self.record(Seq(seq)))
            .buffered(TRANSFERS_IN_FLIGHT)
            .try_collect()
            .await?;
        Ok(found.into_iter().collect())
    }

    /// Learns what the follower has made known to all.
    pub(super) async fn catch_up(&self, newest: Seq) -> Result<(), EngineError> {
        if self.end().seq >= newest {
            return Ok(());
        }
        let _one = self.learning.lock().await;
        loop {
            let first = self.end().seq.next();
            if first > newest {
                return Ok(());
            }
            // Some at a time: they may be many, and large.
            let last = Seq(newest.0.min(first.0 + FOLLOW_RECORDS_AT_ONCE - 1));
            let path = || record_path(&self.log, first).to_string();
            let gone = || EngineError::Remote(RemoteError::Missing { path: path() });
            let records = self.records(first, last).await?.ok_or_else(gone)?;
            if let Step::Turn(why) = self.learn(records, false)? {
                return Err(self.log.inconsistent(format!("the follower went on where it could not: {why}")));
            }
        }
    }

    /// Goes on by these records, which must follow. `tell` makes the last one the newest state for all processes.
    pub(super) fn learn(&self, records: Vec<ReadRecord>, tell: bool) -> Result<Step, EngineError> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut end = known.opened.link();
        // All of them first: what does not follow changes nothing.
        for record in &records {
            let header = &record.envelope.header;
            if let Err(source) = follows(&end, header, record.envelope.kind) {
                self.shelf.forget(&record_path(&self.log, header.seq));
                return Err(EngineError::Chain { volume: self.log.url(), source });
            }
            end = Link::after(header, record.envelope.hash);
            if header.figures.page_size != Some(self.files.page_size()) {
                return Ok(Step::Turn("the page size is another"));
            }
            if !self.files.has_room(header.figures.page_count) {
                return Ok(Step::Turn("the database outgrew it"));
            }
        }
        let before = known.opened.tail.seq;
        let Known { opened, versions } = &mut *known;
        let opened = Arc::make_mut(opened);
        for record in &records {
            versions.add(record.envelope.header.seq, &touched(&record.body, &opened.ops));
            opened.extend(record).map_err(|source| self.log.serials(source))?;
        }
        if tell {
            self.files.set_newest(end.seq, end.lsn);
        }
        drop(known);
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).resize(self.opened().tail.figures.page_count);
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.retain(|seq, view| view.strong_count() > 0 || *seq >= before);
        Ok(Step::Learnt)
    }

    /// Starts from a newer manifest snapshot where one is known, so that what is held does not grow with time.
    pub(super) async fn rebase(&self) {
        let opened = self.opened();
        let (tail, start) = (&opened.tail, opened.snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq));
        if tail.snapshot <= start {
            return;
        }
        match self.log.load(tail.snapshot, None, tail.seq).await {
            Ok(Some(again)) if again.tail.hash == tail.hash => {
                let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                if known.opened.tail.hash == again.tail.hash {
                    known.opened = Arc::new(again);
                    drop(known);
                    self.files.set_start(tail.snapshot);
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the newer manifest snapshot is not started from yet"),
        }
        let (floor, start) = (self.files.floor(), self.files.start());
        let needed: Vec<String> = (floor.0.max(1)..=tail.seq.0)
            .map(|seq| shelf::name(&record_path(&self.log, Seq(seq))))
            .chain([shelf::name(&littoral_format::keys::snapshot(self.log.name(), start))])
            .collect();
        self.shelf.tidy(&|name| needed.iter().any(|needed| needed == name));
    }

    /// Raises the floor to the oldest state that anybody reads: as the follower.
    pub(super) fn settle(&self) -> Result<(), EngineError> {
        let newest = self.files.newest();
        let oldest = self.files.pinned()?.first().map_or(newest, |oldest| newest.min(*oldest));
        if oldest <= self.files.floor() {
            return Ok(());
        }
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if known.opened.tail.seq < oldest {
                return Ok(());
            }
            let until = known.versions.until(oldest);
            let version = |page| known.versions.at(page, oldest);
            self.files.raise_floor(oldest, &mut until.pages.iter().copied(), &until.runs, &version)?;
        }
        self.forget();
        Ok(())
    }

    /// Forgets changes that are at the floor by now. Whether there were any.
    pub(super) fn forget(&self) -> bool {
        let floor = self.files.floor();
        if self.known.read().unwrap_or_else(PoisonError::into_inner).versions.floor() >= floor {
            return false;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // What another process knows of newer records is not known here yet.
        let floor = floor.min(known.opened.tail.seq);
        let is_newer = known.versions.floor() < floor;
        known.versions.forget(floor);
        is_newer
    }

    /// The record that changed a page last, as a state shows it.
    pub(super) fn version(&self, page: PageNo, state: Seq) -> Option<Seq> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).versions.at(page, state)
    }

    /// Whether one of these states, ascending, shows the version of a page that a record made; the newest one does, where none came after.
    pub(super) fn is_read(&self, page: PageNo, version: Seq, pinned: &[Seq]) -> bool {
        let next = self.known.read().unwrap_or_else(PoisonError::into_inner).versions.next(page, version);
        next.is_none_or(|next| pinned.iter().any(|state| (version..next).contains(state)))
    }

    /// A view of a state that was just pinned, by a clock; `None` where this process is ahead of it or behind.
    pub(super) fn view(&self, state: Seq, current_ms: u64) -> Option<Arc<View>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get(&state).and_then(Weak::upgrade) {
            view.current_ms.fetch_max(current_ms, Ordering::SeqCst);
            return Some(view);
        }
        let opened = &known.opened;
        if opened.tail.seq != state {
            return None;
        }
        let view = Arc::new(View {
            seq: state,
            position: position(opened),
            page_count: opened.tail.figures.page_count,
            opened: opened.clone(),
            lazy: OnceLock::new(),
            current_ms: AtomicU64::new(current_ms),
        });
        views.insert(state, Arc::downgrade(&view));
        Some(view)
    }

    /// When a position that is read here was last known to be the newest.
    pub(super) fn current_ms(&self, shown: Position) -> Option<u64> {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = views.values().filter_map(Weak::upgrade).filter(|view| view.position == shown);
        alive.map(|view| view.current_ms.load(Ordering::SeqCst)).max()
    }

    /// The state that is the newest one is still that, at this time.
    pub(super) fn still_current(&self, now_ms: u64) {
        let newest = self.end().seq;
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get(&newest).and_then(Weak::upgrade) {
            view.current_ms.fetch_max(now_ms, Ordering::SeqCst);
        }
    }
}
