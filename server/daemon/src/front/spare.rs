//! KeepAlives that come past their session's stream, by another connection.
//!
//! A stream whose connection loses packets may have seconds' worth of other frames before a KeepAlive. Its client then
//! sends the KeepAlive here too; it is handed to the core as if it had come by the stream, and whichever answer is
//! first counts. Invariant: only who began a stream, and the same principal, can extend a lease past it; and no longer
//! than the stream lasts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_proto::client::v1::{ClientFrame, ExtendLeaseRequest, LeaseGranted};
use holdfast_replica::{Asked, Input, PastStream};
use holdfast_types::{ConnectionId, Duration, Principal};
use tokio::sync::{Semaphore, oneshot};
use tonic::Status;

use super::{Front, SPARES_MAX, overloaded, stopping};
use crate::driver::CoreInput;

/// An answer that takes longer is of no use: by then the client holds its stream to be dead.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How many characters the name of a stream has. One that is shorter could be guessed.
const NAME_MIN: usize = 16;
const NAME_MAX: usize = 64;

/// What is granted on one stream, for whoever waits for it elsewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    past: PastStream,
    /// Who asks. Dropped when somebody else does, and when the stream is gone.
    asker: Option<oneshot::Sender<LeaseGranted>>,
}

impl Leases {
    /// An answer to a KeepAlive goes out by the stream.
    pub(crate) fn tell(&self, lease: LeaseGranted) {
        let mut waiting = self.lock();
        if let Some(lease) = waiting.past.answered(lease)
            && let Some(asker) = waiting.asker.take()
        {
            // Whoever has given up need not be told.
            let _ = asker.send(lease);
        }
    }

