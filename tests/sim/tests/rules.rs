//! The rules of publishing, each with a test that fails when the rule is left out.

#![allow(clippy::unwrap_used, clippy::panic, clippy::large_futures, reason = "a test fails by panicking")]

use littoral_engine::exec::prune::{self, Pruned};
use littoral_engine::exec::rebuild::rows;
use littoral_engine::exec::restore::{At, open_at};
use littoral_engine::log::Draft;
use littoral_engine::log::pins::{Pinned, Wish};
use littoral_engine::{EngineError, Log, Stores, Target, open_for_writing};
use littoral_format as format;
use littoral_format::keys;
use littoral_plan::KeepPolicy;
use littoral_ports::{MemoryManifest, Remote, RemoteError};
use littoral_remote::Op;
use littoral_sim::chance::Chance;
use littoral_sim::check::Depth;
use littoral_sim::database::Shape;
use littoral_sim::life::same_as_model;
use littoral_sim::machine::Machine;
use littoral_sim::net::{Loss, SimRemote, When};
use littoral_sim::process::Death;
use littoral_sim::time::DAY_MS;
use littoral_sim::world::World;
use littoral_types::limits::{INDEX_EVERY, PRUNE_GRACE_MS};
use littoral_types::{Coalesce, Epoch, Lsn, PinPurpose, RecordBody, RecordHash, RecordKind, Seq};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

fn machine(world: &World, name: &str) -> Machine {
    Machine::new(&world.around, name, Shape::Small).unwrap()
}

/// Everything that must hold, holds.
fn all_is_well(world: &World) {
    world.check(&Chance::new(1), Depth::Whole).unwrap();
}

/// Opens and publishes so many commits.
async fn published(machine: &mut Machine, commits: u64) {
    machine.open(None).await.unwrap();
    for _ in 0..commits {
        publish(machine).await;
    }
}

async fn publish(machine: &mut Machine) {
    let before = machine.database.clone();
    while machine.database == before {
        machine.commit();
    }
    machine.publish().await.unwrap().unwrap();
}

async fn days(count: u64) {
    sleep(Duration::from_millis(count * DAY_MS)).await;
}

fn keep(last: u64) -> prune::Options {
    prune::Options { keep: KeepPolicy { last, within_ms: 0 }, grace_ms: PRUNE_GRACE_MS, dry_run: false }
}

fn names(world: &World) -> Vec<String> {
    world.around.net.server.objects().into_iter().map(|(path, _)| path.to_string()).collect()
}

fn deletions(world: &World, machine: &str) -> u64 {
    world.around.net.requests(machine).get(&Op::Delete).copied().unwrap_or(0)
}

/// Dies at a named point of a checkpoint.
async fn die_in_a_checkpoint(machine: &mut Machine, point: &'static str) {
    machine.process().unwrap().doom(Some(Death::Point(point, 0)));
    let done = machine.publish().await;
    assert!(matches!(done, Err(EngineError::Crash(_))), "{done:?}");
}

#[test]
fn p01_nothing_is_deleted_that_no_record_had_named() {
    let world = World::new(10_101, false).unwrap();
    let mut a = machine(&world, "a");
    world.runtime.block_on(async {
        published(&mut a, 6).await;
        a.commit();
        die_in_a_checkpoint(&mut a, "checkpoint.uploaded").await;
        let with_orphans = names(&world).len();
        days(3).await;
        a.open(None).await.unwrap();
        a.database.clone_from(&world.around.oracle.tail().unwrap().image.unwrap());
        let pruned = a.prune(&keep(1)).await.unwrap().unwrap();
        assert!(pruned.blobs > 0 && pruned.records >= 5, "{pruned:?}");
        assert!(names(&world).len() < with_orphans);
    });
    // The oracle saw every deletion, and what records had doomed by then.
    all_is_well(&world);
}

#[test]
fn p01_a_doomed_name_is_never_named_again() {
    let world = World::new(10_102, false).unwrap();
    let mut a = machine(&world, "a");
    world.runtime.block_on(async {
        published(&mut a, 3).await;
        // Blobs that only the interrupted job knows of.
        a.commit();
        die_in_a_checkpoint(&mut a, "checkpoint.uploaded").await;
        days(3).await;
        a.open(None).await.unwrap();
        a.prune(&keep(1)).await.unwrap().unwrap();
        // The job goes on, with the very same content: under other names.
        let done = a.publish().await.unwrap().unwrap();
        assert_eq!(done.resumed, 0);
    });
    all_is_well(&world);
}

