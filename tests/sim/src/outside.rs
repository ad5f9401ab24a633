//! What applications do outside the cell: they give orders to a resource that a lock protects, and they remember how far
//! they have counted.

use holdfast_proto::client::v1::request::Operation;

use crate::application::Call;
use crate::checker::onlooker;
use crate::checker::resource::Order;
use crate::streams::Life;
use crate::verdict::Violation;
use crate::workload::{COUNTER, OFFICE, number_in};
use crate::world::World;

impl World {
    /// An order arrives at the resource, from whoever it was that gave it at a generation.
    pub(crate) fn order_arrives(&mut self, from: Life, generation: u64) -> Result<(), Violation> {
        let holder = format!("client {} life {}", from.index + 1, from.life);
        let believed = self.client_life(from.index) == from && {
            let guard = self.clients[from.index].guard();
            guard.is_some_and(|guard| {
                guard.path == OFFICE && guard.generation == generation && guard.until > self.now
            })
        };
        let acted = self.resource.take(&Order { holder, generation, believed })?;
        self.stats.orders += 1;
        self.stats.orders_refused += u64::from(!acted);
        self.trace.say(self.now, || {
            format!("client {}'s order at generation {generation} arrives; acted on: {acted}", from.index + 1)
        });
        Ok(())
    }

    /// A call is told Ok: it may have been an increment.
    pub(crate) fn note_counted(&mut self, client: usize, call: &Call) -> Result<(), Violation> {
        let Some(number) = increment(call) else { return Ok(()) };
        self.checkers.counters.counted(COUNTER, &format!("client {}", client + 1), number)
    }

    /// Nobody will be told what came of a call.
    pub(crate) fn note_uncounted(&mut self, call: &Call) {
        if increment(call).is_some() {
            self.checkers.counters.unknown(COUNTER);
        }
    }

    /// At the end the counter has what was counted (I6).
    pub(crate) fn check_counter(&self) -> Result<(), Violation> {
        let Ok(read) = self.canon.state().read_contents(&onlooker(), COUNTER) else { return Ok(()) };
        self.checkers.counters.check(COUNTER, number_in(&read.contents))
    }
}

/// The number that a call makes of the counter, if it counts.
fn increment(call: &Call) -> Option<u64> {
    match &call.operation {
        Operation::SetContents(write) if call.path() == Some(COUNTER) => Some(number_in(&write.contents)),
        _ => None,
    }
}
