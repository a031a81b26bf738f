//! The VFS itself: every call but the opening of files goes to the inner one as it is.

use super::abi::{File, Int64, Symbol, SystemCall, Vfs, code};
use super::file;
use super::guard::guard;
use super::library::{Library, NAME};
use std::ffi::{c_char, c_double, c_int, c_void};
use std::ptr;

macro_rules! inner {
    ($vfs:expr, $method:ident, $none:expr $(, $argument:expr)*) => {{
        let inner = library($vfs).inner;
        match (*inner).$method {
            Some(method) => method(inner $(, $argument)*),
            None => $none,
        }
    }};
}

unsafe fn library(vfs: *mut Vfs) -> &'static Library {
    // SAFETY: R4: set in `register`, never changed, never freed.
    unsafe { &*(*vfs).app_data.cast::<Library>() }
}

// SAFETY for all that follow: R1, R3 and R4, in calls that SQLite makes on a registered VFS.

unsafe extern "C" fn open(vfs: *mut Vfs, name: *const c_char, into: *mut File, flags: c_int, out: *mut c_int) -> c_int {
    guard(code::CANTOPEN, || unsafe { file::open(library(vfs), name, into, flags, out) })
}

unsafe extern "C" fn delete(vfs: *mut Vfs, name: *const c_char, sync: c_int) -> c_int {
    guard(code::IOERR, || unsafe {
        let renamed = file::renamed(name);
        file::deleted(name);
        inner!(vfs, delete, code::IOERR, renamed.as_ref().map_or(name, |renamed| renamed.as_ptr()), sync)
    })
}

unsafe extern "C" fn access(vfs: *mut Vfs, name: *const c_char, flags: c_int, answer: *mut c_int) -> c_int {
    guard(code::IOERR, || unsafe {
        let renamed = file::renamed(name);
        inner!(vfs, access, code::IOERR, renamed.as_ref().map_or(name, |renamed| renamed.as_ptr()), flags, answer)
    })
}

unsafe extern "C" fn full_pathname(vfs: *mut Vfs, name: *const c_char, len: c_int, into: *mut c_char) -> c_int {
    unsafe { inner!(vfs, full_pathname, code::CANTOPEN, name, len, into) }
}

unsafe extern "C" fn dl_open(vfs: *mut Vfs, name: *const c_char) -> *mut c_void {
    unsafe { inner!(vfs, dl_open, ptr::null_mut(), name) }
}

unsafe extern "C" fn dl_error(vfs: *mut Vfs, len: c_int, message: *mut c_char) {
    unsafe { inner!(vfs, dl_error, (), len, message) }
}

unsafe extern "C" fn dl_sym(vfs: *mut Vfs, handle: *mut c_void, symbol: *const c_char) -> Symbol {
    unsafe { inner!(vfs, dl_sym, None, handle, symbol) }
}

unsafe extern "C" fn dl_close(vfs: *mut Vfs, handle: *mut c_void) {
    unsafe { inner!(vfs, dl_close, (), handle) }
}

unsafe extern "C" fn randomness(vfs: *mut Vfs, len: c_int, into: *mut c_char) -> c_int {
    unsafe { inner!(vfs, randomness, 0, len, into) }
}

unsafe extern "C" fn sleep(vfs: *mut Vfs, micros: c_int) -> c_int {
    unsafe { inner!(vfs, sleep, 0, micros) }
}

unsafe extern "C" fn current_time(vfs: *mut Vfs, time: *mut c_double) -> c_int {
    unsafe { inner!(vfs, current_time, code::ERROR, time) }
}

unsafe extern "C" fn get_last_error(vfs: *mut Vfs, len: c_int, message: *mut c_char) -> c_int {
    unsafe { inner!(vfs, get_last_error, 0, len, message) }
}

unsafe extern "C" fn current_time_int64(vfs: *mut Vfs, time: *mut Int64) -> c_int {
    unsafe { inner!(vfs, current_time_int64, code::ERROR, time) }
}

