//! I10, for calls by name and those of operators: a replica that takes a call answers it, with a refusal if it must, as
//! long as it lives. Who asks need not wait for so long; but what is never answered is kept for ever.

use std::collections::BTreeMap;

use holdfast_replica::{CallId, CallRequest};

/// The checker.
#[derive(Debug, Default)]
pub struct Unary {
    /// The calls that replicas have taken and not answered.
    asked: BTreeMap<CallId, (usize, String)>,
}

impl Unary {
    /// A replica takes a call.
    pub fn asked(&mut self, call: CallId, replica: usize, request: &CallRequest) {
        self.asked.insert(call, (replica, format!("{request:?}")));
    }

    /// A replica answers.
    pub fn answered(&mut self, call: CallId) {
        self.asked.remove(&call);
    }

    /// A replica's process is over: whoever waits for it sees that.
    pub fn stopped(&mut self, replica: usize) {
        self.asked.retain(|_, (asked, _)| *asked != replica);
    }

    /// What is not answered, for people. Once the world is quiet there must be nothing.
    pub fn left(&self) -> impl Iterator<Item = String> {
        self.asked
            .values()
            .map(|(replica, request)| format!("replica {} never answered {request}", replica + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_a_living_replica_never_answers_is_found() {
        let mut unary = Unary::default();
        unary.asked(CallId(1), 0, &CallRequest::GetSettings);
        unary.asked(CallId(2), 1, &CallRequest::GetSettings);
        unary.asked(CallId(3), 2, &CallRequest::GetSettings);
        unary.answered(CallId(1));
        unary.stopped(1);
        assert_eq!(unary.left().collect::<Vec<_>>(), ["replica 3 never answered GetSettings"]);
        unary.answered(CallId(3));
        assert_eq!(unary.left().count(), 0);
    }
}
