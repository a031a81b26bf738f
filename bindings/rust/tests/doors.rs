//! The builder, as programs use it: in both kinds of runtime and in none, with many connections, and with everything that can be said
//! wrong. What comes back from the object store is shown by `tests/hosts`, which may use the command line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use futures::executor::block_on;
use littoral::{Builder, Database, Error};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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
        let builder = Builder::new(&path).volume("odd").store(folder.path().join("s?t&o=r e"));
        // Two databases are never one volume: none of them publishes anything.
        let conn = builder.sync_on_request().open().await.unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s18_a_replica_follows_and_reads_what_was_written_elsewhere() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let remote = format!("file://{}", here.path().join("remote").display());
    let writer = Builder::new(here.path().join("app.db")).remote(&remote).open().await.unwrap();
    writer.execute("CREATE TABLE t(x INTEGER)", ()).await.unwrap();
    littoral::checkpoint(&writer).await.unwrap();
    let follow = || {
        let builder = Builder::new(there.path().join("replica.db")).remote(&remote).volume("app.db");
        builder.follow(true).poll(Duration::from_millis(30))
    };
    let replica = follow().build().await.unwrap();
    let (one, two) = (replica.connect().await.unwrap(), replica.connect().await.unwrap());
    let long = two.transaction_with_behavior(libsql::TransactionBehavior::Deferred).await.unwrap();
    assert_eq!(number(&two, "SELECT count(*) FROM t").await, 0);
    for step in 1..=20 {
        writer.execute("INSERT INTO t VALUES (?1)", [step]).await.unwrap();
        let position = text(&writer, "SELECT littoral_sync()").await;
        assert_eq!(text(&one, &format!("SELECT littoral_wait('{position}')")).await, position);
        assert_eq!(number(&one, "SELECT count(*) FROM t").await, step);
        assert_eq!(number(&two, "SELECT count(*) FROM t").await, 0, "its transaction goes on");
    }
    long.rollback().await.unwrap();
    assert_eq!(number(&two, "SELECT sum(x) FROM t").await, 210);
    let refused = one.execute("INSERT INTO t VALUES (9)", ()).await.unwrap_err().to_string();
    assert!(refused.contains("readonly"), "{refused}");
    let status = littoral::status(&one).await.unwrap();
    assert_eq!((status.get("trouble"), status.get("lag_lsns")), (None, Some("0")), "{status}");
    drop((one, two, replica));
    // Who says that it is written too is told what to say.
    let both = libsql::Builder::new_local(format!(
        "file:{}?vfs=littoral&follow=1&volume=app.db&remote={remote}",
        there.path().join("replica.db").display()
    ));
    assert!(both.build().await.unwrap().connect().is_err());
    let again = follow().open().await.unwrap();
    assert_eq!(number(&again, "SELECT sum(x) FROM t").await, 210);
}

/// All files below a folder: bytes, when they were written, how much of the disk they take.
fn seen(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64, u64)> {
    let mut seen = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let about = std::fs::symlink_metadata(&path).unwrap();
        if about.is_dir() {
            seen.extend(self::seen(&path));
        } else if !path.ends_with("account1") {
            let bytes = std::fs::read(&path).unwrap();
            seen.insert(path, (bytes, about.mtime(), about.mtime_nsec(), about.blocks()));
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_scan_reads_what_is_published_and_leaves_what_is_here_as_it_was() {
    let (here, far, nowhere) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let remote = format!("file://{}", here.path().join("remote").display());
    let writer = Builder::new(here.path().join("app.db")).remote(&remote).open().await.unwrap();
    writer.execute("CREATE TABLE t(x INTEGER PRIMARY KEY, body TEXT)", ()).await.unwrap();
    let rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO t SELECT i, hex(randomblob(100)) FROM n";
    writer.execute(rows, ()).await.unwrap();
    littoral::checkpoint(&writer).await.unwrap();
    writer.execute("INSERT INTO t VALUES (60000, 'later')", ()).await.unwrap();
    text(&writer, "PRAGMA littoral_sync").await;
    let open = |folder: &TempDir| Builder::new(folder.path().join("app.db")).remote(&remote).volume("app.db");
    let sparse = open(&far).open().await.unwrap();
    assert_eq!(number(&sparse, "SELECT length(body) FROM t WHERE x = 9000").await, 200);
    drop(sparse);
    // Whoever shipped for it may be about to end.
    let mut before = seen(far.path());
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = seen(far.path());
        let is_still = now == before;
        before = now;
        if is_still {
            break;
        }
    }
    for folder in [&far, &nowhere] {
        let cold = open(folder).cold(true).open().await.unwrap();
        assert_eq!(number(&cold, "SELECT count(*) FROM t").await, 20_001);
        assert_eq!(number(&cold, "SELECT sum(length(body)) FROM t").await, 4_000_005);
        assert_eq!(text(&cold, "PRAGMA integrity_check").await, "ok");
        let refused = cold.execute("INSERT INTO t VALUES (0, 'x')", ()).await.unwrap_err().to_string();
        assert!(refused.contains("readonly"), "{refused}");
        let why = text(&cold, "SELECT littoral_last_error()").await;
        assert!(why.contains("for a cold scan, which only reads") && why.contains("open it without cold="), "{why}");
    }
    let after = seen(far.path());
    let differ = |path: &&PathBuf| before.get(*path) != after.get(*path);
    let changed: Vec<&PathBuf> = before.keys().chain(after.keys()).filter(differ).collect();
    assert!(changed.is_empty(), "{changed:?}");
    assert_eq!(seen(nowhere.path()), BTreeMap::new());
    // A scan that is none changes all of that.
    let sparse = open(&far).open().await.unwrap();
    assert_eq!(number(&sparse, "SELECT sum(length(body)) FROM t").await, 4_000_005);
    drop(sparse);
    assert!(seen(far.path()) != before);
}
