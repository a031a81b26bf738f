//! Time and chance for tests, and a store that answers what the test says.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use async_trait::async_trait;
use littoral_ports::{Clock, Entropy};
use littoral_remote::{Environment, RemoteSettings, Tuning};
use littoral_types::ObjectPath;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The machine's time.
#[derive(Debug)]
pub(crate) struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
    }

    fn boot_ms(&self) -> u64 {
        self.wall_ms()
    }

    async fn sleep_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// Chance that a seed decides.
#[derive(Debug)]
pub(crate) struct Seeded(Mutex<u64>);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)))
    }
}

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock().unwrap();
        for byte in bytes {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *byte = (*state >> 32) as u8;
        }
    }
}

pub(crate) fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock)
}

/// Chance that differs between runs: for names that must be fresh.
pub(crate) fn fresh() -> Arc<Seeded> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    Seeded::new(now ^ u64::from(std::process::id()) << 40)
}

pub(crate) fn at(path: &str) -> ObjectPath {
    ObjectPath::parse(path).unwrap()
}

pub(crate) fn env(pairs: &[(&'static str, String)]) -> Environment {
    Environment::from_pairs(pairs.iter().map(|(name, value)| (*name, value.clone())))
}

/// Short waits: a test's store answers at once or never.
pub(crate) fn impatient() -> RemoteSettings {
    let tuning = Tuning {
        retry_pause_ms: 1,
        retry_pause_ms_max: 5,
        request_timeout_ms: 400,
        transfer_timeout_ms: 2_000,
        ..Tuning::default()
    };
    RemoteSettings { tuning, ..RemoteSettings::default() }
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Came {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Status, headers, body.
    Say(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The head says so many bytes, fewer come, the connection closes.
    Cut(u16, usize, Vec<u8>),
    /// The connection closes without a word, the request read.
    Hang,
    /// Nothing, for so many milliseconds, then the connection closes.
    Wait(u64),
    /// After so many milliseconds, this.
    Late(u64, Box<Answer>),
    /// The head says so many bytes, fewer come, the connection stays open.
    Stall(usize, Vec<u8>),
}

/// An S3 error document.
pub(crate) fn error(status: u16, code: &str, message: &str) -> Answer {
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message>\
         <RequestId>1</RequestId></Error>"
    );
    Answer::Say(status, vec![("Content-Type", "application/xml".into())], document.into_bytes())
}

/// A write that went well.
pub(crate) fn stored() -> Answer {
    Answer::Say(200, vec![("ETag", "\"tag\"".into())], Vec::new())
}

/// An object.
pub(crate) fn object(bytes: &[u8]) -> Answer {
    let headers = vec![("ETag", "\"tag\"".into()), ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT".into())];
    Answer::Say(200, headers, bytes.to_vec())
}

/// A store that answers by script, then (when the script is over) with a 500.
pub(crate) struct Scripted {
    port: u16,
    came: Arc<Mutex<Vec<Came>>>,
    connections: Arc<AtomicUsize>,
}

impl Scripted {
    pub(crate) fn new(answers: Vec<Answer>) -> Self {
        let script = Mutex::new(answers.into_iter());
        Self::by(move |_, _| {
            script.lock().unwrap().next().unwrap_or_else(|| error(500, "ScriptOver", "no more answers"))
        })
    }

    /// Answers by what came; the number counts requests from zero.
    pub(crate) fn by(answer: impl Fn(usize, &Came) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let came = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let log = Arc::clone(&came);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                std::thread::spawn(move || converse(stream, &*answer, &log));
            }
        });
        Self { port, came, connections }
    }

    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", "scripted-key".into()),
            ("AWS_SECRET_ACCESS_KEY", "scripted-secret".into()),
            ("AWS_ENDPOINT_URL", format!("http://{}", self.authority())),
        ]
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }
}

fn converse(stream: TcpStream, answer: &(dyn Fn(usize, &Came) -> Answer + Send + Sync), log: &Mutex<Vec<Came>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(request) = read(&mut reader) {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let mut said = answer(number, &request);
        while let Answer::Late(ms, then) = said {
            std::thread::sleep(Duration::from_millis(ms));
            said = *then;
        }
        match said {
            Answer::Say(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
                if request.method != "HEAD" || !headers.iter().any(|(name, _)| *name == "Content-Length") {
                    head.push_str(&format!("Content-Length: {}\r\n", body.len()));
                }
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                head.push_str("\r\n");
                let body = if request.method == "HEAD" { Vec::new() } else { body };
                if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&body)).is_err() {
                    return;
                }
            }
            Answer::Cut(status, said, body) => {
                let head = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {said}\r\nETag: \"t\"\r\n\r\n");
                let _ = writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&body));
                return;
            }
            Answer::Stall(len, body) => {
                let head = format!(
                    "HTTP/1.1 200 Scripted\r\nContent-Length: {len}\r\nETag: \"t\"\r\n\
                     Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n"
                );
                let _ = writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&body));
                std::thread::sleep(Duration::from_secs(60));
                return;
            }
            Answer::Late(..) | Answer::Hang => return,
            Answer::Wait(ms) => {
                std::thread::sleep(Duration::from_millis(ms));
                return;
            }
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Came> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None => break,
        }
    }
    let length = |came: &[(String, String)], name: &str| {
        came.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.parse::<usize>().ok())
    };
    let mut body = vec![0; length(&headers, "content-length").unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Came { method, path, headers, body })
}
