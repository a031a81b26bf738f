//! A checkpoint's pages, out of a database that others write (rule S16).
//!
//! What this room promises:
//! 1. Whatever is read is a committed version of its page: read inside of a read transaction of SQLite's own, from the WAL's newest
//!    frame below the transaction's mark, else from the database file.
//! 2. No read transaction is held for longer than [`SLICE`], as long as others leave us that choice: few changed pages are taken at once,
//!    many in slices; what changed meanwhile is named by [`PageSource::catch_up`].
//! 3. After [`ROUNDS_MAX`] rounds it stands still for as long as the rest takes: a checkpoint ends however much is written.
//!
//! 4. What was read is durable here before anybody else can have it (rule S2).
//!
//! What may never enter: the network. A transaction that waits for a request would keep the WAL from starting over.

mod commits;
mod lent;
mod times;

pub(crate) use commits::salts_in_file;
pub(crate) use lent::{Lent, Recall, WalNow};

use crate::database::{Database, Reads};
use crate::raw::connection::{Connection, Failure};
use crate::raw::file::Bytes;
use crate::raw::library::Library;
use crate::raw::walindex::Header;
use littoral_engine::catalogue;
use littoral_engine::logs::counted::{Looked, TABLE, counted};
use littoral_engine::logs::tables as logs;
use littoral_engine::sessions::{Root, Walked, holders, sessions};
use littoral_engine::tracker::bells::Ordinal;
use littoral_engine::tracker::{Basis, Marks, UNIT, WalPlace};
use littoral_engine::wal::{self, FRAME_BYTES};
use littoral_ports::{CaughtUp, Changed, Commits, LiveSource, PageSource, SourceError};
use littoral_types::limits::SESSION_PAGES_MAX;
use littoral_types::{
    CountedLog, Epoch, Gap, GapReason, PageCount, PageNo, PageSize, Position, Sessions, Tree, VolumeRow, WalMark,
};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use times::now_ms;

/// How long a read transaction is held.
pub(crate) const SLICE: Duration = Duration::from_millis(50);
/// Changed pages that are taken at once, in bytes.
const SPOOL_BYTES_MAX: u64 = 32 << 20;
/// Pages of a schema that are looked at however long that takes.
const TREE_PAGES_MIN: u64 = 64;
/// After so many rounds the source stands still.
const ROUNDS_MAX: u32 = 8;
/// How long a lock is waited for.
pub(crate) const BUSY_MS: u32 = 5_000;
/// A transaction begins between two commits, or it begins again.
const TRIES_MAX: u32 = 10_000;
/// How often it is looked whether a writer of ours has begun the WAL, a millisecond apart.
const VOUCHES_MAX: u32 = 20;

/// A database's pages, as they come.
pub(crate) struct Live {
    database: Arc<Database>,
    connection: Connection,
    /// What is asked of it now: size and places as of the last transaction that counts.
    page_size: PageSize,
    page_count: PageCount,
    /// The WAL at that commit.
    place: WalPlace,
    view: View,
    /// SQLite's own constant, as its library has it.
    pending_byte: u64,
    changed: Changed,
    /// Pages of that commit that were taken at once.
    spool: HashMap<PageNo, Vec<u8>>,
    /// Since when a transaction is open.
    since: Option<Instant>,
    /// Something was read that is not in the spool: of a later commit, perhaps.
    moved: bool,
    /// The transaction stays open until the end.
    holds: bool,
    /// A checkpoint was begun: its connection stays open to the end.
    underway: bool,
    rounds: u32,
    commits_read: u64,
    commits_before: u64,
    /// What is not in what is published was not committed before that, milliseconds since 1970; `None` where nobody can say.
    rest_ms: Option<u64>,
    /// Whether all that was committed was gathered last.
    gave_all: bool,
    /// Commits that no record had then.
    behind: u64,
    /// Where the WAL stood at the volume's newest record, as long as everything that changed since is known.
    from: Option<WalMark>,
    /// Pages as they were before the commits that were gathered last, as far as they were at hand.
    before: HashMap<PageNo, Vec<u8>>,
    /// How many commits had been counted then; and the number of the newest of them.
    seen_commits: u64,
    seen: Option<Ordinal>,
    /// Whether it was closed by somebody who needed the files more.
    is_recalled: bool,
    /// The mark of the WAL at that commit, and when it was made.
    mark: Option<WalMark>,
    committed_ms: Option<u64>,
    /// Why what changed since the volume's newest record cannot be told apart, where it cannot.
    gap: Option<Gap>,
    /// For whom it is read.
    is_behind: bool,
    /// How far each session is at that commit; and at the last one that was gathered, where that was at hand.
    sessions: Sessions,
    /// The trees of its schema, at the same commit, where that was at hand.
    trees: Option<Vec<Tree>>,
    gathered: Option<Sessions>,
    /// The logs that the database counts rows of, at the commit that was read last.
    logs: Vec<CountedLog>,
}

