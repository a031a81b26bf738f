//! A part of SQLite's own test suite, with ours as the default VFS and a remote attached: what the stock VFS passes, ours passes.
//!
//! The part is `tests/sqlite/files.txt`; all of it is `cargo run -p littoral-compat --bin sqlite-suite`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_compat::suite::compare;

const FILES: &str = include_str!("../../sqlite/files.txt");
/// How many cases the chosen files had when they were chosen, and then some fewer: a suite that skips itself is no judge.
const CASES_MIN: u64 = 50_000;

#[test]
fn sqlites_own_tests_cannot_tell() {
    let lines = FILES.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let names: Vec<String> = lines.map(str::to_owned).collect();
    let done = compare(&names, |_| {});
    let differences: Vec<String> = done.iter().flat_map(|compared| compared.differences()).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));

    for compared in &done {
        let (name, stock) = (&compared.name, &compared.stock);
        assert_eq!((&stock.cut, &stock.failed), (&None, &Vec::new()), "{name} fails with SQLite's own VFS");
        assert!(compared.ours.databases > 0, "{name} opened no database through our VFS");
    }
    let (cases, databases) =
        done.iter().fold((0, 0), |(cases, databases), one| (cases + one.ours.cases, databases + one.ours.databases));
    println!("{} files, {cases} cases, {databases} databases opened through our VFS", done.len());
    assert!(cases >= CASES_MIN, "only {cases} cases ran");
}
