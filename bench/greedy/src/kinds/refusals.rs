//! Sessions whose windows are full of refusals that name long paths, and are never acknowledged.

use anyhow::Result;
use futures::future::join_all;
use holdfast_proto::client::v1::Open;

use super::{live_on, opens};
use crate::greed::Greed;
use crate::session::Options;

const SESSIONS: usize = 8;
const WINDOW: usize = 4_096;
const COMPONENT_BYTES: usize = 250;
const COMPONENTS: usize = 16;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    let path = format!("/{}", "x".repeat(COMPONENT_BYTES)).repeat(COMPONENTS);
    greed.ready();
    let sessions = (0..SESSIONS).map(|_| {
        greed.again(async || {
            let options = Options { heeds_replies: false, ..Options::HONEST };
            let mut session = greed.session(options).await?;
            let open = Open { path: path.clone(), ..Open::default() };
            let opens = std::iter::repeat_with(|| opens(open.clone())).take(greed.count(WINDOW));
            session.do_all(WINDOW, opens).await?;
            live_on(&mut session).await
        })
    });
    join_all(sessions).await;
    Ok(())
}
