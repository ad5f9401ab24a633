//! The library against replicas that say what the test wants, over real sockets.

mod certificates;
mod fake;
mod tls;
mod transport;
