//! The rules of living under SQLite, each with the accident that it was made for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_compat::place::{NAME, Place, position};
use littoral_compat::shell::{How, Shell};
use std::fs;

const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER, pad TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
    INSERT INTO t SELECT i, 0, printf('%.*c', 1000, 'p') FROM n;";

/// A database in a journal mode, with a checkpoint of it, open in a shell with the extension.
fn begun(journal: &str) -> (Place, Shell) {
    let place = Place::new();
    let mut shell = place.shell(How::Littoral);
    shell.run(&format!("PRAGMA journal_mode = {journal};"));
    shell.quietly(TABLE);
    checkpoint(&mut shell);
    (place, shell)
}

fn checkpoint(shell: &mut Shell) -> String {
    position(&shell.run("PRAGMA littoral_checkpoint;")).unwrap_or_else(|why| panic!("no checkpoint: {why}"))
}

/// A checkpoint now holds what stock SQLite reads now.
fn assert_nothing_missed(place: &Place, shell: &mut Shell, what: &str) {
    let position = checkpoint(shell);
    place.assert_restores(&position, what);
}

#[test]
fn s07_a_foreign_change_while_nobody_looked_is_published() {
    for journal in ["wal", "delete", "persist"] {
        let (place, shell) = begun(journal);
        shell.quit();
        let mut foreign = place.shell(How::Stock);
        foreign.quietly("UPDATE t SET v = 1 WHERE id = 200;");
        foreign.quit();
        let mut shell = place.shell(How::Littoral);
        assert_nothing_missed(&place, &mut shell, journal);
    }
}

#[test]
fn s07_a_foreign_writer_beside_us_is_published_whatever_it_does_with_the_wal() {
    for backfill in
        ["", "PRAGMA wal_checkpoint(TRUNCATE);", "PRAGMA wal_checkpoint(RESTART); UPDATE t SET v = 3 WHERE id = 1;"]
    {
        let (place, mut shell) = begun("wal");
        let mut foreign = place.shell(How::Stock);
        foreign.quietly("UPDATE t SET v = 1 WHERE id = 200;");
        foreign.run(backfill);
        assert_nothing_missed(&place, &mut shell, &format!("{backfill:?}, then a checkpoint"));
        foreign.quietly("UPDATE t SET v = 4 WHERE id = 100;");
        foreign.run(backfill);
        shell.quietly("UPDATE t SET v = 5 WHERE id = 20;");
        assert_nothing_missed(&place, &mut shell, &format!("{backfill:?}, then a commit of ours, then a checkpoint"));
        foreign.quietly("UPDATE t SET v = 6 WHERE id = 250;");
        foreign.run(backfill);
        shell.quit();
        foreign.quit();
        let mut shell = place.shell(How::Littoral);
        assert_nothing_missed(&place, &mut shell, &format!("{backfill:?}, then both leave, we first"));
    }
}

#[test]
fn s07_a_foreign_writer_beside_us_is_published_in_rollback_mode_too() {
    for journal in ["delete", "truncate", "persist"] {
        let (place, mut shell) = begun(journal);
        let mut foreign = place.shell(How::Stock);
        foreign.quietly("UPDATE t SET v = 1 WHERE id = 200;");
        assert_nothing_missed(&place, &mut shell, journal);
        foreign.quietly("UPDATE t SET v = 2 WHERE id = 100;");
        shell.quietly("UPDATE t SET v = 3 WHERE id = 20;");
        assert_nothing_missed(&place, &mut shell, &format!("{journal}, and a commit of ours on top"));
    }
}

#[test]
fn s07_a_foreign_writer_who_comes_and_goes_between_our_opening_and_our_first_look_is_published() {
    let (place, shell) = begun("wal");
    shell.quit();
    let mut shell = place.shell(How::Littoral);
    let mut foreign = place.shell(How::Stock);
    foreign.quietly("UPDATE t SET v = 1 WHERE id = 200;");
    foreign.quit();
    assert!(!place.file("app.db-wal").exists(), "the foreigner was the last one in the WAL");
    shell.quietly("UPDATE t SET v = 2 WHERE id = 20;");
    assert_nothing_missed(&place, &mut shell, "came and went");
}

#[test]
fn s07_another_file_in_its_place_while_somebody_has_the_old_one_open_is_published() {
    let (place, mut old) = begun("delete");
    assert_eq!(old.one("SELECT count(*) FROM t;"), "300");
    let mut other = Shell::start(place.path(), How::Stock);
    other.open("other.db", "");
    other.quietly(TABLE);
    other.quietly("UPDATE t SET v = 7 WHERE id % 10 = 0;");
    other.quit();
    fs::rename(place.file("other.db"), place.file(NAME)).unwrap();
    let mut new = place.shell(How::Littoral);
    new.quietly("UPDATE t SET v = 8 WHERE id = 1;");
    assert_nothing_missed(&place, &mut new, "another file");
    let mut other = Shell::start(place.path(), How::Stock);
    other.open("third.db", "");
    other.quietly(TABLE);
    other.quietly("UPDATE t SET v = 9 WHERE id % 7 = 0;");
    other.quit();
    fs::rename(place.file("third.db"), place.file(NAME)).unwrap();
    assert_nothing_missed(&place, &mut new, "another file, and only the old one's holder is there to ask");
}
