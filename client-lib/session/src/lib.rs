//! A client's session as a pure machine (design.md §4 to §6): where to connect and when to try again, the lease
//! and what may be believed of it, every request until it is decided, and the consistent cache.
//!
//! Never does I/O, never looks at a clock, and takes chance from a seed. The invariants that everything rests on:
//! **the session believes in its lease no longer than the cell keeps it** (I3), because the lease is counted
//! from before the KeepAlive left, shortened by the drift bound, and never moved back; and **what the cache tells is
//! so at that moment** (I5), because all that the cell declares void is gone before it is told so, and nothing is told
//! without a lease.
//!
//! A driver (`holdfast`, or the simulator) tells the machine what happens through [`Session::handle`], performs
//! what [`Session::poll_output`] wants, in order, and comes back at [`Session::poll_timeout`]. Calls that are
//! handed in between two polls share a frame.
//!
//! # What costs no message
//!
//! - *Reads.* The completion of an `Open` with `caching` has a [`Slot`]: look there before calling for
//!   `GetContents`, `GetStat` or `ReadDir`. Any thread may, at any time, without going through the machine. Answers to
//!   such calls fill it, if the cell allows. A directory is cached if it was read whole, in one page.
//! - *Opening again.* A caching `Open` that must not create, and wants no events, is answered with a handle that is
//!   open: shared if it is for reading only, and otherwise if nobody else uses it. Handles stay open for
//!   [`CacheConfig::idle_handle_time`] after their last user closed them, but not if they may hold their lock. Not
//!   ephemeral nodes. Each user has a handle of its own; closing one leaves the others alone.
//! - *Names that do not exist*, in directories that are open with caching.
//! - *Locks*, for handles that opted in by [`Input::KeepLocks`]: an exclusive lock that is released stays with the
//!   handle until somebody else asks for it. What the `Release` of a kept lock promises is that nobody waits for it
//!   in vain: the cell's CONFLICTING_REQUEST is answered by giving it up.
//!
//! All of it is off in jeopardy, and begins anew with every attachment. Handles that depend on a sequencer
//! (`SetSequencer`) bypass the cache: their calls must fail as soon as the sequencer does. Whoever sets one does not
//! look into the handle's slot any more, which may be that of others; a user of a shared node is first given a handle
//! of its own, so that nobody else comes to depend on the sequencer. `GetSequencer`, `CheckSequencer` and `SetAcl` are
//! calls like any other.
//!
//! # What is ordered, and what is not
//!
//! Requests of one session are taken up in the order of their calls, but a read is not ordered with the session's own
//! changes that are not answered yet: it may be answered before them, from the cache or from the cell. Wait for the
//! answer to a change before reading what it changed. An [`Output::Event`] comes after the change that it tells of, so
//! that a read that is called for from then on sees that change, or a later one.

#![forbid(unsafe_code)]

mod answers;
mod cache;
mod chance;
mod counters;
mod deadlines;
mod doors;
mod handles;
mod holdings;
mod kept_locks;
mod lease;
mod link;
mod operation;
mod reach;
mod requests;
mod route;
mod search;
mod session;
mod slot;
mod watch;

pub use counters::{CacheCounters, CacheStats};
pub use doors::{
    CacheConfig, CallError, Completion, Config, Ended, Input, Known, Output, State, StreamId, Token,
};
pub use holdfast_proto::client::v1::request::Operation;
pub use reach::{ABSENT_PATIENCE, Obstacle, Problem};
pub use search::{Answer, AttemptId, Found, Goal, Search, SearchConfig, SearchOutput};
pub use session::Session;
pub use slot::Slot;
