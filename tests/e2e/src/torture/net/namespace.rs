//! A network namespace with a name: made, entered and removed.
//!
//! Knows nothing of bridges and addresses. Invariant: names begin with [`PREFIX`] and the id of the process that made
//! them, so that what a killed run has left can be told from what another run uses.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, setns};

use super::rules::Rules;

/// What the names of all namespaces of all runs begin with.
const PREFIX: &str = "holdfast-";

/// Where `ip netns` keeps what is named.
const DIR: &str = "/run/netns";

/// A namespace, removed when dropped.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
    /// Keeps it open.
    file: Arc<File>,
    /// The network that the process came from.
    home: File,
}

impl Namespace {
    /// Makes one. `name` is its name within this run.
    pub(super) fn create(name: &str) -> anyhow::Result<Self> {
        let name = format!("{PREFIX}{}-{name}", std::process::id());
        let home = File::open("/proc/thread-self/ns/net").context("cannot open the own namespace")?;
        run("ip", &["netns", "add", &name], "")?;
        let file = File::open(Path::new(DIR).join(&name));
        let file = file.inspect_err(|_| remove(&name)).context("cannot open the namespace")?;
        Ok(Self { name, file: Arc::new(file), home })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it.
    pub(super) fn ip(&self, arguments: &[&str]) -> anyhow::Result<()> {
        run("ip", &[&["-n", &self.name], arguments].concat(), "")
    }

    /// Has only those packets arrive in it that the rules let pass.
    pub(super) fn apply(&self, rules: &Rules) -> anyhow::Result<()> {
        run("ip", &["netns", "exec", &self.name, "nft", "-f", "-"], &rules.to_string())
    }

    /// What it takes to enter it.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Moves this thread to where it was when this namespace was made.
    pub(super) fn leave(&self) {
        // It can fail only if the thread may not enter namespaces, and then it is in none.
        let _ = setns(&self.home, CloneFlags::CLONE_NEWNET);
    }
}

/// Moves this thread into a namespace.
pub(super) fn enter(namespace: &File) -> anyhow::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the namespaces of runs that are no longer there.
pub(super) fn remove_leftovers() {
    for name in names() {
        let id = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let id: Option<u32> = id.and_then(|id| id.parse().ok());
        if id.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            remove(&name);
        }
    }
}

/// All named namespaces of this machine.
pub(super) fn names() -> Vec<String> {
    let entries = fs::read_dir(DIR).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn remove(name: &str) {
    // If it fails, the next run tries again.
    let _ = run("ip", &["netns", "del", name], "");
}

/// Runs a program of the system to its end.
fn run(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it ends without reading, its exit status says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
