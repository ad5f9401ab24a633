//! A cell in one process, on loopback: for trying Holdfast out, for tests, and for examples.
//!
//! The replicas are the real ones, each on a thread of its own, and talk by real sockets; only that they share a
//! process, and so die together, tells the cell from one that serves. What a data directory must remember beside
//! the replicas' own data, so that the cell comes back at the same addresses, is in `cell.toml` there.
//!
//! Invariant: a cell that was stopped and is started again on the same directory is the same cell.

mod record;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use futures::future::join_all;
use holdfast_proto::peer::v1::FoundingMember;
use holdfast_types::{Principal, ReplicaId, check_cell_name};
use slog::{Logger, o};
use tempfile::TempDir;

use crate::certs::{self, CertsError, CertsOptions};
use crate::config::{BOOTSTRAP_WITH_TLS, ClientCertificates, Config, TlsConfig};
use crate::in_process::Server;
use crate::listen::{ListenError, Listeners};
use crate::server::ServerError;
use record::{Record, listen, open, read_record, reopen};

const CERTS_DIR: &str = "certs";
/// A cell for development does not run for longer than this.
const CERTS_DAYS: u32 = 365;

/// How a cell for development is set up.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// The cell's name.
    pub cell: String,
    /// How many replicas it has.
    pub replicas: u16,
    /// Where the data are kept; `None` for a temporary directory that goes with the cell.
    pub data_dir: Option<PathBuf>,
    /// Clients reach the replicas at this port and the following ones; `None` for ports that are free.
    pub port_base: Option<u16>,
    /// The cell speaks TLS, with certificates that are made for it at each start, by a CA that it keeps with its data.
    pub tls: bool,
}

impl Default for DevOptions {
    /// Three replicas of a cell called `dev`, in a temporary directory, on free ports.
    fn default() -> Self {
        Self { cell: "dev".to_owned(), replicas: 3, data_dir: None, port_base: None, tls: false }
    }
}

/// Why a cell for development cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevError {
    /// An option is wrong.
    #[error("{0}")]
    Option(String),
    /// The data directory holds another cell.
    #[error(
        "{path} holds the cell {found}, and {wanted} was asked for: give the same options as when it was made, or \
         another directory", path = path.display()
    )]
    OtherCell {
        /// The directory.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What was wanted.
        wanted: String,
    },
    /// The record in the data directory cannot be read.
    #[error("{path} is not readable as the record of a cell: {what}", path = path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// A file could not be read or written.
    #[error("cannot use {path}: {source}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cell's certificates cannot be made.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// A replica cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A replica cannot run.
    #[error("{replica} cannot run: {source}")]
    Replica {
        /// Which.
        replica: ReplicaId,
        /// Why.
        source: ServerError,
    },
}

/// A running cell. Dropping it stops its replicas at once, and blocks while they end; [`DevCell::stop`] is the better
/// way.
#[derive(Debug)]
pub struct DevCell {
    record: Record,
    data_dir: PathBuf,
    /// By their place in the record; `None` while stopped.
    servers: Vec<Option<Server>>,
    logger: Logger,
    /// Removes the data when the cell is dropped.
    _temporary: Option<TempDir>,
}

impl DevCell {
    /// Starts a cell. Returns once all its replicas run and know a master. Dropping the future stops them.
    ///
    /// # Errors
    ///
    /// Why the cell cannot run.
    pub async fn start(options: DevOptions, logger: Logger) -> Result<Self, DevError> {
        check(&options)?;
        let (data_dir, temporary) = data_dir(&options)?;
        let (record, listeners) = match read_record(&data_dir)? {
            Some(record) => reopen(record, &options, &data_dir)?,
            None => open(&options, &data_dir)?,
        };
        if record.tls {
            make_certificates(&record, &data_dir)?;
        }
        let servers = record.replicas.iter().map(|_| None).collect();
        let mut cell = Self { record, data_dir, servers, logger, _temporary: temporary };
        for (place, listeners) in listeners.into_iter().enumerate() {
            cell.start_at(place, listeners).await?;
        }
        cell.master().await?;
        Ok(cell)
    }

