//! Cold scans of a log of a thousand segments: requests, how many of them wait for one another before the first record is there, memory, pace.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use littoral_bench::Machine;
use littoral_bench::log_stand_in::{LogStandIn, time_of};
use littoral_engine::Log;
use littoral_engine::components::MachineClock;
use littoral_engine::exec::snapshot::write_snapshot;
use littoral_engine::logs::{Range, RemoteReader};
use littoral_engine::volume::open_log;
use littoral_local::account::{Account, Paces};
use littoral_ports::{Clock, Counter, MemoryRemote, Reading, Remote, Spending};
use littoral_remote::{Counting, Scanned};
use littoral_types::limits::LOG_BLOCK_BYTES;
use littoral_types::{Lsn, VolumeId};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ID: VolumeId = VolumeId([5; 16]);
const SEGMENTS: u64 = 1_000;
/// Blocks that travel in one request: what lies together, up to a MiB.
const RUN_BLOCKS: u64 = 16;

struct Thousand {
    dir: TempDir,
    remote: Arc<LogStandIn>,
}

impl Thousand {
    /// Of segments of so many blocks each, then so many more that no manifest snapshot knows.
    async fn new(blocks: u64, newer: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let takes = Duration::from_millis(3);
        let remote = Arc::new(LogStandIn::new(Arc::new(MemoryRemote::new("logs")), ID, blocks, takes));
        let mut machine = Machine::new(dir.path(), remote.clone());
        machine.target.database = dir.path().join("events");
        std::fs::create_dir(machine.database()).unwrap();
        let mut session = open_log(&machine.stores, &machine.components, &machine.target, (ID, 1)).await.unwrap();
        remote.seal(&mut session, SEGMENTS).await;
        let written = write_snapshot(&mut session.writer, None).await.unwrap();
        assert_eq!(written.rows as u64, SEGMENTS);
        println!("manifest snapshot of {SEGMENTS} segments: {written:?}");
        for _ in 0..newer {
            remote.seal(&mut session, 1).await;
        }
        drop(session);
        Self { dir, remote }
    }

    /// What reads it, and what counts.
    fn scanned(&self, account: &Arc<Account>) -> (Log, Arc<Counting>) {
        let meter = Arc::new(Counting::new(self.remote.clone() as Arc<dyn Remote>).of_cold_scan(account.clone()));
        let scanned = Scanned::new(meter.clone(), account.clone(), Arc::new(MachineClock));
        (Log::new(Arc::new(scanned), "events".parse().unwrap()), meter)
    }

    fn account(&self, paces: Paces) -> Arc<Account> {
        Arc::new(Account::open(&self.dir.path().join(".littoral"), paces, Arc::new(MachineClock)).unwrap())
    }
}

