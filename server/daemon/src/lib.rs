//! A replica as a process: it performs what the pure machine in `holdfast-replica` asks for.

pub mod config;
pub mod identity;
pub mod logging;
pub mod storage;
