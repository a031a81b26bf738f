//! Serials that cannot be right are refused by name wherever a state is taken up again (rule P10); and a checkpoint goes through its phases
//! in their order, whoever keeps it waiting.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod rig;

use async_trait::async_trait;
use littoral_engine::EngineError;
use littoral_engine::components::MachineClock;
use littoral_engine::exec::beside::Beside;
use littoral_engine::exec::checkpoint::{Options, checkpoint, checkpoint_in};
use littoral_engine::exec::phases::Phases;
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::verify::verify;
use littoral_engine::log::Draft;
use littoral_engine::sessions::Phase;
use littoral_ports::{CaughtUp, Changed, Clock, MemoryRemote, PageSource, SourceError};
use littoral_types::{
    Coalesce, Lsn, ManifestOp, PageCount, PageNo, PageSize, Position, RecordBody, Serial, SessionMark, SessionStep,
    Sessions,
};
use rig::{Machine, Pages};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a record says of a session, true or not. Nobody who writes by the rules ever would.
async fn forge(machine: &Machine, step: SessionStep, lsns_beyond: u64) {
    let mut session = machine.open().await.unwrap();
    let tail = session.writer.row().tail.clone();
    let position = Position { epoch: tail.epoch, lsn: Lsn(tail.lsn.0 + lsns_beyond) };
    let mark = SessionMark { session: "worker-7".parse().unwrap(), step, position };
    let body = RecordBody::Coalesce(Coalesce { ops: vec![ManifestOp::Session(mark)] });
    let draft = Draft::of(body, tail.figures);
    session.writer.publish(draft).await.unwrap();
}

/// What is wrong; each serial that is forged, and how far beyond the log's end; whether the log alone tells; what is said then.
type Case = (&'static str, Vec<(u64, u64)>, bool, &'static [&'static str]);

/// The seeds' `test_recovery_rejects_corrupted_serials`.
#[tokio::test]
async fn p10_recovery_refuses_serials_that_its_pages_contradict_that_go_back_or_lie_beyond_the_log() {
    let cases: [Case; 3] = [
        (
            "of a table that says otherwise",
            vec![(4711, 0)],
            false,
            &["\"worker-7\" is recorded at serial 4711", "says nothing of it"],
        ),
        (
            "that go back",
            vec![(9, 0), (8, 0)],
            true,
            &["\"worker-7\" goes back from serial 9 to 8", "no record says that it began anew"],
        ),
        ("beyond the log's end", vec![(9, 5)], true, &["\"worker-7\" is recorded as of 1.6", "beyond 1"]),
    ];
    for (what, steps, at_open, words) in cases {
        let machine = Machine::new(Arc::new(MemoryRemote::new("serials")));
        let mut pages = Pages::new(4096, 40);
        machine.checkpoint(&mut pages).await.unwrap().unwrap();
        for (serial, beyond) in steps {
            forge(&machine, SessionStep::On(Serial::new(serial).unwrap()), beyond).await;
        }
        let log = machine.log();
        let opened = log.open().await;
        assert_eq!(opened.is_err(), at_open, "{what}: {opened:?}");
        let dest = machine.dir.path().join("back.db");
        let refused = restore(&log, &machine.components, &At::Newest, &dest, false).await.unwrap_err();
        assert!(matches!(refused, EngineError::Serials { .. }), "{what}: {refused:?}");
        let why = refused.to_string();
        assert!(words.iter().all(|word| why.contains(word)), "{what}: {why}");
        assert!(!dest.exists(), "{what}: nothing stands there that is not to be believed");
        let found = verify(&log, &machine.components).await.unwrap();
        let told = found.problems.join("\n");
        assert_eq!(words.iter().all(|word| told.contains(word)), at_open, "{what}: {told}");
    }
}

/// What is committed and by whom changes at every reading, and now and then somebody keeps it from being read.
struct Busy<'a> {
    pages: &'a mut Pages,
    /// What catching up meets, the next one last.
    next: Vec<Met>,
    sessions: Sessions,
    asked: u32,
}

#[derive(Clone, Copy)]
enum Met {
    Kept,
    Moved,
}

impl PageSource for Busy<'_> {
    fn page_size(&self) -> PageSize {
        self.pages.page_size()
    }
    fn page_count(&self) -> PageCount {
        self.pages.page_count()
    }
    fn lock_page(&self) -> Option<PageNo> {
        None
    }
    fn changed(&self) -> Changed {
        Changed::Unknown
    }
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        self.pages.read(page, into)
    }
    fn sessions(&mut self) -> Option<Sessions> {
        Some(self.sessions.clone())
    }
    fn catch_up(&mut self) -> Result<CaughtUp, SourceError> {
        self.asked += 1;
        match self.next.pop() {
            None => Ok(CaughtUp::Still),
            Some(Met::Kept) => Err(SourceError::Busy("worker-7, which is process 7".to_owned())),
            Some(Met::Moved) => {
                self.pages.write(3, u64::from(self.asked));
                let serial = Serial::new(u64::from(self.asked)).unwrap();
                self.sessions.insert("worker-7".parse().unwrap(), serial);
                Ok(CaughtUp::Moved(vec![PageNo::from_index(3)]))
            }
        }
    }
}

