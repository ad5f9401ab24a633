//! Locks that are kept although the application has released them, until somebody else asks for them (P§2.7).
//!
//! Owns, for each handle that opted in, what it was granted at the cell and whether the application has it now. Each
//! use of a kept lock has a number of its own, so that the late withdrawal of one use never ends another. The
//! invariant: while a lock is here, the handle holds it at the cell, and nobody was refused it for longer than the
//! application uses it.

use crate::handles::LOCAL;
use holdfast_proto::client::v1::{Granted, LockGrant, LockMode};
use holdfast_types::{HandleId, RequestNumber};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct KeptLocks {
    /// The handles that opted in, and the exclusive lock that each holds.
    handles: BTreeMap<HandleId, Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    /// The Acquire that the cell granted it to.
    asked: RequestNumber,
    granted: Granted,
    /// Under which number the application has it now; `None` if it has released it.
    used: Option<RequestNumber>,
    /// Somebody else has asked for it: it is not kept beyond the present use.
    wanted: bool,
}

/// What becomes of a call that gives a lock back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GivenBack {
    /// The lock is kept, and the call is over.
    Kept,
    /// The application does not hold it, so that there is nothing to give back.
    NotHeld,
    /// The cell is to be asked.
    AskCell,
}

impl KeptLocks {
    pub(crate) fn opt_in(&mut self, id: HandleId) {
        self.handles.entry(id).or_insert(None);
    }

    pub(crate) fn closed(&mut self, id: HandleId) {
        self.handles.remove(&id);
    }

    /// The cell granted a lock, and the application takes it.
    pub(crate) fn granted(&mut self, id: HandleId, asked: RequestNumber, granted: &Granted) {
        if let Some(kept) = self.handles.get_mut(&id)
            && granted.mode() == LockMode::Exclusive
        {
            *kept = Some(Kept { asked, granted: *granted, used: Some(asked), wanted: false });
        }
    }

    /// The application wants the lock: what it was granted, if it is here and free. `number` is that of the new use.
    pub(crate) fn acquire(&mut self, id: HandleId, number: RequestNumber) -> Option<Granted> {
        let kept = self.handles.get_mut(&id)?.as_mut().filter(|kept| kept.used.is_none())?;
        kept.used = Some(number);
        Some(kept.granted)
    }

    /// The application gives back what it has.
    pub(crate) fn release(&mut self, id: HandleId, may_keep: bool) -> GivenBack {
        let Some(slot) = self.handles.get_mut(&id) else { return GivenBack::AskCell };
        let Some(kept) = slot else { return GivenBack::AskCell };
        if kept.used.is_none() {
            return GivenBack::NotHeld;
        }
        if may_keep && !kept.wanted {
            kept.used = None;
            return GivenBack::Kept;
        }
        *slot = None;
        GivenBack::AskCell
    }

    /// The application withdraws one use of the lock, whatever became of it.
    pub(crate) fn withdraw(&mut self, id: HandleId, number: RequestNumber, may_keep: bool) -> GivenBack {
        let kept = self.handles.get(&id).and_then(Option::as_ref);
        match kept {
            Some(kept) if kept.used == Some(number) => self.release(id, may_keep),
            // An earlier use. At the cell its number would mean the lock itself.
            Some(kept) if kept.asked == number => GivenBack::NotHeld,
            _ if number.0 & LOCAL != 0 => GivenBack::NotHeld,
            _ => GivenBack::AskCell,
        }
    }

    /// The number to withdraw at the cell so that a released lock is given up; it is not kept any more then. `None` if
    /// the application has it, or there is none.
    pub(crate) fn give_up(&mut self, id: HandleId) -> Option<RequestNumber> {
        let slot = self.handles.get_mut(&id)?;
        slot.take_if(|kept| kept.used.is_none()).map(|kept| kept.asked)
    }

    /// The number under which the cell has to withdraw the present use, if that is another than the application's.
    pub(crate) fn asked(&self, id: HandleId) -> Option<RequestNumber> {
        self.handles.get(&id)?.as_ref().map(|kept| kept.asked)
    }

    /// Somebody else asks for the lock while the application has it.
    pub(crate) fn want(&mut self, id: HandleId) {
        if let Some(Some(kept)) = self.handles.get_mut(&id) {
            kept.wanted = true;
        }
    }

    /// Whether the handle holds the lock, and the application does not.
    pub(crate) fn is_released(&self, id: HandleId) -> bool {
        matches!(self.handles.get(&id), Some(Some(Kept { used: None, .. })))
    }

    /// The handles that hold their lock while the application does not.
    pub(crate) fn released(&self) -> impl Iterator<Item = HandleId> {
        self.handles.keys().copied().filter(|id| self.is_released(*id))
    }

    /// These are all the locks that the session holds. A released one that is not among them is here no more.
    pub(crate) fn attached(&mut self, locks: &[LockGrant]) {
        for (id, slot) in &mut self.handles {
            slot.take_if(|kept| kept.used.is_none() && locks.iter().all(|lock| lock.handle != id.0));
        }
    }
}
