//! Every commit gets there by itself: who ships, when, and what becomes of it when processes come, go and die.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::writer::Writer;
use littoral_hosts::{Place, built, command, python, said};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What never takes this long unless something hangs.
const HANGS: Duration = Duration::from_secs(60);

/// The log's records, newest first.
fn history(place: &Place) -> Vec<Value> {
    let mut littoral = command(&built().littoral);
    littoral.args(["history", &format!("{}/app.db", place.remote()), "--json", "--limit", "5000"]);
    let output = littoral.output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    told["records"].as_array().cloned().unwrap_or_default()
}

/// What another machine reads of it now: how many rows, after `integrity_check`.
fn rows_there(place: &Place) -> u64 {
    let url = format!("{}/app.db", place.remote());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("there.db");
    said(command(&built().littoral).args(["restore", &url, "--quiet"]).arg(&file));
    let told = said(command("sqlite3").arg(&file).arg("PRAGMA integrity_check; SELECT count(*) FROM t;"));
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "ok", "{told}");
    lines[1].parse().unwrap()
}

/// Looks until it is so, and says how long that took.
fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < HANGS, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

#[test]
fn commits_travel_by_themselves_at_most_once_in_an_interval_and_an_idle_database_writes_nothing() {
    let place = Place::new();
    let mut writer = Writer::start(&place, "&sync_interval=1s");
    let first = writer.commit(1, 100);
    until("the first commit is there", || writer.is_safe());
    assert_eq!(rows_there(&place), first);

    // A trickle: one publication in an interval, and one for what came last.
    std::thread::sleep(Duration::from_millis(1500));
    let before = history(&place).len();
    let begun = Instant::now();
    let last = writer.commit(100, 20);
    let took = begun.elapsed();
    until("the trickle is there", || writer.is_safe());
    let records = history(&place).len() - before;
    assert!(records as u64 <= took.as_secs() + 2, "{records} records in {took:?}");
    assert!(records as u64 >= took.as_secs() / 2, "{records} records in {took:?}");
    assert_eq!(rows_there(&place), last);

    let before = history(&place).len();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(history(&place).len(), before, "nobody committed, and something was published");
    // All of it was commits, one by one.
    let segments = history(&place).iter().filter(|record| record["kind"] == "segment").count();
    assert!(segments >= 4, "{:?}", history(&place));
    writer.end();
    assert_eq!(rows_there(&place), last);
}

#[test]
fn who_ships_is_killed_and_another_goes_on_and_nothing_that_was_committed_is_lost() {
    let place = Place::new();
    let mut first = Writer::start(&place, "");
    let mut second = Writer::start(&place, "");
    let mut last = 0;
    for _ in 0..3 {
        last = first.commit(20, 200).max(second.commit(20, 200));
        until("both are there", || first.is_safe());
        assert_eq!(rows_there(&place), last);
        // The one who began first ships: it dies with something that nobody has shipped.
        first.order("commit 1000 2000");
        let mut acknowledged = last;
        while acknowledged < last + 30 {
            acknowledged = first.hear().split_once(' ').unwrap().1.parse().unwrap();
        }
        first.kill();
        let took = until("the other one ships", || second.is_safe());
        eprintln!("another process shipped after {took:?}");
        last = rows_there(&place);
        assert!(last >= acknowledged, "{acknowledged} was acknowledged, {last} are there");
        assert_eq!(second.rows("SELECT count(*) FROM t"), last.to_string());
        first = std::mem::replace(&mut second, Writer::start(&place, ""));
    }
    // The last one dies too. Whoever comes next finds all of it, and publishes it.
    second.end();
    first.order("commit 1000 2000");
    let mut acknowledged = 0;
    while acknowledged < last + 50 {
        acknowledged = first.hear().split_once(' ').unwrap().1.parse().unwrap();
    }
    first.kill();
    let mut next = Writer::start(&place, "");
    until("what the dead one left is there", || next.is_safe());
    assert!(rows_there(&place) >= acknowledged);
    next.end();
}

fn signal(writer: &Writer, signal: &str) {
    said(command("kill").args([signal, &writer.process.id().to_string()]));
}

