//! SQLite cannot tell (invariant I4): scenes played under the stock VFS and under ours, with a remote attached, say the same
//! words and leave the same bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_compat::place::{NAME, Place, difference, position};
use littoral_compat::script::{Played, play};
use littoral_compat::shell::How;

/// Rows that are the same in every run.
const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT UNIQUE, v TEXT);";
const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) \
    INSERT INTO t SELECT i, 'k' || i, printf('%.*c', i * 7 % 900, char(65 + i % 26)) FROM n;";
const LOOK: &str = "SELECT count(*), sum(id), sum(length(v)) FROM t; PRAGMA integrity_check;";

fn filled(scene: &str) -> String {
    scene.replace("{T}", T).replace("{FILL}", FILL).replace("{LOOK}", LOOK)
}

fn compare(scene: &str, same_bytes: bool) {
    let scene = filled(scene);
    let (stock, ours) = (Place::new(), Place::new());
    let wanted: Played = play(&stock, How::Stock, &scene);
    let found: Played = play(&ours, How::Littoral, &scene);
    for (wanted, found) in wanted.lines.iter().zip(&found.lines) {
        assert_eq!(found, wanted, "in the scene\n{scene}");
    }
    assert_eq!(found.lines.len(), wanted.lines.len(), "in the scene\n{scene}");
    let names = |played: &Played| played.files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&wanted), "files after the scene\n{scene}");
    if same_bytes {
        for (name, wanted) in &wanted.files {
            if let Some(difference) = difference(&found.files[name], wanted) {
                panic!("{name} after the scene\n{scene}\n{difference}");
            }
        }
    }
    // And the remote that is attached can have it.
    if ours.file(NAME).metadata().is_ok_and(|found| found.len() > 0) {
        let mut shell = ours.shell(How::Littoral);
        if shell.run("PRAGMA page_count;").first().is_some_and(|count| count.parse::<u64>().is_ok()) {
            let position =
                position(&shell.run("PRAGMA littoral_checkpoint;")).unwrap_or_else(|why| panic!("{why}\n{scene}"));
            ours.assert_restores(&position, &scene);
        }
    }
}

fn same(scene: &str) {
    compare(scene, true);
}

#[test]
fn every_journal_mode() {
    for mode in ["delete", "truncate", "persist", "memory", "wal", "off"] {
        same(&format!(
            "1 open app.db
             1> PRAGMA journal_mode = {mode}; {{T}}
             1> {{FILL}}
             1> {{LOOK}}
             1> BEGIN; UPDATE t SET v = v || 'x' WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 0; COMMIT;
             state
             1> BEGIN; INSERT INTO t VALUES (5000, 'new', 'row'); INSERT INTO t VALUES (5001, 'new', 'row');
             1> COMMIT; {{LOOK}}
             1> PRAGMA journal_mode; PRAGMA wal_checkpoint; PRAGMA freelist_count; PRAGMA page_count; PRAGMA data_version;
             2 open app.db
             2> {{LOOK}}
             2> UPDATE t SET v = 'two' WHERE id = 2;
             1> SELECT v FROM t WHERE id = 2; PRAGMA data_version;
             1 quit
             2> DROP TABLE t; {{T}}
             2> {{FILL}}
             state"
        ));
    }
}

