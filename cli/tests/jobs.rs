//! Jobs through the door: killed at every point that the code names, finished by whoever works next; cancelled, given up, asked for again;
//! and a queue that is lost, which costs nothing but time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use littoral_engine::open::Place;
use littoral_engine::settings::Settings;
use littoral_types::{ChangeSeq, Work};
use rig::{BINARY, Rig, assert_same, sql, stock_copy};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Killed between the object store's answer and the note of it. Nobody knows that this one blob is there, and nothing is used because it was seen
/// in a listing (rule P1): it is written once more, under the same name. So is the shard of a manifest snapshot that nobody knows of yet.
const NOT_NOTED_YET: [&str; 4] = ["checkpoint.blob-uploaded", "snapshot.shards", "snapshot.stored", "snapshot.head"];
/// Which file something is, and since when.
type File = (u64, i64, i64);
/// Where blobs lie.
const BLOBS: [&str; 4] = ["/chunk/", "/pack/", "/seg/", "/shard/"];
/// For hangs only.
const LONG: Duration = Duration::from_secs(120);

/// Whose points begin so. One that begins in no such way belongs to a kind that nobody tests: this list, or a test, is to be added to.
const PREFIXES: [(&str, &[&str]); 22] = [
    ("job.", &["create", "create-first", "verify", "download", "prune", "replicate", "truncate"]),
    ("checkpoint.", &["create"]),
    ("publish.", &["create", "prune", "truncate"]),
    ("snapshot.", &["create-first"]),
    ("coalesce.", &["create"]),
    ("verify.", &["verify"]),
    ("restore.", &["verify"]),
    ("pin.", &["verify"]),
    ("download.", &["download"]),
    ("prune.", &["prune"]),
    ("replicate.", &["replicate", "replicate-filled", "replicate-pruned"]),
    ("truncate.", &["truncate"]),
    ("log.truncate.", &["truncate"]),
    // What is no job: a test of its own kills there.
    ("promote.", &[]),
    ("rewind.", &[]),
    ("fork.", &[]),
    ("segment.", &[]),
    ("release.", &[]),
    ("rebuild.", &[]),
    // A log's: cli/tests/{logs,log_volumes,log_tables}.rs.
    ("carry.", &[]),
    ("log.", &[]),
    ("log_restore.", &[]),
];

/// Only a record larger than any here has it, and `tests/tests/publication.rs` has such; a prune leaves a record's blob behind only
/// where segments have blobs of their own; a copy looks for logs that are tables once where there are none, and `table_copies.rs` has some.
const REACHED_ELSEWHERE: [&str; 3] = ["publish.body", "prune.left", "replicate.noted"];

