//! Logs that are tables of a database with a volume (rules P3, P4, P11): shipped before it, restored with it, brought to where it was opened from its
//! volume; with kills at each point, two machines, and a database that is taken back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use littoral_engine::logs::tables::TABLES_POINTS;
use littoral_engine::logs::{RESTORE_POINTS, SHIP_POINTS};
use rig::{BINARY, Rig, sql};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// For hangs alone.
const PATIENCE: Duration = Duration::from_secs(120);

const MAKE: &str = "CREATE VIRTUAL TABLE events USING littoral_log(n INTEGER, body TEXT)";
/// How many rows each of the tables has, and how many of the one are not in the other.
const COUNTS: &str = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM plain), \
                      (SELECT count(*) FROM (SELECT n, iif(length(body) > 99, 'wide', body) FROM events EXCEPT SELECT n, body FROM plain)), \
                      (SELECT count(*) FROM (SELECT n, body FROM plain EXCEPT SELECT n, iif(length(body) > 99, 'wide', body) FROM events))";

/// A transaction that adds the same rows to both tables.
fn both(numbers: std::ops::Range<u64>) -> String {
    let rows: Vec<String> = numbers.map(|number| format!("({number}, 'row {number}')")).collect();
    let rows = rows.join(", ");
    format!("BEGIN; INSERT INTO events VALUES {rows}; INSERT INTO plain VALUES {rows}; COMMIT")
}

/// The same with rows of a MiB each, of which a segment holds some sixty.
fn wide(numbers: std::ops::RangeInclusive<u64>) -> String {
    let (from, to) = (numbers.start(), numbers.end());
    format!(
        "BEGIN; INSERT INTO events SELECT value, hex(zeroblob(524288)) FROM (WITH RECURSIVE c(value) AS (SELECT {from} UNION ALL SELECT value + 1 \
         FROM c WHERE value < {to}) SELECT value FROM c); INSERT INTO plain SELECT n, 'wide' FROM events WHERE n >= {from}; COMMIT"
    )
}

fn shell(rig: &Rig, database: &str, statements: &[&str]) {
    let mut arguments = vec!["shell".to_owned(), rig.text(database)];
    arguments.extend(statements.iter().map(|sql| (*sql).to_owned()));
    rig.run(arguments).succeeds();
}

/// How many rows a database has, in both tables alike.
fn sound(rig: &Rig, database: &str, what: &str) -> u64 {
    let told = rig.json(["shell", &rig.text(database), COUNTS]);
    let row: Vec<u64> =
        told["answers"][0]["rows"][0].as_array().unwrap().iter().map(|cell| cell.as_u64().unwrap()).collect();
    assert_eq!(row[1..], [row[0], 0, 0], "{what}: {told}");
    row[0]
}

/// How many records who reads the log itself is given, of a folder or of a volume.
fn records(rig: &Rig, log: &str) -> usize {
    rig.run(["log", "read", log, "--format", "json"]).succeeds().stdout.lines().count()
}

/// A machine with a database that has both tables, and its first rows published.
fn published(rig: &Rig, remote: &str) {
    fs::create_dir_all(rig.path("one")).unwrap();
    sql(&rig.path("one/app.db"), "PRAGMA journal_mode = WAL; CREATE TABLE plain(n INTEGER, body TEXT)");
    shell(rig, "one/app.db", &[MAKE, &both(0..2)]);
    rig.run(["checkpoint", "one/app.db", "--remote", remote]).succeeds();
}

fn restored(rig: &Rig, url: &str, dest: &str) {
    fs::create_dir_all(rig.path(dest).parent().unwrap()).unwrap();
    rig.run(["restore", url, &rig.text(dest)]).succeeds();
}

