//! What a session must act on, and say that it did: invalidations and events (design.md §4, §6, I8).
//!
//! Both go out as numbered notices on the session's one stream. Invalidations go at once. Of notices with events only
//! one is unacknowledged at a time, and it has a bounded size; what happens meanwhile is merged into one event a handle
//! (`pending_events`), so that a slow client costs no more memory than it has handles. Nothing is kept for a session without a stream: when it comes back, what it has
//! seen is compared with what is. Invariant: a notice that was not acknowledged is here, and can be repeated.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::{HandleEvent, Invalidation, Notice, Refusal, RefusalCode, ServerFrame};
use holdfast_types::{Duration, Time, planted};

use crate::pending_events::PendingEvents;
use crate::refusal;

/// A client that has so many invalidations to acknowledge is told of no more opens that prove nothing. Of what it keeps,
/// which is bounded by its handles, it is told nevertheless.
const INVALIDATIONS_MAX: usize = 1 << 16;

/// The notices of one stream.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// The number of the last.
    last: u64,
    /// The last may still be in a frame that has not left: more can join it there.
    joinable: bool,
    /// Those that were sent and are not acknowledged, each with when that was, by the time for which the master was
    /// awake.
    unacknowledged: BTreeMap<u64, (Time, Notice)>,
    /// How many invalidations these have.
    invalidations: usize,
    /// The one of these that has events.
    events: Option<u64>,
    /// The last number when the session's lease was last extended.
    at_grant: u64,
    /// Events that have not been sent.
    pending: PendingEvents,
}

impl Notices {
    /// Asks the client to drop something. Gives the notice's number.
    pub(crate) fn invalidate(
        &mut self,
        awake: Time,
        frame: &mut ServerFrame,
        invalidation: Invalidation,
    ) -> u64 {
        self.invalidations += 1;
        let last = self.last;
        if let Some(notice) = frame.notices.last_mut().filter(|notice| notice.number == last && self.joinable)
        {
            notice.invalidations.push(invalidation.clone());
            let (_, kept) =
                self.unacknowledged.get_mut(&last).expect("what has not left is not acknowledged");
            kept.invalidations.push(invalidation);
        } else {
            let notice = Notice { invalidations: vec![invalidation], ..Notice::default() };
            frame.notices.push(self.number(awake, notice));
        }
        self.last
    }

    /// Something happened to a node that a handle watches.
    pub(crate) fn push_event(&mut self, handle: u64, event: &HandleEvent) {
        self.pending.push(handle, event);
    }

    /// A handle is closed: nobody wants to hear of it any more.
    pub(crate) fn closed(&mut self, handle: u64) {
        self.pending.remove(handle);
    }

    /// Whether events could be sent now.
    pub(crate) fn has_events_to_send(&self) -> bool {
        self.events.is_none() && !self.pending.is_empty()
    }

    /// A notice of events that wait, to be sent next; unless some are out already.
    pub(crate) fn take_events(&mut self, awake: Time) -> Option<Notice> {
        if !self.has_events_to_send() {
            return None;
        }
        let events = self.pending.take_some();
        let notice = self.number(awake, Notice { events, ..Notice::default() });
        self.events = Some(notice.number);
        Some(notice)
    }

    /// The client has acted on all notices up to this one. Gives the greatest number that this can mean.
    pub(crate) fn acknowledge(&mut self, through: u64) -> u64 {
        let through = through.min(self.last);
        let rest = self.unacknowledged.split_off(&(through + 1));
        let acknowledged = std::mem::replace(&mut self.unacknowledged, rest);
        self.invalidations -=
            acknowledged.values().map(|(_, notice)| notice.invalidations.len()).sum::<usize>();
        self.events.take_if(|number| *number <= through);
        self.joinable &= through < self.last;
        through
    }

    /// Refuses to take up that the client has acted on notices which it was never sent.
    pub(crate) fn check_acknowledgement(&self, through: u64) -> Result<(), Refusal> {
        if through <= self.last {
            return Ok(());
        }
        let last = self.last;
        let message =
            format!("notices up to {through} are acknowledged, and the last on this stream is {last}");
        Err(refusal(RefusalCode::Protocol, message))
    }

    /// Whether a notice has gone unacknowledged since before the lease was last extended, or for `overdue_after`.
    pub(crate) fn is_overdue(&self, awake: Time, overdue_after: Duration) -> bool {
        let oldest = self.unacknowledged.first_key_value().filter(|_| !planted!(NoticeNeverOverdue));
        oldest.is_some_and(|(number, (sent, _))| {
            let is_late = awake.since(*sent) >= overdue_after;
            is_late || *number <= self.at_grant
        })
    }

    /// Whether the client has more to acknowledge than one that acknowledges at all.
    pub(crate) fn is_overfull(&self) -> bool {
        self.invalidations >= INVALIDATIONS_MAX
    }

