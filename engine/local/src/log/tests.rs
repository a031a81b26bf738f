//! One process: what is appended is read, sealed, recovered, truncated.

use super::*;
use littoral_ports::{Clock, Crash, Entropy, Faults, NoFaults};
use littoral_types::limits::{LOG_RECORD_MAX, LOG_SEGMENT_BYTES};
use littoral_types::{Lsn, Serial, SessionName};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

mod retain;
mod roll_back;
mod settle;
mod together;

/// Goes on by one each time it is asked.
#[derive(Debug, Default)]
struct Ticks(AtomicU64);

#[async_trait::async_trait]
impl Clock for Ticks {
    fn wall_ms(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    fn boot_ms(&self) -> u64 {
        0
    }

    async fn sleep_ms(&self, _: u64) {}
}

#[derive(Debug)]
struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// Stops whoever reaches a point, which leaves things as a kill does.
#[derive(Debug)]
struct At(&'static str);

impl Faults for At {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        if point == self.0 { Err(Crash(point)) } else { Ok(()) }
    }
}

struct Rig {
    dir: tempfile::TempDir,
    clock: Arc<Ticks>,
}

impl Rig {
    fn new() -> Self {
        let rig = Self { dir: tempfile::tempdir().unwrap(), clock: Arc::default() };
        Log::create(&rig.path(), &rig.parts()).unwrap();
        rig
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("events")
    }

    fn parts(&self) -> LogParts {
        LogParts { clock: self.clock.clone(), entropy: Arc::new(Sevens), faults: Arc::new(NoFaults) }
    }

    fn open(&self) -> Log {
        Log::open(&self.path(), LogSync::Each, self.parts()).unwrap()
    }

    fn lazy(&self) -> Log {
        Log::open(&self.path(), LogSync::None, self.parts()).unwrap()
    }

    fn all(&self) -> Vec<Record> {
        read(&self.path(), Range::ALL).unwrap()
    }

    fn bodies(&self) -> Vec<String> {
        self.all().into_iter().map(|record| String::from_utf8(record.body).unwrap()).collect()
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut found: Vec<_> = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.retain(|path| path.extension().is_some_and(|end| end == "seg"));
        found.sort();
        found
    }

    /// A log of several segments, of records of a MiB each with their number in front.
    fn large(&self, records: u64) {
        let log = self.lazy();
        let mut appender = log.appender(Some(name("big"))).unwrap();
        for number in 1..=records {
            appender.append(&big(number)).unwrap();
        }
        log.close().unwrap();
    }
}

fn name(text: &str) -> SessionName {
    text.parse().unwrap()
}

fn big(number: u64) -> Vec<u8> {
    let mut body = vec![number as u8; 1 << 20];
    body[..8].copy_from_slice(&number.to_le_bytes());
    body
}

fn read(path: &Path, range: Range) -> Result<Vec<Record>, LogError> {
    let mut reader = Reader::open(path, range)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push(record);
    }
    Ok(records)
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn what_is_appended_is_read_in_order_with_its_session_serial_and_time() {
    let rig = Rig::new();
    let log = rig.open();
    let mut one = log.appender(Some(name("one"))).unwrap();
    let mut nobody = log.appender(None).unwrap();
    assert_eq!(one.append(b"first").unwrap().serial.get(), 1);
    assert_eq!(nobody.append(b"").unwrap().serial, Serial::ZERO);
    assert_eq!(one.append_as(Serial::new(40).unwrap(), b"third").unwrap().lsn, Lsn(3));
    let records = rig.all();
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let session = record.session.as_ref().map_or("", |name| name.as_str());
            (record.lsn.0, session, record.serial.get(), record.body.as_slice())
        })
        .collect();
    assert_eq!(told, [(1, "one", 1, &b"first"[..]), (2, "", 0, b""), (3, "one", 40, b"third")]);
    assert!(records.is_sorted_by_key(|record| record.time_ms) && records[0].time_ms < records[2].time_ms);
    assert_eq!(log.durable(), Lsn(3));
    assert_eq!(log.durable_sessions()[&name("one")].get(), 40);
}

