//! Unary calls that send most of their message, and then nothing.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::join_all;
use http_body::Frame;
use tonic::body::Body;
use tonic::client::GrpcService as _;
use tonic::codegen::http::Request;

use crate::greed::Greed;

const CALLS: usize = 250;
const CALLS_PER_CONNECTION: usize = 125;
const SENT_BYTES: usize = 3_900_000;
const MESSAGE_BYTES: u32 = 4_000_000;
const CHUNK_BYTES: usize = 16 << 10;

/// The beginning of a message, which never ends.
#[derive(Debug)]
struct Half {
    head: Option<Bytes>,
    left: usize,
}

impl Half {
    fn new(bytes: usize) -> Self {
        let mut head = BytesMut::new();
        head.put_u8(0);
        head.put_u32(MESSAGE_BYTES);
        Self { head: Some(head.freeze()), left: bytes }
    }
}

impl http_body::Body for Half {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        if self.left == 0 {
            // Nobody wakes this task again, but for the end of its stream.
            return Poll::Pending;
        }
        let chunk = self.left.min(CHUNK_BYTES);
        self.left -= chunk;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; chunk])))))
    }
}

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    greed.ready();
    let calls = greed.count(CALLS);
    let connections = (0..calls.div_ceil(CALLS_PER_CONNECTION)).map(async |_| {
        greed
            .again(async || {
                let channel = greed.connect().await?;
                let calls = (0..calls.min(CALLS_PER_CONNECTION)).map(|_| {
                    let mut channel = channel.clone();
                    greed.again(async move || {
                        std::future::poll_fn(|context| channel.poll_ready(context)).await?;
                        let call = Request::post("http://greedy/holdfast.client.v1.Cell/SetContents")
                            .header("content-type", "application/grpc")
                            .header("te", "trailers")
                            .body(Body::new(Half::new(SENT_BYTES)))?;
                        let answer = channel.call(call).await?;
                        let code = answer.headers().get("grpc-status").and_then(|code| code.to_str().ok());
                        greed.tally.refused(format!("status {}", code.unwrap_or("none")));
                        Ok(())
                    })
                });
                join_all(calls).await;
                Ok(())
            })
            .await;
    });
    join_all(connections).await;
    Ok(())
}
