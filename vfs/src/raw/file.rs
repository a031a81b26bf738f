//! Open files: a main database and its WAL pass through here, every other kind is the inner VFS's own.

use super::abi::{File, Int64, IoMethods, code};
use super::asking::Asking;
use super::guard::guard;
use super::library::Library;
use super::running::Owner;
use super::walindex::{self, Header};
use crate::beforehand;
use crate::database::{Database, Used};
use crate::durable::{self, Pending, Wish};
use crate::follow::{self, Watched};
use crate::past::{self, Past};
use crate::pragma;
use crate::said::{self, Said};
use crate::seal;
use crate::seat::Seat;
use crate::source;
use crate::sparse::room::Backfilled;
use crate::sparse::{self, Sparse, SparseError};
use crate::sql::{Refusal, Target};
use littoral_engine::follow::FollowError;
use littoral_engine::tracker::{Trace, WalPlace};
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What SQLite holds of a file that passes through here; the inner file lies behind it.
#[repr(C)]
struct Shim {
    base: File,
    inner: *mut File,
    state: *mut State,
}

/// What we know of a file.
struct State {
    library: &'static Library,
    role: Role,
}

enum Role {
    /// A database that is tracked.
    Main(Main),
    /// Its WAL.
    Wal { database: Arc<Database>, page: u32, sparse: Option<Hidden> },
    /// The journal of a sparse one.
    Journal { _hidden: Hidden },
    /// A database that a reader of ours looks at.
    Reader(Shm, Option<Arc<Sparse>>),
    /// A moment of a database's history.
    Past(Looked),
    /// A database that follows its volume; the file behind it only says so.
    Replica(Followed),
}

/// A file of a sparse database, under a name where no other SQLite looks for it. SQLite's VFS keeps the name as long as the file is open.
struct Hidden {
    sparse: Arc<Sparse>,
    name: CString,
}

/// The bytes of an open file of the inner VFS's.
pub(crate) struct Bytes {
    inner: *mut File,
}

macro_rules! bytes {
    ($self:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: R2: made of an open inner file, for the call that SQLite makes on it.
        unsafe {
            match (*(*$self.inner).methods).$method {
                Some(method) => method($self.inner $(, $argument)*),
                None => code::IOERR,
            }
        }
    }};
}

impl Bytes {
    /// # Safety
    /// An open file of the inner VFS's, for as long as this lives.
    pub(crate) const unsafe fn of(inner: *mut File) -> Self {
        Self { inner }
    }

    /// Reads. What lies behind the end reads as zeros.
    pub(crate) fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), c_int> {
        let (len, offset) = sized(into.len(), offset)?;
        match bytes!(self, read, into.as_mut_ptr().cast::<c_void>(), len, offset) {
            code::OK | code::IOERR_SHORT_READ => Ok(()),
            failed => Err(failed),
        }
    }

    /// Writes.
    pub(crate) fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), c_int> {
        let (len, offset) = sized(from.len(), offset)?;
        done(bytes!(self, write, from.as_ptr().cast::<c_void>(), len, offset))
    }

    /// Cuts.
    pub(crate) fn truncate(&mut self, size: u64) -> Result<(), c_int> {
        let (_, size) = sized(0, size)?;
        done(bytes!(self, truncate, size))
    }

    /// Makes durable.
    pub(crate) fn sync(&mut self) -> Result<(), c_int> {
        done(bytes!(self, sync, code::SYNC_FULL))
    }
}

fn done(answer: c_int) -> Result<(), c_int> {
    if answer == code::OK { Ok(()) } else { Err(answer) }
}

fn sized(len: usize, offset: u64) -> Result<(c_int, Int64), c_int> {
    Ok((c_int::try_from(len).map_err(|_| code::MISUSE)?, i64::try_from(offset).map_err(|_| code::MISUSE)?))
}

/// SQLite's answer to what a sparse database could not do; the reason is kept for those who ask.
fn answer_of(done: Result<(), SparseError>, failed: c_int) -> c_int {
    match done {
        Ok(()) => code::OK,
        Err(SparseError::Inner(code)) => code,
        Err(error) => {
            crate::last::error(&error.to_string());
            failed
        }
    }
}

/// What a connection of ours knows of the WAL's index.
#[derive(Clone, Copy)]
pub(crate) struct Shm {
    index: *const u32,
    /// Which readers' locks it holds, a bit each.
    readers: u32,
}

/// A moment of the past, and who looks at it.
struct Looked {
    past: Arc<Past>,
    owner: Owner,
    seat: Arc<Seat>,
}

struct Followed {
    database: Used,
    said: Said,
    watched: Watched,
    wish: Arc<Wish>,
    owner: Owner,
    seat: Arc<Seat>,
}

impl Followed {
    /// The database, for who asks something of it by this connection.
    fn target(&self, library: &'static Library) -> Target {
        let (database, said, wish) = (self.database.shared(), self.said.clone(), self.wish.clone());
        let (shown, seat) = (self.watched.shown(), self.seat.clone());
        // SAFETY: R9: SQLite's call on this very file.
        let asking = unsafe { Asking::of(library, self.owner.connection()) };
        Target { database, said, library, keeps_out: false, wish, shown, seat, asking }
    }
}

struct Main {
    database: Used,
    sparse: Option<Arc<Sparse>>,
    said: Said,
    shm: Shm,
    lock: c_int,
    /// Whether the database file was written under this lock: a commit of a rollback journal is on its way.
    wrote: bool,
    /// What the WAL's index said when the write lock was taken.
    before: Option<Header>,
    /// How often marks had been taken by then.
    drains: u64,
    /// What the file looked like when this connection gave up its WAL.
    trace: Option<Trace>,
    /// Who reads.
    owner: Owner,
    /// When its commits count as done.
    wish: Arc<Wish>,
    /// Which session it is.
    seat: Arc<Seat>,
    /// A commit that may be waited for.
    pending: Option<Pending>,
    /// Whether it makes a checkpoint of its WAL.
    backfills: bool,
}

/// Bytes of what precedes each page in a WAL.
const FRAME_HEADER: c_int = 24;

/// How a file is opened that is nobody's.
const NOBODYS: c_int =
    code::OPEN_TEMP_DB | code::OPEN_READWRITE | code::OPEN_CREATE | code::OPEN_EXCLUSIVE | code::OPEN_DELETEONCLOSE;

/// Bytes that we need beside the inner file.
pub(crate) const fn size() -> c_int {
    size_of::<Shim>() as c_int
}

macro_rules! inner {
    ($file:expr, $method:ident, $none:expr $(, $argument:expr)*) => {{
        let inner = shim($file).inner;
        match (*(*inner).methods).$method {
            Some(method) => method(inner $(, $argument)*),
            None => $none,
        }
    }};
}

