//! Commands that decode, and need make no sense otherwise: every field has values that are right, values that are
//! just wrong, and values from the ends of its type. The strategies are boxed: by value, a tree of them is too
//! large for a test's stack.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Acknowledged, AclNames, Acquire, Cancel, Close, Delete, DeleteRequest, GetStat, NumberRange, Open,
    Release, Request, SetAcl, SetAclRequest, SetContents, SetContentsRequest, SetSequencer, Settings, Uses,
};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{
    Command, EndLockDelay, EndSession, LowerLeasePromise, OpenSession, RaiseVersion, ReapNode, SessionRequest,
};
use proptest::prelude::*;

const PATHS: [&str; 18] = [
    "/",
    "/a",
    "/b",
    "/a/b",
    "/a/c",
    "/ls/dev/a",
    "/ls/local/b",
    "/ls",
    "/ls/x/a",
    "/a/",
    "//",
    "/acl",
    "/acl/x",
    "/acl/y",
    "/acl/admin",
    "/acl/*",
    "b",
    "",
];
const LISTS: [&str; 9] = ["", "ann", "@x", "@y", "*", "@x\n@y", "# none\n bob", "@admin", "@"];
const NAMES: [&str; 9] = ["", "", "*", "x", "y", "admin", "nobody", "a/b", ".."];

/// Small numbers mostly, so that they meet.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0_u64..12, 2 => 12_u64..60, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => any::<u64>()]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0_u32..5, 2 => Just(60_000), 1 => Just(60_001), 1 => any::<u32>()]
}

fn enumeration() -> impl Strategy<Value = i32> {
    prop_oneof![12 => 0..3, 1 => Just(-1), 1 => any::<i32>()]
}

fn path() -> BoxedStrategy<String> {
    let known = prop::sample::select(&PATHS[..]).prop_map(str::to_owned);
    prop_oneof![20 => known, 1 => ".{0,12}", 1 => "/[a-c/]{0,8}"].boxed()
}

fn name() -> BoxedStrategy<String> {
    let known = prop::sample::select(&NAMES[..]).prop_map(str::to_owned);
    prop_oneof![20 => known, 1 => ".{0,12}"].boxed()
}

fn acl() -> BoxedStrategy<Option<AclNames>> {
    let names = (name(), name(), name()).prop_map(|(read, write, change)| AclNames { read, write, change });
    prop::option::weighted(0.5, names).boxed()
}

fn principal() -> BoxedStrategy<String> {
    let known = prop::sample::select(&["", "ann", "bob", "anonymous"][..]).prop_map(str::to_owned);
    prop_oneof![20 => known, 1 => ".{0,300}"].boxed()
}

fn sequencer() -> BoxedStrategy<String> {
    let known =
        (0_u64..40, 0_u64..40).prop_map(|(lock, of)| format!("holdfast:1:exclusive:{lock}:{of}:/ls/dev/a"));
    prop_oneof![4 => known, 1 => Just(String::new()), 1 => ".{0,40}"].boxed()
}

fn contents() -> BoxedStrategy<bytes::Bytes> {
    prop_oneof![1 => bytes(), 1 => prop::sample::select(&LISTS[..]).prop_map(Into::into)].boxed()
}

fn open() -> BoxedStrategy<Operation> {
    let uses = prop::option::weighted(
        0.5,
        any::<[bool; 3]>().prop_map(|[read, write, change_acl]| Uses { read, write, change_acl }),
    );
    let events = prop::collection::vec(prop_oneof![12 => 1..9, 1 => any::<i32>()], 0..4);
    let node = (path(), enumeration(), enumeration(), any::<bool>(), contents(), acl());
    let directory = prop_oneof![3 => Just(0_u64), 1 => number()];
    let handle = (small(), directory, uses, events, any::<bool>());
    (node, handle)
        .prop_map(
            |(
                (path, creation, kind, ephemeral, contents, acl),
                (lock_delay_ms, directory, uses, events, caching),
            )| {
                Operation::Open(Box::new(Open {
                    path,
                    creation,
                    kind,
                    ephemeral,
                    contents,
                    lock_delay_ms,
                    directory,
                    uses,
                    events,
                    caching,
                    acl,
                }))
            },
        )
        .boxed()
}

fn bytes() -> BoxedStrategy<bytes::Bytes> {
    prop::collection::vec(any::<u8>(), 0..70).prop_map(Into::into).boxed()
}

fn operation() -> BoxedStrategy<Operation> {
    prop_oneof![
        4 => open(),
        1 => (number(), acl(), prop::option::of(number()))
            .prop_map(|(handle, acl, if_generation)| Operation::SetAcl(Box::new(SetAcl { handle, acl, if_generation }))),
        1 => (number(), sequencer())
            .prop_map(|(handle, sequencer)| Operation::SetSequencer(SetSequencer { handle, sequencer })),
        1 => number().prop_map(|handle| Operation::Close(Close { handle })),
        1 => (number(), contents(), prop::option::of(number())).prop_map(|(handle, contents, if_generation)| {
            Operation::SetContents(SetContents { handle, contents, if_generation })
        }),
        1 => number().prop_map(|handle| Operation::Delete(Delete { handle })),
        1 => number().prop_map(|handle| Operation::GetStat(GetStat { handle })),
        4 => (number(), enumeration(), any::<bool>())
            .prop_map(|(handle, mode, try_only)| Operation::Acquire(Acquire { handle, mode, try_only })),
        2 => number().prop_map(|handle| Operation::Release(Release { handle })),
        2 => (number(), number()).prop_map(|(number, handle)| Operation::Cancel(Cancel { number, handle })),
    ]
    .boxed()
}

