//! An end that is rolled back: it is the old one or the new one, it never comes back, and whoever stood behind it is told.

use super::*;
use crate::log::cursors::{ack, cursor, keep_cursor};
use crate::log::schema::keep_columns;
use std::collections::BTreeMap;
use std::time::Duration;

fn bodies_of(log: &Log, session: &str, bodies: &[&str]) {
    let mut appender = log.appender(Some(name(session))).unwrap();
    for body in bodies {
        appender.append(body.as_bytes()).unwrap();
    }
}

fn back(rig: &Rig, last: u64) -> Result<RolledBack, LogError> {
    roll_back(&rig.path(), Lsn(last), (false, false), &rig.parts())
}

/// The same of a log whose volume has it up to a record; stopped at a point, where one is named.
fn back_behind(rig: &Rig, last: u64, shipped: u64, point: Option<&'static str>) -> Result<RolledBack, LogError> {
    let faults: Arc<dyn Faults> = match point {
        Some(point) => Arc::new(At(point)),
        None => Arc::new(NoFaults),
    };
    Quiet::take(&rig.path(), 0)?.roll_back(Lsn(last), Lsn(shipped), (true, false), &*faults)
}

/// What went where nothing is sealed, and nothing was shipped.
fn cut(was: u64, last: u64) -> RolledBack {
    RolledBack { was: Lsn(was), last: Lsn(last), next: Lsn(last + 1), voided: 0, cut: was - last }
}

#[test]
fn what_was_rolled_back_never_comes_back_and_sessions_go_on_from_what_is_left() {
    let rig = Rig::new();
    let log = rig.open();
    bodies_of(&log, "one", &["a", "b", "c"]);
    bodies_of(&log, "two", &["d", "e"]);
    assert!(matches!(back(&rig, 2), Err(LogError::Busy { .. })), "somebody appends");
    log.close().unwrap();
    let dry = roll_back(&rig.path(), Lsn(2), (false, true), &rig.parts()).unwrap();
    assert_eq!((dry, rig.bodies().len()), (cut(5, 2), 5));
    assert_eq!(back(&rig, 2).unwrap(), cut(5, 2));
    assert_eq!(rig.bodies(), ["a", "b"]);
    let found = stats(&rig.path()).unwrap();
    assert_eq!((found.last, found.sessions[&name("one")].get(), found.sessions.get(&name("two"))), (Lsn(2), 2, None));
    // Not even where what is appended next ends just where something ended that is gone.
    let log = rig.open();
    assert_eq!(log.recovered().cut_bytes, 0);
    assert_eq!(log.appender(Some(name("one"))).unwrap().serial().get(), 2);
    assert_eq!(log.appender(Some(name("two"))).unwrap().serial(), Serial::ZERO);
    bodies_of(&log, "one", &["C"]);
    log.close().unwrap();
    assert_eq!(rig.bodies(), ["a", "b", "C"]);
    drop(rig.open());
    assert_eq!(rig.bodies(), ["a", "b", "C"]);
    // All of it, and once more.
    back(&rig, 0).unwrap();
    assert_eq!(rig.bodies().len(), 0);
    bodies_of(&rig.open(), "one", &["first"]);
    assert_eq!(rig.all()[0].serial.get(), 1);
    assert_eq!(back(&rig, 1).unwrap(), cut(1, 1), "nothing goes");
}

