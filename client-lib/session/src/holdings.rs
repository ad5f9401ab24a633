//! What a session has on this side: its open handles, what is cached of their nodes, what it was told of those it
//! watches, and the locks it keeps.
//!
//! Learns from what the cell says, in the order in which the cell says it; `answers` is how calls are answered from
//! it. Knows nothing of streams and leases: it is told when it may believe what it has. The invariant (I5): what the
//! cell declared void is gone from every slot before [`Holdings::invalidate`] returns, and everything is gone before
//! an attachment is asked for, which tells the cell as much.

use crate::cache::{Cache, Value, strip};
use crate::counters::CacheCounters;
use crate::doors::CacheConfig;
use crate::handles::{Claim, Handles, OpenHandle, Shape, uses_of};
use crate::kept_locks::KeptLocks;
use crate::operation::Asked;
use crate::slot::{Slot, Validity};
use crate::watch::Watch;
use holdfast_proto::client::v1::{
    self as wire, EventKind, HandleEvent, Invalidation, LockGrant, RefusalCode, Reply, outcome,
    request::Operation,
};
use holdfast_types::{HandleId, NodePath, RequestNumber, Time, planted};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Holdings {
    pub(crate) config: CacheConfig,
    pub(crate) handles: Handles,
    pub(crate) cache: Cache,
    pub(crate) watch: Watch,
    pub(crate) kept: KeptLocks,
    pub(crate) counters: Arc<CacheCounters>,
    pub(crate) validity: Arc<Validity>,
    /// The cell's name, as names of nodes may spell it; empty until it is known.
    pub(crate) cell: String,
    /// The last id or number that only this session knows, less its mark.
    pub(crate) local: u64,
    /// What has to be asked of the cell on the session's own account, in order.
    pub(crate) to_ask: Vec<Operation>,
}

impl Holdings {
    pub(crate) fn new(config: CacheConfig) -> Self {
        Self {
            handles: Handles::default(),
            cache: Cache::new(config.bytes_max),
            watch: Watch::default(),
            kept: KeptLocks::default(),
            counters: Arc::default(),
            validity: Arc::default(),
            cell: String::new(),
            local: 0,
            to_ask: Vec::new(),
            config,
        }
    }

    // ---- How the session fares.

    /// A stream is attached, and serves the cell of this name.
    pub(crate) fn attach(&mut self, cell: &str, locks: &[LockGrant]) {
        cell.clone_into(&mut self.cell);
        self.kept.attached(locks);
    }

    /// Nothing that is cached may be believed any more: values, absences, and that open handles prove anything.
    pub(crate) fn void(&mut self) {
        self.cache.clear();
        self.disprove(None);
    }

    /// Open handles prove nothing any more, of this node or of all: those that nobody uses are closed.
    fn disprove(&mut self, path: Option<&NodePath>) {
        for id in self.handles.disprove(path) {
            self.close(id);
        }
    }

    /// The session is over, or about to be: at the cell everything goes with it.
    pub(crate) fn end(&mut self) {
        self.cache.clear();
        self.handles = Handles::default();
        self.watch = Watch::default();
        self.kept = KeptLocks::default();
        self.to_ask.clear();
    }

    /// Closes the idle handles that were kept for long enough, or are too many.
    pub(crate) fn close_idle(&mut self, now: Time) {
        let (most, time) = (self.config.idle_handles_max, self.config.idle_handle_time);
        while let Some(id) = self.handles.not_to_be_kept(now, most, time) {
            self.close(id);
        }
    }

    /// Closes all idle handles. False if there is none.
    pub(crate) fn close_all_idle(&mut self) -> bool {
        let mut any = false;
        while let Some(id) = self.handles.first_idle() {
            self.close(id);
            any = true;
        }
        any
    }

    /// When the next idle handle has been kept for long enough.
    pub(crate) fn timeout(&self) -> Option<Time> {
        self.handles.idle_since().map(|since| since + self.config.idle_handle_time)
    }

    /// Closes a handle on the session's own account.
    pub(crate) fn close(&mut self, id: HandleId) {
        self.forget(id);
        self.to_ask.push(Operation::Close(wire::Close { handle: id.0 }));
    }

