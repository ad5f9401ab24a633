//! What operators do to a cell: its settings, its members, and the sessions and handles of its clients.
//!
//! Each call is for the bootstrap principal, and for those whom the access control list `admin` lists; others are
//! refused with `PERMISSION_DENIED`.

use crate::address::{self, Scheme};
use crate::cell::Cell;
use crate::error::Error;
use crate::unary::Goal;
use crate::values::HandleInfo;
use holdfast_proto::client::v1 as wire;
use std::time::Duration;
use wire::{PrincipalUsage, SessionInfo, Settings};

impl Cell {
    /// The cell's limits.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`PERMISSION_DENIED`), or [`Error::Unavailable`] if no master answers.
    pub async fn settings(&self) -> Result<Settings, Error> {
        let call = |mut client: crate::unary::Admin| async move {
            client.get_settings(wire::GetSettingsRequest {}).await
        };
        let response = self.unary.call_admin(Goal::Read, call).await?;
        response.settings.ok_or_else(|| Error::protocol("an answer without settings"))
    }

    /// Changes some of the cell's limits: what is 0 in `settings` stays as it is. Returns all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`INVALID`, or `WOULD_LOCK_OUT` unless [forced](Cell::forced)), [`Error::Unavailable`]
    /// if nothing was changed, or [`Error::OutcomeUnknown`] if that is not sure.
    pub async fn change_settings(&self, settings: Settings) -> Result<Settings, Error> {
        let request = wire::ChangeSettingsRequest { settings: Some(settings), force: self.force };
        // To set the same values twice is to set them once, and so it is repeated; but it changes something.
        let response = self
            .unary
            .call_admin(Goal::Conditional, |mut client| {
                let request = request.clone();
                async move { client.change_settings(request).await }
            })
            .await?;
        response.settings.ok_or_else(|| Error::protocol("an answer without settings"))
    }

    /// Adds a replica to the cell, as a learner. It must be running (`holdfastd run --join`); `id` must never
    /// have been used in this cell. `peer_address` is where the other replicas reach it, `client_address` where
    /// clients do: `host:port`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`MEMBERSHIP`), [`Error::Unavailable`], or [`Error::OutcomeUnknown`]: look at
    /// [`Cell::status`] then.
    pub async fn add_member(&self, id: u64, peer_address: &str, client_address: &str) -> Result<(), Error> {
        let parse = |text| {
            address::parse(text, Scheme::Any).map_err(|error| Error::Refused {
                code: wire::RefusalCode::Invalid,
                message: error.to_string(),
                facts: None,
            })
        };
        let request = wire::AddMemberRequest {
            id,
            peer_address: parse(peer_address)?,
            client_address: parse(client_address)?,
        };
        self.unary
            .call_admin(Goal::Once, |mut client| {
                let request = request.clone();
                async move { client.add_member(request).await }
            })
            .await?;
        Ok(())
    }

    /// Makes a learner that has caught up a voter.
    ///
    /// # Errors
    ///
    /// As for [`Cell::add_member`].
    pub async fn promote_member(&self, id: u64) -> Result<(), Error> {
        self.unary
            .call_admin(Goal::Once, |mut client| async move {
                client.promote_member(wire::PromoteMemberRequest { id }).await
            })
            .await?;
        Ok(())
    }

    /// Removes a replica. Its id is never used again.
    ///
    /// # Errors
    ///
    /// As for [`Cell::add_member`].
    pub async fn remove_member(&self, id: u64) -> Result<(), Error> {
        self.unary
            .call_admin(Goal::Once, |mut client| async move {
                client.remove_member(wire::RemoveMemberRequest { id }).await
            })
            .await?;
        Ok(())
    }

    /// The cell's sessions, by id. More than 1,000 are asked for in pages; the whole is not one moment's view then.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`PERMISSION_DENIED`) or [`Error::Unavailable`].
    pub async fn list_sessions(&self) -> Result<Vec<SessionInfo>, Error> {
        let mut sessions: Vec<SessionInfo> = Vec::new();
        loop {
            let after = sessions.last().map_or(0, |last| last.session);
            let request = wire::ListSessionsRequest { after, limit: 0 };
            let call = |mut client: crate::unary::Admin| async move { client.list_sessions(request).await };
            let page = self.unary.call_admin(Goal::Read, call).await?;
            let more = page.more && !page.sessions.is_empty();
            sessions.extend(page.sessions);
            if !more {
                return Ok(sessions);
            }
        }
    }

