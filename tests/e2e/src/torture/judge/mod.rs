//! Judges a run by what its clients wrote down: the simulator's checkers, and what only a rig can know.
//!
//! Decides nothing about how a run goes on. Invariant: whatever a client was told is held against the cell; what it was
//! not told may or may not have happened.

mod files;
mod locks;
mod sessions;

use std::time::Duration;

use holdfast_sim::Violation;

use super::history::History;
use super::resource::Arrival;
use super::troubles::Troubles;

/// All that is known of a run.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What the clients wrote down, and what the rig itself read at the end, when all was quiet.
    pub histories: Vec<History>,
    /// What arrived at the resource.
    pub arrivals: Vec<Arrival>,
    /// What was done to the cell and the clients.
    pub troubles: Troubles,
    /// The lease of the clients' sessions.
    pub lease: Duration,
    /// Their grace.
    pub grace: Duration,
}

/// The name of the rig's own history.
pub const RIG: &str = "rig";

/// All that is wrong.
#[must_use]
pub fn judge(evidence: &Evidence) -> Vec<Violation> {
    let checks = [
        locks::exclude_each_other,
        locks::are_delayed_when_lost,
        locks::protect_the_resource,
        locks::have_valid_sequencers,
        files::are_linearizable,
        files::are_counted_once,
        files::are_watched_without_a_gap,
        sessions::are_registered_while_they_live,
        sessions::are_lost_for_a_reason,
    ];
    checks.into_iter().filter_map(|check| check(evidence).err()).collect()
}

/// Whether those clients that are still there have been told of the last change of all that they watch.
///
/// # Errors
///
/// Who has not.
pub fn are_told(there: &[History]) -> Result<(), Violation> {
    files::are_told(there, |_| true)
}

#[cfg(test)]
mod tests {
    use holdfast_sim::Invariant;

    use super::super::history::{Event, Record};
    use super::super::schedule::Kind;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn history(client: &str, events: &[(u64, Event)]) -> History {
        let record = |(at, event): &(u64, Event)| Record { at: *at, event: event.clone() };
        History { client: client.to_owned(), records: events.iter().map(record).collect() }
    }

    fn broken(histories: &[History]) -> Vec<Invariant> {
        let (lease, grace) = (Duration::from_secs(4), Duration::from_secs(12));
        let evidence = Evidence { histories: histories.to_vec(), lease, grace, ..Evidence::default() };
        judge(&evidence).into_iter().map(|violation| violation.invariant).collect()
    }

    fn believes(generation: u64, until: u64) -> Event {
        Event::Believes { path: "/lock".into(), generation, shared: false, until }
    }

    fn lets_go(generation: u64) -> Event {
        Event::LetsGo { path: "/lock".into(), generation }
    }

    fn read(began: u64, contents: &str, generation: u64) -> Event {
        let (path, contents) = ("/ls/a/counter-0".into(), contents.into());
        Event::Read { path, instance: 1, began, contents, generation, cached: true }
    }

    fn writing(call: u64, contents: &str) -> Event {
        let (path, contents) = ("/ls/a/counter-0".into(), contents.into());
        Event::Writing { call, path, instance: 1, contents, if_generation: None }
    }

    #[test]
    fn nothing_is_wrong_with_a_history_in_which_all_is_well() {
        let a = [
            (1, believes(5, 100)),
            (9, lets_go(5)),
            (10, writing(1, "1 a:1")),
            (12, Event::Wrote { call: 1, generation: 6 }),
        ];
        let b = [(10, believes(7, 100)), (13, read(12, "1 a:1", 6)), (20, lets_go(7))];
        assert_eq!(broken(&[history("a", &a), history("b", &b), history(RIG, &[])]), []);
    }

    #[test]
    fn two_holders_at_once_are_found() {
        let a = [(1, believes(5, 100)), (50, lets_go(5))];
        let b = [(40, believes(7, 100)), (60, lets_go(7))];
        assert_eq!(broken(&[history("a", &a), history("b", &b)]), [Invariant::MutualExclusion]);
    }

    #[test]
    fn a_lock_that_was_lost_and_is_taken_too_soon_is_found() {
        let lost = [(1, believes(5, 100))];
        let next = |at| [(at, believes(7, at + SECOND)), (at + 1, lets_go(7))];
        assert_eq!(broken(&[history("a", &lost), history("b", &next(SECOND))]), [Invariant::LockDelay]);
        assert_eq!(broken(&[history("a", &lost), history("b", &next(2 * SECOND))]), []);
        // Its session, and so the lock, was there for longer than it said of the lock.
        let lost = [(1, believes(5, 100)), (50, Event::Alive { until: SECOND })];
        let found = broken(&[history("a", &lost), history("b", &next(2 * SECOND))]);
        assert_eq!(found, [Invariant::LockDelay]);
    }

    #[test]
    fn two_orders_at_one_generation_and_one_that_is_late_are_found() {
        let arrival = |at, holder: &str, generation, done| {
            let (path, holder) = ("/lock".to_owned(), holder.to_owned());
            Arrival { at, path, holder, generation, done }
        };
        let fenced = |arrivals: &[Arrival]| {
            judge(&Evidence { arrivals: arrivals.to_vec(), ..Evidence::default() }).len()
        };
        assert_eq!(
            fenced(&[arrival(1, "a", 5, true), arrival(2, "b", 6, true), arrival(3, "a", 5, false)]),
            0
        );
        assert_eq!(fenced(&[arrival(1, "a", 5, true), arrival(2, "b", 5, true)]), 1);
        assert_eq!(fenced(&[arrival(1, "b", 6, true), arrival(2, "a", 5, true)]), 1);
    }

