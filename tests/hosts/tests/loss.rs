//! A machine is lost, again and again, in the middle of five hundred transactions a second: what another one finds, and what this one had
//! been told. Acknowledgements are noted by a process that outlives it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::writer::Writer;
use littoral_hosts::{built, command, python, said};
use littoral_test_s3::S3Server;
use littoral_test_s3::network::Proxy;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How far away the object store is.
const FAR: Duration = Duration::from_millis(30);
/// A publication begins no later than this after a commit.
const INTERVAL: Duration = Duration::from_secs(1);
/// An upload on this machine, whatever else runs on it: far more than it takes, and far less than to miss a publication or two.
const UPLOAD: Duration = Duration::from_millis(2_500);

/// Trials of each kind; more where somebody wants more.
fn trials(usual: u64) -> u64 {
    std::env::var("LITTORAL_TEST_TRIALS").map_or(usual, |text| text.parse().unwrap())
}

/// Chance that can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A machine, and an object store that outlives it.
struct World {
    machine: TempDir,
    remote: String,
    /// As the machine sees the object store, and as others do.
    near: Vec<(&'static str, String)>,
    far: Vec<(&'static str, String)>,
}

impl World {
    fn on_disk(store: &TempDir) -> Self {
        let remote = format!("file://{}", store.path().join("remote").display());
        Self { machine: tempfile::tempdir().unwrap(), remote, near: Vec::new(), far: Vec::new() }
    }

    fn on_s3(server: &S3Server, proxy: &Proxy) -> Self {
        let near = server.env();
        let far = near.iter().map(|(name, value)| match *name {
            "AWS_ENDPOINT_URL" | "AWS_ENDPOINT_URL_S3" => (*name, proxy.endpoint()),
            _ => (*name, value.clone()),
        });
        let remote = format!("s3://{}/loss", server.bucket());
        Self { machine: tempfile::tempdir().unwrap(), remote, far: far.collect(), near }
    }

    fn littoral(&self) -> Command {
        let mut littoral = command(&built().littoral);
        littoral.envs(self.near.iter().cloned());
        littoral
    }

    fn writer(&self, said: &str) -> Writer {
        let mut host = command(python());
        host.current_dir(self.machine.path()).envs(self.far.iter().cloned());
        host.env("EXTENSION", &built().extension).env("REMOTE", &self.remote).env("SAID", said);
        Writer::begin(&mut host)
    }

    /// Another machine restores what is there: how many transactions it finds, every one of them up to the last.
    fn found(&self) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("found.db");
        said(self.littoral().args(["restore", &format!("{}/app.db", self.remote), "--quiet"]).arg(&file));
        let told = said(
            command("sqlite3")
                .arg(&file)
                .arg("PRAGMA integrity_check; SELECT count(*), ifnull(min(n), 1), ifnull(max(n), 0) FROM t;"),
        );
        let (sound, counts) = told.trim().split_once('\n').unwrap();
        assert_eq!(sound, "ok");
        let counts: Vec<u64> = counts.split('|').map(|count| count.parse().unwrap()).collect();
        assert_eq!(counts[..2], [counts[2], 1], "no prefix of what was committed: {told}");
        counts[2]
    }

    /// What another process reads in the log now.
    fn newest_lsn(&self) -> u64 {
        let url = format!("{}/app.db", self.remote);
        let told = self.littoral().args(["history", &url, "--json", "--limit", "1"]).output().unwrap();
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();
        told["records"][0]["position"].as_str().unwrap().split_once('.').unwrap().1.parse().unwrap()
    }
}

#[test]
fn a_lost_machine_had_shipped_all_but_the_last_interval_and_what_is_there_is_a_prefix() {
    let mut chance = Chance(0x5eed);
    let mut behind = Vec::new();
    for trial in 0..trials(25) {
        let store = tempfile::tempdir().unwrap();
        let world = World::on_disk(&store);
        let mut writer = world.writer("");
        writer.order("commit 100000 500");
        let first = writer.acknowledged();
        std::thread::sleep(Duration::from_millis(1_500 + chance.below(2_000)));
        let (killed, mut acknowledged) = writer.kill();
        acknowledged.insert(0, first);
        drop(world.machine.path().read_dir());
        let found = world.found();
        let lost = acknowledged.iter().find(|(_, number)| *number > found);
        let by = lost.map_or(Duration::ZERO, |(when, _)| killed.saturating_duration_since(*when));
        assert!(
            by <= INTERVAL + UPLOAD,
            "trial {trial}: what was acknowledged {by:?} before is lost ({found} are there)"
        );
        behind.push(by);
    }
    behind.sort();
    eprintln!(
        "lost at most {:?}, {:?} in the middle, of {} machines",
        behind.last().unwrap(),
        behind[behind.len() / 2],
        behind.len()
    );
}

#[test]
fn s13_no_commit_that_was_acknowledged_as_remote_is_lost_with_the_machine() {
    let server = S3Server::shared();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let proxy = runtime.block_on(Proxy::start(server.authority(), FAR, None));
    let mut chance = Chance(0xfa1);
    let mut count = 0;
    for trial in 0..trials(25) {
        let world = World::on_s3(server, &proxy);
        let mut writer = world.writer("&durability=remote");
        writer.order("commit 100000 500");
        let mut last = writer.acknowledged().1;
        let until = Instant::now() + Duration::from_millis(300 + chance.below(1_500));
        while Instant::now() < until {
            last = writer.acknowledged().1;
            if chance.below(10) == 0 {
                // Each transaction has an LSN, and those of the making of the table came before.
                let there = world.newest_lsn();
                assert!(there >= last, "trial {trial}: {last} was acknowledged, and the log had {there}");
            }
        }
        let (_, acknowledged) = writer.kill();
        last = acknowledged.iter().map(|(_, number)| *number).max().unwrap_or(0).max(last);
        let found = world.found();
        assert!(found >= last, "trial {trial}: {last} was acknowledged, {found} are there");
        count += last;
    }
    eprintln!("none of {count} acknowledged commits was lost");
}

/// Longer than records are kept from being pruned, for machines whose time flies.
const GRACE: Duration = Duration::from_secs(2);

#[test]
fn p05_a_machine_that_was_stopped_past_the_grace_never_publishes_over_the_one_that_took_over_and_keeps_what_it_has() {
    let mut chance = Chance(0x5709);
    for trial in 0..trials(3) {
        let store = tempfile::tempdir().unwrap();
        let world = World::on_disk(&store);
        let mut writer = world.writer("&grace=2s");
        writer.order("commit 100000 500");
        let mut last = writer.acknowledged().1;
        std::thread::sleep(Duration::from_millis(1_500 + chance.below(1_500)));
        let pid = writer.process.id().to_string();
        said(command("kill").args(["-STOP", &pid]));
        // Another machine takes over by name, commits, and prunes the names that the stopped one would publish under.
        let other = tempfile::tempdir().unwrap();
        let url = format!("{}/app.db", world.remote);
        let status: Value = serde_json::from_str(&said(world.littoral().args(["status", &url, "--json"]))).unwrap();
        let epoch = status["epoch"].to_string();
        let mut statements = vec!["UPDATE t SET who = 'other'", "PRAGMA littoral_sync"];
        statements.extend(["INSERT INTO t(who) VALUES ('other')", "PRAGMA littoral_checkpoint"].repeat(3));
        let remote = ["--remote", &world.remote, "--volume", "app.db", "--grace", "2s"];
        said(
            world
                .littoral()
                .current_dir(other.path())
                .args(remote)
                .args(["shell", "app.db", "--takeover", &epoch])
                .args(&statements),
        );
        std::thread::sleep(GRACE + Duration::from_millis(500));
        let then = ["shell", "app.db", "INSERT INTO t(who) VALUES ('other')", "PRAGMA littoral_checkpoint"];
        said(world.littoral().current_dir(other.path()).args(remote).args(then));
        said(world.littoral().current_dir(other.path()).args(["prune", "app.db", "--keep-last", "1", "--grace", "2s"]));
        let rows = world.found();
        said(command("kill").args(["-CONT", &pid]));
        // It goes on, and is told within moments: what it commits after that is refused.
        let refused = loop {
            let line = writer.hear();
            match line.strip_prefix("committed ") {
                Some(number) => last = number.parse().unwrap(),
                None => break line,
            }
        };
        assert!(refused.contains("readonly") || refused.contains("took over"), "trial {trial}: {refused}");
        writer.order("SELECT value FROM littoral_status WHERE name = 'safe'");
        let safe = writer.hear();
        assert!(safe.contains("took over"), "trial {trial}: {safe}");
        // What it had acknowledged is here, and nothing of the other's was lost or mixed up.
        writer.order("SELECT max(n) FROM t");
        assert_eq!(writer.hear(), format!("rows {last}"), "trial {trial}");
        assert_eq!(world.found(), rows, "trial {trial}");
        let others = said(world.littoral().current_dir(other.path()).args([
            "shell",
            "app.db",
            "SELECT count(*) FROM t WHERE who = 'other'",
            "--json",
        ]));
        assert!(others.contains(&rows.to_string()), "trial {trial}: {others}");
        said(world.littoral().args(["verify", &url, "--quiet"]));
        writer.kill();
    }
}

/// How large the WAL gets while so many transactions are committed, a reader now and then among them.
fn peak_wal(world: &World, said: &str) -> u64 {
    let mut writer = world.writer(said);
    let wal = world.machine.path().join("app.db-wal");
    let mut peak = 0;
    writer.order("commit 6000 1000");
    loop {
        let line = writer.hear();
        if line == "done" {
            return peak;
        }
        assert!(line.starts_with("committed"), "{line}");
        peak = peak.max(std::fs::metadata(&wal).map_or(0, |found| found.len()));
    }
}

#[test]
fn s13_the_wal_is_no_longer_than_stock_leaves_it_while_the_object_store_is_dead_and_all_of_it_travels_afterwards() {
    let server = S3Server::shared();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let proxy = runtime.block_on(Proxy::start(server.authority(), Duration::ZERO, None));
    let stock = peak_wal(&World::on_s3(server, &proxy), "&sync_interval=off");
    let world = World::on_s3(server, &proxy);
    let mut writer = world.writer("");
    writer.order("commit 100 1000");
    while writer.hear() != "done" {}
    std::thread::sleep(INTERVAL * 2);
    proxy.is_down(true);
    let peak = peak_wal(&world, "");
    eprintln!("the WAL was {peak} bytes at most, {stock} without anybody who ships");
    assert!(peak * 10 <= stock * 11, "{peak} bytes, stock {stock}");
    let sealed = || {
        let folder = std::fs::read_dir(world.machine.path().join(".littoral/wal")).into_iter().flatten();
        folder.flat_map(|one| std::fs::read_dir(one.unwrap().path()).unwrap()).count()
    };
    assert!(sealed() > 0, "what a dead object store could not take is kept");
    proxy.is_down(false);
    let begun = Instant::now();
    loop {
        writer.order("SELECT value FROM littoral_status WHERE name = 'safe'");
        if writer.hear().contains("yes") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "it never caught up");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(world.found(), 6_100);
    assert!(sealed() <= 1, "what was shipped is not kept");
    // Nothing was lost of the history either: each of those commits has its LSN, and segments brought them.
    let url = format!("{}/app.db", world.remote);
    let told = world.littoral().args(["history", &url, "--json", "--limit", "1000"]).output().unwrap();
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    let kinds: Vec<&str> =
        told["records"].as_array().unwrap().iter().map(|record| record["kind"].as_str().unwrap()).collect();
    assert!(kinds.iter().filter(|kind| **kind == "checkpoint").count() <= 2, "{kinds:?}");
    writer.kill();
}

#[test]
fn a_small_transaction_on_an_idle_database_is_remote_in_one_round_trip_and_a_steady_trickle_costs_one_put_an_interval()
{
    let server = S3Server::shared();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let proxy = runtime.block_on(Proxy::start(server.authority(), FAR, None));
    let world = World::on_s3(server, &proxy);
    let mut writer = world.writer("&durability=remote");
    writer.commit(3, 1);
    let before = proxy.traffic();
    let mut took = Vec::new();
    for _ in 0..11 {
        std::thread::sleep(Duration::from_millis(120));
        let begun = Instant::now();
        writer.commit(1, 1_000_000);
        took.push(begun.elapsed());
    }
    took.sort();
    let after = proxy.traffic();
    eprintln!("remote after {:?} in the middle ({:?} to {:?}), {FAR:?} away", took[5], took[0], took[10]);
    // One PUT each; the log is summed up now and then.
    assert!((after.writes - before.writes) <= 11 + 2 && after.reads == before.reads, "{before:?} {after:?}");

    // A trickle, and nothing while idle.
    writer.order("PRAGMA littoral_durability = local");
    assert!(writer.hear().starts_with("rows"));
    std::thread::sleep(INTERVAL * 2);
    let before = proxy.traffic();
    let begun = Instant::now();
    writer.commit(150, 20);
    let intervals = begun.elapsed().as_secs() + 1;
    std::thread::sleep(INTERVAL * 2);
    let after = proxy.traffic();
    let writes = after.writes - before.writes;
    eprintln!("150 transactions in {intervals} intervals: {writes} PUTs of {} bytes in all", after.up - before.up);
    assert!(writes <= intervals + 2 && after.reads == before.reads, "{before:?} {after:?}");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(proxy.traffic(), after, "an idle database asks nothing");
    drop(writer.kill());
}
