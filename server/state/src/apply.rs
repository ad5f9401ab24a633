//! Applying commands: the way in, and the dispatch.
//!
//! Owns what concerns commands as such: batches, terms, sessions' ends and openings, versions. What a session
//! asks for is in `requests` and `locking`, what comes by name in `by_name`. Invariant: apply reads nothing but
//! the state and the command.

use std::collections::BTreeSet;

use bytes::Bytes;
use holdfast_proto::client::v1::{EndReason, Outcome, Refusal, RefusalCode, outcome};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{
    Batch, Command, EndLockDelay, EndSession, LowerLeasePromise, OpenSession, RaiseVersion, ReapNode,
};
use holdfast_types::{LEASE_MS, NodePath, Principal, Revision, SessionId, Term, planted};
use prost::Message;

use crate::exactly_once::Window;
use crate::lock::Holder;
use crate::locking::Departure;
use crate::session::Session;
use crate::tree::NodeKey;
use crate::{Effect, Settings, State, VERSION_MAX, refusal, settings};

/// How many bytes a session's secret may have.
pub(crate) const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=64;
/// The most bytes of what a client calls itself.
pub(crate) const CLIENT_BYTES_MAX: usize = 255;

/// A committed command that this replica cannot apply. It must stop: others may be able to, and their states
/// would go on without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// An entry that is no batch.
    #[error("a committed entry cannot be decoded ({0}): the log is damaged, or of a newer version")]
    Undecodable(String),
    /// A command without any kind that this program knows.
    #[error("a committed command is of a kind unknown to this version of holdfast: upgrade this replica")]
    UnknownCommand,
    /// The end of a session for a reason that this program does not know.
    #[error(
        "session s{session} ends for the reason {reason}, unknown to this version of holdfast: upgrade this replica"
    )]
    UnknownReason {
        /// The session.
        session: u64,
        /// The reason's number.
        reason: i32,
    },
    /// A state version beyond what this program can apply.
    #[error(
        "the cell goes on to state version {version}, and this version of holdfast ends at {version_max}: upgrade this replica"
    )]
    UnknownVersion {
        /// The version.
        version: u32,
        /// The greatest that this program knows.
        version_max: u32,
    },
}

impl State {
    /// Applies the data of one raft entry, which is of the term `entry_term`. A batch that a master of another
    /// term had put together is void, whole: a deposed master's decisions must not be committed by its successor
    /// (design.md §3). Effects are appended.
    ///
    /// # Errors
    ///
    /// A [`Fault`], after which the state must not be used any more.
    pub fn apply_batch(
        &mut self,
        entry_term: Term,
        data: Bytes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        let batch = Batch::decode(data).map_err(|error| Fault::Undecodable(error.to_string()))?;
        if batch.term != entry_term.0 && !successor_commits() {
            return Ok(());
        }
        for command in &batch.commands {
            self.apply_command(command, effects)?;
        }
        Ok(())
    }

    /// Applies one command. Effects are appended.
    ///
    /// # Errors
    ///
    /// A [`Fault`], after which the state must not be used any more.
    pub fn apply(&mut self, command: Command, effects: &mut Vec<Effect>) -> Result<(), Fault> {
        self.apply_command(&command, effects)
    }

    /// Commands are large, and most of them are small requests: they are not moved about.
    fn apply_command(&mut self, command: &Command, effects: &mut Vec<Effect>) -> Result<(), Fault> {
        let (tag, by, before) = (command.tag, &*command.principal, effects.len());
        match command.kind.as_ref().ok_or(Fault::UnknownCommand)? {
            Kind::Request(request) => self.apply_request(tag, request, effects),
            Kind::OpenSession(open) => self.open_session(tag, open, effects),
            Kind::EndSession(end) => self.end_session(*end, effects)?,
            Kind::SetContents(write) => {
                let result = self.asker(by).and_then(|by| self.set_contents_by_name(&by, write, effects));
                self.decided(tag, result.map(outcome::Result::Written), effects);
            }
            Kind::Delete(delete) => {
                let result = self.asker(by).and_then(|by| self.delete_by_name(&by, delete, effects));
                self.decided(tag, result.map(outcome::Result::Deleted), effects);
            }
            Kind::SetAcl(set) => {
                let result = self.asker(by).and_then(|by| self.set_acl_by_name(&by, set, effects));
                self.decided(tag, result.map(outcome::Result::AclSet), effects);
            }
            Kind::EndLockDelay(end) => self.end_lock_delay(end, effects),
            Kind::ReapNode(reap) => {
                self.reap_node(reap, effects);
                effects.push(Effect::Reaped { tag });
            }
            Kind::ChangeSettings(change) => {
                let force = command.force;
                let result =
                    self.asker(by).and_then(|by| self.change_settings(&by, change.clone(), force)).err();
                let result = result.map(|refusal| self.to_record(refusal)).map(outcome::Result::Refusal);
                effects.push(Effect::Decided { tag, outcome: Outcome { revision: self.revision.0, result } });
            }
            Kind::RaiseVersion(raise) => self.raise_version(*raise)?,
            Kind::LowerLeasePromise(lower) => self.lower_lease_promise(lower),
        }
        for effect in &mut effects[before..] {
            if let Effect::Notify { tag: of, .. } = effect {
                *of = tag;
            }
        }
        Ok(())
    }