/// Every point that the code names.
fn points() -> BTreeSet<String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut points = BTreeSet::new();
    let mut folders: Vec<PathBuf> =
        ["engine/src", "engine/local/src/log", "vfs/src", "cli/src"].iter().map(|folder| top.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                points
                    .extend(code.split("reach(\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
    points
}

fn jobs(rig: &Rig) -> Vec<Value> {
    rig.json(["jobs", "list", "app.db"])["jobs"].as_array().unwrap().clone()
}

fn is_over(job: &Value) -> bool {
    ["done", "cancelled", "dead"].iter().any(|word| job["state"] == *word)
}

/// Every blob in the object store, and which file that is: one that is written again is another file.
fn blobs(rig: &Rig) -> BTreeMap<PathBuf, File> {
    let (remote, copy) = (rig.path(".littoral/remote"), rig.path("copy"));
    let files = rig.tree().into_iter().map(|(path, _)| path);
    let files = files.filter(|path| {
        (path.starts_with(&remote) || path.starts_with(&copy))
            && path.is_file()
            && BLOBS.iter().any(|folder| path.to_string_lossy().contains(folder))
    });
    files
        .map(|path| {
            let found = fs::metadata(&path).unwrap();
            (path, (found.ino(), found.mtime(), found.mtime_nsec()))
        })
        .collect()
}

fn is_sound(rig: &Rig, what: &str) {
    let (stock, out) = (rig.path("stock.db"), rig.path("out.db"));
    stock_copy(&rig.path("app.db"), &stock);
    rig.run(["restore", "app.db", "out.db", "--force"]).succeeds();
    assert_same(&out, &stock);
    let log = rig.json(["verify", "app.db", "--no-restore"]);
    assert!(log["problems"].as_array().unwrap().is_empty(), "{what}: {log}");
    // Deltas are merged by the next checkpoint that brings some, from then on: what was merged meanwhile is a prune's.
    if !what.ends_with("coalesce.uploaded") {
        assert_eq!(log["orphans"], 0, "{what}: something was uploaded twice, or for nothing: {log}");
    }
}

fn change(rig: &Rig, step: u32) {
    sql(
        &rig.path("app.db"),
        &format!("UPDATE t SET body = hex(randomblob(40)) WHERE id BETWEEN {step}00 AND {step}30"),
    );
}

/// Where the second segment of the log begins that is truncated.
const SECOND: u64 = 55;

/// What the jobs of a kind are jobs of.
fn whose(kind: &str) -> &'static str {
    if kind == "truncate" { "events" } else { "app.db" }
}

/// A log with a volume that has a segment which is sealed.
fn a_log(rig: &Rig) {
    let remote = rig.url(".littoral/remote");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    let wide = format!("{}\n", "x".repeat(14 << 20));
    let narrow: String = (0..50).map(|number| format!("{number}\n")).collect();
    fs::write(rig.path("input"), narrow + &wide.repeat(5)).unwrap();
    rig.run(["log", "append", "events", "input"]).succeeds();
}

/// The log begins with its second segment, here and there, and the two are the same.
fn is_truncated(rig: &Rig, what: &str) {
    assert_eq!(rig.json(["log", "stats", "events"])["start"], SECOND, "{what}");
    let volume = format!("{}/events", rig.url(".littoral/remote"));
    let there = rig.run(["log", "read", &volume]).succeeds().stdout.clone();
    assert_eq!(there.len(), (14 << 20) + 1, "{what}");
    assert!(rig.run(["log", "read", "events"]).succeeds().stdout == there, "{what}");
    let log = rig.json(["verify", "events", "--no-restore"]);
    assert!(log["problems"].as_array().unwrap().is_empty(), "{what}: {log}");
    assert!(rig.json(["leases", "list", "events"])["leases"].as_array().unwrap().is_empty(), "{what}");
}

/// A rig in which the verb that is given back does a job of a kind and passes its points.
fn scene(kind: &str) -> (Rig, Vec<&'static str>) {
    let rig = Rig::new();
    rig.database("app.db");
    match kind {
        "create-first" => (rig, vec!["checkpoint", "app.db", "--no-check"]),
        "create" => {
            // The next delta is the third one of its size: they are merged.
            for step in 0..3 {
                rig.run(["checkpoint", "app.db"]).succeeds();
                change(&rig, step);
            }
            (rig, vec!["checkpoint", "app.db"])
        }
        "verify" => {
            rig.run(["checkpoint", "app.db"]).succeeds();
            change(&rig, 1);
            rig.run(["checkpoint", "app.db"]).succeeds();
            (rig, vec!["verify", "app.db"])
        }
        "prune" => {
            for step in 0..4 {
                change(&rig, step);
                rig.run(["checkpoint", "app.db"]).succeeds();
            }
            // Whoever goes on with a job has settings of his own.
            let mut rig = rig;
            rig.set("LITTORAL_GRACE", "0s");
            (rig, vec!["prune", "app.db", "--keep-last", "1"])
        }
        "replicate" | "replicate-filled" | "replicate-pruned" => {
            let mut rig = rig;
            let copy = rig.url("copy");
            rig.set("LITTORAL_GRACE", "0s");
            rig.set("LITTORAL_COPY", &copy);
            for step in 0..4 {
                change(&rig, step);
                rig.run(["checkpoint", "app.db"]).succeeds();
                if kind == "replicate-pruned" {
                    rig.run(["copy", "app.db"]).succeeds();
                }
            }
            if kind != "replicate" {
                rig.run(["snapshot", "create", "app.db", "kept"]).succeeds();
                rig.run(["prune", "app.db", "--keep-last", "1"]).succeeds();
            }
            (rig, vec!["copy", "app.db"])
        }
        "download" => {
            rig.run(["checkpoint", "app.db"]).succeeds();
            rig.run(["release", "app.db"]).succeeds();
            let remote = rig.path(".littoral/remote");
            fs::rename(&remote, rig.path("far")).unwrap();
            fs::rename(rig.path("app.db"), rig.path("original.db")).unwrap();
            for name in ["app.db-wal", "app.db-shm"] {
                let _ = fs::remove_file(rig.path(name));
            }
            fs::remove_dir_all(rig.path(".littoral")).unwrap();
            let mut rig = rig;
            let url = rig.url("far");
            rig.set("LITTORAL_REMOTE", &url);
            rig.set("LITTORAL_VOLUME", "app.db");
            rig.run(["open", "app.db"]).succeeds();
            (rig, vec!["hydrate", "app.db"])
        }
        "truncate" => {
            a_log(&rig);
            (rig, vec!["log", "truncate", "events", "--before", "55"])
        }
        other => panic!("no scene for {other}"),
    }
}

/// Killed there, then finished by whoever works next. Whether the point was reached.
fn killed_and_finished(kind: &str, point: &str) -> bool {
    let (rig, verb) = scene(kind);
    let before = jobs(&rig).iter().filter_map(|job| job["id"].as_u64()).max().unwrap_or(0);
    if !rig.crash(point, &verb) {
        return false;
    }
    let what = format!("{kind} killed at {point}");
    let there = blobs(&rig);
    let left: Vec<Value> = jobs(&rig).into_iter().filter(|job| job["id"].as_u64() > Some(before)).collect();
    assert!(left.len() <= 1, "{what}: {left:?}");
    match left.first() {
        // It is kept: whoever works next does it, without anybody saying what.
        Some(job) if !is_over(job) => {
            if point != "job.wished" {
                assert_eq!(job["interrupted"], true, "{what}: {job}");
            }
            let run = rig.json(["jobs", "run", whose(kind)]);
            assert_eq!(run["jobs"].as_array().unwrap().len(), 1, "{what}: {run}");
            let after = jobs(&rig).into_iter().find(|after| after["id"] == job["id"]).unwrap();
            assert_eq!(after["state"], "done", "{what}: {after}");
            assert_eq!(after["created"], job["created"], "{what}");
            if point != "job.wished" {
                assert_eq!(after["started"], job["started"], "{what}: when it was begun was forgotten");
                assert_eq!(after["attempts"], 2, "{what}: {after}");
            }
        }
        // Killed after its end, or before it was wished for.
        Some(_) => assert_eq!(point, "job.ended", "{what}: {left:?}"),
        None => drop(rig.run(&verb).succeeds()),
    }
    let is_again = |(path, file): &(PathBuf, File)| there.get(path).is_some_and(|known| known != file);
    let again: Vec<PathBuf> = blobs(&rig).into_iter().filter(is_again).map(|(path, _)| path).collect();
    let may = usize::from(NOT_NOTED_YET.contains(&point));
    assert!(again.len() <= may, "{what}: uploaded twice: {again:?}");
    match kind {
        "download" => {
            let plain = sql(&rig.path("app.db"), "SELECT count(*), sum(length(body)) FROM t; PRAGMA integrity_check;");
            assert_eq!(
                plain,
                sql(&rig.path("original.db"), "SELECT count(*), sum(length(body)) FROM t; PRAGMA integrity_check;")
            );
        }
        "truncate" => is_truncated(&rig, &what),
        _ => is_sound(&rig, &what),
    }
    if kind.starts_with("replicate") {
        let copy = format!("{}/app.db", rig.url("copy"));
        rig.run(["restore", &copy, "from_copy.db", "--force"]).succeeds();
        assert_same(&rig.path("from_copy.db"), &rig.path("out.db"));
        let log = rig.json(["verify", &copy, "--no-restore"]);
        assert!(log["problems"].as_array().unwrap().is_empty(), "{what}: {log}");
        if kind != "replicate" {
            rig.run(["restore", &copy, "kept.db", "--force", "--at", "kept"]).succeeds();
        }
    }
    // Once more there is nothing to do.
    assert_eq!(rig.json(["jobs", "run", whose(kind)])["jobs"].as_array().unwrap().len(), 0, "{what}");
    true
}

/// Walks the points of some kinds; gives those that were reached.
fn walk(kinds: &[&str]) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    for point in points() {
        let whose = PREFIXES.iter().find(|(prefix, _)| point.starts_with(prefix));
        let (_, theirs) = whose.unwrap_or_else(|| panic!("{point} is in the code, and nobody says whose it is"));
        for kind in theirs.iter().filter(|kind| kinds.contains(kind)) {
            if killed_and_finished(kind, &point) {
                reached.insert(point.clone());
            }
        }
    }
    // The coverage: of what belongs to these kinds alone nothing may be left out.
    for point in points() {
        let (_, theirs) = PREFIXES.iter().find(|(prefix, _)| point.starts_with(prefix)).unwrap();
        let is_ours = !theirs.is_empty() && theirs.iter().all(|kind| kinds.contains(kind));
        let elsewhere = REACHED_ELSEWHERE.contains(&point.as_str());
        assert!(!is_ours || elsewhere || reached.contains(&point), "{point} was never reached: {reached:?}");
    }
    reached
}

