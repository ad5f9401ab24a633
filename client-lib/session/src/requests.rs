//! Every request of the session until it is decided, under one number however often it is sent (I6).
//!
//! A call waits in the queue without a number; gets the next number when it is first sent; is *undecided* until
//! its reply comes, and sent again on every attachment until then; and is *acknowledged* from then on. An Acquire
//! that was queued at the cell is decided, but its caller waits on, for the grant. The invariant: a number is
//! undecided or acknowledged, never neither.

mod patience;

use crate::doors::{CallError, Completion, Ended, Token};
use crate::operation::{
    Asked, answer_bytes_max, bytes_of, gives_back, handle_of, leaves_behind, outlives_session, push,
};
use crate::slot::Slot;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Acknowledged, Cancel, ClientFrame, LockGrant, NumberRange, Outcome, Refusal, RefusalCode, outcome,
};
use holdfast_types::{HandleId, RequestNumber, Revision, Time, planted};
use patience::Flush;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A frame is cut off after so many requests, or so many bytes: large ones hold up what is behind them. It stays below
/// what a replica takes at once.
const FRAME_REQUESTS_MAX: usize = 1_024;
const _: () = assert!(FRAME_REQUESTS_MAX <= holdfast_types::FRAME_REQUESTS_MAX);
const FRAME_BYTES_MAX: usize = 1 << 20;

/// No cell takes a larger request: its settings allow 1 MiB of contents and 16 KiB of name at the most. A replica
/// breaks a stream that brings more than it takes at once, and would break every later one that brings it again, so
/// such a request would cost the session its lease.
const REQUEST_BYTES_MAX: usize = 2 << 20;

/// What the largest answers to all reads in flight may come to. A replica cuts a stream off that leaves 64 MiB of
/// answers unread, and answers reads that came together together: more of them would be cut off on every stream they
/// are sent on, and the lease with them.
const ANSWER_BYTES_MAX: u64 = 32 << 20;

/// A call that is over.
pub(crate) type Completed = (Token, Result<Completion, CallError>);

#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Not sent yet, in order.
    queue: BTreeMap<u64, Queued>,
    /// The next key of `queue`.
    queued_next: u64,
    /// By number: sent, and not decided as far as is known here.
    undecided: BTreeMap<u64, Undecided>,
    /// By the number of their Acquire: decided as `Queued`, and still wanted.
    waiting: BTreeMap<u64, Waiting>,
    /// The same: handles, with the numbers of their Acquires.
    waiting_on: BTreeSet<(u64, u64)>,
    /// Where each call that somebody waits for is to be found.
    calls: BTreeMap<Token, Place>,
    /// The last number that was given out.
    number: u64,
    /// What is undecided above this number has still to be sent on the present attachment.
    sent_through: u64,
    /// How many undecided requests the cell allows.
    window: usize,
    /// The most bytes that a file of the cell has.
    contents_bytes_max: u64,
    /// The sum of what `undecided` may be answered.
    answer_bytes: u64,
    /// More is acknowledged than the cell was told on the present attachment.
    acknowledged_changed: bool,
    /// Who waits until what was given back is decided.
    flushes: Vec<Flush>,
}

#[derive(Debug)]
struct Queued {
    /// `None`: nobody waits for it.
    token: Option<Token>,
    operation: Operation,
}

#[derive(Debug)]
struct Undecided {
    /// `None`: nobody waits for it any more.
    token: Option<Token>,
    /// To be sent again.
    operation: Operation,
    /// The most that it may be answered, as far as that counts.
    answer_bytes: u64,
    /// When it was sent last.
    sent_at: Time,
    /// It was sent before, on an earlier attachment.
    resent: bool,
}

#[derive(Debug)]
struct Waiting {
    token: Token,
    handle: u64,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Queued(u64),
    Undecided(u64),
    Waiting(u64),
}

