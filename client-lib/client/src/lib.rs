//! The client library of Holdfast, a lock and naming service in the manner of Chubby.
//!
//! A [`Cell`] is a handful of replicas that serve one tree of small files. A [`Session`] with it is kept alive
//! through fail-overs by a lease. Through a session an application opens a [`Handle`] on a node, reads and writes
//! it, and takes its [`Lock`]. The guard carries a [`Sequencer`], which the holder hands to the servers that it
//! gives orders to, and says when the lock is lost.
//!
//! ```no_run
//! use holdfast::{Cell, Mode, OpenOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cell = Cell::connect(["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"])?;
//! let session = cell.session().client_name("worker-7").open().await?;
//! let leader = session.open("/service/leader", OpenOptions::new().create()).await?;
//!
//! // Waits in the queue, first come, first served.
//! let lock = leader.acquire(Mode::Exclusive).await?;
//! leader.set_contents("worker-7.example:8080").await?;
//! let work = async { /* serve as primary; send lock.sequencer() with every order */ };
//! // Stops the work as soon as somebody else might have the lock.
//! lock.run(work).await?;
//! lock.release().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Reading, and the cache
//!
//! What is read through a handle is cached, and the cache is never wrong: a write of a node waits until every client
//! that caches it has dropped what it cached, or has lost its lease. So [`Handle::contents`], [`Handle::stat`] and
//! [`Handle::read_dir`] are linearizable whether they ask the master or not; if they do not, they take no message, no
//! lock, and no await point. [`Handle::cached_contents`] never asks. [`OpenOptions::caching`] switches the cache off for
//! a handle, [`SessionBuilder::cache_bytes_max`] bounds it, [`Session::cache_stats`] counts. How a lock fares is never
//! cached: [`Handle::lock_stat`].
//!
//! # Events
//!
//! [`OpenOptions::events`] chooses what [`Handle::events`] tells: contents, children, access control, locks.
//! [`Session::events`] tells of jeopardy, safety, fail-over and the end. Both are streams that end with the session and
//! its reason. A reader that is slow finds several events become one; a change is never lost, fail-overs included.
//!
//! # Locks, sequencers and fences
//!
//! A [`Lock`] is as good as its session's lease. How it fares is a value to wait for, [`LockState`]: held; suspended, from
//! the moment at which the lease has run out here and another client may have the lock; lost. [`Lock::run`] stops work
//! when the lock is suspended, [`Lock::watch`] tells of each change, [`Lock::is_held`] says at any moment whether the lock
//! is certainly held. Orders that are on their way cannot be called back: hand out
//! [`Lock::sequencer`] with each, and let the server that receives them keep a [`Fence`]. Within the cell,
//! [`Handle::set_sequencer`] makes the calls of a handle depend on a lock. [`OpenOptions::lock_delay`] helps servers that
//! do neither, [`OpenOptions::keep_lock`] makes taking a lock again free.
//!
//! # When things go wrong
//!
//! A master that dies costs a delay: calls wait and are sent again, and take effect once. A session whose lease has run
//! out here is in [jeopardy](SessionState::Jeopardy): its calls wait, nothing is read from the cache, locks count as
//! not held. It becomes safe again, or, after the grace period, ends; then everything that belongs to it fails for ever
//! with the same [`Ended`]. [`SessionBuilder::timeout`], [`Session::with_timeout`] and [`Handle::with_timeout`] give calls
//! less time than that. Every [`Error`] tells whether trying again makes sense ([`Error::is_retryable`]), and whether
//! the call may have taken effect ([`Error::is_outcome_unknown`]). [`Handle::poison`] gives up all calls of a handle at
//! once; any single one is given up by dropping its future, and each future says what that does.
//!
//! # When a program ends, and what does not end
//!
//! What is dropped (locks, handles, sessions) is given back in the background, by a task of the runtime that opened the
//! session. At the end of `main` that task does not get to run, and the cell keeps the locks for a lease and their
//! lock-delay: so end with [`Session::close`], or [`Session::flush`], whatever came of the work. A session that is not used
//! is kept, unless it was opened with [`SessionBuilder::end_when_idle`].
//!
//! # Who may do what
//!
//! With [`CellBuilder::tls`] the client knows whom it talks to, and the cell knows who the client is: the name in its
//! certificate. Nodes have the names of three access control lists ([`AclNames`]); [`OpenOptions::uses`] says what a
//! handle is for, and is checked when it is opened.
//!
//! # Without a session
//!
//! [`Cell`] has calls by name, such as [`Cell::contents`] and [`Cell::set_contents`], and those of operators. They find
//! the master by themselves, and need no lease; but a write whose reply is lost has an unknown outcome.
//!
//! This crate performs what `holdfast-session` decides, and decides nothing about leases, caches, retries or outcomes
//! itself. Logs go to `tracing`.

#![forbid(unsafe_code)]

mod address;
mod admin;
mod call;
mod cell;
mod channels;
mod clock;
mod driver;
mod error;
mod events;
mod handle;
mod heard;
mod link;
mod lock;
mod lock_watch;
mod opening;
mod options;
mod places;
mod poison;
mod refusal;
mod session;
mod spare;
mod streams;
mod timer;
mod tls;
mod unary;
mod values;

pub use admin::CellUsage;
pub use call::SessionState;
pub use cell::{Cell, CellBuilder, CellStatus, TIMEOUT_DEFAULT};
pub use error::{ConnectError, Error, Interrupted, Lost};
pub use events::{ChildChange, EventKind, EventSet, HandleEvent, SessionEvent};
pub use handle::Handle;
pub use holdfast_proto::client::v1::{
    MemberStatus, PrincipalUsage, RefusalCode, Role, SessionInfo, Settings,
};
pub use holdfast_session::{CacheStats, Ended};
pub use holdfast_types::{Admitted, Fence, FenceError, FenceTextError, Mode, Sequencer, SequencerError};
pub use lock::Lock;
pub use lock_watch::{LockState, LockWatch};
pub use options::{OpenOptions, WriteOptions};
pub use refusal::{GenerationKind, RefusalFacts};
pub use session::{
    CACHE_BYTES_DEFAULT, GRACE_DEFAULT, LEASE_DEFAULT, LOCK_DELAY_DEFAULT, Session, SessionBuilder,
};
pub use streams::{HandleEvents, SessionEvents};
pub use tls::{Tls, TlsError};
pub use values::{
    AclNames, Contents, DirPage, Entry, HandleInfo, LockHolder, LockStat, NodeKind, NodeStat, SequencerCheck,
    Stat, Uses, Written,
};
