//! The torture rig: a cell of real processes, each in a network of its own, that is attacked while real clients work,
//! and judged by what the clients saw. The program is `holdfast-torture`.
//!
//! ```text
//! scenario -> run -> schedule      what goes wrong, from a seed
//!             |  +-> attack        does it: to the cell, its net, relays and disks, to clients
//!             |  +-> judge         the simulator's checkers, over the clients' histories
//!             |  +-> report
//!             +-> cell, crowd      replicas and clients, as processes (parts) on hosts (net)
//!          -> sessions            scenarios of many sessions, which have crowds and checks of their own
//! ```
//!
//! Invariant: nothing of a run outlives it, and nothing of it touches the network of the machine.

mod agreement;
pub mod attack;
pub mod cell;
pub mod client;
pub mod clock;
pub mod crowd;
pub mod disk;
pub mod history;
pub mod judge;
pub mod net;
pub mod parts;
pub mod relay;
pub mod report;
pub mod resource;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod sessions;
pub mod troubles;
pub mod unmet;