    /// Whether a cell was started in this data directory before; it is started at the same ports again.
    #[must_use]
    pub fn is_in(data_dir: &Path) -> bool {
        record::is_in(data_dir)
    }

    /// The cell's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.cell
    }

    /// Where clients reach the replicas, by rising id, also those that are stopped.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.record.replicas.iter().map(|replica| replica.client_address.clone()).collect()
    }

    /// Where the data are.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What a client needs to be the cell's bootstrap principal: the files of the CA, and of its own certificate and
    /// key. `None` without TLS.
    #[must_use]
    pub fn client_files(&self) -> Option<(PathBuf, PathBuf, PathBuf)> {
        let dir = self.data_dir.join(CERTS_DIR);
        let (certificate, key) = certs::client_files(&dir, &bootstrap());
        self.record.tls.then(|| (certs::ca_file(&dir), certificate, key))
    }

    /// Waits until all replicas that run know a master, and says which. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// If a replica ends meanwhile.
    ///
    /// # Panics
    ///
    /// If all replicas are stopped.
    pub async fn master(&mut self) -> Result<ReplicaId, DevError> {
        let mut known = None;
        for server in self.servers.iter_mut().flatten() {
            let replica = server.replica();
            known = match server.master().await {
                Some(master) => Some(master),
                None => {
                    let source = server.ended().await.err();
                    let source = source.unwrap_or_else(|| io::Error::other("it has stopped").into());
                    return Err(DevError::Replica { replica, source });
                }
            };
        }
        Ok(known.expect("a replica runs"))
    }

    /// Stops one replica gracefully; does nothing if it is stopped.
    ///
    /// # Errors
    ///
    /// Why it had ended before, if it had.
    ///
    /// # Panics
    ///
    /// If the cell has no such replica.
    pub async fn stop_replica(&mut self, id: ReplicaId) -> Result<(), DevError> {
        let place = self.place(id);
        match self.servers[place].take() {
            Some(server) => server.stop().await.map_err(|source| DevError::Replica { replica: id, source }),
            None => Ok(()),
        }
    }

    /// Starts one replica again; does nothing if it runs.
    ///
    /// # Errors
    ///
    /// Why it cannot run.
    ///
    /// # Panics
    ///
    /// If the cell has no such replica.
    pub async fn start_replica(&mut self, id: ReplicaId) -> Result<(), DevError> {
        let place = self.place(id);
        if self.servers[place].is_some() {
            return Ok(());
        }
        let listeners = listen(&self.record.replicas[place])?;
        self.start_at(place, listeners).await
    }

    /// Waits until a replica ends by itself, which none should. Dropping the future loses nothing.
    pub async fn failed(&mut self) -> DevError {
        let running = self.servers.iter_mut().flatten().map(|server| {
            Box::pin(async move {
                let replica = server.replica();
                let source = server.ended().await.err();
                DevError::Replica {
                    replica,
                    source: source.unwrap_or_else(|| io::Error::other("it has stopped").into()),
                }
            })
        });
        let running: Vec<_> = running.collect();
        if running.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(running).await.0
    }

    /// Stops all replicas gracefully. Returns when they have ended.
    ///
    /// # Errors
    ///
    /// Why one had ended before, if one had.
    pub async fn stop(mut self) -> Result<(), DevError> {
        let stopping = self.servers.iter_mut().filter_map(Option::take).map(|server| async move {
            let replica = server.replica();
            server.stop().await.map_err(|source| DevError::Replica { replica, source })
        });
        join_all(stopping).await.into_iter().collect()
    }

    fn place(&self, id: ReplicaId) -> usize {
        let place = self.record.replicas.iter().position(|replica| replica.id == id.0);
        place.expect("the cell has such a replica")
    }

    async fn start_at(&mut self, place: usize, listeners: Listeners) -> Result<(), DevError> {
        let id = ReplicaId(self.record.replicas[place].id);
        let members = self.record.replicas.iter().map(|replica| FoundingMember {
            id: replica.id,
            peer_address: replica.peer_address.clone(),
            client_address: replica.client_address.clone(),
        });
        let dir = self.data_dir.join(format!("replica-{}", id.0));
        let mut config = Config::new(&self.record.cell, id, dir, members.collect());
        if self.record.tls {
            let dir = self.data_dir.join(CERTS_DIR);
            let (certificate, key) = certs::replica_files(&dir, id);
            let (ca, client_certificates) = (certs::ca_file(&dir), ClientCertificates::Required);
            config.tls = Some(TlsConfig { certificate, key, ca, client_certificates });
            config.settings.bootstrap_principal = bootstrap().to_string();
        }
        let logger = self.logger.new(o!("replica" => id.0));
        let server = Server::start_on(listeners, config, logger).await;
        self.servers[place] = Some(server.map_err(|source| DevError::Replica { replica: id, source })?);
        Ok(())
    }
}

