//! I9: replicas that applied the same log hold byte-identical state.
//!
//! Hashes are taken at equal indexes: at every snapshot, now and then, and for all replicas at the end.

use crate::verdict::{Invariant, Violation};

/// Compares a replica's state with the canonical one at the same index.
///
/// # Errors
///
/// If they differ.
pub fn compare(replica: usize, index: u64, canonical: u64, hash: u64) -> Result<(), Violation> {
    if canonical == hash {
        return Ok(());
    }
    let what = format!(
        "at index {index} the state of replica {} hashes to {hash:016x}, and by the log it is {canonical:016x}",
        replica + 1
    );
    Err(Violation::new(Invariant::Determinism, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_differs_is_found() {
        assert!(compare(0, 7, 1, 1).is_ok());
        assert_eq!(compare(0, 7, 1, 2).unwrap_err().invariant, Invariant::Determinism);
    }
}
