//! Open files: a main database and its WAL pass through here, every other kind is the inner VFS's own.

use super::abi::{File, Int64, IoMethods, code};
use super::guard::guard;
use super::library::Library;
use super::walindex::{self, Header};
use crate::database::Database;
use crate::pragma;
use crate::said::{self, Said};
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

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
    Wal { database: Arc<Database>, page: u32 },
    /// A database that a reader of ours looks at.
    Reader(Shm),
}

/// What a connection of ours knows of the WAL's index.
#[derive(Clone, Copy)]
pub(crate) struct Shm {
    index: *const u32,
    /// Which readers' locks it holds, a bit each.
    readers: u32,
}

struct Main {
    database: Arc<Database>,
    said: Said,
    shm: Shm,
    lock: c_int,
    /// Whether the database file was written under this lock: a commit of a rollback journal is on its way.
    wrote: bool,
    /// What the WAL's index said when the write lock was taken.
    before: Option<Header>,
}

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
        Ok(unsafe { wal_of(name) }.map(|database| Role::Wal { database, page: 0 }))
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
    // SAFETY: R2: the inner file's memory begins where ours ends.
    unsafe {
        let inner = shim.add(1).cast::<File>();
        (*file).methods = ptr::null();
        (*inner).methods = ptr::null();
        let answer = open(library.inner, name, inner, flags, &mut flags_out);
        if !out.is_null() {
            *out = flags_out;
        }
        if answer != code::OK {
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
        if let State { role: Role::Main(main), .. } = &mut *state
            && flags_out & code::OPEN_READONLY == 0
        {
            main.database.arrive();
        }
    }
    code::OK
}

/// Whether a main database is ours, and what was said of it.
///
/// # Safety
/// A main database's name, as SQLite passes it to `xOpen`.
unsafe fn who(library: &'static Library, name: *const c_char, flags: c_int) -> Result<Option<Role>, String> {
    // SAFETY: R1.
    let path = unsafe { path(name) };
    // SAFETY: R1.
    let parameters = unsafe { library.api.parameters(name) };
    if parameters.iter().any(|(key, _)| key == said::READER) {
        return Ok(Some(Role::Reader(Shm { index: ptr::null(), readers: 0 })));
    }
    let Some(said) = said::read(&path, &parameters, library.is_default())? else { return Ok(None) };
    let read_only = flags & code::OPEN_READWRITE == 0;
    let database = Database::open(&path, library.id(), &said, read_only)?;
    let shm = Shm { index: ptr::null(), readers: 0 };
    Ok(Some(Role::Main(Main { database, said, shm, lock: code::LOCK_NONE, wrote: false, before: None })))
}

/// # Safety
/// A string of SQLite's.
unsafe fn path(name: *const c_char) -> PathBuf {
    // SAFETY: R1.
    PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
}

/// The database whose WAL this is, where it is one that is tracked.
///
/// # Safety
/// A string of SQLite's.
unsafe fn wal_of(name: *const c_char) -> Option<Arc<Database>> {
    // SAFETY: R1.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    Database::find(Path::new(OsStr::from_bytes(bytes.strip_suffix(b"-wal")?)))
}

/// What a connection's file is to us.
pub(crate) enum Known {
    /// A database of ours.
    Ours(Arc<Database>, Said),
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
        Role::Main(main) => Known::Ours(main.database.clone(), main.said.clone()),
        Role::Wal { .. } | Role::Reader(_) => Known::Foreign,
    }
}

