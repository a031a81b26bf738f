//! A step of the protocol that is done wrongly is noticed. Each test runs one schedule twice: with the engine as it is, where nothing may be
//! wrong, and with one step mutated (`littoral_sim::mutation`), where something must be.

#![allow(clippy::unwrap_used, clippy::panic, clippy::large_futures, reason = "a test fails by panicking")]

use littoral_engine::exec::rebuild::rows;
use littoral_engine::exec::restore::{At, open_at};
use littoral_engine::exec::{checkpoint, prune};
use littoral_engine::log::pins::Wish;
use littoral_plan::{CheckpointPolicy, KeepPolicy};
use littoral_remote::Op;
use littoral_sim::chance::Chance;
use littoral_sim::check::Depth;
use littoral_sim::database::Shape;
use littoral_sim::life::same_as_model;
use littoral_sim::machine::Machine;
use littoral_sim::mutation::Mutation;
use littoral_sim::net::{Loss, When};
use littoral_sim::process::Death;
use littoral_sim::time::DAY_MS;
use littoral_sim::world::{Settings, World, run};
use littoral_types::limits::PRUNE_GRACE_MS;
use littoral_types::{Compression, Epoch, Lsn, PinPurpose};
use std::time::Duration;
use tokio::time::sleep;

fn machine(world: &World, name: &str) -> Machine {
    Machine::new(&world.around, name, Shape::Small).unwrap()
}

async fn publish(machine: &mut Machine) {
    let before = machine.database.clone();
    while machine.database == before {
        machine.commit();
    }
    machine.publish().await.unwrap().unwrap();
}

/// The same as a new base: nothing of what was there before is needed any more.
async fn rewrite(machine: &mut Machine) {
    let before = machine.database.clone();
    while machine.database == before {
        machine.commit();
    }
    let policy = CheckpointPolicy { delta_bytes_max: 1, ..CheckpointPolicy::default() };
    let options = checkpoint::Options { policy, compression: Compression::Zstd };
    machine.checkpoint(&options, false).await.unwrap().unwrap();
}

async fn published(machine: &mut Machine, commits: u64) {
    machine.open(None).await.unwrap();
    for _ in 0..commits {
        publish(machine).await;
    }
}

async fn days(count: u64) {
    sleep(Duration::from_millis(count * DAY_MS)).await;
}

fn keep(last: u64) -> prune::Options {
    prune::Options { keep: KeepPolicy { last, within_ms: 0 }, grace_ms: PRUNE_GRACE_MS, ..prune::Options::default() }
}

/// What is wrong after a schedule; nothing where all is well.
fn judged(seed: u64, mutation: Option<(&str, Mutation)>, schedule: fn(&World)) -> Result<(), String> {
    let world = World::new(seed, false).unwrap();
    if let Some((machine, mutation)) = mutation {
        world.around.net.mutate(machine, mutation);
    }
    schedule(&world);
    world.check(&Chance::new(1), Depth::Whole).map_err(|error| format!("{error:#}"))
}

/// A schedule in which nothing is wrong, and something is once a machine does one step wrongly.
fn is_caught(seed: u64, machine: &str, mutation: Mutation, what: &str, schedule: fn(&World)) {
    assert_eq!(judged(seed, None, schedule), Ok(()), "{mutation:?}: something is wrong without it");
    let wrong = judged(seed, Some((machine, mutation)), schedule).err().unwrap_or_default();
    assert!(wrong.contains(what), "{mutation:?} is caught otherwise: {wrong}");
}

#[test]
fn a_writer_without_a_fence_is_caught() {
    is_caught(11_001, "a", Mutation::NoFence, "its place was taken and not pruned", |world| {
        let (mut a, mut b) = (machine(world, "a"), machine(world, "b"));
        world.runtime.block_on(async {
            published(&mut a, 2).await;
            a.commit();
            let mut held = world.around.net.hold("a", Op::PutNew, "/log/", When::Before);
            let meanwhile = async {
                assert!(held.arrived().await);
                b.open(Some(Epoch(1))).await.unwrap();
                publish(&mut b).await;
                held.release();
            };
            let (_, ()) = futures::join!(a.publish(), meanwhile);
        });
    });
}

/// The prune names an orphan and asks for its deletion; the request is late, and until then the orphan lies there.
#[test]
fn dedup_by_what_lies_in_the_bucket_is_caught() {
    is_caught(11_002, "a", Mutation::DedupByHead, "app.db/", |world| {
        let mut a = machine(world, "a");
        world.runtime.block_on(async {
            published(&mut a, 2).await;
            a.commit();
            a.process().unwrap().doom(Some(Death::Point("checkpoint.uploaded", 0)));
            a.publish().await.unwrap_err();
            days(3).await;
            a.open(None).await.unwrap();
            world.around.net.lose("a", Op::Delete, "app.db/chunk/", Loss::After(600_000));
            a.prune(&keep(100)).await.unwrap_err();
            let done = a.publish().await.unwrap().unwrap();
            assert_eq!(done.resumed, 0);
            sleep(Duration::from_secs(3600)).await;
        });
    });
}