#[test]
fn p01_what_an_interrupted_job_uploaded_is_used_as_long_as_nobody_doomed_it() {
    let world = World::new(10_103, false).unwrap();
    let mut a = machine(&world, "a");
    world.runtime.block_on(async {
        published(&mut a, 1).await;
        a.commit();
        die_in_a_checkpoint(&mut a, "checkpoint.uploaded").await;
        a.open(None).await.unwrap();
        let done = a.publish().await.unwrap().unwrap();
        assert_eq!((done.resumed, done.resumed), (done.blobs, 1));
    });
    all_is_well(&world);
}

/// A blob that no record names may be about to be named, by whoever uploads it just now: it is left alone until it is old.
#[test]
fn p01_an_orphan_goes_when_it_is_older_than_the_grace_and_not_before() {
    let world = World::new(10_106, false).unwrap();
    let mut a = machine(&world, "a");
    world.runtime.block_on(async {
        published(&mut a, 2).await;
        a.commit();
        die_in_a_checkpoint(&mut a, "checkpoint.uploaded").await;
        a.database.clone_from(&world.around.oracle.tail().unwrap().image.unwrap());
        let orphans = |world: &World| {
            let known: Vec<String> = world.around.oracle.named_blobs();
            let is_blob = |name: &&String| name.contains("/chunk/") || name.contains("/pack/");
            names(world).iter().filter(is_blob).filter(|name| !known.contains(name)).count()
        };
        assert_eq!(orphans(&world), 1);
        a.open(None).await.unwrap();
        sleep(Duration::from_secs(23 * 3600)).await;
        a.prune(&keep(1)).await.unwrap();
        assert_eq!(orphans(&world), 1, "it is younger than a day");
        sleep(Duration::from_secs(2 * 3600)).await;
        a.prune(&keep(1)).await.unwrap().unwrap();
        assert_eq!(orphans(&world), 0);
    });
    all_is_well(&world);
}

#[test]
fn p01_a_pruner_whose_term_has_ended_deletes_nothing() {
    let world = World::new(10_104, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 5).await;
        days(3).await;
        publish(&mut a).await;
        // Its record is published; before it hears of that, its term ends.
        let before = deletions(&world, "a");
        let mut held = world.around.net.hold("a", Op::PutNew, "/log/", When::After);
        let taking_over = async {
            assert!(held.arrived().await);
            b.open(Some(Epoch(1))).await.unwrap();
            held.release();
        };
        let options = keep(1);
        let (done, ()) = futures::join!(a.prune(&options), taking_over);
        assert!(matches!(&done, Err(EngineError::Superseded { epoch: Epoch(2), .. })), "{done:?}");
        assert_eq!(deletions(&world, "a"), before);
        publish(&mut b).await;
    });
    all_is_well(&world);
}

#[test]
fn p01_a_prune_that_cannot_read_a_record_dooms_nothing() {
    let world = World::new(10_105, false).unwrap();
    let mut a = machine(&world, "a");
    world.runtime.block_on(async {
        published(&mut a, 7).await;
        // Openers start behind the hole and do not see it.
        a.snapshot(true).await.unwrap();
        days(3).await;
        publish(&mut a).await;
        let server = &world.around.net.server;
        let path = keys::record(world.around.oracle.volume(), Seq(7));
        let object = server.get(&path).await.unwrap();
        server.delete(std::slice::from_ref(&path)).await.unwrap();
        let before = deletions(&world, "a");
        let done = a.prune(&keep(4)).await;
        assert!(matches!(&done, Err(EngineError::Inconsistent { .. })), "{done:?}");
        assert_eq!(deletions(&world, "a"), before);
        assert_eq!(world.around.oracle.tail().unwrap().seq, Seq(9), "a record dooms what nobody could look at");
        server.tamper(&path, object);
        let pruned = a.prune(&keep(4)).await.unwrap().unwrap();
        assert_eq!(pruned.floor, Seq(6));
    });
    all_is_well(&world);
}

/// A reader in a process of its own, with the log opened at an older commit.
async fn reader(b: &mut Machine, lsn: u64) -> (Log, littoral_engine::log::Opened) {
    let process = b.start();
    let log = b.log(&process);
    let opened = open_at(&log, &At::Lsn(Lsn(lsn))).await.unwrap();
    (log, opened)
}

async fn pin(b: &mut Machine, log: &Log, opened: &littoral_engine::log::Opened) -> Option<Pinned> {
    let process = b.start();
    let wish = Wish { purpose: PinPurpose::Reader, holder: "a reader".to_owned(), life_ms: Some(DAY_MS) };
    log.pin(&b.components(&process), opened, wish).await.unwrap()
}

