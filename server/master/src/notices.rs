//! What a session must act on, and say that it did: invalidations and events (design.md §4, §6, I8).
//!
//! Both go out as numbered notices on the session's one stream. Invalidations go at once. Of notices with events only
//! one is unacknowledged at a time; what happens meanwhile is merged into one event a handle, so that a slow client costs
//! no more memory than it has handles. Nothing is kept for a session without a stream: when it comes back, what it has
//! seen is compared with what is. Invariant: a notice that was not acknowledged is here, and can be repeated.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::{
    ChildChange, EventKind, HandleEvent, Invalidation, Notice, Refusal, RefusalCode, ServerFrame,
};
use holdfast_types::{Duration, Time, planted};

use crate::refusal;

/// So many changed children are named in one event.
const CHILDREN_PER_HANDLE_MAX: usize = 64;
/// And so many in all events together that wait for one session.
const CHILDREN_PER_SESSION_MAX: usize = 4096;
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

    /// Something happened to a watched node.
    pub(crate) fn push_event(&mut self, event: HandleEvent) {
        self.pending.push(event);
    }

    /// A handle is closed: nobody wants to hear of it any more.
    pub(crate) fn closed(&mut self, handle: u64) {
        self.pending.remove(handle);
    }

    /// Whether events could be sent now.
    pub(crate) fn has_events_to_send(&self) -> bool {
        self.events.is_none() && !self.pending.handles.is_empty()
    }

    /// A notice of the events that wait, to be sent next; unless some are out already.
    pub(crate) fn take_events(&mut self, awake: Time) -> Option<Notice> {
        if !self.has_events_to_send() {
            return None;
        }
        let events = std::mem::take(&mut self.pending).into_events();
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

/// Events that wait until the last ones are acknowledged: one a handle.
#[derive(Debug, Default)]
struct PendingEvents {
    handles: BTreeMap<u64, PendingEvent>,
    /// How many children are named in all of them.
    children: usize,
}

/// What happened through one handle since it was last told.
#[derive(Debug, Default)]
struct PendingEvent {
    /// The latest, for its generations.
    last: HandleEvent,
    /// Which kinds, as bits.
    kinds: u32,
    /// The last that happened to each child.
    children: BTreeMap<String, i32>,
    more_children: bool,
}

impl PendingEvents {
    fn push(&mut self, mut event: HandleEvent) {
        let (kinds, children) = (std::mem::take(&mut event.kinds), std::mem::take(&mut event.children));
        let pending = self.handles.entry(event.handle).or_default();
        pending.more_children |= event.more_children;
        pending.last = latest(&pending.last, event);
        // Kinds that this program does not know are none that it was asked to tell.
        let known = kinds.into_iter().filter_map(|kind| EventKind::try_from(kind).ok());
        pending.kinds |= known.fold(0, |bits, kind| bits | 1 << kind as u32);
        for ChildChange { name, kind } in children {
            let is_new = !pending.children.contains_key(&name);
            let is_full = pending.children.len() >= CHILDREN_PER_HANDLE_MAX
                || self.children >= CHILDREN_PER_SESSION_MAX;
            if is_new && is_full {
                pending.more_children = true;
                continue;
            }
            self.children += usize::from(is_new);
            pending.children.insert(name, kind);
        }
    }

    fn remove(&mut self, handle: u64) {
        if let Some(pending) = self.handles.remove(&handle) {
            self.children -= pending.children.len();
        }
    }

    fn into_events(self) -> Vec<HandleEvent> {
        let event = |pending: PendingEvent| HandleEvent {
            kinds: (1..u32::BITS as i32).filter(|kind| pending.kinds & (1 << kind) != 0).collect(),
            children: pending.children.into_iter().map(|(name, kind)| ChildChange { name, kind }).collect(),
            more_children: pending.more_children,
            ..pending.last
        };
        self.handles.into_values().map(event).collect()
    }
}

/// Two events of the same handles as one, with the last that happened to each child.
pub(crate) fn merged(known: &HandleEvent, event: &HandleEvent) -> HandleEvent {
    let mut pending = PendingEvents::default();
    pending.push(known.clone());
    pending.push(HandleEvent { handle: known.handle, ..event.clone() });
    pending.into_events().pop().unwrap_or_default()
}

/// An event, with no generation older than was known: what a client is told anew when it asks again may be newer than
/// changes of which it has yet to be told.
fn latest(known: &HandleEvent, event: HandleEvent) -> HandleEvent {
    HandleEvent {
        content_generation: event.content_generation.max(known.content_generation),
        children_generation: event.children_generation.max(known.children_generation),
        acl_generation: event.acl_generation.max(known.acl_generation),
        lock_generation: event.lock_generation.max(known.lock_generation),
        ..event
    }
}

#[cfg(test)]
mod tests {
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

    fn child(handle: u64, name: &str, kind: EventKind) -> HandleEvent {
        let children = vec![ChildChange { name: name.to_owned(), kind: kind.into() }];
        HandleEvent { handle, kinds: vec![kind.into()], children, ..HandleEvent::default() }
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
        notices.push_event(written(1, 10));
        assert_eq!(sent(&mut notices), [written(1, 10)]);
        for generation in 11..1000 {
            notices.push_event(written(1, generation));
        }
        notices.push_event(written(2, 11));
        notices.push_event(written(3, 11));
        notices.closed(3);
        assert_eq!(sent(&mut notices), []);
        notices.acknowledge(1);
        assert_eq!(sent(&mut notices), [written(1, 999), written(2, 11)]);
    }

    #[test]
    fn changed_children_are_named_up_to_a_bound() {
        let mut pending = PendingEvents::default();
        pending.push(child(1, "x", EventKind::ChildAdded));
        pending.push(child(1, "x", EventKind::ChildRemoved));
        let [event] = &pending.into_events()[..] else { panic!("one handle, one event") };
        assert_eq!(event.kinds, [EventKind::ChildAdded as i32, EventKind::ChildRemoved as i32]);
        assert_eq!(event.children.len(), 1);
        assert_eq!(event.children[0].kind(), EventKind::ChildRemoved, "the last that happened to it");
        assert!(!event.more_children);

        let mut pending = PendingEvents::default();
        for handle in 0..100 {
            for name in 0..100 {
                pending.push(child(handle, &format!("n{name}"), EventKind::ChildModified));
            }
        }
        pending.remove(0);
        assert_eq!(pending.children, CHILDREN_PER_SESSION_MAX - CHILDREN_PER_HANDLE_MAX);
        let events = pending.into_events();
        assert_eq!(events.len(), 99);
        assert!(events.iter().all(|event| event.more_children && event.children.len() <= 64));
    }
}
