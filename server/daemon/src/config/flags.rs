//! The flags of `holdfastd run`, one for each key, as text: all sources are checked in one place, with the same
//! words. Which keys there are stands here once, in [`KEYS`] and beside it in [`ConfigFlags::given`].

use std::path::PathBuf;

/// Every key. Those that begin with `tls_` stand in the file without that, in the table `[tls]`.
pub(super) const KEYS: [&str; 23] = [
    "cell",
    "replica",
    "data_dir",
    "peer_listen",
    "client_listen",
    "peer_advertise",
    "client_advertise",
    "members",
    "join",
    "settings",
    "tls_certificate",
    "tls_key",
    "tls_ca",
    "tls_client_certificates",
    "tick_ms",
    "heartbeat_ms",
    "election_ms",
    "lease_floor_ms",
    "snapshot_every_bytes",
    "log_tail_bytes",
    "client_connections_max",
    "log_format",
    "log_level",
];

/// Flags that set a replica up. Each can stand in the file too (with `_` for `-`; those that begin with `--tls-` in the
/// table `[tls]`), and as a variable (`HOLDFAST_DATA_DIR` for `--data-dir`). Flags outweigh variables, and variables
/// the file.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub struct ConfigFlags {
    /// The configuration file (TOML); or HOLDFAST_CONFIG.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The cell's name.
    #[arg(long, value_name = "NAME")]
    pub cell: Option<String>,
    /// The replica's id: from 1 upwards, never used twice in a cell.
    #[arg(long, value_name = "ID")]
    pub replica: Option<String>,
    /// Where the replica keeps its data. No other replica may use the directory.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Where to listen for other replicas.
    #[arg(long, value_name = "HOST:PORT")]
    pub peer_listen: Option<String>,
    /// Where to listen for clients.
    #[arg(long, value_name = "HOST:PORT")]
    pub client_listen: Option<String>,
    /// Where other replicas reach this one, if not where it listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub peer_advertise: Option<String>,
    /// Where clients reach this one, if not where it listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub client_advertise: Option<String>,
    /// The replicas that found the cell: ID=PEER_ADDRESS/CLIENT_ADDRESS, separated by commas.
    #[arg(long, value_name = "LIST")]
    pub members: Option<String>,
    /// Join a cell that exists instead of founding one.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    pub join: Option<String>,
    /// Settings that the cell begins with: NAME=VALUE, separated by commas.
    #[arg(long, value_name = "LIST")]
    pub settings: Option<String>,
    /// The replica's certificate, and those between it and the CA (PEM). With it, and with --tls-key and --tls-ca,
    /// the replica speaks TLS.
    #[arg(long, value_name = "FILE")]
    pub tls_certificate: Option<String>,
    /// The certificate's key (PEM).
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// The CAs whose certificates are trusted, of clients and replicas (PEM).
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<String>,
    /// Whether clients need a certificate: required or optional [default: required].
    #[arg(long, value_name = "WHETHER")]
    pub tls_client_certificates: Option<String>,
    /// The length of a raft tick [default: 50].
    #[arg(long, value_name = "MS")]
    pub tick_ms: Option<String>,
    /// How often a master sends heartbeats [default: 100].
    #[arg(long, value_name = "MS")]
    pub heartbeat_ms: Option<String>,
    /// After how long a silence of the master the others elect a new one [default: 1000].
    #[arg(long, value_name = "MS")]
    pub election_ms: Option<String>,
    /// The least that a new master gives every session [default: 5000].
    #[arg(long, value_name = "MS")]
    pub lease_floor_ms: Option<String>,
    /// Write a snapshot after so many bytes of log [default: 64MiB].
    #[arg(long, value_name = "BYTES")]
    pub snapshot_every_bytes: Option<String>,
    /// Keep so many bytes of log behind a snapshot [default: 32MiB].
    #[arg(long, value_name = "BYTES")]
    pub log_tail_bytes: Option<String>,
    /// Let so many connections of clients be open [default: as many as the limit of open files allows].
    #[arg(long, value_name = "NUMBER")]
    pub client_connections_max: Option<String>,
    /// What the program's log looks like: auto, text or json [default: auto].
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// How much it says: critical, error, warning, info, debug or trace [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl ConfigFlags {
    /// The value of each key, in the order of [`KEYS`].
    pub(super) fn given(&self) -> [&Option<String>; KEYS.len()] {
        [
            &self.cell,
            &self.replica,
            &self.data_dir,
            &self.peer_listen,
            &self.client_listen,
            &self.peer_advertise,
            &self.client_advertise,
            &self.members,
            &self.join,
            &self.settings,
            &self.tls_certificate,
            &self.tls_key,
            &self.tls_ca,
            &self.tls_client_certificates,
            &self.tick_ms,
            &self.heartbeat_ms,
            &self.election_ms,
            &self.lease_floor_ms,
            &self.snapshot_every_bytes,
            &self.log_tail_bytes,
            &self.client_connections_max,
            &self.log_format,
            &self.log_level,
        ]
    }
}
