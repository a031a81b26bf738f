//! Everything at once: four processes write, two machines follow, checkpoints and forks are made, and the network comes and goes, with all
//! weather that there is: late answers, resets, throttling, failures, answers that are lost after the write was done, bodies that break off, a
//! store without room, keys that are not known. `LITTORAL_TEST_SOAK_SECONDS=7200` for two hours of it, `LITTORAL_TEST_SOAK_SEED` for another
//! weather.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{built, command, python, room, said};
use littoral_test_s3::S3Server;
use littoral_test_s3::network::{Fault, Proxy, Weather};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What never takes this long unless something hangs.
const HANGS: Duration = Duration::from_secs(120);

fn seconds() -> u64 {
    std::env::var("LITTORAL_TEST_SOAK_SECONDS").map_or(40, |text| text.parse().unwrap())
}

fn seed() -> u64 {
    std::env::var("LITTORAL_TEST_SOAK_SEED").map_or(0x50a4, |text| text.parse().unwrap())
}

/// The weather of one turn: each has everything, and much of one.
fn weather(often: Fault) -> Weather {
    let weather = Weather::calm().late(Duration::from_millis(1_500));
    Fault::ALL.into_iter().fold(weather, |weather, fault| weather.with(fault, if fault == often { 250 } else { 20 }))
}

/// A process of a machine, and what it said: the last number that it answered, and every word that is neither.
struct Told {
    process: Child,
    last: Arc<AtomicU64>,
    strange: Arc<Mutex<Vec<String>>>,
}

fn started(mut command: Command, word: &'static str) -> Told {
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let answers = BufReader::new(process.stdout.take().unwrap());
    let (last, strange) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (heard, odd) = (last.clone(), strange.clone());
    std::thread::spawn(move || {
        for line in answers.lines().map_while(Result::ok) {
            match line.split_once(' ') {
                Some((said, number)) if said == word => {
                    heard.fetch_max(number.parse().unwrap(), Ordering::SeqCst);
                }
                _ => odd.lock().unwrap().push(line),
            }
        }
    });
    Told { process, last, strange }
}

impl Told {
    fn last(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }

    fn wrong(&self) -> Vec<String> {
        self.strange.lock().unwrap().iter().filter(|line| line.starts_with("wrong")).cloned().collect()
    }
}

fn is_prefix(file: &Path) -> u64 {
    let told =
        said(command("sqlite3").arg(file).arg("PRAGMA integrity_check; SELECT count(*), ifnull(max(n), 0) FROM t;"));
    let (sound, counts) = told.trim().split_once('\n').unwrap();
    let (count, last) = counts.split_once('|').unwrap();
    assert_eq!((sound, count), ("ok", last), "{told}");
    count.parse().unwrap()
}

