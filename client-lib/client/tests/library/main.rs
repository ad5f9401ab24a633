//! The library against replicas that say what the test wants, over real sockets.

mod cache;
mod calls;
mod certificates;
mod events;
mod fake;
mod locks;
mod operators;
mod patience;
mod runtimes;
mod service;
mod tls;
mod transport;