#[test]
fn p11_a_tables_log_goes_before_its_database_and_is_restored_with_it() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let (url, log) = (format!("{remote}/app.db"), format!("{remote}/app.db.events"));
    published(&rig, &remote);
    assert_eq!(records(&rig, &log), 2);
    let status = rig.json(["status", &log]);
    assert_eq!((&status["kind"], &status["lsn"]), (&"log".into(), &2.into()));
    shell(&rig, "one/app.db", &[&both(2..20)]);
    // By the log's own folder, too.
    let folder = rig.text("one/.littoral/logs/app.db/events");
    let shipped = rig.run(["log", "ship", &folder]).succeeds().stdout.clone();
    assert!(shipped.contains("app.db is at") && shipped.contains("went before it"), "{shipped}");
    assert_eq!(records(&rig, &log), 20);

    restored(&rig, &url, "two/copy.db");
    assert_eq!(sound(&rig, "two/copy.db", "restored under another name"), 20);
    assert_eq!(records(&rig, &rig.text("two/.littoral/logs/copy.db/events")), 20);
    // Beside the original it has a log of its own.
    restored(&rig, &url, "one/beside.db");
    shell(&rig, "one/beside.db", &["INSERT INTO events VALUES (99, 'apart')"]);
    assert_eq!(sound(&rig, "one/app.db", "the original"), 20);
    assert_eq!(records(&rig, &rig.text("one/.littoral/logs/beside.db/events")), 21);
    assert_eq!(records(&rig, &folder), 20);
    // What has no log there is restored all the same, and says so.
    rig.run(["fork", &url, "forked"]).succeeds();
    fs::remove_dir_all(rig.path("shared/forked.events")).unwrap();
    fs::create_dir(rig.path("four")).unwrap();
    let told = rig.run(["restore", &format!("{remote}/forked"), &rig.text("four/forked.db")]).succeeds().stdout.clone();
    assert!(told.contains("log of table events is not brought") && told.contains("forked.events"), "{told}");
    rig.run(["shell", &rig.text("four/forked.db"), "SELECT count(*) FROM plain"]).succeeds();
    rig.run(["shell", &rig.text("four/forked.db"), "SELECT count(*) FROM events"])
        .fails(1, &["log of this table is not here"]);
    // Of the newest log an older state counts what it counted.
    fs::create_dir(rig.path("then")).unwrap();
    rig.run(["restore", &url, &rig.text("then/app.db"), "--at", "2"]).succeeds();
    assert_eq!(sound(&rig, "then/app.db", "as of then"), 2);
    assert_eq!(records(&rig, &rig.text("then/.littoral/logs/app.db/events")), 2);
    for url in [&url, &log] {
        rig.run(["verify", url]).succeeds();
        rig.run(["prune", url, "--keep-last", "1", "--grace", "0"]);
    }
    // The log is a volume like any other, and is one as a table's again.
    fs::create_dir(rig.path("three")).unwrap();
    rig.run(["restore", &log, &rig.text("three/events")]).succeeds();
    let taken = format!(
        "CREATE VIRTUAL TABLE events USING littoral_log(n INTEGER, body TEXT, log='{}')",
        rig.text("three/events")
    );
    sql(&rig.path("three/other.db"), "CREATE TABLE t(x)");
    shell(&rig, "three/other.db", &[&taken]);
    let told = rig.json(["shell", &rig.text("three/other.db"), "SELECT count(*) FROM events"]);
    assert_eq!(told["answers"][0]["rows"][0][0], 20, "{told}");
}

