//! What `SqliteSource` promises, with the stock `sqlite3` program as the writer in another process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_cli::sqlite::{BUSY_TIMEOUT, SqliteSource, integrity_check};
use littoral_ports::{Changed, PageSource as _, SourceError};
use littoral_types::{JournalMode, PageCount, PageNo};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

const PAGE_SIZES: [u64; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
const SOON: Duration = Duration::from_millis(50);

// The rig.

fn shell() -> Command {
    let mut command = Command::new("sqlite3");
    command.args(["-batch", "-bail", "-init", "/dev/null"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs SQL in a process of the stock shell; what it prints, or what it complains about.
fn try_sql(path: &Path, sql: &str) -> Result<String, String> {
    let mut child = shell().arg(path).spawn().expect("the sqlite3 program is needed");
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(said.trim_end().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn sql(path: &Path, sql: &str) -> String {
    try_sql(path, sql).unwrap_or_else(|complaint| panic!("{sql}: {complaint}"))
}

/// A shell that stays: SQL goes in, and what it says comes out when it has done that.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Shell {
    fn open(path: &Path) -> Self {
        let mut child = shell().arg(path).stderr(Stdio::inherit()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    fn say(&mut self, sql: &str) -> String {
        writeln!(self.stdin, "{sql}\n.print done").unwrap();
        let mut said = String::new();
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the shell died of {sql}");
            if line == "done\n" {
                return said.trim_end().to_owned();
            }
            said.push_str(&line);
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn open(path: &Path) -> SqliteSource {
    SqliteSource::open(path, BUSY_TIMEOUT).unwrap()
}

fn refusal(path: &Path) -> SourceError {
    SqliteSource::open(path, SOON).expect_err("opened what it should refuse")
}

/// All pages, one after another.
fn all(source: &mut SqliteSource) -> Vec<u8> {
    let size = source.page_size().len();
    let mut bytes = vec![0xaa; usize::try_from(source.page_count().0).unwrap() * size];
    for (index, page) in bytes.chunks_mut(size).enumerate() {
        source.read(PageNo::from_index(index as u64), page).unwrap();
    }
    bytes
}

fn sidecar(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Names and bytes of everything in a folder, but for -shm files, which are nobody's data.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.as_os_str().as_bytes().ends_with(b"-shm"))
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

fn populate(path: &Path, page_size: u64, journal: &str, auto_vacuum: &str) {
    sql(
        path,
        &format!(
            "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum}; PRAGMA journal_mode = {journal};
             PRAGMA user_version = 77; PRAGMA application_id = 12345;
             CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, body BLOB);
             CREATE INDEX by_name ON t(name);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
             INSERT INTO t SELECT i, 'name ' || (i * 7919 % 1000), randomblob(i * 13 % 1700) FROM n;
             DELETE FROM t WHERE id % 5 = 0;"
        ),
    );
}

// Bytes.

#[test]
fn the_pages_are_the_files_bytes_at_every_page_size_and_mode() {
    let folder = tempfile::tempdir().unwrap();
    for page_size in PAGE_SIZES {
        for journal in ["WAL", "DELETE", "PERSIST"] {
            for auto_vacuum in ["NONE", "FULL", "INCREMENTAL"] {
                let case = format!("{page_size} {journal} {auto_vacuum}");
                let path = folder.path().join(&case);
                populate(&path, page_size, journal, auto_vacuum);
                let before = contents(folder.path());
                let mut source = open(&path);
                assert_eq!(source.page_size().bytes(), page_size, "{case}");
                assert_eq!(source.changed(), Changed::Unknown);
                assert_eq!(source.lock_page(), None, "{case}");
                let pages = all(&mut source);
                source.check().unwrap();
                assert!(!source.end().unwrap(), "{case}: a change that nobody made");
                assert!(pages == fs::read(&path).unwrap(), "{case}: other bytes than the file");
                assert!(contents(folder.path()) == before, "{case}: looking left a trace");
            }
        }
    }
}

#[test]
fn commits_that_are_only_in_the_wal_are_read_and_the_wal_stays_as_it_was() {
    for page_size in PAGE_SIZES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        populate(&path, page_size, "WAL", "NONE");
        let mut writer = Shell::open(&path);
        writer.say(
            "PRAGMA wal_autocheckpoint = 0; UPDATE t SET body = randomblob(900) WHERE id % 3 = 0;
             INSERT INTO t(name, body) SELECT name, body FROM t; DELETE FROM t WHERE id % 11 = 0; PRAGMA user_version = 78;",
        );
        // Once beside the living writer, once after it died without folding its WAL.
        let first = all(&mut open(&path));
        writer.kill();
        let before = contents(folder.path());
        assert_eq!(before.len(), 2, "the database and its WAL");
        let mut source = open(&path);
        assert_eq!(source.schema().user_version, 78);
        let second = all(&mut source);
        drop(source);
        assert!(contents(folder.path()) == before, "looking changed the database or its WAL");

        let copy = tempfile::tempdir().unwrap();
        let copied = copy.path().join("a.db");
        fs::copy(&path, &copied).unwrap();
        fs::copy(sidecar(&path, "-wal"), sidecar(&copied, "-wal")).unwrap();
        assert_eq!(sql(&copied, "PRAGMA wal_checkpoint(TRUNCATE)").split('|').next(), Some("0"));
        let expected = fs::read(&copied).unwrap();
        assert!(first == expected && second == expected, "page size {page_size}");
    }
}

#[test]
fn page_1_is_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    populate(&path, 4096, "WAL", "NONE");
    let schema = open(&path).schema();
    assert_eq!((schema.user_version, schema.application_id, schema.encoding), (77, 12345, 1));
    assert_eq!(schema.cookie.to_string(), sql(&path, "PRAGMA schema_version"));
    assert_eq!(schema.journal, JournalMode::Wal);

    let path = folder.path().join("b.db");
    sql(&path, "PRAGMA encoding = 'UTF-16be'; CREATE TABLE t(a);");
    let before = open(&path);
    assert_eq!((before.schema().encoding, before.schema().journal), (3, JournalMode::Rollback));
    let counter = before.change_counter();
    drop(before);
    sql(&path, "INSERT INTO t VALUES (1)");
    assert_ne!(open(&path).change_counter(), counter);
}

#[test]
fn pages_come_in_any_order_and_wrong_questions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    populate(&path, 1024, "DELETE", "NONE");
    let mut source = open(&path);
    let bytes = all(&mut source);
    let count = source.page_count().0;
    let mut page = vec![0; 1024];
    for step in 0..3 * count {
        let index = step * 7919 % count;
        source.read(PageNo::from_index(index), &mut page).unwrap();
        assert_eq!(page, bytes[usize::try_from(index).unwrap() * 1024..][..1024], "page at {index}");
    }
    page.fill(0xaa);
    for number in [count + 1, 1 << 31, 1 << 32, (1 << 32) + 1, u64::MAX] {
        assert!(
            matches!(source.read(PageNo::new(number).unwrap(), &mut page), Err(SourceError::Failed(_))),
            "{number}"
        );
    }
    assert!(matches!(source.read(PageNo::FIRST, &mut page[..512]), Err(SourceError::Failed(_))));
    assert!(page.iter().all(|byte| *byte == 0xaa), "a refusal wrote");
}

#[test]
fn the_lock_page_at_one_gibibyte_reads_as_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    sql(
        &path,
        "PRAGMA page_size = 65536; PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; CREATE TABLE t(a);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 105)
         INSERT INTO t SELECT zeroblob(10300000) FROM n;",
    );
    let mut source = open(&path);
    let lock_page = source.lock_page().expect("a database beyond one gibibyte has a lock page");
    assert_eq!(lock_page.get(), (1 << 30) / 65536 + 1);
    let mut page = vec![0xaa; 65536];
    source.read(lock_page, &mut page).unwrap();
    assert!(page.iter().all(|byte| *byte == 0));
    // Its neighbours are overflow pages of a blob: four bytes that name the next page.
    for (page_no, next) in [(lock_page.get() - 1, lock_page.get() + 1), (lock_page.get() + 1, lock_page.get() + 2)] {
        source.read(PageNo::new(page_no).unwrap(), &mut page).unwrap();
        let named = u64::from(u32::from_be_bytes(page[..4].try_into().unwrap()));
        assert!(named == next || named == 0, "page {page_no} names {named}");
    }
}

// Others at work.

/// Keeps the stock shell writing transfers that leave the sum as it is, until it is told to stop.
fn hammer(path: PathBuf, seed: u64, journal: &'static str, stop: std::sync::Arc<std::sync::atomic::AtomicBool>) -> u64 {
    use std::sync::atomic::Ordering;
    let mut random = seed;
    let mut below = move |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let mut shell = Shell::open(&path);
    // Small caches spill uncommitted pages into the WAL and the file, small WALs are folded and started over often.
    shell.say(".timeout 60000\nPRAGMA synchronous = OFF; PRAGMA cache_size = 8; PRAGMA wal_autocheckpoint = 20;");
    let mut commits = 0;
    while !stop.load(Ordering::Relaxed) {
        let (from, to, amount) = (below(100), below(100), below(50));
        let more = match below(12) {
            0 => "DELETE FROM ballast WHERE id % 3 = 0;",
            1 => "PRAGMA incremental_vacuum(5);",
            2 => "UPDATE ballast SET body = randomblob(700) WHERE id % 4 = 1;",
            _ => "INSERT INTO ballast(body) VALUES (randomblob(2500));",
        };
        let end = if below(10) == 0 { "ROLLBACK" } else { "COMMIT" };
        shell.say(&format!(
            "BEGIN IMMEDIATE; UPDATE account SET amount = amount - {amount} WHERE id = {from}; {more}
             UPDATE account SET amount = amount + {amount} WHERE id = {to}; {end};"
        ));
        if below(60) == 0 {
            shell.say(if journal == "WAL" { "PRAGMA wal_checkpoint(TRUNCATE);" } else { "VACUUM;" });
        }
        commits += 1;
    }
    drop(shell.stdin);
    shell.child.wait().unwrap();
    commits
}

fn consistent_under_writers(journal: &'static str, page_sizes: &[u64]) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    for (number, page_size) in page_sizes.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let auto_vacuum = ["NONE", "INCREMENTAL", "FULL"][number % 3];
        sql(
            &path,
            &format!(
                "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum}; PRAGMA journal_mode = {journal};
                 CREATE TABLE account(id INTEGER PRIMARY KEY, amount INTEGER, note TEXT);
                 CREATE INDEX by_amount ON account(amount);
                 CREATE TABLE ballast(id INTEGER PRIMARY KEY, body BLOB);
                 WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
                 INSERT INTO account SELECT i, 1000, printf('%.150c', 'x') FROM n;"
            ),
        );
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (path, stop) = (path.clone(), Arc::clone(&stop));
                let seed = 0x9e37_79b9_7f4a_7c15 ^ page_size ^ (writer << 40);
                std::thread::spawn(move || hammer(path, seed, journal, stop))
            })
            .collect();
        let copy = folder.path().join("copy.db");
        let mut moved = 0;
        for look in 0..12 {
            let mut source = SqliteSource::open(&path, Duration::from_secs(60)).unwrap();
            // Half of the looks take their time, so that writers fold, start over and vacuum meanwhile.
            let size = source.page_size().len();
            let mut bytes = vec![0; usize::try_from(source.page_count().0).unwrap() * size];
            for (index, page) in bytes.chunks_mut(size).enumerate() {
                source.read(PageNo::from_index(index as u64), page).unwrap();
                if look % 2 == 0 && index % 40 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            moved += usize::from(source.end().unwrap());
            fs::write(&copy, bytes).unwrap();
            let case = format!("{journal}, page size {page_size}, {auto_vacuum}, look {look}");
            assert_eq!(sql(&copy, "PRAGMA integrity_check"), "ok", "{case}");
            assert_eq!(sql(&copy, "SELECT sum(amount), count(*) FROM account"), "100000|100", "{case}");
            assert_eq!(integrity_check(&copy, BUSY_TIMEOUT).unwrap(), Vec::<String>::new(), "{case}");
        }
        stop.store(true, Ordering::Relaxed);
        let commits: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        assert!(commits > 24, "the writers hardly wrote: {commits}");
        // Without this the test could pass against writers that stood still.
        assert!(moved > 0 || journal != "WAL", "no look was overtaken by a commit");
        assert_eq!(sql(&path, "PRAGMA integrity_check; SELECT sum(amount) FROM account"), "ok\n100000");
        drop(open(&path));
    }
}

#[test]
fn reads_are_of_one_commit_while_processes_write_in_wal_mode() {
    consistent_under_writers("WAL", &PAGE_SIZES);
}

#[test]
fn reads_are_of_one_commit_while_processes_write_in_rollback_mode() {
    consistent_under_writers("DELETE", &PAGE_SIZES);
}

#[test]
fn a_source_stands_still_and_no_writer_in_wal_mode_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    populate(&path, 4096, "WAL", "NONE");
    let mut source = open(&path);
    let before = all(&mut source);
    // A timeout of zero: a writer that had to wait would fail.
    let mut writer = Shell::open(&path);
    writer.say(".timeout 0");
    for _ in 0..50 {
        writer.say("UPDATE t SET body = randomblob(1000) WHERE id % 7 = 1; PRAGMA wal_checkpoint(PASSIVE);");
    }
    writer.say("CREATE TABLE more(a); INSERT INTO more VALUES (1); DROP TABLE t;");
    assert!(all(&mut source) == before, "a read saw a later commit");
    source.check().unwrap();
    assert!(source.end().unwrap(), "nobody noticed fifty commits");
    assert!(all(&mut open(&path)) != before);
    writer.kill();
}

#[test]
fn in_rollback_mode_a_commit_waits_for_the_source_and_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    populate(&path, 4096, "DELETE", "NONE");
    let mut source = open(&path);
    let before = all(&mut source);
    let complaint = try_sql(&path, "DELETE FROM t;").unwrap_err();
    assert!(complaint.contains("locked"), "{complaint}");
    assert!(all(&mut source) == before);
    assert!(!source.end().unwrap());
    sql(&path, "DELETE FROM t;");
}

#[test]
fn s09_reading_here_drops_no_lock_of_another_connection_in_this_process() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for journal in ["WAL", "DELETE"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        populate(&path, 4096, journal, "NONE");
        runtime.block_on(async {
            let database = libsql::Builder::new_local(&path).build().await.unwrap();
            let ours = database.connect().unwrap();
            ours.execute_batch("BEGIN IMMEDIATE; UPDATE t SET name = 'locked' WHERE id = 1;").await.unwrap();
            let mut source = open(&path);
            all(&mut source);
            source.check().unwrap();
            drop(source);
            assert_eq!(integrity_check(&path, BUSY_TIMEOUT).unwrap(), Vec::<String>::new());
            let complaint = try_sql(&path, "BEGIN IMMEDIATE;").unwrap_err();
            assert!(complaint.contains("locked"), "{journal}: the lock was gone: {complaint}");
            ours.execute_batch("COMMIT").await.unwrap();
        });
        assert_eq!(sql(&path, "SELECT name FROM t WHERE id = 1; PRAGMA integrity_check"), "locked\nok");
    }
}

