//! Commits that travel one by one: `PRAGMA littoral_sync` ships what the WAL has, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{Place, built, command, said};
use serde_json::Value;
use std::process::Stdio;

/// A session of the `sqlite3` shell on a database of a machine, each line a statement or one of the shell's commands.
fn shell(place: &Place, file: &str, parameters: &str, lines: &str) -> String {
    let mut command = place.host("sqlite3");
    command.args(["-batch", "-cmd"]).arg(format!(".load {}", built().extension.display()));
    let uri = format!("file:{file}?vfs=littoral&volume=app.db&remote={}{parameters}", place.remote());
    command.args(["-cmd", &format!(".open {uri}"), ":memory:"]).args(lines.lines().map(str::trim));
    let done = command.stdin(Stdio::null()).output().unwrap();
    let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && complaint.is_empty(), "{lines}: {complaint}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// What the log's records are, newest first.
fn history(place: &Place) -> Vec<String> {
    let mut littoral = command(&built().littoral);
    littoral.args(["history", &format!("{}/app.db", place.remote()), "--json", "--limit", "500"]);
    let told: Value = serde_json::from_str(&said(&mut littoral)).unwrap();
    let records = told["records"].as_array().unwrap_or_else(|| panic!("{told}"));
    records.iter().map(|record| record["kind"].as_str().unwrap().to_owned()).collect()
}

fn restored(place: &Place, at: &str) -> String {
    let mut littoral = command(&built().littoral);
    littoral.current_dir(place.machine()).args([
        "restore",
        &format!("{}/app.db", place.remote()),
        "back.db",
        "--force",
    ]);
    said(littoral.args(["--at", at]));
    place.stock("back.db", "SELECT count(*), sum(length(b)) FROM t; PRAGMA integrity_check;")
}

const BEGIN: &str = "PRAGMA journal_mode = WAL;
    CREATE TABLE t(a INTEGER PRIMARY KEY, b, c); CREATE INDEX i ON t(c);
    WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) INSERT INTO t SELECT i, hex(randomblob(100)), i * 7919 % 1000 FROM n;
    SELECT '@' || littoral_checkpoint();";

#[test]
fn a_sync_ships_the_commits_and_nothing_else_and_each_is_a_restore_point_of_its_own() {
    let place = Place::new();
    // One connection, so that the WAL goes on.
    let told = shell(
        &place,
        "app.db",
        "",
        &format!(
            "{BEGIN}
             INSERT INTO t VALUES (5001, 'one', 1);
             UPDATE t SET b = 'two' WHERE a = 17;
             SELECT '@' || littoral_sync();
             SELECT '@' || littoral_sync();
             INSERT INTO t VALUES (5003, 'three', 3);
             SELECT '@' || littoral_sync();
             SELECT value FROM littoral_status WHERE name = 'safe';
             INSERT INTO t VALUES (5004, 'four', 4);
             SELECT '@' || littoral_checkpoint();
             INSERT INTO t VALUES (5005, 'five', 5);
             UPDATE t SET b = 'six' WHERE a < 40;
             SELECT '@' || littoral_sync();"
        ),
    );
    let positions: Vec<u64> =
        told.lines().filter_map(|line| line.strip_prefix("@1.")).map(|lsn| lsn.parse().unwrap()).collect();
    let first = positions[0];
    let expected: Vec<u64> = [0, 2, 2, 3, 4, 6].iter().map(|more| first + more).collect();
    assert_eq!(positions, expected, "one LSN for each transaction: {told}");
    assert!(told.contains("yes"), "{told}");
    let history = history(&place);
    let kinds: Vec<&str> = history.iter().rev().map(String::as_str).collect();
    assert_eq!(kinds, ["claim", "checkpoint", "segment", "segment", "checkpoint", "segment"], "{history:?}");
    // Every restore point, from a machine that has nothing.
    place.lose_machine();
    let rows =
        |at: u64| restored(&place, &at.to_string()).lines().next().unwrap().split('|').next().unwrap().to_owned();
    assert_eq!([first, first + 2, first + 3, first + 4, first + 6].map(rows), ["4000", "4001", "4002", "4003", "4004"]);
    assert!(restored(&place, &(first + 6).to_string()).ends_with("ok"));
    // And lazily, page by page.
    let question =
        "SELECT group_concat(b) FROM (SELECT b FROM t WHERE a IN (3, 17, 5001, 5003, 5004, 5005) ORDER BY a);
                    SELECT count(*) FROM t INDEXED BY i WHERE c >= 0;
                    PRAGMA integrity_check;";
    assert_eq!(shell(&place, "app.db", "", question), "six,six,one,three,four,five\n4004\nok");
}