    fn decided(&self, tag: u64, result: Result<outcome::Result, Refusal>, effects: &mut Vec<Effect>) {
        let result = Some(result.unwrap_or_else(|refusal| outcome::Result::Refusal(self.to_record(refusal))));
        effects.push(Effect::Decided { tag, outcome: Outcome { revision: self.revision.0, result } });
    }

    /// Opens a session, unless one was opened under the same secret already: then this is a retry.
    fn open_session(&mut self, tag: u64, open: &OpenSession, effects: &mut Vec<Effect>) {
        effects.push(match self.opened_session(open) {
            Ok((session, repeated)) => Effect::SessionOpened { tag, session, repeated },
            Err(refusal) => Effect::OpenRefused { tag, refusal: self.to_record(refusal) },
        });
    }

    fn opened_session(&mut self, open: &OpenSession) -> Result<(SessionId, bool), Refusal> {
        check_opening(open)?;
        self.check_characters("what a client calls itself", &open.client)?;
        let principal = self.asker(&open.principal)?;
        let known = self.sessions.by_secret(&open.secret).filter(|_| !planted!(OpenedTwice));
        if let Some(id) = known {
            let session = self.sessions.get(id).expect("a secret leads to a session");
            return if *session.principal() == principal {
                Ok((id, true))
            } else {
                Err(refusal::other_principal(id, session.principal(), &principal))
            };
        }
        self.check_room_for_session(&principal)?;
        let principal = self.usage.interned(&principal);
        self.usage.add_session(&principal);
        let id = SessionId(self.advance().0);
        let window = Window::default();
        self.sessions.insert(id, Session::new(&open.secret, open.lease_ms, &open.client, principal, window));
        Ok((id, false))
    }

    /// Who sent a command. A client that proved nothing has no name in it.
    fn asker(&self, name: &str) -> Result<Principal, Refusal> {
        if name.is_empty() {
            return Ok(Principal::anonymous());
        }
        let principal = Principal::parse(name).map_err(|error| refusal::invalid(error.to_string()))?;
        self.check_characters("a principal", name)?;
        Ok(principal)
    }

    /// A refusal as it is recorded and answered: with a message that a client cannot make long. Before state version 2
    /// refusals had no facts, and whole messages.
    pub(crate) fn to_record(&self, refusal: Refusal) -> Refusal {
        if self.version >= 2 { refusal::clipped(refusal) } else { Refusal { facts: None, ..refusal } }
    }

    /// Ends a session: closes all its handles. All of them let go before any lock is granted anew, so that no
    /// lock passes from one handle of the ended session to another. Void if there is no such session, or if it
    /// was to end for idleness and is not idle.
    fn end_session(&mut self, end: EndSession, effects: &mut Vec<Effect>) -> Result<(), Fault> {
        let unknown = Fault::UnknownReason { session: end.session, reason: end.reason };
        let departure = match EndReason::try_from(end.reason) {
            // Who is killed does not know of it at once, no more than one whose lease ran out.
            Ok(EndReason::Expired | EndReason::Killed) => Departure::Lost,
            Ok(EndReason::Closed | EndReason::Idle) => Departure::Released,
            Ok(EndReason::Unspecified) | Err(_) => return Err(unknown),
        };
        let id = SessionId(end.session);
        let handles = self.sessions.get(id).map_or(0, Session::handle_count);
        if end.reason() == EndReason::Idle && handles > 0 {
            effects.push(Effect::SessionKept { session: id });
            return Ok(());
        }
        let Some(session) = self.sessions.remove(id) else { return Ok(()) };
        self.usage.remove_session(session.principal());
        self.advance();
        effects.push(Effect::SessionEnded { session: id, reason: end.reason(), handles });
        let mut left: BTreeSet<&NodeKey> = BTreeSet::new();
        for (handle_id, handle) in session.handles() {
            let holder = Holder { session: id, handle: handle_id };
            if self.leave_node(holder, handle, departure) {
                left.insert(&handle.key);
            }
        }
        for key in left {
            self.settle(key, effects);
        }
        Ok(())
    }

