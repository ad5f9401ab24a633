//! A queue of parties' work, from which each party is served its share (start-time fair queueing, Goyal 1996).
//!
//! Each party has a FIFO of its own. The queue serves the party that has cost the least so far; a party that was idle
//! begins where the party that is being served stands, so that idleness saves nothing up. The queue knows costs, and
//! nothing of what the work is. Invariant: a party's items leave in the order in which they came, and no party with work
//! waits while another is served more than a quantum and one item beyond it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The largest quantum that is of use.
const QUANTUM: u64 = 16 << 10;

/// The work of parties `P`, in items `T`.
#[derive(Debug)]
pub(crate) struct FairQueue<P, T> {
    /// Every party that has work, or that has cost more than the one that is being served.
    parties: BTreeMap<P, Party<T>>,
    /// The parties that can be served, by what they have cost. Neither the one that is being served is here, nor those
    /// that are set aside.
    order: BTreeSet<(u64, P)>,
    /// The party that is being served, and what is left of its quantum.
    served: Option<(P, u64)>,
    /// Parties whose next item must wait for something, until [`FairQueue::take_back`].
    aside: BTreeSet<P>,
    /// How many items these have.
    aside_len: usize,
    /// What the party had cost that was served last when its turn began. It only rises.
    clock: u64,
    /// How many items there are in all.
    len: usize,
    /// The queue goes on with one party until this much is spent: it saves looking for the next one after each item.
    quantum: u64,
}

/// One party.
#[derive(Debug)]
struct Party<T> {
    /// Its work, oldest first.
    items: VecDeque<T>,
    /// What it has cost so far; never less than the clock was when it came.
    cost: u64,
}

impl<P: Clone + Ord, T> FairQueue<P, T> {
    /// A queue that is worked off by turns of this cost: a turn serves several parties, if there are several.
    pub(crate) fn new(turn: u64) -> Self {
        Self {
            parties: BTreeMap::new(),
            order: BTreeSet::new(),
            served: None,
            aside: BTreeSet::new(),
            aside_len: 0,
            clock: 0,
            len: 0,
            quantum: QUANTUM.min(turn / 8),
        }
    }

    /// Adds to a party's work.
    pub(crate) fn push(&mut self, party: &P, item: T) {
        self.len += 1;
        if let Some(known) = self.parties.get_mut(party) {
            known.items.push_back(item);
            self.aside_len += usize::from(self.aside.contains(party));
            return;
        }
        let cost = self.clock;
        self.parties.insert(party.clone(), Party { items: VecDeque::from([item]), cost });
        self.order.insert((cost, party.clone()));
    }

    /// The next item, of the party whose turn it is. A party whose next item does not fit now is set aside with all of
    /// its work. The caller says what the item has cost by [`FairQueue::charge`] before it asks again.
    pub(crate) fn next(&mut self, fits: impl Fn(&P, &T) -> bool) -> Option<(P, T)> {
        loop {
            let (name, _) = self.serve()?.clone();
            let party = self.parties.get_mut(&name).expect("who is served is known");
            match party.items.front() {
                Some(item) if fits(&name, item) => {
                    self.len -= 1;
                    return party.items.pop_front().map(|item| (name, item));
                }
                Some(_) => {
                    self.served = None;
                    self.aside_len += party.items.len();
                    self.aside.insert(name);
                }
                // What it has cost is no more than what the others have by now: it is as good as new.
                None => {
                    self.served = None;
                    self.parties.remove(&name);
                }
            }
        }
    }

    /// What the last item has cost. A party that has used its quantum up lets others go first.
    pub(crate) fn charge(&mut self, cost: u64) {
        let Some((name, quantum)) = &mut self.served else { return };
        if let Some(party) = self.parties.get_mut(name) {
            party.cost += cost;
            *quantum = quantum.saturating_sub(cost);
        }
    }

    /// What earlier work of a party turns out to have cost besides. It counts whether or not the party has more work.
    pub(crate) fn charge_later(&mut self, name: &P, cost: u64) {
        let is_served = self.served.as_ref().is_some_and(|(served, _)| served == name);
        let is_aside = self.aside.contains(name);
        let clock = self.clock;
        let party =
            self.parties.entry(name.clone()).or_insert_with(|| Party { items: VecDeque::new(), cost: clock });
        let before = party.cost;
        party.cost += cost;
        if is_served {
            self.served = None;
        }
        if !is_aside {
            self.order.remove(&(before, name.clone()));
            self.order.insert((before + cost, name.clone()));
        }
    }

    /// Those that were set aside can be served again.
    pub(crate) fn take_back(&mut self) {
        self.aside_len = 0;
        for name in std::mem::take(&mut self.aside) {
            if let Some(party) = self.parties.get(&name) {
                self.order.insert((party.cost, name));
            }
        }
    }

