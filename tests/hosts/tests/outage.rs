//! An object store that is slow, throttles, is full, does not take the keys any more, or is away: commits go on, what happens is said with
//! its reason and the way out, nothing fills up, and everything gets there by itself afterwards. The requests are real, to a real server;
//! the network between has weather.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::writer::Writer;
use littoral_hosts::{built, command, python, said};
use littoral_test_s3::S3Server;
use littoral_test_s3::network::{Fault, Proxy, Weather};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A machine, and an object store behind a network.
struct World {
    machine: TempDir,
    remote: String,
    server: &'static S3Server,
    proxy: Proxy,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let server = S3Server::shared();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let proxy = runtime.block_on(Proxy::start(server.authority(), Duration::ZERO, None));
        let remote = format!("s3://{}/outage", server.bucket());
        Self { machine: tempfile::tempdir().unwrap(), remote, server, proxy, _runtime: runtime }
    }

    /// Variables of these keys, by which the object store is behind the network.
    fn far(&self, keys: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
        let far = |(name, value)| match name {
            "AWS_ENDPOINT_URL_S3" => (name, self.proxy.endpoint()),
            _ => (name, value),
        };
        keys.into_iter().map(far).collect()
    }

    fn writer(&self, said: &str) -> Writer {
        self.writer_with(said, self.far(self.server.env()))
    }

    fn writer_with(&self, said: &str, environment: Vec<(&'static str, String)>) -> Writer {
        let mut host = command(python());
        host.current_dir(self.machine.path()).envs(environment);
        host.env("EXTENSION", &built().extension).env("REMOTE", &self.remote).env("SAID", said);
        host.env("HOME", self.machine.path()).env("AWS_EC2_METADATA_DISABLED", "true");
        Writer::begin(&mut host)
    }

    /// Another machine, which the weather does not reach, restores what is there, and has what is here.
    fn is_whole(&self) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("back.db");
        let mut restore = command(&built().littoral);
        restore.envs(self.server.env()).args(["restore", &format!("{}/app.db", self.remote), "--quiet"]).arg(&file);
        said(&mut restore);
        let dump = |file: &Path| said(command("sqlite3").arg(file).args(["PRAGMA integrity_check", ".dump"]));
        let (there, here) = (dump(&file), dump(&self.machine.path().join("app.db")));
        assert!(there.starts_with("ok"), "{there}");
        assert!(there == here, "what was restored is not what is here: {} bytes and {}", there.len(), here.len());
    }

    /// Kinds of the log's records, newest first.
    fn history(&self) -> Vec<String> {
        let url = format!("{}/app.db", self.remote);
        let mut littoral = command(&built().littoral);
        let told = said(littoral.envs(self.server.env()).args(["history", &url, "--json", "--limit", "1000"]));
        let told: Value = serde_json::from_str(&told).unwrap();
        told["records"].as_array().unwrap().iter().map(|record| record["kind"].as_str().unwrap().to_owned()).collect()
    }

    fn requests(&self) -> u64 {
        let traffic = self.proxy.traffic();
        traffic.reads + traffic.writes
    }

    fn befell(&self, fault: Fault) -> u64 {
        self.proxy.befell().get(&fault).copied().unwrap_or_default()
    }
}

/// What a folder takes of the disk.
fn taken(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => taken(&entry.path()),
            // What goes while it is looked at takes nothing.
            found => found.map_or(0, |found| found.blocks() * 512),
        })
        .sum()
}

