//! Until when calls are waited for, where the application has said so.
//!
//! Owns times and tokens, and knows nothing of what becomes of the calls. The invariant: a call has one deadline at the
//! most, and none once it is over.

use crate::doors::Token;
use holdfast_types::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    by_time: BTreeSet<(Time, Token)>,
    /// The same, with how long each is waited for in all.
    by_token: BTreeMap<Token, (Time, Duration)>,
}

impl Deadlines {
    /// A call is waited for so long, from now on.
    pub(crate) fn set(&mut self, now: Time, token: Token, within: Duration) {
        self.remove(token);
        let at = now + within;
        self.by_time.insert((at, token));
        self.by_token.insert(token, (at, within));
    }

    /// A call is over.
    pub(crate) fn remove(&mut self, token: Token) {
        if let Some((at, _)) = self.by_token.remove(&token) {
            self.by_time.remove(&(at, token));
        }
    }

    /// When the first one is over.
    pub(crate) fn first(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// The first call whose time is over, and how long it was.
    pub(crate) fn pop(&mut self, now: Time) -> Option<(Token, Duration)> {
        let (at, token) = *self.by_time.first()?;
        if now < at {
            return None;
        }
        self.by_time.remove(&(at, token));
        let (_, within) = self.by_token.remove(&token)?;
        Some((token, within))
    }
}
