use super::*;
use std::collections::BTreeSet;
use tempfile::TempDir;

pub(super) struct Rig {
    dir: TempDir,
}

impl Rig {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("app.db"), b"one").unwrap();
        Self { dir }
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("app.db")
    }

    pub(super) fn attach(&self) -> Tracker {
        let path = Tracker::path_of(&self.dir.path().join(".littoral"), &self.database());
        Tracker::attach(&path, Trace::of(&self.database())).unwrap()
    }

    /// One that knows everything: as after a checkpoint.
    fn known(&self) -> Tracker {
        let tracker = self.attach();
        settle(&tracker);
        tracker
    }
}

const BASIS: Basis =
    Basis { volume: VolumeId([7; 16]), generation: Generation(3), wal: WalPlace { salts: 5, frame: 6 } };

fn settle(tracker: &Tracker) {
    let marks = tracker.begin();
    tracker.published(BASIS, marks.commits);
}

#[test]
fn a_new_tracker_knows_nothing_and_one_after_a_checkpoint_everything() {
    let rig = Rig::new();
    let tracker = rig.attach();
    assert_eq!(tracker.basis(), None);
    assert_eq!(tracker.begin().basis, None);
    tracker.put_back();
    assert_eq!(tracker.begin().basis, None, "an aborted checkpoint teaches nothing");
    tracker.published(BASIS, 0);
    tracker.mark(0, 1);
    tracker.mark(UNIT * BLOCK_UNITS * BLOCKS_STEP * 3 - 1, 2);
    tracker.mark(5 * UNIT - 1, 1);
    tracker.count_commit();
    let far = BLOCK_UNITS * BLOCKS_STEP * 3;
    let marks = tracker.begin();
    assert_eq!((marks.basis, marks.units, marks.cut), (Some(BASIS), vec![0, 4, far - 1, far], None));
    assert_eq!((marks.commits, marks.commits_before), (1, 0));
}

#[test]
fn s10_marks_set_while_a_checkpoint_runs_survive_its_publication() {
    let rig = Rig::new();
    let tracker = rig.known();
    tracker.mark(0, 1);
    assert_eq!(tracker.begin().units, [0]);
    tracker.mark(0, 1);
    tracker.mark(UNIT, 1);
    tracker.mark_cut(7);
    let meanwhile = tracker.drain();
    assert_eq!((meanwhile.units, meanwhile.cut), (vec![0, 1], Some(7)));
    assert_eq!(tracker.drain().units, []);
    tracker.mark(0, 1);
    tracker.mark(UNIT, 1);
    tracker.mark_cut(7);
    tracker.published(BASIS, 0);
    let marks = tracker.begin();
    assert_eq!((marks.units, marks.cut), (vec![0, 1], Some(7)));
    tracker.mark(9 * UNIT, 1);
    // Not published: all of it counts again, and again after a process that died in the middle.
    tracker.put_back();
    assert_eq!(tracker.begin().units, [0, 1, 9]);
    let marks = tracker.begin();
    assert_eq!((marks.units, marks.cut), (vec![0, 1, 9], Some(7)));
    tracker.published(BASIS, 0);
    assert_eq!(tracker.begin().units, []);
}

#[test]
fn s10_what_was_drained_counts_again_when_nothing_was_published() {
    let rig = Rig::new();
    let tracker = rig.known();
    tracker.mark(0, 1);
    tracker.begin();
    tracker.mark(3 * UNIT, 1);
    tracker.mark_cut(9);
    tracker.drain();
    tracker.put_back();
    let marks = tracker.begin();
    assert_eq!((marks.units, marks.cut), (vec![0, 3], Some(9)));
}