#[test]
fn p09_what_cannot_be_told_apart_is_a_checkpoint_and_segments_go_on_from_there() {
    let place = Place::new();
    shell(&place, "app.db", "", BEGIN);
    let sync = "SELECT littoral_sync();";
    // Each of these leaves no WAL that goes on from the newest record: it started over with something in it, there is none, somebody wrote
    // past us.
    let restart = "INSERT INTO t VALUES (5002, 'before', 1);\nPRAGMA wal_checkpoint(RESTART);\nINSERT INTO t VALUES (5003, 'after', 1);";
    shell(&place, "app.db", "", &format!("{sync}\n{restart}\n{sync}"));
    shell(
        &place,
        "app.db",
        "",
        &format!("PRAGMA journal_mode = DELETE;\nINSERT INTO t VALUES (5004, 'rollback', 1);\n{sync}"),
    );
    shell(&place, "app.db", "", &format!("PRAGMA journal_mode = WAL;\nINSERT INTO t VALUES (5005, 'wal', 1);\n{sync}"));
    place.stock("app.db", "INSERT INTO t VALUES (5006, 'foreign', 1)");
    shell(&place, "app.db", "", sync);
    let vacuum = "DELETE FROM t WHERE a % 3 = 0;\nVACUUM;";
    let again = "INSERT INTO t VALUES (5007, 'again', 1);";
    let told = shell(
        &place,
        "app.db",
        "",
        &format!("{vacuum}\n{sync}\n{again}\n{sync}\n{again_too}\n{sync}", again_too = again.replace('7', "8")),
    );
    let newest: u64 = told.lines().last().unwrap().strip_prefix("1.").unwrap().parse().unwrap();
    let history = history(&place);
    assert_eq!(history[0], "segment", "{history:?}");
    assert!(history.iter().filter(|kind| *kind == "checkpoint").count() >= 4, "{history:?}");
    let here = place.stock("app.db", "SELECT count(*), sum(length(b)) FROM t; PRAGMA integrity_check;");
    assert_eq!(restored(&place, &newest.to_string()), here);
}

#[test]
fn many_processes_write_and_sync_at_once_and_nothing_is_lost_or_doubled() {
    let place = Place::new();
    shell(&place, "app.db", "", BEGIN);
    let lines = |worker: u32| -> String {
        (0..12)
            .map(|nth| {
                format!(
                    "INSERT INTO t(b, c) VALUES ('{worker}-{nth}', {worker});\nUPDATE t SET c = c + 1 WHERE a % 400 = {nth};\nSELECT littoral_sync();\n"
                )
            })
            .collect()
    };
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (place, lines) = (&place, lines(worker));
            scope.spawn(move || shell(place, "app.db", "", &format!(".timeout 60000\n{lines}")));
        }
    });
    let segments = history(&place).iter().filter(|kind| *kind == "segment").count();
    assert!(segments > 4, "hardly anything travelled commit by commit: {segments}");
    let question = "SELECT count(*), sum(c), sum(length(b)) FROM t; PRAGMA integrity_check;";
    let here = place.stock("app.db", question);
    place.lose_machine();
    place.restore("app.db", "back.db");
    assert_eq!(place.stock("back.db", question), here);
    assert!(here.starts_with("4048|"), "{here}");
    let mut verify = command(&built().littoral);
    said(verify.args(["verify", &format!("{}/app.db", place.remote())]));
}

