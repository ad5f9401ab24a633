//! The clients of a run: processes, each on a host of its own, that are replaced when they die.
//!
//! Owns what is running, and where it writes down what it sees. Invariant: a client that ends although nobody wanted it
//! to is noticed ([`Crowd::fallen`]).

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::timeout;

use super::cell::until;
use super::client::Orders;
use super::history::{Event, History};
use super::net::{Host, Net};
use super::parts::{CLIENT, Part};

/// A place for a client.
#[derive(Debug)]
struct Seat {
    host: Host,
    /// How many have sat here.
    count: u32,
    orders: Orders,
    part: Option<Part>,
}

/// The clients. Killed when dropped.
#[derive(Debug)]
pub struct Crowd {
    seats: Vec<Seat>,
    dir: PathBuf,
    /// Every history that was ever begun.
    written: Vec<PathBuf>,
}

impl Crowd {
    /// Starts so many clients. `orders` is what all have in common.
    ///
    /// # Errors
    ///
    /// If one cannot be started.
    pub fn start(net: &mut Net, dir: &Path, clients: u8, orders: &Orders) -> anyhow::Result<Self> {
        let mut crowd = Self { seats: Vec::new(), dir: dir.to_owned(), written: Vec::new() };
        for _ in 0..clients {
            let host = net.add_host()?;
            crowd.seats.push(Seat { host, count: 0, orders: orders.clone(), part: None });
            crowd.seat(net, crowd.seats.len() - 1)?;
        }
        Ok(crowd)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// The name of the one that sits there.
    #[must_use]
    pub fn name(&self, seat: usize) -> &str {
        &self.seats[seat].orders.name
    }

    /// Whether one sits there, as far as is known.
    #[must_use]
    pub fn is_taken(&self, seat: usize) -> bool {
        self.seats[seat].part.is_some()
    }

    /// Where it is.
    #[must_use]
    pub fn host(&self, seat: usize) -> Host {
        self.seats[seat].host
    }

    /// Puts a new client where none is.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn seat(&mut self, net: &Net, place: usize) -> anyhow::Result<()> {
        let seat = &mut self.seats[place];
        seat.count += 1;
        seat.orders.name = format!("c{}-{}", place + 1, seat.count);
        seat.orders.seed = seat.orders.seed.wrapping_mul(31).wrapping_add(place as u64 + 1);
        seat.orders.history = self.dir.join(format!("{}.jsonl", seat.orders.name));
        self.written.push(seat.orders.history.clone());
        let log = self.dir.join(format!("{}.log", seat.orders.name));
        seat.part = Some(Part::start(net, seat.host, CLIENT, seat.orders.arguments(), &log)?);
        Ok(())
    }

    /// Sends a signal to a client.
    pub fn signal(&self, place: usize, signal: Signal) {
        if let Some(part) = &self.seats[place].part {
            part.signal(signal);
        }
    }

    /// Kills a client, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub async fn kill(&mut self, place: usize) -> anyhow::Result<()> {
        if let Some(mut part) = self.seats[place].part.take() {
            part.signal(Signal::SIGKILL);
            part.end().await?;
        }
        Ok(())
    }

    /// Clients that have ended although nobody wanted them to. Each is named once.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn fallen(&mut self) -> anyhow::Result<Vec<String>> {
        let mut fallen = Vec::new();
        for seat in &mut self.seats {
            if let Some(part) = &mut seat.part
                && let Some(status) = part.ended()?
            {
                seat.part = None;
                let log = std::fs::read_to_string(self.dir.join(format!("{}.log", seat.orders.name)));
                let words = log.unwrap_or_default().lines().last().unwrap_or_default().to_owned();
                fallen.push(format!("client {} ended, {status}: {words}", seat.orders.name));
            }
        }
        Ok(fallen)
    }

    /// Has all clients bring their calls to an end. Those that have not after `limit` are named.
    ///
    /// # Errors
    ///
    /// Which have not.
    pub async fn quiet(&mut self, limit: Duration) -> anyhow::Result<()> {
        for part in self.seats.iter_mut().filter_map(|seat| seat.part.as_mut()) {
            part.tell("quiet").await;
        }
        for seat in &self.seats {
            let is_quiet = async || {
                let history = History::read(&seat.orders.history).ok()?;
                history.records.iter().any(|record| record.event == Event::Quiet).then_some(())
            };
            until(limit, &format!("the calls of {} end", seat.orders.name), is_quiet).await?;
        }
        Ok(())
    }

    /// Has all clients stop. Those that have not after `limit`, or ended badly, are named.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub async fn stop(&mut self, limit: Duration) -> anyhow::Result<Vec<String>> {
        let mut bad = Vec::new();
        self.seats.iter_mut().filter_map(|seat| seat.part.as_mut()).for_each(Part::close_input);
        for seat in &mut self.seats {
            let Some(mut part) = seat.part.take() else { continue };
            match timeout(limit, part.end()).await {
                Ok(ended) if ended.as_ref().is_ok_and(std::process::ExitStatus::success) => {}
                Ok(ended) => bad.push(format!("client {} ended, {}", seat.orders.name, ended?)),
                Err(_) => bad.push(format!("client {} has not ended after {limit:?}", seat.orders.name)),
            }
        }
        Ok(bad)
    }

    /// What the clients that are there have written down so far.
    ///
    /// # Errors
    ///
    /// If a history cannot be read.
    pub fn histories_of_present(&self) -> anyhow::Result<Vec<History>> {
        let present = self.seats.iter().filter(|seat| seat.part.is_some());
        present.map(|seat| History::read(&seat.orders.history)).collect()
    }

    /// What all clients that ever were have written down.
    ///
    /// # Errors
    ///
    /// If a history cannot be read.
    pub fn histories(&self) -> anyhow::Result<Vec<History>> {
        self.written.iter().map(|path| History::read(path)).collect()
    }
}