#[test]
fn writers_followers_checkpoints_forks_and_a_network_that_comes_and_goes() {
    let server = S3Server::shared();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let proxy = runtime.block_on(Proxy::start(server.authority(), Duration::from_millis(5), None));
    proxy.seed(seed());
    let remote = format!("s3://{}/soak", server.bucket());
    let near = server.env();
    let far: Vec<(&str, String)> = near
        .iter()
        .map(|(name, value)| match name.starts_with("AWS_ENDPOINT_URL") {
            true => (*name, proxy.endpoint()),
            false => (*name, value.clone()),
        })
        .collect();
    let machine = tempfile::tempdir().unwrap();
    let url = format!("{remote}/app.db");
    let littoral = |words: &[&str]| {
        let mut littoral = command(&built().littoral);
        littoral.envs(near.iter().cloned()).current_dir(machine.path()).args(words);
        littoral
    };
    let on = |folder: &Path, script: &str| {
        let mut host = command(python());
        host.env_remove("LITTORAL_SYNC_INTERVAL").current_dir(folder).envs(far.iter().cloned());
        host.env("SAID", "&sync_interval=100ms")
            .env("EXTENSION", &built().extension)
            .env("REMOTE", &remote)
            .arg(room().join("scripts").join(script));
        host
    };
    let mut writers: Vec<Told> = (0..4).map(|_| started(on(machine.path(), "writer.py"), "committed")).collect();
    let order = |writer: &mut Told, order: &str| {
        let orders = writer.process.stdin.as_mut().unwrap();
        writeln!(orders, "{order}").unwrap();
        orders.flush().unwrap();
    };
    order(&mut writers[0], "CREATE INDEX IF NOT EXISTS who ON t(n)");
    order(&mut writers[0], "commit 1 100");
    let begun = Instant::now();
    while !littoral(&["status", &url]).output().unwrap().status.success() {
        assert!(begun.elapsed() < HANGS, "nothing is published");
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_secs(2));
    for writer in &mut writers {
        order(writer, "commit 100000000 40");
    }
    let places: Vec<tempfile::TempDir> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let followers: Vec<Told> = places.iter().map(|place| started(on(place.path(), "follower.py"), "seen")).collect();

    let until = Instant::now() + Duration::from_secs(seconds());
    let never = || Fault::ALL.into_iter().filter(|fault| !proxy.befell().contains_key(fault)).collect::<Vec<_>>();
    let mut nth = 0;
    // Whatever never befell anybody was not tried.
    while Instant::now() < until || !never().is_empty() {
        assert!(Instant::now() < until + HANGS, "{:?} never befell anybody", never());
        nth += 1;
        let turns = if nth % 2 == 0 { never() } else { Vec::new() };
        let often = turns.first().copied().unwrap_or(Fault::ALL[nth as usize % Fault::ALL.len()]);
        proxy.weather(weather(often));
        std::thread::sleep(Duration::from_millis(500 + nth * 173 % 900));
        proxy.is_down(true);
        std::thread::sleep(Duration::from_millis(100 + nth * 311 % 700));
        proxy.is_down(false);
        std::thread::sleep(Duration::from_millis(500 + nth * 239 % 700));
        // Between two turns it clears up, every other time.
        if nth % 2 == 0 {
            proxy.weather(Weather::calm());
            std::thread::sleep(Duration::from_millis(300));
        }
        if nth % 3 == 0 {
            said(&mut littoral(&["checkpoint", "app.db", "--quiet"]));
        }
        if nth % 4 == 0 {
            let (name, file) = (format!("fork-{nth}"), format!("fork-{nth}.db"));
            said(&mut littoral(&["fork", &url, &name]));
            said(&mut littoral(&["restore", &format!("{remote}/{name}"), &file, "--quiet"]));
            is_prefix(&machine.path().join(&file));
        }
        for follower in &followers {
            assert_eq!(follower.wrong(), Vec::<String>::new());
        }
    }
    proxy.weather(Weather::calm());
    for writer in &mut writers {
        writer.process.kill().unwrap();
        writer.process.wait().unwrap();
    }
    let last = writers.iter().map(Told::last).max().unwrap();
    // Whoever comes next publishes what the dead had not.
    let mut next = started(on(machine.path(), "writer.py"), "committed");
    order(&mut next, "commit 1 100");
    let begun = Instant::now();
    while followers.iter().any(|follower| follower.last() <= last) {
        assert!(
            begun.elapsed() < HANGS,
            "followers stand at {:?}, {last} was committed",
            followers.iter().map(Told::last).collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    for (follower, place) in followers.into_iter().zip(&places) {
        assert_eq!(follower.wrong(), Vec::<String>::new());
        std::fs::write(place.path().join("end"), "").unwrap();
        let Told { mut process, .. } = follower;
        assert!(process.wait().unwrap().success());
    }
    said(&mut littoral(&["restore", &url, "back.db", "--quiet"]));
    let found = is_prefix(&machine.path().join("back.db"));
    assert!(found > last, "{last} was acknowledged, {found} are there");
    let befell = proxy.befell();
    eprintln!("{found} commits of five processes, {nth} times without a network, seed {}: {befell:?}", seed());
    next.process.kill().unwrap();
    next.process.wait().unwrap();
}
