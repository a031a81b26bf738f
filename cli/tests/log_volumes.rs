//! Logs and their volumes through the door: real processes, a real S3 server, kills, two machines, and the verbs that are about databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use littoral_engine::Components;
use littoral_engine::leases::{Leases, Wanted};
use littoral_engine::logs::{RESTORE_POINTS, ROLL_BACK_POINTS, SHIP_POINTS, TAKE_BACK_POINTS, TRUNCATE_POINTS};
use littoral_engine::open::{self, Place};
use littoral_engine::settings::Settings;
use littoral_ports::{Counter, Outcome, Reading};
use littoral_test_s3::S3Server;
use littoral_types::moment::Utc;
use littoral_types::{ChangeSeq, ChunkId, Generation, Work};
use rig::{BINARY, Rig, Run};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// For hangs alone.
const PATIENCE: Duration = Duration::from_secs(120);

/// So many MiB a process may take to ship segments of 64: four parts of 16 MiB that are on their way to a bucket, and some. What held a segment twice took 128.
const SHIPS_WITHIN: u64 = 100;

fn spawn(rig: &Rig, arguments: &[&str]) -> Child {
    let mut command = rig.command(BINARY);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn append(rig: &Rig, arguments: &[&str], input: &str) -> Run {
    fs::write(rig.path("input"), input).unwrap();
    let input = rig.text("input");
    let all = [&["log", "append"], arguments, &[&input]].concat();
    rig.run(all)
}

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| format!("{number:06}\n")).collect()
}

fn read(rig: &Rig, what: &str) -> String {
    rig.run(["log", "read", what]).succeeds().stdout.clone()
}

fn put(stdin: &mut ChildStdin, text: &str) {
    stdin.write_all(text.as_bytes()).unwrap();
    stdin.flush().unwrap();
}

#[test]
fn what_is_appended_here_is_tailed_elsewhere_and_a_killed_appender_s_records_go_with_the_next() {
    let server = S3Server::shared();
    let rig = Rig::with(server.env().into_iter().chain([("LITTORAL_POLL", "100ms".to_owned())]));
    let remote = format!("s3://{}/logs", server.bucket());
    let url = format!("{remote}/events");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    let status = rig.json(["status", &url]);
    assert_eq!((&status["kind"], &status["lsn"]), (&"log".into(), &0.into()));

    let mut appender = spawn(&rig, &["log", "append", "events", "--session", "s", "--sync_interval", "100ms"]);
    let mut stdin = appender.stdin.take().unwrap();
    let mut tail = spawn(&rig, &["log", "tail", &url, "--from", "1", "--limit", "300", "--format", "csv"]);
    let mut seen = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert_eq!(seen.next().unwrap().unwrap().trim_end(), "lsn,time,session,serial,body");
    for round in 0..3 {
        put(&mut stdin, &lines(round * 100..round * 100 + 100));
        for number in round * 100..round * 100 + 100 {
            let line = seen.next().unwrap().unwrap();
            let cells: Vec<&str> = line.trim_end().split(',').collect();
            let (lsn, body) = ((number + 1).to_string(), format!("{number:06}"));
            assert_eq!((cells[0], cells[2], cells[3], cells[4]), (lsn.as_str(), "s", lsn.as_str(), body.as_str()));
        }
    }
    assert!(tail.wait().unwrap().success());
    // What it has taken is durable some milliseconds later, whether it was shipped by then or not.
    put(&mut stdin, &lines(300..400));
    let since = Instant::now();
    while read(&rig, "events").lines().count() < 400 {
        assert!(since.elapsed() < PATIENCE);
    }
    appender.kill().unwrap();
    appender.wait().unwrap();
    append(&rig, &["events", "--session", "s"], &lines(400..410)).succeeds();
    assert_eq!(read(&rig, &url), lines(0..410));
    rig.run(["restore", &url, "copy"]).succeeds();
    assert_eq!(read(&rig, "copy"), lines(0..410));
    let ranged = rig.run(["log", "read", &url, "--from", "250", "--to", "251"]).succeeds().stdout.clone();
    assert_eq!(ranged, lines(249..251));
    rig.run(["verify", &url]).succeeds();
    rig.run(["prune", "events", "--keep-last", "1", "--grace", "0"]).succeeds();
    assert_eq!(read(&rig, &url), lines(0..410));
    rig.run(["verify", &url]).succeeds();
}

