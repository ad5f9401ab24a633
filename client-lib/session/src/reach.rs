//! What is in the way of reaching the replicas, and whether trying on may help.
//!
//! Owns the newest problem of each address. The invariant: where nothing can come of trying on, that is known as soon as
//! every address has been tried; and of several reasons the one is told first that somebody can do something about.

use holdfast_types::{Duration, Time};

/// While nobody has ever answered and nothing listens anywhere, it is tried on for so long: what is just being started
/// is waited for, and whoever has the wrong addresses learns it soon.
pub const ABSENT_PATIENCE: Duration = Duration::from_secs(2);
/// So many different reasons are told.
const REASONS_MAX: usize = 3;

/// What kind of thing is in the way at one address. In the order in which they are told, the last first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// Nothing listens there, or nobody knows the host.
    Absent,
    /// No connection was made, for another reason.
    Unreached,
    /// Somebody is there and does not serve: there is no master, or it does not answer.
    Unserved,
    /// Nothing can come of trying again before certificates, configurations or addresses change.
    Lasting,
}

/// What is in the way at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub obstacle: Obstacle,
    /// For people, without the address.
    pub text: String,
}

impl Problem {
    /// Somebody is there, and does not serve.
    #[must_use]
    pub fn unserved(text: impl Into<String>) -> Self {
        Self { obstacle: Obstacle::Unserved, text: text.into() }
    }
}

/// What is known to be in the way.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// The newest problem of each address that has one, in the order of first failures.
    problems: Vec<(String, Problem)>,
    /// A replica has answered once.
    heard: bool,
    /// Since when nothing serves at any address that was tried.
    failing_since: Option<Time>,
}

impl Reach {
    /// `heard`: a replica has answered before.
    pub(crate) fn new(heard: bool) -> Self {
        Self { heard, ..Self::default() }
    }

    /// An attempt at an address came to nothing.
    pub(crate) fn failed(&mut self, now: Time, address: &str, problem: Problem) {
        if problem.obstacle == Obstacle::Unserved {
            self.heard();
        } else {
            self.failing_since.get_or_insert(now);
        }
        match self.problems.iter_mut().find(|(known, _)| known == address) {
            Some((_, known)) => *known = problem,
            None => self.problems.push((address.to_owned(), problem)),
        }
    }

    /// An address has not answered by the end, and nothing else is known of it.
    pub(crate) fn silent(&mut self, address: &str) {
        if self.problems.iter().all(|(known, _)| known != address) {
            self.problems.push((address.to_owned(), Problem::unserved("did not answer")));
        }
    }

    /// A replica answered, whatever it said.
    pub(crate) fn heard(&mut self) {
        self.heard = true;
        self.failing_since = None;
    }

    /// A master serves: nothing is in the way.
    pub(crate) fn served(&mut self) {
        self.heard();
        self.problems.clear();
    }

    /// Whether nothing listens at any of these addresses, as far as was tried.
    pub(crate) fn all_absent(&self, addresses: &[String]) -> bool {
        self.all_are(addresses, |obstacle| obstacle == Obstacle::Absent)
    }

    /// Whether to give up before the time is over: no replica will ever serve this client; or some will not, and nothing
    /// listens where the others should be; or nothing listens anywhere, and that has lasted for a while. The last two not if a
    /// replica has ever answered: then the others may come back.
    pub(crate) fn is_hopeless(&self, now: Time, addresses: &[String]) -> bool {
        if self.all_are(addresses, |obstacle| obstacle == Obstacle::Lasting) {
            return true;
        }
        let none_serves =
            self.all_are(addresses, |obstacle| matches!(obstacle, Obstacle::Absent | Obstacle::Lasting));
        if self.heard || !none_serves {
            return false;
        }
        let is_lasting = self.problems.iter().any(|(_, problem)| problem.obstacle == Obstacle::Lasting);
        // A replica that may be starting is not worth a wait once another one has said that it will never serve this client.
        is_lasting || self.failing_since.is_some_and(|since| now >= since + ABSENT_PATIENCE)
    }

