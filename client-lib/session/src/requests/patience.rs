//! How long somebody waits: for the answer to one call, and until all that was given back has reached the cell.
//!
//! Knows no time: `deadlines` does. The invariant: a call that is given up is withdrawn as one that nobody waits for any
//! more, so what it is granted late is given back.

use super::{Place, Requests};
use crate::doors::Token;
use crate::operation::{gives_back, may_have_happened};

/// Somebody waits until what was given back before is decided.
#[derive(Debug)]
pub(super) struct Flush {
    token: Token,
    /// What was queued below this key goes out first.
    queued_before: u64,
    /// From then on: what has a number up to this one is to be decided.
    sent_through: Option<u64>,
}

impl Requests {
    /// Gives a call up whose time is over, and tells whether it may have taken effect. `None` if it is over, or if it is
    /// an Acquire that waits in the cell's queue: that has its answer, and waits for other holders.
    pub(crate) fn give_up(&mut self, token: Token) -> Option<bool> {
        let maybe_applied = match self.calls.get(&token)? {
            Place::Queued(_) => false,
            Place::Undecided(number) => {
                self.undecided.get(number).is_some_and(|undecided| may_have_happened(&undecided.operation))
            }
            Place::Waiting(_) => return None,
        };
        self.cancel(token);
        Some(maybe_applied)
    }

    /// Whether a call is not over.
    pub(crate) fn is_pending(&self, token: Token) -> bool {
        self.calls.contains_key(&token)
    }

    /// Waits until all requests that give something back, and were made before, are decided.
    pub(crate) fn flush(&mut self, token: Token) {
        self.flushes.push(Flush { token, queued_before: self.queued_next, sent_through: None });
    }

    /// Who waits no longer.
    pub(crate) fn flushed(&mut self) -> Vec<Token> {
        let mut flushed = Vec::new();
        let mut flushes = std::mem::take(&mut self.flushes);
        flushes.retain_mut(|flush| {
            let is_done = self.is_flushed(flush);
            if is_done {
                flushed.push(flush.token);
            }
            !is_done
        });
        self.flushes = flushes;
        flushed
    }

    /// The request of this number stands in the queue again, as the last: a flush that waited for it waits on.
    pub(super) fn flush_again(&mut self, number: u64) {
        for flush in &mut self.flushes {
            if flush.sent_through.is_none_or(|through| number <= through) {
                (flush.queued_before, flush.sent_through) = (self.queued_next, None);
            }
        }
    }

    /// The session closes and sends nothing more: a flush that waited for an unsent request ends with the session.
    pub(super) fn flush_no_more(&mut self) {
        self.flushes.retain(|flush| flush.sent_through.is_some());
    }

    fn is_flushed(&self, flush: &mut Flush) -> bool {
        let is_sent = self.queue.first_key_value().is_none_or(|(key, _)| *key >= flush.queued_before);
        if !is_sent {
            return false;
        }
        let through = *flush.sent_through.get_or_insert(self.number);
        !self.undecided.range(..=through).any(|(_, undecided)| gives_back(&undecided.operation))
    }
}
