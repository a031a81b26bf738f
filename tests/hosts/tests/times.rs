//! When commits were made: a moment inside of an outage is one of them, and not that at which all of them could travel at last.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::writer::Writer;
use littoral_hosts::{Place, built, command, said};
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// One commit: the row's number, and between which times it was made.
fn commit(writer: &mut Writer) -> (u64, u64, u64) {
    let begun = now_ms();
    writer.order("commit 1 1000000");
    let number = writer.acknowledged().1;
    let ended = now_ms();
    assert_eq!(writer.hear(), "done");
    (number, begun, ended)
}

/// The records of a volume, oldest first: position, label, kind.
fn records(place: &Place, options: &[&str]) -> Vec<(String, u64, String)> {
    let mut littoral = command(&built().littoral);
    littoral.args(["history", &format!("{}/app.db", place.remote()), "--json", "--limit", "5000"]).args(options);
    let told: Value = serde_json::from_str(&said(&mut littoral)).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let record =
        |record: &Value| (text(&record["position"]), record["time"]["ms"].as_u64().unwrap(), text(&record["kind"]));
    told["records"].as_array().unwrap().iter().rev().map(record).collect()
}

/// Those that can be restored.
fn points(place: &Place) -> Vec<(String, u64, String)> {
    records(place, &["--points"])
}

fn utc(ms: u64) -> String {
    said(command("date").args(["-u", "-d", &format!("@{}.{:03}", ms / 1000, ms % 1000), "+%FT%T.%3NZ"]))
        .trim()
        .to_owned()
}

/// The newest row of the state at a moment, and its position, as the restore tells it.
fn newest_at(place: &Place, at: &str) -> (u64, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("then.db");
    let mut littoral = command(&built().littoral);
    littoral.args(["restore", &format!("{}/app.db", place.remote()), "--json", "--at", at]).arg(&file);
    let told: Value = serde_json::from_str(&said(&mut littoral)).unwrap();
    let rows = said(command("sqlite3").arg(&file).arg("SELECT coalesce(max(n), 0) FROM t; PRAGMA integrity_check;"));
    let (newest, check) = rows.trim().split_once('\n').unwrap();
    assert_eq!(check, "ok");
    (newest.parse().unwrap(), told["position"].as_str().unwrap().to_owned())
}

/// Takes the object store away, and gives it back.
fn take_away(place: &Place) -> impl FnOnce() + use<> {
    let remote = std::path::PathBuf::from(place.remote().strip_prefix("file://").unwrap());
    let away = remote.with_extension("away");
    std::fs::rename(&remote, &away).unwrap();
    std::fs::write(&remote, b"not a folder").unwrap();
    move || {
        std::fs::remove_file(&remote).unwrap();
        std::fs::rename(&away, &remote).unwrap();
    }
}

/// Each restore point's label is the time at which its last commit was made; a moment is the last point that is not later.
fn compare(place: &Place, made: &[(u64, u64, u64)], slack_ms: u64) -> Vec<(String, u64, String)> {
    let points = points(place);
    assert!(points.is_sorted_by_key(|(_, label, _)| *label), "labels went back: {points:?}");
    // Labels never go back: what follows a claim is no older than that, and a claim is made when there is something to publish.
    let claims: Vec<u64> =
        records(place, &[]).into_iter().filter(|(.., kind)| kind == "claim").map(|(_, label, _)| label).collect();
    for (nth, (position, label, kind)) in points.iter().enumerate() {
        let (newest, _) = newest_at(place, position);
        let Some((_, begun, ended)) = made.iter().find(|(number, ..)| *number == newest) else { continue };
        let is_its_own = (*begun..=ended + slack_ms).contains(label) || claims.contains(label) && begun <= label;
        assert!(is_its_own, "{position}, a {kind}, is labelled {label}; row {newest} was made in {begun}..{ended}");
        // From there on, until the next one.
        let until = points.get(nth + 1).map_or(label + 1, |(_, next, _)| (*next).max(label + 1) - 1);
        if points.get(nth + 1).is_some_and(|(_, next, _)| next == label) {
            continue;
        }
        for moment in [*label, until] {
            assert_eq!(newest_at(place, &utc(moment)), (newest, position.clone()), "at {moment}");
        }
    }
    points
}