/// # Safety
/// Rule R2: `file` was opened by [`open`] as a shim.
#[inline]
unsafe fn shim<'a>(file: *mut File) -> &'a mut Shim {
    // SAFETY: R2.
    unsafe { &mut *file.cast::<Shim>() }
}

/// # Safety
/// As for [`shim`], and before it was closed.
#[inline]
unsafe fn state<'a>(file: *mut File) -> &'a mut State {
    // SAFETY: R2.
    unsafe { &mut *shim(file).state }
}

/// Opens a file. Whatever is neither a database of ours nor its WAL is opened by the inner VFS in the very same memory.
///
/// # Safety
/// SQLite's call of `xOpen` (rule R1).
pub(crate) unsafe fn open(
    library: &'static Library,
    name: *const c_char,
    file: *mut File,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let role = if name.is_null() {
        Ok(None)
    } else if flags & code::OPEN_MAIN_DB != 0 {
        // SAFETY: R1: a main database's name has parameters behind it.
        unsafe { who(library, name, flags) }
    } else if flags & code::OPEN_WAL != 0 {
        // SAFETY: R1.
        Ok(unsafe { of_suffix(name, b"-wal") }.map(|database| Role::Wal {
            sparse: database.sparse().map(|sparse| hidden(sparse, database.path(), "-wal")),
            database,
            page: 0,
        }))
    } else if flags & code::OPEN_MAIN_JOURNAL != 0 && Database::any_sparse() {
        // SAFETY: R1.
        let database = unsafe { of_suffix(name, b"-journal") };
        let sparse = database.and_then(|database| Some((database.sparse()?, database)));
        Ok(sparse.map(|(sparse, database)| Role::Journal { _hidden: hidden(sparse, database.path(), "-journal") }))
    } else {
        Ok(None)
    };
    let role = match role {
        Ok(role) => role,
        Err(why) => {
            // SAFETY: R1: no methods means that it is not open.
            unsafe { (*file).methods = ptr::null() };
            library.api.say(code::CANTOPEN, &why);
            crate::last::error(&why);
            return code::CANTOPEN;
        }
    };
    // SAFETY: R3: a VFS has an `xOpen`.
    let Some(open) = (unsafe { (*library.inner).open }) else { return code::CANTOPEN };
    let Some(role) = role else {
        // SAFETY: R1, R2: the memory is larger than the inner VFS asks for.
        return unsafe { open(library.inner, name, file, flags, out) };
    };
    let shim = file.cast::<Shim>();
    let mut flags_out = 0;
    let name = match &role {
        Role::Wal { sparse: Some(hidden), .. } | Role::Journal { _hidden: hidden } => hidden.name.as_ptr(),
        // Another file, which has no parameters behind its name.
        Role::Past(looked) => looked.past.name().unwrap_or(ptr::null()),
        Role::Main(_) | Role::Wal { .. } | Role::Reader(..) | Role::Replica(_) => name,
    };
    // A database that is filled while it is read is SQLite's to read only, and ours to write.
    let filled = match &role {
        Role::Main(main) => flags & code::OPEN_READONLY != 0 && main.database.fills(),
        Role::Past(_) => true,
        Role::Wal { .. } | Role::Journal { .. } | Role::Reader(..) | Role::Replica(_) => false,
    };
    let flags = match &role {
        // Nothing is in it: a file of nobody's, which is gone when it is closed.
        Role::Past(looked) if looked.past.name().is_none() => NOBODYS,
        Role::Past(_) => flags & !(code::OPEN_URI | code::OPEN_CREATE | code::OPEN_EXCLUSIVE),
        _ => flags,
    };
    let flags = if filled { flags & !code::OPEN_READONLY | code::OPEN_READWRITE } else { flags };
    // SAFETY: R2: the inner file's memory begins where ours ends.
    unsafe {
        let inner = shim.add(1).cast::<File>();
        (*file).methods = ptr::null();
        (*inner).methods = ptr::null();
        let answer = open(library.inner, name, inner, flags, &mut flags_out);
        if filled {
            flags_out = flags_out & !code::OPEN_READWRITE | code::OPEN_READONLY;
        }
        if !out.is_null() {
            *out = flags_out;
        }
        if answer != code::OK {
            if let Role::Main(main) = &role {
                main.database.not_opened(&main.said);
            }
            // It may be open all the same, and then it is ours to close.
            if !(*inner).methods.is_null()
                && let Some(close) = (*(*inner).methods).close
            {
                close(inner);
            }
            return answer;
        }
        let state = Box::into_raw(Box::new(State { library, role }));
        ptr::write(shim, Shim { base: File { methods: methods(&*(*inner).methods) }, inner, state });
        if let State { role: Role::Main(main), .. } = &mut *state {
            match main.database.settle(&main.said, &mut Bytes { inner }) {
                Ok(sparse) => main.sparse = sparse,
                Err(why) => {
                    close(file);
                    library.api.say(code::CANTOPEN, &why);
                    crate::last::error(&why);
                    return code::CANTOPEN;
                }
            }
            if flags_out & code::OPEN_READONLY == 0 {
                main.database.arrive(&main.said);
            }
        }
    }
    code::OK
}

fn hidden(sparse: Arc<Sparse>, database: &Path, suffix: &str) -> Hidden {
    Hidden { sparse, name: hidden_name(database, suffix) }
}

fn hidden_name(database: &Path, suffix: &str) -> CString {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    let name = sparse::name_of(Path::new(&name)).into_os_string().into_vec();
    // It was a C string before.
    CString::new(name).unwrap_or_default()
}

/// The name under which a WAL or a journal lies, where that is another than SQLite believes.
///
/// # Safety
/// A string of SQLite's.
pub(crate) unsafe fn renamed(name: *const c_char) -> Option<CString> {
    if !Database::any_sparse() {
        return None;
    }
    for (suffix, bytes) in [("-wal", &b"-wal"[..]), ("-journal", b"-journal")] {
        // SAFETY: the caller's promise.
        if let Some(database) = unsafe { of_suffix(name, bytes) }
            && (database.sparse().is_some() || database.replica().is_some())
        {
            return Some(hidden_name(database.path(), suffix));
        }
    }
    None
}

/// SQLite deletes a file: a WAL, perhaps, which only who is alone with its database does.
///
/// # Safety
/// A string of SQLite's.
pub(crate) unsafe fn deleted(name: *const c_char) {
    // SAFETY: the caller's promise.
    if let Some(database) = unsafe { of_suffix(name, b"-wal") } {
        database.wal_ends();
    }
}

