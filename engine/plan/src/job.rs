//! What becomes of a job: begun, failed, found without anybody at it, given up.

use littoral_types::limits::{JOB_FAILURES_MAX, JOB_PAUSE_MS, JOB_PAUSE_MS_MAX, TEXT_LEN_MAX};
use littoral_types::{Job, JobState};

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may go better later: a network, a lock, a full disk.
    Passing,
    /// It will fail the same way until somebody does something about it.
    Lasting,
}

/// Somebody takes it.
pub fn begun(job: &Job, by: &str, now_ms: u64) -> Job {
    Job {
        state: JobState::Running { by: by.to_owned() },
        attempts: job.attempts.saturating_add(1),
        started_ms: job.started_ms.or(Some(now_ms)),
        changed_ms: now_ms,
        ..job.clone()
    }
}

/// It is done.
pub fn done(job: &Job, outcome: &str, now_ms: u64) -> Job {
    Job { state: JobState::Done { outcome: short(outcome) }, error: None, changed_ms: now_ms, ..job.clone() }
}

/// It failed. Tried again after a rest that doubles each time, half of which is chance (`jitter`, of which the rest is taken), so that
/// those who failed together do not come back together; given up where that cannot help.
pub fn failed(job: &Job, failure: Failure, why: &str, jitter: u64, now_ms: u64) -> Job {
    let failures = job.failures.saturating_add(1);
    let state = match failure {
        Failure::Lasting => JobState::Dead { reason: short(why) },
        Failure::Passing if failures >= JOB_FAILURES_MAX => {
            JobState::Dead { reason: short(&format!("failed {failures} times: {why}")) }
        }
        Failure::Passing => {
            let longest = JOB_PAUSE_MS.saturating_mul(1 << (failures - 1).min(31)).min(JOB_PAUSE_MS_MAX);
            let half = longest / 2;
            JobState::Ready { not_before_ms: now_ms.saturating_add(half + jitter % (half + 1)) }
        }
    };
    Job { state, failures, error: Some(short(why)), changed_ms: now_ms, ..job.clone() }
}

/// Whoever was at it is gone: it goes on at once. One that takes its process with it each time is given up like one that fails.
pub fn orphaned(job: &Job, now_ms: u64) -> Job {
    let JobState::Running { by } = &job.state else { return job.clone() };
    let why = format!("{by} ended in the middle of it");
    let after = failed(job, Failure::Passing, &why, 0, now_ms);
    match after.state {
        JobState::Ready { .. } => Job { state: JobState::Ready { not_before_ms: now_ms }, ..after },
        _ => after,
    }
}

/// Somebody does not want it any more. What is over stays as it is.
pub fn cancelled(job: &Job, now_ms: u64) -> Job {
    match job.state.is_over() {
        true => job.clone(),
        false => Job { state: JobState::Cancelled, changed_ms: now_ms, ..job.clone() },
    }
}

/// Somebody asks for it again, whatever became of it.
pub fn again(job: &Job, now_ms: u64) -> Job {
    let state = JobState::Ready { not_before_ms: now_ms };
    Job { state, failures: 0, error: None, changed_ms: now_ms, ..job.clone() }
}

/// As much of a text as is kept.
fn short(text: &str) -> String {
    let end = (0..=text.len().min(TEXT_LEN_MAX)).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)] // A test is one.

    use super::*;
    use littoral_types::{JobId, Task, Wish};

    fn a_job() -> Job {
        let wish = Wish {
            task: Task::CreateCheckpoint,
            database: "/data/app.db".into(),
            volume: "file:///there/app.db".to_owned(),
        };
        Job::new(JobId(7), wish, 1_000)
    }

    fn due(job: &Job) -> u64 {
        match job.state {
            JobState::Ready { not_before_ms } => not_before_ms,
            ref other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_job_keeps_when_it_was_made_and_first_begun_through_everything_that_follows() {
        let begun_once = begun(&a_job(), "process 1", 2_000);
        let after = failed(&begun_once, Failure::Passing, "no network", 0, 3_000);
        let after = begun(&after, "process 2", 9_000);
        let after = orphaned(&after, 10_000);
        let after = begun(&after, "process 3", 11_000);
        let after = done(&after, "at 1.5", 12_000);
        assert_eq!((after.created_ms, after.started_ms, after.changed_ms), (1_000, Some(2_000), 12_000));
        assert_eq!((after.attempts, after.failures, after.error), (3, 2, None));
    }

    #[test]
    fn rests_double_and_half_of_each_is_chance() {
        let mut job = a_job();
        let mut longest = JOB_PAUSE_MS;
        for nth in 1..JOB_FAILURES_MAX {
            let least = due(&failed(&job, Failure::Passing, "x", 0, 0));
            assert_eq!(least, longest / 2);
            for jitter in [1, 77, u64::MAX] {
                let due = due(&failed(&job, Failure::Passing, "x", jitter, 0));
                assert!((longest / 2..=longest).contains(&due), "{due} after {nth}");
            }
            job = failed(&job, Failure::Passing, "x", u64::MAX, 0);
            longest = (longest * 2).min(JOB_PAUSE_MS_MAX);
        }
        assert_eq!(failed(&job, Failure::Passing, "x", 0, 0).state.word(), "dead", "tried for ever");
    }

    #[test]
    fn what_cannot_go_better_is_given_up_at_once_and_says_why() {
        let dead = failed(&begun(&a_job(), "process 1", 1), Failure::Lasting, "taken over", 0, 2);
        assert_eq!(dead.state, JobState::Dead { reason: "taken over".to_owned() });
        assert_eq!(due(&again(&dead, 5)), 5);
        assert_eq!((again(&dead, 5).failures, again(&dead, 5).created_ms), (0, 1_000));
    }

    #[test]
    fn who_died_at_it_leaves_it_to_the_next_at_once_but_not_for_ever() {
        let mut job = a_job();
        for nth in 1..JOB_FAILURES_MAX {
            job = orphaned(&begun(&job, "process 1", 50), 60);
            assert_eq!(due(&job), 60, "{nth}");
        }
        assert_eq!(orphaned(&begun(&job, "process 1", 50), 60).state.word(), "dead");
        assert_eq!(orphaned(&a_job(), 60), a_job(), "nobody was at it");
    }

    #[test]
    fn what_is_over_cannot_be_cancelled_and_long_words_are_cut_at_a_letter() {
        let over = done(&a_job(), "at 1.5", 3);
        assert_eq!(cancelled(&over, 4), over);
        assert_eq!(cancelled(&a_job(), 4).state, JobState::Cancelled);
        let long = "ä".repeat(TEXT_LEN_MAX);
        let JobState::Done { outcome } = done(&a_job(), &long, 1).state else { panic!("not done") };
        assert_eq!(outcome.len(), TEXT_LEN_MAX);
        assert_eq!(short(&format!("a{long}")).len(), TEXT_LEN_MAX - 1);
    }
}
