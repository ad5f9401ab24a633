//! What waits for the core, in two lines: what the replicas say to each other and what they need goes first, whatever
//! clients ask for.
//!
//! Each line keeps its order. Of the replicas' line a turn takes everything; of the clients' line fewer inputs while
//! turns take long. A frame that is left may have a KeepAlive in it, so the core is told since when it may wait: no
//! lease that ran out later is taken to be over (design.md §4). A client's end stands in the clients' line, behind its
//! frames: the close of a session that is sent last must not be lost.

use holdfast_replica::Input;
use holdfast_types::{Duration, Time};
use tokio::sync::mpsc;

use crate::clock;
use crate::driver::CoreInput;

/// So many inputs of a line wait for the core before those who bring them have to wait.
pub(crate) const INPUTS_WAITING_MAX: usize = 4_096;
/// A turn takes so many of clients: enough to share a disk write among, few enough that answers do not wait for long.
const CLIENTS_PER_TURN_MAX: usize = 1_024;
/// And never fewer, or it would take many turns until a KeepAlive is heard that stands behind them.
const CLIENTS_PER_TURN_MIN: usize = 64;
/// A turn takes frames until they have so many requests.
const REQUESTS_PER_TURN_MAX: usize = 16 << 10;
/// A turn that takes longer is long: the next one takes fewer of clients' inputs.
const LONG: Duration = Duration::from_millis(20);

/// Both lines, from the core's end.
pub(crate) struct Inputs {
    /// What other replicas say, and what becomes of what this one wanted done.
    replicas: mpsc::Receiver<CoreInput>,
    /// Streams and calls of clients.
    clients: mpsc::Receiver<CoreInput>,
    /// So many of clients' inputs the next turn takes.
    clients_per_turn: usize,
    /// When those of clients came that have been taken.
    heard: Heard,
}

/// What a turn takes.
#[derive(Default)]
pub(crate) struct Taken {
    /// Of the replicas' line.
    pub(crate) replicas: Vec<CoreInput>,
    /// Of the clients' line.
    pub(crate) clients: Vec<CoreInput>,
}

impl Inputs {
    pub(crate) fn new(replicas: mpsc::Receiver<CoreInput>, clients: mpsc::Receiver<CoreInput>) -> Self {
        let heard = Heard { all: clock::now(), mark: None };
        Self { replicas, clients, clients_per_turn: CLIENTS_PER_TURN_MAX, heard }
    }

    /// Waits until something is there. What it takes is in `taken` if the future is dropped, or lost to nobody.
    pub(crate) async fn wait(&mut self, taken: &mut Taken) {
        tokio::select! {
            biased;
            1.. = self.replicas.recv_many(&mut taken.replicas, INPUTS_WAITING_MAX) => {}
            1.. = self.clients.recv_many(&mut taken.clients, 1) => {}
            else => std::future::pending().await,
        }
    }

    /// Takes what is there: of the replicas' line everything, of the clients' as much as a turn should. Gives since
    /// when inputs of clients may wait that are left, if some are. `connections` streams could be at the line's end.
    pub(crate) fn take(&mut self, taken: &mut Taken, connections: usize) -> Option<Time> {
        while let Ok(input) = self.replicas.try_recv() {
            taken.replicas.push(input);
        }
        let mut requests: usize = taken.clients.iter().map(requests_of).sum();
        while taken.clients.len() < self.clients_per_turn
            && requests < REQUESTS_PER_TURN_MAX
            && let Ok(input) = self.clients.try_recv()
        {
            requests += requests_of(&input);
            taken.clients.push(input);
        }
        // Where the line is full, each stream may have one more frame that stands before it.
        let is_full = self.clients.len() >= self.clients.max_capacity();
        let waiting = self.clients.len() + if is_full { connections } else { 0 };
        self.heard.took(clock::now(), taken.clients.len(), waiting)
    }

    /// A turn has taken so long.
    pub(crate) fn turn_took(&mut self, time: Duration) {
        let next = if time > LONG { self.clients_per_turn / 2 } else { self.clients_per_turn * 2 };
        self.clients_per_turn = next.clamp(CLIENTS_PER_TURN_MIN, CLIENTS_PER_TURN_MAX);
    }

    /// No more of clients is taken; gives what is left.
    pub(crate) fn close(&mut self) -> impl Iterator<Item = CoreInput> {
        self.replicas.close();
        self.clients.close();
        std::iter::from_fn(|| self.clients.try_recv().ok())
    }
}