    /// Ends a lock-delay. Void if it does not run.
    fn end_lock_delay(&mut self, end: &EndLockDelay, effects: &mut Vec<Effect>) {
        let Ok(path) = NodePath::from_canonical(&end.path) else { return };
        let (key, loss) = (NodeKey::new(path), Revision(end.loss));
        let Some(node) = self.tree.get_mut(&key) else { return };
        if node.lock.remove_delay(loss).is_none() {
            return;
        }
        self.advance();
        effects.push(Effect::DelayEnded { path: key.path().clone(), loss });
        self.settle(&key, effects);
    }

    /// Removes an orphan. Void if the node is none any more, or is another one of that name.
    fn reap_node(&mut self, reap: &ReapNode, effects: &mut Vec<Effect>) {
        let Ok(path) = NodePath::from_canonical(&reap.path) else { return };
        let key = NodeKey::new(path);
        let Some(node) = self.tree.live(&key, Revision(reap.instance)) else { return };
        if node.is_orphan() || planted!(ReapedWhileOpen) && node.lock.is_at_rest() && node.children == 0 {
            self.remove_node(&key, effects);
        }
    }

    /// A longer lease may be granted as soon as this is applied, so it counts as promised from here on.
    fn change_settings(
        &mut self,
        principal: &Principal,
        change: Settings,
        force: bool,
    ) -> Result<(), Refusal> {
        self.may_administer(principal)?;
        self.check_characters("the bootstrap principal", &change.bootstrap_principal)?;
        let settings = settings::changed_at(self.version, &self.settings, change)?;
        self.check_settings_lock_out(principal, &settings, force)?;
        if settings != self.settings {
            self.lease_promised_ms = self.lease_promised_ms.max(settings.lease_ms_max);
            self.settings = settings;
            self.advance();
        }
        Ok(())
    }

    /// Void unless it is less than what was promised, and not less than what may be granted now.
    fn lower_lease_promise(&mut self, lower: &LowerLeasePromise) {
        if (self.settings.lease_ms_max..self.lease_promised_ms).contains(&lower.lease_ms) {
            self.lease_promised_ms = lower.lease_ms;
            self.advance();
        }
    }

    /// Void unless the version is greater than the present one.
    fn raise_version(&mut self, raise: RaiseVersion) -> Result<(), Fault> {
        let version = raise.version;
        if version > VERSION_MAX {
            return Err(Fault::UnknownVersion { version, version_max: VERSION_MAX });
        }
        if version > self.version {
            // What a version brings begins with its default.
            let completed = settings::complete_at(version, self.settings.clone());
            self.settings = completed.expect("settings that were within their ranges are, and defaults are");
            self.version = version;
            self.advance();
        }
        Ok(())
    }
}

/// Whether, by a fault that is planted, what a deposed master had decided counts under its successor.
fn successor_commits() -> bool {
    planted!(DeposedBatchCommitted) || planted!(StalledMasterEnds)
}

/// Checks what a client may have chosen wrongly. Which secrets there are is no part of it.
fn check_opening(open: &OpenSession) -> Result<(), Refusal> {
    if !SECRET_BYTES.contains(&open.secret.len()) {
        let (bytes, least, most) = (open.secret.len(), SECRET_BYTES.start(), SECRET_BYTES.end());
        return Err(refusal::invalid(format!("a session's secret has {least} to {most} bytes, not {bytes}")));
    }
    if !LEASE_MS.contains(&open.lease_ms) {
        let (lease_ms, least, most) = (open.lease_ms, LEASE_MS.start(), LEASE_MS.end());
        return Err(refusal::invalid(format!("a lease has {least} to {most} ms, not {lease_ms}")));
    }
    let bytes = open.client.len();
    if bytes > CLIENT_BYTES_MAX {
        let message =
            format!("what a client calls itself has {bytes} bytes, and {CLIENT_BYTES_MAX} is the most");
        return Err(refusal::new(RefusalCode::Invalid, message));
    }
    Ok(())
}
