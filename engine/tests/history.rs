//! A volume's history as people ask for it: every moment is found, or refused with what there is, as a naive list of all restore points
//! says it must be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod rig;
mod shipping;

use async_trait::async_trait;
use littoral_engine::exec::at::find;
use littoral_engine::exec::fork::fork;
use littoral_engine::exec::prune::{self, prune_thinning};
use littoral_engine::exec::restore::restore;
use littoral_engine::exec::segment::Shipped;
use littoral_engine::exec::verify::verify;
use littoral_engine::lazy::Held;
use littoral_engine::live::{self, name_snapshot, name_state};
use littoral_engine::volume::release;
use littoral_engine::{EngineError, Lazy, Log};
use littoral_plan::{KeepPolicy, RestorePoint, thinned};
use littoral_ports::{Clock, Commits, Crash, Faults, MemoryRemote, Noted};
use littoral_types::moment::Utc;
use littoral_types::{
    At, Epoch, Gap, GapReason, Lsn, Moment, PageCount, PageNo, Position, RecordKind, Retention, Seq, WalMark,
};
use rig::{Chance, Machine, Pages, cost, counted};
use shipping::ship;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const PAGE: u64 = 512;
const PAGES: usize = 24;
const HOUR_MS: u64 = 3_600_000;

/// A clock that a test sets, back as well.
#[derive(Debug)]
struct Hand(AtomicU64);

#[async_trait]
impl Clock for Hand {
    fn wall_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn boot_ms(&self) -> u64 {
        1
    }
    async fn sleep_ms(&self, _: u64) {
        std::future::pending().await
    }
}

/// The end of a batch, as the model has it.
struct Point {
    first: u64,
    last: u64,
    /// Times are labels, and labels never go back.
    label: u64,
    image: Vec<u8>,
    /// Its record.
    seq: Seq,
    /// Whether it stands without other records: a checkpoint, or one that a manifest snapshot stands at.
    is_folded: bool,
}

