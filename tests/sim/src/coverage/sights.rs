//! What one must remember of a run to tell that it comes into a situation: who waits, who holds, which grants nobody
//! has heard of, which invalidations nobody has acknowledged.
//!
//! Invariant: whatever belongs to a session is forgotten with it, so that long runs stay small.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    ClientFrame, EndReason, EventKind, HandleEvent, LockMode, LockStat, Outcome, RefusalCode, ServerFrame,
    outcome, server_frame,
};
use holdfast_proto::log::v1::command::Kind;
use holdfast_state::{Effect, State};
use holdfast_types::{HandleId, SessionId, Term};

use super::greed::GreedSights;
use super::{Coverage, Situation};
use crate::canon::Step;
use crate::checker::onlooker;
use crate::clock::TrueTime;

type Owner = (SessionId, HandleId);

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Sights {
    pub(crate) coverage: Coverage,
    /// In which term each recorded request was decided.
    decided: BTreeMap<(SessionId, u64), Term>,
    /// The Acquires that wait.
    waiting: BTreeMap<Owner, u64>,
    /// Who holds what, and how.
    holding: BTreeMap<Owner, (String, LockMode)>,
    /// The grants that no application was told of.
    untold: BTreeSet<(SessionId, u64)>,
    /// The nodes of the invalidations that each session has not acknowledged, with the number of the last notice.
    invalid: BTreeMap<SessionId, (u64, BTreeSet<String>)>,
    /// The term in which each session was attached last.
    attached: BTreeMap<SessionId, u64>,
    /// Names that were made.
    names: BTreeSet<String>,
    /// Names that each session has had open.
    opened: BTreeMap<SessionId, BTreeSet<String>>,
    /// The sessions that were told that they are idle, and that their end is wanted.
    ending: BTreeSet<SessionId>,
    /// The sessions that the last entry ended.
    pub(crate) ended: Vec<(SessionId, EndReason)>,
    /// The last term that had a master.
    last_office: u64,
    greed: GreedSights,
}

impl Sights {
    pub(crate) fn reach(&mut self, situation: Situation) {
        self.coverage.reach(situation);
    }

    fn reach_if(&mut self, so: bool, situation: Situation) {
        if so {
            self.coverage.reach(situation);
        }
    }

    /// Somebody waits for a lock.
    pub(crate) fn is_anybody_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A session holds a lock.
    pub(crate) fn holds(&self, session: SessionId) -> bool {
        owned(&self.holding, session).next().is_some()
    }

    /// A node is being invalidated.
    pub(crate) fn is_invalidated(&self, path: &str) -> bool {
        self.invalid.values().any(|(_, paths)| paths.contains(path))
    }

    /// A command of the canonical log, in an entry of this term.
    pub(crate) fn see(&mut self, step: &Step<'_>, term: u64) {
        for effect in step.effects {
            match effect {
                Effect::Replied { session, number, outcome, .. } => {
                    if let Some(Kind::Request(request)) = &step.command.kind
                        && let Some(operation) =
                            request.request.as_ref().and_then(|one| one.operation.as_ref())
                    {
                        self.see_outcome(step.state, *session, number.0, operation, outcome);
                    }
                    self.decided.entry((*session, number.0)).or_insert(Term(term));
                    let lives_on = self.ending.remove(session);
                    self.reach_if(lives_on, Situation::IdleEndVoid);
                }
                Effect::LockGranted { session, grant } => {
                    let owner = (*session, HandleId(grant.handle));
                    let mode = grant.granted.as_ref().map_or(LockMode::Exclusive, |granted| granted.mode());
                    self.waiting.remove(&owner);
                    self.grant(step.state, owner, grant.number, mode);
                }
                Effect::SessionEnded { session, reason, .. } => self.end(step.state, *session, *reason),
                Effect::SessionKept { .. } => self.reach(Situation::IdleEndVoid),
                Effect::SessionOpened { repeated: true, .. } => self.reach(Situation::OpeningFoundAgain),
                Effect::Reaped { .. } => {
                    self.reach_if(step.state.revision() == step.before, Situation::ReapMeetsOpen);
                }
                _ => {}
            }
        }
    }

