//! How fast a log takes records, for `bench/logs.py`: `appending FOLDER RECORDS APPENDERS BYTES TOGETHER`, so many with one call. One line of JSON.

#![allow(clippy::unwrap_used, clippy::panic)] // A figure that cannot be had is none.

use littoral_format::log::{ENTRY_HEAD_BYTES, EntrySum, entry_bytes, words_of};
use littoral_local::log::{Batch, Log, LogParts, LogSync};
use littoral_ports::{Clock, Entropy, NoFaults};
use littoral_types::limits::LOG_PART_BYTES;
use littoral_types::{LogEntryHead, LogEntryKind, LogHead, Lsn, Serial, VolumeId};
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug)]
struct Wall;

#[async_trait::async_trait]
impl Clock for Wall {
    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
    }

    fn boot_ms(&self) -> u64 {
        self.wall_ms()
    }

    async fn sleep_ms(&self, _: u64) {}
}

#[derive(Debug)]
struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// Seconds of a processor that this process has had.
fn processor() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, records, appenders, bytes, together] = words.as_slice() else {
        panic!("FOLDER RECORDS APPENDERS BYTES TOGETHER")
    };
    let (folder, bytes) = (PathBuf::from(folder), bytes.parse::<usize>().unwrap());
    let [records, appenders, together] = [records, appenders, together].map(|word| word.parse::<u64>().unwrap());
    let body = vec![b'r'; bytes];

    // What no log can be faster than: each record summed with its place, and copied once to fresh memory.
    let (begun, worked) = (Instant::now(), processor());
    let head = LogHead { log: VolumeId([7; 16]), first: Lsn(1), created_ms: 1 };
    let mut memory = vec![0; records as usize * entry_bytes(bytes)];
    for (place, lsn) in memory.chunks_exact_mut(entry_bytes(bytes)).zip(1..) {
        let entry = LogEntryHead {
            kind: LogEntryKind::Record,
            session: 1,
            len: bytes as u32,
            serial: Serial::ZERO,
            time_ms: 1,
        };
        let words = words_of(&head, Lsn(lsn), &entry, &mut EntrySum::of(&body));
        for (place, word) in place.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        place[ENTRY_HEAD_BYTES..][..bytes].copy_from_slice(&body);
    }
    black_box(memory);
    let (copy_and_sum, copy_and_sum_cpu) = (begun.elapsed().as_secs_f64(), processor() - worked);

    // Nor than this: as many bytes written to a file that has its room, a part at a time, and synced once.
    let len = records as usize * entry_bytes(bytes);
    let alone = folder.with_extension("alone");
    let file = File::create(&alone).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len as u64).unwrap();
    let part = vec![b'r'; LOG_PART_BYTES];
    let (begun, worked) = (Instant::now(), processor());
    for at in (0..len).step_by(LOG_PART_BYTES) {
        file.write_all_at(&part[..LOG_PART_BYTES.min(len - at)], at as u64).unwrap();
    }
    file.sync_data().unwrap();
    let (disk, disk_cpu) = (begun.elapsed().as_secs_f64(), processor() - worked);
    std::fs::remove_file(&alone).unwrap();

    let parts = LogParts { clock: Arc::new(Wall), entropy: Arc::new(Zeros), faults: Arc::new(NoFaults) };
    Log::create(&folder, &parts).unwrap();
    let log = Log::open(&folder, LogSync::default(), parts).unwrap();
    let (begun, worked) = (Instant::now(), processor());
    std::thread::scope(|scope| {
        for nth in 0..appenders {
            let (log, body) = (&log, &body);
            scope.spawn(move || {
                let mut appender = log.appender(Some(format!("appender {nth}").parse().unwrap())).unwrap();
                if together == 1 {
                    for _ in 0..records / appenders {
                        appender.append(body).unwrap();
                    }
                    return;
                }
                let mut batch = Batch::default();
                for _ in 0..records / appenders / together {
                    batch.clear();
                    for _ in 0..together {
                        batch.push(body).unwrap();
                    }
                    appender.append_part(&mut batch, 0..together as usize).unwrap();
                }
            });
        }
    });
    let appended = begun.elapsed().as_secs_f64();
    log.close().unwrap();
    let durable = begun.elapsed().as_secs_f64();
    let cpu = processor() - worked;
    println!(
        r#"{{"appended": {appended}, "durable": {durable}, "cpu": {cpu}, "copy_and_sum": {copy_and_sum}, "copy_and_sum_cpu": {copy_and_sum_cpu}, "disk": {disk}, "disk_cpu": {disk_cpu}}}"#
    );
}
