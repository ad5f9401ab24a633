//! The processes beside the honest client: this program once more, as a greedy client, as a burner of processor time,
//! or as the holder of a lock that dies.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use holdfast_greedy::{GreedyFlags, Kind, Status, last_status};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use tempfile::NamedTempFile;
use tokio::time::{sleep, timeout};

use crate::arguments::Run;
use crate::usage::Usage;

/// The hidden subcommand's name.
pub(crate) const COMMAND: &str = "companion";

/// The client attacks for longer than the window is open, and is killed when that closes.
const SECONDS_MORE: u64 = 600;
/// What the holder says when it holds.
const READY: &str = "ready";
/// The holder holds within this.
const HOLD_MAX: Duration = Duration::from_secs(60);
/// A burner burns its share of each such time.
const BURN_PERIOD: Duration = Duration::from_millis(10);

/// How a companion is started.
#[derive(Debug, Args)]
pub(crate) struct CompanionFlags {
    /// The process that started it: without that it ends.
    #[arg(long, value_name = "PID")]
    parent: i32,
    #[command(subcommand)]
    role: Role,
}

/// What the process is to be.
#[derive(Debug, Subcommand)]
enum Role {
    /// A greedy client.
    Greedy(GreedyFlags),
    /// A process that burns processor time and sends nothing.
    Burner {
        /// Of one core, in thousandths.
        #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000))]
        per_mille: u32,
    },
    /// A client that holds a lock until it is killed.
    Holder {
        /// Where the replicas are.
        #[arg(long)]
        addresses: String,
    },
}

/// Becomes what the flags say, until it is killed, at the latest by its parent's end.
pub(crate) async fn be(flags: &CompanionFlags) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot tie the process's life to the bench's")?;
    ensure!(nix::unistd::getppid().as_raw() == flags.parent, "the bench is gone");
    match &flags.role {
        Role::Greedy(flags) => holdfast_greedy::run::run(flags).await,
        Role::Burner { per_mille } => burn(f64::from(*per_mille) / 1e3),
        Role::Holder { addresses } => super::lost_lock::hold(addresses).await,
    }
}

/// Says that the holder holds.
pub(super) fn say_ready() -> Result<()> {
    writeln!(std::io::stdout(), "{READY}").context("nobody hears that the holder is ready")
}

/// Burns a share of one core.
fn burn(share: f64) -> ! {
    loop {
        let began = Instant::now();
        let mut number: u64 = 1;
        while began.elapsed() < BURN_PERIOD.mul_f64(share) {
            number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        std::thread::sleep(BURN_PERIOD.saturating_sub(began.elapsed()));
    }
}

/// What is to be beside the honest client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Beside {
    Greedy(Kind),
    /// Burns this share of a core.
    Burner {
        share: f64,
    },
}

/// A process. Killed when dropped.
struct Process(Child);

impl Process {
    /// Must be called on the main thread: the process dies with the thread that starts it.
    fn start(arguments: &[String], output: Stdio) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find the program itself")?;
        let mut command = Command::new(program);
        command.args([COMMAND, "--parent", &std::process::id().to_string()]).args(arguments);
        command.stdin(Stdio::null()).stdout(output);
        Ok(Self(command.spawn().context("cannot start a companion")?))
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait().context("cannot watch a companion")?.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process beside the honest client.
pub(super) struct Companion {
    process: Process,
    /// A greedy client's lines; a burner says nothing.
    output: Option<NamedTempFile>,
    /// What the greedy client said last.
    said: Status,
}

impl Companion {
    pub(super) fn start(beside: Beside, addresses: &str, run: &Run) -> Result<Self> {
        match beside {
            Beside::Greedy(kind) => {
                let seconds = u32::try_from(run.seconds.as_secs() + SECONDS_MORE)?;
                let flags = GreedyFlags {
                    addresses: addresses.to_owned(),
                    kind,
                    seconds,
                    percent: run.greedy_percent,
                };
                let output = NamedTempFile::new().context("cannot make a file for a client's output")?;
                let arguments: Vec<String> =
                    std::iter::once("greedy".to_owned()).chain(flags.arguments()).collect();
                let process = Process::start(&arguments, output.reopen()?.into())?;
                Ok(Self { process, output: Some(output), said: Status::default() })
            }
            Beside::Burner { share } => {
                let per_mille = (share.clamp(0.0, 1.0) * 1e3).round();
                let arguments = ["burner".to_owned(), format!("--per-mille={per_mille}")];
                let process = Process::start(&arguments, Stdio::null())?;
                Ok(Self { process, output: None, said: Status { ready: true, ..Status::default() } })
            }
        }
    }

    /// Reads what the client says.
    pub(super) fn refresh(&mut self) -> Result<()> {
        if self.process.has_ended()? {
            bail!("the process beside the honest client ended by itself");
        }
        if let Some(output) = &self.output
            && let Some(status) = last_status(output.path())?
        {
            self.said = status;
        }
        Ok(())
    }

    /// Whether the attack has begun.
    pub(super) fn is_ready(&mut self) -> Result<bool> {
        self.refresh()?;
        Ok(self.said.ready)
    }

    /// The bytes that the cell keeps for the client.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.said.stored_bytes
    }

    /// The processor time that the process has had.
    pub(super) fn cpu(&self) -> Result<Duration> {
        Ok(Usage::of(self.process.0.id())?.cpu)
    }

    /// Ends the process, and tells what the client got.
    pub(super) fn end(mut self) -> Result<Status> {
        self.refresh()?;
        Ok(self.said)
    }
}

/// The holder of a lock.
pub(super) struct Holder(Process);

impl Holder {
    /// Starts it, and waits until it holds.
    pub(super) async fn start(addresses: &str) -> Result<Self> {
        let output = NamedTempFile::new().context("cannot make a file for the holder's output")?;
        let arguments = ["holder".to_owned(), format!("--addresses={addresses}")];
        let mut process = Process::start(&arguments, output.reopen()?.into())?;
        let holds = async {
            while !std::fs::read_to_string(output.path())?.contains(READY) {
                ensure!(!process.has_ended()?, "the holder of a lock ended by itself");
                sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        timeout(HOLD_MAX, holds).await.context("the holder does not get its lock")??;
        Ok(Self(process))
    }

    /// Kills it.
    pub(super) fn kill(mut self) -> Result<()> {
        self.0.0.kill().context("cannot kill the holder")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    #[test]
    fn a_companion_is_started_with_the_flags_that_it_understands() {
        let flags =
            GreedyFlags { addresses: "h:1,h:2".to_owned(), kind: Kind::HeldCalls, seconds: 7, percent: 3 };
        let line = ["bench", COMMAND, "--parent", "1", "greedy"].map(str::to_owned).into_iter();
        let parsed = Arguments::try_parse_from(line.chain(flags.arguments())).unwrap();
        let Command::Companion(CompanionFlags { role: Role::Greedy(parsed), .. }) = parsed.command else {
            panic!("{parsed:?} is no greedy client");
        };
        assert_eq!(format!("{parsed:?}"), format!("{flags:?}"));
    }
}
