//! A database that is open in this process, by however many connections.
//!
//! What this room promises:
//! 1. One [`Database`] for each database file and process; a forked child gets its own.
//! 2. Marks are set before bytes are written. What cannot be marked makes everything unknown, never lost.
//! 3. A database that is here and bound to its volume is opened without asking the network, and whatever a store cannot do: then
//!    nothing is known of it, and its next checkpoint compares all pages. [`crate::first`] asks for one that is bound to nothing.

use crate::raw::file::Bytes;
use crate::raw::library::Library;
use crate::raw::walindex::Header;
use crate::said::Said;
use crate::seal::Older;
use crate::shipper::{SHIPPED_LATELY, Shipper};
use crate::source::{BUSY_MS, Lent, Live, Recall};
use crate::sparse::{Reader, Sparse, shrink};
use littoral_engine::WorkerLock;
use littoral_engine::backlog::span_ms;
use littoral_engine::follow::Replica;
use littoral_engine::hand_over::NOBODY;
use littoral_engine::live::Stream;
use littoral_engine::open::{store_root, worked_by};
use littoral_engine::sealed::SealedWals;
use littoral_engine::sessions::Root;
use littoral_engine::settings::Settings;
use littoral_engine::tracker::residency::{Opening, Residency, Users};
use littoral_engine::tracker::{Trace, Tracker, WalPlace};
use littoral_ports::SourceError;
use littoral_types::Generation;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Whether a sparse database or a replica was ever open in this process. As long as none was, no file lies under another name.
static SPARSE: AtomicBool = AtomicBool::new(false);

/// For so long after a failure nobody waits at a last close for what failed.
const FAILS: Duration = Duration::from_secs(60);

/// How long it is until a reader of our own looks again whether a file is locked.
const LOOKS_AGAIN: Duration = Duration::from_millis(5);

static OPEN: Mutex<Option<HashMap<PathBuf, Weak<Database>>>> = Mutex::new(None);

/// A database file of this process.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    store: PathBuf,
    /// The process that opened it: a child has its memory, and not its locks.
    process: u32,
    /// The SQLite library that opened it (rule S9: a second one would drop the first one's locks).
    library: &'static Library,
    /// Which file it was when it was opened first.
    file: OnceLock<Option<Trace>>,
    /// Attached to when the first connection that may write has the file open.
    tracker: OnceLock<Option<Arc<Tracker>>>,
    /// Whether frames were written since somebody asked.
    framed: AtomicBool,
    /// Where not all of it is here.
    sparse: Mutex<Sparseness>,
    /// What was said of it and can be.
    possible: Mutex<Option<Arc<Settings>>>,
    /// How many connections of the application's have it open here.
    users: AtomicUsize,
    /// The way to its volume, while nobody uses it.
    stream: Mutex<Option<Stream>>,
    /// Who ships what is committed to it.
    shipper: Mutex<Option<Shipper>>,
    /// Readers of our own that go when the last user does.
    lent: Mutex<Lendings>,
    /// Bytes of copies of frames, as this process saw them last, and made some since.
    pub(crate) sealed_bytes: AtomicU64,
    /// From how many of them on it is looked again how many there are: others make some too, and what was shipped is gone.
    pub(crate) sealed_look: AtomicU64,
    /// How far the volume was published when no more copies could be made; zero where they can.
    pub(crate) gave_up: AtomicU64,
    /// Pages as they were before frames that were copied.
    pub(crate) older: Older,
    /// Local bytes that may be used.
    quota: Option<u64>,
    /// How often commits travel by themselves, in milliseconds; zero where they do not.
    interval_ms: AtomicU64,
    /// Whether more waited than travelled, the last time.
    lags: AtomicBool,
    /// Why what was committed could not be published, the last time.
    trouble: Mutex<Option<String>>,
    /// Where it follows its volume.
    replica: Mutex<Option<Arc<Replica>>>,
    /// Tells others that it is open here.
    users_lock: Mutex<Option<Users>>,
    /// Where the table of sessions begins, as the schema was last looked at.
    serials: Mutex<Option<(Root, Generation)>>,
}

/// For whom it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// For somebody who waits for it, perhaps after the last close.
    Asked,
    /// Behind everybody's back.
    Behind,
}

