//! The torture rig: a cell of real processes, each in a network of its own, that is attacked while real clients work,
//! and judged by what the clients saw. The program is `holdfast-torture`.
//!
//! - [`net`]: hosts with addresses of their own, and what is lost and cut between them
//! - [`parts`]: the processes of a run: the program itself, started again as a replica or a client
//! - [`scenario`]: what a run does, and how it is told to

pub mod net;
pub mod parts;
pub mod scenario;
