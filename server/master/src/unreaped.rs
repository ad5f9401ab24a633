//! Replies to closes that left an ephemeral node behind: each waits until the node is gone.
//!
//! Apply deletes nothing as a side effect, so the node goes by a command of the master's own, which waits for those who
//! cache its directory. The client that closed the node's last handle is answered when that command is applied: then no
//! client finds the node any more, unless somebody has opened it meanwhile. Nothing else waits for it, the session's later
//! changes least of all. Invariant: of each node that a reply waits for, the reaping is held or proposed, and neither is ever
//! refused; so each reply is sent, or its session is over, or this master is.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::client::v1::Outcome;
use holdfast_types::{NodePath, RequestNumber, Revision, SessionId};

/// An ephemeral node, by its name and instance.
type Orphan = (NodePath, Revision);

/// A reply that waits.
#[derive(Debug, PartialEq)]
pub(crate) struct Unsent {
    /// Whose request it answers.
    pub(crate) session: SessionId,
    /// The request.
    pub(crate) number: RequestNumber,
    /// What came of it.
    pub(crate) outcome: Outcome,
}

/// Nodes that are to be reaped, and the replies that wait for that.
#[derive(Debug, Default)]
pub(crate) struct Unreaped {
    /// By the node that each waits for.
    replies: BTreeMap<Orphan, Vec<Unsent>>,
    /// The requests of these replies.
    requests: BTreeSet<(SessionId, RequestNumber)>,
    /// The nodes whose reaping is proposed, by the command's tag.
    proposed: BTreeMap<u64, Orphan>,
}

impl Unreaped {
    /// A reply waits until a node is gone.
    pub(crate) fn wait(&mut self, orphan: Orphan, unsent: Unsent) {
        self.requests.insert((unsent.session, unsent.number));
        self.replies.entry(orphan).or_default().push(unsent);
    }

    /// Whether a request's reply waits.
    pub(crate) fn waits(&self, session: SessionId, number: RequestNumber) -> bool {
        self.requests.contains(&(session, number))
    }

    /// The reaping of a node is proposed under this tag.
    pub(crate) fn proposed(&mut self, tag: u64, orphan: Orphan) {
        self.proposed.insert(tag, orphan);
    }

    /// The command of this tag was applied. Gives the replies that waited for it.
    pub(crate) fn reaped(&mut self, tag: u64) -> Vec<Unsent> {
        let orphan = self.proposed.remove(&tag);
        let unsent = orphan.and_then(|orphan| self.replies.remove(&orphan)).unwrap_or_default();
        for reply in &unsent {
            self.requests.remove(&(reply.session, reply.number));
        }
        unsent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsent(session: u64, number: u64) -> Unsent {
        let (session, number) = (SessionId(session), RequestNumber(number));
        Unsent { session, number, outcome: Outcome::default() }
    }

    #[test]
    fn a_reply_waits_for_its_own_node_and_is_given_once() {
        let node = |name: &str, instance| {
            (NodePath::parse(name, "dev", Default::default()).unwrap(), Revision(instance))
        };
        let mut unreaped = Unreaped::default();
        unreaped.wait(node("/a", 5), unsent(3, 7));
        unreaped.wait(node("/a", 9), unsent(4, 1));
        unreaped.proposed(20, node("/a", 5));
        assert!(unreaped.waits(SessionId(3), RequestNumber(7)));
        assert_eq!(unreaped.reaped(19), []);
        assert_eq!(unreaped.reaped(20), [unsent(3, 7)]);
        assert!(!unreaped.waits(SessionId(3), RequestNumber(7)));
        assert!(unreaped.waits(SessionId(4), RequestNumber(1)), "another instance of the name");
        assert_eq!(unreaped.reaped(20), []);
    }
}
