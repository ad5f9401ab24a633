//! Lists for operators, made beside the core.
//!
//! A page of a list walks over everything that the state has, in the worst case. So the master, once a round has
//! confirmed it, hands out a clone of the state, which costs nothing, with what it alone knows; whoever performs its
//! outputs makes the page from that, away from the core. Invariant: a page shows the state of one moment between the call
//! and its answer (I5).

use std::collections::BTreeMap;

use holdfast_proto::client::v1 as client;
use holdfast_state::State;
use holdfast_types::SessionId;

use crate::Master;
use crate::unary::CallAnswer;

/// The most sessions of a page.
const PAGE_SESSIONS_MAX: usize = 1000;

/// A page of a list that is yet to be made.
#[derive(Debug)]
pub struct List {
    /// As it was in the turn that took the call up.
    state: State,
    /// What is to be listed.
    of: Listed,
}

/// What is to be listed.
#[derive(Debug)]
enum Listed {
    Handles(client::ListHandlesRequest),
    Usage(client::ListUsageRequest),
    Sessions {
        request: client::ListSessionsRequest,
        /// Of each session of the page: what is left of its lease in milliseconds, and whether it has a stream.
        known: BTreeMap<SessionId, (u32, bool)>,
    },
}

impl List {
    /// Makes the page. Takes as long as the state is large.
    ///
    /// # Errors
    ///
    /// The call asks for what cannot be.
    pub fn answer(&self) -> Result<CallAnswer, client::Refusal> {
        match &self.of {
            Listed::Handles(request) => self.state.list_handles(request).map(CallAnswer::ListHandles),
            Listed::Usage(request) => {
                Ok(CallAnswer::ListUsage(self.state.list_usage(&request.after, request.limit)))
            }
            Listed::Sessions { request, known } => Ok(self.sessions(request, known)),
        }
    }

    fn sessions(
        &self,
        request: &client::ListSessionsRequest,
        known: &BTreeMap<SessionId, (u32, bool)>,
    ) -> CallAnswer {
        let state = &self.state;
        let mut ids = state.sessions_after(SessionId(request.after)).map(|(id, _)| id);
        let infos = ids.by_ref().take(page(request)).filter_map(|id| {
            let (lease_left_ms, attached) = known.get(&id).copied().unwrap_or_default();
            Some(client::SessionInfo { lease_left_ms, attached, ..state.session_info(id)? })
        });
        let sessions = infos.collect();
        let (more, revision) = (ids.next().is_some(), state.revision().0);
        CallAnswer::ListSessions(client::ListSessionsResponse { sessions, more, revision })
    }
}

/// How many sessions a page has.
fn page(request: &client::ListSessionsRequest) -> usize {
    match request.limit {
        0 => PAGE_SESSIONS_MAX,
        limit => PAGE_SESSIONS_MAX.min(limit as usize),
    }
}

impl Master {
    pub(crate) fn list_sessions(&self, state: &State, request: client::ListSessionsRequest) -> List {
        let ids = state.sessions_after(SessionId(request.after)).map(|(id, _)| id).take(page(&request));
        let known = ids.map(|id| {
            let left_ms = self.leases.left(self.now, id).as_millis();
            (id, (u32::try_from(left_ms).unwrap_or(u32::MAX), self.sessions.connection(id).is_some()))
        });
        List { state: state.clone(), of: Listed::Sessions { request, known: known.collect() } }
    }

    pub(crate) fn list_handles(&self, state: &State, request: client::ListHandlesRequest) -> List {
        List { state: state.clone(), of: Listed::Handles(request) }
    }

    pub(crate) fn list_usage(&self, state: &State, request: client::ListUsageRequest) -> List {
        List { state: state.clone(), of: Listed::Usage(request) }
    }
}
