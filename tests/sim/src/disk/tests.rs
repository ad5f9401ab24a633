use holdfast_state::{Genesis, State, settings};
use holdfast_types::Term;

use super::image::intact_records;
use super::*;

fn persist(number: u64, sync: bool, indexes: std::ops::RangeInclusive<u64>, term: u64) -> Persist {
    let entry = |index| Entry { index, term, ..Entry::default() };
    let hard_state = holdfast_replica::raftpb::HardState { term, ..Default::default() };
    let entries = indexes.map(entry).collect();
    Persist { number, snapshot: None, hard_state: Some(hard_state), entries, sync, compact_to: None }
}

fn state_at(index: u64) -> StateAt {
    let (cell, settings) = ("sim".to_owned(), settings::defaults());
    let state = State::genesis(Genesis { cell, cell_id: 7, members: Vec::new(), settings });
    StateAt { index, term: Term(1), voters: vec![1], learners: Vec::new(), state }
}

/// The genesis stands at 1.
fn disk() -> Disk {
    Disk::founded(state_at(1))
}

/// Writes a record and syncs it, if it asks for that.
fn written(disk: &mut Disk, persist: Persist) {
    disk.write(persist);
    disk.begin().expect("nothing is being written");
    disk.finish().expect("the disk is in order");
}

fn indexes(disk: &mut Disk) -> Vec<(u64, u64)> {
    disk.boot().unwrap().entries.iter().map(|entry| (entry.index, entry.term)).collect()
}

#[test]
fn what_was_synced_survives_every_crash_and_the_rest_as_a_prefix() {
    let mut lengths = [0; 2];
    for seed in 0..100 {
        let mut disk = disk();
        disk.write(persist(1, true, 2..=2, 1));
        assert_eq!(disk.begin(), Some(true));
        disk.write(persist(2, true, 3..=3, 1));
        assert_eq!(disk.begin(), None, "one record at a time");
        assert_eq!(disk.finish(), Ok(1));
        assert_eq!(disk.begin(), Some(true));
        disk.write(persist(3, true, 4..=4, 1));
        disk.crash(&mut Rng::new(seed), Crash::InOrder);
        let left = indexes(&mut disk);
        assert_eq!(left, [(2, 1), (3, 1)][..left.len()], "what was only queued is never there");
        lengths[left.len() - 1] += 1;
    }
    assert!(lengths.iter().all(|&times| times > 0), "{lengths:?}");
}

#[test]
fn a_write_without_sync_is_answered_and_may_still_be_lost() {
    let lost = (0..100).any(|seed| {
        let mut disk = disk();
        written(&mut disk, persist(1, false, 2..=2, 1));
        disk.crash(&mut Rng::new(seed), Crash::InOrder);
        indexes(&mut disk).is_empty()
    });
    assert!(lost);
}

#[test]
fn a_later_sync_makes_the_earlier_writes_durable() {
    let mut disk = disk();
    written(&mut disk, persist(1, false, 2..=2, 1));
    written(&mut disk, persist(2, true, 3..=3, 1));
    disk.crash(&mut Rng::new(1), Crash::InOrder);
    assert_eq!(indexes(&mut disk), [(2, 1), (3, 1)]);
}

#[test]
fn appending_cuts_off_what_was_there() {
    let mut disk = disk();
    written(&mut disk, persist(1, true, 2..=6, 1));
    disk.write(persist(2, true, 4..=4, 2));
    assert_eq!(disk.entry(3).map(|entry| entry.term), Some(1));
    assert_eq!(disk.entry(4).map(|entry| entry.term), Some(2));
    assert!(disk.entry(5).is_none());
    disk.begin();
    disk.finish().unwrap();
    assert_eq!(indexes(&mut disk), [(2, 1), (3, 1), (4, 2)]);
}

#[test]
fn a_tail_is_cut_only_if_nothing_intact_follows_it() {
    assert_eq!(intact_records(&[]), Some(0));
    assert_eq!(intact_records(&[true, true]), Some(2));
    assert_eq!(intact_records(&[true, false]), Some(1));
    assert_eq!(intact_records(&[true, false, false]), Some(1));
    assert_eq!(intact_records(&[false, true]), None);
}

