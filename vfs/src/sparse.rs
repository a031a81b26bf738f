//! A database that is not all here: pages come from the object store when they are read.
//!
//! What this room promises:
//! 1. A page that is read is the one that SQLite would find in a whole file: what was written here, else what the state that the file was
//!    made from holds (rule S4), verified, or an error with its reason (I5).
//! 2. Fetching and writing exclude each other (rule S3): a page that is here is never overwritten by one that came late.
//! 3. No other SQLite takes the file for a database, nor finds its WAL or journal (rule S5).
//! 4. What SQLite is told to be durable is known to be here durably (rule S6).
//! 5. Under a quota it takes no more room than that ([`room`]): what can be fetched again goes.
//!
//! Nothing is written by SQLite before the volume is ours: the first write claims it, or is refused (rule P4).

mod ahead;
mod bring;
pub(crate) mod room;
pub(crate) mod shrink;

use crate::raw::file::Bytes;
use crate::raw::library::Library;
use crate::said::Said;
use crate::work::{self, Ground, WorkError};
use ahead::{Ahead, Recent};
use littoral_engine::exec::restore::At;
use littoral_engine::lazy::Lazy;
use littoral_engine::logs::tables;
use littoral_engine::open::{self, Counting, Place, Totals};
use littoral_engine::past::PastFile;
use littoral_engine::readahead::Readahead;
use littoral_engine::tracker::residency::{Installing, Opening, Origin, Residency, materialise};
use littoral_engine::{EngineError, LocalError, live};
use littoral_types::{Epoch, Generation, PageCount, PageNo, Position, VolumeRow};
use room::Room;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a sparse file begins with instead of SQLite's own words.
pub(crate) const MAGIC: [u8; 16] = *b"Littoral sparse\0";
const SQLITES: [u8; 16] = *b"SQLite format 3\0";
/// What its WAL and its journal are called.
const SUFFIX: &str = ".littoral";

/// How long a page is waited for, all tries included.
const FETCH_DEADLINE: Duration = Duration::from_secs(120);
/// How often a page is looked for that is evicted again before it is read.
const TRIES_MAX: u32 = 1000;
/// Pages fetched at once when all are wanted.
const HYDRATE_PAGES: usize = 4096;

/// Why bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SparseError {
    /// From the object store.
    #[error("a page is not here and cannot be fetched: {0}")]
    Fetch(#[from] WorkError),
    /// Several readers met it together.
    #[error("a page is not here and cannot be fetched: {}", crate::remedy::told(.0))]
    Shared(#[from] littoral_engine::lazy::Failure),
    /// From the local disk.
    #[error("{}", crate::remedy::told_of_local(.0))]
    Local(#[from] LocalError),
    /// All of it was asked for.
    #[error("all of it is {pages} pages, and quota={quota} has no room for them: raise it, and open the database anew")]
    TooLarge {
        /// Its size.
        pages: PageCount,
        /// Bytes.
        quota: u64,
    },
    /// Others need the same room.
    #[error(
        "pages are evicted as fast as they come: quota={quota} is too little for what is read at once; raise it, or read less at a time"
    )]
    Crowded {
        /// Bytes.
        quota: u64,
    },
    /// SQLite's own code, of the inner file.
    #[error("the local file failed (code {0})")]
    Inner(std::ffi::c_int),
}

/// A reader of the volume, and the meter of what it costs.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    lazy: Lazy,
    meter: Arc<Counting>,
    /// Of which state of the file's, counted.
    turn: u64,
}

/// A sparse database of this process.
#[derive(Debug)]
pub(crate) struct Sparse {
    library: &'static Library,
    database: PathBuf,
    sidecar: PathBuf,
    residency: Residency,
    said: Said,
    /// Opened when the first page is missed.
    lazy: Mutex<Option<Reader>>,
    ahead: Mutex<Ahead>,
    recent: Recent,
    /// Whether the volume is ours to write, once that was asked.
    ours: Mutex<bool>,
    /// What it may take of the disk.
    room: Room,
}

