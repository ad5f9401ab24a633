//! Work for the master that comes in lumps of about a quarter of a second, without a pause.
//!
//! What comes in a lump is read in one frame. The size of a lump follows from how long the last one took.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::join_all;

use super::{directory, fill_directory, open, read_dir};
use crate::greed::Greed;
use crate::session::Options;

const PATH: &str = "/greedy-slow-turns";
const CHILDREN: usize = 1_000;
const SESSIONS: usize = 2;
const LUMP: Duration = Duration::from_millis(250);
const LUMP_MIN: usize = 16;
const LUMP_MAX: usize = 4_096;

pub(crate) async fn attack(greed: &Greed) -> Result<()> {
    fill_directory(greed, PATH, greed.count(CHILDREN)).await?;
    greed.ready();
    let sessions = (0..SESSIONS).map(|_| {
        greed.again(async || {
            let mut session = greed.session(Options::HONEST).await?;
            let handle = open(&mut session, directory(PATH)).await?;
            let mut lump = LUMP_MIN;
            loop {
                let began = Instant::now();
                session.send((0..lump).map(|_| read_dir(handle)));
                session.all_answered().await?;
                let took = began.elapsed();
                greed.tally.took(took);
                lump = if took < LUMP { lump * 2 } else { lump / 2 }.clamp(LUMP_MIN, LUMP_MAX);
            }
        })
    });
    join_all(sessions).await;
    Ok(())
}
