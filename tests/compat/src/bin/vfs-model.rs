//! The model without end: `cargo run -p littoral-compat --bin vfs-model` lives through one world after another until it is
//! stopped or something is wrong, and then prints the seed.

use clap::Parser;
use littoral_compat::model::worlds;
use std::time::Duration;

/// Processes with the extension and without it, kills, losses and checkpoints, and what is restored compared with what was committed.
#[derive(Debug, Parser)]
struct Words {
    /// The first world's seed; the next world has the next. Without it, the clock's.
    #[arg(long)]
    seed: Option<u64>,
    /// How many worlds. Without it, one after another for ever.
    #[arg(long, default_value_t = u64::MAX)]
    worlds: u64,
    /// Steps of each.
    #[arg(long, default_value_t = 120)]
    steps: u64,
}

fn main() {
    let words = Words::parse();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let first = words.seed.unwrap_or(now.as_secs());
    let seeds = (0..words.worlds).map(|nth| first.wrapping_add(nth));
    worlds(seeds, words.steps, Duration::MAX);
}