    /// A KeepAlive comes past the stream; and if it is new, where it will be answered.
    fn ask(&self, number: u64) -> (Asked, Option<oneshot::Receiver<LeaseGranted>>) {
        let mut waiting = self.lock();
        let asked = waiting.past.ask(number);
        let answered = (asked == Asked::New).then(|| {
            let (asker, answered) = oneshot::channel();
            waiting.asker = Some(asker);
            answered
        });
        (asked, answered)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic half-way changes it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The streams that can be named, by their names. Nobody comes into the way of another principal's.
#[derive(Debug)]
pub(super) struct Spares {
    streams: Mutex<HashMap<(Principal, String), Spare>>,
    unanswered: Semaphore,
}

impl Default for Spares {
    fn default() -> Self {
        Self { streams: Mutex::default(), unanswered: Semaphore::new(SPARES_MAX) }
    }
}

#[derive(Clone, Debug)]
struct Spare {
    connection: ConnectionId,
    leases: Leases,
}

/// The stream can be named for as long as this value lives.
pub(super) struct Registered {
    spares: Arc<Spares>,
    key: (Principal, String),
    connection: ConnectionId,
}

impl Spares {
    /// A stream begins, under a name of its client's choice. `None` if that is no name.
    pub(super) fn register(
        self: &Arc<Self>,
        name: String,
        connection: ConnectionId,
        principal: Principal,
        leases: Leases,
    ) -> Option<Registered> {
        if !(NAME_MIN..=NAME_MAX).contains(&name.len()) {
            return None;
        }
        let key = (principal, name);
        self.lock().insert(key.clone(), Spare { connection, leases });
        Some(Registered { spares: Arc::clone(self), key, connection })
    }

    fn find(&self, name: String, principal: Principal) -> Option<Spare> {
        self.lock().get(&(principal, name)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Principal, String), Spare>> {
        // Nothing that can panic half-way changes the map.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut spares = self.spares.lock();
        // Another stream may have taken the name.
        if spares.get(&self.key).is_some_and(|spare| spare.connection == self.connection) {
            spares.remove(&self.key);
        }
    }
}

impl Front {
    /// Has the core answer a KeepAlive as if it had come by the stream.
    pub(super) async fn extend_lease_of(
        &self,
        principal: Principal,
        request: ExtendLeaseRequest,
    ) -> Result<LeaseGranted, Status> {
        let core = self.core()?;
        let unanswered = self.spares.unanswered.try_acquire();
        let _permit = unanswered.map_err(|_| overloaded("KeepAlives past their streams", SPARES_MAX))?;
        let ExtendLeaseRequest { stream, keep_alive, notices_through } = request;
        let keep_alive = keep_alive.ok_or_else(|| Status::invalid_argument("there is no KeepAlive"))?;
        let spare = self.spares.find(stream, principal.clone());
        let Spare { connection, leases } =
            spare.ok_or_else(|| Status::not_found("there is no such stream"))?;
        let answered = match leases.ask(keep_alive.number) {
            (Asked::Granted(lease), _) => return Ok(lease),
            (_, Some(answered)) => answered,
            (_, None) => return Err(Status::aborted("a later KeepAlive came")),
        };
        // Whoever waits must not keep the stream's end from being seen.
        drop(leases);
        let frame = ClientFrame { keep_alive: Some(keep_alive), notices_through, ..ClientFrame::default() };
        let waits = self.burden.frame(&frame).await;
        // The stream may end before the core takes this: then it concerns nobody there.
        let input = Input::Frame { connection, principal, frame };
        core.send(CoreInput::Frame(input, waits)).await.map_err(|_| stopping())?;
        match tokio::time::timeout(ANSWER_MAX, answered).await {
            // The same question, asked again, takes the place of this one.
            Ok(Err(_)) => Err(Status::aborted("the stream is gone, or the KeepAlive came again")),
            Ok(Ok(lease)) if lease.number != keep_alive.number => {
                Err(Status::aborted("a later KeepAlive was answered"))
            }
            Ok(Ok(lease)) if lease.lease_ms == 0 => {
                Err(Status::failed_precondition("the lease is not extended: the stream says why"))
            }
            Ok(Ok(lease)) => Ok(lease),
            Err(_) => Err(Status::deadline_exceeded("the KeepAlive has no answer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const NAME: &str = "0123456789abcdef";

    fn lease(number: u64) -> LeaseGranted {
        LeaseGranted { number, lease_ms: 12_000 }
    }

    #[test]
    fn a_stream_is_found_by_its_own_principal_until_it_ends_and_no_longer() {
        let spares = Arc::<Spares>::default();
        let (alice, bob) = (Principal::parse("alice").unwrap(), Principal::parse("bob").unwrap());
        let register = |name: &str, principal: &Principal, connection| {
            let connection = ConnectionId(connection);
            spares.register(name.to_owned(), connection, principal.clone(), Leases::default())
        };
        let find = |name: &str, principal: &Principal| {
            spares.find(name.to_owned(), principal.clone()).map(|spare| spare.connection.0)
        };
        let first = register(NAME, &alice, 1);
        assert_eq!((find(NAME, &alice), find(NAME, &bob)), (Some(1), None));
        let others = register(NAME, &bob, 2);
        assert_eq!((find(NAME, &alice), find(NAME, &bob)), (Some(1), Some(2)), "the same name is another's");
        let second = register(NAME, &alice, 3);
        drop(first);
        assert_eq!(find(NAME, &alice), Some(3), "the stream that came later has the name");
        drop((second, others));
        assert!(spares.lock().is_empty());
    }

    #[test]
    fn a_name_that_could_be_guessed_is_none_and_nor_is_one_that_is_long() {
        let spares = Arc::<Spares>::default();
        for name in [String::new(), "x".repeat(NAME_MIN - 1), "x".repeat(NAME_MAX + 1)] {
            let registered =
                spares.register(name, ConnectionId(1), Principal::anonymous(), Leases::default());
            assert!(registered.is_none() && spares.lock().is_empty());
        }
    }

    #[test]
    fn one_waits_at_a_time_and_hears_of_the_answer_or_that_nobody_will_answer() {
        let leases = Leases::default();
        let (asked, first) = leases.ask(1);
        assert_eq!(asked, Asked::New);
        let (_, again) = leases.ask(1);
        assert!(first.unwrap().now_or_never().unwrap().is_err(), "the later one is answered");
        leases.tell(lease(1));
        assert_eq!(again.unwrap().now_or_never().unwrap(), Ok(lease(1)));
        assert!(matches!(leases.ask(1), (Asked::Granted(copy), None) if copy == lease(1)));
        let (_, waiting) = leases.ask(2);
        drop(leases);
        assert!(waiting.unwrap().now_or_never().unwrap().is_err(), "the stream is gone");
    }
}
