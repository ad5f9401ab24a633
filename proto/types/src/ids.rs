//! Newtypes for everything that is a number and must not be mistaken for another.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// The cell's one counter: every command that changes anything takes the next one. All generation numbers
    /// of a node are revisions (design.md §3).
    Revision,
    "r"
);
id!(
    /// A session: the revision at which it was opened, so never used twice. Not a secret.
    SessionId,
    "s"
);
id!(
    /// A handle within its session: the number of the request that opened it.
    HandleId,
    "h"
);
id!(
    /// A request within its session; from 1 upwards, never used for two requests.
    RequestNumber,
    "#"
);
id!(
    /// A raft term: the epoch of one master.
    Term,
    "t"
);
id!(
    /// A replica's raft id; greater than 0, and never used again once its data is gone.
    ReplicaId,
    "replica "
);
id!(
    /// One stream of one client at one replica, for as long as the replica runs.
    ConnectionId,
    "c"
);
id!(
    /// One connection of a client at one replica, by which streams and calls come; for as long as the replica runs.
    SocketId,
    "socket "
);

impl Revision {
    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
