//! The service `Cell`: the session stream, and the unary calls that need no session.

use std::sync::Arc;

use holdfast_proto::client::STREAM_KEY;
use holdfast_proto::client::v1 as client;
use holdfast_proto::client::v1::RefusalCode;
use holdfast_proto::client::v1::cell_server::Cell;
use holdfast_replica::{CallAnswer, CallRequest, Input};
use holdfast_state::State;
use holdfast_types::Principal;
use holdfast_types::ledger::{Account, Charge};
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tonic::{Request, Response, Status, Streaming};

use super::burden::{Place, copy};
use super::intake::{Turn, Until};
use super::refusal::{refused, status_of};
use super::serving::StreamEnd;
use super::session::SessionFrames;
use super::spare::stream_name;
use super::{Front, HASHES_MAX, abandoned, overloaded, stopping};
use crate::driver::{Call, CoreInput, next_call};
use crate::guests::{UnderWay, Visit};
use crate::socket::Caller;

impl Front {
    /// Has the core answer a call, which has so many bytes. It is withdrawn a little before its caller's deadline, so that
    /// a caller whose call only waits learns that it had no effect. Dropping the future does not withdraw it.
    pub(super) async fn call(
        &self,
        asker: &Asker,
        mut request: CallRequest,
        bytes: usize,
    ) -> Result<CallAnswer, Status> {
        let core = self.core()?;
        let principal = asker.principal.clone();
        let charge = self.burden.call(&self.account_of(asker), bytes)?;
        let places = if is_of_administrators(&request) { &self.admin_calls } else { &self.calls };
        let place = places.take(&principal)?;
        if let CallRequest::SetContents(write) = &mut request {
            copy(&mut write.contents);
        }
        let (reply, answered) = oneshot::channel();
        let permit = Some(CallPermit { _place: place, _charge: charge, _turn: asker.turn.clone() });
        // The permit stays with the core until it has answered: a caller that gives up frees nothing there.
        let socket = asker.visit.socket();
        let call = next_call();
        let asked = CoreInput::Call(Call { call, principal, socket, request, reply, permit });
        core.send(asked).await.map_err(|_| stopping())?;
        let reply = match asker.until {
            None => answered.await,
            Some(Until(until)) => {
                let mut answered = answered;
                match tokio::time::timeout_at(until, &mut answered).await {
                    Ok(reply) => reply,
                    Err(_) => {
                        let withdrawal = CoreInput::Replica(Input::Withdraw { call });
                        core.send(withdrawal).await.map_err(|_| abandoned())?;
                        answered.await
                    }
                }
            }
        };
        let reply = reply.map_err(|_| abandoned())?;
        reply.answer.map_err(|refusal| status_of(&refusal, &reply.master_address))
    }

    pub(super) fn account_of(&self, asker: &Asker) -> Account {
        let known = asker.account.clone();
        known.unwrap_or_else(|| self.burden.account(&asker.principal))
    }

    /// Waits for the turn to hash the state, with few others: one caller has it at a time, and no call of another kind
    /// waits for them.
    async fn hash_turn(&self) -> Result<OwnedSemaphorePermit, Status> {
        let waits = self.hashes.try_acquire();
        let _waits = waits.map_err(|_| overloaded("callers that ask for the state's hash", HASHES_MAX))?;
        Arc::clone(&self.hashing).acquire_owned().await.map_err(|_| stopping())
    }
}

/// Hashes a state, and frees it if it is the last copy, on a thread for things that take long. The turn ends with it,
/// also if the caller has left.
async fn hash(state: State, turn: Option<OwnedSemaphorePermit>) -> Result<u64, Status> {
    let hashed = tokio::task::spawn_blocking(move || {
        let hash = state.hash();
        drop((state, turn));
        hash
    });
    hashed.await.map_err(|error| Status::internal(error.to_string()))
}

/// Whom a request comes from.
pub(super) fn caller<M>(request: &Request<M>) -> Result<&Caller, Status> {
    // Every connection that comes by a door has the extension.
    let caller = request.extensions().get::<Caller>();
    caller.ok_or_else(|| Status::internal("the connection does not say who made it"))
}