    fn all_are(&self, addresses: &[String], is: impl Fn(Obstacle) -> bool) -> bool {
        addresses.iter().all(|address| {
            self.problems.iter().any(|(known, problem)| known == address && is(problem.obstacle))
        })
    }

    /// Everything that is in the way, for people: each reason once, with the addresses that it holds for.
    pub(crate) fn reason(&self) -> String {
        let mut reasons: Vec<(&Problem, Vec<&str>)> = Vec::new();
        for (address, problem) in &self.problems {
            match reasons.iter_mut().find(|(known, _)| known.text == problem.text) {
                Some((_, addresses)) => addresses.push(address),
                None => reasons.push((problem, vec![address])),
            }
        }
        reasons.sort_by_key(|(problem, _)| std::cmp::Reverse(problem.obstacle));
        let told = reasons.iter().take(REASONS_MAX);
        let told: Vec<String> =
            told.map(|(problem, at)| format!("{}: {}", at.join(", "), problem.text)).collect();
        if told.is_empty() { "no replica was reached".to_owned() } else { told.join("; ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(obstacle: Obstacle) -> Problem {
        Problem { obstacle, text: format!("{obstacle:?}").to_lowercase() }
    }

    fn addresses(count: u64) -> Vec<String> {
        (1..=count).map(|n| format!("r{n}:1")).collect()
    }

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn it_is_given_up_soon_where_nothing_listens_anywhere_and_nobody_ever_answered() {
        let mut reach = Reach::new(false);
        reach.failed(at(10), "r1:1", problem(Obstacle::Absent));
        assert!(!reach.is_hopeless(at(9_000), &addresses(2)), "the other was not tried");
        reach.failed(at(20), "r2:1", problem(Obstacle::Absent));
        assert!(!reach.is_hopeless(at(2_009), &addresses(2)), "it may just be starting");
        assert!(reach.is_hopeless(at(2_010), &addresses(2)) && reach.all_absent(&addresses(2)));
        reach.failed(at(2_020), "r1:1", problem(Obstacle::Unreached));
        assert!(!reach.is_hopeless(at(9_000), &addresses(2)) && !reach.all_absent(&addresses(2)));

        let mut reach = Reach::new(true);
        reach.failed(at(10), "r1:1", problem(Obstacle::Absent));
        assert!(!reach.is_hopeless(at(60_000), &addresses(1)), "a cell that was there may come back");
    }

    #[test]
    fn it_is_given_up_at_once_where_no_replica_will_ever_serve_or_the_others_never_were() {
        let mut reach = Reach::new(true);
        reach.failed(at(0), "r1:1", problem(Obstacle::Lasting));
        assert!(!reach.is_hopeless(at(0), &addresses(2)), "another was not tried");
        reach.failed(at(0), "r2:1", problem(Obstacle::Lasting));
        assert!(reach.is_hopeless(at(0), &addresses(2)));
        reach.failed(at(0), "r2:1", problem(Obstacle::Absent));
        assert!(!reach.is_hopeless(at(60_000), &addresses(2)), "it was there, and may come back");

        let mut reach = Reach::new(false);
        reach.failed(at(0), "r2:1", problem(Obstacle::Absent));
        reach.failed(at(0), "r1:1", problem(Obstacle::Lasting));
        assert!(!reach.is_hopeless(at(0), &addresses(3)), "another was not tried");
        assert!(reach.is_hopeless(at(0), &addresses(2)));
        reach.failed(at(0), "r2:1", problem(Obstacle::Unserved));
        assert!(
            !reach.is_hopeless(at(60_000), &addresses(2)),
            "one talks to this client, and may find a master"
        );
    }

    #[test]
    fn what_somebody_can_do_something_about_is_told_first_and_each_reason_once() {
        let mut reach = Reach::new(false);
        assert_eq!(reach.reason(), "no replica was reached");
        reach.failed(at(0), "r1:1", problem(Obstacle::Absent));
        reach.failed(at(0), "r2:1", problem(Obstacle::Lasting));
        reach.failed(at(0), "r3:1", problem(Obstacle::Absent));
        assert_eq!(reach.reason(), "r2:1: lasting; r1:1, r3:1: absent");
        reach.served();
        assert_eq!(reach.reason(), "no replica was reached");
    }
}
