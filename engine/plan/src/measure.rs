//! What figures of an object store say: whether it fences, how many requests at once pay, which settings fit.

/// Writers of one fresh name in a race.
pub const RACERS: usize = 8;
/// How many requests are under way at once, one width after the other.
pub const WIDTHS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Microseconds in a millisecond.
const US: u64 = 1_000;
/// A line on which a checkpoint's blobs do not keep commits waiting, in bytes a second.
const WIDE_BYTES: u64 = 20_000_000;
/// For so long a commit may well wait for the object store where none may be lost.
const BEARABLE_US: u64 = 100 * US;
/// Intervals that people write, in milliseconds.
const INTERVALS_MS: [u64; 8] = [200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];

/// What became of a race: which writers were told that they won, which do not know, and whose bytes were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Race {
    /// Those who were told that they won.
    pub won: Vec<usize>,
    /// Those whose answers were lost.
    pub unknown: Vec<usize>,
    /// Whose bytes lay there afterwards; `None` where nothing did, or bytes that nobody wrote.
    pub found: Option<usize>,
}

/// Why a store with such a race must not be written to by two; `None` where one writer won, or may have.
pub fn forks(race: &Race) -> Option<String> {
    match (race.won.as_slice(), race.found) {
        ([_, _, ..], _) => {
            Some(format!("of {RACERS} writers of one fresh name {} were told that they won", race.won.len()))
        }
        ([winner], found) if found != Some(*winner) => Some(format!(
            "of {RACERS} writers of one fresh name the one that was told that it won had not written what is there"
        )),
        ([], None) if race.unknown.is_empty() => {
            Some(format!("of {RACERS} writers of one fresh name none was told that it won"))
        }
        ([], Some(found)) if !race.unknown.contains(&found) => {
            Some(format!("of {RACERS} writers of one fresh name one was refused, and its bytes are there"))
        }
        _ => None,
    }
}

/// How long requests of one kind took, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times(Vec<u64>);

impl Times {
    /// Of these requests.
    pub fn of(mut us: Vec<u64>) -> Self {
        us.sort_unstable();
        Self(us)
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that so many in a hundred did not exceed; zero of none.
    pub fn at(&self, in_a_hundred: usize) -> u64 {
        let rank = (self.0.len() * in_a_hundred).div_ceil(100).max(1);
        self.0.get(rank - 1).or(self.0.last()).copied().unwrap_or_default()
    }
}

/// What went through with so many requests under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// How many at once.
    pub width: usize,
    /// Bytes.
    pub bytes: u64,
    /// Microseconds that they took.
    pub us: u64,
}

impl Rung {
    /// Bytes a second.
    pub const fn bytes_per_second(&self) -> u64 {
        let per_second = self.bytes as u128 * 1_000_000 / if self.us == 0 { 1 } else { self.us as u128 };
        if per_second > u64::MAX as u128 { u64::MAX } else { per_second as u64 }
    }
}

/// Whether a still wider one is worth a try: not once the last two were no better than what came before them, by a tenth.
pub fn goes_on(rungs: &[Rung]) -> bool {
    let Some((last_two, before)) = rungs.split_last_chunk::<2>().map(|(before, two)| (two, before)) else {
        return true;
    };
    before.is_empty() || widest(last_two) > widest(before) / 10 * 11
}

/// The width beyond which nothing is gained but a tenth. `None` of nothing.
pub fn pays(rungs: &[Rung]) -> Option<Rung> {
    let enough = widest(rungs) / 10 * 9;
    rungs.iter().find(|rung| rung.bytes_per_second() >= enough).copied()
}

fn widest(rungs: &[Rung]) -> u64 {
    rungs.iter().map(Rung::bytes_per_second).max().unwrap_or_default()
}

/// What settings depend on.
#[derive(Clone, Copy, Debug)]
pub struct Figures<'a> {
    /// A small object, put if absent: what a publication asks for.
    pub commit: &'a Times,
    /// A small object, fetched: what a look for news asks for.
    pub get: &'a Times,
    /// What could be sent.
    pub up: &'a [Rung],
    /// Whether what was written could be deleted.
    pub may_delete: bool,
    /// Whether requests cost nothing.
    pub is_free: bool,
}

