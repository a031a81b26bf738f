//! Logs in the care of a worker, by real processes: what a killed appender left is shipped, what a log need not keep goes, its volume is pruned and proved,
//! and nobody who comes to append is kept out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use littoral_engine::logs::{SHIP_POINTS, TRUNCATE_POINTS};
use littoral_test_s3::S3Server;
use rig::{BINARY, Rig, sql};
use serde_json::Value;
use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// For hangs alone.
const PATIENCE: Duration = Duration::from_secs(60);

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| format!("{number:06}\n")).collect()
}

fn read(rig: &Rig, what: &str) -> String {
    rig.run(["log", "read", what]).succeeds().stdout.clone()
}

/// A process that appends, and says nothing of it.
fn appender(rig: &Rig, log: &str) -> (Child, ChildStdin) {
    let mut command = rig.command(BINARY);
    command
        .args(["log", "append", log, "--session", "s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    (child, stdin)
}

/// Has taken all of that, and was killed.
fn killed(rig: &Rig, log: &str, (mut child, mut stdin): (Child, ChildStdin), text: &str, all: usize) {
    stdin.write_all(text.as_bytes()).unwrap();
    stdin.flush().unwrap();
    let since = Instant::now();
    while read(rig, log).lines().count() < all {
        assert!(since.elapsed() < PATIENCE);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A worker, and what it says.
struct Worker {
    process: Child,
    lines: Receiver<Value>,
    seen: RefCell<Vec<Value>>,
}

impl Worker {
    fn begin(rig: &Rig, arguments: &[&str]) -> Self {
        let mut command = rig.command(BINARY);
        let mut process = command.args(["--json", "worker"]).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = process.stdout.take().unwrap();
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str(&line) {
                    let _ = tell.send(line);
                }
            }
        });
        Self { process, lines, seen: RefCell::default() }
    }

    fn until(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let since = Instant::now();
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(since.elapsed())) {
                Ok(line) => {
                    self.seen.borrow_mut().push(line.clone());
                    if is_it(&line) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{what}: {:?}", self.seen.borrow());
                }
            }
        }
    }

    /// Ends in order.
    fn ends(mut self) -> Vec<Value> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), rustix::process::Signal::TERM)
            .unwrap();
        assert!(self.process.wait().unwrap().success());
        let mut seen = self.seen.take();
        seen.extend(self.lines.iter());
        seen
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is(line: &Value, event: &str, log: &str) -> bool {
    line["event"] == event && line["log"].as_str().is_some_and(|path| path.ends_with(log))
}

#[test]
fn a_killed_appenders_rest_gets_to_the_object_store_by_a_worker_alone_and_is_read_elsewhere() {
    let server = S3Server::shared();
    let rig = Rig::with(server.env());
    let remote = format!("s3://{}/kept", server.bucket());
    let url = format!("{remote}/events");
    fs::create_dir(rig.path("here")).unwrap();
    rig.run(["log", "create", "here/events", "--remote", &remote]).succeeds();
    rig.run(["log", "create", "here/alone"]).succeeds();
    killed(&rig, "here/events", appender(&rig, "here/events"), &lines(0..100), 100);
    assert_eq!(rig.json(["status", &url])["lsn"], 0, "nothing of it has travelled");
    let here = rig.json(["status", "here/events"])["log"].clone();
    assert_eq!(here, serde_json::json!({ "last": 100, "waits": 100, "appender": null }));
    let worker = Worker::begin(&rig, &["--dir", "here"]);
    let shipped = worker.until("shipped", |line| is(line, "shipped", "here/events"));
    assert_eq!((&shipped["records"], &shipped["position"]), (&100.into(), &"1.100".into()));
    worker.until("ships", |line| is(line, "ships", "here/events") && line["position"] == "1.100");
    assert_eq!(read(&rig, &url), lines(0..100));
    rig.run(["restore", &url, "there"]).succeeds();
    assert_eq!(read(&rig, "there"), lines(0..100));
    // While somebody appends it stands by, and goes on when he is dead.
    let alive = appender(&rig, "here/events");
    worker.until("stands by", |line| is(line, "stands-by", "here/events"));
    killed(&rig, "here/events", alive, &lines(100..130), 130);
    worker.until("shipped again", |line| is(line, "shipped", "here/events") && line["records"] == 30);
    assert_eq!(read(&rig, &url), lines(0..130));
    // A log that was released is nobody's, and one that is gone is let go of.
    rig.run(["release", "here/events"]).succeeds();
    worker.until("released", |line| is(line, "released", "here/events"));
    let status = rig.json(["status", &url]);
    assert!(status["owner"].is_null(), "{status}");
    fs::rename(rig.path("here/events"), rig.path("away")).unwrap();
    worker.until("gone", |line| is(line, "gone", "here/events"));
    let said = worker.ends();
    assert!(!said.iter().any(|line| line["log"].as_str().is_some_and(|path| path.ends_with("alone"))), "{said:?}");
    assert_eq!(read(&rig, &url), lines(0..130));
    rig.run(["verify", &url]).succeeds();
}

