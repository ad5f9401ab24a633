//! Tests programs against a real cell of Holdfast, within their own process, and breaks it for them.
//!
//! A [`TestCell`] is three replicas, the same that serve in production, on threads of the test's own process, with
//! temporary directories and free ports. It starts in a fraction of a second, needs no binary and no container, and
//! leaves nothing behind. Several can run side by side, on any kind of tokio runtime.
//!
//! What makes programs that elect primaries wrong is rare in production; here it is a call:
//!
//! | call | what happens | what a program sees |
//! |---|---|---|
//! | [`kill_master`](TestCell::kill_master), [`kill`](TestCell::kill) | SIGKILL: no hand-over, connections break | a delay; its locks are still its own |
//! | [`stop`](TestCell::stop) | SIGTERM: hand-over | hardly anything |
//! | [`restart`](TestCell::restart), [`restart_all`](TestCell::restart_all) | the replica comes back with its data | nothing |
//! | [`pause`](TestCell::pause), [`resume`](TestCell::resume) | SIGSTOP, SIGCONT | a delay, if it was the master |
//! | [`partition`](TestCell::partition), [`isolate_master`](TestCell::isolate_master) | replicas are cut off from each other; connections stand, and nothing comes through | a delay |
//! | [`partition_client`](TestCell::partition_client) | a client is cut off from the cell | jeopardy, and later the end of its session |
//! | [`expire_session`](TestCell::expire_session) | the session expires, now | jeopardy, and the end of its session |
//!
//! # A test
//!
//! The program under test gets a [`holdfast::Cell`] like any other. This one works while it holds a lock:
//!
//! ```
//! use holdfast::{Cell, Ended, Interrupted, Lost, Mode, OpenOptions};
//! use holdfast_testkit::TestCell;
//!
//! /// Works as the primary until the lock is lost, or may be, and says why.
//! async fn serve(cell: Cell, name: &str) -> Result<Interrupted, holdfast::Error> {
//!     let session = cell.session().client_name(name).open().await?;
//!     let leader = session.open("/leader", OpenOptions::new().create()).await?;
//!     let lock = leader.acquire(Mode::Exclusive).await?;
//!     leader.set_contents(name.to_owned()).await?;
//!     let work = std::future::pending::<()>();
//!     Ok(lock.run(work).await.expect_err("the work has no end"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In a test: #[tokio::test]
//! let cell = TestCell::start().await?;
//! let ada = tokio::spawn(serve(cell.client(), "ada"));
//! let primary = holdfast_testkit::eventually("a primary", LIMIT, async || {
//!     cell.client().contents("/leader").await.ok().filter(|contents| contents.bytes == "ada")
//! });
//! primary.await;
//!
//! // A master that dies costs the primary nothing.
//! let old = cell.kill_master().await?;
//! cell.wait_for_new_master(old).await?;
//! cell.restart(old).await?;
//! assert!(!ada.is_finished());
//!
//! // A session that expires costs it the lock.
//! let sessions = cell.client().list_sessions().await?;
//! cell.expire_session(sessions[0].session).await?;
//! assert!(matches!(ada.await??, Interrupted::Lost(Lost::Session(Ended::Expired)) | Interrupted::Suspended));
//! # Ok(())
//! # }
//! # const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
//! ```
//!
//! # Time
//!
//! The kit runs on the real clock, and waits for events, not for time. Its sessions have leases of 5 s unless they ask for
//! others, or [`TestCellBuilder::lease`] says otherwise; so a program that is to be tested should leave the lease to its
//! caller, or take it from its configuration. A short lease makes tests quick that wait for one to run out, and fragile on
//! a machine that is busy. Do not let tokio's clock stand still (`start_paused`) in a test with a cell.
//!
//! # Who is cut off
//!
//! Each client from [`TestCell::client_named`] reaches the cell by ways of its own, and can be cut off alone. Clients from
//! [`TestCell::client`], and programs that are told [`TestCell::addresses`], even in other processes, share theirs. A cut
//! is healed when its [`Partition`] is dropped: bind it to a name that does not begin and end with an underscore.
//!
//! # When a test fails
//!
//! If the test panics while it has the cell, the end of the replicas' log is printed; [`TestCell::logs`] has more. The
//! replicas keep what production does: they abort the process if their disk fails.

#![forbid(unsafe_code)]

mod builder;
mod cell;
mod error;
mod faults;
mod logs;
mod network;
mod partition;
mod waiting;

pub use builder::TestCellBuilder;
pub use cell::TestCell;
pub use error::Error;
pub use holdfast_types::ReplicaId;
pub use partition::Partition;
pub use waiting::eventually;
