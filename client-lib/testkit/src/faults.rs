//! What can be done to replicas and sessions.

use std::time::Duration;

use futures::future::try_join_all;
use holdfast::RefusalCode;
use holdfast_types::{ReplicaId, SessionId};

use crate::cell::{Slot, TestCell};
use crate::error::Error;
use crate::network::lock;

/// The longest lease, and a fail-over: so long may it take until a session has expired whose client does not answer.
const EXPIRY_MAX: Duration = Duration::from_secs(75);
/// A master that was one a moment ago is asked again after this.
const RETRY: Duration = Duration::from_millis(5);

impl TestCell {
    /// Kills the master, as [`TestCell::kill`] does, and says which replica that was. Waits for a master first, if there
    /// is none.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if there is no master; [`Error::State`] if another call does something to it.
    pub async fn kill_master(&self) -> Result<ReplicaId, Error> {
        let master = self.master().await?;
        self.kill(master).await?;
        Ok(master)
    }

    /// Kills a replica as SIGKILL does a process, also one that is paused: it hands nothing over, its connections break,
    /// and what it had not written is lost. Its data stay for [`TestCell::restart`]. Returns when nothing of it runs any
    /// more. Dropping the future does not save the replica.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownReplica`]; [`Error::State`] if it is down already.
    pub async fn kill(&self, replica: ReplicaId) -> Result<(), Error> {
        let mut change =
            self.change(replica, "killed", |slot| matches!(slot, Slot::Running(_) | Slot::Standing(..)))?;
        self.network.set_listening(replica, None);
        // It takes some milliseconds, and nothing of it needs the caller's runtime.
        match change.take() {
            Slot::Running(server) => server.kill(None),
            Slot::Standing(server, standstill) => server.kill(Some(standstill)),
            Slot::Down | Slot::Changing => {}
        }
        Ok(())
    }

    /// Stops a replica in good order, as SIGTERM does a process: it hands over what it leads, and says goodbye to its
    /// clients. Returns when it has ended. Dropping the future does not keep it running.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownReplica`]; [`Error::State`] if it does not run; [`Error::Replica`] if it had ended by itself.
    pub async fn stop(&self, replica: ReplicaId) -> Result<(), Error> {
        let mut change = self.change(replica, "stopped", |slot| matches!(slot, Slot::Running(_)))?;
        let Slot::Running(server) = change.take() else { return Ok(()) };
        let stopped = server.stop().await;
        self.network.set_listening(replica, None);
        stopped.map_err(|source| Error::Replica { replica, source })
    }

    /// Starts a replica that is down, with the data that it had. Returns once it listens; it may then still have to catch
    /// up. If the future is dropped, the replica is down.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownReplica`]; [`Error::State`] if it is not down; [`Error::Replica`] if it cannot run.
    pub async fn restart(&self, replica: ReplicaId) -> Result<(), Error> {
        let mut change = self.change(replica, "started", |slot| matches!(slot, Slot::Down))?;
        let server = self.start_replica(replica).await?;
        change.set(Slot::Running(server));
        Ok(())
    }

    /// Kills all replicas that are not down: the cell loses its power.
    ///
    /// # Errors
    ///
    /// As for [`TestCell::kill`].
    pub async fn kill_all(&self) -> Result<(), Error> {
        for replica in self.replicas() {
            if !matches!(*lock(self.slot(replica)?), Slot::Down) {
                self.kill(replica).await?;
            }
        }
        Ok(())
    }

    /// Starts all replicas that are down.
    ///
    /// # Errors
    ///
    /// As for [`TestCell::restart`].
    pub async fn restart_all(&self) -> Result<(), Error> {
        let mut down = Vec::new();
        for replica in self.replicas() {
            if matches!(*lock(self.slot(replica)?), Slot::Down) {
                down.push(self.restart(replica));
            }
        }
        try_join_all(down).await.map(drop)
    }

    /// Has a replica stand still, as SIGSTOP does a process: it hears and says nothing, its connections stay, and time goes
    /// on. Returns once it does. If the future is dropped, the replica goes on.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownReplica`]; [`Error::State`] if it does not run.
    pub async fn pause(&self, replica: ReplicaId) -> Result<(), Error> {
        let mut change = self.change(replica, "paused", |slot| matches!(slot, Slot::Running(_)))?;
        let Slot::Running(server) = change.take() else { return Ok(()) };
        let still = server.stand_still();
        change.set(Slot::Running(server));
        let still = still.await;
        let state = Error::State { replica, wish: "paused", state: "has ended by itself" };
        let still = still.ok_or(state)?;
        if let Slot::Running(server) = change.take() {
            change.set(Slot::Standing(server, still));
        }
        Ok(())
    }

    /// Has a replica go on that was paused. It finds that time has passed.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownReplica`]; [`Error::State`] if it was not paused.
    pub fn resume(&self, replica: ReplicaId) -> Result<(), Error> {
        let mut change = self.change(replica, "resumed", |slot| matches!(slot, Slot::Standing(..)))?;
        if let Slot::Standing(server, standstill) = change.take() {
            drop(standstill);
            change.set(Slot::Running(server));
        }
        Ok(())
    }

    /// Has a session ([`holdfast::Session::id`]) expire, as if its lease had run out: its client is in jeopardy, and at once
    /// learns that the session is over ([`holdfast::Ended::Expired`]); its locks are lost, not released, so that
    /// lock-delays run. Returns when the session is over. A client that does not answer, because it is cut off or stands
    /// still, may rightly believe in its session until its lease has run out indeed; that is waited for.
    ///
    /// If the future is dropped, the session may or may not expire.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSession`]; [`Error::Timeout`] if no master is found in time.
    pub async fn expire_session(&self, session: u64) -> Result<(), Error> {
        let expiry = async {
            loop {
                let master = self.master().await?;
                let asked = match &*lock(self.slot(master)?) {
                    Slot::Running(server) => Some(server.expire_session(SessionId(session))),
                    _ => None,
                };
                match asked {
                    Some(asked) => match asked.await {
                        Ok(()) => return Ok(()),
                        Err(refusal) if refusal.code() == RefusalCode::UnknownSession => {
                            return Err(Error::UnknownSession { session });
                        }
                        // It was master just now: ask the next one.
                        Err(_) => tokio::time::sleep(RETRY).await,
                    },
                    None => tokio::time::sleep(RETRY).await,
                }
            }
        };
        self.within(EXPIRY_MAX, "the session's end", expiry).await
    }
}
