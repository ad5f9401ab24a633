//! Frames of very many small reads.

use anyhow::Result;
use futures::future::join_all;

use super::{file, get_stat, open};
use crate::greed::Greed;
use crate::session::Options;

const SESSIONS: usize = 4;

/// What fits into a frame of 4 MiB.
pub(crate) const FRAME: usize = 200_000;
/// As many as a session may have under way.
pub(crate) const BATCH: usize = 4_096;

pub(crate) async fn attack(greed: &Greed, requests: usize) -> Result<()> {
    let requests = greed.count(requests);
    greed.ready();
    let sessions = (0..SESSIONS).map(|_| {
        greed.again(async || {
            let mut session = greed.session(Options::HONEST).await?;
            let handle = open(&mut session, file("/greedy-get-stat")).await?;
            session.flood(requests, requests, |_| get_stat(handle)).await
        })
    });
    join_all(sessions).await;
    Ok(())
}