async fn read(world: &World, log: &Log, opened: &littoral_engine::log::Opened) -> Result<(), EngineError> {
    let rows = rows(log, opened).await?;
    let model = world.around.oracle.image_at(opened.tail.lsn);
    same_as_model(log, &rows, opened, model.as_ref()).await
}

fn pins(world: &World) -> usize {
    names(world).iter().filter(|name| name.contains("/pins/")).count()
}

#[test]
fn p02_what_is_pinned_before_the_prune_is_published_is_spared() {
    let world = World::new(10_201, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 5).await;
        days(3).await;
        publish(&mut a).await;
        let (log, opened) = reader(&mut b, 2).await;
        // The pruner has looked at the pins and made up its mind, and not said so yet.
        let mut held = world.around.net.hold("a", Op::PutNew, "/log/", When::Before);
        let pinning = async {
            assert!(held.arrived().await);
            let pinned = pin(&mut b, &log, &opened).await;
            held.release();
            pinned.unwrap()
        };
        let options = keep(1);
        let (pruned, pinned) = futures::join!(a.prune(&options), pinning);
        let Pruned { spared, records, .. } = pruned.unwrap().unwrap();
        assert!(spared > 0 && records > 0, "{spared} spared, {records} records gone");
        read(&world, &log, &opened).await.unwrap();
        log.unpin(&pinned.key).await.unwrap();
    });
    all_is_well(&world);
}

/// A pin that stood before, a named snapshot, and a pin whose maker is late to drop it.
#[test]
fn p02_what_is_pinned_stays_through_every_prune_until_it_is_dropped_or_over() {
    let world = World::new(10_205, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 3).await;
        let name = "before-upgrade".parse().unwrap();
        a.name_snapshot(&name).await.unwrap().unwrap();
        let (log, short) = reader(&mut b, 1).await;
        let (_, named) = reader(&mut b, 3).await;
        pin(&mut b, &log, &short).await.unwrap();
        // The pin is over after a day, and holds for a grace more.
        for (passed, hours, held) in [(0, 0, true), (0, 20, true), (1, 2, true), (0, 3, false), (9, 0, false)] {
            days(passed).await;
            sleep(Duration::from_secs(hours * 3600)).await;
            publish(&mut a).await;
            a.prune(&keep(1)).await.unwrap();
            read(&world, &log, &named).await.unwrap();
            let seq = short.tail.seq;
            let stands = log.open_snapshot(seq).await.unwrap().is_some() || log.open_at(seq).await.unwrap().is_some();
            assert_eq!(stands, held, "after {passed} days and {hours} hours more");
            if held {
                read(&world, &log, &short).await.unwrap();
            }
        }
        assert_eq!(pins(&world), 1, "what is over goes");
        let process = b.start();
        let log = b.log(&process);
        let found = open_at(&log, &At::Snapshot(name)).await.unwrap();
        assert_eq!(found.tail.hash, named.tail.hash);
    });
    all_is_well(&world);
}

#[test]
fn p02_a_pinner_whom_a_prune_overtook_takes_its_pin_back() {
    let world = World::new(10_202, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 5).await;
        days(3).await;
        publish(&mut a).await;
        let (log, opened) = reader(&mut b, 2).await;
        let mut held = world.around.net.hold("b", Op::PutNew, "/pins/", When::Before);
        let options = keep(1);
        let pruning = async {
            assert!(held.arrived().await);
            let pruned = a.prune(&options).await.unwrap().unwrap();
            held.release();
            pruned
        };
        let (pinned, pruned) = futures::join!(pin(&mut b, &log, &opened), pruning);
        assert_eq!((pinned, pruned.spared), (None, 0));
        assert_eq!(pins(&world), 0, "a pin on nothing stays");
        // Nearer the tail it can have one.
        let (log, opened) = reader(&mut b, 6).await;
        assert!(pin(&mut b, &log, &opened).await.is_some());
    });
    all_is_well(&world);
}

#[test]
fn p02_a_prune_that_spares_a_state_is_no_reason_to_yield() {
    let world = World::new(10_203, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 5).await;
        days(3).await;
        publish(&mut a).await;
        let (log, opened) = reader(&mut b, 4).await;
        a.prune(&keep(3)).await.unwrap().unwrap();
        assert!(pin(&mut b, &log, &opened).await.is_some());
        read(&world, &log, &opened).await.unwrap();
    });
    all_is_well(&world);
}

