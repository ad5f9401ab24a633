//! Who is in: the connections that came by a listener, and whom to send away when there are too many.
//!
//! There are two kinds of places. Those who *arrive* have not begun to speak HTTP/2 yet, and hold one of a few places of
//! their own; when these are taken, whoever has arrived for longest makes room. Those who are *settled* hold the others;
//! when these are taken, whoever has had no request under way for longest makes room, and if everybody has one, the
//! newcomer is turned away. So neither strangers that say nothing nor clients that ask for nothing keep anybody out. A
//! session is a request under way: only who has none is sent away, and a client that finds its connection closed makes
//! another with its next call.
//!
//! Invariant: no more connections are open than there are places of both kinds, but for those that have been sent away
//! and have not closed yet; and while there are as many as that, nobody comes in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use holdfast_types::SocketId;
use tokio::sync::Notify;

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// For those who arrive.
    pub(crate) arriving: usize,
    /// For those who are settled.
    pub(crate) settled: usize,
}

/// All who came by one listener.
#[derive(Debug)]
pub(crate) struct Guests {
    places: Places,
    book: Mutex<Book>,
    /// Told when one has left.
    left: Notify,
}

#[derive(Debug, Default)]
struct Book {
    /// The last number given out: to guests, and to each turn at being idle.
    last: u64,
    guests: BTreeMap<u64, Guest>,
    /// The numbers of those who arrive: the first has for longest.
    arriving: BTreeMap<u64, ()>,
    /// Those without a request under way, by when that began.
    idle: BTreeMap<u64, u64>,
    settled: usize,
}

#[derive(Debug)]
struct Guest {
    from: SocketAddr,
    stage: Stage,
    bell: Arc<Bell>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Arriving,
    /// Since this turn.
    Idle(u64),
    /// With so many requests under way.
    Busy(usize),
    SentAway,
}

/// Tells a connection that it must end.
#[derive(Debug, Default)]
struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl Book {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn send_away(&mut self, number: u64) -> Option<SocketAddr> {
        let guest = self.guests.get_mut(&number)?;
        match guest.stage {
            Stage::Arriving => drop(self.arriving.remove(&number)),
            Stage::Idle(turn) => {
                self.idle.remove(&turn);
                self.settled -= 1;
            }
            Stage::Busy(_) => self.settled -= 1,
            Stage::SentAway => return None,
        }
        guest.stage = Stage::SentAway;
        guest.bell.rung.store(true, Ordering::Release);
        guest.bell.waker.wake();
        Some(guest.from)
    }
}

impl Guests {
    /// Nobody yet.
    pub(crate) fn new(places: Places) -> Arc<Self> {
        Arc::new(Self { places, book: Mutex::default(), left: Notify::new() })
    }

    /// How many places there are.
    pub(crate) fn places(&self) -> Places {
        self.places
    }

    /// Waits until a connection more may be open. Dropping the future loses nothing.
    pub(crate) async fn room(&self) {
        loop {
            let left = self.left.notified();
            // Whoever arrives always finds a place, because another one makes room: so this waits only for those who
            // were sent away to be gone.
            if self.book().guests.len() <= self.places.arriving + self.places.settled {
                return;
            }
            left.await;
        }
    }

    /// Lets a connection arrive; tells who had to make room for it, if anybody.
    pub(crate) fn arrive(self: &Arc<Self>, from: SocketAddr) -> (Seat, Option<SocketAddr>) {
        let mut book = self.book();
        let oldest = book.arriving.first_key_value().map(|(number, ())| *number);
        let full = book.arriving.len() >= self.places.arriving;
        let sent_away = oldest.filter(|_| full).and_then(|oldest| book.send_away(oldest));
        let (number, bell) = (book.next(), Arc::<Bell>::default());
        book.arriving.insert(number, ());
        book.guests.insert(number, Guest { from, stage: Stage::Arriving, bell: Arc::clone(&bell) });
        drop(book);
        (Seat { visit: Visit { guests: Arc::clone(self), number }, bell }, sent_away)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing under the lock panics half-way, so a poisoned book is a sound one.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place, for as long as the connection is open.
#[derive(Debug)]
pub(crate) struct Seat {
    visit: Visit,
    bell: Arc<Bell>,
}

/// All places are taken by connections that have requests under way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Seat {
    /// The connection has begun to speak HTTP/2; tells who had to make room for it, if anybody.
    pub(crate) fn settle(&self) -> Result<Option<SocketAddr>, Full> {
        let Visit { guests, number } = &self.visit;
        let mut book = guests.book();
        if book.arriving.remove(number).is_none() {
            return Ok(None);
        }
        let longest = book.idle.first_key_value().map(|(_, guest)| *guest);
        let full = book.settled >= guests.places.settled;
        let turn = book.next();
        book.settled += 1;
        book.idle.insert(turn, *number);
        if let Some(guest) = book.guests.get_mut(number) {
            guest.stage = Stage::Idle(turn);
        }
        match longest.filter(|_| full) {
            Some(longest) => Ok(book.send_away(longest)),
            None if full => {
                book.send_away(*number);
                Err(Full)
            }
            None => Ok(None),
        }
    }

    /// What requests that come by the connection are known by.
    pub(crate) fn visit(&self) -> Visit {
        self.visit.clone()
    }

    /// Whether the connection must end; wakes the task that asked last when it must.
    pub(crate) fn poll_sent_away(&self, context: &Context<'_>) -> Poll<()> {
        self.bell.waker.register(context.waker());
        if self.bell.rung.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Visit { guests, number } = &self.visit;
        let mut book = guests.book();
        book.send_away(*number);
        book.guests.remove(number);
        drop(book);
        guests.left.notify_one();
    }
}

/// Names a connection to those who serve what comes by it.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    guests: Arc<Guests>,
    number: u64,
}

