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
    assert!(lived >= 24, "only {lived} power failures");
    let came = ["transactions acknowledged", "checkpoints acknowledged", "whole ones compared", "sparse ones restored"];
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
        let (mut machine, mut shell) = begun(pragmas);
        commit(&mut shell);
        checkpoint(&mut shell);
        machine.fails(vec![shell], true);
        let (found, _) = machine.as_stock_reads_it().unwrap_or_else(|why| panic!("{pragmas}: {why}"));
        assert_eq!((found, machine.restored("restored.db")), (1, Ok(1)), "{pragmas}");
    }
}

#[test]
fn s06_what_was_written_to_a_sparse_database_is_here_after_the_power_failed() {
    for pragmas in ["PRAGMA synchronous = FULL;", "PRAGMA journal_mode = delete; PRAGMA synchronous = EXTRA;"] {
        let mut machine = Machine::new(Chance::new(1), true);
        let mut first = Shell::start(&machine.file("first"), How::Littoral);
        first.open(NAME, &format!("remote={}", machine.remote()));
        first.run("PRAGMA journal_mode = wal;");
        first.quietly(&ledger::begin());
        checkpoint(&mut first);
        first.quit();
        machine.disk.is_lazy();
        let mut shell = opened(&machine, pragmas);
        for _ in 0..3 {
            commit(&mut shell);
        }
        shell.run("PRAGMA wal_checkpoint(TRUNCATE);");
        commit(&mut shell);
        assert!(fs::read(machine.its(NAME)).unwrap().starts_with(b"Littoral sparse"), "{pragmas}: it is sparse");
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
    let mut machine = Machine::new(Chance::new(1), true);
    let mut first = Shell::start(&machine.file("first"), How::Littoral);
    first.open(NAME, &format!("remote={}", machine.remote()));
    first.quietly(&ledger::begin());
    checkpoint(&mut first);
    first.quit();
    machine.disk.is_lazy();
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
fn s07_a_tracker_from_before_the_power_failed_is_not_believed() {
    for pragmas in [
        "PRAGMA journal_mode = wal; PRAGMA synchronous = FULL;",
        "PRAGMA journal_mode = truncate; PRAGMA synchronous = FULL;",
    ] {
        let (mut machine, shell) = begun(pragmas);
        shell.quit();
        machine.disk.all_is_durable();
        let mut shell = opened(&machine, pragmas);
        commit(&mut shell);
        shell.run("PRAGMA wal_checkpoint(TRUNCATE);");
        // The marks were in memory that nobody wrote out; the pages are on the disk, and its change time is as it was.
        machine.fails(vec![shell], true);
        let mut shell = opened(&machine, pragmas);
        assert_eq!(ledger::read(&mut shell), Ok(1), "{pragmas}");
        checkpoint(&mut shell);
        assert_eq!(machine.restored("restored.db"), Ok(1), "{pragmas}");
    }
}

#[test]
fn what_a_sparse_database_grew_by_is_published_though_nobody_knows_any_more_what_changed() {
    let mut machine = Machine::new(Chance::new(1), true);
    let mut first = Shell::start(&machine.file("first"), How::Littoral);
    first.open(NAME, &format!("remote={}", machine.remote()));
    first.run("PRAGMA journal_mode = wal;");
    first.quietly(&ledger::begin());
    checkpoint(&mut first);
    first.quit();
    let mut shell = opened(&machine, "");
    for _ in 0..40 {
        commit(&mut shell);
    }
    shell.run("PRAGMA wal_checkpoint(TRUNCATE);");
    machine.fails(vec![shell], true);
    let mut shell = opened(&machine, "");
    checkpoint(&mut shell);
    assert_eq!(machine.restored("restored.db"), Ok(40));
}
