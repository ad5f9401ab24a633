//! Properties of what those who watch and cache are owed, for every workload: nothing that changes is told to nobody
//! (I8), and nothing that may be cached changes without having been named before (I5).

mod view;
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    AclNames, DeleteRequest, EventKind, HandleEvent, NodeKind, Open, RefusalCode, Request, Seen,
    SetAclRequest, SetContentsRequest, Settings, Uses, outcome,
};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{Command, HandleRecord, NodeRecord, OpenSession, SessionRequest};
use holdfast_state::{Effect, Opens, State, Touched, TouchedNodes};
use holdfast_types::{HandleId, NodePath, Principal, SessionId};
use proptest::prelude::*;
use view::View;
use workload::{PRINCIPALS, Step, Workload, genesis, restored};

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<Step>(), 1..most)
}

/// A cell in which somebody watches everything that workloads change most, and lists decide something.
fn watched() -> State {
    let mut state = genesis();
    let put = |path: &str, contents: &'static str, kind: NodeKind| {
        Kind::SetContents(SetContentsRequest {
            path: path.to_owned(),
            contents: contents.into(),
            if_generation: Some(0),
            create: true,
            kind: kind.into(),
            ..Default::default()
        })
    };
    let acl = Some(AclNames { read: "x".into(), write: "y".into(), change: "x".into() });
    let open = OpenSession { secret: vec![99; 16].into(), lease_ms: 12_000, ..OpenSession::default() };
    let kinds = [
        put("/d", "", NodeKind::Directory),
        put("/d/a", "text", NodeKind::File),
        put("/a", "text", NodeKind::File),
        put("/acl/x", "ann\n@y", NodeKind::File),
        put("/acl/y", "bob", NodeKind::File),
        Kind::SetAcl(SetAclRequest { path: "/d/a".into(), acl, if_generation: None, ..Default::default() }),
        Kind::OpenSession(open),
    ];
    for kind in kinds {
        apply(&mut state, Command { kind: Some(kind), ..Command::default() });
    }
    let session = state.session_by_secret(&[99; 16]).expect("it was opened").0;
    for (path, number) in ["/d", "/", "/a", "/d/a", "/acl"].into_iter().zip(1..) {
        let open = Open { path: path.into(), events: (1..9).collect(), caching: true, ..Open::default() };
        let request = Some(Request { number, operation: Some(Operation::Open(Box::new(open))) });
        let kind = Kind::Request(SessionRequest { session, request, acknowledged: None });
        apply(&mut state, Command { kind: Some(kind), ..Command::default() });
    }
    assert!(state.session(SessionId(session)).is_some_and(|session| session.handle_count() >= 4));
    state
}

fn apply(state: &mut State, command: Command) -> Vec<Effect> {
    let mut effects = Vec::new();
    state.apply(command, &mut effects).expect("workloads have no faults");
    effects
}

/// What a client has seen of a handle's node that it saw as it is in `view`.
fn seen(view: &View, handle: &HandleRecord) -> Option<Seen> {
    let node = view.node_of(handle)?;
    Some(Seen {
        handle: handle.id,
        content_generation: node.content_generation,
        children_generation: node.children_generation,
        acl_generation: node.acl_generation,
        lock_generation: node.lock_generation,
    })
}

fn kinds<'e>(events: impl Iterator<Item = &'e HandleEvent>) -> BTreeSet<EventKind> {
    events.flat_map(HandleEvent::kinds).collect()
}

/// Checks one event of a handle against the node that it tells of.
fn check_event(event: &HandleEvent, handle: &HandleRecord, view: &View) {
    let asked: BTreeSet<_> = handle.events().collect();
    assert!(event.kinds().all(|kind| asked.contains(&kind)), "{event:?} for {handle:?}");
    assert!(!event.kinds.is_empty() && event.kinds.windows(2).all(|two| two[0] < two[1]), "{event:?}");
    if let Some(node) = view.node_of(handle) {
        let NodeRecord { content_generation, children_generation, acl_generation, lock_generation, .. } =
            node;
        let told = [
            event.content_generation,
            event.children_generation,
            event.acl_generation,
            event.lock_generation,
        ];
        assert_eq!(told, [*content_generation, *children_generation, *acl_generation, *lock_generation]);
    }
}

