//! What a greedy client counts, and the line in which it says so.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_proto::client::v1::outcome::Result as Fruit;
use holdfast_proto::client::v1::{Outcome, RefusalCode};
use serde::{Deserialize, Serialize};
use tonic::Status as Answer;

/// How a greedy client fares: one line of its output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The client has prepared its attack, and attacks.
    pub ready: bool,
    /// The client has done all that it wanted.
    pub over: bool,
    /// Requests and calls that were done.
    pub done: u64,
    /// Requests, calls and streams that were refused, by the refusal's code or the call's status.
    pub refused: BTreeMap<String, u64>,
    /// Streams that ended without a refusal, and sessions that ended, by what ended them.
    pub broken: BTreeMap<String, u64>,
    /// The bytes of contents that the cell has stored for this client.
    pub stored_bytes: u64,
    /// How often a session that shared the client's connection lost its stream.
    pub neighbours_lost: u64,
    /// The longest that a request took of which the client waits for the answer.
    pub longest_ms: u64,
}

/// The counters of a client. The client runs in one thread.
#[derive(Debug, Default)]
pub struct Tally(RefCell<Status>);

impl Tally {
    /// How the client fares.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.borrow().clone()
    }

    /// Says that the attack begins.
    pub fn ready(&self) {
        self.0.borrow_mut().ready = true;
    }

    /// Says that there is nothing left to want.
    pub fn over(&self) {
        self.0.borrow_mut().over = true;
    }

    /// Counts an outcome, and tells whether the request was done.
    pub fn count(&self, outcome: Option<&Outcome>) -> bool {
        match outcome.and_then(|outcome| outcome.result.as_ref()) {
            Some(Fruit::Refusal(refusal)) => {
                self.refused(code_name(refusal.code));
                false
            }
            Some(_) => {
                self.0.borrow_mut().done += 1;
                true
            }
            None => {
                self.broken("a reply without an outcome");
                false
            }
        }
    }

    /// Counts a call's end, and tells whether it was done.
    pub fn count_call<T>(&self, answer: &Result<T, Answer>) -> bool {
        match answer {
            Ok(_) => self.0.borrow_mut().done += 1,
            Err(status) => self.refused(refusal_of(status)),
        }
        answer.is_ok()
    }

    /// Counts a refusal.
    pub fn refused(&self, code: String) {
        *self.0.borrow_mut().refused.entry(code).or_default() += 1;
    }

    /// Counts the end of a stream or session.
    pub fn broken(&self, why: &str) {
        *self.0.borrow_mut().broken.entry(why.to_owned()).or_default() += 1;
    }

    /// Counts a neighbour on the same connection that has lost its stream.
    pub fn lost_neighbour(&self) {
        self.0.borrow_mut().neighbours_lost += 1;
    }

    /// Counts contents that the cell keeps.
    pub fn stored(&self, bytes: usize) {
        self.0.borrow_mut().stored_bytes += bytes as u64;
    }

    /// Counts how long a request took.
    pub fn took(&self, time: Duration) {
        let mut status = self.0.borrow_mut();
        status.longest_ms = status.longest_ms.max(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }
}

/// The short name of a refusal's code.
#[must_use]
pub fn code_name(code: i32) -> String {
    match RefusalCode::try_from(code) {
        Ok(code) => code.as_str_name().trim_start_matches("REFUSAL_CODE_").to_owned(),
        Err(_) => format!("code {code}"),
    }
}

/// The refusal in a call's status, or the status's own code.
#[must_use]
pub fn refusal_of(status: &Answer) -> String {
    let refusal = status.metadata().get("holdfast-refusal").and_then(|name| name.to_str().ok());
    refusal.map_or_else(
        || format!("{:?}", status.code()),
        |name| name.trim_start_matches("REFUSAL_CODE_").to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1::{Closed, Refusal};

    use super::*;

    #[test]
    fn outcomes_are_told_apart_and_a_status_survives_its_line() {
        let tally = Tally::default();
        let refusal = Refusal { code: RefusalCode::Overloaded.into(), ..Refusal::default() };
        let outcome = |result| Outcome { result: Some(result), ..Outcome::default() };
        assert!(!tally.count(Some(&outcome(Fruit::Refusal(refusal)))));
        assert!(tally.count(Some(&outcome(Fruit::Closed(Closed {})))));
        assert!(!tally.count_call(&Err::<(), _>(Answer::unavailable("gone"))));
        tally.took(Duration::from_millis(70));
        tally.took(Duration::from_millis(7));
        let status = tally.status();
        assert_eq!((status.done, status.longest_ms, status.ready), (1, 70, false));
        assert_eq!(status.refused.keys().collect::<Vec<_>>(), ["OVERLOADED", "Unavailable"]);
        let line = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&line).unwrap(), status);
    }
}
