//! The kinds, one file each, and the requests that they are made of.

pub(crate) mod cancelled_calls;
pub(crate) mod closes;
pub(crate) mod fills_cell;
pub(crate) mod get_stat;
pub(crate) mod half_sent;
pub(crate) mod held_calls;
pub(crate) mod held_writes;
pub(crate) mod hello_parked;
pub(crate) mod large_writes;
pub(crate) mod never_acknowledges;
pub(crate) mod read_dir;
pub(crate) mod refusals;
pub(crate) mod repeated_ends;
pub(crate) mod seen_hello;
pub(crate) mod slow_reader;
pub(crate) mod slow_turns;
pub(crate) mod watchers;

use anyhow::{Result, bail};
use bytes::Bytes;
use holdfast_proto::client::v1::outcome::Result as Fruit;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Close, Creation, GetContents, GetStat, NodeKind, Open, ReadDir, SetContents,
};
use tonic::transport::Channel;

use crate::greed::Greed;
use crate::session::{Options, RawSession};
use crate::tally::code_name;

/// The largest contents that a cell allows by default.
pub(crate) const LARGE_BYTES: usize = 256 << 10;

/// The largest contents, of one byte over and over.
pub(crate) fn large(byte: u8) -> Bytes {
    Bytes::from(vec![byte; LARGE_BYTES])
}

/// A file, which is created if there is none.
pub(crate) fn file(path: impl Into<String>) -> Open {
    Open { path: path.into(), creation: Creation::May.into(), kind: NodeKind::File.into(), ..Open::default() }
}

/// A directory, which is created if there is none.
pub(crate) fn directory(path: impl Into<String>) -> Open {
    Open { kind: NodeKind::Directory.into(), ..file(path) }
}

/// The request that opens a node.
pub(crate) fn opens(node: Open) -> Operation {
    Operation::Open(Box::new(node))
}

pub(crate) fn close(handle: u64) -> Operation {
    Operation::Close(Close { handle })
}

pub(crate) fn get_stat(handle: u64) -> Operation {
    Operation::GetStat(GetStat { handle })
}

pub(crate) fn get_contents(handle: u64) -> Operation {
    Operation::GetContents(GetContents { handle })
}

pub(crate) fn read_dir(handle: u64) -> Operation {
    Operation::ReadDir(ReadDir { handle, ..ReadDir::default() })
}

pub(crate) fn set_contents(handle: u64, contents: &Bytes) -> Operation {
    Operation::SetContents(SetContents { handle, contents: contents.clone(), ..SetContents::default() })
}

/// Opens a node, and gives its handle.
pub(crate) async fn open(session: &mut RawSession<'_>, node: Open) -> Result<u64> {
    let number = session.send([opens(node)]);
    match session.reply(number).await?.outcome.and_then(|outcome| outcome.result) {
        Some(Fruit::Opened(_)) => Ok(number),
        Some(Fruit::Refusal(refusal)) => bail!("an open is refused: {}", code_name(refusal.code)),
        other => bail!("{other:?} answers an open"),
    }
}

/// Makes a directory with so many small files in it.
pub(crate) async fn fill_directory(greed: &Greed, path: &str, children: usize) -> Result<()> {
    let mut session = greed.session(Options::HONEST).await?;
    open(&mut session, directory(path)).await?;
    for from in (0..children).step_by(512) {
        let names = from..children.min(from + 512);
        let opens = names.map(|child| opens(file(format!("{path}/child-{child:06}"))));
        let first = session.send(opens);
        let count = session.under_way();
        session.all_answered().await?;
        session.do_all(512, (first..first + count).map(close)).await?;
    }
    Ok(())
}

/// A session that has this node in its cache, and never acknowledges a notice.
pub(crate) async fn deaf_cacher<'a>(
    greed: &'a Greed,
    channel: Channel,
    node: Open,
) -> Result<RawSession<'a>> {
    let mut session = RawSession::open(channel, Options::DEAF, &greed.tally).await?;
    let is_directory = node.kind() == NodeKind::Directory;
    let handle = open(&mut session, Open { caching: true, ..node }).await?;
    let read = if is_directory { read_dir(handle) } else { get_contents(handle) };
    let number = session.send([read]);
    // If it may not be cached now, the attack fails, and the counters show that.
    session.reply(number).await?;
    Ok(session)
}

/// Keeps a session alive until it ends.
pub(crate) async fn live_on(session: &mut RawSession<'_>) -> Result<()> {
    loop {
        session.next().await?;
    }
}
