//! The rules of living under SQLite, each with the accident that it was made for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_compat::place::{NAME, Place, position};
use littoral_compat::shell::{How, Shell};
use std::fs;
use std::time::{Duration, Instant};

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

/// A shell with the database open, whose system calls are met by something.
fn injected(place: &Place, how: How, inject: &str) -> Option<Shell> {
    let mut shell = Shell::injected(place.path(), how, inject)?;
    let open = format!(".timeout 5000\n.open {}", shell.uri(NAME, ""));
    shell.survives(&open).map(|said| {
        assert_eq!(said, Vec::<String>::new());
        shell
    })
}

/// What a stock SQLite reads in a restored state.
fn in_restored(place: &Place, position: &str, sql: &str) -> Vec<String> {
    place.restore(position, "restored-look.db").unwrap_or_else(|why| panic!("{why}"));
    let mut shell = Shell::start(place.path(), How::Stock);
    shell.open("restored-look.db", "");
    shell.run(sql)
}

#[test]
fn s01_a_commit_frame_that_no_index_counts_is_not_published_while_others_live() {
    let (place, mut lives) = begun("wal");
    lives.quietly("UPDATE t SET v = 1;");
    let before = fs::metadata(place.file("app.db-wal")).unwrap().len();
    // The WAL is synced after the commit frame and before the index counts it.
    let mut dies = injected(&place, How::Littoral, "fdatasync:signal=KILL:when=1").unwrap();
    assert_eq!(dies.survives("PRAGMA synchronous = FULL; SELECT v FROM t WHERE id = 1; UPDATE t SET v = 99;"), None);
    assert!(fs::metadata(place.file("app.db-wal")).unwrap().len() > before, "the frames are there");
    let position = checkpoint(&mut lives);
    assert_eq!(in_restored(&place, &position, "SELECT DISTINCT v FROM t;"), ["1"]);
    // The next writer goes over it.
    lives.quietly("UPDATE t SET v = 2 WHERE id = 5;");
    assert_nothing_missed(&place, &mut lives, "the frames of the dead were written over");
    assert_eq!(lives.run("SELECT DISTINCT v FROM t ORDER BY v;"), ["1", "2"]);
}

#[test]
fn s01_commits_are_counted_and_what_is_none_is_not() {
    let (_place, mut shell) = begun("wal");
    shell.quietly(
        "UPDATE t SET v = 1 WHERE id = 1; BEGIN; UPDATE t SET v = 2; ROLLBACK; UPDATE t SET v = 3 WHERE id = 3;",
    );
    shell.run("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_checkpoint(RESTART); SELECT count(*) FROM t;");
    assert_eq!(shell.one("SELECT value FROM littoral_status WHERE name = 'commits_since';"), "2");
    shell.quietly("UPDATE t SET v = 4 WHERE id = 4;");
    assert_eq!(shell.one("SELECT value FROM littoral_status WHERE name = 'commits_since';"), "3");
}

#[test]
fn s01_a_commit_frame_that_recovery_counts_is_published() {
    let (place, mut lives) = begun("wal");
    lives.quietly("UPDATE t SET v = 1;");
    let mut dies = injected(&place, How::Littoral, "fdatasync:signal=KILL:when=1").unwrap();
    assert_eq!(dies.survives("PRAGMA synchronous = FULL; UPDATE t SET v = 99;"), None);
    lives.kill();
    let mut comes = place.shell(How::Littoral);
    assert_nothing_missed(&place, &mut comes, "all died");
    assert_eq!(comes.run("SELECT DISTINCT v FROM t;"), ["99"]);
}

#[test]
fn s01_a_writer_killed_at_any_call_in_a_wal_leaves_nothing_half_and_nothing_unseen() {
    killed_at_any_call(&["wal"]);
}

#[test]
fn s17_a_writer_killed_at_any_call_around_a_rollback_journal_leaves_nothing_half_and_no_commit_unseen() {
    killed_at_any_call(&["delete", "truncate", "persist"]);
}

