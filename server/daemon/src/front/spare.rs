//! KeepAlives that come past their session's stream, by another connection.
//!
//! A stream whose connection loses packets may have seconds' worth of other frames before a KeepAlive. Its client then
//! sends the KeepAlive here too; it is handed to the core as if it had come by the stream, and whichever answer is
//! first counts. Invariant: only who began a stream, and the same principal, can extend a lease past it; and no longer
//! than the stream lasts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_proto::client::STREAM_KEY;
use holdfast_proto::client::v1::{ClientFrame, ExtendLeaseRequest, LeaseGranted, RefusalCode};
use holdfast_replica::{Asked, Input};
use holdfast_types::{ConnectionId, Duration, Principal};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::metadata::AsciiMetadataValue;

use super::leases::Leases;
use super::refusal::refused;
use super::{Front, SPARES_MAX, SPARES_PER_CONNECTION_MAX, overloaded};
use crate::driver::CoreInput;

/// An answer that takes longer is of no use: by then the client holds its stream to be dead. All that an answer waits for
/// counts, also what the replica has to do before.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How many characters the name of a stream has. One that is shorter could be guessed.
const NAME_MIN: usize = 16;
const NAME_MAX: usize = 64;

/// The name that a client gives its stream.
pub(super) fn stream_name(value: &AsciiMetadataValue) -> Result<String, Status> {
    match value.to_str() {
        Ok(name) if (NAME_MIN..=NAME_MAX).contains(&name.len()) => Ok(name.to_owned()),
        _ => {
            let message =
                format!("{STREAM_KEY}: {NAME_MIN} to {NAME_MAX} characters of ASCII that nobody can guess");
            Err(refused(RefusalCode::Invalid, message))
        }
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
    /// A stream begins, under a name of its client's choice.
    pub(super) fn register(
        self: &Arc<Self>,
        name: String,
        connection: ConnectionId,
        principal: Principal,
        leases: Leases,
    ) -> Registered {
        let key = (principal, name);
        self.lock().insert(key.clone(), Spare { connection, leases });
        Registered { spares: Arc::clone(self), key, connection }
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
    /// Has the core answer a KeepAlive as if it had come by the stream. `turns` are those of the connection that it comes
    /// by.
    pub(super) async fn extend_lease_of(
        &self,
        principal: Principal,
        turns: &Semaphore,
        request: ExtendLeaseRequest,
    ) -> Result<LeaseGranted, Status> {
        const WHAT: &str = "KeepAlives past their streams";
        let own = format!("{WHAT} by this connection");
        let _turn = turns.try_acquire().map_err(|_| overloaded(&own, SPARES_PER_CONNECTION_MAX))?;
        let _permit = self.spares.unanswered.try_acquire().map_err(|_| overloaded(WHAT, SPARES_MAX))?;
        let answer = tokio::time::timeout(ANSWER_MAX, self.ask_past_stream(principal, request)).await;
        answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("the KeepAlive has no answer")))
    }

    async fn ask_past_stream(
        &self,
        principal: Principal,
        request: ExtendLeaseRequest,
    ) -> Result<LeaseGranted, Status> {
        let superseded = |why| refused(RefusalCode::Superseded, why);
        let core = self.core()?;
        let ExtendLeaseRequest { stream, keep_alive, notices_through } = request;
        let missing = || refused(RefusalCode::Invalid, "there is no KeepAlive: set keep_alive");
        let keep_alive = keep_alive.ok_or_else(missing)?;
        let spare = self.spares.find(stream, principal.clone());
        let Spare { connection, leases } = spare.ok_or_else(no_stream)?;
        let mut answered = match leases.ask(keep_alive.number) {
            (Asked::Granted(lease), _) => return Ok(lease),
            (Asked::Unattached, _) => return Err(no_stream()),
            (_, Some(answered)) => answered,
            (_, None) => return Err(superseded("a later KeepAlive came")),
        };
        // Whoever waits must not keep the stream's end from being seen.
        drop(leases);
        let frame = ClientFrame { keep_alive: Some(keep_alive), notices_through, ..ClientFrame::default() };
        // Sessions live by it, and it is small.
        let charge = self.burden.account(&principal).charge_anyway(size_of::<ClientFrame>());
        let handing = async {
            // The stream may end before the core takes this: then it concerns nobody there.
            core.send(CoreInput::Replica(Input::Frame { connection, principal, frame, charge })).await
        };
        let lease = tokio::select! {
            // Nobody waits for the core if somebody else has asked meanwhile.
            biased;
            lease = &mut answered => lease,
            handed = handing => {
                handed.map_err(|_| refused(RefusalCode::NotMaster, "this replica is stopping: try another one"))?;
                answered.await
            }
        };
        match lease {
            // The same question, asked again, takes the place of this one.
            Err(_) => Err(superseded("the stream is gone, or the KeepAlive came again")),
            Ok(lease) if lease.number != keep_alive.number => {
                Err(superseded("a later KeepAlive was answered"))
            }
            Ok(lease) if lease.lease_ms == 0 => {
                Err(Status::failed_precondition("the lease is not extended: the stream says why"))
            }
            Ok(lease) => Ok(lease),
        }
    }
}

