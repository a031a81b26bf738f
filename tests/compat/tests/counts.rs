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
    let place = prepared(pragmas);
    fs::write(place.file("script.sql"), format!("{pragmas}\n{script}")).unwrap();
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).args(["sqlite3", "-batch"]).current_dir(place.path()).env("HOME", place.path());
    without_settings(&mut command);
    let uri = match how {
        How::Stock => format!("file:{NAME}"),
        How::Littoral => {
            command.args(["-cmd", &format!(".load '{}' sqlite3_littoral_init", extension.display())]);
            format!("file:{NAME}?vfs=littoral")
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
    let table = counted(&program, &built().extension, how, pragmas, &script(work, times));
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