/// A setting that fits, and the figure it follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// `sync_interval`: a publication is over before the next one is due.
    SyncInterval {
        /// Milliseconds.
        ms: u64,
        /// How long a publication takes, of a hundred the slowest.
        commit_us: u64,
    },
    /// `durability`: whether every commit may wait for the object store.
    Durability {
        /// Whether that is bearable.
        is_remote: bool,
        /// How long it waits, in the middle and of a hundred the slowest.
        commit_us: (u64, u64),
    },
    /// `close_wait`: the last close can wait for what was committed.
    CloseWait {
        /// Milliseconds.
        ms: u64,
        /// How long a publication takes, of a hundred the slowest.
        commit_us: u64,
    },
    /// `poll`: a look for news is over before the next one.
    Poll {
        /// Milliseconds.
        ms: u64,
        /// How long a look takes, of a hundred the slowest.
        get_us: u64,
    },
    /// `upload_rate`: whether blobs leave room for commits.
    UploadRate {
        /// Bytes a second, where a bound is needed.
        bytes: Option<u64>,
        /// What the line takes.
        line_bytes: u64,
    },
    /// `prune_deletes=off`: what was written here could not be deleted.
    KeepWhatIsPruned,
}

/// The settings that fit.
pub fn advise(figures: &Figures<'_>) -> Vec<Advice> {
    let (commit_us, get_us) = (figures.commit.at(99), figures.get.at(99));
    let least_ms = if figures.is_free { 200 } else { 1_000 };
    let line_bytes = widest(figures.up);
    let mut advice = vec![
        Advice::SyncInterval { ms: interval(least_ms, 2 * commit_us), commit_us },
        Advice::Durability { is_remote: commit_us <= BEARABLE_US, commit_us: (figures.commit.at(50), commit_us) },
        Advice::CloseWait { ms: interval(2_000, 4 * commit_us), commit_us },
        Advice::Poll { ms: interval(least_ms, 2 * get_us), get_us },
    ];
    if line_bytes > 0 {
        let bytes = (line_bytes < WIDE_BYTES).then(|| rounded(line_bytes / 2));
        advice.push(Advice::UploadRate { bytes, line_bytes });
    }
    if !figures.may_delete {
        advice.push(Advice::KeepWhatIsPruned);
    }
    advice
}

/// The shortest interval that people write, at least so long.
fn interval(least_ms: u64, us: u64) -> u64 {
    let ms = us.div_ceil(US).max(least_ms);
    INTERVALS_MS.into_iter().find(|interval| *interval >= ms).unwrap_or_else(|| ms.next_multiple_of(60_000))
}