/// Readers of our own.
#[derive(Debug, Default)]
pub(crate) struct Lendings {
    recalls: Vec<Recall>,
    /// Somebody wants the files for himself: none comes.
    keeps_out: bool,
}

impl Lendings {
    /// Whether somebody has the files for himself now.
    pub(crate) fn keep_out(&mut self, keeps_out: bool) {
        self.keeps_out = keeps_out;
    }
}

/// A database in the hands of one of the application's connections.
#[derive(Debug)]
pub(crate) struct Used {
    database: Arc<Database>,
    /// Whether it is none of its users any more, and was the last one then.
    has_left: bool,
    is_last: bool,
}

impl Used {
    fn of(database: Arc<Database>) -> Self {
        database.users.fetch_add(1, Ordering::SeqCst);
        Self { database, has_left: false, is_last: false }
    }

    /// The same database for who is no user of it.
    pub(crate) fn shared(&self) -> Arc<Database> {
        self.database.clone()
    }
}

impl std::ops::Deref for Used {
    type Target = Arc<Database>;

    fn deref(&self) -> &Arc<Database> {
        &self.database
    }
}

impl Used {
    /// Its connection is being closed and has nothing more to do with the files: whoever closes next may be the last.
    pub(crate) fn leaves(&mut self) {
        if !std::mem::replace(&mut self.has_left, true) {
            self.is_last = self.database.users.fetch_sub(1, Ordering::SeqCst) == 1;
        }
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.leaves();
    }
}

#[derive(Debug)]
enum Sparseness {
    /// Nobody has looked yet; a reader of the volume, where its file was just made, and the right to look.
    Unknown(Option<Reader>, Option<Opening>),
    Known(Option<Arc<Sparse>>),
}

impl Database {
    /// Opens a database file, or finds it open.
    pub(crate) fn open(path: &Path, library: &'static Library, said: &Said, read_only: bool) -> Result<Used, String> {
        let process = std::process::id();
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.get_or_insert_default();
        if let Some(known) = open.get(path).and_then(Weak::upgrade).filter(|known| known.process == process) {
            if known.library.id() != library.id() {
                return Err(of_another_library(path));
            }
            if !read_only {
                known.look_again();
            }
            return Ok(Used::of(known));
        }
        let theirs = |known: &Arc<Self>| known.process == process && known.library.id() != library.id();
        let mut others = open.values().filter_map(Weak::upgrade).filter(theirs).peekable();
        // By another name it is the same file, and has the same locks.
        if others.peek().is_some()
            && let Some(file) = Trace::of(path)
            && others.any(|known| Trace::of(&known.path).is_some_and(|other| other.is_same_file(&file)))
        {
            return Err(of_another_library(path));
        }
        let new = Arc::new(Self {
            path: path.to_owned(),
            store: store_root(path, &said.settings),
            process,
            library,
            file: OnceLock::new(),
            tracker: OnceLock::new(),
            framed: AtomicBool::new(false),
            sparse: Mutex::new(Sparseness::Unknown(None, None)),
            possible: Mutex::default(),
            users: AtomicUsize::new(0),
            stream: Mutex::default(),
            shipper: Mutex::default(),
            lent: Mutex::default(),
            sealed_bytes: AtomicU64::new(0),
            sealed_look: AtomicU64::new(0),
            gave_up: AtomicU64::new(0),
            older: Older::default(),
            quota: said.settings.room(),
            interval_ms: AtomicU64::new(0),
            lags: AtomicBool::new(false),
            trouble: Mutex::default(),
            replica: Mutex::default(),
            users_lock: Mutex::default(),
            serials: Mutex::default(),
        });
        open.retain(|_, known| known.strong_count() > 0);
        open.insert(path.to_owned(), Arc::downgrade(&new));
        Ok(Used::of(new))
    }

    /// What was found possible once is not looked at again for each connection that says the same.
    fn refuse_impossible(&self, said: &Said) -> Result<(), String> {
        let mut possible = self.possible.lock().unwrap_or_else(PoisonError::into_inner);
        if possible.as_ref() != Some(&said.settings) {
            said.refuse_impossible(&self.path)?;
            *possible = Some(said.settings.clone());
        }
        Ok(())
    }