struct World {
    machine: Machine,
    clock: Arc<Hand>,
    pages: Pages,
    shipped: Shipped,
    points: Vec<Point>,
    chance: Chance,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut machine = Machine::new(Arc::new(MemoryRemote::new("memory://history")));
        let clock = Arc::new(Hand(AtomicU64::new(1_800_000_000_000)));
        machine.components.clock = clock.clone();
        let pages = Pages::new(PAGE, PAGES);
        let mut world =
            Self { machine, clock, pages, shipped: Shipped::new(), points: Vec::new(), chance: Chance(seed) };
        world.checkpoint().await;
        world
    }

    fn image(&self) -> Vec<u8> {
        self.pages.pages.concat()
    }

    /// Time passes, or somebody sets the clock back.
    fn tick(&mut self) {
        let now = self.clock.wall_ms();
        let back = self.chance.below(6) == 0;
        let by = self.chance.below(2 * HOUR_MS);
        self.clock.0.store(if back { now - by } else { now + by }, Ordering::SeqCst);
    }

    fn touch(&mut self) -> usize {
        let (at, value) = (self.chance.below(PAGES as u64) as usize, self.chance.next());
        self.pages.write(at, value);
        at
    }

    /// The last of them was made then.
    async fn noted(&mut self, commits: u64, made_ms: u64) {
        let label = made_ms.max(self.points.last().map_or(0, |point| point.label));
        let first = self.points.last().map_or(1, |point| point.last + 1);
        let glance = self.machine.log().glance().await.unwrap().unwrap();
        let record = glance.recent.iter().rfind(|record| record.kind.is_restore_point()).unwrap();
        let is_folded = record.kind.folds();
        let point = Point { first, last: first + commits - 1, label, image: self.image(), seq: record.seq, is_folded };
        self.points.push(point);
    }

    async fn checkpoint(&mut self) {
        self.touch();
        self.pages.changed = None;
        self.machine.checkpoint(&mut self.pages).await.unwrap().unwrap();
        self.noted(1, self.clock.wall_ms()).await;
    }

    async fn segment(&mut self) {
        let many = 1 + self.chance.below(4);
        let mut written: Vec<usize> = (0..many).map(|_| self.touch()).collect();
        written.sort_unstable();
        written.dedup();
        let pages = written.iter().map(|at| (PageNo::from_index(*at as u64), self.pages.pages[*at].clone()));
        // They may have waited for long, by a clock that may have been set meanwhile.
        let now = self.clock.wall_ms();
        let made: Vec<u64> = (0..many).map(|_| now - self.chance.below(2) * self.chance.below(2 * HOUR_MS)).collect();
        let noted = |time_ms: &u64| Noted { time_ms: *time_ms, page_count: PageCount(PAGES as u64), session: None };
        let changes = Commits {
            page_size: self.pages.page_size,
            commits: made.iter().map(noted).collect(),
            pages: pages.collect(),
            wal: Some(WalMark { salts: [1, 2], frame: self.points.len() as u64, checksum: [3, 4] }),
            is_all: true,
        };
        let mut session = self.machine.open().await.unwrap();
        ship(&mut session.writer, changes, &mut self.shipped, &mut |_| None).await.unwrap();
        drop(session);
        self.noted(many, made.into_iter().max().unwrap()).await;
    }

    async fn step(&mut self) {
        self.tick();
        match self.chance.below(4) {
            0 => self.checkpoint().await,
            _ => self.segment().await,
        }
    }

    /// Asks for a moment, and compares what comes with the point that must.
    async fn is(&self, at: &At, must: Option<&Point>) {
        let found = find(&self.machine.log(), at).await;
        match (found, must) {
            (Ok(found), Some(must)) => {
                assert_eq!(found.opened.tail.lsn, Lsn(must.last), "{at:?}");
                assert_eq!((found.point.lsn, found.point.time_ms), (Lsn(must.last), must.label), "{at:?}");
                let dest = self.machine.dir.path().join("restored.db");
                let done = restore(&self.machine.log(), &self.machine.components, at, &dest, true).await.unwrap();
                assert_eq!((done.position.lsn, done.time_ms), (Lsn(must.last), must.label));
                assert!(std::fs::read(&dest).unwrap() == must.image, "{at:?} is not what was published");
            }
            (Err(EngineError::NoSuchPosition { .. }), None) => {}
            (Ok(found), None) => panic!("{at:?} was given {:?}", found.point),
            (Err(error), _) => panic!("{at:?}: {error:?}"),
        }
    }
}

/// The last point that is not later than a time, in the order of LSNs: as the naive list has it.
fn naive(points: &[Point], ms: u64) -> Option<&Point> {
    points.iter().take_while(|point| point.label <= ms).last()
}

#[tokio::test]
async fn p09_a_moment_is_the_last_restore_point_that_is_not_later_whatever_the_clocks_did() {
    for seed in 0..3 {
        let mut world = World::new(seed).await;
        for _ in 0..90 {
            world.step().await;
        }
        let (begin, end) = (world.points[0].label, world.points.last().unwrap().label);
        for _ in 0..40 {
            let ms = begin - HOUR_MS + world.chance.below(end - begin + 3 * HOUR_MS);
            world.is(&At::Time(ms), naive(&world.points, ms)).await;
        }
        // At a label, just before it, just after it.
        let label = world.points[world.chance.below(90) as usize].label;
        for ms in [label - 1, label, label + 1] {
            world.is(&At::Time(ms), naive(&world.points, ms)).await;
        }
        let newest = world.points.last().unwrap().last;
        for lsn in 0..=newest + 2 {
            let must = world.points.iter().rfind(|point| point.last <= lsn).filter(|_| lsn <= newest);
            // Every third: each takes a restore.
            if lsn % 3 == seed % 3 || !(2..newest).contains(&lsn) {
                world.is(&At::Lsn(Lsn(lsn)), must).await;
                world.is(&At::Position(Position { epoch: Epoch(1), lsn: Lsn(lsn) }), must).await;
                world.is(&At::Position(Position { epoch: Epoch(2), lsn: Lsn(lsn) }), None).await;
            }
        }
    }
}

