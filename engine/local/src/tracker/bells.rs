//! How those who commit, the one who ships, and those who wait for that wake each other, across processes.
//!
//! 1. Who commits rings only for a shipper that has said that it sleeps: nothing is asked of the kernel otherwise.
//! 2. A place in a WAL has a number that grows with every commit, from one WAL to the next: durable is what lies at or below the
//!    number that the shipper has told.
//! 3. Whoever was elected to ship shows that it is alive whenever it is woken: one that was woken and shows nothing is stopped, or hangs.
//! 4. Whatever is told here is told again: who sleeps wakes up now and then, and who dies asleep costs others a needless ring.

use super::{Tracker, WalPlace, at};
use littoral_types::{Epoch, Lsn, Position};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A commit's number among all that were witnessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ordinal(u64);

/// A count of rings, to be slept on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard(u32);

/// SQLite counts frames with 32 bits.
const FRAME_BITS: u32 = 32;
const FRAME_MAX: u64 = u32::MAX as u64;

impl Ordinal {
    /// Which WAL it is of, in the order of all that were witnessed.
    pub fn wals(self) -> u64 {
        self.0 >> FRAME_BITS
    }

    /// Which frame of it.
    pub fn frame(self) -> u64 {
        self.0 & FRAME_MAX
    }

    /// As one word of a file; zero is none.
    pub(super) fn word(place: Option<Self>) -> u64 {
        place.map_or(0, |place| place.0)
    }

    /// Out of such a word.
    pub(super) fn of_word(word: u64) -> Option<Self> {
        (word != 0).then_some(Self(word))
    }

    /// A frame of the WAL of this number.
    pub fn of(wals: u64, frame: u64) -> Self {
        Self(wals << FRAME_BITS | frame.min(FRAME_MAX))
    }

    pub(super) const fn number(self) -> u64 {
        self.0
    }