#[test]
fn p09_a_moment_inside_of_an_outage_is_the_last_batch_that_is_not_later_and_labels_are_when_commits_were_made() {
    let place = Place::new();
    let mut writer = Writer::start(&place, "&sync_interval=100ms");
    let mut made = vec![commit(&mut writer)];
    writer.until_safe();
    let give_back = take_away(&place);
    // Longer than what may be one batch; the WAL starts over meanwhile.
    writer.ask("PRAGMA wal_autocheckpoint = 60");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(25) {
        made.push(commit(&mut writer));
        std::thread::sleep(Duration::from_millis(100));
    }
    let (from, to) = (made[1].1, made.last().unwrap().2);
    // Time goes by in which nobody can say anything.
    std::thread::sleep(Duration::from_secs(2));
    give_back();
    writer.until_safe();
    // Entries are shared by commits that are 50 ms apart; the machine may be slow between a commit and its answer.
    let points = compare(&place, &made, 100);
    let inside: Vec<_> = points.iter().filter(|(_, label, _)| (from..=to).contains(label)).collect();
    assert!((2..=4).contains(&inside.len()), "{points:?}");
    assert!(inside.iter().all(|(.., kind)| kind == "segment"), "{points:?}");
    let (middle, _) = newest_at(&place, &utc(from + 15_000));
    assert!(middle > made[20].0 && middle < made.last().unwrap().0, "{middle}");
    // And the next one is labelled as ever.
    made.push(commit(&mut writer));
    writer.until_safe();
    compare(&place, &made[made.len() - 1..], 100);
    writer.end();
}

#[test]
fn what_waited_without_a_wal_or_for_the_next_process_is_labelled_with_when_it_was_made() {
    for journal in ["DELETE", "WAL"] {
        let place = Place::new();
        let mut writer = Writer::start(&place, "&sync_interval=100ms&close_wait=0s");
        writer.ask(&format!("PRAGMA journal_mode = {journal}"));
        let mut made = vec![commit(&mut writer)];
        writer.until_safe();
        let give_back = take_away(&place);
        made.push(commit(&mut writer));
        made.push(commit(&mut writer));
        if journal == "WAL" {
            // Nobody is there for a while.
            assert_eq!(writer.ask("close"), "closed");
        }
        std::thread::sleep(Duration::from_secs(3));
        give_back();
        if journal == "WAL" {
            assert_eq!(writer.ask("open"), "opened");
        }
        writer.until_safe();
        let points = compare(&place, &made, 100);
        let newest = points.last().unwrap();
        assert!(newest.1 <= made[2].2 + 100, "{journal}: {newest:?}, made until {}", made[2].2);
        writer.end();
    }
}

