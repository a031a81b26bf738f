//! Copies in other object stores, through the door: sent from what was staged, a prefix at every moment, read where the primary cannot be,
//! promoted by name; and a place that is down, full or foreign, which costs the primary nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use littoral_test_s3::S3Server;
use rig::{BINARY, Rig, Run, Tiny, assert_same, sql, stock_copy};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// For hangs only.
const LONG: Duration = Duration::from_secs(180);

/// A database with one checkpoint, whose settings name a copy in a folder of the rig.
fn rig_with_copy() -> Rig {
    let mut rig = Rig::new();
    rig.database("app.db");
    let copy = rig.url("copy");
    rig.set("LITTORAL_COPY", &copy);
    rig.set("LITTORAL_GRACE", "0s");
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig
}

fn change(rig: &Rig, step: u32) {
    sql(
        &rig.path("app.db"),
        &format!("UPDATE t SET body = hex(randomblob(40)) WHERE id BETWEEN {step}00 AND {step}40"),
    );
}

fn copied(rig: &Rig) -> Value {
    rig.json(["copy", "app.db"])["copies"][0].clone()
}

fn at_copy(rig: &Rig) -> String {
    format!("{}/app.db", rig.url("copy"))
}

/// The copy restores to the database as it is now, and is sound in itself.
fn is_whole(rig: &Rig) {
    stock_copy(&rig.path("app.db"), &rig.path("stock.db"));
    rig.run(["restore", &at_copy(rig), "out.db", "--force"]).succeeds();
    assert_same(&rig.path("out.db"), &rig.path("stock.db"));
    let log = rig.json(["verify", &at_copy(rig), "--no-restore"]);
    assert!(log["problems"].as_array().unwrap().is_empty(), "{log}");
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push((path.clone(), fs::read(&path).unwrap())) }
        }
    }
    found.sort();
    found
}

fn lag(rig: &Rig) -> Value {
    rig.json(["status", "app.db"])["copies"][0].clone()
}

