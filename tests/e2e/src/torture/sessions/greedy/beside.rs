//! What was seen beside one kind of greedy client, and what of it is wrong.
//!
//! Invariant: whatever the greedy client got, it excuses nothing that happens to others.

use std::fmt;
use std::time::Duration;

use holdfast_greedy::{Kind, Status};
use tokio::time::Instant;

use super::Sum;

/// The longest time from one honest write that the cell takes to the next: a lease of the honest sessions.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The most memory that a replica takes beyond what it had before and what it is given to keep.
const MEMORY_MAX_KIB: u64 = 256 << 10;

/// How the cell and the honest sessions are at rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pub(super) sum: Sum,
    /// The master's term.
    pub(super) term: u64,
}

/// What was seen beside one kind.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) kind: Kind,
    pub(super) before: Standing,
    /// Or how things were when the rig waited no longer for rest.
    pub(super) after: Result<Standing, String>,
    pub(super) writes: Writes,
    pub(super) memory: Memory,
    /// What the greedy client said last.
    pub(super) got: Status,
}

impl Beside {
    /// Whether the honest sessions can be beside another kind: they are all there, and at rest.
    pub(super) fn goes_on(&self) -> bool {
        self.after.as_ref().is_ok_and(|after| after.sum.wrong().is_none())
    }

    /// What is wrong.
    pub(super) fn wrong(&self) -> Vec<String> {
        let all = [
            self.after.as_ref().err().map(|error| format!("no rest: {error}")),
            self.after.as_ref().ok().and_then(|after| after.sum.wrong()),
            self.jeopardies(),
            self.masters(),
            self.locks(),
            self.writes.wrong(),
            self.memory.wrong(),
            self.idle(),
        ];
        all.into_iter().flatten().map(|what| format!("{}: {what}", self.kind.name())).collect()
    }

    fn jeopardies(&self) -> Option<String> {
        let after = &self.after.as_ref().ok()?.sum;
        let jeopardies = after.jeopardies - self.before.sum.jeopardies;
        (jeopardies > 0).then(|| format!("{jeopardies} honest sessions came into jeopardy"))
    }

    fn masters(&self) -> Option<String> {
        let (before, after) = (self.before.term, self.after.as_ref().ok()?.term);
        (after != before).then(|| format!("the master of term {before} was deposed: the term is {after}"))
    }

    /// Each lock was to be passed on, beside the greedy client and when it was gone.
    fn locks(&self) -> Option<String> {
        let after = &self.after.as_ref().ok()?.sum;
        let grants = after.grants - self.before.sum.grants;
        (grants < after.held as u64).then(|| format!("{} locks were granted {grants} times only", after.held))
    }

    /// A client that got nothing and was refused nothing has not attacked, and the run says nothing of it.
    fn idle(&self) -> Option<String> {
        let asked = self.got.done + self.got.refused.values().chain(self.got.broken.values()).sum::<u64>();
        (asked == 0).then(|| "the greedy client has not attacked".to_owned())
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { done, refused, broken, .. } = &self.got;
        let [refused, broken] = [refused, broken].map(|counts| counts.values().sum::<u64>());
        write!(
            f,
            "{:<24} {} writes, {:4} ms from one to the next at the longest  memory {:6.1} MiB  greedy: {done} done, \
             {refused} refused, {broken} broken",
            self.kind.name(),
            self.writes.taken,
            self.writes.silence_max.as_millis(),
            self.memory.excess_kib as f64 / 1024.0,
        )?;
        if let Ok(Standing { sum, term }) = &self.after {
            let jeopardies = sum.jeopardies - self.before.sum.jeopardies;
            write!(f, "  jeopardies {jeopardies}  term {term}")?;
        }
        self.wrong().iter().try_for_each(|wrong| write!(f, "  WRONG: {wrong}"))
    }
}

/// How the writes fare that the rig makes itself, by name.
#[derive(Debug)]
pub(super) struct Writes {
    pub(super) taken: u64,
    taken_at: Instant,
    /// The longest time from one that was taken to the next.
    silence_max: Duration,
}

impl Writes {
    pub(super) fn new(now: Instant) -> Self {
        Self { taken: 0, taken_at: now, silence_max: Duration::ZERO }
    }

    /// The cell has taken one.
    pub(super) fn take(&mut self, now: Instant) {
        self.end(now);
        self.taken += 1;
        self.taken_at = now;
    }

    /// There are no more.
    pub(super) fn end(&mut self, now: Instant) {
        self.silence_max = self.silence_max.max(now - self.taken_at);
    }

    fn wrong(&self) -> Option<String> {
        let ms = self.silence_max.as_millis();
        (self.silence_max > SILENCE_MAX).then(|| format!("no write was taken for {ms} ms"))
    }
}

