//! SQLite's own test suite, under the stock VFS and with ours as the default one for every database, a remote attached.
//!
//! What SQLite's own VFS passes here, ours must pass: the same number of cases, and no failure that the stock VFS does not have. The
//! suite and its interpreter come from `tests/sqlite/suite.sh`; each of its files is a process of its own in an empty folder.

use crate::built::built;
use crate::shell::{How, without_settings};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// No file takes longer on any machine; a file that hangs would otherwise say nothing.
const PATIENCE: Duration = Duration::from_secs(1200);
/// The sum of a file's run stands before these words.
const SUM: &str = " errors out of ";
const FAILURES: &str = "!Failures on these tests:";

/// What a file came to.
#[derive(Clone, Debug)]
pub struct Played {
    /// How many cases it ran.
    pub cases: u64,
    /// Those that failed, by name.
    pub failed: Vec<String>,
    /// Databases opened through the default VFS, by all of its processes together.
    pub databases: u64,
    /// Why it did not come to an end.
    pub cut: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// What a file came to under the stock VFS and under ours.
#[derive(Debug)]
pub struct Compared {
    /// The file, as `wal.test`.
    pub name: String,
    /// Under SQLite's own VFS.
    pub stock: Played,
    /// Under ours.
    pub ours: Played,
}

impl Compared {
    /// What ours did that stock did not. Empty when SQLite cannot tell.
    pub fn differences(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut excused = self.stock.failed.clone();
        for case in &self.ours.failed {
            match excused.iter().position(|known| known == case) {
                Some(at) => drop(excused.swap_remove(at)),
                None => found.push(format!("{}: {case} fails", self.name)),
            }
        }
        if let (None, Some(why)) = (&self.stock.cut, &self.ours.cut) {
            found.push(format!("{}: {why}", self.name));
        } else if self.ours.cases != self.stock.cases {
            found.push(format!("{}: {} cases, for {} of the stock VFS", self.name, self.ours.cases, self.stock.cases));
        }
        if (self.ours.databases == 0) != (self.stock.databases == 0) {
            found.push(format!("{}: {} databases were opened through our VFS", self.name, self.ours.databases));
        }
        found
    }
}

/// The folder of the suite; made first where it is not there.
pub fn suite() -> &'static Path {
    static SUITE: OnceLock<PathBuf> = OnceLock::new();
    SUITE.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../sqlite/suite.sh");
        let output = Command::new("bash").arg(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{script}: {}", output.status);
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    })
}

/// Every file of the suite, but those that only run others, by name.
pub fn all() -> Vec<String> {
    let runs_others = |text: &str| text.contains("permutations.test") || text.contains("run_test_suite");
    let mut names: Vec<String> = fs::read_dir(suite().join("src/test"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .filter(|path| !runs_others(&String::from_utf8_lossy(&fs::read(path).unwrap())))
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// Plays files under both VFSes, as many at once as there are processors, and tells of each as it is done.
pub fn compare(names: &[String], told: impl Fn(&Compared) + Sync) -> Vec<Compared> {
    suite();
    built();
    let queue: Mutex<VecDeque<&String>> = Mutex::new(names.iter().collect());
    let done = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // Apart from the loop's condition, which would keep the queue locked while the file runs.
                let next = || queue.lock().unwrap().pop_front();
                while let Some(name) = next() {
                    let compared =
                        Compared { name: name.clone(), stock: play(name, How::Stock), ours: play(name, How::Littoral) };
                    told(&compared);
                    done.lock().unwrap().push(compared);
                }
            });
        }
    });
    done.into_inner().unwrap()
}

/// Plays one file.
pub fn play(name: &str, how: How) -> Played {
    let place = tempfile::Builder::new().prefix("littoral-suite").tempdir().unwrap();
    let (cwd, remote, seen) = (place.path().join("cwd"), place.path().join("remote"), place.path().join("seen"));
    fs::create_dir(&cwd).unwrap();
    fs::create_dir(&remote).unwrap();
    let said = place.path().join("said");

    let mut words = without_roots_rights();
    let fixture = suite().join("testfixture");
    words.push(fixture.display().to_string());
    words.push(suite().join("src/test").join(name).display().to_string());
    let mut command = Command::new(&words[0]);
    without_settings(&mut command);
    command.args(&words[1..]).current_dir(&cwd).env("HOME", &cwd).env("SUITE_SEEN", &seen);
    if how == How::Littoral {
        command.env("SUITE_EXTENSION", &built().extension);
        command.env("LITTORAL_REMOTE", format!("file://{}", remote.display()));
    }
    let output = File::create(&said).unwrap();
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let began = Instant::now();
    let ended = run(command);
    let took = began.elapsed();
    let text = String::from_utf8_lossy(&fs::read(&said).unwrap()).into_owned();
    let seen = fs::read_to_string(&seen).unwrap_or_default();
    // Some files leave folders that nobody may enter.
    let _ = Command::new("chmod").arg("-R").arg("u+rwx").arg(place.path()).stderr(Stdio::null()).status();
    understood(&text, &seen, how, ended, took)
}

/// Runs it, and whatever it started no longer than that. `None` when it hung.
fn run(mut command: Command) -> Option<ExitStatus> {
    let mut child = command.process_group(0).spawn().unwrap();
    let group = Pid::from_child(&child);
    let began = Instant::now();
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if began.elapsed() > PATIENCE => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
    ended
}

fn understood(text: &str, seen: &str, how: How, ended: Option<ExitStatus>, took: Duration) -> Played {
    let lines = || text.lines();
    let sum = lines().rev().find_map(|line| line.split_once(SUM));
    let cases = sum.and_then(|(_, rest)| rest.split(' ').next()).and_then(|cases| cases.parse().ok()).unwrap_or(0);
    let failed = lines().find_map(|line| line.strip_prefix(FAILURES)).unwrap_or_default();
    let wanted = match how {
        How::Stock => "unix",
        How::Littoral => "littoral",
    };
    let mut databases = 0;
    for line in seen.lines() {
        let (vfs, count) = line.split_once(' ').unwrap();
        assert_eq!(vfs, wanted, "the default VFS of a process of the suite");
        databases += count.parse::<u64>().unwrap();
    }
    let cut = match (ended, sum) {
        (None, _) => Some(format!("hung for {PATIENCE:?}")),
        (Some(_), Some(_)) => None,
        (Some(status), None) => {
            let last: Vec<&str> = lines().rev().take(3).collect();
            Some(format!("ended ({status}) before its sum, after: {}", last.join(" / ")))
        }
    };
    Played { cases, failed: failed.split_whitespace().map(str::to_owned).collect(), databases, cut, took }
}

/// Root may read what nobody may, and the suite has cases about files that cannot be read.
fn without_roots_rights() -> Vec<String> {
    static WORDS: OnceLock<Vec<String>> = OnceLock::new();
    WORDS
        .get_or_init(|| {
            let words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"];
            let works =
                || Command::new(words[0]).args([words[1], "true"]).status().is_ok_and(|status| status.success());
            // Where that may not be given away, both runs have it.
            if rustix::process::getuid().is_root() && works() { words.map(str::to_owned).to_vec() } else { Vec::new() }
        })
        .clone()
}