/// A log of two segments, of which the first one may go, whose appender was killed before anything of them travelled.
fn left(rig: &Rig) -> (String, String) {
    let remote = rig.url("shared");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    rig.run(["log", "cursors", "create", "events", "slow"]).succeeds();
    rig.run(["log", "retain", "events", "--keep-bytes", "70MB"]).succeeds();
    let wide = format!("{}\n", "x".repeat(14 << 20));
    let all = lines(0..60) + &wide.repeat(6);
    fs::write(rig.path("input"), &all).unwrap();
    assert!(rig.crash("carry.walked", ["log", "append", "events", "input"]));
    rig.run(["log", "cursors", "drop", "events", "slow"]).succeeds();
    (format!("{remote}/events"), all)
}

#[test]
fn what_was_rolled_back_by_one_who_was_killed_is_said_in_the_volume_by_a_worker_alone() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/events");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    fs::write(rig.path("input"), lines(0..50)).unwrap();
    rig.run(["log", "append", "events", "input"]).succeeds();
    let worker = Worker::begin(&rig, &["events"]);
    worker.until("ships", |line| is(line, "ships", "events"));
    for (point, last) in [("log.cut.said", 30), ("log.cut.here", 20)] {
        assert!(
            rig.crash(point, ["log", "truncate", "events", "--after", &last.to_string()]),
            "{point} was not reached"
        );
        assert_eq!(read(&rig, "events"), lines(0..last), "{point}");
        let since = Instant::now();
        while read(&rig, &url) != lines(0..last) {
            assert!(since.elapsed() < PATIENCE, "{point}");
        }
        rig.run(["restore", &url, point]).succeeds();
        assert_eq!(read(&rig, point), lines(0..last), "{point}");
    }
    worker.ends();
    rig.run(["verify", &url]).succeeds();
}

#[test]
fn what_a_log_need_not_keep_goes_by_a_worker_alone_as_a_job() {
    let rig = Rig::new();
    let (url, all) = left(&rig);
    assert!(read(&rig, "events") == all);
    let worker = Worker::begin(&rig, &["events"]);
    let gone = worker.until("let go", |line| is(line, "let-go", "events"));
    assert_eq!((&gone["segments"], &gone["start"]), (&1.into(), &65.into()));
    worker.until("ships", |line| is(line, "ships", "events"));
    assert_eq!(rig.json(["log", "stats", "events"])["start"], 65);
    let here = read(&rig, "events");
    assert!(all.ends_with(&here) && read(&rig, &url) == here);
    let jobs = rig.json(["jobs", "list", "events"])["jobs"].clone();
    let ours = |job: &&Value| job["task"] == "truncate-append-only" && job["state"] == "done";
    assert_eq!(jobs.as_array().unwrap().iter().filter(ours).count(), 1, "{jobs}");
    worker.ends();
    rig.run(["verify", &url]).succeeds();
}

