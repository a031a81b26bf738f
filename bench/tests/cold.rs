//! Queries on a machine that has nothing: requests, bytes, and how many of them wait for one another, counted at the remote.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use littoral_bench::{Machine, Proxy, text};
use littoral_cli::sqlite::{BUSY_TIMEOUT, SqliteSource};
use littoral_engine::Log;
use littoral_engine::components::{MachineClock, MachineEntropy};
use littoral_remote::{Counting, Environment, RemoteSettings, open_in};
use littoral_test_s3::S3Server;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Far enough that requests that are made at once are under way at once.
const FAR: Duration = Duration::from_millis(30);

/// What a statement cost.
#[derive(Debug)]
struct Cost {
    requests: u64,
    bytes: u64,
    depth: usize,
    rows: u64,
    kinds: String,
}

struct Far<'a> {
    server: &'a S3Server,
    url: String,
    endpoint: String,
}

impl Far<'_> {
    /// Runs statements in a process of its own, on a machine that has nothing; opening counts to the first.
    fn costs(&self, statements: &[&str]) -> Vec<Cost> {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cold"));
        command.arg(dir.path().join("app.db")).args([&self.url, &self.endpoint, "app.db"]).args(statements);
        let done = command.env_remove("LITTORAL_BENCH_GB").envs(self.server.env()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let told = String::from_utf8(done.stdout).unwrap();
        let costs: Vec<Cost> = told
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                Cost {
                    requests: words[0].parse().unwrap(),
                    bytes: words[1].parse().unwrap(),
                    depth: words[2].parse().unwrap(),
                    rows: words[3].parse().unwrap(),
                    kinds: words[4].to_owned(),
                }
            })
            .collect();
        assert_eq!(costs.len(), statements.len() + 1);
        for (statement, cost) in ["(opening, and the pin behind it)"].iter().chain(statements).zip(&costs) {
            let Cost { requests, bytes, depth, rows, kinds } = cost;
            println!("{statement}\n  {requests} requests ({kinds}), {bytes} B, {depth} deep, {rows} rows");
        }
        costs
    }
}

fn publish(path: &Path, machine: &Machine) {
    let mut source = SqliteSource::open(path, BUSY_TIMEOUT).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(machine.checkpoint(&mut source)).unwrap();
}