#[test]
fn a_kill_at_each_point_of_shipping_and_restoring_is_finished_by_whoever_comes_next() {
    for point in
        SHIP_POINTS.iter().chain(&TRUNCATE_POINTS).chain(&RESTORE_POINTS).chain(&["publish.intended", "publish.landed"])
    {
        let rig = Rig::new();
        let remote = rig.url("shared");
        let url = format!("{remote}/events");
        rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
        append(&rig, &["events"], &lines(0..50)).succeeds();
        let wide = format!("{}\n", "x".repeat(14 << 20));
        let big = format!("{}{}", lines(50..60), wide.repeat(6));
        let all = lines(0..50) + &big;
        fs::write(rig.path("big"), &big).unwrap();
        let mut died = rig.crash(point, ["log", "append", "events", "big"]);
        if died {
            // The log has them, and what is torn of them is told.
            let last = rig.json(["log", "stats", "events"])["last"].as_u64().unwrap();
            assert_eq!(last, 66, "{point}: all of it was durable before it was shipped");
        }
        if !died {
            died = rig.crash(point, ["log", "truncate", "events", "--before", "40"])
                || rig.crash(point, ["log", "truncate", "events", "--before", "66"]);
        }
        if !died {
            died = rig.crash(point, ["restore", &url, "copy"]);
            assert!(!rig.path("copy").exists());
        }
        assert!(died, "{point} was never reached");
        rig.run(["log", "ship", "events"]).succeeds();
        rig.run(["restore", &url, "copy"]).succeeds();
        let (here, there) = (read(&rig, "events"), read(&rig, "copy"));
        assert!(here == there, "{point}: {} and {} bytes", here.len(), there.len());
        assert!(all.ends_with(&here), "{point}");
        assert_eq!(here == all, *point != "truncate.dropped" && !point.starts_with("log_restore"), "{point}");
        rig.run(["verify", &url]).succeeds();
    }
}

#[test]
fn what_a_cursor_has_not_acknowledged_stays_in_the_volume_too_unless_it_is_gone_past() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/events");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    let wide = format!("{}\n", "x".repeat(14 << 20));
    let all = format!("{}{}", lines(0..60), wide.repeat(6));
    append(&rig, &["events"], &all).succeeds();
    rig.run(["log", "cursors", "create", "events", "sums", "--acked", "10"]).succeeds();
    rig.run(["log", "truncate", "events", "--before", "66"]).succeeds();
    assert!(read(&rig, &url) == all && read(&rig, "events") == all, "the cursor stands in the first segment");
    rig.run(["log", "truncate", "events", "--before", "66", "--past-cursors"]).succeeds();
    let here = read(&rig, "events");
    assert!(here.len() < all.len() && all.ends_with(&here) && read(&rig, &url) == here);
    // Who stands there is told where the log begins now.
    let begins = rig.json(["log", "stats", "events"])["start"].as_u64().unwrap();
    rig.run(["log", "read", "events", "--from", "11"]).fails(5, &[&format!("begins at LSN {begins}")]);
}

/// What of a log is given out here, in its volume, read cold there, and after a restore elsewhere.
fn everywhere(rig: &Rig, log: &str, url: &str) -> [String; 4] {
    rig.run(["restore", url, "elsewhere"]).succeeds();
    let cold = rig.run(["log", "read", url, "--cold"]).succeeds().stdout.clone();
    let found = [read(rig, log), read(rig, url), cold, read(rig, "elsewhere")];
    fs::remove_dir_all(rig.path("elsewhere")).unwrap();
    found
}

