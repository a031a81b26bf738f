//! Logs through the door: real processes, kills, full disks, pipes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

mod rig;

use littoral_engine::logs::{FAULT_POINTS, ROLL_BACK_POINTS};
use rig::{BINARY, Rig, Tiny};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

/// Lines of this size fill a segment with some ten thousand.
const WIDE: usize = 6_000;

fn spawn(rig: &Rig, arguments: &[&str]) -> Child {
    let mut command = rig.command(BINARY);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Runs it with these bytes on stdin. Exit code (none where it was killed), stdout, stderr.
fn run_with(rig: &Rig, arguments: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let mut child = spawn(rig, arguments);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn append(rig: &Rig, input: &str) {
    let (code, _, stderr) = run_with(rig, &["log", "append", "events"], input.as_bytes());
    assert_eq!(code, Some(0), "{stderr}");
}

fn read(rig: &Rig) -> Vec<String> {
    rig.run(["log", "read", "events"]).succeeds().stdout.lines().map(str::to_owned).collect()
}

fn created() -> Rig {
    let rig = Rig::new();
    rig.run(["log", "create", "events"]).succeeds();
    rig
}

fn line(number: u64) -> String {
    format!("{number:08} {}", "x".repeat((number * 131 % WIDE as u64) as usize))
}

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| line(number) + "\n").collect()
}

#[test]
fn what_goes_in_comes_out_as_lines_as_json_and_as_csv() {
    let rig = created();
    let raw = b"plain\n\nwith, comma and \"quotes\"\n\xff\xfe raw\nlast one without an end".to_vec();
    let (code, stdout, stderr) = run_with(&rig, &["log", "append", "events", "--session", "s 1"], &raw);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.starts_with("5 records appended, ") && stdout.ends_with("LSN 1 to 5\n"), "{stdout}");
    let output = rig.command(BINARY).args(["log", "read", "events"]).output().unwrap();
    assert_eq!(output.stdout, [&raw[..], b"\n"].concat());

    let json = rig.run(["log", "read", "events", "--format", "json"]).succeeds().stdout.clone();
    let records: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 5);
    assert_eq!((&records[2]["body"], &records[2]["serial"]), (&"with, comma and \"quotes\"".into(), &3.into()));
    assert_eq!((&records[3]["body_hex"], &records[3]["session"]), (&"fffe20726177".into(), &"s 1".into()));

    let output =
        rig.command(BINARY).args(["log", "read", "events", "--format", "csv", "--from", "3"]).output().unwrap();
    let csv = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(csv.starts_with("lsn,time,session,serial,body\r\n3,20"), "{csv}");
    assert!(csv.contains(",s 1,3,\"with, comma and \"\"quotes\"\"\"\r\n"), "{csv}");

    // With --json the records come first, and the document is the last line.
    let all = rig.run(["--json", "log", "read", "events", "--limit", "2"]).succeeds().stdout.clone();
    let last: Value = serde_json::from_str(all.lines().last().unwrap()).unwrap();
    assert_eq!((all.lines().count(), &last["records"], &last["exit"]), (3, &2.into(), &"done".into()));
}

#[test]
fn ranges_are_by_number_and_by_time_and_what_is_none_is_refused() {
    let rig = created();
    append(&rig, "a\nb\nc\n");
    std::thread::sleep(Duration::from_millis(300));
    append(&rig, "d\n");
    let bodies = |arguments: &[&str]| {
        let all = [&["log", "read", "events"][..], arguments].concat();
        rig.run(all).succeeds().stdout.replace('\n', " ")
    };
    assert_eq!(bodies(&["--from", "2", "--to", "3"]), "b c ");
    let json = rig.run(["log", "read", "events", "--from", "4", "--format", "json"]).succeeds().stdout.clone();
    let time = serde_json::from_str::<Value>(&json).unwrap()["time"].as_str().unwrap().to_owned();
    assert_eq!(bodies(&["--from", &time]), "d ");
    assert_eq!(bodies(&["--to", &time, "--limit", "2"]), "a b ");
    assert_eq!(bodies(&["--from", "-1h"]), "a b c d ");
    assert_eq!(bodies(&["--from", "9"]), "");
    rig.run(["log", "read", "events", "--from", "yesterday"]).fails(2, &["no place in a log"]);
    rig.run(["log", "read", "nothing"]).fails(5, &["no log is there", "littoral log create"]);
    rig.run(["log", "truncate", "events", "--before", "900"]).fails(5, &["beyond the log's end", "last record is 4"]);
    rig.run(["log", "create", "events"]).fails(3, &["a log is there already"]);
}

