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

#[cfg(test)]
mod tests {
    use holdfast_types::variables::is_of_service;

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