impl Requests {
    /// Takes up a call, or refuses it if no cell could take it.
    pub(crate) fn call(&mut self, token: Token, operation: Operation, completed: &mut Vec<Completed>) {
        let bytes = bytes_of(&operation);
        if bytes > REQUEST_BYTES_MAX {
            let message = format!(
                "the request has {bytes} bytes, and no cell takes one of more than {REQUEST_BYTES_MAX}"
            );
            let refusal = Refusal { code: RefusalCode::Limit.into(), message, ..Default::default() };
            completed.push((token, Err(CallError::Refused(refusal))));
            return;
        }
        self.calls.insert(token, Place::Queued(self.queued_next));
        self.enqueue(Some(token), operation);
    }

    /// Withdraws the request of this number, as far as it got.
    fn withdraw(&mut self, number: u64, handle: u64) {
        self.enqueue(None, Operation::Cancel(Cancel { number, handle }));
    }

    /// Takes up a request; nobody waits for it if it has no token.
    pub(crate) fn enqueue(&mut self, token: Option<Token>, operation: Operation) {
        self.queue.insert(self.queued_next, Queued { token, operation });
        self.queued_next += 1;
    }

    /// The cell's limit of requests was lowered under a request that gives something back. Were it dropped, what it
    /// gives back would be kept until the session ends. Under a new number, because its own is acknowledged; it still
    /// means the same, because a Cancel names a number and a Close a handle, which are never used again. A Release is
    /// not for this: the handle's next Acquire may be granted by then.
    fn enqueue_again(&mut self, number: u64, refused: Undecided) {
        if let Some(token) = refused.token {
            self.calls.insert(token, Place::Queued(self.queued_next));
        }
        self.enqueue(refused.token, refused.operation);
        self.flush_again(number);
    }

    /// Nobody waits for a call any more. False if it is none of these.
    pub(crate) fn cancel(&mut self, token: Token) -> bool {
        let Some(place) = self.calls.remove(&token) else { return false };
        match place {
            Place::Queued(key) => {
                if let Some(queued) = self.queue.get_mut(&key) {
                    queued.token = None;
                    // What gives something back is sent all the same: here, it is given back already.
                    if !gives_back(&queued.operation) {
                        self.queue.remove(&key);
                    }
                }
            }
            Place::Undecided(number) => {
                if let Some(undecided) = self.undecided.get_mut(&number) {
                    undecided.token = None;
                    if let Some(handle) = leaves_behind(&undecided.operation) {
                        self.withdraw(number, handle);
                    }
                }
            }
            Place::Waiting(number) => {
                if let Some(waiting) = self.wait_no_more(number).filter(|_| !planted!(NotWithdrawn)) {
                    self.withdraw(number, waiting.handle);
                }
            }
        }
        true
    }