    #[test]
    fn a_sequencer_that_is_not_valid_while_the_lock_is_held_is_found() {
        let checked = |began, valid| Event::Checked { path: "/lock".into(), generation: 5, began, valid };
        let held = |valid, until| {
            broken(&[history("a", &[(1, believes(5, until)), (20, checked(10, valid)), (40, lets_go(5))])])
        };
        assert_eq!(held(true, 30), []);
        assert_eq!(held(false, 30), [Invariant::Fencing]);
        assert_eq!(held(false, 15), [], "its lease was over before the answer");
    }

    #[test]
    fn a_stale_read_is_found_and_a_write_that_was_refused_and_is_read() {
        let write = [
            (1, writing(1, "1 a:1")),
            (2, Event::Wrote { call: 1, generation: 5 }),
            (3, writing(2, "2 a:2")),
            (4, Event::Wrote { call: 2, generation: 6 }),
        ];
        let stale = [(9, read(8, "1 a:1", 5))];
        assert_eq!(broken(&[history("a", &write), history("b", &stale)]), [Invariant::Linearizability]);
        let refused = [(1, writing(1, "1 a:1")), (2, Event::Refused { call: 1 })];
        let seen = [(9, read(8, "1 a:1", 5))];
        assert_eq!(broken(&[history("a", &refused), history("b", &seen)]), [Invariant::ExactlyOnce]);
    }

    #[test]
    fn counting_twice_or_not_at_all_is_found() {
        let counted = [(1, writing(1, "1 a:1")), (2, Event::Wrote { call: 1, generation: 5 })];
        let ends_at = |contents: &str, generation| {
            broken(&[history("a", &counted), history(RIG, &[(9, read(8, contents, generation))])])
        };
        assert_eq!(ends_at("1 a:1", 5), []);
        assert!(ends_at("2 b:7", 6).contains(&Invariant::ExactlyOnce), "nobody made it two");
        assert!(ends_at("0", 3).contains(&Invariant::ExactlyOnce), "it was lost");
    }

    #[test]
    fn a_watcher_that_is_not_told_is_found_unless_its_session_is_lost() {
        let wrote = [(1, writing(1, "1 a:1")), (2, Event::Wrote { call: 1, generation: 5 })];
        let path = || "/ls/a/counter-0".to_owned();
        let watches = (0, Event::Watches { path: path(), generation: 3 });
        let told = (5, Event::Told { path: path(), generation: 5 });
        let stopped = (9, Event::Stopped);
        let watched = |events: &[(u64, Event)]| broken(&[history("a", &wrote), history("b", events)]);
        assert_eq!(watched(&[watches.clone(), stopped.clone()]), [Invariant::NoLostChange]);
        assert_eq!(watched(&[watches.clone(), told, stopped]), []);
        assert_eq!(watched(&[watches]), [], "it was killed");
    }

    #[test]
    fn a_change_that_only_the_end_shows_is_waited_for_until_all_are_told() {
        let path = || "/ls/a/counter-0".to_owned();
        let rig = || history(RIG, &[(9, read(8, "1 a:1", 5))]);
        let watches = (0, Event::Watches { path: path(), generation: 3 });
        let told = (5, Event::Told { path: path(), generation: 5 });
        let untold = are_told(&[history("b", std::slice::from_ref(&watches)), rig()]);
        assert_eq!(untold.unwrap_err().invariant, Invariant::NoLostChange);
        assert_eq!(are_told(&[history("b", &[watches, told]), rig()]), Ok(()));
    }

    #[test]
    fn somebody_alive_who_is_not_listed_is_found() {
        let alive = [
            (1, Event::Opened { session: 1 }),
            (2, Event::Registered { name: "a-1".into() }),
            (3, Event::Alive { until: 50 }),
        ];
        let lists = |began, at, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            broken(&[history("a", &alive), history("b", &[(at, Event::Listed { began, names })])])
        };
        assert_eq!(lists(10, 20, &["b"]), [Invariant::LeaseSafety]);
        assert_eq!(lists(10, 20, &["a-1", "b"]), []);
        assert_eq!(lists(10, 60, &["b"]), [], "its lease may have been over");
        assert_eq!(lists(1, 20, &["b"]), [], "it may not have been there yet");
    }

    #[test]
    fn a_session_that_is_lost_for_no_reason_is_found() {
        let over = Event::Over { session: 1, reason: "expired".into(), closed: false };
        let histories = vec![history("c1", &[(100 * SECOND, over)])];
        let (lease, grace) = (Duration::from_secs(4), Duration::from_secs(12));
        let mut evidence = Evidence { histories, lease, grace, ..Evidence::default() };
        assert_eq!(judge(&evidence)[0].invariant, Invariant::Progress);
        let place = evidence.troubles.begin(Kind::PauseClient, "c1", 90 * SECOND);
        evidence.troubles.end(place, 99 * SECOND);
        assert_eq!(judge(&evidence), []);
    }
}
