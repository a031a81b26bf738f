//! The builder, as programs use it: in both kinds of runtime and in none, with many connections, and with everything that can be said
//! wrong. What comes back from the object store is shown by `tests/hosts`, which may use the command line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use futures::executor::block_on;
use littoral::{Builder, Database, Error};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use tempfile::TempDir;

async fn number(conn: &libsql::Connection, sql: &str) -> i64 {
    conn.query(sql, ()).await.unwrap().next().await.unwrap().unwrap().get(0).unwrap()
}

async fn text(conn: &libsql::Connection, sql: &str) -> String {
    conn.query(sql, ()).await.unwrap().next().await.unwrap().unwrap().get(0).unwrap()
}

async fn writes(database: &Database, connections: u32, rows: u32) {
    let conn = database.connect().await.unwrap();
    conn.execute("CREATE TABLE t(task INTEGER, nth INTEGER)", ()).await.unwrap();
    let mut tasks = Vec::new();
    for task in 0..connections {
        let conn = database.connect().await.unwrap();
        tasks.push(tokio::spawn(async move {
            for nth in 0..rows {
                conn.execute("INSERT INTO t VALUES (?1, ?2)", (task, nth)).await.unwrap();
            }
        }));
    }
    database.checkpoint().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(number(&conn, "SELECT count(*) FROM t").await, i64::from(connections * rows));
}

#[tokio::test(flavor = "current_thread")]
async fn a_new_database_is_wal_and_waits_for_locks() {
    let folder = TempDir::new().unwrap();
    let conn = Builder::new(folder.path().join("app.db")).open().await.unwrap();
    assert_eq!(text(&conn, "PRAGMA journal_mode").await, "wal");
    assert_eq!(number(&conn, "PRAGMA busy_timeout").await, 5000);
    assert_eq!(text(&conn, "SELECT littoral_version()").await, env!("CARGO_PKG_VERSION"));
    let conn = Builder::new(folder.path().join("app.db")).busy_timeout(Duration::from_millis(70)).open().await.unwrap();
    assert_eq!(number(&conn, "PRAGMA busy_timeout").await, 70);
}

#[tokio::test(flavor = "current_thread")]
async fn a_database_that_is_there_keeps_its_journal_mode_and_its_rows() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.db");
    let plain = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
    plain.execute_batch("PRAGMA journal_mode = TRUNCATE; CREATE TABLE t(x); INSERT INTO t VALUES (7);").await.unwrap();
    drop(plain);
    let conn = Builder::new(&path).open().await.unwrap();
    assert_eq!(text(&conn, "PRAGMA journal_mode").await, "delete");
    assert_eq!(number(&conn, "SELECT x FROM t").await, 7);
    let status = littoral::status(&conn).await.unwrap();
    assert!(!status.is_safe(), "{status}");
    let position = littoral::checkpoint(&conn).await.unwrap();
    let status = littoral::status(&conn).await.unwrap();
    assert!(status.is_safe(), "{status}");
    assert_eq!(status.position(), Some(position));
    assert!(status.volume().unwrap().ends_with("/app.db"), "{status}");
    assert!(littoral::snapshot(&conn, "it's").await.is_err());
    assert_eq!(littoral::snapshot(&conn, "before").await.unwrap(), position);
}

#[tokio::test(flavor = "current_thread")]
async fn many_connections_in_a_runtime_of_one_thread() {
    let folder = TempDir::new().unwrap();
    writes(&Builder::new(folder.path().join("app.db")).build().await.unwrap(), 5, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_connections_in_a_runtime_of_many_threads() {
    let folder = TempDir::new().unwrap();
    let database = Builder::new(folder.path().join("app.db")).build().await.unwrap();
    writes(&database, 8, 40).await;
    let position = database.snapshot("all").await.unwrap();
    let status = database.status().await.unwrap();
    assert_eq!(status.position(), Some(position));
    assert_eq!(status.get("bytes_changed"), Some("0"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_openings_at_once_make_one_database() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.db");
    let opened: Vec<_> = (0..16).map(|_| tokio::spawn(Builder::new(&path).open())).collect();
    let mut conns = Vec::new();
    for one in opened {
        conns.push(one.await.unwrap().unwrap());
    }
    conns[0].execute("CREATE TABLE t(x)", ()).await.unwrap();
    for conn in &conns {
        conn.execute("INSERT INTO t VALUES (1)", ()).await.unwrap();
        assert_eq!(text(conn, "PRAGMA journal_mode").await, "wal");
    }
    assert_eq!(number(&conns[7], "SELECT count(*) FROM t").await, 16);
}

#[test]
fn no_runtime_is_needed() {
    let folder = TempDir::new().unwrap();
    let database = block_on(Builder::new(folder.path().join("app.db")).build()).unwrap();
    let conn = database.connect_blocking().unwrap();
    block_on(conn.execute("CREATE TABLE t(x)", ())).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let conn = database.connect_blocking().unwrap();
                block_on(conn.execute("INSERT INTO t VALUES (1)", ())).unwrap();
            });
        }
    });
    block_on(database.checkpoint()).unwrap();
    assert_eq!(block_on(number(&conn, "SELECT count(*) FROM t")), 4);
    assert!(block_on(database.status()).unwrap().is_safe());
}

