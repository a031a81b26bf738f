//! A moment of a database's history, opened beside the database itself: `file:app.db?vfs=littoral&at=-5m`.
//!
//! What this room promises:
//! 1. What is read is the state of one restore point, whatever is written, published or pruned meanwhile: a pin keeps pruners away as
//!    long as it is open (rule P2).
//! 2. It comes lazily, page by page, into a file of its own in the store, which all processes share. The database's own file, WAL, journal
//!    and locks are not touched, and need not be here.
//! 3. Nobody writes it. SQLite is told that the file is immutable: it takes no locks then, and looks for neither a journal nor a WAL, which
//!    would be those of the live database. Page 1 shows a database with a rollback journal, so that no WAL is asked for.
//! 4. With `cold=1` the file is none: pages come past every cache, and lie in memory for as long as they are looked at (`cold.rs`). Where no
//!    moment is named, it is the newest that is published.
//!
//! Read next: `engine/src/exec/at.rs` (which state a moment means), `engine/local/src/past.rs` (the files), `sparse.rs` (how pages come).

use crate::cold::{self, Cold};
use crate::raw::abi::code;
use crate::raw::file::Bytes;
use crate::raw::library::Library;
use crate::said::Said;
use crate::sparse::{MAGIC, Sparse, SparseError};
use crate::sql::{Cell, Refusal};
use crate::work::{self, Ground, WorkError};
use littoral_engine::exec::at::{Found, find};
use littoral_engine::open::{self, store_root};
use littoral_engine::past::PastFiles;
use littoral_engine::tracker::residency::Origin;
use littoral_engine::{EngineError, Lazy};
use littoral_types::moment::Utc;
use littoral_types::{At, Moment, Position};
use std::collections::HashMap;
use std::ffi::{c_char, c_int};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// How long the moment may take to be found.
const OPEN_DEADLINE: Duration = Duration::from_secs(120);
/// How long the last one to close it waits for its pin to be taken back. What is left behind expires.
const CLOSE_DEADLINE: Duration = Duration::from_secs(8);
/// Where page 1 says how the database commits: 1 is a rollback journal.
const VERSIONS_AT: u64 = 18;

/// States of the past that are open in this process, by their files.
static OPEN: Mutex<Option<HashMap<PathBuf, Weak<Past>>>> = Mutex::new(None);

/// A state of the past that is open.
#[derive(Debug)]
pub(crate) struct Past {
    database: PathBuf,
    /// The process that opened it: a child has its memory, and not its threads.
    process: u32,
    position: Position,
    time_ms: u64,
    url: String,
    pages: Pages,
}

/// Where its pages are.
#[derive(Debug)]
enum Pages {
    /// In a file of the store's.
    Kept(Box<Kept>),
    /// Nowhere here: a cold scan's.
    Cold(Box<Cold>),
}

#[derive(Debug)]
struct Kept {
    file: PathBuf,
    /// The same for C, with more than one zero behind it: SQLite looks for parameters there.
    name: Vec<u8>,
    sparse: Sparse,
}

/// Which moment, as it was said.
struct Asked<'a>(Option<&'a Moment>);

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(moment) => write!(f, "at={moment}"),
            None => f.write_str("cold=1"),
        }
    }
}

