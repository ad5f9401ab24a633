//! Properties that hold for every workload: invariants, mutual exclusion (I1), lock-delay (I4), exactly once
//! (I6), determinism with snapshots in between (I9), and no panic whatever comes in.

mod garbage;
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{LockMode, Request};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{Batch, Command, SessionRequest};
use holdfast_state::{Effect, Recorded, SnapshotReader, State};
use holdfast_types::{HandleId, NodePath, RequestNumber, Revision, SessionId, Term};
use proptest::prelude::*;
use prost::Message;
use workload::{Step, Workload, genesis, restored};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<Step>(), 1..250)
}

/// Applies one step, and gives its effects.
fn apply(state: &mut State, workload: &mut Workload, step: Step) -> Vec<Effect> {
    let command = workload.command(state, step);
    let mut effects = Vec::new();
    state.apply(command, &mut effects).expect("workloads have no faults");
    effects
}

/// One node's lock, as the handles that hold it say.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    path: NodePath,
    mode: LockMode,
    generation: u64,
    holders: BTreeSet<(SessionId, u64)>,
}

/// All held locks, by the node's instance. Fails if two holders of one do not agree (I1).
fn held(state: &State) -> BTreeMap<u64, Held> {
    let mut held: BTreeMap<u64, Held> = BTreeMap::new();
    for (id, session) in state.sessions() {
        for grant in state.locks_of(id) {
            let granted = grant.granted.expect("a grant says what");
            let path = session.handle_path(HandleId(grant.handle)).expect("an open handle").clone();
            let lock = held.entry(granted.instance).or_insert_with(|| Held {
                path,
                mode: granted.mode(),
                generation: granted.lock_generation,
                holders: BTreeSet::new(),
            });
            assert_eq!((lock.mode, lock.generation), (granted.mode(), granted.lock_generation));
            lock.holders.insert((id, grant.handle));
        }
    }
    for lock in held.values() {
        assert!(lock.mode == LockMode::Shared || lock.holders.len() == 1, "{lock:?}");
    }
    held
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_command(steps in steps()) {
        let (mut state, mut workload) = (genesis(), Workload::default());
        for step in steps {
            apply(&mut state, &mut workload, step);
            state.check_invariants();
        }
    }

    #[test]
    fn a_lock_that_changes_hands_takes_a_new_generation(steps in steps()) {
        let (mut state, mut workload) = (genesis(), Workload::default());
        let mut greatest: BTreeMap<NodePath, u64> = BTreeMap::new();
        for step in steps {
            let before = held(&state);
            apply(&mut state, &mut workload, step);
            for (instance, lock) in held(&state) {
                let earlier = before.get(&instance);
                let stayed = earlier.is_some_and(|earlier| !earlier.holders.is_disjoint(&lock.holders));
                if stayed {
                    let earlier = earlier.expect("it was held");
                    prop_assert_eq!((earlier.mode, earlier.generation), (lock.mode, lock.generation));
                } else {
                    prop_assert_eq!(lock.generation, state.revision().0, "free to held takes this revision");
                    let greatest = greatest.entry(lock.path.clone()).or_default();
                    prop_assert!(lock.generation > *greatest, "no earlier holder had as great a one");
                    *greatest = lock.generation;
                }
            }
        }
    }

    #[test]
    fn nobody_is_granted_a_lock_that_a_delay_keeps(steps in steps()) {
        let (mut state, mut workload) = (genesis(), Workload::default());
        // What was lost, in which mode, by delays that run.
        let mut running: BTreeMap<(NodePath, Revision), LockMode> = BTreeMap::new();
        for step in steps {
            let before = held(&state);
            let effects = apply(&mut state, &mut workload, step);
            for effect in effects {
                match effect {
                    Effect::DelayStarted(delay) => {
                        let lost = before.values().find(|lock| lock.path == delay.path).expect("held before");
                        running.insert((delay.path, delay.loss), lost.mode);
                    }
                    Effect::DelayEnded { path, loss } => {
                        prop_assert!(running.remove(&(path, loss)).is_some());
                    }
                    _ => {}
                }
            }
            let listed: BTreeSet<_> = state.delays().map(|delay| (delay.path, delay.loss)).collect();
            prop_assert_eq!(&listed, &running.keys().cloned().collect());
            for (instance, lock) in held(&state) {
                let earlier = before.get(&instance).map(|lock| lock.holders.clone()).unwrap_or_default();
                if lock.holders.is_subset(&earlier) {
                    continue;
                }
                for ((path, _), lost) in &running {
                    let conflict = *lost == LockMode::Exclusive || lock.mode == LockMode::Exclusive;
                    prop_assert!(*path != lock.path || !conflict, "{lock:?} was granted during a delay");
                }
            }
        }
    }

    #[test]
    fn a_request_that_was_decided_is_never_decided_again(steps in steps(), other in any::<Step>()) {
        let (mut state, mut workload) = (genesis(), Workload::default());
        for step in steps {
            apply(&mut state, &mut workload, step);
        }
        let before = state.clone();
        let sessions: Vec<SessionId> = before.sessions().map(|(id, _)| id).collect();
        for session in sessions {
            for number in 1..300 {
                let known = match before.session(session).expect("it is there").recorded(RequestNumber(number)) {
                    Recorded::New => continue,
                    Recorded::Acknowledged => None,
                    Recorded::Outcome(outcome) => Some(outcome.clone()),
                };
                // Whatever a retry says: the number is what counts.
                let operation = garbage::operation_of(other);
                let request = Some(Request { number, operation: Some(operation) });
                let kind = Kind::Request(SessionRequest { session: session.0, request, acknowledged: None });
                let mut effects = Vec::new();
                state.apply(Command { tag: 5, kind: Some(kind), ..Command::default() }, &mut effects).expect("a known command");
                let [Effect::Replied { outcome, tag: 5, .. }] = &effects[..] else {
                    panic!("one reply, not {effects:?}")
                };
                prop_assert!(known.is_none_or(|known| known == *outcome));
            }
        }
        prop_assert_eq!(state, before);
    }

    #[test]
    fn replicas_agree_though_one_of_them_went_through_snapshots(
        steps in steps(), chunk_bytes in 1_usize..400, every in 1_usize..60,
    ) {
        let (mut one, mut other, mut workload) = (genesis(), genesis(), Workload::default());
        for (index, step) in steps.into_iter().enumerate() {
            let command = workload.command(&one, step);
            let batch = Batch { term: 3, commands: vec![command] }.encode_to_vec();
            let (mut effects, mut other_effects) = (Vec::new(), Vec::new());
            one.apply_batch(Term(3), batch.clone().into(), &mut effects).expect("no faults");
            other.apply_batch(Term(3), batch.into(), &mut other_effects).expect("no faults");
            prop_assert_eq!(effects, other_effects);
            if index % every == 0 {
                other = restored(&other, chunk_bytes);
            }
        }
        prop_assert_eq!(one.hash(), other.hash());
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_batch_of_another_term_changes_nothing(steps in steps(), term in 0_u64..9) {
        let (mut state, mut workload) = (genesis(), Workload::default());
        for step in steps {
            let commands = vec![workload.command(&state, step)];
            let before = state.clone();
            let mut effects = Vec::new();
            let batch = Batch { term, commands }.encode_to_vec();
            state.apply_batch(Term(4), batch.into(), &mut effects).expect("no faults");
            if term != 4 {
                prop_assert!(effects.is_empty());
                prop_assert_eq!(&state, &before);
            }
        }
    }

    #[test]
    fn no_command_makes_apply_panic(commands in prop::collection::vec(garbage::command(), 1..200)) {
        let mut state = genesis();
        let mut effects = Vec::new();
        for command in commands {
            let before = state.revision();
            // Faults are for commands that no version of a master proposes; what matters here is the state.
            if state.apply(command, &mut effects).is_err() {
                prop_assert_eq!(state.revision(), before);
            }
            state.check_invariants();
        }
        prop_assert_eq!(restored(&state, 100), state);
    }

    #[test]
    fn no_bytes_make_apply_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), term in 0_u64..3) {
        let mut state = genesis();
        let _ = state.apply_batch(Term(term), bytes.into(), &mut Vec::new());
        state.check_invariants();
    }

    #[test]
    fn no_bytes_make_the_snapshot_reader_panic(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8),
    ) {
        let mut reader = SnapshotReader::new();
        if chunks.iter().all(|chunk| reader.push(chunk).is_ok()) {
            prop_assert!(reader.finish().is_err());
        }
    }

    #[test]
    fn a_damaged_snapshot_is_an_error_or_a_sound_state(
        steps in steps(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(), keep in any::<bool>(),
    ) {
        let (mut state, mut workload) = (genesis(), Workload::default());
        for step in steps {
            apply(&mut state, &mut workload, step);
        }
        let mut bytes: Vec<u8> = state.snapshot_records().flat_map(|chunk| chunk.to_vec()).collect();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !keep {
            bytes.truncate(cut.index(bytes.len()));
        }
        let mut reader = SnapshotReader::new();
        if let Ok(state) = reader.push(&bytes).and_then(|()| reader.finish()) {
            // Not every byte can be known to be wrong; but one can go on from here.
            state.check_invariants();
            prop_assert_eq!(restored(&state, 64).hash(), state.hash());
        }
    }

    #[test]
    fn a_snapshot_that_is_cut_off_is_refused(steps in steps(), cut in any::<prop::sample::Index>()) {
        let (mut state, mut workload) = (genesis(), Workload::default());
        for step in steps {
            apply(&mut state, &mut workload, step);
        }
        let bytes: Vec<u8> = state.snapshot_records().flat_map(|chunk| chunk.to_vec()).collect();
        let mut reader = SnapshotReader::new();
        reader.push(&bytes[..cut.index(bytes.len())]).expect("what is there is whole");
        prop_assert!(reader.finish().is_err());
    }
}