/// Whom the state lets do what: read, delete, change names.
type Rights = BTreeSet<(&'static str, String, &'static str)>;

/// Asks for everybody and every node, by calls that are refused or change nothing.
fn rights(state: &State, view: &View) -> Rights {
    let mut rights = Rights::new();
    for by in PRINCIPALS {
        let principal =
            if by.is_empty() { Principal::anonymous() } else { Principal::parse(by).expect("a principal") };
        for path in view.nodes.keys() {
            let never = Some(u64::MAX);
            let delete =
                Kind::Delete(DeleteRequest { path: path.clone(), if_instance: never, ..Default::default() });
            let set = Kind::SetAcl(SetAclRequest {
                path: path.clone(),
                acl: None,
                if_generation: never,
                ..Default::default()
            });
            if state.read_stat(&principal, path).is_ok() {
                rights.insert((by, path.clone(), "read"));
            }
            for (kind, right) in [(delete, "write"), (set, "change")] {
                let command =
                    Command { tag: 0, kind: Some(kind), principal: by.to_owned(), ..Default::default() };
                let effects = apply(&mut state.clone(), command);
                let [Effect::Decided { outcome, .. }] = &effects[..] else {
                    panic!("one answer, not {effects:?}")
                };
                let Some(outcome::Result::Refusal(refusal)) = &outcome.result else { panic!("{outcome:?}") };
                if refusal.code() != RefusalCode::PermissionDenied {
                    rights.insert((by, path.clone(), right));
                }
            }
        }
    }
    rights
}

fn path(text: &str) -> NodePath {
    NodePath::from_canonical(text).expect("a node's path is canonical")
}

/// Checks that whatever a client may have kept of the state before is as it was, or was named.
fn check_touched(before: &View, after: &View, touched: &TouchedNodes, command: &str) {
    let named = |path: &NodePath| touched.nodes.contains(path);
    for text in before.nodes.keys() {
        if before.cacheable(text) != after.cacheable(text) {
            assert!(named(&path(text)), "{command} changed {text}, and {touched:?} was named");
        }
    }
    // That there was no such node could be kept under its directory.
    for text in after.nodes.keys().filter(|text| !before.nodes.contains_key(*text)) {
        let parent = path(text).parent().expect("the root is always there");
        assert!(named(&parent), "{command} created {text}, and {touched:?} was named");
    }
}

/// Checks that whoever could open a node before can do so now, or that the open handles were named. `state` is the one
/// before.
fn check_opens(state: &State, before: &Rights, after: &Rights, touched: &TouchedNodes, command: &str) {
    for right @ (by, text, use_of) in before.difference(after) {
        let named = match &touched.opens {
            Opens::None => false,
            Opens::Node(node) => *node == path(text),
            Opens::List(list) => {
                let (state, session) = with_caching_handle(state, by, text, use_of);
                state.sessions_resting_on(list).contains(&session)
            }
            Opens::All => true,
        };
        assert!(named, "{command} took {right:?}, and {touched:?} was named");
    }
}