#[test]
fn a_torn_record_is_cut_off_whole() {
    let mut torn = 0;
    for seed in 0..50 {
        let mut disk = disk();
        disk.write(persist(1, true, 2..=5, 1));
        disk.begin();
        disk.crash(&mut Rng::new(seed), Crash::InOrder);
        let left = indexes(&mut disk).len();
        assert!(left == 0 || left == 4, "{left} of a record of 4");
        torn += disk.torn();
    }
    assert!(torn > 0);
}

#[test]
fn out_of_order_a_crash_may_leave_what_cannot_be_told_from_damage() {
    let refused = |crash| {
        (0..100).filter(move |seed| {
            let mut disk = disk();
            written(&mut disk, persist(1, false, 2..=2, 1));
            written(&mut disk, persist(2, false, 3..=3, 1));
            disk.crash(&mut Rng::new(*seed), crash);
            disk.boot().is_err()
        })
    };
    assert!(refused(Crash::AnyOrder).count() > 0);
    assert_eq!(refused(Crash::InOrder).count(), 0);
}

#[test]
fn after_a_failed_sync_nothing_is_answered_and_the_record_may_be_there_or_not() {
    let mut there = [0; 2];
    for seed in 0..50 {
        let mut disk = disk();
        disk.set_failure(Some(Failure::Sync));
        written(&mut disk, persist(1, false, 2..=2, 1));
        disk.write(persist(2, true, 3..=3, 1));
        disk.begin();
        assert_eq!(disk.finish(), Err(Failure::Sync));
        disk.crash(&mut Rng::new(seed), Crash::InOrder);
        there[usize::from(indexes(&mut disk).len() == 2)] += 1;
    }
    assert!(there.iter().all(|&times| times > 0), "{there:?}");
}

#[test]
fn a_full_disk_takes_no_record_whole_and_no_snapshot() {
    for seed in 0..50 {
        let mut disk = disk();
        disk.set_failure(Some(Failure::Full));
        disk.write(persist(1, false, 2..=2, 1));
        disk.begin();
        assert_eq!(disk.finish(), Err(Failure::Full));
        disk.write_snapshot(Box::new(state_at(2)));
        assert_eq!(disk.finish_snapshot(2), Err(Failure::Full));
        disk.crash(&mut Rng::new(seed), Crash::InOrder);
        let boot = disk.boot().unwrap();
        assert_eq!((boot.entries.len(), boot.state.unwrap().index), (0, 1));
    }
}

#[test]
fn a_crash_while_a_snapshot_replaces_the_log_leaves_the_one_or_the_other_whole() {
    let mut left = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let mut disk = disk();
        written(&mut disk, persist(1, true, 2..=4, 1));
        disk.write(Persist { snapshot: Some(Box::new(state_at(9))), ..persist(2, true, 10..=10, 1) });
        disk.begin();
        disk.crash(&mut Rng::new(seed), Crash::InOrder);
        let boot = disk.boot().unwrap();
        left.insert((boot.state.unwrap().index, boot.entries.len()));
    }
    assert_eq!(Vec::from_iter(left), [(1, 3), (9, 0), (9, 1)], "log that does not join is discarded");
}

#[test]
fn a_damaged_snapshot_is_made_up_for_by_the_log_or_refused() {
    let disk_with = |compact_to| {
        let mut disk = disk();
        written(&mut disk, persist(1, true, 2..=9, 1));
        disk.write_snapshot(Box::new(state_at(8)));
        assert_eq!(disk.finish_snapshot(8), Ok(Some(8)));
        written(&mut disk, Persist { compact_to, ..persist(2, true, 10..=10, 1) });
        disk.crash(&mut Rng::new(1), Crash::InOrder);
        assert!(disk.damage(Damage::Snapshot));
        disk
    };
    let mut kept = disk_with(None);
    assert_eq!(kept.boot().unwrap().state.unwrap().index, 1, "the one before it, and the whole log");
    assert_eq!(kept.passed_over(), 1);
    assert!(disk_with(Some(8)).boot().unwrap_err().contains("begins at entry 8"));
}

#[test]
fn a_damaged_record_of_the_log_is_refused() {
    let mut disk = disk();
    assert!(!disk.damage(Damage::Log), "there is none that another follows");
    written(&mut disk, persist(1, true, 2..=2, 1));
    written(&mut disk, persist(2, true, 3..=3, 1));
    assert!(disk.damage(Damage::Log));
    assert!(disk.boot().unwrap_err().contains("no torn write"));
}