#[test]
fn an_operation_that_is_not_understood_is_refused_and_recorded() {
    let (mut state, mut workload) = (genesis(), Workload::default());
    apply(&mut state, &mut workload, [0; 8]);
    let (session, _) = state.sessions().next().expect("a session was opened");
    let request = |operation| Request { number: 1, operation };
    for operation in [None, Some(Operation::Close(Default::default()))] {
        let kind = Kind::Request(SessionRequest {
            session: session.0,
            request: Some(request(operation)),
            acknowledged: None,
        });
        state
            .apply(Command { tag: 0, kind: Some(kind), ..Command::default() }, &mut Vec::new())
            .expect("a known command");
    }
    let recorded = state.session(session).expect("it is there").recorded(RequestNumber(1));
    let Recorded::Outcome(outcome) = recorded else { panic!("recorded, not {recorded:?}") };
    assert!(format!("{:?}", outcome.result).contains("no operation"), "{outcome:?}");
}

/// The workloads are worth something only if they get everywhere.
#[test]
fn random_workloads_reach_every_effect_and_most_outcomes() {
    let mut seen = BTreeSet::new();
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..300 {
        let (mut state, mut workload) = (genesis(), Workload::default());
        for _ in 0..200 {
            // A linear congruential generator; its upper bits are good enough here.
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let step = (chance ^ (chance >> 29)).to_be_bytes();
            for effect in apply(&mut state, &mut workload, step) {
                let shown = format!("{effect:?}");
                seen.extend(shown.split(|c: char| !c.is_alphanumeric()).map(str::to_owned));
            }
        }
    }
    let expected = [
        "SessionOpened",
        "OpenRefused",
        "SessionEnded",
        "LockGranted",
        "DelayStarted",
        "DelayEnded",
        "Orphaned",
        "Decided",
        "Replied",
        "Opened",
        "Closed",
        "Written",
        "Deleted",
        "Granted",
        "Queued",
        "Released",
        "Cancelled",
        "LockConflict",
        "AlreadyLocked",
        "NotLocked",
        "UnknownHandle",
        "NodeGone",
        "NotEmpty",
        "Locked",
        "NotFound",
        "NoParent",
        "AlreadyExists",
        "WrongKind",
        "Limit",
        "Acknowledged",
        "Exclusive",
        "Shared",
        "Notify",
        "SessionKept",
        "Reaped",
        "Idle",
        "Killed",
        "AclSet",
        "SequencerSet",
        "PermissionDenied",
        "WrongUse",
        "SequencerInvalid",
        "BadAcl",
        "ContentsModified",
        "ChildAdded",
        "ChildRemoved",
        "ChildModified",
        "AclChanged",
        "HandleInvalid",
        "LockAcquired",
        "ConflictingRequest",
    ];
    for name in expected {
        assert!(seen.contains(name), "no workload came to {name}; all that was seen: {seen:?}");
    }
}
