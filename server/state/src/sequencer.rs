//! Sequencers in the cell (P§2.4): is the lock held now, as a sequencer says? And handles that depend on the answer.
//!
//! A valid one may be invalid a moment later; who must be sure remembers the greatest generation it has seen
//! (I2), and needs no check. A handle that was given one asks before every call, where the call is decided.
//! Invariant: what a handle depends on was valid when it was set.

use std::sync::Arc;

use holdfast_proto::client::v1::{
    Refusal, RefusalCode, SequencerChecked, SequencerSet, SequencerText, SetSequencer, outcome,
};
use holdfast_types::{HandleId, NodePath, Principal, Sequencer, SessionId, planted};

use crate::acl::Permission;
use crate::lock::Holder;
use crate::tree::Tree;
use crate::{State, refusal, settings};

/// A sequencer of this cell, read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CellSequencer {
    /// As the client wrote it.
    pub(crate) text: Arc<str>,
    sequencer: Sequencer,
    path: NodePath,
}

impl CellSequencer {
    /// Reads a text. The node need not exist, and its name may be one that today's settings would not let anybody
    /// create.
    pub(crate) fn parse(text: &str, cell: &str, version: u32) -> Result<Self, Refusal> {
        let sequencer: Sequencer =
            text.parse().map_err(|error| refusal::new(RefusalCode::BadSequencer, format!("{error}")))?;
        let path = NodePath::parse(&sequencer.name, cell, settings::NAME_LIMITS_MAX)
            .map_err(|error| refusal::path(version, &error))?;
        Ok(Self { text: Arc::from(text), sequencer, path })
    }

    /// Whether the lock is held now as the sequencer says; if not, why.
    pub(crate) fn validity(&self, tree: &Tree) -> Result<(), String> {
        let path = &self.path;
        let Sequencer { mode, generation, instance, .. } = self.sequencer;
        let Some(node) = tree.get(path) else {
            return Err(format!("there is no node {path}"));
        };
        if node.instance.0 != instance {
            let is = node.instance.0;
            return Err(format!("{path} is another node of that name now: instance {is}, not {instance}"));
        }
        let (is, held) = (node.lock.generation().0, node.lock.mode());
        match held {
            None => Err(format!("the lock of {path} is free")),
            Some(_) if is != generation && !planted!(SequencerIgnoresGeneration) => {
                Err(format!("the lock of {path} was granted anew: generation {is}, not {generation}"))
            }
            Some(held) if held != mode => Err(format!("the lock of {path} is held {held}, not {mode}")),
            Some(_) => Ok(()),
        }
    }
}

impl State {
    /// Checks a sequencer's text form, for a principal that may read the node. The inner result says whether it is valid
    /// and, if not, why.
    ///
    /// # Errors
    ///
    /// A text that is no sequencer, one of another cell, or a node that the principal may not read.
    pub fn check_sequencer(&self, principal: &Principal, text: &str) -> Result<Result<(), String>, Refusal> {
        let sequencer = CellSequencer::parse(text, &self.cell, self.version)?;
        self.check_readable(principal, &sequencer.path)?;
        Ok(sequencer.validity(&self.tree))
    }

    /// Whether a principal may learn how things stand with a node, or with a name that no node has.
    fn check_readable(&self, principal: &Principal, path: &NodePath) -> Result<(), Refusal> {
        let node = self.tree.get(path);
        let readable = match node {
            Some(node) => self.check_permission(principal, path, &node.acl, Permission::Read),
            None => Err(self.missing(path)),
        };
        match readable.map_err(|refusal| self.concealed(principal, path, refusal)) {
            Err(refusal) if refusal.code() == RefusalCode::PermissionDenied => Err(refusal),
            // A sequencer of a node that is gone is not valid, and the answer says so.
            _ => Ok(()),
        }
    }

    /// Makes later calls on a handle depend on a sequencer, or on none.
    pub(crate) fn set_sequencer(
        &mut self,
        session: SessionId,
        set: &SetSequencer,
    ) -> Result<outcome::Result, Refusal> {
        let holder = Holder { session, handle: HandleId(set.handle) };
        self.live_handle(holder)?;
        let sequencer = if set.sequencer.is_empty() {
            None
        } else {
            let sequencer = CellSequencer::parse(&set.sequencer, &self.cell, self.version)?;
            if self.version >= 2 {
                self.check_readable(&self.principal_of(session), &sequencer.path)?;
            }
            sequencer.validity(&self.tree).map_err(|why| refusal::sequencer_invalid(holder.handle, &why))?;
            Some(Arc::new(sequencer))
        };
        self.sessions.handle_mut(holder).expect("the handle is open").sequencer = sequencer;
        self.advance();
        Ok(outcome::Result::SequencerSet(SequencerSet {}))
    }

    /// The sequencer of the lock that a handle holds.
    pub(crate) fn sequencer_of(&self, session: SessionId, id: HandleId) -> Result<SequencerText, Refusal> {
        let holder = Holder { session, handle: id };
        let handle = self.working_handle(holder)?;
        if handle.claim.is_none_or(|claim| claim.ticket.is_some()) {
            return Err(refusal::not_held(id));
        }
        let node = self.tree.live(&handle.key, handle.instance).expect("a locked node is not deleted");
        let sequencer = Sequencer {
            name: handle.key.path().full_name(&self.cell),
            mode: node.lock.mode().expect("the handle holds the lock"),
            generation: node.lock.generation().0,
            instance: node.instance.0,
        };
        Ok(SequencerText { sequencer: sequencer.to_string() })
    }

    /// Answers whether a text is a valid sequencer.
    pub(crate) fn sequencer_checked(
        &self,
        session: SessionId,
        text: &str,
    ) -> Result<SequencerChecked, Refusal> {
        Ok(match self.check_sequencer(&self.principal_of(session), text)? {
            Ok(()) => SequencerChecked { valid: true, reason: String::new() },
            Err(reason) => SequencerChecked { valid: false, reason },
        })
    }
}