#[test]
fn a_store_that_throttles_slows_no_commit_down_is_asked_ever_less_often_and_gets_everything_afterwards() {
    let world = World::new();
    let mut writer = world.writer("");
    writer.commit_at_once(100);
    writer.until_safe();
    let (mut calm, mut throttled) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..3 {
        world.proxy.weather(Weather::calm());
        calm += writer.commit_at_once(500);
        writer.until_safe();
        world.proxy.weather(Weather::calm().with(Fault::SlowDown, 500).with(Fault::TooMany, 500));
        throttled += writer.commit_at_once(500);
    }
    eprintln!("1,500 commits in {calm:?}, throttled in {throttled:?}");
    assert!(throttled <= calm * 2, "throttled {throttled:?}, else {calm:?}");
    let (safe, _) = writer.until("it is said", |safe| safe.contains("asks for patience"));
    assert!(safe.starts_with("no: ") && safe.contains("nothing is lost") && safe.contains("sync_interval="), "{safe}");
    // Ever less often, also while somebody waits all the time.
    let mut seen = Vec::new();
    for _ in 0..2 {
        let before = world.requests();
        std::thread::sleep(Duration::from_secs(10));
        seen.push(world.requests() - before);
    }
    eprintln!("requests in ten seconds, and in the next ten: {seen:?}");
    assert!(seen[0] <= 60 && seen[1] <= seen[0].max(14), "{seen:?}");
    assert!(world.befell(Fault::SlowDown) > 0 && world.befell(Fault::TooMany) > 0);
    world.proxy.weather(Weather::calm());
    let took = writer.until_safe();
    eprintln!("everything was there {took:?} after the store took requests again");
    world.is_whole();
}

#[test]
fn a_store_that_says_when_to_come_again_is_left_alone_for_so_long() {
    let world = World::new();
    let mut writer = world.writer("");
    writer.commit_at_once(10);
    writer.until_safe();
    world.proxy.weather(Weather::calm().with(Fault::SlowDown, 1000).retry_after(5));
    let before = world.requests();
    writer.commit_at_once(10);
    std::thread::sleep(Duration::from_secs(12));
    let asked = world.requests() - before;
    // One at once, and one every five seconds; six within three seconds where nothing is said.
    assert!((1..=4).contains(&asked), "{asked} requests in twelve seconds");
    world.proxy.weather(Weather::calm());
    writer.until_safe();
    world.is_whole();
}

#[test]
fn a_store_that_is_far_and_narrow_slows_no_commit_down() {
    let world = World::new();
    let mut writer = world.writer("");
    writer.commit_at_once(100);
    writer.until_safe();
    let (mut near, mut far) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..3 {
        world.proxy.far(Duration::ZERO, None);
        near += writer.commit_at_once(500);
        writer.until_safe();
        world.proxy.far(Duration::from_secs(2), Some(40_000));
        far += writer.commit_at_once(500);
    }
    eprintln!("1,500 commits in {near:?}, with two seconds of way and 40 kB/s in {far:?}");
    assert!(far <= near * 2, "far {far:?}, near {near:?}");
    // It gets there that way, too.
    let took = writer.until_safe();
    eprintln!("everything was there {took:?} later");
    world.is_whole();
}

#[test]
fn a_full_store_is_said_to_be_full_wherever_one_looks_and_gets_everything_when_there_is_room() {
    let world = World::new();
    let mut writer = world.writer("");
    writer.commit_at_once(10);
    writer.until_safe();
    world.proxy.weather(Weather::calm().with(Fault::Full, 1000));
    writer.commit_at_once(10);
    // Each time in the words of another store.
    let mut words = BTreeMap::from([("XMinioStorageFull", 0), ("QuotaExceeded", 0)]);
    writer.until("several ways of saying it", |safe| {
        words.iter_mut().for_each(|(word, count)| *count += u32::from(safe.contains(word)));
        let is_said = safe.starts_with("no: 10 commits") && safe.contains("is full") && safe.contains("make room");
        assert!(is_said || safe.starts_with("not yet"), "{safe}");
        words.values().all(|count| *count > 0)
    });
    let told = writer.ask("PRAGMA littoral_status");
    assert!(told.contains("is full") && told.contains("make room in the object store"), "{told}");
    assert!(writer.status("trouble").contains("is full"));
    // A process that does not ship says so, too.
    let mut other = world.writer("");
    assert!(other.status("safe").contains("is full"), "{}", other.status("safe"));
    let counted = world.befell(Fault::Full);
    assert!(counted > 1);
    world.proxy.weather(Weather::calm());
    writer.until_safe();
    assert_eq!((writer.status("trouble"), other.status("trouble")), ("None".to_owned(), "None".to_owned()));
    world.is_whole();
}