#[test]
fn p02_a_reader_whose_manifest_snapshot_is_gone_reads_the_same_state_from_another() {
    let world = World::new(10_204, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 2).await;
        a.snapshot(true).await.unwrap();
        let shards =
            |world: &World| names(world).into_iter().filter(|name| name.contains("/shard/")).collect::<Vec<_>>();
        let before = shards(&world);
        publish(&mut a).await;
        publish(&mut a).await;
        days(3).await;
        publish(&mut a).await;
        let (log, opened) = reader(&mut b, 4).await;
        assert!(opened.snapshot.is_some(), "it starts from the manifest snapshot");
        a.prune(&keep(2)).await.unwrap().unwrap();
        assert!(shards(&world).iter().all(|name| !before.contains(name)), "the snapshot's rows are gone");
        read(&world, &log, &opened).await.unwrap();
    });
    all_is_well(&world);
}

#[test]
fn p03_of_two_writers_of_one_place_one_wins_and_the_other_is_told_who() {
    let world = World::new(10_301, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 2).await;
        let theirs = b.store().unwrap().id();
        a.commit();
        let mut held = world.around.net.hold("a", Op::PutNew, "/log/", When::Before);
        let taking_over = async {
            assert!(held.arrived().await);
            b.open(Some(Epoch(1))).await.unwrap();
            publish(&mut b).await;
            held.release();
        };
        let (done, ()) = futures::join!(a.publish(), taking_over);
        let Err(EngineError::Superseded { epoch, owner, .. }) = done else { panic!("{done:?}") };
        assert_eq!((epoch, owner.store), (Epoch(2), theirs));
        // It remembers, and never tries again.
        let tries = world.around.net.requests("a").get(&Op::PutNew).copied();
        let again = a.publish().await;
        assert!(matches!(again, Err(EngineError::Superseded { epoch: Epoch(2), .. })), "{again:?}");
        let opened = a.open(None).await;
        assert!(matches!(opened, Err(EngineError::Superseded { epoch: Epoch(2), .. })), "{opened:?}");
        assert_eq!(world.around.net.requests("a").get(&Op::PutNew).copied(), tries);
    });
    all_is_well(&world);
}

#[test]
fn p03_a_takeover_that_names_another_term_is_refused_and_changes_nothing() {
    let world = World::new(10_302, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 2).await;
        let before = names(&world);
        for said in [0, 2, 7] {
            let done = b.open(Some(Epoch(said))).await;
            assert!(matches!(&done, Err(EngineError::WrongTakeover { found: Epoch(1), .. })), "{done:?}");
        }
        assert_eq!(names(&world), before);
        publish(&mut a).await;
    });
    all_is_well(&world);
}

#[test]
fn p03_a_lost_answer_is_settled_by_reading_what_the_name_holds() {
    for (seed, loss) in [(10_303, Loss::After(5)), (10_304, Loss::Before), (10_305, Loss::After(100_000))] {
        let world = World::new(seed, false).unwrap();
        let mut a = machine(&world, "a");
        world.runtime.block_on(async {
            published(&mut a, 1).await;
            a.commit();
            world.around.net.lose("a", Op::PutNew, "/log/", loss);
            let done = a.publish().await.unwrap().unwrap();
            assert_eq!((done.position.lsn, done.seq), (Lsn(2), Seq(3)), "{loss:?}");
            days(1).await;
            publish(&mut a).await;
        });
        all_is_well(&world);
    }
}

/// The request was on its way when its sender died: it lands before, or long after, the successor looks.
#[test]
fn p03_a_dead_workers_record_is_adopted_as_it_is_whenever_it_lands() {
    for (seed, lands_ms) in [(10_306, 1_000), (10_307, 300_000)] {
        let world = World::new(seed, false).unwrap();
        let mut a = machine(&world, "a");
        world.runtime.block_on(async {
            published(&mut a, 1).await;
            a.commit();
            let old = a.database.clone();
            world.around.net.lose("a", Op::PutNew, "/log/", Loss::After(lands_ms));
            let process = a.process().unwrap();
            let dying = async {
                sleep(Duration::from_secs(5)).await;
                process.kill("by a test");
            };
            let (done, ()) = futures::join!(a.publish(), dying);
            assert!(matches!(done, Err(EngineError::Crash(_))), "{done:?}");
            // The database has moved on when the successor comes.
            a.commit();
            a.commit();
            assert!(a.open(None).await.unwrap(), "an interrupted publication was finished");
            let new = a.database.clone();
            let done = a.publish().await.unwrap().unwrap();
            assert_eq!((done.position.lsn, done.seq), (Lsn(3), Seq(4)));
            assert_eq!(world.around.oracle.image_at(Lsn(2)), Some(old));
            assert_eq!(world.around.oracle.image_at(Lsn(3)), Some(new));
            days(1).await;
            publish(&mut a).await;
        });
        all_is_well(&world);
    }
}

