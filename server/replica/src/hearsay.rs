//! What another member says, before raft hears it: raft-rs panics on what cannot be.
//!
//! Members are let in by name and certificate (daemon, `peers`), and believed. This is not protection from a member
//! that lies, which no protocol of this kind has; it is so that bytes that were damaged, or come from another program,
//! harm nobody, and that a log which was lost is noticed by a sentence. Invariant: [`check`] passes everything that
//! raft-rs itself sends.

use raft::StateRole;

use crate::log::COUNT_MAX;
use crate::propose;
use crate::raftpb::{Message, MessageType};

/// What is wrong with a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// No replica sends such a thing: to be dropped.
    Malformed(&'static str),
    /// It may well be right, and then this replica's own log is not: it must stop.
    Contradiction(String),
    /// A leader counts on what this replica has acknowledged to it as durable, and it is not there any more.
    DataLost(String),
}

/// What a replica knows that messages must agree with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) role: StateRole,
    pub(crate) term: u64,
    /// The last entry of the log, durable or not.
    pub(crate) last: u64,
}

/// Whether a member can have sent this.
pub(crate) fn check(message: &Message, known: Known) -> Result<(), Doubt> {
    use MessageType as T;
    match message.get_msg_type() {
        T::MsgAppend => check_entries(message)?,
        T::MsgAppendResponse
        | T::MsgRequestVote
        | T::MsgRequestVoteResponse
        | T::MsgSnapshot
        | T::MsgHeartbeat
        | T::MsgHeartbeatResponse
        | T::MsgTimeoutNow
        | T::MsgRequestPreVote
        | T::MsgRequestPreVoteResponse => {}
        T::MsgPropose if propose::outlives_office() => return Ok(()),
        // Those that a replica sends to itself, and those that would be forwarded. Were proposals and read-index requests
        // taken, a deposed master could have its decisions committed, and its reads confirmed, by its successor
        // (design.md §3).
        _ => return Err(Doubt::Malformed("no replica sends messages of that type to another one")),
    }
    if message.term == 0 {
        return Err(Doubt::Malformed("it is of no term"));
    }
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ];
    if numbers.into_iter().any(|number| number > COUNT_MAX) {
        return Err(Doubt::Malformed("no cell counts as far as that"));
    }
    check_against(message, known)
}

/// Entries follow on each other, and are of no later term than who sends them.
fn check_entries(message: &Message) -> Result<(), Doubt> {
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in message.get_entries() {
        if Some(entry.index) != index.checked_add(1) || entry.term < term || entry.term > message.term {
            return Err(Doubt::Malformed("its entries do not follow on each other"));
        }
        (index, term) = (entry.index, entry.term);
    }
    Ok(())
}

fn check_against(message: &Message, known: Known) -> Result<(), Doubt> {
    let Known { role, term, last } = known;
    match message.get_msg_type() {
        // A leader tells of no commit beyond what the follower has acknowledged as durable.
        MessageType::MsgHeartbeat if message.term >= term && message.commit > last => {
            Err(Doubt::DataLost(format!(
                "leads in term {} and counts on entry {} here, and the log ends at {last}",
                message.term, message.commit
            )))
        }
        MessageType::MsgAppendResponse
            if role == StateRole::Leader
                && message.term == term
                && !message.reject
                && message.index > last =>
        {
            Err(Doubt::Contradiction(format!(
                "has entry {} of this leader's log, which ends at {last}",
                message.index
            )))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raftpb::Entry;

    const FOLLOWER: Known = Known { role: StateRole::Follower, term: 3, last: 9 };

    fn message(kind: MessageType) -> Message {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.term, message.log_term, message.index, message.commit) = (3, 2, 9, 9);
        message
    }

    fn append(entries: &[(u64, u64)]) -> Message {
        let mut message = message(MessageType::MsgAppend);
        let entry = |(index, term): &(u64, u64)| Entry { index: *index, term: *term, ..Entry::default() };
        message.set_entries(entries.iter().map(entry).collect::<Vec<_>>().into());
        message
    }

    #[test]
    fn entries_follow_on_each_other() {
        assert_eq!(check(&append(&[(10, 2), (11, 3)]), FOLLOWER), Ok(()));
        for entries in [&[(11, 3)][..], &[(10, 3), (10, 3)], &[(10, 3), (11, 2)], &[(10, 1)], &[(10, 4)]] {
            assert!(matches!(check(&append(entries), FOLLOWER), Err(Doubt::Malformed(_))), "{entries:?}");
        }
    }

    #[test]
    fn what_no_replica_sends_is_not_heard() {
        for kind in [MessageType::MsgPropose, MessageType::MsgReadIndex, MessageType::MsgTransferLeader] {
            assert!(matches!(check(&message(kind), FOLLOWER), Err(Doubt::Malformed(_))), "{kind:?}");
        }
        for (term, index) in [(0, 9), (u64::MAX, 9), (3, u64::MAX)] {
            let mut vote = message(MessageType::MsgRequestVote);
            (vote.term, vote.index) = (term, index);
            assert!(matches!(check(&vote, FOLLOWER), Err(Doubt::Malformed(_))), "{term} {index}");
        }
    }

    #[test]
    fn a_leader_that_counts_on_what_is_not_here_contradicts_the_log() {
        let mut heartbeat = message(MessageType::MsgHeartbeat);
        assert_eq!(check(&heartbeat, FOLLOWER), Ok(()));
        heartbeat.commit = 10;
        assert!(matches!(check(&heartbeat, FOLLOWER), Err(Doubt::DataLost(_))));
        heartbeat.term = 2;
        assert_eq!(check(&heartbeat, FOLLOWER), Ok(()), "it is deposed, and nobody listens");
    }

    #[test]
    fn a_follower_that_has_more_than_its_leader_contradicts_the_log() {
        let leader = Known { role: StateRole::Leader, ..FOLLOWER };
        let mut response = message(MessageType::MsgAppendResponse);
        assert_eq!(check(&response, leader), Ok(()));
        response.index = 10;
        assert!(matches!(check(&response, leader), Err(Doubt::Contradiction(_))));
        assert_eq!(check(&response, FOLLOWER), Ok(()));
    }
}