    /// Ends a session, as if its client had died: its locks are lost, and their lock-delays run. Returns when it is
    /// over: when its client has agreed, or its lease has run out, for until then it may rightly believe that it
    /// holds its locks. `wait` is how long that may take, instead of the cell's time-out; 75 s is enough for the
    /// longest lease and a fail-over.
    ///
    /// If the future is dropped, the session may or may not end. To kill it again is harmless.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`UNKNOWN_SESSION` if there is none of this id, `PERMISSION_DENIED`);
    /// [`Error::OutcomeUnknown`] if the session was not over by then: it may be ending all the same;
    /// [`Error::Unavailable`] if no master was found.
    pub async fn kill_session(&self, session: u64, wait: Duration) -> Result<(), Error> {
        let call = |mut client: crate::unary::Admin| async move {
            client.kill_session(wire::KillSessionRequest { session }).await
        };
        self.unary.with_timeout(wait).call_admin(Goal::Conditional, call).await.map(drop)
    }

    /// The cell's open handles, by session and id: those of one session, those on one node, or all. More than 1,000
    /// are asked for in pages; the whole is not one moment's view then.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`PERMISSION_DENIED`, `BAD_PATH`) or [`Error::Unavailable`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cell: holdfast::Cell) -> Result<(), holdfast::Error> {
    /// for handle in cell.list_handles(None, Some("/service/leader")).await? {
    ///     println!("{} has it open; holds: {:?}, waits: {:?}", handle.client, handle.holds, handle.waits);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list_handles(
        &self,
        session: Option<u64>,
        path: Option<&str>,
    ) -> Result<Vec<HandleInfo>, Error> {
        let mut handles: Vec<HandleInfo> = Vec::new();
        loop {
            let (after_session, after_handle) =
                handles.last().map_or((0, 0), |last| (last.session, last.handle));
            let request = wire::ListHandlesRequest {
                session: session.unwrap_or_default(),
                path: path.unwrap_or_default().to_owned(),
                after_session,
                after_handle,
                limit: 0,
            };
            let call = |mut client: crate::unary::Admin| {
                let request = request.clone();
                async move { client.list_handles(request).await }
            };
            let page = self.unary.call_admin(Goal::Read, call).await?;
            let more = page.more && !page.handles.is_empty();
            handles.extend(page.handles.into_iter().map(HandleInfo::from));
            if !more {
                return Ok(handles);
            }
        }
    }

    /// What each principal has of the cell, by its name. More than 1,000 are asked for in pages; the whole is not one
    /// moment's view then.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`PERMISSION_DENIED`) or [`Error::Unavailable`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cell: holdfast::Cell) -> Result<(), holdfast::Error> {
    /// for usage in cell.list_usage().await?.principals {
    ///     println!("{} has {} nodes and {} sessions", usage.principal, usage.nodes, usage.sessions);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list_usage(&self) -> Result<CellUsage, Error> {
        let mut principals: Vec<PrincipalUsage> = Vec::new();
        loop {
            let after = principals.last().map_or_else(String::new, |last| last.principal.clone());
            let call = |mut client: crate::unary::Admin| {
                let request = wire::ListUsageRequest { after: after.clone(), limit: 0 };
                async move { client.list_usage(request).await }
            };
            let page = self.unary.call_admin(Goal::Read, call).await?;
            let more = page.more && !page.principals.is_empty();
            principals.extend(page.principals);
            if !more {
                let wire::ListUsageResponse { sessions, nodes, bytes, .. } = page;
                return Ok(CellUsage { principals, sessions, nodes, bytes });
            }
        }
    }
}

/// How much of a cell is in use.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CellUsage {
    /// What each principal has that has anything.
    pub principals: Vec<PrincipalUsage>,
    /// All sessions: see the setting `sessions_max`.
    pub sessions: u64,
    /// All nodes: see the setting `nodes_max`. Those that are older than state version 2 are in no principal's share.
    pub nodes: u64,
    /// The bytes of all contents and names: see the setting `total_bytes_max`.
    pub bytes: u64,
}