#[test]
fn p12_where_who_ships_is_stopped_another_one_ships_in_its_place_and_nothing_breaks_when_it_goes_on() {
    let place = Place::new();
    let mut first = Writer::start(&place, "");
    let mut second = Writer::start(&place, "");
    let mut third = Writer::start(&place, "");
    let mut last = first.commit(5, 200);
    until("all is there", || first.is_safe());
    for _ in 0..2 {
        // It has nothing to do, and so holds nothing but its election.
        std::thread::sleep(Duration::from_millis(1500));
        signal(&first, "-STOP");
        second.rows("PRAGMA littoral_durability = remote");
        let begun = Instant::now();
        last = second.commit(1, 1000).max(third.commit(1, 1000));
        eprintln!("a commit was remote after {:?}, while who was elected is stopped", begun.elapsed());
        assert!(rows_there(&place) >= last - 1);
        // Once another one does it, it is as quick as ever.
        let begun = Instant::now();
        last = second.commit(5, 1000);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(rows_there(&place), last);
        signal(&first, "-CONT");
        // All at once: who goes on, who stood in, and who waits.
        last = first.commit(20, 500).max(second.commit(20, 500)).max(third.commit(20, 500));
        for writer in [&mut first, &mut second, &mut third] {
            until("all is there", || writer.is_safe());
        }
        assert_eq!(rows_there(&place), last);
    }
    // Nothing that either had published is missing, and nothing was compared page by page for that.
    let url = format!("{}/app.db", place.remote());
    said(command(&built().littoral).args(["verify", &url, "--quiet"]));
    // He who is stopped is killed: the next one is elected.
    signal(&first, "-STOP");
    first.kill();
    last = second.commit(1, 1000).max(last);
    assert_eq!(rows_there(&place), last);
    second.end();
    third.end();
}

#[test]
fn who_waits_for_a_process_that_was_stopped_in_the_middle_of_a_publication_is_told_which_one() {
    let place = Place::new();
    let mut writer = Writer::start(&place, "");
    writer.commit(2, 200);
    until("all is there", || writer.is_safe());
    // It holds what whoever publishes holds.
    let mut holder = command(python());
    holder.current_dir(place.machine()).args(["-c", "import fcntl, glob, os, signal\nheld = open(glob.glob('.littoral/tracker/*.worker.lock')[0], 'r+')\nfcntl.flock(held, fcntl.LOCK_EX)\nheld.truncate(0)\nheld.write(f'process {os.getpid()}\\n')\nheld.flush()\nprint(os.getpid(), flush=True)\nos.kill(os.getpid(), signal.SIGSTOP)\n"]);
    let mut holder = holder.stdout(Stdio::piped()).spawn().unwrap();
    let mut pid = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    writer.rows("PRAGMA littoral_durability = remote");
    writer.order("INSERT INTO t(who) VALUES ('waits')");
    assert_eq!(writer.hear(), "error SQL logic error");
    let told = writer.rows("SELECT value FROM littoral_status WHERE name = 'last_error'");
    assert!(told.contains("committed here") && told.contains(&format!("process {}", pid.trim())), "{told}");
    assert!(told.contains("is stopped"), "{told}");
    said(command("kill").args(["-CONT", pid.trim()]));
    holder.wait().unwrap();
    until("what was committed is there", || rows_there(&place) == 3);
    writer.end();
}

#[test]
fn s16_a_commit_of_a_rollback_journal_that_waits_for_nobody_is_not_refused_because_of_a_reader_of_ours() {
    let place = Place::new();
    let mut writer = Writer::start(&place, "&sync_interval=1ms");
    writer.commit(20, 1000);
    assert_eq!(writer.rows("PRAGMA journal_mode = DELETE"), "delete");
    writer.rows("PRAGMA busy_timeout = 0");
    for _ in 0..10 {
        // The first that is refused ends it.
        let before = writer.rows("SELECT max(n) FROM t").parse::<u64>().unwrap();
        assert_eq!(writer.commit(50, 500), before + 50);
    }
    until("all is there", || writer.is_safe());
    assert_eq!(rows_there(&place), 520);
    writer.end();
}

#[test]
fn processes_that_come_and_go_lose_nothing_and_leave_the_files_that_stock_leaves() {
    let place = Place::new();
    for nth in 1..=12 {
        let mut shell = place.host("sqlite3");
        shell.env_remove("LITTORAL_SYNC_INTERVAL").args(["-batch", "-cmd"]);
        shell.arg(format!(".load {}", built().extension.display()));
        // However slow this machine is just now.
        let uri = format!("file:app.db?vfs=littoral&volume=app.db&close_wait=60s&remote={}", place.remote());
        shell.args(["-cmd", &format!(".open {uri}"), ":memory:"]);
        shell.args([
            "PRAGMA journal_mode = WAL",
            "CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY)",
            "INSERT INTO t DEFAULT VALUES",
        ]);
        said(&mut shell);
        let left: Vec<String> = place.files().into_iter().filter(|name| name.starts_with("app.db")).collect();
        assert_eq!(left, ["app.db"], "after {nth}");
        assert_eq!(rows_there(&place), nth);
    }
}