#[test]
fn p10_a_session_goes_on_from_its_serial_is_one_appenders_alone_and_its_serials_go_up() {
    let rig = Rig::new();
    {
        let log = rig.open();
        let mut one = log.appender(Some(name("one"))).unwrap();
        one.append(b"a").unwrap();
        assert!(matches!(log.appender(Some(name("one"))), Err(LogError::Held(_))));
        let refused = one.append_as(Serial::new(1).unwrap(), b"again").unwrap_err();
        assert!(matches!(&refused, LogError::Behind { last, .. } if last.get() == 1), "{refused}");
        assert!(matches!(
            log.appender(None).unwrap().append_as(Serial::new(9).unwrap(), b"x"),
            Err(LogError::Anonymous)
        ));
        drop(one);
        assert_eq!(log.appender(Some(name("one"))).unwrap().append(b"b").unwrap().serial.get(), 2);
    }
    let log = rig.open();
    let mut one = log.appender(Some(name("one"))).unwrap();
    assert_eq!(one.serial().get(), 2);
    one.append(b"c").unwrap();
    assert_eq!(rig.bodies(), ["a", "b", "c"], "what was refused is not there");
}

#[test]
fn a_second_process_that_appends_is_told_who_does_and_since_when() {
    let rig = Rig::new();
    let log = rig.open();
    let refused = Log::open(&rig.path(), LogSync::Each, rig.parts()).unwrap_err().to_string();
    for word in [&format!("process {}", std::process::id()), "since 1970-01-01T00:00:0", "any number of readers"] {
        assert!(refused.contains(word), "{refused}");
    }
    assert!(stats(&rig.path()).unwrap().appender.is_some());
    drop(log);
    assert_eq!(stats(&rig.path()).unwrap().appender, None);
    rig.open();
}

#[test]
fn a_log_is_made_in_an_empty_folder_once_and_what_a_killed_creation_left_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/events");
    for point in ["log.create.segment", "log.create.named"] {
        let parts = LogParts { faults: Arc::new(At(point)), ..Rig::new().parts() };
        assert!(matches!(Log::create(&path, &parts), Err(LogError::Crash(_))));
        assert_eq!(Reader::open(&path, Range::ALL).is_ok(), point == "log.create.named");
    }
    let parts = Rig::new().parts();
    assert!(matches!(Log::create(&path, &parts), Err(LogError::Exists { .. })));
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("mine"), b"mine").unwrap();
    assert!(matches!(Log::create(&other, &parts), Err(LogError::Exists { .. })));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1, "nothing was made there");
    assert!(matches!(Log::open(&other, LogSync::Each, parts), Err(LogError::NoLog(_))));
}

#[test]
fn p15_a_full_segment_is_sealed_as_it_is_and_read_through_its_index() {
    let rig = Rig::new();
    rig.large(130);
    let segments = rig.segments();
    assert_eq!(segments.len(), 3);
    let sealed = stats(&rig.path()).unwrap().segments;
    assert_eq!(sealed.iter().map(|segment| segment.is_sealed).collect::<Vec<_>>(), [true, true, false]);
    assert!(sealed[0].file_bytes <= LOG_SEGMENT_BYTES && sealed[0].file_bytes < sealed[0].bytes + 8192, "{sealed:?}");
    let before = fs::read(&segments[0]).unwrap();
    let records = rig.all();
    assert_eq!(records.len(), 130);
    for (number, record) in (1..).zip(&records) {
        assert_eq!((record.lsn.0, record.serial.get()), (number, number));
        assert!(record.body == big(number), "{number}");
        assert_eq!(record.session, Some(name("big")));
    }
    // Opened, appended to and closed: what is sealed stays what it is.
    let log = rig.open();
    assert_eq!(log.appender(Some(name("big"))).unwrap().append(b"on").unwrap().lsn, Lsn(131));
    log.close().unwrap();
    assert!(fs::read(&segments[0]).unwrap() == before);
}

#[test]
fn a_range_of_a_sealed_segment_reads_the_blocks_that_may_hold_it_and_no_others() {
    let rig = Rig::new();
    rig.large(130);
    let all = rig.all();
    let told = |range: Range| {
        let mut reader = Reader::open(&rig.path(), range).unwrap();
        let mut lsns = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            lsns.push(record.lsn.0);
        }
        (lsns, reader.cost())
    };
    let (lsns, cost) = told(Range { from: Lsn(20), to: Lsn(22), ..Range::ALL });
    assert_eq!(lsns, [20, 21, 22]);
    assert!(cost.segments == 1 && cost.bytes < 5 << 20, "{cost:?}");
    // Clocks give each record its own time here.
    let (since_ms, until_ms) = (all[40].time_ms, all[42].time_ms);
    let (lsns, cost) = told(Range { since_ms, until_ms, to: Lsn(60), ..Range::ALL });
    assert_eq!(lsns, [41, 42, 43]);
    assert!(cost.bytes < 6 << 20, "{cost:?}");
    let (lsns, cost) = told(Range { since_ms: u64::MAX - 1, to: Lsn(60), ..Range::ALL });
    assert_eq!((lsns.len(), cost.bytes), (0, 0));
}

