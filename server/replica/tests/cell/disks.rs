//! Disks that are slow, and disks without room.

use holdfast_replica::{CallAnswer, CallRequest};
use holdfast_types::{Duration, ReplicaId};

use crate::table::{Cell, defaults, eager_snapshots};

const SLOW: Duration = Duration::from_secs(3);

/// A cell that has been led for longer than a new master leads at least, and its master.
fn settled_cell() -> (Cell, ReplicaId) {
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    cell.pass(Duration::from_secs(15));
    (cell, master)
}

/// Writes, at this replica, and waits for the answer, at the longest for `limit`.
fn writes_within(cell: &mut Cell, master: ReplicaId, call: u64, limit: Duration) -> Option<Duration> {
    let began = cell.now;
    cell.put(master, call, "/a", "hello".into());
    loop {
        match cell.answer(master, call) {
            Some(Ok(CallAnswer::SetContents(_))) => return Some(cell.now.since(began)),
            None if cell.now.since(began) < limit => cell.pass(Duration::from_millis(50)),
            _ => return None,
        }
    }
}

#[test]
fn a_master_stays_while_the_disks_of_both_followers_are_slow_and_writes_take_what_those_take() {
    let (mut cell, master) = settled_cell();
    let term = cell.host(master).replica.term();
    for other in cell.others(master) {
        cell.host_mut(other).sync = Some(SLOW);
    }
    for call in 1..=5 {
        let took = writes_within(&mut cell, master, call, Duration::from_secs(30));
        let took = took.expect("the write is decided");
        assert!(took >= SLOW && took <= 3 * SLOW, "{took:?}");
    }
    cell.pass(Duration::from_secs(60));
    assert!(cell.host(master).replica.is_master(), "another would be no better off");
    assert_eq!(cell.host(master).replica.term(), term);
}

#[test]
fn a_master_stays_also_while_more_waits_for_both_followers_disks_than_they_answer_at_once_for() {
    let (mut cell, master) = settled_cell();
    let term = cell.host(master).replica.term();
    for other in cell.others(master) {
        cell.host_mut(other).sync = Some(SLOW);
    }
    for call in 1..=600 {
        cell.put(master, call, "/a", "hello".into());
    }
    cell.pass(Duration::from_secs(60));
    assert_eq!((cell.host(master).replica.is_master(), cell.host(master).replica.term()), (true, term));
    assert!((1..=600).all(|call| matches!(cell.answer(master, call), Some(Ok(_)))));
}

#[test]
fn no_member_is_removed_whose_place_only_one_with_a_hanging_disk_would_take() {
    let (mut cell, master) = settled_cell();
    let [good, hung] = cell.others(master)[..] else { panic!("there are three") };
    cell.host_mut(hung).sync = Some(Duration::from_secs(3_600));
    for call in 1..=200 {
        cell.put(master, call, "/a", "hello".into());
    }
    cell.pass(Duration::from_secs(10));
    let refused = |cell: &mut Cell, call, id| {
        cell.call(master, call, CallRequest::RemoveMember(id));
        cell.pass(Duration::from_secs(1));
        matches!(cell.answer(master, call), Some(Err(_)))
    };
    assert!(refused(&mut cell, 201, good), "it is heard, and has nothing of what is committed");
    assert!(!refused(&mut cell, 202, hung));
}

#[test]
fn a_leader_is_found_and_stays_although_votes_take_seconds_to_sync() {
    for slow in [1, 2, 3] {
        let mut cell = Cell::new(defaults);
        for id in 1..=slow {
            cell.host_mut(ReplicaId(id)).sync = Some(SLOW);
        }
        let mut waited = Duration::ZERO;
        while !cell.hosts.values().any(|host| host.replica.is_master()) {
            assert!(waited < Duration::from_secs(180), "{slow} disks are slow, and there is no master");
            cell.pass(Duration::from_secs(1));
            waited += Duration::from_secs(1);
        }
        let master = cell.elect();
        let call = 1;
        assert!(
            writes_within(&mut cell, master, call, Duration::from_secs(30)).is_some(),
            "{slow} disks are slow"
        );
    }
}

#[test]
fn a_master_that_dies_is_replaced_although_the_disks_of_the_others_are_slow() {
    let (mut cell, old) = settled_cell();
    for other in cell.others(old) {
        cell.host_mut(other).sync = Some(SLOW);
    }
    cell.crash(old);
    let mut waited = Duration::ZERO;
    while !cell.hosts.values().any(|host| host.replica.is_master()) {
        assert!(waited < Duration::from_secs(180), "there is no master");
        cell.pass(Duration::from_secs(1));
        waited += Duration::from_secs(1);
    }
}

#[test]
fn a_master_with_the_only_slow_disk_hands_over_and_writes_are_fast_again() {
    let (mut cell, old) = settled_cell();
    cell.host_mut(old).sync = Some(SLOW);
    cell.put(old, 1, "/a", "slow".into());
    cell.pass(SLOW);
    let new = cell.elect();
    assert_ne!(new, old, "it is not worth waiting for its disk");
    for call in 2..=5 {
        let took = writes_within(&mut cell, new, call, SLOW).expect("the write is decided");
        assert!(took <= Duration::from_millis(100), "{took:?}");
    }
    // Nothing makes it wander: the new master has a slow disk among the others, and its own is well.
    cell.pass(Duration::from_secs(60));
    assert!(cell.host(new).replica.is_master());
}

#[test]
fn one_hiccup_of_a_masters_disk_changes_nothing() {
    let (mut cell, master) = settled_cell();
    cell.host_mut(master).sync = Some(Duration::from_millis(1_500));
    cell.put(master, 1, "/a", "slow".into());
    cell.host_mut(master).sync = None;
    for call in 2..=20 {
        cell.put(master, call, "/a", "fast".into());
        cell.pass(Duration::from_secs(1));
    }
    assert!(cell.host(master).replica.is_master());
}

#[test]
fn a_snapshot_that_cannot_be_written_is_tried_again_with_growing_pauses_and_the_replica_serves_on() {
    let mut cell = Cell::new(eager_snapshots);
    let master = cell.elect();
    for id in (1..=3).map(ReplicaId) {
        cell.host_mut(id).snapshots_refused = Some(0);
    }
    for call in 0..50 {
        cell.put(master, call, &format!("/f{call}"), vec![7; 100].into());
        assert!(matches!(cell.answer(master, call), Some(Ok(_))));
    }
    let refused = |cell: &Cell| cell.host(master).snapshots_refused.expect("they are refused");
    assert_eq!(refused(&cell), 1, "not again at each write");
    let mut pauses = Vec::new();
    let mut last = cell.now;
    while pauses.len() < 3 {
        let before = refused(&cell);
        cell.pass(Duration::from_millis(100));
        if refused(&cell) > before {
            pauses.push(cell.now.since(last).as_secs_f64().round() as u64);
            last = cell.now;
        }
    }
    assert_eq!(pauses, [5, 10, 20], "without a write, too");
    for id in (1..=3).map(ReplicaId) {
        cell.host_mut(id).snapshots_refused = None;
    }
    cell.pass(Duration::from_secs(60));
    assert!((1..=3).all(|id| cell.host(ReplicaId(id)).snapshots_written == 1), "once there is room");
    // The log that the snapshot makes up for is trimmed with the next write.
    let kept = cell.host(master).disk.entries.len();
    cell.put(master, 99, "/last", "trims".into());
    assert!(cell.host(master).disk.entries.len() < kept);
}
