//! A client's session as a pure machine (design.md §4, §5): where to connect and when to try again, the lease
//! and what may be believed of it, and every request until it is decided.
//!
//! Never does I/O, never looks at a clock, and takes chance from a seed. The invariant that everything rests on:
//! **the session believes in its lease no longer than the cell keeps it** (I3), because the lease is counted
//! from before the KeepAlive left, shortened by the drift bound, and never moved back.
//!
//! A driver (`holdfast`, or the simulator) tells the machine what happens through [`Session::handle`], performs
//! what [`Session::poll_output`] wants, in order, and comes back at [`Session::poll_timeout`]. Calls that are
//! handed in between two polls share a frame.

mod answers;
mod cache;
mod chance;
mod counters;
mod doors;
mod handles;
mod holdings;
mod kept_locks;
mod lease;
mod link;
mod operation;
mod requests;
mod route;
mod session;
mod slot;
mod watch;

pub use counters::{CacheCounters, CacheStats};
pub use doors::{CacheConfig, CallError, Completion, Config, Ended, Input, Output, State, StreamId, Token};
pub use holdfast_proto::client::v1::request::Operation;
pub use session::Session;
pub use slot::Slot;
