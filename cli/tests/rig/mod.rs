//! The rig of the door's tests: the real binary, the real sqlite3, a folder that goes with the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)]

use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub const BINARY: &str = env!("CARGO_BIN_EXE_littoral");

/// Words that no output may ever hold: secrets of the tests' S3 server, and those that tests write into wrong places.
pub const SECRETS: [&str; 6] =
    ["testsecret", "readsecret", "not-the-secret-at-all", "nobodys-secret", "HUSHHUSH", "AKIAHUSH"];

/// A temporary folder, and littoral run in it.
pub struct Rig {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Rig {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    /// With these variables and no others of ours or AWS's.
    pub fn with(environment: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { environment, ..Self::new() }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn unset(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The URL of a folder in the rig.
    pub fn url(&self, name: &str) -> String {
        format!("file://{}", self.text(name))
    }

    /// A small database in WAL mode with a few hundred pages.
    pub fn database(&self, name: &str) -> PathBuf {
        let file = self.path(name);
        sql(
            &file,
            "PRAGMA journal_mode = wal; CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO t SELECT i, 'row ' || i || ' ' || hex(randomblob(60)) FROM n; PRAGMA wal_checkpoint(TRUNCATE);",
        );
        file
    }

    /// A program that stands in the rig, with nothing of ours in its environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(self.folder.path()).stdin(Stdio::null());
        // Nothing is published unasked: tests count what is.
        command.env("LITTORAL_SYNC_INTERVAL", "off");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs littoral.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        Run::new(self.command(BINARY).args(arguments).output().unwrap())
    }

    /// Runs littoral below another program: `prefix... littoral arguments...`.
    pub fn run_below<A: AsRef<OsStr>>(&self, prefix: &[&str], arguments: impl IntoIterator<Item = A>) -> Run {
        let mut command = self.command(prefix[0]);
        Run::new(command.args(&prefix[1..]).arg(BINARY).args(arguments).output().unwrap())
    }

    /// Runs littoral so that it kills itself at the nth reach of a point. Whether it got there.
    pub fn crash<A: AsRef<OsStr>>(&self, point: &str, arguments: impl IntoIterator<Item = A>) -> bool {
        let output = self.command(BINARY).env("LITTORAL_TEST_CRASH", point).args(arguments).output().unwrap();
        if output.status.signal() == Some(9) {
            return true;
        }
        Run::new(output).succeeds();
        false
    }

    /// Runs littoral with `--json` and reads its document.
    pub fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Value {
        let run = Run::new(self.command(BINARY).arg("--json").args(arguments).output().unwrap());
        run.succeeds();
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error} in {}", run.stdout))
    }

    /// Every file below the rig with its bytes, hidden ones too.
    pub fn tree(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        walk(self.folder.path(), &mut files);
        files.sort();
        files
    }
}

fn walk(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.push((path.clone(), Vec::new()));
            walk(&path, files);
        } else {
            files.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
}

/// What littoral said.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    fn new(output: Output) -> Self {
        let run = Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        for secret in SECRETS {
            assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret), "a secret was printed: {run:?}");
        }
        assert!(!run.stderr.contains("panicked"), "{run:?}");
        run
    }

    pub fn succeeds(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Fails with this code, and says all of these words.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.starts_with("error: ") || self.stderr.contains("\nerror: "), "{self:?}");
        let said = self.stderr.to_lowercase();
        for word in words {
            assert!(said.contains(&word.to_lowercase()), "{word:?} is not in {self:?}");
        }
        self
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr)
    }
}

/// Runs SQL in a process of the stock shell; what it prints.
pub fn sql(path: &Path, sql: &str) -> String {
    let mut command = Command::new("sqlite3");
    command.args(["-batch", "-bail", "-init", "/dev/null"]).arg(path);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the sqlite3 program is needed");
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// A stock copy of a database as it is now.
pub fn stock_copy(database: &Path, to: &Path) {
    sql(database, "PRAGMA wal_checkpoint(TRUNCATE);");
    fs::copy(database, to).unwrap();
}

#[track_caller]
pub fn assert_same(a: &Path, b: &Path) {
    assert!(fs::read(a).unwrap() == fs::read(b).unwrap(), "{} and {} differ", a.display(), b.display());
}

/// The database's bytes, so that a test can show that nothing touched them.
pub struct Untouched {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Untouched {
    pub fn note(path: &Path) -> Self {
        Self { path: path.to_owned(), bytes: fs::read(path).unwrap() }
    }

    #[track_caller]
    pub fn check(&self) {
        assert!(fs::read(&self.path).unwrap() == self.bytes, "{} was changed", self.path.display());
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A file system of a few kilobytes, gone when dropped. `None` where this machine lets nobody mount one.
pub struct Tiny(PathBuf);

impl Tiny {
    pub fn mount(at: &Path, kilobytes: u64) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={kilobytes}k");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "littoral-test"]).arg(at).output().ok()?;
        done.status.success().then(|| Self(at.to_owned()))
    }

    pub fn resize(&self, kilobytes: u64) {
        let size = format!("remount,size={kilobytes}k");
        assert!(Command::new("mount").args(["-o", &size]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
