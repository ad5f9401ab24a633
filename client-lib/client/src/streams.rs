//! Events on their way to whoever reads them.
//!
//! Owns what is not read yet, and never the session: a task that only listens does not keep one alive. The invariant:
//! a reader that is slow, or does not read at all, costs bounded memory, because what waits for it becomes one event
//! (of a handle) or one event a kind (of a session). The session's task puts events in, any task takes them out;
//! neither waits for the other.

use crate::events::{EventSet, HandleEvent, SessionEvent};
use crate::handle::Inner;
use futures::Stream;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use holdfast_proto::client::v1 as wire;
use holdfast_session::Ended;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

/// What waits for one reader.
#[derive(Debug, Default)]
struct Mailbox<T> {
    waiting: Mutex<T>,
    waker: AtomicWaker,
}

impl<T> Mailbox<T> {
    fn put(&self, put: impl FnOnce(&mut T)) {
        put(&mut lock(&self.waiting));
        self.waker.wake();
    }

    fn poll_take<R>(&self, context: &mut Context<'_>, mut take: impl FnMut(&mut T) -> Option<R>) -> Poll<R> {
        if let Some(taken) = take(&mut lock(&self.waiting)) {
            return Poll::Ready(taken);
        }
        self.waker.register(context.waker());
        // What was put in between has not woken anybody.
        take(&mut lock(&self.waiting)).map_or(Poll::Pending, Poll::Ready)
    }
}

/// Nothing panics while one of these locks is held, and none is held across an await point.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The events of one handle: put in by the session's task, told to every stream of the handle.
#[derive(Debug)]
pub(crate) struct EventHub {
    asked_for: EventSet,
    readers: Mutex<Readers>,
}

type HandleMailbox = Mailbox<Option<HandleEvent>>;

#[derive(Debug, Default)]
struct Readers {
    mailboxes: Vec<Arc<HandleMailbox>>,
    /// What happened while there was no stream: for the next one.
    untold: Option<HandleEvent>,
}

impl EventHub {
    pub(crate) fn new(asked_for: EventSet) -> Self {
        Self { asked_for, readers: Mutex::default() }
    }

    pub(crate) fn put(&self, event: wire::HandleEvent) {
        let Some(event) = HandleEvent::from_wire(event, self.asked_for) else { return };
        let mut readers = lock(&self.readers);
        if readers.mailboxes.is_empty() {
            merge(&mut readers.untold, event);
            return;
        }
        for mailbox in &readers.mailboxes {
            mailbox.put(|waiting| merge(waiting, event.clone()));
        }
    }

    fn enter(&self) -> Arc<HandleMailbox> {
        let mut readers = lock(&self.readers);
        let mailbox = Arc::new(Mailbox { waiting: Mutex::new(readers.untold.take()), ..Mailbox::default() });
        readers.mailboxes.push(Arc::clone(&mailbox));
        mailbox
    }

    /// What a stream has not read is left for those that were made after it, which may not have been told; or for the
    /// next, if there is none.
    fn leave(&self, mailbox: &Arc<HandleMailbox>) {
        let mut readers = lock(&self.readers);
        let place = readers.mailboxes.iter().position(|other| Arc::ptr_eq(other, mailbox));
        let Some(place) = place else { return };
        readers.mailboxes.remove(place);
        let Some(unread) = lock(&mailbox.waiting).take() else { return };
        if readers.mailboxes.is_empty() {
            readers.untold = Some(unread);
            return;
        }
        for later in &readers.mailboxes[place..] {
            later.put(|waiting| merge(waiting, unread.clone()));
        }
    }
}

fn merge(waiting: &mut Option<HandleEvent>, event: HandleEvent) {
    match waiting {
        Some(waiting) => waiting.merge(event),
        None => *waiting = Some(event),
    }
}

/// What happens to a handle's node, as it comes; made by [`Handle::events`](crate::Handle::events).
///
/// A stream of [`HandleEvent`]s. An event comes after the change: a read that is made on hearing of it sees the change
/// or something newer. Events that are not read yet become one; nothing is lost, fail-overs included, but an event may
/// come although nothing new has happened.
///
/// When the session is over, the last item is an error with the reason. When the handle is closed by
/// [`Handle::close`](crate::Handle::close), the stream just ends. Until then the stream keeps the handle open.
pub struct HandleEvents {
    hub: Arc<EventHub>,
    mailbox: Arc<HandleMailbox>,
    /// Why the stream ends; `None` if the handle was closed. Keeps the handle open.
    over: BoxFuture<'static, Option<Ended>>,
    done: bool,
}

impl HandleEvents {
    pub(crate) fn new(inner: Arc<Inner>, hub: Arc<EventHub>) -> Self {
        let mailbox = hub.enter();
        let over = Box::pin(async move {
            let mut closed = inner.closed.subscribe();
            tokio::select! {
                biased;
                ended = inner.shared.ended() => Some(ended),
                // The sender lives in `inner`, so this cannot fail.
                _ = closed.wait_for(|closed| *closed) => None,
            }
        });
        Self { hub, mailbox, over, done: false }
    }