/// The process lives, only its publication failed: the next one does not overwrite what may still land.
#[test]
fn p03_a_publication_that_failed_is_finished_before_the_next_one_is_planned() {
    let world = World::new(10_308, false).unwrap();
    let mut a = machine(&world, "a");
    world.runtime.block_on(async {
        published(&mut a, 1).await;
        a.commit();
        let old = a.database.clone();
        world.around.net.lose("a", Op::PutNew, "/log/", Loss::After(600_000));
        world.around.net.lose("a", Op::Get, "/log/", Loss::Before);
        let done = a.publish().await;
        assert!(matches!(done, Err(EngineError::Remote(RemoteError::Unavailable { .. }))), "{done:?}");
        a.commit();
        let done = a.publish().await.unwrap().unwrap();
        assert_eq!(done.position.lsn, Lsn(3));
        assert_eq!(world.around.oracle.image_at(Lsn(2)), Some(old));
        days(1).await;
        publish(&mut a).await;
    });
    all_is_well(&world);
}

#[test]
fn p03_a_restored_image_of_a_machine_is_refused_and_changes_nothing() {
    let world = World::new(10_309, false).unwrap();
    let (mut a, mut c) = (machine(&world, "a"), machine(&world, "c"));
    world.runtime.block_on(async {
        published(&mut a, 2).await;
        let image = a.disk();
        publish(&mut a).await;
        publish(&mut a).await;
        c.restore_disk(&image).unwrap();
        let before = names(&world);
        for _ in 0..2 {
            let done = c.open(None).await;
            let Err(EngineError::Diverged { local, remote, epoch, .. }) = done else { panic!("{done:?}") };
            assert_eq!((local, remote, epoch), (Seq(3), Seq(5), Epoch(1)));
        }
        assert_eq!(names(&world), before);
        // The original goes on.
        publish(&mut a).await;
        // On purpose, by name, it may.
        c.open(Some(Epoch(1))).await.unwrap();
        publish(&mut c).await;
        a.commit();
        let done = a.publish().await;
        assert!(matches!(&done, Err(EngineError::Diverged { epoch: Epoch(2), .. })), "{done:?}");
    });
    all_is_well(&world);
}

#[test]
fn p03_two_copies_of_one_machine_that_run_at_once_never_fork_the_log() {
    let world = World::new(10_310, false).unwrap();
    let (mut a, mut c) = (machine(&world, "a"), machine(&world, "c"));
    world.runtime.block_on(async {
        published(&mut a, 2).await;
        c.restore_disk(&a.disk()).unwrap();
        // Both stand on the same record; whoever publishes first has the log.
        c.open(None).await.unwrap();
        a.commit();
        c.commit();
        let (one, other) = futures::join!(a.publish(), c.publish());
        let refused =
            [&one, &other].into_iter().filter(|done| matches!(done, Err(EngineError::Diverged { .. }))).count();
        assert_eq!((refused, one.is_ok() || other.is_ok()), (1, true), "{one:?} {other:?}");
    });
    all_is_well(&world);
}

/// Counts agree, only the hash tells.
#[test]
fn p03_a_volume_that_was_made_anew_with_as_many_records_is_not_gone_on_with() {
    let world = World::new(10_312, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 2).await;
        a.close();
        let server = &world.around.net.server;
        let all: Vec<_> = server.objects().into_iter().map(|(path, _)| path).collect();
        server.delete(&all).await.unwrap();
        published(&mut b, 2).await;
        let before = names(&world);
        let opened = a.open(None).await;
        assert!(matches!(&opened, Err(EngineError::NotAVolume { .. })), "{opened:?}");
        assert_eq!(names(&world), before);
    });
}

#[test]
fn p03_a_record_that_does_not_follow_is_refused_by_every_reader() {
    let world = World::new(10_311, false).unwrap();
    let mut a = machine(&world, "a");
    world.runtime.block_on(async {
        published(&mut a, 4).await;
        let process = a.start();
        let log = a.log(&process);
        let path = keys::record(log.name(), Seq(3));
        let object = world.around.net.server.get(&path).await.unwrap();
        let (envelope, body) = format::record::decode(&object, None).unwrap();
        let mut header = envelope.header;
        header.previous = RecordHash([7; 32]);
        let forged = format::record::encode(&littoral_types::Record { header, body }, Seq(2)).unwrap();
        world.around.net.server.tamper(&path, forged.object.into());
        let opened = log.open().await;
        assert!(matches!(&opened, Err(EngineError::Chain { .. })), "{opened:?}");
        let at = open_at(&log, &At::Lsn(Lsn(2))).await;
        assert!(matches!(&at, Err(EngineError::Chain { .. })), "{at:?}");
        let verified = littoral_engine::exec::verify::verify(&log, &a.components(&process)).await.unwrap();
        assert!(verified.problems.iter().any(|problem| problem.contains("record 3")), "{:?}", verified.problems);
    });
}

