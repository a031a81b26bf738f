//! Logs that are tables of a database (rule P11), when it is forked, copied to another object store, promoted there, or followed: made with kills at
//! each point, while somebody commits, and judged by what is restored. Each transaction writes the same number to two logs and a plain table.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use littoral_test_s3::S3Server;
use rig::{BINARY, Rig, Run, sql};
use std::fs;
use std::io::Write;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// For hangs alone.
const PATIENCE: Duration = Duration::from_secs(120);

const MAKE: &str = "CREATE VIRTUAL TABLE events USING littoral_log(n INTEGER, body TEXT); \
                    CREATE VIRTUAL TABLE audit USING littoral_log(n INTEGER)";

/// Of each table how many numbers it has and which; and whether one has any that another one has not.
const AGREE: &str = "SELECT (SELECT count(*) FROM plain), (SELECT count(*) FROM events), (SELECT count(*) FROM audit), \
                     (SELECT count(DISTINCT n) FROM plain), \
                     (SELECT count(*) FROM (SELECT n FROM plain EXCEPT SELECT n FROM events)), \
                     (SELECT count(*) FROM (SELECT n FROM plain EXCEPT SELECT n FROM audit))";

/// A transaction for each number.
fn each(numbers: std::ops::Range<u64>) -> String {
    let one = |n: u64| {
        format!(
            "BEGIN; INSERT INTO events VALUES ({n}, 'row {n}'); INSERT INTO audit VALUES ({n}); INSERT INTO plain VALUES ({n}); COMMIT;"
        )
    };
    numbers.map(one).collect()
}

/// One transaction whose events are of a MiB each, of which a segment holds some sixty.
fn wide(numbers: std::ops::RangeInclusive<u64>) -> String {
    let (from, to) = (numbers.start(), numbers.end());
    format!(
        "BEGIN; INSERT INTO plain WITH RECURSIVE c(value) AS (SELECT {from} UNION ALL SELECT value + 1 FROM c WHERE value < {to}) \
         SELECT value FROM c; INSERT INTO events SELECT n, hex(zeroblob(524288)) FROM plain WHERE n >= {from}; \
         INSERT INTO audit SELECT n FROM plain WHERE n >= {from}; COMMIT"
    )
}

fn shell(rig: &Rig, database: &str, sql: &str) {
    rig.run(["shell", &rig.text(database), sql]).succeeds();
}

/// How many numbers a database has, in all of its tables alike.
#[track_caller]
fn agrees(rig: &Rig, database: &str, what: &str) -> u64 {
    let told = rig.json(["shell", &rig.text(database), AGREE]);
    let row: Vec<u64> =
        told["answers"][0]["rows"][0].as_array().unwrap().iter().map(|cell| cell.as_u64().unwrap()).collect();
    assert_eq!(row, [row[0], row[0], row[0], row[0], 0, 0], "{what}");
    row[0]
}

/// What a state of a volume has, restored to a folder that was not there. `None` where there is no state yet.
#[track_caller]
fn restored(rig: &Rig, url: &str, what: &str) -> Option<u64> {
    let folder = format!("restored-{}", fs::read_dir(rig.path(".")).unwrap().count());
    fs::create_dir(rig.path(&folder)).unwrap();
    let dest = format!("{folder}/it.db");
    let run = rig.run(["restore", url, &rig.text(&dest)]);
    if run.code == Some(5) {
        assert!(!rig.path(&dest).exists(), "{what}: {run:?}");
        return None;
    }
    run.succeeds();
    assert!(!run.stdout.contains("not brought"), "{what}: {run:?}");
    let found = agrees(rig, &dest, what);
    fs::remove_dir_all(rig.path(&folder)).unwrap();
    Some(found)
}

/// How many records who reads the log itself is given.
fn records(rig: &Rig, log: &str) -> u64 {
    rig.run(["log", "read", log, "--format", "json"]).succeeds().stdout.lines().count() as u64
}

/// A machine with a database that has the tables, and its first rows published.
fn published(rig: &Rig, remote: &str) {
    fs::create_dir_all(rig.path("one")).unwrap();
    sql(&rig.path("one/app.db"), "PRAGMA journal_mode = WAL; CREATE TABLE plain(n INTEGER)");
    shell(rig, "one/app.db", &format!("{MAKE}; {}", each(0..3)));
    rig.run(["checkpoint", "one/app.db", "--remote", remote]).succeeds();
}

