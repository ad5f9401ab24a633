//! The program `holdfast` against real cells: what it prints, what it exits with, and what it does to processes.
//!
//! Each test starts a cell of its own in this process, and the program as a user would.

mod access;
mod escapes;
mod files;
mod harness;
mod locks;
mod operators;
mod outages;
mod reach;
mod sessions;
mod terminals;
mod tls;
mod watch;
mod wrong_input;