#[test]
fn a_line_that_cannot_be_appended_is_named_and_what_came_before_it_is_there() {
    let rig = created();
    let input = b"{\"a\": 1}\n[2]\nnot json\n{}\n";
    let (code, _, stderr) = run_with(&rig, &["log", "append", "events", "--input", "json"], input);
    assert_eq!(code, Some(2), "{stderr}");
    for words in ["line 3: not a JSON document", "2 records appended before it, LSN 1 to 2", "way out: "] {
        assert!(stderr.contains(words), "{stderr}");
    }
    assert_eq!(read(&rig), ["{\"a\": 1}", "[2]"]);
    let mut large = b"small\n".to_vec();
    large.resize(large.len() + (16 << 20) + 1, b'y');
    let (code, _, stderr) = run_with(&rig, &["log", "append", "events"], &large);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("line 2: a record of 16777217 bytes is too large: at most 16777216"), "{stderr}");
    // One byte less is a record.
    let (code, _, stderr) = run_with(&rig, &["log", "append", "events"], &large[6..large.len() - 1]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(read(&rig).iter().map(String::len).collect::<Vec<_>>(), [8, 3, 5, 16 << 20]);
}

#[test]
fn one_process_appends_and_a_second_one_is_told_who_and_since_when() {
    let rig = created();
    let mut first = spawn(&rig, &["log", "append", "events"]);
    let mut stdin = first.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    // Readers beside it are welcome.
    while read(&rig).is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = format!("process {}", first.id());
    rig.run(["log", "append", "events"]).fails(3, &[&pid, "since 20", "any number of readers"]);
    let stats = rig.json(["log", "stats", "events"]);
    assert!(stats["appender"].as_str().unwrap().starts_with(&pid), "{stats}");
    // It dies, and its lock with it.
    first.kill().unwrap();
    first.wait().unwrap();
    append(&rig, "next\n");
    assert_eq!(read(&rig), ["hello", "next"]);
}

fn lines_of(child: &mut Child) -> std::io::Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().unwrap()).lines()
}

#[test]
fn a_tail_in_another_process_sees_a_record_within_50_ms() {
    let rig = created();
    append(&rig, "old 1\nold 2\nold 3\n");
    let mut tail = spawn(&rig, &["log", "tail", "events", "--lines", "2"]);
    let mut seen = lines_of(&mut tail);
    assert_eq!(seen.next().unwrap().unwrap(), "old 2");
    assert_eq!(seen.next().unwrap().unwrap(), "old 3");
    let mut appender = spawn(&rig, &["log", "append", "events"]);
    let mut stdin = appender.stdin.take().unwrap();
    let mut took: Vec<Duration> = (0..40)
        .map(|number| {
            std::thread::sleep(Duration::from_millis(number % 13));
            let begun = Instant::now();
            writeln!(stdin, "new {number}").unwrap();
            assert_eq!(seen.next().unwrap().unwrap(), format!("new {number}"));
            begun.elapsed()
        })
        .collect();
    took.sort();
    // The machine may be busy with other tests: most of them, and not the slowest.
    assert!(took[20] < Duration::from_millis(50), "{took:?}");
    drop(stdin);
    appender.wait().unwrap();
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn a_reader_that_has_gone_ends_a_read_and_a_tail_without_an_error() {
    let rig = created();
    append(&rig, &lines(0..3_000));
    for (verb, arguments) in [("read", &[][..]), ("tail", &["--from", "1"][..])] {
        let mut child = spawn(&rig, &[&["log", verb, "events"][..], arguments].concat());
        let mut seen = lines_of(&mut child);
        assert_eq!(seen.next().unwrap().unwrap(), line(0));
        drop(seen);
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""), "{verb}");
    }
}

