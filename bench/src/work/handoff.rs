//! One lock that all clients want: how fast it goes from hand to hand.
//!
//! A handoff is a grant to another client than the one before; it takes from that one's release to this one's
//! grant. A client that has released waits until that is confirmed, and asks again: so with `n` clients up to
//! `n - 1` are in the queue.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use holdfast::{Handle, Mode};

use crate::arguments::Run;
use crate::cell::Target;
use crate::load::{self, Clients, Measured, Meter};

/// What the clients know together of the one lock.
#[derive(Default)]
struct Hand {
    /// Who holds it.
    holder: Option<usize>,
    /// Who released it last, and when.
    released: Option<(usize, Instant)>,
    /// The generation of the last grant.
    generation: u64,
}

impl Hand {
    /// Checks a grant, and gives the moment of the release that it follows, if it is a handoff.
    fn grant(&mut self, client: usize, generation: u64) -> Result<Option<Instant>> {
        if let Some(holder) = self.holder {
            bail!("client {client} was granted the lock while client {holder} held it");
        }
        ensure!(generation > self.generation, "generation {generation} came after {}", self.generation);
        self.holder = Some(client);
        self.generation = generation;
        Ok(self.released.filter(|(last, _)| *last != client).map(|(_, released)| released))
    }

    fn release(&mut self, client: usize, now: Instant) {
        self.holder = None;
        self.released = Some((client, now));
    }
}

/// Measures handoffs between so many clients.
pub(super) async fn measure(target: &mut Target, run: &Run, count: u32) -> Result<Measured> {
    let mut clients = Clients::open(target, count, &Bytes::new(), |_| "/bench-hot".to_owned()).await?;
    let meter = Arc::new(Meter::new(run.seconds)?);
    let hand = Arc::new(Mutex::new(Hand::default()));
    let tasks = std::mem::take(&mut clients.handles).into_iter().enumerate().map(|(client, handle)| {
        let (meter, hand) = (Arc::clone(&meter), Arc::clone(&hand));
        async move {
            while !meter.is_over(Instant::now()) {
                take_and_pass_on(client, &handle, &hand, &meter).await?;
            }
            anyhow::Ok(())
        }
    });
    let measured = load::measure(target, &meter, tasks).await?;
    clients.close().await;
    Ok(measured)
}

async fn take_and_pass_on(client: usize, handle: &Handle, hand: &Mutex<Hand>, meter: &Meter) -> Result<()> {
    let lock = handle.acquire(Mode::Exclusive).await.context("acquire")?;
    let granted = Instant::now();
    {
        let mut hand = hand.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(released) = hand.grant(client, lock.generation())? {
            meter.record(released, granted);
        }
        // Before the release is sent: from then on it may be another's.
        hand.release(client, granted);
    }
    lock.release().await.context("release")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_grant_to_another_client_is_a_handoff() {
        let (mut hand, now) = (Hand::default(), Instant::now());
        assert_eq!(hand.grant(1, 5).unwrap(), None);
        hand.release(1, now);
        assert_eq!(hand.grant(1, 6).unwrap(), None);
        hand.release(1, now);
        assert_eq!(hand.grant(2, 7).unwrap(), Some(now));
    }

    #[test]
    fn two_holders_at_once_and_a_generation_that_does_not_rise_fail_the_run() {
        let mut hand = Hand::default();
        hand.grant(1, 5).unwrap();
        assert!(hand.grant(2, 6).is_err());
        hand.release(1, Instant::now());
        assert!(hand.grant(2, 5).is_err());
    }
}
