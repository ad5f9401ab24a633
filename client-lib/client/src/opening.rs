//! How a session begins: its machine, its task, and the wait for the cell's word.
//!
//! Decides nothing: the machine gives up when it is time. The invariant: what is not handed to the application is closed.

use crate::call::{Board, SessionState, Shared};
use crate::channels::{self, Channels};
use crate::clock;
use crate::driver::Driver;
use crate::error::Error;
use crate::places::Places;
use crate::refusal::RefusalFacts;
use holdfast_proto::client::v1::RefusalCode;
use holdfast_session::{Config, Ended};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Opens a session: spawns its task, and waits until the cell has granted it.
pub(crate) async fn open(
    config: Config,
    channels: Channels,
    places: Places,
    lock_delay: Duration,
) -> Result<Shared, Error> {
    channels::within_runtime()?;
    let (commands, command_queue) = mpsc::unbounded_channel();
    // `Jeopardy` until the first grant. The application gets no session before that, so it never sees this value.
    let (state, state_seen) = watch::channel(SessionState::Jeopardy);
    let machine = holdfast_session::Session::new(clock::now(), config);
    let board = Arc::new(Board::new(machine.cache_counters()));
    let driver = Driver::new(machine, command_queue, (channels, places), Arc::clone(&board), state);
    tokio::spawn(driver.run());
    // If this future is dropped, so is the command queue's sender, and the task closes what was opened.
    let shared = Shared::new(commands, lock_delay, board, state_seen.clone());
    match granted(state_seen).await {
        Ok(()) => Ok(shared),
        Err(ended) => Err(not_opened(&ended)),
    }
}

/// Waits until the session's task says the first thing of the session: that it is granted, or why it is not. A session whose
/// lease has run out again by the time that this future gets to run was granted too.
async fn granted(mut state: watch::Receiver<SessionState>) -> Result<(), Ended> {
    // The task has said why before it was gone.
    state.changed().await.map_err(|_| Ended::RuntimeGone)?;
    match &*state.borrow() {
        SessionState::Ended(ended) => Err(ended.clone()),
        SessionState::Safe | SessionState::Jeopardy => Ok(()),
    }
}

fn not_opened(ended: &Ended) -> Error {
    match ended {
        Ended::Refused { code, message, facts } => Error::Refused {
            code: RefusalCode::try_from(*code).unwrap_or(RefusalCode::Unspecified),
            message: message.clone(),
            facts: RefusalFacts::from_wire(facts.clone()),
        },
        Ended::Unreachable { waited_ms, last, absent } => Error::Unavailable {
            waited: Duration::from_millis(*waited_ms),
            last: last.clone(),
            absent: *absent,
        },
        other => Error::SessionEnded { ended: other.clone(), maybe_applied: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_that_was_safe_only_while_nobody_looked_is_open() {
        let (state, seen) = watch::channel(SessionState::Jeopardy);
        let mut opening = Box::pin(granted(seen));
        assert!(futures::poll!(&mut opening).is_pending(), "nothing was said yet");
        state.send_replace(SessionState::Safe);
        state.send_replace(SessionState::Jeopardy);
        assert_eq!(opening.await, Ok(()));
    }

    #[tokio::test]
    async fn a_session_that_is_over_is_not_open_and_says_why() {
        let (state, seen) = watch::channel(SessionState::Jeopardy);
        state.send_replace(SessionState::Safe);
        state.send_replace(SessionState::Ended(Ended::Expired));
        assert_eq!(granted(seen.clone()).await, Err(Ended::Expired));
        let (state, seen) = watch::channel(SessionState::Jeopardy);
        drop(state);
        assert_eq!(granted(seen).await, Err(Ended::RuntimeGone));
    }
}