#[test]
fn what_was_shipped_is_rolled_back_as_void_what_was_not_is_cut_off_and_no_lsn_is_given_again() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/events");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    append(&rig, &["events", "--session", "a"], &lines(0..20)).succeeds();
    // Durable here, and not there. A session that is new stands between what is shipped and what is not.
    fs::write(rig.path("more"), lines(20..30)).unwrap();
    assert!(rig.crash("carry.walked", ["log", "append", "events", "more", "--session", "b"]));
    assert_eq!(rig.json(["log", "stats", "events"])["last"], 30);
    rig.run(["log", "truncate", "events", "--after", "25"]).succeeds();
    append(&rig, &["events", "--session", "b"], &lines(100..103)).succeeds();
    let all = lines(0..25) + &lines(100..103);
    assert!(read(&rig, "events") == all && read(&rig, &url) == all);
    let sessions = rig.json(["log", "stats", "events"])["sessions"].clone();
    assert_eq!(sessions, serde_json::json!({ "a": 20, "b": 8 }));

    // Of what goes now 28 are there, and two are not.
    fs::write(rig.path("more"), lines(200..202)).unwrap();
    assert!(rig.crash("carry.walked", ["log", "append", "events", "more", "--session", "b"]));
    let dry = rig.json(["log", "truncate", "events", "--after", "10", "--dry-run"]);
    let told = |json: &serde_json::Value| {
        ["was", "last", "next", "records", "void", "cut"].map(|of| json[of].as_u64().unwrap())
    };
    assert_eq!(told(&dry), [30, 10, 29, 20, 18, 2]);
    let said = rig.run(["log", "truncate", "events", "--after", "10", "--dry-run"]).succeeds().stdout.clone();
    assert_eq!(
        said,
        "20 records would go; the log would end at LSN 10, and its next record would be LSN 29\n\
         what was sealed or shipped, 18 records, would be void, and what was not, 2 records, would be cut off\n"
    );
    assert!(read(&rig, "events") == all.clone() + &lines(200..202) && read(&rig, &url) == all, "nothing moved");
    rig.run(["log", "cursors", "create", "events", "far", "--acked", "30"]).succeeds();
    rig.run(["log", "cursors", "create", "events", "near", "--acked", "4"]).succeeds();
    rig.run(["log", "truncate", "events", "--after", "10"])
        .fails(3, &["cursor far is done up to LSN 30", "--past-cursors"]);
    let done = rig.json(["log", "truncate", "events", "--after", "10", "--past-cursors"]);
    assert_eq!(told(&done), told(&dry));
    let acked = |name: &str| {
        let listed = rig.json(["log", "cursors", "list", "events"])["cursors"].clone();
        listed.as_array().unwrap().iter().find(|cursor| cursor["cursor"] == name).unwrap()["acked"].clone()
    };
    assert_eq!((acked("far"), acked("near")), (28.into(), 4.into()));
    assert_eq!(everywhere(&rig, "events", &url), [0; 4].map(|_| lines(0..10)));
    let stats = rig.json(["log", "stats", "events"]);
    assert_eq!((&stats["last"], &stats["records"], &stats["void"]), (&28.into(), &10.into(), &18.into()));
    // Numbers of records and of sessions go on: none is given again.
    assert_eq!(stats["sessions"], serde_json::json!({ "a": 20, "b": 8 }));
    let appended = rig.json(["log", "append", "events", &rig.text("more"), "--session", "b"]);
    assert_eq!((&appended["first"], &appended["last"], &appended["serial"]), (&29.into(), &30.into(), &10.into()));
    let all = lines(0..10) + &lines(200..202);
    assert_eq!(everywhere(&rig, "events", &url), [0; 4].map(|_| all.clone()));
    // Who comes and asks for what follows a record that went is told, here and there; the newest ones are the newest that there are.
    for place in ["events", &url] {
        rig.run(["log", "read", place, "--from", "20"])
            .fails(5, &["ends at LSN 10 now, and goes on at LSN 29", "LSN 20 with it"]);
        let rest = rig.run(["log", "read", place, "--from", "11"]).succeeds().stdout.clone();
        assert_eq!(rest, lines(200..202), "{place}");
        let newest = rig.run(["log", "tail", place, "-n", "4", "--limit", "4"]).succeeds().stdout.clone();
        assert_eq!(newest, lines(8..10) + &lines(200..202), "{place}");
    }
    // Once more, over what was void before; then nothing is left to go.
    let done = rig.json(["log", "truncate", "events", "--after", "5", "--past-cursors"]);
    assert_eq!(told(&done), [30, 5, 31, 7, 7, 0]);
    rig.run(["log", "truncate", "events", "--after", "20"]).succeeds();
    append(&rig, &["events"], &lines(300..301)).succeeds();
    let all = lines(0..5) + &lines(300..301);
    assert_eq!(everywhere(&rig, "events", &url), [0; 4].map(|_| all.clone()));
    // A publication that was begun is finished first: then it is there, and void.
    fs::write(rig.path("more"), lines(400..410)).unwrap();
    assert!(rig.crash("publish.intended", ["log", "append", "events", "more"]));
    let done = rig.json(["log", "truncate", "events", "--after", "31"]);
    assert_eq!(told(&done), [41, 31, 42, 10, 10, 0]);
    append(&rig, &["events"], &lines(500..501)).succeeds();
    let all = all + &lines(500..501);
    assert_eq!(everywhere(&rig, "events", &url), [0; 4].map(|_| all.clone()));
    rig.run(["verify", &url]).succeeds();
    // Through a prune, a copy, and as a log of its own.
    rig.run(["prune", "events", "--keep-last", "1", "--grace", "0"]).succeeds();
    rig.run(["copy", "events", &rig.url("second")]).succeeds();
    let copied = format!("{}/events", rig.url("second"));
    assert_eq!(everywhere(&rig, "events", &copied), [0; 4].map(|_| all.clone()));
    fs::create_dir(rig.path("apart")).unwrap();
    rig.run(["restore", &url, "apart/events"]).succeeds();
    rig.run(["log", "ship", "apart/events", "--remote", &remote, "--volume", "apart"]).succeeds();
    assert_eq!(read(&rig, &format!("{remote}/apart")), all);
}

