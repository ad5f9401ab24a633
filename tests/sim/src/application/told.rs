//! Judges what applications are told: each answer is shown to the checkers that it concerns.
//!
//! Never changes what an application or its session does next.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, Creation, Open, RefusalCode, outcome};
use holdfast_session::{CallError, Completion, Ended};
use holdfast_types::{HandleId, RequestNumber, Revision, SessionId};

use super::Call;
use crate::checker::answers::{self, Opening, Read};
use crate::checker::register::Op;
use crate::checker::{is_read, is_valid};
use crate::coverage::Situation;
use crate::verdict::{Invariant, Violation};
use crate::world::World;

impl World {
    pub(super) fn check_told(
        &mut self,
        index: usize,
        call: &Call,
        completion: &Completion,
    ) -> Result<(), Violation> {
        let Completion { number, revision, result, from_cache, .. } = completion;
        let Some(session) = self.clients[index].session_id else {
            let what = format!("client {} has no session, and was told Ok", index + 1);
            return Err(Violation::new(Invariant::ExactlyOnce, what));
        };
        if *from_cache {
            return self.check_from_cache(index, session, call, result);
        }
        let is_read = is_read(&call.operation);
        self.checkers.reads.told(*revision, call.floor, is_read)?;
        self.checkers.exactly_once.told(session, *number, &call.operation, result)?;
        self.note_lock(session, *number, *revision, result);
        self.note_durable(index, call, result);
        self.note_counted(index, call)?;
        if let Some((path, instance)) = &call.node {
            if let Some(op) = op_of(&call.operation, result) {
                self.checkers.histories.add(path, *instance, call.began, op);
            }
            if is_read {
                let read = Read { path, instance: *instance, operation: &call.operation, answer: result };
                answers::check_at(&self.checkers.past, &read, *revision)?;
                self.check_fenced_read(session, completion.handle, *revision)?;
            }
            if let outcome::Result::Contents(contents) = result {
                self.checkers.reads.contents(path, *instance, *revision, contents)?;
            }
        }
        Ok(())
    }

    /// Somebody was told that he has a lock, or a sequencer of one.
    fn note_lock(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        revision: Revision,
        result: &outcome::Result,
    ) {
        match result {
            outcome::Result::Sequencer(text) => self.sequencer = text.sequencer.as_str().into(),
            outcome::Result::Granted(_) => {
                self.stats.granted += 1;
                self.stats.queued += u64::from(revision == Revision(0));
                self.sights.told_granted(session, number.0);
            }
            _ => {}
        }
    }

    /// An application was told something of a node: no state may have forgotten it from now on.
    fn note_durable(&mut self, index: usize, call: &Call, result: &outcome::Result) {
        use outcome::Result::{AclSet, Contents, Deleted, Granted, Opened, Stat, Written};
        if let (Operation::Open(open), Opened(opened)) = (&call.operation, result) {
            if let (Some(path), Some(stat)) = (self.absolute(index, open), &opened.stat) {
                self.checkers.durability.told(&path, stat);
            }
            return;
        }
        let Some((path, instance)) = &call.node else { return };
        let node = wire::Stat { instance: *instance, ..wire::Stat::default() };
        let stat = match result {
            Deleted(_) => return self.checkers.durability.deleted(path, *instance),
            Stat(stat) => (**stat).clone(),
            Contents(read) => read.stat.clone().unwrap_or_default(),
            Written(told) => wire::Stat { content_generation: told.content_generation, ..node },
            Granted(told) => wire::Stat { lock_generation: told.lock_generation, ..node },
            AclSet(told) => wire::Stat { acl_generation: told.acl_generation, ..node },
            _ => return,
        };
        self.checkers.durability.told(path, &stat);
    }

    /// What was read through a handle that depends on a sequencer was read while that was valid.
    fn check_fenced_read(
        &self,
        session: SessionId,
        handle: HandleId,
        revision: Revision,
    ) -> Result<(), Violation> {
        let Some(state) = self.checkers.past.at(revision) else { return Ok(()) };
        self.checkers.fencing.check(session, handle, revision, |text| is_valid(state, text))
    }

    /// Something was answered without a message: it must be right at a moment since the call began.
    fn check_from_cache(
        &mut self,
        index: usize,
        session: SessionId,
        call: &Call,
        result: &outcome::Result,
    ) -> Result<(), Violation> {
        self.stats.from_cache += 1;
        if let (Operation::Open(open), outcome::Result::Opened(opened)) = (&call.operation, result) {
            let instance = opened.stat.as_ref().map_or(0, |stat| stat.instance);
            return self.check_opening(index, session, call, open, Ok(instance));
        }
        self.stats.kept_locks += u64::from(matches!(result, outcome::Result::Granted(_)));
        Ok(())
    }

    pub(super) fn check_refused(
        &mut self,
        index: usize,
        call: &Call,
        error: &CallError,
    ) -> Result<(), Violation> {
        let CallError::Refused(refusal) = error else {
            if matches!(error, CallError::Ended { ended: Ended::Idle, .. }) {
                self.sights.reach(Situation::IdleEndTaken);
            }
            if matches!(error, CallError::Ended { maybe_applied: true, .. }) {
                self.abandon(call);
            }
            return Ok(());
        };
        let (Operation::Open(open), Some(session)) = (&call.operation, self.clients[index].session_id) else {
            return Ok(());
        };
        let judged = matches!(refusal.code(), RefusalCode::NotFound | RefusalCode::PermissionDenied);
        if !judged || open.creation() != Creation::Unspecified {
            return Ok(());
        }
        self.stats.absent += u64::from(refusal.code() == RefusalCode::NotFound);
        if refusal.code() == RefusalCode::PermissionDenied {
            self.sights.denied(session, &open.path);
        }
        self.check_opening(index, session, call, open, Err(refusal.code()))
    }

    fn check_opening(
        &mut self,
        index: usize,
        session: SessionId,
        call: &Call,
        open: &Open,
        answer: Result<u64, RefusalCode>,
    ) -> Result<(), Violation> {
        let Some(path) = self.absolute(index, open) else { return Ok(()) };
        let open = Open { path, directory: 0, ..open.clone() };
        let opening = Opening { session, open: &open, answer };
        let checked = answers::check_opening(&self.checkers.past, &opening, call.floor);
        if let Some(earliest) = self.by_the_clock(checked)? {
            self.checkers.reads.raise(earliest);
        }
        Ok(())
    }
}

/// What a call did to a file, for the histories.
pub(super) fn op_of(operation: &Operation, result: &outcome::Result) -> Option<Op> {
    match (operation, result) {
        (Operation::GetContents(_), outcome::Result::Contents(read)) => {
            let generation = read.stat.as_ref()?.content_generation;
            Some(Op::Read { contents: read.contents.clone(), generation })
        }
        (Operation::SetContents(write), outcome::Result::Written(written)) => Some(Op::Write {
            contents: write.contents.clone(),
            if_generation: write.if_generation,
            generation: Some(written.content_generation),
        }),
        _ => None,
    }
}
