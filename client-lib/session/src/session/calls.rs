//! What a session makes of its application's calls.
//!
//! Each goes through the holdings, which may answer it here, and otherwise becomes a request. The invariant: what a
//! call brought and nobody takes is given back on the same way.

use super::Session;
use crate::answers::Taken;
use crate::doors::{CallError, Completion, Ended, Output, State, Token};
use crate::requests::Completed;
use holdfast_proto::client::v1::request::Operation;
use holdfast_types::{Duration, HandleId};

/// What came of an `Open`.
type Opening = Result<Completion, CallError>;

impl Session {
    pub(super) fn handle_call(&mut self, token: Token, operation: Operation) {
        let ended = match &self.state {
            State::Ended(ended) => ended.clone(),
            _ if self.closing => Ended::Closed,
            _ => return self.call(token, operation),
        };
        self.complete(vec![(token, Err(CallError::Ended { ended, maybe_applied: false }))]);
    }

    fn call(&mut self, token: Token, operation: Operation) {
        let mut completed = Vec::new();
        match self.take(operation) {
            Taken::Here(result) => completed.push((token, result.map_err(CallError::Refused))),
            Taken::Ask { operation, user } => {
                if let Some(user) = user {
                    self.renamed.insert(token, user);
                }
                self.requests.call(token, operation, &mut completed);
            }
            Taken::Separate { open, user, then } => {
                self.separating.insert(token, (user, then));
                self.requests.call(token, Operation::Open(Box::new(open)), &mut completed);
            }
        }
        self.complete(completed);
    }

    /// A user of a shared node has, or has not, got a handle of its own: what it was for can go on. `None` if it does.
    fn separated(
        &mut self,
        user: HandleId,
        then: Operation,
        token: Token,
        opened: Opening,
    ) -> Option<Opening> {
        let own = match opened {
            Ok(completion) => completion.handle,
            Err(error) => return Some(Err(error)),
        };
        if let Err(refusal) = self.holdings.separate(user, own) {
            return Some(Err(CallError::Refused(refusal)));
        }
        self.call(token, then);
        None
    }

    fn take(&mut self, operation: Operation) -> Taken {
        let believed = self.state == State::Safe && self.now < self.lease.valid_until();
        let taken = self.holdings.take(self.now, believed, operation);
        // Before the call itself: a lock that is given up before the handle asks for it anew, for example.
        self.ask_for_holdings();
        taken
    }

    /// Takes up what the holdings have to ask on their own account.
    pub(super) fn ask_for_holdings(&mut self) {
        for operation in std::mem::take(&mut self.holdings.to_ask) {
            self.requests.enqueue(None, operation);
        }
    }

    pub(super) fn handle_cancel(&mut self, token: Token) {
        self.deadlines.remove(token);
        self.renamed.remove(&token);
        self.separating.remove(&token);
        if self.requests.cancel(token) {
            return;
        }
        // It may be complete, and not polled yet.
        let is_completion =
            |output: &Output| matches!(output, Output::Complete { token: t, .. } if *t == token);
        let Some(place) = self.outputs.iter().position(is_completion) else { return };
        let over = self.closing || matches!(self.state, State::Ended(_));
        if let Some(Output::Complete { result: Ok(completion), .. }) = self.outputs.remove(place)
            && let Some(undo) = completion.undo()
            && !over
            && let Taken::Ask { operation, .. } = self.take(undo)
        {
            self.requests.enqueue(None, operation);
        }
    }

    pub(super) fn limit_call(&mut self, token: Token, within: Duration) {
        if self.requests.is_pending(token) {
            self.deadlines.set(self.now, token, within);
        }
    }

    /// Gives up the calls whose time is over. Only when the driver says that time has passed: the answer may be among the
    /// inputs that are still to come.
    pub(super) fn pass_call_time(&mut self) {
        while let Some((token, within)) = self.deadlines.pop(self.now) {
            let Some(maybe_applied) = self.requests.give_up(token) else { continue };
            self.renamed.remove(&token);
            self.separating.remove(&token);
            let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
            self.complete(vec![(token, Err(CallError::TimedOut { within_ms, maybe_applied }))]);
        }
    }

    pub(super) fn handle_keep_locks(&mut self, id: HandleId) {
        if self.holdings.watch.asks_for_conflicts(id) {
            self.holdings.kept.opt_in(id);
        }
    }

    pub(super) fn handle_close(&mut self) {
        if self.closing || matches!(self.state, State::Ended(_)) {
            return;
        }
        self.closing = true;
        self.holdings.end();
        let mut completed = Vec::new();
        self.requests.fail_unsent(&Ended::Closed, &mut completed);
        self.complete(completed);
        if self.attachment == 0 {
            // The cell has never heard of it.
            self.end(Ended::Closed);
        }
    }

    /// Tells callers what came of their calls, in the names that they know.
    pub(super) fn complete(&mut self, completed: Vec<Completed>) {
        for (token, mut result) in completed {
            if let Some((user, then)) = self.separating.remove(&token) {
                match self.separated(user, then, token, result) {
                    Some(failed) => result = failed,
                    None => continue,
                }
            }
            self.deadlines.remove(token);
            if let Some(user) = self.renamed.remove(&token)
                && let Ok(completion) = &mut result
            {
                completion.handle = user;
            }
            self.outputs.push_back(Output::Complete { token, result });
        }
    }
}
