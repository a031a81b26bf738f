//! A scan of a log's table that is told to end, in a program whose SQLite can be asked (3.41 and newer). A file of its own: the function that interrupts is
//! given to SQLite as C's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.
#![allow(unsafe_code)]

mod rig;

use libsql::ffi;
use rig::Rig;
use std::ffi::{CStr, CString, c_int};

/// Interrupts the statement that it is a part of.
unsafe extern "C" fn stop(context: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {
    // SAFETY: SQLite calls it with a context of its own.
    unsafe {
        ffi::sqlite3_interrupt(ffi::sqlite3_context_db_handle(context));
        ffi::sqlite3_result_int(context, -7);
    }
}

#[test]
fn an_interrupt_ends_a_scan_before_its_next_block() {
    let rig = Rig::new();
    let path = rig.path("app.db");
    littoral::register().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let conn = runtime.block_on(async { libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap() });
    let does = |sql: &str| drop(runtime.block_on(conn.execute_batch(sql)).unwrap());
    let blocks = || {
        let read = async {
            let mut rows = conn.query("SELECT blocks_read FROM littoral_log_stats('events')", ()).await.unwrap();
            rows.next().await.unwrap().unwrap().get::<i64>(0).unwrap()
        };
        runtime.block_on(read)
    };
    does("CREATE VIRTUAL TABLE events USING littoral_log(n INTEGER, body TEXT)");
    does(
        "INSERT INTO events SELECT value, hex(zeroblob(4096)) FROM (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c \
         WHERE value < 1000) SELECT value FROM c)",
    );
    let before = blocks();
    let name = CString::new(path.to_str().unwrap()).unwrap();
    let run = |sql: &CStr| {
        let mut raw = std::ptr::null_mut();
        // SAFETY: a connection of this test's, opened and closed here.
        unsafe {
            assert_eq!(ffi::sqlite3_open(name.as_ptr(), &raw mut raw), ffi::SQLITE_OK);
            let (utf8, none) = (ffi::SQLITE_UTF8, std::ptr::null_mut());
            let made = ffi::sqlite3_create_function(raw, c"stop".as_ptr(), 0, utf8, none, Some(stop), None, None);
            assert_eq!(made, ffi::SQLITE_OK);
            let code = ffi::sqlite3_exec(raw, sql.as_ptr(), None, none, std::ptr::null_mut());
            ffi::sqlite3_close(raw);
            code
        }
    };
    // Whoever is first to ask for a column reads every block of it, and none of them has such a row.
    assert_eq!(run(c"SELECT count(*) FROM events WHERE n = stop()"), ffi::SQLITE_INTERRUPT);
    let interrupted = blocks();
    assert_eq!(interrupted, before, "no block was read after it");
    assert_eq!(run(c"SELECT count(*) FROM events WHERE n = -7"), ffi::SQLITE_OK);
    let whole = blocks();
    assert!(whole > before + 50, "{whole} blocks");
}