#[tokio::test]
async fn the_last_close_makes_a_checkpoint_where_it_was_asked_to() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.db");
    let database = Builder::new(&path).close_wait(Duration::from_secs(60)).build().await.unwrap();
    let conn = database.connect().await.unwrap();
    conn.execute("CREATE TABLE t(x)", ()).await.unwrap();
    drop(conn);
    let status = database.status().await.unwrap();
    assert_eq!(status.position(), None, "a handle keeps it open: {status}");
    drop(database);
    let conn = Builder::new(&path).open().await.unwrap();
    let status = littoral::status(&conn).await.unwrap();
    assert!(status.position().is_some(), "{status}");
    assert!(status.is_safe(), "{status}");
}

#[tokio::test]
async fn names_that_would_mean_something_else_are_names() {
    let folder = TempDir::new().unwrap();
    let odd: [&[u8]; 6] =
        [b"a?vfs=unix.db", b"b#c.db", b"50%41.db", b"e&f=g.db", "ü e\u{301}.db".as_bytes(), b"x\xff.db"];
    for name in odd {
        let name = OsStr::from_bytes(name);
        let path = folder.path().join(name);
        let conn = Builder::new(&path).volume("odd").store(folder.path().join("s?t&o=r e")).open().await.unwrap();
        conn.execute("CREATE TABLE t(x)", ()).await.unwrap();
        assert!(path.is_file(), "{name:?}");
        let status = littoral::status(&conn).await.unwrap();
        assert!(status.get("store").unwrap().ends_with("s?t&o=r e"), "{status}");
    }
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_what_to_do() {
    let folder = TempDir::new().unwrap();
    let refused = async |builder: Builder| match builder.open().await {
        Err(Error::Open { path, reason }) => format!("{}: {reason}", path.display()),
        other => panic!("{other:?}"),
    };
    let path = folder.path().join("app.db");
    let said = refused(Builder::new(folder.path().join("none/app.db"))).await;
    assert!(said.contains("make it first"), "{said}");
    let said = refused(Builder::new(folder.path())).await;
    assert!(said.contains("it is a folder"), "{said}");
    let said = refused(Builder::new(&path).compression("zip")).await;
    assert!(said.contains("compression") && said.contains("zstd, lz4 or none"), "{said}");
    let said = refused(Builder::new(&path).remote("s4://bucket")).await;
    assert!(said.contains("s4:// is not known; write s3://bucket/prefix"), "{said}");
    assert!(!path.exists(), "a refused opening made a file");
    std::fs::write(&path, "this is a text, and it is long enough to be taken for a database's header".repeat(20))
        .unwrap();
    let said = refused(Builder::new(&path)).await;
    assert!(said.contains("not a database"), "{said}");
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_made_says_why_in_sql() {
    let folder = TempDir::new().unwrap();
    let conn = Builder::new(folder.path().join("app.db")).remote("file:///proc/nowhere").open().await.unwrap();
    conn.execute("CREATE TABLE t(x)", ()).await.unwrap();
    let error = littoral::checkpoint(&conn).await.unwrap_err();
    assert!(error.to_string().contains("/proc/nowhere"), "{error}");
    assert!(error.sqlite_code().is_some(), "{error:?}");
    conn.execute("INSERT INTO t VALUES (1)", ()).await.unwrap();
}

#[tokio::test]
async fn a_database_of_libsqls_own_is_left_alone() {
    let (ours, theirs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let _ours = Builder::new(ours.path().join("ours.db")).open().await.unwrap();
    let path = theirs.path().join("theirs.db");
    let conn = libsql::Builder::new_local(&path).build().await.unwrap().connect().unwrap();
    conn.execute("CREATE TABLE t(x)", ()).await.unwrap();
    let error = littoral::checkpoint(&conn).await.unwrap_err();
    assert!(error.to_string().contains("was not opened through littoral"), "{error}");
    let beside: Vec<_> = std::fs::read_dir(theirs.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(beside, ["theirs.db"], "something of ours is beside it");
}

#[tokio::test]
async fn p04_a_second_machine_is_told_who_writes_and_a_first_one_who_took_over() {
    let folder = TempDir::new().unwrap();
    let machine = |name: &str| {
        let home = folder.path().join(name);
        std::fs::create_dir_all(&home).unwrap();
        Builder::new(home.join("app.db")).remote(format!("file://{}/remote", folder.path().display()))
    };
    let first = machine("first").open().await.unwrap();
    first.execute("CREATE TABLE t(x)", ()).await.unwrap();
    littoral::checkpoint(&first).await.unwrap();

    let second = machine("second").open().await.unwrap();
    assert_eq!(number(&second, "SELECT count(*) FROM t").await, 0, "reading is everybody's");
    second.execute("INSERT INTO t VALUES (2)", ()).await.unwrap_err();
    let why = littoral::last_error().unwrap();
    assert!(why.contains("takeover=1") && why.contains("first"), "{why}");
    assert_eq!(littoral::last_error(), None, "it is told once");
    drop(second);

    let second = machine("second").takeover(1).open().await.unwrap();
    second.execute("INSERT INTO t VALUES (2)", ()).await.unwrap();
    let taken = littoral::checkpoint(&second).await.unwrap();
    assert_eq!(taken.epoch.0, 2);

    first.execute("INSERT INTO t VALUES (1)", ()).await.unwrap();
    let error = littoral::checkpoint(&first).await.unwrap_err().to_string();
    assert!(error.contains("took over") && error.contains("epoch 2"), "{error}");
    first.execute("INSERT INTO t VALUES (1)", ()).await.unwrap_err();
    let why = littoral::last_error().unwrap();
    assert!(why.contains("takeover=2") && why.contains("fenced=continue"), "{why}");
    assert_eq!(number(&first, "SELECT count(*) FROM t").await, 1, "what was committed is kept");
}