#[test]
fn a_record_of_the_largest_size_is_kept_and_one_byte_more_is_refused() {
    let rig = Rig::new();
    let log = rig.lazy();
    let mut appender = log.appender(None).unwrap();
    let body: Vec<u8> = (0..LOG_RECORD_MAX).map(|at| ((at * 7) >> 3) as u8).collect();
    appender.append(&body).unwrap();
    let refused = appender.append(&vec![0; LOG_RECORD_MAX + 1]).unwrap_err();
    assert!(matches!(refused, LogError::TooLarge { .. }), "{refused}");
    for _ in 0..4 {
        appender.append(&body).unwrap();
    }
    log.close().unwrap();
    let records = rig.all();
    assert_eq!(records.len(), 5);
    assert!(records.iter().all(|record| record.body == body));
}

#[test]
fn many_appenders_get_each_place_once_and_each_session_keeps_its_order() {
    const THREADS: u64 = 8;
    const EACH: u64 = 20_000;
    let rig = Rig::new();
    let log = rig.lazy();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &log;
            scope.spawn(move || {
                let mut appender = log.appender(Some(name(&format!("s{thread}")))).unwrap();
                for number in 0..EACH {
                    let body = format!("{thread}/{number}/{}", "x".repeat((number * 37 % 900) as usize));
                    appender.append(body.as_bytes()).unwrap();
                }
            });
        }
        // And one who reads beside them, and sees a prefix at every moment.
        scope.spawn(|| {
            let mut tail = Tail::open(&rig.path(), Range::ALL).unwrap();
            for number in 1..=THREADS * EACH {
                let record = tail.next(std::time::Duration::from_secs(120)).unwrap().unwrap();
                assert_eq!(record.lsn.0, number);
            }
        });
    });
    log.close().unwrap();
    assert!(rig.segments().len() > 1, "it was to go over a segment's end");
    let mut next = [0; THREADS as usize];
    for (lsn, record) in (1..).zip(rig.all()) {
        assert_eq!(record.lsn.0, lsn);
        let text = String::from_utf8(record.body).unwrap();
        let mut parts = text.split('/').map(|part| part.parse::<u64>().unwrap_or_default());
        let (thread, number) = (parts.next().unwrap() as usize, parts.next().unwrap());
        assert_eq!((number, record.serial.get()), (next[thread], next[thread] + 1));
        next[thread] += 1;
    }
    assert_eq!(next, [EACH; THREADS as usize]);
}