#[test]
fn a_deletion_before_its_prune_record_is_caught() {
    is_caught(11_003, "a", Mutation::DeleteBeforePrune, "no record doomed", |world| {
        let mut a = machine(world, "a");
        world.runtime.block_on(async {
            published(&mut a, 5).await;
            days(3).await;
            publish(&mut a).await;
            // The record never lands.
            (0..8).for_each(|_| world.around.net.lose("a", Op::PutNew, "/log/", Loss::Before));
            a.prune(&keep(1)).await.unwrap_err();
            a.kill();
        });
    });
}

#[test]
fn a_pin_without_a_second_look_at_the_log_is_caught() {
    is_caught(11_004, "b", Mutation::PinWithoutRereading, "was pinned", |world| {
        let (mut a, mut b) = (machine(world, "a"), machine(world, "b"));
        world.runtime.block_on(async {
            a.open(None).await.unwrap();
            for _ in 0..5 {
                rewrite(&mut a).await;
            }
            days(3).await;
            rewrite(&mut a).await;
            let process = b.start();
            let log = b.log(&process);
            let opened = open_at(&log, &At::Lsn(Lsn(2))).await.unwrap();
            let mut held = world.around.net.hold("b", Op::PutNew, "/pins/", When::Before);
            let pruning = async {
                assert!(held.arrived().await);
                a.prune(&keep(1)).await.unwrap().unwrap();
                held.release();
            };
            let wish = Wish { purpose: PinPurpose::Reader, holder: "a reader".to_owned(), life_ms: Some(DAY_MS) };
            let components = b.components(&process);
            let (pinned, ()) = futures::join!(log.pin(&components, &opened, wish), pruning);
            let Some(pinned) = pinned.unwrap() else { return };
            let model = world.around.oracle.image_at(opened.tail.lsn);
            let read = match rows(&log, &opened).await {
                Ok(rows) => same_as_model(&log, &rows, &opened, model.as_ref()).await,
                Err(error) => Err(error),
            };
            if let Err(error) = read {
                world.around.oracle.violated(format!("LSN 2 was pinned and cannot be read: {error}"));
            }
            log.unpin(&pinned.key).await.unwrap();
        });
    });
}

#[test]
fn a_look_at_the_tail_before_the_put_instead_of_after_it_is_caught() {
    is_caught(11_005, "a", Mutation::CheckBeforeThePut, "a was told that", |world| {
        let (mut a, mut b) = (machine(world, "a"), machine(world, "b"));
        world.runtime.block_on(async {
            published(&mut a, 1).await;
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
                held.release();
            };
            let (_, ()) = futures::join!(a.publish(), meanwhile);
            publish(&mut b).await;
        });
    });
}

#[test]
fn a_record_before_its_blobs_is_caught() {
    is_caught(11_006, "a", Mutation::PublishBeforeUpload, "which is not there (I2)", |world| {
        let mut a = machine(world, "a");
        world.runtime.block_on(async {
            published(&mut a, 1).await;
            a.commit();
            a.process().unwrap().doom(Some(Death::Point("publish.landed", 0)));
            a.publish().await.unwrap_err();
        });
    });
}

/// Somebody takes the lease when everything is uploaded and the record is drafted: the holder takes no step between that and the intent.
#[test]
fn an_intent_that_does_not_ask_whether_its_lease_stands_is_caught() {
    is_caught(11_007, "a", Mutation::IntentWithoutLease, "which was not its any more", |world| {
        let mut a = machine(world, "a");
        world.runtime.block_on(async {
            published(&mut a, 1).await;
            let before = a.database.clone();
            while a.database == before {
                a.commit();
            }
            a.loses_leases_at("publish.drafted");
            let done = a.publish().await;
            assert_eq!(done.is_err(), world.around.oracle.violations().is_empty(), "{done:?}");
            a.close();
            a.open(None).await.unwrap();
            publish(&mut a).await;
        });
    });
}

/// The same by schedules that nobody thought of: whatever the seeds draw finds each mutation sooner or later.
#[test]
fn drawn_schedules_find_mutated_steps_too() {
    const SEEDS: u64 = 40;
    for mutation in [Mutation::NoFence, Mutation::DeleteBeforePrune, Mutation::PublishBeforeUpload] {
        let found = (7_000..7_000 + SEEDS).find(|seed| {
            let settings = Settings { seed: *seed, steps: 150, loud: false, mutation: Some(mutation), repacks: false };
            run(settings).unwrap().failure.is_some()
        });
        assert!(found.is_some(), "{SEEDS} drawn schedules do not find {mutation:?}");
    }
}
