//! Power failures without end: `cargo run -p littoral-compat --bin vfs-power` lives through one world after another until it is
//! stopped or something is wrong, and then prints the seed.

use clap::Parser;
use littoral_compat::power::worlds;
use std::time::Duration;

/// Processes that write and make checkpoints on a machine whose power fails, and what is found afterwards compared with what was durable.
#[derive(Debug, Parser)]
struct Words {
    /// The first world's seed; the next world has the next. Without it, the clock's.
    #[arg(long)]
    seed: Option<u64>,
    /// How many worlds. Without it, one after another for ever.
    #[arg(long, default_value_t = u64::MAX)]
    worlds: u64,
    /// Ends of each: power failures, and kills of all processes.
    #[arg(long, default_value_t = 6)]
    failures: u64,
}

fn main() {
    let words = Words::parse();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let first = words.seed.unwrap_or(now.as_secs());
    let seeds = (0..words.worlds).map(|nth| first.wrapping_add(nth));
    worlds(seeds, words.failures, Duration::MAX);
}