    /// Whether a party could be served that is not set aside.
    pub(crate) fn has_work(&self) -> bool {
        self.len > self.aside_len
    }

    /// Takes the party's first item out of which this is so, wherever it stands among the party's work.
    pub(crate) fn remove(&mut self, name: &P, is: impl Fn(&T) -> bool) -> Option<T> {
        let party = self.parties.get_mut(name)?;
        let place = party.items.iter().position(is)?;
        let item = party.items.remove(place)?;
        self.len -= 1;
        self.aside_len -= usize::from(self.aside.contains(name));
        Some(item)
    }

    /// Drops a party's work.
    pub(crate) fn drop_party(&mut self, name: &P) {
        let Some(party) = self.parties.remove(name) else { return };
        self.len -= party.items.len();
        self.order.remove(&(party.cost, name.clone()));
        if self.aside.remove(name) {
            self.aside_len -= party.items.len();
        }
        self.served.take_if(|(served, _)| served == name);
    }

    /// How many items wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All that waits.
    pub(crate) fn into_items(self) -> impl Iterator<Item = T> {
        self.parties.into_values().flat_map(|party| party.items)
    }

    /// The party whose turn it is: the one that is being served until its quantum or its work is used up, and then the
    /// one that has cost the least.
    fn serve(&mut self) -> Option<&(P, u64)> {
        if let Some((name, quantum)) = self.served.take() {
            let party = self.parties.get(&name).expect("who is served is known");
            if quantum > 0 && !party.items.is_empty() {
                self.served = Some((name, quantum));
                return self.served.as_ref();
            }
            self.order.insert((party.cost, name));
        }
        let (cost, name) = self.order.pop_first()?;
        self.clock = self.clock.max(cost);
        self.served = Some((name, self.quantum));
        self.served.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Serves until the budget is used up, each item at its own cost; gives who was served what.
    fn work_off(queue: &mut FairQueue<u8, u64>, mut budget: u64) -> Vec<(u8, u64)> {
        let mut served = Vec::new();
        while budget > 0
            && let Some((party, cost)) = queue.next(|_, _| true)
        {
            queue.charge(cost);
            budget = budget.saturating_sub(cost);
            served.push((party, cost));
        }
        served
    }

    fn cost_of(served: &[(u8, u64)], party: u8) -> u64 {
        served.iter().filter(|(name, _)| *name == party).map(|(_, cost)| cost).sum()
    }

    #[test]
    fn many_small_items_and_few_large_ones_get_the_same_share() {
        let mut queue = FairQueue::new(u64::MAX);
        (0..10_000).for_each(|_| queue.push(&1, 100));
        (0..100).for_each(|_| queue.push(&2, 50_000));
        let served = work_off(&mut queue, 1_000_000);
        let (small, large) = (cost_of(&served, 1), cost_of(&served, 2));
        assert!(small.abs_diff(large) <= 50_000 + QUANTUM, "{small} and {large}");
    }

    #[test]
    fn one_that_comes_late_is_served_at_once_and_has_saved_nothing_up() {
        let mut queue = FairQueue::new(u64::MAX);
        (0..1_000).for_each(|_| queue.push(&1, QUANTUM));
        work_off(&mut queue, 500 * QUANTUM);
        (0..1_000).for_each(|_| queue.push(&2, QUANTUM));
        let served = work_off(&mut queue, 100 * QUANTUM);
        assert!(served[..2].contains(&(2, QUANTUM)), "{:?}", &served[..4]);
        assert!(cost_of(&served, 1).abs_diff(cost_of(&served, 2)) <= 2 * QUANTUM);
    }

    #[test]
    fn one_that_is_gone_for_a_moment_leaves_no_debt_behind() {
        let mut queue = FairQueue::new(u64::MAX);
        queue.push(&1, 100 * QUANTUM);
        queue.push(&2, 1);
        (0..100).for_each(|_| queue.push(&3, QUANTUM));
        work_off(&mut queue, 101 * QUANTUM);
        queue.push(&1, QUANTUM);
        let served = work_off(&mut queue, 50 * QUANTUM);
        assert_eq!(cost_of(&served, 1), 0, "the first one has had its share for a while: {served:?}");
    }

    #[test]
    fn what_is_removed_is_not_served_and_not_counted_wherever_its_party_stands() {
        let mut queue = FairQueue::new(u64::MAX);
        [1, 2, 3].into_iter().for_each(|cost| queue.push(&1, cost));
        assert_eq!(queue.remove(&2, |_| true), None);
        assert_eq!(queue.remove(&1, |cost| *cost == 9), None);
        assert_eq!(queue.remove(&1, |cost| *cost == 2), Some(2));
        assert_eq!(queue.next(|_, cost| *cost > 5), None, "the party is set aside");
        assert_eq!((queue.remove(&1, |_| true), queue.len(), queue.has_work()), (Some(1), 1, false));
        queue.take_back();
        assert_eq!(work_off(&mut queue, 10), [(1, 3)]);
        queue.push(&1, 4);
        assert_eq!(queue.remove(&1, |_| true), Some(4));
        assert_eq!((queue.next(|_, _| true), queue.len()), (None, 0));
    }

    #[test]
    fn one_whose_work_turns_out_to_cost_more_waits_until_others_have_had_as_much() {
        let mut queue = FairQueue::new(u64::MAX);
        queue.push(&1, 1);
        work_off(&mut queue, 1);
        queue.charge_later(&1, 50 * QUANTUM);
        for party in [1, 2] {
            (0..100).for_each(|_| queue.push(&party, QUANTUM));
        }
        let served = work_off(&mut queue, 40 * QUANTUM);
        assert_eq!(cost_of(&served, 1), 0, "{served:?}");
        let served = work_off(&mut queue, 100 * QUANTUM);
        assert!(
            cost_of(&served, 1).abs_diff(45 * QUANTUM) <= 2 * QUANTUM,
            "and has its share then: {served:?}"
        );
        queue.charge_later(&3, 1_000 * QUANTUM);
        queue.push(&3, 1);
        assert_eq!(
            work_off(&mut queue, u64::MAX).last(),
            Some(&(3, 1)),
            "who has nothing else to wait for goes on"
        );
    }

    #[test]
    fn what_does_not_fit_waits_with_all_that_is_behind_it_and_holds_up_no_other() {
        let mut queue = FairQueue::new(u64::MAX);
        for cost in [9, 1] {
            queue.push(&1, cost);
        }
        queue.push(&2, 1);
        assert_eq!(queue.next(|_, cost| *cost < 5), Some((2, 1)));
        assert_eq!(queue.next(|_, cost| *cost < 5), None);
        queue.push(&1, 2);
        assert!(!queue.has_work() && queue.len() == 3);
        queue.take_back();
        assert!(queue.has_work());
        assert_eq!(work_off(&mut queue, 100), [(1, 9), (1, 1), (1, 2)]);
    }

    /// What is done to a queue.
    #[derive(Clone, Debug)]
    enum Step {
        Push(u8, u64),
        Serve(u64),
        /// Serves what costs less than this, and takes the others back.
        ServeSmall(u64),
        /// Something turns out to have cost more.
        Charge(u8, u64),
        Drop(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_u8..6, 1_u64..100_000).prop_map(|(party, cost)| Step::Push(party, cost)),
            2 => (1_u64..400_000).prop_map(Step::Serve),
            1 => (1_u64..100_000).prop_map(Step::ServeSmall),
            1 => (0_u8..6, 1_u64..400_000).prop_map(|(party, cost)| Step::Charge(party, cost)),
            1 => (0_u8..6).prop_map(Step::Drop),
        ]
    }

