//! A session that says over and over that it ends, while a write of its own is held.

use anyhow::Result;
use bytes::Bytes;
use holdfast_proto::client::v1::{ClientFrame, CloseSession};

use super::{deaf_cacher, file, set_contents};
use crate::greed::Greed;
use crate::session::Options;

const PATH: &str = "/greedy-ends";
const ENDS: usize = 10_000;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    greed.ready();
    greed
        .again(async || {
            let mut writer = greed.session(Options::HONEST).await?;
            let node = super::open(&mut writer, file(PATH)).await?;
            let mut cacher = deaf_cacher(greed, greed.connect().await?, file(PATH)).await?;
            writer.send([set_contents(node, &Bytes::from_static(b"held"))]);
            for _ in 0..greed.count(ENDS) {
                writer.send_frame(ClientFrame { close: Some(CloseSession {}), ..ClientFrame::default() });
            }
            tokio::select! {
                ended = super::live_on(&mut cacher) => ended,
                ended = super::live_on(&mut writer) => ended,
            }
        })
        .await;
    Ok(())
}
