//! Killed at every named point through the door, and run again: nothing is lost, nothing is published twice, and what is
//! restored is the database byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use rig::{Rig, Untouched, assert_same, sql, stock_copy};
use std::fs;

const OPENING_AND_CHECKPOINT: [&str; 15] = [
    "publish.drafted",
    "publish.intended",
    "publish.landed",
    "publish.committed",
    "checkpoint.planned",
    "checkpoint.begun",
    "checkpoint.staged",
    "checkpoint.blob-uploaded",
    "checkpoint.uploaded",
    "checkpoint.cleaned",
    "snapshot.shards",
    "snapshot.stored",
    "snapshot.head",
    "coalesce.uploaded",
    "publish.body",
];

/// The state of the volume is that of the database, and the log is whole.
fn is_sound(rig: &Rig, what: &str) {
    let stock = rig.path("stock.db");
    stock_copy(&rig.path("app.db"), &stock);
    let out = rig.path("out.db");
    rig.run(["restore", "app.db", "out.db", "--force"]).succeeds();
    assert_same(&out, &stock);
    let verified = rig.json(["verify", "app.db", "--no-restore"]);
    assert!(verified["problems"].as_array().unwrap().is_empty(), "{what}: {verified}");
}

#[test]
fn a_checkpoint_killed_at_any_point_is_finished_by_the_next() {
    let mut reached = Vec::new();
    for point in OPENING_AND_CHECKPOINT {
        for nth in 1..=3 {
            let rig = Rig::new();
            let file = rig.database("app.db");
            let untouched = Untouched::note(&file);
            let point_n = format!("{point}:{nth}");
            // The first checkpoint of all: probe, claim, blobs, record, manifest snapshot.
            let first = rig.crash(&point_n, ["checkpoint", "app.db"]);
            untouched.check();
            rig.run(["checkpoint", "app.db"]).succeeds();
            is_sound(&rig, &point_n);
            // Later ones, the third of which merges deltas.
            let mut later = false;
            for step in 0..4 {
                sql(&file, &format!("UPDATE t SET body = hex(randomblob(40)) WHERE id BETWEEN {step}00 AND {step}30"));
                later |= rig.crash(&point_n, ["checkpoint", "app.db"]);
            }
            rig.run(["checkpoint", "app.db"]).succeeds();
            is_sound(&rig, &point_n);
            // What was published stays published once: commits are numbered without gaps and end at the newest.
            let history = rig.json(["history", "app.db", "--limit", "100"]);
            let mut lsns: Vec<u64> = history["records"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|record| record["restorable"] == true)
                .map(|record| record["position"].as_str().unwrap().split('.').next_back().unwrap().parse().unwrap())
                .collect();
            lsns.reverse();
            assert_eq!(lsns, (1..=lsns.len() as u64).collect::<Vec<_>>(), "{point_n}");
            assert!(
                fs::read_dir(rig.path(".littoral/checkpoint_scratch")).map_or(0, Iterator::count) <= 1,
                "{point_n}"
            );
            if first || later {
                reached.push(point);
            } else {
                break;
            }
        }
    }
    // A body of its own has only a record larger than any here.
    for point in OPENING_AND_CHECKPOINT.iter().filter(|point| **point != "publish.body") {
        assert!(reached.contains(point), "{point} was never reached: {reached:?}");
    }
}

#[test]
fn a_prune_killed_at_any_point_loses_nothing_that_is_kept() {
    for point in ["prune.planned", "publish.intended", "publish.landed", "prune.published", "prune.deleted"] {
        let rig = Rig::new();
        let file = rig.database("app.db");
        for step in 0..4 {
            sql(&file, &format!("UPDATE t SET body = hex(randomblob(40)) WHERE id % 2 = {}", step % 2));
            rig.run(["checkpoint", "app.db"]).succeeds();
            if step == 1 {
                rig.run(["snapshot", "create", "app.db", "kept"]).succeeds();
                stock_copy(&file, &rig.path("kept.db"));
            }
        }
        let prune = ["prune", "app.db", "--keep-last", "1", "--grace", "0"];
        assert!(rig.crash(point, prune), "{point} was not reached");
        is_sound(&rig, point);
        rig.run(prune).succeeds();
        is_sound(&rig, point);
        rig.run(["restore", "app.db", "then.db", "--at", "kept"]).succeeds();
        assert_same(&rig.path("then.db"), &rig.path("kept.db"));
        sql(&file, "UPDATE t SET body = 'after the prune' WHERE id < 9");
        rig.run(["checkpoint", "app.db"]).succeeds();
        is_sound(&rig, point);
    }
}

