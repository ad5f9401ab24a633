//! What a data directory remembers of a cell for development: which replicas it has, and at which addresses.
//!
//! Invariant: it is durable before a replica is, and never changed afterwards.

use std::fs;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{DevError, DevOptions};
use crate::listen::{ListenError, Listeners};
use crate::storage::sync_dir;

const RECORD_NAME: &str = "cell.toml";

/// What the data directory remembers of the cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) cell: String,
    #[serde(default)]
    pub(super) tls: bool,
    pub(super) replicas: Vec<ReplicaRecord>,
}

/// One of its replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReplicaRecord {
    pub(super) id: u64,
    pub(super) peer_address: String,
    pub(super) client_address: String,
}

/// Whether anything is remembered in `dir`.
pub(super) fn is_in(dir: &Path) -> bool {
    dir.join(RECORD_NAME).exists()
}

/// What is remembered in `dir`, if anything is.
pub(super) fn read_record(dir: &Path) -> Result<Option<Record>, DevError> {
    let path = dir.join(RECORD_NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DevError::Io { path, source }),
    };
    let record = toml::from_str(&text).map_err(|error| DevError::Record { path, what: error.to_string() })?;
    Ok(Some(record))
}

/// Binds the sockets of a new cell, and writes down where they are.
pub(super) fn open(options: &DevOptions, dir: &Path) -> Result<(Record, Vec<Listeners>), DevError> {
    let mut record = Record { cell: options.cell.clone(), tls: options.tls, replicas: Vec::new() };
    let mut all = Vec::new();
    for place in 0..options.replicas {
        let port = |offset| options.port_base.map_or(0, |base| base + offset);
        let loopback = |port: u16| format!("{}:{port}", Ipv4Addr::LOCALHOST);
        let listeners = Listeners::bind(&loopback(port(options.replicas + place)), &loopback(port(place)))?;
        let addresses = listeners.addresses();
        let (peer, client) = addresses.map_err(|source| DevError::Io { path: dir.to_owned(), source })?;
        record.replicas.push(ReplicaRecord {
            id: u64::from(place) + 1,
            peer_address: peer.to_string(),
            client_address: client.to_string(),
        });
        all.push(listeners);
    }
    write_record(&record, dir)?;
    Ok((record, all))
}

/// Durable before a replica is: without it the replicas' data could not be found again.
fn write_record(record: &Record, dir: &Path) -> Result<(), DevError> {
    let path = dir.join(RECORD_NAME);
    let text = toml::to_string(record)
        .map_err(|error| DevError::Record { path: path.clone(), what: error.to_string() })?;
    let write = || {
        let temporary = path.with_extension("tmp");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_dir(dir)
    };
    write().map_err(|source| DevError::Io { path: path.clone(), source })
}

/// Binds the sockets of a cell that exists.
pub(super) fn reopen(
    record: Record,
    options: &DevOptions,
    dir: &Path,
) -> Result<(Record, Vec<Listeners>), DevError> {
    let describe = |cell: &str, replicas: usize, tls: bool, port: Option<&str>| {
        let tls = if tls { "with" } else { "without" };
        let port = port.map(|port| format!(" from port {port} on")).unwrap_or_default();
        format!("{cell:?} of {replicas} replicas {tls} TLS{port}")
    };
    let first_port = record.replicas.first().and_then(|replica| replica.client_address.rsplit_once(':'));
    let first_port = first_port.map(|(_, port)| port.to_owned());
    let wanted_port = options.port_base.map(|port| port.to_string());
    let same = record.cell == options.cell
        && record.replicas.len() == usize::from(options.replicas)
        && record.tls == options.tls
        && (wanted_port.is_none() || wanted_port == first_port);
    if !same {
        return Err(DevError::OtherCell {
            path: dir.to_owned(),
            found: describe(&record.cell, record.replicas.len(), record.tls, first_port.as_deref()),
            wanted: describe(
                &options.cell,
                usize::from(options.replicas),
                options.tls,
                wanted_port.as_deref(),
            ),
        });
    }
    let listeners = record.replicas.iter().map(listen).collect::<Result<_, _>>()?;
    Ok((record, listeners))
}

/// Binds the sockets of a replica where they were before.
pub(super) fn listen(replica: &ReplicaRecord) -> Result<Listeners, ListenError> {
    Listeners::bind(&replica.peer_address, &replica.client_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_remembers_its_cell_and_is_not_taken_for_another() {
        let dir = tempfile::tempdir().unwrap();
        let options = DevOptions::default();
        let (record, listeners) = open(&options, dir.path()).unwrap();
        drop(listeners);
        let found = read_record(dir.path()).unwrap().unwrap();
        assert_eq!(found, record);
        let with_tls = DevOptions { tls: true, ..options.clone() };
        let error = reopen(found.clone(), &with_tls, dir.path()).unwrap_err().to_string();
        assert!(error.contains("3 replicas without TLS") && error.contains("3 replicas with TLS"), "{error}");
        let other = DevOptions { cell: "other".into(), ..options };
        let error = reopen(found, &other, dir.path()).unwrap_err().to_string();
        assert!(error.contains("\"dev\"") && error.contains("\"other\""), "{error}");
    }
}
