//! What `lib.rs` promises, tried from outside and in.

mod bounded;
mod chance;
mod damage;
mod drawn;
mod fuzzed;
mod golden;
mod log;
mod names;
mod round_trip;
mod rules;
mod samples;
mod size;
