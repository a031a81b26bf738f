//! SQLite's own test suite, all of it or the files named: `cargo run -p littoral-compat --bin sqlite-suite`. Each file runs under the
//! stock VFS and with ours as the default one; the exit code is 0 when no file shows a difference.

use clap::Parser;
use littoral_compat::suite::{Compared, all, compare};
use std::process::ExitCode;

/// Files of SQLite's own test suite under the stock VFS and under ours, compared.
#[derive(Debug, Parser)]
struct Words {
    /// Beginnings of names: `wal` for wal.test, wal2.test, walcrash.test and so on. Without any, all files: that takes hours.
    names: Vec<String>,
}

fn main() -> ExitCode {
    let words = Words::parse();
    let wanted =
        |name: &String| words.names.is_empty() || words.names.iter().any(|beginning| name.starts_with(beginning));
    let names: Vec<String> = all().into_iter().filter(wanted).collect();
    let done = compare(&names, |compared| {
        let Compared { name, stock, ours } = compared;
        let (cases, failed) = (ours.cases, ours.failed.len());
        let (took, stock_took) = (ours.took.as_secs_f64(), stock.took.as_secs_f64());
        println!(
            "{name}: {cases} cases, {failed} failed, {took:.1} s; stock {}, {}, {stock_took:.1} s",
            stock.cases,
            stock.failed.len()
        );
        for difference in compared.differences() {
            println!("DIFFERENT {difference}");
        }
    });
    let differences = done.iter().filter(|compared| !compared.differences().is_empty()).count();
    let cases: u64 = done.iter().map(|compared| compared.ours.cases).sum();
    println!("{} files, {cases} cases; {differences} files show a difference", done.len());
    if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