#[test]
fn p11_a_kill_at_each_point_between_log_and_database_leaves_a_restore_where_the_two_agree() {
    let ours = ["carry.walked", "carry.uploaded", "carry.published"];
    assert!(ours.iter().all(|point| SHIP_POINTS.contains(point)));
    let points = ours.iter().chain(&TABLES_POINTS).chain(&["publish.intended", "publish.landed"]);
    // The second ones are those of the database's own record, or of the next segment.
    let again = ["carry.published:2", "publish.intended:2", "publish.landed:2"];
    for point in points.chain(&again) {
        let rig = Rig::new();
        let remote = rig.url("shared");
        let url = format!("{remote}/app.db");
        published(&rig, &remote);
        // One that never committed, and rows behind it, some of them in a segment that is full.
        assert!(rig.crash("log.table.synced", ["shell", &rig.text("one/app.db"), &both(10..15)]));
        shell(&rig, "one/app.db", &[&both(20..23), &wide(100..=170)]);
        let died = rig.crash(point, ["checkpoint", "one/app.db"]);
        restored(&rig, &url, "two/app.db");
        let there = sound(&rig, "two/app.db", point);
        assert!(there == 2 || there == 76, "{point}: {there}");
        let before = records(&rig, &format!("{url}.events"));
        assert!(before >= usize::try_from(there).unwrap(), "{point}: the log is never behind");
        rig.run(["checkpoint", "one/app.db"]).succeeds();
        restored(&rig, &url, "three/app.db");
        assert_eq!(sound(&rig, "three/app.db", point), 76, "{point}, in the end");
        for log in [
            format!("{url}.events"),
            rig.text("three/.littoral/logs/app.db/events"),
            rig.text("one/.littoral/logs/app.db/events"),
        ] {
            assert_eq!(records(&rig, &log), 76, "{point}: what is void is shown in {log}");
        }
        rig.run(["verify", &format!("{url}.events")]).succeeds();
        assert!(died, "{point} was never reached");
    }
}

#[test]
fn p11_a_killed_restore_leaves_no_database_that_counts_rows_which_are_not_there() {
    for point in RESTORE_POINTS.iter().chain(&["restore.written"]) {
        let rig = Rig::new();
        let remote = rig.url("shared");
        published(&rig, &remote);
        fs::create_dir(rig.path("two")).unwrap();
        let restore = ["restore", &format!("{remote}/app.db"), &rig.text("two/app.db")].map(str::to_owned);
        assert!(rig.crash(point, &restore), "{point} was never reached");
        assert!(!rig.path("two/app.db").exists(), "{point}");
        rig.run(&restore).succeeds();
        assert_eq!(sound(&rig, "two/app.db", point), 2, "{point}");
    }
}

#[test]
fn p11_a_database_that_was_opened_from_its_volume_names_the_command_that_brings_its_logs() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let (url, log) = (format!("{remote}/app.db"), format!("{remote}/app.db.events"));
    published(&rig, &remote);
    rig.run(["release", "one/app.db"]).succeeds();
    fs::create_dir(rig.path("two")).unwrap();
    rig.run(["open", "two/app.db", "--remote", &remote]).succeeds();
    let there = rig.text("two/app.db");
    let remote = ["--remote", remote.as_str()];
    let refused = rig.run(["shell", &there, "SELECT count(*) FROM events"].iter().chain(&remote));
    refused.fails(1, &["log of this table is not here", &format!("littoral log bring {there}")]);
    // Everything else works, and travels: the log is where it was.
    rig.run(["shell", &there, "CREATE TABLE other(n); INSERT INTO other VALUES (1)"].iter().chain(&remote)).succeeds();
    rig.run(["checkpoint", &there].iter().chain(&remote)).succeeds();
    let brought = rig.run(["log", "bring", &there]).succeeds().stdout.clone();
    assert!(brought.contains("2 records") && brought.contains("logs/app.db/events"), "{brought}");
    assert!(rig.run(["log", "bring", &there]).succeeds().stdout.contains("is here already"));
    assert_eq!(sound(&rig, "two/app.db", "brought"), 2);
    // It goes on there, and takes its log along.
    shell(&rig, "two/app.db", &[&both(2..5)]);
    rig.run(["checkpoint", &there]).succeeds();
    assert_eq!(records(&rig, &log), 5);
    restored(&rig, &url, "three/app.db");
    assert_eq!(sound(&rig, "three/app.db", "of the second machine's"), 5);
    // The first one is told, and ships nothing.
    rig.run(["shell", &rig.text("one/app.db"), &both(50..51)]).fails(1, &["read-only here", "released"]);
    rig.run(["checkpoint", "one/app.db"]).fails(3, &["two/.littoral"]);
    shell(&rig, "two/app.db", &[&both(5..6)]);
    rig.run(["checkpoint", &there]).succeeds();
    assert_eq!(records(&rig, &log), 6);
    rig.run(["verify", &log]).succeeds();
}

