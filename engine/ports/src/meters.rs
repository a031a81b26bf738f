//! What is counted and timed of a store's work, by all of its processes together.
//!
//! What this room promises:
//! 1. A number only ever grows, for as long as the store keeps its account: whoever looks sees a sum of all processes, dead ones included.
//! 2. Each has a place of its own among [`WORDS`] words. Places are only ever added: another version of us may count into the same account.
//! 3. What labels it is one of a few: nothing that somebody writes can make more of them.

/// So many words keep all of them.
pub const WORDS: usize = TIMED_AT + TIMED_MAX * TIMED_WORDS;

/// Places of the counters that have no labels, of those of bytes that were read, and of those of requests.
const READ_AT: usize = 24;
const REQUESTS_AT: usize = 32;
const COLD_AT: usize = 80;
const COLD_REST_AT: usize = 88;
const TIMED_AT: usize = 96;
/// Room for each: one word for each bucket, one for what is beyond them, one for the sum.
const TIMED_WORDS: usize = 20;
const TIMED_MAX: usize = 16;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// All or some bytes of an object.
    Get,
    /// An object's size.
    Head,
    /// A write that replaces.
    Put,
    /// A write that does not.
    PutNew,
    /// A blob in one piece.
    Upload,
    /// Beginning, completing or aborting a blob in parts.
    Multipart,
    /// One part of a blob.
    Part,
    /// One step of a listing.
    List,
    /// A deletion.
    Delete,
}

impl Op {
    /// All of them.
    pub const ALL: [Op; 9] =
        [Op::Get, Op::Head, Op::Put, Op::PutNew, Op::Upload, Op::Multipart, Op::Part, Op::List, Op::Delete];

    /// As a word.
    pub const fn word(self) -> &'static str {
        match self {
            Op::Get => "get",
            Op::Head => "head",
            Op::Put => "put",
            Op::PutNew => "put_new",
            Op::Upload => "upload",
            Op::Multipart => "multipart",
            Op::Part => "part",
            Op::List => "list",
            Op::Delete => "delete",
        }
    }

    /// Whether it writes: what stores ask the higher price for.
    pub const fn writes(self) -> bool {
        matches!(self, Op::Put | Op::PutNew | Op::Upload | Op::Multipart | Op::Part)
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was asked for.
    Done,
    /// An answer that is none of the above and no failure: no such object, or one is there already.
    Refused,
    /// The store asks for patience.
    Throttled,
    /// Credentials, permissions, a missing bucket.
    Denied,
    /// Anything else: nobody answered, or wrongly.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 5] =
        [Outcome::Done, Outcome::Refused, Outcome::Throttled, Outcome::Denied, Outcome::Failed];

    /// As a word.
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Throttled => "throttled",
            Outcome::Denied => "denied",
            Outcome::Failed => "failed",
        }
    }
}

/// How an object was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All of it: records, manifest snapshots.
    Whole,
    /// A part of it: frames with pages, rows of a manifest snapshot.
    Part,
    /// By a cold scan, whatever it was.
    Cold,
}

impl Reading {
    /// All of them.
    pub const ALL: [Reading; 3] = [Reading::Whole, Reading::Part, Reading::Cold];

    /// As a word.
    pub const fn word(self) -> &'static str {
        match self {
            Reading::Whole => "whole",
            Reading::Part => "part",
            Reading::Cold => "cold",
        }
    }
}

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Checkpoints that were published.
    CheckpointsSucceeded,
    /// Checkpoints that came to nothing, for whatever reason.
    CheckpointsFailed,
    /// Bytes that checkpoints staged here.
    CheckpointBytesLocal,
    /// Bytes that checkpoints sent to the object store.
    CheckpointBytesRemote,
    /// How often a checkpoint waited for somebody who was in its way.
    CheckpointWaits,
    /// How often there was no local room for something.
    QuotaExhausted,
    /// Writes to the local manifest that failed.
    ManifestWriteErrors,
    /// Segments that were published.
    SegmentsPublished,
    /// Commits that travelled in them.
    CommitsShipped,
    /// Bytes of requests that were sent.
    BytesSent,
    /// Bytes that came, by how they were read.
    BytesRead(Reading),
    /// Requests, by kind and what came of them.
    Requests(Op, Outcome),
    /// Those of cold scans among them, by what came of them.
    ColdRequests(Outcome),
    /// Milliseconds for which cold scans rested.
    ColdRestMs,
}

impl Counter {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Counter> {
        let plain = [
            Counter::CheckpointsSucceeded,
            Counter::CheckpointsFailed,
            Counter::CheckpointBytesLocal,
            Counter::CheckpointBytesRemote,
            Counter::CheckpointWaits,
            Counter::QuotaExhausted,
            Counter::ManifestWriteErrors,
            Counter::SegmentsPublished,
            Counter::CommitsShipped,
            Counter::BytesSent,
            Counter::ColdRestMs,
        ];
        let read = Reading::ALL.map(Counter::BytesRead);
        let asked = Op::ALL.into_iter().flat_map(|op| Outcome::ALL.map(|outcome| Counter::Requests(op, outcome)));
        plain.into_iter().chain(read).chain(asked).chain(Outcome::ALL.map(Counter::ColdRequests))
    }

    /// Its word.
    pub const fn place(self) -> usize {
        match self {
            Counter::CheckpointsSucceeded => 0,
            Counter::CheckpointsFailed => 1,
            Counter::CheckpointBytesLocal => 2,
            Counter::CheckpointBytesRemote => 3,
            Counter::CheckpointWaits => 4,
            Counter::QuotaExhausted => 5,
            Counter::ManifestWriteErrors => 6,
            Counter::SegmentsPublished => 7,
            Counter::CommitsShipped => 8,
            Counter::BytesSent => 9,
            Counter::BytesRead(reading) => READ_AT + reading as usize,
            Counter::Requests(op, outcome) => REQUESTS_AT + op as usize * Outcome::ALL.len() + outcome as usize,
            Counter::ColdRequests(outcome) => COLD_AT + outcome as usize,
            Counter::ColdRestMs => COLD_REST_AT,
        }
    }
}