#[test]
fn s14_frames_that_vanish_before_they_were_shipped_fail_no_call_of_sqlites_and_come_with_the_next_checkpoint() {
    let place = Place::new();
    shell(&place, "app.db", "", BEGIN);
    let remote = std::path::PathBuf::from(place.remote().strip_prefix("file://").unwrap());
    let away = remote.with_extension("away");
    // The object store is away, and the WAL starts over again and again.
    std::fs::rename(&remote, &away).unwrap();
    std::fs::write(&remote, b"not a folder").unwrap();
    let commits: String = (0..60)
        .map(|nth| {
            let over = if nth % 10 == 9 { "PRAGMA wal_checkpoint(RESTART);\n" } else { "" };
            format!("UPDATE t SET b = hex(randomblob(90)) WHERE a % 60 = {nth};\n{over}")
        })
        .collect();
    let told =
        shell(&place, "app.db", "", &format!("PRAGMA wal_autocheckpoint = 20;\n{commits}SELECT count(*) FROM t;"));
    assert!(told.ends_with("4000") && !told.contains("1|"), "a call of SQLite's failed, or was busy: {told}");
    let mut refused = place.host("sqlite3");
    refused.args(["-batch", "-cmd"]).arg(format!(".load {}", built().extension.display()));
    refused.args(["-cmd", &format!(".open file:app.db?vfs=littoral&volume=app.db&remote={}", place.remote())]);
    let refused = refused.args([":memory:", "PRAGMA littoral_sync;"]).stdin(Stdio::null()).output().unwrap();
    assert!(!refused.stderr.is_empty() || !refused.status.success(), "it was said to be safe: {refused:?}");
    std::fs::remove_file(&remote).unwrap();
    std::fs::rename(&away, &remote).unwrap();
    let position = shell(&place, "app.db", "", "SELECT littoral_sync();");
    assert_eq!(history(&place)[0], "checkpoint");
    let here = place.stock("app.db", "SELECT count(*), sum(length(b)) FROM t; PRAGMA integrity_check;");
    assert_eq!(restored(&place, &position), here);
}

#[test]
fn processes_that_come_and_go_ship_what_they_wrote_and_the_wal_that_they_take_away_is_no_gap() {
    let place = Place::new();
    shell(&place, "app.db", "", BEGIN);
    for nth in 0..5 {
        // Each is the last to close: the WAL goes, and the next one begins another.
        let insert = format!("INSERT INTO t VALUES ({}, 'come and gone', 1);\nSELECT littoral_sync();", 6000 + nth);
        shell(&place, "app.db", "", &insert);
        assert!(!place.files().iter().any(|name| name.ends_with("-wal")), "{:?}", place.files());
    }
    // One who ships nothing leaves it to the next one; of a WAL that started over meanwhile nobody can say what was in it.
    shell(&place, "app.db", "", "INSERT INTO t VALUES (7000, 'not shipped', 1);");
    shell(&place, "app.db", "", "INSERT INTO t VALUES (7001, 'shipped', 1);\nSELECT littoral_sync();");
    let kinds: Vec<String> = history(&place).into_iter().rev().collect();
    let segments = ["segment"; 5];
    assert_eq!(kinds, [&["claim", "checkpoint"][..], &segments, &["checkpoint"]].concat(), "{kinds:?}");
    let question = "SELECT count(*), sum(c), sum(length(b)) FROM t; PRAGMA integrity_check;";
    let here = place.stock("app.db", question);
    place.lose_machine();
    place.restore("app.db", "back.db");
    assert_eq!(place.stock("back.db", question), here);
}

