//! A queue between the core, which must never wait, and a stream, whose other end may read slowly or not at all.
//!
//! It is bounded in items and in bytes, and all that share a [`Budget`] are bounded together: each may hold a quarter of
//! what the others leave. So a few that nobody reads take no room from those that are read, and however many there are,
//! together they never hold more than the budget and one item each. What happens when it is full is the pusher's
//! decision. It never drops
//! anything on its own, and nothing that was pushed before [`Outbox::finish`] is lost by it. The core pushes and
//! the stream pops, both on the same thread as a rule, so the lock is never contended, and it is never held
//! across an await.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

/// How much an [`Outbox`] holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutboxLimits {
    /// The most items.
    pub(crate) items_max: usize,
    /// The most bytes, by the pusher's own count. One item alone may exceed it.
    pub(crate) bytes_max: usize,
}

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// The other end does not keep up.
    Full,
    /// The stream is gone, or going.
    Closed,
}

/// What a stream finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Popped<T> {
    /// The next item.
    Item(T),
    /// All was popped, and nothing more comes.
    Finished,
    /// What was left was discarded.
    Cut,
}

/// One outbox may hold one in so many of the bytes that all leave.
const SHARE_ONE_IN: usize = 4;

/// Bytes that several outboxes share.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    taken: AtomicUsize,
}

impl Budget {
    /// So many bytes.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, taken: AtomicUsize::new(0) })
    }

    /// What one outbox may hold now.
    fn share(&self) -> usize {
        self.bytes_max.saturating_sub(self.taken.load(Ordering::Relaxed)) / SHARE_ONE_IN
    }

    fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    limits: OutboxLimits,
    budget: Arc<Budget>,
    inner: Mutex<Inner<T>>,
    /// Holds a permit once the outbox is finished or cut: for the one task that waits for it.
    ended: Notify,
}

#[derive(Debug)]
struct Inner<T> {
    /// Items and what they weigh.
    queue: VecDeque<(T, usize)>,
    /// The sum of the weights, and that of the item that was popped last: until the stream comes for the next one, it
    /// has not sent it.
    bytes: usize,
    /// The weight of that one.
    sending: usize,
    end: End,
    /// The stream's, if it found the queue empty.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Finished,
    Cut,
}

impl<T> Outbox<T> {
    /// An empty one.
    pub(crate) fn new(limits: OutboxLimits, budget: Arc<Budget>) -> Arc<Self> {
        let inner = Inner { queue: VecDeque::new(), bytes: 0, sending: 0, end: End::Open, waker: None };
        Arc::new(Self { limits, budget, inner: Mutex::new(inner), ended: Notify::new() })
    }

    /// Queues `item`, which weighs `bytes`.
    pub(crate) fn push(&self, item: T, bytes: usize) -> Result<(), PushError> {
        let mut inner = self.lock();
        if inner.end != End::Open {
            return Err(PushError::Closed);
        }
        let too_many = inner.queue.len() >= self.limits.items_max;
        let bytes_max = self.limits.bytes_max.min(self.budget.share());
        let too_much = !inner.queue.is_empty() && inner.bytes + bytes > bytes_max;
        if too_many || too_much {
            return Err(PushError::Full);
        }
        inner.bytes += bytes;
        self.budget.take(bytes);
        inner.queue.push_back((item, bytes));
        inner.wake();
        Ok(())
    }

    /// Nothing more will be pushed; what is queued is still popped.
    pub(crate) fn finish(&self) {
        self.end(End::Finished);
    }

    /// Nothing more will be pushed, and what is queued is discarded.
    pub(crate) fn cut(&self) {
        self.end(End::Cut);
    }

    /// Returns once the outbox is finished or cut. For one waiter; dropping the future loses nothing.
    pub(crate) async fn ended(&self) {
        while self.lock().end == End::Open {
            self.ended.notified().await;
        }
    }

