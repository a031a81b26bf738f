use super::*;
use littoral_types::{Lsn, PageCount, PageNo, PageSize, Seq, VolumeId};

const SIZE: u64 = 512;

fn page(number: u64) -> PageNo {
    PageNo::new(number).unwrap()
}

fn origin(newest: u64) -> Origin {
    let page_size = PageSize::new(SIZE).unwrap();
    Origin {
        volume: VolumeId([7; 16]),
        page_size,
        page_count: PageCount(1000),
        start: Seq(0),
        newest: Seq(newest),
        lsn: Lsn(5),
    }
}

fn made(root: &Path) -> (Replica, Edition) {
    let opening = Replica::opening(root).unwrap();
    let replica = Replica::open(root, &opening).unwrap();
    let edition = replica.begin(&replica.prepare().unwrap(), &origin(10)).unwrap();
    (replica, edition)
}

fn image(byte: u8) -> Vec<u8> {
    vec![byte; SIZE as usize]
}

fn read(edition: &Edition, number: u64, version: Option<u64>) -> Option<u8> {
    let mut into = image(0);
    let found = edition.read(page(number), version.map(Seq), 0, &mut into).unwrap();
    assert!(!found || into.iter().all(|byte| *byte == into[0]), "torn");
    found.then_some(into[0])
}

fn keep(edition: &Edition, number: u64, version: Option<u64>, byte: u8) {
    edition.keep(&[(page(number), version.map(Seq), &image(byte))], None, &|_, _| false).unwrap();
}

#[test]
fn s18_newer_versions_lie_in_overlays_until_nobody_reads_the_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let (_, one) = made(&dir.path().join("r"));
    let two = Edition::attach(&dir.path().join("r/1"), 1).unwrap();
    keep(&one, 3, None, b'a');
    keep(&one, 4, None, b'x');
    keep(&two, 3, Some(11), b'b');
    keep(&one, 3, Some(12), b'c');
    assert_eq!(
        [None, Some(11), Some(12), Some(13)].map(|version| read(&two, 3, version)),
        [Some(b'a'), Some(b'b'), Some(b'c'), None]
    );
    // The state 12 is the oldest that is read: what it shows is in the file now.
    one.set_newest(Seq(13), Lsn(13));
    one.raise_floor(Seq(12), &mut [page(3)].into_iter(), &[], &|_| Some(Seq(12))).unwrap();
    assert_eq!([None, Some(11), Some(12)].map(|version| read(&two, 3, version)), [Some(b'c'), None, None]);
    assert_eq!(read(&two, 4, None), Some(b'x'), "what did not change stays");
    assert_eq!(two.floor(), Seq(12));
    // A version that nobody has kept is not here.
    one.raise_floor(Seq(13), &mut [page(3)].into_iter(), &[(page(4), page(9))], &|_| Some(Seq(13))).unwrap();
    assert_eq!((read(&two, 3, None), read(&two, 4, None)), (None, None));
}

#[test]
fn an_overlay_has_few_places_and_gives_those_up_first_that_nobody_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (_, replica) = made(&dir.path().join("r"));
    for version in 11..=14 {
        keep(&replica, 3, Some(version), version as u8);
    }
    keep(&replica, 3, Some(15), 15);
    assert_eq!(read(&replica, 3, Some(15)), None, "all are read");
    let unread = |_, version| version == Seq(12);
    replica.keep(&[(page(3), Some(Seq(15)), &image(15))], None, &unread).unwrap();
    assert_eq!([12, 15, 11].map(|version| read(&replica, 3, Some(version))), [None, Some(15), Some(11)]);
    replica.keep(&[(page(3), Some(Seq(13)), &image(13))], None, &|_, _| true).unwrap();
    replica.keep(&[(page(3), Some(Seq(12)), &image(12))], None, &|_, version| version > Seq(12)).unwrap();
    assert_eq!(read(&replica, 3, Some(12)), None, "an older version never takes a newer one's place");
}

#[test]
fn what_is_dropped_is_not_here_and_what_is_used_stays_longer() {
    let dir = tempfile::tempdir().unwrap();
    let (_, replica) = made(&dir.path().join("r"));
    let unit = littoral_types::limits::EVICT_BYTES / SIZE;
    let quota = Some(4 * littoral_types::limits::EVICT_BYTES);
    let all = 8 * unit;
    for number in 1..=all {
        let image = image(number as u8);
        replica.keep(&[(page(number), None, &image)], quota, &|_, _| false).unwrap();
        // The first ones are read all the time.
        assert!(read(&replica, 1 + number % 8, None).is_none_or(|byte| u64::from(byte) == 1 + number % 8));
    }
    assert!(replica.count_held() <= 4 * unit, "{}", replica.count_held());
    assert!(replica.bytes_on_disk().unwrap() <= 5 * littoral_types::limits::EVICT_BYTES);
    assert_eq!(read(&replica, 3, None), Some(3), "used");
    let here = (1..=all).filter(|number| replica.has(page(*number), None)).count() as u64;
    assert_eq!(here, replica.count_held());
}

#[test]
fn a_process_that_is_stopped_while_it_writes_keeps_nobody_from_reading() {
    let dir = tempfile::tempdir().unwrap();
    let (_, replica) = made(&dir.path().join("r"));
    keep(&replica, 3, None, b'a');
    let stopped = File::open(dir.path().join("r/1/lock")).unwrap();
    flock(&stopped, FlockOperation::LockExclusive).unwrap();
    let began = std::time::Instant::now();
    keep(&replica, 4, None, b'b');
    replica.raise_floor(Seq(12), &mut [page(3)].into_iter(), &[], &|_| None).unwrap();
    assert_eq!((read(&replica, 3, None), read(&replica, 4, None), replica.floor()), (Some(b'a'), None, Seq(10)));
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(stopped);
    keep(&replica, 4, None, b'b');
    assert_eq!(read(&replica, 4, None), Some(b'b'));
}

