//! A real S3 server for tests: SeaweedFS on loopback, started by the first test that wants one and gone with the last.
//!
//! What this room promises:
//! 1. [`S3Server::shared`] is one server a process, on ports that no other test's server has; each test makes its own bucket.
//! 2. No server outlives the process that started it, however that ends: it lives as long as a pipe that the process holds.
//!
//! What may never enter: anything that other than tests depend on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod http;
pub mod network;
mod weather;

use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::signer::Signer;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Who may do everything.
const WRITER: [&str; 2] = ["testkey", "testsecret"];
/// The same one by another key.
const ROTATED: [&str; 2] = ["rotatedkey", "rotatedsecret"];
/// Who may only read.
const READER: [&str; 2] = ["readkey", "readsecret"];
/// The first install downloads 40 MB.
const START_TIMEOUT: Duration = Duration::from_secs(240);
/// Ports below those that the kernel hands out by itself.
const PORTS: std::ops::Range<u16> = 18_000..32_000;
const PORT_STEP: u16 = 16;

/// A running server. Dropping it stops it and removes its data.
#[derive(Debug)]
pub struct S3Server {
    port: u16,
    child: Child,
    folder: tempfile::TempDir,
    _ports: File,
}

impl S3Server {
    /// The server of this process. It stops when the process ends.
    pub fn shared() -> &'static S3Server {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(S3Server::start)
    }

    /// A server of one's own, to be killed at will.
    pub fn start() -> S3Server {
        for _ in 0..5 {
            if let Some(server) = Self::start_somewhere() {
                return server;
            }
        }
        panic!("no S3 server came up: {}", script().display());
    }

    fn start_somewhere() -> Option<S3Server> {
        let (port, ports) = free_ports();
        let folder = tempfile::Builder::new().prefix("littoral-s3-").tempdir().expect("a temporary folder");
        let child = Command::new(script())
            .arg(folder.path())
            .arg(port.to_string())
            .arg("--while-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("bash runs tests/s3/server.sh");
        let mut server = S3Server { port, child, folder, _ports: ports };
        let since = Instant::now();
        while since.elapsed() < START_TIMEOUT {
            if let Ok(Some(status)) = server.child.try_wait() {
                let log = std::fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(10).collect();
                eprintln!("the S3 server on port {port} ended with {status}: {tail:#?}");
                return None;
            }
            // Healthy comes before able: only a bucket shows that all its parts have found each other.
            if server.request("GET", "/healthz") == Some(200) && server.try_create_bucket("ready") {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    /// Where it listens, as `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.authority())
    }

    /// Its host and port, as a `minio://` URL wants them.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Variables under which everything may be done, the endpoint among them: for a child process or an environment of
    /// one's own.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        self.env_of(WRITER)
    }

    /// The same with the key that comes after that one.
    pub fn rotated_env(&self) -> Vec<(&'static str, String)> {
        self.env_of(ROTATED)
    }

    /// Variables under which everything may be read and nothing written.
    pub fn read_only_env(&self) -> Vec<(&'static str, String)> {
        self.env_of(READER)
    }

    /// Variables whose access key is known and whose secret is wrong.
    pub fn wrong_secret_env(&self) -> Vec<(&'static str, String)> {
        self.env_of([WRITER[0], "not-the-secret-at-all"])
    }

    /// Variables whose access key nobody knows.
    pub fn unknown_key_env(&self) -> Vec<(&'static str, String)> {
        self.env_of(["nobodys-key", "nobodys-secret"])
    }

    fn env_of(&self, [key, secret]: [&str; 2]) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", key.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
            ("AWS_ENDPOINT_URL_S3", self.endpoint()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// Makes a bucket that no other test has; its name.
    pub fn bucket(&self) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let name = format!("test-{}-{now:x}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        assert!(self.try_create_bucket(&name), "no bucket {name} could be made");
        name
    }

    fn try_create_bucket(&self, name: &str) -> bool {
        // A PUT of the bucket's own path makes it; the library signs paths and makes no buckets.
        self.signed("PUT", name, "").is_some_and(|status| status == 200 || status == 409)
    }

    /// Deletes an object, past every library that a test may be testing.
    pub fn delete(&self, bucket: &str, key: &str) {
        let status = self.signed("DELETE", bucket, key);
        assert!(status.is_some_and(|status| status == 204 || status == 404), "{bucket}/{key}: {status:?}");
    }

    /// One signed request without a body; the answer's status.
    fn signed(&self, method: &str, bucket: &str, key: &str) -> Option<u16> {
        let signer = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region("us-east-1")
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_access_key_id(WRITER[0])
            .with_secret_access_key(WRITER[1])
            .build()
            .expect("a signer");
        let (verb, path) = (method.parse().expect("a method"), Path::from(key));
        let sign = async { signer.signed_url(verb, &path, Duration::from_secs(60)).await };
        let url = futures::executor::block_on(sign).expect("a signed URL").to_string();
        self.request(method, url.strip_prefix(&self.endpoint()).expect("a URL below the endpoint"))
    }

    /// One HTTP request without a body; the answer's status.
    fn request(&self, method: &str, path: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let host = self.authority();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = Vec::new();
        // A reset after the head is an answer too.
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // Closing the pipe is what stops it; waiting keeps the folder until it has stopped.
        drop(self.child.stdin.take());
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(10) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn script() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/server.sh"))
}

/// Ports from which on sixteen are free, and the lock that keeps them ours among tests that look at the same moment.
fn free_ports() -> (u16, File) {
    let steps = (PORTS.end - PORTS.start) / PORT_STEP;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let first = (u64::from(std::process::id()) * 31 + u64::from(now)) % u64::from(steps);
    let locks = std::env::temp_dir().join("littoral-s3-ports");
    std::fs::create_dir_all(&locks).expect("a folder for locks");
    for step in 0..steps {
        let port = PORTS.start + ((first as u16 + step) % steps) * PORT_STEP;
        let lock = File::create(locks.join(port.to_string())).expect("a lock file");
        let free = |offset: u16| TcpListener::bind(("127.0.0.1", port + offset)).is_ok();
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && (0..PORT_STEP).all(free) {
            return (port, lock);
        }
    }
    panic!("no sixteen free ports in a row in {PORTS:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_starts_makes_buckets_and_is_gone_when_dropped() {
        let server = S3Server::start();
        let bucket = server.bucket();
        assert_ne!(bucket, server.bucket());
        assert_eq!(server.request("GET", &format!("/{bucket}/")), Some(403), "a request without a signature");
        let (port, folder) = (server.port, server.folder.path().to_owned());
        drop(server);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it still listens");
        assert!(!folder.join("data").exists(), "its data stays");
    }

    #[test]
    fn a_server_does_not_outlive_a_process_that_is_killed() {
        if let Ok(port_file) = std::env::var("LITTORAL_TEST_S3_CHILD") {
            let server = S3Server::shared();
            std::fs::write(port_file, server.port.to_string()).unwrap();
            std::thread::sleep(Duration::from_secs(600));
        }
        let folder = tempfile::tempdir().unwrap();
        let port_file = folder.path().join("port");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::a_server_does_not_outlive_a_process_that_is_killed"])
            .env("LITTORAL_TEST_S3_CHILD", &port_file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let since = Instant::now();
        let port = loop {
            assert!(since.elapsed() < START_TIMEOUT, "the child started no server");
            match std::fs::read_to_string(&port_file).ok().and_then(|text| text.parse::<u16>().ok()) {
                Some(port) => break port,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_ok() {
            assert!(since.elapsed() < Duration::from_secs(10), "the server outlives the process that started it");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