#[test]
fn p04_a_log_goes_on_where_its_database_does_and_rows_that_a_dead_machine_had_shipped_alone_are_void() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let (url, log) = (format!("{remote}/app.db"), format!("{remote}/app.db.events"));
    published(&rig, &remote);
    shell(&rig, "one/app.db", &[&both(10..15)]);
    // It dies for good when the log was shipped, and its database was not.
    assert!(rig.crash("carry.tables", ["checkpoint", "one/app.db"]));
    assert_eq!(records(&rig, &log), 7);
    restored(&rig, &url, "two/app.db");
    assert_eq!(sound(&rig, "two/app.db", "as the database says"), 2);
    assert_eq!(records(&rig, &rig.text("two/.littoral/logs/app.db/events")), 2);
    shell(&rig, "two/app.db", &[&both(30..33)]);
    rig.run(["checkpoint", "two/app.db", "--remote", &remote, "--volume", "app.db", "--takeover", "1"]).succeeds();
    assert_eq!(records(&rig, &log), 5, "rows of nobody are shown to nobody");
    // It was not dead: it is told who took over, and the log stays whose its database is.
    rig.run(["checkpoint", "one/app.db"]).fails(3, &["two/.littoral"]);
    rig.run(["log", "ship", &rig.text("one/.littoral/logs/app.db/events")]).fails(1, &["two/.littoral"]);
    assert_eq!(records(&rig, &log), 5);
    shell(&rig, "two/app.db", &[&both(33..34)]);
    rig.run(["checkpoint", "two/app.db"]).succeeds();
    assert_eq!(records(&rig, &log), 6);
    restored(&rig, &url, "three/app.db");
    assert_eq!(sound(&rig, "three/app.db", "of the second machine's"), 6);
    assert_eq!(records(&rig, &rig.text("three/.littoral/logs/app.db/events")), 6);
}

#[test]
fn p11_rows_that_a_database_was_taken_back_from_are_void_in_the_volume_too() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let (url, log) = (format!("{remote}/app.db"), format!("{remote}/app.db.events"));
    published(&rig, &remote);
    rig.run(["snapshot", "create", "one/app.db", "first"]).succeeds();
    shell(&rig, "one/app.db", &[&both(10..15)]);
    rig.run(["checkpoint", "one/app.db"]).succeeds();
    assert_eq!(records(&rig, &log), 7);
    rig.run(["rewind", "one/app.db", "--to", "first"]).succeeds();
    assert_eq!(sound(&rig, "one/app.db", "rewound"), 2);
    assert_eq!(records(&rig, &log), 2);
    shell(&rig, "one/app.db", &[&both(20..23)]);
    rig.run(["checkpoint", "one/app.db"]).succeeds();
    assert_eq!((sound(&rig, "one/app.db", "gone on"), records(&rig, &log)), (5, 5));
    restored(&rig, &url, "two/app.db");
    assert_eq!(sound(&rig, "two/app.db", "restored"), 5);
}

