//! Many large writes under way.

use anyhow::Result;
use futures::future::join_all;

use super::{LARGE_BYTES, file, large, open, set_contents};
use crate::greed::Greed;
use crate::session::Options;

const SESSIONS: usize = 8;
const UNDER_WAY: usize = 64;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    let contents = large(b'l');
    let under_way = greed.count(UNDER_WAY);
    greed.ready();
    let sessions = (0..SESSIONS).map(|index| {
        // Each session writes one file over and over.
        greed.tally.stored(LARGE_BYTES);
        let contents = &contents;
        greed.again(async move || {
            let mut session = greed.session(Options::HONEST).await?;
            let handle = open(&mut session, file(format!("/greedy-large-{index}"))).await?;
            session.flood(under_way, 1, |_| set_contents(handle, contents)).await
        })
    });
    join_all(sessions).await;
    Ok(())
}