/// One read transaction's view.
#[derive(Default)]
struct View {
    place: WalPlace,
    /// The newest frame of each page, counted from one.
    frames: HashMap<u32, u64>,
    /// Whether the database file alone is read, though there is a WAL.
    main_only: bool,
    page_count: u64,
}

impl Live {
    /// Opens the database for reading, in the library that has it open.
    pub(crate) fn open(library: &'static Library, database: Arc<Database>) -> Result<Self, SourceError> {
        Self::open_within(library, database, BUSY_MS).map(|(live, _)| live)
    }

    /// The same, without waiting for whoever has the file for himself just now, and whether nobody had.
    pub(crate) fn open_at_once(
        library: &'static Library,
        database: Arc<Database>,
    ) -> Result<(Self, bool), SourceError> {
        let (live, is_entered) = Self::open_within(library, database, 0)?;
        live.connection.waits(BUSY_MS);
        Ok((live, is_entered))
    }

    fn open_within(
        library: &'static Library,
        database: Arc<Database>,
        busy_ms: u32,
    ) -> Result<(Self, bool), SourceError> {
        // What is opened here is what has the name now.
        database.look_again();
        let told = |failure: Failure| explained(&database, &failure);
        let connection = Connection::open(library, database.path(), busy_ms).map_err(told)?;
        let mut live = Self {
            connection,
            page_size: PageSize::MIN,
            page_count: PageCount::ZERO,
            place: WalPlace::default(),
            view: View::default(),
            changed: Changed::Unknown,
            spool: HashMap::new(),
            since: None,
            moved: false,
            holds: false,
            underway: false,
            rounds: 0,
            commits_read: 0,
            commits_before: 0,
            rest_ms: None,
            gave_all: false,
            behind: 0,
            from: None,
            before: HashMap::new(),
            seen_commits: 0,
            seen: None,
            pending_byte: 0,
            is_recalled: false,
            mark: None,
            committed_ms: None,
            gap: None,
            is_behind: false,
            sessions: Sessions::new(),
            trees: None,
            gathered: None,
            logs: Vec::new(),
            database,
        };
        live.pending_byte = live.connection.pending_byte();
        let is_entered = match live.enter() {
            Ok(page_size) => {
                live.page_size = page_size;
                true
            }
            // Whoever has patience asks again: nothing is read before it begins.
            Err(SourceError::Busy(_)) => false,
            Err(error) => return Err(error),
        };
        live.leave()?;
        Ok((live, is_entered))
    }

    /// The same for somebody.
    pub(crate) fn of(self, whose: Reads) -> Self {
        Self { is_behind: whose == Reads::Behind, ..self }
    }

    /// Somebody else needs the files more.
    fn recall(&mut self) {
        self.is_recalled |= !self.connection.is_closed();
        self.close();
    }

    /// Nothing more is read: its connection goes.
    fn close(&mut self) {
        self.since = None;
        self.connection.close();
    }

    /// The bytes of the file, for who fetches what is not in it.
    pub(crate) fn with_file<T>(&self, work: impl FnOnce(&mut Bytes) -> T) -> T {
        work(&mut self.connection.bytes())
    }

    /// Brings what is in the WAL to the database file, if nobody is in the way: whoever leaves without having read does not.
    pub(crate) fn empty_wal(&self) {
        if let Err(error) = self.connection.empty_wal() {
            tracing::debug!(error = %error.message, "the WAL keeps what it has");
        }
    }

