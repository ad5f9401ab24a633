//! A replica as a process: it performs what the pure machine in `holdfast-replica` asks for.
//!
//! - [`server`]: one replica put together; [`run_replica_blocking`]
//! - `in_process`: [`Server`], a replica within this process, and what can be done to it there
//! - [`dev`]: a cell of several replicas in one process
//! - `driver`: the loop around the core
//! - `front`: the gRPC services for clients; `peers`: the transport between replicas
//! - `founding`: how a replica comes to a cell
//! - [`storage`]: the log and the snapshots; [`identity`]: whose data directory it is
//! - `tls`: who is at the other end of a connection; [`certs`]: certificates for development
//! - `listen`, `accept`, `guests`, `socket`, `descriptors`: connections from their listener to gRPC
//! - `planted`: faults on purpose, in builds for that only
//! - [`config`], [`logging`], `signals`, `clock`: what a process needs besides; `system`: what its errors mean
//!
//! Never here: a decision. Who holds a lock, who is master and what is durable enough is decided in the crates
//! below; this one carries their inputs in and their outputs out.

#![forbid(unsafe_code)]

mod accept;
pub mod certs;
mod clock;
pub mod config;
mod descriptors;
pub mod dev;
mod driver;
mod founding;
mod front;
mod guests;
pub mod identity;
mod in_process;
mod inputs;
mod listen;
pub mod logging;
mod outbox;
mod peers;
#[cfg(holdfast_planted)]
pub mod planted;
pub mod server;
mod signals;
mod socket;
pub mod storage;
mod system;
mod tls;
mod wrong_port;

pub use founding::FoundingError;
pub use in_process::{Server, Standstill};
pub use listen::{ListenError, Listeners};
pub use server::{Leadership, ServerError, run_replica_blocking};
pub use signals::StopSignals;
pub use system::keep_files_private;
pub use tls::TlsError;
