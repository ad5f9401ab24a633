//! A process that a test started: tied to the test's life, with its standard error in a file.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::wait::within;

/// Where the programs are. Cargo tells it to tests only, so they tell it to the harness.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// `e2e-replica`, which is `holdfastd`.
    pub replica: &'static str,
    /// `e2e-holdfast`, which is `holdfast`.
    pub holdfast: &'static str,
    /// `e2e-client`.
    pub client: &'static str,
    /// `e2e-holder`.
    pub holder: &'static str,
    /// `e2e-tied`.
    pub tied: &'static str,
}

/// A process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts `program` with its standard error at the end of the file `log`.
    ///
    /// The system ties the process to the thread that starts it, which must therefore be the test's own.
    pub(crate) fn start<A: AsRef<OsStr>>(
        tied: &str,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("the log can be written");
        Self::start_telling(tied, program, arguments, [], log)
    }

    /// Starts `program` with these variables and this standard error; else as [`Process::start`].
    pub(crate) fn start_telling<A: AsRef<OsStr>>(
        tied: &str,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
        variables: impl IntoIterator<Item = (String, String)>,
        stderr: impl Into<Stdio>,
    ) -> Self {
        let mut command = Command::new(tied);
        command.arg(std::process::id().to_string()).arg(program).args(arguments);
        // What the environment of whoever runs the tests says to holdfastd is not for these.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDFAST_"))
        {
            command.env_remove(name);
        }
        command.envs(variables);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true);
        Self(command.spawn().expect("the program was built with the tests"))
    }

    /// Takes the ends of standard input and output; they can be taken once.
    pub(crate) fn pipes(&mut self) -> (ChildStdin, ChildStdout) {
        (self.0.stdin.take().expect("it is a pipe"), self.0.stdout.take().expect("it is a pipe"))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.0.id().expect("the process has not been waited for");
        let id = i32::try_from(id).expect("process ids are positive");
        kill(Pid::from_raw(id), signal).expect("the process is ours");
    }

    /// How many bytes of memory it has, as the system counts them.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let id = self.0.id().expect("the process has not been waited for");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process is ours");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = kib.and_then(|kib| kib.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.expect("the system counts memory") << 10
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        within("the process ends", self.0.wait()).await.expect("the process is ours")
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("the process is ours").is_some()
    }
}