#[test]
fn s10_no_mark_is_lost_between_writers_and_checkpoints() {
    let rig = Rig::new();
    let (writer, checkpointer) = (rig.known(), rig.attach());
    let seen = std::thread::scope(|scope| {
        let marking = scope.spawn(|| (0..20_000_u64).for_each(|unit| writer.mark(unit * UNIT, 1)));
        let mut seen = BTreeSet::new();
        let mut round = 0;
        while !marking.is_finished() || round % 3 != 0 {
            let mut marks = checkpointer.begin();
            marks.units.extend(checkpointer.drain().units);
            round += 1;
            if round % 3 == 0 {
                checkpointer.put_back();
            } else {
                seen.extend(marks.units);
                checkpointer.published(BASIS, 0);
            }
        }
        seen.extend(checkpointer.begin().units);
        seen
    });
    assert_eq!(seen.len(), 20_000, "the first that is missing: {:?}", (0..20_000).find(|unit| !seen.contains(unit)));
}

/// Writers and checkpoints in an order drawn from a seed, with this as what a checkpoint does when it was published. What is in no
/// checkpoint that was published, and is not looked at again, is lost: the first such unit.
fn lost(seed: u64, published: fn(&Tracker)) -> Option<u64> {
    const UNITS: usize = 40;
    let rig = Rig::new();
    let tracker = rig.known();
    let mut state = seed;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    // How often each was written, how often as of what is in the object store, and what a checkpoint that runs has read.
    let (mut written, mut safe) = ([0; UNITS], [0; UNITS]);
    let mut read: Option<Vec<(usize, u64)>> = None;
    for _ in 0..60 {
        match (below(8), &mut read) {
            (0..5, _) => {
                let unit = below(UNITS as u64);
                tracker.mark(unit * UNIT, 1);
                written[unit as usize] += 1;
            }
            (5, Some(read)) => {
                read.extend(tracker.drain().units.iter().map(|unit| (*unit as usize, written[*unit as usize])));
            }
            (_, None) => {
                let marks = tracker.begin();
                read = Some(marks.units.iter().map(|unit| (*unit as usize, written[*unit as usize])).collect());
            }
            (6, Some(_)) => {
                read = None;
                tracker.put_back();
            }
            (_, Some(_)) => {
                published(&tracker);
                read.take().into_iter().flatten().for_each(|(unit, version)| safe[unit] = version);
            }
        }
    }
    tracker.put_back();
    let left = tracker.begin().units;
    (0..UNITS).find(|unit| safe[*unit] != written[*unit] && !left.contains(&(*unit as u64))).map(|unit| unit as u64)
}

#[test]
fn s10_a_publication_that_clears_the_wrong_bank_is_caught() {
    let right = |tracker: &Tracker| tracker.published(BASIS, 0);
    // What ships, run with the banks taken for one another.
    let wrong = |tracker: &Tracker| {
        let bank = tracker.bank() as u64;
        tracker.set(at::ACTIVE, 1 - bank);
        tracker.published(BASIS, 0);
        tracker.set(at::ACTIVE, bank);
    };
    assert_eq!((0..100).find_map(|seed| lost(seed, right)), None);
    let caught = (0..100).filter(|seed| lost(*seed, wrong).is_some()).count();
    assert!(caught > 50, "only {caught} of 100 schedules notice it");
}

#[test]
fn s07_a_change_while_nobody_looked_is_noticed() {
    let rig = Rig::new();
    let tracker = rig.known();
    tracker.mark(0, 1);
    tracker.leave(Trace::of(&rig.database()));
    drop(tracker);
    // Nobody touched it: what was known is known.
    let tracker = rig.attach();
    assert_eq!(tracker.basis(), Some(BASIS));
    assert_eq!(tracker.begin().units, [0]);
    tracker.put_back();
    tracker.leave(Trace::of(&rig.database()));
    drop(tracker);
    // As many bytes as before, and the same moment by the clock that people can set.
    let before = std::fs::metadata(rig.database()).unwrap().modified().unwrap();
    std::fs::write(rig.database(), b"two").unwrap();
    File::options().write(true).open(rig.database()).unwrap().set_modified(before).unwrap();
    assert_eq!(rig.attach().basis(), None);
}