#[test]
fn a_checkpoint_or_a_prune_killed_at_any_point_that_the_code_names_is_finished_as_a_job() {
    let reached = walk(&["create", "create-first", "prune"]);
    for point in littoral_engine::jobs::POINTS {
        assert!(reached.contains(point), "{point} was never reached: {reached:?}");
    }
    for prefix in ["publish.", "prune.", "snapshot.", "coalesce.", "checkpoint."] {
        let left: Vec<_> =
            points().into_iter().filter(|point| point.starts_with(prefix) && !reached.contains(point)).collect();
        assert!(left.iter().all(|point| REACHED_ELSEWHERE.contains(&point.as_str())), "never reached: {left:?}");
    }
}

#[test]
fn a_verify_or_a_download_killed_at_any_point_that_the_code_names_is_finished_as_a_job() {
    let reached = walk(&["verify", "download"]);
    for point in littoral_engine::jobs::POINTS {
        assert!(reached.contains(point), "{point} was never reached: {reached:?}");
    }
}

#[test]
fn a_replication_killed_at_any_point_that_the_code_names_is_finished_as_a_job_and_sends_nothing_twice() {
    let reached = walk(&["replicate", "replicate-filled", "replicate-pruned"]);
    for point in littoral_engine::jobs::POINTS {
        assert!(reached.contains(point), "{point} was never reached: {reached:?}");
    }
}

