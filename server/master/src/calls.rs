//! Unary calls: the simple things, for clients without a session, and what operators ask for.
//!
//! Reads wait for a round, writes for their command, which may be held like any other change. Whom the access control
//! lists let do what, the state decides: for changes when they are applied, for reads here. Invariant: each call is
//! answered once, or listed when the master leaves office.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::{self as client, EndReason, Outcome, RefusalCode, outcome};
use holdfast_proto::log::v1::command::Kind;
use holdfast_state::State;
use holdfast_types::{Principal, SessionId};

use crate::held::Change;
use crate::interface::Output;
use crate::lists::List;
use crate::unary::{CallAnswer, CallId, CallRequest, Caller};
use crate::work::{COST_ENTRY, Party};
use crate::{Master, Waiter, refusal};

/// Calls whose command is proposed, by its tag.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    proposed: BTreeMap<u64, (CallId, Caller)>,
}

impl Calls {
    /// The call's command is proposed under this tag.
    pub(crate) fn proposed(&mut self, tag: u64, call: CallId, caller: Caller) {
        self.proposed.insert(tag, (call, caller));
    }

    pub(crate) fn into_ids(self) -> Vec<CallId> {
        self.proposed.into_values().map(|(call, _)| call).collect()
    }
}

/// Whether a call's command administers the cell: its settings, or what stands in access control lists.
fn administers(kind: &Kind) -> bool {
    let is_of_lists = |path: &str| path.split('/').any(|name| name == "acl");
    match kind {
        Kind::ChangeSettings(_) => true,
        Kind::SetAcl(change) => is_of_lists(&change.path),
        Kind::SetContents(write) => is_of_lists(&write.path),
        Kind::Delete(delete) => is_of_lists(&delete.path),
        Kind::Request(_)
        | Kind::OpenSession(_)
        | Kind::EndSession(_)
        | Kind::EndLockDelay(_)
        | Kind::ReapNode(_)
        | Kind::RaiseVersion(_)
        | Kind::LowerLeasePromise(_) => false,
    }
}

impl Master {
    pub(crate) fn handle_call(&mut self, state: &State, call: CallId, caller: Caller, request: CallRequest) {
        let mut force = false;
        let kind = match request {
            CallRequest::SetContents(write) => Kind::SetContents(write),
            CallRequest::Delete(delete) => Kind::Delete(delete),
            CallRequest::SetAcl(change) => Kind::SetAcl(change),
            CallRequest::ChangeSettings(change) => {
                force = change.force;
                Kind::ChangeSettings(change.settings.unwrap_or_default())
            }
            CallRequest::AddMember(_) | CallRequest::PromoteMember(_) | CallRequest::RemoveMember(_) => {
                let message = "membership is changed by the replica, not by the master";
                return self.answer(call, Err(refusal(RefusalCode::Protocol, message)));
            }
            request => return self.rounds.wait(Waiter::Call { call, caller, request }),
        };
        let principal = caller.principal();
        let administers = administers(&kind) && state.may_administer(&principal).is_ok();
        let mut change = Change { call: Some((call, caller)), administers, ..Change::of_master(kind) };
        change.command.principal = principal.as_str().to_owned();
        change.command.force = force;
        self.plan(state, change);
    }

    /// Has the log name another bootstrap principal, in the name of the present one, which always may: an operator with access
    /// to a replica's command line asks for it. It is a change like any other, and what others cache by the old one goes
    /// first.
    pub(crate) fn override_bootstrap(&mut self, state: &State, principal: &Principal) {
        let bootstrap_principal = principal.as_str().to_owned();
        let settings = client::Settings { bootstrap_principal, ..client::Settings::default() };
        let mut change = Change::of_master(Kind::ChangeSettings(settings));
        change.command.principal = state.settings().bootstrap_principal.clone();
        change.command.force = true;
        self.plan(state, change);
    }