#[test]
fn sessions_go_on_where_they_were_and_stats_tell_how_far_they_are() {
    let rig = created();
    for (session, input) in [("one", "a\nb\n"), ("two", "c\n"), ("one", "d\n")] {
        let (code, _, stderr) = run_with(&rig, &["log", "append", "events", "--session", session], input.as_bytes());
        assert_eq!(code, Some(0), "{stderr}");
    }
    append(&rig, "e\n");
    let stats = rig.json(["log", "stats", "events"]);
    assert_eq!(stats["sessions"], serde_json::json!({ "one": 3, "two": 1 }));
    assert_eq!((&stats["records"], &stats["start"], &stats["last"]), (&5.into(), &1.into(), &5.into()));
    let text = rig.run(["log", "stats", "events"]).succeeds().stdout.clone();
    for words in ["5 records", "nobody appends", "session one is at serial 3", "open"] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_truncation_lets_whole_segments_go_and_says_where_the_log_begins() {
    let rig = created();
    append(&rig, &lines(0..50_000));
    let before = rig.json(["log", "stats", "events"]);
    let segments = before["segments"].as_array().unwrap();
    assert!(segments.len() >= 3, "{before}");
    let second = segments[1]["first"].as_u64().unwrap();
    let third = segments[2]["first"].as_u64().unwrap();
    let between = (second + 5).to_string();
    let dry = rig.json(["log", "truncate", "events", "--before", &between, "--dry-run"]);
    assert_eq!((&dry["segments"], &dry["start"]), (&1.into(), &second.into()));
    assert_eq!(rig.json(["log", "stats", "events"])["start"], 1);
    rig.run(["log", "truncate", "events", "--before", &between]).succeeds();
    rig.run(["log", "read", "events", "--from", "1"]).fails(5, &[&format!("begins at LSN {second} now")]);
    let left = read(&rig);
    assert_eq!((left.len() as u64, &left[0]), (50_001 - second, &line(second - 1)));
    rig.run(["log", "truncate", "events", "--keep-bytes", "0"]).succeeds();
    let start = rig.json(["log", "stats", "events"])["start"].as_u64().unwrap();
    assert!(start >= third);
    append(&rig, "on\n");
    assert_eq!(read(&rig).last().unwrap(), "on");
    assert_eq!(rig.json(["log", "stats", "events"])["last"], 50_001);
}

/// Goes on with a log from where a kill left it, until all lines are there: what is there is a prefix, each line once.
fn finish(rig: &Rig, all: u64, what: &str) {
    let there = rig.json(["log", "append", "events", "--session", "s"]);
    let serial = there["serial"].as_u64().unwrap();
    let seen = read(rig);
    assert_eq!(seen.len() as u64, serial, "{what}: the session's serial is what is there");
    for (number, seen) in (0..).zip(&seen) {
        assert!(*seen == line(number), "{what}: line {number}");
    }
    let (code, _, stderr) =
        run_with(rig, &["log", "append", "events", "--session", "s"], lines(serial..all).as_bytes());
    assert_eq!(code, Some(0), "{what}: {stderr}");
    let seen = read(rig);
    assert_eq!(seen.len() as u64, all, "{what}");
    assert!(seen.iter().zip(0..).all(|(seen, number)| *seen == line(number)), "{what}");
    let stats = rig.json(["log", "stats", "events"]);
    assert_eq!(stats["sessions"]["s"], all, "{what}: {stats}");
}

#[test]
fn a_log_that_is_killed_at_any_point_has_a_prefix_of_each_session_and_goes_on() {
    const ALL: u64 = 26_000;
    let mut reached = Vec::new();
    for point in FAULT_POINTS.iter().filter(|point| !point.contains(".recover.") && !point.contains(".truncate.")) {
        for nth in [1, 2, 200] {
            let rig = if point.contains(".create.") { Rig::new() } else { created() };
            let what = format!("{point}:{nth}");
            let mut command = rig.command(BINARY);
            command.env("LITTORAL_TEST_CRASH", &what).args(["log", "append", "events", "--session", "s", "--create"]);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let _ = child.stdin.take().unwrap().write_all(lines(0..ALL).as_bytes());
            let was_killed = child.wait().unwrap().code().is_none();
            if point.contains(".create.") {
                let (code, _, stderr) = run_with(&rig, &["log", "append", "events", "--create", "--session", "s"], b"");
                assert_eq!(code, Some(0), "{what}: {stderr}");
            }
            finish(&rig, ALL, &what);
            if !was_killed {
                break;
            }
            reached.push(*point);
        }
        assert!(reached.contains(point), "{point} was never reached");
    }
}

#[test]
fn a_recovery_that_is_killed_at_any_point_is_done_again() {
    const ALL: u64 = 26_000;
    for (before, point) in [
        ("log.seal.indexed", "log.recover.sealed"),
        ("log.seal.indexed", "log.seal.cut"),
        ("log.roll.named", "log.recover.sealed"),
        ("log.append.copied:200", "log.recover.open"),
        ("log.append.copied:200", "log.recover.zeroed"),
    ] {
        let rig = created();
        let append = ["log", "append", "events", "--session", "s", "--sync", "none"];
        let mut command = rig.command(BINARY);
        command.env("LITTORAL_TEST_CRASH", before).args(append).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(lines(0..ALL).as_bytes());
        assert_eq!(child.wait().unwrap().code(), None, "{before} was not reached");
        assert!(rig.crash(point, append), "{point} was not reached after {before}");
        finish(&rig, ALL, &format!("{before}, then {point}"));
    }
}

#[test]
fn a_truncation_that_is_killed_at_any_point_has_been_done() {
    for point in FAULT_POINTS.iter().filter(|point| point.contains(".truncate.")) {
        let rig = created();
        append(&rig, &lines(0..50_000));
        assert!(rig.crash(point, ["log", "truncate", "events", "--keep-bytes", "0"]), "{point} was not reached");
        let start = rig.json(["log", "stats", "events"])["start"].as_u64().unwrap();
        assert!(start > 1, "{point}");
        assert_eq!(read(&rig)[0], line(start - 1), "{point}");
        append(&rig, "on\n");
        let seen = read(&rig);
        assert_eq!((&seen[0], seen.len() as u64), (&line(start - 1), 50_002 - start), "{point}");
        let files = fs::read_dir(rig.path("events"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "seg"));
        assert_eq!(files.count(), 1, "{point}: what was truncated is gone");
    }
}

#[test]
fn a_rollback_that_is_killed_at_any_point_has_been_done_and_is_told_to_who_stood_there() {
    for point in ROLL_BACK_POINTS {
        let rig = created();
        append(&rig, &lines(0..100));
        let mut tail = spawn(&rig, &["log", "tail", "events", "--from", "1"]);
        let mut seen = lines_of(&mut tail);
        (0..100).for_each(|number| assert_eq!(seen.next().unwrap().unwrap(), line(number)));
        assert!(rig.crash(point, ["log", "truncate", "events", "--after", "40"]), "{point} was not reached");
        assert_eq!(read(&rig), (0..40).map(line).collect::<Vec<_>>(), "{point}");
        assert_eq!(rig.json(["log", "stats", "events"])["last"], 40, "{point}");
        append(&rig, "on\n");
        let there = read(&rig);
        assert_eq!((there.len(), there[40].as_str()), (41, "on"), "{point}");
        let told = tail.wait_with_output().unwrap();
        let stderr = String::from_utf8(told.stderr).unwrap();
        assert!(stderr.contains("the log ends at LSN 40 now") && stderr.contains("LSN 101"), "{point}: {stderr}");
        assert_eq!(told.status.code(), Some(5), "{point}");
    }
}

#[test]
fn the_end_is_rolled_back_by_lsn_alone_while_nobody_appends_and_never_past_what_a_cursor_has_done() {
    let rig = created();
    append(&rig, "a\nb\nc\nd\n");
    let dry = rig.run(["log", "truncate", "events", "--after", "2", "--dry-run"]).succeeds().stdout.clone();
    assert_eq!((dry.as_str(), read(&rig).len()), ("2 records would go; the log would end at LSN 2\n", 4));
    rig.run(["log", "truncate", "events", "--after", "9"]).fails(5, &["beyond the log's end"]);
    rig.run(["log", "truncate", "events", "--after", "1", "--before", "2"]).fails(2, &["--after"]);
    rig.run(["log", "truncate", "events"]).fails(2, &["--after"]);
    rig.run(["log", "cursors", "create", "events", "sums", "--acked", "3"]).succeeds();
    let refused = rig.run(["log", "truncate", "events", "--after", "2"]);
    refused.fails(3, &["cursor sums is done up to LSN 3", "--past-cursors", "Nothing was changed"]);
    let mut appender = spawn(&rig, &["log", "append", "events"]);
    let mut stdin = appender.stdin.take().unwrap();
    stdin.write_all(b"e\n").unwrap();
    while read(&rig).len() < 5 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let refused = rig.run(["log", "truncate", "events", "--after", "4", "--wait", "100ms"]);
    refused.fails(3, &[&format!("process {}", appender.id()), "appends to this log"]);
    drop(stdin);
    assert!(appender.wait().unwrap().success());
    let done = rig.json(["log", "truncate", "events", "--after", "2", "--past-cursors"]);
    assert_eq!((&done["was"], &done["last"], &done["records"]), (&5.into(), &2.into(), &3.into()));
    assert_eq!(read(&rig), ["a", "b"]);
    assert_eq!(rig.json(["log", "cursors", "list", "events"])["cursors"][0]["acked"], 2);
    rig.run(["log", "read", "events", "--from", "4"]).fails(5, &["the log ends at LSN 2 now", "go on from there"]);
}

#[test]
fn what_a_log_need_not_keep_goes_by_itself_also_after_a_kill() {
    let rig = created();
    append(&rig, &lines(0..50_000));
    let sealed = || rig.json(["log", "stats", "events"])["segments"].as_array().unwrap().len();
    assert!(sealed() > 1);
    rig.run(["log", "cursors", "create", "events", "slow"]).succeeds();
    let said = rig.run(["log", "retain", "events", "--keep", "30d", "--keep-bytes", "100MB"]).succeeds().stdout.clone();
    assert_eq!(said, "events keeps what is not older than 30 days, and of that the newest 100.0 MB\n");
    let stats = rig.run(["log", "stats", "events"]).succeeds().stdout.clone();
    assert!(stats.contains("keeps what is not older than 30 days"), "{stats}");
    append(&rig, "on\n");
    assert_eq!(rig.json(["log", "stats", "events"])["start"], 1, "a cursor stands there");
    rig.run(["log", "retain", "events", "--past-cursors"]).fails(2, &["keeps everything"]);
    assert_eq!(rig.json(["log", "retain", "events"])["keep"]["bytes"], 100_000_000);
    rig.run(["log", "cursors", "drop", "events", "slow"]).succeeds();
    // Who appends carries it out, and is killed in it: the next one does the rest.
    fs::write(rig.path("input"), "more\n").unwrap();
    assert!(rig.crash("log.truncate.said", ["log", "append", "events", "input"]));
    append(&rig, "on\n");
    let after = rig.json(["log", "stats", "events"]);
    let start = after["start"].as_u64().unwrap();
    assert!(start > 1, "{after}");
    assert_eq!(read(&rig)[0], line(start - 1));
    let files = fs::read_dir(rig.path("events")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "seg"));
    assert_eq!(files.count(), after["segments"].as_array().unwrap().len(), "what went is gone");
    let said = rig.run(["log", "retain", "events", "--all"]).succeeds().stdout.clone();
    assert_eq!(said, "events keeps everything\n");
    assert_eq!(rig.json(["log", "stats", "events"])["keep"], Value::Null);
}

