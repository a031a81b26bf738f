//! "Am I safe?": whether what was committed to a database would survive the loss of its machine, in one word, with every reason.

/// The word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Safety {
    /// Everything is in the object store, or is on its way there as it always is.
    Safe,
    /// Something should be looked at: nothing would be lost now that is not expected to be.
    Watch,
    /// What is lost with this machine is more than anybody asked for.
    Unsafe,
}

impl Safety {
    /// All of them, the best first.
    pub const ALL: [Safety; 3] = [Safety::Safe, Safety::Watch, Safety::Unsafe];

    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Safety::Safe => "safe",
            Safety::Watch => "watch",
            Safety::Unsafe => "unsafe",
        }
    }
}

/// How a database stands, as far as that bears on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is a log, to which records are appended, and no database.
    pub is_log: bool,
    /// Whether anything of it was ever published.
    pub is_published: bool,
    /// Commits that are counted and not in the object store.
    pub commits_waiting: u64,
    /// For how long the oldest of them has waited, in milliseconds.
    pub waiting_ms: u64,
    /// How long commits are to wait for others before they travel together; `None` where they travel only when they are asked to.
    pub interval_ms: Option<u64>,
    /// Whether somebody is there who ships them.
    pub is_shipped: bool,
    /// Why they could not be published, the last time.
    pub trouble: Option<String>,
    /// Who took the volume over, where somebody did.
    pub fenced_by: Option<String>,
    /// Whether its term ended in order: nothing travels until it is claimed anew.
    pub is_released: bool,
    /// Why commits that wait cannot be told apart any more.
    pub gap: Option<String>,
    /// What verification and drills found wrong.
    pub problems: Vec<String>,
    /// Jobs that were given up.
    pub jobs_dead: u64,
    /// Why a chore fails: a prune, a verification, a drill.
    pub chores: Vec<String>,
    /// Copies that cannot be brought up to the primary, and why.
    pub copies: Vec<String>,
}

/// So much longer than the interval a commit may wait before somebody is told; and so long at least.
const LATE_TIMES: u64 = 5;
const LATE_MS: u64 = 10_000;
/// After so long what waits is more than anybody asked to lose, whatever the interval.
const LOST_TIMES: u64 = 30;
const LOST_MS: u64 = 60_000;

/// The word, and its reasons, the worst first. One that is safe has one, too.
pub fn safety(stands: &Standing) -> (Safety, Vec<(Safety, String)>) {
    let mut reasons = Vec::new();
    let mut say = |safety: Safety, text: String| reasons.push((safety, text));
    if !stands.is_published {
        say(Safety::Unsafe, "nothing of it was ever published".to_owned());
    }
    for problem in &stands.problems {
        say(Safety::Unsafe, format!("what is published is not sound: {problem}"));
    }
    if let Some(owner) = &stands.fenced_by {
        say(Safety::Unsafe, format!("{owner} took over: what is committed here is not published any more"));
    }
    if let Some(gap) = &stands.gap {
        say(Safety::Watch, format!("commits that wait cannot be told apart until the next checkpoint: {gap}"));
    }
    let seconds = stands.waiting_ms / 1000;
    let one = if stands.is_log { "record" } else { "commit" };
    let waits = match stands.commits_waiting {
        1 => format!("1 {one} has waited for {seconds} s"),
        many => format!("{many} {one}s wait, the oldest for {seconds} s"),
    };
    let why = stands.trouble.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    match (stands.commits_waiting, stands.interval_ms, &stands.fenced_by) {
        (0, ..) | (_, _, Some(_)) => {}
        (_, _, None) if stands.is_released => {
            say(
                Safety::Unsafe,
                format!("{waits}, and the volume was released: nothing travels until it is claimed anew"),
            );
        }
        (_, None, None) if stands.waiting_ms >= LOST_MS => {
            say(Safety::Unsafe, format!("{waits}, and travel only when they are asked to (sync_interval=off)"));
        }
        (_, None, None) => {
            say(Safety::Watch, format!("{waits}, and travel only when they are asked to (sync_interval=off)"))
        }
        (_, Some(interval), None) => {
            let late = LATE_MS.max(interval.saturating_mul(LATE_TIMES));
            let lost = LOST_MS.max(interval.saturating_mul(LOST_TIMES));
            if stands.waiting_ms >= lost {
                say(Safety::Unsafe, format!("{waits}{why}"));
            } else if !stands.is_shipped && stands.waiting_ms >= late.min(LATE_MS) {
                say(Safety::Watch, format!("{waits}, and nobody is there to ship them{why}"));
            } else if stands.waiting_ms >= late {
                say(Safety::Watch, format!("{waits}{why}"));
            }
        }
    }
    if stands.jobs_dead > 0 {
        say(Safety::Watch, format!("{} given up: littoral jobs list says why", jobs(stands.jobs_dead)));
    }
    stands.chores.iter().chain(&stands.copies).for_each(|why| say(Safety::Watch, why.clone()));
    reasons.sort_by_key(|(safety, _)| std::cmp::Reverse(*safety));
    match reasons.first() {
        Some((worst, _)) => (*worst, reasons),
        None => {
            let text = match stands.commits_waiting {
                0 => "everything that was committed is in the object store".to_owned(),
                _ => "what was committed is on its way to the object store, as it always is".to_owned(),
            };
            (Safety::Safe, vec![(Safety::Safe, text)])
        }
    }
}