#[test]
fn the_last_close_of_a_process_that_opens_again_and_again_takes_the_wal_along_whoever_reads_it() {
    let place = Place::new();
    let mut writer = Writer::start(&place, "&sync_interval=1ms");
    let mut last = 0;
    for _ in 0..40 {
        last = writer.commit(3, 1000);
        assert_eq!(writer.ask("close"), "closed");
        let left: Vec<String> = place.files().into_iter().filter(|name| name.starts_with("app.db")).collect();
        assert_eq!(left, ["app.db"]);
        assert_eq!(writer.ask("open"), "opened");
    }
    until("all is there", || writer.is_safe());
    assert_eq!(rows_there(&place), last);
    writer.end();
}

#[test]
fn a_forked_child_ships_for_itself_when_its_parent_is_dead_and_holds_none_of_its_locks() {
    let place = Place::new();
    let mut parent = Writer::start(&place, "&sync_interval=1ms");
    parent.commit(20, 1000);
    // Forked while the parent's thread ships.
    parent.order("fork INSERT INTO t(who) VALUES ('child')");
    let told = [parent.hear(), parent.hear()];
    assert!(
        told.iter().any(|line| line.starts_with("forked")) && told.iter().any(|line| line.starts_with("child")),
        "{told:?}"
    );
    let child = told.iter().find_map(|line| line.strip_prefix("forked ")).unwrap().to_owned();
    let last = parent.commit(20, 1000);
    until("both are there", || parent.is_safe());
    assert_eq!(rows_there(&place), last);
    parent.order("commit 100 1000");
    parent.hear();
    parent.kill();
    // The child lives on: the locks of its parent must not live on with it.
    let mut next = Writer::start(&place, "");
    let last = next.commit(1, 1000);
    until("what comes after the parent is there", || next.is_safe());
    assert_eq!(rows_there(&place), last);
    said(command("kill").args(["-9", &child]));
    next.end();
}

#[test]
fn s07_a_forked_child_that_does_nothing_is_nobody_who_has_the_database_open() {
    let place = Place::new();
    for round in 0..3 {
        let mut parent = Writer::start(&place, "&sync_interval=1ms");
        // Forked while the parent's threads ship, count and copy.
        parent.order("commit 200 2000");
        parent.order("fork");
        let child =
            std::iter::repeat_with(|| parent.hear()).find_map(|line| line.strip_prefix("forked ").map(str::to_owned));
        let child = child.unwrap();
        until("all of it is there", || parent.is_safe());
        parent.kill();
        // Nobody watches now: what another SQLite commits is noticed by whoever comes, as if the child were not there.
        place.stock("app.db", "INSERT INTO t(who) VALUES ('foreign')");
        let mut next = Writer::start(&place, "");
        until("what nobody saw is there", || next.is_safe() && rows_there(&place) == 201 * (round + 1));
        next.end();
        said(command("kill").args(["-9", &child]));
    }
}

#[test]
fn processes_that_open_a_database_while_it_is_published_for_the_first_time_find_their_own() {
    for _ in 0..6 {
        let place = Place::new();
        let mut first = Writer::start(&place, "");
        let others: Vec<Writer> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| Writer::start(&place, ""))).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        let last = first.commit(3, 1000);
        others.into_iter().for_each(Writer::end);
        until("all is there", || first.is_safe());
        assert_eq!(rows_there(&place), last);
        first.end();
    }
}

#[test]
fn s15_frames_that_vanish_under_load_travel_all_the_same_commit_by_commit() {
    let place = Place::new();
    let mut writer = Writer::start(&place, "&sync_interval=700ms");
    // The WAL starts over again and again between two publications.
    writer.rows("PRAGMA wal_autocheckpoint = 100");
    let mut last = writer.commit(1, 100);
    until("the first is there", || writer.is_safe());
    let before = history(&place).len();
    for _ in 0..5 {
        last = writer.commit(400, 400);
    }
    until("all is there", || writer.is_safe());
    assert_eq!(rows_there(&place), last);
    let kinds: Vec<String> = history(&place).iter().map(|record| record["kind"].as_str().unwrap().to_owned()).collect();
    let came = &kinds[..kinds.len() - before];
    let segments = came.iter().filter(|kind| *kind == "segment").count();
    assert!(segments >= 5 && segments * 10 >= came.len() * 8, "{came:?}");
    // Each commit has an LSN of its own, and no copy of it is left.
    let newest = &history(&place)[0];
    let lsn = newest["position"].as_str().unwrap().split_once('.').unwrap().1;
    assert!(lsn.parse::<u64>().unwrap() >= last, "{newest}");
    writer.end();
    assert_eq!(rows_there(&place), last);
    let sealed = place.machine().join(".littoral/wal");
    let left: Vec<_> = std::fs::read_dir(&sealed)
        .into_iter()
        .flatten()
        .flat_map(|one| std::fs::read_dir(one.unwrap().path()).unwrap())
        .collect();
    assert!(left.len() <= 1, "{left:?}");
}