fn requests_of(input: &CoreInput) -> usize {
    match input {
        CoreInput::Replica(Input::Frame { frame, .. }) => frame.requests.len(),
        _ => 0,
    }
}

/// Follows a line from which not everything is taken: everything is taken that came before some moment.
#[derive(Debug)]
struct Heard {
    /// What came before this has been taken.
    all: Time,
    /// A later moment, and how many inputs that came before it are still to be taken.
    mark: Option<(Time, usize)>,
}

impl Heard {
    /// `taken` inputs were taken by `now`, and `waiting` are left. Gives the moment before which all that came is taken,
    /// if some are left.
    fn took(&mut self, now: Time, taken: usize, waiting: usize) -> Option<Time> {
        if waiting == 0 {
            (self.all, self.mark) = (now, None);
            return None;
        }
        match &mut self.mark {
            Some((_, left)) if *left > taken => *left -= taken,
            mark => {
                if let Some((marked, _)) = mark {
                    self.all = *marked;
                }
                *mark = Some((now, waiting));
            }
        }
        Some(self.all)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1::{ClientFrame, Request};
    use holdfast_types::ledger::{Ledger, LedgerLimits};
    use holdfast_types::{ConnectionId, Principal, ReplicaId};

    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn frame(requests: usize) -> CoreInput {
        let frame = ClientFrame { requests: vec![Request::default(); requests], ..ClientFrame::default() };
        let (connection, principal) = (ConnectionId(1), Principal::anonymous());
        let charge = Ledger::new(LedgerLimits::NONE).account(&principal).charge_anyway(0);
        CoreInput::Replica(Input::Frame { connection, principal, frame, charge })
    }

    fn message() -> CoreInput {
        CoreInput::Replica(Input::Peer { from: ReplicaId(2), messages: Vec::new() })
    }

    #[test]
    fn what_is_left_came_after_everything_that_was_there_when_the_mark_was_set() {
        let mut heard = Heard { all: at(0), mark: None };
        assert_eq!(heard.took(at(10), 5, 0), None);
        assert_eq!(heard.took(at(20), 5, 7), Some(at(10)), "they came since all were taken");
        assert_eq!(heard.took(at(30), 5, 9), Some(at(10)), "two of the seven are left");
        assert_eq!(heard.took(at(40), 5, 8), Some(at(20)), "all seven are taken");
        assert_eq!(heard.took(at(50), 8, 1), Some(at(40)));
        assert_eq!(heard.took(at(60), 1, 0), None);
        assert_eq!(heard.took(at(70), 0, 1), Some(at(60)));
    }

    #[tokio::test]
    async fn what_replicas_say_is_taken_behind_any_number_of_clients_frames() {
        let (replicas, from_replicas) = mpsc::channel(8);
        let (clients, from_clients) = mpsc::channel(INPUTS_WAITING_MAX);
        let mut inputs = Inputs::new(from_replicas, from_clients);
        for _ in 0..INPUTS_WAITING_MAX {
            clients.try_send(frame(1)).expect("there is room");
        }
        replicas.try_send(message()).expect("there is room");
        let mut taken = Taken::default();
        inputs.wait(&mut taken).await;
        let unheard = inputs.take(&mut taken, 1);
        assert_eq!(taken.replicas.len(), 1, "a heartbeat does not wait for frames");
        assert_eq!(taken.clients.len(), CLIENTS_PER_TURN_MAX);
        assert!(unheard.is_some(), "KeepAlives may be in those that are left");
    }

    #[test]
    fn a_turn_takes_less_of_clients_when_turns_are_long_or_frames_have_many_requests() {
        let (_replicas, from_replicas) = mpsc::channel(8);
        let (clients, from_clients) = mpsc::channel(INPUTS_WAITING_MAX);
        let mut inputs = Inputs::new(from_replicas, from_clients);
        for _ in 0..2_048 {
            clients.try_send(frame(4_096)).expect("there is room");
        }
        let take = |inputs: &mut Inputs| {
            let mut taken = Taken::default();
            inputs.take(&mut taken, 1);
            taken.clients.len()
        };
        assert_eq!(take(&mut inputs), REQUESTS_PER_TURN_MAX / 4_096);
        while take(&mut inputs) > 0 {}
        for _ in 0..2_048 {
            clients.try_send(frame(0)).expect("there is room");
        }
        for _ in 0..10 {
            inputs.turn_took(2 * LONG);
        }
        assert_eq!(take(&mut inputs), CLIENTS_PER_TURN_MIN);
        inputs.turn_took(LONG / 2);
        assert_eq!(take(&mut inputs), 2 * CLIENTS_PER_TURN_MIN);
    }
}
