//! Bad input: for each place where bytes come in, a function that takes any bytes and asserts what must be true.
//!
//! - [`TARGETS`]: all of them, by name; one module each in [`targets`]
//! - [`Source`]: turns bytes into choices, so that bytes which are no message by themselves become one
//! - [`messages`]: messages with every field right, just wrong, or from the end of its type
//! - [`Office`]: a replica with a master in office, without sockets and disks
//!
//! The same functions are run by `cargo test` (proptest, and the inputs in `corpus/`), and by cargo-fuzz (`fuzz/`). What
//! must be true of every one of them: no panic, no endless loop, and no more memory than [`Target::bytes_max`] allows
//! for an input of its length. A fault ([`holdfast_replica::Fault`]) is an answer where the input is a replica's own
//! disk or another member's word; it never is where the input is a client's.

#![forbid(unsafe_code)]

pub mod messages;
mod office;
mod source;
pub mod targets;

pub use office::Office;
pub use source::Source;

/// A place where bytes come in.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called: the name of its corpus, and of its program for cargo-fuzz.
    pub name: &'static str,
    /// Takes any bytes. It panics if something is not as it must be.
    pub run: fn(&[u8]),
    /// How much memory it may use at a time for no input at all.
    pub bytes_fixed: usize,
    /// And for each byte of input. Generous where a byte stands for a whole message or a command.
    pub bytes_per_byte: usize,
}

impl Target {
    /// The most memory that it may use at a time for an input of this length.
    #[must_use]
    pub fn bytes_max(&self, input_bytes: usize) -> usize {
        self.bytes_fixed + self.bytes_per_byte * input_bytes
    }
}

const KIB: usize = 1 << 10;

/// All targets.
pub const TARGETS: [Target; 11] = [
    target("paths", targets::names::paths, 64 * KIB, 64),
    target("sequencers", targets::names::sequencers, 64 * KIB, 64),
    target("client_frames", targets::clients::client_frames, 2_048 * KIB, 16 * KIB),
    target("calls", targets::clients::calls, 2_048 * KIB, 16 * KIB),
    target("server_frames", targets::servers::server_frames, 2_048 * KIB, 16 * KIB),
    target("log_entries", targets::log::log_entries, 1_024 * KIB, 16 * KIB),
    target("boots", targets::log::boots, 2_048 * KIB, 16 * KIB),
    target("snapshot_files", targets::snapshots::snapshot_files, 2_048 * KIB, 4 * KIB),
    target("state_records", targets::snapshots::state_records, 2_048 * KIB, 16 * KIB),
    target("configurations", targets::configuration::configurations, 1_024 * KIB, KIB),
    target("peer_messages", targets::peers::peer_messages, 16_384 * KIB, 16 * KIB),
];

const fn target(name: &'static str, run: fn(&[u8]), bytes_fixed: usize, bytes_per_byte: usize) -> Target {
    Target { name, run, bytes_fixed, bytes_per_byte }
}
