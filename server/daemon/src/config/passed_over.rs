//! Variables that begin like those of a replica and set nothing.
//!
//! An orchestrator tells every container of the services around it by variables that it names after them: for a service called
//! `holdfast`, or `holdfast-tls`, these begin like ours. Nobody has set them, so they stop no replica. Others may have been
//! misspelt, or be for a program of another release: they are warned of, and name the key that they may have meant.

use slog::{Logger, info, warn};

/// A variable that sets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Its name.
    pub variable: String,
    /// The variable that may have been meant; `None` if an orchestrator has set this one for a service.
    pub nearest: Option<String>,
}

/// Says what was passed over.
pub fn announce(passed_over: &[PassedOver], logger: &Logger) {
    let of_services = passed_over.iter().filter(|it| it.nearest.is_none()).map(|it| it.variable.as_str());
    let of_services: Vec<_> = of_services.collect();
    if !of_services.is_empty() {
        info!(
            logger,
            "passed over variables that an orchestrator sets for a service of that name: {}",
            of_services.join(", ")
        );
    }
    for PassedOver { variable, nearest } in passed_over {
        if let Some(nearest) = nearest {
            warn!(
                logger,
                "the variable {variable} sets nothing: there is no such key; the nearest one is {nearest}"
            );
        }
    }
}

/// Whether an orchestrator sets a variable of this name and value for a service. Kubernetes sets
/// `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`, `NAME_SERVICE_PORT_PORTNAME`, `NAME_PORT=tcp://10.0.0.1:7101`,
/// `NAME_PORT_7101_TCP` and, behind that, `_PROTO`, `_PORT` and `_ADDR`.
pub(super) fn is_of_service(variable: &str, value: &str) -> bool {
    if variable.ends_with("_SERVICE_HOST")
        || variable.ends_with("_SERVICE_PORT")
        || variable.contains("_SERVICE_PORT_")
    {
        return true;
    }
    if variable.ends_with("_PORT") && value.contains("://") {
        return true;
    }
    variable.match_indices("_PORT_").any(|(at, found)| {
        let mut words = variable[at + found.len()..].split('_');
        let number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
        let protocol = words.next().is_some_and(|word| ["TCP", "UDP", "SCTP"].contains(&word));
        let what = words.next().is_none_or(|word| ["PROTO", "PORT", "ADDR"].contains(&word));
        number && protocol && what && words.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_services_are_told_from_others() {
        for (variable, value) in [
            ("HOLDFAST_SERVICE_HOST", "10.96.4.7"),
            ("HOLDFAST_SERVICE_PORT", "7101"),
            ("HOLDFAST_SERVICE_PORT_CLIENTS", "7101"),
            ("HOLDFAST_PORT", "tcp://10.96.4.7:7101"),
            ("HOLDFAST_PORT_7101_TCP", "tcp://10.96.4.7:7101"),
            ("HOLDFAST_PORT_7101_TCP_PROTO", "tcp"),
            ("HOLDFAST_PORT_7101_UDP_PORT", "7101"),
            ("HOLDFAST_TLS_PORT_7101_TCP_ADDR", "10.96.4.7"),
            ("HOLDFAST_CLIENT_SERVICE_HOST", "10.96.4.7"),
        ] {
            assert!(is_of_service(variable, value), "{variable}");
        }
        for (variable, value) in [
            ("HOLDFAST_PORT", "7101"),
            ("HOLDFAST_CLIENT_LISTN", "tcp://10.96.4.7:7101"),
            ("HOLDFAST_PORT_7101", "x"),
            ("HOLDFAST_PORT_CLIENT_TCP", "x"),
            ("HOLDFAST_PORT_7101_TCP_NAME", "x"),
        ] {
            assert!(!is_of_service(variable, value), "{variable}");
        }
    }

    #[test]
    fn no_key_of_ours_looks_like_a_services() {
        for key in super::super::flags::KEYS {
            assert!(
                !is_of_service(&super::super::source::variable_name(key), "tcp://10.96.4.7:7101"),
                "{key}"
            );
        }
    }
}