#[test]
fn a_torn_end_is_cut_at_the_last_whole_record_and_never_comes_back() {
    let rig = Rig::new();
    let log = rig.lazy();
    let mut appender = log.appender(Some(name("s"))).unwrap();
    for body in ["a", "b", "c", "d"] {
        appender.append(body.as_bytes()).unwrap();
    }
    let copy = rig.dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    // As a power cut leaves it: nothing of it was synced.
    let segment = rig.segments()[0].clone();
    for file in [segment.clone(), rig.path().join("log.toml")] {
        fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    log.close().unwrap();
    // The name's entry takes 40 bytes, each record 40: the third one is torn, and the fourth stands behind it.
    flip(&copy.join(segment.file_name().unwrap()), 4096 + 40 * 3 + 33);
    assert_eq!(read(&copy, Range::ALL).unwrap().len(), 2);
    let log = Log::open(&copy, LogSync::Each, rig.parts()).unwrap();
    assert_eq!(log.recovered().cut_bytes, 73);
    let mut appender = log.appender(Some(name("s"))).unwrap();
    assert_eq!(appender.serial().get(), 2);
    appender.append(b"C").unwrap();
    let bodies: Vec<_> = read(&copy, Range::ALL).unwrap().into_iter().map(|record| record.body).collect();
    assert_eq!(bodies, [b"a", b"b", b"C"], "what was behind the torn one is gone");
}

#[test]
fn damage_to_what_was_durable_is_refused_by_name_and_not_taken_for_a_torn_end() {
    let rig = Rig::new();
    let log = rig.open();
    let mut appender = log.appender(None).unwrap();
    for body in ["a", "b", "c"] {
        appender.append(body.as_bytes()).unwrap();
    }
    drop(appender);
    log.close().unwrap();
    let segment = rig.segments()[0].clone();
    flip(&segment, 4096 + 40 + 33);
    let refused = Log::open(&rig.path(), LogSync::Each, rig.parts()).unwrap_err();
    assert!(matches!(&refused, LogError::Damaged { lsn: Lsn(2), offset: 4136, .. }), "{refused}");
    assert!(matches!(read(&rig.path(), Range::ALL), Err(LogError::Damaged { lsn: Lsn(2), .. })));
    // Nothing was changed.
    flip(&segment, 4096 + 40 + 33);
    assert_eq!(rig.bodies(), ["a", "b", "c"]);
    rig.open();
}

#[test]
fn damage_to_a_sealed_segment_is_told_by_its_place() {
    let rig = Rig::new();
    rig.large(70);
    let segment = rig.segments()[0].clone();
    let middle = 4096 + 40 + 10 * (32 + (1 << 20)) + 5000;
    flip(&segment, middle);
    assert!(matches!(read(&rig.path(), Range::ALL), Err(LogError::Damaged { lsn: Lsn(11), .. })));
    assert_eq!(read(&rig.path(), Range::from(Lsn(12))).unwrap().len(), 59, "what is not damaged is read");
    flip(&segment, middle);
    let len = segment.metadata().unwrap().len();
    flip(&segment, len - 30);
    assert!(matches!(read(&rig.path(), Range::ALL), Err(LogError::Damaged { .. })));
    assert!(matches!(Log::open(&rig.path(), LogSync::Each, rig.parts()), Err(LogError::Damaged { .. })));
}

/// Puts an entry of whole bytes behind what a log holds, as no appender would.
fn forge(path: &Path, offset: u64, lsn: u64, session: u32, serial: u64) {
    use littoral_format::log::{decode_head, encode_entry};
    use littoral_types::{LogEntryHead, LogEntryKind};
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0).unwrap();
    let head = decode_head(&head).unwrap();
    let serial = Serial::new(serial).unwrap();
    let entry = LogEntryHead { kind: LogEntryKind::Record, session, len: 1, serial, time_ms: 5 };
    file.write_all_at(&encode_entry(&head, Lsn(lsn), &entry, b"x").unwrap(), offset).unwrap();
}

#[test]
fn p10_serials_that_go_back_or_belong_to_nobody_are_refused_by_name() {
    let rig = Rig::new();
    let log = rig.open();
    let mut appender = log.appender(Some(name("worker-7"))).unwrap();
    appender.append(b"a").unwrap();
    appender.append(b"b").unwrap();
    drop(appender);
    log.close().unwrap();
    let segment = rig.segments()[0].clone();
    let whole = fs::read(&segment).unwrap();
    for (session, serial, words) in [
        (1, 2, "worker-7: record 3 has serial 2, and the one before had 2"),
        (2, 1, "session number 2"),
        (0, 1, "nobody's"),
    ] {
        forge(&segment, 4096 + 40 * 3, 3, session, serial);
        let refused = Log::open(&rig.path(), LogSync::Each, rig.parts()).unwrap_err();
        assert!(matches!(refused, LogError::Serials { .. }), "{refused}");
        assert!(refused.to_string().contains(words), "{refused}");
        fs::write(&segment, &whole).unwrap();
    }
    // An entry with the right serial is one.
    forge(&segment, 4096 + 40 * 3, 3, 1, 3);
    assert_eq!(rig.open().durable_sessions()[&name("worker-7")].get(), 3);
}

#[test]
fn a_truncated_head_does_not_come_back_and_whoever_asks_for_it_is_told_where_the_log_begins() {
    let rig = Rig::new();
    rig.large(200);
    let mut stands = Reader::open(&rig.path(), Range::ALL).unwrap();
    stands.next_record().unwrap().unwrap();
    let was = stats(&rig.path()).unwrap();
    let second = was.segments[1].first;
    let dry = truncate(&rig.path(), Cut::Before(second.next()), true, &NoFaults).unwrap();
    assert_eq!(stats(&rig.path()).unwrap(), was);
    let done = truncate(&rig.path(), Cut::Before(second.next()), false, &NoFaults).unwrap();
    assert_eq!((done, done.start, done.segments), (dry, second, 1));
    assert!(
        matches!(Reader::open(&rig.path(), Range::from(Lsn(1))), Err(LogError::Truncated { start, .. }) if start == second)
    );
    assert_eq!(rig.all()[0].lsn, second);
    // Whoever stands there reads what he has open, and is told at its end only if there is something missing.
    let seen = std::iter::from_fn(|| stands.next_record().unwrap()).count() as u64;
    assert_eq!(seen, 199);
    // The last segment and what is not sealed stay, and sessions are known though their records are gone.
    let done = truncate(&rig.path(), Cut::KeepBytes(0), false, &NoFaults).unwrap();
    assert_eq!(done.segments, 2);
    assert_eq!(rig.segments().len(), 1);
    let log = rig.open();
    assert_eq!(log.appender(Some(name("big"))).unwrap().serial().get(), 200);
    assert_eq!(log.last(), Lsn(200));
    assert!(matches!(truncate(&rig.path(), Cut::Before(Lsn(500)), false, &NoFaults), Err(LogError::Beyond { .. })));
}

