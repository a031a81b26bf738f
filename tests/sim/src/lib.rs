//! The deterministic simulator: the production engine on simulated machines, network, object store, time and chance.
//!
//! What this room promises:
//! 1. The same seed gives the same trace, byte for byte.
//! 2. Machines' work interleaves at every request: latency, loss and reordering come from the seed, and so does where processes die.
//! 3. Whatever the engine answers is judged against what an oracle saw the object store take, and against every page of every commit.
//!
//! What may never enter: code that others depend on; the machine's own clocks and randomness, except in [`check`], which looks at
//! a copy.
//! Read next: [`world`], then [`life`], then [`oracle`].

#![allow(clippy::large_futures, reason = "a simulated day is one future, and there are few machines")]

pub mod chance;
pub mod check;
pub mod database;
pub mod life;
pub mod machine;
pub mod mutation;
pub mod net;
pub mod oracle;
pub mod process;
pub mod time;
pub mod trace;
pub mod world;
