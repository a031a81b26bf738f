//! When commits were made, as it was noted while they were: hints, for the labels of what is shipped later, perhaps hours later.
//!
//! 1. An entry says up to where in the WALs, what SQLite's running checksum was there, and when. It is believed only whole, and by who finds
//!    that checksum at that place: a torn one, or one of another WAL, says nothing.
//! 2. One at a time notes: who holds the WAL's write lock, or keeps everybody out. Who reads takes no lock, and may miss an entry.
//! 3. Its room is bounded, however long nothing is shipped: neighbours in time share an entry, with the later one's time; when there is no
//!    room, what was shipped goes, and neighbours are twice as far apart from then on.
//! 4. Nothing is asked of the kernel, nothing waited for and nothing synced: a clock that is mapped is read, a few words are stored.

use super::bells::{Ordinal, now_ms};
use super::{Tracker, at};
use std::sync::atomic::Ordering;

/// Entries that there is room for: an outage of a day has one for each 51 seconds.
pub(super) const ENTRIES: u64 = 2048;
/// Words of one: place, checksum, time, and what tells that the three belong together.
pub(super) const ENTRY_WORDS: usize = 4;
/// Commits that are closer together share an entry.
const STEP_MS: u64 = 50;
/// How often a reader looks again because entries were moved meanwhile.
const LOOKS: u32 = 8;

/// A commit whose time is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    /// Its number among all that were witnessed.
    pub place: Ordinal,
    /// The WAL's running checksum behind it.
    pub checksum: [u32; 2],
    /// When, milliseconds since 1970.
    pub time_ms: u64,
}

impl Timed {
    fn words(&self) -> [u64; ENTRY_WORDS] {
        let checksum = u64::from(self.checksum[0]) << 32 | u64::from(self.checksum[1]);
        let words = [self.place.number(), checksum, self.time_ms];
        [words[0], words[1], words[2], check(words)]
    }

    fn of_words([place, checksum, time_ms, checked]: [u64; ENTRY_WORDS]) -> Option<Self> {
        let whole = check([place, checksum, time_ms]) == checked;
        let checksum = [(checksum >> 32) as u32, checksum as u32];
        whole.then_some(Self { place: Ordinal::of_number(place), checksum, time_ms })
    }
}

/// Of entries that are closer together than this the later ones: nothing was made after the time that it gets. Times that are as far apart as
/// times can be are none: then every second one goes.
fn apart(entries: &[[u64; ENTRY_WORDS]], step_ms: u64) -> Vec<[u64; ENTRY_WORDS]> {
    if step_ms == u64::MAX {
        return entries.chunks(2).filter_map(|two| two.last().copied()).collect();
    }
    let mut left: Vec<[u64; ENTRY_WORDS]> = Vec::with_capacity(entries.len());
    for entry in entries {
        if let [.., before, last] = &mut left[..]
            && entry[2].saturating_sub(before[2]) < step_ms
        {
            *last = *entry;
        } else {
            left.push(*entry);
        }
    }
    left
}

/// Whether words belong together. Zeros do not.
fn check(words: [u64; 3]) -> u64 {
    words.into_iter().fold(0x4c49_5454_4f52_414c, |sum, word| {
        let mixed = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    })
}

impl Tracker {
    /// A commit of the WAL was made now. For who holds the WAL's write lock, or keeps everybody out.
    #[inline]
    pub fn note(&self, place: Ordinal, checksum: [u32; 2]) {
        self.note_at(place, checksum, now_ms());
    }

    /// The same at a time that somebody else says.
    pub fn note_at(&self, place: Ordinal, checksum: [u32; 2], time_ms: u64) {
        let mut count = self.get(at::TIMES).min(ENTRIES);
        if let Some(last) = count.checked_sub(1).map(|last| self.entry_words(last)) {
            // All of it was shipped; or somebody put an older WAL in this one's place.
            if last[0] <= self.get(at::DURABLE) || last[0] >= place.number() {
                self.relax(at::TIMES_STEP, STEP_MS);
                count = 0;
            }
        }
        let before = count.checked_sub(2).map(|before| self.entry_words(before)[2]);
        if before.is_some_and(|before| time_ms.saturating_sub(before) < self.step_ms()) {
            count -= 1;
        } else if count == ENTRIES {
            count = self.make_room();
        }
        self.set_entry(count, Timed { place, checksum, time_ms }.words());
        self.header.word(at::TIMES).store(count + 1, Ordering::Release);
    }