/// Whether a main database is ours, and what was said of it.
///
/// # Safety
/// A main database's name, as SQLite passes it to `xOpen`.
unsafe fn who(library: &'static Library, name: *const c_char, flags: c_int) -> Result<Option<Role>, String> {
    // SAFETY: R1.
    let path = unsafe { path(name) };
    // SAFETY: R1.
    let mut parameters = unsafe { library.api.parameters(name) };
    if parameters.iter().any(|(key, _)| key == said::READER) {
        let sparse = Database::find(&path).and_then(|database| database.sparse());
        return Ok(Some(Role::Reader(Shm { index: ptr::null(), readers: 0 }, sparse)));
    }
    beforehand::add(&path, &mut parameters);
    let Some(said) = said::read(&path, &parameters, library.is_default())? else { return Ok(None) };
    let (moment, is_cold) = (said.settings.at.as_ref().map(|at| &at.value), said.settings.cold.value);
    if moment.is_some() || is_cold {
        if said.settings.follow.value {
            return Err(if is_cold { follow::refused_cold(&path) } else { follow::refused_moment(&path) });
        }
        if parameters.iter().any(|(key, value)| key == "cache" && value == "shared") {
            return Err(past::shared_cache(&path));
        }
        return Past::open(library, &path, &said, moment)
            .map(|past| Some(Role::Past(Looked { past, owner: Owner::unknown(library), seat: Arc::default() })));
    }
    let read_only = flags & code::OPEN_READWRITE == 0;
    if said.settings.follow.value {
        follow::refuse_unlocked(&path, &parameters)?;
        let database = Database::open(&path, library, &said, true)?;
        let watched = Watched::new(&*database.follow(&said, read_only)?);
        let wish = Arc::new(Wish::new(said.settings.durability.value));
        let (owner, seat) = (Owner::unknown(library), Arc::default());
        return Ok(Some(Role::Replica(Followed { database, said, watched, wish, owner, seat })));
    }
    follow::refuse_replica(&path, &said)?;
    let database = Database::open(&path, library, &said, read_only)?;
    database.prepare(&said)?;
    let shm = Shm { index: ptr::null(), readers: 0 };
    let lock = code::LOCK_NONE;
    let wish = Arc::new(Wish::new(said.settings.durability.value));
    Ok(Some(Role::Main(Main {
        database,
        sparse: None,
        said,
        shm,
        lock,
        wrote: false,
        before: None,
        drains: 0,
        trace: None,
        owner: Owner::unknown(library),
        wish,
        seat: Arc::default(),
        pending: None,
        backfills: false,
    })))
}

/// # Safety
/// A string of SQLite's.
unsafe fn path(name: *const c_char) -> PathBuf {
    // SAFETY: R1.
    PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
}

/// The database that a file beside it belongs to, where it is one that is tracked.
///
/// # Safety
/// A string of SQLite's.
unsafe fn of_suffix(name: *const c_char, suffix: &[u8]) -> Option<Arc<Database>> {
    // SAFETY: R1.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    Database::find(Path::new(OsStr::from_bytes(bytes.strip_suffix(suffix)?)))
}

/// What a connection's file is to us.
pub(crate) enum Known {
    /// A database of ours.
    Ours(Target),
    /// A moment of a database's history.
    Past(Arc<Past>, Arc<Seat>),
    /// Somebody else's.
    Foreign,
}

/// What the main file of a connection is to us.
///
/// # Safety
/// `file` is null or an open file of SQLite's.
pub(crate) unsafe fn known(file: *mut File) -> Known {
    // SAFETY: the caller's promise.
    if !unsafe { is_shim(file) } {
        return Known::Foreign;
    }
    // SAFETY: R2.
    match &unsafe { state(file) }.role {
        Role::Main(main) => Known::Ours(main.target(unsafe { state(file) }.library)),
        Role::Past(looked) => Known::Past(looked.past.clone(), looked.seat.clone()),
        Role::Replica(replica) => Known::Ours(replica.target(unsafe { state(file) }.library)),
        Role::Wal { .. } | Role::Journal { .. } | Role::Reader(..) => Known::Foreign,
    }
}

/// A reader's file: the inner one, and what it knows of the WAL's index.
///
/// # Safety
/// As for [`known`].
pub(crate) unsafe fn reader(file: *mut File) -> Option<(*mut File, Shm)> {
    // SAFETY: the caller's promise, then R2.
    unsafe {
        if !is_shim(file) {
            return None;
        }
        match &state(file).role {
            Role::Reader(shm, _) => Some((shim(file).inner, *shm)),
            Role::Main(_) | Role::Wal { .. } | Role::Journal { .. } | Role::Past(_) | Role::Replica(_) => None,
        }
    }
}

/// The inner file of any open file.
///
/// # Safety
/// As for [`known`], and not null.
pub(crate) unsafe fn inner_of(file: *mut File) -> *mut File {
    // SAFETY: R2.
    unsafe { if is_shim(file) { shim(file).inner } else { file } }
}

unsafe fn is_shim(file: *mut File) -> bool {
    // SAFETY: R1.
    let methods = unsafe { if file.is_null() { return false } else { (*file).methods } };
    TABLES.as_ptr_range().contains(&methods)
}

impl Shm {
    /// What the WAL's index says now.
    pub(crate) fn header(&self) -> Option<Header> {
        // SAFETY: R7: not null means mapped, and SQLite unmaps it with the file's last connection only, which this one belongs to.
        if self.index.is_null() { None } else { unsafe { Header::read(self.index) } }
    }

    /// Whether there is an index.
    pub(crate) fn is_mapped(&self) -> bool {
        !self.index.is_null()
    }

    /// How many frames are in the database file.
    pub(crate) fn backfilled(&self) -> Option<u64> {
        // SAFETY: as in [`Shm::header`].
        self.is_mapped().then(|| unsafe { walindex::backfill(self.index) }.0)
    }

    /// Up to which frame a backfill was begun.
    pub(crate) fn backfill_begun(&self) -> Option<u64> {
        // SAFETY: as in [`Shm::header`].
        self.is_mapped().then(|| unsafe { walindex::backfill(self.index) }.1)
    }

    /// Which reader's lock is held: zero is the one of those who read the database file alone.
    pub(crate) fn reader(&self) -> Option<u32> {
        (self.readers != 0).then(|| self.readers.trailing_zeros())
    }

    fn mapped(&mut self, region: c_int, place: *mut *mut c_void) {
        if region == 0 && !place.is_null() {
            // SAFETY: R1: SQLite's own variable.
            let found = unsafe { *place };
            if !found.is_null() {
                self.index = found.cast();
            }
        }
    }

