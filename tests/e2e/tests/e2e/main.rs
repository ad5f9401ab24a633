//! Holdfast from end to end: replicas and clients as processes, killed, paused, wiped and misled.
//!
//! Each test has a cell of its own. Leases are short, so that those who die are missed soon.

mod access;
mod cache;
mod crash;
mod damage;
mod dead_cacher;
mod documents;
mod fail_over;
mod holder;
mod jeopardy;
mod machines;
mod membership;
mod misconfigured;
mod misuse;
mod older_copy;
mod operators;
mod raw_sockets;
mod shared_connection;
mod stop;
mod stuck_log;
mod tls;
mod torture;
mod watchers;
mod withdrawal;

use holdfast_e2e::Programs;

/// Where cargo has put the programs.
const PROGRAMS: Programs = Programs {
    replica: env!("CARGO_BIN_EXE_e2e-replica"),
    holdfast: env!("CARGO_BIN_EXE_e2e-holdfast"),
    client: env!("CARGO_BIN_EXE_e2e-client"),
    holder: env!("CARGO_BIN_EXE_e2e-holder"),
    tied: env!("CARGO_BIN_EXE_e2e-tied"),
};