    /// What follows its volume, opened by the first connection.
    pub(crate) fn follow(&self, said: &Said, read_only: bool) -> Result<Arc<Replica>, String> {
        let mut replica = self.replica.lock().unwrap_or_else(PoisonError::into_inner);
        match &*replica {
            Some(open) if read_only => Ok(open.clone()),
            Some(_) | None => {
                let open = Arc::new(crate::follow::open(&self.path, said, read_only)?);
                SPARSE.store(true, Ordering::SeqCst);
                Ok(replica.insert(open).clone())
            }
        }
    }

    /// What follows its volume, where it does.
    pub(crate) fn replica(&self) -> Option<Arc<Replica>> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As long as it is open here, nobody elsewhere puts another file in its place.
    fn join_users(&self) {
        let mut users = self.users_lock.lock().unwrap_or_else(PoisonError::into_inner);
        if users.is_none() {
            *users = Users::join(&Residency::path_of(&self.store, &self.path)).unwrap_or_else(|error| {
                tracing::debug!(%error, "others are not told that it is open here");
                None
            });
        }
    }

    /// Makes a sparse one of it, if that can be done now and nobody else has it open.
    fn shrink(&self, said: &Said) -> bool {
        let users = self.users_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = users
            .as_ref()
            .and_then(|users| users.alone(|| shrink::shrink(self.library, &self.path, &self.store, said)));
        alone.unwrap_or(false)
    }