#[test]
fn s13_a_commit_that_was_asked_to_be_remote_is_there_when_it_returns() {
    let place = Place::new();
    let mut writer = Writer::start(&place, "&durability=remote&sync_interval=1h");
    for count in [1, 3, 10] {
        let last = writer.commit(count, 1000);
        assert_eq!(rows_there(&place), last);
    }
    // One by one, and back.
    assert_eq!(writer.rows("PRAGMA littoral_durability = local"), "local");
    writer.commit(5, 1000);
    let before = rows_there(&place);
    assert_eq!(writer.rows("PRAGMA littoral_durability_once = remote"), "remote");
    let last = writer.commit(1, 1000);
    assert_eq!(rows_there(&place), last);
    assert!(last > before);
    writer.commit(1, 1000);
    assert_eq!(rows_there(&place), last, "once was for one transaction");
    assert!(writer.ask("PRAGMA littoral_durability = both").contains("local or remote"));
    // Whoever keeps others out keeps out who ships: that is an error, and no silence; and it travels when he lets them in.
    writer.rows("PRAGMA littoral_durability = remote");
    writer.rows("PRAGMA locking_mode = EXCLUSIVE");
    assert!(writer.ask("INSERT INTO t(who) VALUES ('alone')").starts_with("error"));
    writer.rows("PRAGMA locking_mode = NORMAL");
    writer.rows("SELECT count(*) FROM t");
    let last = writer.commit(1, 1000);
    assert_eq!(rows_there(&place), last);
    // In rollback mode too.
    writer.rows("PRAGMA journal_mode = DELETE");
    let last = writer.commit(1, 1000);
    assert_eq!(rows_there(&place), last);
    writer.end();
}

#[test]
fn who_works_for_the_store_is_waited_for_and_that_is_no_failure() {
    let place = Place::new();
    let store = place.machine().join(".littoral");
    fs::create_dir(&store).unwrap();
    // Somebody makes a checkpoint of a neighbour's.
    let work = File::create(store.join("worker.lock")).unwrap();
    flock(&work, FlockOperation::LockExclusive).unwrap();
    let mut writer = Writer::start(&place, "&sync_interval=100ms");
    let last = writer.commit(3, 1000);
    std::thread::sleep(Duration::from_secs(2));
    assert!(!Path::new(place.remote().trim_start_matches("file://")).exists(), "published past who is at work");
    let told = writer.ask("PRAGMA littoral_status");
    assert!(!told.contains("is at work"), "a moment is nothing to tell of: {told}");
    // Who asks waits too, and has his answer when it is over.
    writer.order("PRAGMA littoral_sync");
    std::thread::sleep(Duration::from_secs(1));
    drop(work);
    let answer = writer.hear();
    assert!(answer.starts_with("rows 1."), "{answer}");
    assert_eq!(rows_there(&place), last);
    assert!(writer.is_safe());
    writer.end();
}

#[test]
fn p06_what_was_merged_by_command_leaves_known_what_changed_and_the_next_commit_travels_by_itself() {
    let place = Place::new();
    let mut writer = Writer::start(&place, "&sync_interval=100ms");
    writer.commit(20, 1000);
    writer.until_safe();
    let run = |arguments: &[&str]| said(place.host(&built().littoral).args(arguments).arg("--json"));
    for nth in 0..5 {
        writer.rows(&format!("UPDATE t SET body = 'round {nth}' WHERE n = {}", nth + 1));
        run(&["checkpoint", "app.db", "--no-coalesce"]);
    }
    let told: Value = serde_json::from_str(&run(&["coalesce", "app.db"])).unwrap();
    assert!(told["records"].as_u64().unwrap() > 0, "there was nothing to merge: {told}");
    let last = writer.commit(1, 1000);
    writer.until_safe();
    let history = history(&place);
    assert_eq!(history[0]["kind"], "segment", "{history:?}");
    assert!(history.iter().all(|record| record["kind"] != "gap"), "{history:?}");
    assert_eq!(rows_there(&place), last);
    writer.end();
}
