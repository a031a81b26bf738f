//! `littoral leases`, and what becomes of those who hold some: killed, stopped, overtaken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use rig::{BINARY, Rig, sql};
use serde_json::Value;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// For hangs only.
const LONG: Duration = Duration::from_secs(120);

fn leases(rig: &Rig) -> Vec<Value> {
    rig.json(["leases", "list", "app.db"])["leases"].as_array().unwrap().clone()
}

fn audit(rig: &Rig) -> Vec<Value> {
    rig.json(["leases", "audit", "app.db"])["taken_away"].as_array().unwrap().clone()
}

/// What SQL says, as rows of text.
fn asked(rig: &Rig, sql: &str) -> Vec<String> {
    let run = rig.run(["shell", "app.db", sql]);
    run.succeeds().stdout.lines().map(str::to_owned).collect()
}

fn records(rig: &Rig) -> usize {
    rig.json(["history", "app.db"])["records"].as_array().unwrap().len()
}

fn change(rig: &Rig) {
    sql(&rig.path("app.db"), "UPDATE t SET body = hex(randomblob(60)) WHERE id BETWEEN 100 AND 2000");
}

/// A checkpoint that is at its upload, and takes its time.
fn slow(rig: &Rig) -> Child {
    let mut command = rig.command(BINARY);
    command.args(["checkpoint", "app.db", "--upload_rate", "1kB"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let since = Instant::now();
    while leases(rig).is_empty() {
        assert!(since.elapsed() < LONG, "it never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn p12_whoever_is_killed_leaves_a_lease_that_stands_in_nobodys_way_and_it_is_written_down() {
    let rig = Rig::new();
    rig.database("app.db");
    assert!(leases(&rig).is_empty() && audit(&rig).is_empty());
    rig.run(["leases", "list", "app.db"]).succeeds();
    rig.run(["leases", "release", "app.db", "0"]).fails(5, &["nobody has chunk 0"]);
    rig.run(["checkpoint", "app.db"]).succeeds();
    assert!(leases(&rig).is_empty(), "who is done holds nothing");
    change(&rig);
    assert!(rig.crash("checkpoint.staged", ["checkpoint", "app.db"]));
    let left = leases(&rig);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((&left[0]["stands"], &left[0]["work"]), (&"dead".into(), &"checkpoint".into()));
    assert_eq!(left[0]["chunks"], serde_json::json!([{ "first": 0, "last": 0 }]));
    let text = rig.run(["leases", "list", "app.db"]).succeeds().stdout.clone();
    assert!(text.contains("checkpoint") && text.contains("dead"), "{text}");
    // The next one goes on.
    rig.run(["checkpoint", "app.db"]).succeeds();
    assert!(leases(&rig).is_empty());
    let taken = audit(&rig);
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!((&taken[0]["why"], &taken[0]["forced"]), (&"its process had ended".into(), &false.into()));
    assert_eq!(taken[0]["held"]["process"], left[0]["process"]);
    // Or somebody takes it away by hand: no force is needed.
    change(&rig);
    assert!(rig.crash("checkpoint.staged", ["checkpoint", "app.db"]));
    let released = rig.json(["leases", "release", "app.db", "all"]);
    assert_eq!(released["released"].as_array().unwrap().len(), 1, "{released}");
    assert!(leases(&rig).is_empty());
    assert_eq!(audit(&rig).len(), 2);
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.run(["verify", "app.db"]).succeeds();
}

#[test]
fn who_lives_keeps_his_lease_unless_it_is_taken_by_force_and_then_publishes_nothing_and_says_why() {
    let rig = Rig::new();
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    change(&rig);
    let before = records(&rig);
    let child = slow(&rig);
    let held = leases(&rig);
    assert_eq!((&held[0]["stands"], held[0]["process"].as_u64()), (&"held".into(), Some(u64::from(child.id()))));
    let me = format!("process {}", child.id());
    rig.run(["leases", "release", "app.db", "0"]).fails(3, &[&me, "is at work on chunk 0", "--force --reason"]);
    rig.run(["leases", "release", "app.db", "0", "--force"]).fails(2, &["--reason"]);
    rig.run(["leases", "release", "app.db", "7", "--force", "--reason", "x"]).fails(5, &["nobody has chunk 7"]);
    rig.run(["leases", "release", "app.db", "first"]).fails(2, &["is no chunk"]);
    assert_eq!((leases(&rig), audit(&rig).len()), (held.clone(), 0), "nothing moved");
    let run = rig.run(["leases", "release", "app.db", "0", "--force", "--reason", "it hangs"]);
    assert!(run.succeeds().stdout.contains(&format!("was taken from {me}")), "{run:?}");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("littoral leases audit"), "{said}");
    assert_eq!(records(&rig), before, "it published nothing");
    let taken = audit(&rig);
    assert_eq!(taken.len(), 1);
    assert_eq!(
        (&taken[0]["why"], &taken[0]["forced"], &taken[0]["held"]["lease"]),
        (&"it hangs".into(), &true.into(), &held[0]["lease"])
    );
    assert!(taken[0]["by"].as_str().unwrap().starts_with("user "), "{taken:?}");
    let text = rig.run(["leases", "audit", "app.db"]).succeeds().stdout.clone();
    assert!(text.contains("it hangs") && text.contains("checkpoint"), "{text}");
    // And nothing is lost.
    rig.run(["checkpoint", "app.db"]).succeeds();
    assert!(records(&rig) > before);
    rig.run(["verify", "app.db"]).succeeds();
}

#[test]
fn what_is_at_work_and_what_waits_is_seen_in_sql_without_the_queue() {
    let rig = Rig::new();
    rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    let jobs = "SELECT job || ' ' || task || ' ' || state || ' ' || attempts || ' ' || (started_ms > 0) FROM littoral_jobs ORDER BY job";
    let seen = asked(&rig, jobs);
    assert!(seen.iter().any(|line| line.contains("1 create-checkpoint done 1 1")), "{seen:?}");
    change(&rig);
    assert!(rig.crash("checkpoint.staged", ["checkpoint", "app.db"]));
    let seen = asked(&rig, jobs);
    assert!(seen.iter().any(|line| line.contains("2 create-checkpoint interrupted 1 1")), "{seen:?}");
    let leases = "SELECT work || ' of ' || chunks || ' is ' || stands FROM littoral_leases";
    let seen = asked(&rig, leases);
    assert!(seen.iter().any(|line| line.contains("checkpoint of 0 is dead")), "{seen:?}");
    rig.run(["jobs", "run", "app.db"]).succeeds();
    let seen = asked(&rig, jobs);
    assert!(seen.iter().any(|line| line.contains("2 create-checkpoint done 2 1")), "{seen:?}");
    assert!(!asked(&rig, leases).iter().any(|line| line.contains("checkpoint of")));
    let undone = asked(&rig, "SELECT undone FROM littoral_changes WHERE undone IS NOT NULL");
    assert!(undone.iter().any(|line| line.contains("checkpoint of chunks 0, cut off by process")), "{undone:?}");
    // What is told is what the queue says, one by one.
    let listed = rig.json(["jobs", "list", "app.db"])["jobs"].as_array().unwrap().len();
    let seen = asked(&rig, jobs).iter().filter(|line| line.contains("create-checkpoint")).count();
    assert_eq!(seen, listed);
    rig.run(["jobs", "clear", "app.db"]).succeeds();
    assert!(!asked(&rig, jobs).iter().any(|line| line.contains("create-checkpoint")));
}