#[test]
fn whoever_stands_in_what_was_truncated_is_told_where_the_log_begins_now() {
    let rig = Rig::new();
    rig.large(200);
    let mut stands = Reader::open(&rig.path(), Range::ALL).unwrap();
    stands.next_record().unwrap().unwrap();
    let start = truncate(&rig.path(), Cut::KeepBytes(0), false, &NoFaults).unwrap().start;
    let mut seen = 1;
    let refused = loop {
        match stands.next_record() {
            Ok(Some(_)) => seen += 1,
            Ok(None) => panic!("nothing was said after {seen} records"),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LogError::Truncated { start: told, .. } if told == start), "{refused}");
    assert!(seen < 100, "{seen}");
}

#[test]
fn a_truncation_that_is_stopped_anywhere_has_been_done_or_not() {
    for point in ["log.truncate.said", "log.truncate.removed"] {
        let rig = Rig::new();
        rig.large(200);
        assert!(matches!(truncate(&rig.path(), Cut::KeepBytes(0), false, &At(point)), Err(LogError::Crash(_))));
        let start = stats(&rig.path()).unwrap().start;
        assert!(start > Lsn(1), "{point}");
        assert_eq!(rig.all()[0].lsn, start, "{point}");
        rig.open();
        assert_eq!(rig.segments().len(), 1, "{point}: what was left goes");
        assert_eq!(rig.all()[0].lsn, start, "{point}");
    }
}

#[test]
fn a_newer_segment_is_told_from_a_damaged_one() {
    let rig = Rig::new();
    let segment = rig.segments()[0].clone();
    OpenOptions::new().write(true).open(&segment).unwrap().write_all_at(&[9], 4).unwrap();
    let refused = Log::open(&rig.path(), LogSync::Each, rig.parts()).unwrap_err();
    assert!(refused.is_newer(), "{refused}");
}

#[test]
fn an_appender_that_outlives_its_log_appends_nothing() {
    let rig = Rig::new();
    let log = rig.open();
    let mut appender = log.appender(None).unwrap();
    appender.append(b"a").unwrap();
    log.close().unwrap();
    assert!(matches!(appender.append(b"b"), Err(LogError::Closed)));
    assert!(matches!(Log::open(&rig.path(), LogSync::Each, rig.parts()), Err(LogError::Busy { .. })));
    drop(appender);
    rig.open();
    assert_eq!(rig.bodies(), ["a"]);
}

#[test]
fn a_folder_without_one_of_its_segments_is_refused_by_its_name() {
    let rig = Rig::new();
    rig.large(200);
    let segment = rig.segments()[1].clone();
    fs::remove_file(&segment).unwrap();
    let refused = Log::open(&rig.path(), LogSync::Each, rig.parts()).unwrap_err().to_string();
    assert!(refused.contains(segment.file_name().unwrap().to_str().unwrap()), "{refused}");
    assert!(matches!(read(&rig.path(), Range::ALL), Err(LogError::Broken { .. })));
}

/// Whoever reaches the point first stays there until he is let go.
#[derive(Debug, Default)]
struct Hang {
    state: Mutex<(bool, bool)>,
    moved: Condvar,
}

impl Faults for Hang {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        let mut state = self.state.lock().unwrap();
        if point == "log.append.reserved" && !state.0 {
            state.0 = true;
            self.moved.notify_all();
            drop(self.moved.wait_while(state, |state| !state.1).unwrap());
        }
        Ok(())
    }
}