#[test]
fn a_transaction_that_died_in_rollback_mode_is_rolled_back_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    populate(&path, 4096, "DELETE", "NONE");
    let before = fs::read(&path).unwrap();
    let mut writer = Shell::open(&path);
    // A cache of few pages spills into the file: what is there now is half of a transaction.
    writer.say("PRAGMA cache_size = 2; BEGIN; UPDATE t SET body = randomblob(1500);");
    writer.kill();
    assert!(fs::read(&path).unwrap() != before, "the transaction should have spilled");
    assert!(sidecar(&path, "-journal").exists());
    assert!(all(&mut open(&path)) == before);
    assert!(!sidecar(&path, "-journal").exists());
}

#[test]
fn a_transaction_that_died_in_wal_mode_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    populate(&path, 4096, "WAL", "NONE");
    let before = all(&mut open(&path));
    let mut writer = Shell::open(&path);
    writer.say("PRAGMA cache_size = 2; BEGIN; UPDATE t SET body = randomblob(1500);");
    writer.kill();
    assert!(fs::metadata(sidecar(&path, "-wal")).unwrap().len() > 100_000, "the transaction should have spilled");
    assert!(all(&mut open(&path)) == before);
}

// Names.

#[test]
fn a_name_is_a_name_whatever_it_looks_like() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain.db");
    populate(&plain, 1024, "WAL", "NONE");
    let bytes = fs::read(&plain).unwrap();
    for name in [
        &b"file:x.db?mode=memory&vfs=none"[..],
        b":memory:",
        b"with space and 100%41.db",
        b"#frag?a=b",
        b"-dash.db",
        "küste.db".as_bytes(),
        b"not \xff unicode.db",
    ] {
        let path = folder.path().join(OsStr::from_bytes(name));
        fs::write(&path, &bytes).unwrap();
        assert!(all(&mut open(&path)) == bytes, "{}", path.display());
        assert_eq!(integrity_check(&path, BUSY_TIMEOUT).unwrap(), Vec::<String>::new());
    }
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&plain, &link).unwrap();
    assert!(all(&mut open(&link)) == bytes);
    let here = contents(folder.path());
    assert_eq!(here.len(), 9, "something was left behind: {:?}", here.iter().map(|file| &file.0).collect::<Vec<_>>());
}