impl Past {
    /// Opens a moment of a database's history, or finds the same state open.
    pub(crate) fn open(
        library: &'static Library,
        database: &Path,
        said: &Said,
        moment: Option<&Moment>,
    ) -> Result<Arc<Self>, String> {
        said.refuse_impossible(database)?;
        let asked = Asked(moment);
        let told = |error: WorkError| format!("{}: {asked}: {error}", database.display());
        let Ground { place, said, components } =
            work::ground(database, said).map_err(|error| told(WorkError::Engine(error)))?;
        let (url, settings) = (place.url(), said.settings.clone());
        let at = moment.map_or(At::Newest, |moment| moment.as_of(components.clock.wall_ms()));
        let (wanted, machine) = (at.clone(), components.clone());
        let is_cold = settings.cold.value;
        if !is_cold {
            open::begin_account(&place, &settings, &components);
        }
        let deadline = if is_cold { cold::DEADLINE } else { OPEN_DEADLINE };
        let found = work::run(deadline, async move || {
            let (log, meter, _) = match is_cold {
                true => place.log_for_scan(&settings, &machine)?,
                false => place.log_or_copy(&settings, &machine)?,
            };
            let log = Lazy::remembering(&log);
            let found = Box::pin(find(&log, &wanted)).await?;
            Ok((log, meter, found))
        });
        let (log, meter, Found { opened, point }) = found.map_err(told)?;
        let Some(page_size) = opened.tail.figures.page_size else {
            return Err(told(EngineError::NoVolume(url).into()));
        };
        let origin = Origin {
            volume: opened.meta.id,
            position: Position { epoch: opened.tail.epoch, lsn: opened.tail.lsn },
            page_size,
            page_count: opened.tail.figures.page_count,
        };
        // A named snapshot is a pin itself; whatever else is read by its commit is pinned by that.
        let at = match at {
            At::Snapshot(name) => At::Snapshot(name),
            At::Newest | At::Time(_) | At::Lsn(_) | At::Position(_) => At::Lsn(origin.position.lsn),
        };
        let process = std::process::id();
        let begin = async move || Lazy::from_opened(&log, &components, &at, opened);
        let past = |pages| {
            let position = Position { epoch: point.epoch, lsn: point.lsn };
            let past = Self { database: database.to_owned(), process, position, time_ms: point.time_ms, url, pages };
            library.api.say(code::NOTICE, &past.what());
            Arc::new(past)
        };
        if is_cold {
            let lazy = work::run(deadline, begin).map_err(told)?;
            return Ok(past(Pages::Cold(Box::new(Cold::new(lazy, meter, &said.settings)))));
        }
        let files = PastFiles::of(&store_root(database, &said.settings));
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.get_or_insert_default();
        if let Some(known) = open.get(&files.path_of(&origin)).and_then(Weak::upgrade)
            && known.process == process
        {
            return Ok(known);
        }
        let file = files.open(&origin, &MAGIC).map_err(|error| told(EngineError::from(error).into()))?;
        let lazy = work::run(deadline, begin).map_err(told)?;
        let (path, name) = (file.path.clone(), spelled(&file.path));
        let sparse = Sparse::of_past(library, database, file, &said, (lazy, meter));
        let past = past(Pages::Kept(Box::new(Kept { file: path.clone(), name, sparse })));
        open.retain(|_, known| known.strong_count() > 0);
        open.insert(path, Arc::downgrade(&past));
        Ok(past)
    }

    /// The file's name, for C. `None`: there is none.
    pub(crate) fn name(&self) -> Option<*const c_char> {
        match &self.pages {
            Pages::Kept(kept) => Some(kept.name.as_ptr().cast()),
            Pages::Cold(_) => None,
        }
    }

    /// Its size in bytes, where no file tells it.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match &self.pages {
            Pages::Kept(_) => None,
            Pages::Cold(cold) => Some(cold.bytes()),
        }
    }

    /// Reads, after fetching what is not at hand.
    pub(crate) fn read(&self, file: &mut Bytes, offset: u64, into: &mut [u8]) -> Result<(), SparseError> {
        match &self.pages {
            Pages::Kept(kept) => kept.sparse.read(file, offset, into, &Vec::new),
            Pages::Cold(cold) => cold.read(offset, into),
        }?;
        show(offset, into);
        Ok(())
    }

    fn what(&self) -> String {
        let how = match &self.pages {
            Pages::Kept(_) => "the past",
            Pages::Cold(_) => "for a cold scan",
        };
        let (database, time) = (self.database.display(), Utc(self.time_ms));
        format!("{database} is open as of {} of {time}, {how}, which only reads", self.position)
    }

    fn reason(&self) -> String {
        if let Pages::Cold(_) = &self.pages {
            return format!("{}, in the object store. To write, open it without cold=", self.what());
        }
        format!(
            "{}. To write, leave at= out; littoral rewind --to {} makes that state the newest one, littoral restore --at copies it to a \
             file",
            self.what(),
            self.position.lsn
        )
    }

    /// Why something is not done here.
    pub(crate) fn refusal(&self, what: &str) -> Refusal {
        let message = format!("{what}: {}", self.reason());
        crate::last::refused(&message);
        Refusal { code: code::READONLY, message }
    }

    /// SQLite would write all the same.
    pub(crate) fn refuse_write(&self) -> c_int {
        crate::last::refused(&self.reason());
        code::READONLY
    }

    /// Answers a pragma or a function of ours.
    pub(crate) fn answer(&self, name: &str) -> Result<Cell, Refusal> {
        match name {
            "littoral_at" => Ok(Cell::Text(self.position.to_string())),
            "littoral_version" => Ok(Cell::Text(env!("CARGO_PKG_VERSION").to_owned())),
            // SQLite refuses a write without asking us: the reason is known all the same.
            "littoral_last_error" => Ok(Cell::Text(crate::last::here().unwrap_or_else(|| self.reason()))),
            "littoral_take_error" => Ok(Cell::Text(crate::last::take().unwrap_or_else(|| self.reason()))),
            "littoral_status" => {
                let lines = self.told();
                Ok(Cell::Text(
                    lines.iter().map(|(name, value)| format!("{name:<18}{value}")).collect::<Vec<_>>().join("\n"),
                ))
            }
            other => Err(self.refusal(other)),
        }
    }

    /// Answers a table of ours.
    pub(crate) fn rows(&self, name: &str) -> Result<Vec<Vec<Cell>>, Refusal> {
        match name {
            "littoral_status" => Ok(self
                .told()
                .into_iter()
                .map(|(name, value)| vec![Cell::Text(name.to_owned()), Cell::Text(value)])
                .collect()),
            other => Err(self.refusal(other)),
        }
    }

    fn told(&self) -> Vec<(&'static str, String)> {
        let mut told = vec![
            ("at", self.position.to_string()),
            ("published", Utc(self.time_ms).to_string()),
            ("volume", self.url.clone()),
            ("writable", format!("no: {}", self.reason())),
        ];
        let totals = match &self.pages {
            Pages::Kept(kept) => {
                let (here, all) = kept.sparse.progress();
                told.push(("here", format!("{here} of {all} pages")));
                told.push(("file", kept.file.display().to_string()));
                kept.sparse.cost().map(|(totals, _)| totals)
            }
            Pages::Cold(cold) => {
                told.push(("here", format!("{} bytes, in memory", cold.held())));
                Some(cold.meter().totals())
            }
        };
        if let Some(totals) = totals {
            let all = totals.all();
            told.push(("fetched", format!("{} bytes in {} requests", all.bytes_down, all.requests)));
        }
        told
    }
}

