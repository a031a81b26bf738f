//! One suite a promise: every keeper of a port passes the same checks, whatever it keeps things in.
//!
//! Suites are code for tests: they panic where a promise is broken, and print the seed that broke it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod jobs;
pub mod manifest;
pub mod remote;
