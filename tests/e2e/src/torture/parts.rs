//! The processes of a run: the program itself, started again as a replica or a client.
//!
//! One program is enough, so that one command runs everything. A part is first started under its tie, `tie PARENT NAME
//! ARGUMENT...`: it ties its life to the rig's and becomes NAME, which is how the program knows what it is. Invariant:
//! no part outlives the rig, however the rig ends.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use holdfast_types::Planted;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::net::{Host, Net};

/// The name of the program when it is to tie itself to its parent.
pub const TIE: &str = "tie";
/// The name of the program when it is a replica.
pub const REPLICA: &str = "holdfastd";
/// The name of the program when it is a client.
pub const CLIENT: &str = "holdfast-torture-client";
/// The name of the program when it is a crowd of clients.
pub const CROWD: &str = "holdfast-torture-crowd";
/// The name of the program when it is a greedy client.
pub const GREEDY: &str = "holdfast-torture-greedy";

/// The variable that names the fault which all parts are to have, in a build that can plant faults.
const PLANTED: &str = "HOLDFAST_PLANTED";

/// How the program is built and run so that it can plant faults. The directory keeps the two builds apart.
const PLANTED_BUILD: &str = "RUSTFLAGS='--cfg holdfast_planted' cargo run --release -p holdfast-e2e --bin holdfast-torture \
                             --target-dir target/planted";

/// Whether the parts can have the fault that the environment names, if it names one.
///
/// # Errors
///
/// If not: then nothing that is found would mean anything.
pub fn check_planted() -> Result<(), String> {
    let Some(name) = std::env::var_os(PLANTED) else { return Ok(()) };
    let known = name.to_str().and_then(Planted::named);
    let fault = known.ok_or_else(|| format!("{PLANTED}: there is no fault {name:?}"))?;
    if !Planted::POSSIBLE {
        return Err(format!(
            "this build cannot plant faults: {PLANTED}={} {PLANTED_BUILD} -- ...",
            fault.name()
        ));
    }
    println!("planted in all parts: {}. {}", fault.name(), fault.what());
    Ok(())
}

/// What the program was started as, if it was not by a person.
#[must_use]
pub fn name() -> Option<String> {
    let name = std::env::args_os().next()?;
    let name = Path::new(&name).file_name()?.to_str()?.to_owned();
    [TIE, REPLICA, CLIENT, CROWD, GREEDY].contains(&name.as_str()).then_some(name)
}

/// Ties this process to its parent's life, and becomes what the arguments say. Returns only if it fails.
///
/// # Errors
///
/// If the parent is gone, or the program cannot be started again.
pub fn tie() -> anyhow::Result<std::convert::Infallible> {
    let mut arguments = std::env::args_os().skip(1);
    let parent: i32 = arguments.next().and_then(|id| id.to_str()?.parse().ok()).context("no parent's id")?;
    let name = arguments.next().context("no name")?;
    tie_to(parent)?;
    // Returns only if it fails; the wish outlives it.
    Err(std::process::Command::new(program()?).arg0(name).args(arguments).exec().into())
}

/// Has this process, whatever program it becomes, be killed when its parent dies, however that dies.
///
/// # Errors
///
/// If the parent, by its id, is gone already.
pub fn tie_to(parent: i32) -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the wish was known.
    anyhow::ensure!(getppid() == Pid::from_raw(parent), "the parent is gone");
    Ok(())
}

/// The file of this very program, also if it was replaced since.
fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot tell which program this is")
}

/// A process of a run. Killed when dropped.
#[derive(Debug)]
pub struct Part(Child);

impl Part {
    /// Starts the program as `name` on a host, with its output at the end of the file `log`. The system ties it to this
    /// thread, which must therefore live as long as the run.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start<A: Into<OsString>>(
        net: &Net,
        host: Host,
        name: &str,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(log).context("cannot write the log")?;
        let mut command = Command::new(program()?);
        command.arg0(TIE).arg(std::process::id().to_string()).arg(name);
        command.args(arguments.into_iter().map(Into::into));
        // What the environment says to holdfastd is not for these, but for the fault that they are to have.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("HOLDFAST_") && variable != PLANTED {
                command.env_remove(variable);
            }
        }
        // A Ctrl-C at the terminal is for the rig alone, which then ends its parts in its own way.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        Ok(Self(net.on(host, || command.spawn())?.context("cannot start a part")?))
    }

    /// Its id; `None` once it is known to have ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.0.id()
    }

    /// Sends a signal, if it is there.
    pub fn signal(&self, signal: Signal) {
        if let Some(id) = self.0.id().and_then(|id| i32::try_from(id).ok()) {
            // It may end at this very moment.
            let _ = kill(Pid::from_raw(id), signal);
        }
    }

    /// Says a line to it, if it is there.
    pub async fn tell(&mut self, line: &str) {
        if let Some(input) = &mut self.0.stdin {
            // It may end at this very moment.
            let _ = input.write_all(format!("{line}\n").as_bytes()).await;
        }
    }

    /// Closes its standard input: a client takes that as its order to stop.
    pub fn close_input(&mut self) {
        self.0.stdin = None;
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub async fn end(&mut self) -> anyhow::Result<ExitStatus> {
        // Waiting would close it all the same, and a client would stop instead of being watched.
        let input = self.0.stdin.take();
        let ended = self.0.wait().await;
        self.0.stdin = input;
        ended.context("cannot wait for a part")
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.0.try_wait().context("cannot look after a part")
    }
}
