//! What operators do to a cell: its settings and its members.

use crate::address;
use crate::cell::Cell;
use crate::error::Error;
use crate::unary::Repeat;
use holdfast_proto::client::v1 as wire;
use wire::Settings;

impl Cell {
    /// The cell's limits.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if no master answers.
    pub async fn settings(&self) -> Result<Settings, Error> {
        let call = |mut client: crate::unary::Admin| async move {
            client.get_settings(wire::GetSettingsRequest {}).await
        };
        let response = self.unary.call_admin(Repeat::Always, call).await?;
        response.settings.ok_or_else(|| Error::protocol("an answer without settings"))
    }

    /// Changes some of the cell's limits: what is 0 in `settings` stays as it is. Returns all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`INVALID`) or [`Error::Unavailable`].
    pub async fn change_settings(&self, settings: Settings) -> Result<Settings, Error> {
        let request = wire::ChangeSettingsRequest { settings: Some(settings) };
        // To set the same values twice is to set them once.
        let response = self
            .unary
            .call_admin(Repeat::Always, |mut client| {
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
            address::parse(text).map_err(|error| Error::Refused {
                code: wire::RefusalCode::Invalid,
                message: error.to_string(),
            })
        };
        let request = wire::AddMemberRequest {
            id,
            peer_address: parse(peer_address)?,
            client_address: parse(client_address)?,
        };
        self.unary
            .call_admin(Repeat::Never, |mut client| {
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
            .call_admin(Repeat::Never, |mut client| async move {
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
            .call_admin(Repeat::Never, |mut client| async move {
                client.remove_member(wire::RemoveMemberRequest { id }).await
            })
            .await?;
        Ok(())
    }
}