/// A writer sleeps with its request in its hands; meanwhile the name is taken, and pruned, and free again.
#[test]
fn p05_a_silent_writer_that_wins_a_pruned_name_is_not_acknowledged() {
    // Nor where somebody sets its wall clock back meanwhile.
    silent(10_501, 0);
    silent(10_503, -30 * i64::try_from(DAY_MS).unwrap());
}

fn silent(seed: u64, skew_ms: i64) {
    let world = World::new(seed, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 1).await;
        let clock = a.clock.clone();
        a.commit();
        let mut held = world.around.net.hold("a", Op::PutNew, "/log/", When::Before);
        let meanwhile = async {
            assert!(held.arrived().await);
            b.open(Some(Epoch(1))).await.unwrap();
            for _ in 0..4 {
                publish(&mut b).await;
            }
            days(2).await;
            publish(&mut b).await;
            b.prune(&keep(1)).await.unwrap().unwrap();
            clock.set_skew_ms(skew_ms);
            held.release();
        };
        let (done, ()) = futures::join!(a.publish(), meanwhile);
        assert_eq!(world.around.oracle.strays().keys().copied().collect::<Vec<_>>(), [Seq(3)], "it did win the name");
        assert!(matches!(&done, Err(EngineError::Superseded { epoch: Epoch(2), .. })), "{done:?}");
        // Neither this process nor the next one takes it for published.
        let again = a.publish().await;
        assert!(matches!(&again, Err(EngineError::Superseded { epoch: Epoch(2), .. })), "{again:?}");
        a.kill();
        let opened = a.open(None).await;
        assert!(matches!(&opened, Err(EngineError::Superseded { epoch: Epoch(2), .. })), "{opened:?}");
        publish(&mut b).await;
    });
    all_is_well(&world);
}

#[test]
fn p05_after_a_quarter_of_the_grace_the_tail_is_read_again_and_before_that_it_is_not() {
    let world = World::new(10_504, false).unwrap();
    let mut a = machine(&world, "a");
    world.runtime.block_on(async {
        published(&mut a, 1).await;
        let looks = || world.around.net.requests("a").get(&Op::List).copied().unwrap_or(0);
        let minute = Duration::from_secs(60);
        let quarter = Duration::from_millis(PRUNE_GRACE_MS / 4);
        for (silence, looked) in [(minute, 0), (quarter - minute, 0), (quarter + minute, 1), (minute, 0), (quarter, 1)]
        {
            let before = looks();
            sleep(silence).await;
            publish(&mut a).await;
            assert_eq!(looks() - before, looked, "after {silence:?}");
        }
    });
    all_is_well(&world);
}

#[test]
fn p05_a_prune_spares_whatever_is_younger_than_the_grace() {
    let world = World::new(10_505, false).unwrap();
    let mut a = machine(&world, "a");
    world.runtime.block_on(async {
        published(&mut a, 3).await;
        sleep(Duration::from_secs(20 * 3600)).await;
        for _ in 0..3 {
            publish(&mut a).await;
        }
        let before = names(&world);
        assert_eq!(a.prune(&keep(1)).await.unwrap(), None);
        assert_eq!(names(&world), before);
        // Now the claim and the first three are old, and the others are not.
        sleep(Duration::from_secs(6 * 3600)).await;
        let pruned = a.prune(&keep(1)).await.unwrap().unwrap();
        assert_eq!((pruned.floor, pruned.records), (Seq(5), 4));
    });
    all_is_well(&world);
}

#[test]
fn p05_a_store_that_slept_with_an_intent_looks_before_it_writes() {
    let world = World::new(10_502, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 1).await;
        a.commit();
        die_in_a_checkpoint(&mut a, "publish.intended").await;
        b.open(Some(Epoch(1))).await.unwrap();
        for _ in 0..4 {
            publish(&mut b).await;
        }
        days(2).await;
        publish(&mut b).await;
        b.prune(&keep(1)).await.unwrap().unwrap();
        let opened = a.open(None).await;
        assert!(matches!(&opened, Err(EngineError::Superseded { epoch: Epoch(2), .. })), "{opened:?}");
        assert!(world.around.oracle.strays().is_empty(), "it wrote a record that is part of no log");
    });
    all_is_well(&world);
}

