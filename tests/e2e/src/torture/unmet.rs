//! What the cell or a client should have done and has not: an error that says something about them.
//!
//! Every other error of a run is the rig's own, as a network that cannot be made. Invariant: the one is a violation, and
//! the other never is.

use std::fmt;

use holdfast_sim::{Invariant, Violation};

/// Such an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet(Violation);

impl Unmet {
    /// Something else was to be.
    #[must_use]
    pub fn new(invariant: Invariant, what: impl Into<String>) -> Self {
        Self(Violation::new(invariant, what))
    }

    /// What is wrong with the cell or a client, if that is what an error says; `when` is what was being done.
    ///
    /// # Errors
    ///
    /// If it is the rig's own.
    pub fn judge(when: &str, error: anyhow::Error) -> anyhow::Result<Violation> {
        match error.downcast_ref::<Self>() {
            Some(Self(Violation { invariant, .. })) => {
                Ok(Violation::new(*invariant, format!("{when}: {error:#}")))
            }
            None => Err(error.context(when.to_owned())),
        }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl std::error::Error for Unmet {}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn what_the_cell_has_not_done_is_a_violation_and_what_the_rig_cannot_do_is_none() {
        let unmet = || anyhow::Error::from(Unmet::new(Invariant::Survival, "it ended"));
        let found = Unmet::judge("wiped disk", unmet()).unwrap();
        assert_eq!(found, Violation::new(Invariant::Survival, "wiped disk: it ended"));
        let among_more = Err::<(), _>(unmet()).context("they said nothing").unwrap_err();
        let found = Unmet::judge("full disk", among_more).unwrap();
        assert_eq!(found, Violation::new(Invariant::Survival, "full disk: they said nothing: it ended"));
        let own = Unmet::judge("full disk", std::io::Error::other("no nft").into()).unwrap_err();
        assert_eq!(format!("{own:#}"), "full disk: no nft");
    }
}