fn killed_at_any_call(journals: &[&str]) {
    for journal in journals {
        let (place, mut lives) = begun(journal);
        let mut killed = 0;
        for nth in 1..24 {
            for how in [How::Littoral, How::Stock] {
                let inject = format!("pwrite64,fdatasync,fsync,unlink,ftruncate:signal=KILL:when={nth}");
                let Some(mut dies) = injected(&place, how, &inject) else { continue };
                let sql = format!(
                    "PRAGMA cache_size = 4; UPDATE t SET v = v + 1; UPDATE t SET pad = '{nth}' WHERE id = {nth};"
                );
                killed += u64::from(dies.survives(&sql).is_none());
                drop(dies);
                let what = format!("{journal}, {how:?} killed at call {nth}");
                let position = checkpoint(&mut lives);
                let said = in_restored(&place, &position, "PRAGMA integrity_check; SELECT count(DISTINCT v) FROM t;");
                assert_eq!(said, ["ok", "1"], "{what}");
                let read = lives.run("SELECT DISTINCT v FROM t;");
                assert_eq!(in_restored(&place, &position, "SELECT DISTINCT v FROM t;"), read, "{what}");
                lives.quietly("UPDATE t SET pad = 'mine' WHERE id = 299;");
                assert_nothing_missed(&place, &mut lives, &what);
            }
        }
        assert!(killed > 10, "only {killed} were killed");
    }
}

#[test]
fn s09_a_checkpoint_in_the_same_process_drops_no_lock_of_the_applications_connections() {
    for journal in ["wal", "delete"] {
        let (place, mut shell) = begun(journal);
        let mut other = place.shell(How::Stock);
        other.quietly(".timeout 0");
        shell.quietly("BEGIN IMMEDIATE; UPDATE t SET v = 1 WHERE id = 1;");
        // Another connection of the same process makes a checkpoint, asks, and is closed.
        shell.quietly(".connection 1");
        let uri = shell.uri(NAME, "");
        shell.quietly(&format!(".open {uri}"));
        checkpoint(&mut shell);
        shell.run("PRAGMA littoral_status; SELECT * FROM littoral_chunks; SELECT count(*) FROM t;");
        shell.quietly(".connection 0\n.connection close 1");
        checkpoint(&mut shell);
        let said = other.run("BEGIN IMMEDIATE;");
        assert!(said.iter().any(|line| line.contains("database is locked")), "{journal}: {said:?}");
        shell.quietly("COMMIT;");
        other.quietly("BEGIN IMMEDIATE; UPDATE t SET v = 2 WHERE id = 2;");
        let said = shell.run(".timeout 0\nBEGIN IMMEDIATE;");
        assert!(said.iter().any(|line| line.contains("database is locked")), "{journal}: {said:?}");
        other.quietly("COMMIT;");
        assert_nothing_missed(&place, &mut shell, journal);
    }
}

#[test]
fn s10_a_checkpoint_killed_anywhere_loses_no_mark() {
    for journal in ["wal", "delete"] {
        let (place, mut lives) = begun(journal);
        let (mut killed, mut done) = (0, 0);
        for nth in 1..40 {
            lives.quietly(&format!("UPDATE t SET v = {nth}, pad = '{nth}' WHERE id % 30 = {};", nth % 30));
            let calls = ["fsync", "fdatasync", "rename", "linkat", "link", "unlink", "mkdir", "flock"][nth % 8];
            let inject = format!("{calls}:signal=KILL:when={}", 1 + nth / 8);
            let Some(mut dies) = injected(&place, How::Littoral, &inject) else { continue };
            match dies.survives("SELECT count(*) FROM t; PRAGMA littoral_checkpoint;") {
                None => killed += 1,
                Some(_) => done += 1,
            }
            drop(dies);
            // Known still: this process was here all the time.
            lives.quietly(&format!("UPDATE t SET v = -1 WHERE id = {};", 100 + nth));
            assert_nothing_missed(&place, &mut lives, &format!("{journal}, a checkpoint killed at {inject}"));
        }
        assert!(killed > 8, "{journal}: {killed} killed, {done} done");
    }
}