#[test]
fn a_worker_that_is_killed_at_any_point_leaves_a_log_that_the_next_one_finishes() {
    let local = ["log.recover.open", "log.truncate.said", "log.truncate.removed"];
    let points =
        SHIP_POINTS.iter().chain(&TRUNCATE_POINTS).chain(&["publish.intended", "publish.landed"]).chain(&local);
    for point in points {
        let rig = Rig::new();
        let (url, all) = left(&rig);
        let mut worker = rig.command(BINARY);
        worker.env("LITTORAL_TEST_CRASH", point).args(["worker", "events"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut worker = worker.spawn().unwrap();
        let since = Instant::now();
        let ended = loop {
            if let Some(ended) = worker.try_wait().unwrap() {
                break ended;
            }
            if since.elapsed() > PATIENCE {
                worker.kill().unwrap();
                worker.wait().unwrap();
                panic!("{point} was never reached");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(ended.signal(), Some(9), "{point}");
        let here = read(&rig, "events");
        assert!(all.ends_with(&here) && here.len() > 20 << 20, "{point}");
        let worker = Worker::begin(&rig, &["events"]);
        worker.until(point, |line| is(line, "ships", "events"));
        let since = Instant::now();
        while rig.json(["log", "stats", "events"])["start"] != 65 {
            assert!(since.elapsed() < PATIENCE, "{point}");
            std::thread::sleep(Duration::from_millis(100));
        }
        worker.ends();
        let here = read(&rig, "events");
        assert!(all.ends_with(&here) && read(&rig, &url) == here, "{point}");
        rig.run(["verify", &url]).succeeds();
        rig.run(["restore", &url, "copy"]).succeeds();
        assert!(read(&rig, "copy") == here, "{point}");
    }
}

#[test]
fn who_comes_to_append_finds_nobody_whatever_a_worker_does_and_also_while_it_is_stopped() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/events");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    let worker = Worker::begin(&rig, &["events", "--prune_interval=1s", "--retention=0", "--grace=0"]);
    worker.until("ships", |line| is(line, "ships", "events"));
    let mut all = String::new();
    // So long that it is looked at in between, again and again.
    let since = Instant::now();
    let mut round = 0;
    while since.elapsed() < Duration::from_secs(5) {
        let some = lines(round * 3..round * 3 + 3);
        fs::write(rig.path("input"), &some).unwrap();
        rig.run(["log", "append", "events", "input"]).succeeds();
        (all, round) = (all + &some, round + 1);
    }
    let pid = rustix::process::Pid::from_child(&worker.process);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    fs::write(rig.path("input"), "stopped\n").unwrap();
    let appended = rig.run(["log", "append", "events", "input"]);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    appended.succeeds();
    all.push_str("stopped\n");
    killed(&rig, "events", appender(&rig, "events"), "killed\n", all.lines().count() + 1);
    all.push_str("killed\n");
    worker.until("shipped", |line| is(line, "shipped", "events"));
    assert!(read(&rig, &url) == all && read(&rig, "events") == all);
    worker.ends();
    rig.run(["verify", &url]).succeeds();
}

#[test]
fn the_volumes_of_logs_and_of_tables_logs_are_pruned_and_proved_unasked_and_watched() {
    let mut rig = Rig::new();
    let remote = rig.url("shared");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    for round in 0..5 {
        fs::write(rig.path("input"), lines(round * 10..round * 10 + 10)).unwrap();
        rig.run(["log", "append", "events", "input"]).succeeds();
    }
    let table = "CREATE VIRTUAL TABLE seen USING littoral_log(n INTEGER); INSERT INTO seen VALUES (1), (2), (3);";
    sql(&rig.path("app.db"), "PRAGMA journal_mode = wal; CREATE TABLE plain(n INTEGER);");
    rig.run(["shell", "app.db", table]).succeeds();
    rig.run(["checkpoint", "app.db", "--remote", &remote]).succeeds();
    let every = ["--retention=0", "--grace=0", "--prune_interval=1s", "--drill_interval=1s", "--verify_daily=1GiB"];
    rig.set("LITTORAL_SYNC_INTERVAL", "100ms");
    let worker = Worker::begin(
        &rig,
        &[&["app.db", "--drill_probe=SELECT 1", "--metrics_listen=127.0.0.1:0"][..], &every].concat(),
    );
    let address = worker.until("listens", |line| line["event"] == "listens")["url"].as_str().unwrap().to_owned();
    let left = RefCell::new(vec!["events", "app.db/seen"]);
    worker.until("both are proved", |line| {
        left.borrow_mut().retain(|log| !is(line, "proved", log));
        left.borrow().is_empty()
    });
    let logs = ["events", ".littoral/logs/app.db/seen"];
    let since = Instant::now();
    // When something is verified first is spread over an hour.
    while logs.iter().any(|log| rig.json(["status", log])["pruned"].is_null()) {
        assert!(since.elapsed() < PATIENCE, "nobody prunes them");
        std::thread::sleep(Duration::from_millis(200));
    }
    for log in logs {
        let pruned = rig.json(["status", log])["pruned"].clone();
        assert!(pruned["failed"].is_null(), "{log}: {pruned}");
    }
    let status = rig.json(["status", "events"]);
    assert_eq!(status["proof"]["proved"]["position"], "1.50", "{status}");
    assert!(status["proof"]["proved"]["probe"].is_null(), "no SQLite was asked: {status}");
    // It is watched as a database is.
    let metrics = http(&address, "metrics");
    let of = |name: &str, volume: &str| {
        let is_it = |line: &&str| line.starts_with(name) && line.contains(&format!("volume=\"{volume}\""));
        metrics.lines().find(is_it).and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    assert_eq!(of("wal_lag_lsn", "events").as_deref(), Some("0"), "{metrics}");
    assert!(of("littoral_proof_timestamp_seconds", "events").is_some(), "{metrics}");
    worker.ends();
    rig.run(["verify", "events"]).succeeds();
    rig.run(["verify", &format!("{remote}/app.db.seen")]).succeeds();
    assert_eq!(read(&rig, &format!("{remote}/events")), lines(0..50));
}

fn http(address: &str, path: &str) -> String {
    let host = address.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    answer
}