// Refusals.

#[test]
fn an_empty_file_is_a_database_without_pages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    fs::write(&path, b"").unwrap();
    let mut source = open(&path);
    assert_eq!((source.page_count(), source.lock_page(), source.schema().encoding), (PageCount::ZERO, None, 0));
    let mut page = vec![0; source.page_size().len()];
    assert!(matches!(source.read(PageNo::FIRST, &mut page), Err(SourceError::Failed(_))));
    source.check().unwrap();
    assert!(!source.end().unwrap());
    assert_eq!(integrity_check(&path, BUSY_TIMEOUT).unwrap(), Vec::<String>::new());
    assert_eq!(contents(folder.path()), [(path, Vec::new())]);
}

#[test]
fn what_is_missing_is_refused_and_not_made() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("a.db"), folder.path().join("no/such/folder/a.db")] {
        let error = refusal(&path);
        assert!(matches!(error, SourceError::Failed(_)) && error.to_string().contains("no such file"), "{error}");
        assert!(integrity_check(&path, SOON).is_err());
    }
    assert!(matches!(refusal(Path::new("")), SourceError::Failed(_)));
    assert!(matches!(refusal(Path::new("a\0b")), SourceError::Failed(_)));
    assert_eq!(contents(folder.path()), []);
}

#[test]
fn what_is_not_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(folder.path());
    assert!(error.to_string().contains("a folder"), "{error}");
    let error = refusal(Path::new("/dev/null"));
    assert!(error.to_string().contains("not a file"), "{error}");
}