#[test]
fn s11_pages_beyond_a_cut_and_pages_that_were_never_written_are_as_stock_reads_them() {
    let grow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
        INSERT INTO junk SELECT printf('%.*c', 1000, 'j') FROM n;";
    let unwritten = format!("PRAGMA cache_size = 2; BEGIN; {grow} {grow} DELETE FROM junk; COMMIT;");
    let steps = [
        "DELETE FROM junk; VACUUM;",
        grow,
        &unwritten,
        "DELETE FROM junk; PRAGMA incremental_vacuum;",
        grow,
        "DROP TABLE junk; VACUUM; CREATE TABLE junk(b);",
    ];
    for (journal, auto) in
        [("wal", "incremental"), ("wal", "none"), ("delete", "none"), ("truncate", "full"), ("delete", "incremental")]
    {
        let place = Place::new();
        let mut shell = place.shell(How::Littoral);
        shell
            .run(&format!("PRAGMA auto_vacuum = {auto}; PRAGMA journal_mode = {journal}; PRAGMA secure_delete = off;"));
        shell.quietly(TABLE);
        shell.quietly("CREATE TABLE junk(b);");
        for (nth, (first, second)) in
            steps.iter().flat_map(|first| steps.iter().map(move |second| (first, second))).enumerate()
        {
            shell.quietly(first);
            if nth % 3 == 0 {
                shell.run("PRAGMA wal_checkpoint(TRUNCATE);");
            }
            if nth % 2 == 0 {
                assert_nothing_missed(&place, &mut shell, &format!("{journal}, {auto}, step {nth}: {first}"));
            }
            shell.quietly(second);
            assert_nothing_missed(&place, &mut shell, &format!("{journal}, {auto}, step {nth}: {first} then {second}"));
        }
    }
}