#[test]
fn p11_what_is_truncated_here_goes_there_too_and_nothing_goes_that_was_not_shipped() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let (url, log) = (format!("{remote}/app.db"), format!("{remote}/app.db.events"));
    published(&rig, &remote);
    let begin = |rig: &Rig, past: &str| {
        let told =
            rig.json(["shell", &rig.text("one/app.db"), &format!("SELECT littoral_log_truncate('events', 130{past})")]);
        told["answers"][0]["rows"][0][0].as_u64().unwrap()
    };
    shell(&rig, "one/app.db", &[&wide(100..=240)]);
    assert_eq!(begin(&rig, ""), 1, "it is not in the volume yet");
    assert_eq!(begin(&rig, ", 'past-cursors'"), 1, "that is no cursor to go past");
    rig.run(["checkpoint", "one/app.db"]).succeeds();
    // Where that is switched off nothing goes; a switch of another volume is none of its.
    let folder = rig.text("one/.littoral/logs/app.db/events");
    rig.run(["flags", &folder, "enable_append_only_truncation=false"]).succeeds();
    let refused = rig.run(["shell", &rig.text("one/app.db"), "SELECT littoral_log_truncate('events', 130)"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("truncations of logs are switched off"), "{refused:?}");
    rig.run(["flags", &folder, "enable_append_only_truncation=default"]).succeeds();
    rig.run(["flags", &rig.text("one/app.db"), "enable_append_only_truncation=false"]).succeeds();
    let begins = begin(&rig, "");
    assert!(begins > 1 && begins <= 130, "{begins}");
    shell(&rig, "one/app.db", &["INSERT INTO events VALUES (1000, 'last')"]);
    rig.run(["checkpoint", "one/app.db"]).succeeds();
    let left = 2 + 141 + 1 - (usize::try_from(begins).unwrap() - 1);
    assert_eq!(records(&rig, &log), left);
    restored(&rig, &url, "two/app.db");
    assert_eq!(records(&rig, &rig.text("two/.littoral/logs/app.db/events")), left);
    rig.run(["log", "truncate", &folder, "--before", "130"])
        .fails(3, &["is a database's table", "littoral_log_truncate"]);
}

#[test]
fn p11_without_its_log_a_database_ships_nothing_that_counts_rows_of_it() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/app.db");
    published(&rig, &remote);
    shell(&rig, "one/app.db", &[&both(10..15)]);
    fs::rename(rig.path("one/.littoral/logs/app.db/events"), rig.path("away")).unwrap();
    let before = rig.json(["status", &url])["lsn"].clone();
    rig.run(["checkpoint", "one/app.db"]).fails(3, &["log of table events is not here", "DROP TABLE"]);
    assert_eq!(rig.json(["status", &url])["lsn"], before);
    fs::rename(rig.path("away"), rig.path("one/.littoral/logs/app.db/events")).unwrap();
    rig.run(["checkpoint", "one/app.db"]).succeeds();
    restored(&rig, &url, "two/app.db");
    assert_eq!(sound(&rig, "two/app.db", "put back"), 7);
    // Or without the table.
    fs::remove_dir_all(rig.path("one/.littoral/logs/app.db/events")).unwrap();
    shell(&rig, "one/app.db", &["DROP TABLE events; INSERT INTO plain VALUES (1, 'x')"]);
    rig.run(["checkpoint", "one/app.db"]).succeeds();
}

