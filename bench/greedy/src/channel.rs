//! Connections.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tonic::transport::{Channel, Endpoint};

const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// The most bytes of one stream, and of a whole connection, that a client takes unread.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// A new connection. A stream whose replies are not read is full soon, and the connection is not.
pub(crate) async fn connect(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).context("a bad address")?;
    let endpoint = endpoint.connect_timeout(CONNECT_WAIT);
    let endpoint = endpoint.initial_stream_window_size(STREAM_WINDOW);
    let endpoint = endpoint.initial_connection_window_size(CONNECTION_WINDOW);
    endpoint.connect().await.context("cannot connect")
}