/// What the command line answers to a moment that it refuses: its exit code, and what it says.
fn refused_at(place: &Place, at: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut littoral = command(&built().littoral);
    littoral.args(["restore", &format!("{}/app.db", place.remote()), "--at", at]).arg(folder.path().join("then.db"));
    let done = littoral.output().unwrap();
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "something was left at {at}");
    (done.status.code().unwrap(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn p09_what_was_dropped_for_room_is_a_gap_that_every_door_refuses_with_its_bounds() {
    let place = Place::new();
    let mut writer = Writer::start(&place, "&sync_interval=100ms&quota=8M");
    writer.ask("PRAGMA wal_autocheckpoint = 60");
    let mut made = vec![commit(&mut writer)];
    writer.until_safe();
    let give_back = take_away(&place);
    assert_eq!(writer.ask("SELECT value FROM littoral_status WHERE name = 'gap'"), "rows None");
    // More than copies may take: half of the quota.
    made.push(commit(&mut writer));
    for _ in 0..60 {
        writer.ask("INSERT INTO t(who, body) VALUES ('large', randomblob(100000))");
    }
    made.push(commit(&mut writer));
    let told = writer.ask("SELECT value FROM littoral_status WHERE name = 'gap'");
    assert!(told.starts_with("rows since 20") && told.contains("waited") | told.contains("started over"), "{told}");
    std::thread::sleep(Duration::from_millis(50));
    give_back();
    writer.until_safe();
    assert_eq!(writer.ask("SELECT value FROM littoral_status WHERE name = 'gap'"), "rows None");
    let points = points(&place);
    let nth = points.iter().position(|(.., kind)| kind == "gap").unwrap_or_else(|| panic!("{points:?}"));
    let ((before, from, _), (after, to, _)) = (&points[nth - 1], &points[nth]);
    assert_eq!(newest_at(&place, after), (made[2].0, after.clone()));
    // What was copied in time, before the first that was not, travels by itself.
    let kept = newest_at(&place, before).0;
    assert!((made[0].0..made[2].0).contains(&kept), "{kept}");
    // Until the first of its commits was made, the state before is the one.
    assert_eq!(newest_at(&place, &utc(made[1].1 - 1)).0, made[0].0);
    let lsn = |position: &str| position.split_once('.').unwrap().1.parse::<u64>().unwrap();
    let mut inside = vec![utc(to - 1), (lsn(before) + 1).to_string(), (lsn(after) - 1).to_string()];
    inside.extend((kept == made[0].0).then(|| utc(made[1].2 + 1)));
    for at in &inside {
        let (code, told) = refused_at(&place, at);
        assert_eq!(code, 5, "{told}");
        for word in ["gap", "cannot be told apart", before, after, &utc(*from)[..19], &utc(*to)[..19]] {
            assert!(told.contains(word), "{at}: {word} is missing: {told}");
        }
        // Opened through SQLite, it is refused as well.
        let mut shell = place.host("sqlite3");
        shell.args(["-batch", "-cmd"]).arg(format!(".load {}", built().extension.display()));
        let uri = format!("file:app.db?vfs=littoral&volume=app.db&remote={}&at={at}", place.remote());
        shell.args(["-cmd", &format!(".open {uri}"), ":memory:", "SELECT count(*) FROM t;"]);
        let done = shell.stdin(Stdio::null()).output().unwrap();
        assert!(!done.status.success() || !done.stderr.is_empty(), "{at} was opened: {done:?}");
    }
    let mut littoral = command(&built().littoral);
    let told = said(littoral.args(["history", &format!("{}/app.db", place.remote())]));
    let line = told.lines().find(|line| line.starts_with("gap: ")).unwrap_or_else(|| panic!("{told}"));
    assert!(line.contains(&format!("after LSN {}", lsn(before))) && line.contains(after.as_str()), "{line}");
    // What comes afterwards is told apart again.
    made.push(commit(&mut writer));
    writer.until_safe();
    compare(&place, &made[3..], 100);
    writer.end();
}

#[test]
fn p09_what_somebody_wrote_without_littoral_is_a_gap_and_what_a_killed_process_left_is_one_too() {
    let place = Place::new();
    let mut writer = Writer::start(&place, "&sync_interval=100ms");
    commit(&mut writer);
    writer.until_safe();
    writer.end();
    place.stock("app.db", "INSERT INTO t(who) VALUES ('foreign')");
    let mut writer = Writer::start(&place, "&sync_interval=100ms");
    writer.until_safe();
    assert_eq!(points(&place).last().unwrap().2, "gap");
    // A kill, with something that nobody had shipped.
    let give_back = take_away(&place);
    commit(&mut writer);
    writer.kill();
    give_back();
    let mut writer = Writer::start(&place, "&sync_interval=100ms");
    writer.until_safe();
    let points = points(&place);
    assert_eq!(points.last().unwrap().2, "gap", "{points:?}");
    let mut littoral = command(&built().littoral);
    littoral.args(["history", &format!("{}/app.db", place.remote()), "--json", "--points"]);
    let told: Value = serde_json::from_str(&said(&mut littoral)).unwrap();
    let reasons: Vec<&str> =
        told["records"].as_array().unwrap().iter().filter_map(|record| record["gap"]["reason"].as_str()).collect();
    assert_eq!(reasons, ["untracked", "foreign"]);
    writer.end();
}
