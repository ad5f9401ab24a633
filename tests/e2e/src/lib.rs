//! The harness of the end-to-end tests: real processes, real sockets, real crashes.
//!
//! - [`Cluster`]: a cell of replica processes, each a [`Replica`] that can be started, killed, paused and stopped
//! - [`Certs`]: certificates, right ones and wrong ones
//! - [`Client`]: a client as a process of its own, which caches and locks as it is told, and can be killed or paused
//! - [`Holder`]: another, which holds a lock, and gives orders to a [`Resource`] as a careless one would
//! - [`Resource`]: a server that is fenced by sequencers
//! - [`Proxy`]: a network between a client and a replica that can be cut
//! - [`wire`]: a client that says what the library never would; [`raw`]: one that does not even speak gRPC
//! - [`torture`]: the torture rig, the program `holdfast-torture`
//! - [`eventually`] and [`within`]: waiting for a condition, with a limit; nothing here sleeps for a fixed time
//!
//! Never here: what is right. That is for the tests to say. Invariant: no process outlives the test that started
//! it, however the test ends.

#![forbid(unsafe_code)]

mod certs;
mod client;
mod cluster;
mod holder;
mod ports;
mod process;
mod proxy;
pub mod raw;
mod replica;
mod resource;
mod talk;
pub mod torture;
mod wait;
pub mod wire;

pub use certs::Certs;
pub use client::Client;
pub use cluster::Cluster;
pub use holder::Holder;
pub use process::Programs;
pub use proxy::Proxy;
pub use replica::Replica;
pub use resource::{Resource, Verdict};
pub use wait::{LIMIT, eventually, within};

/// The Rust of the documentation, compiled with the doc tests.
#[cfg(doctest)]
pub mod documents {
    #[doc = include_str!("../../../README.md")]
    pub mod readme {}
    #[doc = include_str!("../../../docs/sequencers.md")]
    pub mod sequencers {}
}
