//! What applications do outside the cell: they give orders to a resource that a lock protects, and they die.

use crate::checker::resource::Order;
use crate::streams::Life;
use crate::verdict::Violation;
use crate::workload::OFFICE;
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
}
