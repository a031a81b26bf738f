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
use crate::sparse::{Reader, Sparse};
use littoral_engine::exec::segment::Shipped;
use littoral_engine::open::store_root;
use littoral_engine::settings::Settings;
use littoral_engine::tracker::residency::Opening;
use littoral_engine::tracker::{Trace, Tracker, WalPlace};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// Whether a sparse database was ever open in this process. As long as none was, no file lies under another name.
static SPARSE: AtomicBool = AtomicBool::new(false);

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
    tracker: OnceLock<Option<Tracker>>,
    /// Whether frames were written since somebody asked.
    framed: AtomicBool,
    /// Where not all of it is here.
    sparse: Mutex<Sparseness>,
    /// What was said of it and can be.
    possible: Mutex<Option<Arc<Settings>>>,
    /// Pages as this process shipped them.
    shipped: Mutex<Shipped>,
}

#[derive(Debug)]
enum Sparseness {
    /// Nobody has looked yet; a reader of the volume, where its file was just made, and the right to look.
    Unknown(Option<Reader>, Option<Opening>),
    Known(Option<Arc<Sparse>>),
}

impl Database {
    /// Opens a database file, or finds it open.
    pub(crate) fn open(
        path: &Path,
        library: &'static Library,
        said: &Said,
        read_only: bool,
    ) -> Result<Arc<Self>, String> {
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
            return Ok(known);
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
            shipped: Mutex::default(),
        });
        open.retain(|_, known| known.strong_count() > 0);
        open.insert(path.to_owned(), Arc::downgrade(&new));
        Ok(new)
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

    /// Before its file is opened: where there is none, and the volume has one, a sparse one is made.
    pub(crate) fn prepare(&self, said: &Said) -> Result<(), String> {
        self.refuse_impossible(said)?;
        if matches!(*self.sparse.lock().unwrap_or_else(PoisonError::into_inner), Sparseness::Known(_)) {
            return Ok(());
        }
        // Held until it is known what the file is: of processes that open it at once, one makes it and the others find it.
        let opening = crate::sparse::opening(&self.path, &self.store, said)?;
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
        self.tracker.get()?.as_ref()
    }

    /// The file is open for writing.
    pub(crate) fn arrive(&self) {
        let trace = self.file.get_or_init(|| Trace::of(&self.path));
        self.tracker.get_or_init(|| {
            let path = Tracker::path_of(&self.store, &self.path);
            match Tracker::attach(&path, *trace) {
                Ok(tracker) => Some(tracker),
                Err(error) => {
                    let database = self.path.display();
                    tracing::warn!(%database, %error, "changes cannot be kept track of: a checkpoint will compare all pages");
                    None
                }
            }
        });
    }

    /// Another connection came: is it still the same file?
    pub(crate) fn look_again(&self) {
        let first = self.file.get().copied().flatten();
        let is_same = first.zip(Trace::of(&self.path)).is_some_and(|(first, now)| first.is_same_file(&now));
        if let Some(tracker) = self.tracker().filter(|_| !is_same) {
            tracker.mark_unknown();
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
            None => tracker.mark_unknown(),
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
            tracker.mark_unknown();
        }
        tracker.set_counter(counter);
    }

    /// A connection begins with a WAL. Where there was none, the file must be what it was when there was none.
    pub(crate) fn wal_opens(&self) {
        if let Some(tracker) = self.tracker()
            && tracker.has_changed_without_a_wal(Trace::of(&self.path))
        {
            tracker.mark_unknown();
        }
    }

    /// The last connection of all takes the WAL away, while nobody else can read or write.
    pub(crate) fn wal_ends(&self) {
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

    /// A transaction was committed.
    #[inline]
    pub(crate) fn committed(&self) {
        if let Some(tracker) = self.tracker() {
            tracker.count_commit();
        }
    }

    /// What is remembered of pages that were shipped, for who ships more: one at a time has it.
    pub(crate) fn take_shipped(&self) -> Shipped {
        std::mem::take(&mut self.shipped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It comes back.
    pub(crate) fn keep_shipped(&self, shipped: Shipped) {
        *self.shipped.lock().unwrap_or_else(PoisonError::into_inner) = shipped;
    }

    /// Whether a checkpoint would find something to look at.
    fn has_changed(&self) -> bool {
        self.tracker().is_some_and(|tracker| tracker.basis().is_none() || tracker.marked_bytes() > 0)
    }

    /// Whether another writer's term began, so that writing on here would only make a fork (rule P4).
    pub(crate) fn is_fenced(&self, said: &Said) -> bool {
        let Some(tracker) = self.tracker().filter(|tracker| tracker.is_fenced()) else { return false };
        if said.settings.fenced.value.goes_on() {
            return false;
        }
        if let Some((epoch, owner)) = tracker.fenced() {
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

/// A connection was closed, and the inner file with it. The last one of this process may wait for a checkpoint (`close_wait`), then
/// says goodbye. `trace` is what the file looked like before it was last asked whether somebody else had written.
pub(crate) fn closed(database: Arc<Database>, said: &Said, library: &'static Library, trace: Option<Trace>) {
    if database.process != std::process::id() {
        return;
    }
    let wait = said.settings.close_wait_ms.value;
    if wait > 0 && Arc::strong_count(&database) == 1 && database.has_changed() {
        let synced = crate::work::sync(library, &database, said, Duration::from_millis(wait));
        if let Err(error) = synced {
            let path = database.path.display();
            crate::last::error(&format!("{path}: nothing was published at the last close: {error}"));
        }
    }
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if Arc::strong_count(&database) > 1 {
        // Gone before the next one counts: of two that close at once one is the last.
        drop(database);
        return;
    }
    if let Some(open) = open.as_mut() {
        open.remove(&database.path);
    }
    if let Some(tracker) = database.tracker() {
        tracker.leave(trace);
    }
}