/// Publishes records that change nothing until the log is so long.
async fn lengthen(a: &mut Machine, until: Seq) {
    while a.tail().unwrap() < until {
        let (session, _) = a.session().unwrap();
        let figures = session.writer.row().tail.figures;
        let body = RecordBody::Coalesce(Coalesce { ops: Vec::new() });
        let draft = Draft::of(body, figures);
        session.writer.publish(draft).await.unwrap();
    }
}

#[test]
fn p08_a_log_of_3600_records_without_a_snapshot_is_opened_in_few_requests_and_rounds() {
    let world = World::new(10_801, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 1).await;
        for until in (400..=3600).step_by(400) {
            publish(&mut a).await;
            lengthen(&mut a, Seq(until)).await;
        }
        let process = b.start();
        let began = tokio::time::Instant::now();
        let opened = b.log(&process).open().await.unwrap().unwrap();
        assert_eq!((opened.tail.seq, opened.snapshot.is_none()), (Seq(3600), true));
        let requests: u64 = world.around.net.requests("b").values().sum();
        // Head, listing, sixteen records since the newest index, three indexes, the first claim.
        assert!(requests <= INDEX_EVERY + 12, "{requests} requests");
        let rounds = began.elapsed().as_millis().div_ceil(40);
        assert!(rounds <= 4, "{rounds} rounds");
        let log = b.log(&process);
        read(&world, &log, &opened).await.unwrap();
        // The writer's own way, after it lost its manifest.
        a.lose_manifest();
        a.open(None).await.unwrap();
        publish(&mut a).await;
    });
    all_is_well(&world);
}

#[test]
fn p08_an_index_stands_at_every_64th_place_and_nowhere_else() {
    let world = World::new(10_802, false).unwrap();
    let mut a = machine(&world, "a");
    world.runtime.block_on(async {
        published(&mut a, 2).await;
        lengthen(&mut a, Seq(200)).await;
        a.release().await.unwrap();
        a.open(None).await.unwrap();
        for record in world.around.oracle.records() {
            let due = record.seq.0.is_multiple_of(INDEX_EVERY);
            assert_eq!(record.kind == RecordKind::Index, due, "record {}", record.seq);
        }
    });
    all_is_well(&world);
}

/// Whoever takes over where an index is due writes that first. If he dies then, it is still the old owner's term.
#[test]
fn p08_an_index_that_a_dead_taker_left_keeps_nobody_from_going_on() {
    for (seed, reopened) in [(10_803, false), (10_804, true)] {
        let world = World::new(seed, false).unwrap();
        let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
        world.runtime.block_on(async {
            published(&mut a, 1).await;
            // The writer is asked to stop one before, so that the index is due and not there.
            lengthen(&mut a, Seq(62)).await;
            world.around.net.lose("a", Op::PutNew, "ffffffffffffffbf", Loss::NotSent);
            lengthen(&mut a, Seq(63)).await;
            assert_eq!(world.around.oracle.tail().unwrap().seq, Seq(63));
            let process = b.start();
            process.doom(Some(Death::Point("publish.committed", 0)));
            let done = b.open_in(process, Some(Epoch(1))).await;
            assert!(matches!(done, Err(EngineError::Crash(_))), "{done:?}");
            let tail = world.around.oracle.tail().unwrap();
            assert_eq!((tail.seq, tail.kind, tail.epoch), (Seq(64), RecordKind::Index, Epoch(1)));
            if reopened {
                a.kill();
                a.open(None).await.unwrap();
            }
            publish(&mut a).await;
        });
        all_is_well(&world);
    }
}

