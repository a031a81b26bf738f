//! Power failures: random ones, and one for each rule that was made for them.
//!
//! Without end: `cargo run -p littoral-compat --bin vfs-power`. One seed again: `... -- --seed N --worlds 1`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_compat::chance::Chance;
use littoral_compat::ledger;
use littoral_compat::place::{NAME, difference, position};
use littoral_compat::power::machine::Machine;
use littoral_compat::power::worlds;
use littoral_compat::shell::{How, Shell};
use std::fs;
use std::time::Duration;

/// A slow machine lives through fewer worlds.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn whatever_the_power_takes_along_nothing_durable_is_lost_and_nothing_that_was_published() {
    let (lived, all) = worlds(0..60, 6, PATIENCE);
    assert!(lived >= 24, "only {lived} ends");
    let came = [
        "transactions acknowledged",
        "checkpoints acknowledged",
        "whole ones compared",
        "sparse ones restored",
        "power failures",
        "kills",
        "lost: manifest",
    ];
    for what in came {
        assert!(all.of(what) > 0, "{what} never came to pass");
    }
}

/// A machine whose system writes out nothing of its own accord, and a shell on it that has the database open.
fn begun(pragmas: &str) -> (Machine, Shell) {
    let machine = Machine::new(Chance::new(1), true);
    machine.disk.is_lazy();
    let mut shell = opened(&machine, pragmas);
    shell.quietly(&ledger::begin());
    checkpoint(&mut shell);
    machine.disk.all_is_durable();
    (machine, shell)
}

fn opened(machine: &Machine, pragmas: &str) -> Shell {
    let mut shell = machine.shell();
    // Where another machine has made the volume, this one takes over.
    let is_first = !machine.file("first").join(NAME).exists();
    let takeover = if is_first { "" } else { "&takeover=1" };
    shell.open(NAME, &format!("remote={}{takeover}", machine.remote()));
    shell.run(pragmas);
    shell
}

fn checkpoint(shell: &mut Shell) {
    position(&shell.run("PRAGMA littoral_checkpoint;")).unwrap_or_else(|why| panic!("no checkpoint: {why}"));
}

fn commit(shell: &mut Shell) {
    shell.quietly(&ledger::transaction(500, ""));
}

#[test]
fn s02_what_was_published_is_here_when_the_power_fails() {
    for pragmas in [
        "PRAGMA journal_mode = wal; PRAGMA synchronous = NORMAL;",
        "PRAGMA journal_mode = delete; PRAGMA synchronous = FULL;",
        "PRAGMA journal_mode = truncate; PRAGMA synchronous = NORMAL;",
        "PRAGMA journal_mode = persist; PRAGMA synchronous = NORMAL;",
    ] {
        for publish in ["PRAGMA littoral_checkpoint;", "PRAGMA littoral_sync;"] {
            let (mut machine, mut shell) = begun(pragmas);
            commit(&mut shell);
            position(&shell.run(publish)).unwrap_or_else(|why| panic!("{publish} {why}"));
            machine.fails(vec![shell], true);
            let (found, _) = machine.as_stock_reads_it().unwrap_or_else(|why| panic!("{pragmas} {publish}: {why}"));
            assert_eq!((found, machine.restored("restored.db")), (1, Ok(1)), "{pragmas} {publish}");
        }
    }
}

/// A machine that is to open a volume lazily, which another one has made: the tables of the ledger, and others that are not read.
fn elsewhere(journal: &str) -> Machine {
    let machine = Machine::new(Chance::new(1), true);
    let mut first = Shell::start(&machine.file("first"), How::Littoral);
    first.open(NAME, &format!("remote={}", machine.remote()));
    first.run(&format!("PRAGMA journal_mode = {journal};"));
    first.quietly(&ledger::begin());
    first.quietly(
        "CREATE TABLE t(b); CREATE TABLE ballast(b);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO ballast SELECT randomblob(1500) FROM n;",
    );
    checkpoint(&mut first);
    first.quit();
    machine.disk.is_lazy();
    machine
}

fn is_sparse(machine: &Machine) -> bool {
    fs::read(machine.its(NAME)).unwrap().starts_with(b"Littoral sparse")
}

#[test]
fn s06_what_was_written_to_a_sparse_database_is_here_after_the_power_failed() {
    for (journal, pragmas) in [("wal", "PRAGMA synchronous = FULL;"), ("delete", "PRAGMA synchronous = EXTRA;")] {
        let mut machine = elsewhere(journal);
        let mut shell = opened(&machine, pragmas);
        for _ in 0..3 {
            commit(&mut shell);
        }
        shell.run("PRAGMA wal_checkpoint(TRUNCATE);");
        commit(&mut shell);
        assert!(is_sparse(&machine), "{pragmas}");
        machine.fails(vec![shell], true);
        // What was only fetched was lost, and what says that it was there was not.
        let mut shell = opened(&machine, pragmas);
        assert_eq!(ledger::read(&mut shell), Ok(4), "{pragmas}");
        checkpoint(&mut shell);
        assert_eq!(machine.restored("restored.db"), Ok(4), "{pragmas}");
        let copies = (machine.copy_of(&mut shell), machine.copy_of_restored("restored.db"));
        assert_eq!(difference(&copies.1, &copies.0), None, "{pragmas}");
    }
}