    fn locked(&mut self, offset: c_int, count: c_int, flags: c_int) {
        for slot in offset..offset.saturating_add(count) {
            let Ok(nth) = u32::try_from(slot - walindex::READ_LOCK) else { continue };
            let bit = 1_u32.checked_shl(nth).unwrap_or(0);
            if flags == code::SHM_LOCK | code::SHM_SHARED {
                self.readers |= bit;
            } else if flags & code::SHM_UNLOCK != 0 {
                self.readers &= !bit;
            }
        }
    }
}

impl Main {
    /// Whether nobody else can read: in exclusive mode, or in the middle of a commit of a rollback journal.
    fn keeps_out(&self) -> bool {
        self.lock == code::LOCK_EXCLUSIVE
    }

    /// The database, for who asks something of it by this connection.
    fn target(&self, library: &'static Library) -> Target {
        let (database, said, wish) = (self.database.shared(), self.said.clone(), self.wish.clone());
        let (keeps_out, seat) = (self.keeps_out(), self.seat.clone());
        // SAFETY: R9: SQLite's call on this very file.
        let asking = unsafe { Asking::of(library, self.owner.connection()) };
        Target { database, said, library, keeps_out, wish, shown: None, seat, asking }
    }

    /// A commit is complete here. Waits until the object store has it, where that was asked for (rule S13): SQLite's answer.
    fn durable(&mut self, library: &'static Library) -> c_int {
        match self.pending.take() {
            Some(pending) if self.wish.take() => durable::committed(&self.target(library), pending),
            Some(_) | None => code::OK,
        }
    }

    /// Whether a writer may begin here: SQLite's answer.
    fn may_write(&self) -> c_int {
        if self.database.is_fenced(&self.said) {
            return code::READONLY;
        }
        self.sparse.as_ref().map_or(code::OK, |sparse| may_write(sparse, &self.said))
    }

    /// The write lock of a WAL was taken: what others than ours wrote before is marked now.
    ///
    /// # Safety
    /// `inner` is this connection's open inner file, and holds the lock.
    unsafe fn begun(&mut self, inner: *mut File) {
        self.before = self.shm.header();
        if let Some(before) = self.before {
            // SAFETY: R7: under the write lock no WAL starts over.
            self.database.catch_up(before, |from, to| unsafe { walindex::pages(inner, from, to) });
        }
        self.drains = self.database.tracker().map_or(0, |tracker| tracker.drains());
    }

    /// The write lock of a WAL is about to be let go: what is committed by now is committed (rule S1).
    ///
    /// # Safety
    /// As for [`Main::begun`].
    unsafe fn written(&mut self, inner: *mut File) {
        let Some(after) = self.shm.header() else {
            self.before = None;
            return;
        };
        // SAFETY: R7: under the write lock no WAL starts over.
        let pages = |from, to| unsafe { walindex::pages(inner, from, to) };
        let Some(before) = self.before.take() else {
            // Who found no index has made one of what lay there, which is no commit.
            return self.database.catch_up(after, pages);
        };
        let Some(tracker) = self.database.tracker() else { return };
        // Frames came; a WAL that only starts over has none.
        let from = if before.salts() == after.salts() { before.frames() } else { 0 };
        if after.frames() > from {
            // A checkpoint may have taken the marks before there was anything to be read (rule S10).
            if tracker.drains() != self.drains {
                match pages(from, after.frames()) {
                    Some(pages) => self.database.mark_pages(&pages, after.page_size()),
                    None => tracker.mark_unknown(),
                }
            }
            let count = self.database.committed();
            // They are counted.
            self.database.take_framed();
            tracker.witness(after.place());
            let place = tracker.ordered(after.place());
            if let Some(place) = place {
                tracker.note(place, after.checksum());
            }
            self.pending = Some(Pending { place, count });
            if place.is_some_and(|place| seal::is_due(tracker, place)) {
                tracker.ask_to_seal();
            }
            return;
        }
        // It was rolled back.
        self.wish.take();
        tracker.witness(after.place());
    }

    /// The connection gives up the WAL's index.
    ///
    /// # Safety
    /// `inner` is this connection's open inner file.
    unsafe fn parts(&mut self, inner: *mut File) {
        if let Some(header) = self.shm.header() {
            // First the trace: what comes in between shows by a newer one.
            self.trace = Trace::of(self.database.path());
            // Others may have gone on since, and have witnessed it: whoever only leaves goes back behind nobody.
            let seen = self.database.tracker().map_or(header.place(), |tracker| tracker.witnessed());
            let is_behind = seen.salts == header.salts() && seen.frame >= header.frames();
            let is_still = self.shm.header().is_some_and(|now| now.salts() == header.salts());
            if is_behind || !is_still {
                self.shm.index = ptr::null();
                return;
            }
            // SAFETY: R7: no reader's lock is held, but what starts over here is found to have other salts afterwards.
            self.database.catch_up(header, |from, to| unsafe {
                let pages = walindex::pages(inner, from, to)?;
                (self.shm.header()?.salts() == header.salts()).then_some(pages)
            });
        }
        self.shm.index = ptr::null();
    }
}

unsafe extern "C" fn close(file: *mut File) -> c_int {
    guard(code::IOERR, || {
        // SAFETY: R2: nobody calls this file's methods any more; the state is freed once.
        unsafe {
            let trace = match &mut state(file).role {
                Role::Main(main) => {
                    // Before its locks go: whoever finds them gone finds himself alone.
                    main.database.leaves();
                    main.trace.or_else(|| Trace::of(main.database.path()))
                }
                Role::Wal { .. } | Role::Journal { .. } | Role::Reader(..) | Role::Past(_) | Role::Replica(_) => None,
            };
            let answer = inner!(file, close, code::OK);
            let state = std::mem::replace(&mut shim(file).state, ptr::null_mut());
            (*file).methods = ptr::null();
            let state = Box::from_raw(state);
            // After the inner file is closed, as rule S19 wants it.
            match state.role {
                Role::Main(main) => crate::database::closed(main.database, &main.said, trace),
                Role::Past(looked) => past::closed(looked.past),
                Role::Replica(Followed { database, said, watched, .. }) => {
                    drop(watched);
                    crate::database::closed(database, &said, None);
                }
                Role::Wal { .. } | Role::Journal { .. } | Role::Reader(..) => {}
            }
            answer
        }
    })
}

// SAFETY for all that follow: R1 and R2, in calls that SQLite makes on an open file.

