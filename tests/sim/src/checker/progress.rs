//! I10: once faults have stopped and a majority is up, every call ends, within a bounded time.
//!
//! After the healed phase nothing may be left over: no call without its end, no replica that is behind, no lock that is
//! held while no application knows of it, and no byte of a client that a replica counts as held.

use crate::verdict::{Invariant, Violation};

/// What is left over when a run ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Calls that have not ended, told for people.
    pub calls: Vec<String>,
    /// Sessions that are neither safe nor over.
    pub sessions: Vec<String>,
    /// Locks that are held and that no application believes in.
    pub locks: Vec<String>,
    /// Replicas that are behind others, or down.
    pub replicas: Vec<String>,
    /// Replicas that count bytes of clients as held although everything is answered.
    pub bytes: Vec<String>,
}

impl Leftovers {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that there are none.
    ///
    /// # Errors
    ///
    /// A list of them.
    pub fn check(&self) -> Result<(), Violation> {
        if self.is_empty() {
            return Ok(());
        }
        let kinds = [&self.calls, &self.sessions, &self.locks, &self.replicas, &self.bytes];
        let all: Vec<&str> = kinds.into_iter().flatten().map(String::as_str).collect();
        Err(Violation::new(Invariant::Progress, format!("after healing there is left: {}", all.join("; "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_left_is_found() {
        assert!(Leftovers::default().check().is_ok());
        let left = || vec!["it".to_owned()];
        for leftovers in [
            Leftovers { calls: left(), ..Leftovers::default() },
            Leftovers { sessions: left(), ..Leftovers::default() },
            Leftovers { locks: left(), ..Leftovers::default() },
            Leftovers { replicas: left(), ..Leftovers::default() },
            Leftovers { bytes: left(), ..Leftovers::default() },
        ] {
            assert_eq!(leftovers.check().unwrap_err().invariant, Invariant::Progress);
        }
    }
}
