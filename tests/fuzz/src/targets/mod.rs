//! The targets, by who speaks.

pub mod clients;
pub mod configuration;
pub mod log;
pub mod names;
pub mod peers;
pub mod servers;
pub mod snapshots;