/// A reader's file: the inner one, and what it knows of the WAL's index.
///
/// # Safety
/// As for [`known`].
pub(crate) unsafe fn reader(file: *mut File) -> Option<(*mut File, Shm)> {
    // SAFETY: the caller's promise, then R2.
    unsafe {
        match (is_shim(file), &state(file).role) {
            (true, Role::Reader(shm)) => Some((shim(file).inner, *shm)),
            _ => None,
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
    /// The write lock of a WAL is about to be let go: what is committed by now is committed (rule S1).
    fn written(&mut self) {
        let after = self.shm.header();
        if after.is_some() && self.before.take() != after {
            self.database.committed();
        }
    }
}

unsafe extern "C" fn close(file: *mut File) -> c_int {
    guard(code::IOERR, || {
        // SAFETY: R2: nobody calls this file's methods any more; the state is freed once.
        unsafe {
            let answer = inner!(file, close, code::OK);
            let state = std::mem::replace(&mut shim(file).state, ptr::null_mut());
            (*file).methods = ptr::null();
            let state = Box::from_raw(state);
            // After the inner file is closed, as rule S19 wants it.
            if let Role::Main(main) = state.role {
                crate::database::closed(main.database, &main.said, state.library);
            }
            answer
        }
    })
}

// SAFETY for all that follow: R1 and R2, in calls that SQLite makes on an open file.

unsafe extern "C" fn read(file: *mut File, into: *mut c_void, len: c_int, offset: Int64) -> c_int {
    unsafe { inner!(file, read, code::IOERR, into, len, offset) }
}

unsafe extern "C" fn write(file: *mut File, from: *const c_void, len: c_int, offset: Int64) -> c_int {
    guard(code::IOERR, || unsafe {
        match &mut state(file).role {
            Role::Main(main) => {
                main.database.mark(offset.cast_unsigned(), u64::from(len.unsigned_abs()));
                main.wrote = true;
            }
            Role::Wal { database, page } => frame(database, page, from, len, offset),
            Role::Reader(_) => {}
        }
        inner!(file, write, code::IOERR, from, len, offset)
    })
}

/// What is written to a WAL: a frame's header names a page, and what follows it is the page.
#[inline]
unsafe fn frame(database: &Database, page: &mut u32, from: *const c_void, len: c_int, offset: Int64) {
    if len == 24 && offset >= 32 {
        // SAFETY: R1: `len` bytes.
        *page = u32::from_be(unsafe { from.cast::<u32>().read_unaligned() });
    } else if let Some(before) = std::mem::take(page).checked_sub(1) {
        let len = u64::from(len.unsigned_abs());
        database.mark(u64::from(before) * len, len);
    }
}

unsafe extern "C" fn truncate(file: *mut File, size: Int64) -> c_int {
    guard(code::IOERR, || unsafe {
        if let Role::Main(main) = &mut state(file).role {
            main.database.mark_cut(size.cast_unsigned());
            main.wrote = true;
        }
        inner!(file, truncate, code::IOERR, size)
    })
}

unsafe extern "C" fn sync(file: *mut File, flags: c_int) -> c_int {
    unsafe { inner!(file, sync, code::IOERR, flags) }
}

unsafe extern "C" fn file_size(file: *mut File, size: *mut Int64) -> c_int {
    unsafe { inner!(file, file_size, code::IOERR, size) }
}

unsafe extern "C" fn lock(file: *mut File, level: c_int) -> c_int {
    guard(code::IOERR, || unsafe {
        if let Role::Main(main) = &mut state(file).role {
            if level >= code::LOCK_RESERVED && main.lock < code::LOCK_RESERVED && main.database.is_fenced(&main.said) {
                return code::READONLY;
            }
            let answer = inner!(file, lock, code::OK, level);
            if answer == code::OK {
                main.lock = main.lock.max(level);
            }
            return answer;
        }
        inner!(file, lock, code::OK, level)
    })
}

unsafe extern "C" fn unlock(file: *mut File, level: c_int) -> c_int {
    guard(code::IOERR, || unsafe {
        if let Role::Main(main) = &mut state(file).role {
            main.lock = main.lock.min(level);
            if level < code::LOCK_EXCLUSIVE {
                main.wrote = false;
            }
        }
        inner!(file, unlock, code::OK, level)
    })
}

unsafe extern "C" fn check_reserved_lock(file: *mut File, held: *mut c_int) -> c_int {
    unsafe { inner!(file, check_reserved_lock, code::IOERR, held) }
}

unsafe extern "C" fn file_control(file: *mut File, operation: c_int, argument: *mut c_void) -> c_int {
    guard(code::ERROR, || unsafe {
        let State { library, role } = state(file);
        if let Role::Main(main) = role {
            match operation {
                code::FCNTL_PRAGMA => {
                    if let Some(answer) = asked(library, main, argument.cast()) {
                        return answer;
                    }
                }
                // A rollback journal's commit; a WAL's is seen where its write lock is let go.
                code::FCNTL_COMMIT_PHASETWO if main.wrote && main.lock == code::LOCK_EXCLUSIVE => {
                    main.database.committed();
                    main.wrote = false;
                }
                _ => {}
            }
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
unsafe fn asked(library: &'static Library, main: &mut Main, words: *mut *mut c_char) -> Option<c_int> {
    // SAFETY: R1: three strings, the third perhaps null, and the first ours to set.
    unsafe {
        if words.is_null() || (*words.add(1)).is_null() {
            return None;
        }
        let name = CStr::from_ptr(*words.add(1)).to_string_lossy().into_owned();
        let argument = *words.add(2);
        let argument = (!argument.is_null()).then(|| CStr::from_ptr(argument).to_string_lossy().into_owned());
        let answer = pragma::run(library, &main.database, &main.said, &name, argument.as_deref())?;
        let (answer, text) = match answer {
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
    unsafe { inner!(file, device_characteristics, 0) }
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
                Role::Main(Main { shm, .. }) | Role::Reader(shm) => shm.mapped(region, place),
                Role::Wal { .. } => {}
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
                    main.written();
                    return inner!(file, shm_lock, code::IOERR, offset, count, flags);
                }
                // Who makes an index anew takes this lock too, and only reads: a fence must not keep readers away.
                if main.database.is_fenced(&main.said) && main.shm.header().is_some() {
                    return code::READONLY;
                }
                let answer = inner!(file, shm_lock, code::IOERR, offset, count, flags);
                if answer == code::OK {
                    main.before = main.shm.header();
                }
                answer
            }
            Role::Reader(_) => {
                let answer = inner!(file, shm_lock, code::IOERR, offset, count, flags);
                if answer == code::OK
                    && let Role::Reader(shm) = &mut state(file).role
                {
                    shm.locked(offset, count, flags);
                }
                answer
            }
            Role::Main(_) | Role::Wal { .. } => inner!(file, shm_lock, code::IOERR, offset, count, flags),
        }
    })
}

unsafe extern "C" fn shm_barrier(file: *mut File) {
    unsafe { inner!(file, shm_barrier, ()) }
}

unsafe extern "C" fn shm_unmap(file: *mut File, delete: c_int) -> c_int {
    guard(code::IOERR, || unsafe {
        match &mut state(file).role {
            Role::Main(Main { shm, .. }) | Role::Reader(shm) => shm.index = ptr::null(),
            Role::Wal { .. } => {}
        }
        inner!(file, shm_unmap, code::OK, delete)
    })
}

unsafe extern "C" fn fetch(file: *mut File, offset: Int64, len: c_int, place: *mut *mut c_void) -> c_int {
    unsafe { inner!(file, fetch, code::IOERR, offset, len, place) }
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
