//! One call's way to the master, for calls without a session: whom to ask, when to ask another one beside, when to give
//! up, and what may be sent twice.
//!
//! A read is sent to one replica after another until the master answers; a replica that does not answer soon is left
//! waiting, and the next asked beside it. A write is sent to one replica only, and only to one that has just said that
//! it is the master: who is that is asked first, in the same way. Never reads a clock and never sends anything. The
//! invariant: a call that must not be repeated is sent again only if it certainly had no effect before.

use crate::reach::{Problem, Reach};
use holdfast_types::{Duration, Time};
use std::collections::{BTreeMap, VecDeque};

/// A replica that has not answered for so long is not waited for alone any more: well beyond a round trip around the
/// world, and not long to people.
const STAGGER: Duration = Duration::from_millis(250);
/// Between two laps around the replicas, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// While a write is under way, which may only be waiting for another client, whether there is another master is asked more
/// and more seldom: the pause doubles up to this.
const PAUSE_WRITING_MAX: Duration = Duration::from_secs(2);
/// A write that may be repeated is sent to another master if one is found after so long.
const CALL_PATIENCE: Duration = Duration::from_secs(2);
/// A write that was refused is not sent again with less time than this left: a replica withdraws what only waits a little
/// before its caller gives up, and the word of that must have the time to come back.
const CALL_TIME_MIN: Duration = Duration::from_millis(250);
/// So often in a lap a replica's word on who is master is followed at once. Two may name each other for a while.
const REDIRECTS_MAX: u32 = 2;

/// What a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// It changes nothing, or the same again.
    Read,
    /// It takes effect at most once, by its condition. But a mismatch after a lost answer may be its own doing.
    Conditional,
    /// It takes effect each time that it arrives.
    Once,
    /// Only who is master is wanted.
    Find,
}

/// What a search is told when it begins.
#[derive(Clone, Debug)]
pub struct SearchConfig {
    /// What the call is.
    pub goal: Goal,
    /// Where replicas may be, the likeliest first. None twice.
    pub addresses: Vec<String>,
    /// Where the master was last.
    pub master: Option<String>,
    /// It answered there a moment ago.
    pub master_is_fresh: bool,
    /// A replica of the cell has answered before.
    pub heard: bool,
    /// How long it may take in all.
    pub timeout: Duration,
}

/// One thing that was asked of one replica. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The call's own result; or the replica says that it is the master, if that was asked.
    Done,
    /// The cell refused the call itself. It may do so because the same call has taken effect before.
    Refused,
    /// The replica does not serve it, and the call had no effect; it names the master if it knows one.
    Elsewhere {
        /// Where the master serves clients.
        master: Option<String>,
        /// What was in the way.
        problem: Problem,
    },
    /// No answer will come, and the call may have had its effect.
    Lost(Problem),
}

/// What a search wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchOutput {
    /// Ask the replica whether it is the master.
    Look {
        /// Names the attempt.
        attempt: AttemptId,
        /// Which replica.
        address: String,
    },
    /// Send it the call.
    Call {
        /// Names the attempt.
        attempt: AttemptId,
        /// Which replica.
        address: String,
    },
    /// The search is over. Nothing follows.
    Over(Found),
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// With this attempt's answer, which stands.
    Answer {
        /// Which attempt.
        attempt: AttemptId,
        /// Where: the master.
        address: String,
        /// An earlier attempt got no answer, for this reason, and so what this one says may be that one's own doing.
        ambiguous: Option<String>,
    },
    /// Without an answer.
    Nothing {
        /// The call may have taken effect, or may still.
        maybe_applied: bool,
        /// Nothing listens at any address.
        absent: bool,
        /// How long it took.
        waited: Duration,
        /// What was in the way.
        reason: String,
    },
}

/// One replica, as the search sees it.
#[derive(Debug)]
struct Place {
    address: String,
    /// The lap in which it was last asked; 0 for never.
    lap: u32,
    /// It has been asked and not answered.
    asked: Option<AttemptId>,
}