    fn see_outcome(
        &mut self,
        state: &State,
        session: SessionId,
        number: u64,
        operation: &Operation,
        outcome: &Outcome,
    ) {
        use Situation::*;
        let Some(result) = &outcome.result else { return };
        if let outcome::Result::Refusal(refusal) = result {
            return self.see_refusal(operation, refusal.code());
        }
        let owner = |handle| (session, HandleId(handle));
        match (operation, result) {
            (Operation::Open(_), outcome::Result::Opened(opened)) => {
                if let Some(path) = path_of(state, owner(number)) {
                    let again = opened.created && !self.names.insert(path.clone());
                    self.reach_if(again, NameRecreated);
                    self.opened.entry(session).or_default().insert(path);
                }
            }
            (Operation::Acquire(acquire), outcome::Result::Queued(_)) => {
                self.queue(state, owner(acquire.handle), number, acquire.mode());
            }
            (Operation::Acquire(acquire), outcome::Result::Granted(_)) => {
                self.grant(state, owner(acquire.handle), number, acquire.mode());
            }
            (Operation::Release(release), _) => self.leave(owner(release.handle)),
            (Operation::Close(close), _) => {
                let waited = self.waiting.contains_key(&owner(close.handle));
                self.reach_if(waited, ClosedWhileWaiting);
                self.leave(owner(close.handle));
            }
            (Operation::Cancel(cancel), _) if cancel.handle != 0 => {
                let untold = self.untold.remove(&(session, cancel.number));
                self.reach_if(untold, WithdrawnAfterGrant);
                let waited = self.waiting.get(&owner(cancel.handle)) == Some(&cancel.number);
                self.reach_if(waited, WithdrawnWhileWaiting);
                if untold || waited {
                    self.leave(owner(cancel.handle));
                }
            }
            _ => {}
        }
    }

    fn see_refusal(&mut self, operation: &Operation, code: RefusalCode) {
        use Situation::{DeleteMeetsLock, HandleOutlivedNode, LostCompareAndSet, SequencerOutlived};
        match (operation, code) {
            (Operation::Delete(_), RefusalCode::Locked) => self.reach(DeleteMeetsLock),
            (Operation::SetContents(_), RefusalCode::GenerationMismatch) => self.reach(LostCompareAndSet),
            (_, RefusalCode::SequencerInvalid) => self.reach(SequencerOutlived),
            (_, RefusalCode::NodeGone) => self.reach(HandleOutlivedNode),
            _ => {}
        }
    }

    /// An Acquire waits.
    fn queue(&mut self, state: &State, owner: Owner, number: u64, mode: LockMode) {
        self.waiting.insert(owner, number);
        let lock = path_of(state, owner).and_then(|path| lock_of(state, &path)).unwrap_or_default();
        let shared = mode == LockMode::Shared && lock.mode() == LockMode::Shared;
        self.reach_if(shared, Situation::WriterBarsReaders);
        let delayed = lock.holder_count == 0 && lock.delayed > 0 && lock.waiting == 1;
        self.reach_if(delayed, Situation::AcquireMeetsDelay);
    }

    fn grant(&mut self, state: &State, owner: Owner, number: u64, mode: LockMode) {
        self.untold.insert((owner.0, number));
        if let Some(path) = path_of(state, owner) {
            self.holding.insert(owner, (path, mode));
        }
    }

    fn leave(&mut self, owner: Owner) {
        self.waiting.remove(&owner);
        self.holding.remove(&owner);
    }

    fn end(&mut self, state: &State, session: SessionId, reason: EndReason) {
        self.greed.end(session);
        let lost = matches!(reason, EndReason::Expired | EndReason::Killed);
        let shared: Vec<String> = owned(&self.holding, session)
            .filter(|(_, mode)| *mode == LockMode::Shared)
            .map(|(path, _)| path.clone())
            .collect();
        let others =
            shared.iter().filter_map(|path| lock_of(state, path)).any(|lock| lock.mode() == LockMode::Shared);
        self.reach_if(lost && others, Situation::SharedHolderLost);
        let waits = owned(&self.waiting, session).next().is_some();
        self.reach_if(waits, Situation::EndedWhileWaiting);
        let invalid = self.invalid.remove(&session).is_some();
        self.reach_if(invalid && reason == EndReason::Expired, Situation::DeadCacherHeldWrite);
        self.decided.retain(|(of, _), _| *of != session);
        self.waiting.retain(|(of, _), _| *of != session);
        self.holding.retain(|(of, _), _| *of != session);
        self.untold.retain(|(of, _)| *of != session);
        self.attached.remove(&session);
        self.ending.remove(&session);
        self.opened.remove(&session);
        self.ended.push((session, reason));
    }

    /// A replica takes office.
    pub(crate) fn office(&mut self, state: &State, term: u64) {
        let skipped = self.last_office != 0 && term > self.last_office + 1;
        self.reach_if(skipped, Situation::TermWithoutMaster);
        self.last_office = self.last_office.max(term);
        self.reach_if(!self.invalid.is_empty(), Situation::FailOverWithInvalidation);
        self.reach_if(self.is_anybody_waiting(), Situation::FailOverWithQueue);
        self.reach_if(state.delays().next().is_some(), Situation::FailOverWithDelay);
    }

