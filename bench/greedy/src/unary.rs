//! Unary writes, which go by a node's name.

use std::time::Instant;

use bytes::Bytes;
use holdfast_proto::client::v1::SetContentsRequest;
use holdfast_proto::client::v1::cell_client::CellClient;
use tonic::transport::Channel;

use crate::tally::Tally;

/// Writes a file, creates it if there is none, and tells whether that was done.
pub(crate) async fn write(channel: Channel, path: &str, contents: Bytes, tally: &Tally) -> bool {
    let request =
        SetContentsRequest { path: path.to_owned(), contents, create: true, ..SetContentsRequest::default() };
    let began = Instant::now();
    let answer = CellClient::new(channel).set_contents(request).await;
    tally.took(began.elapsed());
    tally.count_call(&answer)
}