#[test]
fn p09_a_wal_that_was_truncated_with_something_unshipped_in_it_is_a_gap_whatever_ended_before_it() {
    let place = Place::new();
    shell(&place, "app.db", "", BEGIN);
    // A WAL that ended shipped, taken away by the last close; one with something that is not; and one after that. The middle one must not be
    // passed over.
    let told = shell(
        &place,
        "app.db",
        "",
        "UPDATE t SET b = 'not shipped' WHERE a < 500;
         PRAGMA wal_checkpoint(TRUNCATE);
         UPDATE t SET b = 'after' WHERE a > 3500;
         SELECT littoral_sync();",
    );
    let newest = told.lines().last().unwrap().to_owned();
    let here = place.stock("app.db", "SELECT count(*), sum(length(b)) FROM t; PRAGMA integrity_check;");
    assert_eq!(restored(&place, &newest), here, "{told}");
    assert_eq!(history(&place)[0], "checkpoint");
}

#[test]
fn coalescing_leaves_known_what_changed_and_commits_go_on_travelling() {
    let place = Place::new();
    shell(&place, "app.db", "", BEGIN);
    let lines: String = (0..6)
        .map(|nth| {
            format!("UPDATE t SET b = 'round {nth}' WHERE a = {};\nSELECT littoral_checkpoint();\n", 1 + nth * 500)
        })
        .collect();
    let insert = "INSERT INTO t VALUES (9001, 'after', 1);\nSELECT littoral_sync();";
    // Whenever the last thing that was published is a coalescing, too.
    for nth in 0..6 {
        let some: String = lines.lines().take(2 * nth + 2).map(|line| format!("{line}\n")).collect();
        shell(&place, "app.db", "", &format!("{some}{}", insert.replace("9001", &(9001 + nth).to_string())));
        let history = history(&place);
        assert_eq!(history[0], "segment", "round {nth}: {history:?}");
    }
    assert!(history(&place).iter().any(|kind| kind == "coalesce"));
}

#[test]
fn a_checkpoint_that_folds_what_was_shipped_counts_what_came_by_other_ways_too() {
    let place = Place::new();
    shell(&place, "app.db", "", BEGIN);
    let shipped = shell(&place, "app.db", "", "INSERT INTO t VALUES (6001, 'shipped', 1);\nSELECT littoral_sync();");
    let question = "SELECT count(*), sum(length(b)) FROM t; PRAGMA integrity_check;";
    let then = place.stock("app.db", question);
    // Neither of these leaves a frame in a WAL: each is a commit, and the state before it keeps its own number.
    let mut before = (shipped, then);
    let rollback = "PRAGMA journal_mode = DELETE;\nINSERT INTO t VALUES (6002, 'by a journal', 1);\nSELECT '@' || littoral_checkpoint();";
    let foreign = "SELECT '@' || littoral_checkpoint();";
    for (step, lines) in [rollback, foreign].into_iter().enumerate() {
        if step == 1 {
            shell(
                &place,
                "app.db",
                "",
                "PRAGMA journal_mode = WAL;\nINSERT INTO t VALUES (6010, 'a frame', 1);\nSELECT littoral_checkpoint();",
            );
            let shipped =
                shell(&place, "app.db", "", "INSERT INTO t VALUES (6003, 'shipped', 1);\nSELECT littoral_sync();");
            assert_eq!(history(&place)[0], "segment");
            before = (shipped, place.stock("app.db", question));
            place.stock("app.db", "PRAGMA journal_mode = DELETE; DELETE FROM t WHERE a < 50;");
        }
        let told = shell(&place, "app.db", "", lines);
        let position = told.lines().find_map(|line| line.strip_prefix('@')).unwrap().to_owned();
        assert_ne!(position, before.0, "step {step}: two states with one number");
        assert_eq!(restored(&place, &before.0), before.1, "step {step}");
        assert_eq!(restored(&place, &position), place.stock("app.db", question), "step {step}");
    }
}
