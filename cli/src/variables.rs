//! Variables of the environment that begin like this program's and set nothing.
//!
//! A user who misspells one would otherwise not notice that the command looks for its cell elsewhere, or talks plain text. The
//! command warns neither of a replica's variables, since an operator runs it in a replica's container too, nor of those that
//! an orchestrator sets.

use std::ffi::OsString;

use holdfast_types::variables::{PREFIX, is_of_service, is_of_tests};

use crate::{arguments, output};

/// `lock` hands this one to its command.
pub(crate) const SEQUENCER: &str = "HOLDFAST_SEQUENCER";

/// What `holdfastd` reads, and this program does not.
const OF_REPLICAS: [&str; 23] = [
    "HOLDFAST_REPLICA",
    "HOLDFAST_DATA_DIR",
    "HOLDFAST_PEER_LISTEN",
    "HOLDFAST_CLIENT_LISTEN",
    "HOLDFAST_PEER_ADVERTISE",
    "HOLDFAST_CLIENT_ADVERTISE",
    "HOLDFAST_MEMBERS",
    "HOLDFAST_JOIN",
    "HOLDFAST_SETTINGS",
    "HOLDFAST_TLS_CERTIFICATE",
    "HOLDFAST_TLS_KEY",
    "HOLDFAST_TLS_CA",
    "HOLDFAST_TLS_CLIENT_CERTIFICATES",
    "HOLDFAST_TICK_MS",
    "HOLDFAST_HEARTBEAT_MS",
    "HOLDFAST_ELECTION_MS",
    "HOLDFAST_LEASE_FLOOR_MS",
    "HOLDFAST_SNAPSHOT_EVERY_BYTES",
    "HOLDFAST_LOG_TAIL_BYTES",
    "HOLDFAST_CLIENT_CONNECTIONS_MAX",
    "HOLDFAST_LOG_FORMAT",
    "HOLDFAST_LOG_LEVEL",
    "HOLDFAST_CONFIG",
];

/// Warns of variables that set nothing. Programs that read standard error with `--json` get failures alone there.
pub(crate) fn warn_of_unknown(as_json: bool) {
    if !as_json {
        for warning in warnings(&arguments::variables(), std::env::vars_os()) {
            output::tell(&warning);
        }
    }
}

/// A sentence for each variable that sets nothing; `own` are those that set something.
fn warnings(own: &[String], variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let named = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let mut unknown: Vec<String> = named
        .filter(|(name, value)| {
            let is_known = own.contains(name) || name == SEQUENCER || OF_REPLICAS.contains(&name.as_str());
            let is_ours = name.starts_with(PREFIX) && !is_of_tests(name);
            // What is set to nothing is not set.
            is_ours && !is_known && !value.is_empty() && !is_of_service(name, &value.to_string_lossy())
        })
        .map(|(name, _)| name)
        .collect();
    unknown.sort();
    let warning = |name: String| {
        let nearest = own.iter().min_by_key(|known| strsim::damerau_levenshtein(&name, known))?;
        if !is_misspelling(&name, nearest) {
            return None;
        }
        Some(format!(
            "warning: the variable {name} sets nothing: there is no such option; the nearest one is {nearest}"
        ))
    };
    unknown.into_iter().filter_map(warning).collect()
}

/// Whether `name` is probably meant to be `known`. Other programs have variables of the prefix, too, and are no business of ours.
fn is_misspelling(name: &str, known: &str) -> bool {
    let letters = known.len().saturating_sub(PREFIX.len());
    strsim::damerau_levenshtein(name, known) <= (letters / 3).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_replicas_read_is_known() {
        let own: BTreeSet<String> = arguments::variables().into_iter().collect();
        let of_replicas: BTreeSet<String> = holdfast_server::config::variables().collect();
        let known: BTreeSet<String> = OF_REPLICAS.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(known, &of_replicas - &own);
    }

    #[test]
    fn a_misspelt_variable_is_told_with_the_nearest_and_no_other_is() {
        let warned = |variables: &[(&str, &str)]| {
            let variables =
                variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
            warnings(&arguments::variables(), variables)
        };
        let misspelt = [
            ("HOLDFAST_ADRESSES", "a:1", "HOLDFAST_ADDRESSES"),
            ("HOLDFAST_ADDRESS", "a:1", "HOLDFAST_ADDRESSES"),
            ("HOLDFAST_CERTS", "c.pem", "HOLDFAST_CERT"),
            ("HOLDFAST_SERVERNAME", "a", "HOLDFAST_SERVER_NAME"),
        ];
        for (name, value, nearest) in misspelt {
            let warnings = warned(&[(name, value)]);
            assert_eq!(warnings.len(), 1, "{name}");
            assert!(warnings[0].contains(name) && warnings[0].ends_with(nearest), "{}", warnings[0]);
        }
        let nothing = warned(&[
            ("HOLDFAST_CELL", "dev"),
            ("HOLDFAST_SEQUENCER", "s"),
            ("HOLDFAST_DATA_DIR", "/d"),
            ("HOLDFAST_TEST_X", "1"),
            ("HOLDFAST_PORT", "tcp://10.96.4.7:7101"),
            ("HOLDFAST_SERVICE_HOST", "10.96.4.7"),
            ("HOLDFAST_PORT_7101_TCP_ADDR", "10.96.4.7"),
            ("HOLDFAST_ADRESSES", ""),
            ("HOLDFAST_PORT", "7101"),
            ("HOLDFAST_BACKUP_TARGET", "s3"),
            ("HOLDFAST_UI", "1"),
            ("HOLD", "1"),
        ]);
        assert_eq!(nothing, [""; 0]);
    }
}
