//! Records that are appended together.

use super::*;

fn batch(bodies: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Batch {
    let mut batch = Batch::default();
    bodies.into_iter().for_each(|body| batch.push(body.as_ref()).unwrap());
    batch
}

#[test]
fn what_is_appended_together_is_there_as_one_by_one_over_the_ends_of_segments_too() {
    let rig = Rig::new();
    let log = rig.lazy();
    let mut appender = log.appender(Some(name("together"))).unwrap();
    let mut others = log.appender(None).unwrap();
    let bodies: Vec<Vec<u8>> = (0..300).map(|nth| vec![nth as u8; nth * 3571 % 700_000]).collect();
    let mut expected = Vec::new();
    let mut all = batch(&bodies);
    let mut part = all.part(0, 1 << 20);
    let mut serial = 0;
    while !part.is_empty() {
        let appended = appender.append_part(&mut all, part.clone()).unwrap().unwrap();
        expected.extend(bodies[part.clone()].iter().map(|body| {
            serial += 1;
            (serial, appended.time_ms, body.clone())
        }));
        assert_eq!((appended.lsn.0, appended.serial.get()), (expected.len() as u64, serial));
        let time = others.append(b"between").unwrap().time_ms;
        expected.push((0, time, b"between".to_vec()));
        part = all.part(part.end, 1 << 20);
    }
    assert!(appender.append_part(&mut all, 300..400).unwrap().is_none() && expected.len() > 330);
    drop((appender, others));
    log.close().unwrap();
    assert!(rig.segments().len() > 1);
    let all: Vec<_> = rig.all().into_iter().map(|record| (record.serial.get(), record.time_ms, record.body)).collect();
    assert!(all == expected, "{} records", all.len());
    assert_eq!(rig.open().durable_sessions()[&name("together")].get(), 300);
}

#[test]
fn p15_of_records_that_are_appended_together_all_or_none_are_there_wherever_who_appends_them_dies() {
    let rig = Rig::new();
    for point in ["log.append.reserved", "log.append.copied"] {
        let before = rig.bodies();
        let parts = LogParts { faults: Arc::new(At(point)), ..rig.parts() };
        let log = Log::open(&rig.path(), LogSync::None, parts).unwrap();
        let mut appender = log.appender(Some(name("died"))).unwrap();
        let died = appender.append_part(&mut batch([b"never"; 900]), 0..900);
        assert!(matches!(died, Err(LogError::Crash(_))));
        // Nobody goes on behind what is not there.
        let refused = log.appender(None).unwrap_err();
        assert!(matches!(refused, LogError::Stopped { .. }), "{refused}");
        assert_eq!(rig.bodies(), before);
        drop((appender, log));
        let log = rig.open();
        assert_eq!(log.recovered().cut_bytes > 0, point == "log.append.copied");
        let mut appender = log.appender(Some(name("died"))).unwrap();
        let appended = appender.append_part(&mut batch([point]), 0..1).unwrap().unwrap();
        assert_eq!(appended.lsn.0 as usize, before.len() + 1);
        assert_eq!(rig.bodies(), [before, vec![point.to_owned()]].concat());
    }
}

#[test]
fn what_cannot_be_appended_together_is_refused_whole() {
    let rig = Rig::new();
    let log = rig.open();
    let mut appender = log.appender(Some(name("one"))).unwrap();
    let mut large = batch([&vec![0; 9 << 20], &vec![1; 9 << 20]]);
    assert!(matches!(appender.append_part(&mut large, 0..2), Err(LogError::TooLarge { .. })));
    appender.append_as(Serial::new(Serial::MAX.get() - 1).unwrap(), b"first").unwrap();
    let refused = appender.append_part(&mut batch(["a", "b"]), 0..2).unwrap_err();
    assert!(matches!(refused, LogError::Behind { .. }), "{refused}");
    assert_eq!(appender.append_part(&mut batch(["a", "b"]), 0..1).unwrap().unwrap().serial, Serial::MAX);
    assert_eq!(rig.bodies(), ["first", "a"]);
}

#[test]
fn a_reader_beside_those_who_append_together_sees_whole_records_in_their_order() {
    const EACH: u64 = 6000;
    const PART: u64 = 40;
    let rig = Rig::new();
    let log = rig.lazy();
    std::thread::scope(|scope| {
        for nth in 0..4u64 {
            let log = &log;
            scope.spawn(move || {
                let mut appender = log.appender(Some(name(&format!("s{nth}")))).unwrap();
                let body = |number: u64| format!("{nth} {number} {}", "x".repeat((number * 37 % 900) as usize));
                for from in (0..EACH).step_by(PART as usize) {
                    let bodies: Vec<String> = (from..from + PART).map(body).collect();
                    if nth % 2 == 0 {
                        appender.append_part(&mut batch(&bodies), 0..bodies.len()).unwrap();
                    } else {
                        bodies.iter().for_each(|body| assert!(appender.append(body.as_bytes()).is_ok()));
                    }
                }
            });
        }
        let path = rig.path();
        scope.spawn(move || {
            let mut reader = Reader::open(&path, Range::ALL).unwrap();
            let mut next = [0u64; 4];
            let mut lsn = 0;
            while next != [EACH; 4] {
                let Some(record) = reader.next_record().unwrap() else {
                    std::thread::yield_now();
                    continue;
                };
                lsn += 1;
                assert_eq!(record.lsn.0, lsn);
                let text = String::from_utf8(record.body).unwrap();
                let mut words = text.splitn(3, ' ');
                let mut number = || words.next().unwrap().parse::<u64>().unwrap();
                let (session, number) = (number() as usize, number());
                assert_eq!((number, record.serial.get()), (next[session], number + 1), "of session {session}");
                assert_eq!(words.next().unwrap().len() as u64, number * 37 % 900);
                next[session] += 1;
            }
        });
    });
    log.close().unwrap();
    assert_eq!(rig.all().len() as u64, 4 * EACH);
}
