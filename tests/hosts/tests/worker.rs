//! `littoral worker`: commits of processes that do not ship get there all the same, whatever becomes of those processes and of the worker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{Place, built, command, said};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What never takes this long unless something hangs.
const HANGS: Duration = Duration::from_secs(60);

struct Worker {
    process: Child,
    /// What it said, a line each.
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Worker {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        Self::begin(place.host(&built().littoral).args(["worker", "--remote", &place.remote()]).args(arguments))
    }

    fn begin(command: &mut Command) -> Self {
        let mut process = command.arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let noted = lines.clone();
        std::thread::spawn(move || {
            for line in answers.lines().map_while(Result::ok) {
                noted
                    .lock()
                    .unwrap()
                    .push(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")));
            }
        });
        Self { process, lines }
    }

    fn said(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }

    /// How often it said this of a database.
    fn heard(&self, event: &str, database: &str) -> usize {
        let is_of = |line: &Value| line["database"].as_str().is_some_and(|path| path.ends_with(database));
        self.said().iter().filter(|line| line["event"] == event && is_of(line)).count()
    }

    #[track_caller]
    fn until_heard(&self, event: &str, database: &str) {
        let begun = Instant::now();
        while self.heard(event, database) == 0 {
            assert!(begun.elapsed() < HANGS, "not in time: {event} of {database} in {:?}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: &str) {
        said(command("kill").args([&format!("-{signal}"), &self.process.id().to_string()]));
    }

    fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < HANGS, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(mut self) -> Vec<Value> {
        self.signal("TERM");
        assert_eq!(self.wait().code(), Some(0), "{:?}", self.said());
        until("the last line", || self.said().last().is_some_and(|line| line["verb"] == "worker"));
        self.said()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < HANGS, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

/// A process like cron's: opens the database, does something, and is gone. It ships nothing itself.
fn shell(place: &Place, database: &str, statements: &[&str]) -> String {
    let mut shell = place.host("sqlite3");
    shell.args(["-batch", "-cmd", &format!(".load {}", built().extension.display())]);
    let uri = format!("file:{database}?vfs=littoral&volume={database}&remote={}", place.remote());
    shell.args(["-cmd", &format!(".open {uri}"), "-cmd", ".timeout 10000", ":memory:"]).args(statements);
    said(&mut shell)
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, body TEXT)";
const ROW: &str = "INSERT INTO t(body) VALUES (hex(randomblob(40)))";

fn begin(place: &Place, database: &str) {
    shell(place, database, &["PRAGMA journal_mode = WAL", TABLE, ROW]);
}

/// What another machine reads of it now: how many rows, after `integrity_check`; none where there is no volume.
fn rows_there(place: &Place, volume: &str) -> u64 {
    let url = format!("{}/{volume}", place.remote());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("there.db");
    let restored = command(&built().littoral).args(["restore", &url, "--quiet"]).arg(&file).output().unwrap();
    if !restored.status.success() {
        return 0;
    }
    let told = said(command("sqlite3").arg(&file).arg("PRAGMA integrity_check; SELECT count(*) FROM t;"));
    let (sound, count) = told.trim().split_once('\n').unwrap();
    assert_eq!(sound, "ok");
    count.parse().unwrap()
}

fn files_of(place: &Place, database: &str) -> Vec<String> {
    place.files().into_iter().filter(|name| name.starts_with(database)).collect()
}

#[test]
fn what_processes_that_come_and_go_commit_is_shipped_when_none_of_them_is_alive_any_more() {
    let place = Place::new();
    let worker = Worker::start(&place, &["app.db"]);
    worker.until_heard("waits", "app.db");
    assert_eq!(files_of(&place, "app.db"), [""; 0], "nothing is made where nothing is");
    begin(&place, "app.db");
    worker.until_heard("ships", "app.db");
    until("the first row is there", || rows_there(&place, "app.db") == 1);
    for nth in 2..=12 {
        shell(&place, "app.db", &[ROW]);
        if nth % 4 == 0 {
            until("what was committed is there", || rows_there(&place, "app.db") == nth);
        }
    }
    // Nobody is left but the worker: the files are those that a last close leaves.
    until("the WAL was taken back", || files_of(&place, "app.db") == ["app.db"]);
    // Commit by commit, and not by comparing everything.
    let url = format!("{}/app.db", place.remote());
    let told = said(command(&built().littoral).args(["history", &url, "--json", "--limit", "100"]));
    assert!(told.contains("\"segment\""), "{told}");
    // Whoever wants the database for himself gets it, while the worker keeps it.
    let other =
        ["PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = DELETE", ROW, "PRAGMA journal_mode = WAL", ROW];
    shell(&place, "app.db", &other);
    until("what was written alone is there", || rows_there(&place, "app.db") == 14);
    let lines = worker.end();
    assert!(lines.iter().any(|line| line["event"] == "left" && line["commits_left"] == 0), "{lines:?}");
    assert_eq!(files_of(&place, "app.db"), ["app.db"]);
}

#[test]
fn p12_a_worker_that_is_killed_is_followed_by_another_and_goes_on_when_it_is_begun_again() {
    let place = Place::new();
    begin(&place, "app.db");
    let mut first = Worker::start(&place, &["app.db"]);
    first.until_heard("ships", "app.db");
    let mut second = Worker::start(&place, &["app.db"]);
    second.until_heard("stands-by", "app.db");
    let mut count = 1;
    for _ in 0..3 {
        until("all is there", || rows_there(&place, "app.db") == count);
        first.signal("KILL");
        let killed = Instant::now();
        assert_eq!(first.wait().signal(), Some(9));
        shell(&place, "app.db", &[ROW, ROW]);
        count += 2;
        second.until_heard("ships", "app.db");
        let took = killed.elapsed();
        until("what came meanwhile is there", || rows_there(&place, "app.db") == count);
        eprintln!("another worker was elected after {took:?}, and had shipped after {:?}", killed.elapsed());
        assert!(took < Duration::from_secs(15), "it takes two seconds on a quiet machine: {took:?}");
        first = std::mem::replace(&mut second, Worker::start(&place, &["app.db"]));
        second.until_heard("stands-by", "app.db");
    }
    // Both die with something that nobody has shipped. Who is begun again finds it.
    first.signal("KILL");
    second.signal("KILL");
    first.wait();
    second.wait();
    shell(&place, "app.db", &[ROW]);
    let again = Worker::start(&place, &["app.db"]);
    until("what the dead ones left is there", || rows_there(&place, "app.db") == count + 1);
    again.end();
}

#[test]
fn who_is_told_to_stop_ships_what_there_is_and_ends_with_zero() {
    for signal in ["TERM", "INT"] {
        let place = Place::new();
        begin(&place, "app.db");
        let mut worker = Worker::start(&place, &["app.db", "--sync_interval", "1h", "--close_wait", "60s"]);
        until("the first row is there", || rows_there(&place, "app.db") == 1);
        // The interval has begun: nothing more travels within the hour.
        shell(&place, "app.db", &[ROW, ROW]);
        std::thread::sleep(Duration::from_millis(1_500));
        assert_eq!(rows_there(&place, "app.db"), 1);
        worker.signal(signal);
        assert_eq!(worker.wait().code(), Some(0));
        assert_eq!(rows_there(&place, "app.db"), 3, "{:?}", worker.said());
        assert_eq!(worker.heard("left", "app.db"), 1);
        assert_eq!(files_of(&place, "app.db"), ["app.db"]);
    }
}

#[test]
fn a_second_signal_ends_it_at_once_and_what_was_committed_is_kept() {
    let place = Place::new();
    begin(&place, "app.db");
    // It takes what it is sent, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut littoral = place.host(&built().littoral);
    littoral.args([
        "worker",
        "app.db",
        "--remote",
        "s3://bucket/prefix",
        "--endpoint",
        &endpoint,
        "--close_wait",
        "1h",
    ]);
    littoral.env("AWS_ACCESS_KEY_ID", "one").env("AWS_SECRET_ACCESS_KEY", "other");
    let mut worker = Worker::begin(&mut littoral);
    let _asked = silent.accept().unwrap();
    worker.signal("TERM");
    std::thread::sleep(Duration::from_secs(1));
    assert!(worker.process.try_wait().unwrap().is_none(), "it waits for what it does");
    worker.signal("TERM");
    assert_eq!(worker.wait().signal(), Some(15));
    assert_eq!(place.stock("app.db", "SELECT count(*) FROM t; PRAGMA integrity_check"), "1\nok");
}

#[test]
fn p04_a_database_that_is_fenced_stops_no_other_and_one_that_comes_later_is_picked_up() {
    let place = Place::new();
    for database in ["one.db", "two.db"] {
        begin(&place, database);
    }
    let worker = Worker::start(&place, &["--dir", ".", "--match", "*.db"]);
    for database in ["one.db", "two.db"] {
        worker.until_heard("ships", database);
        until("it is there", || rows_there(&place, database) == 1);
    }
    // Another machine takes one of them over, and commits.
    let other = tempfile::tempdir().unwrap();
    let url = format!("{}/one.db", place.remote());
    let status = said(command(&built().littoral).args(["status", &url, "--json"]));
    let status: Value = serde_json::from_str(&status).unwrap();
    let epoch = status["epoch"].to_string();
    let mut takes = command(&built().littoral);
    takes.current_dir(other.path()).args(["shell", "one.db", "--remote", &place.remote(), "--volume", "one.db"]);
    takes.args(["--takeover", &epoch, "--sync_interval", "1s", "--close_wait", "60s", ROW, "PRAGMA littoral_sync"]);
    said(&mut takes);
    assert_eq!(rows_there(&place, "one.db"), 2);
    shell(&place, "one.db", &[ROW, ROW]);
    worker.until_heard("fenced", "one.db");
    assert_eq!(rows_there(&place, "one.db"), 2, "the new owner's");
    assert_eq!(place.stock("one.db", "SELECT count(*) FROM t"), "3", "what was committed here is kept");
    // The others go on.
    shell(&place, "two.db", &[ROW]);
    until("the other one travels", || rows_there(&place, "two.db") == 2);
    begin(&place, "three.db");
    worker.until_heard("ships", "three.db");
    until("the new one travels", || rows_there(&place, "three.db") == 1);
    // One that vanishes is waited for. Whoever names its volume gets it back from there.
    for name in files_of(&place, "three.db") {
        std::fs::remove_file(place.machine().join(name)).unwrap();
    }
    worker.until_heard("gone", "three.db");
    worker.until_heard("waits", "three.db");
    begin(&place, "three.db");
    shell(&place, "three.db", &[ROW, ROW, ROW]);
    until("what was added to it travels", || rows_there(&place, "three.db") == 5);
    worker.end();
}

#[test]
fn s07_what_a_foreign_writer_commits_beside_a_worker_is_shipped_within_seconds() {
    let place = Place::new();
    begin(&place, "app.db");
    let worker = Worker::start(&place, &["app.db"]);
    until("the first row is there", || rows_there(&place, "app.db") == 1);
    for (nth, sql) in [(2, ROW), (3, ROW)] {
        place.stock("app.db", sql);
        let took = until("what was written past the VFS is there", || rows_there(&place, "app.db") == nth);
        eprintln!("a foreign commit was there after {took:?}");
    }
    // In rollback mode as well, and between commits of ours.
    place.stock("app.db", &format!("PRAGMA journal_mode = DELETE; {ROW}"));
    until("what was written in rollback mode is there", || rows_there(&place, "app.db") == 4);
    shell(&place, "app.db", &[ROW]);
    place.stock("app.db", ROW);
    shell(&place, "app.db", &[ROW]);
    until("all three are there", || rows_there(&place, "app.db") == 7);
    worker.end();
}

#[test]
fn s07_a_worker_that_is_stopped_right_after_a_foreign_commit_says_that_it_is_published_only_where_it_is() {
    for waits in [&[][..], &["--close_wait", "60s"]] {
        let place = Place::new();
        begin(&place, "app.db");
        let worker = Worker::start(&place, &[&["app.db"], waits].concat());
        until("the first row is there", || rows_there(&place, "app.db") == 1);
        place.stock("app.db", ROW);
        let lines = worker.end();
        let left = lines.iter().find(|line| line["event"] == "left").unwrap();
        let says_all = left["commits_left"] == 0 && left["why"].is_null();
        let is_there = rows_there(&place, "app.db") == 2;
        assert!(is_there || !says_all, "{left}");
        println!("it is there: {is_there}; {left}");
        // Whoever comes next publishes it.
        shell(&place, "app.db", &["PRAGMA littoral_checkpoint"]);
        assert_eq!(rows_there(&place, "app.db"), 2);
    }
}

#[test]
fn who_has_a_database_for_himself_is_waited_for_and_no_other_stands_still() {
    let place = Place::new();
    begin(&place, "app.db");
    begin(&place, "other.db");
    let worker = Worker::start(&place, &["app.db", "other.db"]);
    for database in ["app.db", "other.db"] {
        until("it is there", || rows_there(&place, database) == 1);
    }
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| {
            let statements = [
                "PRAGMA locking_mode = EXCLUSIVE",
                ROW,
                // Nobody else gets in for a while.
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000000) SELECT max(i) FROM n",
                ROW,
            ];
            shell(&place, "app.db", &statements)
        });
        shell(&place, "other.db", &[ROW]);
        until("the other one travels", || rows_there(&place, "other.db") == 2);
        alone.join().unwrap();
    });
    until("what was written alone is there", || rows_there(&place, "app.db") == 3);
    worker.end();
}

#[test]
fn s16_a_worker_that_reads_refuses_nobody_a_commit_of_a_rollback_journal() {
    let place = Place::new();
    shell(&place, "app.db", &["PRAGMA journal_mode = DELETE", TABLE, ROW]);
    let worker = Worker::start(&place, &["app.db", "--sync_interval", "1ms"]);
    until("the first row is there", || rows_there(&place, "app.db") == 1);
    for _ in 0..4 {
        let mut statements = vec!["PRAGMA busy_timeout = 0"];
        statements.extend([ROW; 50]);
        shell(&place, "app.db", &statements);
    }
    until("all is there", || rows_there(&place, "app.db") == 201);
    worker.end();
}

#[test]
fn whoever_started_it_as_a_service_is_told_when_it_is_ready_and_when_it_stops() {
    let place = Place::new();
    begin(&place, "app.db");
    let socket = place.machine().join("notify");
    let heard = UnixDatagram::bind(&socket).unwrap();
    heard.set_read_timeout(Some(HANGS)).unwrap();
    let mut littoral = place.host(&built().littoral);
    littoral.args(["worker", "app.db", "--remote", &place.remote()]).env("NOTIFY_SOCKET", &socket);
    let worker = Worker::begin(&mut littoral);
    let hear = || {
        let mut text = [0; 64];
        let len = heard.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..len]).into_owned()
    };
    assert_eq!(hear(), "READY=1");
    worker.end();
    assert_eq!(hear(), "STOPPING=1");
}

