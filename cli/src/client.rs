//! What every subcommand has in hand: the cell, the form of the output, and how long to wait.

use std::time::Duration;

use anyhow::Result;
use holdfast::{Cell, ConnectError, Error, RefusalCode, Session, SessionBuilder, Tls, TlsError, Uses};
use tokio::time::timeout;

use crate::arguments::{Common, TlsFiles, options};
use crate::failure::{Failure, Kind};
use crate::name::Name;
use crate::output::{self, Output};

/// Where `holdfastd dev --port-base 7101` serves.
const ADDRESSES_DEFAULT: &str = "127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103";

/// For what only writes, or takes a lock: whoever may do that need not be allowed to read.
pub(crate) const WRITE_ONLY: Uses = Uses { read: false, write: true, change_acl: false };
/// The cell gets so long to confirm the end of a session. It forgets one by itself, too.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// The cell, and how to talk about it.
#[derive(Debug)]
pub(crate) struct Client {
    /// The cell at the given addresses.
    pub(crate) cell: Cell,
    /// Where results go.
    pub(crate) output: Output,
    /// The longest that a subcommand looks for a master and waits for its answer.
    pub(crate) timeout: Duration,
    /// The name that the cell must have.
    cell_name: Option<String>,
    /// Nobody said where the cell is.
    addresses_are_default: bool,
}

impl Client {
    /// A client of the cell that the command line means. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// If an address is malformed, or a certificate or key cannot be used.
    pub(crate) fn new(common: &Common) -> Result<Self> {
        let addresses = common.addresses.as_deref().unwrap_or(ADDRESSES_DEFAULT);
        let mut builder = Cell::builder()
            .addresses([addresses])
            .name(common.cell.clone().unwrap_or_default())
            .timeout(common.timeout);
        if let Some(tls) = tls(&common.tls)? {
            builder = builder.tls(tls);
        }
        let cell = builder.connect().map_err(|error| match error {
            ConnectError::Tls(error @ TlsError::ServerName(_)) => {
                Failure::error(Kind::Usage, format!("{}: {error}", options(&["server_name"])))
            }
            // It says which file, and what it should be.
            ConnectError::Tls(error) => anyhow::Error::new(error),
            error => {
                let between = if addresses.contains(char::is_whitespace) {
                    " (put commas between addresses)"
                } else {
                    ""
                };
                let message = format!("{}: {error}{between}", options(&["addresses"]));
                name_flags(Failure::error(Kind::Usage, message))
            }
        })?;
        Ok(Self {
            cell,
            output: Output::new(common.json),
            timeout: common.timeout,
            cell_name: common.cell.clone(),
            addresses_are_default: common.addresses.is_none(),
        })
    }

    /// Opens a session, within `--timeout`.
    ///
    /// # Errors
    ///
    /// If the cell refuses, or no master answers in time.
    pub(crate) async fn open_session(&self, builder: SessionBuilder) -> Result<Session> {
        Ok(builder.open_timeout(self.timeout).open().await?)
    }

    /// The name to send for a node: one that another cell will refuse, if `--cell` was given.
    pub(crate) fn path(&self, name: &Name) -> String {
        let text = name.as_str();
        match &self.cell_name {
            Some(cell) if text == "/" => format!("/ls/{cell}"),
            Some(cell) if !text.starts_with("/ls/") => format!("/ls/{cell}{text}"),
            _ => text.to_owned(),
        }
    }

    /// The cell, for a change; `force`: even if the caller could not undo it.
    pub(crate) fn cell(&self, force: bool) -> Cell {
        if force { self.cell.forced() } else { self.cell.clone() }
    }

    /// Says which of these access control lists do not exist. A list that cannot be looked at is taken to exist.
    pub(crate) async fn missing_lists(&self, names: &[Option<&str>]) -> Vec<String> {
        let mut missing = Vec::new();
        for name in names.iter().flatten().filter(|name| **name != "*") {
            let found = self.cell.stat(&self.path(&Name::of_acl(name))).await;
            if matches!(found, Err(Error::Refused { code: RefusalCode::NotFound, .. })) {
                missing.push((*name).to_owned());
            }
        }
        missing.sort();
        missing.dedup();
        missing
    }

    /// Warns people of lists that do not exist.
    pub(crate) fn warn_of_missing(&self, missing: &[String]) {
        for name in missing.iter().filter(|_| !self.output.is_json()) {
            output::tell(&format!(
                "warning: there is no list {name:?} (no file /acl/{name}), and until there is it lets nobody in"
            ));
        }
    }

    /// Makes sure that the cell is the one that `--cell` names, for requests that name no node.
    ///
    /// # Errors
    ///
    /// If it is another one, or no replica answers.
    pub(crate) async fn check_cell(&self) -> Result<()> {
        let Some(wanted) = &self.cell_name else { return Ok(()) };
        let found = self.cell.status().await?.cell;
        anyhow::ensure!(
            found == *wanted,
            "the cell at {} is called {found:?}, and --cell says {wanted:?}",
            self.cell.addresses().join(",")
        );
        Ok(())
    }

    /// The name that the cell must have, if one was given.
    pub(crate) fn wanted_cell(&self) -> Option<&str> {
        self.cell_name.as_deref()
    }

