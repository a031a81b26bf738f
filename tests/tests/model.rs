//! Random SQL, checkpoints, coalescings, prunes, snapshots, crashes, lost answers, lost disks, two machines: every restore is
//! the stock copy, byte for byte.
//!
//! Without end: `cargo run -p littoral-tests --bin model`. One seed again: `... -- --seed N --worlds 1`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_engine::logs::tables::TABLES_POINTS;
use littoral_engine::logs::{RESTORE_POINTS, SHIP_POINTS, TAKE_BACK_POINTS, TRUNCATE_POINTS};
use littoral_tests::crash::POINTS;
use littoral_tests::world::{Layout, Tally, World};
use std::time::{Duration, Instant};

/// A slow machine lives through fewer worlds.
const PATIENCE: Duration = Duration::from_secs(100);

fn live(world: impl Future<Output = Tally>) -> Tally {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(world)
}

fn worlds(seeds: std::ops::Range<u64>, steps: u64) -> Tally {
    let since = Instant::now();
    let mut all = Tally::default();
    let mut lived = 0;
    for seed in seeds {
        println!("seed {seed}");
        all.merge(&live(World::new(Layout::of(seed, steps)).live()));
        lived += steps;
        if since.elapsed() > PATIENCE {
            break;
        }
    }
    println!("{lived} steps in {} s: {all}", since.elapsed().as_secs());
    assert!(lived >= 2000, "only {lived} steps");
    all
}

#[test]
fn every_restore_is_the_stock_copy_whatever_happened() {
    let all = worlds(0..150, 60);
    for what in [
        "commits",
        "restores compared",
        "restores checked by SQLite",
        "images refused",
        "deltas coalesced",
        "objects pruned",
    ] {
        assert!(all.of(what) > 0, "{what} never came to pass");
    }
}

#[test]
fn every_restore_is_the_stock_copy_in_long_histories_too() {
    worlds(10_000..10_012, 400);
}

#[test]
fn a_death_at_any_named_point_loses_nothing_and_needs_no_hand() {
    for point in POINTS {
        for passes in 0..4 {
            let layout = Layout { durable: passes % 2 == 0, ..Layout::of(passes, 0) };
            let tally = live(World::new(layout).walk(point, passes));
            let reached = tally.of(&format!("died at {point}")) == 1;
            // A body of its own takes a larger database than this one: see `publication.rs`.
            assert!(reached || passes > 0 || point == "publish.body", "{point} was never reached");
            let resumed = tally.of("resumed blobs");
            assert!(
                point != "checkpoint.uploaded" || passes > 0 || resumed > 0,
                "what had been uploaded was made again"
            );
        }
    }
}

#[test]
fn the_named_points_are_those_of_the_sources() {
    let mut found = Vec::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/src"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let points =
                    text.split("reach(\"").skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned));
                found.extend(points);
            }
        }
    }
    found.sort();
    found.dedup();
    // These die in models of their own: engine/tests/{segments,forks}.rs, and cli/tests/{crashes,table_copies}.rs.
    let others = [
        "segment.uploaded",
        "fork.body",
        "fork.cleared",
        "fork.landed",
        "fork.log",
        "fork.pinned",
        "prune.left",
        "release.landed",
    ];
    // And these in cli/tests/jobs.rs, which finds its points by itself.
    let jobs = ["job.wished", "job.begun", "job.worked", "job.ended", "verify.blob", "verify.checked"];
    // And these where copies are made and promoted: engine/tests/copies.rs, and cli/tests/{copies,table_copies}.rs.
    let copies = [
        "promote.copied",
        "promote.fenced",
        "promote.log",
        "promote.marked",
        "replicate.blob",
        "replicate.filled",
        "replicate.filling",
        "replicate.marked",
        "replicate.named",
        "replicate.noted",
        "replicate.pruned",
        "replicate.record",
        "replicate.snapshot",
    ];
    // And these where logs are shipped, truncated and restored: engine/tests/logs.rs, and cli/tests/log_volumes.rs.
    // And these in cli/tests/log_tables.rs.
    let table = ["log.table.begun", "log.table.appended", "log.table.synced"];
    // And these in cli/tests/table_volumes.rs.
    let logs =
        [&SHIP_POINTS[..], &TRUNCATE_POINTS, &TAKE_BACK_POINTS, &RESTORE_POINTS, &TABLES_POINTS, &table].concat();
    let mut known = [&POINTS[..], &others, &jobs, &copies, &logs[..]].concat();
    known.sort_unstable();
    assert_eq!(found, known);
}
