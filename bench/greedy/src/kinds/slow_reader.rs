//! A stream whose replies the client does not read, on a connection that it shares with a neighbour.

use std::time::Duration;

use anyhow::Result;
use futures::future::join;
use holdfast_proto::client::v1::ReadDir;
use holdfast_proto::client::v1::request::Operation;
use tokio::time::sleep;
use tonic::transport::Channel;

use super::{directory, fill_directory, get_stat, open};
use crate::greed::Greed;
use crate::session::{Options, RawSession};

const PATH: &str = "/greedy-slow-reader";
const CHILDREN: usize = 200;
const FRAMES: usize = 2_390;
/// The client sends one-request frames no faster than that, so that each is a frame of HTTP/2 of its own.
const FRAMES_AT_ONCE: usize = 16;
/// The neighbour asks for something so often.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// An attack lasts so long before the next one.
const ROUND: Duration = Duration::from_secs(3);

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    fill_directory(greed, PATH, CHILDREN).await?;
    greed.ready();
    greed
        .again(async || {
            let channel = greed.connect().await?;
            tokio::select! {
                ended = live_beside(greed, channel.clone()) => ended,
                ended = async {
                    loop {
                        do_not_read(greed, channel.clone()).await?;
                    }
                } => ended,
            }
        })
        .await;
    Ok(())
}

/// A neighbour, who is honest. It ends when its stream does, which is counted.
pub(crate) async fn live_beside(greed: &Greed, channel: Channel) -> Result<()> {
    let neighbour = async {
        let mut session = RawSession::open(channel, Options::HONEST, &greed.tally).await?;
        let handle = open(&mut session, directory("/")).await?;
        loop {
            let (asked, ()) = join(session.call(get_stat(handle)), sleep(ASK_EVERY)).await;
            asked?;
        }
    };
    let ended: Result<()> = neighbour.await;
    greed.tally.lost_neighbour();
    ended
}

async fn do_not_read(greed: &Greed, channel: Channel) -> Result<()> {
    let mut session = RawSession::open(channel, Options::HONEST, &greed.tally).await?;
    let handle = open(&mut session, directory(PATH)).await?;
    for frame in 0..greed.count(FRAMES) {
        session.send([Operation::ReadDir(ReadDir { handle, ..ReadDir::default() })]);
        if frame % FRAMES_AT_ONCE == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    sleep(ROUND).await;
    Ok(())
}
