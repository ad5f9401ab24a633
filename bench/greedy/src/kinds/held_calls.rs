//! Unary writes, as many as a replica takes, all of which wait for a reader who never acknowledges.

use anyhow::Result;
use bytes::Bytes;
use futures::future::{join, join_all};

use super::{deaf_cacher, file, live_on};
use crate::greed::Greed;
use crate::unary;

const PATH: &str = "/greedy-held-calls";
const CALLS: usize = 8_192;
const CALLS_PER_CONNECTION: usize = 2_048;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    let reader = greed.again(async || {
        let mut reader = deaf_cacher(greed, greed.connect().await?, file(PATH)).await?;
        greed.ready();
        live_on(&mut reader).await
    });
    let calls = greed.count(CALLS);
    let connections = (0..calls.div_ceil(CALLS_PER_CONNECTION)).map(async |_| {
        greed.until_ready().await;
        greed
            .again(async || {
                let channel = greed.connect().await?;
                let calls = (0..calls.min(CALLS_PER_CONNECTION)).map(async |_| {
                    let contents = Bytes::from_static(b"held");
                    unary::write(channel.clone(), PATH, contents, &greed.tally).await
                });
                // All again, once all are answered, after a pause if all are refused.
                let done = join_all(calls).await;
                anyhow::ensure!(done.contains(&true), "all calls were refused");
                Ok(())
            })
            .await;
    });
    join(reader, join_all(connections)).await;
    Ok(())
}