#[test]
fn switches_between_journal_modes() {
    same(
        "1 open app.db
         1> {T}
         1> {FILL}
         1> PRAGMA journal_mode = wal; UPDATE t SET v = 'wal' WHERE id < 50;
         1> PRAGMA journal_mode = delete; UPDATE t SET v = 'delete' WHERE id < 40;
         state
         1> PRAGMA journal_mode = persist; UPDATE t SET v = 'persist' WHERE id < 30;
         1> PRAGMA journal_mode = wal; UPDATE t SET v = 'wal again' WHERE id < 25; PRAGMA journal_mode = truncate;
         1> UPDATE t SET v = 'truncate' WHERE id < 20; PRAGMA journal_mode = memory; UPDATE t SET v = 'memory' WHERE id < 10;
         1> PRAGMA journal_mode = off; UPDATE t SET v = 'off' WHERE id < 5; PRAGMA journal_mode = wal;
         2 open app.db
         2> {LOOK}
         2> PRAGMA journal_mode = delete;
         1> BEGIN; SELECT count(*) FROM t;
         2> PRAGMA journal_mode = delete; PRAGMA journal_mode;
         1> COMMIT;
         1 quit
         2> PRAGMA journal_mode = delete; {LOOK}
         state",
    );
}

#[test]
fn exclusive_locking() {
    for mode in ["wal", "delete", "persist"] {
        same(&format!(
            "1 open app.db
             1> PRAGMA journal_mode = {mode}; {{T}}
             1> PRAGMA locking_mode = exclusive; {{FILL}}
             1> {{LOOK}}
             state
             2 open app.db
             2> SELECT count(*) FROM t;
             1> UPDATE t SET v = 'e' WHERE id > 300; PRAGMA wal_checkpoint;
             1> PRAGMA locking_mode = normal; SELECT count(*) FROM t;
             2> SELECT count(*) FROM t; UPDATE t SET v = 'two' WHERE id = 1;
             1> {{LOOK}}
             state"
        ));
    }
    // From the very start: a WAL without shared memory.
    same(
        "1 open app.db
         1> PRAGMA locking_mode = exclusive; PRAGMA journal_mode = wal; {T}
         1> {FILL}
         state
         1> UPDATE t SET v = 'x' WHERE id % 5 = 0; PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET v = 'y' WHERE id % 9 = 0;
         1 quit
         state
         1 open app.db
         1> {LOOK}",
    );
}

#[test]
fn memory_maps() {
    for mode in ["wal", "delete"] {
        same(&format!(
            "1 open app.db
             1> PRAGMA mmap_size = 268435456; PRAGMA journal_mode = {mode}; {{T}}
             1> {{FILL}}
             1> {{LOOK}}
             2 open app.db
             2> PRAGMA mmap_size = 268435456; {{LOOK}}
             2> UPDATE t SET v = printf('%.*c', 1500, 'm') WHERE id % 2 = 0; PRAGMA wal_checkpoint;
             1> {{LOOK}}
             1> DELETE FROM t WHERE id > 100; VACUUM;
             2> {{LOOK}}
             2> {{FILL}}
             2> INSERT OR IGNORE INTO t SELECT id + 1000, k || 'x', v FROM t; PRAGMA wal_checkpoint(TRUNCATE);
             1> {{LOOK}}"
        ));
    }
}

#[test]
fn vacuums() {
    for (mode, auto) in
        [("wal", "none"), ("delete", "none"), ("delete", "full"), ("wal", "incremental"), ("persist", "incremental")]
    {
        same(&format!(
            "1 open app.db
             1> PRAGMA auto_vacuum = {auto}; PRAGMA journal_mode = {mode}; {{T}}
             1> {{FILL}}
             1> DELETE FROM t WHERE id BETWEEN 50 AND 350; PRAGMA freelist_count; PRAGMA incremental_vacuum(3); PRAGMA freelist_count;
             1> PRAGMA incremental_vacuum; PRAGMA page_count;
             1> {{LOOK}}
             1> VACUUM; {{LOOK}}
             1> VACUUM INTO 'copy.db'; PRAGMA page_count;
             1> PRAGMA journal_mode = delete; PRAGMA page_size = 1024; VACUUM; PRAGMA page_size; PRAGMA page_count;
             1> PRAGMA page_size = 65536; VACUUM; PRAGMA page_size; PRAGMA journal_mode = {mode}; {{LOOK}}
             1> INSERT INTO t SELECT id + 10000, k || '-', v FROM t; {{LOOK}}
             state"
        ));
    }
}