#[test]
fn a_rollback_of_what_was_shipped_that_is_killed_at_any_point_is_done_here_and_there_by_whoever_comes_next() {
    let publication = ["publish.drafted", "publish.intended", "publish.landed", "publish.committed"];
    for point in ROLL_BACK_POINTS.iter().chain(&TAKE_BACK_POINTS).chain(&publication) {
        let rig = Rig::with([("LITTORAL_POLL", "100ms".to_owned())]);
        let remote = rig.url("shared");
        let url = format!("{remote}/events");
        rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
        // Where it is so also across a segment that is sealed.
        let is_large = ["log.cut.said", "log.cut.here", "publish.landed"].contains(point);
        let wide = if is_large { format!("{}\n", "x".repeat(14 << 20)).repeat(5) } else { String::new() };
        append(&rig, &["events", "--session", "s"], &(lines(0..60) + &wide + &lines(60..80))).succeeds();
        let there = rig.json(["log", "stats", "events"])["last"].as_u64().unwrap();
        fs::write(rig.path("more"), lines(80..90)).unwrap();
        assert!(rig.crash("carry.walked", ["log", "append", "events", "more"]));
        let stats = rig.json(["log", "stats", "events"]);
        assert_eq!(
            (&stats["last"], &stats["segments"][0]["sealed"]),
            (&(there + 10).into(), &is_large.into()),
            "{point}: {stats}"
        );
        // Who has read what goes, here and there, and who has not.
        let read_up_to = |place: &str, records: u64| {
            let mut tail = spawn(&rig, &["log", "tail", place, "--from", "1"]);
            let mut seen = BufReader::new(tail.stdout.take().unwrap()).lines();
            (0..records).for_each(|_| drop(seen.next().unwrap().unwrap()));
            (tail, seen)
        };
        let behind = [read_up_to("events", there + 10), read_up_to(&url, there)];
        assert!(rig.crash(point, ["log", "truncate", "events", "--after", "40"]), "{point} was not reached");
        assert_eq!(read(&rig, "events"), lines(0..40), "{point}");
        let stats = rig.json(["log", "stats", "events"]);
        assert_eq!((&stats["last"], &stats["records"]), (&there.into(), &40.into()), "{point}");
        // What was not said there yet travels before whatever is appended.
        append(&rig, &["events", "--session", "s"], "on\n").succeeds();
        let all = lines(0..40) + "on\n";
        for found in everywhere(&rig, "events", &url) {
            assert!(found == all, "{point}: {} bytes", found.len());
        }
        for (tail, _) in behind {
            let told = tail.wait_with_output().unwrap();
            let stderr = String::from_utf8(told.stderr).unwrap();
            let words = format!("ends at LSN 40 now, and goes on at LSN {}", there + 1);
            assert!(stderr.contains(&words), "{point}: {stderr}");
            assert_eq!(told.status.code(), Some(5), "{point}");
        }
        assert_eq!(rig.json(["log", "stats", "events"])["sessions"]["s"], there + 1, "{point}");
        // And again, with nobody appending: whoever ships next says it.
        assert!(rig.crash("log.cut.here", ["log", "truncate", "events", "--after", "20"]));
        rig.run(["log", "ship", "events"]).succeeds();
        for found in everywhere(&rig, "events", &url) {
            assert!(found == lines(0..20), "{point}: {} bytes", found.len());
        }
        rig.run(["verify", &url]).succeeds();
    }
}

#[test]
fn what_was_rolled_back_comes_back_neither_by_a_folder_that_was_put_back_nor_by_a_takeover() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/events");
    fs::create_dir(rig.path("one")).unwrap();
    fs::create_dir(rig.path("two")).unwrap();
    rig.run(["log", "create", "one/events", "--remote", &remote]).succeeds();
    append(&rig, &["one/events"], &lines(0..20)).succeeds();
    rig.run(["restore", &url, "two/events"]).succeeds();
    copy(&rig, "one/events", "backup");
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let then = Utc(u64::try_from(since_1970.as_millis()).unwrap()).to_string();
    std::thread::sleep(Duration::from_millis(20));
    rig.run(["log", "truncate", "one/events", "--after", "10"]).succeeds();
    // Of before the rollback, and with all its records.
    fs::rename(rig.path("one/events"), rig.path("gone")).unwrap();
    copy(&rig, "backup", "one/events");
    assert_eq!(read(&rig, "one/events"), lines(0..20));
    append(&rig, &["one/events"], &lines(20..21)).succeeds();
    let all = lines(0..10) + &lines(20..21);
    assert_eq!(everywhere(&rig, "one/events", &url), [0; 4].map(|_| all.clone()));
    // One who was restored before, and does not hold what came since, takes nothing over.
    let refused = append(&rig, &["two/events", "--remote", &remote, "--takeover", "1"], "never\n");
    refused.fails(3, &["ends at LSN 20", "LSN 21"]);
    // And one that has all of it, and does not know: it is void there, before anything is appended.
    fs::create_dir(rig.path("three")).unwrap();
    rig.run(["restore", &url, "three/events"]).succeeds();
    rig.run(["log", "truncate", "one/events", "--after", "5"]).succeeds();
    assert_eq!(read(&rig, "three/events"), all);
    append(&rig, &["three/events", "--remote", &remote, "--takeover", "1"], "three\n").succeeds();
    assert_eq!(everywhere(&rig, "three/events", &url), [0; 4].map(|_| lines(0..5) + "three\n"));
    append(&rig, &["one/events"], "apart\n").fails(3, &["three/.littoral appends to"]);
    rig.run(["log", "truncate", "one/events", "--after", "2"]).fails(3, &["three/.littoral"]);
    assert_eq!(read(&rig, "one/events"), lines(0..5) + "apart\n");
    assert_eq!(read(&rig, &url), lines(0..5) + "three\n");
    // As of before it is as it was.
    rig.run(["restore", &url, "then", "--at", &then]).succeeds();
    assert_eq!(read(&rig, "then"), lines(0..20));
    rig.run(["verify", &url]).succeeds();
}

