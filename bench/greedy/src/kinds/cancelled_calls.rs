//! Unary calls that are cancelled at once, on a connection that the client shares with a neighbour.

use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use holdfast_proto::client::v1::GetStatRequest;
use holdfast_proto::client::v1::cell_client::CellClient;
use tokio::time::{sleep, timeout};

use super::slow_reader::live_beside;
use crate::greed::Greed;

const CALLS: usize = 300;
/// From one burst to the next.
const PAUSE: Duration = Duration::from_millis(200);
/// A call's request has left by then, and its answer has hardly come.
const CANCEL_AFTER: Duration = Duration::from_micros(500);

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    greed.ready();
    greed
        .again(async || {
            let channel = greed.connect().await?;
            let cancel = async || {
                let calls = (0..greed.count(CALLS)).map(async |_| {
                    let mut client = CellClient::new(channel.clone());
                    let request = GetStatRequest { path: "/".to_owned() };
                    match timeout(CANCEL_AFTER, client.get_stat(request)).await {
                        Ok(answer) => drop(greed.tally.count_call(&answer)),
                        Err(_) => greed.tally.refused("cancelled by the client".to_owned()),
                    }
                });
                join_all(calls).await;
            };
            tokio::select! {
                ended = live_beside(greed, channel.clone()) => ended,
                () = async {
                    loop {
                        cancel().await;
                        sleep(PAUSE).await;
                    }
                } => Ok(()),
            }
        })
        .await;
    Ok(())
}
