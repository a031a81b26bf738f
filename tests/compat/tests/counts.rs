//! What the VFS costs those who ask nothing of it, counted rather than timed: no system call more on the way of a commit or of a
//! read, and hardly an instruction.
//!
//! Each count is of what more work costs more: the same workload once and twice, and the difference. So neither loading the
//! extension nor opening the database is in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_compat::built::{built, measured};
use littoral_compat::place::{NAME, Place};
use littoral_compat::shell::{How, Shell, without_settings};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a program does for its memory and its threads, whatever SQLite does.
const NOT_FILES: [&str; 7] = ["brk", "mmap", "munmap", "mremap", "madvise", "futex", "mprotect"];

/// One piece of it, by its number.
type Work = fn(u64) -> String;

/// Pragmas first, then as often as it is asked for.
const WORK: [(&str, &str, Work); 6] = [
    ("small transactions, WAL, NORMAL", "PRAGMA journal_mode = wal; PRAGMA synchronous = NORMAL;", write),
    ("small transactions, WAL, FULL", "PRAGMA journal_mode = wal; PRAGMA synchronous = FULL;", write),
    ("small transactions, delete", "PRAGMA journal_mode = delete; PRAGMA synchronous = FULL;", write),
    ("point reads past the cache", "PRAGMA cache_size = 2;", read),
    ("point reads, WAL", "PRAGMA journal_mode = wal; PRAGMA cache_size = 2;", read),
    ("point reads through a memory map", "PRAGMA mmap_size = 268435456; PRAGMA cache_size = 2;", read),
];

fn write(nth: u64) -> String {
    format!(
        "BEGIN; UPDATE t SET pad = printf('%.*c', {}, 'w') WHERE id = {}; INSERT INTO log(line) VALUES ('line {nth}'); COMMIT;\n",
        200 + nth * 17 % 300,
        1 + nth * 7919 % 2000,
    )
}

fn read(nth: u64) -> String {
    format!("SELECT length(pad) FROM t WHERE id = {};\n", 1 + nth * 7919 % 2000)
}

/// A database of some megabytes, of which a checkpoint was made.
fn prepared(pragmas: &str) -> Place {
    let place = Place::new();
    let mut shell = place.shell(How::Littoral);
    shell.run(pragmas);
    shell.quietly(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, pad TEXT); CREATE TABLE log(id INTEGER PRIMARY KEY, line TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO t SELECT i, printf('%.*c', 400, 'p') FROM n;",
    );
    shell.run("PRAGMA littoral_checkpoint; PRAGMA wal_checkpoint(TRUNCATE);");
    shell.quit();
    place
}

/// Runs a workload in a shell under a program that counts, and gives what that program wrote.
fn counted(program: &[&str], extension: &Path, how: How, pragmas: &str, script: &str) -> String {
    counted_at(&prepared(pragmas), program, extension, (how, ""), pragmas, script)
}

/// The same in a place that is looked at afterwards, with settings.
fn counted_at(
    place: &Place,
    program: &[&str],
    extension: &Path,
    (how, said): (How, &str),
    pragmas: &str,
    script: &str,
) -> String {
    fs::write(place.file("script.sql"), format!("{pragmas}\n{script}")).unwrap();
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).args(["sqlite3", "-batch"]).current_dir(place.path()).env("HOME", place.path());
    without_settings(&mut command);
    let uri = match how {
        How::Stock => format!("file:{NAME}"),
        How::Littoral => {
            command.args(["-cmd", &format!(".load '{}' sqlite3_littoral_init", extension.display())]);
            format!("file:{NAME}?vfs=littoral{said}")
        }
    };
    command.args(["-cmd", &format!(".open {uri}")]).stdin(fs::File::open(place.file("script.sql")).unwrap());
    let output = command.stdout(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let mut check = Shell::start(place.path(), How::Stock);
    check.open(NAME, "");
    assert_eq!(check.run("PRAGMA integrity_check;"), ["ok"]);
    fs::read_to_string(place.file("counts")).unwrap_or(said)
}

fn script(work: Work, times: u64) -> String {
    (0..times).map(work).collect()
}

fn calls(how: How, pragmas: &str, work: Work, times: u64) -> BTreeMap<String, i64> {
    let program = ["strace", "-f", "-qq", "-c", "-U", "name,calls", "-o", "counts"];
    named(&counted(&program, &built().extension, how, pragmas, &script(work, times)))
}

/// What a table of strace's says.
fn named(table: &str) -> BTreeMap<String, i64> {
    let rows = table.lines().filter_map(|line| line.split_once(char::is_whitespace));
    rows.filter_map(|(name, calls)| Some((name.to_owned(), calls.trim().parse().ok()?)))
        .filter(|(name, _)| name != "total" && !NOT_FILES.contains(&name.as_str()))
        .collect()
}

#[test]
fn no_system_call_is_added_to_a_commit_or_to_a_read() {
    for (what, pragmas, work) in WORK {
        let more = |how| {
            let (once, twice) = (calls(how, pragmas, work, 300), calls(how, pragmas, work, 600));
            let mut more = twice;
            once.into_iter().for_each(|(name, calls)| *more.entry(name).or_default() -= calls);
            more.retain(|_, calls| *calls != 0);
            more
        };
        let (stock, ours) = (more(How::Stock), more(How::Littoral));
        println!("{what}, 300 times more: {ours:?}");
        assert!(stock.values().sum::<i64>() > 250, "{what}: nothing was counted: {stock:?}");
        assert_eq!(ours, stock, "{what}");
    }
}

