//! The rig of the tests that use the extension as its users do: in the programs that they have, with the SQLite that those bring.
//!
//! What this room promises:
//! 1. What a test runs is the real program, in the version that `programs.sh` pins. One that is missing fails the test, with the reason.
//! 2. A machine is a folder, and losing it deletes the folder. What comes back is looked at by a stock SQLite.
//!
//! What may never enter: anything that other than tests depend on.
//! Read next: `tests/hosts.rs`, then `tests/process.rs`; `tests/pages.rs` runs what `docs/hosts` shows; [`told`] is for what goes
//! wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

pub mod packages;
pub mod told;
pub mod writer;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// What `cargo build` made.
#[derive(Debug)]
pub struct Built {
    /// The loadable extension.
    pub extension: PathBuf,
    /// The command line.
    pub littoral: PathBuf,
}

/// The same extension as an archive to link with, beside the others: what makes a package of it looks there.
pub fn built_archive() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let into = built().extension.parent().unwrap();
        let target = into.parent().unwrap();
        let lock = File::create(into.join("lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(room().join("../..")).env("CARGO_TARGET_DIR", target);
        cargo.args(["rustc", "--quiet", "--locked", "-p", "littoral-ext", "--crate-type", "staticlib"]);
        said(&mut cargo);
        let archive = into.join("liblittoral.a");
        fs::copy(target.join("debug/liblittoral.a"), into.join("new.a")).unwrap();
        fs::rename(into.join("new.a"), &archive).unwrap();
        archive
    })
}

/// The extension and the command line, as a user would build them.
pub fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let program = std::env::current_exe().unwrap();
        let debug = program.ancestors().find(|folder| folder.ends_with("debug")).expect("a test lies in target/debug");
        let target = debug.parent().unwrap();
        let into = target.join("hosts");
        fs::create_dir_all(&into).unwrap();
        let lock = File::create(into.join("lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(room().join("../..")).env("CARGO_TARGET_DIR", target);
        cargo.args(["build", "--quiet", "--locked", "-p", "littoral-ext", "-p", "littoral-cli"]);
        said(&mut cargo);
        // Copies of our own: what one process has loaded is not replaced by what another builds.
        let kept = |name: &str| {
            let (from, to) = (debug.join(name), into.join(name));
            if fs::read(&to).ok() != Some(fs::read(&from).unwrap()) {
                fs::copy(&from, into.join("new")).unwrap();
                fs::rename(into.join("new"), &to).unwrap();
            }
            to
        };
        Built { extension: kept("liblittoral.so"), littoral: kept("littoral") }
    })
}

/// This room's folder.
pub fn room() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of a pinned program, which is installed first where it is not there yet.
pub fn program(name: &str) -> PathBuf {
    let mut script = Command::new("bash");
    script.arg(room().join("programs.sh")).arg(name);
    PathBuf::from(said(&mut script).trim_end())
}

/// Debian's Python, with its `sqlite3` and with `apsw`.
pub fn python() -> PathBuf {
    program("python").join("bin/python3")
}

/// A command in which nothing is set that a test did not set, except that nothing is published unasked: tests count what is.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("LITTORAL_") || name.starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command.env("LITTORAL_SYNC_INTERVAL", "off");
    command
}

/// Runs a command to its end, which must be good, and gives what it said.
pub fn said(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output();
    let done = done.unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?}: {}\n{out}{err}", done.status);
    out.into_owned()
}

/// A machine with a database, and an object store that outlives it.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// Both empty.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("machine")).unwrap();
        Self { folder }
    }

    /// The machine's folder.
    pub fn machine(&self) -> PathBuf {
        self.folder.path().join("machine")
    }

    /// The object store's URL.
    pub fn remote(&self) -> String {
        format!("file://{}", self.folder.path().join("remote").display())
    }

    /// A host, standing on the machine: what it is to load is `EXTENSION`, where it is to publish is `REMOTE`.
    pub fn host(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = command(program);
        command.current_dir(self.machine());
        command.env("EXTENSION", &built().extension).env("REMOTE", self.remote());
        command
    }

    /// Runs one of this room's scripts in Python.
    pub fn python(&self, script: &str) -> String {
        said(self.host(python()).arg(room().join("scripts").join(script)))
    }

    /// Deletes the machine.
    pub fn lose_machine(&self) {
        fs::remove_dir_all(self.machine()).unwrap();
        fs::create_dir(self.machine()).unwrap();
    }

    /// Restores a volume on the machine that is there now.
    pub fn restore(&self, volume: &str, file: &str) {
        let url = format!("{}/{volume}", self.remote());
        said(command(&built().littoral).current_dir(self.machine()).args(["restore", &url, file]));
    }

    /// What a stock SQLite answers.
    pub fn stock(&self, file: &str, sql: &str) -> String {
        said(command("sqlite3").current_dir(self.machine()).args([file, sql])).trim_end().to_owned()
    }

    /// What lies on the machine.
    pub fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.machine()).unwrap().map(|one| one.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

/// What every host writes: a table `t(n INTEGER, text TEXT)` of so many rows; and the question that shows it.
pub const ROWS: u32 = 1000;

/// Answers [`WRITTEN`] for what every host writes.
pub const QUESTION: &str =
    "SELECT count(*), sum(n), sum(length(text)), min(text), max(text) FROM t; PRAGMA integrity_check";

/// What a database holds that a host wrote.
pub const WRITTEN: &str = "1000|500500|7893|text 1|text 999\nok";