#[test]
fn a_rollback_that_is_stopped_anywhere_leaves_the_old_end_or_the_new_one_and_is_finished_by_the_next() {
    for point in ROLL_BACK_POINTS {
        let rig = Rig::new();
        let log = rig.open();
        bodies_of(&log, "s", &["a", "b", "c", "d", "e", "gone for good"]);
        log.close().unwrap();
        let parts = LogParts { faults: Arc::new(At(point)), ..rig.parts() };
        let died = roll_back(&rig.path(), Lsn(3), (false, false), &parts).unwrap_err();
        assert!(matches!(died, LogError::Crash(_)), "{point}: {died}");
        // Nobody has opened it to append yet.
        assert_eq!(rig.bodies(), ["a", "b", "c"], "{point}");
        assert_eq!(stats(&rig.path()).unwrap().last, Lsn(3), "{point}");
        let mut tail = Tail::open(&rig.path(), Range::from(Lsn(3))).unwrap();
        assert_eq!(tail.next(Duration::ZERO).unwrap().unwrap().body, b"c");
        assert_eq!(tail.next(Duration::ZERO).unwrap(), None, "{point}");
        let log = rig.open();
        assert_eq!(log.last(), Lsn(3), "{point}");
        assert_eq!(tail.next(Duration::ZERO).unwrap(), None, "{point}");
        bodies_of(&log, "s", &["D"]);
        let next = tail.next(Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!((next.lsn, next.serial.get(), next.body.as_slice()), (Lsn(4), 4, &b"D"[..]), "{point}");
        log.close().unwrap();
        assert_eq!(rig.bodies(), ["a", "b", "c", "D"], "{point}");
        let segment = fs::read(&rig.segments()[0]).unwrap();
        assert!(!segment.windows(13).any(|bytes| bytes == b"gone for good"), "{point}: it is still there");
    }
}

#[test]
fn whoever_stood_behind_the_end_is_told_where_it_is_now_and_whoever_stood_before_it_goes_on() {
    let rig = Rig::new();
    let log = rig.open();
    bodies_of(&log, "s", &["a", "b", "c", "d", "e"]);
    let mut readers: Vec<Tail> = (0..=5)
        .map(|read| {
            let mut tail = Tail::open(&rig.path(), Range::ALL).unwrap();
            (0..read).for_each(|_| drop(tail.next(Duration::ZERO).unwrap().unwrap()));
            tail
        })
        .collect();
    // What it waits for would be another record than it thinks.
    let mut beyond = Tail::open(&rig.path(), Range::from(Lsn(6))).unwrap();
    assert_eq!(beyond.next(Duration::ZERO).unwrap(), None);
    log.close().unwrap();
    back(&rig, 4).unwrap();
    back(&rig, 2).unwrap();
    bodies_of(&rig.open(), "s", &["C", "D", "E", "F", "G"]);
    back(&rig, 6).unwrap();
    bodies_of(&rig.open(), "s", &["g"]);
    for (read, tail) in readers.iter_mut().enumerate() {
        // What it had fetched before may still come; then it is told, or what comes is what is there.
        let mut seen: Vec<String> = Vec::new();
        let told = loop {
            match tail.next(Duration::ZERO) {
                Ok(Some(record)) => seen.push(String::from_utf8(record.body).unwrap()),
                Ok(None) => break None,
                Err(LogError::RolledBack { end, asked, .. }) => break Some((end, asked)),
                Err(other) => panic!("{read}: {other}"),
            }
        };
        match told {
            None => assert_eq!(seen, ["a", "b", "C", "D", "E", "F", "g"][read..], "{read}"),
            Some((end, asked)) => {
                assert!(end == Lsn(2) && asked > Lsn(3), "{read}: {end} {asked}");
                assert!(
                    ["a", "b", "c", "d", "e"][read..].starts_with(&seen.iter().map(String::as_str).collect::<Vec<_>>())
                );
            }
        }
        assert!(told.is_some() || read <= 2, "{read}: it has missed LSN 3 to {read}");
    }
    let told = beyond.next(Duration::ZERO).unwrap_err();
    assert!(matches!(told, LogError::RolledBack { end: Lsn(2), .. }), "{told}");
    assert_eq!(rig.bodies(), ["a", "b", "C", "D", "E", "F", "g"]);
    // And whoever comes later and asks for what was.
    let told = Reader::open(&rig.path(), Range::from(Lsn(9))).unwrap_err();
    assert!(told.to_string().contains("the log ends at LSN 7 now") && told.to_string().contains("LSN 9"), "{told}");
    Reader::open(&rig.path(), Range::from(Lsn(8))).unwrap();
}

#[test]
fn what_is_a_tables_or_acknowledged_is_not_rolled_back_and_the_refusal_says_why() {
    let rig = Rig::new();
    rig.large(70);
    let open = stats(&rig.path()).unwrap().segments[1].first.0;
    let before = fs::read(rig.path().join("log.toml")).unwrap();
    assert!(matches!(back(&rig, 71), Err(LogError::Beyond { asked: Lsn(71), last: Lsn(70) })));
    let refused = back_behind(&rig, 60, 71, None).unwrap_err().to_string();
    assert!(refused.contains("its volume ends at LSN 71") && refused.contains("Nothing was changed"), "{refused}");
    keep_cursor(&rig.path(), &name("sums"), Some(Lsn(69)), None).unwrap();
    let refused = back(&rig, 68).unwrap_err().to_string();
    assert!(refused.contains("cursor sums is done up to LSN 69") && refused.contains("--past-cursors"), "{refused}");
    keep_cursor(&rig.path(), &name("db"), Some(Lsn(70)), Some(Path::new("/data/app.db"))).unwrap();
    let refused = roll_back(&rig.path(), Lsn(69), (true, false), &rig.parts()).unwrap_err().to_string();
    assert!(refused.contains("/data/app.db") && refused.contains("littoral_log_drop_cursor"), "{refused}");
    assert_eq!(fs::read(rig.path().join("log.toml")).unwrap(), before);
    assert_eq!(rig.all().len(), 70, "nothing moved");
    crate::log::cursors::drop_cursor(&rig.path(), &name("db")).unwrap();
    roll_back(&rig.path(), Lsn(68), (true, false), &rig.parts()).unwrap();
    assert_eq!(cursor(&rig.path(), &name("sums")).unwrap().acked, Lsn(68));
    ack(&rig.path(), &name("sums"), Lsn(68), None).unwrap();
    roll_back(&rig.path(), Lsn(open - 1), (true, false), &rig.parts()).unwrap();
    assert_eq!(rig.all().len() as u64, open - 1, "all that is not sealed is cut off");
    assert_eq!(stats(&rig.path()).unwrap().void, 0);
    truncate(&rig.path(), Cut::Before(Lsn(open)), false, &NoFaults).unwrap();
    assert!(matches!(back(&rig, open - 2), Err(LogError::Truncated { .. })));
    let table = Rig::new();
    bodies_of(&table.open(), "s", &["a", "b"]);
    keep_columns(&table.path(), &["body".to_owned()]).unwrap();
    let refused = back(&table, 1).unwrap_err().to_string();
    assert!(refused.contains("database"), "{refused}");
    assert_eq!(table.bodies(), ["a", "b"]);
}

#[test]
fn what_was_shipped_stays_in_its_place_and_is_void_and_no_lsn_or_serial_is_given_again() {
    let rig = Rig::new();
    bodies_of(&rig.open(), "s", &["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    for (cursor, acked, database) in [("far", 8, None), ("near", 2, None), ("between", 5, Some("/data/app.db"))] {
        keep_cursor(&rig.path(), &name(cursor), Some(Lsn(acked)), database.map(Path::new)).unwrap();
    }
    let (segment, before) = (fs::read(&rig.segments()[0]).unwrap(), stats(&rig.path()).unwrap().segments[0].bytes);
    let done = back_behind(&rig, 3, 6, None).unwrap();
    assert_eq!(done, RolledBack { was: Lsn(9), last: Lsn(3), next: Lsn(7), voided: 3, cut: 3 });
    let stands = |cursor_of| cursor(&rig.path(), &name(cursor_of)).unwrap().acked;
    assert_eq!((stands("far"), stands("near"), stands("between")), (Lsn(6), Lsn(2), Lsn(5)));
    let found = stats(&rig.path()).unwrap();
    assert_eq!((found.last, found.void, found.records(), found.segments[0].records), (Lsn(6), 3, 3, 6));
    // What was shipped is there byte for byte, and nothing behind it.
    let (now, end) = (fs::read(&rig.segments()[0]).unwrap(), (4096 + found.segments[0].bytes) as usize);
    assert!(found.segments[0].bytes < before && now[4096..end] == segment[4096..end]);
    assert!(now[end..].iter().all(|byte| *byte == 0));
    let log = rig.open();
    assert_eq!(log.appender(Some(name("s"))).unwrap().serial().get(), 6);
    bodies_of(&log, "s", &["seven"]);
    log.close().unwrap();
    let alive: Vec<(u64, u64)> = rig.all().iter().map(|record| (record.lsn.0, record.serial.get())).collect();
    assert_eq!(alive, [(1, 1), (2, 2), (3, 3), (7, 7)]);
    // To a place that is void, and to where it ends: nothing else goes.
    assert_eq!(back_behind(&rig, 7, 6, None).unwrap(), cut(7, 7));
    assert_eq!(
        back_behind(&rig, 5, 6, None).unwrap(),
        RolledBack { was: Lsn(7), last: Lsn(6), next: Lsn(7), voided: 0, cut: 1 }
    );
    assert_eq!(back_behind(&rig, 4, 6, None).unwrap(), cut(6, 6));
    assert_eq!(rig.bodies(), ["1", "2", "3"]);
    // More of it: of what was void already nothing is counted again.
    bodies_of(&rig.open(), "s", &["7", "8", "9"]);
    assert_eq!(
        back_behind(&rig, 1, 8, None).unwrap(),
        RolledBack { was: Lsn(9), last: Lsn(1), next: Lsn(9), voided: 4, cut: 1 }
    );
    assert_eq!(void::voids(&rig.path()).unwrap(), [(Lsn(2), Lsn(8))]);
    bodies_of(&rig.open(), "s", &["nine"]);
    assert_eq!(rig.bodies(), ["1", "nine"]);
    // Whoever comes and asks for what follows one of them is told; whoever asks for the first of them has read none.
    for asked in 3..=8 {
        let told = Reader::open(&rig.path(), Range::from(Lsn(asked))).unwrap_err();
        assert!(matches!(told, LogError::RolledBack { end: Lsn(1), next: Lsn(9), .. }), "{told}");
        let words = format!("the log ends at LSN 1 now, and goes on at LSN 9: what was behind, LSN {asked} with it");
        assert!(told.to_string().contains(&words), "{told}");
    }
    for asked in [2, 9] {
        assert_eq!(read(&rig.path(), Range::from(Lsn(asked))).unwrap()[0].lsn, Lsn(9));
    }
}

#[test]
fn a_rollback_past_sealed_segments_that_is_stopped_anywhere_is_done_and_told_to_who_has_read_them() {
    for point in ROLL_BACK_POINTS {
        let rig = Rig::new();
        rig.large(70);
        let open = stats(&rig.path()).unwrap().segments[1].first.0;
        assert!((50..69).contains(&open));
        let sealed = fs::read(&rig.segments()[0]).unwrap();
        let mut tails: Vec<(u64, Tail)> = [0, 10, 40, 41, open - 1, open, 70]
            .map(|read| {
                let mut tail = Tail::open(&rig.path(), Range::ALL).unwrap();
                (0..read).for_each(|_| drop(tail.next(Duration::ZERO).unwrap().unwrap()));
                (read, tail)
            })
            .into();
        let died = back_behind(&rig, 40, 0, Some(point)).unwrap_err();
        assert!(matches!(died, LogError::Crash(_)), "{point}: {died}");
        let alive: Vec<u64> = rig.all().iter().map(|record| record.lsn.0).collect();
        assert_eq!(alive, (1..=40).collect::<Vec<u64>>(), "{point}");
        let found = stats(&rig.path()).unwrap();
        assert_eq!((found.last, found.records()), (Lsn(open - 1), 40), "{point}");
        let log = rig.open();
        assert_eq!(log.last(), Lsn(open - 1), "{point}");
        bodies_of(&log, "big", &["on"]);
        log.close().unwrap();
        assert!(fs::read(&rig.segments()[0]).unwrap() == sealed, "{point}: what is sealed never changes");
        let alive: Vec<u64> = rig.all().iter().map(|record| record.lsn.0).collect();
        assert_eq!(alive, (1..=40).chain([open]).collect::<Vec<u64>>(), "{point}");
        for (read, tail) in &mut tails {
            let mut seen = Vec::new();
            let told = loop {
                match tail.next(Duration::ZERO) {
                    Ok(Some(record)) => seen.push(record.lsn.0),
                    Ok(None) => break None,
                    Err(LogError::RolledBack { end, next, .. }) => break Some((end.0, next.0)),
                    Err(other) => panic!("{point}, {read}: {other}"),
                }
            };
            if *read > 40 {
                assert_eq!(told, Some((40, open)), "{point}, {read}");
            } else {
                // What it had fetched before may still come; then it is told.
                let wanted: Vec<u64> = (*read + 1..=40).chain([open]).collect();
                let is_told = told == Some((40, open)) && seen.contains(&41);
                assert!((told.is_none() && seen == wanted) || is_told, "{point}, {read}: {seen:?}, {told:?}");
            }
        }
    }
}

#[test]
fn many_rollbacks_are_all_remembered_as_far_as_it_matters() {
    let rig = Rig::new();
    bodies_of(&rig.open(), "s", &["0"]);
    let mut old = Tail::open(&rig.path(), Range::ALL).unwrap();
    assert!(old.next(Duration::ZERO).unwrap().is_some());
    bodies_of(&rig.open(), "s", &["x"]);
    assert!(old.next(Duration::ZERO).unwrap().is_some());
    for nth in 1..=80 {
        back(&rig, nth).unwrap();
        bodies_of(&rig.open(), "s", &["keeps", "goes"]);
    }
    let told = old.next(Duration::ZERO).unwrap_err();
    assert!(matches!(told, LogError::RolledBack { end: Lsn(1), .. }), "{told}");
    let text = fs::read_to_string(rig.path().join("log.toml")).unwrap();
    assert!(text.len() < 1500, "{text}");
    assert_eq!(rig.bodies().len(), 82);
}

#[test]
fn readers_beside_appends_and_rollbacks_end_with_what_the_log_holds_and_never_see_anything_else() {
    let rig = Rig::new();
    drop(rig.open());
    let over = std::sync::atomic::AtomicBool::new(false);
    let (told, jumped) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for _ in 0..3 {
            let (path, over, told, jumped) = (rig.path(), &over, &told, &jumped);
            readers.push(scope.spawn(move || {
                let mut seen: BTreeMap<Lsn, Vec<u8>> = BTreeMap::new();
                let mut tail = Tail::open(&path, Range::ALL);
                loop {
                    let is_last = over.load(Ordering::SeqCst);
                    match tail.as_mut().map(|tail| tail.next(Duration::from_millis(1))) {
                        Ok(Ok(Some(record))) => {
                            let before = seen.last_key_value().map_or(Lsn::ZERO, |(lsn, _)| *lsn);
                            assert!(record.lsn > before, "LSN {} after {before}", record.lsn);
                            if record.lsn > before.next() {
                                jumped.fetch_add(1, Ordering::SeqCst);
                            }
                            seen.insert(record.lsn, record.body);
                        }
                        Ok(Ok(None)) if is_last => return seen,
                        Ok(Ok(None)) => {}
                        Ok(Err(LogError::RolledBack { end, .. })) | Err(&mut LogError::RolledBack { end, .. }) => {
                            told.fetch_add(1, Ordering::SeqCst);
                            seen.retain(|lsn, _| *lsn <= end);
                            tail = Tail::open(&path, Range::from(end.next()));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }));
        }
        let mut chance = 7_u64;
        let mut below = |bound: u64| {
            chance = chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (chance >> 33) % bound
        };
        let mut known: BTreeMap<Lsn, Vec<u8>> = BTreeMap::new();
        let (mut end, mut shipped) = (0_u64, 0_u64);
        for round in 0..120_u64 {
            let log = rig.lazy();
            let mut appender = log.appender(if round % 2 == 0 { Some(name("s")) } else { None }).unwrap();
            for nth in 0..below(30) {
                // Often of one size: then what is new stands just where something else stood.
                let body =
                    format!("{round}/{nth}/{}", "y".repeat(if round % 3 == 0 { below(4000) as usize } else { 40 }));
                let lsn = appender.append(body.as_bytes()).unwrap().lsn;
                assert_eq!(lsn, Lsn(end + 1), "no LSN is left out, and none is given that stays");
                end = lsn.0;
                known.insert(lsn, body.into_bytes());
            }
            drop(appender);
            log.close().unwrap();
            if round % 2 == 1 {
                shipped += below(end - shipped + 1);
            }
            let last = end - below(20).min(end);
            let done = back_behind(&rig, last, shipped, None).unwrap();
            known.retain(|lsn, _| lsn.0 <= last);
            end = done.next.0 - 1;
            assert!(end >= shipped && end >= last, "{done:?}");
            std::thread::sleep(Duration::from_millis(below(4)));
        }
        assert!(rig.all().into_iter().map(|record| (record.lsn, record.body)).eq(known.clone()));
        assert_eq!(stats(&rig.path()).unwrap().records(), known.len() as u64);
        over.store(true, Ordering::SeqCst);
        for reader in readers {
            assert!(reader.join().unwrap() == known);
        }
    });
    assert!(told.load(Ordering::SeqCst) > 10, "{told:?}");
    assert!(jumped.load(Ordering::SeqCst) > 10, "{jumped:?}");
}
