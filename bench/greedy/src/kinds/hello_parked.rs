//! Large frames that are sent behind a hello before that is answered.

use anyhow::Result;
use futures::future::join_all;
use holdfast_proto::client::v1::client_frame::Hello;
use holdfast_proto::client::v1::{ClientFrame, Request};

use super::{large, set_contents};
use crate::greed::Greed;
use crate::session::{opening, stream};

const STREAMS: usize = 4;
const FRAMES: usize = 64;
/// So many writes of 256 KiB are a frame of almost 4 MiB.
const WRITES_PER_FRAME: u64 = 15;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    let contents = large(b'p');
    let frame = |index: u64| {
        let numbers = (0..WRITES_PER_FRAME).map(|write| 1 + index * WRITES_PER_FRAME + write);
        // There is no such handle: the writes are refused, and only their way there counts.
        let requests = numbers
            .map(|number| Request { number, operation: Some(set_contents(u64::MAX >> 1, &contents)) })
            .collect();
        ClientFrame { requests, ..ClientFrame::default() }
    };
    greed.ready();
    let streams = (0..STREAMS).map(|_| {
        greed.again(async || {
            let channel = greed.connect().await?;
            let hello = ClientFrame { hello: Some(Hello::Open(opening(12_000)?)), ..ClientFrame::default() };
            let frames = [hello].into_iter().chain((0..greed.count(FRAMES) as u64).map(frame));
            let (_frames, mut inbound) = stream(channel, frames).await?;
            let mut answered = 0;
            while answered < greed.count(FRAMES) as u64 * WRITES_PER_FRAME {
                let Some(frame) = inbound.message().await? else { break };
                if let Some(holdfast_proto::client::v1::server_frame::Hello::Refused(refused)) = &frame.hello
                {
                    let code = refused.refusal.as_ref().map_or(0, |refusal| refusal.code);
                    greed.tally.refused(format!("stream: {}", crate::tally::code_name(code)));
                }
                answered += frame.replies.len() as u64;
                for reply in &frame.replies {
                    greed.tally.count(reply.outcome.as_ref());
                }
            }
            Ok(())
        })
    });
    join_all(streams).await;
    Ok(())
}