fn jobs(count: u64) -> String {
    if count == 1 { "1 job was".to_owned() } else { format!("{count} jobs were") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Standing {
        Standing { is_published: true, interval_ms: Some(1_000), is_shipped: true, ..Standing::default() }
    }

    fn waits(ms: u64) -> Standing {
        Standing { commits_waiting: 3, waiting_ms: ms, ..well() }
    }

    #[test]
    fn the_word_is_that_of_the_worst_reason_and_every_reason_is_told() {
        let owner = Some("other:/store".to_owned());
        for (stands, word, says) in [
            (well(), Safety::Safe, "everything"),
            (waits(900), Safety::Safe, "on its way"),
            (waits(9_999), Safety::Safe, "on its way"),
            (waits(10_000), Safety::Watch, "3 commits wait, the oldest for 10 s"),
            (waits(60_000), Safety::Unsafe, "the oldest for 60 s"),
            (Standing { commits_waiting: 1, ..waits(61_000) }, Safety::Unsafe, "1 commit has waited for 61 s"),
            (Standing { interval_ms: Some(60_000), ..waits(200_000) }, Safety::Safe, "on its way"),
            (Standing { interval_ms: Some(60_000), ..waits(300_000) }, Safety::Watch, "3 commits"),
            (Standing { interval_ms: Some(60_000), ..waits(1_800_000) }, Safety::Unsafe, "3 commits"),
            (
                Standing { interval_ms: Some(60_000), is_shipped: false, ..waits(20_000) },
                Safety::Watch,
                "nobody is there",
            ),
            (Standing { interval_ms: None, ..waits(1_000) }, Safety::Watch, "sync_interval=off"),
            (Standing { interval_ms: None, ..waits(60_000) }, Safety::Unsafe, "sync_interval=off"),
            (Standing { trouble: Some("no route".to_owned()), ..waits(70_000) }, Safety::Unsafe, "no route"),
            (Standing { is_published: false, ..well() }, Safety::Unsafe, "ever published"),
            (Standing { fenced_by: owner.clone(), ..waits(70_000) }, Safety::Unsafe, "other:/store took over"),
            (Standing { is_released: true, ..waits(1) }, Safety::Unsafe, "released"),
            (Standing { is_released: true, ..well() }, Safety::Safe, "everything"),
            (Standing { gap: Some("no room".to_owned()), ..well() }, Safety::Watch, "no room"),
            (Standing { problems: vec!["a blob is gone".to_owned()], ..well() }, Safety::Unsafe, "a blob is gone"),
            (Standing { jobs_dead: 1, ..well() }, Safety::Watch, "1 job was given up"),
            (Standing { chores: vec!["prune fails".to_owned()], ..well() }, Safety::Watch, "prune fails"),
            (Standing { copies: vec!["copy fails".to_owned()], ..well() }, Safety::Watch, "copy fails"),
        ] {
            let (found, reasons) = safety(&stands);
            assert_eq!(found, word, "{stands:?}: {reasons:?}");
            assert!(reasons.iter().any(|(_, reason)| reason.contains(says)), "{stands:?}: {reasons:?}");
            assert_eq!(reasons.iter().map(|(safety, _)| *safety).max(), Some(found));
        }
        let both = Standing { gap: Some("no room".to_owned()), problems: vec!["gone".to_owned()], ..well() };
        let (word, reasons) = safety(&both);
        assert_eq!((word, reasons.len(), reasons[0].0), (Safety::Unsafe, 2, Safety::Unsafe));
    }
}