fn waited(what: &str, until: impl Fn() -> bool) {
    let since = Instant::now();
    while !until() {
        assert!(since.elapsed() < LONG, "{what}: not after {LONG:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn worker(rig: &Rig) -> Child {
    let mut command = rig.command(BINARY);
    command.env("LITTORAL_SYNC_INTERVAL", "100ms").args(["--json", "worker", "app.db"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn ended(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_checkpoint_is_copied_from_what_was_staged_and_the_primary_is_not_read_for_it() {
    let rig = rig_with_copy();
    for step in 1..4 {
        let before = lag(&rig);
        assert!(before["lag_lsns"].as_u64().unwrap() > 0 && before["lag_bytes"].as_u64().unwrap() > 0, "{before}");
        let did = copied(&rig);
        assert_eq!(did["bytes_from_primary"], 0, "{did}");
        assert!(did["records"].as_u64().unwrap() > 0 && did["blobs"].as_u64().unwrap() > 0, "{did}");
        let after = lag(&rig);
        for figure in ["lag_lsns", "lag_seconds", "lag_bytes", "lag_records"] {
            assert_eq!(after[figure], 0, "{figure}: {after}");
        }
        is_whole(&rig);
        change(&rig, step);
        rig.run(["checkpoint", "app.db"]).succeeds();
    }
    // What is not at hand any more the primary has.
    fs::remove_dir_all(rig.path(".littoral/spool")).unwrap();
    let did = copied(&rig);
    assert!(did["bytes_from_primary"].as_u64().unwrap() > 0, "{did}");
    is_whole(&rig);
    assert_eq!(copied(&rig)["records"], 0);
    let shown = rig.run(["status", "app.db"]);
    assert!(shown.stdout.contains("holds everything"), "{}", shown.stdout);
}

#[test]
fn i10_what_is_damaged_at_hand_or_at_the_primary_is_not_copied() {
    let rig = rig_with_copy();
    for (path, bytes) in files(&rig.path(".littoral/spool")) {
        let mut hurt = bytes.clone();
        hurt[bytes.len() / 2] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, hurt).unwrap();
    }
    let did = copied(&rig);
    assert!(did["bytes_from_primary"].as_u64().unwrap() > 0, "a damaged file was believed: {did}");
    is_whole(&rig);
    change(&rig, 1);
    rig.run(["checkpoint", "app.db"]).succeeds();
    fs::remove_dir_all(rig.path(".littoral/spool")).unwrap();
    let (pack, bytes) = files(&rig.path(".littoral/remote/app.db/pack")).pop().unwrap();
    let mut hurt = bytes.clone();
    hurt[bytes.len() / 2] ^= 1;
    fs::write(&pack, hurt).unwrap();
    let there = files(&rig.path("copy/app.db/log"));
    rig.run(["copy", "app.db"]).fails(4, &["not those it is named after"]);
    assert_eq!(files(&rig.path("copy/app.db/log")), there, "a record was copied whose blob is damaged");
    fs::write(&pack, bytes).unwrap();
    rig.run(["copy", "app.db"]).succeeds();
    is_whole(&rig);
}

#[test]
fn a_worker_copies_each_segment_by_itself_and_a_place_that_is_down_holds_nothing_back_and_catches_up() {
    let rig = rig_with_copy();
    // A file stands where the folder would be.
    fs::write(rig.path("copy"), b"no folder").unwrap();
    let child = worker(&rig);
    let lsn = || rig.json(["status", "app.db"])["lsn"].as_u64().unwrap();
    let mut before = lsn();
    for step in 1..5 {
        change(&rig, step);
        waited("the primary goes on", || lsn() > before);
        before = lsn();
    }
    waited("it is told that the copy is behind", || lag(&rig)["failed"].is_string());
    let behind = lag(&rig);
    assert!(behind["lag_lsns"].as_u64().unwrap() > 0 && behind["failed_since"].is_object(), "{behind}");
    fs::remove_file(rig.path("copy")).unwrap();
    waited("it catches up", || lag(&rig)["lag_records"] == 0 && lag(&rig)["failed"].is_null());
    change(&rig, 6);
    waited("the next one travels", || lsn() > before);
    waited("and is copied", || lag(&rig)["lag_records"] == 0);
    ended(child);
    is_whole(&rig);
}

#[test]
fn p01_a_copy_that_is_killed_at_any_moment_holds_a_state_that_the_volume_had() {
    let rig = rig_with_copy();
    let mut known = vec![sql(&rig.path("app.db"), "SELECT sum(length(body)) FROM t")];
    for step in 1..6 {
        change(&rig, step);
        sql(&rig.path("app.db"), &format!("UPDATE t SET body = body || '{step}' WHERE id = 1"));
        rig.run(["checkpoint", "app.db"]).succeeds();
        known.push(sql(&rig.path("app.db"), "SELECT sum(length(body)) FROM t"));
    }
    for nth in 1..12 {
        let point = format!("replicate.{}:{}", ["blob", "named", "record"][nth % 3], 1 + nth % 2);
        if !rig.crash(&point, ["copy", "app.db"]) {
            continue;
        }
        if rig.path("copy/app.db/log").exists() && !files(&rig.path("copy/app.db/log")).is_empty() {
            let restored = rig.run(["restore", &at_copy(&rig), "cut.db", "--force"]);
            // The first record claims, and holds no page yet.
            if restored.code == Some(0) {
                let sum = sql(&rig.path("cut.db"), "SELECT sum(length(body)) FROM t");
                assert!(known.contains(&sum), "{point}: {sum} was never a state: {known:?}");
            } else {
                restored.fails(5, &["nothing was checkpointed yet"]);
            }
        }
    }
    rig.run(["copy", "app.db"]).succeeds();
    is_whole(&rig);
}

#[test]
fn a_primary_that_is_lost_is_restored_from_the_copy_up_to_what_that_has() {
    let rig = rig_with_copy();
    rig.run(["copy", "app.db"]).succeeds();
    stock_copy(&rig.path("app.db"), &rig.path("stock.db"));
    let position = rig.json(["status", "app.db"])["position"].clone();
    change(&rig, 1);
    rig.run(["checkpoint", "app.db"]).succeeds();
    let newer = rig.json(["status", "app.db"])["position"].clone();
    let primary = rig.path(".littoral/remote");
    // Its folder emptied, then gone, then something else in its place.
    fs::rename(&primary, rig.path("away")).unwrap();
    for nth in 0..3 {
        match nth {
            0 => fs::create_dir(&primary).unwrap(),
            1 => fs::remove_dir_all(&primary).unwrap(),
            _ => fs::write(&primary, b"no folder").unwrap(),
        }
        let url = format!("file://{}/app.db", primary.display());
        let did = rig.json(["restore", &url, "out.db", "--force"]);
        assert_eq!(did["position"], position, "{nth}: {did}");
        assert_eq!(did["copy"]["url"], rig.url("copy").as_str(), "{nth}: {did}");
        assert!(did["published"]["ms"].is_u64());
        assert_same(&rig.path("out.db"), &rig.path("stock.db"));
        let said: Run = rig.run(["restore", &url, "out.db", "--force"]);
        assert!(said.stdout.contains("from the copy at"), "{said:?}");
        assert!(said.stderr.contains("the copy is read instead"), "{said:?}");
    }
    // Without a copy that is named it is what it was.
    rig.run(["restore", &format!("file://{}/app.db", primary.display()), "none.db", "--copy", "none"]);
    assert!(!rig.path("none.db").exists());
    fs::remove_file(&primary).unwrap();
    fs::rename(rig.path("away"), &primary).unwrap();
    let did = rig.json(["restore", "app.db", "out.db", "--force"]);
    assert_eq!((&did["position"], &did["copy"]), (&newer, &Value::Null));
}

#[test]
fn i10_bit_rot_at_the_primary_is_healed_from_the_copy_blob_by_blob() {
    let rig = rig_with_copy();
    for step in 1..3 {
        change(&rig, step);
        rig.run(["checkpoint", "app.db"]).succeeds();
    }
    rig.run(["copy", "app.db"]).succeeds();
    stock_copy(&rig.path("app.db"), &rig.path("stock.db"));
    let remote = rig.path(".littoral/remote/app.db");
    let all: Vec<_> = files(&remote).into_iter().filter(|(path, _)| !path.ends_with("head")).collect();
    let mut healed = 0;
    for (path, bytes) in &all {
        let mut hurt = bytes.clone();
        let middle = bytes.len() / 2;
        hurt[middle] ^= 1;
        for content in [Some(hurt), None] {
            match &content {
                Some(hurt) => fs::write(path, hurt).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            let is_newest = content.is_none() && path.ends_with(newest(&remote.join("log"), &all));
            let did = rig.json(["restore", "app.db", "out.db", "--force"]);
            if !is_newest {
                assert_same(&rig.path("out.db"), &rig.path("stock.db"));
                healed += did["from_copies"].as_array().unwrap().len();
                assert_eq!(did["copy"], Value::Null, "{}: the primary answers", path.display());
            }
            fs::write(path, bytes).unwrap();
        }
    }
    assert!(healed > 3, "nothing was healed: {healed}");
    // Without the copy it is an error, and never a wrong page.
    let (pack, bytes) = files(&remote.join("chunk")).pop().unwrap();
    let mut hurt = bytes.clone();
    hurt[bytes.len() / 2] ^= 1;
    fs::write(&pack, hurt).unwrap();
    // Who reads a page when he needs it has it from the copy as well.
    let primary = rig.url(".littoral/remote");
    let lazily = |folder: &str, copy: &str| {
        fs::create_dir(rig.path(folder)).unwrap();
        let file = format!("{folder}/app.db");
        let sql = "SELECT count(*), sum(length(body)) FROM t; PRAGMA integrity_check";
        rig.run(["shell", &file, sql, "--remote", &primary, "--volume", "app.db", "--copy", copy])
    };
    let said = lazily("new", &rig.url("copy"));
    let stock = sql(&rig.path("app.db"), "SELECT count(*), sum(length(body)) FROM t");
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    assert!(
        digits(&said.succeeds().stdout).ends_with(&digits(&stock)) && said.stdout.contains("ok"),
        "{said:?} {stock}"
    );
    assert_ne!(lazily("alone", "none").code, Some(0));
    rig.run(["restore", "app.db", "out.db", "--force", "--copy", "none"]).fails(4, &[]);
    let said = rig.run(["restore", "app.db", "out.db", "--force"]);
    assert!(said.succeeds().stdout.contains("lost or damaged at the primary"), "{said:?}");
    // Where both have it wrong, it is said.
    let name = pack.file_name().unwrap();
    let other = rig.path("copy/app.db/chunk").join(name);
    let mut hurt = fs::read(&other).unwrap();
    hurt[bytes.len() / 3] ^= 1;
    hurt[bytes.len() / 2] ^= 4;
    fs::write(&other, hurt).unwrap();
    rig.run(["restore", "app.db", "out.db", "--force"]).fails(4, &[]);
}

fn newest(log: &Path, all: &[(PathBuf, Vec<u8>)]) -> PathBuf {
    all.iter().map(|(path, _)| path.clone()).filter(|path| path.starts_with(log)).min().unwrap()
}

#[test]
fn i3_nobody_claims_a_volume_at_a_copy_before_it_is_promoted_and_then_its_primarys_writer_is_fenced() {
    let rig = rig_with_copy();
    rig.run(["copy", "app.db"]).succeeds();
    change(&rig, 1);
    rig.run(["checkpoint", "app.db"]).succeeds();
    fs::create_dir(rig.path("new")).unwrap();
    fs::copy(rig.path("app.db"), rig.path("new/app.db")).unwrap();
    let there = files(&rig.path("copy"));
    let copy = rig.url("copy");
    let claims =
        ["checkpoint", "new/app.db", "--volume", "app.db", "--copy", "none", "--takeover", "1", "--remote", &copy];
    rig.run(claims).fails(3, &["is a copy of the volume at", "littoral promote"]);
    assert_eq!(files(&rig.path("copy")), there, "something was written");
    rig.run(["promote", "app.db"]).fails(2, &["its url"]);
    rig.run(["promote", &format!("file://{}/app.db", rig.path(".littoral/remote").display())])
        .fails(3, &["is no copy"]);
    for point in ["promote.fenced", "promote.copied", "promote.marked"] {
        assert!(rig.crash(point, ["promote", &at_copy(&rig)]), "{point} was not reached");
        if point == "promote.copied" {
            // It is no volume yet.
            let mut claims = claims;
            claims[7] = "2";
            rig.run(claims).fails(3, &["littoral promote"]);
        }
    }
    let did = rig.json(["promote", &at_copy(&rig)]);
    assert_eq!((&did["fenced"], &did["was_promoted"], &did["epoch"]), (&true.into(), &true.into(), &2.into()));
    // What was published before the fence is there, though nobody had copied it.
    is_whole(&rig);
    change(&rig, 2);
    rig.run(["checkpoint", "app.db"]).fails(3, &["goes on at", &copy]);
    rig.run(["copy", "app.db"]).fails(3, &["was promoted"]);
    let mut claims = claims;
    claims[7] = "2";
    rig.run(claims).succeeds();
    assert_eq!(rig.json(["status", &at_copy(&rig)])["epoch"], 3);
}

#[test]
fn a_copy_whose_primary_cannot_be_told_is_promoted_only_by_who_says_so() {
    let rig = rig_with_copy();
    rig.run(["copy", "app.db"]).succeeds();
    fs::rename(rig.path(".littoral/remote"), rig.path("away")).unwrap();
    let there = files(&rig.path("copy"));
    rig.run(["promote", &at_copy(&rig)]).fails(3, &["cannot be fenced", "--without-primary"]);
    assert_eq!(files(&rig.path("copy")), there, "something was written");
    let did = rig.json(["promote", &at_copy(&rig), "--without-primary"]);
    assert_eq!((&did["fenced"], &did["position"]), (&false.into(), &"1.1".into()));
    // The old writer comes back: he goes on at his primary, and his copies are refused.
    fs::rename(rig.path("away"), rig.path(".littoral/remote")).unwrap();
    change(&rig, 1);
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.run(["copy", "app.db"]).fails(3, &["was promoted"]);
    assert!(lag(&rig)["failed"].as_str().unwrap().contains("was promoted"), "{}", lag(&rig));
}

#[test]
fn p14_a_volume_is_not_begun_anew_where_its_copy_says_that_the_primary_has_lost_it() {
    let rig = rig_with_copy();
    rig.run(["copy", "app.db"]).succeeds();
    fs::create_dir(rig.path("new")).unwrap();
    fs::copy(rig.path("app.db"), rig.path("new/app.db")).unwrap();
    let empty = rig.url("empty");
    rig.run(["checkpoint", "new/app.db", "--remote", &empty, "--volume", "app.db"])
        .fails(6, &["the primary has lost it", "littoral promote"]);
    rig.run(["checkpoint", "new/app.db", "--remote", &empty, "--volume", "other.db"]).succeeds();
}

#[test]
fn a_database_is_opened_and_read_on_a_new_machine_while_its_primary_is_away_and_claims_nothing() {
    let rig = rig_with_copy();
    rig.run(["copy", "app.db"]).succeeds();
    let primary = rig.url("primary");
    fs::rename(rig.path(".littoral/remote"), rig.path("away")).unwrap();
    fs::create_dir(rig.path("new")).unwrap();
    let named = ["--remote", &primary, "--volume", "app.db"];
    let sum = "SELECT count(*), sum(length(body)) FROM t";
    let said = |sql: &str| {
        let mut words = vec!["shell", "new/app.db", sql];
        words.extend(named);
        rig.run(words)
    };
    let read = said(sum);
    let stock = sql(&rig.path("app.db"), sum).replace('|', "");
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    assert!(digits(&read.succeeds().stdout).ends_with(&digits(&stock)), "{read:?} {stock}");
    let there = files(&rig.path("copy/app.db/log"));
    let mut checkpoint = vec!["checkpoint", "new/app.db", "--takeover", "1"];
    checkpoint.extend(named);
    let refused = rig.run(checkpoint);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert_eq!(files(&rig.path("copy/app.db/log")), there, "something was published at the copy");
    assert!(!rig.path("primary/app.db/log").exists(), "a volume was begun at the empty primary");
}

#[test]
fn the_doctor_says_how_the_copies_stand() {
    let rig = rig_with_copy();
    let copy = |rig: &Rig| {
        let checks = rig.json(["doctor", "app.db"])["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["name"] == "copy").unwrap()
    };
    assert_eq!(copy(&rig)["answer"], "ok");
    rig.run(["copy", "app.db"]).succeeds();
    assert!(copy(&rig)["what"].as_str().unwrap().contains("up to 1.1"), "{}", copy(&rig));
    rig.run(["promote", &at_copy(&rig)]).succeeds();
    assert_eq!(copy(&rig)["answer"], "warn");
}

#[test]
fn p01_what_a_prune_doomed_goes_from_the_copy_after_its_own_grace_and_not_what_is_pinned_there() {
    let mut rig = rig_with_copy();
    change(&rig, 1);
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.run(["snapshot", "create", "app.db", "kept"]).succeeds();
    stock_copy(&rig.path("app.db"), &rig.path("kept.db"));
    rig.run(["copy", "app.db"]).succeeds();
    for step in 2..6 {
        change(&rig, step);
        rig.run(["checkpoint", "app.db"]).succeeds();
        if step == 3 {
            rig.run(["copy", "app.db"]).succeeds();
            // Somebody holds a state at the copy that nobody holds at the primary.
            rig.run(["snapshot", "create", &at_copy(&rig), "mine"]).succeeds();
            stock_copy(&rig.path("app.db"), &rig.path("mine.db"));
        }
    }
    rig.run(["copy", "app.db"]).succeeds();
    assert!(rig.json(["prune", "app.db", "--keep-last", "1"])["blobs"].as_u64().unwrap() > 0);
    let before = files(&rig.path("copy/app.db")).len();
    rig.set("LITTORAL_GRACE", "1h");
    let did = copied(&rig);
    assert_eq!(did["pruned"], 0, "before its own grace was over: {did}");
    rig.set("LITTORAL_GRACE", "0s");
    let did = copied(&rig);
    // No manifest snapshot stands at the state that is held at the copy: it waits.
    assert_eq!(did["pruned"], 0, "{did}");
    assert!(did["prune_waits"].as_str().unwrap().contains("holds the state of record"), "{did}");
    rig.run(["restore", &at_copy(&rig), "out.db", "--force", "--at", "mine"]).succeeds();
    assert_same(&rig.path("out.db"), &rig.path("mine.db"));
    rig.run(["snapshot", "drop", &at_copy(&rig), "mine"]).succeeds();
    let did = copied(&rig);
    assert!(did["pruned"].as_u64().unwrap() > 0 && files(&rig.path("copy/app.db")).len() < before, "{did}");
    // What is pinned at the primary stays at the copy, too.
    rig.run(["restore", &at_copy(&rig), "out.db", "--force", "--at", "kept"]).succeeds();
    assert_same(&rig.path("out.db"), &rig.path("kept.db"));
    is_whole(&rig);
    // Of what the primary has nothing is missing, and nothing is left over.
    let names = |folder: &str| {
        let top = rig.path(folder);
        let keep = |path: &Path| {
            let path = path.strip_prefix(&top).unwrap().to_owned();
            let is_hint = path.ends_with("head") || path.ends_with("copy") || path.starts_with("probe");
            (!is_hint).then_some(path)
        };
        files(&top).iter().filter_map(|(path, _)| keep(path)).collect::<std::collections::BTreeSet<_>>()
    };
    let (primary, copy) = (names(".littoral/remote/app.db"), names("copy/app.db"));
    let newest_only: Vec<_> =
        primary.difference(&copy).filter(|path| !path.starts_with("snap") && !path.starts_with("shard")).collect();
    assert!(newest_only.is_empty(), "missing at the copy: {newest_only:?}");
    assert!(
        copy.difference(&primary).next().is_none(),
        "left over: {:?}",
        copy.difference(&primary).collect::<Vec<_>>()
    );
    // A name that is dropped at the primary is dropped at the copy with the next checkpoint.
    rig.run(["snapshot", "drop", "app.db", "kept"]).succeeds();
    change(&rig, 7);
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.run(["copy", "app.db"]).succeeds();
    rig.run(["restore", &at_copy(&rig), "out.db", "--force", "--at", "kept"]).fails(5, &["no snapshot is called kept"]);
}

#[test]
fn a_copy_that_is_behind_a_prune_begins_anew_at_what_is_left_and_is_whole() {
    let rig = rig_with_copy();
    rig.run(["copy", "app.db"]).succeeds();
    for step in 1..6 {
        change(&rig, step);
        rig.run(["checkpoint", "app.db"]).succeeds();
    }
    rig.run(["prune", "app.db", "--keep-last", "1"]).succeeds();
    let did = copied(&rig);
    assert!(did["began_at_record"].as_u64().unwrap() > 2, "{did}");
    is_whole(&rig);
    // Nothing is known here of the copy any more: it is asked.
    fs::remove_dir_all(rig.path(".littoral/copies")).unwrap();
    assert_eq!(copied(&rig)["records"], 0);
    is_whole(&rig);
}

#[test]
fn nothing_is_copied_over_a_volume_that_is_no_copy_of_this_one() {
    let mut rig = rig_with_copy();
    fs::create_dir(rig.path("elsewhere")).unwrap();
    rig.database("elsewhere/foreign.db");
    let copy = rig.url("copy");
    rig.run(["checkpoint", "elsewhere/foreign.db", "--remote", &copy, "--volume", "app.db", "--copy", "none"])
        .succeeds();
    let there = files(&rig.path("copy"));
    rig.run(["copy", "app.db"]).fails(3, &["it is no copy"]);
    assert_eq!(files(&rig.path("copy")), there, "something was written");
    // A copy of another volume of that name.
    let second = rig.url("second");
    rig.set("LITTORAL_COPY", &second);
    rig.run(["copy", "app.db"]).succeeds();
    rig.run(["copy", &format!("{copy}/app.db"), &second]).fails(3, &["is a copy of another volume"]);
    rig.run(["copy", "app.db", &format!("file://{}", rig.path(".littoral/remote").display())])
        .fails(2, &["not copied onto itself"]);
    rig.run(["copy", "app.db", "--copy", "none"]).fails(2, &["nowhere to copy to"]);
}

#[test]
fn a_volume_is_copied_by_its_url_without_a_store_and_to_several_places_of_which_one_may_fail() {
    let mut rig = rig_with_copy();
    let primary = format!("file://{}/app.db", rig.path(".littoral/remote").display());
    rig.run(["copy", &primary, &rig.url("copy")]).succeeds();
    is_whole(&rig);
    fs::write(rig.path("down"), b"no folder").unwrap();
    let several = format!("{},{},{}", rig.url("copy"), rig.url("down"), rig.url("third"));
    rig.set("LITTORAL_COPY", &several);
    change(&rig, 1);
    rig.run(["checkpoint", "app.db"]).succeeds();
    let said = rig.run(["copy", "app.db"]);
    assert!(said.code != Some(0) && said.stderr.contains("down"), "{said:?}");
    is_whole(&rig);
    let third = format!("{}/app.db", rig.url("third"));
    rig.run(["restore", &third, "third.db"]).succeeds();
    assert_same(&rig.path("third.db"), &rig.path("stock.db"));
    let copies = rig.json(["status", "app.db"])["copies"].as_array().unwrap().clone();
    assert_eq!(copies.len(), 3);
    assert!(copies[1]["failed"].is_string() && copies[0]["failed"].is_null(), "{copies:?}");
    // What waits for the one that is down is still at hand when it is there.
    fs::remove_file(rig.path("down")).unwrap();
    let did = rig.json(["copy", "app.db"])["copies"].as_array().unwrap().clone();
    assert_eq!(did[1]["records"].as_u64().map(|records| records > 0), Some(true), "{did:?}");
}

#[test]
fn a_place_that_is_full_fails_by_name_and_goes_on_when_there_is_room() {
    let mut rig = Rig::new();
    rig.database("app.db");
    let Some(tiny) = Tiny::mount(&rig.path("tiny"), 200) else { return };
    let copy = rig.url("tiny/copy");
    rig.set("LITTORAL_COPY", &copy);
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.run(["copy", "app.db"]).fails(1, &["full"]);
    change(&rig, 1);
    rig.run(["checkpoint", "app.db"]).succeeds();
    tiny.resize(20_000);
    rig.run(["copy", "app.db"]).succeeds();
    stock_copy(&rig.path("app.db"), &rig.path("stock.db"));
    rig.run(["restore", &format!("{copy}/app.db"), "out.db"]).succeeds();
    assert_same(&rig.path("out.db"), &rig.path("stock.db"));
}

#[test]
fn a_copy_of_a_folder_in_a_real_s3_and_back_is_the_same_and_heals() {
    let server = S3Server::shared();
    let mut rig = Rig::new();
    for (name, value) in server.env() {
        rig.set(name, &value);
    }
    rig.database("app.db");
    let bucket = server.bucket();
    let copy = format!("s3://{bucket}/copies");
    rig.set("LITTORAL_COPY", &copy);
    rig.run(["checkpoint", "app.db"]).succeeds();
    assert_eq!(copied(&rig)["bytes_from_primary"], 0);
    change(&rig, 1);
    rig.run(["checkpoint", "app.db"]).succeeds();
    assert_eq!(copied(&rig)["bytes_from_primary"], 0);
    stock_copy(&rig.path("app.db"), &rig.path("stock.db"));
    let (pack, bytes) = files(&rig.path(".littoral/remote/app.db/chunk")).pop().unwrap();
    let mut hurt = bytes.clone();
    hurt[bytes.len() / 2] ^= 1;
    fs::write(&pack, hurt).unwrap();
    let did = rig.json(["restore", "app.db", "out.db"]);
    assert_eq!(did["from_copies"].as_array().unwrap().len(), 1, "{did}");
    assert_same(&rig.path("out.db"), &rig.path("stock.db"));
    fs::remove_dir_all(rig.path(".littoral/remote")).unwrap();
    rig.run(["restore", "app.db", "out.db", "--force"]).succeeds();
    assert_same(&rig.path("out.db"), &rig.path("stock.db"));
}

/// A database's volume at this place is gone on with from a file that is the same, by who names the term.
fn moved<'a>(file: &'a str, place: &'a str, copy: &'a str, epoch: &'a str) -> Vec<&'a str> {
    let mut words = vec!["checkpoint", file, "--volume", "app.db", "--remote", place, "--copy", copy];
    words.extend(["--takeover", epoch]);
    words
}

#[test]
fn i3_a_copy_whose_volume_has_moved_fences_it_where_it_is_written_now() {
    let mut rig = rig_with_copy();
    let (first, second) = (rig.url("copy"), rig.url("second"));
    rig.set("LITTORAL_COPY", &format!("{first},{second}"));
    rig.run(["copy", "app.db"]).succeeds();
    rig.unset("LITTORAL_COPY");
    let at_second = format!("{second}/app.db");
    assert_eq!(rig.json(["promote", &at_copy(&rig)])["epoch"], 2);
    // The second one is the old primary's as far as it knows: that was left.
    rig.run(["promote", &at_second]).fails(3, &["it was left for", &at_copy(&rig)]);
    fs::create_dir(rig.path("new")).unwrap();
    fs::copy(rig.path("app.db"), rig.path("new/app.db")).unwrap();
    rig.run(moved("new/app.db", &first, &second, "2")).succeeds();
    sql(&rig.path("new/app.db"), "UPDATE t SET body = 'moved' WHERE id = 7");
    rig.run(["checkpoint", "new/app.db", "--copy", &second]).succeeds();
    rig.run(["copy", "new/app.db", "--copy", &second]).succeeds();
    sql(&rig.path("new/app.db"), "UPDATE t SET body = 'moved again' WHERE id = 8");
    rig.run(["checkpoint", "new/app.db", "--copy", &second]).succeeds();
    stock_copy(&rig.path("new/app.db"), &rig.path("stock.db"));
    let did = rig.json(["promote", &at_second]);
    assert_eq!((&did["fenced"], &did["primary"]), (&true.into(), &first.as_str().into()), "{did}");
    sql(&rig.path("new/app.db"), "UPDATE t SET body = 'lost' WHERE id = 9");
    rig.run(["checkpoint", "new/app.db"]).fails(3, &["goes on at", &at_second]);
    rig.run(["restore", &at_second, "out.db"]).succeeds();
    assert_same(&rig.path("out.db"), &rig.path("stock.db"));
}

#[test]
fn i3_a_copy_is_no_primary_neither_to_copy_from_nor_to_fence() {
    let mut rig = rig_with_copy();
    rig.run(["copy", "app.db"]).succeeds();
    rig.unset("LITTORAL_COPY");
    let second = rig.url("second");
    rig.run(["copy", &at_copy(&rig), &second]).fails(3, &["is a copy of the volume at", "littoral promote"]);
    assert!(!rig.path("second").exists(), "something was written");
    // One whose primary was made a copy of another behind its back.
    rig.run(["copy", "app.db", &second]).succeeds();
    let primary = rig.path(".littoral/remote/app.db");
    fs::copy(rig.path("copy/app.db/copy"), primary.join("copy")).unwrap();
    let there = files(&primary);
    rig.run(["promote", &format!("{second}/app.db")]).fails(3, &["cannot be fenced", "is a copy of the volume at"]);
    assert_eq!(files(&primary), there, "a copy was claimed");
}

#[test]
fn a_fork_is_refused_by_name_as_long_as_it_needs_its_parents_blobs() {
    let mut rig = rig_with_copy();
    rig.unset("LITTORAL_COPY");
    for step in 1..4 {
        change(&rig, step);
        rig.run(["checkpoint", "app.db"]).succeeds();
    }
    rig.run(["snapshot", "create", "app.db", "kept"]).succeeds();
    // Its rows are read from a manifest snapshot, and no record of its own repeats them.
    rig.run(["prune", "app.db", "--keep-last", "1"]).succeeds();
    rig.run(["fork", "app.db@kept", "child.db"]).succeeds();
    let child = format!("file://{}/child.db", rig.path(".littoral/remote").display());
    rig.run(["copy", &child, &rig.url("copy")]).fails(3, &["was forked from app.db", "copy app.db instead"]);
    let there: Vec<_> = files(&rig.path("copy")).into_iter().filter(|(path, _)| !path.ends_with("copy")).collect();
    assert!(there.is_empty(), "a copy that restores to nothing was begun: {there:?}");
}

#[test]
fn p14_no_new_database_begins_where_the_primary_is_away_and_its_copy_has_only_begun() {
    let rig = rig_with_copy();
    assert!(rig.crash("replicate.marked", ["copy", "app.db"]));
    let mut nth = 0;
    let mut refused = |rig: &Rig| {
        nth += 1;
        let (folder, file) = (format!("new{nth}"), format!("new{nth}/app.db"));
        fs::create_dir(rig.path(&folder)).unwrap();
        let remote = format!("file://{}", rig.path(".littoral/remote").display());
        let said = rig.run(["shell", &file, "CREATE TABLE mine(x)", "--remote", &remote, "--volume", "app.db"]);
        assert_ne!(said.code, Some(0), "an empty database was begun: {said:?}");
        assert!(said.stderr.contains("the primary was not asked"), "{said:?}");
        assert!(fs::metadata(rig.path(&file)).map_or(true, |found| found.len() == 0), "{file}");
        rig.run(["restore", &format!("{remote}/app.db"), "out.db"]).fails(3, &["the primary was not asked"]);
    };
    fs::rename(rig.path(".littoral/remote"), rig.path("away")).unwrap();
    fs::write(rig.path(".littoral/remote"), b"no folder").unwrap();
    // Nothing but the mark; then the claim alone.
    refused(&rig);
    fs::remove_file(rig.path(".littoral/remote")).unwrap();
    fs::rename(rig.path("away"), rig.path(".littoral/remote")).unwrap();
    assert!(rig.crash("replicate.record:1", ["copy", "app.db"]));
    fs::rename(rig.path(".littoral/remote"), rig.path("away")).unwrap();
    fs::write(rig.path(".littoral/remote"), b"no folder").unwrap();
    refused(&rig);
}

#[test]
fn a_name_that_stands_for_another_state_by_now_does_so_at_the_copy_and_one_that_is_taken_there_is_told() {
    let rig = rig_with_copy();
    rig.run(["snapshot", "create", "app.db", "kept"]).succeeds();
    change(&rig, 1);
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.run(["copy", "app.db"]).succeeds();
    rig.run(["snapshot", "drop", "app.db", "kept"]).succeeds();
    rig.run(["snapshot", "create", "app.db", "kept"]).succeeds();
    rig.run(["snapshot", "create", &at_copy(&rig), "mine"]).succeeds();
    stock_copy(&rig.path("app.db"), &rig.path("kept.db"));
    change(&rig, 2);
    rig.run(["checkpoint", "app.db"]).succeeds();
    rig.run(["snapshot", "create", "app.db", "mine"]).succeeds();
    let did = copied(&rig);
    assert_eq!(did["names_taken"], serde_json::json!(["snap-mine"]), "{did}");
    rig.run(["restore", &at_copy(&rig), "out.db", "--at", "kept"]).succeeds();
    assert_same(&rig.path("out.db"), &rig.path("kept.db"));
    rig.run(["restore", &at_copy(&rig), "mine.db", "--at", "mine"]).succeeds();
    assert_same(&rig.path("mine.db"), &rig.path("kept.db"));
    // Once it is dropped there the primary's comes.
    rig.run(["snapshot", "drop", &at_copy(&rig), "mine"]).succeeds();
    change(&rig, 4);
    rig.run(["checkpoint", "app.db"]).succeeds();
    assert_eq!(copied(&rig)["names_taken"], serde_json::json!([]));
    rig.run(["restore", &at_copy(&rig), "mine.db", "--at", "mine", "--force"]).succeeds();
    rig.run(["restore", "app.db", "out.db", "--at", "mine", "--force"]).succeeds();
    assert_same(&rig.path("mine.db"), &rig.path("out.db"));
}

#[test]
fn a_place_that_never_answers_holds_up_no_other_place() {
    let mut rig = rig_with_copy();
    // Whoever connects waits: nobody reads what he asks.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("minio://{}/bucket/prefix", silent.local_addr().unwrap());
    rig.set("AWS_ACCESS_KEY_ID", "nobody");
    rig.set("AWS_SECRET_ACCESS_KEY", "nothing");
    rig.set("LITTORAL_COPY", &format!("{dead},{}", rig.url("copy")));
    let copies = || rig.json(["status", "app.db"])["copies"].as_array().unwrap().clone();
    let lsn = || rig.json(["status", "app.db"])["lsn"].as_u64().unwrap();
    let child = worker(&rig);
    for step in 1..4 {
        let before = lsn();
        change(&rig, step);
        waited("the primary goes on", || lsn() > before);
        waited("and the copy that answers", || copies()[1]["lag_records"] == 0);
        // It is asked the first time still: nobody waited for the end of that.
        assert!(copies()[0]["failed"].is_null(), "{:?}", copies());
    }
    ended(child);
    is_whole(&rig);
}

#[test]
fn what_waited_for_several_places_goes_when_the_last_one_has_it() {
    let mut rig = rig_with_copy();
    let (copy, second) = (rig.url("copy"), rig.url("second"));
    rig.set("LITTORAL_COPY", &format!("{copy},{second}"));
    for step in 1..4 {
        change(&rig, step);
        rig.run(["checkpoint", "app.db"]).succeeds();
        rig.run(["copy", "app.db", &copy]).succeeds();
    }
    let spool = rig.path(".littoral/spool");
    assert!(files(&spool).len() > 3, "nothing waits");
    // The second one catches up; then both at once.
    for step in 4..6 {
        let did = rig.json(["copy", "app.db"])["copies"].as_array().unwrap().clone();
        assert!(did[1]["records"].as_u64().unwrap() > 0, "{did:?}");
        let left = files(&spool).into_iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>();
        assert!(!left.iter().any(|path| path.contains("+log+")), "everybody has it, and it stays: {left:?}");
        change(&rig, step);
        rig.run(["checkpoint", "app.db"]).succeeds();
    }
    rig.run(["copy", "app.db"]).succeeds();
    is_whole(&rig);
}

#[test]
fn i9_a_prune_that_was_copied_by_who_died_before_he_noted_it_is_done_at_the_copy_all_the_same() {
    let rig = rig_with_copy();
    for step in 1..6 {
        change(&rig, step);
        rig.run(["checkpoint", "app.db"]).succeeds();
    }
    rig.run(["copy", "app.db"]).succeeds();
    assert!(rig.json(["prune", "app.db", "--keep-last", "1"])["blobs"].as_u64().unwrap() > 0);
    let records = files(&rig.path("copy/app.db/log")).len();
    assert!(rig.crash("replicate.record:1", ["copy", "app.db"]));
    assert_eq!(files(&rig.path("copy/app.db/log")).len(), records + 1, "the prune's record is not there");
    let did = copied(&rig);
    assert!(did["pruned"].as_u64().unwrap() > 0, "{did}");
    is_whole(&rig);
}

#[test]
fn a_secret_in_the_url_of_a_copy_is_not_repeated() {
    let mut rig = rig_with_copy();
    let wrong = "s3://AKIAKEY:HUSHHUSH@bucket/prefix";
    let quiet = |said: &Run| {
        let all = format!("{}{}", said.stdout, said.stderr);
        assert!(!all.contains("HUSHHUSH") && !all.contains("AKIAKEY"), "{all}");
    };
    let said = rig.run(["copy", "app.db", wrong]);
    quiet(&said);
    said.fails(2, &["credentials do not belong in a URL"]);
    rig.set("LITTORAL_COPY", wrong);
    for verb in ["copy", "status", "checkpoint", "doctor"] {
        change(&rig, 1);
        for form in [None, Some("--json")] {
            quiet(&rig.run([verb, "app.db"].into_iter().chain(form)));
        }
    }
}
