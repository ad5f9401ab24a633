//! Searches for a smaller run that still fails: fewer faults, calmer conditions, fewer seconds, fewer clients.
//!
//! The search knows nothing of simulations: what fails is a question that it asks. Invariant: what it ends with failed
//! when it was tried, or is what it began with; and no single fault of it, and no single condition, can be left out.

use std::collections::BTreeSet;

use crate::calm::Condition;
use crate::plan::Options;

/// What a run that fails is made of, and how its failing is asked for.
#[derive(Debug)]
pub struct Search<F> {
    /// The smallest that is known to fail.
    best: Options,
    /// How many faults its schedule has, those that are left out included.
    faults: u32,
    /// How many clients it has.
    clients: usize,
    fails: F,
}

impl<F: FnMut(&Options) -> bool> Search<F> {
    /// A search that begins with a run which is known to fail, with as many faults and clients as it had. `fails` says
    /// whether another fails in the same way.
    pub fn new(failing: Options, faults: u32, clients: usize, fails: F) -> Self {
        Self { best: failing, faults, clients, fails }
    }

    /// The smallest run that was found. What was given up early may come to be needless later, so everything is tried
    /// again until nothing gets smaller.
    #[must_use]
    pub fn smallest(mut self) -> Options {
        loop {
            let before = self.best.clone();
            self.drop_faults();
            self.calm_conditions();
            self.shorten();
            self.send_clients_home();
            if self.best == before {
                return before;
            }
        }
    }

    /// Takes `smaller` if it fails too.
    fn attempt(&mut self, smaller: Options) -> bool {
        let failed = (self.fails)(&smaller);
        if failed {
            self.best = smaller;
        }
        failed
    }

    fn drop_faults(&mut self) {
        let all: Vec<u32> = match &self.best.only {
            Some(only) => only.iter().copied().collect(),
            None => (1..=self.faults).collect(),
        };
        let with = |options: &Options, left: &[u32]| Options {
            only: Some(left.iter().copied().collect::<BTreeSet<u32>>()),
            ..options.clone()
        };
        minimize(all, |left| {
            let smaller = with(&self.best, left);
            self.attempt(smaller)
        });
    }

    fn calm_conditions(&mut self) {
        for (_, condition) in Condition::ALL {
            if !self.best.calm.contains(&condition) {
                let mut smaller = self.best.clone();
                smaller.calm.insert(condition);
                self.attempt(smaller);
            }
        }
    }

    fn shorten(&mut self) {
        let seconds = self.best.seconds;
        least(seconds, |seconds| self.attempt(Options { seconds, ..self.best.clone() }));
    }

    fn send_clients_home(&mut self) {
        let most = self.best.clients.unwrap_or(self.clients) as u64;
        least(most, |count| {
            let clients = Some(usize::try_from(count).unwrap_or(usize::MAX));
            self.attempt(Options { clients, ..self.best.clone() })
        });
    }
}

/// Leaves out of `items` what is not needed to fail, large parts first and then one by one (Zeller's ddmin). In the
/// end none can be left out alone.
fn minimize(mut items: Vec<u32>, mut fails: impl FnMut(&[u32]) -> bool) {
    if items.is_empty() || fails(&[]) {
        return;
    }
    let mut parts = 2;
    while items.len() > 1 {
        let length = items.len().div_ceil(parts);
        let without = |start: usize| [&items[..start], &items[(start + length).min(items.len())..]].concat();
        let smaller = (0..items.len()).step_by(length).map(without).find(|left| fails(left));
        match smaller {
            Some(left) => {
                items = left;
                parts = (parts - 1).max(2);
            }
            None if length == 1 => return,
            None => parts = (2 * parts).min(items.len()),
        }
    }
}

/// Looks by halves for the least number from 1 to `most` that fails, `most` being known to.
fn least(most: u64, mut fails: impl FnMut(u64) -> bool) {
    let (mut passes, mut failing) = (0, most);
    while failing - passes > 1 {
        let middle = passes + (failing - passes) / 2;
        if fails(middle) {
            failing = middle;
        } else {
            passes = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a search ends with, and how often it asked, of a run with 40 faults, 8 clients, for 30 seconds.
    fn search(fails: impl Fn(&Options) -> bool) -> (Options, u32) {
        let mut asked = 0;
        let asking = |options: &Options| {
            asked += 1;
            fails(options)
        };
        let found = Search::new(Options::default(), 40, 8, asking).smallest();
        assert!(fails(&found), "what is found fails: {found:?}");
        (found, asked)
    }

    fn happens(options: &Options, number: u32) -> bool {
        options.only.as_ref().is_none_or(|only| only.contains(&number))
    }

    #[test]
    fn exactly_the_faults_that_it_takes_are_left() {
        let (found, asked) = search(|options| [3, 17, 18].iter().all(|number| happens(options, *number)));
        assert_eq!(found.only, Some(BTreeSet::from([3, 17, 18])));
        assert!(asked < 120, "asked {asked} times");
    }

    #[test]
    fn everything_that_is_not_needed_is_gone() {
        let (found, _) = search(|_| true);
        let calm = Condition::ALL.iter().map(|(_, condition)| *condition).collect();
        let (only, clients) = (Some(BTreeSet::new()), Some(1));
        assert_eq!(found, Options { only, calm, clients, seconds: 1, ..Options::default() });
    }

    #[test]
    fn what_is_needed_stays() {
        let (found, _) = search(|options| {
            let (lossy, late) = (!options.calm.contains(&Condition::Loss), happens(options, 40));
            lossy && late && options.seconds >= 13 && options.clients.unwrap_or(8) >= 4
        });
        assert_eq!(found.only, Some(BTreeSet::from([40])));
        assert!(!found.calm.contains(&Condition::Loss) && found.calm.contains(&Condition::Late));
        assert_eq!((found.seconds, found.clients), (13, Some(4)));
    }

    #[test]
    fn of_what_is_left_no_single_fault_can_be_left_out() {
        let fails = |options: &Options| {
            (1..=40).filter(|number| happens(options, *number)).count() >= 5 || happens(options, 31)
        };
        let (found, _) = search(fails);
        let only = found.only.clone().unwrap_or_default();
        for number in &only {
            let left = only.iter().copied().filter(|other| other != number).collect();
            assert!(!fails(&Options { only: Some(left), ..found.clone() }), "{number} of {only:?}");
        }
    }

    #[test]
    fn a_run_of_which_nothing_can_be_left_out_stays_as_it_was() {
        let (found, _) = search(|options| *options == Options::default());
        assert_eq!(found, Options::default());
    }

    #[test]
    fn what_stands_in_the_way_at_first_is_tried_again() {
        // Only when the network is calm can the fault be left out.
        let (found, _) = search(|options| options.calm.len() == Condition::ALL.len() || happens(options, 5));
        assert_eq!(found.only, Some(BTreeSet::new()));
    }
}