/// The state, in which one more session has a caching handle on a node, opened for one use.
fn with_caching_handle(state: &State, by: &str, text: &str, use_of: &str) -> (State, SessionId) {
    let mut state = state.clone();
    // The workload may have lowered the limits so far that no session fits beside those that are open.
    let generous =
        Settings { sessions_max: 1 << 20, handles_per_session_max: 1 << 20, ..Settings::default() };
    let principal = state.settings().bootstrap_principal.clone();
    apply(
        &mut state,
        Command { kind: Some(Kind::ChangeSettings(generous)), principal, ..Command::default() },
    );
    let open = OpenSession {
        secret: vec![77; 16].into(),
        lease_ms: 12_000,
        principal: by.to_owned(),
        ..OpenSession::default()
    };
    let effects = apply(&mut state, Command { kind: Some(Kind::OpenSession(open)), ..Command::default() });
    let [Effect::SessionOpened { session, .. }] = effects[..] else { panic!("{effects:?}") };
    let uses = Uses { read: use_of == "read", write: use_of == "write", change_acl: use_of == "change" };
    let open = Open { path: text.to_owned(), uses: Some(uses), caching: true, ..Open::default() };
    let request = Some(Request { number: 1, operation: Some(Operation::Open(Box::new(open))) });
    let request = SessionRequest { session: session.0, request, acknowledged: None };
    apply(&mut state, Command { kind: Some(Kind::Request(request)), ..Command::default() });
    assert!(state.cacheable(session, HandleId(1)).is_some(), "{by} may open {text} to {use_of}");
    (state, session)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// What differs is told, what is told differs, and both are found again by whoever compares generations.
    #[test]
    fn every_change_is_told_to_who_watches_and_found_by_who_missed_it(steps in steps(200)) {
        let (mut state, mut workload) = (watched(), Workload::default());
        let mut before = View::of(&state);
        for step in steps {
            let effects = apply_step(&mut state, &mut workload, step);
            let after = View::of(&state);
            let told = |session: u64, id: u64| -> Vec<HandleEvent> {
                let of_handle = |effect: &Effect| match effect {
                    Effect::Notify { news, .. }
                        if news.handles().contains(&(SessionId(session), HandleId(id))) =>
                    {
                        Some(HandleEvent { handle: id, ..news.event.clone() })
                    }
                    _ => None,
                };
                effects.iter().filter_map(of_handle).collect()
            };
            for ((session, id), handle) in &after.handles {
                told(*session, *id).iter().for_each(|event| check_event(event, handle, &after));
                let (Some(_), Some(seen)) = (before.handles.get(&(*session, *id)), seen(&before, handle)) else {
                    continue;
                };
                let found = state.changes_since(SessionId(*session), &[seen]);
                found.iter().for_each(|event| check_event(event, handle, &after));
                let (told, found) = (kinds(told(*session, *id).iter()), kinds(found.iter()));
                let asked: BTreeSet<_> = handle.events().collect();
                let changed = after.changes(&before, *session, handle);
                for kind in changed.into_iter().filter(|kind| asked.contains(kind)) {
                    prop_assert!(told.contains(&kind), "{kind:?} of {handle:?} is not told: {effects:?}");
                    prop_assert!(found.contains(&kind), "{kind:?} of {handle:?} is not found");
                }
                // A try that is refused is told, and leaves nothing to be found.
                let missed = told.difference(&found).find(|kind| **kind != EventKind::ConflictingRequest);
                prop_assert_eq!(missed, None, "told and not found: {:?}", handle);
            }
            let known = |of: &(u64, u64)| after.handles.contains_key(of);
            for effect in &effects {
                if let Effect::Notify { news, .. } = effect {
                    let all_open =
                        news.handles().iter().all(|(session, handle)| known(&(session.0, handle.0)));
                    prop_assert!(all_open, "{effect:?} is for a handle that is not open");
                }
            }
            before = after;
        }
    }

    /// However long a client was away, and though the master changed and the state went through a snapshot.
    #[test]
    fn who_was_away_finds_all_that_changed_meanwhile(steps in steps(200), away in 0_usize..150) {
        let (mut state, mut workload) = (watched(), Workload::default());
        let mut left = None;
        for (index, step) in steps.into_iter().enumerate() {
            if index == away {
                left = Some(View::of(&state));
            }
            apply_step(&mut state, &mut workload, step);
        }
        let Some(left) = left else { return Ok(()) };
        let (state, now) = (restored(&state, 1000), View::of(&state));
        for ((session, id), handle) in &left.handles {
            let (true, Some(seen)) = (now.handles.contains_key(&(*session, *id)), seen(&left, handle)) else {
                continue;
            };
            let found = kinds(state.changes_since(SessionId(*session), &[seen]).iter());
            let asked: BTreeSet<_> = handle.events().collect();
            for kind in now.changes(&left, *session, handle) {
                prop_assert!(!asked.contains(&kind) || found.contains(&kind), "{kind:?} of {handle:?} is not found");
            }
        }
    }

    /// As a master plans: several commands against one state, each with those before it under way; then all applied.
    #[test]
    fn what_is_changed_was_named_before(steps in steps(120), together in 1_usize..5) {
        let (mut state, mut workload) = (watched(), Workload::default());
        let mut before = View::of(&state);
        for steps in steps.chunks(together) {
            let planned_on = state.clone();
            let mut under_way: Vec<(Command, TouchedNodes)> = Vec::new();
            for step in steps {
                let command = workload.command(&planned_on, *step);
                let kind = command.kind.as_ref().expect("a workload's commands have kinds");
                let is_barred = |path: &NodePath| under_way.iter().any(|(_, touched)| touched.nodes.contains(path));
                // What names a handle that is not open yet is held back.
                if let Touched::Nodes(touched) = planned_on.touched(kind, &is_barred) {
                    under_way.push((command, touched));
                }
            }
            let mut could = rights(&state, &before);
            for (command, touched) in under_way {
                let (shown, earlier) = (format!("{command:?}"), state.clone());
                apply(&mut state, command);
                let (after, can) = (View::of(&state), rights(&state, &View::of(&state)));
                check_touched(&before, &after, &touched, &shown);
                check_opens(&earlier, &could, &can, &touched, &shown);
                (before, could) = (after, can);
            }
        }
    }

    /// The queries about caching say of all handles what the handles themselves say.
    #[test]
    fn who_may_cache_is_who_has_a_caching_handle(steps in steps(200)) {
        let (mut state, mut workload) = (watched(), Workload::default());
        for step in steps {
            apply_step(&mut state, &mut workload, step);
        }
        let view = View::of(&state);
        let caching: BTreeMap<_, _> = view.handles.iter().filter(|(_, handle)| handle.caching).collect();
        let sessions: Vec<u64> = state.sessions_that_cache().map(|session| session.0).collect();
        let expected: BTreeSet<u64> = caching.keys().map(|(session, _)| *session).collect();
        prop_assert_eq!(sessions, expected.into_iter().collect::<Vec<_>>());
        for text in view.nodes.keys() {
            let on_it = |handle: &HandleRecord| view.node_of(handle).is_some_and(|node| node.path == *text);
            let sessions: Vec<u64> = state.caching_sessions(&path(text)).map(|session| session.0).collect();
            let expected = caching.iter().filter(|(_, handle)| on_it(handle)).map(|((session, _), _)| *session);
            prop_assert_eq!(sessions, expected.collect::<Vec<_>>());
        }
        for ((session, id), handle) in &view.handles {
            let live = view.node_of(handle).is_some();
            let expected = live && handle.caching && handle.sequencer.is_empty();
            let cacheable = state.cacheable(SessionId(*session), HandleId(*id));
            prop_assert_eq!(cacheable.is_some(), expected);
            let absent = path(&handle.path).child("absent");
            let under = state.caches_parent(SessionId(*session), &absent);
            prop_assert!(!expected || under.is_some() || handle.path == "/");
        }
    }
}

