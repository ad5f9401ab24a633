//! A greedy client's process: its flags, its life, and the lines that it prints.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::greed::Greed;
use crate::kind::Kind;
use crate::tally::Status;

/// How often the client says how it fares.
const SAY_EVERY: Duration = Duration::from_millis(100);
/// The preparation takes no longer.
const PREPARE_MAX: Duration = Duration::from_secs(180);

/// How a greedy client is told what to do.
#[derive(Args, Clone, Debug)]
pub struct GreedyFlags {
    /// Where the replicas are, with commas between them.
    #[arg(long, value_name = "ADDRESSES")]
    pub addresses: String,
    /// How the client is greedy.
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// How long the client attacks once it is ready, at most.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// How much of what the kind's name stands for: in hundredths.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub percent: u32,
}

impl GreedyFlags {
    /// The flags as arguments for the process that is to be the client.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let flags = [
            ("--addresses", self.addresses.clone()),
            ("--kind", self.kind.name()),
            ("--seconds", self.seconds.to_string()),
            ("--percent", self.percent.to_string()),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }
}

/// A greedy client's process: its arguments are its flags.
///
/// # Errors
///
/// If the preparation fails, or nobody reads the lines.
pub fn process() -> Result<()> {
    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        flags: GreedyFlags,
    }
    let flags = Arguments::parse().flags;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&flags))
}

/// Prepares, attacks, and prints how it fares, one [`Status`] a line, until its time is over.
///
/// # Errors
///
/// If the preparation fails, or nobody reads the lines.
pub async fn run(flags: &GreedyFlags) -> Result<()> {
    let greed = Greed::new(&flags.addresses, flags.percent);
    let attack = async {
        flags.kind.attack(&greed).await?;
        greed.tally.over();
        // What was taken is kept: sessions live on while their client does.
        std::future::pending::<Result<()>>().await
    };
    tokio::select! {
        ended = attack => ended,
        ended = say(&greed) => ended,
        ended = life(&greed, flags.seconds) => ended,
    }
}

/// Waits until the client's time is over.
async fn life(greed: &Greed, seconds: u32) -> Result<()> {
    if tokio::time::timeout(PREPARE_MAX, greed.until_ready()).await.is_err() {
        bail!("the attack was not prepared within {PREPARE_MAX:?}");
    }
    sleep(Duration::from_secs(seconds.into())).await;
    say_once(&greed.tally.status())
}

async fn say(greed: &Greed) -> Result<()> {
    let mut ticks = interval(SAY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        say_once(&greed.tally.status())?;
    }
}

fn say_once(status: &Status) -> Result<()> {
    let line = serde_json::to_string(status)?;
    writeln!(std::io::stdout().lock(), "{line}").context("nobody reads how the client fares")
}

/// What a greedy client said last, from the file that its output goes to. Only the end of the file is read.
///
/// # Errors
///
/// If the file cannot be read.
pub fn last_status(output: &Path) -> Result<Option<Status>> {
    const TAIL_BYTES: u64 = 16 << 10;
    let mut file = std::fs::File::open(output).context("cannot open a greedy client's output")?;
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    let tail = String::from_utf8_lossy(&tail);
    let whole = tail.rsplit_once('\n').map_or("", |(whole, _)| whole);
    Ok(whole.lines().rev().find_map(|line| serde_json::from_str(line).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_line_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("output");
        let line = |done| serde_json::to_string(&Status { done, ..Status::default() }).unwrap();
        std::fs::write(&path, format!("{}\n{}\nerror: some\n{}", line(1), line(2), &line(3)[..9])).unwrap();
        assert_eq!(last_status(&path).unwrap().map(|status| status.done), Some(2));
        std::fs::write(&path, "").unwrap();
        assert_eq!(last_status(&path).unwrap(), None);
    }
}