    /// A commit without a WAL was made now, and left the database's change counter at this. For who keeps everybody out.
    pub fn note_plain(&self, counter: u32) {
        let (counter, time_ms) = (u64::from(counter), now_ms());
        self.set(at::PLAIN, counter);
        self.set(at::PLAIN + 1, time_ms);
        self.set(at::PLAIN + 2, check([counter, time_ms, 0]));
    }

    /// When the commit was made that left the change counter at this, where there is no WAL.
    pub fn plain_time(&self, counter: u32) -> Option<u64> {
        let (noted, time_ms) = (self.get(at::PLAIN), self.get(at::PLAIN + 1));
        let whole = check([noted, time_ms, 0]) == self.get(at::PLAIN + 2);
        (whole && noted == u64::from(counter)).then_some(time_ms)
    }

    /// All that was noted and is whole, in the order of places. A hint: whoever uses it looks at the checksums.
    pub fn times(&self) -> Vec<Timed> {
        let mut found = Vec::new();
        for _ in 0..LOOKS {
            let turn = self.get(at::TIMES_TURN);
            let count = self.header.word(at::TIMES).load(Ordering::Acquire).min(ENTRIES);
            found = (0..count).filter_map(|nth| Timed::of_words(self.entry_words(nth))).collect();
            if turn.is_multiple_of(2) && self.get(at::TIMES_TURN) == turn {
                break;
            }
        }
        found.sort_by_key(|timed| timed.place);
        found.dedup_by_key(|timed| timed.place);
        found
    }

    /// When the newest commit was made, where this is its place: the last frame of a WAL with its checksum, or the end of the one before a
    /// WAL that has no frame yet. `None` where nobody noted it.
    pub fn time_of(&self, place: Option<Ordinal>, checksum: Option<[u32; 2]>) -> Option<u64> {
        let newest = self.times().last().copied()?;
        match (place.filter(|place| place.frame() > 0), checksum) {
            (Some(place), Some(checksum)) => {
                (newest.place == place && newest.checksum == checksum).then_some(newest.time_ms)
            }
            (Some(_), None) => None,
            (None, _) => {
                let previous = self.previous();
                let ended = Ordinal::of(self.wals().checked_sub(1)?, previous.frame);
                (previous.salts != 0 && newest.place == ended).then_some(newest.time_ms)
            }
        }
    }

    fn step_ms(&self) -> u64 {
        self.get(at::TIMES_STEP).max(STEP_MS)
    }

    fn relax(&self, at: usize, value: u64) {
        self.header.word(at).store(value, Ordering::Relaxed);
    }

    fn entry_words(&self, nth: u64) -> [u64; ENTRY_WORDS] {
        let first = at::ENTRIES + nth as usize * ENTRY_WORDS;
        std::array::from_fn(|word| self.header.word(first + word).load(Ordering::Relaxed))
    }

    fn set_entry(&self, nth: u64, words: [u64; ENTRY_WORDS]) {
        let first = at::ENTRIES + nth as usize * ENTRY_WORDS;
        words.into_iter().enumerate().for_each(|(word, value)| self.relax(first + word, value));
    }