/// A command that is told which volume it is about.
fn said(rig: &Rig, arguments: &[&str], remote: &str, volume: &str) -> Run {
    rig.run(arguments.iter().chain(&["--remote", remote, "--volume", volume]))
}

/// How many files lie in a folder of the object store.
fn files(rig: &Rig, folder: &str) -> usize {
    fs::read_dir(rig.path(folder)).map_or(0, Iterator::count)
}

#[test]
fn p11_a_fork_has_the_logs_of_its_tables_and_neither_sees_what_the_other_appends() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/app.db");
    published(&rig, &remote);
    rig.run(["snapshot", "create", "one/app.db", "first"]).succeeds();
    // A segment that is full, and rows in the next one.
    shell(&rig, "one/app.db", &wide(100..=170));
    rig.run(["checkpoint", "one/app.db"]).succeeds();
    let told = rig.json(["fork", &url, "child"]);
    let logs: Vec<(&str, &str)> = told["logs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|log| (log["table"].as_str().unwrap(), log["state"].as_str().unwrap()))
        .collect();
    assert_eq!(logs, [("events", "forked"), ("audit", "forked")], "{told}");
    assert_eq!(
        (files(&rig, "shared/child.events/seg"), files(&rig, "shared/child.events/log")),
        (0, 1),
        "nothing was copied"
    );
    let shown = rig.run(["fork", &url, "shown"]).succeeds().stdout.clone();
    assert!(shown.contains("table events has its log at") && shown.contains("shown.events"), "{shown}");

    // The parent goes on, the fork does not.
    shell(&rig, "one/app.db", &each(200..205));
    rig.run(["checkpoint", "one/app.db"]).succeeds();
    assert_eq!(restored(&rig, &format!("{remote}/child"), "as it was forked"), Some(74));
    assert_eq!(records(&rig, &format!("{remote}/child.events")), 74);
    assert_eq!(restored(&rig, &url, "the parent"), Some(79));

    // The fork is opened beside its parent, in one store: it takes nothing of what is that one's.
    let child = rig.text("one/child.db");
    let as_child = |arguments: &[&str]| said(&rig, arguments, &remote, "child");
    for asked in ["SELECT count(*) FROM events", "INSERT INTO events VALUES (1, 'x')"] {
        as_child(&["shell", &child, asked]).fails(1, &["log of this table is not here", "littoral log bring"]);
    }
    as_child(&["shell", &child, "CREATE TABLE own(n)"]).succeeds();
    as_child(&["checkpoint", &child]).succeeds();
    rig.run(["log", "bring", &child]).succeeds();
    assert_eq!(agrees(&rig, "one/child.db", "brought"), 74);
    shell(&rig, "one/child.db", &each(300..303));
    shell(&rig, "one/app.db", &each(400..401));
    for database in ["one/child.db", "one/app.db"] {
        rig.run(["checkpoint", database]).succeeds();
    }
    for (name, rows) in [("child", 77), ("app.db", 80), ("shown", 74)] {
        let url = format!("{remote}/{name}");
        assert_eq!(restored(&rig, &url, name), Some(rows));
        for log in ["events", "audit"] {
            let log = format!("{url}.{log}");
            assert_eq!(records(&rig, &log), rows, "{log}");
            rig.run(["verify", &log]).succeeds();
        }
        rig.run(["verify", &url]).succeeds();
    }
    assert_eq!(records(&rig, &rig.text("one/.littoral/logs/app.db/events")), 80);
    assert_eq!(records(&rig, &rig.text("one/.littoral/logs/child.db/events")), 77);

    // As of an earlier state: what the log has behind that is nobody's row there.
    rig.run(["fork", &format!("{url}@first"), "early"]).succeeds();
    assert_eq!(restored(&rig, &format!("{remote}/early"), "as of then"), Some(3));
    assert_eq!(records(&rig, &format!("{remote}/early.events")), 3);
    let early = rig.text("one/early.db");
    let as_early = |arguments: &[&str]| said(&rig, arguments, &remote, "early");
    as_early(&["shell", &early, "SELECT count(*) FROM plain"]).succeeds();
    as_early(&["log", "bring", &early]).succeeds();
    as_early(&["shell", &early, &each(500..502)]).succeeds();
    as_early(&["checkpoint", &early]).succeeds();
    assert_eq!(restored(&rig, &format!("{remote}/early"), "gone on from then"), Some(5));
    assert_eq!(records(&rig, &format!("{remote}/early.events")), 5);
    // And a fork of a fork.
    rig.run(["fork", &format!("{remote}/child"), "grandchild"]).succeeds();
    assert_eq!(restored(&rig, &format!("{remote}/grandchild"), "of the fork"), Some(77));
    rig.run(["verify", &format!("{remote}/grandchild.events")]).succeeds();
}

