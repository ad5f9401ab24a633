//! A cell of state version 1 goes on to version 2 (ADR 0015), when all its members can follow and not before.

use std::collections::BTreeSet;

use holdfast_proto::client::v1::RefusalCode;
use holdfast_replica::{CallAnswer, CallId, CallRequest, Input, Joiner};
use holdfast_types::{Duration, ReplicaId};

use crate::table::{Cell, Disk, defaults, eager_snapshots, joiner, member};

/// The state versions that there are among the replicas, once all have heard what is committed.
fn versions(cell: &mut Cell) -> BTreeSet<u32> {
    cell.pass(Duration::from_secs(1));
    cell.hosts.values().map(|host| host.replica.state().version()).collect()
}

/// A cell of version 1 with a master in office, whom nobody has told anything.
fn old_cell() -> (Cell, ReplicaId) {
    let mut cell = Cell::founded_at(1, defaults);
    let master = cell.elect();
    (cell, master)
}

fn add(cell: &mut Cell, master: ReplicaId, call: u64, id: u64, state_version: u32) {
    let joiner = Joiner { member: member(id), state_version };
    cell.call(master, call, CallRequest::AddMember(joiner));
}

#[test]
fn the_version_rises_on_all_replicas_when_the_last_member_has_announced_that_it_can_follow() {
    let (mut cell, master) = old_cell();
    let [second, third] = cell.others(master)[..] else { panic!("there are three") };
    cell.announce(master, 2);
    cell.announce(second, 2);
    cell.put(master, 1, "/before", "x".into());
    assert_eq!(versions(&mut cell), [1].into(), "the third has announced nothing");
    assert_eq!(cell.host(master).replica.state().settings().total_bytes_max, 0);

    cell.announce(third, 2);
    assert_eq!(versions(&mut cell), [2].into());
    for host in cell.hosts.values() {
        let settings = host.replica.state().settings();
        assert_eq!((settings.total_bytes_max, settings.reserve_percent), (1 << 30, 5));
    }
    let hashes: BTreeSet<_> = cell.hosts.values().map(|host| host.replica.state().hash()).collect();
    assert_eq!(hashes.len(), 1);
    let applied = cell.host(master).replica.applied_index();
    cell.announce(third, 2);
    cell.pass(Duration::from_secs(5));
    assert_eq!(cell.host(master).replica.applied_index(), applied, "it is proposed once");
}

#[test]
fn a_member_of_an_older_release_keeps_the_version_until_it_runs_a_newer_one() {
    let (mut cell, master) = old_cell();
    let [second, third] = cell.others(master)[..] else { panic!("there are three") };
    cell.announce(second, 2);
    cell.announce(third, 1);
    assert_eq!(versions(&mut cell), [1].into());
    let disk = cell.crash(third);
    cell.start(third, disk);
    cell.announce(third, 2);
    assert_eq!(versions(&mut cell), [2].into());
}

#[test]
fn a_member_that_goes_back_to_an_older_release_before_the_rise_is_believed() {
    let (mut cell, master) = old_cell();
    let [second, third] = cell.others(master)[..] else { panic!("there are three") };
    cell.announce(third, 2);
    cell.announce(third, 1);
    cell.announce(second, 2);
    assert_eq!(versions(&mut cell), [1].into());
}

#[test]
fn a_new_master_raises_the_version_by_what_it_has_heard_itself() {
    let (mut cell, old) = old_cell();
    let others = cell.others(old);
    for id in [old, others[0], others[1]] {
        // The old master hears nothing.
        for to in others.iter().copied().filter(|to| *to != id) {
            cell.input(to, Input::PeerAnnounced { peer: id, state_version: 2 });
        }
    }
    assert_eq!(versions(&mut cell), [1].into());
    cell.input(old, Input::HandOver);
    cell.settle();
    let new = cell.elect();
    assert_ne!(new, old);
    assert_eq!(versions(&mut cell), [2].into());
}