#[test]
fn who_ships_what_is_to_be_rolled_back_is_named_or_made_to_stop_which_is_written_down() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/events");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    append(&rig, &["events"], &lines(0..20)).succeeds();
    fs::write(rig.path("more"), format!("{}\n", "x".repeat(3 << 20))).unwrap();
    assert!(rig.crash("carry.walked", ["log", "append", "events", "more"]));
    // Who ships it, and does not get on.
    let components = Components::of_this_machine(open::quota(&Settings::default()));
    let place = Place::of_database(&rig.path("events"), &Settings::default()).unwrap();
    let volume = place.found.as_ref().unwrap().binding.id;
    let chunks = Some([ChunkId(0)].into_iter().collect());
    let wanted = Wanted { volume, work: Work::Checkpoint, chunks, generation: Generation(0) };
    let held = Leases::of(&place, &components).unwrap().unwrap().take(wanted).unwrap().unwrap();
    let me = format!("process {}", std::process::id());
    let refused = rig.run(["log", "truncate", "events", "--after", "20", "--wait", "100ms"]);
    refused.fails(1, &[&me, "checkpoint", "littoral leases release"]);
    assert_eq!(rig.json(["log", "stats", "events"])["last"], 21, "nothing moved");
    held.step().unwrap();
    rig.run(["log", "truncate", "events", "--after", "20", "--wait", "100ms", "--cancel"]).succeeds();
    let told = held.step().unwrap_err().to_string();
    assert!(told.contains("taken away"), "{told}");
    let taken = rig.json(["leases", "audit", "events"])["taken_away"].clone();
    assert_eq!((&taken[0]["why"], &taken[0]["forced"]), (&"the log's end was to be rolled back".into(), &true.into()));
    // The compensating entry of the change log, in the transaction that took it away.
    let changes = place.manifest().unwrap().unwrap().changes(ChangeSeq(0), 10_000).unwrap();
    let undone: Vec<_> = changes.into_iter().filter_map(|change| change.undone).collect();
    assert_eq!(undone.len(), 1, "{undone:?}");
    assert_eq!((undone[0].lease.wish.work, undone[0].lease.chunks()), (Work::Checkpoint, "0".to_owned()));
    append(&rig, &["events"], &lines(20..30)).succeeds();
    assert!(read(&rig, "events") == lines(0..30) && read(&rig, &url) == lines(0..30));
    rig.run(["verify", &url]).succeeds();
}

#[test]
fn what_is_switched_off_neither_a_command_nor_retention_nor_a_scan_does() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/events");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    let all = lines(0..60) + &format!("{}\n", "x".repeat(14 << 20)).repeat(6);
    append(&rig, &["events"], &all).succeeds();
    let store = rig.text(".littoral");
    let flag = |flag: &str| {
        rig.run(["flags", "events", flag]).succeeds();
    };
    flag("enable_append_only_truncation=false");
    let off = ["truncations of logs are switched off", "enable_append_only_truncation=true"];
    rig.run(["log", "truncate", "events", "--before", "66"]).fails(3, &off);
    rig.run(["log", "truncate", "events", "--before", "66", "--dry-run"]).succeeds();
    rig.run(["log", "retain", "events", "--keep-bytes", "70MB"]).fails(3, &off);
    // It is kept all the same what is to go, and who appends lets nothing go of it.
    append(&rig, &["events"], "more\n").succeeds();
    assert!(read(&rig, &url) == format!("{all}more\n"));
    flag("enable_append_only_truncation=default");
    rig.run(["log", "retain", "events"]).succeeds();
    assert!(read(&rig, &url).len() < all.len());
    flag("enable_cold_scan=false");
    rig.run(["log", "read", &url, "--cold", "--store", &store])
        .fails(3, &["cold scans are switched off", "enable_cold_scan=true"]);
    rig.run(["log", "read", &url, "--cold"]).succeeds();
    flag("enable_cold_scan=true");
    rig.run(["log", "read", &url, "--cold", "--store", &store]).succeeds();
}

#[test]
fn what_a_log_with_a_volume_need_not_keep_goes_there_first_as_a_job_also_after_a_kill() {
    for (point, is_pruning) in [("truncate.leased", false), ("truncate.dropped", false), ("log.truncate.said", true)] {
        let rig = Rig::new();
        let remote = rig.url("shared");
        let url = format!("{remote}/events");
        rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
        rig.run(["log", "cursors", "create", "events", "slow"]).succeeds();
        rig.run(["log", "retain", "events", "--keep-bytes", "70MB"]).succeeds();
        let wide = format!("{}\n", "x".repeat(14 << 20));
        append(&rig, &["events"], &(lines(0..60) + &wide.repeat(6))).succeeds();
        assert_eq!(rig.json(["log", "stats", "events"])["start"], 1, "{point}: the cursor stands there");
        rig.run(["log", "cursors", "drop", "events", "slow"]).succeeds();
        fs::write(rig.path("more"), "more\n").unwrap();
        let verb: &[&str] = match is_pruning {
            true => &["prune", "events", "--keep-last", "1", "--grace", "0"],
            false => &["log", "append", "events", "more"],
        };
        assert!(rig.crash(point, verb), "{point} was not reached");
        append(&rig, &["events"], "last\n").succeeds();
        rig.run(["jobs", "run", "events"]).succeeds();
        let start = rig.json(["log", "stats", "events"])["start"].as_u64().unwrap();
        assert_eq!(start, 65, "{point}");
        let here = read(&rig, "events");
        assert!(here.ends_with("last\n") && read(&rig, &url) == here, "{point}");
        let jobs = rig.json(["jobs", "list", "events"])["jobs"].clone();
        let jobs = jobs.as_array().unwrap();
        let ours: Vec<_> = jobs.iter().filter(|job| job["task"] == "truncate-append-only").collect();
        assert!(!ours.is_empty() && ours.iter().all(|job| job["state"] == "done"), "{point}: {ours:?}");
        rig.run(["verify", &url]).succeeds();
    }
}