    /// A handle is about to be closed at the cell: what was cached through it goes first.
    pub(crate) fn forget(&mut self, id: HandleId) {
        self.watch.closed(id);
        self.kept.closed(id);
        self.cache.drop_node(id);
        let Some(handle) = self.handles.remove(id) else { return };
        // That names are absent is told to those who have a caching handle on their directory.
        if let Some(path) = handle.path.filter(|_| handle.caching)
            && self.handles.caching_at(&path).next().is_none()
        {
            self.cache.drop_absences_in(&path);
        }
    }

    // ---- What the cell says.

    /// Takes note of what came of a request. Returns where what is read through the handle that was opened is cached.
    pub(crate) fn learn(&mut self, asked: &Asked<'_>, reply: &Reply) -> Option<Arc<Slot>> {
        let Asked { operation, wanted, resent } = *asked;
        let result = reply.outcome.as_ref()?.result.as_ref()?;
        let cacheable = reply.cacheable && self.config.on;
        match (operation, result) {
            // Unwanted, it is being closed already.
            (Operation::Open(open), outcome::Result::Opened(opened)) if wanted => {
                let proven = !resent || planted!(RecordProvesOpen);
                return self.opened(HandleId(reply.number), open, opened, proven);
            }
            (Operation::Open(open), outcome::Result::Refusal(refusal)) if cacheable => {
                self.absent(open, refusal);
            }
            (Operation::GetContents(get), outcome::Result::Contents(contents)) if cacheable => {
                self.fill(HandleId(get.handle), Value::Contents((**contents).clone()));
            }
            (Operation::GetStat(get), outcome::Result::Stat(stat)) if cacheable => {
                self.fill(HandleId(get.handle), Value::Stat((**stat).clone()));
            }
            // A page is no answer to who asks for all.
            (Operation::ReadDir(read), outcome::Result::Directory(directory))
                if cacheable && read.after.is_empty() && !directory.more =>
            {
                self.fill(HandleId(read.handle), Value::Children((**directory).clone()));
            }
            (Operation::Acquire(acquire), result) => {
                let id = HandleId(acquire.handle);
                self.claim_decided(id, false);
                if let outcome::Result::Granted(granted) = result
                    && wanted
                {
                    self.kept.granted(id, RequestNumber(reply.number), granted);
                }
            }
            (Operation::Release(release), result) => {
                self.claim_decided(HandleId(release.handle), gives_back(result));
            }
            (Operation::Cancel(cancel), result) => {
                self.claim_decided(HandleId(cancel.handle), gives_back(result));
            }
            _ => {}
        }
        None
    }

    /// A handle was opened. `proven`: just now; and not at an earlier try, before an attachment that made whatever was
    /// open until then prove nothing.
    fn opened(
        &mut self,
        id: HandleId,
        open: &wire::Open,
        opened: &wire::Opened,
        proven: bool,
    ) -> Option<Arc<Slot>> {
        let mut stat = opened.stat.clone().unwrap_or_default();
        self.watch.opened(id, open, &stat);
        strip(Some(&mut stat));
        // Where the path is not known, an invalidation would not be understood.
        let path = self.path_of(open);
        let caching = open.caching && path.is_some();
        let (reads, ..) = uses_of(open);
        let slot = (caching && reads)
            .then(|| Arc::new(Slot::new(Arc::clone(&self.validity), Arc::clone(&self.counters))));
        // P§2.7: ephemeral nodes are not kept open when the application closes them.
        let shape = Shape::of(open).filter(|_| caching && !stat.ephemeral);
        let handle = OpenHandle {
            path,
            stat,
            shape,
            caching,
            slot: slot.clone(),
            proven,
            depends: false,
            users: [id].into(),
            claim: Claim::default(),
        };
        self.handles.opened(id, handle);
        slot
    }

    /// There is no node of that name, and the cell will say when there is.
    fn absent(&mut self, open: &wire::Open, refusal: &wire::Refusal) {
        let must_exist = open.creation() == wire::Creation::Unspecified;
        if !must_exist || refusal.code() != RefusalCode::NotFound {
            return;
        }
        let Some(path) = self.path_of(open) else { return };
        let parent = path.parent();
        if parent.is_some_and(|parent| self.handles.caching_at(&parent).next().is_some()) {
            self.cache.fill_absence(&path, refusal.clone());
        }
    }