/// Makes a sparse file where there is no database and the volume has one. Whether it did.
pub(crate) fn make(database: &Path, store: &Path, said: &Said) -> Result<Option<Reader>, WorkError> {
    let place = said.place(database)?;
    if place.is_unmade || !is_wanted(&place, said) {
        return Ok(None);
    }
    let Ground { place, said, components } = work::ground_of(place, said);
    open::begin_account(&place, &said.settings, &components);
    let url = place.url();
    let opened = work::run(FETCH_DEADLINE, async move || {
        let (log, meter, sides) = place.log_or_copy(&said.settings, &components)?;
        let opened = Lazy::open(&log, &components, &At::Newest).await;
        match opened.map_err(|error| sides.iter().fold(error, |error, sides| sides.explained(error))) {
            Ok(lazy) => Ok(Some(Reader { lazy, meter, turn: 0 })),
            // A volume without a checkpoint, or none at all, as the primary says: a new database begins.
            Err(EngineError::NoVolume(_) | EngineError::NoSuchPosition { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    })?;
    let Some(reader) = opened else { return Ok(None) };
    let lazy = &reader.lazy;
    let origin = Origin {
        volume: lazy.volume(),
        position: lazy.position(),
        page_size: lazy.page_size(),
        page_count: lazy.page_count(),
    };
    let sidecar = Residency::path_of(store, database);
    Residency::remove(&sidecar).map_err(EngineError::from)?;
    Residency::create(&sidecar, &origin).map_err(EngineError::from)?;
    tables::doubt(database).map_err(|error| EngineError::Refused(format!("its logs cannot be told apart: {error}")))?;
    let bytes = origin.page_count.0 * origin.page_size.bytes();
    materialise(database, &MAGIC, bytes).map_err(EngineError::from)?;
    tracing::info!(volume = url, position = %origin.position, "opened from the object store: pages come as they are read");
    Ok(Some(reader))
}

/// Takes the right to find out what a database file is, where it may be sparse or is to be made; `None` where neither can be.
pub(crate) fn opening(database: &Path, store: &Path, said: &Said) -> Result<Option<Opening>, String> {
    let sidecar = Residency::path_of(store, database);
    let is_there = std::fs::metadata(database).is_ok_and(|found| found.len() > 0);
    // One that has no room to stay whole may become sparse.
    if is_there && shrink::wants(database, store, said) {
        return Opening::wait(&sidecar).map(Some).map_err(|error| crate::remedy::told_of_local(&error));
    }
    if is_there && !sidecar.exists() {
        return Ok(None);
    }
    let place = said.place(database).map_err(|error| crate::remedy::told(&error))?;
    if !is_there && !sidecar.exists() && (place.is_unmade || !is_wanted(&place, said)) {
        return Ok(None);
    }
    Opening::wait(&sidecar).map(Some).map_err(|error| crate::remedy::told_of_local(&error))
}

/// Whether a file that is about to be removed is one of ours, by its own first bytes.
pub(crate) fn is_disguised(database: &Path) -> bool {
    let Ok(mut file) = std::fs::File::open(database) else { return false };
    let mut begins = [0; MAGIC.len()];
    let is_ours = file.read_exact(&mut begins).is_ok() && begins == MAGIC;
    // Closing it would drop the locks of whoever has a database open here past us (rule S9). This happens at most once an opening.
    std::mem::forget(file);
    is_ours
}

/// A sparse database that is nobody's to write here, and that nobody has open, shows the newest state of its volume: an older one goes.
/// Where the object store cannot be asked, the older one stays.
pub(crate) fn forget_stale(database: &Path, store: &Path, said: &Said) -> Result<(), String> {
    let sidecar = Residency::path_of(store, database);
    let told = |error: LocalError| crate::remedy::told_of_local(&error);
    let Some(residency) = Residency::attach(&sidecar).map_err(told)? else { return Ok(()) };
    let origin = residency.origin();
    let place = said.place(database).map_err(|error| crate::remedy::told(&error))?;
    let is_ours = place.found.as_ref().is_some_and(|found| found.binding.id == origin.volume);
    if !residency.was_alone() || is_ours || !residency.written_pages().is_empty() {
        return Ok(());
    }
    let Ground { place, said, components } = work::ground_of(place, said);
    let newest = work::run(FETCH_DEADLINE, async move || {
        let (log, _) = place.log(&said.settings, &components)?;
        Ok(log.glance().await?.map(|glance| (glance.volume, glance.tail.lsn)))
    });
    match newest {
        Ok(Some(newest)) if newest == (origin.volume, origin.position.lsn) => Ok(()),
        // Somebody may have put a whole database in its place: that is taken as it is.
        Ok(_) if !is_disguised(database) => Ok(()),
        Ok(_) => {
            drop(residency);
            std::fs::remove_file(database).map_err(|error| format!("{}: {error}", database.display()))?;
            Residency::remove(&sidecar).map_err(told)
        }
        Err(error) => {
            tracing::warn!(%error, database = %database.display(), "whether there is a newer state is not known");
            Ok(())
        }
    }
}

/// A database that was bound and is gone begins anew, unless somebody names what it is to be (DESIGN: first open).
fn is_wanted(place: &Place, said: &Said) -> bool {
    place.found.is_none() || said.names_volume()
}

/// The name under which a sparse database's WAL or journal lies.
pub(crate) fn name_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

impl Sparse {
    /// Finds out whether a database file is sparse. `begins` are its first bytes, if it has so many.
    pub(crate) fn find(
        library: &'static Library,
        database: &Path,
        store: &Path,
        said: &Said,
        begins: Option<[u8; 16]>,
        lazy: Option<Reader>,
    ) -> Result<Option<Self>, String> {
        let sidecar = Residency::path_of(store, database);
        let told = |error: LocalError| crate::remedy::told_of_local(&error);
        let residency = match (begins == Some(MAGIC), Residency::attach(&sidecar)) {
            (true, Ok(Some(residency))) => residency,
            (true, Ok(None)) => {
                return Err(format!(
                    "{}: was opened from an object store and is not all here, and what is here is not known ({} is gone). Nothing of it \
                     can be read. Remove the database file and open it anew: what was committed here and not published since is lost",
                    database.display(),
                    sidecar.display()
                ));
            }
            (true, Err(error)) => return Err(told(error)),
            (false, Ok(None)) => return Ok(None),
            (false, _) => {
                // Somebody put a whole database in its place.
                tracing::warn!(database = %database.display(), "a whole database stands where a sparse one was: it is taken as it is");
                Residency::remove(&sidecar).map_err(told)?;
                return Ok(None);
            }
        };
        let room = Room::of(database, said);
        Ok(Some(Self::over(library, database, sidecar, residency, said, lazy, room)))
    }

    /// Pages of a state that is read through another file than the database's: it never changes, and is nobody's to write.
    pub(crate) fn of_past(
        library: &'static Library,
        database: &Path,
        file: PastFile,
        said: &Said,
        (lazy, meter): (Lazy, Arc<Counting>),
    ) -> Self {
        let reader = Reader { lazy, meter, turn: file.residency.turn() };
        Self::over(library, database, file.sidecar, file.residency, said, Some(reader), Room::unbounded())
    }

    fn over(
        library: &'static Library,
        database: &Path,
        sidecar: PathBuf,
        residency: Residency,
        said: &Said,
        lazy: Option<Reader>,
        room: Room,
    ) -> Self {
        let origin = residency.origin();
        let mut trees = Readahead::new(origin.page_size, origin.page_count);
        for (page, image) in lazy.iter().flat_map(|reader| reader.lazy.skeleton()) {
            trees.learn(page, &image);
        }
        Self {
            library,
            database: database.to_owned(),
            sidecar,
            residency,
            said: said.clone(),
            lazy: Mutex::new(lazy),
            ahead: Mutex::new(Ahead::new(trees)),
            recent: Recent::new(),
            ours: Mutex::new(false),
            room,
        }
    }

    /// What reads the volume, where something does already.
    pub(crate) fn reader(&self) -> Option<Lazy> {
        self.lazy.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|reader| reader.lazy.clone())
    }

    /// Its WAL.
    fn wal(&self) -> PathBuf {
        let mut name = self.database.as_os_str().to_owned();
        name.push("-wal");
        name_of(Path::new(&name))
    }

    /// Whether everything is here and nobody else has it open: then it can become a plain file. One that has no room to stay so does not.
    pub(crate) fn is_ripe(&self) -> bool {
        let origin = self.residency.origin();
        if self.room.is_less_than(origin.page_count.0 * origin.page_size.bytes()) {
            return false;
        }
        let leftovers = ["-wal", "-journal"].map(|suffix| {
            let mut name = self.database.as_os_str().to_owned();
            name.push(suffix);
            name_of(Path::new(&name))
        });
        let settled =
            leftovers.iter().all(|leftover| std::fs::metadata(leftover).map_or(true, |found| found.len() == 0));
        self.residency.was_alone() && settled && self.residency.is_complete()
    }

    /// Makes a plain file of it, durably.
    pub(crate) fn ripen(&self, file: &mut Bytes) -> Result<(), SparseError> {
        file.write(0, &SQLITES).map_err(SparseError::Inner)?;
        file.sync().map_err(SparseError::Inner)?;
        Ok(Residency::remove(&self.sidecar)?)
    }

    /// Nobody knows any more how WALs were numbered.
    pub(crate) fn forget_place(&self) -> Result<(), LocalError> {
        self.residency.forget_place()
    }

    /// How many of how many pages are here.
    pub(crate) fn progress(&self) -> (u64, PageCount) {
        (self.residency.count_here(), self.residency.origin().page_count)
    }

    /// What fetching cost this process so far, and how many requests of it waited for one another.
    pub(crate) fn cost(&self) -> Option<(Totals, usize)> {
        let lazy = self.lazy.lock().unwrap_or_else(PoisonError::into_inner);
        lazy.as_ref().map(|reader| (reader.meter.totals(), reader.meter.depth()))
    }

    /// Counts from here on.
    pub(crate) fn count_anew(&self) {
        if let Some(reader) = &*self.lazy.lock().unwrap_or_else(PoisonError::into_inner) {
            reader.meter.reset();
        }
    }

    /// Where it came from.
    pub(crate) fn origin(&self) -> Origin {
        self.residency.origin()
    }

    /// Whether a page is here.
    pub(crate) fn has(&self, page: PageNo) -> bool {
        self.residency.is_here(page)
    }

    /// Pages that may differ from what the volume holds: those that were written here.
    pub(crate) fn written(&self) -> Vec<PageNo> {
        self.residency.written_pages()
    }

    fn units(&self, offset: u64, len: u64) -> std::ops::Range<u64> {
        let size = self.residency.origin().page_size.bytes();
        offset / size..(offset + len).div_ceil(size)
    }

    /// Reads, after fetching what is not here. `running` tells what the connection runs that reads.
    pub(crate) fn read(
        &self,
        file: &mut Bytes,
        offset: u64,
        into: &mut [u8],
        running: &dyn Fn() -> Vec<String>,
    ) -> Result<(), SparseError> {
        let units = self.units(offset, into.len() as u64);
        for _ in 0..TRIES_MAX {
            for page in units.clone().map(PageNo::from_index) {
                if !self.residency.is_here(page) {
                    self.bring(file, page, running)?;
                }
                self.recent.note(page);
                self.residency.touch(page);
            }
            // Counted before it is looked whether they are here, and after they were read: what was evicted in between may read as zeros.
            let evictions = self.residency.evictions();
            if !units.clone().all(|index| self.residency.is_here(PageNo::from_index(index))) {
                continue;
            }
            file.read(offset, into).map_err(SparseError::Inner)?;
            if self.residency.evictions() == evictions {
                overlay(offset, into);
                return Ok(());
            }
        }
        Err(self.crowded())
    }

    fn crowded(&self) -> SparseError {
        SparseError::Crowded { quota: self.room.quota() }
    }

    /// Waits for the right to install, with these pages here.
    fn with_here(
        &self,
        file: &mut Bytes,
        pages: impl Iterator<Item = PageNo> + Clone,
    ) -> Result<Installing<'_>, SparseError> {
        for _ in 0..TRIES_MAX {
            for page in pages.clone() {
                if !self.residency.is_here(page) {
                    self.bring(file, page, &Vec::new)?;
                }
            }
            let right = self.residency.installing()?;
            if pages.clone().all(|page| self.residency.is_here(page)) {
                return Ok(right);
            }
        }
        Err(self.crowded())
    }

    /// Writes. What is not here is whole afterwards, or was fetched before.
    pub(crate) fn write(&self, file: &mut Bytes, offset: u64, from: &[u8]) -> Result<(), SparseError> {
        let size = self.residency.origin().page_size.bytes();
        let end = offset + from.len() as u64;
        let units = self.units(offset, from.len() as u64);
        let is_whole = |index: u64| index * size >= offset && (index + 1) * size <= end;
        let parts = units.clone().filter(|index| !is_whole(*index)).map(PageNo::from_index);
        let right = self.with_here(file, parts)?;
        // Noted before, and here after (rule S3): who dies in between has written nothing that anybody takes for whole.
        for page in units.clone().map(PageNo::from_index) {
            self.residency.begin_write(&right, page)?;
        }
        file.write(offset, &disguised(offset, from)).map_err(SparseError::Inner)?;
        units.map(PageNo::from_index).for_each(|page| self.residency.end_write(&right, page));
        Ok(())
    }

    /// Cuts the file. What was behind is dead, whatever grows there later.
    pub(crate) fn truncate(&self, file: &mut Bytes, size: u64) -> Result<(), SparseError> {
        let page = self.residency.origin().page_size.bytes();
        let part = (!size.is_multiple_of(page)).then(|| PageNo::from_index(size / page));
        let right = self.with_here(file, part.into_iter())?;
        file.truncate(size).map_err(SparseError::Inner)?;
        Ok(self.residency.cut(&right, size.div_ceil(page))?)
    }

    /// What was written is about to be called durable.
    pub(crate) fn sync(&self) -> Result<(), SparseError> {
        Ok(self.residency.sync()?)
    }

    /// Fetches everything that is not here, telling how far it has come.
    pub(crate) fn hydrate(&self, file: &mut Bytes, told: &mut dyn FnMut(u64, u64)) -> Result<(), SparseError> {
        let mut from = PageNo::FIRST;
        let origin = self.residency.origin();
        if self.room.is_less_than(origin.page_count.0 * origin.page_size.bytes()) {
            return Err(SparseError::TooLarge { pages: origin.page_count, quota: self.room.quota() });
        }
        loop {
            let missing = self.residency.missing(from, HYDRATE_PAGES);
            let (Some(first), Some(_)) = (missing.first().copied(), missing.last()) else { return Ok(()) };
            from = first;
            self.fetch(file, &self.lazy()?, missing)?;
            let (here, all) = self.progress();
            told(here, all.0);
        }
    }

    /// What reads the state that the file's pages are fetched as of now.
    fn lazy(&self) -> Result<Reader, SparseError> {
        let mut lazy = self.lazy.lock().unwrap_or_else(PoisonError::into_inner);
        let (turn, origin) = self.residency.stands();
        if let Some(reader) = lazy.as_ref().filter(|reader| reader.turn == turn) {
            return Ok(reader.clone());
        }
        let Ground { place, said, components } = work::ground(&self.database, &self.said).map_err(WorkError::from)?;
        open::begin_account(&place, &said.settings, &components);
        let before = lazy.clone();
        let (owned, wal) = (self.residency.owned(), self.wal());
        let opened = work::run(FETCH_DEADLINE, async move || {
            let (log, meter, _) = place.log_or_copy(&said.settings, &components)?;
            let lazy = match Lazy::open(&log, &components, &At::Position(origin.position)).await {
                // A prune came while nobody had it open.
                Err(pruned @ EngineError::NoSuchPosition { .. }) => {
                    let newest = Lazy::open(&log, &components, &At::Newest).await?;
                    as_good(newest, origin.position, owned, &wal).ok_or(pruned)??
                }
                opened => opened?,
            };
            if lazy.volume() == origin.volume {
                if let Some(before) = before {
                    // Nothing is fetched as of that any more, and its pin goes.
                    before.lazy.close().await;
                }
                return Ok(Reader { lazy, meter, turn });
            }
            let detail = "another volume was made under this name since the database was opened from it".to_owned();
            Err(EngineError::NotAVolume { volume: place.url(), detail })
        })?;
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        opened.lazy.skeleton().for_each(|(page, image)| ahead.trees.learn(page, &image));
        Ok(lazy.insert(opened).clone())
    }

    /// Whether nobody else has published since we did: what is not here is then what the volume has. Otherwise a checkpoint would mix
    /// their pages with ours.
    pub(crate) fn vouch(&self, row: &VolumeRow) -> Result<(), String> {
        let tail = &row.tail;
        let is_ours = |(epoch, generation)| epoch == tail.epoch || generation == tail.figures.generation;
        let origin = self.origin();
        // Where nobody has committed since, it matters little whether it was ever noted that the term is ours.
        let is_still = origin.position.lsn == tail.lsn;
        if row.meta.id == origin.volume && (is_still || self.residency.owned().is_some_and(is_ours)) {
            return Ok(());
        }
        Err(format!(
            "{}: somebody else has published since this database was opened from {}, and not all of it is here: a checkpoint would mix \
             both. Nothing was published. Choose: the newest state (remove the file and open it anew; what was committed here and not \
             published is lost), or this one (PRAGMA littoral_hydrate, close all connections, and the checkpoint again)",
            self.database.display(),
            self.origin().position
        ))
    }

    /// What was written here is in the volume.
    pub(crate) fn published(&self, row: &VolumeRow) {
        if let Err(error) = self.residency.own(row.tail.epoch, row.tail.figures.generation) {
            tracing::warn!(%error, "that this checkpoint is ours is not noted: after a takeover the next one may be refused");
        }
    }

    /// What was said when it was opened first.
    pub(crate) fn said(&self) -> &Said {
        &self.said
    }

    /// Whether the database may be written here. The first time this may ask the object store: a volume that its writer released
    /// is claimed, one that has a writer only where the user names the term that ends (`takeover=`): what counts is what was said of
    /// the connection that writes.
    pub(crate) fn may_write(&self, said: &Said) -> Result<(), WorkError> {
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        if *ours {
            return Ok(());
        }
        let origin = self.residency.origin();
        let is_claimed = |place: &Place| {
            let is_bound = place.found.as_ref().is_some_and(|found| found.binding.id == origin.volume);
            is_bound && self.residency.owned().is_some()
        };
        let Ground { place, said: asked, components } = work::ground(&self.database, said)?;
        if !is_claimed(&place) {
            let claimed = async move || live::claim(&place, &asked.settings, &components, origin.position).await;
            match work::run(FETCH_DEADLINE, claimed) {
                // Durably, before anything is written that could be published.
                Ok((epoch, generation)) => self.residency.own(epoch, generation).map_err(EngineError::from)?,
                // Another process here claimed it meanwhile, and has perhaps published since.
                Err(_) if is_claimed(&work::ground(&self.database, said)?.place) => {}
                Err(error) => return Err(error),
            }
        }
        *ours = true;
        Ok(())
    }
}

/// A newer state, if it has every page as the file has it that was not written here since an older one: where this machine alone has
/// published since. A page that only the WAL has anew may still be read as it was before, so that there must be none; looked at after the
/// state was told, as what is committed later is not in it.
fn as_good(
    newest: Lazy,
    than: Position,
    owned: Option<(Epoch, Generation)>,
    wal: &Path,
) -> Option<Result<Lazy, EngineError>> {
    let is_ours = owned.is_some_and(|(epoch, _)| epoch == newest.position().epoch);
    if !is_ours || newest.position().lsn < than.lsn {
        return None;
    }
    if std::fs::metadata(wal).is_ok_and(|found| found.len() > 0) {
        return Some(Err(EngineError::Refused(format!(
            "the state of LSN {}, as of which pages are fetched that are not here, was pruned, and a newer one does only where nothing is \
             in the WAL: PRAGMA wal_checkpoint(TRUNCATE), and read again",
            than.lsn
        ))));
    }
    Some(Ok(newest))
}

/// Shows SQLite what it expects to find at the beginning.
fn overlay(offset: u64, into: &mut [u8]) {
    let Ok(start) = usize::try_from(offset) else { return };
    for (place, byte) in SQLITES.iter().enumerate().skip(start) {
        if let Some(shown) = into.get_mut(place - start) {
            *shown = *byte;
        }
    }
}

/// What is written instead, so that nobody else finds it.
fn disguised(offset: u64, from: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if offset >= MAGIC.len() as u64 {
        return from.into();
    }
    let mut bytes = from.to_vec();
    let start = usize::try_from(offset).unwrap_or(MAGIC.len());
    for (place, byte) in MAGIC.iter().enumerate().skip(start) {
        if let Some(hidden) = bytes.get_mut(place - start) {
            *hidden = *byte;
        }
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_hidden_on_disk_and_shown_to_sqlite() {
        let page: Vec<u8> = SQLITES.iter().copied().chain(16..=255).collect();
        for start in 0..40_usize {
            let mut there = disguised(start as u64, &page[start..]).into_owned();
            assert!(start > 10 || !there.windows(6).any(|found| found == b"SQLite"), "{start}");
            overlay(start as u64, &mut there);
            assert_eq!(there, page[start..], "{start}");
        }
    }
}
