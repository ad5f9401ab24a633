//! What both ends of Holdfast must agree on beyond messages: ids, time, names, sequencers, fences, and whose variables are whose.
//!
//! Pure: values and their grammar, nothing that acts. The server parses every name again that a client has
//! parsed; that both use this one parser is a convenience, never a matter of trust.

#![forbid(unsafe_code)]

pub mod characters;
mod escaped;
mod fence;
mod ids;
pub mod ledger;
mod path;
mod planted;
mod principal;
mod sequencer;
mod time;
pub mod variables;

pub use escaped::{escaped, escaped_json, escaped_lines};
pub use fence::{Admitted, Fence, FenceError, FenceTextError};
pub use ids::{ConnectionId, HandleId, ReplicaId, RequestNumber, Revision, SessionId, SocketId, Term};
pub use path::{CELL_LOCAL, NameLimits, NodePath, PathError, check_cell_name};
#[cfg(holdfast_planted)]
pub use planted::plant_everywhere;
pub use planted::{Planted, is_planted, plant};
pub use principal::{Principal, PrincipalError};
pub use sequencer::{Mode, Sequencer, SequencerError};
pub use time::{Duration, LEASE_MS, Time};

/// A client's frame has no more requests than this: a replica ends a stream that brings more at once.
pub const FRAME_REQUESTS_MAX: usize = 4_096;
