//! The lock page, moved down by SQLite's own test control.
//!
//! The control is for the whole process: this file is a test binary of its own, with one test.

#![allow(unsafe_code)]

use littoral_cli::sqlite::{BUSY_TIMEOUT, SqliteSource, integrity_check, lock_page};
use littoral_ports::PageSource as _;
use littoral_types::PageNo;
use std::fs;

const PENDING_BYTE: u32 = 0x10000;

#[test]
fn the_lock_page_is_where_sqlite_locks_and_reads_as_zeros() {
    // libsql configures the library before its first database, and nothing else may come before that.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        libsql::Builder::new_local(":memory:").build().await.unwrap();
        // SAFETY: this operation takes one unsigned integer; no database is open.
        unsafe { libsql::ffi::sqlite3_test_control(libsql::ffi::SQLITE_TESTCTRL_PENDING_BYTE, PENDING_BYTE) };
        let folder = tempfile::tempdir().unwrap();
        for page_size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
            for journal in ["WAL", "DELETE"] {
                for auto_vacuum in ["NONE", "FULL"] {
                    let case = format!("{page_size} {journal} {auto_vacuum}");
                    let path = folder.path().join(&case);
                    let database = libsql::Builder::new_local(&path).build().await.unwrap();
                    let writer = database.connect().unwrap();
                    writer
                        .execute_batch(&format!(
                            "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum};
                             PRAGMA journal_mode = {journal}; CREATE TABLE t(id INTEGER PRIMARY KEY, a);"
                        ))
                        .await
                        .unwrap();
                    let small = SqliteSource::open(&path, BUSY_TIMEOUT).unwrap();
                    let expected = lock_page(small.page_size(), u64::from(PENDING_BYTE));
                    let there = small.page_count().holds(expected);
                    assert_eq!(small.lock_page(), there.then_some(expected), "{case}: while it is small");
                    drop(small);
                    writer
                        .execute_batch(
                            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
                             INSERT INTO t SELECT i, randomblob(700) FROM n;",
                        )
                        .await
                        .unwrap();
                    let mut source = SqliteSource::open(&path, BUSY_TIMEOUT).unwrap();
                    assert_eq!(source.lock_page(), Some(expected), "{case}");
                    source.check().unwrap();
                    let mut bytes = Vec::new();
                    let mut page = vec![0; source.page_size().len()];
                    for index in 0..source.page_count().0 {
                        page.fill(0xaa);
                        source.read(PageNo::from_index(index), &mut page).unwrap();
                        let empty = page.iter().all(|byte| *byte == 0);
                        assert!(PageNo::from_index(index) != expected || empty, "{case}: the lock page has bytes");
                        bytes.extend_from_slice(&page);
                    }
                    drop(source);
                    drop(writer);
                    drop(database);
                    assert!(bytes == fs::read(&path).unwrap(), "{case}: other bytes than the file");
                    let copy = folder.path().join("copy");
                    fs::write(&copy, &bytes).unwrap();
                    assert_eq!(integrity_check(&copy, BUSY_TIMEOUT).unwrap(), Vec::<String>::new(), "{case}");
                }
            }
        }
    });
}
