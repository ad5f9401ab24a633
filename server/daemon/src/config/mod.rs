//! How one replica is set up: read from a TOML file, `HOLDFAST_*` variables and flags, each outweighing the one
//! before it, and checked as a whole before anything is opened.
//!
//! What other modules use:
//! - [`ConfigFlags`], to be flattened into a clap command;
//! - [`Config::load`], which reads all sources; [`Config::new`] for the cells that a program makes itself;
//! - [`Config::founding`], how this replica would found its cell.
//!
//! Never here: anything of the cell's behaviour after its founding. `members` and `settings` say how a cell
//! begins; once it has begun they are replicated state, and what stands here is no longer looked at.
//!
//! Invariant: a [`Config`] that exists is consistent. Each error names the source, the key, what is wrong and
//! what would be right. A key that does not exist is an error, never ignored; as a variable, which others may have set, it is
//! passed over and said ([`announce`]).

mod checks;
mod flags;
mod passed_over;
mod source;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use holdfast_proto::client::v1::Settings;
use holdfast_proto::peer::v1::{Founding, FoundingMember};
use holdfast_types::{Principal, ReplicaId};
use prost::Message;

pub(crate) use checks::BOOTSTRAP_WITH_TLS;
pub use flags::ConfigFlags;
pub use passed_over::{PassedOver, announce};
use source::Sources;
pub use source::variables;

/// The level of detail of the program's log.
pub type LogLevel = slog::Level;

/// What the program's log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text if it goes to a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
}

/// The set-up of one replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The cell's name.
    pub cell: String,
    /// The replica's raft id; greater than 0.
    pub replica: ReplicaId,
    /// Where the replica keeps its identity, log and snapshots.
    pub data_dir: PathBuf,
    /// Where to listen for other replicas; `host:port`.
    pub peer_listen: String,
    /// Where to listen for clients; `host:port`.
    pub client_listen: String,
    /// Where other replicas reach this one. Equal to this replica's address in `members`.
    pub peer_advertise: String,
    /// Where clients reach this one. Equal to this replica's address in `members`.
    pub client_advertise: String,
    /// The replicas that found the cell, by rising id, this one among them. Empty exactly if `join`.
    pub members: Vec<FoundingMember>,
    /// The replica joins a cell that exists instead of founding one.
    pub join: bool,
    /// Where this replica dials others instead of their addresses in the cell. No source sets it: it is for programs that
    /// run replicas themselves and put something between them.
    pub peer_routes: BTreeMap<ReplicaId, String>,
    /// The settings that the cell begins with; complete.
    pub settings: Settings,
    /// The cell's bootstrap principal from now on, whatever the cell says: the way back for operators who are locked out. A
    /// flag alone sets it, so that it stays in no file.
    pub override_bootstrap_principal: Option<Principal>,
    /// Who speaks for the replica, and whom it believes; `None`: it runs without TLS, and believes everybody.
    pub tls: Option<TlsConfig>,
    /// The length of a raft tick.
    pub tick_ms: u64,
    /// How often a master sends heartbeats; a multiple of `tick_ms`.
    pub heartbeat_ms: u64,
    /// After how long a silence a follower campaigns; a multiple of `tick_ms`, several heartbeats long.
    pub election_ms: u64,
    /// A new master starts no session with less than this.
    pub lease_floor_ms: u64,
    /// A snapshot is written after so many bytes of log.
    pub snapshot_every_bytes: u64,
    /// So many bytes of log are kept behind the last snapshot.
    pub log_tail_bytes: u64,
    /// So many connections of clients may be open; `None`: as many as the limit of open files allows.
    pub client_connections_max: Option<u64>,
    /// What the program's log looks like.
    pub log_format: LogFormat,
    /// How much the program's log says.
    pub log_level: LogLevel,
    /// Variables that begin like those of a replica and set nothing, for whoever starts the log: [`announce`].
    pub passed_over: Vec<PassedOver>,
}