#[test]
fn a_truncation_of_a_log_killed_at_any_point_that_the_code_names_is_finished_as_a_job() {
    let reached = walk(&["truncate"]);
    for point in littoral_engine::jobs::POINTS.iter().chain(&littoral_engine::logs::TRUNCATE_POINTS) {
        assert!(reached.contains(*point), "{point} was never reached: {reached:?}");
    }
    for point in
        ["publish.intended", "publish.landed", "publish.committed", "log.truncate.said", "log.truncate.removed"]
    {
        assert!(reached.contains(point), "{point} was never reached: {reached:?}");
    }
}

#[test]
fn a_truncation_that_was_begun_is_a_job_again_where_the_queue_was_lost() {
    let (rig, verb) = scene("truncate");
    assert!(rig.crash("truncate.dropped", &verb));
    assert_eq!(rig.json(["log", "stats", "events"])["start"], 1, "its volume begins later by now");
    fs::remove_dir_all(rig.path(".littoral/jobs")).unwrap();
    // Whoever opens the queue next finds out.
    rig.run(["verify", "events", "--no-restore"]).succeeds();
    let waits: Vec<Value> = jobs(&rig).into_iter().filter(|job| !is_over(job)).collect();
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert_eq!(waits[0]["what"], format!("truncate-append-only before LSN {SECOND}, past cursors"));
    rig.run(["jobs", "run", "events"]).succeeds();
    is_truncated(&rig, "after a queue that was lost");
    assert!(jobs(&rig).iter().all(is_over));
}