    pub(super) const fn of_number(number: u64) -> Self {
        Self(number)
    }
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Tracker {
    /// The number of a place in the WAL that is there now. `None` for one in another WAL.
    pub fn ordered(&self, place: WalPlace) -> Option<Ordinal> {
        let wals = self.get(at::WALS);
        let same = place.salts != 0 && self.get(at::WITNESSED) == place.salts;
        let still = wals.is_multiple_of(2) && self.get(at::WALS) == wals;
        (same && still).then(|| Ordinal((wals / 2) << FRAME_BITS | place.frame.min(FRAME_MAX)))
    }

    /// How many WALs were witnessed so far.
    pub fn wals(&self) -> u64 {
        self.get(at::WALS).div_ceil(2)
    }

    /// A commit was counted: since when it waits, and whether somebody is to be woken.
    #[inline]
    pub(super) fn committed_now(&self) {
        if self.get(at::WAITING_MS) == 0 {
            self.set(at::WAITING_MS, now_ms());
        }
        // Once for each sleep: whoever was rung for looks at everything that came by then.
        if self.get(at::SLEEPS) != 0 && self.header.word(at::SLEEPS).swap(0, Ordering::SeqCst) != 0 {
            self.ring();
        }
    }

    /// Wakes the shipper.
    pub fn ring(&self) {
        self.wake(at::BELL);
    }

    /// Before the shipper looks whether there is anything to do: what it will have heard by then. From here on whoever commits rings.
    pub fn listen(&self) -> Heard {
        self.set(at::SLEEPS, 1);
        Heard(self.header.half(at::BELL).load(Ordering::SeqCst))
    }

    /// The same for who is not to be woken by commits, only by who asks.
    pub fn listen_to_requests(&self) -> Heard {
        self.set(at::SLEEPS, 0);
        Heard(self.header.half(at::BELL).load(Ordering::SeqCst))
    }

    /// The shipper sleeps until it is rung for, or for so long. Not at all if that happened since it listened.
    pub fn sleep(&self, heard: Heard, at_most: Option<Duration>) {
        self.wait(at::BELL, heard, at_most);
        self.set(at::SLEEPS, 0);
    }

    /// Somebody wants everything that is committed by now to be shipped now. Gives what is to be waited on.
    pub fn ask(&self) -> u64 {
        let asked = self.header.word(at::ASKED).fetch_add(1, Ordering::SeqCst) + 1;
        self.ring();
        asked
    }

    /// How often that was asked.
    pub fn asked(&self) -> u64 {
        self.get(at::ASKED)
    }

    /// Whether somebody asked whom nobody has answered.
    pub fn is_asked(&self) -> bool {
        self.get(at::ASKED) > self.get(at::SERVED)
    }

    /// All who had asked by then have their answer: look.
    pub fn serve(&self, asked: u64) {
        self.header.word(at::SERVED).fetch_max(asked, Ordering::SeqCst);
        self.wake(at::ANSWER);
    }

    /// Whether an attempt was made since it was asked for.
    pub fn is_served(&self, asked: u64) -> bool {
        self.get(at::SERVED) >= asked
    }

    /// What answers were heard so far, for [`Tracker::await_answer`].
    pub fn answers(&self) -> Heard {
        Heard(self.header.half(at::ANSWER).load(Ordering::SeqCst))
    }

    /// Sleeps until there is another answer, or for so long.
    pub fn await_answer(&self, heard: Heard, at_most: Duration) {
        self.wait(at::ANSWER, heard, Some(at_most));
    }

    /// Everything up to there is in the object store, which stands at this position. What was committed since was not committed before
    /// `rest_ms`, milliseconds since 1970; `None` where nobody can say.
    pub fn tell_durable(&self, place: Option<Ordinal>, position: Position, rest_ms: Option<u64>) {
        self.set(at::POSITION, position.epoch.0);
        self.set(at::POSITION + 1, position.lsn.0);
        if let Some(Ordinal(place)) = place {
            self.header.word(at::DURABLE).fetch_max(place, Ordering::SeqCst);
        }
        self.set(at::FAILED_MS, 0);
        let waited = self.get(at::WAITING_MS);
        self.set(at::WAITING_MS, 0);
        if self.commits_since() > 0 {
            self.set(at::WAITING_MS, rest_ms.unwrap_or(waited).max(1));
        }
        self.wake(at::ANSWER);
    }

    /// Since when the oldest commit waits that is not in the object store, milliseconds since 1970, or earlier.
    pub fn waiting_since(&self) -> Option<u64> {
        Some(self.get(at::WAITING_MS)).filter(|since| *since != 0 && self.commits_since() > 0)
    }

    /// Shipping failed just now.
    pub fn tell_failed(&self) {
        self.set(at::FAILED_MS, now_ms());
        self.wake(at::ANSWER);
    }

    /// For how long shipping has failed; `None` where it has not, as far as is known.
    pub fn failed_since(&self) -> Option<Duration> {
        let failed = self.get(at::FAILED_MS);
        (failed != 0).then(|| Duration::from_millis(now_ms().saturating_sub(failed)))
    }

    /// Whether the object store has the commit of this number.
    pub fn is_durable(&self, place: Ordinal) -> bool {
        self.get(at::DURABLE) >= place.0
    }

    /// The position up to which commits are in the object store, as far as anybody here has published.
    pub fn durable(&self) -> Option<Position> {
        let position = Position { epoch: Epoch(self.get(at::POSITION)), lsn: Lsn(self.get(at::POSITION + 1)) };
        (position.epoch.0 != 0).then_some(position)
    }

    /// For how long the oldest commit has waited that is not in the object store.
    pub fn waiting(&self) -> Option<Duration> {
        let since = self.get(at::WAITING_MS);
        (since != 0 && self.commits_since() > 0).then(|| Duration::from_millis(now_ms().saturating_sub(since)))
    }

    /// Up to which frame of a WAL everything is copied or in the object store.
    #[inline]
    pub fn kept(&self, of: Ordinal) -> u64 {
        let last = self.get(at::SEALED).max(self.get(at::DURABLE));
        if last >> FRAME_BITS == of.wals() { last & FRAME_MAX } else { 0 }
    }

    /// Everything up to there is copied.
    pub fn tell_sealed(&self, place: Ordinal) {
        self.header.word(at::SEALED).fetch_max(place.0, Ordering::SeqCst);
    }

    /// Nothing is copied any more, nor known to be durable: who waits for it has it published once more, or learns that it is.
    pub fn forget_sealed(&self) {
        self.set(at::SEALED, 0);
        self.set(at::DURABLE, 0);
    }

    /// Commits are written that will vanish before they are shipped, if the WAL starts over as it did before: wakes who copies them.
    #[inline]
    pub fn ask_to_seal(&self) {
        if self.get(at::SEALING) == 0 && self.header.word(at::SEALING).swap(1, Ordering::SeqCst) == 0 {
            self.wake(at::SEAL_BELL);
        }
    }

    /// Whoever was elected to ship is alive.
    pub fn beat(&self) {
        self.header.word(at::BEATS).fetch_add(1, Ordering::SeqCst);
        self.set(at::BEAT_MS, now_ms());
    }

    /// How often it has shown that: one that is alive shows it when the sealer is woken.
    pub fn beats(&self) -> u64 {
        self.get(at::BEATS)
    }

    /// Whether somebody was there to ship within this time, in whatever process.
    pub fn was_shipped(&self, within: Duration) -> bool {
        let since = now_ms().checked_sub(self.get(at::BEAT_MS));
        since.is_some_and(|since| u128::from(since) < within.as_millis())
    }

    /// Before who copies looks whether there is anything to copy.
    pub fn listen_to_seal(&self) -> Heard {
        self.set(at::SEALING, 0);
        Heard(self.header.half(at::SEAL_BELL).load(Ordering::SeqCst))
    }

    /// Who copies sleeps until he is asked, or for so long.
    pub fn sleep_to_seal(&self, heard: Heard, at_most: Duration) {
        self.wait(at::SEAL_BELL, heard, Some(at_most));
    }

    /// Wakes who copies, for whatever reason.
    pub fn wake_sealer(&self) {
        self.wake(at::SEAL_BELL);
    }

    /// The WAL is kept from starting over: at which of its frames it was for the first time.
    pub fn declined(&self, place: Ordinal) -> u64 {
        let first = self.get(at::DECLINED);
        if first >> FRAME_BITS == place.wals() {
            return first & FRAME_MAX;
        }
        self.set(at::DECLINED, place.0);
        place.frame()
    }

    fn wake(&self, at: usize) {
        let half = self.header.half(at);
        half.fetch_add(1, Ordering::SeqCst);
        futex::wake(half);
    }

    fn wait(&self, at: usize, Heard(heard): Heard, at_most: Option<Duration>) {
        futex::wait(self.header.half(at), heard, at_most);
    }
}

#[cfg(target_os = "linux")]
mod futex {
    use rustix::thread::futex::{self, Flags, Timespec};
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    /// All of them, in every process.
    pub(super) fn wake(word: &AtomicU32) {
        // It fails for nothing that is mapped.
        let _ = futex::wake(word, Flags::empty(), i32::MAX.cast_unsigned());
    }

    /// Until it is another number, or for so long; or for no reason: whoever waits looks again.
    pub(super) fn wait(word: &AtomicU32, seen: u32, at_most: Option<Duration>) {
        let at_most = at_most.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        let _ = futex::wait(word, Flags::empty(), seen, at_most.as_ref());
    }
}

#[cfg(not(target_os = "linux"))]
mod futex {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    const PAUSE: Duration = Duration::from_millis(5);

    pub(super) fn wake(_: &AtomicU32) {}

    /// Looks again and again: there is no way to sleep on memory that processes share.
    pub(super) fn wait(word: &AtomicU32, seen: u32, at_most: Option<Duration>) {
        let begun = Instant::now();
        while word.load(Ordering::SeqCst) == seen && at_most.is_none_or(|most| begun.elapsed() < most) {
            std::thread::sleep(PAUSE);
        }
    }
}
