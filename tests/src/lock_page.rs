//! SQLite's lock page, moved down so that small databases reach across it.

#![allow(unsafe_code)]

use std::sync::Once;

/// Moves it for this whole process, which then does nothing else. Before any database is opened.
pub fn move_to(pending_byte: u32) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // libsql configures the library before its first database, and nothing else may come before that.
        #[allow(deprecated)] // The builder is async, for a database that is never connected to.
        libsql::Database::open_in_memory().expect("an empty database in memory");
        // SAFETY: this operation takes one unsigned integer; no database is open.
        unsafe { libsql::ffi::sqlite3_test_control(libsql::ffi::SQLITE_TESTCTRL_PENDING_BYTE, pending_byte) };
    });
}