#[test]
fn a_truncation_waits_for_who_restores_is_told_who_that_is_and_takes_over_by_force_which_is_written_down() {
    let (rig, verb) = scene("truncate");
    let stuck = Stuck::make(&rig);
    let mut reader = spawned(&rig, &["restore", "events", "copy"]);
    let held = || rig.json(["leases", "list", "events"])["leases"].as_array().unwrap().clone();
    waited("the restore holds what it reads", || held().iter().any(|lease| lease["work"] == "read"));
    let me = format!("process {}", reader.id());
    let impatient = [&verb[..], &["--wait", "200ms"]].concat();
    rig.run(&impatient).fails(1, &[&me, "read", "littoral leases release"]);
    assert_eq!(rig.json(["log", "stats", "events"])["start"], 1, "nothing moved");
    let job = jobs(&rig).pop().unwrap();
    assert_eq!(
        (&job["task"], &job["state"], &job["failures"]),
        (&"truncate-append-only".into(), &"ready".into(), &1.into())
    );
    assert!(job["error"].as_str().unwrap().contains(&me), "{job}");
    rig.run([&impatient[..], &["--cancel"]].concat()).succeeds();
    stuck.free();
    assert!(
        !reader.wait().unwrap().success() && !rig.path("copy/log.toml").exists(),
        "who was stopped has restored nothing"
    );
    is_truncated(&rig, "after force");
    let taken = rig.json(["leases", "audit", "events"])["taken_away"].clone();
    assert_eq!(
        (&taken[0]["why"], &taken[0]["forced"]),
        (&"a truncation was to come first".into(), &true.into()),
        "{taken}"
    );
    // The compensating entry of the change log, in the transaction that took it away.
    let place = Place::of_database(&rig.path("events"), &Settings::default()).unwrap();
    let changes = place.manifest().unwrap().unwrap().changes(ChangeSeq(0), 10_000).unwrap();
    let undone: Vec<_> = changes.into_iter().filter_map(|change| change.undone).collect();
    assert_eq!(undone.len(), 1, "{undone:?}");
    assert_eq!((undone[0].lease.wish.work, undone[0].is_forced), (Work::Read, true));
    let after = jobs(&rig).into_iter().find(|after| after["id"] == job["id"]).unwrap();
    assert_eq!((&after["state"], &after["attempts"]), (&"done".into(), &2.into()), "{after}");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let seen = rig.run(["shell", "app.db", "SELECT task || ' ' || state FROM littoral_jobs"]);
    assert!(seen.succeeds().stdout.contains("truncate-append-only before LSN 55 done"), "{seen:?}");
    // And who waits long enough comes after a reader.
    rig.run(["restore", "events", "later"]).succeeds();
}

/// Makes a blob one that is never read to its end, until it is given its bytes back.
struct Stuck {
    blob: PathBuf,
    bytes: Vec<u8>,
}

impl Stuck {
    fn make(rig: &Rig) -> Self {
        let (blob, _) = blobs(rig).into_iter().next().unwrap();
        let bytes = fs::read(&blob).unwrap();
        fs::remove_file(&blob).unwrap();
        assert!(Command::new("mkfifo").arg(&blob).status().unwrap().success());
        Self { blob, bytes }
    }

    fn free(self) {
        // Whoever still waits for it is let go.
        drop(fs::OpenOptions::new().read(true).write(true).open(&self.blob).unwrap());
        fs::remove_file(&self.blob).unwrap();
        fs::write(&self.blob, self.bytes).unwrap();
    }
}

