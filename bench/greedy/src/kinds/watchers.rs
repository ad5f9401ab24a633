//! A directory that tens of thousands of handles watch, and writes to its children.

use anyhow::Result;
use bytes::Bytes;
use futures::future::{join, join_all};
use holdfast_proto::client::v1::{EventKind, Open};
use tokio::sync::Semaphore;

use super::{directory, file, live_on, opens};
use crate::greed::Greed;
use crate::session::Options;
use crate::unary;

const PATH: &str = "/greedy-watched";
const SESSIONS: usize = 6;
const HANDLES_PER_SESSION: usize = 16_000;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    let mut maker = greed.session(Options::HONEST).await?;
    super::open(&mut maker, directory(PATH)).await?;
    super::open(&mut maker, file(format!("{PATH}/child"))).await?;
    let opened = Semaphore::new(0);
    let watchers = (0..SESSIONS).map(|_| {
        greed.again(async || {
            let mut session = greed.session(Options::HONEST).await?;
            let events = [EventKind::ChildAdded, EventKind::ChildRemoved, EventKind::ChildModified];
            let events: Vec<i32> = events.map(i32::from).to_vec();
            let watch = Open { events, ..directory(PATH) };
            let handles = greed.count(HANDLES_PER_SESSION);
            session.do_all(2_048, std::iter::repeat_with(|| opens(watch.clone())).take(handles)).await?;
            opened.add_permits(1);
            live_on(&mut session).await
        })
    });
    let writer = greed.again(async || {
        let sessions = u32::try_from(SESSIONS).unwrap_or(u32::MAX);
        let all = opened.acquire_many(sessions).await?;
        greed.ready();
        let channel = greed.connect().await?;
        let path = format!("{PATH}/child");
        while unary::write(channel.clone(), &path, Bytes::from_static(b"new"), &greed.tally).await {}
        drop(all);
        anyhow::bail!("a write by name was refused")
    });
    join(writer, join_all(watchers)).await;
    Ok(())
}