    fn told(&self, failure: &Failure) -> SourceError {
        if self.connection.is_closed() {
            // It does not come back: who waits for it keeps the one waiting who took it away.
            let path = self.database.path().display();
            return SourceError::Failed(format!(
                "{path}: whoever closes it, or keeps everybody out, needed its files: try again"
            ));
        }
        explained(&self.database, failure)
    }

    fn busy(&self, what: &str) -> SourceError {
        SourceError::Busy(format!("{}: {what}", self.database.path().display()))
    }

    /// Commits that were counted so far.
    fn counted(&self) -> u64 {
        self.database.tracker().map_or(0, |tracker| tracker.commits())
    }

    /// The number of the newest commit that the open transaction sees, where it is one of the WAL's.
    fn ordinal(&self) -> Option<Ordinal> {
        self.database.tracker()?.ordered(self.view.place)
    }

    /// Whoever waits for commits to be in the object store is told.
    fn tell_durable(&self, row: &VolumeRow) {
        let position = Position { epoch: row.tail.epoch, lsn: row.tail.lsn };
        if let Some(tracker) = self.database.tracker() {
            tracker.tell_durable(self.seen, position, self.rest_ms);
        }
        match self.seen {
            Some(seen) => self.database.unseal(Some(seen.wals())),
            None if self.seen_at().salts == 0 => self.database.unseal(None),
            None => {}
        }
    }

    /// Where the WAL stood at the commit that is spoken of.
    fn seen_at(&self) -> WalPlace {
        if self.underway { self.place } else { self.view.place }
    }

    /// How many commits no record has, as of the place that was read last. Those that were shipped since the last checkpoint do not count
    /// again. What came without a frame is one at least.
    fn count(&mut self) {
        let left = self.from.and_then(|from| self.commits_after(&from, self.place));
        self.behind = left.unwrap_or_else(|| self.commits_read.saturating_sub(self.commits_before).max(1));
    }

    /// Begins a read transaction between two commits, so that the WAL's end at that moment is known exactly.
    fn enter(&mut self) -> Result<PageSize, SourceError> {
        for _ in 0..TRIES_MAX {
            let before = self.connection.header();
            let begun = self.connection.run(c"BEGIN").and_then(|()| self.connection.run(c"PRAGMA schema_version"));
            if let Err(failure) = begun {
                let told = self.told(&failure);
                // It may have begun, and not have read. Where it has not, there is nothing to be ended.
                let _ = self.connection.run(c"ROLLBACK");
                return Err(told);
            }
            let (after, reader) = (self.connection.header(), self.connection.reader());
            if reader.is_some() && (after.is_none() || before != after) {
                self.connection.run(c"ROLLBACK").map_err(|failure| self.told(&failure))?;
                continue;
            }
            self.since = Some(Instant::now());
            match self.look(reader, after.filter(|_| reader.is_some()))? {
                Some(page_size) => return Ok(page_size),
                None => self.leave()?,
            }
        }
        Err(self.busy("others commit so fast that no reader gets in between"))
    }

    /// What the transaction sees; `None` when the WAL started over meanwhile, as it may under a reader of the file alone.
    fn look(&mut self, reader: Option<u32>, header: Option<Header>) -> Result<Option<PageSize>, SourceError> {
        let number = |sql| self.connection.number(sql).map_err(|failure| self.told(&failure));
        let page_count = number(c"PRAGMA page_count")?.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        let page_size = number(c"PRAGMA page_size")?.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        let page_size = PageSize::new(page_size).map_err(|error| SourceError::Corrupt(error.to_string()))?;
        let place =
            header.map_or(WalPlace::default(), |header| WalPlace { salts: header.salts(), frame: header.frames() });
        if place.salts != self.view.place.salts || place.frame < self.view.place.frame || place.salts == 0 {
            self.view.frames.clear();
            self.view.place = WalPlace { salts: place.salts, frame: 0 };
        }
        // The reader of lock zero sees the file alone: what the WAL holds is in it.
        self.view.main_only = reader == Some(0);
        self.view.page_count = page_count;
        if place.frame > self.view.place.frame {
            let from = self.view.place.frame;
            let pages = self.connection.frames(from, place.frame);
            if self.view.main_only && self.connection.header().map(|header| header.salts()) != Some(place.salts) {
                return Ok(None);
            }
            let pages = pages.ok_or_else(|| self.busy("the WAL's index went away while it was read: try again"))?;
            self.view.frames.extend(pages.into_iter().zip(from + 1..));
            self.view.place = place;
        }
        Ok(Some(page_size))
    }