fn request() -> BoxedStrategy<Option<Request>> {
    let request = (number(), prop::option::weighted(0.9, operation()))
        .prop_map(|(number, operation)| Request { number, operation });
    prop::option::weighted(0.95, request).boxed()
}

fn acknowledged() -> BoxedStrategy<Option<Acknowledged>> {
    let range = (number(), number()).prop_map(|(first, last)| NumberRange { first, last });
    let acknowledged = (prop_oneof![6 => 0_u64..4, 1 => number()], prop::collection::vec(range, 0..3))
        .prop_map(|(through, ranges)| Acknowledged { through, ranges });
    prop::option::weighted(0.2, acknowledged).boxed()
}

fn settings() -> BoxedStrategy<Settings> {
    let millis = || prop_oneof![4 => Just(0), 2 => 100_u32..60_000, 1 => small()];
    let millis = (millis(), millis(), millis());
    let bootstrap = prop_oneof![8 => Just(String::new()), 1 => principal()];
    (number(), small(), small(), number(), number(), number(), small(), millis, bootstrap)
        .prop_map(|(contents, name, path, sessions, handles, nodes, requests, millis, bootstrap)| Settings {
            contents_bytes_max: contents,
            name_bytes_max: name,
            path_bytes_max: path,
            sessions_max: sessions,
            handles_per_session_max: handles,
            nodes_max: nodes,
            requests_in_flight_max: requests,
            lease_ms_max: millis.0,
            notice_overdue_ms: millis.1,
            caching_lease_ms_max: millis.2,
            bootstrap_principal: bootstrap,
            ..Settings::default()
        })
        .boxed()
}

fn kind() -> impl Strategy<Value = Kind> {
    let secret = prop_oneof![6 => (0_u8..5).prop_map(|byte| vec![byte; 16].into()), 1 => bytes()];
    prop_oneof![
        4 => (secret, prop_oneof![Just(12_000), small()], ".{0,300}", principal()).prop_map(
            |(secret, lease_ms, client, principal)| {
                Kind::OpenSession(OpenSession { secret, lease_ms, client, principal })
            }
        ),
        1 => (number(), prop_oneof![4 => 1..5, 1 => enumeration()])
            .prop_map(|(session, reason)| Kind::EndSession(EndSession { session, reason })),
        20 => (prop_oneof![9 => 3_u64..6, 1 => number()], request(), acknowledged()).prop_map(
            |(session, request, acknowledged)| Kind::Request(SessionRequest { session, request, acknowledged })
        ),
        2 => (path(), contents(), prop::option::of(number()), any::<bool>(), enumeration()).prop_map(
            |(path, contents, if_generation, create, kind)| {
                Kind::SetContents(SetContentsRequest { path, contents, if_generation, create, kind, ..Default::default() })
            }
        ),
        2 => (path(), prop::option::of(number()))
            .prop_map(|(path, if_instance)| Kind::Delete(DeleteRequest { path, if_instance, ..Default::default() })),
        2 => (path(), acl(), prop::option::of(number()))
            .prop_map(|(path, acl, if_generation)| Kind::SetAcl(SetAclRequest { path, acl, if_generation, ..Default::default() })),
        2 => (path(), number()).prop_map(|(path, loss)| Kind::EndLockDelay(EndLockDelay { path, loss })),
        2 => (path(), number()).prop_map(|(path, instance)| Kind::ReapNode(ReapNode { path, instance })),
        1 => settings().prop_map(Kind::ChangeSettings),
        1 => (0_u32..70_000).prop_map(|lease_ms| Kind::LowerLeasePromise(LowerLeasePromise { lease_ms })),
        1 => small().prop_map(|version| Kind::RaiseVersion(RaiseVersion { version })),
    ]
}

/// Any command.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    (any::<u64>(), prop::option::weighted(0.99, kind()), principal())
        .prop_map(|(tag, kind, principal)| Command { tag, kind, principal, ..Default::default() })
}

/// Some operation, out of a few bytes.
pub(crate) fn operation_of(bytes: [u8; 8]) -> Operation {
    let handle = u64::from(bytes[1]) % 20;
    match bytes[0] % 5 {
        0 => Operation::Acquire(Acquire { handle, mode: 1, try_only: false }),
        1 => Operation::Release(Release { handle }),
        2 => Operation::Close(Close { handle }),
        3 => Operation::Open(Box::new(Open { path: "/a".to_owned(), creation: 1, ..Open::default() })),
        _ => Operation::Cancel(Cancel { number: u64::from(bytes[2]), handle }),
    }
}
