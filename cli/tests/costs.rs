//! What it costs, how that is bounded, and the switches that are thrown while everything works.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use rig::{Rig, sql};
use std::fs;
use std::time::{Duration, Instant};

#[test]
fn status_tells_what_the_store_has_asked_for_and_what_it_comes_to() {
    let rig = Rig::new();
    let file = rig.database("app.db");
    let mut writes = rig.json(["checkpoint", "app.db"])["cost"]["total"]["writes"].as_u64().unwrap();
    for step in 0..3 {
        sql(&file, &format!("UPDATE t SET body = 'step {step}' WHERE id % 100 = {step}"));
        writes += rig.json(["checkpoint", "app.db"])["cost"]["total"]["writes"].as_u64().unwrap();
    }
    let told = rig.json(["status", "app.db", "--prices", "1000000/0"]);
    let spent = &told["spent"];
    // Listing costs as much as writing.
    let counted = spent["writes"].as_u64().unwrap();
    assert!(counted >= writes && counted <= writes + 30, "{writes} were made: {spent}");
    assert!(spent["reads"].as_u64().unwrap() > 0 && spent["bytes_up"].as_u64().unwrap() > 100_000, "{spent}");
    assert_eq!(spent["bill"], counted.to_string(), "at one for each");
    assert_eq!(spent["prices"], "1000000/0");
    assert!(spent["bill_by_end_of_month"].is_null() && spent["budget"].is_null(), "{spent}");
    // Whoever reads by a URL has no store here that pays.
    assert!(rig.json(["status", &rig.url(".littoral/remote/app.db")])["spent"].is_null());
    let told = rig.run(["status", "app.db", "--request_budget", "1", "--sync_interval", "1s"]);
    told.succeeds();
    assert!(told.stdout.contains("ahead of the budget of 0: commits travel every 10 min"), "{told:?}");
    let told = rig.run(["status", "app.db", "--request_budget", "10000000"]);
    assert!(told.stdout.contains("within the budget of "), "{told:?}");
    // It is a hint: lost, it begins anew.
    fs::remove_file(rig.path(".littoral/account1")).unwrap();
    let again = rig.json(["status", "app.db"])["spent"]["writes"].as_u64().unwrap();
    assert!(again < counted, "{again}");
}

#[test]
fn blobs_are_sent_no_faster_and_pages_read_no_faster_than_was_said() {
    for (rate, bytes) in [("--upload_rate", 1.0), ("--io_rate", 2.0)] {
        let rig = Rig::new();
        rig.database("app.db");
        // Nothing of it can be made smaller.
        sql(&rig.path("app.db"), "INSERT INTO t(body) SELECT randomblob(1000) FROM t LIMIT 3000");
        let begun = Instant::now();
        let done = rig.json(["checkpoint", "app.db", rate, "1MB"]);
        let took = begun.elapsed();
        let sent = done["cost"]["total"]["bytes_up"].as_u64().unwrap() as f64;
        // A second is saved up.
        let least = Duration::from_secs_f64(sent * bytes / 1e6 - 1.0);
        assert!(sent > 3e6 && took >= least, "{rate}: {sent} bytes in {took:?}");
        // What was not bounded is quick: one who rests holds nobody up afterwards.
        sql(&rig.path("app.db"), "INSERT INTO t(body) VALUES ('one more')");
        rig.run(["checkpoint", "app.db"]).succeeds();
        rig.run(["verify", "app.db"]).succeeds();
    }
}