    /// Before its file is opened: where there is none, and the volume has one, a sparse one is made.
    pub(crate) fn prepare(&self, said: &Said) -> Result<(), String> {
        self.refuse_impossible(said)?;
        self.join_users();
        if matches!(*self.sparse.lock().unwrap_or_else(PoisonError::into_inner), Sparseness::Known(_)) {
            return Ok(());
        }
        // Held until it is known what the file is: of processes that open it at once, one makes it and the others find it.
        let mut opening = crate::sparse::opening(&self.path, &self.store, said)?;
        // Another one may have done it while this one waited.
        if opening.is_some() && shrink::wants(&self.path, &self.store, said) {
            opening = opening.filter(|_| self.shrink(said));
        }
        let mut sparse = self.sparse.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*sparse, Sparseness::Known(_)) {
            return Ok(());
        }
        if opening.is_some() {
            crate::sparse::forget_stale(&self.path, &self.store, said)?;
        }
        if opening.is_none() {
            crate::first::refuse_stranger(&self.path, &self.store, said)?;
        }
        let mut reader = None;
        // What SQLite makes by opening what is not there holds nothing.
        let is_empty = || std::fs::metadata(&self.path).map_or(true, |found| found.is_file() && found.len() == 0);
        if opening.is_some() && is_empty() {
            let made = crate::sparse::make(&self.path, &self.store, said);
            reader = made.map_err(|error| format!("{}: {error}", self.path.display()))?;
        }
        *sparse = Sparseness::Unknown(reader, opening);
        Ok(())
    }

    /// Its file was not opened. Who may not make one is told that there is none, neither here nor in the object store.
    pub(crate) fn not_opened(&self, said: &Said) {
        if let (false, Ok(place)) = (self.path.exists(), said.place(&self.path)) {
            crate::last::error(&format!(
                "{}: no such database here, and nothing published at {}: check the path, remote= and volume=; who may write begins a new \
                 one",
                self.path.display(),
                place.url()
            ));
        }
    }

    /// After its file was opened: is it sparse?
    pub(crate) fn settle(&self, said: &Said, file: &mut Bytes) -> Result<Option<Arc<Sparse>>, String> {
        let mut sparse = self.sparse.lock().unwrap_or_else(PoisonError::into_inner);
        let (lazy, _opening) = match &mut *sparse {
            Sparseness::Known(known) => return Ok(known.clone()),
            Sparseness::Unknown(lazy, opening) => (lazy.take(), opening.take()),
        };
        let mut begins = [0; 16];
        let begins = file.read(0, &mut begins).is_ok().then_some(begins);
        let mut found = Sparse::find(self.library, &self.path, &self.store, said, begins, lazy)?;
        if let Some(ripe) = found.take_if(|found| found.is_ripe()) {
            ripe.ripen(file).map_err(|error| error.to_string())?;
            Tracker::explain(&Tracker::path_of(&self.store, &self.path), Trace::of(&self.path));
        }
        let found = found.map(Arc::new);
        if found.is_some() {
            SPARSE.store(true, Ordering::SeqCst);
        }
        *sparse = Sparseness::Known(found.clone());
        Ok(found)
    }

    /// Whether what is asked for read-only must be opened for writing all the same: what is fetched is written.
    pub(crate) fn fills(&self) -> bool {
        let sparse = self.sparse.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(&*sparse, Sparseness::Unknown(_, Some(_)) | Sparseness::Known(Some(_)))
    }

    /// Where not all of it is here.
    pub(crate) fn sparse(&self) -> Option<Arc<Sparse>> {
        match &*self.sparse.lock().unwrap_or_else(PoisonError::into_inner) {
            Sparseness::Known(known) => known.clone(),
            Sparseness::Unknown(..) => None,
        }
    }

    /// Whether any database here may be sparse: asked before each file that SQLite opens beside one, and so without a lock.
    pub(crate) fn any_sparse() -> bool {
        SPARSE.load(Ordering::SeqCst)
    }

    /// The database at a path, where it is open here.
    pub(crate) fn find(path: &Path) -> Option<Arc<Self>> {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref()?.get(path)?.upgrade().filter(|known| known.process == std::process::id())
    }

    /// The same for who keeps it open.
    pub(crate) fn find_used(path: &Path) -> Option<Used> {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = open.as_ref()?.get(path)?.upgrade().filter(|known| known.process == std::process::id())?;
        Some(Used::of(known))
    }

    /// Whether the file that was opened first still has its name.
    pub(crate) fn is_there(&self) -> bool {
        let first = self.file.get().copied().flatten();
        first.zip(Trace::of(&self.path)).is_some_and(|(first, now)| first.is_same_file(&now))
    }

    /// The library that has it open.
    pub(crate) fn library(&self) -> &'static Library {
        self.library
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What all processes know of it together; `None` where that cannot be kept.
    pub(crate) fn tracker(&self) -> Option<&Tracker> {
        self.tracker.get()?.as_deref()
    }

    /// The same, for who asks it when this is gone.
    pub(crate) fn counts(&self) -> Option<Arc<Tracker>> {
        self.tracker.get()?.clone()
    }

    /// The file is open for writing.
    pub(crate) fn arrive(self: &Arc<Self>, said: &Said) {
        crate::raw::fork::watch();
        self.join_users();
        let trace = self.file.get_or_init(|| Trace::of(&self.path));
        let tracker = self.tracker.get_or_init(|| {
            let path = Tracker::path_of(&self.store, &self.path);
            if self.sparse().is_some() {
                Tracker::explain(&path, *trace);
            }
            match Tracker::attach(&path, *trace) {
                Ok(tracker) => {
                    if tracker.basis().is_none() {
                        if let Some(Err(error)) = self.sparse().map(|sparse| sparse.forget_place()) {
                            let database = self.path.display();
                            tracing::warn!(%database, %error, "what a WAL holds is not known to be published: pages stay");
                        }
                        // Copies, and what is told to be durable, are of a state that may not be this one.
                        tracker.forget_sealed();
                        self.drop_sealed();
                    }
                    Some(Arc::new(tracker))
                }
                Err(error) => {
                    let database = self.path.display();
                    tracing::warn!(%database, %error, "changes cannot be kept track of: a checkpoint will compare all pages");
                    None
                }
            }
        });
        self.let_in();
        self.interval_ms.store(said.settings.sync_interval_ms.value.unwrap_or(0), Ordering::Relaxed);
        let mut shipper = self.shipper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tracker) = tracker
            && shipper.as_ref().is_none_or(Shipper::is_stopped)
        {
            *shipper = Shipper::start(self, tracker, said, self.library);
        }
    }

    /// Where copies of its frames lie.
    pub(crate) fn sealed(&self) -> SealedWals {
        SealedWals::of(&self.store, &self.path)
    }

    /// Local bytes that may be used.
    pub(crate) fn said_quota(&self) -> Option<u64> {
        self.quota
    }

    /// How often commits travel by themselves.
    pub(crate) fn interval_ms(&self) -> Option<u64> {
        Some(self.interval_ms.load(Ordering::Relaxed)).filter(|interval| *interval > 0)
    }

    /// Commits travel so often from now on.
    pub(crate) fn travels_every(&self, interval_ms: u64) {
        self.interval_ms.store(interval_ms, Ordering::Relaxed);
    }

    /// Its store's folder.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// Whether more waits than is about to travel.
    pub(crate) fn lags(&self, lags: bool) {
        self.lags.store(lags, Ordering::Relaxed);
    }

    /// Whether commits have waited for so long, or are so many, that they travel in several batches.
    pub(crate) fn is_lagging(&self) -> bool {
        let waited = self.tracker().and_then(Tracker::waiting).map_or(0, |waited| waited.as_millis() as u64);
        let is_late = self.interval_ms().is_some_and(|interval| waited > span_ms(waited, interval));
        is_late || self.has_more()
    }

    /// Whether more waited than travelled, the last time.
    pub(crate) fn has_more(&self) -> bool {
        self.lags.load(Ordering::Relaxed)
    }

    /// Where the lock lies of who ships for it.
    pub(crate) fn shipper_lock(&self) -> PathBuf {
        Tracker::shipper_of(&self.store, &self.path)
    }

    /// Where the lock lies of who ships in the place of one that is silent.
    pub(crate) fn stand_in_lock(&self) -> PathBuf {
        Tracker::stand_in_of(&self.store, &self.path)
    }

    /// Where the table of sessions begins, as it was looked for since the newest checkpoint: whoever writes past us is in the next one.
    pub(crate) fn serials_at(&self, generation: Generation) -> Option<Root> {
        let known = *self.serials.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|(_, of)| *of == generation).map(|(root, _)| root)
    }

    /// It was looked for.
    pub(crate) fn set_serials_at(&self, root: Root, generation: Generation) {
        *self.serials.lock().unwrap_or_else(PoisonError::into_inner) = Some((root, generation));
    }

    /// Where the locks lie of who holds which session.
    pub(crate) fn sessions(&self) -> PathBuf {
        Tracker::sessions_of(&self.store, &self.path)
    }

    /// Opens it for a reader of our own, who goes when the last user does.
    pub(crate) fn lend(self: &Arc<Self>, whose: Reads) -> Result<Lent, SourceError> {
        let until = Instant::now() + Duration::from_millis(u64::from(BUSY_MS));
        loop {
            if let Some(lent) = self.lend_now(whose, Instant::now() >= until)? {
                return Ok(lent);
            }
            // Not inside: whoever ends what keeps us out comes through there, too.
            std::thread::sleep(LOOKS_AGAIN);
        }
    }

    /// `None` while somebody has the file for himself, unless that is waited for no more.
    fn lend_now(self: &Arc<Self>, whose: Reads, gives_up: bool) -> Result<Option<Lent>, SourceError> {
        let _inside = crate::forking::inside();
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = lent.keeps_out || self.users.load(Ordering::SeqCst) == 0;
        if is_over && whose == Reads::Behind {
            return Err(SourceError::Busy(format!("{}: its last connection is being closed", self.path.display())));
        }
        lent.recalls.retain(|recall| !recall.is_over());
        let (live, is_entered) = Live::open_at_once(self.library, self.clone())?;
        if !is_entered && !gives_up {
            return Ok(None);
        }
        let source = Lent::new(live.of(whose));
        lent.recalls.push(source.recall());
        Ok(Some(source))
    }

    /// The last user is leaving, and wants the files for himself, as SQLite does: readers of our own go, and none comes as long as
    /// the answer lives.
    pub(crate) fn recall(&self) -> Option<MutexGuard<'_, Lendings>> {
        if self.users.load(Ordering::SeqCst) != 1 || self.process != std::process::id() {
            return None;
        }
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        lent.recalls.drain(..).for_each(|recall| recall.now());
        Some(lent)
    }

    /// All that are open in this process.
    pub(crate) fn all() -> Vec<Arc<Self>> {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().flat_map(HashMap::values).filter_map(Weak::upgrade).collect()
    }

    /// Readers of our own go, and may come again.
    pub(crate) fn recall_all(&self) {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        lent.recalls.drain(..).for_each(|recall| recall.now());
    }

    /// Whether somebody has them for himself, or nobody has them.
    pub(crate) fn keeps_out(&self) -> bool {
        let keeps_out = self.lent.lock().unwrap_or_else(PoisonError::into_inner).keeps_out;
        keeps_out || self.users.load(Ordering::SeqCst) == 0
    }

    /// Whoever had the files for himself has them no more.
    pub(crate) fn let_in(&self) {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner).keep_out(false);
    }

    /// Another connection came: is it still the same file?
    pub(crate) fn look_again(&self) {
        if let Some(tracker) = self.tracker().filter(|_| !self.is_there()) {
            tracker.mark_foreign();
        }
    }

    /// These bytes are about to change.
    #[inline]
    pub(crate) fn mark(&self, offset: u64, len: u64) {
        if let Some(tracker) = self.tracker() {
            tracker.mark(offset, len);
        }
    }

    /// What writers of ours have not marked is marked now, or nothing is known any more (rule S7): who took the WAL's write lock, or
    /// reads under its index, finds the place that the last one of ours left, or somebody else has written meanwhile.
    /// `pages` answers which pages the frames after a place and up to another hold.
    pub(crate) fn catch_up(&self, header: Header, pages: impl FnOnce(u64, u64) -> Option<Vec<u32>>) {
        let Some(tracker) = self.tracker() else { return };
        let (seen, now) = (tracker.witnessed(), header.place());
        if seen == now {
            return;
        }
        let missed =
            (seen.salts == now.salts && seen.frame < now.frame).then(|| pages(seen.frame, now.frame)).flatten();
        match missed {
            Some(missed) => self.mark_pages(&missed, header.page_size()),
            None => tracker.mark_foreign(),
        }
        tracker.witness(now);
    }

    /// These pages may be others than before.
    pub(crate) fn mark_pages(&self, pages: &[u32], page_size: u64) {
        for before in pages.iter().filter_map(|page| page.checked_sub(1)) {
            self.mark(u64::from(before) * page_size, page_size);
        }
    }

    /// A new WAL begins; somebody of ours writes its header.
    pub(crate) fn wal_begins(&self, salts: u64) {
        if let Some(tracker) = self.tracker() {
            tracker.witness(WalPlace { salts, frame: 0 });
        }
    }

    /// The first page is written, with this change counter. In rollback mode each commit moves it by one, and whoever finds it
    /// further on than that was not alone (rule S7).
    pub(crate) fn counted(&self, counter: u32, is_wal: bool) {
        let Some(tracker) = self.tracker() else { return };
        let before = tracker.counter();
        let follows = before.is_some_and(|before| counter == before || counter == before.wrapping_add(1));
        if !is_wal && !follows {
            tracker.mark_foreign();
        }
        tracker.set_counter(counter);
    }

    /// A connection begins with a WAL. Where there was none, the file must be what it was when there was none. What is fetched changes a
    /// sparse one all the time, and nobody but us can write to it (rule S5).
    pub(crate) fn wal_opens(&self) {
        if let Some(tracker) = self.tracker()
            && self.sparse().is_none()
            && tracker.has_changed_without_a_wal(Trace::of(&self.path))
        {
            tracker.mark_foreign();
        }
    }

    /// The last connection of all takes the WAL away, while nobody else can read or write.
    pub(crate) fn wal_ends(&self) {
        self.seal_before_it_goes();
        if let Some(tracker) = self.tracker() {
            tracker.witness_no_wal(Trace::of(&self.path));
        }
    }

    /// The file is about to be cut.
    pub(crate) fn mark_cut(&self, size: u64) {
        if let Some(tracker) = self.tracker() {
            tracker.mark_cut(size);
        }
    }

    /// A frame was written to the WAL.
    #[inline]
    pub(crate) fn framed(&self) {
        self.framed.store(true, Ordering::Relaxed);
    }

    /// A transaction ended where no index of a WAL could tell of it: whether it wrote frames.
    pub(crate) fn take_framed(&self) -> bool {
        self.framed.swap(false, Ordering::Relaxed)
    }

    /// A transaction was committed: how many have been by now.
    #[inline]
    pub(crate) fn committed(&self) -> u64 {
        self.tracker().map_or(0, Tracker::count_commit)
    }

    /// The way to its volume, for who ships: one at a time has it, and a second one begins anew.
    pub(crate) fn take_stream(&self, said: &Said) -> Stream {
        let kept = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.filter(|stream| stream.is_for(&said.settings))
            .unwrap_or_else(|| Stream::new(self.path.clone(), said.settings.clone()))
    }

    /// When what was shipped from here is folded, though nobody commits.
    pub(crate) fn folds_in(&self) -> Option<Duration> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.as_ref().and_then(Stream::folds_in_ms).map(Duration::from_millis)
    }

    /// It comes back.
    pub(crate) fn keep_stream(&self, stream: Stream) {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    /// What was committed could be published.
    pub(crate) fn is_well(&self) {
        let was_ill = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take().is_some();
        if was_ill && let Err(error) = std::fs::remove_file(Tracker::trouble_of(&self.store, &self.path)) {
            tracing::debug!(%error, "other processes are still told what the trouble was, where they ask");
        }
    }

    /// What was committed could not be published: whether that is news.
    pub(crate) fn is_ill(&self, why: &str) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = trouble.as_deref() != Some(why);
        if is_news && let Err(error) = std::fs::write(Tracker::trouble_of(&self.store, &self.path), why) {
            tracing::debug!(%error, "other processes are not told what the trouble is");
        }
        *trouble = Some(why.to_owned());
        is_news
    }

    /// Why what was committed here could not be published, the last time, by whichever process tried; `None` where it could, or nobody
    /// did.
    pub(crate) fn trouble(&self) -> Option<String> {
        let ours = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ours.or_else(|| {
            // What another one left is of now only while it still fails.
            self.tracker()?.failed_since()?;
            let said = std::fs::read_to_string(Tracker::trouble_of(&self.store, &self.path)).ok()?;
            Some(said).filter(|said| !said.is_empty())
        })
    }

    /// Whether somebody here ships what is committed, or is ready to.
    pub(crate) fn has_shipper(&self) -> bool {
        let shipper = self.shipper.lock().unwrap_or_else(PoisonError::into_inner);
        shipper.as_ref().is_some_and(|shipper| !shipper.is_stopped())
    }

    /// Whether this process is the one that ships for it.
    pub(crate) fn is_elected(&self) -> bool {
        let shipper = self.shipper.lock().unwrap_or_else(PoisonError::into_inner);
        shipper.as_ref().is_some_and(Shipper::is_elected)
    }

    /// Whether it holds something of which no publication is known. Of a sparse one, only what was committed since counts.
    pub(crate) fn is_unpublished(&self) -> bool {
        let knows_nothing = self.tracker().is_some_and(|tracker| tracker.basis().is_none());
        knows_nothing && self.sparse().is_none() && std::fs::metadata(&self.path).is_ok_and(|found| found.len() > 0)
    }

    /// Whether a checkpoint would find something to look at.
    fn has_changed(&self) -> bool {
        self.tracker().is_some_and(|tracker| tracker.basis().is_none() || tracker.marked_bytes() > 0)
    }

    /// Whether something was committed that nobody has published, as far as anybody counted.
    fn has_commits(&self) -> bool {
        self.tracker().is_some_and(|tracker| tracker.commits_since() > 0 && !tracker.is_fenced())
    }

    /// Whether publishing failed a moment ago.
    fn fails(&self) -> bool {
        self.tracker().and_then(Tracker::failed_since).is_some_and(|since| since < FAILS)
    }

    /// Whether another process ships for this database.
    fn is_shipped_elsewhere(&self) -> bool {
        self.shipped_by().is_some()
    }

    /// Whether a reader may be one of ours, in whatever process.
    pub(crate) fn is_read_by_us(&self) -> bool {
        self.has_shipper() || self.tracker().is_some_and(|tracker| tracker.was_shipped(SHIPPED_LATELY))
    }

    /// The process that was elected to ship for this database, where one is.
    pub(crate) fn shipped_by(&self) -> Option<String> {
        WorkerLock::held_by(&self.shipper_lock())
    }

    /// The process that publishes just now, or works for the store otherwise, where one does.
    pub(crate) fn worked_by(&self) -> Option<String> {
        worked_by(&self.store, &self.path)
    }

    /// Whether another writer's term began, so that writing on here would only make a fork (rule P4).
    pub(crate) fn is_fenced(&self, said: &Said) -> bool {
        let Some(tracker) = self.tracker().filter(|tracker| tracker.is_fenced()) else { return false };
        if said.settings.fenced.value.goes_on() {
            return false;
        }
        if let Some((epoch, owner)) = tracker.fenced() {
            if owner == NOBODY {
                crate::last::error(&format!(
                    "{}: read-only here: the volume was released (epoch {epoch}), so that another machine may go on. To go on here: PRAGMA \
                     littoral_sync (or littoral checkpoint) claims it anew, unless another machine has",
                    self.path.display()
                ));
                return true;
            }
            crate::last::error(&format!(
                "{}: read-only here: {owner} took over (epoch {epoch}). What was committed since and not published is kept. To \
                 go on here nevertheless: fenced=continue; to take it back: takeover={epoch}",
                self.path.display()
            ));
        }
        true
    }
}

