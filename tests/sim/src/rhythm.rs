//! Owns how busy the applications of a run are: all the time, or in bursts with quiet stretches between them, and how
//! many of them at once.
//!
//! What happens between calls costs time too, and most of what can go wrong needs a few calls that meet, at a moment
//! when something else goes wrong; so most runs have bursts as dense as ever, and few of them. However many clients
//! there are, about the same number is busy at once. While it is quiet sessions live on, locks stay held, and faults
//! come as at all times. Invariant: it follows from the seed alone, and a burst's turn comes for every client.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock::TrueTime;
use crate::rng::Rng;

const MILLI: u64 = 1_000_000;
/// So many bursts are looked at before a client has its turn in any case.
const TURNS_MAX: u64 = 50;

/// When applications are busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rhythm {
    seed: u64,
    /// From the beginning of one burst to that of the next.
    every_nanos: u64,
    /// How long a burst is; as long as that if there is no quiet between them.
    busy_nanos: u64,
    /// So many of a thousand clients have a part in a burst.
    busy_per_mille: u32,
}

impl Rhythm {
    /// One of chance. One run in ten is never quiet.
    pub(crate) fn draw(rng: &mut Rng, clients: usize) -> Self {
        let dense = rng.per_mille(100);
        let busy_nanos = rng.between(100, 800) * MILLI;
        let times = [3, 4, 6, 8, 12][rng.index(5)];
        let busy_at_once = if dense { 6 } else { [2, 4, 6][rng.index(3)] };
        Self {
            seed: rng.any(),
            every_nanos: if dense { busy_nanos } else { busy_nanos * times },
            busy_nanos,
            busy_per_mille: (busy_at_once * 1_000 / clients.max(1)).min(1_000) as u32,
        }
    }

    /// When a client's application does what it wants to do at `wanted`: then, or when its next burst begins.
    #[must_use]
    pub fn next(&self, client: usize, wanted: TrueTime) -> TrueTime {
        let (burst, into) = (wanted.as_nanos() / self.every_nanos, wanted.as_nanos() % self.every_nanos);
        if into < self.busy_nanos && self.chance(client, burst) % 1_000 < u64::from(self.busy_per_mille) {
            return wanted;
        }
        let mut later = burst + 1..burst + TURNS_MAX;
        let has_part = |burst: &u64| self.chance(client, *burst) % 1_000 < u64::from(self.busy_per_mille);
        let next = later.find(has_part).unwrap_or(burst + TURNS_MAX);
        // Not all at the same moment.
        let late = (self.chance(client, next) >> 32) % (self.busy_nanos / 8);
        TrueTime::from_nanos(next * self.every_nanos + late)
    }

    /// When somebody who looks on at `wanted` does so: then, or when the next burst of anybody's begins.
    #[must_use]
    pub fn stir(&self, wanted: TrueTime) -> TrueTime {
        let (burst, into) = (wanted.as_nanos() / self.every_nanos, wanted.as_nanos() % self.every_nanos);
        if into < self.busy_nanos {
            return wanted;
        }
        TrueTime::from_nanos((burst + 1) * self.every_nanos + into % self.busy_nanos)
    }

    /// A number that a client and a burst have for themselves.
    fn chance(&self, client: usize, burst: u64) -> u64 {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&(client as u64).to_le_bytes());
        name[8..].copy_from_slice(&burst.to_le_bytes());
        xxh3_64_with_seed(&name, self.seed)
    }
}

impl fmt::Display for Rhythm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "of a thousand {} busy for {} ms every {} ms",
            self.busy_per_mille,
            self.busy_nanos / MILLI,
            self.every_nanos / MILLI
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rhythm(busy_per_mille: u32) -> Rhythm {
        Rhythm { seed: 1, every_nanos: 1_000 * MILLI, busy_nanos: 100 * MILLI, busy_per_mille }
    }

    fn at(millis: u64) -> TrueTime {
        TrueTime::from_nanos(millis * MILLI)
    }

    #[test]
    fn what_is_wanted_in_a_burst_is_done_at_once_and_the_rest_waits_for_the_next() {
        let rhythm = rhythm(1_000);
        assert_eq!(rhythm.next(3, at(2_050)), at(2_050));
        let later = rhythm.next(3, at(2_500));
        assert!(at(3_000) <= later && later < at(3_100), "{later}");
    }

    #[test]
    fn who_looks_on_waits_for_bursts_and_for_nobody() {
        let rhythm = rhythm(0);
        assert_eq!(rhythm.stir(at(2_050)), at(2_050));
        let later = rhythm.stir(at(2_500));
        assert!(at(3_000) <= later && later < at(3_100), "{later}");
    }

    #[test]
    fn few_of_many_are_busy_at_once_and_each_has_its_turn() {
        let rhythm = rhythm(200);
        let mut busy_at_once = Vec::new();
        let mut had_turns = [false; 20];
        for burst in 0..100 {
            let now = at(burst * 1_000 + 20);
            let busy: Vec<usize> = (0..20).filter(|client| rhythm.next(*client, now) == now).collect();
            busy_at_once.push(busy.len());
            busy.iter().for_each(|client| had_turns[*client] = true);
        }
        let sum: usize = busy_at_once.iter().sum();
        assert!((300..500).contains(&sum), "about 4 of 20: {busy_at_once:?}");
        assert!(had_turns.iter().all(|had| *had));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let never = rhythm(0);
        assert!(never.next(0, at(0)) <= at((TURNS_MAX + 1) * 1_000));
    }

    #[test]
    fn the_number_of_busy_clients_does_not_grow_with_the_number_of_clients() {
        for seed in 0..200 {
            let rhythm = Rhythm::draw(&mut Rng::new(seed), 20);
            assert!(rhythm.busy_per_mille <= 300 && rhythm.busy_nanos <= rhythm.every_nanos, "{rhythm}");
        }
    }
}
