//! Where to connect next, and how soon.
//!
//! Owns the addresses and the back-off. The invariant: between two leases that were granted, at most one lap
//! around the replicas is made without a pause, and pauses only grow.

use crate::chance::Chance;
use holdfast_types::Duration;

/// The pause after the first lap; it doubles with each further lap.
const PAUSE_MIN_MS: u64 = 4;
/// No pause is longer. A replica that knows no master keeps a hello until it does, so little is lost by it.
const PAUSE_MAX_MS: u64 = 500;
/// So often a replica's word on who is master is followed at once. Two replicas may name each other for a while.
const REDIRECTS_AT_ONCE: u32 = 2;

#[derive(Debug)]
pub(crate) struct Route {
    /// As the application gave them, then what the cell added. No repetitions.
    addresses: Vec<String>,
    /// How many of them are the application's own.
    configured: usize,
    /// The place in `addresses` that is next. May be beyond the end.
    position: usize,
    /// Whom a replica named as master: goes before the list.
    named: Option<String>,
    /// Failures and redirections since a lease was last granted.
    failures: u32,
    redirects: u32,
    chance: Chance,
}

impl Route {
    /// `learned` and `master`: what the cell has said before.
    pub(crate) fn new(addresses: Vec<String>, learned: &[String], master: Option<String>, seed: u64) -> Self {
        let configured = addresses.len();
        let mut chance = Chance::new(seed);
        // Clients that start together must not all begin at the same replica.
        let position = usize::try_from(chance.below(configured as u64)).unwrap_or(0);
        let mut route =
            Self { addresses, configured, position, named: master, failures: 0, redirects: 0, chance };
        route.learn(learned);
        route
    }

    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Where to connect now.
    pub(crate) fn next_address(&mut self) -> Option<String> {
        let address = match self.named.take() {
            Some(named) => named,
            None => self.addresses.get(self.position.checked_rem(self.addresses.len())?)?.clone(),
        };
        if let Some(place) = self.addresses.iter().position(|known| *known == address) {
            self.position = place + 1;
        }
        Some(address)
    }

    /// An attempt came to nothing, or a stream ended. Tells how long to wait before the next attempt.
    pub(crate) fn failed(&mut self, master: Option<String>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.named = master;
        if self.named.is_some() {
            self.redirects = self.redirects.saturating_add(1);
            if self.redirects <= REDIRECTS_AT_ONCE {
                return Duration::ZERO;
            }
        }
        let lap_len = u32::try_from(self.addresses.len().max(1)).unwrap_or(u32::MAX);
        let Some(beyond) = self.failures.checked_sub(lap_len) else { return Duration::ZERO };
        let doublings = (beyond / lap_len).min(16);
        let most = (PAUSE_MIN_MS << doublings).min(PAUSE_MAX_MS) * 1_000_000;
        Duration::from_nanos(most / 2 + self.chance.below(most / 2))
    }

    /// The pause before a session comes back whose stream broke: so that a crowd does not come back in one instant.
    pub(crate) fn spread(&mut self, most: Duration) -> Duration {
        if most.is_zero() {
            return most;
        }
        Duration::from_nanos(self.chance.below(u64::try_from(most.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// A lease was granted: this is the right place.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.redirects = 0;
    }

    /// Takes over what the cell says of its replicas, beside what the application said.
    pub(crate) fn learn(&mut self, addresses: &[String]) {
        self.addresses.truncate(self.configured);
        for address in addresses.iter().filter(|address| !address.is_empty()) {
            if !self.addresses.contains(address) {
                self.addresses.push(address.clone());
            }
        }
    }
}