#[test]
fn what_is_not_sqlites_or_is_encrypted_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    populate(&path, 4096, "DELETE", "NONE");
    let good = fs::read(&path).unwrap();
    let encrypted: Vec<u8> = good.iter().enumerate().map(|(at, byte)| byte ^ (at * 167 % 251 + 1) as u8).collect();
    let other_page_size = [&good[..16], &[0x03, 0x00], &good[18..]].concat();
    for (case, bytes) in [
        ("text", b"Dear diary".repeat(1000)),
        // One byte alone is empty to SQLite: it wrote such files once, around a bug of a file system.
        ("two bytes", b"xy".to_vec()),
        ("zeros", vec![0; 8192]),
        ("encrypted", encrypted),
        ("page size", other_page_size),
    ] {
        fs::write(&path, &bytes).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, SourceError::NotADatabase(_)), "{case}: {error}");
        assert!(error.to_string().contains("not a SQLite database, or encrypted: /"), "{error}");
        assert_eq!(integrity_check(&path, SOON).unwrap().len(), 1, "{case}");
        assert!(contents(folder.path()) == [(path.clone(), bytes)], "{case}: looking left a trace");
    }
}

#[test]
fn a_database_that_ends_too_early_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    for journal in ["WAL", "DELETE"] {
        let path = folder.path().join(journal);
        populate(&path, 4096, journal, "NONE");
        let good = fs::read(&path).unwrap();
        for len in [good.len() - 4096, good.len() / 2 / 4096 * 4096, 4096, 512, 100] {
            fs::write(&path, &good[..len]).unwrap();
            let error = refusal(&path);
            assert!(matches!(error, SourceError::Corrupt(_)), "{journal}, {len} bytes: {error}");
            assert_eq!(integrity_check(&path, SOON).unwrap().len(), 1, "{journal}, {len} bytes");
        }
    }
}

