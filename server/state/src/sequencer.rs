//! Checking a sequencer (P§2.4): is the lock held now, as the sequencer says?
//!
//! A valid one may be invalid a moment later; who must be sure remembers the greatest generation it has seen
//! (I2), and needs no check.

use holdfast_proto::client::v1::{Refusal, RefusalCode};
use holdfast_types::Sequencer;

use crate::{State, refusal};

impl State {
    /// Checks a sequencer's text form. The inner result says whether it is valid and, if not, why.
    ///
    /// # Errors
    ///
    /// A text that is no sequencer, or one of another cell.
    pub fn check_sequencer(&self, text: &str) -> Result<Result<(), String>, Refusal> {
        let sequencer: Sequencer =
            text.parse().map_err(|error| refusal::new(RefusalCode::BadSequencer, format!("{error}")))?;
        let path = self.parse_path_of_old(&sequencer.name)?;
        let Some(node) = self.tree.get(&path) else {
            return Ok(Err(format!("there is no node {path}")));
        };
        let Sequencer { mode, generation, instance, .. } = sequencer;
        if node.instance.0 != instance {
            let is = node.instance.0;
            return Ok(Err(format!(
                "{path} is another node of that name now: instance {is}, not {instance}"
            )));
        }
        let (is, held) = (node.lock.generation().0, node.lock.mode());
        Ok(match held {
            None => Err(format!("the lock of {path} is free")),
            Some(_) if is != generation => {
                Err(format!("the lock of {path} was granted anew: generation {is}, not {generation}"))
            }
            Some(held) if held != mode => Err(format!("the lock of {path} is held {held}, not {mode}")),
            Some(_) => Ok(()),
        })
    }
}