/// A table of so many megabytes, all of whose rows say the same.
fn large(journal: &str, megabytes: u64) -> (Place, Shell) {
    let place = Place::new();
    let mut shell = place.shell(How::Littoral);
    shell.run(&format!("PRAGMA journal_mode = {journal};"));
    shell.quietly(&format!(
        "PRAGMA synchronous = OFF; CREATE TABLE big(id INTEGER PRIMARY KEY, b BLOB); CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER, pad TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) INSERT INTO big SELECT i, randomblob(16000) FROM n;
         INSERT INTO t SELECT id, 0, printf('%.*c', 3000, 'p') FROM big LIMIT 64;
         CREATE TABLE t2(id INTEGER PRIMARY KEY, v INTEGER, pad TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO big(b) SELECT randomblob(4000) FROM n;
         INSERT INTO t2 SELECT id, 0, pad FROM t;",
        megabytes * 60
    ));
    (place, shell)
}

const STEP: &str = "BEGIN IMMEDIATE; UPDATE t SET v = v + 1; UPDATE t2 SET v = v + 1; COMMIT;";
const EQUAL: &str =
    "PRAGMA integrity_check; SELECT count(DISTINCT v) FROM (SELECT v FROM t UNION ALL SELECT v FROM t2);";

#[test]
fn s15_the_wal_starts_over_while_a_large_live_database_is_checkpointed_and_no_mixture_comes_of_it() {
    let (place, first) = large("wal", 40);
    first.quit();
    // Each of its syncs takes a while, as uploads to a distant place do.
    let mut slow = injected(&place, How::Littoral, "fsync,fdatasync:delay_enter=150000").unwrap();
    let mut writer = place.shell(How::Littoral);
    writer.run("PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0;\n.timeout 1000");
    slow.ask("PRAGMA littoral_checkpoint;");
    let (since, mut restarts, mut commits, mut worst) = (Instant::now(), 0, 0, Duration::ZERO);
    let mut answer = None;
    while answer.is_none() {
        let begun = Instant::now();
        writer.quietly(STEP);
        worst = worst.max(begun.elapsed());
        commits += 1;
        if commits % 5 == 0 {
            // Done only when no reader is in the WAL, and it waits for nobody longer than the timeout.
            restarts += u64::from(writer.one("PRAGMA wal_checkpoint(RESTART);").starts_with("0|"));
        }
        answer = slow.answered();
    }
    println!("{commits} commits, {restarts} restarts, {worst:?} at worst, in {:?}", since.elapsed());
    let position = position(&answer.unwrap()).unwrap_or_else(|why| panic!("{why}"));
    assert!(since.elapsed() > Duration::from_millis(600), "too quick to show anything");
    assert!(restarts * 10 >= commits / 5 * 8, "{restarts} restarts of {} tries", commits / 5);
    assert_eq!(in_restored(&place, &position, EQUAL), ["ok", "1"]);
    assert_nothing_missed(&place, &mut writer, "afterwards");
}

#[test]
fn s16_what_is_committed_while_a_checkpoint_is_made_travels_beside_it_and_no_mixture_comes_of_it() {
    let (place, mut first) = large("wal", 40);
    checkpoint(&mut first);
    // A lot to fold, of which the object store has every commit.
    for nth in 0..12 {
        first.quietly(&format!("UPDATE big SET b = randomblob(15000) WHERE id % 60 = {nth};"));
        first.run("PRAGMA littoral_sync;");
    }
    let mut slow = injected(&place, How::Littoral, "fsync,fdatasync:delay_enter=400000").unwrap();
    let mut writer = place.shell(How::Littoral);
    writer.run("PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0;\n.timeout 60000");
    slow.ask("PRAGMA littoral_checkpoint;");
    let begun = Instant::now();
    let is_at_work =
        || fs::read_dir(place.file(".littoral/checkpoint_scratch")).is_ok_and(|mut jobs| jobs.next().is_some());
    while !is_at_work() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint begins");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (mut beside, mut count) = (Vec::new(), 0);
    let answer = loop {
        writer.quietly(STEP);
        count += 1;
        let there = writer.one("PRAGMA littoral_sync;");
        match slow.answered() {
            None => beside.push((there, count)),
            Some(answer) => break answer,
        }
    };
    println!("{} commits were there before the checkpoint was, after {:?}", beside.len(), begun.elapsed());
    let position = position(&answer).unwrap_or_else(|why| panic!("{why}"));
    assert!(!beside.is_empty(), "nothing travels until a checkpoint is made");
    for (there, count) in beside {
        assert_eq!(in_restored(&place, &there, EQUAL), ["ok", "1"], "{there}");
        let found = in_restored(&place, &there, "SELECT min(v), max(v) FROM t;");
        assert_eq!(found, [format!("{count}|{count}")], "{there} is not the commit that it was");
    }
    assert_eq!(in_restored(&place, &position, EQUAL), ["ok", "1"]);
    assert_nothing_missed(&place, &mut writer, "afterwards");
}

#[test]
fn s16_a_comparison_of_all_pages_under_writers_of_every_kind_is_of_one_commit() {
    for journal in ["wal", "truncate"] {
        let (place, mut maker) = large(journal, 30);
        let mut writers = [place.shell(How::Littoral), place.shell(How::Stock), place.shell(How::Littoral)];
        for writer in &mut writers {
            writer.run("PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 50;\n.timeout 60000");
        }
        maker.run(".timeout 60000");
        let mut done = 0;
        for round in 0..6_u64 {
            if round % 2 == 0 {
                let _ = fs::remove_dir_all(place.file(".littoral/tracker"));
            }
            for (nth, writer) in (0..).zip(&mut writers) {
                let turn = |step: u64| {
                    let which = (round * 31 + step * 7 + nth) % 97;
                    format!(
                        "BEGIN IMMEDIATE; UPDATE t SET v = v + 1; UPDATE big SET b = randomblob(15000) WHERE id % 97 = {which};
                         UPDATE t2 SET v = v + 1; COMMIT;"
                    )
                };
                let turns: String = (0..25).map(turn).collect();
                writer.ask(&format!("{turns} PRAGMA wal_checkpoint(RESTART); {}", turn(26)));
            }
            let answer = maker.run("PRAGMA littoral_checkpoint;");
            if let Ok(position) = position(&answer) {
                done += 1;
                assert_eq!(in_restored(&place, &position, EQUAL), ["ok", "1"], "{journal}, round {round}");
            } else {
                println!("{journal}, round {round}: {answer:?}");
            }
            writers.iter_mut().for_each(|writer| drop(writer.answer()));
            writers[0].quietly(STEP);
            assert_nothing_missed(&place, &mut maker, &format!("{journal}, after round {round}"));
        }
        assert!(done >= 3, "{journal}: only {done} checkpoints came through");
    }
}

#[test]
fn s16_writers_of_a_rollback_journal_wait_for_a_checkpoint_no_longer_than_a_slice_and_no_mixture_comes_of_it() {
    let (place, first) = large("delete", 40);
    first.quit();
    let mut slow = injected(&place, How::Littoral, "fsync,fdatasync:delay_enter=150000").unwrap();
    let mut writer = place.shell(How::Littoral);
    writer.run("PRAGMA synchronous = OFF;\n.timeout 1000");
    slow.ask("PRAGMA littoral_checkpoint;");
    let (since, mut commits, mut answer) = (Instant::now(), 0, None);
    while answer.is_none() {
        // Refused as locked after the timeout: somebody reads for too long.
        writer.quietly(STEP);
        commits += 1;
        std::thread::sleep(Duration::from_millis(5));
        answer = slow.answered();
    }
    println!("{commits} commits in {:?}", since.elapsed());
    let position = position(&answer.unwrap()).unwrap_or_else(|why| panic!("{why}"));
    assert!(since.elapsed() > Duration::from_millis(600) && commits > 5, "too quick to show anything");
    assert_eq!(in_restored(&place, &position, EQUAL), ["ok", "1"]);
    assert_nothing_missed(&place, &mut writer, "afterwards");
}

#[test]
fn s16_a_checkpoint_that_begins_in_the_middle_of_a_commit_of_a_rollback_journal_is_of_one_commit() {
    let (place, first) = large("delete", 4);
    first.quit();
    let mut reader = place.shell(How::Littoral);
    // Each of its writes takes a while, so that there is a middle.
    let mut writer = injected(&place, How::Littoral, "pwrite64:delay_enter=1000").unwrap();
    writer.run("PRAGMA synchronous = OFF; PRAGMA cache_size = 4;\n.timeout 60000");
    checkpoint(&mut reader);
    for nth in 0..8 {
        writer.ask(STEP);
        std::thread::sleep(Duration::from_millis(nth * 90));
        let answer = reader.run("PRAGMA littoral_checkpoint;");
        let _ = writer.answer();
        if let Ok(position) = position(&answer) {
            assert_eq!(in_restored(&place, &position, EQUAL), ["ok", "1"], "round {nth}");
        }
    }
    assert_nothing_missed(&place, &mut reader, "afterwards");
}

#[test]
fn s19_who_waits_for_a_checkpoint_at_the_last_close_leaves_the_files_that_stock_leaves() {
    for journal in ["wal", "delete", "truncate"] {
        let place = Place::new();
        let mut shell = Shell::start(place.path(), How::Littoral);
        assert_eq!(shell.open(NAME, "close_wait=60s"), Vec::<String>::new());
        shell.run(&format!("PRAGMA journal_mode = {journal};"));
        shell.quietly(TABLE);
        shell.quit();
        let mut names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let journal_file: &[&str] = if journal == "truncate" { &["app.db-journal"] } else { &[] };
        assert_eq!(names, [&[".littoral", NAME], journal_file].concat(), "{journal}");
        let mut shell = place.shell(How::Littoral);
        let position = shell.one("SELECT value FROM littoral_status WHERE name = 'position';");
        place.assert_restores(&position, journal);
        // And what was known is known: nothing was written past anybody.
        let status = shell.run("SELECT value FROM littoral_status WHERE name = 'safe';");
        assert_eq!(status, ["yes: the object store has everything"], "{journal}");
    }
}

#[test]
fn s07_a_close_and_an_opening_of_our_own_leave_known_what_was_known() {
    for journal in ["wal", "delete", "persist"] {
        let (place, shell) = begun(journal);
        shell.quit();
        for nth in 0..4 {
            let mut shell = place.shell(How::Littoral);
            let status = shell.run("SELECT value FROM littoral_status WHERE name = 'safe';");
            assert!(!status[0].starts_with("not known"), "{journal}, opening {nth}: {status:?}");
            shell.quietly(&format!("UPDATE t SET v = {nth} WHERE id = {nth};"));
            if nth % 2 == 1 {
                assert_nothing_missed(&place, &mut shell, journal);
            }
            let status = shell.run("SELECT value FROM littoral_status WHERE name = 'safe';");
            assert!(!status[0].starts_with("not known"), "{journal}, opening {nth}, after a commit: {status:?}");
            shell.quit();
        }
    }
}

#[test]
fn s19_a_full_disk_for_the_tracker_is_no_error_to_sqlite_and_nothing_is_missed() {
    for inject in ["fallocate:error=ENOSPC", "fallocate:error=ENOSPC:when=2+"] {
        for journal in ["wal", "delete"] {
            let place = Place::new();
            let mut shell = injected(&place, How::Littoral, inject).unwrap();
            shell.run(&format!("PRAGMA journal_mode = {journal};"));
            shell.quietly(TABLE);
            assert_nothing_missed(&place, &mut shell, inject);
            shell.quietly("UPDATE t SET v = 1 WHERE id = 77; DELETE FROM t WHERE id > 290;");
            assert_nothing_missed(&place, &mut shell, &format!("{inject}, again"));
            shell.quit();
            let mut shell = place.shell(How::Littoral);
            shell.quietly("UPDATE t SET v = 2 WHERE id = 7;");
            assert_nothing_missed(&place, &mut shell, &format!("{inject}, then room"));
        }
    }
}
