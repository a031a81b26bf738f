//! What a log need not keep goes by itself, and nothing else does.

use super::*;
use crate::log::cursors::{ack, keep_cursor};
use crate::log::retain::{Keep, keep, keep_to, retain};

fn starts(rig: &Rig) -> u64 {
    stats(&rig.path()).unwrap().start.0
}

#[test]
fn what_is_more_than_a_log_keeps_goes_as_segments_are_sealed_and_up_to_cursors() {
    let rig = Rig::new();
    keep_to(&rig.path(), Keep { bytes: Some(100 << 20), ..Keep::ALL }).unwrap();
    keep_cursor(&rig.path(), &name("slow"), None, None).unwrap();
    let log = rig.lazy();
    assert_eq!(log.retain().unwrap(), None);
    let mut appender = log.appender(None).unwrap();
    for number in 1..=200 {
        appender.append(&big(number)).unwrap();
    }
    log.sync().unwrap();
    assert_eq!(starts(&rig), 1, "the cursor stands there");
    ack(&rig.path(), &name("slow"), Lsn(200), None).unwrap();
    let begun = std::time::Instant::now();
    while starts(&rig) == 1 {
        assert!(begun.elapsed().as_secs() < 60, "it never went");
        appender.append(&big(0)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(appender);
    log.close().unwrap();
    let left = stats(&rig.path()).unwrap();
    let bytes: u64 = left.segments.iter().map(|segment| segment.file_bytes).sum();
    assert!(bytes <= (100 << 20) + LOG_SEGMENT_BYTES && left.last >= Lsn(200), "{left:?}");
    assert_eq!(rig.all()[0].lsn, left.start);
    assert_eq!(keep(&rig.path()).unwrap().bytes, Some(100 << 20));
}

#[test]
fn what_is_too_old_goes_in_whole_segments_and_past_cursors_only_where_that_was_said() {
    let rig = Rig::new();
    rig.large(130);
    let segments = stats(&rig.path()).unwrap().segments;
    let until = segments[0].times_ms.unwrap().1;
    keep_cursor(&rig.path(), &name("slow"), None, None).unwrap();
    let within = Keep { within_ms: Some(10), ..Keep::ALL };
    keep_to(&rig.path(), within).unwrap();
    assert_eq!(retain(&rig.path(), until + 11, &NoFaults).unwrap(), None);
    keep_to(&rig.path(), Keep { past_cursors: true, ..within }).unwrap();
    assert_eq!(retain(&rig.path(), until + 10, &NoFaults).unwrap(), None, "it is just young enough");
    let gone = retain(&rig.path(), until + 11, &NoFaults).unwrap().unwrap();
    assert_eq!((gone.start, gone.segments), (segments[1].first, 1));
    // Stopped anywhere, it has been done or not, and the next one does the rest.
    for point in ["log.truncate.said", "log.truncate.removed"] {
        let rig = Rig::new();
        rig.large(70);
        let until = stats(&rig.path()).unwrap().segments[0].times_ms.unwrap().1;
        keep_to(&rig.path(), within).unwrap();
        assert!(matches!(retain(&rig.path(), until + 11, &At(point)), Err(LogError::Crash(_))));
        rig.open().close().unwrap();
        assert_eq!(
            (starts(&rig), rig.segments().len()),
            (stats(&rig.path()).unwrap().segments[0].first.0, 1),
            "{point}"
        );
        assert_eq!(keep(&rig.path()).unwrap(), within, "{point}");
    }
    keep_to(&rig.path(), Keep::ALL).unwrap();
    assert_eq!(retain(&rig.path(), u64::MAX, &NoFaults).unwrap(), None);
}