    proptest! {
        /// Whatever comes and goes: each party's items leave in their order, nothing is lost or doubled, and what
        /// waits is counted.
        #[test]
        fn each_party_has_its_items_in_order(steps in prop::collection::vec(step(), 0..200)) {
            let mut queue = FairQueue::new(u64::MAX);
            let mut model: BTreeMap<u8, VecDeque<u64>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Push(party, cost) => {
                        queue.push(&party, cost);
                        model.entry(party).or_default().push_back(cost);
                    }
                    Step::Serve(budget) => {
                        for (party, cost) in work_off(&mut queue, budget) {
                            prop_assert_eq!(model.get_mut(&party).and_then(VecDeque::pop_front), Some(cost));
                        }
                    }
                    Step::ServeSmall(below) => {
                        while let Some((party, cost)) = queue.next(|_, cost| *cost < below) {
                            queue.charge(cost);
                            prop_assert_eq!(model.get_mut(&party).and_then(VecDeque::pop_front), Some(cost));
                        }
                        prop_assert!(model.values().all(|items| items.front().is_none_or(|cost| *cost >= below)));
                        prop_assert!(!queue.has_work());
                        queue.take_back();
                    }
                    Step::Charge(party, cost) => queue.charge_later(&party, cost),
                    Step::Drop(party) => {
                        queue.drop_party(&party);
                        model.remove(&party);
                    }
                }
                let left: usize = model.values().map(VecDeque::len).sum();
                prop_assert_eq!(queue.len(), left);
                prop_assert_eq!(queue.has_work(), left > 0);
            }
            let left: usize = model.values().map(VecDeque::len).sum();
            prop_assert_eq!(work_off(&mut queue, u64::MAX).len(), left);
        }
    }
}
