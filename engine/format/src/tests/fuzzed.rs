//! What `fuzz/` runs without end, run a bounded number of times: every entry over mutated goldens and over noise.
//!
//! `LITTORAL_FUZZ_ROUNDS` makes it longer.

use super::chance::Chance;
use super::samples::all;
use crate::entry::{ENTRIES, find};
use littoral_types::RecordKind;
use proptest::prelude::*;

fn rounds() -> u64 {
    std::env::var("LITTORAL_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

/// Some of what a fuzzer does to its input.
fn mutate(chance: &mut Chance, bytes: &mut Vec<u8>) {
    for _ in 0..1 + chance.below(4) {
        let at = chance.below(bytes.len() as u64 + 1) as usize;
        let len = chance.below(9) as usize;
        let end = (at + len).min(bytes.len());
        match chance.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            1 if at < bytes.len() => bytes[at] = chance.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, chance.bytes(len))),
            4 => bytes[at..end].fill(0xff),
            5 => {
                let copy = bytes[at..end].to_vec();
                let to = chance.below(bytes.len() as u64 + 1) as usize;
                drop(bytes.splice(to..to, copy));
            }
            _ => bytes.truncate(bytes.len() - chance.below(bytes.len() as u64 / 8 + 1) as usize),
        }
    }
}

#[test]
fn mutated_goldens_never_break_a_promise() {
    for sample in all().into_iter().filter(|sample| sample.name != "record-large") {
        let golden = (sample.encode)();
        let entry = find(sample.entry).unwrap();
        (entry.run)(&golden);
        for seed in 0..rounds() {
            let mut bytes = golden.clone();
            mutate(&mut Chance::new(seed), &mut bytes);
            let caught = std::panic::catch_unwind(|| (entry.run)(&bytes));
            assert!(caught.is_ok(), "{} broke, seed={seed}", sample.name);
        }
    }
}

#[test]
fn mutated_bodies_never_break_a_promise() {
    let entry = find("body").unwrap();
    for (nth, kind) in RecordKind::ALL.into_iter().enumerate() {
        for seed in 0..rounds() {
            let mut chance = Chance::new(seed);
            let mut bytes = vec![nth as u8];
            bytes.extend(crate::body::encode(&chance.body(kind)).unwrap());
            (entry.run)(&bytes);
            mutate(&mut chance, &mut bytes);
            let caught = std::panic::catch_unwind(|| (entry.run)(&bytes));
            assert!(caught.is_ok(), "a {kind} broke, seed={seed}");
        }
    }
}

proptest! {
    #[test]
    fn noise_never_breaks_a_promise(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for entry in ENTRIES {
            (entry.run)(&bytes);
        }
    }

    #[test]
    fn noise_behind_the_right_beginning_never_breaks_a_promise(
        nth in any::<prop::sample::Index>(),
        keep in 4usize..80,
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let samples = all();
        let sample = nth.get(&samples);
        let golden = (sample.encode)();
        let noise = [&golden[..keep.min(golden.len())], &bytes].concat();
        (find(sample.entry).unwrap().run)(&noise);
    }
}

#[test]
fn every_entry_has_its_fuzz_target() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let cargo = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for entry in ENTRIES {
        assert!(cargo.contains(&format!("name = \"{}\"", entry.name)), "{}", entry.name);
        let target = std::fs::read_to_string(folder.join(format!("fuzz_targets/{}.rs", entry.name))).unwrap();
        assert!(target.contains(&format!("\"{}\"", entry.name)), "{}", entry.name);
    }
    assert_eq!(cargo.matches("[[bin]]").count(), ENTRIES.len());
}