#[test]
fn p11_a_fork_that_is_killed_anywhere_is_whole_or_not_there_and_is_made_by_the_same_command() {
    let points = ["pin.put", "pin.put:2", "fork.log", "pin.put:3", "fork.log:2", "fork.pinned", "fork.landed"];
    for point in points {
        let rig = Rig::new();
        let remote = rig.url("shared");
        let (url, child) = (format!("{remote}/app.db"), format!("{remote}/child"));
        published(&rig, &remote);
        assert!(rig.crash(point, ["fork", &url, "child"]), "{point} was never reached");
        let is_made = point == "fork.landed";
        assert_eq!(restored(&rig, &child, point), is_made.then_some(3), "{point}");
        // The parent goes on meanwhile.
        shell(&rig, "one/app.db", &each(10..14));
        rig.run(["checkpoint", "one/app.db"]).succeeds();
        if is_made {
            rig.run(["fork", &url, "child"]).fails(3, &["exists already"]);
        } else {
            let left = files(&rig, "shared/child.events/log") + files(&rig, "shared/child.audit/log");
            assert_eq!(rig.crash("fork.cleared", ["fork", &url, "child"]), left > 0, "{point}");
            if left > 0 {
                rig.run(["fork", &url, "child"]).succeeds();
            }
        }
        let rows = if is_made { 3 } else { 7 };
        assert_eq!(restored(&rig, &child, point), Some(rows), "{point}, in the end");
        for log in ["events", "audit"] {
            assert_eq!(records(&rig, &format!("{child}.{log}")), rows, "{point}: {log}");
        }
        rig.run(["verify", &format!("{url}.events")]).succeeds();
    }
    // A log of somebody's, of the name that one of the fork's would have, is nobody's to replace; and nothing is left.
    let rig = Rig::new();
    let remote = rig.url("shared");
    published(&rig, &remote);
    rig.run(["log", "create", "child.events", "--remote", &remote]).succeeds();
    rig.run(["fork", &format!("{remote}/app.db"), "child"]).fails(3, &["child.events exists already", "another name"]);
    assert_eq!(restored(&rig, &format!("{remote}/child"), "refused"), None);
    assert_eq!(files(&rig, "shared/child.audit/log") + files(&rig, "shared/app.db/pins"), 0);
    rig.run(["verify", &format!("{remote}/child.events")]).succeeds();
}

