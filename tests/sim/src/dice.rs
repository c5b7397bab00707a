//! All that is left to chance.

use std::ops::Range;

/// A random number generator; the same seed gives the same run on every machine.
#[derive(Debug)]
pub struct Dice(fastrand::Rng);

impl Dice {
    /// Seeded.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number of the range, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        self.0.u64(range)
    }

    /// An index below `length`; 0 when there is none.
    pub fn index(&mut self, length: usize) -> usize {
        if length == 0 {
            0
        } else {
            self.0.usize(..length)
        }
    }

    /// `true` this many times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.0.u64(..100) < percent
    }

    /// One of these.
    pub fn one<T: Copy, const N: usize>(&mut self, of: [T; N]) -> T {
        of[self.0.usize(..N)]
    }

    /// An index, as often as its weight says; 0 when all weights are 0.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let sum: u64 = weights.iter().sum();
        let mut left = if sum == 0 { 0 } else { self.0.u64(..sum) };
        for (index, weight) in weights.iter().enumerate() {
            if left < *weight {
                return index;
            }
            left -= weight;
        }
        0
    }

    /// Sixteen bytes, for a spool id.
    pub fn id(&mut self) -> [u8; 16] {
        self.0.u128(..).to_le_bytes()
    }
}
