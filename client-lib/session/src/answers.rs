//! Calls that are answered without a message: from the cache, from an open handle, from a kept lock (P§2.7).
//!
//! Decides for each call whether the cell has to be asked, and under which ids. The invariant: nothing is answered
//! here unless the session is believed in at this moment.

use crate::doors::Completion;
use crate::handles::{Closing, LOCAL, Named, OpenHandle, Shape};
use crate::holdings::Holdings;
use crate::kept_locks::GivenBack;
use crate::operation;
use holdfast_proto::client::v1::{
    self as wire, Creation, LockMode, Refusal, RefusalCode, outcome, request::Operation,
};
use holdfast_types::{HandleId, NodePath, RequestNumber, Revision, Time};

/// What becomes of a call.
pub(crate) enum Taken {
    /// It is over.
    Here(Result<Completion, Refusal>),
    /// The cell is to be asked this. `user`: how the application calls the handle, if the cell calls it otherwise.
    Ask { operation: Operation, user: Option<HandleId> },
    /// A user of a shared node must have a handle of its own for this: that is opened first. What comes `then` is a
    /// call of the user's.
    Separate { open: wire::Open, user: HandleId, then: Operation },
}

impl Taken {
    fn ask(operation: Operation) -> Self {
        Self::Ask { operation, user: None }
    }

    fn done(number: u64, handle: HandleId, result: outcome::Result) -> Self {
        Self::Here(Ok(Completion {
            number: RequestNumber(number),
            handle,
            revision: Revision(0),
            result,
            slot: None,
            from_cache: true,
        }))
    }

    fn refused(code: RefusalCode, message: &str) -> Self {
        Self::Here(Err(Refusal { code: code.into(), message: message.to_owned(), ..Default::default() }))
    }

    fn closed_already() -> Self {
        Self::Here(Err(closed_already()))
    }
}

impl Holdings {
    /// Takes up a call. `believed`: the session is valid at this moment, and is not closing.
    pub(crate) fn take(&mut self, now: Time, believed: bool, operation: Operation) -> Taken {
        match operation {
            Operation::Open(open) => self.take_open(*open, believed),
            Operation::Close(close) => self.take_close(HandleId(close.handle), now, believed),
            // The withdrawal of an Open that was answered closes what it opened, for the one who withdraws it.
            Operation::Cancel(cancel) if cancel.handle == 0 && self.is_open(HandleId(cancel.number)) => {
                self.take_close(HandleId(cancel.number), now, believed)
            }
            operation => self.take_other(operation, believed),
        }
    }

    fn is_open(&self, user: HandleId) -> bool {
        user.0 & LOCAL != 0 || self.handles.get(user).is_some()
    }

    fn take_open(&mut self, mut open: wire::Open, believed: bool) -> Taken {
        open.caching &= self.config.on;
        if open.directory != 0 {
            match self.handles.named(HandleId(open.directory)) {
                Named::Cell(HandleId(id)) => open.directory = id,
                Named::Closed => return Taken::closed_already(),
            }
        }
        if believed
            && self.config.on
            && let Some(path) = self.proven_path_of(&open)
            && let Some(answer) = self.open_here(&open, &path)
        {
            self.counters.hit();
            return Taken::Here(answer);
        }
        if open.caching {
            self.counters.miss();
        }
        Taken::ask(Operation::Open(Box::new(open)))
    }

    /// The path of what an `Open` names, if it would be found under that path: a directory that was deleted has no
    /// children, even if another of its name has; and through one that depends on a sequencer nothing may be found.
    fn proven_path_of(&self, open: &wire::Open) -> Option<NodePath> {
        if open.directory != 0 {
            let directory = self.handles.get(HandleId(open.directory))?;
            if !directory.caching || !directory.proven || directory.depends {
                return None;
            }
        }
        self.path_of(open)
    }

    fn open_here(&mut self, open: &wire::Open, path: &NodePath) -> Option<Result<Completion, Refusal>> {
        if open.creation() == Creation::Unspecified
            && let Some(refusal) = self.cache.absent(path)
        {
            return Some(Err(refusal));
        }
        let shape = Shape::of(open)?;
        let id = self.handles.reusable(path, shape, open.kind())?;
        let user = HandleId(self.next_local());
        let handle = self.handles.reuse(id, user)?;
        let mut stat = handle.stat.clone();
        if !self.cache.has_stat(id) {
            // What was last heard may be old: only what never changes is told.
            stat = wire::Stat {
                kind: stat.kind,
                ephemeral: stat.ephemeral,
                instance: stat.instance,
                ..wire::Stat::default()
            };
        }
        let opened = wire::Opened { created: false, stat: Some(stat) };
        Some(Ok(Completion {
            number: RequestNumber(user.0),
            handle: user,
            revision: Revision(0),
            result: outcome::Result::Opened(Box::new(opened)),
            slot: handle.slot.clone(),
            from_cache: true,
        }))
    }

    fn take_close(&mut self, user: HandleId, now: Time, believed: bool) -> Taken {
        match self.handles.close(user, now, believed) {
            Closing::Kept => {
                // One more may be one too many.
                self.close_idle(now);
                let number = self.next_local();
                Taken::done(number, user, outcome::Result::Closed(wire::Closed {}))
            }
            Closing::Close(id) => {
                self.forget(id);
                let close = Operation::Close(wire::Close { handle: id.0 });
                Taken::Ask { operation: close, user: (id != user).then_some(user) }
            }
        }
    }

