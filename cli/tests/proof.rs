//! What is proved and pruned beside shipping, asked for and unasked: `drill`, `prune --no-delete`, `status`, and a worker that does it by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use rig::{BINARY, Rig, sql};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What never takes this long unless something hangs.
const HANGS: Duration = Duration::from_secs(120);

/// A command's exit code, and its document.
fn told(rig: &Rig, arguments: &[&str]) -> (Option<i32>, Value) {
    let run = rig.run([&["--json"], arguments].concat());
    (run.code, serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error} in {run:?}")))
}

/// Turns one bit in the middle of each file of a folder.
fn damage(folder: &Path) {
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty(), "{}", folder.display());
    for file in files {
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(file, bytes).unwrap();
    }
}

const COUNT: &str = "SELECT count(*) FROM t";

#[test]
fn a_drill_proves_a_restore_keeps_what_it_proved_and_is_loud_where_it_fails() {
    let rig = Rig::new();
    rig.database("app.db");
    rig.json(["checkpoint", "app.db"]);
    let (code, drilled) = told(&rig, &["drill", "app.db", "--probe", COUNT]);
    assert_eq!((code, &drilled["answer"], &drilled["kept"]), (Some(0), &Value::from("5000"), &Value::from(true)));
    assert_eq!((&drilled["position"], &drilled["skipped"]), (&Value::from("1.1"), &Value::Null), "{drilled}");
    let status = rig.json(["status", "app.db"]);
    assert_eq!(status["proof"]["proved"]["position"], "1.1", "{status}");
    assert_eq!(status["proof"]["proved"]["answer"], "5000");
    assert_eq!(status["proof"]["problems"], Value::Array(vec![]));
    let text = rig.run(["status", "app.db"]);
    assert!(text.stdout.contains("up to 1.1: restored in"), "{text:?}");

    // A probe that fails was chosen because it works; and it writes nothing.
    for (probe, word) in [
        ("SELECT x FROM nowhere", "no such table"),
        ("DELETE FROM t", "readonly"),
        ("SELECT 1; SELECT 2", "more than one statement"),
        ("", "no statement"),
    ] {
        let (code, drilled) = told(&rig, &["drill", "app.db", "--probe", probe]);
        let problem = drilled["problems"][0].as_str().unwrap_or_default();
        assert!(code == Some(4) && problem.contains(word), "{probe}: {code:?} {drilled}");
    }
    // No room: nothing is done, and it is said.
    let (code, drilled) = told(&rig, &["drill", "app.db", "--quota=4096"]);
    assert!(code == Some(1) && drilled["skipped"].as_str().is_some_and(|why| why.contains("no room")), "{drilled}");
    // Anybody may try, of a URL; nothing is kept then.
    let url = rig.url(".littoral/remote/app.db");
    let (code, drilled) = told(&rig, &["drill", &url]);
    assert_eq!((code, &drilled["kept"]), (Some(0), &Value::from(false)), "{drilled}");

    // A blob rots.
    let blobs = rig.path(".littoral/remote/app.db/chunk");
    damage(&blobs);
    let failed = rig.run(["drill", "app.db"]);
    assert_eq!(failed.code, Some(4), "{failed:?}");
    assert!(failed.stdout.contains("WRONG") && failed.stdout.contains("NOT PROVED"), "{failed:?}");
    let status = rig.json(["status", "app.db"]);
    assert!(status["proof"]["problems"][0].as_str().is_some_and(|why| why.contains("cannot be restored")), "{status}");
    assert_eq!(status["proof"]["proved"]["answer"], "5000", "what was proved stays known");
    assert!(rig.run(["status", "app.db"]).stdout.contains("NOT SOUND"));
    // And is mended.
    damage(&blobs);
    assert_eq!(told(&rig, &["drill", "app.db"]).0, Some(0));
    assert_eq!(rig.json(["status", "app.db"])["proof"]["problems"], Value::Array(vec![]));
    assert!(!rig.path(".littoral/drill").read_dir().is_ok_and(|mut left| left.next().is_some()), "a copy is left");
}

