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
//! let cell = Cell::connect(["127.0.0.1:7100", "127.0.0.1:7101", "127.0.0.1:7102"])?;
//! let session = cell.session().client_name("worker-7").open().await?;
//! let leader = session.open("/service/leader", OpenOptions::new().create()).await?;
//!
//! // Waits in the queue, first come, first served.
//! let lock = leader.acquire(Mode::Exclusive).await?;
//! leader.set_contents("worker-7.example:8080").await?;
//! let work = async { /* serve as primary; send lock.sequencer() with every order */ };
//! // Stops the work if the lock is lost.
//! lock.run(work).await?;
//! lock.release().await?;
//! # Ok(())
//! # }
//! ```
//!
//! This crate performs what `holdfast-session` decides, and decides nothing about leases, retries or outcomes
//! itself. Each future says what dropping it does. Logs go to `tracing`.

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
mod link;
mod lock;
mod options;
mod session;
mod streams;
mod timer;
mod tls;
mod unary;
mod values;

pub use call::SessionState;
pub use cell::{Cell, CellBuilder, CellStatus, TIMEOUT_DEFAULT, WriteOptions};
pub use error::{ConnectError, Error, Lost};
pub use events::{ChildChange, EventKind, EventSet, HandleEvent, SessionEvent};
pub use handle::Handle;
pub use holdfast_proto::client::v1::{MemberStatus, RefusalCode, Role, SessionInfo, Settings};
pub use holdfast_session::{CacheStats, Ended};
pub use holdfast_types::{Admitted, Fence, FenceError, FenceTextError, Mode, Sequencer, SequencerError};
pub use lock::Lock;
pub use options::OpenOptions;
pub use session::{CACHE_BYTES_DEFAULT, GRACE_DEFAULT, LEASE_DEFAULT, Session, SessionBuilder};
pub use streams::{HandleEvents, SessionEvents};
pub use tls::{Tls, TlsError};
pub use values::{
    AclNames, Contents, DirPage, Entry, HandleInfo, LockHolder, LockStat, NodeKind, NodeStat, SequencerCheck,
    Stat, Uses, Written,
};