#[tokio::test]
async fn a_moment_that_is_not_there_is_refused_with_what_is() {
    let mut world = World::new(7).await;
    let log = world.machine.log();
    let refusal = async |at: &str, now: u64| {
        let at = at.parse::<Moment>().unwrap().as_of(now);
        find(&log, &at).await.unwrap_err().to_string()
    };
    let now = world.clock.wall_ms();
    let error = refusal("-1h", now).await;
    assert!(error.contains("before history begins") && error.contains("1.1 of 2027-01-15T08:00:00Z"), "{error}");
    let error = refusal("0", now).await;
    assert!(error.contains("LSN 0 is before history begins") && error.contains("1.1"), "{error}");
    let error = refusal("99", now).await;
    assert!(error.contains("LSN 99 is not published") && error.contains("1.1"), "{error}");
    let error = refusal("before-v2", now).await;
    assert!(error.contains("no snapshot is called before-v2: there are none"), "{error}");
    name_snapshot(&log, &world.machine.components, &"before-v3".parse().unwrap()).await.unwrap();
    let error = refusal("before-v2", now).await;
    assert!(error.contains("did you mean before-v3?"), "{error}");
    let error = refusal("2027-01-15", now).await;
    assert!(error.contains("there are before-v3 (a time is written in full, as in 2027-01-15T00:00:00Z)"), "{error}");
    // In the middle of a batch.
    while world.points.last().is_none_or(|point| point.first == point.last) {
        world.segment().await;
    }
    let last = world.points.last().unwrap();
    world.is(&At::Lsn(Lsn(last.first)), world.points.iter().rev().nth(1)).await;

    let empty = rig::log(Arc::new(MemoryRemote::new("memory://history")));
    for at in [At::Newest, At::Time(now), At::Lsn(Lsn(1)), At::Snapshot("x".parse().unwrap())] {
        let error = find(&empty, &at).await.unwrap_err();
        assert!(matches!(error, EngineError::NoVolume(_)), "{error:?}");
    }
}

/// A restore point's label and LSN, and a way to say it.
fn said(epoch: u64, point: &Point) -> String {
    format!("{epoch}.{} of {}", point.last, Utc(point.label))
}

