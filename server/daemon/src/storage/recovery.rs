//! The start: from what is on disk to what the replica begins with.
//!
//! What other modules use: [`boot`], once the data directory's identity says to which cell it belongs (or that
//! the replica is to join one). It reads the newest snapshot and the log, and fits them together:
//!
//! - A founded cell's state before any snapshot is the genesis, the same on all founders, at entry 1 of term 1.
//! - The commit index is raised to the snapshot's. Log that does not join the snapshot was about to be replaced
//!   by it when the process died, and is discarded.
//! - A damaged newest snapshot is passed over only if an older one, or the genesis, still joins the log, and the
//!   log reaches as far as the damaged one did.
//!
//! Invariant: the replica boots with everything that it ever acknowledged, or not at all. In doubt it does not,
//! and the error says what is wrong with which file, and how to replace the replica (design.md §5, §8).

use std::sync::Arc;

use holdfast_replica::recovery::{Place, fit};
use holdfast_replica::{Boot, StateAt};
use holdfast_state::{Genesis, State};
use holdfast_types::Term;
use slog::{Logger, info, warn};

use super::StorageError;
use super::log::{LogContents, LogOptions, LogStore};
use super::snapshot_files::{SnapshotFiles, SnapshotName};
use crate::config::Config;
use crate::identity::{DataDir, Founded, Stage};

/// Where the genesis stands in the log.
const GENESIS_INDEX: u64 = 1;
const GENESIS_TERM: Term = Term(1);

/// What the disk has, opened and checked.
pub struct Recovered {
    /// For the replica.
    pub boot: Boot,
    /// For the [`LogWriter`](super::writer::LogWriter).
    pub log: LogStore,
    /// For the writer and for background snapshots.
    pub snapshots: Arc<SnapshotFiles>,
}

/// Opens and checks everything in the data directory.
///
/// # Errors
///
/// If the disk fails, or what is there cannot be what was written.
pub fn boot(dir: &DataDir, config: &Config, logger: &Logger) -> Result<Recovered, StorageError> {
    let identity = dir.identity();
    let snapshots = SnapshotFiles::open(dir.snapshot_dir(), identity.replica)?;
    let (mut log, contents) = LogStore::open(LogOptions::new(dir, config), logger)?;
    let genesis = match &identity.stage {
        Stage::Founded(founded) => Some(genesis(&identity.cell, founded)),
        Stage::Fresh | Stage::Joined { .. } => None,
    };
    let base = Base::find(&snapshots, identity.cell_id(), genesis, logger)?;
    let damaged = |what| StorageError::Damaged { path: dir.log_dir(), what, replica: identity.replica };
    let place = base.state.as_ref().map(Place::of);
    let damaged_index = base.damaged.first().map(|(name, _)| name.index);
    let LogContents { hard_state, entries } = contents;
    let fit =
        fit(place, damaged_index, hard_state, entries).map_err(|misfit| base.explain(misfit, damaged))?;
    if fit.discarded > 0 {
        warn!(logger, "log that does not join the newest snapshot is discarded"; "entries" => fit.discarded);
        log.replace(Some(&fit.hard_state), &[])?;
    }
    for (name, error) in &base.damaged {
        warn!(logger, "a damaged snapshot was passed over; the log makes up for it: {}", error);
        snapshots.set_aside(*name)?;
    }
    let boot = Boot { hard_state: fit.hard_state, state: base.state, entries: fit.entries };
    info!(logger, "the replica's data are read"; "term" => boot.hard_state.term,
        "commit" => boot.hard_state.commit, "entries" => boot.entries.len(),
        "snapshot" => boot.state.as_ref().map_or(0, |at| at.index));
    Ok(Recovered { boot, log, snapshots: Arc::new(snapshots) })
}

/// What a founded cell's replicas begin with.
fn genesis(cell: &str, founded: &Founded) -> StateAt {
    let state = State::genesis_at(
        founded.state_version,
        Genesis {
            cell: cell.to_owned(),
            cell_id: founded.cell_id,
            members: founded.members.clone(),
            settings: founded.settings.clone(),
        },
    );
    let voters = founded.members.iter().map(|member| member.id).collect();
    StateAt { index: GENESIS_INDEX, term: GENESIS_TERM, voters, learners: Vec::new(), state }
}

/// What the log is fitted to.
#[derive(Debug)]
struct Base {
    /// The newest intact snapshot, or the genesis; `None` for a replica that has yet to join.
    state: Option<StateAt>,
    /// Newer snapshots that are damaged.
    damaged: Vec<(SnapshotName, StorageError)>,
}

impl Base {
    fn find(
        snapshots: &SnapshotFiles,
        cell_id: u64,
        genesis: Option<StateAt>,
        logger: &Logger,
    ) -> Result<Self, StorageError> {
        let mut damaged = Vec::new();
        for name in snapshots.names()? {
            match snapshots.read(name, cell_id) {
                Ok(at) => {
                    info!(logger, "the snapshot is intact"; "index" => at.index, "term" => at.term.0);
                    return Ok(Self { state: Some(at), damaged });
                }
                Err(error @ StorageError::Damaged { .. }) => damaged.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(Self { state: genesis, damaged })
    }

    /// The error to show when the log does not fit: if a snapshot is damaged, that is what is wrong.
    fn explain(&self, misfit: String, damaged_log: impl Fn(String) -> StorageError) -> StorageError {
        match self.damaged.first() {
            Some((_, StorageError::Damaged { path, what, replica })) => StorageError::Damaged {
                path: path.clone(),
                what: format!("{what}; and nothing older makes up for it, because {misfit}"),
                replica: *replica,
            },
            _ => damaged_log(misfit),
        }
    }
}

#[cfg(test)]
mod tests;
