//! Holdfast's messages, generated from `proto/`: [`client::v1`] is what clients and the master say to each
//! other, [`peer::v1`] what replicas say, [`log::v1`] what a raft entry and a snapshot are made of.
//!
//! Nothing else lives here but the names of metadata that both ends go by, and what the refusal codes mean
//! (`meaning`). With the feature `grpc` the services come too; the pure crates do without it.

#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "the .proto files hold the documentation of every message and field")]

mod meaning;

/// What clients say and hear.
pub mod client {
    /// Version 1.
    #[allow(clippy::all, clippy::pedantic, rustdoc::all, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/holdfast.client.v1.rs"));
    }

    /// Metadata of `Cell.Session` with which a client names its stream (`ExtendLeaseRequest.stream`).
    pub const STREAM_KEY: &str = "holdfast-stream";
    /// Metadata of a refused call: the refusal code's name, such as `NOT_FOUND`.
    pub const REFUSAL_KEY: &str = "holdfast-refusal";
    /// Metadata of a refused call: the encoded `Refusal`, whose message is the status's.
    pub const REFUSAL_BIN_KEY: &str = "holdfast-refusal-bin";
    /// Metadata of a refused call: the master's client address.
    pub const MASTER_KEY: &str = "holdfast-master";

    pub use crate::meaning::{GrpcStatus, RefusalMeaning};
}

/// What is replicated.
pub mod log {
    /// Version 1.
    #[allow(clippy::all, clippy::pedantic, rustdoc::all, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/holdfast.log.v1.rs"));
    }
}

/// What replicas say to each other.
pub mod peer {
    /// Version 1.
    #[allow(clippy::all, clippy::pedantic, rustdoc::all, reason = "generated")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/holdfast.peer.v1.rs"));
    }
}