/// Who has made a request, as far as the connection that it came by proves.
pub(super) fn principal<M>(request: &Request<M>) -> Result<Principal, Status> {
    let caller = caller(request)?;
    caller.presented.principal().map_err(|why| refused(RefusalCode::PermissionDenied, why))
}

/// What a unary call counts in for as long as it has no answer.
#[derive(Debug)]
pub(crate) struct CallPermit {
    /// Among all calls, and its principal's.
    _place: Place,
    /// Its bytes.
    _charge: Charge,
    /// Its turn on its connection, also if its caller has given up: cancelling calls makes room for no more of them.
    _turn: Option<Turn>,
}

/// Who has made a request, which is under way for as long as this lives.
pub(super) struct Asker {
    pub(super) principal: Principal,
    pub(super) visit: Visit,
    /// Ends its stream.
    pub(super) stream: StreamEnd,
    /// What its connection is charged in.
    account: Option<Account>,
    /// Until when it waits; `None` if it has said nothing.
    until: Option<Until>,
    /// Its turn on its connection.
    turn: Option<Turn>,
    _under_way: UnderWay,
}

/// Who has made a request.
pub(super) fn asker<M>(request: &Request<M>) -> Result<Asker, Status> {
    let (principal, caller) = (principal(request)?, caller(request)?);
    Ok(Asker {
        principal,
        visit: caller.visit.clone(),
        stream: request.extensions().get::<StreamEnd>().cloned().unwrap_or_default(),
        account: caller.account.get().cloned(),
        until: request.extensions().get::<Until>().copied(),
        turn: request.extensions().get::<Turn>().cloned(),
        _under_way: caller.visit.begin(),
    })
}

/// Whether a call has the places of those that administer the cell.
fn is_of_administrators(request: &CallRequest) -> bool {
    match request {
        CallRequest::GetContents(_)
        | CallRequest::GetStat(_)
        | CallRequest::ReadDir(_)
        | CallRequest::SetContents(_)
        | CallRequest::Delete(_)
        | CallRequest::CheckSequencer(_)
        | CallRequest::SetAcl(_) => false,
        CallRequest::GetSettings
        | CallRequest::ChangeSettings(_)
        | CallRequest::ListSessions(_)
        | CallRequest::KillSession(_)
        | CallRequest::ExpireSession(_)
        | CallRequest::ListHandles(_)
        | CallRequest::AddMember(_)
        | CallRequest::PromoteMember(_)
        | CallRequest::ListUsage(_)
        | CallRequest::RemoveMember(_) => true,
    }
}

/// The core answers a call with its own kind of answer, or there is a defect.
pub(super) fn mismatched(answer: &CallAnswer) -> Status {
    Status::internal(format!("the core gave an answer of another kind: {answer:?}"))
}

/// Forwards one unary call, and takes the answer of its kind.
macro_rules! forward {
    ($front:expr, $request:expr, $kind:ident) => {{
        // While it waits for the core, its connection is in use.
        let asker = asker(&$request)?;
        let bytes = $request.get_ref().encoded_len();
        match $front.call(&asker, CallRequest::$kind($request.into_inner()), bytes).await? {
            CallAnswer::$kind(response) => {
                $front.burden.answer(&$front.account_of(&asker), &asker.stream, response)
            }
            other => Err(mismatched(&other)),
        }
    }};
}
pub(super) use forward;

#[tonic::async_trait]
impl Cell for Front {
    type SessionStream = SessionFrames;

    async fn session(
        &self,
        request: Request<Streaming<client::ClientFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let name = request.metadata().get(STREAM_KEY).map(stream_name).transpose()?;
        let asker = asker(&request)?;
        self.begin_session(asker, name, request.into_inner()).await
    }