#[test]
fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let rig = created();
    let mut there = 0u64;
    for round in 0..8u64 {
        let mut child = spawn(&rig, &["log", "append", "events", "--session", "s", "--sync", "each"]);
        let mut stdin = child.stdin.take().unwrap();
        let begin = there;
        let writer = std::thread::spawn(move || {
            for number in begin.. {
                if stdin.write_all((line(number) + "\n").as_bytes()).is_err() {
                    break;
                }
            }
        });
        // What a reader has seen of an appender of one thread is there after its death.
        let mut seen = 0;
        while seen <= there + round * 40 {
            seen = read(&rig).len() as u64;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        writer.join().unwrap();
        let now = read(&rig);
        assert!(now.len() as u64 >= seen, "{} are there, and {seen} were seen", now.len());
        assert!(now.iter().zip(0..).all(|(found, number)| *found == line(number)), "round {round}");
        there = now.len() as u64;
    }
    finish(&rig, there + 10, "at the end");
}

#[test]
fn a_full_disk_ends_an_append_with_its_reason_and_what_was_appended_stays() {
    let rig = Rig::new();
    let Some(tiny) = Tiny::mount(&rig.path("small"), 100 << 10) else {
        eprintln!("skipped: nothing can be mounted here");
        return;
    };
    rig.run(["log", "create", "small/events"]).succeeds();
    let (code, _, stderr) = run_with(&rig, &["log", "append", "small/events"], lines(0..30_000).as_bytes());
    assert_eq!(code, Some(1), "{stderr}");
    for words in ["no room on the disk", "records appended before it, LSN 1 to ", "way out: make room"] {
        assert!(stderr.contains(words), "{stderr}");
    }
    let count = |text: &str| text.lines().count() as u64;
    let seen = rig.run(["log", "read", "small/events"]).succeeds().stdout.clone();
    assert!(count(&seen) > 10_000 && seen == lines(0..count(&seen)), "{} lines", count(&seen));
    assert!(stderr.contains(&format!("LSN 1 to {}\n", count(&seen))), "{stderr}");
    // With room it goes on.
    tiny.resize(300 << 10);
    let rest = lines(count(&seen)..30_000);
    let (code, _, stderr) = run_with(&rig, &["log", "append", "small/events"], rest.as_bytes());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(rig.run(["log", "read", "small/events"]).succeeds().stdout == lines(0..30_000));
}