/// The memory of the replicas.
#[derive(Debug)]
pub(super) struct Memory {
    before_kib: Vec<u64>,
    /// The most that a replica has had beyond that, and beyond what it was given to keep.
    excess_kib: u64,
    /// A replica is no longer there.
    fallen: bool,
}

impl Memory {
    /// What all replicas have, in order.
    pub(super) fn new(before_kib: Vec<u64>) -> Self {
        Self { before_kib, excess_kib: 0, fallen: false }
    }

    /// What those have that run now, while so many bytes are kept for the greedy client.
    pub(super) fn look(&mut self, now_kib: &[u64], stored_bytes: u64) {
        if now_kib.len() != self.before_kib.len() {
            self.fallen = true;
            return;
        }
        for (now, before) in now_kib.iter().zip(&self.before_kib) {
            let excess = now.saturating_sub(*before).saturating_sub(stored_bytes >> 10);
            self.excess_kib = self.excess_kib.max(excess);
        }
    }

    fn wrong(&self) -> Option<String> {
        if self.fallen {
            return Some("a replica ended".to_owned());
        }
        let mib = self.excess_kib >> 10;
        (self.excess_kib > MEMORY_MAX_KIB).then(|| format!("a replica took {mib} MiB beyond what it keeps"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(jeopardies: u64, grants: u64, term: u64) -> Standing {
        let sum = Sum { sessions: 6, safe: 6, held: 2, jeopardies, grants, ..Sum::default() };
        Standing { sum, term }
    }

    /// A run in which the greedy client did no harm.
    fn harmless() -> Beside {
        let now = Instant::now();
        let mut writes = Writes::new(now);
        (1..=3).for_each(|second| writes.take(now + Duration::from_secs(second)));
        let mut memory = Memory::new(vec![10 << 10, 20 << 10, 20 << 10]);
        memory.look(&[600 << 10, 20 << 10, 20 << 10], 400 << 20);
        Beside {
            kind: Kind::LargeWrites,
            before: standing(1, 10, 3),
            after: Ok(standing(1, 14, 3)),
            writes,
            memory,
            got: Status { done: 1, ..Status::default() },
        }
    }

    #[test]
    fn what_the_greedy_client_may_do_is_not_wrong() {
        let beside = harmless();
        assert_eq!(beside.wrong(), Vec::<String>::new());
        let said = beside.to_string();
        assert!(said.contains("3 writes, 1000 ms") && said.contains("190.0 MiB"), "{said}");
    }

    #[test]
    fn a_run_goes_on_while_all_honest_sessions_live() {
        assert!(harmless().goes_on() && Beside { after: Ok(standing(9, 14, 7)), ..harmless() }.goes_on());
        let mut lost = standing(1, 14, 3);
        lost.sum.ended.insert("it expired".to_owned(), 1);
        for after in [Ok(lost), Err("all wait".to_owned())] {
            assert!(!Beside { after, ..harmless() }.goes_on());
        }
    }

    #[test]
    fn each_harm_to_others_is_wrong() {
        let after = |standing| Beside { after: Ok(standing), ..harmless() };
        let lost = || {
            let mut lost = standing(1, 14, 3);
            lost.sum.ended.insert("it expired".to_owned(), 1);
            lost
        };
        let taken_twice = || {
            let mut twice = standing(1, 14, 3);
            twice.sum.violations = 1;
            twice
        };
        let memory = |now: &[u64]| {
            let mut memory = Memory::new(vec![0, 0, 0]);
            memory.look(now, 1 << 20);
            Beside { memory, ..harmless() }
        };
        let silent = || {
            let mut beside = harmless();
            beside.writes.end(beside.writes.taken_at + Duration::from_millis(5_001));
            beside
        };
        let cases = [
            (after(lost()), "1 sessions ended"),
            (after(taken_twice()), "1 wrong grants"),
            (after(standing(3, 14, 3)), "2 honest sessions came into jeopardy"),
            (after(standing(1, 14, 4)), "the master of term 3 was deposed"),
            (after(standing(1, 11, 3)), "2 locks were granted 1 times only"),
            (silent(), "no write was taken for 5001 ms"),
            (memory(&[(257 << 10) + 1, 0, 0]), "a replica took 256 MiB"),
            (memory(&[0, 0]), "a replica ended"),
            (Beside { got: Status::default(), ..harmless() }, "has not attacked"),
            (Beside { after: Err("all wait".to_owned()), ..harmless() }, "no rest: all wait"),
        ];
        for (beside, said) in cases {
            let wrong = beside.wrong();
            assert!(
                matches!(&*wrong, [one] if one.starts_with("large-writes: ") && one.contains(said)),
                "{wrong:?}"
            );
            assert!(beside.to_string().contains("WRONG"));
        }
    }
}