/// One digit that is not zero, the smaller one.
fn rounded(bytes: u64) -> u64 {
    let unit = 10u64.pow(bytes.max(1).ilog10());
    (bytes / unit * unit).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn race(won: &[usize], unknown: &[usize], found: Option<usize>) -> Option<String> {
        forks(&Race { won: won.to_vec(), unknown: unknown.to_vec(), found })
    }

    #[test]
    fn a_race_has_one_winner_whose_bytes_are_there_or_whose_answer_was_lost() {
        assert_eq!(race(&[3], &[], Some(3)), None);
        assert_eq!(race(&[3], &[1], Some(3)), None);
        assert_eq!(race(&[], &[1, 2], Some(2)), None);
        assert_eq!(race(&[], &[1], None), None, "it did not land");
        for (won, unknown, found, word) in [
            (&[1, 2][..], &[][..], Some(2), "2 were told"),
            (&[1], &[], Some(2), "not written what is there"),
            (&[1], &[2], Some(2), "not written what is there"),
            (&[1], &[], None, "not written what is there"),
            (&[], &[], None, "none was told"),
            (&[], &[], Some(4), "was refused"),
            (&[], &[1], Some(4), "was refused"),
        ] {
            assert!(race(won, unknown, found).is_some_and(|why| why.contains(word)), "{won:?} {unknown:?} {found:?}");
        }
    }

    #[test]
    fn times_are_told_by_their_rank() {
        let times = Times::of((1..=200).rev().collect());
        assert_eq!([times.at(50), times.at(99), times.at(100)], [100, 198, 200]);
        assert_eq!([Times::of(vec![7]).at(50), Times::of(vec![7]).at(99), Times::default().at(50)], [7, 7, 0]);
    }

    fn ladder(rates: &[u64]) -> Vec<Rung> {
        rates.iter().zip(WIDTHS).map(|(rate, width)| Rung { width, bytes: rate * 1_000_000, us: 1_000_000 }).collect()
    }

    #[test]
    fn it_pays_up_to_the_width_that_reaches_what_the_line_takes() {
        let rungs = ladder(&[10, 20, 38, 70, 72, 71]);
        assert_eq!(pays(&rungs).map(|rung| (rung.width, rung.bytes_per_second())), Some((8, 70_000_000)));
        assert_eq!(pays(&[]), None);
        assert!(goes_on(&[]) && goes_on(&ladder(&[10])) && goes_on(&ladder(&[10, 10])));
        assert!(
            goes_on(&ladder(&[10, 9, 20])) && goes_on(&ladder(&[10, 20, 10])),
            "one that is no better proves nothing"
        );
        assert!(!goes_on(&ladder(&[10, 10, 10])) && !goes_on(&ladder(&[10, 70, 72, 71])));
        assert_eq!(Rung { width: 1, bytes: 5, us: 0 }.bytes_per_second(), 5_000_000);
    }

    fn advice(commit_ms: u64, get_ms: u64, up: &[u64], is_free: bool) -> Vec<Advice> {
        let times = |ms: u64| Times::of(vec![ms * US; 10]);
        advise(&Figures { commit: &times(commit_ms), get: &times(get_ms), up: &ladder(up), may_delete: true, is_free })
    }

    #[test]
    fn near_and_wide_the_defaults_fit_and_far_and_narrow_everything_takes_its_time() {
        let near = advice(35, 30, &[30, 100], false);
        assert_eq!(
            near,
            [
                Advice::SyncInterval { ms: 1_000, commit_us: 35_000 },
                Advice::Durability { is_remote: true, commit_us: (35_000, 35_000) },
                Advice::CloseWait { ms: 2_000, commit_us: 35_000 },
                Advice::Poll { ms: 1_000, get_us: 30_000 },
                Advice::UploadRate { bytes: None, line_bytes: 100_000_000 },
            ]
        );
        let far = advice(1_700, 900, &[1, 3], false);
        assert_eq!(
            far,
            [
                Advice::SyncInterval { ms: 5_000, commit_us: 1_700_000 },
                Advice::Durability { is_remote: false, commit_us: (1_700_000, 1_700_000) },
                Advice::CloseWait { ms: 10_000, commit_us: 1_700_000 },
                Advice::Poll { ms: 2_000, get_us: 900_000 },
                Advice::UploadRate { bytes: Some(1_000_000), line_bytes: 3_000_000 },
            ]
        );
        let folder = advice(3, 1, &[500], true);
        assert_eq!(folder[0], Advice::SyncInterval { ms: 200, commit_us: 3_000 });
        assert_eq!(folder[3], Advice::Poll { ms: 200, get_us: 1_000 });
    }

    #[test]
    fn whoever_may_not_delete_is_told_to_prune_without_it() {
        let none = Times::default();
        let figures = Figures { commit: &none, get: &none, up: &[], may_delete: false, is_free: true };
        assert_eq!(advise(&figures).last(), Some(&Advice::KeepWhatIsPruned));
        assert!(!advise(&Figures { may_delete: true, ..figures }).contains(&Advice::KeepWhatIsPruned));
    }

    #[test]
    fn intervals_and_rates_are_such_as_people_write() {
        assert_eq!([interval(0, 0), interval(0, 200_001), interval(0, 60_000_001)], [200, 500, 120_000]);
        assert_eq!([rounded(0), rounded(9), rounded(1_999_999), rounded(2_000_000)], [1, 9, 1_000_000, 2_000_000]);
    }
}