#[test]
fn hardly_an_instruction_is_added_to_a_commit_or_to_a_read() {
    let extension = measured();
    let program = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let instructions = |how, pragmas, work, times| {
        let said = counted(&program, extension, how, pragmas, &script(work, times));
        let line = said.lines().find_map(|line| line.split_once("Collected :")).unwrap_or_else(|| panic!("{said}"));
        line.1.trim().parse::<f64>().unwrap()
    };
    for (what, pragmas, work) in WORK {
        let more = |how| instructions(how, pragmas, work, 400) - instructions(how, pragmas, work, 200);
        let (stock, ours) = (more(How::Stock), more(How::Littoral));
        let ratio = ours / stock;
        println!("{what}: {:.0} instructions each, stock {:.0}: {ratio:.4}", ours / 200.0, stock / 200.0);
        assert!(ratio <= 1.03, "{what}: {ratio:.4} times the stock VFS's instructions");
    }
}

/// One of so many is to be within the bound.
const RUNS: usize = 3;

/// Every 50 ms: far more often than by default.
const SHIPPED: &str = "sync_interval=50ms";

/// Runs transactions whose thread alone is counted, in a database that another process ships meanwhile (under valgrind LMDB cannot), and
/// gives what `count` makes of it. No WAL starts over meanwhile: what is copied then has bounds of its own (rule S15).
fn of_committer<T>(
    program: &[&str],
    extension: &Path,
    how: How,
    pragmas: &str,
    times: u64,
    count: impl Fn(&Place, &str) -> T,
) -> T {
    let place = prepared(pragmas);
    let records = || fs::read_dir(place.file(&format!(".littoral/remote/{NAME}/log"))).map_or(0, Iterator::count);
    let before = records();
    // Under either VFS somebody else has it open, so that no last close cleans up.
    let mut other = Shell::start(place.path(), how);
    other.open(NAME, if how == How::Littoral { SHIPPED } else { "" });
    assert_eq!(other.run("SELECT count(*) FROM log;"), ["0"]);
    // It is elected before anybody else comes.
    std::thread::sleep(Duration::from_secs(1));
    let said =
        counted_at(&place, program, extension, (how, "&sync_interval=1s&close_wait=0"), pragmas, &script(write, times));
    // What it shipped meanwhile, or is about to have shipped.
    let ended = Instant::now();
    while how == How::Littoral && records() <= before && ended.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(records() > before, how == How::Littoral, "{} records, {before} before", records());
    other.quit();
    count(&place, &said)
}

#[test]
fn no_system_call_is_added_to_a_commit_of_a_database_that_is_shipped_while_it_commits() {
    for (what, pragmas, _) in &WORK[..2] {
        // Without -f: the thread that runs SQL.
        let program = ["strace", "-qq", "-c", "-U", "name,calls", "-o", "counts"];
        let calls =
            |how, times| of_committer(&program, &built().extension, how, pragmas, times, |_, table| named(table));
        let more = |how| {
            let (once, mut more) = (calls(how, 100), calls(how, 200));
            once.into_iter().for_each(|(name, calls)| *more.entry(name).or_default() -= calls);
            more.retain(|_, calls| *calls != 0);
            more
        };
        let (stock, ours) = (more(How::Stock), more(How::Littoral));
        println!("{what}, 100 times more, shipped meanwhile: {ours:?}, stock {stock:?}");
        assert!(stock.values().sum::<i64>() > 80, "{what}: nothing was counted: {stock:?}");
        // What comes with a commit comes a hundred times. A few may come or not: a reader beside it may hold the mark that a
        // transaction would have set, whoever ships is rung for once in each of his sleeps, one opening finds what another did not.
        for name in ours.keys().chain(stock.keys()) {
            let of = |calls: &BTreeMap<String, i64>| calls.get(name).copied().unwrap_or(0);
            assert!((of(&ours) - of(&stock)).abs() <= 20, "{what}: {name}: {ours:?}, stock {stock:?}");
        }
    }
}

#[test]
fn hardly_an_instruction_is_added_to_a_commit_of_a_database_that_is_shipped_while_it_commits() {
    let extension = measured();
    let program = ["valgrind", "--tool=callgrind", "--separate-threads=yes", "--callgrind-out-file=threads"];
    let instructions = |how, pragmas, times| {
        of_committer(&program, extension, how, pragmas, times, |place, _| {
            // The first thread is the one that runs SQL.
            let counted = fs::read_to_string(place.file("threads-01")).unwrap();
            let line = counted.lines().find_map(|line| line.strip_prefix("totals: ")).expect("its sum");
            line.trim().parse::<f64>().unwrap()
        })
    };
    for (what, pragmas, _) in &WORK[..2] {
        let more = |how| instructions(how, pragmas, 200) - instructions(how, pragmas, 100);
        // Under valgrind a commit takes many times as long, and who ships comes in between as much more often, as the machine has it: that only adds.
        let mut ratios = (0..RUNS).map(|_| {
            let (stock, ours) = (more(How::Stock), more(How::Littoral));
            let ratio = ours / stock;
            println!(
                "{what}, shipped meanwhile: {:.0} instructions each, stock {:.0}: {ratio:.4}",
                ours / 100.0,
                stock / 100.0
            );
            ratio
        });
        assert!(
            ratios.any(|ratio| ratio <= 1.03),
            "{what}: more than 1.03 times the stock VFS's instructions, {RUNS} times"
        );
    }
}
