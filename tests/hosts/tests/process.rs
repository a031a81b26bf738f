//! What a process may do to us: two SQLite libraries, fork, threads, ends without a word, loads and unloads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{Place, built, command, python, room, said};
use std::os::unix::process::ExitStatusExt;

#[test]
fn s09_two_sqlite_libraries_in_one_process_share_no_database() {
    let place = Place::new();
    place.python("two_libraries.py");
    assert_eq!(place.stock("first.db", "SELECT count(*) FROM t; PRAGMA integrity_check"), "52\nok");
    assert_eq!(place.stock("second.db", "SELECT count(*) FROM t; PRAGMA integrity_check"), "50\nok");
}

#[test]
fn a_forked_child_opens_its_own_and_the_parent_goes_on() {
    let place = Place::new();
    place.python("fork.py");
    place.lose_machine();
    place.restore("app.db", "back.db");
    assert_eq!(place.stock("back.db", "SELECT group_concat(who, '; ') FROM t"), "parent, before; child; parent, after");
}

#[test]
fn threads_write_and_publish_at_once() {
    let place = Place::new();
    place.python("threads.py");
    place.lose_machine();
    place.restore("app.db", "back.db");
    let sql = "SELECT count(*), count(DISTINCT thread), sum(n) FROM t; PRAGMA integrity_check";
    assert_eq!(place.stock("back.db", sql), "600|6|29700\nok");
}

#[test]
fn whoever_ends_without_closing_loses_nothing_that_was_committed() {
    for how in ["at once", "killed", "as Python does"] {
        let place = Place::new();
        let run = |arguments: &[&str]| {
            let mut python = place.host(python());
            python.arg(room().join("scripts/exit.py")).args(arguments);
            python.output().unwrap()
        };
        for time in 1..=2 {
            let ended = run(&[how]);
            let why = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(ended.status.success() || ended.status.signal() == Some(9), "{how}, time {time}: {why}");
            let rows = (2 * time).to_string();
            let looked = run(&["look", &rows]);
            assert!(looked.status.success(), "{how}, time {time}: {}", String::from_utf8_lossy(&looked.stderr));
        }
        place.lose_machine();
        place.restore("app.db", "back.db");
        let told = place.stock("back.db", "SELECT count(*), count(DISTINCT x) FROM t; PRAGMA integrity_check");
        assert_eq!(told, "4|2\nok", "{how}");
    }
}

#[test]
fn s19_what_is_loaded_stays_and_what_cannot_be_is_refused_with_the_reason() {
    let place = Place::new();
    let mut script = place.host(python());
    script.arg(room().join("scripts/loading.py"));
    let quiet = script.output().unwrap();
    let shown = String::from_utf8_lossy(&quiet.stderr);
    assert!(quiet.status.success() && shown.is_empty(), "{shown}");
    // The same, and whoever asks is told.
    let place = Place::new();
    let mut script = place.host(python());
    let told = script.arg(room().join("scripts/loading.py")).env("LITTORAL_LOG", "error").output().unwrap();
    let shown = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success() && shown.contains("did you mean \"remote\"?"), "{shown}");
}

#[test]
fn the_extension_exports_its_entry_points_and_nothing_else() {
    let told = said(command("nm").args(["--dynamic", "--defined-only"]).arg(&built().extension));
    let names: Vec<&str> = told.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(names, ["sqlite3_littoral_init", "sqlite3_littoraldefault_init"]);
    let told = said(command("readelf").args(["--dynamic", "--wide"]).arg(&built().extension));
    assert!(told.contains("NODELETE"), "{told}");
}
