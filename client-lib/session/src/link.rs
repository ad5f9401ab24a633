//! The one stream to a replica, and how far it has come.
//!
//! Owns no timers of its own: each state says when it is given up or left.

use crate::doors::StreamId;
use holdfast_types::Time;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// There is none; the next attempt is at this moment.
    Idle { retry_at: Time },
    /// Asked for, not standing yet.
    Connecting { stream: StreamId, give_up_at: Time },
    /// The hello is sent. `sent_at` is what a lease granted with the opening is counted from.
    Greeting { stream: StreamId, sent_at: Time, give_up_at: Time },
    /// The session is attached.
    Attached { stream: StreamId },
}

impl Link {
    /// The stream, if there is one. Frames of any other are old.
    pub(crate) fn stream(self) -> Option<StreamId> {
        match self {
            Self::Idle { .. } => None,
            Self::Connecting { stream, .. } | Self::Greeting { stream, .. } | Self::Attached { stream } => {
                Some(stream)
            }
        }
    }

    /// The stream, if requests may be sent on it.
    pub(crate) fn attached(self) -> Option<StreamId> {
        match self {
            Self::Attached { stream } => Some(stream),
            _ => None,
        }
    }

    /// When this state is over by itself.
    pub(crate) fn timeout(self) -> Option<Time> {
        match self {
            Self::Idle { retry_at } => Some(retry_at),
            Self::Connecting { give_up_at, .. } | Self::Greeting { give_up_at, .. } => Some(give_up_at),
            Self::Attached { .. } => None,
        }
    }
}