fn no_stream() -> Status {
    refused(RefusalCode::UnknownSession, "there is no stream of that name that serves a session")
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::client::v1::KeepAlive;
    use tokio::sync::{mpsc, oneshot, watch};
    use tonic::Code;

    use crate::front::Phase;
    use crate::front::leases::testing::{attached, granted, lease};
    use crate::logging::testing::Lines;
    use crate::peers::{Greeter, PeerBook};
    use holdfast_proto::client::REFUSAL_KEY;

    const NAME: &str = "0123456789abcdef";

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
    fn a_name_that_could_be_guessed_is_refused_and_so_is_one_that_is_long() {
        let named = |name: &str| stream_name(&AsciiMetadataValue::try_from(name).unwrap());
        assert_eq!(named(NAME).unwrap(), NAME);
        for name in [String::new(), "x".repeat(NAME_MIN - 1), "x".repeat(NAME_MAX + 1), "\u{fc}".repeat(9)] {
            let refused = named(&name).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            let message = "holdfast-stream: 16 to 64 characters of ASCII that nobody can guess";
            assert_eq!(refused.message(), message);
            assert_eq!(refused.metadata().get(REFUSAL_KEY).unwrap(), "INVALID");
        }
    }

    /// A front, one stream of which has a name, and the core's queue, which takes one input.
    struct Fixture {
        front: Front,
        leases: Leases,
        core: mpsc::Receiver<CoreInput>,
        _stream: Registered,
        _phase: watch::Sender<Phase>,
    }

    fn fixture(leases: Leases) -> Fixture {
        let (queue, core) = mpsc::channel(1);
        let (phase, phases) = watch::channel(Phase::Serving(queue));
        let book = Arc::new(PeerBook::new(Default::default(), None, None));
        let front = Front::new(phases, Arc::new(Greeter(book)), Lines::default().logger());
        let (name, principal) = (NAME.to_owned(), Principal::anonymous());
        let stream = front.spares.register(name, ConnectionId(1), principal, leases.clone());
        Fixture { front, leases, core, _stream: stream, _phase: phase }
    }

    async fn extend(front: &Front, turns: &Semaphore, number: u64) -> Result<LeaseGranted, Status> {
        let keep_alive = Some(KeepAlive { number });
        let request = ExtendLeaseRequest { stream: NAME.to_owned(), keep_alive, notices_through: 0 };
        front.extend_lease_of(Principal::anonymous(), turns, request).await
    }

    fn turns() -> Semaphore {
        Semaphore::new(SPARES_PER_CONNECTION_MAX)
    }

    #[tokio::test]
    async fn a_stream_that_serves_no_session_is_not_found_and_costs_the_core_nothing() {
        let mut fixture = fixture(Leases::default());
        let refused = extend(&fixture.front, &turns(), 1).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert_eq!(refused.metadata().get(REFUSAL_KEY).unwrap(), "UNKNOWN_SESSION");
        assert!(fixture.core.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_keep_alive_is_answered_by_what_is_said_on_the_stream() {
        let mut fixture = fixture(attached());
        let turns = turns();
        let master = async {
            let input = fixture.core.recv().await;
            let Some(CoreInput::Replica(Input::Frame { connection, frame, .. })) = input else {
                panic!("a frame is handed in")
            };
            assert_eq!((connection, frame.keep_alive), (ConnectionId(1), Some(KeepAlive { number: 1 })));
            fixture.leases.tell(&granted(1));
        };
        let (extended, ()) = tokio::join!(extend(&fixture.front, &turns, 1), master);
        assert_eq!(extended.unwrap(), lease(1));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_core_that_takes_nothing_gives_its_places_back_in_time() {
        let fixture = fixture(attached());
        let Phase::Serving(core) = fixture.front.phase.borrow().clone() else { unreachable!("it serves") };
        core.try_send(CoreInput::Status { with_state: false, reply: oneshot::channel().0 }).unwrap();
        let (begun, turns) = (tokio::time::Instant::now(), turns());
        let late = extend(&fixture.front, &turns, 1).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded);
        assert_eq!(begun.elapsed().as_secs(), ANSWER_MAX.as_secs());
        let left = (turns.available_permits(), fixture.front.spares.unanswered.available_permits());
        assert_eq!(left, (SPARES_PER_CONNECTION_MAX, SPARES_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_any_more_for_whom_the_same_was_asked_again() {
        let fixture = fixture(attached());
        let Phase::Serving(core) = fixture.front.phase.borrow().clone() else { unreachable!("it serves") };
        core.try_send(CoreInput::Status { with_state: false, reply: oneshot::channel().0 }).unwrap();
        let turns = turns();
        let mut first = Box::pin(extend(&fixture.front, &turns, 1));
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(extend(&fixture.front, &turns, 1));
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(first.await.unwrap_err().code(), Code::Aborted, "though it was not handed in");
    }

    #[tokio::test]
    async fn one_connection_takes_no_more_than_its_share_and_all_together_no_more_than_there_is() {
        let fixture = fixture(attached());
        let (own, others) = (turns(), turns());
        let taken = own.try_acquire_many(SPARES_PER_CONNECTION_MAX as u32).unwrap();
        let refused = extend(&fixture.front, &own, 1).await.unwrap_err();
        assert_eq!(refused.metadata().get(REFUSAL_KEY).unwrap(), "OVERLOADED");
        assert!(refused.message().contains("by this connection"), "{refused}");
        assert!(futures::poll!(Box::pin(extend(&fixture.front, &others, 1))).is_pending());
        drop(taken);

        let _taken = fixture.front.spares.unanswered.try_acquire_many(SPARES_MAX as u32).unwrap();
        let refused = extend(&fixture.front, &own, 1).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(!refused.message().contains("by this connection"), "{refused}");
    }
}
