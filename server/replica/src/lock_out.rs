//! The way back for operators who are locked out of their cell: another bootstrap principal, given at a replica's start.
//!
//! Settings are replicated, so no replica changes them by itself: a replica that was started so proposes a change of
//! them when it becomes master. It does so once: when the change is in force the wish is forgotten, and so it is when the
//! replica has not become master within a while, or it would undo hours later what an administrator has done since.
//! Invariant: whether it is in force is looked at by a master only, whose state has all that was ever committed; a replica
//! that still reads its old log would take the past for the present.

use holdfast_types::{Duration, Principal, Term, Time};
use slog::{info, warn};

use crate::Replica;

/// A replica that does not become master for so long after its start forgets which bootstrap principal it was given.
pub const OVERRIDE_FOR: Duration = Duration::from_secs(600);

/// The wish for another bootstrap principal.
#[derive(Debug)]
pub(crate) struct Override {
    /// Who it is to be.
    principal: Principal,
    /// When it is forgotten.
    until: Time,
    /// When it was last proposed, and in whose place. A refusal can only come of another change that was faster.
    proposed: Option<(Term, String)>,
}

impl Override {
    /// What an operator has asked for at the start.
    pub(crate) fn new(principal: Principal, now: Time) -> Self {
        Self { principal, until: now + OVERRIDE_FOR, proposed: None }
    }
}

impl Replica {
    /// To be called in office, after each entry that was applied.
    pub(crate) fn see_to_override(&mut self) {
        let (Some(wish), Some(master)) = (&mut self.overriding, &mut self.master) else { return };
        let present = &self.state.settings().bootstrap_principal;
        if present == wish.principal.as_str() {
            info!(self.logger, "the override of the bootstrap principal is in force"; "principal" => present);
            self.overriding = None;
            return;
        }
        if self.now > wish.until {
            warn!(self.logger, "the override of the bootstrap principal came too late, and is forgotten: start again";
                "principal" => wish.principal.as_str());
            self.overriding = None;
            return;
        }
        let proposal = (master.term(), present.clone());
        if wish.proposed.as_ref() != Some(&proposal) {
            warn!(self.logger, "the bootstrap principal is overridden, as asked at the start";
                "from" => present, "to" => wish.principal.as_str());
            wish.proposed = Some(proposal);
            let input = holdfast_master::Input::OverrideBootstrap(wish.principal.clone());
            master.handle(self.now, &self.state, input);
        }
    }
}
