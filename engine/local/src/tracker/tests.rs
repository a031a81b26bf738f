use super::*;
use std::collections::BTreeSet;
use tempfile::TempDir;

struct Rig {
    dir: TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("app.db"), b"one").unwrap();
        Self { dir }
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("app.db")
    }

    fn attach(&self) -> Tracker {
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
