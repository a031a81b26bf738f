//! How libsql's SQLite comes to know the VFS.
//!
//! Rules; each block cites the one that makes it sound:
//! - E1 libsql sets SQLite up with its first database, and asserts that nobody did before: so one is made first.
//! - E2 What SQLite calls at a new connection is what it would call in a loadable extension, with what it passes to one.

#![allow(unsafe_code)]

use crate::error::Error;
use crate::off;
use libsql::ffi;
use std::ffi::{CStr, c_char, c_int};
use std::sync::{Mutex, PoisonError};

/// An entry point's answer: loaded, and to stay so. A new connection takes it for an error.
const OK_LOAD_PERMANENTLY: c_int = 256;

/// Why the entry point refused.
static REFUSED: Mutex<Option<String>> = Mutex::new(None);

/// Makes the VFS `littoral` known to libsql's SQLite, once in a process: for whoever opens connections without a [`crate::Builder`].
pub fn register() -> Result<(), Error> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if *done {
        return Ok(());
    }
    let memory = off::done(libsql::Builder::new_local(":memory:").build())?;
    // SAFETY: E1, E2.
    let answer = unsafe { ffi::sqlite3_auto_extension(Some(entry)) };
    if answer != ffi::SQLITE_OK {
        return Err(Error::Host(format!("SQLite does not take extensions (code {answer})")));
    }
    let connected = memory.connect();
    // From here on the VFS's own is called for new connections.
    // SAFETY: E2.
    unsafe { ffi::sqlite3_cancel_auto_extension(Some(entry)) };
    if let Some(why) = REFUSED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(Error::Host(why));
    }
    drop(connected?);
    *done = true;
    Ok(())
}

unsafe extern "C" fn entry(
    db: *mut ffi::sqlite3,
    message: *mut *const c_char,
    routines: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: E2.
    let answer = unsafe { littoral_vfs::init(db.cast(), message.cast(), routines.cast()) };
    if answer == ffi::SQLITE_OK || answer == OK_LOAD_PERMANENTLY {
        return ffi::SQLITE_OK;
    }
    // SAFETY: E2: a place for a message, which is null or ends in a zero, and which SQLite frees.
    let why = unsafe {
        let text = if message.is_null() { std::ptr::null() } else { *message };
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    let why = why.unwrap_or_else(|| format!("SQLite does not take the VFS littoral (code {answer})"));
    *REFUSED.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    answer
}