#[test]
fn what_a_killed_verify_had_read_is_not_read_again_and_the_result_is_the_same() {
    let (rig, _) = scene("verify");
    let whole = rig.json(["verify", "app.db", "--no-restore"]);
    let stuck = Stuck::make(&rig);
    let mut child = spawned(&rig, &["verify", "app.db", "--no-restore"]);
    let noted = || jobs(&rig).last().map_or(0, |job| job["blobs"].as_u64().unwrap());
    waited("blobs are noted", || noted() > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    stuck.free();
    let again = rig.json(["verify", "app.db", "--no-restore"]);
    for figure in ["records", "blobs", "frames", "pages", "bytes", "orphans", "problems"] {
        assert_eq!(again[figure], whole[figure], "{figure}");
    }
    let requests = |said: &Value| said["cost"]["requests"].as_u64().unwrap();
    assert!(requests(&again) < requests(&whole), "read again: {} {}", again["cost"], whole["cost"]);
    assert_eq!(jobs(&rig).last().unwrap()["attempts"], 2);
}

#[test]
fn a_job_that_can_never_succeed_is_given_up_with_the_reason_and_asked_for_again_by_name() {
    let rig = Rig::new();
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let (blob, _) = blobs(&rig).into_iter().next().unwrap();
    let bytes = fs::read(&blob).unwrap();
    let mut hurt = bytes.clone();
    hurt[bytes.len() / 2] ^= 1;
    fs::write(&blob, &hurt).unwrap();
    assert_eq!(rig.run(["verify", "app.db", "--no-restore"]).code, Some(4));
    let job = jobs(&rig).into_iter().find(|job| job["task"] == "verify-checkpoint").unwrap();
    assert_eq!(job["state"], "dead", "{job}");
    assert!(job["detail"].as_str().unwrap().contains("not sound"), "{job}");
    assert_eq!(rig.json(["status", "app.db"])["jobs"]["dead"], 1);
    let shown = rig.run(["status", "app.db"]);
    assert!(shown.stdout.contains("1 given up"), "{}", shown.stdout);
    assert_eq!(rig.json(["jobs", "run", "app.db"])["jobs"].as_array().unwrap().len(), 0, "it was tried again");
    fs::write(&blob, &bytes).unwrap();
    let id = job["id"].to_string();
    let ready = rig.json(["jobs", "retry", "app.db", &id]);
    assert_eq!((&ready["job"]["state"], &ready["job"]["created"]), (&Value::from("ready"), &job["created"]));
    assert_eq!(rig.json(["status", "app.db"])["jobs"]["depth"], 1);
    rig.run(["jobs", "run", "app.db"]).succeeds();
    let after = rig.json(["jobs", "show", "app.db", &id]);
    assert_eq!((&after["job"]["state"], &after["job"]["started"]), (&Value::from("done"), &job["started"]));
    let gone = rig.json(["jobs", "clear", "app.db"]);
    assert_eq!((gone["forgotten"].as_u64(), jobs(&rig).len()), (Some(2), 0));
}

#[test]
fn a_job_that_waits_is_cancelled_and_nobody_does_it() {
    let (rig, verb) = scene("verify");
    assert!(rig.crash("job.begun", &verb));
    let number = jobs(&rig).pop().unwrap()["id"].clone();
    let id = number.to_string();
    assert_eq!(rig.json(["jobs", "cancel", "app.db", &id])["job"]["state"], "cancelled");
    assert_eq!(rig.json(["jobs", "run", "app.db"])["jobs"].as_array().unwrap().len(), 0);
    assert_eq!(rig.json(["jobs", "show", "app.db", &id])["job"]["state"], "cancelled");
    // Wished for anew it is another job.
    rig.run(&verb).succeeds();
    let last = jobs(&rig).pop().unwrap();
    assert!(last["state"] == "done" && last["id"] != number, "{last}");
    rig.run(["jobs", "cancel", "app.db", "999"]).fails(2, &["there is no job 999", "littoral jobs list"]);
    rig.run(["jobs", "show", "app.db", "999"]).fails(2, &["there is no job 999"]);
}

fn spawned(rig: &Rig, arguments: &[&str]) -> Child {
    let mut command = Command::new(BINARY);
    command.env_clear().current_dir(rig.path("")).env("HOME", rig.path("")).env("LITTORAL_SYNC_INTERVAL", "off");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn waited(what: &str, mut is: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < LONG, "{what}: never");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_job_at_work_is_seen_by_others_and_stops_when_it_is_cancelled() {
    let (rig, _) = scene("verify");
    let stuck = Stuck::make(&rig);
    let mut child = spawned(&rig, &["verify", "app.db", "--no-restore"]);
    let by = format!("process {}", child.id());
    let running = || jobs(&rig).into_iter().find(|job| job["state"] == "running");
    waited("it runs", || running().is_some());
    let job = running().unwrap();
    assert_eq!((job["detail"].as_str(), &job["interrupted"]), (Some(by.as_str()), &Value::from(false)), "{job}");
    let id = job["id"].to_string();
    assert_eq!(rig.json(["jobs", "cancel", "app.db", &id])["job"]["state"], "cancelled");
    stuck.free();
    let _ = child.kill();
    child.wait().unwrap();
    assert_eq!(rig.json(["jobs", "show", "app.db", &id])["job"]["state"], "cancelled");
    is_sound(&rig, "after a cancelled verify");
}

#[test]
fn p12_a_second_opener_of_the_queue_is_refused_by_our_own_lock_and_told_who_has_it() {
    let (rig, verb) = scene("verify");
    assert!(rig.crash("job.begun", &verb));
    let id = jobs(&rig).last().unwrap()["id"].to_string();
    let lock = rig.path(".littoral/worker.lock");
    let mut holder = Command::new("flock").arg("--no-fork").arg(&lock).args(["sleep", "1000"]).spawn().unwrap();
    let is_held = || !Command::new("flock").arg("--nonblock").arg(&lock).arg("true").status().unwrap().success();
    waited("it is held", is_held);
    rig.run(["jobs", "retry", "app.db", &id]).fails(1, &["worker.lock", "process"]);
    rig.run(["jobs", "clear", "app.db"]).fails(1, &["worker.lock", "process"]);
    // Who only looks, and work that needs no job, go on.
    assert_eq!(jobs(&rig).last().unwrap()["interrupted"], true);
    rig.run(&verb).succeeds();
    assert_eq!(jobs(&rig).last().unwrap()["attempts"], 1, "the queue was written by somebody without the lock");
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// What became of the queue costs time and nothing else.
#[test]
fn a_queue_that_is_lost_or_damaged_is_filled_again_from_what_is_known_elsewhere() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("removed", |folder| fs::remove_dir_all(folder).unwrap()),
        ("its current gone", |folder| fs::remove_file(folder.join("CURRENT")).unwrap()),
        ("emptied", |folder| each(folder, |_| Vec::new())),
        ("cut in half", |folder| each(folder, |bytes| bytes[..bytes.len() / 2].to_vec())),
        ("bits flipped", |folder| {
            each(folder, |bytes| bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at % 64 == 9)).collect());
        }),
    ];
    for (what, damage) in damages {
        let (rig, verb) = scene("create");
        assert!(rig.crash("checkpoint.uploaded", &verb));
        let there = blobs(&rig);
        damage(&rig.path(".littoral/jobs"));
        // Whoever opens the queue next finds out.
        rig.run(["verify", "app.db", "--no-restore"]).succeeds();
        let waits: Vec<Value> = jobs(&rig).into_iter().filter(|job| !is_over(job)).collect();
        assert_eq!(waits.len(), 1, "{what}: {waits:?}");
        assert_eq!((&waits[0]["task"], &waits[0]["state"]), (&"create-checkpoint".into(), &"ready".into()), "{what}");
        rig.run(["jobs", "run", "app.db"]).succeeds();
        for (path, file) in blobs(&rig) {
            assert!(there.get(&path).is_none_or(|known| *known == file), "{what}: {} twice", path.display());
        }
        is_sound(&rig, what);
        assert!(jobs(&rig).iter().all(is_over), "{what}");
    }
}

