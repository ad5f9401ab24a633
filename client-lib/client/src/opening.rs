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
    // `Jeopardy` until the first grant; nobody sees it before.
    let (state, state_seen) = watch::channel(SessionState::Jeopardy);
    let machine = holdfast_session::Session::new(clock::now(), config);
    let board = Arc::new(Board::new(machine.cache_counters()));
    let driver = Driver::new(machine, command_queue, (channels, places), Arc::clone(&board), state);
    tokio::spawn(driver.run());
    // If this future is dropped, so is the command queue's sender, and the task closes what was opened.
    let shared = Shared::new(commands, lock_delay, board, state_seen.clone());
    let mut opening = state_seen;
    let opened = opening.wait_for(|state| *state != SessionState::Jeopardy).await;
    match opened.as_deref() {
        Ok(SessionState::Ended(ended)) => Err(not_opened(ended)),
        Ok(_) => Ok(shared),
        // The task has said why before it was gone.
        Err(_) => Err(not_opened(&Ended::RuntimeGone)),
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
