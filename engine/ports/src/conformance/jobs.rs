//! What every [`JobQueue`] must do. [`all`] runs everything.

use crate::{JobError, JobQueue};
use littoral_types::limits::JOBS_MAX;
use littoral_types::{Cut, Job, JobId, JobNote, JobState, Lsn, Task, Wish};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One store's queue, opened as often as asked.
pub trait Subject {
    /// Opens it: what was done before is there. What an earlier call answered has been dropped.
    fn open(&mut self) -> Arc<dyn JobQueue>;
}

/// Runs every check, each on a subject of its own.
pub fn all(fresh: &mut dyn FnMut() -> Box<dyn Subject>) {
    for (name, check) in CHECKS {
        println!("job queue conformance: {name}");
        check(fresh().as_mut());
    }
    for seed in 0..4 {
        walk(seed, 200, fresh().as_mut());
    }
}

/// A named check.
pub type Check = (&'static str, fn(&mut dyn Subject));

/// Every check that needs no seed.
pub const CHECKS: &[Check] = &[
    ("what was never added is answered with nothing", what_was_never_added_is_answered_with_nothing),
    ("of one token one job is not over", of_one_token_one_job_is_not_over),
    ("everything outlives its opening", everything_outlives_its_opening),
    ("the longest due comes first, the oldest of one moment", the_longest_due_comes_first),
    ("times that were said stay as they are", times_that_were_said_stay_as_they_are),
    ("only what is over is forgotten, and no number comes again", only_what_is_over_is_forgotten),
    ("notes stay until their job is over", notes_stay_until_their_job_is_over),
    ("there is an end to what waits", there_is_an_end_to_what_waits),
];

fn wish(nth: u64) -> Wish {
    let task = match nth % 6 {
        3 => Task::Replicate,
        5 => Task::TruncateAppendOnly { cut: Cut::Before(Lsn(nth)), past_cursors: nth.is_multiple_of(2) },
        0 => Task::CreateCheckpoint,
        1 => Task::VerifyCheckpoint { restore: nth.is_multiple_of(8) },
        2 => Task::DownloadCheckpoint,
        _ => Task::PruneCheckpoint { keep_last: Some(nth), keep_within_ms: None },
    };
    Wish { task, database: format!("/data/{nth}.db").into(), volume: format!("file:///there/{nth}.db") }
}

fn running(job: &Job, now_ms: u64) -> Job {
    let state = JobState::Running { by: "process 1".to_owned() };
    Job { state, attempts: job.attempts + 1, started_ms: job.started_ms.or(Some(now_ms)), ..job.clone() }
}

fn done(job: &Job) -> Job {
    Job { state: JobState::Done { outcome: "at 1.7".to_owned() }, ..job.clone() }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, JobError>, what: &str) {
    assert!(matches!(answer, Err(JobError::Misuse(_))), "{what}: {answer:?}");
}

fn what_was_never_added_is_answered_with_nothing(subject: &mut dyn Subject) {
    let queue = subject.open();
    assert_eq!(queue.all().unwrap(), []);
    assert_eq!(queue.get(JobId(1)).unwrap(), None);
    assert_eq!(queue.due(u64::MAX).unwrap(), None);
    assert_eq!(queue.notes(JobId(u64::MAX)).unwrap(), []);
    refused(queue.put(&Job::new(JobId(1), wish(1), 5)), "put");
    refused(queue.forget(JobId(1)), "forget");
    let note = JobNote { blob: "a".to_owned(), bytes: 1, frames: 0, pages: 0 };
    refused(queue.note(JobId(1), &[note]), "note");
    assert_eq!(queue.all().unwrap(), [], "a refusal left something");
}

fn of_one_token_one_job_is_not_over(subject: &mut dyn Subject) {
    let queue = subject.open();
    let (first, is_new) = queue.add(&wish(4), 10).unwrap();
    assert!(is_new && first == Job::new(first.id, wish(4), 10));
    assert_eq!(queue.add(&wish(4), 20).unwrap(), (first.clone(), false), "wished for twice, made twice");
    let at_work = running(&first, 30);
    queue.put(&at_work).unwrap();
    assert_eq!(queue.add(&wish(4), 40).unwrap(), (at_work.clone(), false));
    // Another task, database or volume is another job.
    let others = [
        Wish { task: Task::DownloadCheckpoint, ..wish(4) },
        Wish { database: "/data/b.db".into(), ..wish(4) },
        Wish { volume: "file:///b".to_owned(), ..wish(4) },
    ];
    let ids: BTreeSet<_> = others.iter().map(|other| queue.add(other, 40).unwrap().0.id).collect();
    assert_eq!(ids.len(), 3);
    queue.put(&done(&at_work)).unwrap();
    let (second, is_new) = queue.add(&wish(4), 50).unwrap();
    assert!(is_new && second.id > first.id, "what is over stands in the way");
    refused(queue.put(&at_work), "revived beside its successor");
    queue.put(&done(&second)).unwrap();
    queue.put(&at_work).unwrap();
    assert_eq!(queue.add(&wish(4), 60).unwrap(), (at_work, false), "revived, and not found");
}

fn everything_outlives_its_opening(subject: &mut dyn Subject) {
    let queue = subject.open();
    let jobs: Vec<Job> = (0..5).map(|nth| queue.add(&wish(nth), 100 + nth).unwrap().0).collect();
    let dead = Job { state: JobState::Dead { reason: "taken over".to_owned() }, failures: 3, ..jobs[1].clone() };
    let error = Some("no network".to_owned());
    let later = Job { state: JobState::Ready { not_before_ms: 900 }, failures: 1, error, ..jobs[2].clone() };
    queue.put(&running(&jobs[0], 200)).unwrap();
    queue.put(&dead).unwrap();
    queue.put(&later).unwrap();
    queue.put(&Job { state: JobState::Cancelled, ..jobs[3].clone() }).unwrap();
    let note = JobNote { blob: "b/1".to_owned(), bytes: 7, frames: 2, pages: 30 };
    queue.note(jobs[0].id, std::slice::from_ref(&note)).unwrap();
    queue.put(&running(&jobs[0], 200)).unwrap();
    let before = queue.all().unwrap();
    drop(queue);
    let queue = subject.open();
    assert_eq!(queue.all().unwrap(), before);
    assert_eq!(queue.get(jobs[1].id).unwrap(), Some(dead));
    assert_eq!(queue.notes(jobs[0].id).unwrap(), [note]);
    assert_eq!(queue.due(899).unwrap(), Some(jobs[4].clone()));
    assert!(!queue.add(&wish(2), 300).unwrap().1, "tokens were lost");
    assert!(queue.add(&wish(9), 300).unwrap().0.id > jobs[4].id);
}

fn the_longest_due_comes_first(subject: &mut dyn Subject) {
    let queue = subject.open();
    let jobs: Vec<Job> =
        [50, 10, 30, 10].iter().zip(0..).map(|(at, nth)| queue.add(&wish(nth), *at).unwrap().0).collect();
    let mut order = Vec::new();
    assert_eq!(queue.due(9).unwrap(), None, "before its moment");
    while let Some(job) = queue.due(1_000).unwrap() {
        order.push(job.id);
        queue.put(&running(&job, 1_000)).unwrap();
    }
    assert_eq!(order, [jobs[1].id, jobs[3].id, jobs[2].id, jobs[0].id]);
    // What was put off leaves no trace of when it was due before.
    let later = Job { state: JobState::Ready { not_before_ms: u64::MAX }, ..running(&jobs[1], 1_000) };
    queue.put(&later).unwrap();
    assert_eq!(queue.due(u64::MAX - 1).unwrap(), None);
    assert_eq!(queue.due(u64::MAX).unwrap(), Some(later));
}

fn times_that_were_said_stay_as_they_are(subject: &mut dyn Subject) {
    let queue = subject.open();
    let (job, _) = queue.add(&wish(3), 10).unwrap();
    let at_work = running(&job, 20);
    queue.put(&at_work).unwrap();
    for (what, wrong) in [
        ("created", Job { created_ms: 11, ..at_work.clone() }),
        ("started", Job { started_ms: Some(21), ..at_work.clone() }),
        ("never started", Job { started_ms: None, ..at_work.clone() }),
        ("wish", Job { wish: wish(7), ..at_work.clone() }),
    ] {
        refused(queue.put(&wrong), what);
        assert_eq!(queue.get(job.id).unwrap(), Some(at_work.clone()), "{what}");
    }
    let later = Job { changed_ms: 99, attempts: 2, ..at_work };
    queue.put(&later).unwrap();
    assert_eq!(queue.get(job.id).unwrap(), Some(later));
}

fn only_what_is_over_is_forgotten(subject: &mut dyn Subject) {
    let queue = subject.open();
    let (job, _) = queue.add(&wish(0), 10).unwrap();
    refused(queue.forget(job.id), "ready");
    queue.put(&running(&job, 20)).unwrap();
    refused(queue.forget(job.id), "running");
    queue.put(&done(&running(&job, 20))).unwrap();
    queue.forget(job.id).unwrap();
    assert_eq!((queue.get(job.id).unwrap(), queue.all().unwrap()), (None, vec![]));
    drop(queue);
    let (next, _) = subject.open().add(&wish(0), 30).unwrap();
    assert!(next.id > job.id, "a number came again");
}

fn notes_stay_until_their_job_is_over(subject: &mut dyn Subject) {
    let queue = subject.open();
    let (one, _) = queue.add(&wish(0), 10).unwrap();
    let (other, _) = queue.add(&wish(1), 10).unwrap();
    let note = |blob: &str, pages| JobNote { blob: blob.to_owned(), bytes: 1, frames: 1, pages };
    queue.note(one.id, &[note("b", 1), note("a", 2), note("", 3)]).unwrap();
    queue.note(other.id, &[note("c", 4)]).unwrap();
    queue.note(one.id, &[note("a", 5)]).unwrap();
    assert_eq!(
        queue.notes(one.id).unwrap(),
        [note("", 3), note("a", 5), note("b", 1)],
        "by name, the newest word counts"
    );
    queue.put(&running(&one, 20)).unwrap();
    assert_eq!(queue.notes(one.id).unwrap().len(), 3, "gone while it runs");
    queue.put(&done(&running(&one, 20))).unwrap();
    assert_eq!(queue.notes(one.id).unwrap(), []);
    assert_eq!(queue.notes(other.id).unwrap(), [note("c", 4)], "another job's notes went too");
    refused(queue.note(one.id, &[note("a", 1)]), "noted after the end");
}

fn there_is_an_end_to_what_waits(subject: &mut dyn Subject) {
    let queue = subject.open();
    for nth in 0..JOBS_MAX as u64 {
        queue.add(&wish(nth), nth).unwrap();
    }
    let one_more = queue.add(&wish(JOBS_MAX as u64), 1);
    assert!(matches!(one_more, Err(JobError::Full(_))), "{one_more:?}");
    assert_eq!(queue.all().unwrap().len(), JOBS_MAX);
    let first = queue.due(u64::MAX).unwrap().unwrap();
    assert!(!queue.add(&first.wish, 1).unwrap().1, "what waits already was refused");
    queue.put(&done(&first)).unwrap();
    assert!(queue.add(&wish(JOBS_MAX as u64), 1).unwrap().1, "what is over takes no room");
}

/// Drives it beside the fake, with what either answers compared.
pub fn walk(seed: u64, steps: u64, subject: &mut dyn Subject) {
    println!("seed {seed}");
    let model = crate::MemoryJobs::default();
    let mut queue = subject.open();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut chance = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for step in 0..steps {
        let (nth, now) = (chance(12), step + chance(5));
        match chance(6) {
            0 | 1 => assert_eq!(queue.add(&wish(nth), now).unwrap(), model.add(&wish(nth), now).unwrap(), "{step}"),
            2 => {
                let due = queue.due(now).unwrap();
                assert_eq!(due, model.due(now).unwrap(), "{step}");
                if let Some(job) = due {
                    queue.put(&running(&job, now)).unwrap();
                    model.put(&running(&job, now)).unwrap();
                }
            }
            3 | 4 => {
                let Some(job) = model.all().unwrap().into_iter().nth(nth as usize) else { continue };
                let state = match chance(4) {
                    0 => JobState::Ready { not_before_ms: now + chance(30) },
                    1 => JobState::Cancelled,
                    2 => JobState::Dead { reason: format!("step {step}") },
                    _ => JobState::Done { outcome: String::new() },
                };
                let job = Job { state, changed_ms: now, ..job };
                let (did, should) = (queue.put(&job), model.put(&job));
                assert_eq!(did.is_ok(), should.is_ok(), "{step}: {did:?} {should:?}");
            }
            _ => {
                let id = JobId(chance(20));
                let note = JobNote { blob: format!("b{nth}"), bytes: step, frames: 1, pages: nth };
                let (did, should) = match chance(3) {
                    0 => (queue.forget(id), model.forget(id)),
                    _ => (queue.note(id, std::slice::from_ref(&note)), model.note(id, &[note])),
                };
                assert_eq!(did.is_ok(), should.is_ok(), "{step}: {did:?} {should:?}");
                assert_eq!(queue.notes(id).unwrap(), model.notes(id).unwrap(), "{step}");
            }
        }
        if chance(40) == 0 {
            drop(queue);
            queue = subject.open();
        }
        assert_eq!(queue.all().unwrap(), model.all().unwrap(), "{step}");
    }
}