unsafe extern "C" fn read(file: *mut File, into: *mut c_void, len: c_int, offset: Int64) -> c_int {
    unsafe {
        match &state(file).role {
            Role::Replica(_) => read_replica(file, into, len, offset),
            Role::Main(Main { sparse: Some(sparse), owner, .. }) => {
                read_sparse(file, sparse, Some(owner), into, len, offset)
            }
            Role::Reader(_, Some(sparse)) => read_sparse(file, sparse, None, into, len, offset),
            Role::Past(Looked { past, .. }) => {
                read_pages(file, into, len, offset, &|bytes, offset, here| past.read(bytes, offset, here))
            }
            _ => inner!(file, read, code::IOERR, into, len, offset),
        }
    }
}

#[cold]
unsafe fn read_sparse(
    file: *mut File,
    sparse: &Sparse,
    owner: Option<&Owner>,
    into: *mut c_void,
    len: c_int,
    offset: Int64,
) -> c_int {
    // SAFETY: R9: in the call that SQLite makes on this file.
    let running = || owner.map(|owner| unsafe { owner.running() }).unwrap_or_default();
    // SAFETY: the caller's promise.
    unsafe { read_pages(file, into, len, offset, &|bytes, offset, here| sparse.read(bytes, offset, here, &running)) }
}

/// Reads bytes from an offset on, as many as there is room for.
type ReadAt<'a> = dyn Fn(&mut Bytes, u64, &mut [u8]) -> Result<(), SparseError> + 'a;

/// Reads what lies within the file by `read`.
#[cold]
unsafe fn read_pages(file: *mut File, into: *mut c_void, len: c_int, offset: Int64, read: &ReadAt<'_>) -> c_int {
    guard(code::IOERR_READ, || unsafe {
        let mut size = 0;
        let answer = size_of_file(file, &mut size);
        if answer != code::OK {
            return answer;
        }
        let inner = shim(file).inner;
        let buffer = std::slice::from_raw_parts_mut(into.cast::<u8>(), usize::try_from(len).unwrap_or(0));
        // As SQLite wants it: what lies behind the end is zeros, and said to be short.
        let there = usize::try_from(size.saturating_sub(offset).clamp(0, Int64::from(len))).unwrap_or(0);
        let (here, behind) = buffer.split_at_mut(there);
        behind.fill(0);
        if !here.is_empty() {
            let answer = answer_of(read(&mut Bytes { inner }, offset.cast_unsigned(), here), code::IOERR_READ);
            if answer != code::OK {
                return answer;
            }
        }
        if behind.is_empty() { code::OK } else { code::IOERR_SHORT_READ }
    })
}

/// SQLite's answer to what a replica could not do; the reason is kept for those who ask.
fn answer_of_replica(error: &FollowError, failed: c_int) -> c_int {
    crate::last::error(&follow::told_of(error));
    failed
}

/// What is asked of a replica's file that only who writes asks.
fn read_only(database: &Database) -> c_int {
    crate::last::error(&format!(
        "{}: is a replica, which follows its volume and is only read: write where its writer is, or take the volume over under another path",
        database.path().display()
    ));
    code::READONLY
}

#[cold]
unsafe fn read_replica(file: *mut File, into: *mut c_void, len: c_int, offset: Int64) -> c_int {
    guard(code::IOERR_READ, || unsafe {
        let Role::Replica(Followed { watched, .. }) = &mut state(file).role else { return code::IOERR_READ };
        let buffer = std::slice::from_raw_parts_mut(into.cast::<u8>(), usize::try_from(len).unwrap_or(0));
        match watched.read(offset.cast_unsigned(), buffer) {
            Ok(there) if there < buffer.len() => code::IOERR_SHORT_READ,
            Ok(_) => code::OK,
            Err(error) => answer_of_replica(&error, code::IOERR_READ),
        }
    })
}

unsafe extern "C" fn write(file: *mut File, from: *const c_void, len: c_int, offset: Int64) -> c_int {
    guard(code::IOERR, || unsafe {
        match &mut state(file).role {
            Role::Main(main) => {
                main.database.mark(offset.cast_unsigned(), u64::from(len.unsigned_abs()));
                main.wrote = true;
                if offset == 0 && len >= 100 {
                    let first = from.cast::<u8>();
                    let counter = u32::from_be(first.add(24).cast::<u32>().read_unaligned());
                    main.database.counted(counter, *first.add(18) == 2);
                }
                if let Some(sparse) = &main.sparse {
                    if main.shm.is_mapped() && (main.backfills || main.lock == code::LOCK_EXCLUSIVE) {
                        let place = (offset.cast_unsigned(), u64::from(len.unsigned_abs()));
                        let answer = backfilled(sparse, &main.database, main.shm, shim(file).inner, place);
                        // Whoever is alone would take the WAL for done if it were only put off.
                        match answer {
                            Ok(Backfilled::Write) => {}
                            Ok(Backfilled::LetGo) => return reaches(file, place),
                            Ok(Backfilled::PutOff) if main.lock == code::LOCK_EXCLUSIVE => return code::FULL,
                            Ok(Backfilled::PutOff) => return code::BUSY,
                            Err(error) => return answer_of(Err(error), code::IOERR_WRITE),
                        }
                    }
                    let inner = shim(file).inner;
                    let bytes = std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(len).unwrap_or(0));
                    let written = sparse.write(&mut Bytes { inner }, offset.cast_unsigned(), bytes);
                    return answer_of(written, code::IOERR_WRITE);
                }
            }
            Role::Wal { database, page, sparse } => {
                if let Some(Hidden { sparse, .. }) = sparse {
                    let answer = may_write(sparse, sparse.said());
                    if answer != code::OK {
                        return answer;
                    }
                    if len == FRAME_HEADER
                        && let Some(why) = sparse.refuses(offset.cast_unsigned())
                    {
                        crate::last::error(&why);
                        return code::FULL;
                    }
                }
                frame(database, page, from, len, offset);
            }
            Role::Past(looked) => return looked.past.refuse_write(),
            Role::Replica(followed) => return read_only(&followed.database),
            // A backfill of ours: what it writes was marked when it was committed.
            Role::Reader(shm, Some(sparse)) => {
                if let Some(database) = Database::find(sparse.database()) {
                    let place = (offset.cast_unsigned(), u64::from(len.unsigned_abs()));
                    match backfilled(sparse, &database, *shm, shim(file).inner, place) {
                        Ok(Backfilled::Write) => {}
                        Ok(Backfilled::LetGo) => return reaches(file, place),
                        Ok(Backfilled::PutOff) => return code::BUSY,
                        Err(error) => return answer_of(Err(error), code::IOERR_WRITE),
                    }
                }
                let inner = shim(file).inner;
                let bytes = std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(len).unwrap_or(0));
                let written = sparse.write(&mut Bytes { inner }, offset.cast_unsigned(), bytes);
                return answer_of(written, code::IOERR_WRITE);
            }
            Role::Journal { .. } | Role::Reader(_, None) => {}
        }
        inner!(file, write, code::IOERR, from, len, offset)
    })
}

