//! The library against replicas that say what the test wants, over real sockets.

mod cache;
mod calls;
mod certificates;
mod events;
mod fake;
mod operators;
mod service;
mod tls;
mod transport;