#[test]
fn i09_what_a_fork_reads_of_its_parents_log_stays_until_the_fork_needs_it_no_more() {
    let mut rig = Rig::new();
    rig.set("LITTORAL_GRACE", "0s");
    let remote = rig.url("shared");
    let url = format!("{remote}/app.db");
    published(&rig, &remote);
    shell(&rig, "one/app.db", &wide(100..=240));
    rig.run(["checkpoint", "one/app.db"]).succeeds();
    rig.run(["fork", &url, "child"]).succeeds();
    let prune = |rig: &Rig, file: &str| {
        rig.run(["prune", file, "--keep-last", "1", "--grace", "0s"]).succeeds();
    };
    // The parent lets go of all that it may.
    let truncated = |rig: &Rig, database: &str, lsn: u64| {
        let told = rig.json(["shell", &rig.text(database), &format!("SELECT littoral_log_truncate('events', {lsn})")]);
        assert!(told["answers"][0]["rows"][0][0].as_u64().unwrap() > 100, "{told}");
    };
    truncated(&rig, "one/app.db", 140);
    shell(&rig, "one/app.db", &each(300..301));
    rig.run(["checkpoint", "one/app.db"]).succeeds();
    let parents = rig.text("one/.littoral/logs/app.db/events");
    let before = files(&rig, "shared/app.db.events/seg");
    prune(&rig, &parents);
    prune(&rig, "one/app.db");
    assert_eq!(files(&rig, "shared/app.db.events/seg"), before, "the fork reads all of them");
    assert_eq!(restored(&rig, &format!("{remote}/child"), "of what its parent has let go"), Some(144));
    rig.run(["verify", &format!("{remote}/child.events")]).succeeds();
    // Nor does the fork's own prune take anything.
    fs::create_dir(rig.path("two")).unwrap();
    let child = rig.text("two/child.db");
    let as_child = |arguments: &[&str]| said(&rig, arguments, &remote, "child");
    as_child(&["shell", &child, "SELECT count(*) FROM plain"]).succeeds();
    as_child(&["log", "bring", &child]).succeeds();
    as_child(&["shell", &child, &wide(400..=540)]).succeeds();
    as_child(&["checkpoint", &child]).succeeds();
    let its = rig.text("two/.littoral/logs/child.db/events");
    prune(&rig, &its);
    assert_eq!(restored(&rig, &format!("{remote}/child"), "after its own prune"), Some(285));
    // Until it has let go of all that was its parent's.
    assert_eq!(files(&rig, "shared/app.db.events/pins"), 1);
    truncated(&rig, "two/child.db", 270);
    shell(&rig, "two/child.db", &each(600..601));
    rig.run(["checkpoint", &rig.text("two/child.db")]).succeeds();
    prune(&rig, &its);
    assert_eq!(files(&rig, "shared/app.db.events/pins"), 0, "the fork holds nothing of its parent's");
    prune(&rig, &parents);
    assert!(files(&rig, "shared/app.db.events/seg") < before, "what nobody reads goes");
    rig.run(["verify", &format!("{remote}/child.events")]).succeeds();
    rig.run(["verify", &format!("{url}.events")]).succeeds();
}

/// A process that commits number after number until it is told to stop, and ships what it commits.
struct Writer {
    child: Child,
    stops: Arc<AtomicBool>,
    wrote: JoinHandle<u64>,
}

