//! A small program that elects a primary, and the tests of it: copy both.
//!
//! `cargo test --example election` runs the tests. The program itself takes the addresses of a cell:
//! `cargo run --example election -- 127.0.0.1:7101,127.0.0.1:7102`.

#![forbid(unsafe_code)]

use holdfast::{Cell, LockState, Lost, Mode, OpenOptions, Sequencer, Session};
use tokio::sync::watch;

/// A candidate for the office of primary.
pub struct Candidate {
    name: String,
    /// The sequencer to hand out with every order, for as long as this one is certainly primary.
    office: watch::Sender<Option<Sequencer>>,
}

impl Candidate {
    /// A candidate that has not stood yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), office: watch::Sender::new(None) }
    }

    /// Follows whether this candidate is primary. Whoever acts as primary stops when it is `None`.
    pub fn office(&self) -> watch::Receiver<Option<Sequencer>> {
        self.office.subscribe()
    }

    /// Stands for the office in this session, and serves until it is lost for good. Says why. While the lock is
    /// suspended, somebody else may be primary: this one steps aside, and back if nobody was.
    ///
    /// # Errors
    ///
    /// If the session is over before the office was won, or the cell refuses.
    pub async fn stand(&self, session: &Session) -> Result<Lost, holdfast::Error> {
        let leader = session.open("/leader", OpenOptions::new().create()).await?;
        let lock = leader.acquire(Mode::Exclusive).await?;
        leader.set_contents(self.name.clone()).await?;
        let mut watch = lock.watch();
        let mut state = watch.state();
        loop {
            let is_held = state == LockState::Held;
            self.office.send_replace(is_held.then(|| lock.sequencer().clone()));
            if let LockState::Lost(lost) = state {
                return Ok(lost);
            }
            state = watch.changed().await;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cell = Cell::connect([std::env::args().nth(1).ok_or("give the addresses of a cell")?])?;
    let session = cell.session().open().await?;
    let candidate = Candidate::new("me");
    let mut office = candidate.office();
    tokio::spawn(async move {
        while office.changed().await.is_ok() {
            println!("primary: {:?}", office.borrow().as_ref().map(ToString::to_string));
        }
    });
    println!("lost: {:?}", candidate.stand(&session).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast::{Ended, Fence, SessionState};
    use holdfast_testkit::TestCell;
    use tokio::task::JoinHandle;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A candidate that stands.
    struct Standing {
        session: Session,
        office: watch::Receiver<Option<Sequencer>>,
        done: JoinHandle<Result<Lost, holdfast::Error>>,
    }

    impl Standing {
        async fn of(cell: Cell, name: &str) -> Self {
            let session = cell.session().open().await.unwrap();
            let candidate = Candidate::new(name);
            let (office, stands) = (candidate.office(), session.clone());
            let done = tokio::spawn(async move { candidate.stand(&stands).await });
            Self { session, office, done }
        }

        /// Waits until this one is primary.
        async fn won(&mut self) -> Sequencer {
            let office = self.office.wait_for(Option::is_some);
            let office = tokio::time::timeout(LIMIT, office).await.expect("it wins in time");
            office.unwrap().clone().unwrap()
        }

        fn is_primary(&self) -> bool {
            self.office.borrow().is_some()
        }
    }

    #[tokio::test]
    async fn a_fail_over_of_the_cell_changes_no_primary() {
        let cell = TestCell::start().await.unwrap();
        let mut ada = Standing::of(cell.client(), "ada").await;
        ada.won().await;
        let bob = Standing::of(cell.client(), "bob").await;

        let dead = cell.kill_master().await.unwrap();
        let paused = cell.wait_for_new_master(dead).await.unwrap();
        cell.restart(dead).await.unwrap();
        cell.pause(paused).await.unwrap();
        cell.wait_for_new_master(paused).await.unwrap();
        cell.resume(paused).unwrap();
        assert_eq!(cell.client().contents("/leader").await.unwrap().bytes, "ada");
        assert!(ada.is_primary() && !bob.is_primary());
    }

    #[tokio::test]
    async fn a_primary_that_is_cut_off_is_succeeded_and_its_orders_are_refused() {
        // Short, because it is waited for until it runs out.
        let cell = TestCell::builder().lease(Duration::from_secs(2)).start().await.unwrap();
        let mut ada = Standing::of(cell.client_named("ada").unwrap(), "ada").await;
        let old = ada.won().await;
        let mut bob = Standing::of(cell.client_named("bob").unwrap(), "bob").await;

        let cut = cell.partition_client("ada").unwrap();
        let new = bob.won().await;
        // Long before its session is over, which it does not even hear of.
        assert!(!ada.is_primary() && !ada.done.is_finished());
        assert_ne!(ada.session.state(), SessionState::Safe);
        // What receives orders keeps a fence: whoever comes late with an old one is refused.
        let mut fence = Fence::new();
        let admitted = fence.admit(&new).unwrap();
        fence.stored(admitted);
        assert!(fence.admit(&old).is_err());
        cut.heal();
        assert!(matches!(ada.done.await.unwrap().unwrap(), Lost::Session(Ended::Expired)));
    }

    #[tokio::test]
    async fn a_primary_that_is_not_sure_of_its_office_steps_aside_and_back() {
        // After a change of master the cell keeps every lease for so long, by which it is in jeopardy here, and alive there.
        let floor = Duration::from_secs(60);
        let setup = TestCell::builder().lease(Duration::from_secs(1)).grace(floor).lease_floor(floor);
        let cell = setup.start().await.unwrap();
        let mut ada = Standing::of(cell.client_named("ada").unwrap(), "ada").await;
        let office = ada.won().await;
        let cut = cell.partition_client("ada").unwrap();
        let dead = cell.kill_master().await.unwrap();
        cell.wait_for_new_master(dead).await.unwrap();
        let aside = ada.office.wait_for(Option::is_none);
        tokio::time::timeout(LIMIT, aside).await.expect("it steps aside").unwrap();
        cut.heal();
        assert_eq!(ada.won().await, office, "it had not lost it");
    }

    #[tokio::test]
    async fn a_primary_whose_session_expires_steps_down_and_another_one_takes_over() {
        let cell = TestCell::start().await.unwrap();
        let mut ada = Standing::of(cell.client(), "ada").await;
        ada.won().await;
        let mut bob = Standing::of(cell.client(), "bob").await;
        cell.expire_session(ada.session.id()).await.unwrap();
        bob.won().await;
        assert!(matches!(ada.done.await.unwrap().unwrap(), Lost::Session(Ended::Expired)));
        assert_eq!(*ada.office.borrow(), None);
    }
}