#[test]
fn p15_the_seal_waits_for_a_hung_appender_and_nothing_behind_it_is_durable() {
    let rig = Rig::new();
    let hang = Arc::new(Hang::default());
    let log = Log::open(&rig.path(), LogSync::None, LogParts { faults: hang.clone(), ..rig.parts() }).unwrap();
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| log.appender(Some(name("hung"))).unwrap().append(b"at last").unwrap());
        drop(hang.moved.wait_while(hang.state.lock().unwrap(), |state| !state.0).unwrap());
        // Others go on, over the end of the segment.
        let others = || -> Result<_, LogError> {
            let mut others = log.appender(Some(name("others")))?;
            for number in 1..70 {
                others.append(&big(number))?;
            }
            let durable = (log.sync()?, log.durable_sessions());
            Ok((durable, read(&rig.path(), Range::ALL)?.len(), stats(&rig.path())?))
        };
        let seen = others();
        // Before anything is asserted: who hangs is waited for.
        hang.state.lock().unwrap().1 = true;
        hang.moved.notify_all();
        seen
    });
    let ((durable, sessions), read, stats_then) = seen.unwrap();
    assert_eq!((durable, read, stats_then.last), (Lsn::ZERO, 0, Lsn::ZERO), "a reader sees what is before it");
    // I11: each session's durable serial is that of the same prefix.
    assert!(sessions.values().all(|serial| *serial == Serial::ZERO), "{sessions:?}");
    assert!(stats_then.segments.iter().all(|segment| !segment.is_sealed), "{stats_then:?}");
    assert_eq!(log.sync().unwrap(), Lsn(70));
    assert_eq!(log.durable_sessions()[&name("others")].get(), 69);
    log.close().unwrap();
    assert!(stats(&rig.path()).unwrap().segments[0].is_sealed);
    assert_eq!((rig.all().len(), rig.all()[0].body.as_slice()), (70, &b"at last"[..]));
}

#[test]
fn p15_the_reservation_of_an_appender_that_died_is_void_and_the_log_ends_before_it() {
    let rig = Rig::new();
    for point in ["log.append.reserved", "log.append.copied"] {
        let before = rig.bodies();
        let log =
            Log::open(&rig.path(), LogSync::None, LogParts { faults: Arc::new(At(point)), ..rig.parts() }).unwrap();
        let died = log.appender(Some(name("died"))).unwrap().append(b"never");
        assert!(matches!(died, Err(LogError::Crash(_))));
        drop(log);
        let log = rig.open();
        assert_eq!(log.recovered().cut_bytes > 0, point == "log.append.copied");
        log.appender(Some(name("died"))).unwrap().append(point.as_bytes()).unwrap();
        assert_eq!(rig.bodies(), [before, vec![point.to_owned()]].concat());
    }
}

#[test]
fn a_log_whose_sync_failed_acknowledges_nothing_any_more_until_it_is_opened_again() {
    let rig = Rig::new();
    let parts = LogParts { faults: Arc::new(At("log.sync.synced")), ..rig.parts() };
    let log = Log::open(&rig.path(), LogSync::Each, parts).unwrap();
    let mut appender = log.appender(None).unwrap();
    assert!(matches!(appender.append(b"a"), Err(LogError::Crash(_))));
    let refused = appender.append(b"b").unwrap_err();
    assert!(matches!(refused, LogError::Stopped { durable: Lsn(0), .. }), "{refused}");
    assert!(matches!(log.sync(), Err(LogError::Stopped { .. })));
    drop(appender);
    assert!(log.close().is_err());
    rig.open().appender(None).unwrap().append(b"c").unwrap();
    assert_eq!(rig.bodies(), ["a", "c"]);
}

#[test]
fn a_reader_at_the_end_of_a_full_segment_waits_for_the_next_one_which_a_death_can_have_kept_from_being_made() {
    let rig = Rig::new();
    let parts = LogParts { faults: Arc::new(At("log.roll.ended")), ..rig.parts() };
    let log = Log::open(&rig.path(), LogSync::None, parts).unwrap();
    let mut appender = log.appender(None).unwrap();
    let refused = (1..).find_map(|number| appender.append(&big(number)).err()).unwrap();
    assert!(matches!(refused, LogError::Crash(_)), "{refused}");
    let mut reader = Reader::open(&rig.path(), Range::ALL).unwrap();
    let seen = std::iter::from_fn(|| reader.next_record().unwrap()).count() as u64;
    assert!(seen > 50 && reader.next_record().unwrap().is_none());
    assert_eq!(stats(&rig.path()).unwrap().last, Lsn(seen));
    drop((appender, log));
    rig.open().appender(None).unwrap().append(b"on").unwrap();
    assert_eq!(reader.next_record().unwrap().map(|record| record.lsn), Some(Lsn(seen + 1)));
}
