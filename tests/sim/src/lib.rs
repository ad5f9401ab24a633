//! Deterministic simulation of whole Holdfast cells with their clients.
//!
//! The real machines (`holdfast-replica` with the master and the state in it, `holdfast-session`) run in one
//! thread on a virtual clock, against a simulated network and simulated disks. A run follows from its seed
//! alone. Checkers hold it to the design's invariants; see the README beside this crate for what is modelled and
//! what is checked.
//!
//! ```text
//! run -> World (loop) -> server, client, wire      what daemon and library do
//!            |               |
//!            |               +-> member, network, streams, disk, clock, workload/
//!            +-> fault/      what goes wrong
//!            +-> canon       the one log, as the first replica applied it
//!                  +-> checker/   what must be true
//! ```
//!
//! Invariant: nothing in a run depends on anything but the seed and the [`Options`]. No real time, no hash map
//! with a random order, no thread.

#![forbid(unsafe_code)]

mod application;
pub mod calm;
pub mod canon;
pub mod checker;
mod client;
pub mod clock;
pub mod coverage;
pub mod disk;
pub mod effort;
pub mod event;
pub mod fault;
mod genesis;
mod greed;
pub mod ledger;
mod member;
mod named;
pub mod network;
mod outside;
pub mod overload;
pub mod plan;
pub mod queue;
pub mod replay;
pub mod rhythm;
pub mod rng;
pub mod run;
mod server;
pub mod shrink;
pub mod sockets;
pub mod spare;
pub mod stats;
pub mod streams;
pub mod trace;
mod upgrade;
pub mod verdict;
mod wire;
pub mod workload;
pub mod world;

pub use calm::Condition;
pub use clock::TrueTime;
pub use plan::Options;
pub use replay::{PLANTED_BUILD, replay};
pub use run::{catch_panics, run, sum};
pub use shrink::Search;
pub use stats::Stats;
pub use verdict::{Invariant, Report, Verdict, Violation};

/// The commit that this was built from, with `-dirty` if there was more; "unknown" outside of a checkout.
pub const COMMIT: &str = env!("HOLDFAST_COMMIT");
