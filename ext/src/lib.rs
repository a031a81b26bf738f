//! The loadable extension `littoral.so`: its two entry points, and nothing else.
//!
//! `sqlite3_littoral_init` is what hosts find by the file's name; `sqlite3_littoraldefault_init` makes ours the VFS of every database that
//! names none, for drivers that cannot pass URIs. Being the default makes no database ours (rule S19).

#![allow(unsafe_code, reason = "entry points have names that C knows")]

use std::ffi::{c_char, c_int, c_void};

/// Registers the VFS `littoral`.
///
/// # Safety
/// Called by SQLite.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_littoral_init(
    db: *mut c_void,
    message: *mut *mut c_char,
    routines: *const c_void,
) -> c_int {
    // SAFETY: SQLite's own call, passed on.
    unsafe { littoral_vfs::init(db, message, routines) }
}

/// Registers it as the default.
///
/// # Safety
/// Called by SQLite.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_littoraldefault_init(
    db: *mut c_void,
    message: *mut *mut c_char,
    routines: *const c_void,
) -> c_int {
    // SAFETY: SQLite's own call, passed on.
    unsafe { littoral_vfs::init_default(db, message, routines) }
}
