//! As many large files as the cell takes, and then as many sessions.

use anyhow::Result;
use futures::future::join_all;
use holdfast_proto::client::v1::client_frame::Hello;
use holdfast_proto::client::v1::{ClientFrame, server_frame};

use super::{LARGE_BYTES, file, large, set_contents};
use crate::greed::Greed;
use crate::session::{Options, opening, stream};
use crate::tally::code_name;

const WRITERS: usize = 8;
const FILES: usize = 1_600;
const SESSIONS: usize = 20_000;
const OPENINGS: usize = 64;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    greed.ready();
    let files = greed.count(FILES);
    let contents = large(b'f');
    let writers = (0..WRITERS).map(async |writer| {
        let wanted: Vec<_> =
            (writer..files).step_by(WRITERS).map(|name| format!("/greedy-file-{name}")).collect();
        let mut wanted = wanted.iter().peekable();
        // The client counts what is broken, and goes on with the next file.
        while wanted.peek().is_some() {
            let written = async {
                let mut session = greed.session(Options::HONEST).await?;
                for path in wanted.by_ref() {
                    let handle = super::open(&mut session, file(path)).await?;
                    let outcome = session.call(set_contents(handle, &contents)).await?;
                    if !is_refused(&outcome) {
                        greed.tally.stored(LARGE_BYTES);
                    }
                    session.call(super::close(handle)).await?;
                }
                anyhow::Ok(())
            };
            if let Err(error) = written.await {
                greed.tally.broken(&format!("{error:#}"));
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    });
    join_all(writers).await;
    let channel = greed.connect().await?;
    let openers = (0..OPENINGS).map(async |opener| {
        for _ in (opener..greed.count(SESSIONS)).step_by(OPENINGS) {
            let hello = ClientFrame { hello: Some(Hello::Open(opening(60_000)?)), ..ClientFrame::default() };
            // The session outlives its stream, until its lease is over.
            let answer = async {
                let (_frames, mut inbound) = stream(channel.clone(), [hello]).await?;
                inbound.message().await
            };
            match answer.await {
                Ok(Some(frame)) => match frame.hello {
                    Some(server_frame::Hello::Refused(refused)) => {
                        let code = code_name(refused.refusal.unwrap_or_default().code);
                        greed.tally.refused(format!("session: {code}"));
                    }
                    _ => drop(greed.tally.count_call(&Ok(()))),
                },
                Ok(None) => greed.tally.broken("a stream ended"),
                Err(status) => drop(greed.tally.count_call(&Err::<(), _>(status))),
            }
        }
        anyhow::Ok(())
    });
    join_all(openers).await.into_iter().collect()
}

fn is_refused(outcome: &holdfast_proto::client::v1::Outcome) -> bool {
    use holdfast_proto::client::v1::outcome::Result as Fruit;
    !matches!(outcome.result, Some(Fruit::Written(_)))
}
