//! A restore through a network 30 ms away, beside a raw parallel download of the same bytes; its depth; its memory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_bench::network::GIGABIT;
use littoral_bench::{Machine, Proxy, text};
use littoral_cli::sqlite::{BUSY_TIMEOUT, SqliteSource};
use littoral_engine::exec::restore::{At, restore};
use littoral_ports::Remote;
use littoral_test_s3::S3Server;
use littoral_types::{BlobKind, ByteSpan};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const FAR: Duration = Duration::from_millis(30);
const PIECE: u64 = 4 << 20;
const AT_ONCE: usize = 8;
/// The first one warms caches and connections, and is not counted.
const ROUNDS: usize = 6;

/// All chunks and packs, in pieces, as fast as they come.
async fn raw_download(remote: &Arc<dyn Remote>) -> (u64, Duration) {
    let mut spans = Vec::new();
    for kind in [BlobKind::Chunk, BlobKind::Pack] {
        for meta in remote.list(&format!("app.db/{}", kind.folder()), None, usize::MAX).await.unwrap() {
            let pieces = (0..meta.len.div_ceil(PIECE)).map(|at| at * PIECE);
            spans.extend(
                pieces.map(|offset| (meta.path.clone(), ByteSpan { offset, len: PIECE.min(meta.len - offset) })),
            );
        }
    }
    let began = Instant::now();
    let bytes: Vec<u64> = stream::iter(spans)
        .map(|(path, span)| async move { remote.get_range(&path, span).await.map(|bytes: Bytes| bytes.len() as u64) })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
        .unwrap();
    (bytes.iter().sum(), began.elapsed())
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_keeps_up_with_a_raw_download() {
    let gigabytes: f64 = std::env::var("LITTORAL_BENCH_GB").map_or(1.0, |text| text.parse().unwrap());
    let server = tokio::task::spawn_blocking(S3Server::start).await.unwrap();
    let bucket = tokio::task::block_in_place(|| server.bucket());
    let dir = tempfile::tempdir().unwrap();
    let near = Machine::new(dir.path(), Machine::s3(&server, &bucket, None));
    let path = near.database();
    let size = (gigabytes * f64::from(1 << 30)) as u64;
    text::database(&path, size);
    let mut source = SqliteSource::open(&near.database(), BUSY_TIMEOUT).unwrap();
    near.checkpoint(&mut source).await.unwrap();
    drop(source);
    // A history: some pages come from packs.
    for seed in 0..3 {
        text::update(&near.database(), 100, seed);
        let mut source = SqliteSource::open(&near.database(), BUSY_TIMEOUT).unwrap();
        near.checkpoint(&mut source).await.unwrap();
    }

    let original = Arc::new(std::fs::read(near.database()).unwrap());
    for (link, width) in [("1 Gbit/s", Some(GIGABIT)), ("as wide as this machine is fast", None)] {
        let proxy = Proxy::start(server.authority(), FAR, width).await;
        let ratio =
            beside_a_raw_download(link, &Machine::s3(&server, &bucket, Some(proxy.endpoint())), &original).await;
        // Without a width both are bound by the cores that the server, the proxy and the client share: a figure, no promise.
        assert!(width.is_none() || gigabytes < 1.0 || ratio <= 1.2, "{ratio:.2} times a raw download over {link}");
    }
}

/// Processor time of this process, which is the proxy's and the client's: what a restore does beyond downloading shows in it.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // User and system time, in hundredths of a second on every Linux.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// The median of how many times as long as a raw download a restore takes.
async fn beside_a_raw_download(link: &str, remote: &Arc<dyn Remote>, original: &Arc<Vec<u8>>) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let far = Machine::new(dir.path(), remote.clone());
    let dest = dir.path().join("restored.db");
    let (mut raw_times, mut times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut raw_work, mut work) = (Vec::new(), Vec::new());
    let at_rest = resident();
    let watching = Arc::new(AtomicBool::new(true));
    let watch = watching.clone();
    let watcher = std::thread::spawn(move || {
        let mut peak = 0;
        while watch.load(Ordering::Relaxed) {
            peak = peak.max(resident());
            std::thread::sleep(Duration::from_millis(5));
        }
        peak
    });
    for round in 0..ROUNDS {
        let before = processor_time();
        let (raw_bytes, raw) = raw_download(remote).await;
        let between = processor_time();
        let began = Instant::now();
        let restored = restore(&far.log(), &far.components, &At::Newest, &dest, false).await.unwrap();
        let took = began.elapsed();
        let after = processor_time();
        assert!(restored.fetched <= raw_bytes, "fetched {} of {raw_bytes} B", restored.fetched);
        let same = same_bytes(&dest, original);
        assert!(same, "the restored file is not the original");
        std::fs::remove_file(&dest).unwrap();
        if round > 0 {
            raw_times.push(raw.as_secs_f64());
            times.push(took.as_secs_f64());
            ratios.push(took.as_secs_f64() / raw.as_secs_f64());
            raw_work.push(between - before);
            work.push(after - between);
        }
    }
    watching.store(false, Ordering::Relaxed);
    let peak = watcher.join().unwrap();
    let ratio = median(ratios);
    println!(
        "30 ms away, {link}: raw {:.2} s ({:.2} s of processor), restore {:.2} s ({:.2} s of processor), ratio {ratio:.2} \
         (medians of {}); memory {} MiB above {} MiB at rest",
        median(raw_times),
        median(raw_work),
        median(times),
        median(work),
        ROUNDS - 1,
        peak.saturating_sub(at_rest) >> 20,
        at_rest >> 20
    );
    assert!(peak.saturating_sub(at_rest) < 128 << 20, "memory grows with the database");
    ratio
}

fn same_bytes(dest: &Path, original: &[u8]) -> bool {
    let mut file = std::fs::File::open(dest).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let len = file.read(&mut buffer).unwrap();
        if len == 0 {
            return at == original.len();
        }
        if original.get(at..at + len) != Some(&buffer[..len]) {
            return false;
        }
        at += len;
    }
}

/// Few enough bytes that all data requests are under way at once: what is left is what waits for one another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_is_at_most_eight_requests_deep() {
    let server = tokio::task::spawn_blocking(S3Server::start).await.unwrap();
    let bucket = tokio::task::block_in_place(|| server.bucket());
    let dir = tempfile::tempdir().unwrap();
    let near = Machine::new(dir.path(), Machine::s3(&server, &bucket, None));
    let path = near.database();
    text::database(&path, 8 << 20);
    for seed in 0..70 {
        let mut source = SqliteSource::open(&near.database(), BUSY_TIMEOUT).unwrap();
        near.checkpoint(&mut source).await.unwrap();
        drop(source);
        text::update(&near.database(), 3, seed);
    }
    let proxy = Proxy::start(server.authority(), FAR, None).await;
    let far_dir = tempfile::tempdir().unwrap();
    let far = Machine::new(far_dir.path(), Machine::s3(&server, &bucket, Some(proxy.endpoint())));
    for at in [At::Newest, At::Lsn(littoral_types::Lsn(2)), At::Lsn(littoral_types::Lsn(60))] {
        far.remote.reset();
        restore(&far.log(), &far.components, &at, &far_dir.path().join("restored.db"), true).await.unwrap();
        println!("{at:?}: {}", far.cost());
        if at == At::Newest {
            assert!(far.remote.depth() <= 8, "{}", far.remote.depth());
        }
    }
}