/// Where a page came from that was not in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// It had come along with something else, and lay in memory.
    Memory,
    /// The object store was asked.
    Remote,
}

impl Tier {
    /// Both.
    pub const ALL: [Tier; 2] = [Tier::Memory, Tier::Remote];

    /// As a word.
    pub const fn word(self) -> &'static str {
        match self {
            Tier::Memory => "memory",
            Tier::Remote => "remote",
        }
    }
}

/// What is done when a writer opens a volume, before anything is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// A publication that a killed predecessor had begun is finished.
    Intent,
    /// What is known here is compared with the log's end.
    Tail,
    /// The local manifest is made anew from the object store.
    Manifest,
}

impl Recovery {
    /// All of them.
    pub const ALL: [Recovery; 3] = [Recovery::Intent, Recovery::Tail, Recovery::Manifest];

    /// As a word.
    pub const fn word(self) -> &'static str {
        match self {
            Recovery::Intent => "intent",
            Recovery::Tail => "tail",
            Recovery::Manifest => "manifest",
        }
    }
}

/// Something that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// A checkpoint that was published, from its first look to its record.
    Checkpoint,
    /// A page that somebody waited for.
    PageFetch(Tier),
    /// A phase of opening a volume to write.
    Recovery(Recovery),
}

impl Timed {
    /// Its first word.
    const fn place(self) -> usize {
        let nth = match self {
            Timed::Checkpoint => 0,
            Timed::PageFetch(tier) => 1 + tier as usize,
            Timed::Recovery(phase) => 4 + phase as usize,
        };
        TIMED_AT + nth * TIMED_WORDS
    }

    /// The word that counts one that took so long, and the one that sums them up.
    pub fn places(self, us: u64) -> (usize, usize) {
        let bucket = BUCKETS_MS.iter().position(|ms| us <= ms * 1000).unwrap_or(BUCKETS_MS.len());
        (self.place() + bucket, self.place() + BUCKETS_MS.len() + 1)
    }
}

/// Upper bounds of what falls into one bucket, in milliseconds.
pub const BUCKETS_MS: [u64; 18] =
    [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000];

/// How long something took, all times together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// How many took no longer than each bound of [`BUCKETS_MS`] and longer than the one before; at last those that took longer than all.
    pub buckets: Vec<u64>,
    /// Their sum, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// How many.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.saturating_add(*bucket))
    }
}

/// Everything that was counted and timed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meters(Vec<u64>);

impl Default for Meters {
    fn default() -> Self {
        Self(vec![0; WORDS])
    }
}

impl Meters {
    /// As its words are.
    pub fn of(word: impl FnMut(usize) -> u64) -> Self {
        Self((0..WORDS).map(word).collect())
    }

    /// A counter.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.0.get(counter.place()).copied().unwrap_or(0)
    }

    /// How long something took.
    pub fn timed(&self, timed: Timed) -> Histogram {
        let at = timed.place();
        let buckets = self.0.get(at..=at + BUCKETS_MS.len()).unwrap_or_default().to_vec();
        Histogram { buckets, sum_us: self.0.get(at + BUCKETS_MS.len() + 1).copied().unwrap_or(0) }
    }
}

const _: () = assert!(BUCKETS_MS.len() + 2 <= TIMED_WORDS, "a time has too many buckets");
const _: () = assert!(REQUESTS_AT + Op::ALL.len() * Outcome::ALL.len() <= COLD_AT, "requests have too many kinds");
const _: () =
    assert!(COLD_AT + Outcome::ALL.len() <= COLD_REST_AT && COLD_REST_AT < TIMED_AT, "requests have too many outcomes");
const _: () = assert!(READ_AT + Reading::ALL.len() <= REQUESTS_AT, "there are too many ways to read");
const _: () = assert!(4 + Recovery::ALL.len() <= TIMED_MAX, "too much is timed");

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn everything_that_is_counted_has_a_place_of_its_own() {
        let mut taken = BTreeSet::new();
        for counter in Counter::all() {
            assert!(counter.place() < TIMED_AT && taken.insert(counter.place()), "{counter:?}");
        }
        let phases = Recovery::ALL.map(Timed::Recovery);
        for timed in [Timed::Checkpoint].into_iter().chain(Tier::ALL.map(Timed::PageFetch)).chain(phases) {
            for us in BUCKETS_MS.map(|ms| ms * 1000).into_iter().chain([u64::MAX]) {
                let (bucket, sum) = timed.places(us);
                assert!(bucket < sum && sum < WORDS && taken.insert(bucket), "{timed:?} {us}");
            }
            assert!(taken.insert(timed.places(0).1), "{timed:?}");
        }
    }

    #[test]
    fn a_time_falls_into_the_first_bucket_that_holds_it() {
        let mut words = vec![0; WORDS];
        for us in [0, 1_000, 1_001, 700_000_000, 700_000_000] {
            let (bucket, sum) = Timed::Checkpoint.places(us);
            words[bucket] += 1;
            words[sum] += us;
        }
        let timed = Meters::of(|at| words[at]).timed(Timed::Checkpoint);
        assert_eq!((timed.count(), timed.sum_us), (5, 1_400_002_001));
        assert_eq!((timed.buckets[0], timed.buckets[1], timed.buckets[BUCKETS_MS.len()]), (2, 1, 2));
        assert_eq!(Meters::default().timed(Timed::Checkpoint).count(), 0);
    }
}
