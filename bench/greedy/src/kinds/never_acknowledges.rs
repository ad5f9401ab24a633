//! A reader who caches a public node and never acknowledges, and writes by name to that node.

use anyhow::Result;
use bytes::Bytes;
use futures::future::join;
use futures::future::join_all;

use super::{deaf_cacher, file, live_on};
use crate::greed::Greed;
use crate::unary;

const PATH: &str = "/greedy-public";
const WRITERS: usize = 4;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    let reader = greed.again(async || {
        let mut reader = deaf_cacher(greed, greed.connect().await?, file(PATH)).await?;
        greed.ready();
        // What is void is read again, and so kept again.
        loop {
            tokio::select! {
                ended = live_on(&mut reader) => return ended,
                () = tokio::time::sleep(std::time::Duration::from_millis(500)) => {}
            }
            let handle = 1;
            reader.send([super::get_contents(handle)]);
        }
    });
    let writers = (0..WRITERS).map(|_| {
        greed.again(async || {
            let channel = greed.connect().await?;
            greed.until_ready().await;
            loop {
                if !unary::write(channel.clone(), PATH, Bytes::from_static(b"new"), &greed.tally).await {
                    anyhow::bail!("a write by name was refused");
                }
            }
        })
    });
    join(reader, join_all(writers)).await;
    Ok(())
}