#[test]
fn a_cold_machine_answers_in_few_requests() {
    let gigabytes: f64 = std::env::var("LITTORAL_BENCH_GB").map_or(1.0, |text| text.parse().unwrap());
    let server = S3Server::start();
    let bucket = server.bucket();
    let url = format!("s3://{bucket}/bench");
    let env = Environment::from_pairs(server.env());
    let remote =
        open_in(&url, &RemoteSettings::default(), &env, Arc::new(MachineClock), Arc::new(MachineEntropy)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let near = Machine::new(dir.path(), remote);
    text::database(&near.database(), (gigabytes * f64::from(1 << 30)) as u64);
    let sql = text::Sql::open(&near.database());
    // A table of about 100 MB beside the large one.
    sql.run(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
         CREATE TABLE hundred(id INTEGER PRIMARY KEY, body TEXT);
         INSERT INTO hundred SELECT id, body FROM rows WHERE id <= 240000;
         CREATE TABLE wanted(who TEXT, at INTEGER);
         INSERT INTO wanted SELECT who, at FROM rows WHERE id % (SELECT max(id) / 100 FROM rows) = 7 LIMIT 100;
         CREATE TABLE links(id INTEGER PRIMARY KEY, who TEXT, at INTEGER, note TEXT);
         INSERT INTO links SELECT id / 4, who, at, substr(body, 1, 120) FROM rows WHERE id % 4 = 1;
         CREATE TABLE numbers(n INTEGER);
         WITH one(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM one WHERE n < 100)
         INSERT INTO numbers SELECT n * 7919 % (SELECT max(id) FROM links) FROM one;
         PRAGMA journal_mode = DELETE;",
    );
    drop(sql);
    publish(&near.database(), &near);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let proxy = runtime.block_on(Proxy::start(server.authority(), FAR, None));
    let far = Far { server: &server, url, endpoint: proxy.endpoint() };

    // An opening is one round, whatever is opened: the bench of the terabyte counts it. A pin, which nobody waits for, is two.
    const OPENING: usize = 1;
    let point = far.costs(&["SELECT body FROM rows WHERE id = 777777"]);
    assert!(point[0].requests <= 4, "{point:?}");
    assert!(OPENING + point[1].depth <= 3 && point[0].bytes + point[1].bytes <= 1 << 20, "{point:?}");

    let by_index = far.costs(&[
        "SELECT 1 FROM wanted WHERE rowid = 50",
        "SELECT body FROM rows WHERE (who, at) = (SELECT who, at FROM wanted WHERE rowid = 50)",
    ]);
    assert!(OPENING + by_index[2].depth <= 4 && by_index[0].bytes + by_index[2].bytes <= 2 << 20, "{by_index:?}");

    let scan = far.costs(&["SELECT count(*), sum(length(body)) FROM hundred"]);
    assert!(scan[0].requests + scan[1].requests <= 20 && OPENING + scan[1].depth <= 8, "{scan:?}");

    let range = far.costs(&["SELECT body FROM rows INDEXED BY by_who WHERE who > 'm' ORDER BY who LIMIT 100"]);
    assert!(range[1].rows == 100 && OPENING + range[1].depth <= 8, "{range:?}");

    // What a join looks up is named by no page, but by the statement's program.
    for join in [
        // The inner table by its rows.
        "SELECT r.body FROM numbers JOIN rows r ON r.id = n",
        // By an index, and then its table.
        "SELECT r.body FROM wanted w JOIN rows r ON r.who = w.who AND r.at = w.at",
        // Three tables: the second by its rows, the third by an index whose keys the second names.
        "SELECT l.note, r.body FROM numbers JOIN links l ON l.id = n JOIN rows r ON r.who = l.who AND r.at = l.at",
        // The outer side is a part of a large table.
        "SELECT r.body FROM links l JOIN rows r ON r.who = l.who AND r.at = l.at WHERE l.id BETWEEN 2000 AND 2099",
    ] {
        let cost = far.costs(&[join]);
        assert!(cost[1].rows >= 100 && OPENING + cost[1].depth <= 8, "{join}: {cost:?}");
        // A frame for every page of the way, and not many besides.
        assert!(cost[1].requests <= 4 * 130, "{join}: {cost:?}");
    }
}

#[test]
fn a_cold_point_query_is_as_deep_after_200_checkpoints_as_after_one() {
    let server = S3Server::start();
    let bucket = server.bucket();
    let url = format!("s3://{bucket}/bench");
    let env = Environment::from_pairs(server.env());
    let remote =
        open_in(&url, &RemoteSettings::default(), &env, Arc::new(MachineClock), Arc::new(MachineEntropy)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let near = Machine::new(dir.path(), remote);
    text::database(&near.database(), 40 << 20);
    publish(&near.database(), &near);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let proxy = runtime.block_on(Proxy::start(server.authority(), FAR, None));
    let settings = RemoteSettings { endpoint: Some(proxy.endpoint()), ..RemoteSettings::default() };
    let distant = open_in(&url, &settings, &env, Arc::new(MachineClock), Arc::new(MachineEntropy)).unwrap();
    let distant = Arc::new(Counting::new(distant));
    let log = Log::new(distant.clone(), "app.db".parse().unwrap());
    let far = Far { server: &server, url, endpoint: proxy.endpoint() };
    let mut told = Vec::new();
    for checkpoints in 1..=200_u64 {
        text::update(&near.database(), 20, checkpoints);
        publish(&near.database(), &near);
        if ![1, 10, 61, 62, 63, 64, 200].contains(&checkpoints) {
            continue;
        }
        distant.reset();
        assert!(runtime.block_on(log.open()).unwrap().is_some());
        let (opening, asked) = (distant.depth(), distant.totals().all().requests);
        let point = far.costs(&["SELECT body FROM rows WHERE id = 7777"]);
        assert_eq!(point[1].rows, 1);
        // The pin, which nobody waits for, is two; and no page is fetched before there is a question.
        assert_eq!(point[0].requests, asked + 2, "{point:?}");
        println!(
            "after {checkpoints} checkpoints: {opening} deep to open, {} for the row; {:?}",
            point[1].depth, point[0]
        );
        told.push((checkpoints, opening + point[1].depth, point[0].bytes + point[1].bytes));
    }
    for (checkpoints, depth, bytes) in &told {
        assert!(*depth <= 3 && *bytes <= 1 << 20, "after {checkpoints} checkpoints: {told:?}");
    }
}