    /// A command without a session was applied.
    pub(crate) fn handle_decided(&mut self, state: &State, tag: u64, outcome: Outcome) {
        let Some((call, caller)) = self.calls.proposed.remove(&tag) else { return };
        self.charge_for_telling(tag, || Party::Caller(caller));
        let revision = outcome.revision;
        let answer = match outcome.result {
            Some(outcome::Result::Written(written)) => {
                Ok(CallAnswer::SetContents(client::SetContentsResponse { written: Some(written), revision }))
            }
            Some(outcome::Result::Deleted(_)) => Ok(CallAnswer::Delete(client::DeleteResponse { revision })),
            Some(outcome::Result::AclSet(client::AclSet { acl_generation })) => {
                Ok(CallAnswer::SetAcl(client::SetAclResponse { acl_generation, revision }))
            }
            Some(outcome::Result::Refusal(refusal)) => Err(refusal),
            // A change of the settings has no result of its own: they are in the state.
            _ => {
                self.set_promise_timer(state);
                Ok(CallAnswer::Settings(state.settings().clone()))
            }
        };
        self.answer(call, answer);
    }

    /// A round has confirmed that this is the master: a call is answered that needs no command, or taken up that needs
    /// a session's end. Gives what the answer costs.
    pub(crate) fn answer_call(
        &mut self,
        state: &State,
        call: CallId,
        principal: &Principal,
        request: &CallRequest,
    ) -> u64 {
        let revision = state.revision().0;
        let answer = match request {
            CallRequest::GetContents(read) => state.read_contents(principal, &read.path).map(|contents| {
                CallAnswer::GetContents(client::GetContentsResponse { contents: Some(contents), revision })
            }),
            CallRequest::GetStat(read) => state
                .read_stat(principal, &read.path)
                .map(|stat| CallAnswer::GetStat(client::GetStatResponse { stat: Some(stat), revision })),
            CallRequest::ReadDir(read) => {
                state.read_dir(principal, &read.path, &read.after, read.limit).map(|directory| {
                    CallAnswer::ReadDir(client::ReadDirResponse { directory: Some(directory), revision })
                })
            }
            CallRequest::CheckSequencer(check) => {
                state.check_sequencer(principal, &check.sequencer).map(|valid| {
                    let (valid, reason) = match valid {
                        Ok(()) => (true, String::new()),
                        Err(reason) => (false, reason),
                    };
                    CallAnswer::CheckSequencer(client::CheckSequencerResponse { valid, reason, revision })
                })
            }
            CallRequest::GetSettings => {
                state.may_administer(principal).map(|()| CallAnswer::Settings(state.settings().clone()))
            }
            CallRequest::ListUsage(list) => match state.may_administer(principal) {
                Ok(()) => return self.say_list(call, self.list_usage(state, list.clone())),
                Err(refusal) => Err(refusal),
            },
            CallRequest::ListSessions(list) => match state.may_administer(principal) {
                Ok(()) => return self.say_list(call, self.list_sessions(state, *list)),
                Err(refusal) => Err(refusal),
            },
            CallRequest::ListHandles(list) => match state.may_administer(principal) {
                Ok(()) => return self.say_list(call, self.list_handles(state, list.clone())),
                Err(refusal) => Err(refusal),
            },
            CallRequest::KillSession(kill) => match state.may_administer(principal) {
                Ok(()) => {
                    self.ask_to_end(state, call, SessionId(kill.session), EndReason::Killed);
                    return 0;
                }
                Err(refusal) => Err(refusal),
            },
            CallRequest::ExpireSession(session) => {
                self.ask_to_end(state, call, *session, EndReason::Expired);
                return 0;
            }
            change => Err(refusal(RefusalCode::Protocol, format!("{change:?} is no read"))),
        };
        let bytes = answer.as_ref().map_or(0, CallAnswer::encoded_len) as u64;
        let entries = match &answer {
            Ok(CallAnswer::ReadDir(list)) => list.directory.as_ref().map_or(0, |list| list.entries.len()),
            _ => 0,
        };
        self.answer(call, answer);
        bytes + COST_ENTRY * entries as u64
    }

    /// Has a page of a list made beside the core. Gives what that costs here.
    fn say_list(&mut self, call: CallId, list: List) -> u64 {
        /// As much as a page of a thousand: what the master knows of each was looked up.
        const COST_LIST: u64 = 64 << 10;
        self.outputs.push_back(Output::List { call, list });
        COST_LIST
    }

    pub(crate) fn answer(&mut self, call: CallId, answer: Result<CallAnswer, client::Refusal>) {
        self.outputs.push_back(Output::Answer { call, answer });
    }
}
