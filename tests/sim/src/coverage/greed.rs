//! What is remembered to tell that a session came into a situation that greed brings about: notices that are overdue, KeepAlives
//! that overtook the requests of their frame, refusals because there is too much.
//!
//! Invariant: what belongs to a session is forgotten with it.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::client::v1::refusal::Facts;
use holdfast_proto::client::v1::{ClientFrame, Refusal, RefusalCode, ServerFrame, outcome};
use holdfast_types::SessionId;

use super::{Coverage, Situation};
use crate::clock::TrueTime;

/// A notice that is not acknowledged is overdue after so long, at the latest.
const OVERDUE_NANOS: u64 = 3_000_000_000;

/// What was seen of each session.
#[derive(Debug, Default)]
pub(super) struct GreedSights {
    /// The notices that are not acknowledged, and when they were first sent.
    unacknowledged: BTreeMap<SessionId, BTreeMap<u64, TrueTime>>,
    /// The last KeepAlive that came with requests, and those of them that are not answered.
    asked: BTreeMap<SessionId, (u64, BTreeSet<u64>)>,
}

impl GreedSights {
    /// A frame of a client's reaches a replica.
    pub(super) fn arrived(
        &mut self,
        coverage: &mut Coverage,
        session: SessionId,
        frame: &ClientFrame,
        now: TrueTime,
    ) {
        if let Some(notices) = self.unacknowledged.get_mut(&session) {
            *notices = notices.split_off(&(frame.notices_through + 1));
        }
        let Some(keep_alive) = &frame.keep_alive else { return };
        let oldest = self.unacknowledged.get(&session).and_then(|notices| notices.values().next());
        if oldest.is_some_and(|sent| now >= sent.after_nanos(OVERDUE_NANOS)) {
            coverage.reach(Situation::NoticeOverdue);
        }
        if !frame.requests.is_empty() {
            let requests = frame.requests.iter().map(|request| request.number).collect();
            self.asked.insert(session, (keep_alive.number, requests));
        }
    }

    /// A replica sends a frame.
    pub(super) fn sent(
        &mut self,
        coverage: &mut Coverage,
        session: SessionId,
        frame: &ServerFrame,
        now: TrueTime,
    ) {
        if frame.hello.is_some() {
            // Notices are numbered anew.
            self.unacknowledged.remove(&session);
        }
        for notice in &frame.notices {
            self.unacknowledged.entry(session).or_default().entry(notice.number).or_insert(now);
        }
        let results = frame.replies.iter().filter_map(|reply| reply.outcome.as_ref()?.result.as_ref());
        for result in results {
            if let outcome::Result::Refusal(refusal) = result
                && matches!(refusal.code(), RefusalCode::Limit | RefusalCode::Overloaded)
            {
                coverage.reach(Situation::RefusedTooMuch);
                if is_ledger_full(refusal) {
                    coverage.reach(Situation::LedgerFull);
                }
            }
        }
        let Some((keep_alive, requests)) = self.asked.get_mut(&session) else { return };
        for reply in &frame.replies {
            requests.remove(&reply.number);
        }
        let granted = frame.lease.as_ref().is_some_and(|lease| lease.number == *keep_alive);
        if granted {
            if !requests.is_empty() {
                coverage.reach(Situation::KeepAliveLifted);
            }
            self.asked.remove(&session);
        }
    }

    /// A session is over.
    pub(super) fn end(&mut self, session: SessionId) {
        self.unacknowledged.remove(&session);
        self.asked.remove(&session);
    }
}

/// Whether the ledger of bytes has no room for something.
pub(super) fn is_ledger_full(refusal: &Refusal) -> bool {
    matches!(&refusal.facts, Some(Facts::LimitExceeded(limit)) if limit.limit.starts_with("ledger_"))
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1::{KeepAlive, LeaseGranted, Notice, Reply, Request};

    use super::*;

    fn at(seconds: u64) -> TrueTime {
        TrueTime::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_notice_is_overdue_when_a_keep_alive_comes_too_long_after_it() {
        let (mut greed, mut coverage) = (GreedSights::default(), Coverage::default());
        let session = SessionId(1);
        let notice = Notice { number: 4, ..Notice::default() };
        let frame = ServerFrame { notices: vec![notice], ..ServerFrame::default() };
        greed.sent(&mut coverage, session, &frame, at(1));
        let keep_alive = ClientFrame { keep_alive: Some(KeepAlive { number: 1 }), ..ClientFrame::default() };
        greed.arrived(&mut coverage, session, &keep_alive, at(3));
        assert_eq!(coverage.times(Situation::NoticeOverdue), 0);
        greed.arrived(&mut coverage, session, &keep_alive, at(5));
        assert_eq!(coverage.times(Situation::NoticeOverdue), 1);
        greed.arrived(&mut coverage, session, &ClientFrame { notices_through: 4, ..keep_alive }, at(9));
        assert_eq!(coverage.times(Situation::NoticeOverdue), 1);
    }

    #[test]
    fn a_keep_alive_is_lifted_out_of_its_frame_if_it_is_answered_before_the_requests() {
        let (mut greed, mut coverage) = (GreedSights::default(), Coverage::default());
        let session = SessionId(1);
        let requests = vec![Request { number: 7, operation: None }];
        let keep_alive = Some(KeepAlive { number: 2 });
        let asked = ClientFrame { keep_alive, requests, ..ClientFrame::default() };
        let lease = Some(LeaseGranted { number: 2, lease_ms: 5 });
        let granted = ServerFrame { lease, ..ServerFrame::default() };
        let replies = vec![Reply { number: 7, ..Reply::default() }];
        greed.arrived(&mut coverage, session, &asked, at(1));
        greed.sent(&mut coverage, session, &ServerFrame { replies, ..granted.clone() }, at(1));
        assert_eq!(coverage.times(Situation::KeepAliveLifted), 0);
        greed.arrived(&mut coverage, session, &asked, at(1));
        greed.sent(&mut coverage, session, &granted, at(1));
        assert_eq!(coverage.times(Situation::KeepAliveLifted), 1);
    }
}
