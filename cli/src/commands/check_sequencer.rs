//! `holdfast check-sequencer`: whether a lock is held as its holder says.

use anyhow::Result;
use clap::Args;
use holdfast::SequencerCheck;
use holdfast_types::Sequencer;
use serde::Serialize;

use crate::client::Client;
use crate::failure::{Failure, Kind};

/// Tell whether a sequencer is valid: whether the lock is held, now, as it says.
///
/// Exit status 7 if it is not.
#[derive(Debug, Args)]
pub(crate) struct CheckSequencer {
    /// The sequencer, as a holder handed it over: holdfast:1:<mode>:<generation>:<instance>:<name>.
    sequencer: String,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    valid: bool,
    /// Why not, for people.
    reason: Option<String>,
}

impl CheckSequencer {
    pub(crate) async fn run(&self, client: &Client) -> Result<u8> {
        if let Err(error) = self.sequencer.parse::<Sequencer>() {
            return Err(Failure::error(Kind::Usage, error.to_string()));
        }
        let document = match client.cell.check_sequencer(&self.sequencer).await? {
            SequencerCheck::Valid => Document { valid: true, reason: None },
            SequencerCheck::Invalid(reason) => Document { valid: false, reason: Some(reason) },
        };
        client.output.print(&document, |document| match &document.reason {
            None => "valid".to_owned(),
            Some(reason) => format!("not valid: {reason}"),
        })?;
        Ok(if document.valid { 0 } else { Kind::Invalid.exit_status(false) })
    }
}