#[tokio::test]
async fn p09_a_moment_inside_of_a_gap_is_refused_with_both_its_bounds_and_they_are_found() {
    let mut world = World::new(23).await;
    for _ in 0..4 {
        world.clock.0.fetch_add(60_000, Ordering::SeqCst);
        world.segment().await;
    }
    // Commits that were dropped: the first of them was made a minute after the point before, they are published an hour later. What brings
    // no commit may stand in between.
    let before_label = world.points.last().unwrap().label;
    let since = before_label + 60_000;
    let made = before_label + 600_000;
    world.clock.0.store(before_label + HOUR_MS / 2, Ordering::SeqCst);
    let mut session = world.machine.open().await.unwrap();
    release(&mut session.writer).await.unwrap();
    drop(session);
    world.clock.0.store(before_label + HOUR_MS, Ordering::SeqCst);
    world.touch();
    world.pages.changed = None;
    (world.pages.commits, world.pages.committed_ms) = (7, Some(made));
    world.pages.gap = Some(Gap { reason: GapReason::Room, since_ms: since });
    world.machine.checkpoint(&mut world.pages).await.unwrap().unwrap();
    (world.pages.commits, world.pages.committed_ms, world.pages.gap) = (1, None, None);
    // The claim was labelled with the hour: labels never go back.
    world.noted(7, before_label + HOUR_MS).await;
    for _ in 0..70 {
        world.clock.0.fetch_add(60_000, Ordering::SeqCst);
        world.segment().await;
    }
    let (before, after) = (&world.points[4], &world.points[5]);
    assert_eq!((before.last + 1, after.last - before.last), (after.first, 7));
    let log = world.machine.log();
    let bounds = [said(1, before), said(2, after)];
    let inside = [
        At::Time(since),
        At::Time(made),
        At::Time(before_label + HOUR_MS / 2),
        At::Time(before_label + HOUR_MS / 2 + 1),
        At::Time(after.label - 1),
        At::Lsn(Lsn(after.first)),
        At::Lsn(Lsn(after.last - 1)),
        At::Position(Position { epoch: Epoch(2), lsn: Lsn(after.first + 2) }),
    ];
    for (nth, at) in inside.iter().enumerate() {
        let dest = world.machine.dir.path().join("refused.db");
        let (components, child) = (&world.machine.components, format!("child{nth}").parse().unwrap());
        let named = name_state(&log, components, &"named".parse().unwrap(), at).await.map(drop);
        let doors = [
            find(&log, at).await.map(drop),
            restore(&log, components, at, &dest, false).await.map(drop),
            fork(&log, components, at, &child).await.map(drop),
            Lazy::open(&log, components, at).await.map(drop),
            named,
        ];
        for refused in doors {
            let error = refused.unwrap_err();
            assert!(matches!(error, EngineError::NoSuchPosition { .. }), "{at:?}: {error:?}");
            let error = error.to_string();
            assert!(error.contains("gap") && error.contains("too much waited"), "{error}");
            assert!(bounds.iter().all(|bound| error.contains(bound)), "{error}: {bounds:?}");
        }
        assert!(!dest.exists() && log.named(&"named".parse().unwrap()).await.unwrap().is_none());
        let made = Log::new(world.machine.stores.remote.clone(), child.clone()).newest().await.unwrap();
        assert_eq!(made, None, "{at:?} left a fork");
    }
    // Both ends, and what lies before the first of its commits.
    for (at, point) in [
        (At::Time(before.label), before),
        (At::Time(since - 1), before),
        (At::Lsn(Lsn(before.last)), before),
        (At::Time(after.label), after),
        (At::Lsn(Lsn(after.last)), after),
        (At::Time(after.label + 59_999), after),
    ] {
        world.is(&at, Some(point)).await;
    }
    let history = live::history(&log, 500).await.unwrap();
    let gaps: Vec<Lsn> =
        history.iter().filter(|record| record.kind == RecordKind::Gap).map(|record| record.lsns.last).collect();
    assert_eq!(gaps, [Lsn(after.last)]);
    assert_eq!(verify(&log, &world.machine.components).await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_moment_of_a_long_history_is_found_in_few_rounds() {
    let mut world = World::new(11).await;
    for _ in 0..600 {
        world.clock.0.fetch_add(1000, Ordering::SeqCst);
        world.segment().await;
        if world.points.len().is_multiple_of(40) {
            world.checkpoint().await;
        }
    }
    let remote = counted(world.machine.stores.remote.clone());
    let (early, label) = (&world.points[100], world.points[100].label);
    let lazy = Lazy::open(&rig::log(remote.clone()), &world.machine.components, &At::Time(label)).await.unwrap();
    assert_eq!(lazy.position().lsn, Lsn(early.last));
    let cost = cost(&remote);
    assert!(cost.depth <= 12 && cost.requests <= 200, "{cost:?}");
}

/// Dies at a point, once.
#[derive(Debug, Default)]
struct Dies(Mutex<Option<&'static str>>);

impl Faults for Dies {
    fn reach(&self, point: &'static str) -> Result<(), Crash> {
        let mut dies = self.0.lock().unwrap();
        match *dies {
            Some(at) if at == point => {
                *dies = None;
                Err(Crash(point))
            }
            _ => Ok(()),
        }
    }
}

impl World {
    /// A prune, or several of which all but the last die. What the model says stays is there after each.
    async fn prune(&mut self, retention: &Retention, dies: &Dies) {
        let keep = KeepPolicy { last: 1, within_ms: retention.all_ms() };
        let grace_ms = self.chance.below(2) * 12 * HOUR_MS;
        let points = ["prune.planned", "prune.published", "prune.deleted"];
        if self.chance.below(3) == 0 {
            *dies.0.lock().unwrap() = Some(points[self.chance.below(3) as usize]);
        }
        let floor = loop {
            let look = prune::Options { keep, grace_ms, dry_run: true };
            let mut session = self.machine.open().await.unwrap();
            let looked = prune_thinning(&mut session.writer, &look, retention).await.unwrap();
            let options = prune::Options { keep, grace_ms, dry_run: false };
            let done = prune_thinning(&mut session.writer, &options, retention).await;
            match done {
                Ok(Some(done)) => {
                    let looked = looked.unwrap();
                    assert_eq!((looked.floor, looked.kept), (done.floor, done.kept), "a look says what a prune does");
                    break Some(done.floor);
                }
                Ok(None) => break None,
                Err(error) => assert!(error.is_crash(), "{error:?}"),
            }
        };
        *dies.0.lock().unwrap() = None;
        let Some(floor) = floor else { return };
        let now = self.clock.wall_ms();
        let before: Vec<RestorePoint> = self
            .points
            .iter()
            .filter(|point| point.seq < floor)
            .map(|point| RestorePoint {
                seq: point.seq,
                lsn: Lsn(point.last),
                time_ms: point.label,
                is_folded: point.is_folded,
            })
            .collect();
        let kept = thinned(&before, retention, now);
        self.points.retain(|point| point.seq >= floor || kept.iter().any(|kept| kept.seq == point.seq));
        self.points.iter_mut().filter(|point| point.seq < floor).for_each(|point| point.is_folded = true);
    }
}

#[tokio::test]
async fn p09_a_thinned_history_gives_what_it_kept_and_refuses_what_lay_between_with_its_neighbours() {
    let retention: Retention = "24h,2h:4d,8h:30d".parse().unwrap();
    let mut refused = 0;
    for seed in 20..23 {
        let mut world = World::new(seed).await;
        let dies = Arc::new(Dies::default());
        world.machine.components.faults = dies.clone();
        let mut all = 1;
        for round in 1..300 {
            let by = world.chance.below(2 * HOUR_MS);
            world.clock.0.fetch_add(by, Ordering::SeqCst);
            match world.chance.below(5) {
                0 => world.checkpoint().await,
                _ => world.segment().await,
            }
            all += 1;
            if round % 23 == 0 {
                world.prune(&retention, &dies).await;
            }
        }
        world.prune(&retention, &dies).await;
        assert!(world.points.len() < all * 2 / 3, "{} of {all} are left", world.points.len());
        let floor = world.machine.log().glance().await.unwrap().unwrap().tail.floor;
        for at in 0..world.points.len() {
            let point = &world.points[at];
            if at % 3 == 0 {
                world.is(&At::Lsn(Lsn(point.last)), Some(point)).await;
            }
        }
        let (begin, end) = (world.points[0].label, world.points.last().unwrap().label);
        for _ in 0..30 {
            let ms = begin - HOUR_MS + world.chance.below(end - begin + 3 * HOUR_MS);
            world.is(&At::Time(ms), naive(&world.points, ms)).await;
        }
        // A commit whose restore point is gone is never another's.
        let log = world.machine.log();
        for lsn in (1..world.points.last().unwrap().last).step_by(7) {
            let at = world.points.partition_point(|point| point.last <= lsn);
            let before = at.checked_sub(1).map(|at| &world.points[at]);
            let after = &world.points[at];
            let is_adjacent = before.is_some_and(|before| after.first == before.last + 1);
            match find(&log, &At::Lsn(Lsn(lsn))).await {
                Ok(found) => {
                    let before = before.unwrap();
                    assert_eq!(found.opened.tail.lsn, Lsn(before.last), "LSN {lsn}");
                    assert!(before.last == lsn || is_adjacent, "LSN {lsn} was pruned, and LSN {} given", before.last);
                }
                Err(EngineError::NoSuchPosition { detail, .. }) => {
                    refused += 1;
                    assert!(
                        after.seq <= floor && before.is_none_or(|before| before.last != lsn),
                        "LSN {lsn}: {detail}"
                    );
                    let named = |point: &Point| detail.contains(&format!("1.{} of ", point.last));
                    assert!(named(after) && before.is_none_or(named), "{detail}");
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        let temp = world.machine.dir.path().join("verified");
        std::fs::create_dir(&temp).unwrap();
        let report = verify(&log, &world.machine.components).await.unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        // Whoever keeps nothing of before gets rid of it.
        let mut session = world.machine.open().await.unwrap();
        let keep = KeepPolicy { last: 1, within_ms: 0 };
        let options = prune::Options { keep, grace_ms: 0, dry_run: false };
        prune::prune(&mut session.writer, &options).await.unwrap().unwrap();
        let floor = session.writer.row().tail.floor;
        assert_eq!(log.standing_before(floor).await.unwrap(), []);
    }
    assert!(refused > 100, "{refused}");
}

#[tokio::test]
async fn p02_who_reads_a_restore_point_of_a_coarser_history_reads_it_to_its_end() {
    let retention: Retention = "1h,6h:forever".parse().unwrap();
    let mut world = World::new(31).await;
    let dies = Dies::default();
    for _ in 0..60 {
        world.clock.0.fetch_add(HOUR_MS / 2, Ordering::SeqCst);
        world.segment().await;
        if world.points.len().is_multiple_of(9) {
            world.checkpoint().await;
        }
    }
    world.prune(&retention, &dies).await;
    let old = &world.points[1];
    let floor = world.machine.log().glance().await.unwrap().unwrap().tail.floor;
    assert!(old.seq < floor);
    // A name and a fork of it hold it like any other state.
    let at = At::Lsn(Lsn(old.last));
    let other = At::Lsn(Lsn(world.points[2].last));
    assert!(world.points[2].seq < floor);
    let log = world.machine.log();
    live::name_state(&log, &world.machine.components, &"old".parse().unwrap(), &other).await.unwrap();
    fork(&log, &world.machine.components, &at, &"child".parse().unwrap()).await.unwrap();
    // Opened, pinned, and then everything of before goes.
    let read = &world.points[3];
    assert!(read.seq < floor);
    let at = At::Lsn(Lsn(read.last));
    let lazy = Lazy::open(&world.machine.log(), &world.machine.components, &at).await.unwrap();
    assert_eq!(lazy.held().await, Held::Pinned);
    let image = read.image.clone();
    let mut session = world.machine.open().await.unwrap();
    let options = prune::Options { keep: KeepPolicy { last: 1, within_ms: 0 }, grace_ms: 0, dry_run: false };
    prune::prune(&mut session.writer, &options).await.unwrap().unwrap();
    for (nth, must) in image.chunks(PAGE as usize).enumerate() {
        let page = PageNo::from_index(nth as u64);
        let frame = lazy.fetch(page).await.unwrap();
        let found = frame.pages.iter().find(|(number, _)| *number == page).unwrap();
        assert!(found.1 == must, "page {page}");
    }
    lazy.close().await;
    world.machine.components.clock = world.clock.clone();
    let done = prune::prune(&mut session.writer, &options).await.unwrap();
    assert!(done.is_some(), "what was pinned goes with its pin");
    let gone = find(&world.machine.log(), &at).await;
    assert!(matches!(gone, Err(EngineError::NoSuchPosition { .. })), "{gone:?}");
    // What a fork and a name hold is there.
    world.is(&At::Snapshot("old".parse().unwrap()), Some(&world.points[2])).await;
    let child = Log::new(world.machine.stores.remote.clone(), "child".parse().unwrap());
    let dest = world.machine.dir.path().join("child.db");
    restore(&child, &world.machine.components, &At::Newest, &dest, true).await.unwrap();
    assert!(std::fs::read(&dest).unwrap() == world.points[1].image, "the fork is not what it was forked from");
}