#[test]
fn s06_what_was_only_fetched_and_lost_with_the_power_is_fetched_again() {
    let mut machine = elsewhere("delete");
    let mut shell = opened(&machine, "");
    assert_eq!(ledger::glance(&mut shell), Ok(0));
    // The bitmap came to be written, and the pages did not.
    let tracker = machine.its(".littoral/tracker");
    machine.disk.writes_out(|path| path.starts_with(&tracker));
    machine.fails(vec![shell], true);
    let mut shell = opened(&machine, "");
    assert_eq!(ledger::read(&mut shell), Ok(0));
}

#[test]
fn s06_what_one_process_noted_and_never_synced_is_synced_by_the_next_one_that_relies_on_it() {
    let mut machine = elsewhere("delete");
    let mut one = opened(&machine, "PRAGMA synchronous = EXTRA;");
    // Cut after its commit, and so after its last sync.
    one.run("PRAGMA secure_delete = OFF;");
    one.quietly("DROP TABLE ballast; VACUUM;");
    // Pages that were noted as written when they were cut off, and are written now.
    let mut two = opened(&machine, "PRAGMA synchronous = EXTRA;");
    assert!(is_sparse(&machine));
    two.quietly(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT randomblob(1500) FROM n;",
    );
    machine.fails(vec![one, two], true);
    let mut shell = opened(&machine, "");
    assert_eq!(ledger::read(&mut shell), Ok(0));
    assert_eq!(shell.run("SELECT count(*), sum(length(b)) FROM t;"), ["500|750000"]);
}

#[test]
fn s07_what_a_tracker_says_that_is_older_than_the_power_failure_is_not_believed() {
    for is_of_the_last_goodbye in [true, false] {
        let pragmas = "PRAGMA journal_mode = wal; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;";
        let (mut machine, mut shell) = begun(pragmas);
        shell.quietly("CREATE TABLE t(v); INSERT INTO t VALUES ('one');");
        // Before the checkpoint, so that nothing is left to be marked.
        shell.run("PRAGMA wal_checkpoint(TRUNCATE);");
        checkpoint(&mut shell);
        shell.quit();
        machine.disk.all_is_durable();
        let mut shell = opened(&machine, pragmas);
        assert_eq!(shell.run("SELECT v FROM t;"), ["one"]);
        if !is_of_the_last_goodbye {
            let tracker = machine.its(".littoral/tracker");
            machine.disk.writes_out(|path| path.starts_with(&tracker));
        }
        // Backfilled, and of one length with what was: nothing but the change time tells of it, which is not synced. The WAL is gone.
        shell.quietly("UPDATE t SET v = 'two';");
        shell.quietly(".open :memory:");
        assert!(!machine.its(&format!("{NAME}-wal")).exists());
        machine.disk.commits_names();
        machine.fails(vec![shell], true);
        let mut shell = opened(&machine, pragmas);
        assert_eq!(shell.run("SELECT v FROM t;"), ["two"]);
        checkpoint(&mut shell);
        assert_eq!(machine.restored("restored.db"), Ok(0));
        let mut restored = Shell::start(&machine.file("elsewhere"), How::Stock);
        restored.open("restored.db", "");
        assert_eq!(restored.run("SELECT v FROM t;"), ["two"], "goodbye: {is_of_the_last_goodbye}");
    }
}

#[test]
fn what_a_sparse_database_grew_by_is_published_again_though_nobody_knows_any_more_what_changed() {
    let mut machine = elsewhere("wal");
    let mut shell = opened(&machine, "");
    for _ in 0..40 {
        commit(&mut shell);
    }
    checkpoint(&mut shell);
    // Written again, backfilled, and the WAL that names all of that is written over.
    for _ in 0..40 {
        commit(&mut shell);
    }
    shell.run("PRAGMA wal_checkpoint(TRUNCATE);");
    commit(&mut shell);
    machine.fails(vec![shell], true);
    let mut shell = opened(&machine, "");
    assert!(is_sparse(&machine));
    checkpoint(&mut shell);
    assert_eq!(machine.restored("restored.db"), Ok(81));
}

#[test]
fn p04_a_manifest_that_is_lost_is_begun_anew_though_the_uri_still_names_the_term_that_was_taken_over() {
    let machine = elsewhere("wal");
    let mut shell = opened(&machine, "");
    commit(&mut shell);
    checkpoint(&mut shell);
    shell.quit();
    fs::remove_dir_all(machine.its(".littoral/manifest")).unwrap();
    let mut shell = opened(&machine, "");
    commit(&mut shell);
    checkpoint(&mut shell);
    assert_eq!(machine.restored("restored.db"), Ok(2));
}
