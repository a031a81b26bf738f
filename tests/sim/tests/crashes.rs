//! A process dies at every place there is, one place a run; its successor goes on without anybody's help (I8), and nothing that was
//! acknowledged is lost (I1).

#![allow(clippy::unwrap_used, clippy::panic, clippy::large_futures, reason = "a test fails by panicking")]

use littoral_engine::EngineError;
use littoral_engine::exec::prune;
use littoral_plan::KeepPolicy;
use littoral_sim::chance::Chance;
use littoral_sim::check::Depth;
use littoral_sim::database::Shape;
use littoral_sim::machine::Machine;
use littoral_sim::process::{Death, POINTS};
use littoral_sim::time::DAY_MS;
use littoral_sim::world::World;
use littoral_types::limits::PRUNE_GRACE_MS;
use littoral_types::{Compression, Epoch, Seq};
use std::time::Duration;

/// A day in which a machine does everything once. The first error ends it.
async fn day(a: &mut Machine) -> Result<(), EngineError> {
    let options =
        prune::Options { keep: KeepPolicy { last: 2, within_ms: 0 }, grace_ms: PRUNE_GRACE_MS, dry_run: false };
    for _ in 0..4 {
        a.commit();
        a.publish().await?;
        a.snapshot(false).await?;
    }
    a.coalesce(Compression::Zstd).await?;
    a.publish_large_record().await?;
    a.name_snapshot(&"monday".parse().unwrap()).await?;
    a.commit();
    a.publish().await?;
    a.prune(&options).await?;
    a.commit();
    a.publish().await?;
    a.release().await?;
    Ok(())
}

/// Lives through that day with a death in it; false when it never came. `taken` makes the machine begin by taking the volume over.
fn die(world: &World, death: Death, taken: bool) -> bool {
    let (mut a, mut b) = (
        Machine::new(&world.around, "a", Shape::Small).unwrap(),
        Machine::new(&world.around, "b", Shape::Small).unwrap(),
    );
    let met = world.runtime.block_on(async {
        // Something old, so that there is something to prune.
        let other = if taken { &mut b } else { &mut a };
        other.open(None).await.unwrap();
        for _ in 0..4 {
            other.commit();
            other.publish().await.unwrap();
        }
        other.close();
        tokio::time::sleep(Duration::from_millis(2 * DAY_MS)).await;
        let takeover = taken.then_some(Epoch(1));
        let process = a.start();
        process.doom(Some(death.clone()));
        let mut done = a.open_in(process.clone(), takeover).await.map(drop);
        if done.is_ok() && !taken {
            done = day(&mut a).await;
        }
        let met = !process.is_alive();
        assert!(met || done.is_ok(), "{death:?}: {done:?}");
        a.close();
        // The successor. Who died before the takeover was durable says it again.
        let reopened = match a.open(None).await {
            Err(EngineError::NotBound { .. } | EngineError::Superseded { .. }) if taken => a.open(takeover).await,
            done => done,
        };
        reopened.unwrap_or_else(|error| panic!("{death:?}: {error}"));
        a.commit();
        a.publish().await.unwrap_or_else(|error| panic!("{death:?}: {error}"));
        assert!(a.publish().await.unwrap().is_none(), "{death:?}: the same content was published twice");
        a.close();
        // What the dead had sent arrives.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        met
    });
    world.check(&Chance::new(1), Depth::Whole).unwrap_or_else(|error| panic!("{death:?}: {error:#}"));
    met
}

#[test]
fn a_crash_at_any_named_point_is_resumed_without_help() {
    for (at, point) in POINTS.into_iter().enumerate() {
        for nth in 0..3 {
            let world = World::new(20_000 + at as u64, false).unwrap();
            let met = die(&world, Death::Point(point, nth), false);
            assert!(met || nth > 0, "{point} was never met");
        }
    }
}

fn at_every_place(seed: u64, taken: bool, death: fn(u64) -> Death) -> u64 {
    for place in 0.. {
        let world = World::new(seed, false).unwrap();
        if !die(&world, death(place), taken) {
            return place;
        }
    }
    0
}

#[test]
fn a_crash_before_any_request_is_resumed_without_help() {
    assert!(at_every_place(21_001, false, Death::BeforeRequest) > 60);
}

#[test]
fn a_crash_while_any_request_is_on_its_way_is_resumed_without_help() {
    assert!(at_every_place(21_002, false, Death::AfterRequest) > 60);
}

#[test]
fn a_crash_before_any_write_to_the_manifest_is_resumed_without_help() {
    assert!(at_every_place(21_003, false, Death::BeforeCommit) > 30);
}

#[test]
fn a_crash_after_any_write_to_the_manifest_is_resumed_without_help() {
    assert!(at_every_place(21_004, false, Death::AfterCommit) > 30);
}

#[test]
fn a_crash_anywhere_in_a_takeover_is_resumed() {
    let seeds = 21_005..;
    let deaths: [fn(u64) -> Death; 4] =
        [Death::BeforeRequest, Death::AfterRequest, Death::BeforeCommit, Death::AfterCommit];
    for (seed, death) in seeds.zip(deaths) {
        // A takeover begins without the rows: it writes little, whatever the size.
        let places = at_every_place(seed, true, death);
        assert!(places > 3, "{places} places");
    }
}

#[test]
fn a_machine_that_loses_its_manifest_rebuilds_it_from_the_object_store_alone() {
    let world = World::new(21_010, false).unwrap();
    let mut a = Machine::new(&world.around, "a", Shape::Small).unwrap();
    world.runtime.block_on(async {
        a.open(None).await.unwrap();
        for round in 0..5 {
            for _ in 0..3 {
                a.commit();
                a.publish().await.unwrap();
            }
            if round % 2 == 1 {
                a.snapshot(true).await.unwrap();
            }
            a.lose_manifest();
            a.open(None).await.unwrap();
            assert!(a.publish().await.unwrap().is_none(), "identities were rebuilt: nothing differs");
        }
        assert!(a.tail() > Some(Seq(10)));
    });
    world.check(&Chance::new(1), Depth::Whole).unwrap();
}