#[test]
fn damage_inside_of_pages_is_found_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    populate(&path, 1024, "DELETE", "NONE");
    let good = fs::read(&path).unwrap();
    assert_eq!(integrity_check(&path, SOON).unwrap(), Vec::<String>::new());
    let root: usize = sql(&path, "SELECT rootpage FROM sqlite_schema WHERE name = 't'").parse().unwrap();
    let mut bad = good.clone();
    bad[(root - 1) * 1024..][..64].fill(0x5a);
    fs::write(&path, &bad).unwrap();
    let mut source = open(&path);
    assert!(all(&mut source) == bad, "reading does not judge");
    let error = source.check().unwrap_err();
    assert!(matches!(error, SourceError::Corrupt(_)), "{error}");
    drop(source);
    assert!(!integrity_check(&path, SOON).unwrap().is_empty());

    // An index that lies about its table: the whole check finds it, the quick one is not asked to.
    fs::write(&path, &good).unwrap();
    sql(
        &path,
        ".dbconfig defensive off\nPRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE INDEX by_name ON t(body)' WHERE name = 'by_name';",
    );
    open(&path).check().unwrap();
    let problems = integrity_check(&path, SOON).unwrap();
    assert!(problems.len() > 10 && problems.len() <= 100 && problems[0].contains("by_name"), "{problems:?}");
}