#[test]
fn what_makes_no_sense_for_a_worker_is_refused_before_anything_is_begun() {
    let place = Place::new();
    begin(&place, "app.db");
    for (arguments, words) in [
        (vec![], "required"),
        (vec!["app.db", "--sync_interval", "off"], "a worker is there to ship"),
        (vec!["app.db", "other.db", "--volume", "one"], "several databases cannot be one"),
        (vec!["."], "is a folder"),
        (vec!["--dir", "nowhere"], "no such folder"),
        (vec!["s3://bucket/app.db"], "not a URL"),
        (vec!["app.db", "--follow", "on"], "a worker ships"),
    ] {
        let done = place.host(&built().littoral).arg("worker").args(&arguments).output().unwrap();
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
}

#[test]
fn a_name_that_is_no_text_is_kept_like_any_other_and_told_as_well_as_can_be() {
    let place = Place::new();
    let folder = place.machine().join("dbs");
    std::fs::create_dir(&folder).unwrap();
    let name = OsStr::from_bytes(b"caf\xe9.db");
    let made = folder.join(name);
    begin(&place, "app.db");
    let files = files_of(&place, "app.db");
    assert_eq!(files, ["app.db"]);
    std::fs::rename(place.machine().join("app.db"), &made).unwrap();
    let worker = Worker::start(&place, &["--dir", "dbs"]);
    until("it is told of", || worker.heard("ships", "caf\u{fffd}.db") + worker.heard("fails", "caf\u{fffd}.db") > 0);
    worker.end();
}