    /// A request that is not decided.
    pub(crate) fn asked(&self, number: u64) -> Option<Asked<'_>> {
        let Undecided { operation, token, resent, .. } = self.undecided.get(&number)?;
        Some(Asked { operation, wanted: token.is_some(), resent: *resent })
    }

    /// What came of a request; nothing, if it is decided already. `slot`: where what is read of the node that it opened
    /// is cached.
    pub(crate) fn reply(
        &mut self,
        number: u64,
        outcome: Option<Outcome>,
        slot: Option<Arc<Slot>>,
        completed: &mut Vec<Completed>,
    ) {
        let Some(mut undecided) = self.decide(number) else { return };
        let revision = Revision(outcome.as_ref().map_or(0, |outcome| outcome.revision));
        let Some(result) = outcome.and_then(|outcome| outcome.result) else {
            self.complete(undecided.token, Err(CallError::Protocol("a reply without an outcome")), completed);
            return;
        };
        match (result, &mut undecided.operation) {
            (outcome::Result::Refusal(refusal), Operation::Cancel(_) | Operation::Close(_))
                if refusal.code() == RefusalCode::Limit =>
            {
                self.enqueue_again(number, undecided);
            }
            (outcome::Result::Queued(_), Operation::Acquire(acquire)) => {
                self.wait(number, acquire.handle, undecided.token);
            }
            (outcome::Result::Queued(_), _) => {
                let error = CallError::Protocol("a request that is no Acquire was queued");
                self.complete(undecided.token, Err(error), completed);
            }
            (outcome::Result::Refusal(refusal), _) => {
                self.complete(undecided.token, Err(CallError::Refused(refusal)), completed);
            }
            (result, operation) => {
                self.leave_queue(number, operation, completed);
                let handle = HandleId(handle_of(number, operation));
                let completion = Completion {
                    number: RequestNumber(number),
                    handle,
                    revision,
                    result,
                    slot,
                    from_cache: false,
                };
                self.complete(undecided.token, Ok(completion), completed);
            }
        }
    }

    /// A lock was granted: to a waiter, or to an Acquire whose reply has not come, which is decided thereby. To
    /// any other number it is old news, or withdrawn already.
    pub(crate) fn granted(&mut self, grant: LockGrant, completed: &mut Vec<Completed>) {
        let Some(granted) = grant.granted else { return };
        let token = if let Some(waiting) = self.wait_no_more(grant.number) {
            Some(waiting.token)
        } else if self.is_undecided_acquire(grant.number) {
            self.decide(grant.number).and_then(|undecided| undecided.token)
        } else {
            None
        };
        let completion = Completion {
            number: RequestNumber(grant.number),
            handle: HandleId(grant.handle),
            revision: Revision(0),
            result: outcome::Result::Granted(granted),
            slot: None,
            from_cache: false,
        };
        self.complete(token, Ok(completion), completed);
    }

    /// A new attachment: everything undecided is to be sent again, and all that is acknowledged told again.
    pub(crate) fn attached(&mut self, window: u32, contents_bytes_max: u64) {
        self.window = usize::try_from(window.max(1)).unwrap_or(usize::MAX);
        self.contents_bytes_max = contents_bytes_max;
        self.sent_through = 0;
        self.acknowledged_changed = self.number > 0;
    }

    /// Whether nothing is asked for, and nobody waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.undecided.is_empty() && self.waiting.is_empty()
    }

    /// When the request was sent that has been without an answer for the longest time on the present attachment.
    pub(crate) fn unanswered_since(&self) -> Option<Time> {
        let (_, oldest) = self.undecided.range(..=self.sent_through).next()?;
        Some(oldest.sent_at)
    }

    /// Whether [`Requests::fill`] would add anything.
    pub(crate) fn has_to_send(&self) -> bool {
        self.undecided.range(self.sent_through + 1..).next().is_some()
            || (!self.queue.is_empty() && self.undecided.len() < self.window)
    }

    /// Adds to a frame what is to be sent: the oldest first, so that the cell takes requests up in the order of
    /// their numbers on every attachment.
    pub(crate) fn fill(&mut self, now: Time, frame: &mut ClientFrame) {
        let mut bytes = 0;
        for (&number, undecided) in self.undecided.range_mut(self.sent_through + 1..) {
            if frame.requests.len() >= FRAME_REQUESTS_MAX || bytes >= FRAME_BYTES_MAX {
                return;
            }
            bytes += push(frame, number, undecided.operation.clone());
            undecided.sent_at = now;
            undecided.resent = true;
            self.sent_through = number;
        }
        while self.undecided.len() < self.window
            && frame.requests.len() < FRAME_REQUESTS_MAX
            && bytes < FRAME_BYTES_MAX
        {
            let Some((_, next)) = self.queue.first_key_value() else { return };
            let answer_bytes = answer_bytes_max(&next.operation, self.contents_bytes_max);
            if self.answer_bytes > 0 && self.answer_bytes.saturating_add(answer_bytes) > ANSWER_BYTES_MAX {
                return;
            }
            self.answer_bytes += answer_bytes;
            let Some((_, Queued { token, operation })) = self.queue.pop_first() else { return };
            self.number += 1;
            bytes += push(frame, self.number, operation.clone());
            self.sent_through = self.number;
            let undecided = Undecided { token, operation, answer_bytes, sent_at: now, resent: false };
            self.undecided.insert(self.number, undecided);
            if let Some(token) = token {
                self.calls.insert(token, Place::Undecided(self.number));
            }
        }
    }

    /// What is acknowledged, if the cell has not been told yet.
    pub(crate) fn acknowledge(&mut self) -> Option<Acknowledged> {
        std::mem::take(&mut self.acknowledged_changed).then(|| self.acknowledged())
    }

    /// All numbers that were given out, but those that are undecided.
    fn acknowledged(&self) -> Acknowledged {
        let mut gaps = self.undecided.keys().copied();
        let Some(first_gap) = gaps.next() else {
            return Acknowledged { through: self.number, ranges: Vec::new() };
        };
        let mut ranges = Vec::new();
        let mut first = first_gap + 1;
        for gap in gaps.chain([self.number + 1]) {
            if first < gap {
                ranges.push(NumberRange { first, last: gap - 1 });
            }
            first = gap + 1;
        }
        Acknowledged { through: first_gap - 1, ranges }
    }

    /// Fails what was never sent. For an application that closes its session.
    pub(crate) fn fail_unsent(&mut self, ended: &Ended, completed: &mut Vec<Completed>) {
        self.flush_no_more();
        for queued in std::mem::take(&mut self.queue).into_values() {
            let error = CallError::Ended { ended: ended.clone(), maybe_applied: false };
            self.complete(queued.token, Err(error), completed);
        }
    }

    /// The session is over: fails every call, in the order of their tokens.
    pub(crate) fn fail_all(&mut self, ended: &Ended, completed: &mut Vec<Completed>) {
        for (token, place) in std::mem::take(&mut self.calls) {
            let maybe_applied = match place {
                // What belongs to the session is gone with it; what outlives it may have happened.
                Place::Undecided(number) => self
                    .undecided
                    .get(&number)
                    .is_some_and(|undecided| outlives_session(&undecided.operation)),
                Place::Queued(_) | Place::Waiting(_) => false,
            };
            completed.push((token, Err(CallError::Ended { ended: ended.clone(), maybe_applied })));
        }
        *self = Self::default();
    }

    fn complete(
        &mut self,
        token: Option<Token>,
        result: Result<Completion, CallError>,
        completed: &mut Vec<Completed>,
    ) {
        if let Some(token) = token {
            self.calls.remove(&token);
            completed.push((token, result));
        }
    }

    fn decide(&mut self, number: u64) -> Option<Undecided> {
        let undecided = self.undecided.remove(&number)?;
        self.answer_bytes -= undecided.answer_bytes;
        self.acknowledged_changed = true;
        Some(undecided)
    }

    fn is_undecided_acquire(&self, number: u64) -> bool {
        self.undecided
            .get(&number)
            .is_some_and(|undecided| matches!(undecided.operation, Operation::Acquire(_)))
    }

    /// An Acquire waits at the cell. If nobody wants it any more, its withdrawal is on its way already.
    fn wait(&mut self, number: u64, handle: u64, token: Option<Token>) {
        if let Some(token) = token {
            self.waiting.insert(number, Waiting { token, handle });
            self.waiting_on.insert((handle, number));
            self.calls.insert(token, Place::Waiting(number));
        }
    }

    fn wait_no_more(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        self.waiting_on.remove(&(waiting.handle, number));
        Some(waiting)
    }

    /// A Close or a Release that succeeded has taken the handle's earlier Acquire out of the queue: its grant
    /// will never come.
    fn leave_queue(&mut self, number: u64, operation: &Operation, completed: &mut Vec<Completed>) {
        let handle = match operation {
            Operation::Close(close) => close.handle,
            Operation::Release(release) => release.handle,
            _ => return,
        };
        let left = self.waiting_on.range((handle, 0)..(handle, number)).next().copied();
        let Some(Waiting { token, .. }) = left.and_then(|(_, acquire)| self.wait_no_more(acquire)) else {
            return;
        };
        let refusal = Refusal {
            code: RefusalCode::Cancelled.into(),
            message: "the handle was closed, or its lock released, while this request waited for the lock"
                .to_owned(),
            ..Refusal::default()
        };
        self.complete(Some(token), Err(CallError::Refused(refusal)), completed);
    }
}