/// The set-up of TLS: files in PEM form, which are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The replica's certificate first, then those between it and a CA.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// The CAs that are trusted, of clients and replicas alike.
    pub ca: PathBuf,
    /// Whether clients need a certificate. Replicas always do.
    pub client_certificates: ClientCertificates,
}

/// Whether clients need a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Whoever has none is refused.
    Required,
    /// Whoever has none is the principal `anonymous`.
    Optional,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {path} is not TOML: {message}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where, and why.
        message: String,
    },
    /// There is no such key.
    #[error("{place}: there is no such key; the nearest one is {nearest}")]
    UnknownKey {
        /// The source and the key.
        place: String,
        /// The key that was probably meant, as this source writes it.
        nearest: String,
    },
    /// A key that is needed is nowhere.
    #[error("{key} is not given: set {key} in the file, {variable} or {flag}; {meaning}{hint}")]
    Missing {
        /// The key, as the file writes it.
        key: String,
        /// The variable that would set it.
        variable: String,
        /// The flag that would set it.
        flag: String,
        /// What it is.
        meaning: &'static str,
        /// A variable that may have been meant to set it, in a sentence; or empty.
        hint: String,
    },
    /// A value is wrong, in itself or beside others.
    #[error("{place}: {what}")]
    Wrong {
        /// The source and the key.
        place: String,
        /// What is wrong, and what would be right.
        what: String,
    },
}

impl Config {
    /// Reads the file that `flags` or `HOLDFAST_CONFIG` name, if any, then `variables` (of which only
    /// `HOLDFAST_*` matter), then the flags, and checks the whole.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, as a [`ConfigError`].
    pub fn load(
        flags: &ConfigFlags,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        checks::config(Sources::read(flags, variables)?)
    }

    /// The configuration of a founding replica with every default, without TLS, for programs that make cells themselves. The
    /// replica listens where `members` says that it is.
    ///
    /// # Panics
    ///
    /// If `replica` is not among `members`.
    #[must_use]
    pub fn new(cell: &str, replica: ReplicaId, data_dir: PathBuf, members: Vec<FoundingMember>) -> Self {
        let own = members.iter().find(|member| member.id == replica.0);
        let own = own.expect("the replica is one of its cell's members").clone();
        Self {
            cell: cell.to_owned(),
            replica,
            data_dir,
            peer_listen: own.peer_address.clone(),
            client_listen: own.client_address.clone(),
            peer_advertise: own.peer_address,
            client_advertise: own.client_address,
            members,
            join: false,
            peer_routes: BTreeMap::new(),
            settings: holdfast_state::settings::defaults(),
            override_bootstrap_principal: None,
            tls: None,
            tick_ms: 50,
            heartbeat_ms: 100,
            election_ms: 1_000,
            lease_floor_ms: 5_000,
            snapshot_every_bytes: 64 << 20,
            log_tail_bytes: 32 << 20,
            client_connections_max: None,
            log_format: LogFormat::Auto,
            log_level: LogLevel::Info,
            passed_over: Vec::new(),
        }
    }

    /// How this replica would found the cell; `None` if it joins one.
    #[must_use]
    pub fn founding(&self) -> Option<Founding> {
        let settings = self.settings.encode_to_vec().into();
        (!self.join).then(|| {
            let state_version = holdfast_state::VERSION_MAX;
            Founding { members: self.members.clone(), settings, state_version }
        })
    }

    /// A heartbeat comes every so many ticks.
    #[must_use]
    pub fn heartbeat_ticks(&self) -> usize {
        usize::try_from(self.heartbeat_ms / self.tick_ms).unwrap_or(usize::MAX)
    }

    /// An election begins after so many silent ticks.
    #[must_use]
    pub fn election_ticks(&self) -> usize {
        usize::try_from(self.election_ms / self.tick_ms).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests;
