//! Locks: taken in both modes, given up while waiting, held for a while with orders to the resource, let go.

use std::time::Duration;

use holdfast::{Error, Lock, Mode, OpenOptions, SequencerCheck};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{LOCKS, Stage, Work};
use crate::torture::clock;
use crate::torture::history::Event;

/// How long nobody gets a lock that was lost.
pub const LOCK_DELAY: Duration = Duration::from_millis(1500);

impl Work {
    /// Takes a lock over and over.
    pub(super) async fn lock(&self, number: u32) {
        let worked = self.take_and_let_go(&Self::path("lock", number), number + 1 == LOCKS).await;
        self.judge("locking", worked);
    }

    async fn take_and_let_go(&self, path: &str, long: bool) -> Result<(), Error> {
        let handle = self.session.open(path, OpenOptions::new().lock_delay(LOCK_DELAY)).await?;
        while self.is(Stage::Working) {
            self.pause(5..200).await;
            let mode = if self.draw(0..4) == 0 { Mode::Shared } else { Mode::Exclusive };
            let patience = Duration::from_millis(self.draw(200..8000));
            // Whoever gives up leaves the queue.
            let Ok(lock) = timeout(patience, handle.acquire(mode)).await else { continue };
            if long {
                self.hold_for_long(lock?, path).await?;
            } else {
                self.hold(lock?, path).await?;
            }
        }
        handle.close().await;
        Ok(())
    }

    async fn hold(&self, lock: Lock, path: &str) -> Result<(), Error> {
        let generation = lock.generation();
        let exclusive = lock.mode() == Mode::Exclusive;
        for _ in 0..self.draw(1..6) {
            self.note_belief(&lock, path);
            if exclusive {
                self.order(path, generation).await;
            }
            self.pause(1..150).await;
        }
        self.note_belief(&lock, path);
        self.note_end(&lock, path);
        if self.draw(0..4) > 0 {
            lock.release().await?;
        } else {
            drop(lock);
        }
        if exclusive && self.draw(0..6) == 0 {
            // An order that was long on its way: the lock may have passed on, and then it must do no harm.
            self.pause(1..400).await;
            self.order(path, generation).await;
        }
        Ok(())
    }

    /// Through fail-overs and snapshots, and asks again and again whether its sequencer is as good as its belief.
    async fn hold_for_long(&self, lock: Lock, path: &str) -> Result<(), Error> {
        let generation = lock.generation();
        for _ in 0..self.draw(10..80) {
            self.note_belief(&lock, path);
            if lock.mode() == Mode::Exclusive {
                self.order(path, generation).await;
            }
            let began = clock::now();
            let valid = self.session.check_sequencer(lock.sequencer()).await? == SequencerCheck::Valid;
            let path = path.to_owned();
            self.recorder.note(Event::Checked { path, generation, began, valid });
            self.pause(50..500).await;
            if !self.is(Stage::Working) {
                break;
            }
        }
        self.note_belief(&lock, path);
        self.note_end(&lock, path);
        lock.release().await
    }

    /// The client is about to let the lock go; if there is a session that can, and it is not simply lost.
    fn note_end(&self, lock: &Lock, path: &str) {
        if self.is_live() {
            self.recorder.note(Event::LetsGo { path: path.to_owned(), generation: lock.generation() });
        }
    }

    fn note_belief(&self, lock: &Lock, path: &str) {
        let at = clock::now();
        let until = clock::at(lock.valid_until());
        if lock.is_held() {
            let (path, generation, shared) =
                (path.to_owned(), lock.generation(), lock.mode() == Mode::Shared);
            self.recorder.note_at(at.max(clock::now()), Event::Believes { path, generation, shared, until });
        }
    }

    /// Gives the resource an order, without asking the guard first, as a careless holder would.
    async fn order(&self, path: &str, generation: u64) {
        let given = async {
            let mut resource = TcpStream::connect(&self.orders.resource).await?;
            let order = format!("{path} {generation} {}\n", self.orders.name);
            resource.write_all(order.as_bytes()).await
        };
        // What is lost on the way is lost: the resource records what arrives.
        let _ = timeout(Duration::from_secs(1), given).await;
    }
}
