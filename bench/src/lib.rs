//! What Littoral costs: rigs for the counts and times in `bench/README.md`.
//!
//! Counts (requests, bytes, depth) are exact and asserted in tests. Times are ratios within one run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a rig stops at the first surprise")]

pub mod log_stand_in;
pub mod machine;
pub mod stand_in;
pub mod text;

pub use littoral_test_s3::network::{self, Proxy};
pub use machine::{Cost, Machine};
pub use stand_in::StandIn;