#[test]
fn keys_that_are_written_anew_are_used_from_then_on() {
    let world = World::new();
    let file = world.machine.path().join("credentials");
    let written = |keys: Vec<(&'static str, String)>| {
        let keys: BTreeMap<_, _> = keys.into_iter().collect();
        let (key, secret) = (&keys["AWS_ACCESS_KEY_ID"], &keys["AWS_SECRET_ACCESS_KEY"]);
        fs::write(&file, format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")).unwrap();
    };
    written(world.server.env());
    let mut environment = world.far(world.server.env());
    environment.retain(|(name, _)| !name.contains("KEY"));
    environment.push(("AWS_SHARED_CREDENTIALS_FILE", file.display().to_string()));
    let mut writer = world.writer_with("", environment);
    writer.commit_at_once(10);
    writer.until_safe();
    world.proxy.weather(Weather::calm().only_key("rotatedkey"));
    writer.commit_at_once(10);
    let (safe, _) = writer.until("it is said", |safe| safe.contains("wrong credentials"));
    let tells = safe.contains("profile default") && safe.contains(&file.display().to_string());
    assert!(safe.starts_with("no: 10 commits") && tells && safe.contains("write others there"), "{safe}");
    assert!(!safe.contains("testkey") && !safe.contains("testsecret"), "{safe}");
    written(world.server.rotated_env());
    let took = writer.until_safe();
    eprintln!("everything was there {took:?} after the keys were");
    writer.commit_at_once(10);
    writer.until_safe();
    assert!(world.befell(Fault::Denied) > 0);
    world.is_whole();
}

#[test]
fn keys_of_the_environment_cannot_change_and_the_error_says_what_can() {
    let world = World::new();
    let mut writer = world.writer("");
    writer.commit_at_once(10);
    writer.until_safe();
    world.proxy.weather(Weather::calm().only_key("rotatedkey"));
    writer.commit_at_once(10);
    let (safe, _) = writer.until("it is said", |safe| safe.contains("wrong credentials"));
    assert!(safe.contains("this process's environment") && safe.contains("start it anew"), "{safe}");
    assert!(safe.contains("~/.aws/credentials") && !safe.contains("testkey"), "{safe}");
    drop(writer);
    let mut writer = world.writer_with("", world.far(world.server.rotated_env()));
    writer.commit_at_once(10);
    writer.until_safe();
    assert_eq!(writer.rows("SELECT count(*) FROM t"), "30");
    world.is_whole();
}

#[test]
fn s13_a_commit_that_cannot_be_remote_says_why_is_here_and_gets_there_once() {
    /// What goes wrong, how, and what is said of it.
    type Trouble = (&'static str, fn(&Proxy), &'static str);
    let broken: [Trouble; 4] = [
        ("away", |proxy| proxy.is_down(true), "cannot be reached"),
        ("throttling", |proxy| proxy.weather(Weather::calm().with(Fault::SlowDown, 1000)), "asks for patience"),
        ("full", |proxy| proxy.weather(Weather::calm().with(Fault::Full, 1000)), "is full"),
        ("rotated", |proxy| proxy.weather(Weather::calm().only_key("rotatedkey")), "wrong credentials"),
    ];
    let trials: Vec<_> = broken
        .into_iter()
        .map(|(name, breaks, words)| {
            std::thread::spawn(move || {
                let world = World::new();
                let mut writer = world.writer("");
                writer.commit_at_once(5);
                writer.until_safe();
                breaks(&world.proxy);
                assert_eq!(writer.rows("PRAGMA littoral_durability = remote"), "remote");
                let before = world.requests();
                let told = writer.ask("INSERT INTO t(who, body) VALUES (7, 'once')");
                assert!(told.starts_with("error"), "{name}: {told}");
                let requests = world.requests() - before;
                eprintln!("{name}: {requests} requests while a commit waited");
                assert!(requests <= 200, "{name}: {requests} requests while one commit waited");
                let why = writer.rows("SELECT littoral_last_error()");
                let tells = ["committed here as LSN ", "Do not repeat", "littoral_durability=local", words];
                assert!(tells.iter().all(|words| why.contains(words)), "{name}: {why}");
                assert_eq!(writer.rows("SELECT count(*) FROM t WHERE body = 'once'"), "1", "{name}");
                // Who does not wait goes on.
                assert_eq!(writer.rows("PRAGMA littoral_durability = local"), "local");
                writer.commit_at_once(5);
                world.proxy.is_down(false);
                world.proxy.weather(Weather::calm());
                writer.until_safe();
                assert_eq!(writer.rows("PRAGMA littoral_durability = remote"), "remote");
                assert_eq!(writer.ask("INSERT INTO t(who, body) VALUES (7, 'after')"), "rows");
                assert_eq!(writer.rows("SELECT count(*) FROM t"), "12", "{name}");
                world.is_whole();
            })
        })
        .collect();
    for trial in trials {
        trial.join().unwrap();
    }
}

#[test]
fn p05_commits_whose_answers_are_lost_after_they_were_done_are_there_once() {
    let world = World::new();
    world.proxy.seed(0xa5);
    let mut writer = world.writer("&durability=remote");
    let lost = [Fault::DoneAndReset, Fault::DoneAndFailed, Fault::DoneAndSlowDown];
    let weather = lost.iter().fold(Weather::calm(), |weather, fault| weather.with(*fault, 200));
    world.proxy.weather(weather.with(Fault::Truncated, 300));
    writer.commit_at_once(30);
    let befell = world.proxy.befell();
    world.proxy.weather(Weather::calm());
    writer.until_safe();
    assert!(lost.iter().all(|fault| befell.get(fault).is_some_and(|count| *count > 0)), "{befell:?}");
    assert_eq!(writer.rows("SELECT count(*) FROM t"), "30");
    world.is_whole();
    // Each travelled once: every commit has its own LSN, and there are no more of them.
    let position = writer.rows("PRAGMA littoral_durable_lsn");
    let lsn: u64 = position.split_once('.').unwrap().1.parse().unwrap();
    // The switch to WAL mode and the making of the table come before.
    assert!((31..=33).contains(&lsn), "{position}");
}

#[test]
fn s14_a_store_that_is_away_for_long_costs_first_copies_then_dirty_bits_and_nothing_that_grows() {
    const QUOTA: u64 = 8_000_000;
    let world = World::new();
    let mut writer = world.writer("&quota=8MB");
    writer.rows("PRAGMA wal_autocheckpoint = 200");
    writer.commit_at_once(600);
    writer.until_safe();
    let store = world.machine.path().join(".littoral");
    let (before, copies) = (taken(&store), store.join("wal"));
    world.proxy.is_down(true);
    // Copies first.
    let (mut peak, mut whole, mut commits) = (0, 0, 0);
    let mut write = |writer: &mut Writer, rounds: u32| {
        for _ in 0..rounds {
            writer.commit_at_once(100);
            commits += 100;
            peak = peak.max(taken(&copies));
            whole = whole.max(taken(&store));
        }
    };
    write(&mut writer, 8);
    let kept = taken(&copies);
    assert!(kept > QUOTA / 8, "copies of what cannot be shipped: {kept} bytes");
    let (safe, _) = writer.until("it is said", |safe| safe.contains("cannot be reached"));
    assert!(safe.starts_with("no: ") && safe.contains("endpoint="), "{safe}");
    // Then none: what is committed is marked, page by page.
    let mut rounds = 0;
    while taken(&copies) > 0 {
        write(&mut writer, 5);
        rounds += 1;
        assert!(rounds < 40, "copies were never let go: {} bytes", taken(&copies));
    }
    let memory = writer.memory();
    write(&mut writer, 60);
    let (later, left) = (writer.memory(), taken(&copies));
    eprintln!(
        "{commits} commits without an object store: copies took {peak} bytes at most, the store {whole} ({before} before); memory {memory}, \
         then {later}"
    );
    assert_eq!(left, 0, "copies that nobody can use");
    assert!(peak <= QUOTA / 2, "copies took {peak} bytes, of a quota of {QUOTA}");
    assert!(whole <= before + QUOTA, "the store took {whole} bytes, {before} before");
    assert!(later <= memory + (8 << 20), "memory grew from {memory} to {later}");
    // The next publication is a checkpoint that has all of it, and says that it is a gap; what comes then travels commit by commit again.
    world.proxy.is_down(false);
    let took = writer.until_safe();
    eprintln!("everything was there {took:?} later");
    world.is_whole();
    writer.commit_at_once(1);
    writer.until_safe();
    let history = world.history();
    let newest: Vec<&str> = history.iter().map(String::as_str).filter(|kind| *kind != "index").take(2).collect();
    assert_eq!(newest, ["segment", "gap"], "{history:?}");
    world.is_whole();
}

#[test]
fn s15_what_who_commits_copies_of_a_wal_is_reckoned_in_its_own_pages_however_large_they_are() {
    /// So much is copied of a WAL by who starts it over.
    const SHARE: u64 = 256 << 10;
    // Six pages of the largest size are more than that, three hundred of the smallest are less.
    for (page_size, frames, is_copied) in [(65_536, 6, false), (512, 300, true)] {
        let world = World::new();
        let make = format!(
            "PRAGMA page_size = {page_size}; CREATE TABLE t(n INTEGER PRIMARY KEY, who TEXT, body TEXT); PRAGMA journal_mode = WAL;"
        );
        said(command("sqlite3").arg(world.machine.path().join("app.db")).arg(make));
        let mut ships = world.writer("");
        ships.commit_at_once(5);
        ships.until_safe();
        let mut commits = world.writer("");
        assert_eq!(commits.rows("PRAGMA page_size"), page_size.to_string());
        commits.rows(&format!("PRAGMA wal_autocheckpoint = {frames}"));
        let pid = ships.process.id().to_string();
        said(command("kill").args(["-STOP", &pid]));
        commits.commit_at_once(3 * frames);
        let copies = taken(&world.machine.path().join(".littoral/wal"));
        said(command("kill").args(["-CONT", &pid]));
        eprintln!("{copies} bytes were copied by who commits, of pages of {page_size}");
        match is_copied {
            true => assert!(copies >= 512 * u64::from(frames), "{copies} bytes of small pages"),
            // What was left of the first WAL, which had been shipped but for its end.
            false => assert!(copies <= SHARE, "{copies} bytes of large pages"),
        }
        commits.until_safe();
        world.is_whole();
    }
}

#[test]
fn a_last_close_waits_no_longer_than_was_said_and_who_opens_again_is_not_kept_waiting_for_a_request_that_hangs() {
    let world = World::new();
    let mut writer = world.writer("&close_wait=1s");
    writer.commit_at_once(10);
    writer.until_safe();
    // Requests are taken, and nobody answers.
    world.proxy.weather(Weather::calm().with(Fault::Late, 1000).late(Duration::from_secs(3_600)));
    writer.commit_at_once(10);
    std::thread::sleep(Duration::from_secs(2));
    let begun = Instant::now();
    assert_eq!(writer.ask("close"), "closed");
    let closing = begun.elapsed();
    world.proxy.weather(Weather::calm());
    assert_eq!(writer.ask("open"), "opened");
    let took = writer.until_safe();
    eprintln!("closed in {closing:?}; everything was there {took:?} after it was opened again");
    // One request is waited for thirty seconds, six times over.
    assert!(closing < Duration::from_secs(10) && took < Duration::from_secs(25), "{closing:?} {took:?}");
    world.is_whole();
}