    fn fill(&mut self, id: HandleId, value: Value) {
        let Some(handle) = self.handles.get_mut(id) else { return };
        if let Some(slot) = &handle.slot
            && let Some(stat) = self.cache.fill(id, slot, value)
        {
            handle.stat = stat;
        }
    }

    fn claim_decided(&mut self, id: HandleId, given_back: bool) {
        if let Some(handle) = self.handles.get_mut(id) {
            handle.claim.decided(given_back);
        }
    }

    /// What the cell declares void is void from here on.
    pub(crate) fn invalidate(&mut self, invalidation: &Invalidation) {
        self.counters.invalidation();
        match NodePath::from_canonical(&invalidation.path) {
            Ok(path) => {
                for id in self.handles.caching_at(&path).collect::<Vec<_>>() {
                    self.cache.drop_node(id);
                }
                if !planted!(AbsenceKept) {
                    self.cache.drop_absences_in(&path);
                    self.cache.drop_absence(&path);
                }
                if invalidation.opens {
                    self.disprove(Some(&path));
                }
            }
            Err(_) if invalidation.path.is_empty() && invalidation.opens => self.disprove(None),
            // Whatever it means: with nothing cached, it is obeyed.
            Err(_) => self.void(),
        }
    }

    /// Something happened to a watched node. Returns what the application is to be told.
    pub(crate) fn event(&mut self, mut event: HandleEvent) -> Option<HandleEvent> {
        let id = HandleId(event.handle);
        if event.kinds().any(|kind| kind == EventKind::ConflictingRequest) && !planted!(WantedLockKept) {
            if self.kept.is_released(id) {
                // The application does not hold it: nothing to tell, and nothing to wait for.
                self.give_up(id);
                event.kinds.retain(|kind| *kind != i32::from(EventKind::ConflictingRequest));
            }
            self.kept.want(id);
        }
        self.watch.tell(event)
    }

    /// Gives up a lock that the application has released, if there is one.
    pub(crate) fn give_up(&mut self, id: HandleId) {
        if let Some(RequestNumber(number)) = self.kept.give_up(id) {
            // Not a Release: a withdrawal means that very grant, and is repeated if the cell refuses it for now.
            self.to_ask.push(Operation::Cancel(wire::Cancel { number, handle: id.0 }));
        }
    }

    /// Gives up what is kept of the lock of a node that is to be deleted: a node whose lock is held cannot be, and the
    /// application does not know that it still is.
    pub(crate) fn give_up_on_node_of(&mut self, id: HandleId) {
        let path = |id| self.handles.get(id).and_then(|handle| handle.path.as_ref());
        let of_node = |kept: &HandleId| *kept == id || path(id).is_some_and(|of| path(*kept) == Some(of));
        for kept in self.kept.released().filter(of_node).collect::<Vec<_>>() {
            self.give_up(kept);
        }
    }

    // ---- Names.

    /// The canonical path of what an `Open` names; `None` if it names nothing, or its directory is not known here.
    pub(crate) fn path_of(&self, open: &wire::Open) -> Option<NodePath> {
        if open.directory == 0 {
            let any =
                holdfast_types::NameLimits { name_bytes_max: usize::MAX, path_bytes_max: usize::MAX / 2 };
            return NodePath::parse(&open.path, &self.cell, any).ok();
        }
        let directory = self.handles.get(HandleId(open.directory))?.path.clone()?;
        if open.path.is_empty() {
            return Some(directory);
        }
        NodePath::from_canonical(directory.child(&open.path).as_str()).ok()
    }

    /// The next id or number that only this session knows.
    pub(crate) fn next_local(&mut self) -> u64 {
        self.local += 1;
        self.local | crate::handles::LOCAL
    }
}

/// Whether after this answer to a Release or a withdrawal the handle neither holds its lock nor waits for it.
fn gives_back(result: &outcome::Result) -> bool {
    match result {
        outcome::Result::Released(_) | outcome::Result::Cancelled(_) => true,
        outcome::Result::Refusal(refusal) => refusal.code() == RefusalCode::NotLocked,
        _ => false,
    }
}
