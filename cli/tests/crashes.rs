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