/// One call's way to the master. See the module's page.
#[derive(Debug)]
pub struct Search {
    goal: Goal,
    /// The greatest time that was ever handed in.
    now: Time,
    began: Time,
    deadline: Time,
    places: Vec<Place>,
    reach: Reach,
    /// From 1.
    lap: u32,
    /// When the next lap begins, if this one is over.
    next_lap: Option<Time>,
    /// When the newest attempt was made, if it is not answered yet.
    asked_at: Option<Time>,
    /// Whom a replica named as master.
    named: Option<usize>,
    redirects: u32,
    last_attempt: u64,
    /// The places that were asked, and have not answered.
    attempts: BTreeMap<AttemptId, usize>,
    /// The write that is under way: where, and from when on another master is looked for.
    call: Option<(AttemptId, Time)>,
    /// A write was sent.
    was_sent: bool,
    /// A write's answer was lost: why.
    lost: Option<String>,
    outputs: VecDeque<SearchOutput>,
    over: bool,
}

impl Search {
    /// A search that begins: its first output says whom to ask.
    #[must_use]
    pub fn new(now: Time, config: SearchConfig) -> Self {
        let place = |address| Place { address, lap: 0, asked: None };
        let mut search = Self {
            goal: config.goal,
            now,
            began: now,
            deadline: now + config.timeout,
            places: config.addresses.into_iter().map(place).collect(),
            reach: Reach::new(config.heard),
            lap: 1,
            next_lap: None,
            asked_at: None,
            named: None,
            redirects: 0,
            last_attempt: 0,
            attempts: BTreeMap::new(),
            call: None,
            was_sent: false,
            lost: None,
            outputs: VecDeque::new(),
            over: false,
        };
        if let Some(master) = config.master {
            let place = search.place(master);
            if config.master_is_fresh && search.is_write() {
                search.send_call(place);
                return search;
            }
            search.named = Some(place);
        }
        search.go_on();
        search
    }

    /// Takes up what came of an attempt.
    pub fn handle(&mut self, now: Time, attempt: AttemptId, answer: Answer) {
        self.now = self.now.max(now);
        let Some(place) = self.attempts.remove(&attempt) else { return };
        if self.over {
            return;
        }
        self.places[place].asked = None;
        if attempt.0 == self.last_attempt {
            self.asked_at = None;
        }
        let is_call = self.call.is_some_and(|(call, _)| call == attempt);
        let is_look = self.goal == Goal::Find || self.is_write() && !is_call;
        if is_call {
            self.call = None;
        }
        match answer {
            Answer::Done if is_look && self.is_write() => return self.found_master(place),
            Answer::Done => return self.end_with(attempt, place, None),
            Answer::Refused if !is_look => {
                let lost = self.lost.take();
                return self.end_with(attempt, place, lost);
            }
            Answer::Refused => self.reach.heard(),
            Answer::Elsewhere { master, problem } => {
                self.failed(place, problem);
                if let Some(master) = master {
                    let master = self.place(master);
                    self.named = Some(master);
                }
            }
            Answer::Lost(problem) => {
                if is_call {
                    self.lost = Some(format!("{}: {}", self.places[place].address, problem.text));
                    if self.goal == Goal::Once {
                        return self.end_with_nothing();
                    }
                }
                self.failed(place, problem);
            }
        }
        self.go_on();
    }

    /// Time has passed.
    pub fn pass_time(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.go_on();
    }