    async fn extend_lease(
        &self,
        request: Request<client::ExtendLeaseRequest>,
    ) -> Result<Response<client::LeaseGranted>, Status> {
        let turns = Arc::clone(&caller(&request)?.past_streams);
        let Asker { principal, _under_way, .. } = asker(&request)?;
        self.extend_lease_of(principal, &turns, request.into_inner()).await.map(Response::new)
    }

    async fn status(
        &self,
        request: Request<client::StatusRequest>,
    ) -> Result<Response<client::StatusResponse>, Status> {
        let Asker { principal, _under_way, .. } = asker(&request)?;
        let with_state = request.get_ref().state_hash;
        // Taken before the state is, so that no more than one old state is kept in memory for this.
        let turn = if with_state { Some(self.hash_turn().await?) } else { None };
        let (reply, answered) = oneshot::channel();
        self.core()?.send(CoreInput::Status { with_state, reply }).await.map_err(|_| stopping())?;
        let (status, state) = answered.await.map_err(|_| stopping())?;
        let state_hash = match state {
            Some(state) => {
                // It is work without an end to whoever asks for it over and over.
                state.may_administer(&principal).map_err(|refusal| status_of(&refusal, ""))?;
                Some(hash(state, turn).await?)
            }
            None => None,
        };
        let (version, principal) = (env!("CARGO_PKG_VERSION").to_owned(), principal.to_string());
        Ok(Response::new(client::StatusResponse { version, principal, state_hash, ..status }))
    }

    async fn get_contents(
        &self,
        request: Request<client::GetContentsRequest>,
    ) -> Result<Response<client::GetContentsResponse>, Status> {
        forward!(self, request, GetContents)
    }

    async fn get_stat(
        &self,
        request: Request<client::GetStatRequest>,
    ) -> Result<Response<client::GetStatResponse>, Status> {
        forward!(self, request, GetStat)
    }

    async fn read_dir(
        &self,
        request: Request<client::ReadDirRequest>,
    ) -> Result<Response<client::ReadDirResponse>, Status> {
        forward!(self, request, ReadDir)
    }

    async fn set_contents(
        &self,
        request: Request<client::SetContentsRequest>,
    ) -> Result<Response<client::SetContentsResponse>, Status> {
        forward!(self, request, SetContents)
    }

    async fn delete(
        &self,
        request: Request<client::DeleteRequest>,
    ) -> Result<Response<client::DeleteResponse>, Status> {
        forward!(self, request, Delete)
    }

    async fn check_sequencer(
        &self,
        request: Request<client::CheckSequencerRequest>,
    ) -> Result<Response<client::CheckSequencerResponse>, Status> {
        forward!(self, request, CheckSequencer)
    }

    async fn set_acl(
        &self,
        request: Request<client::SetAclRequest>,
    ) -> Result<Response<client::SetAclResponse>, Status> {
        forward!(self, request, SetAcl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::Phase;
    use crate::front::burden::CALL_LIMITS;
    use crate::logging::testing::Lines;
    use crate::peers::{Greeter, PeerBook};
    use futures::FutureExt as _;
    use tokio::sync::watch;

    #[tokio::test]
    async fn few_wait_for_the_state_s_hash_and_take_nothing_from_other_calls() {
        let (_phase, phases) = watch::channel(Phase::Stopping);
        let book = Arc::new(PeerBook::new(Default::default(), None, None));
        let front = Front::new(phases, Arc::new(Greeter(book)), Lines::default().logger());
        let turn = front.hash_turn().await.unwrap();
        let mut waiting: Vec<_> = (0..HASHES_MAX).map(|_| Box::pin(front.hash_turn())).collect();
        for waits in &mut waiting {
            assert!(waits.as_mut().now_or_never().is_none(), "its turn comes later");
        }
        let refused = front.hash_turn().now_or_never().expect("it is told at once").unwrap_err();
        assert!(refused.message().contains("hash"), "{refused}");
        assert_eq!(front.calls.available(), CALL_LIMITS.all_max);
        drop(turn);
        assert!(waiting.remove(0).now_or_never().is_some_and(|turn| turn.is_ok()));
    }
}