/// The seeds' `test_cpr_phase_transitions`, `test_cpr_version_tracking` and `test_cpr_context_swapping`.
#[tokio::test]
async fn p10_a_checkpoint_goes_through_its_phases_in_order_and_records_the_serials_of_the_commit_that_it_ends_at() {
    let machine = Machine::new(Arc::new(MemoryRemote::new("phases")));
    let mut pages = Pages::new(4096, 40);
    let mut generation = littoral_types::Generation::ZERO;
    for (next, expected, rounds, keeps) in [
        (vec![], vec!["prepare", "in-progress", "wait-pending", "wait-flush"], 1, 0),
        (
            vec![Met::Moved, Met::Moved],
            vec![
                "prepare",
                "in-progress",
                "wait-pending",
                "in-progress",
                "wait-pending",
                "in-progress",
                "wait-pending",
                "wait-flush",
            ],
            3,
            0,
        ),
        (
            vec![Met::Kept, Met::Kept, Met::Moved],
            vec!["prepare", "in-progress", "wait-pending", "in-progress", "wait-pending", "wait-flush"],
            2,
            1,
        ),
    ] {
        pages.write(7, u64::from(u32::MAX) + rounds);
        let mut source = Busy { pages: &mut pages, next, sessions: Sessions::new(), asked: 0 };
        let mut session = machine.open().await.unwrap();
        let before = session.writer.manifest().sessions(&session.writer.row().meta.id).unwrap();
        source.sessions.extend(before.iter().filter_map(|mark| Some((mark.session.clone(), mark.step.serial()?))));
        let done = checkpoint(&mut session.writer, &session.scratch, &mut source, &Options::default()).await;
        let done = done.unwrap().unwrap();
        let words: Vec<&str> = done.phases.iter().map(|passed| passed.phase.word()).collect();
        assert_eq!(words, expected);
        let mut at = Phase::Rest;
        for passed in &done.phases {
            assert!(at.leads_to(passed.phase), "{at} does not lead to {}", passed.phase);
            at = passed.phase;
        }
        let kept = done.phases.iter().filter(|passed| passed.waited_for.is_some()).count();
        assert_eq!(kept, keeps, "{:?}", done.phases);
        // Each reading is a version of its own.
        assert_eq!(done.generation.0, generation.0 + rounds);
        generation = done.generation;
        let recorded = session.writer.manifest().sessions(&session.writer.row().meta.id).unwrap();
        let recorded: Sessions =
            recorded.into_iter().filter_map(|mark| Some((mark.session, mark.step.serial()?))).collect();
        assert_eq!(recorded, source.sessions, "of the last reading, and not of one before");
    }
}

/// Time that goes on when somebody sleeps.
#[derive(Debug, Default)]
struct Slept(AtomicU64);

#[async_trait]
impl Clock for Slept {
    fn wall_ms(&self) -> u64 {
        MachineClock.wall_ms()
    }
    fn boot_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    async fn sleep_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn p10_whoever_keeps_a_checkpoint_waiting_is_waited_for_for_30_seconds_and_nothing_is_published_then() {
    let machine = Machine::new(Arc::new(MemoryRemote::new("kept")));
    let mut pages = Pages::new(4096, 40);
    machine.checkpoint(&mut pages).await.unwrap().unwrap();
    let clock = Arc::new(Slept::default());
    for (wait_ms, expected) in [(None, 30_000), (Some(1_000), 1_000), (Some(0), 0)] {
        pages.write(3, 1_000_000 + expected);
        let mut components = machine.components.clone();
        components.clock = clock.clone();
        let mut source = Busy { pages: &mut pages, next: vec![Met::Kept; 10_000], sessions: Sessions::new(), asked: 0 };
        let mut session = machine.open().await.unwrap();
        let before = session.writer.row().tail.clone();
        let mut phases = Phases::new(&components, "app.db".to_owned(), wait_ms);
        let (writer, scratch) = (&mut session.writer, &session.scratch);
        let given_up =
            checkpoint_in(&mut phases, writer, scratch, &mut source, &Options::default(), &mut Beside::nothing()).await;
        let Err(EngineError::Waited { phase, waited_ms, who, .. }) = given_up else { panic!("{given_up:?}") };
        assert_eq!((phase, waited_ms, who.as_str()), (Phase::WaitPending, expected, "worker-7, which is process 7"));
        assert_eq!(session.writer.row().tail, before, "nothing was published");
        // It ends in rest, and the next one brings all of it.
        source.next.clear();
        let done = checkpoint(&mut session.writer, &session.scratch, &mut source, &Options::default()).await.unwrap();
        assert!(done.unwrap().plan.changed_pages() > 0);
    }
}
