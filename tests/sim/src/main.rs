//! Runs seeds until one fails, or for ever.

use anyhow::bail;
use clap::Parser;
use littoral_sim::world::{Settings, run};
use std::time::Instant;

/// Simulates machines, network and object store, and looks for what must not happen.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps of each seed.
    #[arg(long, default_value_t = 400)]
    steps: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// One seed after another until one fails.
    #[arg(long)]
    forever: bool,
    /// Prunes are followed by moves out of packs, and some delete nothing.
    #[arg(long)]
    repacks: bool,
    /// Shows the trace.
    #[arg(long)]
    trace: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let last = if arguments.forever { u64::MAX } else { arguments.seed.saturating_add(arguments.seeds) };
    for seed in arguments.seed..last {
        let began = Instant::now();
        let settings = Settings {
            seed,
            steps: arguments.steps,
            loud: arguments.trace,
            mutation: None,
            repacks: arguments.repacks,
        };
        let done = run(settings)?;
        if let Some(failure) = done.failure {
            bail!(
                "seed {seed} fails after {} steps:\n{failure}\nAgain, with its trace: --seed {seed} --steps {} --trace",
                done.steps,
                arguments.steps
            );
        }
        let (steps, records, took) = (done.steps, done.records, began.elapsed().as_secs_f32());
        println!("seed {seed}: {steps} steps, {records} records, {} lines, {took:.1} s", done.trace.lines().count());
    }
    Ok(())
}