#[test]
fn p04_two_machines_one_appends_and_the_other_is_told_who_since_when_and_the_way_out() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/events");
    fs::create_dir(rig.path("one")).unwrap();
    fs::create_dir(rig.path("two")).unwrap();
    rig.run(["log", "create", "one/events", "--remote", &remote]).succeeds();
    append(&rig, &["one/events"], &lines(0..20)).succeeds();
    rig.run(["restore", &url, "two/events"]).succeeds();

    // Not bound to it: nothing is appended before somebody says what is meant.
    let refused = append(&rig, &["two/events", "--remote", &remote], "never\n");
    refused.fails(3, &["exists already", "not bound to it", "--takeover=1"]);
    assert_eq!(read(&rig, "two/events"), lines(0..20));
    append(&rig, &["two/events", "--remote", &remote, "--takeover", "1"], &lines(20..30)).succeeds();

    // The first one learns it when it ships, and from then on appends nothing.
    let told = append(&rig, &["one/events"], "apart\n");
    told.fails(3, &["two/.littoral appends to", "since 2", "epoch 2", "--takeover=2", "1 record appended before it"]);
    let told = append(&rig, &["one/events"], "never\n");
    told.fails(3, &["two/.littoral appends to", "since 2", "epoch 2", "--takeover=2"]);
    assert_eq!(read(&rig, "one/events"), lines(0..20) + "apart\n");
    // Nor may it take back what it does not hold.
    let told = append(&rig, &["one/events", "--takeover", "2"], "never\n");
    told.fails(3, &["ends at LSN 21", "LSN 30", "littoral restore"]);
    assert_eq!(read(&rig, &url), lines(0..30));

    // In order: released there, claimed here.
    rig.run(["release", "two/events"]).succeeds();
    fs::create_dir(rig.path("three")).unwrap();
    rig.run(["restore", &url, "three/events"]).succeeds();
    append(&rig, &["three/events", "--remote", &remote, "--takeover", "2"], &lines(30..31)).succeeds();
    assert_eq!(read(&rig, &url), lines(0..31));
}

#[test]
fn p03_a_log_that_was_put_back_or_went_apart_appends_nothing() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    append(&rig, &["events"], &lines(0..20)).succeeds();
    copy(&rig, "events", "backup");
    append(&rig, &["events"], &lines(20..40)).succeeds();
    fs::rename(rig.path("events"), rig.path("gone")).unwrap();
    copy(&rig, "backup", "events");
    let refused = append(&rig, &["events"], "never\n");
    refused.fails(3, &["ends at LSN 20", "at LSN 40", "put back to an earlier state", "littoral restore"]);
    rig.run(["log", "ship", "events"]).fails(3, &["ends at LSN 20", "at LSN 40"]);
    assert_eq!(read(&rig, "events"), lines(0..20));
    assert_eq!(read(&rig, &format!("{remote}/events")), lines(0..40));
}

fn copy(rig: &Rig, from: &str, to: &str) {
    let done = std::process::Command::new("cp").arg("-a").arg(rig.path(from)).arg(rig.path(to)).status().unwrap();
    assert!(done.success());
}

#[test]
fn while_the_object_store_is_away_appending_goes_on_and_what_waits_goes_later() {
    let server = S3Server::shared();
    let rig = Rig::with(server.env());
    let remote = format!("s3://{}/away", server.bucket());
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    // Nobody listens there.
    let done = append(&rig, &["events", "--endpoint", "http://127.0.0.1:9"], &lines(0..20));
    done.succeeds();
    assert!(done.stderr.contains("durable here, and not at"), "{done:?}");
    let shipped = rig.json(["log", "ship", "events"]);
    assert_eq!(shipped["shipped"]["records"], 20, "{shipped}");
    assert_eq!(rig.json(["log", "ship", "events"])["shipped"]["records"], 0);
    assert_eq!(read(&rig, &format!("{remote}/events")), lines(0..20));
}

