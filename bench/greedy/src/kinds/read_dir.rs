//! Many large reads under way: each answer is a directory of 1,000 children.

use anyhow::Result;
use futures::future::join_all;

use super::{directory, fill_directory, open, read_dir};
use crate::greed::Greed;
use crate::session::{Options, RawSession};

const PATH: &str = "/greedy-read-dir";
const CHILDREN: usize = 1_000;
const STREAMS: usize = 32;
const STREAMS_PER_CONNECTION: usize = 8;
const UNDER_WAY: usize = 256;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    fill_directory(greed, PATH, greed.count(CHILDREN)).await?;
    greed.ready();
    let streams = greed.count(STREAMS);
    let connections = (0..streams.div_ceil(STREAMS_PER_CONNECTION)).map(async |_| {
        greed
            .again(async || {
                let channel = greed.connect().await?;
                let streams = (0..streams.min(STREAMS_PER_CONNECTION)).map(|_| {
                    let channel = channel.clone();
                    greed.again(async move || {
                        let mut session =
                            RawSession::open(channel.clone(), Options::HONEST, &greed.tally).await?;
                        let handle = open(&mut session, directory(PATH)).await?;
                        session.flood(UNDER_WAY, 1, |_| read_dir(handle)).await
                    })
                });
                join_all(streams).await;
                Ok(())
            })
            .await;
    });
    join_all(connections).await;
    Ok(())
}
