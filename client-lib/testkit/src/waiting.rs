//! Waiting for the cell to be as a test needs it.

use std::time::{Duration, Instant};

use holdfast_server::Leadership;
use holdfast_types::ReplicaId;
use tokio::time::{sleep, timeout};

use crate::cell::{Slot, TestCell};
use crate::error::Error;
use crate::network::lock;

/// A cell that can have a master has one long before.
const MASTER_MAX: Duration = Duration::from_secs(30);
/// Nobody is told when a replica has taken office, so it is asked this often.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// A master is confirmed within a few messages. One that is cut off takes until it has noticed, which is not waited for.
const CONFIRMATION_MAX: Duration = Duration::from_millis(100);

impl TestCell {
    /// Waits until a replica serves clients, confirmed by a quorum, and says which.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] after 30 s.
    pub async fn master(&self) -> Result<ReplicaId, Error> {
        self.within(MASTER_MAX, "a master", async { Ok(self.master_but(None).await) }).await
    }

    /// Waits until a replica serves clients that is another one than `old`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownReplica`]; [`Error::Timeout`] after 30 s, also if `old` is master still.
    pub async fn wait_for_new_master(&self, old: ReplicaId) -> Result<ReplicaId, Error> {
        self.slot(old)?;
        self.within(MASTER_MAX, "a new master", async { Ok(self.master_but(Some(old)).await) }).await
    }

    /// Waits until every replica knows a master, and one serves. Before that a replica may not have founded the cell yet,
    /// which takes all of them: nothing must be broken meanwhile.
    pub(crate) async fn wait_until_complete(&self) -> Result<(), Error> {
        let followed = self.slots().iter().filter_map(|slot| match &*lock(slot) {
            Slot::Running(server) => Some((server.replica(), server.leadership())),
            Slot::Standing(..) | Slot::Down | Slot::Changing => None,
        });
        let followed: Vec<_> = followed.collect();
        let complete = async {
            for (replica, mut leadership) in followed {
                let known = leadership.wait_for(|leadership| leadership.master.is_some()).await;
                known.map_err(|_| Error::State { replica, wish: "awaited", state: "has ended by itself" })?;
            }
            Ok(())
        };
        self.within(MASTER_MAX, "a master that all follow", complete).await?;
        self.master().await.map(drop)
    }

    async fn master_but(&self, old: Option<ReplicaId>) -> ReplicaId {
        loop {
            // Of several that believe to be master, the one that knows of the latest term may be right.
            let mut leaders: Vec<_> = self.leaders().filter(|(id, _)| Some(*id) != old).collect();
            leaders.sort_by_key(|(_, leadership)| std::cmp::Reverse(leadership.term));
            for (id, _) in leaders {
                let serves = match self.slots().get(id.0 as usize - 1).map(lock).as_deref() {
                    Some(Slot::Running(server)) => server.serves(),
                    _ => continue,
                };
                if timeout(CONFIRMATION_MAX, serves).await == Ok(true) {
                    return id;
                }
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// Who believes to lead, of those that run.
    fn leaders(&self) -> impl Iterator<Item = (ReplicaId, Leadership)> {
        self.slots().iter().filter_map(|slot| match &*lock(slot) {
            Slot::Running(server) => {
                let (id, leadership) = (server.replica(), *server.leadership().borrow());
                (leadership.master == Some(id)).then_some((id, leadership))
            }
            Slot::Standing(..) | Slot::Down | Slot::Changing => None,
        })
    }

    /// What `wanted` brings, or an error with the end of the log.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        what: &'static str,
        wanted: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match timeout(limit, wanted).await {
            Ok(brought) => brought,
            Err(_) => Err(Error::Timeout { what, waited: limit, logs: self.logs.last() }),
        }
    }
}

/// Asks `probe` again and again until it brings something, and gives that: for conditions that nobody announces. Where
/// there is an event to wait for, such as [`holdfast::Lock::lost`], wait for that.
///
/// # Panics
///
/// If that takes longer than `limit`; `what` says what was waited for.
///
/// # Examples
///
/// ```no_run
/// # async fn example(cell: holdfast::Cell) {
/// use std::time::Duration;
///
/// use holdfast_testkit::eventually;
///
/// let found = eventually("the primary's address", Duration::from_secs(5), async || {
///     cell.contents("/service/primary").await.ok()
/// });
/// let address = found.await;
/// # }
/// ```
pub async fn eventually<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    let asking = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            sleep(ASK_EVERY.min(limit)).await;
        }
    };
    match timeout(limit, asking).await {
        Ok(found) => found,
        Err(_) => panic!("{what}: not within {:?}", began.elapsed()),
    }
}
