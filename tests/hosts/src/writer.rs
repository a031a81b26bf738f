//! A process of its own that has a database open and does what it is told (`scripts/writer.py`).

use crate::{Place, python, room};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// What never takes this long unless something hangs.
const HANGS: Duration = Duration::from_secs(180);

/// It is killed with its user.
#[derive(Debug)]
pub struct Writer {
    /// The process.
    pub process: Child,
    orders: Option<ChildStdin>,
    /// What it said, and when that was heard: noted by a thread, so that it is of the moment whatever the test does then.
    noted: Receiver<(Instant, String)>,
}

impl Writer {
    /// Of a place's machine, shipping by itself. `said` is added to the database's URI.
    pub fn start(place: &Place, said: &str) -> Self {
        Self::begin(place.host(python()).env("SAID", said))
    }

    /// By a Python that was told everything but what to run; it has the database open then.
    pub fn begin(python: &mut Command) -> Self {
        python.env_remove("LITTORAL_SYNC_INTERVAL").arg(room().join("scripts/writer.py"));
        let mut process = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, answers) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()));
        let (heard, noted) = channel();
        std::thread::spawn(move || {
            for line in answers.lines().map_while(Result::ok) {
                if heard.send((Instant::now(), line.trim_end().to_owned())).is_err() {
                    return;
                }
            }
        });
        let mut writer = Self { process, orders, noted };
        assert!(writer.hear().starts_with("ready"));
        writer
    }

    /// The next line, and when it came.
    pub fn hear_when(&mut self) -> (Instant, String) {
        self.noted.recv_timeout(HANGS).expect("it has ended, or hangs")
    }

    /// The next line.
    pub fn hear(&mut self) -> String {
        self.hear_when().1
    }

    /// Tells it something, and does not wait for it.
    pub fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
    }

    /// Tells it something: its answer, which may have several lines.
    pub fn ask(&mut self, order: &str) -> String {
        self.order(order);
        let mut answer = self.hear();
        while order.starts_with("PRAGMA littoral_status") && !answer.contains("last_error") {
            answer = format!("{answer}\n{}", self.hear());
        }
        answer
    }

    /// Runs a statement that must be good.
    pub fn rows(&mut self, sql: &str) -> String {
        let answer = self.ask(sql);
        answer.strip_prefix("rows").unwrap_or_else(|| panic!("{sql}: {answer}")).trim().to_owned()
    }

    /// Commits so many times, each on its own, at a rate per second. Gives the last number that was acknowledged.
    pub fn commit(&mut self, count: u32, rate: u32) -> u64 {
        self.order(&format!("commit {count} {rate}"));
        let mut last = 0;
        for _ in 0..count {
            last = self.acknowledged().1;
        }
        assert_eq!(self.hear(), "done");
        last
    }

    /// The next acknowledgement.
    pub fn acknowledged(&mut self) -> (Instant, u64) {
        let (when, line) = self.hear_when();
        let number = line.strip_prefix("committed ").unwrap_or_else(|| panic!("{line}"));
        (when, number.parse().unwrap())
    }

    /// The same, as fast as it can: how long that took.
    pub fn commit_at_once(&mut self, count: u32) -> Duration {
        let begun = Instant::now();
        self.commit(count, 1_000_000);
        begun.elapsed()
    }

    /// What `littoral_status` says of this.
    pub fn status(&mut self, name: &str) -> String {
        self.rows(&format!("SELECT value FROM littoral_status WHERE name = '{name}'"))
    }

    /// Whether all that it committed is in the object store.
    pub fn is_safe(&mut self) -> bool {
        self.status("safe").starts_with("yes")
    }

    /// Until what it says of that is what is wanted; and how long that took.
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&str) -> bool) -> (String, Duration) {
        let begun = Instant::now();
        loop {
            let safe = self.status("safe");
            if is_so(&safe) {
                return (safe, begun.elapsed());
            }
            assert!(begun.elapsed() < HANGS, "not in time: {what}: {safe}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Until everything is there.
    pub fn until_safe(&mut self) -> Duration {
        self.until("everything is there", |safe| safe.starts_with("yes")).1
    }

    /// How much memory it has, in bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Dies now. Gives when, and all acknowledgements that nobody had heard before.
    pub fn kill(mut self) -> (Instant, Vec<(Instant, u64)>) {
        let when = Instant::now();
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let number = |line: &str| line.strip_prefix("committed ")?.parse().ok();
        (when, self.noted.iter().filter_map(|(when, line)| Some((when, number(&line)?))).collect())
    }

    /// Closes everything, and ends in order.
    pub fn end(mut self) {
        self.orders = None;
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