#[test]
fn every_verb_serves_a_log_or_names_the_one_that_does() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/events");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    append(&rig, &["events"], &lines(0..20)).succeeds();
    let before = rig.tree();
    for arguments in [
        &["checkpoint", "events"][..],
        &["shell", "events", "SELECT 1"],
        &["open", "events"],
        &["hydrate", "events"],
        &["salvage", "events"],
        &["rewind", "events", "--to", "5"],
        &["sessions", "events"],
    ] {
        rig.run(arguments).fails(3, &["events", "log", "littoral log"]);
    }
    rig.run(["fork", &url, "other"]).fails(3, &["volume of a log", "littoral restore"]);
    rig.run(["sessions", &url]).fails(3, &["volume of a log", "littoral log"]);
    rig.run(["restore", &url, "copy", "--force"]).fails(2, &["beside whatever there is"]);
    assert!(rig.tree() == before, "nothing was changed");

    let drill = rig.json(["drill", "events"]);
    assert_eq!((&drill["position"], &drill["problems"]), (&"1.20".into(), &serde_json::json!([])));
    let status = rig.run(["status", "events"]).succeeds().stdout.clone();
    assert!(status.contains("up to LSN 20") && status.contains("proved"), "{status}");
    assert!(rig.run(["history", "events"]).succeeds().stdout.contains("segment"));
    rig.run(["snapshot", "create", "events", "first"]).succeeds();
    append(&rig, &["events"], &lines(20..40)).succeeds();
    rig.run(["restore", &url, "then", "--at", "first"]).succeeds();
    assert_eq!(read(&rig, "then"), lines(0..20));
    rig.run(["restore", &url, "there", "--at", "20"]).succeeds();
    assert_eq!(read(&rig, "there"), lines(0..20));
    rig.run(["verify", "events"]).succeeds();
    rig.run(["prune", "events", "--keep-last", "1", "--grace", "0"]).succeeds();
    rig.run(["verify", "events"]).succeeds();
    rig.run(["copy", "events", &rig.url("elsewhere")]).succeeds();
    rig.run(["restore", &format!("{}/events", rig.url("elsewhere")), "from-copy"]).succeeds();
    assert_eq!(read(&rig, "from-copy"), lines(0..40));

    // A database does not take a log's name, nor a log a database's.
    rig.database("app.db");
    rig.run(["checkpoint", "app.db", "--remote", &remote, "--volume", "events"]).fails(3, &["events"]);
    rig.run(["checkpoint", "app.db", "--remote", &remote]).succeeds();
    rig.run(["log", "read", &format!("{remote}/app.db")]).fails(3, &["volume of a database"]);
    rig.run(["log", "create", "apart", "--remote", &remote, "--volume", "app.db"]).fails(3, &["app.db"]);
    rig.run(["log", "read", &format!("{remote}/nothing")]).fails(5, &["no Littoral volume"]);
    rig.run(["log", "ship", "then"]).fails(2, &["no volume", "--remote"]);
}

#[test]
fn a_cold_scan_prints_the_same_at_its_pace_shares_the_stores_and_changes_nothing() {
    let mut rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/events");
    rig.run(["log", "create", "events", "--remote", &remote]).succeeds();
    append(&rig, &["events"], &format!("{}\n", "x".repeat(2_000)).repeat(3_000)).succeeds();
    let all = read(&rig, &url);
    let before = rig.tree();
    assert!(rig.run(["log", "read", &url, "--cold"]).succeeds().stdout == all);
    assert!(rig.tree() == before, "it leaves nothing");
    // Six megabytes at two a second, of the store that is named.
    let store = rig.text(".littoral");
    let since = Instant::now();
    let scanned = rig.run(["--json", "log", "read", &url, "--cold", "--scan_rate", "2MB", "--store", &store]);
    let took = since.elapsed().as_secs_f64();
    let told: serde_json::Value = serde_json::from_str(scanned.succeeds().stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&told["verb"], &told["records"]), (&"log".into(), &3_000.into()));
    let least = told["cost"]["bytes_down"].as_f64().unwrap() / 2e6;
    assert!(least > 3.0 && took > 0.95 * least && took < least + 60.0, "{told}: {took} s");
    // What it read is told apart from what everybody else does.
    let settings = Settings::default();
    let components = Components::of_this_machine(open::quota(&settings));
    let meters = open::account(&rig.path(".littoral"), &settings, &components).meters();
    let cold = Outcome::ALL.map(|outcome| meters.counted(Counter::ColdRequests(outcome))).into_iter().sum();
    assert_eq!(told["cost"]["bytes_down"].as_u64(), Some(meters.counted(Counter::BytesRead(Reading::Cold))));
    assert_eq!(told["cost"]["requests"].as_u64(), Some(cold));
    assert!(meters.counted(Counter::ColdRestMs) > 2_000);
    // Ten requests a second are few.
    rig.set("LITTORAL_SCAN_REQUESTS", "10");
    let since = Instant::now();
    rig.run(["log", "read", &url, "--cold", "--limit", "1"]).succeeds();
    assert!(since.elapsed() > Duration::from_millis(300));
    rig.unset("LITTORAL_SCAN_REQUESTS");
    for (arguments, words) in [
        (vec!["events", "--cold"], ["a log's folder", "leave --cold out"]),
        (vec![&url, "--cold", "--store", "nowhere"], ["no store at nowhere", "leave it out"]),
        (vec![&url, "--store", &store], ["--store and a URL", "leave one of them out"]),
        (vec![&url, "--cold=icy"], ["on or off", "--cold"]),
    ] {
        rig.run([vec!["log", "read"], arguments].concat()).fails(2, &words);
    }
    assert!(rig.run(["log", "read", "events", "--cold=off"]).succeeds().stdout == all);
}