/// A page was let go that SQLite takes for written: the file reaches at least to its end. After a backfill that did not come to the WAL's end
/// SQLite does not see to that itself, and what lies behind the end of a file is zeros to it.
///
/// # Safety
/// `file` is an open file of ours.
unsafe fn reaches(file: *mut File, (offset, len): (u64, u64)) -> c_int {
    let mut size = 0;
    let answer = unsafe { inner!(file, file_size, code::IOERR, &mut size) };
    let end = Int64::try_from(offset + len).unwrap_or(Int64::MAX);
    if answer != code::OK || size >= end {
        return answer;
    }
    unsafe { inner!(file, truncate, code::IOERR_TRUNCATE, end) }
}

/// What becomes of a page that a backfill is about to write.
///
/// # Safety
/// `inner` is the open inner file that `shm` is of, in a backfill that has begun: the WAL does not start over before its end.
unsafe fn backfilled(
    sparse: &Sparse,
    database: &Database,
    shm: Shm,
    inner: *mut File,
    place: (u64, u64),
) -> Result<Backfilled, SparseError> {
    let begun = || {
        let place = WalPlace { salts: shm.header()?.salts(), frame: shm.backfill_begun()? };
        database.tracker()?.ordered(place)
    };
    // SAFETY: R7, by the caller's promise.
    sparse.backfilled(place, begun, |from, to| unsafe { walindex::pages(inner, from, to) })
}

/// Whether a sparse database may be written. Where another process is just asking the same, or makes a checkpoint, it is to be tried again.
fn may_write(sparse: &Sparse, said: &Said) -> c_int {
    let Err(error) = sparse.may_write(said) else { return code::OK };
    crate::last::error(&error.to_string());
    match crate::code::of_work(&error) {
        code::BUSY => code::BUSY,
        _ => code::READONLY,
    }
}

/// What is written to a WAL: a frame's header names a page, and what follows it is the page.
#[inline]
unsafe fn frame(database: &Database, page: &mut u32, from: *const c_void, len: c_int, offset: Int64) {
    if offset == 0 && len == 32 {
        // SAFETY: R1: `len` bytes.
        let (one, two) = unsafe { (from.byte_add(16).cast::<u32>(), from.byte_add(20).cast::<u32>()) };
        // SAFETY: R1.
        database.wal_begins(unsafe { walindex::salts(one.read_unaligned(), two.read_unaligned()) });
    } else if len == FRAME_HEADER && offset >= 32 {
        // SAFETY: R1: `len` bytes.
        *page = u32::from_be(unsafe { from.cast::<u32>().read_unaligned() });
    } else if let Some(before) = std::mem::take(page).checked_sub(1) {
        let len = u64::from(len.unsigned_abs());
        database.mark(u64::from(before) * len, len);
        database.framed();
    }
}

unsafe extern "C" fn truncate(file: *mut File, size: Int64) -> c_int {
    guard(code::IOERR, || unsafe {
        if let Role::Past(looked) = &state(file).role {
            return looked.past.refuse_write();
        }
        if let Role::Main(main) = &mut state(file).role {
            main.database.mark_cut(size.cast_unsigned());
            main.wrote = true;
            if let Some(sparse) = &main.sparse {
                let inner = shim(file).inner;
                return answer_of(sparse.truncate(&mut Bytes { inner }, size.cast_unsigned()), code::IOERR_TRUNCATE);
            }
        }
        if let Role::Replica(followed) = &state(file).role {
            return read_only(&followed.database);
        }
        if let Role::Reader(_, Some(sparse)) = &state(file).role {
            if let Some(database) = Database::find(sparse.database()) {
                database.mark_cut(size.cast_unsigned());
            }
            let inner = shim(file).inner;
            return answer_of(sparse.truncate(&mut Bytes { inner }, size.cast_unsigned()), code::IOERR_TRUNCATE);
        }
        inner!(file, truncate, code::IOERR, size)
    })
}

unsafe extern "C" fn sync(file: *mut File, flags: c_int) -> c_int {
    guard(code::IOERR, || unsafe {
        let answer = inner!(file, sync, code::IOERR, flags);
        // After the bytes themselves: what is known to be here is here.
        match &state(file).role {
            Role::Main(Main { sparse: Some(sparse), .. }) | Role::Reader(_, Some(sparse)) if answer == code::OK => {
                answer_of(sparse.sync(), code::IOERR_FSYNC)
            }
            _ => answer,
        }
    })
}

unsafe extern "C" fn file_size(file: *mut File, size: *mut Int64) -> c_int {
    guard(code::IOERR, || unsafe {
        if let Role::Replica(Followed { watched, .. }) = &mut state(file).role {
            return match watched.size() {
                Ok(bytes) => {
                    *size = i64::try_from(bytes).unwrap_or(i64::MAX);
                    code::OK
                }
                Err(error) => answer_of_replica(&error, code::IOERR),
            };
        }
        size_of_file(file, size)
    })
}

/// The size of a file; of one that is nowhere here, as its volume has it.
unsafe fn size_of_file(file: *mut File, size: *mut Int64) -> c_int {
    unsafe {
        if let Role::Past(Looked { past, .. }) = &state(file).role
            && let Some(bytes) = past.bytes()
        {
            *size = i64::try_from(bytes).unwrap_or(i64::MAX);
            return code::OK;
        }
        inner!(file, file_size, code::IOERR, size)
    }
}

unsafe extern "C" fn lock(file: *mut File, level: c_int) -> c_int {
    guard(code::IOERR, || unsafe {
        if let Role::Main(main) = &mut state(file).role {
            // A writer begins; who rolls back or cleans up goes past this level.
            let may = if level == code::LOCK_RESERVED { main.may_write() } else { code::OK };
            if may != code::OK {
                return may;
            }
            // With a WAL that is wanted by who leaves last and cleans up, or keeps everybody out.
            let wants_all = level == code::LOCK_EXCLUSIVE && !main.shm.index.is_null();
            let mut recalled = if wants_all { main.database.recall() } else { None };
            let mut answer = inner!(file, lock, code::OK, level);
            // A rollback journal's commit finds a reader. Of ours it is perhaps, in whatever process, and gone within a slice; nobody new
            // gets in meanwhile.
            let commits = level == code::LOCK_EXCLUSIVE && main.lock >= code::LOCK_RESERVED && main.shm.index.is_null();
            if answer == code::BUSY && commits && main.database.is_read_by_us() {
                let until = Instant::now() + source::SLICE * 2;
                while answer == code::BUSY && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(1));
                    answer = inner!(file, lock, code::OK, level);
                }
            }
            if answer == code::OK {
                main.lock = main.lock.max(level);
                if let Some(recalled) = &mut recalled {
                    recalled.keep_out(true);
                }
            }
            return answer;
        }
        if let Role::Replica(Followed { database, watched, .. }) = &mut state(file).role {
            if level >= code::LOCK_RESERVED {
                return read_only(database);
            }
            return watched
                .lock()
                .map_or_else(|error| answer_of_replica(&error, follow::code_of(&error)), |()| code::OK);
        }
        inner!(file, lock, code::OK, level)
    })
}

