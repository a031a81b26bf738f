//! The way in: what a host calls when it loads us, and for each connection that it opens from then on.

use super::abi::{Connection, code};
use super::api::{self, Api};
use super::guard::guard;
use super::{sql, vfs};
use std::ffi::{c_char, c_int, c_void};

/// The entry point of the loadable extension: registers the VFS, and asks to be called for every connection to come.
///
/// # Safety
/// Called by SQLite as an extension's entry point.
pub(crate) unsafe fn load(
    db: *mut Connection,
    message: *mut *mut c_char,
    routines: *const c_void,
    default: bool,
) -> c_int {
    guard(code::ERROR, || {
        // SAFETY: the caller's promise.
        let Some(api) = (unsafe { Api::read(routines) }) else {
            // SAFETY: the caller's promise.
            unsafe { api::refuse(routines, message) };
            return code::ERROR;
        };
        // SAFETY: read from the library that calls.
        let is_here = unsafe { vfs::is_registered(&api) };
        // SAFETY: read from the library that calls.
        let library = match unsafe { vfs::register(api, default) } {
            Ok(library) => library,
            Err(refused) => {
                let why = "littoral: another copy of the extension is loaded in this process: load one of them";
                if !message.is_null() {
                    // SAFETY: R1, R5: SQLite's own variable, and memory that it frees.
                    unsafe { *message = api.text(why) };
                }
                return refused;
            }
        };
        // SAFETY: R3, R4: the function stays where it is for good.
        let answer = unsafe { (api.auto_extension)(Some(connected)) };
        if answer != code::OK {
            return answer;
        }
        if !db.is_null() {
            // SAFETY: R1: the connection that loads us.
            let answer = unsafe { sql::register(library, db) };
            if answer != code::OK {
                return answer;
            }
        }
        // Of a program that has us for good already this is no extension's loading but a call for a connection: whatever is not OK would keep
        // SQLite from calling those that the program registered behind us.
        if is_here { code::OK } else { code::OK_LOAD_PERMANENTLY }
    })
}

/// Called for every new connection. Any answer but OK would keep the host from opening it.
unsafe extern "C" fn connected(db: *mut Connection, _: *mut *mut c_char, routines: *const c_void) -> c_int {
    guard(code::OK, || {
        // SAFETY: SQLite's call of an auto-extension.
        if let Some(api) = unsafe { Api::read(routines) } {
            // SAFETY: as in `load`.
            match unsafe { vfs::register(api, false) } {
                Ok(library) => {
                    // SAFETY: R1: the connection that is being opened.
                    unsafe { sql::register(library, db) };
                }
                Err(refused) => api.say(refused, "the VFS cannot be registered"),
            }
        }
        code::OK
    })
}