/// What a range cost: requests, those among them that read the log, and how deep it was at the first record.
async fn ranged(thousand: &Thousand, range: Range, lsns: std::ops::RangeInclusive<u64>) -> (u64, u64, usize) {
    let (log, meter) = thousand.scanned(&thousand.account(Paces::default()));
    let mut reader = RemoteReader::open(log, range).await.unwrap();
    let first = reader.next_record().await.unwrap().unwrap();
    let depth = meter.depth();
    assert_eq!((first.lsn.0, first.time_ms), (*lsns.start(), time_of(*lsns.start())));
    let mut last = first.lsn;
    while let Some(record) = reader.next_record().await.unwrap() {
        assert_eq!((record.lsn, &record.body[..8]), (last.next(), &record.lsn.0.to_le_bytes()[..]));
        last = record.lsn;
    }
    assert_eq!(last.0, *lsns.end());
    (meter.totals().all().requests, reader.fetched().requests, depth)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_by_time_of_a_thousand_segments_costs_the_blocks_that_match_and_three_round_trips() {
    for newer in [0, 20] {
        let blocks = 1_000;
        let thousand = Thousand::new(blocks, newer).await;
        let a_segment = thousand.remote.records();
        let opening = 2 + newer;
        for (matching, beyond) in [(1, 0), (RUN_BLOCKS, 0), (10 * RUN_BLOCKS, 0), (RUN_BLOCKS, 2)] {
            // Blocks in the middle of a segment, or up to the end of a later one.
            let begins = 1 + 500 * a_segment + (400 * LOG_BLOCK_BYTES - 4096) / 1024;
            let ends = match beyond {
                0 => begins + matching * 64 - 1,
                beyond => (501 + beyond) * a_segment,
            };
            let matching = if beyond == 0 { matching } else { 600 + beyond * blocks };
            let range = Range { since_ms: time_of(begins), until_ms: time_of(ends), ..Range::ALL };
            let (all, fetched, depth) = ranged(&thousand, range, begins..=ends).await;
            println!(
                "{newer} newer records, {matching} blocks of {} segments: {all} requests, {depth} deep before the first record",
                beyond + 1
            );
            assert_eq!(all, opening + fetched);
            let indexes = beyond + 1;
            let runs = matching.div_ceil(RUN_BLOCKS) + beyond;
            assert!((indexes + matching.div_ceil(RUN_BLOCKS)..=indexes + runs).contains(&fetched), "{fetched}");
            assert!(depth <= 3, "{depth}");
        }
        // The same by number, and of what no manifest snapshot knows: its index cannot be asked for before its row came.
        let at = 1 + 700 * a_segment + 5;
        let (_, fetched, depth) = ranged(&thousand, Range { from: Lsn(at), to: Lsn(at), ..Range::ALL }, at..=at).await;
        assert!(fetched == 2 && depth <= 3, "{fetched} {depth}");
        if newer > 0 {
            let at = 1 + (SEGMENTS + newer - 1) * a_segment + 5;
            let range = Range { since_ms: time_of(at), until_ms: time_of(at), ..Range::ALL };
            let (all, _, depth) = ranged(&thousand, range, at..=at).await;
            println!("a record of the newest segment, which no manifest snapshot knows: {all} requests, {depth} deep");
            assert!(depth <= 4, "{depth}");
        }
    }
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_of_a_thousand_segments_takes_no_more_memory_than_one_of_fifty() {
    let thousand = Thousand::new(16, 0).await;
    let (log, meter) = thousand.scanned(&thousand.account(Paces::default()));
    let mut reader = RemoteReader::open(log, Range::ALL).await.unwrap();
    let (mut count, mut early, mut most) = (0, 0, 0);
    while let Some(record) = reader.next_record().await.unwrap() {
        count += 1;
        assert_eq!(record.lsn.0, count);
        if count % 5_000 == 0 {
            most = most.max(resident());
        }
        if count == 50 * thousand.remote.records() {
            early = most;
        }
    }
    assert_eq!(count, SEGMENTS * thousand.remote.records());
    let all = meter.totals().all();
    println!(
        "{count} records, {} B in {} requests; most memory in use: {early} B, later {most} B",
        all.bytes_down, all.requests
    );
    assert!(most < early + (8 << 20), "{early} {most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_reads_at_its_pace_within_a_twentieth_and_gives_way_to_whoever_else_reads() {
    let thousand = Thousand::new(16, 0).await;
    for (paces, seconds) in [
        (Paces { scan_bytes: 8_000_000, ..Paces::default() }, 6.0),
        (Paces { scan_requests: 40, ..Paces::default() }, 6.0),
    ] {
        let account = thousand.account(paces);
        let (log, meter) = thousand.scanned(&account);
        let began = Instant::now();
        let mut reader = RemoteReader::open(log, Range::ALL).await.unwrap();
        // Up to the moment at which something came.
        let (mut came, mut took) = (meter.totals().all(), began.elapsed());
        while took.as_secs_f64() < seconds {
            reader.next_record().await.unwrap().unwrap();
            let now = meter.totals().all();
            if now.bytes_down != came.bytes_down {
                (came, took) = (now, began.elapsed());
            }
        }
        let (bytes, requests) =
            (came.bytes_down as f64 / took.as_secs_f64(), came.requests as f64 / took.as_secs_f64());
        let told = |name, is, asked| {
            println!("{name}: {is:.0} a second, {:+.1} % of {asked}", (is / asked as f64 - 1.0) * 100.0)
        };
        if paces.scan_bytes > 0 {
            told("bytes", bytes, paces.scan_bytes);
            assert!((bytes / paces.scan_bytes as f64 - 1.0).abs() < 0.05, "{bytes}");
        } else {
            told("requests", requests, paces.scan_requests);
            assert!((requests / paces.scan_requests as f64 - 1.0).abs() < 0.05, "{requests}");
        }
    }
    // Somebody else reads half of what the pace is: of a connection of its own, which knows of no pace.
    let scanning = thousand.account(Paces { scan_bytes: 8_000_000, ..Paces::default() });
    let reading = thousand.account(Paces::default());
    let (log, meter) = thousand.scanned(&scanning);
    let before = scanning.meters();
    let began = Instant::now();
    let over = Duration::from_secs(6);
    let scan = async {
        let mut reader = RemoteReader::open(log, Range::ALL).await.unwrap();
        while began.elapsed() < over {
            reader.next_record().await.unwrap().unwrap();
        }
    };
    let mut others = 0_u64;
    let reads = async {
        while began.elapsed() < over {
            reading.read_first(1, 400_000);
            others += 400_000;
            MachineClock.sleep_ms((others / 4_000).saturating_sub(began.elapsed().as_millis() as u64)).await;
        }
    };
    tokio::join!(scan, reads);
    let scanned = meter.totals().all().bytes_down;
    println!("beside {others} B of others: {scanned} B");
    let share = (scanned + others) as f64 / began.elapsed().as_secs_f64() / 8_000_000.0;
    assert!((0.9..1.05).contains(&share), "{share}");
    let after = scanning.meters();
    let cold = |counter| after.counted(counter) - before.counted(counter);
    assert_eq!(cold(Counter::BytesRead(Reading::Cold)), scanned);
    assert_eq!((cold(Counter::BytesRead(Reading::Part)), cold(Counter::BytesRead(Reading::Whole))), (0, 0));
    assert!(cold(Counter::ColdRestMs) > 2_000);
}
