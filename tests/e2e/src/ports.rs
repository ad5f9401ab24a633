//! Ports that nobody else uses, and that stay free while a replica is down.
//!
//! A port that the system chooses will not do: while its replica is down, an outgoing connection of anybody's may
//! be given it. So blocks are taken below the system's own range, and a lock file that ends with its process says
//! which are taken.

use std::fs::{self, File};
use std::net::TcpListener;

/// Ports in a block: two for each replica.
const BLOCK: u16 = 16;
/// Where blocks may lie: above the ports of well-known services, below those that Linux gives to connections.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// A block of ports, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Ports {
    first: u16,
    _taken: File,
}

impl Ports {
    /// Takes a block that is free.
    pub(crate) fn take() -> Self {
        let dir = std::env::temp_dir().join("holdfast-e2e-ports");
        fs::create_dir_all(&dir).expect("the temporary directory can be written");
        for first in (FIRST..LAST).step_by(usize::from(BLOCK)) {
            let file =
                File::options().create(true).truncate(false).write(true).open(dir.join(first.to_string()));
            let file = file.expect("a lock file can be made");
            let mut ports = first..first + BLOCK;
            if file.try_lock().is_ok() && ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
                return Self { first, _taken: file };
            }
        }
        panic!("no block of free ports from {FIRST} to {LAST}");
    }

    /// Where the replica with this id listens for its peers.
    pub(crate) fn peer(&self, id: u64) -> String {
        self.address(id, 0)
    }

    /// Where the replica with this id listens for clients.
    pub(crate) fn client(&self, id: u64) -> String {
        self.address(id, 1)
    }

    fn address(&self, id: u64, side: u16) -> String {
        let slot = u16::try_from(id).expect("ids are small here") * 2 - 2;
        assert!(slot < BLOCK, "a cluster has ids from 1 to {}", BLOCK / 2);
        format!("127.0.0.1:{}", self.first + slot + side)
    }
}