    /// Room for one more at least: gives how many entries are left.
    #[cold]
    fn make_room(&self) -> u64 {
        // Odd while they are moved. Who dies in here leaves each entry whole or none.
        let turn = self.get(at::TIMES_TURN) | 1;
        self.set(at::TIMES_TURN, turn);
        let durable = self.get(at::DURABLE);
        let mut left: Vec<[u64; ENTRY_WORDS]> =
            (0..ENTRIES).map(|nth| self.entry_words(nth)).filter(|words| words[0] > durable).collect();
        let mut step = self.step_ms();
        while left.len() as u64 > ENTRIES / 4 * 3 {
            step = step.saturating_mul(2);
            left = apart(&left, step);
        }
        self.relax(at::TIMES_STEP, step);
        let count = left.len() as u64;
        (0..).zip(left).for_each(|(nth, words)| self.set_entry(nth, words));
        self.set(at::TIMES, count);
        self.set(at::TIMES_TURN, turn + 1);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Rig;
    use super::*;
    use littoral_types::{Epoch, Lsn, Position};

    const POSITION: Position = Position { epoch: Epoch(1), lsn: Lsn(1) };

    fn place(frame: u64) -> Ordinal {
        Ordinal::of(1, frame)
    }

    fn sum(frame: u64) -> [u32; 2] {
        [frame as u32, !frame as u32]
    }

    fn note(tracker: &Tracker, frame: u64, time_ms: u64) {
        tracker.note_at(place(frame), sum(frame), time_ms);
    }

    /// The time that a commit gets by the rule: the first that was noted at or after it.
    fn told(times: &[Timed], frame: u64) -> Option<u64> {
        times.iter().find(|timed| timed.place >= place(frame)).map(|timed| timed.time_ms)
    }

    #[test]
    fn commits_that_are_close_together_share_an_entry_and_none_gets_a_time_before_its_own_or_a_step_after_it() {
        let rig = Rig::new();
        let (tracker, other) = (rig.attach(), rig.attach());
        let made: Vec<(u64, u64)> = (1..=4000).map(|nth| (nth, 1_000_000 + nth * 7 + nth % 3 * 2)).collect();
        made.iter().for_each(|(frame, time)| note(&tracker, *frame, *time));
        // Another process reads them.
        let times = other.times();
        assert!(times.len() > 500 && times.len() < 1300, "{}", times.len());
        for (frame, time) in made {
            let told = told(&times, frame).unwrap();
            assert!(told >= time && told < time + STEP_MS + 30, "{frame}: {told}, made {time}");
        }
        assert!(times.iter().all(|timed| timed.checksum == sum(timed.place.frame())));
    }

    #[test]
    fn a_day_without_an_object_store_is_told_to_the_minute_in_the_same_room() {
        let rig = Rig::new();
        let tracker = rig.attach();
        let day = 24 * 3600 * 1000;
        let made = (1..=day / 100).map(|nth| (nth, 5_000_000 + nth * 100));
        made.clone().for_each(|(frame, time)| note(&tracker, frame, time));
        let times = tracker.times();
        assert!(times.len() as u64 <= ENTRIES && times.len() as u64 > ENTRIES / 4, "{}", times.len());
        for (frame, time) in made.step_by(997) {
            let told = told(&times, frame).unwrap();
            assert!((time..time + 60_000).contains(&told), "{frame}: {told}, made {time}");
        }
        assert_eq!(times.last().unwrap().time_ms, 5_000_000 + day, "the newest is exact");
    }

    #[test]
    fn what_was_shipped_makes_room_and_times_are_fine_again_afterwards() {
        let rig = Rig::new();
        let tracker = rig.attach();
        (1..=ENTRIES * 3).for_each(|nth| note(&tracker, nth, nth * 100));
        assert!(tracker.step_ms() > STEP_MS);
        let last = tracker.times().last().unwrap().place;
        tracker.tell_durable(Some(last), POSITION, None);
        note(&tracker, ENTRIES * 3 + 1, ENTRIES * 300 + 100);
        assert_eq!((tracker.times().len(), tracker.step_ms()), (1, STEP_MS));
        // Shipped in part: that part goes first, before anything gets coarser.
        let first = ENTRIES * 3 + 1;
        (1..ENTRIES).for_each(|nth| note(&tracker, first + nth, (first + nth) * 100));
        tracker.tell_durable(Some(place(first + ENTRIES - 10)), POSITION, None);
        note(&tracker, first + ENTRIES, (first + ENTRIES) * 100);
        assert_eq!((tracker.times().len(), tracker.step_ms()), (10, STEP_MS));
    }

    #[test]
    fn a_clock_that_is_set_back_and_a_wal_that_went_back_lose_resolution_and_nothing_else() {
        let rig = Rig::new();
        let tracker = rig.attach();
        (1..=10).for_each(|nth| note(&tracker, nth, 900_000 + nth * 100));
        (11..=20).for_each(|nth| note(&tracker, nth, 100_000 + nth * 100));
        let times = tracker.times();
        assert_eq!(times.last().unwrap().place, place(20));
        assert!(times.is_sorted_by_key(|timed| timed.place));
        note(&tracker, 5, 910_000);
        assert_eq!(tracker.times(), [Timed { place: place(5), checksum: sum(5), time_ms: 910_000 }]);
    }

    #[test]
    fn whatever_is_torn_or_garbage_is_no_entry() {
        let rig = Rig::new();
        let tracker = rig.attach();
        (1..=50).for_each(|nth| note(&tracker, nth, nth * 100));
        let whole = tracker.times();
        // A word of one of them is another.
        for word in 0..ENTRY_WORDS {
            let at = at::ENTRIES + 7 * ENTRY_WORDS + word;
            let before = tracker.get(at);
            for bit in 0..64 {
                tracker.set(at, before ^ 1 << bit);
                assert_eq!(tracker.times().len(), whole.len() - 1, "word {word}, bit {bit}");
            }
            tracker.set(at, before);
        }
        assert_eq!(tracker.times(), whole);
        // All of it is noise, and says that there is more than there is room for.
        let mut noise = 1_u64;
        for at in at::ENTRIES..at::ENTRIES + ENTRIES as usize * ENTRY_WORDS {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            tracker.set(at, noise);
        }
        tracker.set(at::TIMES, u64::MAX);
        tracker.set(at::TIMES_TURN, 3);
        assert_eq!(tracker.times(), []);
        assert_eq!(tracker.time_of(Some(place(50)), Some(sum(50))), None);
        // And the next commit is noted all the same.
        note(&tracker, u64::from(u32::MAX), 1_000_000);
        assert_eq!(tracker.times().last().unwrap().time_ms, 1_000_000);
    }

    #[test]
    fn a_reader_beside_a_writer_sees_whole_entries_only() {
        let rig = Rig::new();
        let (tracker, other) = (rig.attach(), rig.attach());
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| (1..=60_000).for_each(|nth| note(&tracker, nth, nth * 60)));
            let mut looks = 0;
            while !writer.is_finished() || looks < 10 {
                for timed in other.times() {
                    let frame = timed.place.frame();
                    assert_eq!((timed.checksum, timed.time_ms), (sum(frame), frame * 60));
                }
                looks += 1;
            }
        });
    }

    #[test]
    fn the_newest_commit_is_known_by_its_place_and_checksum_and_by_the_end_of_the_wal_before() {
        use super::super::WalPlace;
        let rig = Rig::new();
        let tracker = rig.attach();
        tracker.witness(WalPlace { salts: 3, frame: 9 });
        let nine = tracker.ordered(WalPlace { salts: 3, frame: 9 }).unwrap();
        tracker.note_at(nine, [1, 2], 500);
        assert_eq!(tracker.time_of(Some(nine), Some([1, 2])), Some(500));
        assert_eq!(tracker.time_of(Some(nine), Some([1, 3])), None, "another checksum");
        assert_eq!(tracker.time_of(Some(place(8)), Some([1, 2])), None, "another place");
        assert_eq!(tracker.time_of(Some(nine), None), None);
        // The WAL starts over, and nothing is in it yet; or it is taken away.
        for over in [WalPlace { salts: 4, frame: 0 }, WalPlace::default()] {
            tracker.witness(over);
            assert_eq!(tracker.time_of(tracker.ordered(over), None), Some(500));
            if over.salts == 4 {
                tracker.witness(WalPlace { salts: 4, frame: 2 });
                tracker.note_at(tracker.ordered(WalPlace { salts: 4, frame: 2 }).unwrap(), [5, 6], 500);
            }
        }
        // Something was committed without one.
        tracker.forget_previous();
        assert_eq!(tracker.time_of(None, None), None);
        tracker.note_plain(77);
        assert!(tracker.plain_time(77).is_some() && tracker.plain_time(78).is_none());
        tracker.set(at::PLAIN + 1, 1);
        assert_eq!(tracker.plain_time(77), None);
    }
}