fn of_another_library(path: &Path) -> String {
    format!(
        "{}: another SQLite library of this process has it open. Each would drop the other's locks when it closes the file: open a \
         database through one library only",
        path.display()
    )
}

/// A connection was closed, and the inner file with it. The last one of this process may wait for what was committed to be published
/// (`close_wait`), then says goodbye. `trace` is what the file looked like before it was last asked whether somebody else had written.
pub(crate) fn closed(mut used: Used, said: &Said, trace: Option<Trace>) {
    let database = used.shared();
    if database.process != std::process::id() {
        return;
    }
    used.leaves();
    // Of two that close at once one is the last; and another may have come meanwhile.
    if used.is_last && database.users.load(Ordering::SeqCst) == 0 {
        last_wait(&database, said);
        goes(&database, trace);
    }
}

/// Nobody here has it open any more, unless somebody came meanwhile.
fn goes(database: &Arc<Database>, trace: Option<Trace>) {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if database.users.load(Ordering::SeqCst) > 0 {
        return;
    }
    // It may be another one's by now.
    if let Some(open) = open.as_mut()
        && open.get(&database.path).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(database)))
    {
        open.remove(&database.path);
    }
    if let Some(tracker) = database.tracker() {
        tracker.leave(trace);
    }
}

/// Whoever kept it without a connection keeps it no more. Where he was the last one nobody waits, and nobody can say what the file
/// looked like when all that was written to it was marked.
pub(crate) fn abandoned(mut used: Used) {
    let database = used.shared();
    used.leaves();
    let has_gone = used.is_last && database.users.load(Ordering::SeqCst) == 0;
    if database.process != std::process::id() || !has_gone {
        return;
    }
    if let Some(shipper) = database.shipper.lock().unwrap_or_else(PoisonError::into_inner).take() {
        shipper.stop();
    }
    database.recall_all();
    goes(&database, None);
}

