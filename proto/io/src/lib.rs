//! What the daemon and the client library need of the system alike.
//!
//! - [`tcp`]: connections that get over lost packets soon
//! - [`small_file`]: files that people write, such as configurations and certificates
//!
//! Never here: what is said on a connection, or stands in a file. The pure crates do not depend on this one.

#![forbid(unsafe_code)]

pub mod small_file;
pub mod tcp;