#[test]
fn a_prune_without_the_right_to_delete_lists_what_may_go_and_whoever_may_deletes_it() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    for step in 0..5 {
        sql(&file, &format!("UPDATE t SET body = 'step {step}' WHERE id % 50 = {step}"));
        rig.json(["checkpoint", "app.db"]);
    }
    let keep = ["--keep-last=1", "--grace=0"];
    let marked = rig.json([&["prune", "app.db", "--no-delete", "--export", "list"], &keep[..]].concat());
    assert_eq!((&marked["records"], &marked["blobs"]), (&Value::from(0), &Value::from(0)), "{marked}");
    let lines = fs::read_to_string(rig.path("list")).unwrap();
    let count = lines.lines().count();
    assert!(count > 3 && count == marked["left"].as_array().unwrap().len(), "{lines}");
    let status = rig.json(["status", "app.db"]);
    assert_eq!(status["pruned"]["left_objects"], count);
    // Said once: the same record names it.
    let again = rig.json([&["prune", "app.db", "--prune_deletes=off"], &keep[..]].concat());
    assert_eq!(again["marked_record"], marked["marked_record"]);
    for line in lines.lines() {
        let (_, url) = line.split_once('\t').unwrap();
        fs::remove_file(url.trim_start_matches("file://")).unwrap();
    }
    let verified = rig.json(["verify", "app.db"]);
    assert_eq!((&verified["orphans"], &verified["problems"]), (&Value::from(0), &Value::Array(vec![])), "{verified}");
    let verified = rig.json(["status", "app.db"])["proof"]["verified"].clone();
    assert!(verified["whole"]["ms"].as_u64() > Some(0), "{verified}");
}

#[test]
fn p02_what_a_prune_has_doomed_is_nobodys_to_keep_however_long_ago_and_whoever_deletes_it() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    let change = |step: u32| sql(&file, &format!("UPDATE t SET body = 'step {step}' WHERE id = {}", 1 + step % 5000));
    let first = rig.json(["checkpoint", "app.db"])["position"].as_str().unwrap().to_owned();
    for step in 0..5 {
        change(step);
        rig.json(["checkpoint", "app.db"]);
    }
    let url = rig.url(".littoral/remote/app.db");
    let kept = || rig.json(["history", &url, "--limit", "1000"])["kept"].as_array().unwrap().len();
    rig.run(["prune", "app.db", "--no-delete", "--keep-last=1", "--grace=0", "--export", "list"]).succeeds();
    assert!(rig.text("list").len() > 1 && fs::read_to_string(rig.path("list")).unwrap().contains("/snap/"));
    let refused = |name: &str| {
        let named = rig.run(["snapshot", "create", "app.db", name, "--at", &first]);
        assert!(named.code != Some(0) && named.stderr.contains("restore point"), "{name}: {named:?}");
        let forked = rig.run(["fork", &url, &rig.url(&format!(".littoral/remote/{name}.db")), "--at", &first]);
        assert!(forked.code != Some(0), "{name}: {forked:?}");
    };
    refused("soon");
    assert_eq!(kept(), 0);
    // By now no index lists the prune that doomed it.
    for step in 5..145 {
        change(step);
        rig.json(["checkpoint", "app.db", "--no-coalesce"]);
    }
    refused("late");
    assert_eq!(kept(), 0);
}

struct Worker {
    process: Child,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Worker {
    fn begin(rig: &Rig, arguments: &[&str]) -> Self {
        let mut command = rig.command(BINARY);
        let mut process = command.args(["--json", "worker"]).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let noted = lines.clone();
        std::thread::spawn(move || {
            for line in answers.lines().map_while(Result::ok) {
                noted.lock().unwrap().push(serde_json::from_str::<Value>(&line).unwrap());
            }
        });
        Self { process, lines }
    }

    #[track_caller]
    fn until(&self, what: &str, is_it: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        while !self.lines.lock().unwrap().iter().any(&is_it) {
            assert!(begun.elapsed() < HANGS, "no {what} in {:?}", self.lines.lock().unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_worker_prunes_and_proves_unasked_where_it_was_told_to_and_says_loudly_what_is_damaged() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    let probe = format!("--drill_probe={COUNT}");
    let every = ["--retention=0", "--grace=0", "--prune_interval=1s", "--drill_interval=1s"];
    let worker = Worker::begin(&rig, &[&["app.db", &probe][..], &every].concat());
    worker.until("ships", |line| line["event"] == "ships");
    worker.until("proof", |line| line["event"] == "proved" && line["answer"] == "5000" && line["position"].is_string());
    sql(&file, "INSERT INTO t(body) VALUES ('one more')");
    worker.until("proof of one row more", |line| line["event"] == "proved" && line["answer"] == "5001");
    worker.until("prune", |line| line["event"] == "pruned" && line["objects"].as_u64() > Some(0));
    let status = rig.json(["status", "app.db"]);
    assert!(status["pruned"]["at"]["ms"].as_u64() > Some(0), "{status}");
    damage(&rig.path(".littoral/remote/app.db/chunk"));
    worker.until("alarm", |line| line["event"] == "not-sound" && line["problems"][0].is_string());
    let status = rig.json(["status", "app.db"]);
    assert!(status["proof"]["problems"][0].is_string(), "{status}");
    assert_eq!(status["proof"]["proved"]["answer"], "5001", "what was proved stays known");
}