    /// The next thing that the search wants done; `None` if nothing more.
    pub fn poll_output(&mut self) -> Option<SearchOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`Search::pass_time`] if nothing else happens; `None` once the search is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.over {
            return None;
        }
        let next = match (self.call, self.next_lap) {
            // A write that must not be repeated is waited for to the end.
            (Some(_), _) if self.goal == Goal::Once => None,
            (Some((_, patient_until)), _) if self.now < patient_until => Some(patient_until),
            (_, Some(next_lap)) => Some(next_lap),
            _ => self.asked_at.map(|at| at + STAGGER),
        };
        next.into_iter().chain([self.deadline]).min()
    }

    fn is_write(&self) -> bool {
        matches!(self.goal, Goal::Conditional | Goal::Once)
    }

    /// Asks whoever is to be asked by now, or gives up.
    fn go_on(&mut self) {
        if self.over {
            return;
        }
        if self.now >= self.deadline {
            return self.end_with_nothing();
        }
        if self.call.is_some_and(|(_, until)| self.goal == Goal::Once || self.now < until) {
            return;
        }
        let addresses = || self.places.iter().map(|place| place.address.clone()).collect::<Vec<_>>();
        if self.call.is_none() && self.attempts.is_empty() && self.reach.is_hopeless(self.now, &addresses()) {
            return self.end_with_nothing();
        }
        if self.next_lap.is_some_and(|at| self.now >= at) {
            self.next_lap = None;
            self.lap = self.lap.saturating_add(1);
            self.redirects = 0;
        }
        if let Some(named) = self.named.take()
            && self.places[named].asked.is_none()
            && self.redirects < REDIRECTS_MAX
        {
            self.redirects += 1;
            return self.ask(named);
        }
        if self.asked_at.is_some_and(|at| self.now < at + STAGGER) {
            return;
        }
        let lap = self.lap;
        match self.places.iter().position(|place| place.lap < lap && place.asked.is_none()) {
            Some(next) => self.ask(next),
            None if self.goal == Goal::Find && self.attempts.is_empty() => self.end_with_nothing(),
            None if self.next_lap.is_none() => {
                self.next_lap = Some(self.now + self.pause());
            }
            None => {}
        }
    }

    /// How long to wait before the next lap.
    fn pause(&self) -> Duration {
        match &self.call {
            Some((_, patient_until)) => {
                // As long as it has lasted since the write was taken to be late.
                let since = self.now.since(*patient_until);
                since.clamp(PAUSE_MAX, PAUSE_WRITING_MAX)
            }
            None => (PAUSE_MIN * 2_u32.saturating_pow(self.lap.min(16) - 1)).min(PAUSE_MAX),
        }
    }

    fn ask(&mut self, place: usize) {
        let attempt = self.begin(place);
        let address = self.places[place].address.clone();
        self.outputs.push_back(if self.goal == Goal::Read {
            SearchOutput::Call { attempt, address }
        } else {
            SearchOutput::Look { attempt, address }
        });
    }

    fn begin(&mut self, place: usize) -> AttemptId {
        self.last_attempt += 1;
        let attempt = AttemptId(self.last_attempt);
        self.attempts.insert(attempt, place);
        let lap = self.lap;
        let at = &mut self.places[place];
        (at.lap, at.asked) = (lap, Some(attempt));
        self.asked_at = Some(self.now);
        attempt
    }

    /// A replica has just said that it is the master.
    fn found_master(&mut self, place: usize) {
        self.reach.heard();
        // Another one than where the write is under way: there nobody is asked.
        if let Some((call, _)) = self.call
            && let Some(old) = self.attempts.remove(&call)
        {
            let place = &mut self.places[old];
            place.asked = None;
            self.lost = Some(format!("{} did not answer in time", place.address));
        }
        self.send_call(place);
    }

    fn send_call(&mut self, place: usize) {
        if self.was_sent && self.now + CALL_TIME_MIN > self.deadline {
            return self.end_with_nothing();
        }
        self.was_sent = true;
        // Whoever else was asked is not waited for any more.
        let asked = std::mem::take(&mut self.attempts);
        for (_, place) in asked {
            self.places[place].asked = None;
        }
        let attempt = self.begin(place);
        self.call = Some((attempt, self.now + CALL_PATIENCE));
        let address = self.places[place].address.clone();
        self.outputs.push_back(SearchOutput::Call { attempt, address });
    }

    fn failed(&mut self, place: usize, problem: Problem) {
        self.reach.failed(self.now, &self.places[place].address, problem);
    }

    /// Where a replica is, known from now on.
    fn place(&mut self, address: String) -> usize {
        if let Some(place) = self.places.iter().position(|place| place.address == address) {
            return place;
        }
        self.places.push(Place { address, lap: 0, asked: None });
        self.places.len() - 1
    }

    fn end_with(&mut self, attempt: AttemptId, place: usize, ambiguous: Option<String>) {
        self.over = true;
        let address = self.places[place].address.clone();
        self.outputs.push_back(SearchOutput::Over(Found::Answer { attempt, address, ambiguous }));
    }

    fn end_with_nothing(&mut self) {
        self.over = true;
        let silent = Problem::unserved("did not answer in time");
        for place in self.attempts.values() {
            self.reach.failed(self.now, &self.places[*place].address, silent.clone());
        }
        let addresses: Vec<String> = self.places.iter().map(|place| place.address.clone()).collect();
        let maybe_applied = self.call.is_some() || self.lost.is_some();
        self.outputs.push_back(SearchOutput::Over(Found::Nothing {
            maybe_applied,
            absent: !maybe_applied && self.reach.all_absent(&addresses),
            waited: self.now.since(self.began),
            reason: self.lost.take().unwrap_or_else(|| self.reach.reason()),
        }));
    }
}

#[cfg(test)]
mod tests;