impl Drop for DevCell {
    /// Blocks until the replicas' threads have ended: a replica whose temporary directory vanished before would
    /// take that for a failing disk, and end the process.
    fn drop(&mut self) {
        self.servers.drain(..).flatten().for_each(Server::halt);
    }
}

/// Who administers a cell with TLS.
fn bootstrap() -> Principal {
    Principal::parse(BOOTSTRAP_WITH_TLS).expect("it is a principal")
}

/// Makes the certificates of the replicas and of a client. The CA stays what it is, so that clients need not be told.
fn make_certificates(record: &Record, data_dir: &Path) -> Result<(), CertsError> {
    let hosts = vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
    certs::make(&CertsOptions {
        dir: data_dir.join(CERTS_DIR),
        cell: record.cell.clone(),
        replicas: record.replicas.iter().map(|replica| (ReplicaId(replica.id), hosts.clone())).collect(),
        clients: vec![bootstrap()],
        days: CERTS_DAYS,
        force: true,
    })
    .map(drop)
}

fn check(options: &DevOptions) -> Result<(), DevError> {
    check_cell_name(&options.cell).map_err(DevError::Option)?;
    if !(1..=9).contains(&options.replicas) {
        return Err(DevError::Option(format!(
            "a cell has 1 to 9 replicas, usually 3 or 5, not {}",
            options.replicas
        )));
    }
    let room =
        options.port_base.is_none_or(|base| base > 0 && base.checked_add(2 * options.replicas).is_some());
    if room {
        return Ok(());
    }
    let count = 2 * options.replicas;
    Err(DevError::Option(format!(
        "there are no {count} ports from {} on",
        options.port_base.unwrap_or_default()
    )))
}

fn data_dir(options: &DevOptions) -> Result<(PathBuf, Option<TempDir>), DevError> {
    match &options.data_dir {
        Some(dir) => {
            fs::create_dir_all(dir).map_err(|source| DevError::Io { path: dir.clone(), source })?;
            Ok((dir.clone(), None))
        }
        None => {
            let temporary = tempfile::Builder::new().prefix("holdfast-dev-").tempdir();
            let temporary =
                temporary.map_err(|source| DevError::Io { path: std::env::temp_dir(), source })?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_be_are_refused_with_what_would_be_right() {
        let refused = |options: DevOptions| check(&options).unwrap_err().to_string();
        assert!(refused(DevOptions { cell: "Dev".into(), ..DevOptions::default() }).contains("a-z"));
        assert!(refused(DevOptions { replicas: 0, ..DevOptions::default() }).contains("1 to 9"));
        assert!(refused(DevOptions { port_base: Some(65_533), ..DevOptions::default() }).contains("6 ports"));
        check(&DevOptions { port_base: Some(7_400), ..DevOptions::default() }).unwrap();
    }
}