unsafe extern "C" fn set_system_call(vfs: *mut Vfs, name: *const c_char, call: SystemCall) -> c_int {
    unsafe { inner!(vfs, set_system_call, code::NOTFOUND, name, call) }
}

unsafe extern "C" fn get_system_call(vfs: *mut Vfs, name: *const c_char) -> SystemCall {
    unsafe { inner!(vfs, get_system_call, None, name) }
}

unsafe extern "C" fn next_system_call(vfs: *mut Vfs, name: *const c_char) -> *const c_char {
    unsafe { inner!(vfs, next_system_call, ptr::null(), name) }
}

type OpenCall = unsafe extern "C" fn(*mut Vfs, *const c_char, *mut File, c_int, *mut c_int) -> c_int;

/// Whether somebody has registered a VFS of our name.
///
/// # Safety
/// `api` was read from the library that is asked.
pub(crate) unsafe fn is_registered(api: &super::api::Api) -> bool {
    // SAFETY: R3.
    !unsafe { (api.vfs_find)(NAME.as_ptr()) }.is_null()
}

/// Registers ours over the platform's default, once for each library; gives the library it belongs to. Nesting in
/// itself is refused by finding ourselves (rule S19).
///
/// # Safety
/// `api` was read from the library that is asked.
pub(crate) unsafe fn register(api: super::api::Api, default: bool) -> Result<&'static Library, c_int> {
    // SAFETY: R3.
    let known = unsafe { (api.vfs_find)(NAME.as_ptr()) };
    if !known.is_null() {
        // SAFETY: R1: a registered VFS; of two copies of us in one process only the one that registered it knows its own.
        let is_ours = unsafe { (*known).open }.is_some_and(|theirs| ptr::fn_addr_eq(theirs, open as OpenCall));
        if !is_ours {
            return Err(code::MISUSE);
        }
        if default {
            // SAFETY: R3: registering again only moves it to the front.
            unsafe { (api.vfs_register)(known, 1) };
        }
        // SAFETY: R4.
        return Ok(unsafe { library(known) });
    }
    if !crate::alone::is_alone() {
        return Err(code::MISUSE);
    }
    // SAFETY: R3: null asks for the default.
    let inner = unsafe { (api.vfs_find)(ptr::null()) };
    if inner.is_null() {
        return Err(code::ERROR);
    }
    let library: &'static Library = Box::leak(Box::new(Library { api, inner }));
    // SAFETY: R1: a registered VFS.
    let of_inner = unsafe { &*inner };
    let version = of_inner.version.clamp(1, 3);
    let ours = Vfs {
        version,
        os_file: of_inner.os_file.saturating_add(file::size()),
        max_pathname: of_inner.max_pathname,
        next: ptr::null_mut(),
        name: NAME.as_ptr(),
        app_data: ptr::from_ref(library).cast_mut().cast(),
        open: Some(open),
        delete: Some(delete),
        access: Some(access),
        full_pathname: Some(full_pathname),
        dl_open: of_inner.dl_open.map(|_| dl_open as _),
        dl_error: of_inner.dl_error.map(|_| dl_error as _),
        dl_sym: of_inner.dl_sym.map(|_| dl_sym as _),
        dl_close: of_inner.dl_close.map(|_| dl_close as _),
        randomness: Some(randomness),
        sleep: Some(sleep),
        current_time: Some(current_time),
        get_last_error: Some(get_last_error),
        current_time_int64: Some(current_time_int64),
        set_system_call: Some(set_system_call),
        get_system_call: Some(get_system_call),
        next_system_call: Some(next_system_call),
    };
    // SAFETY: R3, R4.
    match unsafe { (api.vfs_register)(Box::leak(Box::new(ours)), c_int::from(default)) } {
        code::OK => Ok(library),
        refused => Err(refused),
    }
}
