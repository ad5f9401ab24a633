//! Thousands of closes of one session, behind a write of that session that waits for a reader who never acknowledges.

use anyhow::Result;
use bytes::Bytes;

use super::{close, deaf_cacher, file, opens, set_contents};
use crate::greed::Greed;
use crate::session::Options;

const PATH: &str = "/greedy-closes";
const HANDLES: usize = 4_000;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    let mut first = true;
    greed
        .again(async || {
            let mut writer = greed.session(Options::HONEST).await?;
            let node = super::open(&mut writer, file(PATH)).await?;
            let handles = writer.last_number() + 1..writer.last_number() + 1 + greed.count(HANDLES) as u64;
            writer.do_all(512, handles.clone().map(|_| opens(file(PATH)))).await?;
            let mut cacher = deaf_cacher(greed, greed.connect().await?, file(PATH)).await?;
            if std::mem::take(&mut first) {
                greed.ready();
            }
            writer.send([set_contents(node, &Bytes::from_static(b"held"))]);
            for handle in handles {
                writer.send([close(handle)]);
            }
            tokio::select! {
                ended = super::live_on(&mut cacher) => ended,
                answered = writer.all_answered() => answered,
            }
        })
        .await;
    Ok(())
}
