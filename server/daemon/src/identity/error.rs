//! Why a data directory cannot be used: what is wrong with it, and what would be right.
//!
//! Invariant: the advice to replace the replica is given only where its data are gone, damaged or stale beyond doubt, or might
//! be another's.

use std::path::PathBuf;

use holdfast_replica::admission::ReplaceAdvice;
use holdfast_types::ReplicaId;

use crate::storage::StorageError;
use crate::system::advice;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Something could not be read or written.
    #[error("cannot {action} {path}: {source}{advice}", path = path.display(), advice = advice(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Another process has the directory.
    #[error(
        "the data directory {path} is in use by another process: two replicas cannot share one, and each needs a \
         data_dir of its own", path = path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory has files, and none of them says whose.
    #[error(
        "the directory {path} is not empty and holds no replica's identity ({found} is there): choose an empty or \
         a new directory for data_dir. {advice}", path = path.display(), advice = ReplaceAdvice(*replica)
    )]
    NoIdentity {
        /// The directory.
        path: PathBuf,
        /// Something that is there.
        found: String,
        /// The replica that wanted it.
        replica: ReplicaId,
    },
    /// The identity cannot be trusted.
    #[error(
        "the identity file {path} is damaged ({what}), so nothing in its directory can be trusted. {advice}",
        path = path.display(), advice = ReplaceAdvice(*replica)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// The replica that wanted it.
        replica: ReplicaId,
    },
    /// The data are another cell's.
    #[error(
        "the data directory {path} belongs to the cell {found:?}, and this replica is configured for the cell \
         {configured:?}: correct `cell` or `data_dir`", path = path.display()
    )]
    OtherCell {
        /// The directory.
        path: PathBuf,
        /// Its cell.
        found: String,
        /// The configured one.
        configured: String,
    },
    /// The data are another replica's.
    #[error(
        "the data directory {path} belongs to replica {found}, and this one is configured as replica {configured}: \
         correct `replica` or `data_dir`", path = path.display(), found = found.0, configured = configured.0
    )]
    OtherReplica {
        /// The directory.
        path: PathBuf,
        /// Its replica.
        found: ReplicaId,
        /// The configured one.
        configured: ReplicaId,
    },
    /// The replica was part of its cell, and its log is gone.
    #[error(
        "the data of replica {replica} are gone: {path} says that it has been part of its cell, but {missing} is \
         not there. {advice}", path = path.display(), missing = missing.display(), replica = replica.0,
        advice = ReplaceAdvice(*replica)
    )]
    DataGone {
        /// The identity file.
        path: PathBuf,
        /// What is missing.
        missing: PathBuf,
        /// The replica.
        replica: ReplicaId,
    },
    /// The directory was found to be older than what the replica has acknowledged.
    #[error(
        "the data of replica {replica} are older than what it has acknowledged, as its cell found out ({what}); {path} \
         says so. {advice}", path = path.display(), replica = replica.0, advice = ReplaceAdvice(*replica)
    )]
    Stale {
        /// The mark.
        path: PathBuf,
        /// How it was found out.
        what: String,
        /// The replica.
        replica: ReplicaId,
    },
    /// No randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// The log could not be begun.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