#[test]
fn a_schema_that_does_not_parse_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    populate(&path, 4096, "WAL", "NONE");
    sql(
        &path,
        ".dbconfig defensive off\nPRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE TABLE nonsense nonsense' WHERE name = 't';",
    );
    let error = refusal(&path);
    assert!(matches!(error, SourceError::Corrupt(_)) && error.to_string().contains("malformed"), "{error}");
}

#[test]
fn what_only_an_application_knows_does_not_make_its_database_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    for (case, make, from, to, checkable) in [
        ("collation", "CREATE TABLE t(a TEXT COLLATE nocase); CREATE INDEX i ON t(a)", "nocase", "ours", true),
        ("key", "CREATE TABLE t(a TEXT COLLATE nocase PRIMARY KEY) WITHOUT ROWID", "nocase", "ours", true),
        ("index", "CREATE TABLE t(a); CREATE INDEX i ON t(lower(a))", "lower", "ours", true),
        ("check", "CREATE TABLE t(a CHECK (length(a) > 0))", "length", "ours", true),
        ("column", "CREATE TABLE t(a, b AS (lower(a)) NOT NULL)", "lower", "ours", false),
        ("module", "CREATE VIRTUAL TABLE v USING fts5(a); CREATE TABLE t(a)", "fts5", "ours", true),
        (
            "full text",
            "CREATE VIRTUAL TABLE v USING fts5(a); CREATE TABLE t(a); INSERT INTO v VALUES ('x y')",
            "",
            "",
            true,
        ),
    ] {
        let path = folder.path().join(case);
        sql(&path, &format!("{make}; INSERT INTO t VALUES ('b'), ('A'), ('c');"));
        if !from.is_empty() {
            sql(
                &path,
                &format!(
                    ".dbconfig defensive off\nPRAGMA writable_schema = ON;
                     UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}');"
                ),
            );
        }
        let mut source = open(&path);
        assert!(all(&mut source) == fs::read(&path).unwrap(), "{case}");
        let checked = source.check();
        drop(source);
        let problems = integrity_check(&path, SOON);
        if checkable {
            checked.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(problems.unwrap(), Vec::<String>::new(), "{case}");
        } else {
            assert!(matches!(checked, Err(SourceError::Failed(_))), "{case}: {checked:?}");
            assert!(matches!(problems, Err(SourceError::Failed(_))), "{case}: {problems:?}");
        }
    }
}

