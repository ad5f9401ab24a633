//! Unary calls: the simple things, for clients without a session. Reads wait for a round, writes for their
//! command.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::{self as client, Outcome, RefusalCode, outcome};
use holdfast_proto::log::v1::command::Kind;
use holdfast_state::State;

use crate::interface::{CallAnswer, CallId, CallRequest, Output};
use crate::{Master, Waiter, refusal};

/// Calls whose command is proposed, by its tag.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    proposed: BTreeMap<u64, CallId>,
}

impl Calls {
    pub(crate) fn into_ids(self) -> Vec<CallId> {
        self.proposed.into_values().collect()
    }
}

impl Master {
    pub(crate) fn handle_call(&mut self, call: CallId, request: CallRequest) {
        match request {
            CallRequest::SetContents(write) => self.propose_call(call, Kind::SetContents(write)),
            CallRequest::Delete(delete) => self.propose_call(call, Kind::Delete(delete)),
            CallRequest::ChangeSettings(settings) => self.propose_call(call, Kind::ChangeSettings(settings)),
            CallRequest::AddMember(_) | CallRequest::PromoteMember(_) | CallRequest::RemoveMember(_) => {
                let message = "membership is changed by the replica, not by the master";
                self.answer(call, Err(refusal(RefusalCode::Protocol, message)));
            }
            read => self.rounds.wait(Waiter::Call { call, request: read }),
        }
    }

    fn propose_call(&mut self, call: CallId, kind: Kind) {
        let tag = self.propose(kind);
        self.calls.proposed.insert(tag, call);
    }

    /// A command without a session was applied.
    pub(crate) fn handle_decided(&mut self, state: &State, tag: u64, outcome: Outcome) {
        let Some(call) = self.calls.proposed.remove(&tag) else { return };
        let revision = outcome.revision;
        let answer = match outcome.result {
            Some(outcome::Result::Written(written)) => {
                Ok(CallAnswer::SetContents(client::SetContentsResponse { written: Some(written), revision }))
            }
            Some(outcome::Result::Deleted(_)) => Ok(CallAnswer::Delete(client::DeleteResponse { revision })),
            Some(outcome::Result::Refusal(refusal)) => Err(refusal),
            // A change of the settings has no result of its own: they are in the state.
            _ => Ok(CallAnswer::Settings(state.settings().clone())),
        };
        self.answer(call, answer);
    }

    /// A round has confirmed a unary read.
    pub(crate) fn answer_call(&mut self, state: &State, call: CallId, request: &CallRequest) {
        let (revision, anyone) = (state.revision().0, holdfast_types::Principal::anonymous());
        let answer = match request {
            CallRequest::GetContents(read) => state.read_contents(&anyone, &read.path).map(|contents| {
                CallAnswer::GetContents(client::GetContentsResponse { contents: Some(contents), revision })
            }),
            CallRequest::GetStat(read) => state
                .read_stat(&anyone, &read.path)
                .map(|stat| CallAnswer::GetStat(client::GetStatResponse { stat: Some(stat), revision })),
            CallRequest::ReadDir(read) => {
                state.read_dir(&anyone, &read.path, &read.after, read.limit).map(|directory| {
                    CallAnswer::ReadDir(client::ReadDirResponse { directory: Some(directory), revision })
                })
            }
            CallRequest::CheckSequencer(check) => state.check_sequencer(&check.sequencer).map(|valid| {
                let (valid, reason) = match valid {
                    Ok(()) => (true, String::new()),
                    Err(reason) => (false, reason),
                };
                CallAnswer::CheckSequencer(client::CheckSequencerResponse { valid, reason, revision })
            }),
            CallRequest::GetSettings => Ok(CallAnswer::Settings(state.settings().clone())),
            change => Err(refusal(RefusalCode::Protocol, format!("{change:?} is no read"))),
        };
        self.answer(call, answer);
    }

    fn answer(&mut self, call: CallId, answer: Result<CallAnswer, client::Refusal>) {
        self.outputs.push_back(Output::Answer { call, answer });
    }
}
