//! One replica as a process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::Signal;

use crate::process::{Process, Programs};

/// A replica: its configuration, its directory, and its process while it runs.
#[derive(Debug)]
pub struct Replica {
    programs: Programs,
    id: u64,
    peer_address: String,
    client_address: String,
    /// The flags of `holdfastd run`, without their dashes.
    flags: BTreeMap<String, String>,
    /// What its environment has besides.
    variables: BTreeMap<String, String>,
    /// What it has said so far, over all its starts.
    log: PathBuf,
    process: Option<Process>,
}

impl Replica {
    pub(crate) fn new(programs: Programs, id: u64, addresses: [String; 2], dir: &Path) -> Self {
        let [peer_address, client_address] = addresses;
        let flags = BTreeMap::from([
            ("replica".to_owned(), id.to_string()),
            ("data-dir".to_owned(), dir.join(format!("replica-{id}")).display().to_string()),
            ("peer-listen".to_owned(), peer_address.clone()),
            ("client-listen".to_owned(), client_address.clone()),
            ("log-format".to_owned(), "text".to_owned()),
            // A test does not wait longer than it must for those who died.
            ("lease-floor-ms".to_owned(), "1000".to_owned()),
        ]);
        let log = dir.join(format!("replica-{id}.log"));
        Self {
            programs,
            id,
            peer_address,
            client_address,
            flags,
            variables: BTreeMap::new(),
            log,
            process: None,
        }
    }

    /// Its raft id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where other replicas reach it.
    #[must_use]
    pub fn peer_address(&self) -> &str {
        &self.peer_address
    }

    /// Where clients reach it.
    #[must_use]
    pub fn client_address(&self) -> &str {
        &self.client_address
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        Path::new(&self.flags["data-dir"])
    }

    /// Its snapshot files, the newest last.
    #[must_use]
    pub fn snapshots(&self) -> Vec<PathBuf> {
        files(&self.data_dir().join("snapshots"), "snap")
    }

    /// The newest file of its log.
    ///
    /// # Panics
    ///
    /// If it has none.
    #[must_use]
    pub fn newest_log_file(&self) -> PathBuf {
        files(&self.data_dir().join("log"), "raftlog").pop().expect("the replica has a log")
    }

    /// Sets a flag of `holdfastd run`, from its next start on.
    pub fn set(&mut self, flag: &str, value: impl Into<String>) {
        self.flags.insert(flag.to_owned(), value.into());
    }

    /// Gives no such flag, from its next start on.
    pub fn unset(&mut self, flag: &str) {
        self.flags.remove(flag);
    }

    /// Sets a variable of its environment, from its next start on.
    pub fn set_variable(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    /// Starts it. Returns at once.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("the log can be written");
        self.start_telling(log);
    }

    /// Starts it with this standard error instead of a file. Returns at once.
    ///
    /// # Panics
    ///
    /// If it runs.
    pub fn start_telling(&mut self, stderr: impl Into<Stdio>) {
        assert!(self.process.is_none(), "replica {} runs already", self.id);
        let flags = self.flags.iter().map(|(flag, value)| format!("--{flag}={value}"));
        let arguments = std::iter::once("run".to_owned()).chain(flags);
        let Programs { tied, replica, .. } = self.programs;
        let variables = self.variables.clone();
        self.process = Some(Process::start_telling(tied, replica, arguments, variables, stderr));
    }

    /// Kills it, by SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.kill_only();
        self.end().await;
    }

    /// Kills it, by SIGKILL. [`Replica::end`] waits for it.
    pub fn kill_only(&mut self) {
        self.running().signal(Signal::SIGKILL);
    }

    /// Stops it from running, by SIGSTOP, until [`Replica::resume`].
    pub fn pause(&mut self) {
        self.running().signal(Signal::SIGSTOP);
    }

    /// Lets it run on.
    pub fn resume(&mut self) {
        self.running().signal(Signal::SIGCONT);
    }

    /// Asks it to stop, by SIGTERM. [`Replica::end`] waits for it.
    pub fn terminate(&mut self) {
        self.running().signal(Signal::SIGTERM);
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// If it does not end within the limit.
    pub async fn end(&mut self) -> ExitStatus {
        let status = self.running().end().await;
        self.process = None;
        status
    }

    /// Whether its process is there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| !process.has_ended())
    }

    /// How many bytes of memory it has, as the system counts them.
    ///
    /// # Panics
    ///
    /// If it does not run.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.process.as_ref().expect("the replica was started").memory_bytes()
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has said last, in short: the error that it ended with.
    #[must_use]
    pub fn last_words(&self) -> String {
        self.log().lines().last().unwrap_or_default().to_owned()
    }

    fn running(&mut self) -> &mut Process {
        self.process.as_mut().expect("the replica was started")
    }
}

/// The files with this extension, by their names, which are numbers with leading zeros.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("the directory can be read").path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}