#[test]
fn a_locked_database_is_waited_for_and_then_busy() {
    let folder = tempfile::tempdir().unwrap();
    for journal in ["WAL", "DELETE"] {
        let path = folder.path().join(journal);
        populate(&path, 4096, journal, "NONE");
        let mut other = Shell::open(&path);
        other.say("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; UPDATE t SET name = 'x' WHERE id = 1; COMMIT;");
        let began = Instant::now();
        let error = SqliteSource::open(&path, Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error, SourceError::Busy(_)), "{journal}: {error}");
        assert!(began.elapsed() >= Duration::from_millis(250), "{journal}: gave up after {:?}", began.elapsed());
        let waiting = std::thread::spawn(move || SqliteSource::open(&path, Duration::from_secs(20)).map(|_| ()));
        std::thread::sleep(Duration::from_millis(100));
        drop(other.stdin);
        other.child.wait().unwrap();
        waiting.join().unwrap().unwrap();
    }
}

/// Runs one test of this file again, without root's right to ignore permissions. False in that second run.
fn handed_to_someone_without_rights(test: &str) -> bool {
    if std::env::var_os("LITTORAL_TEST_WITHOUT_RIGHTS").is_some() {
        return false;
    }
    let me = std::env::current_exe().unwrap();
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = if is_root {
        let mut command = Command::new("setpriv");
        command.arg("--bounding-set=-dac_override,-dac_read_search").arg(me);
        command
    } else {
        Command::new(me)
    };
    let status = command.args(["--exact", test]).env("LITTORAL_TEST_WITHOUT_RIGHTS", "1").status().unwrap();
    assert!(status.success(), "{test} failed without rights");
    true
}

fn permit(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn missing_permissions_are_named_and_reading_needs_no_more_than_sqlite_does() {
    if handed_to_someone_without_rights("missing_permissions_are_named_and_reading_needs_no_more_than_sqlite_does") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (wal, rollback) = (folder.path().join("wal.db"), folder.path().join("rollback.db"));
    populate(&wal, 4096, "WAL", "NONE");
    populate(&rollback, 4096, "DELETE", "NONE");
    let bytes = (fs::read(&wal).unwrap(), fs::read(&rollback).unwrap());

    permit(&rollback, 0o000);
    let error = refusal(&rollback);
    assert!(error.to_string().contains("permission denied"), "{error}");
    // A file that may only be read is enough, in a folder that may only be read as well.
    permit(&rollback, 0o444);
    assert!(all(&mut open(&rollback)) == bytes.1);
    permit(&wal, 0o444);
    assert!(all(&mut open(&wal)) == bytes.0);
    // SQLite cannot take the lock under which it would remove them.
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(sidecar(&wal, suffix)).unwrap();
    }
    permit(folder.path(), 0o555);
    assert!(all(&mut open(&rollback)) == bytes.1);
    permit(&wal, 0o644);
    let error = refusal(&wal);
    assert!(matches!(error, SourceError::Failed(_)) && error.to_string().contains("folder can be written"), "{error}");
    permit(folder.path(), 0o000);
    let error = refusal(&wal);
    assert!(error.to_string().contains("permission denied"), "{error}");

    // While a writer has its files open there, a WAL database can be read.
    permit(folder.path(), 0o755);
    let mut writer = Shell::open(&wal);
    writer.say("UPDATE t SET name = 'in the WAL' WHERE id = 1;");
    permit(folder.path(), 0o555);
    open(&wal).check().unwrap();
    permit(folder.path(), 0o755);
    writer.kill();

    // A dead writer's journal can only be rolled back by who may write.
    let mut writer = Shell::open(&rollback);
    permit(&rollback, 0o644);
    drop(writer.stdin);
    writer.child.wait().unwrap();
    writer = Shell::open(&rollback);
    writer.say("PRAGMA cache_size = 2; BEGIN; UPDATE t SET body = randomblob(1500);");
    writer.kill();
    let before = contents(folder.path());
    permit(folder.path(), 0o555);
    permit(&rollback, 0o444);
    let error = refusal(&rollback);
    assert!(matches!(error, SourceError::Failed(_)) && error.to_string().contains("died"), "{error}");
    assert!(contents(folder.path()) == before, "a refusal changed something");
    permit(folder.path(), 0o755);
}