#[test]
fn every_page_size() {
    for size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        for mode in ["wal", "delete"] {
            same(&format!(
                "1 open app.db
                 1> PRAGMA page_size = {size}; PRAGMA journal_mode = {mode}; {{T}}
                 1> {{FILL}}
                 1> UPDATE t SET v = v || 'x' WHERE id % 11 = 0; DELETE FROM t WHERE id > 380; {{LOOK}}
                 1 kill
                 2 open app.db
                 2> {{LOOK}}
                 2> PRAGMA page_size; PRAGMA wal_checkpoint(TRUNCATE);"
            ));
        }
    }
}

#[test]
fn attached_databases_commit_together() {
    for (one, two) in [("delete", "delete"), ("wal", "wal"), ("persist", "truncate"), ("wal", "delete")] {
        same(&format!(
            "1 open app.db
             1> PRAGMA journal_mode = {one}; {{T}}
             1> ATTACH '@other.db@' AS o; ATTACH ':memory:' AS m; PRAGMA o.journal_mode = {two};
             1> CREATE TABLE o.t2(a, b); CREATE TABLE m.t3(a); CREATE TEMP TABLE t4(a);
             1> {{FILL}}
             1> BEGIN; INSERT INTO o.t2 SELECT id, v FROM t; UPDATE t SET v = 'both' WHERE id < 100; INSERT INTO m.t3 SELECT id FROM t;
             1> INSERT INTO t4 SELECT id FROM t; COMMIT; SELECT count(*) FROM o.t2; SELECT count(*) FROM t3; SELECT count(*) FROM t4;
             state
             1> BEGIN; DELETE FROM o.t2; DELETE FROM t; ROLLBACK; {{LOOK}}
             1> DETACH o; PRAGMA database_list;
             2 open other.db
             2> SELECT count(*), sum(length(b)) FROM t2; PRAGMA integrity_check;"
        ));
    }
}

#[test]
fn temporary_files_and_spilled_transactions() {
    for mode in ["wal", "delete", "truncate", "off"] {
        same(&format!(
            "1 open app.db
             1> PRAGMA journal_mode = {mode}; PRAGMA cache_size = 5; PRAGMA temp_store = file; {{T}}
             1> {{FILL}}
             1> CREATE TEMP TABLE big AS SELECT a.id, b.v FROM t a JOIN t b ON a.id % 40 = b.id % 40; SELECT count(*) FROM big;
             1> SELECT sum(length(v)) FROM (SELECT v FROM big ORDER BY v DESC, id LIMIT 500); CREATE INDEX bi ON big(v);
             1> BEGIN; UPDATE t SET v = v || printf('%.*c', 800, 's'); SAVEPOINT a; DELETE FROM t WHERE id % 2 = 0; SAVEPOINT b;
             1> UPDATE t SET k = 'z' || k; {{LOOK}}
             1> RELEASE b; INSERT INTO t SELECT id + 9000, 'q' || id, v FROM t; COMMIT; {{LOOK}}
             state"
        ));
    }
    for mode in ["wal", "delete", "persist"] {
        same(&format!(
            "1 open app.db
             1> PRAGMA journal_mode = {mode}; PRAGMA cache_size = 5; {{T}}
             1> {{FILL}}
             1> BEGIN; UPDATE t SET v = v || printf('%.*c', 800, 's'); SAVEPOINT a; DELETE FROM t; ROLLBACK TO a; UPDATE t SET v = 'r';
             1> SAVEPOINT b; INSERT INTO t SELECT id + 9000, 'q' || id, v FROM t; ROLLBACK TO b; COMMIT; {{LOOK}}
             1> BEGIN; UPDATE t SET v = printf('%.*c', 3000, 's'); ROLLBACK; {{LOOK}}
             state"
        ));
    }
}

