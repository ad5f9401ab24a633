//! Owns all chance of a run: one small generator, seeded, and forked for each part of the world.
//!
//! Nothing else in the simulator draws chance from anywhere. A fork's stream depends on the seed and the fork's
//! name alone, so that a part that draws more or less than before does not move what the others draw.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// xoshiro256++, seeded by SplitMix64. Written out here because a run must be the same for ever, and a crate's
/// generator may change with its version.
#[derive(Clone, Debug)]
pub struct Rng {
    /// Never all zero.
    words: [u64; 4],
}

impl Rng {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let words = std::array::from_fn(|_| split_mix(&mut state));
        Self { words }
    }

    /// A generator of its own for the part of the world called `name`.
    #[must_use]
    pub fn fork(seed: u64, name: &str) -> Self {
        Self::new(xxh3_64_with_seed(name.as_bytes(), seed))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.words;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `end`, which is not 0. The bias is far below what a run could show.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "no number is below 0");
        let product = u128::from(self.any()) * u128::from(end);
        (product >> 64) as u64
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        assert!(first <= last, "an empty range has no number");
        first + self.below(last - first + 1)
    }

    /// An index into something of length `len`.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True so many times in a thousand.
    pub fn per_mille(&mut self, times: u32) -> bool {
        times > 0 && self.below(1_000) < u64::from(times)
    }

    /// Fills bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.any() as u8)
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        // Were these to change, every seed in the ledger of bugs would mean another run. Worked out from the
        // published algorithm by another program.
        let mut rng = Rng::new(7);
        let drawn: Vec<u64> = (0..3).map(|_| rng.any()).collect();
        assert_eq!(drawn, [0x0e2c_1a00_2aae_913d, 0x2c0f_c8dd_fa4e_9e14, 0xb7b3_11b3_b0d4_5872]);
    }

    #[test]
    fn forks_differ_by_name_and_by_seed() {
        let first = Rng::fork(1, "network").any();
        assert_ne!(first, Rng::fork(1, "disk").any());
        assert_ne!(first, Rng::fork(2, "network").any());
        assert_eq!(first, Rng::fork(1, "network").any());
    }

    #[test]
    fn ranges_are_kept_and_reached() {
        let mut rng = Rng::new(3);
        let drawn: Vec<u64> = (0..200).map(|_| rng.between(5, 8)).collect();
        for number in 5..=8 {
            assert!(drawn.contains(&number), "{number} never came");
        }
        assert!(drawn.iter().all(|number| (5..=8).contains(number)));
        assert!((0..1_000).all(|_| !rng.per_mille(0) && rng.per_mille(1_000)));
    }
}