    /// The next event; `None` once the stream has ended. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// Why the session is over: the last item.
    pub async fn next(&mut self) -> Option<Result<HandleEvent, Ended>> {
        StreamExt::next(self).await
    }

    fn poll_event(&self, context: &mut Context<'_>) -> Poll<HandleEvent> {
        self.mailbox.poll_take(context, Option::take)
    }
}

impl Stream for HandleEvents {
    type Item = Result<HandleEvent, Ended>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Poll::Ready(event) = self.poll_event(context) {
            return Poll::Ready(Some(Ok(event)));
        }
        let Poll::Ready(over) = self.over.as_mut().poll(context) else { return Poll::Pending };
        // What came just before the end is told before it.
        if let Poll::Ready(event) = self.poll_event(context) {
            // The future must not be polled again: from here on the answer is known.
            self.over = Box::pin(std::future::ready(over));
            return Poll::Ready(Some(Ok(event)));
        }
        self.done = true;
        Poll::Ready(over.map(Err))
    }
}

impl Drop for HandleEvents {
    fn drop(&mut self) {
        self.hub.leave(&self.mailbox);
    }
}

impl fmt::Debug for HandleEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandleEvents").field("done", &self.done).finish_non_exhaustive()
    }
}

/// The events of a session: put in by its task, told to every stream.
#[derive(Debug, Default)]
pub(crate) struct SessionHub {
    listeners: Mutex<Listeners>,
}

type SessionMailbox = Mailbox<VecDeque<SessionEvent>>;

#[derive(Debug, Default)]
struct Listeners {
    mailboxes: Vec<Weak<SessionMailbox>>,
    /// Set once, with the last event.
    ended: Option<Ended>,
}

impl SessionHub {
    /// Tells an event to all. Nothing comes after the end.
    pub(crate) fn put(&self, event: SessionEvent) {
        let mut listeners = lock(&self.listeners);
        if listeners.ended.is_some() {
            return;
        }
        if let SessionEvent::Ended(ended) = &event {
            listeners.ended = Some(ended.clone());
        }
        listeners.mailboxes.retain(|mailbox| mailbox.strong_count() > 0);
        for mailbox in listeners.mailboxes.iter().filter_map(Weak::upgrade) {
            mailbox.put(|waiting| note(waiting, event.clone()));
        }
    }

    /// A stream of what happens from now on.
    pub(crate) fn listen(&self) -> SessionEvents {
        let mailbox = Arc::new(SessionMailbox::default());
        let mut listeners = lock(&self.listeners);
        match &listeners.ended {
            Some(ended) => mailbox.put(|waiting| note(waiting, SessionEvent::Ended(ended.clone()))),
            None => listeners.mailboxes.push(Arc::downgrade(&mailbox)),
        }
        SessionEvents { mailbox, done: false }
    }
}

/// Of each kind only the last waits, in the order in which they happened.
fn note(waiting: &mut VecDeque<SessionEvent>, event: SessionEvent) {
    waiting.retain(|other| std::mem::discriminant(other) != std::mem::discriminant(&event));
    waiting.push_back(event);
}

/// What happens to a session, as it comes; made by [`Session::events`](crate::Session::events).
///
/// A stream of [`SessionEvent`]s. The last is [`SessionEvent::Ended`], with the reason; then the stream ends. Of events
/// that are not read yet only the last of each kind is told. The stream does not keep the session open.
#[derive(Debug)]
pub struct SessionEvents {
    mailbox: Arc<SessionMailbox>,
    done: bool,
}

impl SessionEvents {
    /// The next event; `None` once the stream has ended. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        StreamExt::next(self).await
    }
}

impl Stream for SessionEvents {
    type Item = SessionEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<SessionEvent>> {
        if self.done {
            return Poll::Ready(None);
        }
        let taken = self.mailbox.poll_take(context, VecDeque::pop_front);
        self.done = matches!(taken, Poll::Ready(SessionEvent::Ended(_)));
        taken.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_comes_and_goes_costs_a_slow_reader_one_event_a_kind() {
        let hub = SessionHub::default();
        let mut events = hub.listen();
        for term in 1..100 {
            hub.put(SessionEvent::Jeopardy);
            hub.put(SessionEvent::FailedOver { term });
            hub.put(SessionEvent::Safe);
        }
        hub.put(SessionEvent::Ended(Ended::Killed));
        hub.put(SessionEvent::Safe);
        let told = futures::executor::block_on(async {
            let mut told = Vec::new();
            while let Some(event) = events.next().await {
                told.push(event);
            }
            told
        });
        let last = SessionEvent::Ended(Ended::Killed);
        assert_eq!(
            told,
            [SessionEvent::Jeopardy, SessionEvent::FailedOver { term: 99 }, SessionEvent::Safe, last.clone()]
        );
        // A stream that is made afterwards tells the end too.
        let mut late = hub.listen();
        assert_eq!(
            futures::executor::block_on(async { (late.next().await, late.next().await) }),
            (Some(last), None)
        );
    }
}