#[test]
fn a_restore_killed_at_any_point_leaves_nothing_in_place_and_goes_on() {
    for point in ["restore.group", "restore.written"] {
        let rig = Rig::new();
        let file = rig.database("app.db");
        rig.run(["checkpoint", "app.db"]).succeeds();
        assert!(rig.crash(point, ["restore", "app.db", "out.db"]), "{point} was not reached");
        assert!(!rig.path("out.db").exists(), "{point}");
        let done = rig.json(["restore", "app.db", "out.db"]);
        if point == "restore.written" {
            assert_eq!(done["bytes_resumed"], done["bytes"], "what was done was done again");
        }
        assert_same(&rig.path("out.db"), &file);
        let left: Vec<_> = fs::read_dir(rig.path(""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("littoral-restore"))
            .collect();
        assert!(left.is_empty(), "{point}: {left:?}");
    }
}

#[test]
fn a_killed_snapshot_or_release_is_finished_by_the_next() {
    for (point, arguments) in [
        ("pin.put", &["snapshot", "create", "app.db", "v1"][..]),
        ("publish.intended", &["release", "app.db"]),
        ("publish.landed", &["release", "app.db"]),
    ] {
        let rig = Rig::new();
        let file = rig.database("app.db");
        rig.run(["checkpoint", "app.db"]).succeeds();
        assert!(rig.crash(point, arguments), "{point} was not reached");
        sql(&file, "UPDATE t SET body = 'x' WHERE id = 1");
        rig.run(["checkpoint", "app.db"]).succeeds();
        is_sound(&rig, point);
    }
}

#[test]
fn a_fork_killed_at_any_point_is_whole_or_not_there() {
    for point in ["pin.put", "fork.pinned", "fork.landed"] {
        let rig = Rig::new();
        let file = rig.database("app.db");
        rig.run(["checkpoint", "app.db"]).succeeds();
        assert!(rig.crash(point, ["fork", "app.db", "child"]), "{point}");
        let again = rig.run(["fork", "app.db", "child"]);
        match point {
            "fork.landed" => drop(again.fails(3, &["exists already"])),
            _ => drop(again.succeeds()),
        }
        rig.run(["restore", &format!("{}/child", rig.url(".littoral/remote")), "out.db"]).succeeds();
        stock_copy(&file, &rig.path("stock.db"));
        assert_same(&rig.path("out.db"), &rig.path("stock.db"));
    }
}

#[test]
fn a_release_killed_after_its_record_is_one_that_was_done() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    rig.run(["checkpoint", "app.db"]).succeeds();
    sql(&file, "UPDATE t SET body = 'last words' WHERE id = 1");
    assert!(rig.crash("release.landed", ["release", "app.db"]));
    is_sound(&rig, "release.landed");
    assert_eq!(rig.json(["status", "app.db"])["owner"], serde_json::Value::Null);
    rig.run(["release", "app.db"]).succeeds();
    sql(&file, "UPDATE t SET body = 'and more' WHERE id = 1");
    rig.run(["checkpoint", "app.db"]).succeeds();
    is_sound(&rig, "claimed anew");
}

#[test]
fn a_rewind_killed_at_any_point_leaves_one_of_two_states_and_goes_on() {
    for point in [
        "rewind.named",
        "restore.written",
        "rewind.restored",
        "rewind.replaced",
        "publish.intended:2",
        "publish.landed:2",
    ] {
        let rig = Rig::new();
        let file = rig.database("app.db");
        let dump = || sql(&file, "PRAGMA integrity_check; SELECT count(*), sum(length(body)), max(id) FROM t;");
        rig.run(["checkpoint", "app.db"]).succeeds();
        let first = dump();
        sql(&file, "DELETE FROM t WHERE id > 2000; INSERT INTO t VALUES (7777, 'lost?');");
        let second = dump();
        let rewind = ["rewind", "app.db", "--to", "1"];
        // What is published last may be by the one who ships, who does not die here.
        let reached = rig.crash(point, rewind);
        assert!(reached || point.ends_with(":2"), "{point} was not reached");
        let now = dump();
        assert!(now == first || now == second, "{point}: {now}");
        rig.run(rewind).succeeds();
        assert_eq!(dump(), first, "{point}");
        // The state before has a name, whichever attempt gave it.
        let names = rig.json(["snapshot", "list", "app.db"]);
        let name = names["snapshots"][0]["name"].as_str().unwrap();
        assert!(name.starts_with("before-rewind-1."), "{point}: {names}");
        rig.run(["restore", "app.db", "undone.db", "--at", name]).succeeds();
        let body = sql(&rig.path("undone.db"), "SELECT body FROM t WHERE id = 7777");
        assert_eq!(body.trim(), "lost?", "{point}");
        is_sound(&rig, point);
    }
}
