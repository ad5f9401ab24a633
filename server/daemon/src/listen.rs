//! The sockets that a replica listens on. What comes by them is taken up in [`crate::accept`].

use std::io;
use std::net::SocketAddr;

/// The sockets, bound before the replica does anything else: if a port is in use, nothing has happened yet.
#[derive(Debug)]
pub struct Listeners {
    /// For other replicas.
    pub(crate) peer: std::net::TcpListener,
    /// For clients.
    pub(crate) client: std::net::TcpListener,
}

/// Why a replica cannot listen where it is configured to.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}, which `{key}` is set to: {source}{}", advice(source))]
pub struct ListenError {
    /// The configuration key.
    key: &'static str,
    /// Its value.
    address: String,
    /// Why.
    source: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has the port, perhaps another replica: stop it, or set another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this machine has no such address: 0.0.0.0 means all that it has"
        }
        _ => "",
    }
}

impl Listeners {
    /// Binds the sockets of `peer_listen` and `client_listen`.
    ///
    /// # Errors
    ///
    /// Which of the two cannot be had, and why.
    pub fn bind(peer_listen: &str, client_listen: &str) -> Result<Self, ListenError> {
        Ok(Self { peer: bind("peer_listen", peer_listen)?, client: bind("client_listen", client_listen)? })
    }

    /// Where the sockets are, peer and client: differs from what was asked for where that was port 0.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.peer.local_addr()?, self.client.local_addr()?))
    }
}

fn bind(key: &'static str, address: &str) -> Result<std::net::TcpListener, ListenError> {
    let listener = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| ListenError { key, address: address.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_its_key() {
        let first = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").unwrap();
        let (_, client) = first.addresses().unwrap();
        let error = Listeners::bind("127.0.0.1:0", &client.to_string()).unwrap_err().to_string();
        assert!(error.contains("`client_listen`") && error.contains(&client.to_string()), "{error}");
        assert!(error.contains("another process has the port"), "{error}");
    }
}