/// A path for C, with several zeros behind it: what follows a name is read for parameters by some, and there are none.
fn spelled(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().iter().copied().filter(|byte| *byte != 0).chain([0; 4]).collect()
}

/// Shows page 1 as that of a database with a rollback journal.
fn show(offset: u64, into: &mut [u8]) {
    for at in VERSIONS_AT..VERSIONS_AT + 2 {
        let place = at.checked_sub(offset).and_then(|place| usize::try_from(place).ok());
        if let Some(byte) = place.and_then(|place| into.get_mut(place)) {
            *byte = 1;
        }
    }
}

/// Why a shared cache is not for the past: SQLite shares it by the file's name, which is the live database's.
pub(crate) fn shared_cache(database: &Path) -> String {
    format!(
        "{}: at= and cold= do not go together with cache=shared: SQLite would take the pages of the live database for others. Leave \
         cache=shared out",
        database.display()
    )
}

/// A connection was closed. The last one takes the pin back.
pub(crate) fn closed(past: Arc<Past>) {
    // A child's copy of its parent's is not its own to end.
    if past.process != std::process::id() {
        std::mem::forget(past);
        return;
    }
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if Arc::strong_count(&past) > 1 {
        drop(past);
        return;
    }
    if let (Some(open), Pages::Kept(kept)) = (open.as_mut(), &past.pages) {
        open.remove(&kept.file);
    }
    drop(open);
    let lazy = match &past.pages {
        Pages::Kept(kept) => kept.sparse.reader(),
        Pages::Cold(cold) => Some(cold.lazy().clone()),
    };
    let Some(lazy) = lazy else { return };
    let done = work::run_shared(CLOSE_DEADLINE, async move || lazy.close().await);
    if let Err(error) = done {
        tracing::warn!(%error, "the pin of a state of the past was not taken back: it expires by itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_one_is_shown_as_that_of_a_rollback_journal_wherever_a_read_begins() {
        let page: Vec<u8> = (0..100).map(|at| if at == 18 || at == 19 { 2 } else { at }).collect();
        for start in 0..30_usize {
            for len in 0..40 {
                let mut read = page[start..start + len].to_vec();
                show(start as u64, &mut read);
                for (at, byte) in read.iter().enumerate() {
                    let must = if matches!(start + at, 18 | 19) { 1 } else { page[start + at] };
                    assert_eq!(*byte, must, "{start} {len}");
                }
            }
        }
        let mut far = [2; 100];
        show(4096, &mut far);
        assert_eq!(far, [2; 100]);
    }
}
