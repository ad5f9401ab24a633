//! I1 as applications live it: at no true moment do two of them believe, under valid leases, that they hold one
//! lock in conflicting modes.
//!
//! This is what a program builds on that asks the library and not the cell. It holds because of I1, I3 and the
//! order in which the library tells its application things.

use holdfast_proto::client::v1::LockMode;

use crate::clock::TrueTime;
use crate::verdict::{Invariant, Violation};

/// An application's belief that it holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Which client.
    pub client: usize,
    /// The lock's node.
    pub path: String,
    /// How it is held.
    pub mode: LockMode,
    /// The generation it is held at.
    pub generation: u64,
    /// Until when the client believes in its lease.
    pub until: TrueTime,
}

/// Checks all beliefs of one moment against each other.
///
/// # Errors
///
/// Two that conflict.
pub fn check(guards: &[Guard], now: TrueTime) -> Result<(), Violation> {
    let valid = |guard: &&Guard| guard.until > now;
    for (place, one) in guards.iter().enumerate().filter(|(_, guard)| valid(guard)) {
        for other in guards[place + 1..].iter().filter(valid) {
            let exclusive = one.mode == LockMode::Exclusive || other.mode == LockMode::Exclusive;
            if one.client != other.client && one.path == other.path && exclusive {
                let what = format!("two clients believe that they hold {}: {one:?} and {other:?}", one.path);
                return Err(Violation::new(Invariant::MutualExclusion, what));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(client: usize, path: &str, mode: LockMode, until: u64) -> Guard {
        Guard { client, path: path.to_owned(), mode, generation: 1, until: TrueTime::from_nanos(until) }
    }

    #[test]
    fn two_exclusive_beliefs_are_found() {
        use LockMode::{Exclusive, Shared};
        let now = TrueTime::from_nanos(5);
        let check = |one, other| check(&[one, other], now);
        assert!(check(guard(0, "/a", Exclusive, 9), guard(1, "/a", Exclusive, 9)).is_err());
        assert!(check(guard(0, "/a", Exclusive, 9), guard(1, "/a", Shared, 9)).is_err());
        assert!(check(guard(0, "/a", Shared, 9), guard(1, "/a", Shared, 9)).is_ok());
        assert!(check(guard(0, "/a", Exclusive, 9), guard(1, "/b", Exclusive, 9)).is_ok());
        assert!(
            check(guard(0, "/a", Exclusive, 5), guard(1, "/a", Exclusive, 9)).is_ok(),
            "one lease is over"
        );
    }
}
