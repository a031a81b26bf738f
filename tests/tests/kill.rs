//! SIGKILL at random moments of real processes, then the same again: it works without a manual step, nothing is lost and
//! nothing is half there (invariant I8).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_test_s3::S3Server;
use littoral_tests::chance::Chance;
use littoral_tests::database::{Bounds, Database};
use littoral_tests::world::folder;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Rig {
    folder: TempDir,
    url: String,
    environment: Vec<(&'static str, String)>,
    database: Database,
    chance: Chance,
    runtime: tokio::runtime::Runtime,
    /// How long things take when nobody dies.
    usual: Duration,
    killed: u64,
}

impl Rig {
    fn new(seed: u64, environment: Vec<(&'static str, String)>, url: impl FnOnce(&Path) -> String) -> Self {
        println!("seed {seed}");
        let folder = folder();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bounds = Bounds { bytes_max: u64::MAX, reshapes: false };
        let mut database = Database::new(folder.path().join("app.db"), bounds);
        // Three chunks, mostly of pages that hold next to nothing.
        runtime.block_on(database.run(
            "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, b);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
             INSERT INTO t SELECT i, zeroblob(3800000) FROM n;
             INSERT INTO t VALUES (1000, randomblob(2000000))",
        ));
        database.close();
        let (url, chance) = (url(folder.path()), Chance::new(seed));
        Self { url, folder, environment, database, chance, runtime, usual: Duration::from_secs(1), killed: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_littoral-under-test"));
        command.env_clear().envs(self.environment.clone()).env("HOME", self.folder.path());
        command.current_dir(self.folder.path()).args(words).args(["--remote", &self.url]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs to the end.
    fn run(&mut self, words: &[&str]) -> Output {
        let since = Instant::now();
        let output = self.command(words).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?} after {} kills: {:?} {shown}", self.killed, output.status);
        self.usual = since.elapsed();
        output
    }

    /// Runs, and dies at some moment if it does not end before.
    fn kill(&mut self, words: &[&str]) {
        let mut child = self.command(words).spawn().unwrap();
        let micros = self.usual.as_micros() as u64 * 11 / 10;
        std::thread::sleep(Duration::from_micros(self.chance.under(micros.max(1))));
        self.killed += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn change(&mut self) {
        let (id, bytes) = (1000 + self.chance.under(20), 1000 + self.chance.under(300_000));
        let sql = match self.chance.under(4) {
            0 => format!("UPDATE t SET b = zeroblob({}) WHERE id = {}", 3_000_000 + bytes, 1 + self.chance.under(40)),
            _ => format!("INSERT OR REPLACE INTO t VALUES ({id}, randomblob({bytes}))"),
        };
        self.runtime.block_on(self.database.run(&sql));
    }

    /// What is published is what the database holds, and the volume is whole.
    fn assert_sound(&mut self) {
        self.run(&["restore", "app.db", "out.db", "--force"]);
        let file = self.database.quiescent();
        assert!(std::fs::read(self.path("out.db")).unwrap() == file, "restored something else, {} kills", self.killed);
    }

    fn assert_verified(&mut self) {
        let output = self.run(&["verify", "app.db", "--no-restore", "--json"]);
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["problems"].as_array().map(Vec::len), Some(0), "{said}");
    }

    fn live(&mut self, rounds: u64) {
        for round in 0..rounds {
            self.change();
            for _ in 0..self.chance.under(3) {
                self.kill(&["checkpoint", "app.db"]);
                if self.chance.once_in(3) {
                    self.change();
                }
            }
            self.run(&["checkpoint", "app.db"]);
            match round % 3 {
                0 => {
                    let _ = std::fs::remove_file(self.path("out.db"));
                    for _ in 0..2 {
                        self.kill(&["restore", "app.db", "out.db"]);
                        // Whole, or not there.
                        if self.path("out.db").exists() {
                            let file = self.database.quiescent();
                            assert!(std::fs::read(self.path("out.db")).unwrap() == file, "half a file");
                            std::fs::remove_file(self.path("out.db")).unwrap();
                        }
                    }
                    self.assert_sound();
                }
                1 => {
                    let words = ["prune", "app.db", "--keep-last", "2", "--grace", "0s"];
                    self.kill(&words);
                    self.kill(&words);
                    self.run(&words);
                    self.assert_sound();
                }
                _ => self.assert_verified(),
            }
        }
        self.assert_verified();
        println!("{} processes killed", self.killed);
        assert!(self.killed > rounds, "hardly anything was killed: {}", self.killed);
    }
}

#[test]
fn processes_killed_at_any_moment_are_run_again_and_nothing_is_lost_in_a_folder() {
    Rig::new(3, Vec::new(), |folder| format!("file://{}/remote", folder.display())).live(12);
}

#[test]
fn processes_killed_at_any_moment_are_run_again_and_nothing_is_lost_on_s3() {
    let server = S3Server::shared();
    Rig::new(4, server.env(), |_| format!("s3://{}", server.bucket())).live(9);
}