#[test]
fn switches_are_thrown_for_one_volume_or_for_all_and_say_who_said_so() {
    let rig = Rig::new();
    let said = rig.run(["flags", "app.db"]);
    assert!(said.code == Some(2) && said.stderr.contains("no store yet"), "{said:?}");
    let file = rig.database("app.db");
    rig.database("other.db");
    for name in ["app.db", "other.db"] {
        rig.run(["checkpoint", name]).succeeds();
    }
    let shown = rig.json(["flags", "app.db"]);
    assert_eq!(shown["flags"]["enable_checkpoints"]["value"], true);
    assert_eq!(shown["flags"]["enable_checkpoints"]["said_of"], "default");
    assert_eq!(shown["flags"]["checkpoint_interval_seconds"]["value"], 900);
    // The kill switch: what is being made is made to its end, and none after it.
    let off = rig.json(["flags", "app.db", "--all", "enable_checkpoints=false", "checkpoint_interval_seconds=60"]);
    assert!(off["at_work"].is_null());
    assert_eq!(off["flags"]["enable_checkpoints"]["said_of"], "all");
    sql(&file, "UPDATE t SET body = 'changed' WHERE id = 7");
    let said = rig.run(["checkpoint", "app.db"]);
    assert!(!said.stderr.is_empty() && said.code != Some(0), "{said:?}");
    assert!(said.stderr.contains("switched off") && said.stderr.contains("enable_checkpoints=true"), "{said:?}");
    rig.json(["flags", "app.db", "enable_checkpoints=true"]);
    rig.run(["checkpoint", "app.db"]).succeeds();
    assert_eq!(rig.run(["checkpoint", "other.db"]).code, said.code, "the other one has none of its own");
    rig.json(["flags", "other.db", "--all", "enable_checkpoints=default"]);
    rig.run(["checkpoint", "other.db"]).succeeds();
    // A tenant's stand between those of all and a volume's own.
    let off = rig.json(["flags", "other.db", "--tenant", "acme", "--of-tenant", "enable_checkpoints=false"]);
    assert_eq!(off["flags"]["enable_checkpoints"]["said_of"], "tenant acme");
    sql(&rig.path("other.db"), "UPDATE t SET body = 'changed' WHERE id = 7");
    assert_ne!(rig.run(["checkpoint", "other.db", "--tenant", "acme"]).code, Some(0));
    rig.run(["checkpoint", "other.db", "--tenant", "blue"]).succeeds();
    let said = rig.run(["flags", "other.db", "--of-tenant", "enable_checkpoints=false"]);
    assert!(said.code == Some(2) && said.stderr.contains("no tenant's"), "{said:?}");
    // Without deltas a change is its whole chunk.
    sql(&file, "UPDATE t SET body = 'again' WHERE id = 7");
    assert_eq!(rig.json(["checkpoint", "app.db", "--dry-run"])["chunks"][0]["action"], "delta");
    rig.json(["flags", "app.db", "enable_chunk_deltas=false"]);
    assert_eq!(rig.json(["checkpoint", "app.db", "--dry-run"])["chunks"][0]["action"], "rewrite");
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.run(["verify", "app.db"]).succeeds();
    for (said, words) in [
        ("enable_checkpoint=false", "did you mean enable_checkpoints"),
        ("nonsense=1", "there are enable_checkpoints"),
        ("enable_checkpoints", "NAME=VALUE"),
        ("enable_checkpoints=off", "true or false"),
        ("checkpoint_interval_seconds=-1", "number of seconds"),
    ] {
        let before = fs::read(rig.path(".littoral/flags.toml")).unwrap();
        let run = rig.run(["flags", "app.db", said]);
        assert!(run.code == Some(2) && run.stderr.contains(words), "{said}: {run:?}");
        assert_eq!(fs::read(rig.path(".littoral/flags.toml")).unwrap(), before);
    }
    // One that cannot be understood switches nothing.
    fs::write(rig.path(".littoral/flags.toml"), "enable_checkpoints = maybe").unwrap();
    sql(&file, "UPDATE t SET body = 'and again' WHERE id = 7");
    let said = rig.run(["checkpoint", "app.db"]);
    assert!(said.code != Some(0) && said.stderr.contains("flags.toml") && said.stderr.contains("line 1"), "{said:?}");
}
