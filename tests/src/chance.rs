//! Chance that a seed decides.

use littoral_ports::Entropy;
use std::sync::atomic::{AtomicU64, Ordering};

/// A stream of numbers: SplitMix64.
#[derive(Debug)]
pub struct Chance(AtomicU64);

impl Chance {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number.
    pub fn number(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// One below `bound`, which is not zero.
    pub fn under(&self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True once in so many times.
    pub fn once_in(&self, times: u64) -> bool {
        self.under(times) == 0
    }

    /// One of these.
    pub fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.under(from.len() as u64) as usize]
    }

    /// One of these by its weight.
    pub fn weighted<T: Copy>(&self, from: &[(u64, T)]) -> T {
        let mut left = self.under(from.iter().map(|(weight, _)| weight).sum());
        for (weight, what) in from {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *what,
            }
        }
        unreachable!("the numbers are below the sum")
    }

    /// A stream of its own.
    pub fn fork(&self) -> Self {
        Self::new(self.number())
    }
}

impl Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_le_bytes()[..chunk.len()]);
        }
    }
}
