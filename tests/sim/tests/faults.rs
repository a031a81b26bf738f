//! Scenarios of `docs/faults.md` that need whole machines, a network and days: what was expected, and what came of it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::large_futures, reason = "a test fails by panicking")]

use littoral_engine::EngineError;
use littoral_engine::exec::prune;
use littoral_plan::KeepPolicy;
use littoral_remote::Op;
use littoral_sim::chance::Chance;
use littoral_sim::check::Depth;
use littoral_sim::database::Shape;
use littoral_sim::machine::Machine;
use littoral_sim::net::Loss;
use littoral_sim::process::Death;
use littoral_sim::time::DAY_MS;
use littoral_sim::world::World;
use littoral_types::Epoch;
use littoral_types::limits::PRUNE_GRACE_MS;
use std::time::Duration;
use tokio::time::sleep;

fn machine(world: &World, name: &str) -> Machine {
    Machine::new(&world.around, name, Shape::Small).unwrap()
}

fn all_is_well(world: &World) {
    world.check(&Chance::new(1), Depth::Whole).unwrap();
}

async fn publish(machine: &mut Machine) -> Result<(), EngineError> {
    let before = machine.database.clone();
    while machine.database == before {
        machine.commit();
    }
    machine.publish().await.map(|done| assert!(done.is_some()))
}

fn keep(last: u64) -> prune::Options {
    prune::Options { keep: KeepPolicy { last, within_ms: 0 }, grace_ms: PRUNE_GRACE_MS, ..prune::Options::default() }
}

/// In the middle of a checkpoint, some of whose blobs are up: manifest and scratch go, the binding stays.
#[test]
fn a_machine_that_lost_its_manifest_and_its_scratch_goes_on_from_the_object_store_alone() {
    for point in ["checkpoint.begun", "checkpoint.staged", "checkpoint.uploaded", "publish.intended", "publish.landed"]
    {
        let world = World::new(12_001, false).unwrap();
        let mut a = machine(&world, "a");
        world.runtime.block_on(async {
            a.open(None).await.unwrap();
            for _ in 0..3 {
                publish(&mut a).await.unwrap();
            }
            a.commit();
            a.process().unwrap().doom(Some(Death::Point(point, 0)));
            assert!(matches!(a.publish().await, Err(EngineError::Crash(_))), "{point}");
            a.lose_manifest();
            a.lose_scratch().unwrap();
            a.open(None).await.unwrap_or_else(|error| panic!("{point}: {error}"));
            a.publish().await.unwrap();
            assert!(a.publish().await.unwrap().is_none(), "{point}: published twice");
            publish(&mut a).await.unwrap();
        });
        all_is_well(&world);
    }
}

#[test]
fn a_clock_that_jumps_by_a_day_or_a_month_keeps_every_restore_point_that_must_stay_and_labels_never_go_back() {
    let day = i64::try_from(DAY_MS).unwrap();
    for (seed, jumps) in [(12_101, [day, -day]), (12_102, [-day, day]), (12_103, [30 * day, -30 * day])] {
        let world = World::new(seed, false).unwrap();
        let mut a = machine(&world, "a");
        world.runtime.block_on(async {
            a.open(None).await.unwrap();
            let mut skew = 0;
            for jump in jumps {
                for _ in 0..3 {
                    publish(&mut a).await.unwrap();
                    sleep(Duration::from_secs(600)).await;
                }
                skew += jump;
                a.clock.set_skew_ms(skew);
                publish(&mut a).await.unwrap();
                a.prune(&keep(5)).await.unwrap();
                let points = world.around.oracle.points();
                assert!(points.len() >= 4, "{} are left after a jump by {jump} ms", points.len());
                publish(&mut a).await.unwrap();
            }
            let records = world.around.oracle.records();
            assert!(records.is_sorted_by_key(|record| record.time_ms), "a label went back");
        });
        all_is_well(&world);
    }
}

/// The one who takes over is cut off in the middle of its claim; the claim lands, now or later, or never. The owner publishes meanwhile.
#[test]
fn a_partition_in_the_middle_of_a_claim_leaves_one_owner_and_both_know_which() {
    let fates = [Loss::NotSent, Loss::Before, Loss::After(0), Loss::After(5_000), Loss::After(600_000)];
    for (at, fate) in fates.into_iter().enumerate() {
        let world = World::new(12_201 + at as u64, false).unwrap();
        let (mut a, mut b) = (machine(&world, "a"), machine(&world, "b"));
        world.runtime.block_on(async {
            a.open(None).await.unwrap();
            publish(&mut a).await.unwrap();
            (0..3).for_each(|_| world.around.net.lose("b", Op::PutNew, "/log/", fate));
            let taking = b.open(Some(Epoch(1))).await;
            let owner = publish(&mut a).await;
            // What was on its way arrives.
            sleep(Duration::from_secs(3600)).await;
            let told = |done: &Result<(), EngineError>| match done {
                Ok(()) => true,
                Err(EngineError::Superseded { epoch: Epoch(2), .. }) => false,
                other => panic!("{fate:?}: {other:?}"),
            };
            let goes_on = told(&owner) && told(&publish(&mut a).await);
            drop(taking);
            b.close();
            // Whoever was cut off asks again: it owns the volume, or is told that it does not.
            let again = b.open(None).await;
            match again {
                Ok(_) => {
                    assert!(!goes_on, "{fate:?}: both own it");
                    publish(&mut b).await.unwrap();
                    assert!(!told(&publish(&mut a).await), "{fate:?}");
                }
                Err(EngineError::NotBound { .. } | EngineError::Superseded { .. }) => {
                    assert!(goes_on, "{fate:?}: nobody owns it");
                    publish(&mut a).await.unwrap();
                }
                Err(other) => panic!("{fate:?}: {other}"),
            }
        });
        all_is_well(&world);
    }
}

/// The pruner is cut off from the store for longer than the grace, between its record and its deletions.
#[test]
fn a_pruner_that_is_cut_off_between_its_record_and_its_deletions_deletes_nothing_that_was_pinned_since() {
    let world = World::new(12_301, false).unwrap();
    let mut a = machine(&world, "a");
    world.runtime.block_on(async {
        a.open(None).await.unwrap();
        for _ in 0..5 {
            publish(&mut a).await.unwrap();
        }
        sleep(Duration::from_millis(3 * DAY_MS)).await;
        publish(&mut a).await.unwrap();
        world.around.net.lose("a", Op::Delete, "", Loss::NotSent);
        a.prune(&keep(1)).await.unwrap_err();
        a.name_snapshot(&"kept".parse().unwrap()).await.unwrap().unwrap();
        sleep(Duration::from_millis(2 * DAY_MS)).await;
        publish(&mut a).await.unwrap();
        a.prune(&keep(1)).await.unwrap().unwrap();
    });
    all_is_well(&world);
}