unsafe extern "C" fn unlock(file: *mut File, level: c_int) -> c_int {
    guard(code::IOERR, || unsafe {
        if let Role::Main(main) = &mut state(file).role {
            if main.lock == code::LOCK_EXCLUSIVE && level < code::LOCK_EXCLUSIVE {
                main.database.let_in();
            }
            main.lock = main.lock.min(level);
            if level < code::LOCK_EXCLUSIVE {
                main.wrote = false;
            }
            if main.pending.is_some() && level < code::LOCK_RESERVED {
                // A rollback journal's commit: before this, nobody else could read it.
                let answer = inner!(file, unlock, code::OK, level);
                let waited = main.durable(state(file).library);
                return if answer == code::OK { waited } else { answer };
            }
        }
        if let Role::Replica(Followed { watched, .. }) = &mut state(file).role {
            if level == code::LOCK_NONE {
                watched.unlock();
            }
            return code::OK;
        }
        inner!(file, unlock, code::OK, level)
    })
}

unsafe extern "C" fn check_reserved_lock(file: *mut File, held: *mut c_int) -> c_int {
    unsafe {
        if let Role::Replica(_) = &state(file).role {
            *held = 0;
            return code::OK;
        }
        inner!(file, check_reserved_lock, code::IOERR, held)
    }
}

unsafe extern "C" fn file_control(file: *mut File, operation: c_int, argument: *mut c_void) -> c_int {
    guard(code::ERROR, || unsafe {
        let State { library, role } = state(file);
        if let Role::Replica(followed) = role
            && operation == code::FCNTL_PRAGMA
            && let Some(answer) =
                asked(library, argument.cast(), |name, said| pragma::run(&followed.target(library), name, said))
        {
            return answer;
        }
        if let Role::Main(main) = role {
            match operation {
                code::FCNTL_PRAGMA => {
                    if let Some(answer) =
                        asked(library, argument.cast(), |name, said| pragma::run(&main.target(library), name, said))
                    {
                        return answer;
                    }
                }
                // A rollback journal's commit, or that of a WAL whose index is this connection's alone; else a WAL's is seen where its
                // write lock is let go.
                code::FCNTL_COMMIT_PHASETWO if main.lock == code::LOCK_EXCLUSIVE => {
                    // In exclusive mode no lock is let go that could tell of a WAL's commit; its index may be there all the same.
                    let header = main.shm.header();
                    let place = header.map(|header| header.place());
                    let seen = main.database.tracker().map(|tracker| tracker.witnessed());
                    let framed = main.database.take_framed() && (place.is_none() || place != seen);
                    if let (Some(tracker), Some(header), true) = (main.database.tracker(), header, framed) {
                        tracker.witness(header.place());
                        let place = tracker.ordered(header.place());
                        place.into_iter().for_each(|place| tracker.note(place, header.checksum()));
                    }
                    if let (Some(tracker), true, false) = (main.database.tracker(), main.wrote, framed) {
                        tracker.forget_previous();
                        tracker.counter().into_iter().for_each(|counter| tracker.note_plain(counter));
                    }
                    if main.wrote || framed {
                        let count = main.database.committed();
                        main.pending = Some(Pending { place: None, count });
                    }
                    main.wrote = false;
                    // Whoever keeps the WAL's index to himself lets nobody read it, and no lock go after this.
                    let answer = if framed { main.durable(library) } else { code::OK };
                    if answer != code::OK {
                        return answer;
                    }
                }
                code::FCNTL_COMMIT_PHASETWO => {
                    let answer = main.durable(library);
                    if answer != code::OK {
                        return answer;
                    }
                }
                code::FCNTL_PDB => main.owner.told(argument.cast()),
                _ => {}
            }
        }
        match (&mut *role, operation) {
            (Role::Past(Looked { past, owner, seat }), code::FCNTL_PRAGMA) => {
                let asking = Asking::of(library, owner.connection());
                let run = |name: &str, said: Option<&str>| pragma::run_past(past, (asking, &*seat), name, said);
                if let Some(answer) = asked(library, argument.cast(), run) {
                    return answer;
                }
            }
            (Role::Past(Looked { owner, .. }) | Role::Replica(Followed { owner, .. }), code::FCNTL_PDB) => {
                owner.told(argument.cast());
            }
            _ => {}
        }
        let answer = inner!(file, file_control, code::NOTFOUND, operation, argument);
        if operation == code::FCNTL_VFSNAME && answer == code::OK {
            let place = argument.cast::<*mut c_char>();
            if !place.is_null() && !(*place).is_null() {
                let inner = CStr::from_ptr(*place).to_string_lossy().into_owned();
                let named = library.api.text(&format!("littoral/{inner}"));
                if !named.is_null() {
                    (library.api.free)((*place).cast());
                    *place = named;
                }
            }
        }
        answer
    })
}

/// A pragma: ours are answered, others are not ours to answer.
unsafe fn asked(
    library: &'static Library,
    words: *mut *mut c_char,
    run: impl FnOnce(&str, Option<&str>) -> Option<Result<String, Refusal>>,
) -> Option<c_int> {
    // SAFETY: R1: three strings, the third perhaps null, and the first ours to set.
    unsafe {
        if words.is_null() || (*words.add(1)).is_null() {
            return None;
        }
        let name = CStr::from_ptr(*words.add(1)).to_string_lossy().into_owned();
        let argument = *words.add(2);
        let argument = (!argument.is_null()).then(|| CStr::from_ptr(argument).to_string_lossy().into_owned());
        let (answer, text) = match run(&name, argument.as_deref())? {
            Ok(text) => (code::OK, text),
            Err(refusal) => (refusal.code, refusal.message),
        };
        *words = library.api.text(&text);
        Some(answer)
    }
}