    /// The next item.
    pub(crate) fn poll_pop(&self, context: &mut Context<'_>) -> Poll<Popped<T>> {
        let mut inner = self.lock();
        if let Some(item) = inner.pop(&self.budget) {
            return Poll::Ready(Popped::Item(item));
        }
        match inner.end {
            End::Finished => Poll::Ready(Popped::Finished),
            End::Cut => Poll::Ready(Popped::Cut),
            End::Open => {
                inner.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The next item, if there is one now.
    pub(crate) fn pop(&self) -> Option<T> {
        self.lock().pop(&self.budget)
    }

    fn end(&self, end: End) {
        let mut inner = self.lock();
        if end == End::Cut {
            inner.queue.clear();
            let sending = inner.sending;
            self.budget.give_back(inner.bytes - sending);
            inner.bytes = sending;
        }
        if inner.end == End::Open {
            inner.end = end;
        }
        inner.wake();
        self.ended.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // No code that can panic runs under the lock, so a poisoned queue is a sound one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Outbox<T> {
    fn drop(&mut self) {
        self.budget.give_back(self.lock().bytes);
    }
}

impl<T> Inner<T> {
    fn pop(&mut self, budget: &Budget) -> Option<T> {
        // Whoever comes again has sent what it had.
        budget.give_back(self.sending);
        self.bytes -= std::mem::take(&mut self.sending);
        let (item, bytes) = self.queue.pop_front()?;
        self.sending = bytes;
        Some(item)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OutboxLimits = OutboxLimits { items_max: 3, bytes_max: 10 };
    const WIDE: OutboxLimits = OutboxLimits { items_max: 1_000, bytes_max: 1_000 };

    fn pop(outbox: &Outbox<u32>) -> Poll<Popped<u32>> {
        outbox.poll_pop(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn items_and_bytes_are_bounded_and_room_comes_back() {
        let outbox = Outbox::new(LIMITS, Budget::new(1 << 20));
        assert_eq!(outbox.push(1, 6), Ok(()));
        assert_eq!(outbox.push(2, 5), Err(PushError::Full), "11 bytes are too many");
        assert_eq!(outbox.push(2, 4), Ok(()));
        assert_eq!(outbox.push(3, 0), Ok(()));
        assert_eq!(outbox.push(4, 0), Err(PushError::Full), "4 items are too many");
        assert_eq!(pop(&outbox), Poll::Ready(Popped::Item(1)));
        assert_eq!(outbox.push(4, 0), Ok(()));
        assert_eq!(pop(&outbox), Poll::Ready(Popped::Item(2)));
        assert_eq!(outbox.push(5, 6), Ok(()), "the first is sent, for the second was asked for");
    }

    #[test]
    fn one_item_alone_may_be_as_large_as_it_is() {
        let outbox = Outbox::new(LIMITS, Budget::new(1 << 20));
        assert_eq!(outbox.push(1, 1000), Ok(()));
        assert_eq!(outbox.push(2, 1), Err(PushError::Full));
    }

    #[test]
    fn those_that_share_a_budget_are_bounded_together_and_those_that_are_read_have_room() {
        let budget = Budget::new(1_000);
        let unread: Vec<_> = (0..40).map(|_| Outbox::new(WIDE, Arc::clone(&budget))).collect();
        for _ in 0..100 {
            for outbox in &unread {
                let _ = outbox.push(0, 5);
            }
        }
        assert!(budget.taken.load(Ordering::Relaxed) <= 1_000, "{budget:?}");
        let read = Outbox::new(WIDE, Arc::clone(&budget));
        for item in 0..100 {
            assert_eq!(read.push(item, 5), Ok(()));
            assert_eq!(pop(&read), Poll::Ready(Popped::Item(item)));
        }
        unread.iter().for_each(|outbox| outbox.cut());
        drop(unread);
        drop(read);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn finish_keeps_what_is_queued_and_cut_discards_it() {
        let finished = Outbox::new(LIMITS, Budget::new(1 << 20));
        finished.push(1, 1).unwrap();
        finished.finish();
        assert_eq!(finished.push(2, 1), Err(PushError::Closed));
        assert_eq!(pop(&finished), Poll::Ready(Popped::Item(1)));
        assert_eq!(pop(&finished), Poll::Ready(Popped::Finished));

        let cut = Outbox::new(LIMITS, Budget::new(1 << 20));
        cut.push(1, 1).unwrap();
        cut.cut();
        assert_eq!(pop(&cut), Poll::Ready(Popped::Cut));
        cut.finish();
        assert_eq!(pop(&cut), Poll::Ready(Popped::Cut), "what was cut stays cut");
    }

    #[tokio::test]
    async fn a_stream_that_waits_is_woken_and_so_is_who_waits_for_the_end() {
        let outbox = Outbox::new(LIMITS, Budget::new(1 << 20));
        let popper = Arc::clone(&outbox);
        let popped =
            tokio::spawn(async move { std::future::poll_fn(|context| popper.poll_pop(context)).await });
        let waiter = Arc::clone(&outbox);
        let ended = tokio::spawn(async move { waiter.ended().await });
        tokio::task::yield_now().await;
        outbox.push(7, 1).unwrap();
        assert_eq!(popped.await.unwrap(), Popped::Item(7));
        outbox.finish();
        ended.await.unwrap();
        outbox.ended().await;
    }
}