#[test]
fn backup_and_restore_in_both_directions() {
    for mode in ["wal", "delete"] {
        same(&format!(
            "1 open app.db
             1> PRAGMA journal_mode = {mode}; {{T}}
             1> {{FILL}}
             1> .backup plain.db
             1> .backup @ours.db@
             1> UPDATE t SET v = 'after';
             1> .backup later.db
             1> .restore plain.db
             1> {{LOOK}}
             1> .restore @ours.db@
             1> {{LOOK}}
             1> UPDATE t SET v = 'x' WHERE id < 10; {{LOOK}}
             2 open ours.db
             2> {{LOOK}}
             2> .restore app.db
             2> {{LOOK}}
             state"
        ));
    }
}

#[test]
fn read_only_media_and_immutable_files() {
    same(
        "1 open app.db
         1> {T}
         1> {FILL}
         1 quit
         forbid app.db
         2 open app.db immutable=1
         2> {LOOK}
         state
         2 quit
         3 open app.db mode=ro
         3> {LOOK}
         3> INSERT INTO t VALUES (9999, 'x', 'y');
         state",
    );
    same(
        "1 open app.db
         1> PRAGMA journal_mode = wal; {T}
         1> {FILL}
         2 open app.db mode=ro
         2> {LOOK}
         1 quit
         2> {LOOK}
         2> DELETE FROM t;
         3 open app.db immutable=1
         3> {LOOK}
         4 open app.db nolock=1
         4> SELECT count(*) FROM t;
         5 open missing.db mode=rw
         5> SELECT 1 FROM t;",
    );
}

#[test]
fn hot_journals_after_a_kill() {
    for mode in ["delete", "truncate", "persist"] {
        same(&format!(
            "1 open app.db
             1> PRAGMA journal_mode = {mode}; {{T}}
             1> {{FILL}}
             1> PRAGMA cache_size = 3; BEGIN; UPDATE t SET v = printf('%.*c', 2000, 'h'); INSERT INTO t SELECT id + 500, 'h' || id, v FROM t;
             1 kill
             state
             2 open app.db
             2> {{LOOK}}
             state
             2> UPDATE t SET v = 'on' WHERE id = 1; {{LOOK}}
             3 open app.db mode=ro
             3> {{LOOK}}"
        ));
    }
}

#[test]
fn hot_wals_after_a_kill() {
    same(
        "1 open app.db
         1> PRAGMA journal_mode = wal; {T}
         1> {FILL}
         1> UPDATE t SET v = 'committed' WHERE id % 4 = 0;
         1> PRAGMA cache_size = 3; BEGIN; UPDATE t SET v = printf('%.*c', 2000, 'h'); INSERT INTO t SELECT id + 500, 'h' || id, v FROM t;
         1 kill
         state
         2 open app.db
         2> {LOOK}
         3 open app.db
         3> UPDATE t SET v = 'three' WHERE id = 3; {LOOK}
         2 kill
         3> {LOOK}
         3> PRAGMA wal_checkpoint(RESTART); UPDATE t SET v = 'four' WHERE id = 4;
         3 quit
         state",
    );
    // A WAL carried elsewhere together with its database.
    same(
        "1 open app.db
         1> PRAGMA journal_mode = wal; {T}
         1> {FILL}
         copy app.db copy.db
         copy app.db-wal copy.db-wal
         1> DELETE FROM t WHERE id > 10;
         2 open copy.db
         2> {LOOK}
         2 quit
         state",
    );
}