unsafe extern "C" fn sector_size(file: *mut File) -> c_int {
    unsafe { inner!(file, sector_size, 4096) }
}

unsafe extern "C" fn device_characteristics(file: *mut File) -> c_int {
    unsafe {
        let of_inner = inner!(file, device_characteristics, 0);
        match &state(file).role {
            // The live database's journal and WAL have the names that this one's would have: SQLite is not to look for them.
            Role::Past(_) => of_inner | code::IOCAP_IMMUTABLE,
            _ => of_inner,
        }
    }
}

unsafe extern "C" fn shm_map(
    file: *mut File,
    region: c_int,
    len: c_int,
    extend: c_int,
    place: *mut *mut c_void,
) -> c_int {
    guard(code::IOERR, || unsafe {
        let answer = inner!(file, shm_map, code::IOERR, region, len, extend, place);
        if answer == code::OK {
            match &mut state(file).role {
                Role::Main(main) => {
                    if region == 0 && main.shm.index.is_null() {
                        main.database.wal_opens();
                    }
                    main.shm.mapped(region, place);
                }
                Role::Reader(shm, _) => shm.mapped(region, place),
                Role::Wal { .. } | Role::Journal { .. } | Role::Past(_) | Role::Replica(_) => {}
            }
        }
        answer
    })
}

unsafe extern "C" fn shm_lock(file: *mut File, offset: c_int, count: c_int, flags: c_int) -> c_int {
    guard(code::IOERR, || unsafe {
        match &mut state(file).role {
            Role::Main(main) if offset == walindex::WRITE_LOCK && flags & code::SHM_EXCLUSIVE != 0 => {
                if flags & code::SHM_UNLOCK != 0 {
                    main.written(shim(file).inner);
                    return inner!(file, shm_lock, code::IOERR, offset, count, flags);
                }
                // Who makes an index anew takes this lock too, and only reads: a fence must not keep readers away.
                let is_free =
                    main.sparse.is_none() && !main.database.tracker().is_some_and(|tracker| tracker.is_fenced());
                let may = if is_free || main.shm.header().is_none() { code::OK } else { main.may_write() };
                if may != code::OK {
                    return may;
                }
                let answer = inner!(file, shm_lock, code::IOERR, offset, count, flags);
                if answer == code::OK {
                    main.begun(shim(file).inner);
                }
                answer
            }
            Role::Main(main) if offset == walindex::CHECKPOINT_LOCK && flags & code::SHM_EXCLUSIVE != 0 => {
                let answer = inner!(file, shm_lock, code::IOERR, offset, count, flags);
                main.backfills = answer == code::OK && flags & code::SHM_UNLOCK == 0;
                answer
            }
            // What comes before a WAL starts over (rule S14): whoever is told that others are there appends.
            Role::Main(main)
                if offset == walindex::READ_LOCK + 1
                    && count == walindex::READERS - 1
                    && flags & code::SHM_EXCLUSIVE != 0
                    && flags & code::SHM_UNLOCK == 0 =>
            {
                if !main.database.may_restart(main.backfills) {
                    return code::BUSY;
                }
                inner!(file, shm_lock, code::IOERR, offset, count, flags)
            }
            Role::Reader(..) => {
                let answer = inner!(file, shm_lock, code::IOERR, offset, count, flags);
                if answer == code::OK
                    && let Role::Reader(shm, _) = &mut state(file).role
                {
                    shm.locked(offset, count, flags);
                }
                answer
            }
            Role::Main(_) | Role::Wal { .. } | Role::Journal { .. } | Role::Past(_) | Role::Replica(_) => {
                inner!(file, shm_lock, code::IOERR, offset, count, flags)
            }
        }
    })
}

unsafe extern "C" fn shm_barrier(file: *mut File) {
    unsafe { inner!(file, shm_barrier, ()) }
}

unsafe extern "C" fn shm_unmap(file: *mut File, delete: c_int) -> c_int {
    guard(code::IOERR, || unsafe {
        match &mut state(file).role {
            Role::Main(main) => main.parts(shim(file).inner),
            Role::Reader(shm, _) => shm.index = ptr::null(),
            Role::Wal { .. } | Role::Journal { .. } | Role::Past(_) | Role::Replica(_) => {}
        }
        inner!(file, shm_unmap, code::OK, delete)
    })
}

unsafe extern "C" fn fetch(file: *mut File, offset: Int64, len: c_int, place: *mut *mut c_void) -> c_int {
    unsafe {
        match &state(file).role {
            // Nothing is mapped where pages may be missing (rule S12).
            Role::Main(Main { sparse: Some(_), .. }) | Role::Reader(_, Some(_)) | Role::Past(_) | Role::Replica(_) => {
                *place = ptr::null_mut();
                code::OK
            }
            _ => inner!(file, fetch, code::IOERR, offset, len, place),
        }
    }
}

unsafe extern "C" fn unfetch(file: *mut File, offset: Int64, page: *mut c_void) -> c_int {
    unsafe { inner!(file, unfetch, code::OK, offset, page) }
}

/// Ours, in every shape that an inner VFS's table has: its version, whether it has shared memory, whether it maps pages.
static TABLES: [IoMethods; 12] = {
    let mut tables = [table(1, false, false); 12];
    let mut at = 0;
    while at < 12 {
        tables[at] = table(1 + (at / 4) as c_int, at & 2 != 0, at & 1 != 0);
        at += 1;
    }
    tables
};

const fn table(version: c_int, shared: bool, mapped: bool) -> IoMethods {
    IoMethods {
        version,
        close: Some(close),
        read: Some(read),
        write: Some(write),
        truncate: Some(truncate),
        sync: Some(sync),
        file_size: Some(file_size),
        lock: Some(lock),
        unlock: Some(unlock),
        check_reserved_lock: Some(check_reserved_lock),
        file_control: Some(file_control),
        sector_size: Some(sector_size),
        device_characteristics: Some(device_characteristics),
        shm_map: if shared { Some(shm_map) } else { None },
        shm_lock: if shared { Some(shm_lock) } else { None },
        shm_barrier: if shared { Some(shm_barrier) } else { None },
        shm_unmap: if shared { Some(shm_unmap) } else { None },
        fetch: if mapped { Some(fetch) } else { None },
        unfetch: if mapped { Some(unfetch) } else { None },
    }
}

fn methods(inner: &IoMethods) -> *const IoMethods {
    let version = inner.version.clamp(1, 3);
    let shared = version >= 2 && inner.shm_map.is_some();
    let mapped = version >= 3 && inner.fetch.is_some();
    let at = (version as usize - 1) * 4 + usize::from(shared) * 2 + usize::from(mapped);
    &raw const TABLES[at]
}