impl Visit {
    /// A request is under way by this connection, for as long as what this gives lives.
    pub(crate) fn begin(&self) -> UnderWay {
        self.change(|requests| requests + 1);
        UnderWay(self.clone())
    }

    /// Names the connection to the core.
    pub(crate) fn socket(&self) -> SocketId {
        SocketId(self.number)
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut book = self.guests.book();
        let turn = book.next();
        let Some(guest) = book.guests.get_mut(&self.number) else { return };
        let (before, idle_since) = match guest.stage {
            Stage::Idle(turn) => (0, Some(turn)),
            Stage::Busy(requests) => (requests, None),
            // It is over for this connection.
            Stage::Arriving | Stage::SentAway => return,
        };
        let after = change(before);
        guest.stage = if after == 0 { Stage::Idle(turn) } else { Stage::Busy(after) };
        if let Some(turn) = idle_since {
            book.idle.remove(&turn);
        }
        if after == 0 {
            book.idle.insert(turn, self.number);
        }
    }
}

/// A request that is under way.
#[derive(Debug)]
#[must_use]
pub(crate) struct UnderWay(Visit);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.change(|requests| requests.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn guests() -> Arc<Guests> {
        Guests::new(Places { arriving: 2, settled: 2 })
    }

    fn from(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn is_sent_away(seat: &Seat) -> bool {
        seat.poll_sent_away(&Context::from_waker(Waker::noop())).is_ready()
    }

    fn settled(guests: &Arc<Guests>, port: u16) -> Seat {
        let (seat, _) = guests.arrive(from(port));
        seat.settle().expect("there is room, or somebody makes it");
        seat
    }

    #[test]
    fn who_has_arrived_for_longest_makes_room_for_who_arrives() {
        let guests = guests();
        let (first, none) = guests.arrive(from(1));
        let (second, _) = guests.arrive(from(2));
        assert_eq!(none, None);
        let (third, gone) = guests.arrive(from(3));
        assert_eq!(gone, Some(from(1)));
        assert!(is_sent_away(&first) && !is_sent_away(&second) && !is_sent_away(&third));
        assert_eq!(first.settle(), Ok(None), "too late");
        assert_eq!(second.settle(), Ok(None));
        assert!(!is_sent_away(&second));
    }

    #[test]
    fn who_has_asked_for_nothing_for_longest_makes_room_for_who_settles() {
        let guests = guests();
        let (first, second) = (settled(&guests, 1), settled(&guests, 2));
        drop(first.visit().begin());
        let (third, _) = guests.arrive(from(3));
        assert_eq!(third.settle(), Ok(Some(from(2))), "the first has asked for something since");
        assert!(is_sent_away(&second) && !is_sent_away(&first));
    }

    #[test]
    fn nobody_with_a_request_under_way_is_sent_away() {
        let guests = guests();
        let (first, second) = (settled(&guests, 1), settled(&guests, 2));
        let session = first.visit().begin();
        let (_one, _more) = (second.visit().begin(), second.visit().begin());
        let (third, _) = guests.arrive(from(3));
        assert_eq!(third.settle(), Err(Full));
        assert!(is_sent_away(&third) && !is_sent_away(&first) && !is_sent_away(&second));
        drop(third);
        drop(session);
        let (fourth, _) = guests.arrive(from(4));
        assert_eq!(fourth.settle(), Ok(Some(from(1))));
    }

    #[test]
    fn a_request_that_outlives_its_connection_counts_for_nobody() {
        let guests = guests();
        let seat = settled(&guests, 1);
        let late = seat.visit().begin();
        drop(seat);
        drop(late);
        assert!(guests.book().guests.is_empty() && guests.book().idle.is_empty());
        assert_eq!(guests.book().settled, 0);
    }

    #[tokio::test]
    async fn nobody_comes_in_before_those_who_were_sent_away_have_closed() {
        let guests = guests();
        let _settled = [settled(&guests, 1), settled(&guests, 2)];
        let mut arriving: Vec<Seat> = (3..6).map(|port| guests.arrive(from(port)).0).collect();
        let mut room = std::pin::pin!(guests.room());
        assert!(futures::poll!(room.as_mut()).is_pending(), "five are open");
        arriving.remove(0);
        room.await;
    }
}