#[test]
fn s07_another_file_in_its_place_is_noticed() {
    let rig = Rig::new();
    let tracker = rig.known();
    tracker.leave(Trace::of(&rig.database()));
    std::fs::write(rig.dir.path().join("other"), b"one").unwrap();
    std::fs::rename(rig.dir.path().join("other"), rig.database()).unwrap();
    assert_eq!(rig.attach().basis(), None);
}

#[test]
fn who_dies_without_a_goodbye_leaves_nothing_that_is_known_and_who_joins_others_learns_what_they_know() {
    let rig = Rig::new();
    let one = rig.known();
    let two = rig.attach();
    assert_eq!(two.basis(), Some(BASIS));
    // One goes and the other stays: nothing is written down yet.
    one.leave(Trace::of(&rig.database()));
    drop(one);
    std::fs::write(rig.database(), b"changed by the one that stays").unwrap();
    two.leave(Trace::of(&rig.database()));
    drop(two);
    let three = rig.attach();
    assert_eq!(three.basis(), Some(BASIS));
    drop(three);
    assert_eq!(rig.attach().basis(), None, "three never said goodbye");
}

#[test]
fn a_damaged_or_short_file_begins_anew_and_knows_nothing() {
    let rig = Rig::new();
    let tracker = rig.known();
    let path = tracker.path().to_owned();
    tracker.leave(Trace::of(&rig.database()));
    drop(tracker);
    for len in [0, 1, 8, 100] {
        std::fs::write(&path, vec![0x5a; len]).unwrap();
        let tracker = rig.attach();
        assert_eq!(tracker.basis(), None);
        tracker.mark(0, 1);
        settle(&tracker);
        tracker.mark(UNIT, 1);
        assert_eq!(tracker.begin().units, [1]);
    }
}

#[test]
fn p04_a_fence_reaches_everybody_who_has_the_database_open() {
    let rig = Rig::new();
    let (one, two) = (rig.attach(), rig.attach());
    assert!(!two.is_fenced());
    let name = "büro:/srv/app ".repeat(100);
    one.fence(Epoch(5), &name);
    assert!(two.is_fenced());
    let (epoch, owner) = two.fenced().unwrap();
    assert_eq!(epoch, Epoch(5));
    assert!(name.starts_with(&owner) && owner.len() > FENCE_TEXT - 4, "{owner}");
    one.unfence();
    assert_eq!(two.fenced(), None);
}

#[test]
fn s19_no_room_for_marks_is_no_crash_and_nothing_is_known_then() {
    let rig = Rig::new();
    let tracker = rig.known();
    // Beyond all that can be tracked.
    tracker.mark(u64::MAX - UNIT, UNIT);
    assert_eq!(tracker.begin().basis, None);
}

#[test]
fn p09_what_is_left_of_a_batch_waits_since_no_later_than_it_was_committed_and_what_was_let_go_is_known_until_all_of_it_is_there()
 {
    let rig = Rig::new();
    let tracker = rig.known();
    let position = littoral_types::Position { epoch: Epoch(1), lsn: littoral_types::Lsn(4) };
    for _ in 0..2 {
        tracker.count_commit();
    }
    let since = tracker.waiting_since().unwrap();
    tracker.tell_dropped(Dropped::Room);
    tracker.shipped(1, false);
    tracker.tell_durable(None, position, None);
    assert_eq!(tracker.waiting_since(), Some(since), "nobody knows that the second one is younger");
    assert!(tracker.dropped().is_some(), "the second one was let go");
    tracker.tell_durable(None, position, Some(since + 5));
    assert_eq!(tracker.waiting_since(), Some(since + 5));
    tracker.shipped(2, true);
    tracker.tell_durable(None, position, Some(since + 9));
    assert!(tracker.waiting_since().is_none() && tracker.dropped().is_none());
}