    /// Adds what only this program knows to an error.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let absent = error
            .chain()
            .any(|cause| matches!(cause.downcast_ref(), Some(Error::Unavailable { absent: true, .. })));
        let advice = match (self.addresses_are_default, Kind::of(&error)) {
            (true, Kind::Unreachable) if absent => {
                "no address was given (set --addresses or HOLDFAST_ADDRESSES, or start a cell here with 'holdfastd \
                 dev'), and at the default ones"
            }
            (true, Kind::Unreachable) => {
                "no address was given (set --addresses or HOLDFAST_ADDRESSES), and at the default ones"
            }
            _ => return name_flags(error),
        };
        name_flags(error).context(advice)
    }
}

/// What the library says of its settings, and the options that set them here, by the names of their fields. The library's error
/// has these sentences from the replicas' addresses, each of which may have its own, so they are found by their words.
const SETTINGS: [(&str, &[&str]); 4] = [
    ("give a CA certificate", &["ca"]),
    ("set the TLS server name", &["server_name"]),
    ("a client certificate, and none is configured here", &["cert", "key"]),
    ("it has expired, or is not valid yet", &["cert"]),
];

/// Says which options an error of the library is about.
fn name_flags(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    match SETTINGS.iter().find(|(said, _)| text.contains(said)) {
        Some((_, fields)) => {
            let kind = Kind::of(&error);
            Failure::error(kind, format!("{text} ({})", options(fields)))
        }
        None => error,
    }
}

/// Ends a session. What it held is released already, or lost; what is left may not hold up the exit for long.
pub(crate) async fn close(session: Session) {
    let _ = timeout(CLOSE_MAX, session.close()).await;
}

/// Parses the address of a replica that is to be told to the cell.
///
/// # Errors
///
/// A sentence for clap to print after the flag's name.
pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    if text.contains([',', '/']) || text.contains(char::is_whitespace) || text.is_empty() {
        return Err("write the one address of the replica: host:port, such as 10.0.0.4:7101".to_owned());
    }
    match Cell::connect([text]) {
        Err(error @ (ConnectError::Malformed { .. } | ConnectError::NoAddress)) => Err(error.to_string()),
        // Whether the cell has TLS is not said here.
        Ok(_) | Err(_) => Ok(text.to_owned()),
    }
}

fn usage<T>(message: &str) -> Result<T> {
    Err(Failure::error(Kind::Usage, message))
}

/// What the TLS options say; `None` for plain text.
fn tls(files: &TlsFiles) -> Result<Option<Tls>> {
    let identity = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (Some(_), None) => {
            return usage("--cert (HOLDFAST_CERT) is given without its key: add --key (HOLDFAST_KEY)");
        }
        (None, Some(_)) => {
            return usage(
                "--key (HOLDFAST_KEY) is given without its certificate: add --cert (HOLDFAST_CERT)",
            );
        }
        (None, None) => None,
    };
    let Some(ca) = &files.ca else {
        if identity.is_some() || files.server_name.is_some() {
            return usage("TLS options are given without the CA to trust: add --ca (HOLDFAST_CA)");
        }
        return Ok(None);
    };
    let mut tls = Tls::new().ca_file(ca);
    if let Some((cert, key)) = identity {
        tls = tls.identity_files(cert, key);
    }
    if let Some(name) = &files.server_name {
        tls = tls.server_name(name);
    }
    Ok(Some(tls))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    /// What is sent for the path of `line`'s `ls`.
    fn sent(line: &str) -> String {
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        let Command::Ls(ls) = arguments.command else { panic!("{line} is an ls") };
        Client::new(&arguments.common).unwrap().path(&ls.path)
    }

    #[test]
    fn a_path_without_a_cell_means_the_cell_that_was_named() {
        assert_eq!(sent("holdfast ls /a"), "/a");
        assert_eq!(sent("holdfast ls --cell dev /a"), "/ls/dev/a");
        assert_eq!(sent("holdfast ls --cell dev /"), "/ls/dev");
        assert_eq!(sent("holdfast ls --cell dev /ls/other/a"), "/ls/other/a");
    }

    #[test]
    fn the_library_says_what_options_are_named_for_and_they_exist() {
        let sources = [
            include_str!("../../client-lib/client/src/tls/explain.rs"),
            include_str!("../../client-lib/client/src/error.rs"),
        ];
        // A string literal may go on in the next line.
        let said = sources.concat().replace('\\', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        for (sentence, fields) in SETTINGS {
            assert!(said.contains(sentence), "{sentence}");
            assert_eq!(options(fields).matches("--").count(), fields.len(), "{fields:?}");
        }
        assert_eq!(options(&["ca"]), "--ca or HOLDFAST_CA");
        assert_eq!(options(&["cert", "key"]), "--cert and --key, or HOLDFAST_CERT and HOLDFAST_KEY");
    }

    #[test]
    fn a_malformed_address_is_told_with_where_it_came_from() {
        let arguments = Arguments::try_parse_from(["holdfast", "--addresses", "here", "ls"]).unwrap();
        let error = format!("{:#}", Client::new(&arguments.common).unwrap_err());
        assert!(error.contains("--addresses") && error.contains("no port"), "{error}");
    }
}