fn each(folder: &Path, change: impl Fn(&[u8]) -> Vec<u8>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, change(&bytes)).unwrap();
    }
}

#[test]
fn a_worker_finishes_what_others_were_killed_at() {
    let (rig, verb) = scene("verify");
    assert!(rig.crash("verify.blob", &verb));
    change(&rig, 2);
    assert!(rig.crash("checkpoint.staged", ["checkpoint", "app.db"]));
    assert_eq!(jobs(&rig).iter().filter(|job| !is_over(job)).count(), 2);
    let mut worker = spawned(&rig, &["worker", "app.db", "--sync_interval=200ms"]);
    waited("all is done", || jobs(&rig).iter().all(|job| job["state"] == "done"));
    worker.kill().unwrap();
    worker.wait().unwrap();
    is_sound(&rig, "after a worker");
}

#[test]
fn what_a_job_could_not_say_all_of_is_done_and_kept_as_none() {
    let (rig, _) = scene("verify");
    let before = jobs(&rig).len();
    rig.run(["prune", "app.db", "--no-delete"]).succeeds();
    rig.run(["prune", "app.db", "--export", "list"]).succeeds();
    std::fs::create_dir(rig.path("large")).unwrap();
    rig.run(["verify", "app.db", "--temp", "large"]).succeeds();
    assert_eq!(jobs(&rig).len(), before, "whoever goes on with it would delete, or restore elsewhere");
    rig.run(["verify", "app.db"]).succeeds();
    assert_eq!(jobs(&rig).len(), before + 1);
}
