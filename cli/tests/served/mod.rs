//! A process that answers over HTTP, and what it says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)] // Not every test asks everything.

use crate::rig::{self, BINARY, Rig};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// For hangs only.
pub const LONG: Duration = Duration::from_secs(120);
pub const TOKEN: &str = "a-token-that-nobody-guesses";

/// A process that answers.
pub struct Served {
    pub process: Child,
    pub address: SocketAddr,
    pub stderr: Arc<Mutex<String>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}{}", self.head, self.body);
        self
    }
}

impl Served {
    pub fn start(rig: &Rig, arguments: &[&str]) -> Self {
        let mut command = rig.command(BINARY);
        command.args(arguments).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (stderr, noted) = (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new(String::new())));
        let mut errors = BufReader::new(process.stderr.take().unwrap());
        let told = stderr.clone();
        std::thread::spawn(move || {
            let mut line = String::new();
            while errors.read_line(&mut line).is_ok_and(|read| read > 0) {
                told.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = loop {
            let Some(Ok(line)) = lines.next() else { panic!("it ended: {}", stderr.lock().unwrap()) };
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["event"] == "listens" {
                break line["address"].as_str().unwrap().parse().unwrap();
            }
        };
        // Whatever else it says is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| noted.lock().unwrap().push_str(&line)));
        Self { process, address, stderr }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// Sends bytes as they are, and reads what comes until the end.
    pub fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // It may be refused before all of it is sent.
        let _ = stream.write_all(bytes);
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        let text = String::from_utf8(text).unwrap();
        for secret in rig::SECRETS.into_iter().chain([TOKEN]) {
            assert!(!text.contains(secret), "a secret was told: {text}");
        }
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        self.send(
            format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n").as_bytes(),
        )
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    /// An administrator's call.
    pub fn post(&self, path: &str) -> Answer {
        self.ask("POST", path, &format!("authorization: Bearer {TOKEN}\r\ncontent-length: 0\r\n"))
    }

    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = self.get("/metrics").is(200);
        series(&answer.body)
    }

    #[track_caller]
    pub fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !is(self) {
            assert!(
                since.elapsed() < LONG,
                "not in time: {what}\n{}\n{}",
                self.get("/overview").body,
                self.stderr.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    #[track_caller]
    pub fn until_logged(&self, words: &[&str]) {
        self.until(&format!("{words:?} in the log"), |served| {
            served.stderr.lock().unwrap().lines().any(|line| words.iter().all(|word| line.contains(word)))
        });
    }
}

/// A series' name without its labels, and its value; what is refused by Prometheus is refused here.
pub fn series(text: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(series.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} twice");
    }
    series
}

/// The sum of all series of a metric whose labels hold all of these.
pub fn sum(series: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let is = |key: &&String| key.split('{').next() == Some(name) && labels.iter().all(|label| key.contains(label));
    series.iter().filter(|(key, _)| is(key)).map(|(_, value)| value).sum()
}