    /// A call on a handle that stays open.
    fn take_other(&mut self, mut operation: Operation, believed: bool) -> Taken {
        let Some(handle) = operation::handle_mut(&mut operation) else { return Taken::ask(operation) };
        let user = HandleId(*handle);
        let Named::Cell(id) = self.handles.named(user) else { return Taken::closed_already() };
        *handle = id.0;
        let here = match &mut operation {
            Operation::Acquire(acquire) => self.acquire(id, user, acquire, believed),
            Operation::Release(_) => self.release(id, user, believed),
            Operation::Cancel(cancel) => self.withdraw(id, user, cancel, believed),
            Operation::GetSequencer(_) if self.kept.is_released(id) => Some(not_locked()),
            Operation::SetSequencer(set) => self.depend(id, user, set),
            Operation::Delete(_) => {
                self.give_up_on_node_of(id);
                None
            }
            _ => None,
        };
        here.unwrap_or(Taken::Ask { operation, user: (id != user).then_some(user) })
    }

    fn acquire(
        &mut self,
        id: HandleId,
        user: HandleId,
        acquire: &wire::Acquire,
        believed: bool,
    ) -> Option<Taken> {
        let depends = self.handles.get(id).is_some_and(|handle| handle.depends);
        let kept = acquire.mode() == LockMode::Exclusive && self.kept.is_released(id);
        if believed && kept && !depends {
            let number = self.next_local();
            if let Some(granted) = self.kept.acquire(id, RequestNumber(number)) {
                self.counters.hit();
                return Some(Taken::done(number, user, outcome::Result::Granted(granted)));
            }
        }
        // To the cell, this handle holds the lock already.
        self.give_up(id);
        if let Some(handle) = self.handles.get_mut(id) {
            handle.claim.acquire_called();
        }
        None
    }

    fn release(&mut self, id: HandleId, user: HandleId, believed: bool) -> Option<Taken> {
        match self.kept.release(id, believed) {
            GivenBack::Kept => {
                self.counters.hit();
                let number = self.next_local();
                Some(Taken::done(number, user, outcome::Result::Released(wire::Released {})))
            }
            GivenBack::NotHeld => Some(not_locked()),
            GivenBack::AskCell => {
                self.release_called(id);
                None
            }
        }
    }

    fn withdraw(
        &mut self,
        id: HandleId,
        user: HandleId,
        cancel: &mut wire::Cancel,
        believed: bool,
    ) -> Option<Taken> {
        let asked = self.kept.asked(id);
        match self.kept.withdraw(id, RequestNumber(cancel.number), believed) {
            GivenBack::Kept | GivenBack::NotHeld => {
                let number = self.next_local();
                Some(Taken::done(number, user, outcome::Result::Cancelled(wire::Cancelled {})))
            }
            GivenBack::AskCell => {
                if cancel.number & LOCAL != 0
                    && let Some(RequestNumber(number)) = asked
                {
                    cancel.number = number;
                }
                self.release_called(id);
                None
            }
        }
    }

    fn release_called(&mut self, id: HandleId) {
        if let Some(handle) = self.handles.get_mut(id) {
            handle.claim.release_called();
        }
    }

    /// From here on the handle depends on a sequencer: what is cached may be true, and its calls must fail all the
    /// same. So it bypasses the cache, for good, and is nobody else's.
    fn depend(&mut self, id: HandleId, user: HandleId, set: &wire::SetSequencer) -> Option<Taken> {
        let handle = self.handles.get_mut(id)?;
        if handle.users.len() > 1 {
            let open = handle.open_again()?;
            let set = wire::SetSequencer { handle: user.0, ..set.clone() };
            return Some(Taken::Separate { open, user, then: Operation::SetSequencer(set) });
        }
        handle.shape = None;
        handle.slot = None;
        handle.depends = true;
        self.cache.drop_node(id);
        None
    }

    /// A node was opened anew for a user of a shared one: if it is the same node, that handle is the user's from here
    /// on, under the name that it has.
    pub(crate) fn separate(&mut self, user: HandleId, own: HandleId) -> Result<(), Refusal> {
        let instance = |handle: &OpenHandle| handle.stat.instance;
        let refusal = match self.handles.named(user) {
            Named::Cell(shared)
                if self.handles.get(shared).map(instance) == self.handles.get(own).map(instance) =>
            {
                if let Some(unused) = self.handles.separate(user, shared, own) {
                    self.close(unused);
                }
                return Ok(());
            }
            Named::Cell(_) => {
                let message = "the node was deleted, and there is another of its name".to_owned();
                Refusal { code: RefusalCode::NodeGone.into(), message, ..Default::default() }
            }
            Named::Closed => closed_already(),
        };
        self.close(own);
        Err(refusal)
    }
}

fn closed_already() -> Refusal {
    let message = "the application has closed this handle".to_owned();
    Refusal { code: RefusalCode::UnknownHandle.into(), message, ..Default::default() }
}

fn not_locked() -> Taken {
    Taken::refused(RefusalCode::NotLocked, "the handle neither holds the lock nor waits for it")
}
