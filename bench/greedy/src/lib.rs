//! Greedy clients: each kind attacks a cell in one way, by what any client may send, and counts what it got.
//!
//! The clients are built from the generated protocol code, below the client library, because the library would not do
//! what they do. The bench (`--work fairness`) and the torture rig (`--scenario greedy`) start a greedy client as a
//! process of its own beside honest clients; both read how it fares from the lines that it prints.
//!
//! - [`kind`]: the table of kinds; `kinds`: one file for each
//! - [`run`]: a process's life, from its flags to its lines
//! - [`session`], `channel`, `unary`: the protocol; [`tally`]: what is counted
//!
//! Invariant: a greedy client is bounded in count and in time, so that a cell that bounds nothing survives a run.

#![forbid(unsafe_code)]

mod channel;
pub mod greed;
pub mod kind;
mod kinds;
pub mod run;
pub mod session;
pub mod tally;
mod unary;

pub use kind::Kind;
pub use run::{GreedyFlags, last_status};
pub use tally::Status;