#[test]
fn p11_a_program_that_commits_and_a_worker_ship_the_log_unasked_and_a_kill_loses_nothing_that_is_counted() {
    let mut rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/app.db");
    published(&rig, &remote);
    rig.set("LITTORAL_SYNC_INTERVAL", "100ms");
    let reaches = |rig: &Rig, rows: usize, what: &str| {
        let since = Instant::now();
        while records(rig, &format!("{url}.events")) < rows {
            assert!(since.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    // By the program itself.
    let mut program = rig.command(BINARY);
    program.args(["shell", &rig.text("one/app.db")]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut program = program.spawn().unwrap();
    let mut stdin = program.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, format!("{};\n", both(10..15)).as_bytes()).unwrap();
    std::io::Write::flush(&mut stdin).unwrap();
    reaches(&rig, 7, "the program ships");
    program.kill().unwrap();
    program.wait().unwrap();
    // By a worker, while another process appends and is killed.
    let mut worker = rig.command(BINARY);
    worker.args(["worker", &rig.text("one/app.db")]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut worker = worker.spawn().unwrap();
    rig.set("LITTORAL_SYNC_INTERVAL", "off");
    // As soon as it is done with what the killed one left.
    let since = Instant::now();
    while rig.run(["shell", &rig.text("one/app.db"), &both(20..25)]).code != Some(0) {
        assert!(since.elapsed() < PATIENCE);
    }
    assert!(rig.crash("log.table.synced", ["shell", &rig.text("one/app.db"), &both(30..40)]));
    shell(&rig, "one/app.db", &[&both(40..41)]);
    reaches(&rig, 13, "the worker ships");
    worker.kill().unwrap();
    worker.wait().unwrap();
    rig.run(["checkpoint", "one/app.db"]).succeeds();
    restored(&rig, &url, "two/app.db");
    assert_eq!(sound(&rig, "two/app.db", "restored"), 13);
    assert_eq!(records(&rig, &format!("{url}.events")), 13);
}

#[test]
fn p04_a_machine_that_was_taken_over_from_by_force_mixes_no_row_in_and_keeps_what_it_had_left() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let (url, log) = (format!("{remote}/app.db"), format!("{remote}/app.db.events"));
    published(&rig, &remote);
    // Committed here, and not there: then it stands still.
    shell(&rig, "one/app.db", &[&both(10..15)]);
    restored(&rig, &url, "two/app.db");
    shell(&rig, "two/app.db", &[&both(30..33)]);
    rig.run(["checkpoint", "two/app.db", "--remote", &remote, "--volume", "app.db", "--takeover", "1"]).succeeds();
    assert_eq!((records(&rig, &log), sound(&rig, "two/app.db", "the second one's")), (5, 5));

    // It goes on, is told at the next chance, and commits nothing from then on.
    shell(&rig, "one/app.db", &[&both(15..17)]);
    rig.run(["checkpoint", "one/app.db"]).fails(3, &["two/.littoral", "epoch 2"]);
    rig.run(["shell", &rig.text("one/app.db"), &both(50..51)]).fails(1, &["read-only here"]);
    rig.run(["log", "ship", &rig.text("one/.littoral/logs/app.db/events")]).fails(1, &["two/.littoral"]);
    assert_eq!(sound(&rig, "one/app.db", "what it has left is here"), 9);
    assert_eq!(records(&rig, &log), 5, "and nothing of it there");
    rig.run(["verify", &log]).succeeds();

    // What it had left is kept in a plain file, which has the rows of its log.
    let salvaged = rig.run(["salvage", "one/app.db"]);
    assert!(salvaged.succeeds().stdout.contains("taken over by"), "{salvaged:?}");
    rig.run(["salvage", "one/app.db", "--export", "one/kept.db"]).succeeds();
    // The database goes on from what is there: its log here is not that one's.
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(rig.path(&format!("one/app.db{end}")));
    }
    let refused = rig.run(["restore", &url, &rig.text("one/app.db")]);
    refused.fails(3, &["went on apart", "Nothing was done", "littoral salvage", "logs/OUT.db/events"]);
    assert!(!rig.path("one/app.db").exists(), "no database that counts others' rows");
    fs::create_dir(rig.path("one/.littoral/logs/kept.db")).unwrap();
    fs::rename(rig.path("one/.littoral/logs/app.db/events"), rig.path("one/.littoral/logs/kept.db/events")).unwrap();
    restored(&rig, &url, "one/app.db");
    assert_eq!(sound(&rig, "one/app.db", "as the second one's"), 5);
    assert_eq!(sound(&rig, "one/kept.db", "as the first one left it"), 9);
    // And what was left goes on there.
    let added = format!(
        "ATTACH '{}' AS kept; INSERT INTO plain SELECT * FROM kept.plain WHERE n BETWEEN 10 AND 16;",
        rig.text("one/kept.db")
    );
    shell(&rig, "two/app.db", &[&added]);
    shell(&rig, "two/app.db", &["INSERT INTO events SELECT n, body FROM plain WHERE n BETWEEN 10 AND 16"]);
    rig.run(["checkpoint", "two/app.db"]).succeeds();
    assert_eq!((sound(&rig, "two/app.db", "with what was left"), records(&rig, &log)), (12, 12));
    restored(&rig, &url, "three/app.db");
    assert_eq!(sound(&rig, "three/app.db", "restored"), 12);
    rig.run(["verify", &log]).succeeds();
}
