//! Chance that a seed decides, in streams that do not disturb each other.

use littoral_ports::Entropy;
use std::sync::{Mutex, PoisonError};

/// A stream of numbers (SplitMix64). The same seed gives the same stream, on any machine.
#[derive(Debug)]
pub struct Chance(Mutex<u64>);

impl Chance {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// A stream of its own for a purpose: how much others draw does not move it.
    pub fn stream(seed: u64, purpose: &str) -> Self {
        let hash = littoral_format::hash::blob(format!("{seed} {purpose}").as_bytes());
        Self::new(hash.0.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The next 64 bits.
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `low..high`; `low` where that is empty.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.next().checked_rem(high.saturating_sub(low)).unwrap_or(0)
    }

    /// True so many times in a thousand.
    pub fn per_mille(&self, times: u64) -> bool {
        self.between(0, 1000) < times
    }

    /// One of them; `None` of none.
    pub fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.between(0, from.len() as u64) as usize)
    }

    /// An index by weights; zero where all of them are zero.
    pub fn weighed(&self, weights: &[u64]) -> usize {
        let mut left = self.between(0, weights.iter().sum());
        for (at, weight) in weights.iter().enumerate() {
            if left < *weight {
                return at;
            }
            left -= weight;
        }
        0
    }
}

impl Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
    }
}
