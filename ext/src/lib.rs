//! The loadable extension `littoral.so`: its two entry points, and what is said on stderr when `LITTORAL_LOG` asks for it.
//!
//! `sqlite3_littoral_init` is what hosts find by the file's name; `sqlite3_littoraldefault_init` makes ours the VFS of every database that
//! names none, for drivers that cannot pass URIs. Being the default makes no database ours (rule S19).

#![allow(unsafe_code, reason = "entry points have names that C knows")]

use std::ffi::{c_char, c_int, c_void};
use std::io::stderr;
use std::sync::Once;
use tracing_subscriber::EnvFilter;

/// Says on stderr what `LITTORAL_LOG` asks for. Where it asks for nothing, nothing is said: the terminal is the host's.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok(filter) = EnvFilter::try_from_env("LITTORAL_LOG") {
            let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
            // A second listener keeps the first.
            let _ = lines.with_target(false).with_ansi(false).try_init();
        }
    });
}

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
    listen();
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
    listen();
    // SAFETY: SQLite's own call, passed on.
    unsafe { littoral_vfs::init_default(db, message, routines) }
}
