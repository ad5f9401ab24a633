//! Hellos that decode to twenty times their size: attachments with as many empty entries as fit.

use anyhow::Result;
use bytes::Bytes;
use futures::future::join_all;
use holdfast_proto::client::v1::client_frame::Hello;
use holdfast_proto::client::v1::{AttachSession, ClientFrame, Seen, server_frame};

use crate::greed::Greed;
use crate::session::stream;
use crate::tally::code_name;

const STREAMS: usize = 16;
/// An empty entry takes two bytes of a message of at most 4 MiB.
const ENTRIES: usize = 2_000_000;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    let attach = AttachSession {
        session: 1 << 40,
        secret: Bytes::from_static(&[7; 32]),
        attachment: 1,
        seen: vec![Seen::default(); greed.count(ENTRIES)],
        ..AttachSession::default()
    };
    let hello = ClientFrame { hello: Some(Hello::Attach(attach)), ..ClientFrame::default() };
    greed.ready();
    let streams = (0..STREAMS).map(|_| {
        greed.again(async || {
            let channel = greed.connect().await?;
            loop {
                let (_frames, mut inbound) = stream(channel.clone(), [hello.clone()]).await?;
                while let Some(frame) = inbound.message().await? {
                    if let Some(server_frame::Hello::Refused(refused)) = frame.hello {
                        greed.tally.refused(code_name(refused.refusal.unwrap_or_default().code));
                    }
                }
            }
        })
    });
    join_all(streams).await;
    Ok(())
}
