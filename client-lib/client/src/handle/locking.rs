//! Taking a node's lock, and the sequencers that prove it.

use super::{Handle, Inner, mismatch};
use crate::error::Error;
use crate::lock::Lock;
#[cfg(doc)]
use crate::options::OpenOptions;
use crate::values;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, RefusalCode, outcome};
use holdfast_types::{Mode, Sequencer};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Handle {
    /// Takes the node's lock, and waits for it as long as it takes: first come, first served.
    ///
    /// Dropping the future withdraws from the queue, however far the request got, also if the lock was granted
    /// and the reply was lost. So `tokio::time::timeout` around it is all that a limit of the wait needs. The time-out of
    /// the session or handle ([`Handle::with_timeout`]) is for the cell's answer, not for the wait in the queue.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`ALREADY_LOCKED` if this handle holds the lock or waits for it, `NODE_GONE`, `WRONG_USE`,
    /// `SEQUENCER_INVALID`), [`Error::Poisoned`] or [`Error::SessionEnded`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(leader: holdfast::Handle) -> Result<(), Box<dyn std::error::Error>> {
    /// use holdfast::Mode;
    ///
    /// let lock = leader.acquire(Mode::Exclusive).await?;
    /// println!("primary, with {}", lock.sequencer());
    /// // Stops when the lock is lost, or may be; what is on its way then is refused by its sequencer.
    /// lock.run(async { /* serve, and pass the sequencer on with every order */ }).await?;
    /// lock.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn acquire(&self, mode: Mode) -> Result<Lock, Error> {
        self.lock(mode, false).await
    }

    /// Takes the node's lock if it can be had at once: `None` if somebody holds it in a conflicting mode, waits
    /// for it, or a lock-delay runs. Dropping the future releases what was granted.
    ///
    /// # Errors
    ///
    /// As for [`Handle::acquire`].
    pub async fn try_acquire(&self, mode: Mode) -> Result<Option<Lock>, Error> {
        match self.lock(mode, true).await {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.refusal() == Some(RefusalCode::LockConflict) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn lock(&self, mode: Mode, try_only: bool) -> Result<Lock, Error> {
        self.inner.check_poison()?;
        let Inner { shared, id, .. } = &*self.inner;
        let acquire = wire::Acquire { handle: id.0, mode: values::mode_to_wire(mode).into(), try_only };
        let acquired = shared.call(Operation::Acquire(acquire), self.within).await;
        let completion = acquired.map_err(|error| self.in_own_words(error))?;
        match completion.result {
            outcome::Result::Granted(granted) => {
                Ok(Lock::new(Arc::clone(&self.inner), self.within, completion.number, mode, &granted))
            }
            _ => Err(mismatch()),
        }
    }

    /// The cell speaks of requests, and a program has guards and futures.
    fn in_own_words(&self, error: Error) -> Error {
        match error {
            Error::Refused { code: RefusalCode::AlreadyLocked, facts, .. } => {
                let message = format!(
                    "this handle of {} holds the lock, or waits for it, already: drop its guard (`Lock::release` waits until \
                     the lock is given back) or the future that waits, or open another handle",
                    self.path()
                );
                Error::Refused { code: RefusalCode::AlreadyLocked, message, facts }
            }
            other => other,
        }
    }

    /// The sequencer of the lock that this handle holds, from the master. [`Lock::sequencer`] has it without asking.
    /// Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_LOCKED` if the handle holds no lock, `NODE_GONE`, `SEQUENCER_INVALID`),
    /// [`Error::Poisoned`] or [`Error::SessionEnded`].
    pub async fn sequencer(&self) -> Result<Sequencer, Error> {
        let get = wire::GetSequencer { handle: self.inner.id.0 };
        match self.call(Operation::GetSequencer(get)).await? {
            outcome::Result::Sequencer(text) => {
                text.sequencer.parse().map_err(|error| Error::protocol(format!("{error}")))
            }
            _ => Err(mismatch()),
        }
    }

    /// Makes later calls on this handle depend on `sequencer`: from the moment at which the lock that it tells of is
    /// not held as it says, they are refused with `SEQUENCER_INVALID` (P§2.6). That is decided where a call takes
    /// effect, so there is no gap. The lock may be anybody's, and on any node of the cell. Another call replaces the
    /// sequencer. From here on nothing is read from the cache through this handle.
    ///
    /// If the future is dropped, the calls may or may not depend on it.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`SEQUENCER_INVALID` if it is not valid now, `BAD_SEQUENCER`, `FOREIGN_CELL`), or
    /// [`Error::Poisoned`] or [`Error::SessionEnded`]. A handle that shares an open node with others of this session,
    /// as those do that cache and are [`OpenOptions::read_only`], is first given one of its own; so the errors of
    /// [`Handle::open`] are possible too.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(session: holdfast::Session, lock: holdfast::Lock) -> Result<(), holdfast::Error> {
    /// use holdfast::OpenOptions;
    ///
    /// let journal = session.open("/service/journal", OpenOptions::new().caching(false)).await?;
    /// journal.set_sequencer(lock.sequencer()).await?;
    /// // Takes effect only while the lock is held.
    /// journal.set_contents("as primary").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_sequencer(&self, sequencer: impl ToString) -> Result<(), Error> {
        // Before it is sent: what is set at the cell is never ignored here.
        self.inner.bypasses_cache.store(true, Ordering::Release);
        self.put_sequencer(sequencer.to_string()).await
    }

    /// Makes later calls depend on no sequencer any more. If the future is dropped, they may or may not.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`UNKNOWN_HANDLE`), [`Error::Poisoned`] or [`Error::SessionEnded`].
    pub async fn clear_sequencer(&self) -> Result<(), Error> {
        self.put_sequencer(String::new()).await
    }

    async fn put_sequencer(&self, sequencer: String) -> Result<(), Error> {
        let set = wire::SetSequencer { handle: self.inner.id.0, sequencer };
        match self.call(Operation::SetSequencer(set)).await? {
            outcome::Result::SequencerSet(_) => Ok(()),
            _ => Err(mismatch()),
        }
    }
}
