//! What comes in, before it is decoded: the outermost layer of the services.
//!
//! Takes bodies off HTTP/2 as they arrive ([`inbound`](super::inbound)), so that HTTP/2 holds nothing for long: its library
//! closes a connection on which too many small frames wait, and with it the streams of all clients that share it. Counts them
//! in the ledger, so that a message that stops half-way is counted too, and lets it stop for so long and no longer. Lets only
//! so many unary calls of one connection be under way; more wait for their turn, and are counted while they wait.
//! Administrators' calls have turns of their own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use holdfast_proto::client::v1::RefusalCode;
use holdfast_types::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::burden::Burden;
use super::conform;
use super::inbound::{Counted, Kind, Till};
use super::refusal::{refused, told_late};
use crate::socket::Caller;

/// The most unary calls of one connection that are under way, not counting those of the service `Admin`.
pub(crate) const CALLS_PER_CONNECTION_MAX: usize = 64;
/// The most calls of the service `Admin`, likewise.
pub(crate) const ADMIN_CALLS_PER_CONNECTION_MAX: usize = 16;
/// So many session streams of one connection wait for room where the ledger is full, each with a window of bytes that no
/// charge stands for.
pub(crate) const WAITING_PER_CONNECTION_MAX: usize = 64;
/// A call waits no longer for its turn.
const TURN_MAX: Duration = Duration::from_secs(10);

const SESSION_PATH: &str = "/holdfast.client.v1.Cell/Session";
/// It has limits of its own, and sessions live by it.
const EXTEND_LEASE_PATH: &str = "/holdfast.client.v1.Cell/ExtendLease";
const ADMIN_PATHS: &str = "/holdfast.client.v1.Admin/";

/// A call's turn on its connection: an extension of its request. It ends when nothing of the call is left.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Until when the caller of a unary call waits, less what the way back takes: an extension of its request, if it has said so.
/// Counted from when its call came, and not from when all of it was there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until(pub(crate) Instant);

/// Wraps services.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    /// What is counted, and where.
    pub(super) burden: Burden,
}

/// A service whose requests are counted.
#[derive(Clone, Debug)]
pub(crate) struct Counting<S> {
    inner: S,
    burden: Burden,
}

impl<S> Layer<S> for Intake {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting { inner, burden: self.burden.clone() }
    }
}

impl<S> Service<Request<Body>> for Counting<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // What is ready is this one and not its clone.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let caller = request.extensions().get::<Caller>().cloned();
        let account = caller.as_ref().and_then(|caller| self.burden.account_of(caller));
        // Whoever has not proved a name is refused by the handler, which reads nothing.
        let (Some(caller), Some(account)) = (caller, account) else { return Box::pin(inner.call(request)) };
        let until = conform::patience(request.headers()).map(|waits| Instant::now() + waits);
        let path = request.uri().path();
        let turns = match path {
            SESSION_PATH | EXTEND_LEASE_PATH => None,
            path if path.starts_with(ADMIN_PATHS) => Some(Arc::clone(&caller.admin_calls)),
            _ => Some(Arc::clone(&caller.calls)),
        };
        let kind = if path == SESSION_PATH { Kind::Frames } else { Kind::Call };
        let till = Till { account, room: self.burden.room(), waiting: Arc::clone(&caller.waiting) };
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let body = Counted::new(body, kind, till);
            let is_call = turns.is_some();
            until.map(|until| parts.extensions.insert(Until(until)));
            if let Some(turns) = turns {
                let turn = tokio::select! {
                    biased;
                    turn = turn(turns) => turn,
                    refused = body.overfull() => Err(refused),
                };
                match turn {
                    Ok(turn) => drop(parts.extensions.insert(turn)),
                    Err(refused) => return Ok(told_late(refused.into_http(), until).await),
                }
            }
            let answer = inner.call(Request::from_parts(parts, Body::new(body))).await?;
            Ok(if is_call { told_late(answer, until).await } else { answer })
        })
    }
}

async fn turn(turns: Arc<Semaphore>) -> Result<Turn, Status> {
    let permit = tokio::time::timeout(TURN_MAX, turns.acquire_owned()).await;
    let overloaded = |_| {
        let message =
            "too many calls of this connection are under way already, and none of them ended: try later";
        refused(RefusalCode::Overloaded, message)
    };
    // The turns of a connection are never closed.
    let permit = permit.map_err(overloaded)?.map_err(|_| Status::internal("the connection is gone"))?;
    Ok(Turn { _permit: Arc::new(permit) })
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;
    use crate::front::burden::LEDGER_LIMITS;
    use crate::guests::{Guests, Places};
    use crate::tls::Presented;

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_so_many_turns_and_a_call_waits_for_one_in_vain_only_so_long() {
        let turns = Arc::new(Semaphore::new(1));
        let first = turn(Arc::clone(&turns)).await.unwrap();
        let refused = turn(Arc::clone(&turns)).await.unwrap_err();
        assert!(refused.message().contains("this connection"), "{refused}");
        let (second, ()) = tokio::join!(turn(turns), async { drop(first) });
        assert!(second.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_callers_deadline_counts_from_when_its_call_came_and_not_from_its_turn() {
        let guests = Guests::new(Places { arriving: 1, settled: 1 });
        let (seat, _) = guests.arrive(([127, 0, 0, 1], 1).into());
        let calls = Arc::new(Semaphore::new(1));
        let turns = |max| Arc::new(Semaphore::new(max));
        let caller = Caller {
            presented: Presented::Open,
            visit: seat.visit(),
            past_streams: turns(1),
            calls: Arc::clone(&calls),
            admin_calls: turns(1),
            waiting: turns(1),
            account: Arc::default(),
        };
        let earlier = calls.acquire_owned().await.unwrap();
        let service = tower::service_fn(|request: Request<Body>| {
            let mut answer = Response::new(Body::empty());
            *answer.extensions_mut() = request.extensions().clone();
            std::future::ready(Ok::<_, std::convert::Infallible>(answer))
        });
        let mut request = Request::post("/holdfast.client.v1.Cell/GetStat");
        request = request.header("grpc-timeout", "8S").extension(caller);
        let begun = Instant::now();
        let service = Intake { burden: Burden::new(LEDGER_LIMITS) }.layer(service);
        let (answer, ()) = tokio::join!(service.oneshot(request.body(Body::empty()).unwrap()), async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(earlier);
        });
        assert_eq!(begun.elapsed(), Duration::from_secs(3), "it had to wait for its turn");
        let Until(until) = *answer.unwrap().extensions().get::<Until>().unwrap();
        assert_eq!(until - begun, Duration::from_millis(7_800));
    }
}
