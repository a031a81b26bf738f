//! Staging and upload of a hundred changed pages: what they cost in 10 GB beside what they cost in 100 MB, in one run, on a real S3
//! server 30 ms away. Alone in its program, so that the processor time it measures is its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use littoral_bench::{Machine, Proxy, StandIn};
use littoral_engine::exec::checkpoint::{Options, checkpoint};
use littoral_engine::exec::snapshot::snapshot_if_due;
use littoral_ports::{Crash, Faults};
use littoral_test_s3::S3Server;
use littoral_types::PageSize;
use rustix::time::{ClockId, clock_gettime};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const ROUNDS: usize = 31;
/// What else the machine does only takes time: one of so many medians is to be within the bound.
const RUNS: usize = 3;
/// What lies between a machine and its object store.
const FAR: Duration = Duration::from_millis(30);
const SIZES: [(&str, u64); 2] = [("100 MB", 100 << 20), ("10 GB", 10 << 30)];

/// When everything was staged and uploaded: by the clock, and by what this process has had of the processors.
#[derive(Clone, Debug, Default)]
struct Uploaded(Arc<Mutex<Option<(Instant, Duration)>>>);

impl Faults for Uploaded {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        if point == "checkpoint.uploaded" {
            *self.0.lock().unwrap() = Some((Instant::now(), worked()));
        }
        Ok(())
    }
}

fn worked() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

fn median<T: Ord + Copy>(mut of: Vec<T>) -> T {
    of.sort_unstable();
    of[of.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pages_cost_in_ten_gigabytes_what_they_cost_in_a_hundred_megabytes() {
    let dir = tempfile::tempdir().unwrap();
    let server = tokio::task::spawn_blocking(S3Server::start).await.unwrap();
    let proxy = Proxy::start(server.authority(), FAR, None).await;
    let uploaded = Uploaded::default();
    let mut sides = Vec::new();
    for (name, bytes) in SIZES {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let mut machine = Machine::new(&folder, Machine::s3(&server, &server.bucket(), Some(proxy.endpoint())));
        machine.components.faults = Arc::new(uploaded.clone());
        let mut source = StandIn::new(PageSize::new(4096).unwrap(), bytes);
        source.begin(&machine).await;
        sides.push((machine, source));
    }
    let mut least = f64::INFINITY;
    for _ in 0..RUNS {
        let mut costs = [Vec::new(), Vec::new()];
        // In turns, so that whatever else this machine does meets both.
        for _ in 0..ROUNDS {
            for ((machine, source), costs) in sides.iter_mut().zip(&mut costs) {
                source.change();
                let mut session = machine.open().await;
                machine.remote.reset();
                let (begun, before) = (Instant::now(), worked());
                let done =
                    checkpoint(&mut session.writer, &session.scratch, source, &Options::default()).await.unwrap();
                let (at, work) = uploaded.0.lock().unwrap().take().unwrap();
                let (took, work) = (at - begun, work - before);
                assert_eq!(done.unwrap().plan.changed_pages(), 100);
                let spent = machine.cost();
                snapshot_if_due(&mut session.writer, Some(source)).await.unwrap();
                costs.push((spent.puts, spent.up, work, took));
            }
        }
        let [small, large] = costs.map(|costs| {
            (
                median(costs.iter().map(|cost| cost.0).collect()),
                median(costs.iter().map(|cost| cost.1).collect()),
                median(costs.iter().map(|cost| cost.2).collect()),
                median(costs.iter().map(|cost| cost.3).collect()),
            )
        });
        let ratio = |of: fn(&(u64, u64, Duration, Duration)) -> f64| of(&large) / of(&small);
        let (up, took) = (ratio(|side| side.1 as f64), ratio(|side| side.3.as_secs_f64()));
        for ((name, _), (puts, up, worked, took)) in SIZES.iter().zip([small, large]) {
            println!(
                "{name}: a checkpoint of 100 pages: {puts} PUTs, {up} B up, staged and uploaded in {took:?}, {worked:?} of a processor"
            );
        }
        let work = ratio(|side| side.2.as_secs_f64());
        println!("10 GB beside 100 MB: bytes {up:.3}, time {took:.3}, processor {work:.3}");
        assert_eq!(small.0, large.0, "requests");
        assert!(up <= 1.2, "bytes: {up:.3}");
        least = least.min(took);
        if least <= 1.2 {
            break;
        }
    }
    assert!(least <= 1.2, "time: {least:.3}");
}
