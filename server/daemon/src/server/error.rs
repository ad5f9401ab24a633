//! Why a replica cannot run, or cannot run on, and whether it ever can again.

use std::io;

use holdfast_replica::admission::ReplaceAdvice;
use holdfast_types::ReplicaId;

use crate::founding::FoundingError;
use crate::identity::IdentityError;
use crate::listen::ListenError;
use crate::storage::StorageError;
use crate::system::advice;
use crate::tls::TlsError;

/// Why a replica cannot run, or cannot run on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its certificate, key or CA is not fit.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its data directory is not fit.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its log or snapshots are not.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It cannot come to a cell.
    #[error(transparent)]
    Founding(#[from] FoundingError),
    /// A replica of its cell says that it must not go on.
    #[error("the cell refuses this replica: {0}")]
    Refused(String),
    /// Its data are not what it has acknowledged.
    #[error(
        "the data of {replica} are older than what it has acknowledged: {what}. An older copy of the directory was put back, \
         or the disk has lost what it had synced. {}", ReplaceAdvice(*replica)
    )]
    DataLost {
        /// The replica.
        replica: ReplicaId,
        /// How that is known.
        what: String,
    },
    /// It was removed from its cell.
    #[error(
        "{0} was removed from its cell. Its id is never used again, and its data directory can be deleted"
    )]
    Removed(ReplicaId),
    /// The operating system does not give what is needed.
    #[error("the system does not give what the replica needs: {0}{advice}", advice = advice(.0))]
    System(#[from] io::Error),
}

impl ServerError {
    /// Whether the replica can never run again with this data directory and id.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Removed(_) | Self::DataLost { .. } => true,
            Self::Founding(error) => matches!(error, FoundingError::Refused { .. }),
            Self::Identity(error) => {
                use IdentityError as E;
                matches!(error, E::DataGone { .. } | E::Damaged { .. } | E::Stale { .. })
            }
            Self::Storage(error) => matches!(error, StorageError::Damaged { .. }),
            Self::Listen(_) | Self::Tls(_) | Self::System(_) => false,
        }
    }
}
