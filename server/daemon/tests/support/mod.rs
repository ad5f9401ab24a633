//! What the tests of whole replicas share.

use std::time::Duration;

use holdfast_proto::client::v1::cell_client::CellClient;
use tonic::transport::Channel;

/// Longer than anything here takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A stub for the replica at `address`.
pub(crate) async fn stub(address: &str) -> CellClient<Channel> {
    CellClient::connect(format!("http://{address}")).await.unwrap()
}
