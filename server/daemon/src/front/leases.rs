//! What a session's stream grants, told to whoever has asked past it.
//!
//! Which answer is for whom is [`PastStream`]'s to decide. Invariant: one waits at a time, and hears either the answer or
//! that there will be none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_proto::client::v1::{LeaseGranted, ServerFrame};
use holdfast_replica::{Asked, PastStream};
use tokio::sync::oneshot;

/// What is said on one stream, for whoever waits for it elsewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    past: PastStream,
    /// Who asks. Dropped when somebody else does, and when the stream serves no session any more.
    asker: Option<oneshot::Sender<LeaseGranted>>,
}

impl Leases {
    /// A frame goes out by the stream.
    pub(crate) fn tell(&self, frame: &ServerFrame) {
        let mut waiting = self.lock();
        if let Some(lease) = waiting.past.sent(frame)
            && let Some(asker) = waiting.asker.take()
        {
            // Whoever has given up need not be told.
            let _ = asker.send(lease);
        }
        if !waiting.past.is_asked() {
            waiting.asker = None;
        }
    }

    /// Nothing more is said on the stream.
    pub(crate) fn end(&self) {
        let mut waiting = self.lock();
        waiting.past.ended();
        waiting.asker = None;
    }

    /// A KeepAlive comes past the stream; and if it is new, where it will be answered.
    pub(super) fn ask(&self, number: u64) -> (Asked, Option<oneshot::Receiver<LeaseGranted>>) {
        let mut waiting = self.lock();
        let asked = waiting.past.ask(number);
        let answered = (asked == Asked::New).then(|| {
            let (asker, answered) = oneshot::channel();
            waiting.asker = Some(asker);
            answered
        });
        (asked, answered)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic half-way changes it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Frames of a stream.

    use super::*;
    use holdfast_proto::client::v1::SessionOpened;
    use holdfast_proto::client::v1::server_frame::Hello;

    /// Of a KeepAlive.
    pub(crate) fn lease(number: u64) -> LeaseGranted {
        LeaseGranted { number, lease_ms: 12_000 }
    }

    /// The frame that grants it.
    pub(crate) fn granted(number: u64) -> ServerFrame {
        ServerFrame { lease: Some(lease(number)), ..ServerFrame::default() }
    }

    /// The frame that begins, or ends, a session's stream.
    pub(crate) fn hello(hello: Hello) -> ServerFrame {
        ServerFrame { hello: Some(hello), ..ServerFrame::default() }
    }

    /// Of a stream that serves a session.
    pub(crate) fn attached() -> Leases {
        let leases = Leases::default();
        leases.tell(&hello(Hello::Opened(SessionOpened::default())));
        leases
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{attached, granted, hello, lease};
    use super::*;
    use futures::FutureExt as _;
    use holdfast_proto::client::v1::server_frame::Hello;
    use holdfast_proto::client::v1::{SessionOpened, StreamRefused};

    #[test]
    fn one_waits_at_a_time_and_hears_of_the_answer_or_that_nobody_will_answer() {
        let leases = attached();
        let (asked, first) = leases.ask(1);
        assert_eq!(asked, Asked::New);
        let (_, again) = leases.ask(1);
        assert!(first.unwrap().now_or_never().unwrap().is_err(), "the later one is answered");
        leases.tell(&granted(1));
        assert_eq!(again.unwrap().now_or_never().unwrap(), Ok(lease(1)));
        assert!(matches!(leases.ask(1), (Asked::Granted(copy), None) if copy == lease(1)));
        let (_, waiting) = leases.ask(2);
        leases.tell(&hello(Hello::Refused(StreamRefused::default())));
        assert!(waiting.unwrap().now_or_never().unwrap().is_err(), "the stream is refused");
        leases.tell(&hello(Hello::Opened(SessionOpened::default())));
        let (_, waiting) = leases.ask(2);
        leases.end();
        assert!(waiting.unwrap().now_or_never().unwrap().is_err(), "the stream is gone");
        assert_eq!(leases.ask(3).0, Asked::Unattached);
    }
}