#[test]
fn s07_what_we_did_to_a_file_ourselves_is_nobody_elses_doing_unless_it_was_not_left_in_order_or_is_another_file() {
    let rig = Rig::new();
    let path = Tracker::path_of(&rig.dir.path().join(".littoral"), &rig.database());
    let now = || Trace::of(&rig.database());
    // The clock that files have is a coarse one.
    let changed = || {
        let before = now();
        while now() == before {
            std::fs::write(rig.database(), b"one").unwrap();
        }
    };
    rig.known().leave(now());
    changed();
    Tracker::explain(&path, now());
    let tracker = rig.attach();
    assert!(tracker.basis().is_some(), "it was told of");
    // Somebody has it: he finds out for himself.
    Tracker::explain(&path, now());
    tracker.leave(now());
    changed();
    let tracker = rig.attach();
    assert!(tracker.basis().is_none() && tracker.is_foreign(), "nobody told of it");
    drop(tracker);
    // Whoever was killed has left nothing that could be told of.
    changed();
    Tracker::explain(&path, now());
    assert!(rig.attach().basis().is_none());
    let tracker = rig.known();
    tracker.leave(now());
    let other = rig.dir.path().join("other");
    std::fs::write(&other, b"another").unwrap();
    std::fs::rename(other, rig.database()).unwrap();
    Tracker::explain(&path, now());
    assert!(rig.attach().basis().is_none(), "another file");
}

#[test]
fn s07_what_a_checkpoint_compared_again_because_somebody_came_meanwhile_is_known_after_it() {
    let rig = Rig::new();
    let tracker = rig.known();
    let basis = tracker.begin().basis.unwrap();
    tracker.mark_foreign();
    assert!(tracker.drain().basis.is_none(), "all pages are read again");
    tracker.published(basis, 0);
    assert_eq!(tracker.basis(), Some(basis));
    tracker.begin();
    tracker.mark_foreign();
    tracker.drain();
    tracker.put_back();
    assert!(tracker.basis().is_none() && tracker.is_foreign(), "it was not published");
}

#[test]
fn s13_what_is_told_to_be_durable_is_so_in_the_order_of_all_wals_and_not_after_one_went_back() {
    let rig = Rig::new();
    let tracker = rig.known();
    let at = |salts, frame| WalPlace { salts, frame };
    let position = littoral_types::Position { epoch: Epoch(1), lsn: littoral_types::Lsn(4) };
    let witnessed = |salts, frame| {
        tracker.witness(at(salts, frame));
        tracker.ordered(at(salts, frame)).unwrap()
    };
    let first = witnessed(10, 40);
    tracker.tell_durable(Some(first), position, None);
    assert!(tracker.is_durable(first) && tracker.durable() == Some(position));
    let next = witnessed(10, 41);
    assert!(!tracker.is_durable(next));
    // Another WAL, with fewer frames: newer all the same. The old one's places have no number any more.
    let over = witnessed(11, 3);
    assert!(over > next && !tracker.is_durable(over) && tracker.ordered(at(10, 40)).is_none());
    assert_eq!(tracker.previous(), at(10, 41));
    tracker.tell_durable(Some(over), position, None);
    assert!(tracker.is_durable(next), "what came before is there with it");
    tracker.tell_sealed(witnessed(11, 9));
    assert_eq!(tracker.kept(tracker.ordered(at(11, 9)).unwrap()), 9);
    // Somebody put an older state of the same WAL in its place.
    let again = witnessed(11, 2);
    assert!(!tracker.is_durable(again) && tracker.kept(again) == 0);
    assert_eq!(tracker.previous().salts, 0, "and what follows, follows from nothing");
}

