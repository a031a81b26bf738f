//! Worlds from seeds: those that once failed, and some more. `cargo run -p littoral-sim -- --forever` goes on from here.

#![allow(clippy::unwrap_used, clippy::panic, clippy::large_futures, reason = "a test fails by panicking")]

use littoral_sim::world::{Settings, run};
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds of each test beside those that failed: a minute or two on one core.
const FRESH: u64 = 12;
const STEPS: u64 = 250;

fn survives(seed: u64, steps: u64, repacks: bool) {
    let done = run(Settings { seed, steps, loud: false, mutation: None, repacks }).unwrap();
    if let Some(failure) = done.failure {
        panic!(
            "seed {seed} ({steps} steps) fails:\n{failure}\ncargo run -p littoral-sim -- --seed {seed} --steps {steps}{} --trace",
            if repacks { " --repacks" } else { "" }
        );
    }
}

#[test]
fn every_seed_that_once_failed_passes() {
    let seeds = include_str!("../seeds.txt");
    for line in seeds.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace().map(|word| word.parse::<u64>());
        let (Some(Ok(seed)), Some(Ok(steps))) = (words.next(), words.next()) else { panic!("not a seed: {line}") };
        survives(seed, steps, line.contains(" --repacks "));
    }
}

#[test]
fn machines_that_do_everything_at_once_lose_nothing() {
    (1_000..1_000 + FRESH).for_each(|seed| survives(seed, STEPS, false));
}

/// Many short lives rather than few long ones: each begins a volume anew, and draws who does what, when, and what goes wrong.
#[test]
fn short_lives_of_many_seeds_lose_nothing() {
    let count = std::env::var("LITTORAL_TEST_SCHEDULES").map_or(200, |count| count.parse().unwrap());
    let seeds = AtomicU64::new(100_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let seed = seeds.fetch_add(1, Ordering::Relaxed);
                    if seed >= 100_000 + count {
                        break;
                    }
                    survives(seed, 12, true);
                }
            });
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for seed in [2_000, 2_001, 2_002] {
        let settings = Settings { seed, steps: 150, loud: false, mutation: None, repacks: false };
        let (one, other) = (run(settings).unwrap(), run(settings).unwrap());
        let difference = one.trace.lines().zip(other.trace.lines()).find(|(one, other)| one != other);
        assert_eq!(difference, None, "seed {seed}");
        assert_eq!(one, other, "seed {seed}");
        assert!(one.trace.lines().count() > 500, "a trace of little");
    }
}
