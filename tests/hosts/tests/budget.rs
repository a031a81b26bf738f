//! How often commits travel where requests are bounded, and when what was shipped is folded though nobody commits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::writer::Writer;
use littoral_hosts::{Place, built, command, said};
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

/// What never takes this long unless something hangs.
const HANGS: Duration = Duration::from_secs(60);

/// Kinds of the log's records, newest first.
fn history(place: &Place) -> Vec<String> {
    let mut littoral = command(&built().littoral);
    let told = said(littoral.args(["history", &format!("{}/app.db", place.remote()), "--json"]));
    let told: Value = serde_json::from_str(&told).unwrap();
    told["records"].as_array().unwrap().iter().map(|record| record["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn p08_over_the_budget_of_requests_commits_travel_more_rarely_and_at_once_where_somebody_asks() {
    let place = Place::new();
    // The first publication alone is more than a day's share.
    let mut writer = Writer::start(&place, "&sync_interval=100ms&request_budget=30");
    writer.commit(1, 1000);
    writer.rows("PRAGMA littoral_sync");
    let before = history(&place).len();
    let last = writer.commit(20, 10);
    assert!(history(&place).len() <= before + 1, "{:?}", history(&place));
    let shipping = writer.status("shipping");
    assert!(shipping.contains("request_budget=") && !shipping.contains("100ms"), "{shipping}");
    // Those that wait are no trouble: nobody is late who was told to be.
    let safe = writer.status("safe");
    assert!(safe.starts_with("not yet: ") || safe.starts_with("yes"), "{safe}");
    let asked = Instant::now();
    assert!(writer.rows("PRAGMA littoral_sync").starts_with("1."), "it is answered");
    assert!(asked.elapsed() < HANGS);
    assert!(writer.is_safe());
    // All that waited is one batch: each more would be a request.
    assert!(history(&place).len() <= before + 2, "{:?}", history(&place));
    writer.end();
    place.lose_machine();
    place.restore("app.db", "back.db");
    assert_eq!(place.stock("back.db", "SELECT count(*), max(n) FROM t"), format!("{last}|{last}"));
}

#[test]
fn what_was_shipped_is_folded_after_a_while_though_nobody_commits_and_only_once() {
    let place = Place::new();
    fs::create_dir(place.machine().join(".littoral")).unwrap();
    fs::write(place.machine().join(".littoral/flags.toml"), "checkpoint_interval_seconds = 3\n").unwrap();
    let mut writer = Writer::start(&place, "&sync_interval=100ms");
    for _ in 0..3 {
        writer.commit(1, 1000);
        writer.until_safe();
    }
    let begun = Instant::now();
    while history(&place)[0] != "checkpoint" || history(&place).len() < 4 {
        assert!(begun.elapsed() < HANGS * 3, "{:?}", history(&place));
        std::thread::sleep(Duration::from_millis(200));
    }
    let after = history(&place).len();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(history(&place).len(), after, "there was nothing to fold");
    // Switched off, it is not; and commits travel on.
    fs::write(
        place.machine().join(".littoral/flags.toml"),
        "checkpoint_interval_seconds = 1\nenable_checkpoints = false\n",
    )
    .unwrap();
    writer.commit(1, 1000);
    writer.until_safe();
    std::thread::sleep(Duration::from_secs(3));
    writer.commit(1, 1000);
    writer.until_safe();
    assert_eq!(history(&place)[..2], ["segment", "segment"]);
    writer.end();
}
