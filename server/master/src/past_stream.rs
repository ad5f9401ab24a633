//! KeepAlives that come past their session's stream: which of them waits for an answer, and what answers it.
//!
//! The front keeps one of these with each stream, and hands what has to be answered to the master as if it had come by
//! the stream; so a lease is extended by the same rules. Never extends anything itself. Invariants: a grant answers the
//! very KeepAlive that it was made for, and no other, because its client counts it from when it sent that one (design.md
//! §4); and the master is asked only for a stream that serves a session, because for others it would not answer.

use holdfast_proto::client::v1::server_frame::Hello;
use holdfast_proto::client::v1::{LeaseGranted, ServerFrame};
use holdfast_types::planted;

/// What one stream's KeepAlives were granted, and which of them asks past it.
#[derive(Clone, Debug, Default)]
pub struct PastStream {
    /// The stream serves a session: its hello was answered so, and it was not refused since.
    attached: bool,
    /// The last grant. Its number only rises: what comes late by the stream does not hide a later one.
    granted: LeaseGranted,
    /// The KeepAlive that came past the stream and has no answer. One at most: its client asks for one at a time.
    asked: Option<u64>,
}

/// What to do about a KeepAlive that comes past its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The stream serves no session.
    Unattached,
    /// It was granted before: a copy of that is as good, because its client counts it from when it sent the KeepAlive.
    Granted(LeaseGranted),
    /// Another one that is newer has come already: nobody needs an answer.
    Late,
    /// The master has to be asked.
    New,
}

impl PastStream {
    /// A KeepAlive comes past the stream. If it is new, whoever asked before is answered no more.
    pub fn ask(&mut self, number: u64) -> Asked {
        if !self.attached {
            return Asked::Unattached;
        }
        let newest = self.granted.number.max(self.asked.unwrap_or(0));
        let granted = self.granted.lease_ms > 0;
        if granted && (self.granted.number == number || planted!(OldGrantPastStream)) {
            return Asked::Granted(LeaseGranted { number, ..self.granted });
        }
        if number < newest {
            return Asked::Late;
        }
        self.asked = Some(number);
        Asked::New
    }

    /// A frame goes out by the stream. Gives the answer to a KeepAlive in it if somebody who waits has to hear it too:
    /// because it is to his KeepAlive, or to a later one, and then his will not be answered. A length of 0 is no grant.
    pub fn sent(&mut self, frame: &ServerFrame) -> Option<LeaseGranted> {
        match &frame.hello {
            Some(Hello::Opened(_) | Hello::Attached(_)) => self.attached = true,
            Some(Hello::Refused(_)) => self.ended(),
            None => {}
        }
        let lease = frame.lease?;
        if lease.lease_ms > 0 && lease.number >= self.granted.number {
            self.granted = lease;
        }
        self.asked.take_if(|asked| *asked <= lease.number).map(|_| lease)
    }

    /// The stream ends: it serves no session any more.
    pub fn ended(&mut self) {
        (self.attached, self.asked) = (false, None);
    }

    /// Whether a KeepAlive that came past the stream waits for an answer.
    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::client::v1::{SessionAttached, SessionOpened, StreamRefused};

    fn lease(number: u64, lease_ms: u32) -> LeaseGranted {
        LeaseGranted { number, lease_ms }
    }

    fn hello(hello: Hello) -> ServerFrame {
        ServerFrame { hello: Some(hello), ..ServerFrame::default() }
    }

    /// Of a stream that serves a session.
    fn attached() -> PastStream {
        let mut past = PastStream::default();
        past.sent(&hello(Hello::Opened(SessionOpened::default())));
        past
    }

    fn answered(past: &mut PastStream, lease: LeaseGranted) -> Option<LeaseGranted> {
        past.sent(&ServerFrame { lease: Some(lease), ..ServerFrame::default() })
    }

    #[test]
    fn the_master_is_asked_only_for_a_stream_that_serves_a_session() {
        let mut past = PastStream::default();
        assert_eq!(past.ask(1), Asked::Unattached, "no hello was answered");
        past.sent(&hello(Hello::Attached(SessionAttached::default())));
        assert_eq!(past.ask(1), Asked::New);
        assert!(past.is_asked());
        past.sent(&hello(Hello::Refused(StreamRefused::default())));
        assert!(!past.is_asked(), "nobody will answer");
        assert_eq!(past.ask(1), Asked::Unattached, "it was superseded");
    }

    #[test]
    fn a_grant_answers_the_very_keep_alive_that_it_was_made_for() {
        let mut past = attached();
        assert_eq!(answered(&mut past, lease(6, 12_000)), None, "nobody asks");
        assert_eq!(past.ask(7), Asked::New, "the grant to another is none to this one");
        assert_eq!(answered(&mut past, lease(6, 12_000)), None, "the older one's copy, by the stream");
        assert_eq!(answered(&mut past, lease(7, 12_000)), Some(lease(7, 12_000)));
        assert_eq!(answered(&mut past, lease(7, 12_000)), None, "it was answered");
    }

    #[test]
    fn what_was_granted_is_told_again_and_nothing_that_comes_late_hides_it() {
        let mut past = attached();
        answered(&mut past, lease(7, 12_000));
        answered(&mut past, lease(6, 5_000));
        answered(&mut past, lease(7, 0));
        assert_eq!(past.ask(7), Asked::Granted(lease(7, 12_000)));
        assert_eq!(past.ask(6), Asked::Late);
        assert_eq!(past.ask(8), Asked::New);
        assert_eq!(past.ask(7), Asked::Granted(lease(7, 12_000)), "a doubled one");
        assert_eq!(
            answered(&mut past, lease(8, 12_000)),
            Some(lease(8, 12_000)),
            "which took nobody's place"
        );
    }

    #[test]
    fn that_a_lease_is_not_extended_is_an_answer_and_the_same_one_may_ask_again() {
        let mut past = attached();
        assert_eq!(past.ask(1), Asked::New);
        assert_eq!(answered(&mut past, lease(1, 0)), Some(lease(1, 0)));
        assert_eq!(past.ask(1), Asked::New);
        assert_eq!(
            answered(&mut past, lease(2, 12_000)),
            Some(lease(2, 12_000)),
            "it will never be answered now"
        );
        assert_eq!(past.ask(1), Asked::Late);
    }
}
