//! Large writes behind an Open that waits for a reader who never acknowledges.
//!
//! The Open would create a file, which makes the cached copy of its directory old; so it is held. The writes name its
//! number as their handle, and wait for it.

use anyhow::Result;

use super::{LARGE_BYTES, deaf_cacher, directory, file, large, opens, set_contents};
use crate::greed::Greed;
use crate::session::Options;

const PATH: &str = "/greedy-held";
const WRITES: usize = 4_095;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    let contents = large(b'w');
    let mut writer = greed.session(Options::HONEST).await?;
    super::open(&mut writer, directory(PATH)).await?;
    greed.ready();
    let mut round = 0;
    greed
        .again(async || {
            let channel = greed.connect().await?;
            let mut cacher = deaf_cacher(greed, channel, directory(PATH)).await?;
            let mut writer = greed.session(Options::HONEST).await?;
            round += 1;
            greed.tally.stored(LARGE_BYTES);
            let handle = writer.send([opens(file(format!("{PATH}/{round}")))]);
            for _ in 0..greed.count(WRITES) {
                writer.send([set_contents(handle, &contents)]);
            }
            tokio::select! {
                ended = super::live_on(&mut cacher) => ended,
                answered = writer.all_answered() => answered,
            }
        })
        .await;
    Ok(())
}
