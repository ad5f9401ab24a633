//! What a master knows of each session beyond the replicated state: where it is attached, what of it is under
//! way, and what it has acknowledged since the last command that told the state.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::{self as client, EndReason, request::Operation};
use holdfast_types::ledger::Charge;
use holdfast_types::{ConnectionId, NodePath, SessionId, Time};

use crate::acknowledged::Acknowledged;
use crate::fingerprint::Fingerprint;
use crate::held::HeldId;
use crate::notices::Notices;

/// Whether the session is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// It is not.
    #[default]
    Open,
    /// The cell wants it to: its lease is not extended, and the client is asked to agree.
    Asked(EndReason),
    /// Its end is proposed: it is granted nothing more.
    Proposed,
}

/// A request that is taken up and not decided yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// What it asks for: something else under its number is another request.
    pub(crate) fingerprint: Fingerprint,
    /// What must be known of it when it is decided.
    pub(crate) change: InFlightChange,
    /// What its bytes count for, until then: held, or in the log and not applied yet.
    pub(crate) _charge: Option<Charge>,
}

/// A request that is queued, or a read that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// What it asks for.
    pub(crate) fingerprint: Fingerprint,
    /// What its bytes count for. By a fault that is planted they count for nothing.
    pub(crate) charge: Option<Charge>,
}

impl Waiting {
    /// One that counts for nothing.
    pub(crate) fn uncharged(operation: &Operation) -> Self {
        Self { fingerprint: Fingerprint::of(operation), charge: None }
    }
}

/// What must be known of a change when it is applied.
#[derive(Debug)]
pub(crate) enum InFlightChange {
    /// Any but these.
    Other,
    /// An Open by a session that caches, or that asks for a caching handle.
    Open {
        /// What it opens: `None` while that depends on another Open.
        path: Option<NodePath>,
        /// Whether it asks for a caching handle.
        caching: bool,
    },
    /// A Close, or the withdrawal of an Open, and the node of the handle if the client may cache through that.
    Close {
        /// The handle.
        handle: u64,
        /// Its node.
        cached: Option<NodePath>,
    },
}

/// What the KeepAlives of one stream were answered. Of each there may be two, one of them past the stream.
#[derive(Debug, Default)]
pub(crate) struct KeepAlives {
    /// The last number that was granted. It only rises.
    pub(crate) granted: Option<u64>,
    /// The last number that was refused.
    pub(crate) refused: Option<u64>,
}

/// A session that has been heard of in this term.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// The newest attachment's number; frames of any other are discarded.
    pub(crate) attachment: u64,
    /// Its stream, while there is one.
    pub(crate) connection: Option<ConnectionId>,
    /// What its client has acknowledged, in this term.
    pub(crate) acknowledged: Acknowledged,
    /// Changes that were taken up and are not applied yet, by number.
    pub(crate) in_flight: BTreeMap<u64, InFlight>,
    /// Requests that are queued, and reads that wait for an opening, a round or their turn, by number.
    pub(crate) waiting: BTreeMap<u64, Waiting>,
    /// Reads that name a handle whose opening is in flight, by that handle.
    pub(crate) held_reads: BTreeMap<u64, Vec<client::Request>>,
    /// Changes that name such a handle, likewise.
    pub(crate) awaiting_open: BTreeMap<u64, Vec<HeldId>>,
    /// KeepAlives that wait for a round. While there are any, the session does not expire: it has been heard.
    pub(crate) keep_alives: u32,
    /// Whether its client keeps it although it is idle, as its newest attachment says.
    pub(crate) keep_when_idle: bool,
    /// Whether it is to end.
    pub(crate) end: End,
    /// Whether its client has asked for the end, or agreed to it: the master takes that up once.
    pub(crate) closing: bool,
    /// Whether its close stands in the queue.
    pub(crate) close_queued: bool,
    /// Changes of watched nodes that were noted before this many others are told already: its client was told what is
    /// different when it attached.
    pub(crate) told_before: u64,
    /// What its client must act on. Of the present stream: empty while there is none.
    pub(crate) notices: Notices,
    /// How its KeepAlives were answered, likewise.
    pub(crate) keep_alive: KeepAlives,
    /// When it last asked for something, or came here.
    pub(crate) requested: Option<Time>,
    /// If its client answered late: what follows from that.
    pub(crate) late: Option<Late>,
}

/// A client has held up a change for too long before it dropped what it cached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Late {
    /// Until when it is told nothing that it may cache, by the time for which the master was awake.
    pub(crate) until: Time,
    /// Whether it has attached anew since: it had emptied its cache then, and caches nothing.
    pub(crate) emptied: bool,
}

impl Session {
    /// The client has emptied its cache.
    pub(crate) fn cache_is_empty(&mut self) {
        if let Some(late) = &mut self.late {
            late.emptied = true;
        }
    }
}

impl Session {
    /// How many requests are under way, reads as well as changes.
    pub(crate) fn under_way(&self) -> usize {
        self.waiting.len() + self.in_flight.len()
    }

    /// What is asked for under this number, if that is under way.
    pub(crate) fn fingerprint_under_way(&self, number: u64) -> Option<Fingerprint> {
        let in_flight = self.in_flight.get(&number).map(|in_flight| in_flight.fingerprint);
        in_flight.or_else(|| self.waiting.get(&number).map(|waiting| waiting.fingerprint))
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    /// How many have a stream.
    attached: usize,
}

impl Sessions {
    pub(crate) fn get(&mut self, session: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&session)
    }

    /// The session's entry, made if there is none.
    pub(crate) fn entry(&mut self, session: SessionId) -> &mut Session {
        self.sessions.entry(session).or_default()
    }

    /// The stream to say something to, if the session has one.
    pub(crate) fn connection(&self, session: SessionId) -> Option<ConnectionId> {
        self.sessions.get(&session)?.connection
    }

    /// Sets the newest attachment; gives the stream of the one before.
    pub(crate) fn attach(
        &mut self,
        session: SessionId,
        attachment: u64,
        connection: ConnectionId,
    ) -> Option<ConnectionId> {
        let entry = self.sessions.entry(session).or_default();
        entry.attachment = attachment;
        (entry.notices, entry.keep_alive) = (Notices::default(), KeepAlives::default());
        let before = entry.connection.replace(connection);
        self.attached += usize::from(before.is_none());
        before
    }

    /// The session's stream is gone, if it was this one.
    pub(crate) fn detach(&mut self, session: SessionId, connection: ConnectionId) {
        if let Some(entry) = self.sessions.get_mut(&session)
            && entry.connection == Some(connection)
        {
            entry.connection = None;
            (entry.notices, entry.keep_alive) = (Notices::default(), KeepAlives::default());
            self.attached -= 1;
        }
    }

    pub(crate) fn remove(&mut self, session: SessionId) -> Option<Session> {
        let entry = self.sessions.remove(&session)?;
        self.attached -= usize::from(entry.connection.is_some());
        Some(entry)
    }

    /// How many sessions have a stream.
    pub(crate) fn attached(&self) -> usize {
        self.attached
    }
}