    /// A master of this term sends a frame to a client that has this session, as far as it knows.
    pub(crate) fn sent(&mut self, session: Option<SessionId>, term: u64, frame: &ServerFrame, now: TrueTime) {
        use Situation::*;
        let session = match (&frame.hello, session) {
            (Some(server_frame::Hello::Opened(opened)), _) => SessionId(opened.session),
            (_, Some(session)) => session,
            (_, None) => return,
        };
        self.greed.sent(&mut self.coverage, session, frame, now);
        let found = |reply: &holdfast_proto::client::v1::Reply| {
            self.decided.get(&(session, reply.number)).is_some_and(|decided| decided.0 < term)
        };
        let found = frame.replies.iter().any(found);
        self.reach_if(found, AnsweredFromRecord);
        if frame.ending.as_ref().is_some_and(|ending| ending.reason() == EndReason::Idle) {
            self.ending.insert(session);
        }
        let events = frame.notices.iter().any(|notice| !notice.events.is_empty());
        match &frame.hello {
            Some(server_frame::Hello::Attached(attached)) => {
                let before = self.attached.insert(session, term);
                self.reach_if(before == Some(term), ReattachedSameTerm);
                let told = |number| self.untold.contains(&(session, number));
                let by_attachment = attached.locks.iter().any(|grant| told(grant.number));
                self.reach_if(by_attachment, GrantToldByAttachment);
                let wished =
                    |event: &HandleEvent| event.kinds().any(|kind| kind == EventKind::ConflictingRequest);
                let wished = frame.notices.iter().flat_map(|notice| &notice.events).any(wished);
                self.reach_if(wished, WishToldByAttachment);
                self.reach_if(events && before.is_some_and(|before| before < term), ChangeFoundAtAttachment);
                // Whoever attaches has emptied its cache.
                self.invalid.remove(&session);
            }
            Some(server_frame::Hello::Opened(_)) => {
                self.attached.insert(session, term);
            }
            Some(server_frame::Hello::Refused(refused)) => {
                let code = refused.refusal.as_ref().map(|refusal| refusal.code());
                self.reach_if(code == Some(RefusalCode::Superseded), AttachmentSuperseded);
            }
            None => {}
        }
        let invalidations = frame.notices.iter().filter(|notice| !notice.invalidations.is_empty());
        for notice in invalidations {
            self.reach_if(frame.lease.is_some(), KeepAliveWithInvalidation);
            let (last, paths) = self.invalid.entry(session).or_default();
            *last = notice.number;
            paths.extend(notice.invalidations.iter().map(|invalidation| invalidation.path.clone()));
        }
        self.reach_if(frame.lease.as_ref().is_some_and(|lease| lease.lease_ms == 0), LeaseWithheld);
    }

    /// A client's frame reached a replica.
    pub(crate) fn arrived(&mut self, session: SessionId, frame: &ClientFrame, now: TrueTime) {
        self.greed.arrived(&mut self.coverage, session, frame, now);
        if frame.notices_through > 0 {
            self.acknowledged(session, frame.notices_through);
        }
    }

    /// With an acknowledgement of notices.
    fn acknowledged(&mut self, session: SessionId, through: u64) {
        if self.invalid.get(&session).is_some_and(|(last, _)| *last <= through) {
            self.invalid.remove(&session);
        }
    }

    /// An application was told of a grant.
    pub(crate) fn told_granted(&mut self, session: SessionId, number: u64) {
        self.untold.remove(&(session, number));
    }

    /// An application was told that it may not open a name.
    pub(crate) fn denied(&mut self, session: SessionId, path: &str) {
        let had = self.opened.get(&session).is_some_and(|names| names.contains(path));
        self.reach_if(had, Situation::ReopenDenied);
    }

    /// An application hears of an event.
    pub(crate) fn heard(&mut self, kinds: impl Iterator<Item = EventKind>) {
        let kinds: Vec<EventKind> = kinds.collect();
        self.reach_if(kinds.len() > 1, Situation::EventsMerged);
        self.reach_if(kinds.contains(&EventKind::ConflictingRequest), Situation::HolderAskedToGiveWay);
    }
}

/// What a session has, of what is kept by handle.
fn owned<V>(all: &BTreeMap<Owner, V>, session: SessionId) -> impl Iterator<Item = &V> {
    all.range((session, HandleId(0))..=(session, HandleId(u64::MAX))).map(|(_, value)| value)
}

fn path_of(state: &State, (session, handle): Owner) -> Option<String> {
    state.session(session)?.handle_path(handle).map(ToString::to_string)
}

fn lock_of(state: &State, path: &str) -> Option<LockStat> {
    state.read_stat(&onlooker(), path).ok()?.lock
}
