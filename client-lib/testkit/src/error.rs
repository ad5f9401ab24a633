//! What can go wrong with a cell under test, as values that say what would be right.

use std::io;
use std::time::Duration;

use holdfast::ConnectError;
use holdfast_server::ServerError;
use holdfast_types::ReplicaId;

/// Why the kit did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option of the builder is wrong.
    #[error("{0}")]
    Option(String),
    /// The cell has no such replica.
    #[error("the cell has no {replica}: its replicas are 1 to {replicas}")]
    UnknownReplica {
        /// Which was meant.
        replica: ReplicaId,
        /// How many there are.
        replicas: usize,
    },
    /// A replica is given twice, and cannot be on two sides.
    #[error("{replica} is given twice: each replica is on one side of a partition, or on none")]
    Twice {
        /// Which.
        replica: ReplicaId,
    },
    /// A partition has nobody on one side.
    #[error("a partition needs at least one replica on each side")]
    EmptySide,
    /// No client was made under this name.
    #[error("there is no client {name:?}: make it first, with `client_named`")]
    UnknownClient {
        /// The name.
        name: String,
    },
    /// The replica is not in the state that is needed.
    #[error("{replica} cannot be {wish}: it {state}")]
    State {
        /// Which.
        replica: ReplicaId,
        /// What was to be done to it.
        wish: &'static str,
        /// How it is.
        state: &'static str,
    },
    /// The cell has no session with this id.
    #[error("the cell has no session {session}: it has ended, or never was")]
    UnknownSession {
        /// The id.
        session: u64,
    },
    /// A replica cannot run.
    #[error("{replica} cannot run: {source}")]
    Replica {
        /// Which.
        replica: ReplicaId,
        /// Why.
        source: ServerError,
    },
    /// What was waited for did not come.
    #[error("{what} did not come within {waited:?}; the last that the replicas logged:\n{logs}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        waited: Duration,
        /// The end of the log.
        logs: String,
    },
    /// A client cannot be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The system does not give what the kit needs.
    #[error("the system does not give what the cell needs: {0}")]
    System(#[from] io::Error),
}
