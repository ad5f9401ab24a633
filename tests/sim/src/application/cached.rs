//! What applications read from their caches, at a call or as another thread of theirs would, whatever the library is busy
//! with (`peek`). All of it is checked.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, outcome};
use holdfast_session::Slot;
use holdfast_types::{HandleId, Time};

use super::handle_of;
use super::told::op_of;
use crate::checker::answers::{self, Read};
use crate::event::Event;
use crate::streams::Life;
use crate::verdict::Violation;
use crate::world::World;

/// How long an application's other thread waits at the most before it looks into its cache again.
const PEEK_NANOS_MAX: u64 = 150_000_000;

impl World {
    /// What the slot of a handle has for a read, checked: the value first, then the clock.
    pub(super) fn read_slot(
        &mut self,
        index: usize,
        operation: &Operation,
    ) -> Result<Option<outcome::Result>, Violation> {
        let client = &self.clients[index];
        let Some(id) = handle_of(operation).map(HandleId) else { return Ok(None) };
        let Some(handle) = client.handles.get(&id) else { return Ok(None) };
        let Some(slot) = &handle.slot else { return Ok(None) };
        let answer = answer_of(slot, operation, || client.clock.local(self.now));
        let Some(answer) = answer else { return Ok(None) };
        let handle = handle.clone();
        let floor = self.checkers.reads.floor();
        let began = self.checkers.histories.tick();
        let (path, instance) = (handle.path.as_str(), handle.instance);
        let read = Read { path, instance, operation, answer: &answer };
        let checked = answers::check_cached(&self.checkers.past, &read, floor);
        if let Some(earliest) = self.by_the_clock(checked)? {
            self.checkers.reads.raise(earliest);
            // By the file's history alone nobody could tell whether a read came from a cache.
            let op = op_of(operation, &answer).filter(|_| !self.plan.clocks_beyond);
            if let Some(op) = op {
                self.checkers.histories.add(path, instance, began, op);
            }
        }
        self.stats.cache_reads += 1;
        self.sight_cache_read(index);
        Ok(Some(answer))
    }

    pub(super) fn plan_peek(&mut self, index: usize) {
        let life = self.client_life(index);
        let nanos = self.clients[index].rng.between(1, PEEK_NANOS_MAX);
        // What was stale after a burst is so in the next one too.
        let at = self.plan.rhythm.stir(self.now.after_nanos(nanos));
        self.queue.push(at, Event::Peek(life));
    }

    /// Another thread of the application looks into the cache, whatever the library's does meanwhile.
    pub(crate) fn peek(&mut self, life: Life) -> Result<(), Violation> {
        let index = life.index;
        if self.client_life(index) != life {
            return Ok(());
        }
        let client = &mut self.clients[index];
        let cached: Vec<HandleId> =
            client.handles.iter().filter(|(_, handle)| handle.slot.is_some()).map(|(id, _)| *id).collect();
        if cached.is_empty() {
            return Ok(());
        }
        if client.paused_until <= self.now {
            let handle = cached[client.rng.index(cached.len())].0;
            for operation in [
                Operation::GetContents(wire::GetContents { handle }),
                Operation::GetStat(wire::GetStat { handle }),
                Operation::ReadDir(wire::ReadDir { handle, ..Default::default() }),
            ] {
                self.read_slot(index, &operation)?;
            }
        }
        self.plan_peek(index);
        Ok(())
    }
}

/// What a slot has for a read.
fn answer_of(slot: &Slot, operation: &Operation, clock: impl FnOnce() -> Time) -> Option<outcome::Result> {
    match operation {
        Operation::GetContents(_) => {
            slot.contents(clock).map(|read| outcome::Result::Contents(Box::new((*read).clone())))
        }
        Operation::GetStat(_) => {
            slot.stat(clock).map(|read| outcome::Result::Stat(Box::new((*read).clone())))
        }
        Operation::ReadDir(page) if page.after.is_empty() && page.limit == 0 => {
            slot.children(clock).map(|read| outcome::Result::Directory(Box::new((*read).clone())))
        }
        _ => None,
    }
}