fn apply_step(state: &mut State, workload: &mut Workload, step: Step) -> Vec<Effect> {
    let command = workload.command(state, step);
    apply(state, command)
}

/// A property over workloads that never change names would prove nothing about them.
#[test]
fn a_list_that_is_emptied_takes_the_rights_it_gave() {
    let mut state = genesis();
    let by = |kind| Command { tag: 0, kind: Some(kind), principal: String::new(), ..Default::default() };
    let put = |path: &str, contents: &'static str| {
        let request = SetContentsRequest {
            path: path.to_owned(),
            contents: contents.into(),
            create: true,
            ..Default::default()
        };
        by(Kind::SetContents(request))
    };
    apply(&mut state, put("/acl/x", "ann"));
    apply(&mut state, put("/a", "text"));
    let acl = Some(AclNames { read: "x".into(), write: "x".into(), change: "x".into() });
    apply(
        &mut state,
        by(Kind::SetAcl(SetAclRequest { path: "/a".into(), acl, if_generation: None, ..Default::default() })),
    );
    let could = rights(&state, &View::of(&state));
    apply(&mut state, put("/acl/x", ""));
    let can = rights(&state, &View::of(&state));
    let taken: Vec<_> =
        could.difference(&can).map(|(by, path, right)| format!("{by} {path} {right}")).collect();
    assert_eq!(taken, ["ann /a change", "ann /a read", "ann /a write"]);
}