/// The most memory that a process had, as long as it could be asked.
fn peak_of(mut child: Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) << 10);
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success());
            return peak;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn sealed_segments_are_sent_from_their_files_and_memory_stays_flat() {
    let server = S3Server::shared();
    let rig = Rig::with(server.env());
    for (remote, name) in [(rig.url("shared"), "folder"), (format!("s3://{}/flat", server.bucket()), "bucket")] {
        rig.run(["log", "create", name, "--remote", &remote]).succeeds();
        let wide = format!("{}\n", "x".repeat(15 << 20));
        fs::write(rig.path("wide"), wide.repeat(14)).unwrap();
        // All of it waits: three segments that are sealed, and the one that is open.
        assert!(rig.crash("carry.walked", ["log", "append", name, "wide"]));
        let segments = rig.json(["log", "stats", name])["segments"].clone();
        assert_eq!(
            segments.as_array().unwrap().iter().filter(|segment| segment["sealed"] == true).count(),
            3,
            "{segments}"
        );
        let mut idle = rig.command(BINARY);
        let idle = peak_of(idle.args(["log", "stats", name]).stdout(Stdio::null()).spawn().unwrap());
        let mut ship = rig.command(BINARY);
        let peak = peak_of(ship.args(["log", "ship", name]).stdout(Stdio::null()).spawn().unwrap());
        assert!(idle > 0 && peak > 0);
        // The parts that are on their way, and never a segment of 64 MiB beside them.
        assert!(peak < idle + (SHIPS_WITHIN << 20), "{name}: {} MiB, and {} MiB without it", peak >> 20, idle >> 20);
        let url = format!("{remote}/{name}");
        assert!(read(&rig, &url) == wide.repeat(14));
        rig.run(["verify", &url, "--no-restore"]).succeeds();
    }
}

#[test]
fn p04_a_stalled_machine_that_comes_back_after_a_takeover_mixes_nothing_in_and_every_way_out_that_is_named_works() {
    let rig = Rig::new();
    let remote = rig.url("shared");
    let url = format!("{remote}/events");
    for machine in ["one", "two", "three"] {
        fs::create_dir(rig.path(machine)).unwrap();
    }
    rig.run(["log", "create", "one/events", "--remote", &remote]).succeeds();
    append(&rig, &["one/events"], &lines(0..20)).succeeds();
    // It appends, nothing of that has travelled, and it stands still.
    let mut stalled = spawn(&rig, &["log", "append", "one/events"]);
    let mut stdin = stalled.stdin.take().unwrap();
    put(&mut stdin, &lines(20..25));
    let since = Instant::now();
    while read(&rig, "one/events").lines().count() < 25 {
        assert!(since.elapsed() < PATIENCE);
    }
    let pid = rustix::process::Pid::from_child(&stalled);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();

    rig.run(["restore", &url, "two/events"]).succeeds();
    append(&rig, &["two/events", "--remote", &remote, "--takeover", "1"], &lines(100..103)).succeeds();
    let theirs = lines(0..20) + &lines(100..103);
    assert_eq!(read(&rig, &url), theirs);

    // It goes on, and is told when it ships: who, since when, and where what it has left is.
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    put(&mut stdin, &lines(25..27));
    drop(stdin);
    let done = stalled.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(3), "{said}");
    for word in ["two/.littoral appends to", "epoch 2", "can be read here", "littoral log read"] {
        assert!(said.contains(word), "{word:?} is not in {said}");
    }
    let ours = lines(0..27);
    let unmixed = |what: &str| assert!(read(&rig, &url) == theirs && read(&rig, "one/events") == ours, "{what}");
    unmixed("it came back");
    append(&rig, &["one/events"], "never\n").fails(3, &["two/.littoral appends to", "--takeover=2"]);
    rig.run(["log", "ship", "one/events"]).fails(3, &["two/.littoral appends to"]);
    unmixed("it tried again");
    // It is longer than what is there, and yet not all of that: by force it comes no further.
    let refused = append(&rig, &["one/events", "--takeover", "2"], "never\n");
    refused.fails(3, &["went on apart", "littoral restore", "littoral log read", "littoral log ship"]);
    unmixed("it tried by force");

    // The first way out: on in a copy of what is there, with what was here alone.
    rig.run(["restore", &url, "three/events"]).succeeds();
    let alone = rig.run(["log", "read", "one/events", "--from", "21"]).succeeds().stdout.clone();
    assert_eq!(alone, lines(20..27));
    append(&rig, &["three/events", "--remote", &remote, "--takeover", "2"], &alone).succeeds();
    assert_eq!(read(&rig, &url), theirs.clone() + &lines(20..27));
    // The second: all of it, as another log.
    fs::create_dir(rig.path("apart")).unwrap();
    copy(&rig, "one/events", "apart/events");
    rig.run(["log", "ship", "apart/events", "--remote", &remote, "--volume", "events-apart"]).succeeds();
    append(&rig, &["apart/events"], "on\n").succeeds();
    assert_eq!(read(&rig, &format!("{remote}/events-apart")), ours + "on\n");
    for name in ["events", "events-apart"] {
        rig.run(["verify", &format!("{remote}/{name}")]).succeeds();
    }
    // Who was in between is told the same.
    append(&rig, &["two/events"], "never\n").fails(3, &["three/.littoral appends to", "epoch 3"]);
}
