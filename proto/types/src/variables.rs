//! Variables of the environment whose names begin with `HOLDFAST_`: which of them an orchestrator has set, or a test reads.
//!
//! An orchestrator tells every container of the services around it by variables that it names after them: for a service called
//! `holdfast`, or `holdfast-tls`, these begin like ours. The daemon and the command pass them over without a warning. Which names
//! mean something to which program, the programs know.

/// What every variable of Holdfast's begins with.
pub const PREFIX: &str = "HOLDFAST_";

/// What variables begin with that tests, benchmarks and examples read.
const OF_TESTS: [&str; 3] = ["HOLDFAST_TEST_", "HOLDFAST_BENCH_", "HOLDFAST_EXAMPLE_"];

/// Whether a test, a benchmark or an example reads a variable of this name.
#[must_use]
pub fn is_of_tests(variable: &str) -> bool {
    OF_TESTS.iter().any(|prefix| variable.starts_with(prefix))
}

/// Whether an orchestrator sets a variable of this name and value for a service. Kubernetes sets
/// `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`, `NAME_SERVICE_PORT_PORTNAME`, `NAME_PORT=tcp://10.0.0.1:7101`,
/// `NAME_PORT_7101_TCP` and, behind that, `_PROTO`, `_PORT` and `_ADDR`.
#[must_use]
pub fn is_of_service(variable: &str, value: &str) -> bool {
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
}