#[test]
fn a_pin_holds_the_newest_state_or_is_none_and_the_dead_hold_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_, replica) = made(&dir.path().join("r"));
    let (one, two) = (replica.pin().unwrap(), replica.pin().unwrap());
    assert_eq!(replica.pinned().unwrap(), []);
    assert_eq!(replica.try_pin(&one), Some(Seq(10)));
    replica.set_newest(Seq(12), Lsn(12));
    assert_eq!(replica.try_pin(&two), Some(Seq(12)));
    assert_eq!(replica.pinned().unwrap(), [Seq(10), Seq(12)]);
    one.clear();
    assert_eq!(replica.pinned().unwrap(), [Seq(12)]);
    // What another process left that is dead.
    let left = dir.path().join("r/1/pins/999999-0-0");
    std::fs::write(&left, [9; 4096]).unwrap();
    assert_eq!(replica.pinned().unwrap(), [Seq(12)]);
    assert!(!left.exists());
    drop(two);
    assert_eq!(replica.pinned().unwrap(), []);
}

#[test]
fn one_follows_and_the_next_edition_is_for_those_who_begin_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let (replica, one) = made(&dir.path().join("r"));
    let opening = Replica::opening(&dir.path().join("r")).unwrap();
    let other = Replica::open(&dir.path().join("r"), &opening).unwrap();
    let elected = replica.elect().unwrap();
    assert!(elected.is_some() && other.elect().unwrap().is_none());
    let pin = one.pin().unwrap();
    assert_eq!(one.try_pin(&pin), Some(Seq(10)));
    let two = replica.begin(&replica.prepare().unwrap(), &origin(700)).unwrap();
    assert_eq!((replica.current(), two.number(), two.newest()), (2, 2, Seq(700)));
    assert_eq!(other.attach().unwrap().unwrap().number(), 2);
    keep(&one, 3, None, b'a');
    replica.sweep();
    assert_eq!(read(&one, 3, None), Some(b'a'));
    assert!(dir.path().join("r/1").exists(), "it is read");
    drop(pin);
    replica.sweep();
    assert!(!dir.path().join("r/1").exists() && dir.path().join("r/2").exists());
    assert_eq!(read(&one, 3, None), Some(b'a'), "who has it open has it");
    drop(elected);
    assert!(other.elect().unwrap().is_some());
}

#[test]
fn a_replica_of_another_boot_or_one_that_is_damaged_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    let (replica, one) = made(&root);
    drop(one);
    let state = root.join("1/state");
    let whole = std::fs::read(&state).unwrap();
    for len in [0, 100, 4096, whole.len() - 1] {
        std::fs::write(&state, &whole[..len]).unwrap();
        assert!(replica.attach().unwrap().is_none(), "{len}");
    }
    let mut other = whole.clone();
    other[5 * 8] ^= 1;
    std::fs::write(&state, &other).unwrap();
    assert!(replica.attach().unwrap().is_none());
    assert_eq!(replica.shown(), Some((VolumeId([7; 16]), Lsn(5))), "what it was a replica of is known all the same");
    std::fs::write(&state, &whole).unwrap();
    assert!(replica.attach().unwrap().is_some());
}

#[test]
fn s05_the_mark_of_a_replica_is_no_database_and_replaces_none() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("app.db");
    assert_eq!(mark_at(&database).unwrap(), Mark::Nothing);
    std::fs::write(&database, b"").unwrap();
    assert!(Mark::create(&database, "s3://b/x/app").unwrap());
    assert_eq!(mark_at(&database).unwrap(), Mark::Replica("s3://b/x/app".to_owned()));
    assert!(!Mark::create(&database, "s3://b/y").unwrap());
    std::fs::write(&database, b"SQLite format 3\0 and so on").unwrap();
    assert!(!Mark::create(&database, "s3://b/y").unwrap());
    assert_eq!(mark_at(&database).unwrap(), Mark::Other);
}

#[test]
fn s18_readers_never_see_a_version_that_is_not_theirs_whoever_writes_and_drops_beside_them() {
    use std::sync::atomic::AtomicBool;
    let dir = tempfile::tempdir().unwrap();
    let (_, one) = made(&dir.path().join("r"));
    let done = AtomicBool::new(false);
    // Version v of page p is the byte p + v.
    let byte = |number: u64, version: u64| (number * 31 + version * 7) as u8;
    std::thread::scope(|scope| {
        for nth in 0..3_u64 {
            let (done, root) = (&done, dir.path().join("r/1"));
            scope.spawn(move || {
                let mine = Edition::attach(&root, 1).unwrap();
                let mut round = nth;
                while !done.load(Ordering::SeqCst) {
                    round += 1;
                    let number = 1 + round * 17 % 40;
                    let version = 11 + round % 5;
                    for version in [version, version + 1] {
                        if let Some(found) = read(&mine, number, Some(version)) {
                            assert_eq!(found, byte(number, version));
                        }
                    }
                    if let Some(found) = read(&mine, number, None) {
                        assert_eq!(found, byte(number, 0));
                    }
                }
            });
        }
        for round in 0..4000_u64 {
            let (number, version) = (1 + round * 13 % 40, round % 6);
            let version = (version > 0).then_some(10 + version);
            let image = image(byte(number, version.unwrap_or(0)));
            one.keep(&[(page(number), version.map(Seq), &image)], Some(40 * SIZE), &|_, _| false).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
}
