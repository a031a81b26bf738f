//! The model without end: `cargo run -p littoral-tests --bin model` lives through one world after another until it is stopped
//! or something is wrong, and then prints the seed.

#![allow(clippy::expect_used)] // The rig of a test is a test.

use clap::Parser;
use littoral_tests::lock_page;
use littoral_tests::world::{Layout, Tally, World};
use std::time::Instant;

/// Random SQL, checkpoints, crashes, losses and takeovers, compared with stock copies.
#[derive(Debug, Parser)]
struct Words {
    /// The first world's seed; the next world has the next. Without it, the clock's.
    #[arg(long)]
    seed: Option<u64>,
    /// How many worlds. Without it, one after another for ever.
    #[arg(long)]
    worlds: Option<u64>,
    /// Steps of each.
    #[arg(long, default_value_t = 120)]
    steps: u64,
    /// Moves SQLite's lock page to this byte.
    #[arg(long)]
    pending_byte: Option<u32>,
}

fn main() {
    let words = Words::parse();
    if let Some(byte) = words.pending_byte {
        lock_page::move_to(byte);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let first = words.seed.unwrap_or(now.as_nanos() as u64 >> 20);
    let seeds = (0..words.worlds.unwrap_or(u64::MAX)).map(|nth| first.wrapping_add(nth));
    let mut all = Tally::default();
    let since = Instant::now();
    for (nth, seed) in seeds.enumerate() {
        println!("seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let tally = runtime.block_on(World::new(Layout::of(seed, words.steps)).live());
        all.merge(&tally);
        if nth % 20 == 19 || words.worlds == Some(nth as u64 + 1) {
            println!("{} worlds, {} s: {all}", nth + 1, since.elapsed().as_secs());
        }
    }
}