#[test]
fn files_that_change_behind_everybodys_back() {
    same(
        "1 open app.db
         1> {T}
         1> {FILL}
         1 quit
         copy app.db old.db
         2 open app.db
         2> DELETE FROM t WHERE id > 20; VACUUM;
         2 quit
         copy old.db app.db
         3 open app.db
         3> {LOOK}
         3> UPDATE t SET v = 'three' WHERE id = 3;
         3 quit
         delete app.db
         4 open app.db
         4> SELECT count(*) FROM sqlite_schema; {T}
         4 quit
         cut app.db 0
         5 open app.db
         5> SELECT count(*) FROM sqlite_schema; {T}
         5> {FILL}
         5 quit
         cut app.db 4096
         6 open app.db
         6> SELECT count(*) FROM t; PRAGMA page_count;
         6 quit
         move old.db app.db
         7 open app.db
         7> {LOOK}
         delete app.db
         7> SELECT count(*) FROM t; UPDATE t SET v = 'gone' WHERE id = 1;
         7 quit
         8 open app.db
         8> SELECT count(*) FROM sqlite_schema;",
    );
}

#[test]
fn locks_and_snapshots_between_connections() {
    for mode in ["wal", "delete"] {
        same(&format!(
            "1 open app.db
             2 open app.db
             1> PRAGMA journal_mode = {mode}; {{T}}
             1> {{FILL}}
             2> BEGIN; SELECT count(*) FROM t;
             1> UPDATE t SET v = 'w' WHERE id = 1;
             2> SELECT v FROM t WHERE id = 1; INSERT INTO t VALUES (7000, 'b', 'b');
             2> COMMIT;
             2> BEGIN IMMEDIATE; UPDATE t SET v = 'two' WHERE id = 2;
             1> BEGIN IMMEDIATE;
             1> SELECT v FROM t WHERE id = 2; UPDATE t SET v = 'one' WHERE id = 2;
             2> COMMIT;
             1> UPDATE t SET v = 'one' WHERE id = 2; SELECT v FROM t WHERE id = 2;
             2> BEGIN EXCLUSIVE;
             1> SELECT count(*) FROM t;
             2> ROLLBACK; {{LOOK}}
             1> PRAGMA wal_checkpoint(FULL); PRAGMA wal_autocheckpoint = 5; UPDATE t SET v = v || 'c'; PRAGMA journal_size_limit = 4096;
             1> UPDATE t SET v = v || 'd'; PRAGMA optimize; {{LOOK}}"
        ));
    }
}

#[test]
fn what_is_refused_is_refused_in_the_same_words() {
    same(
        "1 open app.db
         1> {T}
         1> {FILL}
         1> INSERT INTO t VALUES (1, 'x', 'y'); SELECT * FROM nowhere; PRAGMA no_such_pragma; CREATE TABLE t(x);
         1> PRAGMA query_only = 1; DELETE FROM t; PRAGMA query_only = 0; PRAGMA max_page_count = 60; INSERT INTO t SELECT id + 5000, 'm' || id, v || v FROM t;
         1> {LOOK}
         1> CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f SELECT v FROM t; SELECT count(*) FROM f WHERE f MATCH 'x*';
         copy app.db broken.db
         cut broken.db 5000
         2 open broken.db
         2> {LOOK}
         3 open nowhere/app.db
         3> SELECT 1 FROM t;",
    );
}

#[test]
fn four_processes_write_one_wal() {
    let rows = |who: u64| {
        let one = |n: u64| {
            format!("INSERT INTO t VALUES ({}, 'k{who}-{n}', printf('%.*c', {}, 'w'));", who * 1000 + n, n * 13 % 700)
        };
        (1..60).map(one).collect::<String>()
    };
    let mut scene = String::from("1 open app.db\n1> PRAGMA journal_mode = wal; {T}\n");
    for who in 1..=4 {
        scene.push_str(&format!("{who} open app.db\n{who}> .timeout 60000\n"));
    }
    for who in 1..=4 {
        scene.push_str(&format!("{who}? {}\n", rows(who)));
    }
    (1..=4).for_each(|who| scene.push_str(&format!("{who} wait\n")));
    scene.push_str("1> SELECT count(*), sum(id), sum(length(v)), min(k), max(k) FROM t; PRAGMA integrity_check;\n");
    compare(&scene, false);
}