/// The last user of this process is gone: what he committed travels now, or with the next opening.
fn last_wait(database: &Arc<Database>, said: &Said) {
    if database.replica().is_some() {
        return;
    }
    let wait = said.settings.close_wait();
    let until = Instant::now() + wait;
    let shipper = database.shipper.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(shipper) = &shipper {
        shipper.stop();
    }
    let is_said = said.settings.close_wait_ms.is_some();
    // What was released is not claimed anew by going away.
    let is_released = database.tracker().and_then(Tracker::fenced).is_some_and(|(_, owner)| owner == NOBODY);
    // Nobody said that it must be now: then not again while the object store does not answer, and not for what is only not known.
    let worth = if is_said { database.has_changed() } else { database.has_commits() && !database.fails() };
    let is_waited_for = worth && !is_released && !wait.is_zero();
    let has_ended = is_waited_for && shipper.as_ref().is_none_or(|shipper| shipper.join(wait));
    if let Some(shipper) = shipper.filter(|_| !has_ended && (is_waited_for || database.fails())) {
        // Whoever opens it again ships by another thread, and is not kept from that by what this one waits for.
        shipper.cut();
    }
    // Whatever it still does, it has the files open no more.
    database.recall_all();
    let told = |why: &str| {
        let path = database.path.display();
        let why = format!("{path}: what was committed is here and was not published at the last close: {why}");
        if is_said { crate::last::error(&why) } else { crate::last::refused(&why) }
    };
    if !has_ended {
        // What failed a moment before was told then.
        if is_waited_for && database.has_commits() {
            told("that took longer than close_wait= says; whoever opens it next goes on");
        }
        return;
    }
    if !is_said && database.is_shipped_elsewhere() {
        return;
    }
    let left = until.saturating_duration_since(Instant::now());
    let still = if is_said { database.has_changed() } else { database.has_commits() };
    if let Err(error) = if still { crate::work::sync(database, said, left).map(drop) } else { Ok(()) } {
        told(&error.to_string());
    }
}