    /// Has somebody written past us (rule S7)? What its frames in this WAL hold is named by them; but a WAL that started over, or a
    /// commit in rollback mode that no writer of ours counted, leaves nothing that could be named.
    fn vouch(&self) -> Result<(), SourceError> {
        let Some(tracker) = self.database.tracker() else { return Ok(()) };
        if self.connection.reader().is_none() {
            let mut counter = [0; 4];
            self.connection.read_main(24, &mut counter).map_err(|failure| self.told(&failure))?;
            let counter = u32::from_be_bytes(counter);
            if tracker.counter() != Some(counter) {
                tracker.mark_foreign();
                tracker.set_counter(counter);
            }
            return Ok(());
        }
        // A writer of ours says which WAL it begins a moment after the index says so.
        for _ in 0..VOUCHES_MAX {
            if tracker.witnessed().salts == self.view.place.salts {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        tracker.mark_foreign();
        tracker.witness(self.view.place);
        Ok(())
    }

    /// What was committed since the transaction began, and marked before the marks were taken, counts for the next time.
    fn mark_later(&self) -> Result<(), SourceError> {
        if self.connection.reader().is_none() {
            return Ok(());
        }
        let place = self.view.place;
        for _ in 0..TRIES_MAX {
            let Some(header) = self.connection.header() else {
                std::thread::yield_now();
                continue;
            };
            let from = if header.salts() == place.salts { place.frame } else { 0 };
            if header.frames() <= from {
                return Ok(());
            }
            let pages = self.connection.frames(from, header.frames());
            // Who reads the file alone does not keep the WAL from starting over.
            if let Some(pages) = pages
                && self.connection.header().is_some_and(|now| now.salts() == header.salts())
            {
                self.database.mark_pages(&pages, header.page_size());
                return Ok(());
            }
        }
        if let Some(tracker) = self.database.tracker() {
            tracker.mark_unknown();
        }
        Ok(())
    }

    /// All of it was read, and is of one commit: the object store is about to have it, and must not be ahead of this disk when the power
    /// fails (rule S2). Its writers may not have synced it, or not what ends a commit: that is nothing that they wait for.
    fn settle(&self) -> Result<CaughtUp, SourceError> {
        if self.connection.sync_wal().map_err(|failure| self.told(&failure))? {
            return Ok(CaughtUp::Still);
        }
        // A journal's commit is that it was cut or lost its name. Nobody has locks on a journal that a descriptor of ours could drop.
        let path = self.database.path();
        let mut journal = path.as_os_str().to_owned();
        journal.push("-journal");
        let journal = PathBuf::from(journal);
        let hidden = crate::sparse::name_of(&journal);
        let failed = |error: std::io::Error| {
            SourceError::Failed(format!("{}: a commit cannot be synced: {error}", path.display()))
        };
        for journal in [journal, hidden] {
            match File::open(&journal).and_then(|journal| journal.sync_all()) {
                // What has too long a name for a file is not there either.
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidFilename) => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(CaughtUp::Still)
    }

    /// Whether the open transaction has a page without a request.
    fn is_here(&self, page: PageNo) -> bool {
        let in_wal =
            || !self.view.main_only && page.to_sqlite().is_some_and(|page| self.view.frames.contains_key(&page));
        self.database.sparse().is_none_or(|sparse| in_wal() || sparse.has(page))
    }

    /// The trees of the schema by what the open transaction sees, where all of it is here and no slice is over before it was looked at. Else
    /// they are as they were: no checkpoint waits, nor fails, for what tables cost.
    fn look_for_trees(&self) -> Option<Vec<Tree>> {
        if self.view.page_count == 0 {
            return Some(Vec::new());
        }
        let (since, mut looked_at) = (Instant::now(), 0);
        let found = catalogue::trees(self.page_size, &mut |page| {
            looked_at += 1;
            let is_late = looked_at > TREE_PAGES_MIN && since.elapsed() > SLICE;
            if is_late || !self.is_here(page) {
                return Ok(None);
            }
            let mut image = vec![0; self.page_size.len()];
            self.fetch(page, &mut image)?;
            Ok::<_, SourceError>(Some(image))
        });
        match found {
            Ok(Some(trees)) => Some(trees),
            Ok(None) => {
                tracing::debug!(looked_at, "the schema is not all at hand: tables are told as they were");
                None
            }
            Err(error) => {
                tracing::debug!(%error, "the schema cannot be read: tables are told as they were");
                None
            }
        }
    }

    /// How far each session is by what the open transaction sees; or which page would have to be fetched to tell, where none is to be. Where
    /// their table began is believed only as long as nobody wrote past us.
    fn look_for_sessions(&self, known: Option<Root>, fetches: bool) -> Result<Walked, SourceError> {
        if self.view.page_count == 0 {
            return Ok(Walked::Found(Sessions::new(), Root::default()));
        }
        sessions(self.page_size, known, &mut |page| {
            if !fetches && !self.is_here(page) {
                return Ok(None);
            }
            let mut image = vec![0; self.page_size.len()];
            self.fetch(page, &mut image)?;
            Ok(Some(image))
        })
    }

    /// Pages that tell how far sessions are and that are not here are fetched before a transaction begins that waits for nobody.
    fn bring_sessions(&mut self) -> Result<(), SourceError> {
        if self.database.sparse().is_none() {
            return Ok(());
        }
        for _ in 0..SESSION_PAGES_MAX {
            let page_size = self.enter()?;
            self.page_size = page_size;
            let walked = self.look_for_sessions(None, false);
            self.leave()?;
            let Walked::Needs(page) = walked? else { return Ok(()) };
            let mut image = vec![0; page_size.len()];
            let brought = self.connection.read_main(page.index() * page_size.bytes(), &mut image);
            brought.map_err(|failure| self.told(&failure))?;
        }
        Ok(())
    }

    /// How far each session is at the commit that is spoken of from here on. What was taken away since it was brought is fetched again: the
    /// marks were taken by now, and nothing may fail that somebody would only have to try again.
    fn find_sessions(&mut self) -> Result<(), SourceError> {
        if let Walked::Found(found, _) = self.look_for_sessions(None, true)? {
            self.sessions = found;
        }
        self.trees = self.look_for_trees();
        self.find_logs()
    }

    /// The logs that the open transaction counts rows of. Whoever appends rows makes the folder of logs first.
    fn find_logs(&mut self) -> Result<(), SourceError> {
        self.logs.clear();
        if self.view.page_count == 0 || !logs::folder_of(self.database.path()).exists() {
            return Ok(());
        }
        let looked = counted(self.page_size, &mut |page| {
            let mut image = vec![0; self.page_size.len()];
            self.fetch(page, &mut image)?;
            Ok::<_, SourceError>(image)
        })?;
        match looked {
            Looked::Found(found) => self.logs = found,
            Looked::Unreadable(what) => {
                let path = self.database.path().display();
                return Err(SourceError::Failed(format!(
                    "{path}: what its table {TABLE} says of {what} is not what was written there: DROP TABLE lets go of a log's table, CREATE \
                     VIRTUAL TABLE with log='PATH' takes the log up again"
                )));
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), SourceError> {
        if self.since.take().is_some() {
            self.connection.run(c"ROLLBACK").map_err(|failure| self.told(&failure))?;
        }
        Ok(())
    }

    /// Reads a page as the open transaction sees it.
    fn fetch(&self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        if self.lock_page() == Some(page) || page.get() > self.view.page_count {
            into.fill(0);
            return Ok(());
        }
        let size = self.page_size.bytes();
        let frame = page.to_sqlite().and_then(|page| self.view.frames.get(&page)).filter(|_| !self.view.main_only);
        let read = match frame {
            Some(frame) => {
                let offset = wal::frame_at(self.page_size, *frame) + FRAME_BYTES;
                self.connection.read_wal(offset, into)
            }
            None => self.connection.read_main(page.index() * size, into),
        };
        read.map_err(|failure| self.told(&failure))
    }

    /// Takes pages of the open transaction, and page 1 along with them.
    fn take(&mut self, pages: &BTreeSet<PageNo>) -> Result<(), SourceError> {
        self.spool.clear();
        let first = self.page_count.holds(PageNo::FIRST).then_some(PageNo::FIRST);
        for page in pages.iter().copied().chain(first.filter(|first| !pages.contains(first))) {
            let mut image = vec![0; self.page_size.len()];
            self.fetch(page, &mut image)?;
            self.spool.insert(page, image);
        }
        Ok(())
    }

    fn fits(&self, pages: &BTreeSet<PageNo>) -> bool {
        pages.len() as u64 * self.page_size.bytes() <= SPOOL_BYTES_MAX
    }

    /// Pages that marks and the WAL's frames after a place name.
    fn named(&self, marks: &Marks, after: WalPlace, count_before: u64) -> Result<BTreeSet<PageNo>, SourceError> {
        let size = self.page_size.bytes();
        let count = self.view.page_count;
        let mut pages = BTreeSet::new();
        for unit in &marks.units {
            let (first, last) = (unit * UNIT / size, (unit * UNIT + UNIT - 1) / size);
            pages.extend((first..=last).take_while(|index| *index < count).map(PageNo::from_index));
        }
        let cut = marks.cut.map_or(count, |cut| cut / size).min(count_before).min(count);
        pages.extend((cut..count).map(PageNo::from_index));
        let place = self.view.place;
        let seen = if after.salts == place.salts { after.frame } else { 0 };
        if place.frame > seen && self.since.is_some() {
            // A frame may have been written by somebody who marks nothing (rule S7).
            let frames = self.view.frames.iter().filter(|(_, frame)| **frame > seen);
            pages.extend(
                frames.filter_map(|(page, _)| PageNo::new(u64::from(*page))).filter(|page| page.get() <= count),
            );
        }
        Ok(pages)
    }
}

impl LiveSource for Live {
    fn begin(&mut self, row: &VolumeRow) -> Result<(), SourceError> {
        let (volume, generation) = (row.meta.id, row.tail.figures.generation);
        if let Some(sparse) = self.database.sparse() {
            // What is not here would be published as others have changed it since.
            sparse.vouch(row).map_err(SourceError::Failed)?;
        }
        self.bring_sessions()?;
        // What was counted before is of that transaction's commit, or of an older one.
        let counted = self.counted();
        self.rest_ms = Some(now_ms());
        self.page_size = self.enter()?;
        // Inside of the transaction: what is of its commit was marked before, whatever is marked from now on is of a later one.
        self.vouch()?;
        let is_foreign = self.database.tracker().is_some_and(|tracker| tracker.is_foreign());
        let marks = self.database.tracker().map(|tracker| tracker.begin());
        self.mark_later()?;
        self.page_count = PageCount(self.view.page_count);
        self.place = self.view.place;
        let basis = marks.as_ref().and_then(|marks| marks.basis);
        let basis = basis.filter(|basis| (basis.volume, basis.generation) == (volume, generation));
        self.from = row.tail.wal.filter(|_| basis.is_some());
        (self.commits_read, self.commits_before) =
            marks.as_ref().map_or((0, 0), |marks| (marks.commits.min(counted), marks.commits_before));
        self.seen = self.ordinal();
        // Now: the WAL may start over before anybody asks.
        self.mark = self.mark_at(self.place).or_else(|| self.mark_of_end());
        self.count();
        self.committed_ms = self.time_of_commit();
        self.gap = self.gap_since(basis.is_some(), is_foreign);
        let mut taken = BTreeSet::new();
        self.changed = match (basis, &marks) {
            (Some(basis), Some(marks)) => {
                let pages = self.named(marks, basis.wal, u64::MAX)?;
                let changed = Changed::Pages(pages.iter().copied().collect());
                if self.fits(&pages) {
                    taken = pages;
                }
                changed
            }
            _ => match self.database.sparse() {
                None => Changed::Unknown,
                // What was never written here is what the volume has.
                Some(sparse) => {
                    let unknown = Marks { basis: None, cut: None, units: Vec::new(), commits: 0, commits_before: 0 };
                    let mut pages = self.named(marks.as_ref().unwrap_or(&unknown), WalPlace::default(), u64::MAX)?;
                    pages.extend(sparse.written());
                    // What it grew by since it was made came from nowhere but here.
                    let made_with = sparse.origin().page_count.0;
                    pages.extend((made_with..self.view.page_count).map(PageNo::from_index));
                    Changed::Pages(pages.into_iter().collect())
                }
            },
        };
        self.take(&taken)?;
        self.find_sessions()?;
        // Without anybody who keeps track of what changes, standing still is the only way to be of one commit.
        self.holds = marks.is_none();
        self.moved = false;
        self.underway = true;
        if !self.holds { self.leave() } else { Ok(()) }
    }

    fn published(&mut self, row: &VolumeRow) {
        self.database.lags(false);
        // What is committed from here on may travel beside what is left to be done.
        (self.from, self.holds) = (row.tail.wal, false);
        let (volume, generation) = (row.meta.id, row.tail.figures.generation);
        if let Some(sparse) = self.database.sparse() {
            sparse.published(row);
        }
        if let Some(tracker) = self.database.tracker() {
            tracker.unfence();
            tracker.published(Basis { volume, generation, wal: self.place }, self.commits_read);
        }
        self.tell_durable(row);
    }

    fn given_up(&mut self) {
        (self.holds, self.underway) = (false, false);
        if let Err(error) = self.leave() {
            tracing::debug!(%error, "a read transaction could not be ended: its connection is closed");
            self.close();
        }
    }

    fn superseded(&mut self, epoch: Epoch, owner: &str) {
        if let Some(tracker) = self.database.tracker() {
            tracker.fence(epoch, owner);
        }
    }

    fn commits_since(&mut self, row: &VolumeRow) -> Result<Option<Commits>, SourceError> {
        self.gather(row)
    }

    fn lags(&self) -> bool {
        self.is_behind && self.database.is_lagging()
    }

    fn before(&mut self, page: PageNo) -> Option<Vec<u8>> {
        self.before.remove(&page)
    }

    fn sessions_gathered(&mut self) -> Option<Sessions> {
        self.gathered.take()
    }

    fn logs(&mut self) -> Result<Vec<CountedLog>, SourceError> {
        Ok(self.logs.clone())
    }

    fn has_read(&mut self) {
        if !self.underway {
            self.close();
        }
    }

    fn shipped(&mut self, row: &VolumeRow) {
        if let Some(tracker) = self.database.tracker() {
            tracker.unfence();
            tracker.shipped(self.seen_commits, self.gave_all);
        }
        if self.underway {
            // The checkpoint counts on from here.
            self.commits_before = self.commits_before.max(self.seen_commits);
            self.from = row.tail.wal;
            // They followed from the newest record: what comes now follows from them.
            self.gap = None;
        }
        self.tell_durable(row);
    }

    fn commits_left(&self) -> u64 {
        self.database.tracker().map_or(0, |tracker| tracker.commits_since())
    }

    fn asked(&self) -> Option<u64> {
        let tracker = self.database.tracker()?;
        tracker.is_asked().then(|| tracker.asked())
    }

    fn answered(&mut self, asked: u64) {
        if let Some(tracker) = self.database.tracker() {
            tracker.serve(asked);
        }
    }
}

impl PageSource for Live {
    fn page_size(&self) -> PageSize {
        self.page_size
    }

    fn page_count(&self) -> PageCount {
        self.page_count
    }

    fn live(&mut self) -> Option<&mut dyn LiveSource> {
        Some(self)
    }

    fn lock_page(&self) -> Option<PageNo> {
        let page = PageNo::from_index(self.pending_byte / self.page_size.bytes());
        self.page_count.holds(page).then_some(page)
    }

    fn changed(&self) -> Changed {
        self.changed.clone()
    }

    fn wal(&self) -> Option<WalMark> {
        self.mark
    }

    fn gap(&self) -> Option<Gap> {
        self.gap
    }

    fn committed_ms(&self) -> Option<u64> {
        self.committed_ms
    }

    fn commits(&self) -> u64 {
        self.behind
    }

    fn sessions(&mut self) -> Option<Sessions> {
        Some(self.sessions.clone())
    }

    fn trees(&mut self) -> Option<Vec<Tree>> {
        self.trees.clone()
    }

    fn has(&self, page: PageNo) -> bool {
        self.database.sparse().is_none_or(|sparse| sparse.has(page))
    }

    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        if let Some(image) = self.spool.get(&page).filter(|image| image.len() == into.len()) {
            into.copy_from_slice(image);
            return Ok(());
        }
        self.moved = true;
        if !self.holds && self.since.is_some_and(|since| since.elapsed() > SLICE) {
            self.leave()?;
        }
        if self.since.is_none() && self.enter()? != self.page_size {
            return Err(self.busy("its page size changed while it was read: try again"));
        }
        self.fetch(page, into)
    }

    fn rest(&mut self) -> Result<(), SourceError> {
        if self.holds { Ok(()) } else { self.leave() }
    }

    fn catch_up(&mut self) -> Result<CaughtUp, SourceError> {
        if self.holds {
            self.leave()?;
            return self.settle();
        }
        self.leave()?;
        if !self.moved {
            return self.settle();
        }
        self.bring_sessions()?;
        let counted = self.counted();
        let rest_ms = now_ms();
        if self.enter()? != self.page_size {
            return Err(self.busy("its page size changed while it was read: try again"));
        }
        self.vouch()?;
        let is_foreign = self.database.tracker().is_some_and(|tracker| tracker.is_foreign());
        let Some(marks) = self.database.tracker().map(|tracker| tracker.drain()) else {
            return Err(self.busy("nobody keeps track of its changes any more: try again"));
        };
        self.mark_later()?;
        let before = std::mem::replace(&mut self.page_count, PageCount(self.view.page_count));
        let pages = match marks.basis {
            Some(_) => self.named(&marks, self.place, before.0)?,
            // Somebody changed it in a way that nobody kept track of: everything again, and nobody comes in between.
            None => {
                self.rounds = ROUNDS_MAX;
                self.from = None;
                let reason = if is_foreign { GapReason::Foreign } else { GapReason::Untracked };
                self.gap = self.database.interval_ms().map(|_| Gap { reason, since_ms: 0 });
                (0..self.view.page_count).map(PageNo::from_index).collect()
            }
        };
        (self.place, self.commits_read) = (self.view.place, marks.commits.min(counted));
        self.seen = self.ordinal();
        self.mark = self.mark_at(self.place).or_else(|| self.mark_of_end());
        self.count();
        self.committed_ms = self.time_of_commit();
        self.rest_ms = Some(rest_ms);
        if self.gap.is_none() && self.behind > 0 {
            // What came meanwhile and did not travel beside it may be told apart no more.
            self.gap = self.gap_since(true, false);
        }
        self.rounds += 1;
        self.moved = !self.fits(&pages);
        match self.moved {
            false => self.take(&pages)?,
            true => self.take(&BTreeSet::new())?,
        }
        self.find_sessions()?;
        self.holds = self.moved && self.rounds >= ROUNDS_MAX;
        if !self.holds {
            self.leave()?;
        }
        match pages.is_empty() && before == self.page_count {
            true => self.settle(),
            false => Ok(CaughtUp::Moved(pages.into_iter().collect())),
        }
    }
}

fn explained(database: &Database, failure: &Failure) -> SourceError {
    let path = database.path().display();
    let Failure { message, .. } = failure;
    match failure.primary() {
        5 | 6 | 15 => SourceError::Busy(format!(
            "{path}: {message}: a transaction or a connection in exclusive mode keeps readers out; commit it, or try again{}",
            sessions_of(database)
        )),
        11 => SourceError::Corrupt(format!("{path}: {message}")),
        26 => SourceError::NotADatabase(path.to_string()),
        _ => SourceError::Failed(format!("{path}: {message}")),
    }
}

/// Who may be meant: the named sessions that have the database open.
fn sessions_of(database: &Database) -> String {
    let held = holders(&database.sessions()).unwrap_or_default();
    let held: Vec<String> = held.into_iter().map(|(session, holder)| format!("{session} is {holder}")).collect();
    if held.is_empty() { String::new() } else { format!(" (sessions that have it open: {})", held.join(", ")) }
}