    /// The lease is extended.
    pub(crate) fn lease_granted(&mut self) {
        self.at_grant = self.last;
    }

    /// Everything that is not acknowledged, to be sent again: all that a frame has to have of notices.
    pub(crate) fn repeat(&mut self) -> Vec<Notice> {
        // Nothing may join a notice that the client has had before: it may be on its way to acknowledging that.
        self.joinable = false;
        self.unacknowledged.values().map(|(_, notice)| notice.clone()).collect()
    }

    /// Gives a notice its number, and keeps a copy until it is acknowledged.
    fn number(&mut self, awake: Time, notice: Notice) -> Notice {
        self.last += 1;
        self.joinable = true;
        let notice = Notice { number: self.last, ..notice };
        self.unacknowledged.insert(self.last, (awake, notice.clone()));
        notice
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1::EventKind;

    use super::*;

    const AT: Time = Time::from_millis(7);
    const OVERDUE_AFTER: Duration = Duration::from_secs(3);

    fn drop_of(path: &str) -> Invalidation {
        Invalidation { path: path.to_owned(), opens: false }
    }

    fn written(handle: u64, content_generation: u64) -> HandleEvent {
        let kinds = vec![EventKind::ContentsModified.into()];
        HandleEvent { handle, kinds, content_generation, ..HandleEvent::default() }
    }

    fn sent(notices: &mut Notices) -> Vec<HandleEvent> {
        notices.take_events(AT).into_iter().flat_map(|notice| notice.events).collect()
    }

    #[test]
    fn what_leaves_in_one_frame_is_one_notice() {
        let (mut notices, mut frame) = (Notices::default(), ServerFrame::default());
        assert_eq!(notices.invalidate(AT, &mut frame, drop_of("/a")), 1);
        assert_eq!(notices.invalidate(AT, &mut frame, drop_of("/b")), 1);
        assert_eq!(frame.notices.len(), 1);
        let mut next = ServerFrame::default();
        assert_eq!(notices.invalidate(AT, &mut next, drop_of("/c")), 2);
        assert_eq!(notices.repeat(), [frame.notices, next.notices].concat());
    }

    #[test]
    fn nothing_joins_a_notice_that_the_client_has_had_before() {
        let (mut notices, mut frame) = (Notices::default(), ServerFrame::default());
        notices.invalidate(AT, &mut frame, drop_of("/a"));
        let mut again = ServerFrame { notices: notices.repeat(), ..ServerFrame::default() };
        assert_eq!(notices.invalidate(AT, &mut again, drop_of("/b")), 2);
        assert_eq!(again.notices.len(), 2);
    }

    #[test]
    fn a_notice_is_overdue_once_the_lease_was_extended_after_it() {
        let (mut notices, mut frame) = (Notices::default(), ServerFrame::default());
        notices.invalidate(AT, &mut frame, drop_of("/a"));
        assert!(!notices.is_overdue(AT, OVERDUE_AFTER), "it may be on its way");
        notices.lease_granted();
        assert!(notices.is_overdue(AT, OVERDUE_AFTER));
        assert_eq!(notices.acknowledge(u64::MAX), 1, "no more than was sent");
        assert!(!notices.is_overdue(AT, OVERDUE_AFTER));
    }

    #[test]
    fn a_notice_is_overdue_after_a_while_although_the_lease_was_not_extended() {
        let (mut notices, mut frame) = (Notices::default(), ServerFrame::default());
        notices.invalidate(AT, &mut frame, drop_of("/a"));
        assert!(!notices.is_overdue(Time::from_millis(3_006), OVERDUE_AFTER));
        assert!(notices.is_overdue(Time::from_millis(3_007), OVERDUE_AFTER));
        notices.invalidate(Time::from_millis(3_007), &mut ServerFrame::default(), drop_of("/b"));
        notices.acknowledge(1);
        assert!(
            !notices.is_overdue(Time::from_millis(6_006), OVERDUE_AFTER),
            "the next one has its own time"
        );
        assert!(notices.is_overdue(Time::from_millis(6_007), OVERDUE_AFTER));
    }

    #[test]
    fn events_wait_for_the_acknowledgement_of_the_last_ones_and_become_one_a_handle() {
        let mut notices = Notices::default();
        notices.push_event(1, &written(1, 10));
        assert_eq!(sent(&mut notices), [written(1, 10)]);
        for generation in 11..1000 {
            notices.push_event(1, &written(1, generation));
        }
        notices.push_event(2, &written(2, 11));
        notices.push_event(3, &written(3, 11));
        notices.closed(3);
        assert_eq!(sent(&mut notices), []);
        notices.acknowledge(1);
        assert_eq!(
            sent(&mut notices),
            [written(2, 11), written(1, 999)],
            "those first that have waited longer"
        );
    }
}