#[test]
fn p09_what_was_let_go_is_known_to_everybody_until_it_was_published_and_who_wrote_past_us_is_told_from_who_died() {
    let rig = Rig::new();
    let (one, two) = (rig.known(), rig.attach());
    one.tell_dropped(Dropped::Late);
    assert_eq!(two.dropped(), None, "there is nothing that could have been let go");
    one.count_commit();
    let since = one.waiting_since().unwrap();
    one.tell_dropped(Dropped::Room);
    one.count_commit();
    two.tell_dropped(Dropped::Late);
    assert_eq!(two.dropped(), Some((Dropped::Room, since)), "the first reason stays");
    let marks = one.begin();
    one.put_back();
    assert!(two.dropped().is_some(), "nothing was published");
    one.published(BASIS, marks.commits);
    assert_eq!(two.dropped(), None);
    // Somebody wrote past us, or nobody knows.
    assert!(!one.is_foreign());
    one.mark_unknown();
    assert!(!one.is_foreign() && one.basis().is_none());
    one.mark_foreign();
    one.mark_unknown();
    assert!(two.is_foreign());
    one.begin();
    one.put_back();
    assert!(two.is_foreign(), "an interrupted checkpoint forgot why");
    settle(&one);
    assert!(!two.is_foreign() && two.basis().is_some());
    two.leave(Trace::of(&rig.database()));
    one.leave(Trace::of(&rig.database()));
    drop((one, two));
    std::fs::write(rig.database(), b"foreign").unwrap();
    let three = rig.attach();
    assert!(three.is_foreign());
    settle(&three);
    drop(three);
    let four = rig.attach();
    assert!(four.basis().is_none() && !four.is_foreign(), "it died without a goodbye");
}

#[test]
fn the_page_of_formats_names_every_word() {
    let page = include_str!("../../../../docs/format.md");
    let (_, page) = page.split_once("## Tracker").unwrap();
    let (page, _) = page.split_once("\n## ").unwrap();
    let rows: BTreeSet<(usize, usize)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|line| line.split(" |").next())
        .filter_map(|words| match words.split_once(" to ") {
            None => words.parse().ok().map(|word| (word, word)),
            Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        })
        .collect();
    let last = HEADER_BYTES as usize / WORD - 1;
    let used = [
        (at::MAGIC, 1),
        (at::ACTIVE, 1),
        (at::UNKNOWN, 2),
        (at::CUT, 2),
        (at::COMMITS, 1),
        (at::BLOCKS, 1),
        (at::DETACHED, 1),
        (at::TRACE, 5),
        (at::BOOT, 2),
        (at::BASE_SET, 1),
        (at::BASE_VOLUME, 2),
        (at::BASE_GENERATION, 1),
        (at::BASE_COMMITS, 1),
        (at::BASE_WAL, 2),
        (at::FENCED, 1),
        (at::FENCE_LEN, 1),
        (at::FENCE_TEXT, FENCE_TEXT / WORD),
        (at::WITNESSED, 2),
        (at::DRAINS, 1),
        (at::COUNTER, 1),
        (at::FILE, 2),
        (at::SHIPPED, 1),
        (at::PREVIOUS, 2),
        (at::WALS, 1),
        (at::DURABLE, 1),
        (at::POSITION, 2),
        (at::WAITING_MS, 1),
        (at::SLEEPS, at::BELL - at::SLEEPS + 1),
        (at::ASKED, at::ANSWER - at::ASKED + 1),
        (at::FAILED_MS, 1),
        (at::SEALED, 1),
        (at::DECLINED, 1),
        (at::SEALING, at::SEAL_BELL - at::SEALING + 1),
        (at::TIMES, at::TIMES_STEP - at::TIMES + 1),
        (at::PLAIN, 3),
        (at::DROPPED, 2),
        (at::ENTRIES, last - at::ENTRIES + 1),
    ];
    let used: BTreeSet<(usize, usize)> = used.into_iter().map(|(first, words)| (first, first + words - 1)).collect();
    assert_eq!(rows, used);
    assert!(used.iter().zip(used.iter().skip(1)).all(|(one, next)| one.1 < next.0), "words that are used twice");
    assert!(page.contains(std::str::from_utf8(&MAGIC.to_le_bytes()).unwrap()) && page.contains(SUFFIX));
}
