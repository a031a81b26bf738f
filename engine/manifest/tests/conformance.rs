//! The suite that every manifest passes, and a model test that goes on where it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_manifest::{LmdbManifest, Options};
use littoral_ports::conformance::manifest::{Op, Step, Subject, World, all, walk};
use littoral_ports::{Manifest, MemoryManifest};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

/// A map as small as can be, so that every walk grows it.
const SMALL: Options = Options { map_bytes: 1 };

struct OnDisk(tempfile::TempDir);

impl Subject for OnDisk {
    fn open(&mut self) -> Arc<dyn Manifest> {
        Arc::new(LmdbManifest::open_with(self.0.path(), SMALL).unwrap())
    }
}

#[test]
fn a_manifest_on_lmdb_keeps_every_promise() {
    all(&mut || Box::new(OnDisk(tempfile::tempdir().unwrap())));
}

/// `LITTORAL_WALK=seed,steps cargo test -p littoral-manifest --test conformance -- --ignored` walks as far as you like.
#[test]
#[ignore = "unbounded: by command only"]
fn a_long_walk() {
    let told = std::env::var("LITTORAL_WALK").expect("LITTORAL_WALK=seed,steps");
    let (seed, steps) = told.split_once(',').unwrap();
    walk(seed.parse().unwrap(), steps.parse().unwrap(), &mut OnDisk(tempfile::tempdir().unwrap()));
}

fn op() -> impl Strategy<Value = Op> {
    let byte = any::<u8>;
    prop_oneof![
        1 => byte().prop_map(Op::Reshape),
        6 => byte().prop_map(Op::Resize),
        5 => byte().prop_map(Op::Base),
        12 => (byte(), any::<u16>(), byte(), byte(), byte()).prop_map(|(a, b, c, d, e)| Op::Delta(a, b, c, d, e)),
        4 => (byte(), byte(), any::<u16>(), byte(), byte()).prop_map(|(a, b, c, d, e)| Op::Again(a, b, c, d, e)),
        5 => (byte(), byte(), any::<bool>()).prop_map(|(a, b, c)| Op::Fold(a, b, c)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => vec(op(), 0..6).prop_map(Step::Op),
        3 => (any::<u64>(), 0..90_u64, any::<u8>())
            .prop_map(|(at, count, content)| Step::Identities { at, count, content }),
        1 => any::<Option<u8>>().prop_map(Step::Intent),
        1 => any::<Option<u8>>().prop_map(Step::Job),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(input, uploaded)| Step::Stage(input, uploaded)),
        1 => vec(op(), 0..8).prop_map(Step::Rebuild),
        1 => any::<u8>().prop_map(Step::Subscribe),
        1 => (any::<u8>(), 0..16_u8).prop_map(|(cursor, by)| Step::Acknowledge(cursor, by)),
        1 => any::<u8>().prop_map(Step::Unsubscribe),
        1 => Just(Step::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 400, ..ProptestConfig::default() })]

    /// LMDB, memory and the naive model are told the same and answer the same, also after being opened again.
    #[test]
    fn lmdb_memory_and_the_naive_model_agree(
        steps in vec(step(), 1..60),
        reopen_every in 3..40_usize,
    ) {
        let mut disk = OnDisk(tempfile::tempdir().unwrap());
        let memory = MemoryManifest::new();
        let (mut on_disk, mut in_memory) = (World::new(1), World::new(1));
        let mut manifest = disk.open();
        for (at, step) in steps.iter().enumerate() {
            on_disk.perform(manifest.as_ref(), step);
            in_memory.perform(&memory, step);
            if at % reopen_every == 0 {
                drop(manifest);
                manifest = disk.open();
                on_disk.compare(manifest.as_ref());
            }
        }
        on_disk.compare(manifest.as_ref());
        in_memory.compare(&memory);
        in_memory.compare(manifest.as_ref());
    }
}
