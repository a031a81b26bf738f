//! Who makes sound what a dead appender left, and whoever comes to append meanwhile.

use super::*;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// For hangs alone.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often somebody comes to append, and how often somebody settles meanwhile, at least.
const ROUNDS: u64 = 30;

fn settled(rig: &Rig) -> Option<Settled> {
    settle(&rig.path(), 0, &NoFaults).unwrap()
}

#[test]
fn s02_what_a_dead_appender_left_is_durable_and_sound_then_and_no_record_or_segment_is_begun() {
    let rig = Rig::new();
    let parts = LogParts { faults: Arc::new(At("log.append.copied")), ..rig.parts() };
    rig.open().appender(Some(name("a"))).unwrap().append(b"there").unwrap();
    let log = Log::open(&rig.path(), LogSync::None, parts).unwrap();
    assert!(matches!(log.appender(None).unwrap().append(b"torn"), Err(LogError::Crash(_))));
    assert!(settled(&rig).is_none(), "somebody appends");
    drop(log);
    let files = || fs::read_dir(rig.path()).unwrap().filter(|file| file.as_ref().unwrap().path().is_file()).count();
    let found = settled(&rig).unwrap();
    assert_eq!((found.prefix.last(), found.open, found.cut_bytes > 0), (Lsn(1), Lsn(1), true));
    assert_eq!(found.mark, appended(&rig.path()));
    let before = files();
    // Again it is the same, and nothing is left to cut.
    let again = settled(&rig).unwrap();
    assert_eq!((again.prefix.last(), again.cut_bytes, files()), (Lsn(1), 0, before));
    rig.open().appender(None).unwrap().append(b"on").unwrap();
    assert_ne!(again.mark, appended(&rig.path()), "somebody has appended since");
    assert_eq!(rig.bodies(), ["there", "on"]);
    // Of several segments the last one is open.
    let log = rig.open();
    let mut appender = log.appender(None).unwrap();
    while stats(&rig.path()).unwrap().segments.len() < 2 {
        appender.append(&big(1)).unwrap();
    }
    drop(appender);
    log.close().unwrap();
    let last = stats(&rig.path()).unwrap().last;
    let found = settled(&rig).unwrap();
    assert_eq!((found.prefix.last(), found.open), (last, stats(&rig.path()).unwrap().segments[1].first));
}

#[test]
fn s02_what_was_settled_holds_until_the_end_is_rolled_back() {
    let rig = Rig::new();
    let log = rig.open();
    let mut appender = log.appender(None).unwrap();
    for _ in 0..9 {
        appender.append(b"x").unwrap();
    }
    drop(appender);
    log.close().unwrap();
    let found = settled(&rig).unwrap();
    rig.open().appender(None).unwrap().append(b"more").unwrap();
    assert!(found.prefix.holds().unwrap() && found.prefix.last() == Lsn(9));
    roll_back(&rig.path(), Lsn(5), (false, false), &rig.parts()).unwrap();
    assert!(!found.prefix.holds().unwrap());
    assert_eq!(settled(&rig).unwrap().prefix.last(), Lsn(5));
}

#[test]
fn nobody_who_comes_to_append_is_refused_because_of_who_settles_or_looks() {
    let rig = Rig::new();
    let (stops, settles) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut rounds = 0;
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stops.load(Ordering::SeqCst) {
                let is_done = settle(&rig.path(), 0, &NoFaults).unwrap().is_some();
                settles.fetch_add(u64::from(is_done), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        scope.spawn(|| {
            while !stops.load(Ordering::SeqCst) {
                let _ = appender(&rig.path());
            }
        });
        let begun = Instant::now();
        let mut refused = None;
        // Until they have met each other often enough.
        while (rounds < ROUNDS || settles.load(Ordering::SeqCst) < ROUNDS) && begun.elapsed() < PATIENCE {
            match Log::open(&rig.path(), LogSync::None, rig.parts()) {
                Ok(log) => {
                    log.appender(None).unwrap().append(b"x").unwrap();
                    log.close().unwrap();
                    rounds += 1;
                }
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        stops.store(true, Ordering::SeqCst);
        refused
    });
    assert!(refused.is_none(), "round {rounds}: {refused:?}");
    let settles = settles.load(Ordering::SeqCst);
    assert!(rounds >= ROUNDS && settles >= ROUNDS, "{rounds} rounds beside {settles} settlements");
    assert_eq!(stats(&rig.path()).unwrap().last, Lsn(rounds));
    // Who appends is named at once.
    let log = rig.open();
    let refused = Log::open(&rig.path(), LogSync::None, rig.parts()).unwrap_err();
    assert!(matches!(refused, LogError::Busy { .. }), "{refused}");
    drop(log);
}

#[test]
fn a_logs_end_is_found_from_where_it_was_found_before() {
    let rig = Rig::new();
    let first = end(&rig.path(), None).unwrap();
    assert_eq!(first.last(), Lsn::ZERO);
    let log = rig.open();
    let mut appender = log.appender(Some(name("a"))).unwrap();
    let mut found = first;
    while stats(&rig.path()).unwrap().segments.len() < 3 {
        appender.append(&big(1)).unwrap();
        found = end(&rig.path(), Some(found)).unwrap();
        assert_eq!(found.last(), log.last());
    }
    assert_eq!(end(&rig.path(), Some(first)).unwrap(), end(&rig.path(), None).unwrap());
    drop(appender);
    log.close().unwrap();
    let last = found.last();
    let open = stats(&rig.path()).unwrap().segments[2].first;
    rig.open().appender(None).unwrap().append(b"x").unwrap();
    roll_back(&rig.path(), open, (false, false), &rig.parts()).unwrap();
    assert!(open <= last && end(&rig.path(), Some(found)).unwrap().last() == open);
}