#[test]
fn a_learner_counts_like_any_member() {
    let (mut cell, master) = old_cell();
    let learner = ReplicaId(4);
    add(&mut cell, master, 1, learner.0, 1);
    assert_eq!(cell.answer(master, 1), Some(Ok(CallAnswer::Membership)), "it can apply version 1");
    cell.start(learner, Disk::default());
    for id in (1..=3).map(ReplicaId) {
        cell.announce(id, 2);
    }
    assert_eq!(versions(&mut cell), [1].into(), "the learner has announced nothing");
    cell.announce(learner, 2);
    assert_eq!(versions(&mut cell), [2].into(), "the learner's too");
}

#[test]
fn a_learner_that_is_removed_holds_the_version_back_no_more() {
    let (mut cell, master) = old_cell();
    add(&mut cell, master, 1, 4, 1);
    for id in (1..=3).map(ReplicaId) {
        cell.announce(id, 2);
    }
    assert_eq!(versions(&mut cell), [1].into());
    cell.call(master, 2, CallRequest::RemoveMember(ReplicaId(4)));
    assert_eq!(cell.answer(master, 2), Some(Ok(CallAnswer::Membership)));
    assert_eq!(versions(&mut cell), [2].into());
}

#[test]
fn a_replica_that_is_too_old_for_the_cell_is_not_added_and_the_refusal_says_what_to_do() {
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    // 0 is what a replica says that knows of no versions.
    for (call, version) in [(1, 1), (2, 0)] {
        add(&mut cell, master, call, 4, version);
        let refusal = cell.host(master).answers[&CallId(call)].clone().unwrap_err();
        assert_eq!(refusal.code(), RefusalCode::Membership);
        assert_eq!(
            refusal.message,
            "replica 4 is of a release that can apply state versions up to 1, and the cell's is 2: start it with the \
             release that the other replicas run, and add it again"
        );
    }
    assert_eq!(cell.host(master).replica.state().members().count(), 3);
    cell.call(master, 3, CallRequest::AddMember(joiner(4)));
    assert_eq!(cell.answer(master, 3), Some(Ok(CallAnswer::Membership)));
}

#[test]
fn a_rise_that_is_under_way_counts_for_who_joins_and_one_who_joins_for_a_rise() {
    // The rise is first: it is proposed, and nobody's disk has it.
    let (mut cell, master) = old_cell();
    let others = cell.others(master);
    let slow = |cell: &mut Cell, slow| cell.hosts.values_mut().for_each(|host| host.slow = slow);
    slow(&mut cell, true);
    others.iter().for_each(|id| cell.announce(*id, 2));
    cell.settle();
    assert_eq!(cell.host(master).replica.state().version(), 1);
    add(&mut cell, master, 1, 4, 1);
    assert_eq!(cell.answer(master, 1), Some(Err(RefusalCode::Membership)));
    slow(&mut cell, false);
    assert_eq!(versions(&mut cell), [2].into());

    // The joiner is first.
    let (mut cell, master) = old_cell();
    slow(&mut cell, true);
    add(&mut cell, master, 1, 4, 1);
    assert_eq!(cell.answer(master, 1), None, "it is under way");
    cell.others(master).into_iter().for_each(|id| cell.announce(id, 2));
    cell.settle();
    slow(&mut cell, false);
    assert_eq!(versions(&mut cell), [1].into());
    assert_eq!(cell.answer(master, 1), Some(Ok(CallAnswer::Membership)));
}

#[test]
fn a_replica_that_was_away_during_the_rise_gets_the_new_version_by_snapshot() {
    let mut cell = Cell::founded_at(1, eager_snapshots);
    let master = cell.elect();
    let [second, away] = cell.others(master)[..] else { panic!("there are three") };
    cell.announce(second, 2);
    cell.announce(away, 2);
    let disk = cell.crash(away);
    assert_eq!(versions(&mut cell), [2].into(), "it had said that it can follow");
    for call in 0..100 {
        cell.put(master, call, &format!("/f{call}"), vec![7; 100].into());
    }
    cell.start(away, disk);
    assert_eq!(versions(&mut cell), [2].into());
    assert!(cell.host(master).snapshots_sent > 0);
    let hash = cell.host(master).replica.state().hash();
    assert_eq!(cell.host(away).replica.state().hash(), hash);
}