#[test]
fn p08_a_head_that_is_old_or_missing_or_damaged_or_anothers_leads_nobody_astray() {
    let foreign = {
        let world = World::new(10_805, false).unwrap();
        let mut a = machine(&world, "x");
        world.runtime.block_on(async {
            published(&mut a, 2).await;
            a.snapshot(true).await.unwrap();
            world.around.net.server.get(&keys::head(world.around.oracle.volume())).await.unwrap()
        })
    };
    let world = World::new(10_806, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    let path = keys::head(world.around.oracle.volume());
    world.runtime.block_on(async {
        let server = &world.around.net.server;
        published(&mut a, 1).await;
        a.snapshot(true).await.unwrap();
        let first = server.get(&path).await.unwrap();
        publish(&mut a).await;
        sleep(Duration::from_secs(60)).await;
        a.snapshot(true).await.unwrap();
        let second = server.get(&path).await.unwrap();
        publish(&mut a).await;
        days(3).await;
        publish(&mut a).await;
        let mut heads = vec![
            ("missing", None),
            ("old", Some(first.clone())),
            ("newest", Some(second.clone())),
            ("another volume's", Some(foreign.clone())),
            ("empty", Some(bytes::Bytes::new())),
        ];
        for at in [0, 5, second.len() / 2, second.len() - 1] {
            let mut damaged = second.to_vec();
            damaged[at] ^= 1;
            heads.push(("damaged", Some(damaged.into())));
            heads.push(("cut", Some(second.slice(..at))));
        }
        for pruned in [false, true] {
            if pruned {
                // The states that the old heads name are gone, and their rows with them.
                a.prune(&keep(1)).await.unwrap().unwrap();
            }
            for (what, head) in &heads {
                match head {
                    Some(head) => server.tamper(&path, head.clone()),
                    None => server.delete(std::slice::from_ref(&path)).await.unwrap(),
                }
                let process = b.start();
                let log = b.log(&process);
                let opened = log.open().await.unwrap_or_else(|error| panic!("{what}, pruned {pruned}: {error}"));
                let opened = opened.unwrap();
                assert_eq!(Some(opened.tail.hash), world.around.oracle.tail().map(|tail| tail.hash), "{what}");
                read(&world, &log, &opened).await.unwrap_or_else(|error| panic!("{what}, pruned {pruned}: {error}"));
            }
        }
        server.tamper(&path, second);
    });
    all_is_well(&world);
}

#[test]
fn p08_the_head_is_written_with_snapshots_only_and_rests_between() {
    let world = World::new(10_807, false).unwrap();
    let mut a = machine(&world, "a");
    world.runtime.block_on(async {
        let heads = || world.around.net.requests("a").get(&Op::Put).copied().unwrap_or(0);
        published(&mut a, 3).await;
        assert_eq!(heads(), 0, "a record writes no head");
        for (pause, written) in [(0, 1), (5, 0), (20, 0), (31, 1), (29, 0), (300, 1)] {
            let before = heads();
            sleep(Duration::from_secs(pause)).await;
            publish(&mut a).await;
            a.snapshot(true).await.unwrap();
            assert_eq!(heads() - before, written, "after {pause} s");
        }
    });
    all_is_well(&world);
}

#[test]
fn p08_a_writer_who_lost_points_nobody_at_his_own_state() {
    let world = World::new(10_808, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 3).await;
        b.open(Some(Epoch(1))).await.unwrap();
        publish(&mut b).await;
        // He has not heard of it yet.
        a.snapshot(true).await.unwrap();
        assert!(!names(&world).iter().any(|name| name.ends_with("/head")));
    });
    all_is_well(&world);
}

#[test]
fn p14_two_databases_of_one_name_are_refused_and_not_merged() {
    let world = World::new(11_401, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        published(&mut a, 2).await;
        let before = names(&world);
        // Another store's database of the same name.
        let done = b.open(None).await;
        assert!(matches!(&done, Err(EngineError::NotBound { epoch: Epoch(1), .. })), "{done:?}");
        // Another database of the same store, by default and by name.
        a.close();
        let other = world.around.base.join("a/other/app.db");
        std::fs::create_dir_all(other.parent().unwrap()).unwrap();
        for volume in [None, Some(world.around.oracle.volume().clone())] {
            let process = a.start();
            let stores = Stores {
                store: a.store().unwrap(),
                manifest: Arc::new(MemoryManifest::new()),
                remote: Arc::new(SimRemote::new(world.around.net.clone(), process.clone())),
            };
            let target = Target { database: other.clone(), volume, takeover: None, fencing: true };
            let done = open_for_writing(&stores, &a.components(&process), &target).await.map(drop);
            assert!(
                matches!(&done, Err(EngineError::NotBound { .. } | EngineError::Refused(_) | EngineError::Local(_))),
                "{done:?}"
            );
        }
        assert_eq!(names(&world), before, "something was written");
        a.open(None).await.unwrap();
        publish(&mut a).await;
    });
    all_is_well(&world);
}

#[test]
fn p14_of_two_databases_that_begin_one_name_at_once_one_has_it() {
    let world = World::new(11_402, false).unwrap();
    let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
    world.runtime.block_on(async {
        let (one, other) = futures::join!(a.open(None), b.open(None));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        let (winner, loser) = if one.is_ok() { (&mut a, &mut b) } else { (&mut b, &mut a) };
        publish(winner).await;
        let done = loser.open(None).await;
        assert!(matches!(&done, Err(EngineError::NotBound { .. })), "{done:?}");
        publish(winner).await;
    });
    all_is_well(&world);
}