impl Writer {
    fn begin(rig: &Rig, from: u64) -> Self {
        let mut command = rig.command(BINARY);
        command.env("LITTORAL_SYNC_INTERVAL", "30ms").args(["shell", &rig.text("one/app.db")]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (mut stdin, stops) = (child.stdin.take().unwrap(), Arc::new(AtomicBool::new(false)));
        let told = stops.clone();
        let wrote = std::thread::spawn(move || {
            let mut next = from;
            while !told.load(Ordering::SeqCst) {
                writeln!(stdin, "{}", each(next..next + 1)).unwrap();
                stdin.flush().unwrap();
                next += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            next
        });
        Self { child, stops, wrote }
    }

    /// The number after the last one.
    fn end(mut self) -> u64 {
        self.stops.store(true, Ordering::SeqCst);
        let next = self.wrote.join().unwrap();
        assert!(self.child.wait().unwrap().success());
        next
    }
}

/// Copies that are killed wherever a copy can be, while somebody commits and ships; whatever is at the copy then, its tables agree.
fn copied_while_somebody_commits(rig: &Rig, remote: &str, elsewhere: &str) {
    published(rig, remote);
    let at_copy = format!("{elsewhere}/app.db");
    let copy = ["copy", "one/app.db", elsewhere];
    let writer = Writer::begin(rig, 3);
    let (mut before, mut seen) = (None, 0);
    for point in [
        "noted",
        "marked",
        "named",
        "record",
        "record:2",
        "record:3",
        "blob",
        "named:4",
        "record:5",
        "record:7",
        "named:9",
        "record:11",
    ] {
        let died = rig.crash(&format!("replicate.{point}"), copy);
        let found = restored(rig, &at_copy, point);
        assert!(found >= before, "{point}: {found:?} after {before:?}");
        before = found;
        seen += u32::from(died);
    }
    assert!(seen >= 8, "{seen} of them were reached");
    // In turns, each of which brings what came since.
    for turn in 0..3 {
        let told = rig.json(copy);
        assert_eq!(told["copies"][0]["logs"].as_array().unwrap().len(), 2, "{told}");
        let found = restored(rig, &at_copy, "a turn");
        assert!(found >= before, "turn {turn}: {found:?} after {before:?}");
        before = found;
    }
    let next = writer.end();
    rig.run(["checkpoint", "one/app.db"]).succeeds();
    let told = rig.run(copy).succeeds().stdout.clone();
    assert!(told.contains("the log of table events: app.db.events: ") && told.contains("up to"), "{told}");
    assert_eq!(restored(rig, &at_copy, "in the end"), Some(next));
    for log in ["events", "audit"] {
        rig.run(["verify", &format!("{at_copy}.{log}")]).succeeds();
        assert_eq!(records(rig, &format!("{at_copy}.{log}")), next);
    }
}

#[test]
fn p11_a_copy_takes_the_logs_of_tables_along_and_never_counts_rows_that_they_do_not_have() {
    let rig = Rig::new();
    let (remote, elsewhere) = (rig.url("shared"), rig.url("elsewhere"));
    copied_while_somebody_commits(&rig, &remote, &elsewhere);
    // From a machine that has nothing of it; and where the primary is gone, from there.
    rig.run(["copy", &format!("{remote}/app.db"), &rig.url("third")]).succeeds();
    let rows = restored(&rig, &format!("{remote}/app.db"), "the primary");
    assert_eq!(restored(&rig, &format!("{}/app.db", rig.url("third")), "the third"), rows);
    fs::rename(rig.path("shared"), rig.path("gone")).unwrap();
    fs::create_dir(rig.path("two")).unwrap();
    rig.run(["restore", &format!("{remote}/app.db"), &rig.text("two/app.db"), "--copy", &elsewhere]).succeeds();
    assert_eq!(Some(agrees(&rig, "two/app.db", "from the copy")), rows);
}

#[test]
fn p11_a_copy_in_a_real_object_store_takes_the_logs_of_tables_along() {
    let server = S3Server::shared();
    let mut rig = Rig::new();
    server.env().into_iter().for_each(|(name, value)| rig.set(name, &value));
    let bucket = server.bucket();
    let (remote, elsewhere) = (format!("s3://{bucket}/shared"), format!("s3://{bucket}/elsewhere"));
    copied_while_somebody_commits(&rig, &remote, &elsewhere);
    rig.run(["fork", &format!("{remote}/app.db"), "child"]).succeeds();
    assert_eq!(
        restored(&rig, &format!("{remote}/child"), "the fork"),
        restored(&rig, &format!("{remote}/app.db"), "the parent")
    );
}

#[test]
fn p11_a_program_and_a_worker_copy_the_logs_of_tables_unasked() {
    let mut rig = Rig::new();
    let (remote, elsewhere) = (rig.url("shared"), rig.url("elsewhere"));
    published(&rig, &remote);
    rig.set("LITTORAL_COPY", &elsewhere);
    let reaches = |rig: &Rig, rows: u64, what: &str| {
        let since = Instant::now();
        while restored(rig, &format!("{elsewhere}/app.db"), what) != Some(rows) {
            assert!(since.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let next = Writer::begin(&rig, 3);
    std::thread::sleep(Duration::from_millis(700));
    let next = next.end();
    let mut command = rig.command(BINARY);
    command.env("LITTORAL_SYNC_INTERVAL", "100ms").args(["worker", &rig.text("one/app.db")]);
    let mut worker = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    reaches(&rig, next, "by the worker");
    shell(&rig, "one/app.db", &each(next..next + 5));
    reaches(&rig, next + 5, "what came since");
    worker.kill().unwrap();
    worker.wait().unwrap();
}

#[test]
fn p04_a_copy_is_promoted_with_the_logs_of_its_tables_wherever_that_is_killed() {
    for point in
        ["promote.fenced", "promote.log", "promote.fenced:3", "promote.log:2", "promote.copied:3", "promote.marked:3"]
    {
        let rig = Rig::new();
        let (remote, elsewhere) = (rig.url("shared"), rig.url("elsewhere"));
        let at_copy = format!("{elsewhere}/app.db");
        published(&rig, &remote);
        rig.run(["copy", "one/app.db", &elsewhere]).succeeds();
        // Not copied yet when it is promoted.
        shell(&rig, "one/app.db", &each(3..8));
        rig.run(["checkpoint", "one/app.db"]).succeeds();
        assert!(rig.crash(point, ["promote", &at_copy]), "{point} was never reached");
        let found = restored(&rig, &at_copy, point);
        assert!(found == Some(3) || found == Some(8), "{point}: {found:?}");
        let told = rig.run(["promote", &at_copy]).succeeds().stdout.clone();
        assert!(point == "promote.marked:3" || told.contains("app.db.events is one, too"), "{point}: {told}");
        assert_eq!(restored(&rig, &at_copy, point), Some(8), "{point}, in the end");
        // It goes on there, and its logs with it; who wrote before is told.
        let epoch = rig.json(["status", &at_copy])["epoch"].as_u64().unwrap().to_string();
        fs::create_dir(rig.path("two")).unwrap();
        rig.run(["restore", &at_copy, &rig.text("two/app.db")]).succeeds();
        shell(&rig, "two/app.db", &each(20..22));
        let there = ["checkpoint", "two/app.db", "--remote", &elsewhere, "--volume", "app.db", "--takeover", &epoch];
        rig.run(there).succeeds();
        assert_eq!(restored(&rig, &at_copy, "gone on"), Some(10), "{point}");
        shell(&rig, "one/app.db", &each(30..31));
        rig.run(["checkpoint", "one/app.db"]).fails(3, &["it goes on at"]);
        assert_eq!(records(&rig, &format!("{at_copy}.events")), 10, "{point}");
    }
}

#[test]
fn a_replica_says_where_the_rows_of_its_tables_logs_are_read() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    published(&rig, &remote);
    fs::create_dir(rig.path("far")).unwrap();
    let replica = rig.text("far/replica.db");
    let follows = ["--follow", "on", "--remote", &remote, "--volume", "app.db"];
    let ask = |sql: &str| rig.run(["shell", &replica, sql].iter().chain(&follows));
    assert!(ask("SELECT count(*) FROM plain").succeeds().stdout.contains('3'));
    ask("SELECT count(*) FROM events")
        .fails(1, &["a replica has no logs", "littoral log read URL.TABLE", "littoral restore"]);
    rig.run(["log", "bring", &replica].iter().chain(&follows))
        .fails(3, &["a replica has no logs", "littoral log tail"]);
    assert_eq!(records(&rig, &format!("{remote}/app.db.events")), 3);
}

#[test]
fn p11_a_log_that_lies_where_a_database_is_opened_from_its_volume_is_not_used_before_somebody_has_compared_them() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/app.db");
    published(&rig, &remote);
    shell(&rig, "one/app.db", &each(3..6));
    // It goes on elsewhere, with as many rows of its own.
    fs::create_dir(rig.path("two")).unwrap();
    rig.run(["restore", &url, &rig.text("two/app.db")]).succeeds();
    shell(&rig, "two/app.db", &each(13..19));
    rig.run(["checkpoint", "two/app.db", "--remote", &remote, "--volume", "app.db", "--takeover", "1"]).succeeds();
    let rows = restored(&rig, &url, "as it went on");
    let copied = |from: &str, to: &str| {
        fs::create_dir_all(rig.path(&format!("{to}/.littoral/logs"))).unwrap();
        let (from, to) = (format!("{from}/.littoral/logs/app.db"), format!("{to}/.littoral/logs/app.db"));
        assert!(
            std::process::Command::new("cp").args(["-r", &rig.text(&from), &rig.text(&to)]).status().unwrap().success()
        );
    };
    let said = ["--remote", &remote, "--volume", "app.db"];
    let asked = |database: &str| rig.run(["shell", database, "SELECT count(*) FROM events"].iter().chain(&said));
    let brought = |database: &str| rig.run(["log", "bring", database].iter().chain(&said));
    for (from, to) in [("one", "apart"), ("two", "alike")] {
        copied(from, to);
        let database = rig.text(&format!("{to}/app.db"));
        for _ in 0..2 {
            asked(&database).fails(1, &["nobody has looked", "littoral log bring"]);
        }
        rig.run(["shell", &database, "SELECT count(*) FROM plain"].iter().chain(&said)).succeeds();
        if from == "one" {
            // Rows that were never published are not taken for those that were.
            brought(&database).fails(3, &["Nothing was done", "move it away"]);
            asked(&database).fails(1, &["nobody has looked"]);
            fs::remove_dir_all(rig.path("apart/.littoral/logs/app.db")).unwrap();
            brought(&database).succeeds();
        } else {
            assert!(brought(&database).succeeds().stdout.contains("is here already"));
        }
        asked(&database).succeeds();
        assert_eq!(Some(agrees(&rig, &format!("{to}/app.db"), to)), rows);
    }
}
