//! Whoever reaches the ports without being a client or a replica: garbage, silence, half of everything, crowds, and
//! ends that do not read. Each costs itself its connection or its stream. Clients keep their sessions, new ones come in,
//! replicas reach each other, and the master stays.

use std::time::Duration;

use holdfast::{Cell, Handle, Lock, Mode, OpenOptions, Session, SessionEvents, WriteOptions};
use holdfast_e2e::raw::{self, Frame, PREFACE, Raw};
use holdfast_e2e::wire::opening;
use holdfast_e2e::{Cluster, eventually, within};
use holdfast_proto::client::v1::{
    ClientFrame, GetContents, GetContentsRequest, Open, Request, client_frame::Hello, request::Operation,
};

use crate::PROGRAMS;

/// Many times what the largest of these attacks may make a replica hold.
const MEMORY_MAX: u64 = 700 << 20;
const SESSION: &str = "/holdfast.client.v1.Cell/Session";
const GET_CONTENTS: &str = "/holdfast.client.v1.Cell/GetContents";
const HELLO: &str = "/holdfast.peer.v1.Peer/Hello";

/// A client that minds its own business, and notices if anybody else does not.
struct Honest {
    session: Session,
    events: SessionEvents,
    file: Handle,
    lock: Lock,
    term: u64,
}

impl Honest {
    async fn begin(cluster: &Cluster) -> Self {
        let cell = cluster.cell();
        let session = cell.session().lease(Duration::from_secs(5)).open().await.unwrap();
        let events = session.events();
        let file = session.open("/honest", OpenOptions::new().create()).await.unwrap();
        let lock = file.acquire(Mode::Exclusive).await.unwrap();
        let term = cell.status().await.unwrap().term;
        Self { session, events, file, lock, term }
    }

    /// The session was never in danger, the lock is held, work goes on, and so does the master.
    async fn unharmed(mut self, cluster: &Cluster) {
        within("a write", self.file.set_contents("all is well")).await.unwrap();
        assert!(self.lock.is_held());
        let event = tokio::time::timeout(Duration::ZERO, self.events.next()).await;
        assert!(event.is_err(), "the session was in danger: {event:?}");
        newcomer(cluster).await;
        assert_eq!(cluster.cell().status().await.unwrap().term, self.term, "the master was deposed");
        within("the end", self.session.close()).await;
    }
}

/// A client that comes only now, with a connection of its own, is served.
async fn newcomer(cluster: &Cluster) {
    let addresses = (1..=3).map(|id| cluster[id].client_address().to_owned());
    let cell = Cell::connect(addresses).unwrap();
    let session = within("a new session", cell.session().open()).await.unwrap();
    within("a new file", session.open("/new", OpenOptions::new().create())).await.unwrap();
    within("the end", session.close()).await;
}

fn garbage(length: usize) -> Vec<u8> {
    // Never the first byte of TLS or of HTTP/2.
    (0..length).map(|at| (at.wrapping_mul(at + 7) >> 3) as u8 | 0x80).collect()
}

#[tokio::test]
async fn garbage_and_halves_cost_their_senders_the_connection() {
    let cluster = Cluster::start(PROGRAMS).await;
    let honest = Honest::begin(&cluster).await;
    let master = &cluster[cluster.master().await];
    let half_frame = [PREFACE, &raw::settings(0).encode(), &raw::call(1, SESSION).encode()[..12]].concat();
    for address in [master.client_address(), master.peer_address()] {
        let words = [
            garbage(10_000),
            b"GET / HTTP/1.1\r\nhost: raw\r\n\r\n".to_vec(),
            // TLS, to a cell that has none.
            vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
            [PREFACE, &garbage(1_000)].concat(),
            // A frame that is longer than any may be.
            [PREFACE, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
            // What HTTP/2 waits for, but not all of it; and nothing at all.
            PREFACE[..11].to_vec(),
            Vec::new(),
        ];
        let mut raws = Vec::new();
        for words in words {
            let mut raw = Raw::connect(address).await;
            raw.send(&words).await;
            raws.push(raw);
        }
        for raw in &mut raws {
            raw.closed().await;
        }
    }
    // Half of a frame, and no answer to pings: between replicas that is seen to soon, and clients get half a minute more,
    // in which others do not have to make room for them (see the crowds).
    let mut half = Raw::connect(master.peer_address()).await;
    half.send(&half_frame).await;
    half.closed().await;
    honest.unharmed(&cluster).await;
}

#[tokio::test]
async fn slow_writers_get_so_much_time_and_no_more() {
    let cluster = Cluster::start(PROGRAMS).await;
    let honest = Honest::begin(&cluster).await;
    let master = &cluster[cluster.master().await];
    let second = Duration::from_secs(1);
    let (mut client, mut peer) =
        (Raw::connect(master.client_address()).await, Raw::connect(master.peer_address()).await);
    // A stream whose first message comes byte by byte.
    let mut slow = Raw::speak(master.client_address(), 65_535).await;
    slow.frame(&raw::call(1, SESSION)).await;
    let half = Frame { payload: vec![0, 0, 0, 1, 0, 8], ..raw::message(1, &ClientFrame::default(), false) };
    slow.frame(&half).await;
    tokio::join!(client.dribble(PREFACE, second), peer.dribble(PREFACE, second), slow.stream_ends(1));
    honest.unharmed(&cluster).await;
}

#[tokio::test]
async fn what_is_too_large_or_too_many_is_refused_at_once() {
    let cluster = Cluster::start(PROGRAMS).await;
    let honest = Honest::begin(&cluster).await;
    let master = &cluster[cluster.master().await];
    for (address, method, bytes) in [
        (master.client_address(), GET_CONTENTS, (4 << 20) + 1),
        (master.client_address(), SESSION, u32::MAX),
        (master.peer_address(), HELLO, (64 << 20) + 1),
    ] {
        // A message that says how long it will be: that is enough.
        let mut raw = Raw::speak(address, 65_535).await;
        raw.frame(&raw::call(1, method)).await;
        let payload = [&[0][..], &u32::to_be_bytes(bytes)].concat();
        raw.frame(&Frame { kind: raw::DATA, flags: 0, stream: 1, payload }).await;
        raw.stream_ends(1).await;
    }
    // Headers beyond all measure, in frames that are each as they should be.
    let mut raw = Raw::speak(master.client_address(), 65_535).await;
    let mut headers = raw::call(1, SESSION);
    headers.flags = 0;
    raw.frame(&headers).await;
    const CONTINUATION: u8 = 9;
    for _ in 0..64 {
        let payload = [&[0, 1, b'x', 0x7f, 0x81, 0x7c][..], &vec![b'y'; 16_000]].concat();
        raw.frame(&Frame { kind: CONTINUATION, flags: 0, stream: 1, payload }).await;
    }
    raw.stream_ends(1).await;
    // More streams on one connection than there may be: each says nothing, and the last ones are refused.
    let mut raw = Raw::speak(master.client_address(), 65_535).await;
    let beyond = 2 * 8_192 + 1;
    for stream in (1..=beyond).step_by(2) {
        raw.frame(&raw::call(stream, SESSION)).await;
    }
    raw.stream_ends(beyond).await;
    honest.unharmed(&cluster).await;
}

#[tokio::test]
async fn crowds_of_idlers_keep_neither_clients_nor_replicas_out() {
    let mut cluster = Cluster::start_with(PROGRAMS, &[("client-connections-max", "40")]).await;
    let honest = Honest::begin(&cluster).await;
    let (master, follower) = (cluster.master().await, cluster.follower().await);
    let mut crowd = Vec::new();
    for id in [master, follower] {
        for address in [cluster[id].client_address(), cluster[id].peer_address()] {
            for _ in 0..150 {
                crowd.push(Raw::connect(address).await);
            }
            for _ in 0..150 {
                crowd.push(Raw::speak(address, 65_535).await);
            }
        }
    }
    for _ in 0..5 {
        newcomer(&cluster).await;
    }
    // Replicas come by the same crowded doors.
    cluster[follower].kill().await;
    cluster[follower].start();
    cluster.caught_up(follower).await;
    let log = cluster[master].log();
    assert!(log.contains("had been idle for longest"), "operators are told: {log}");
    assert!(log.contains("arrive and say nothing"), "operators are told: {log}");
    drop(crowd);
    honest.unharmed(&cluster).await;
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "whoever runs it is told if it tries less than it should")]
async fn ten_thousand_idle_connections_are_held_and_cost_little() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let cluster = Cluster::start(PROGRAMS).await;
    let honest = Honest::begin(&cluster).await;
    // Other tests have connections too, and the replica keeps places for those who arrive.
    let wanted = 10_000.min(usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(2_500));
    if wanted < 10_000 {
        eprintln!("only {wanted} connections: the limit of open files is {hard} here");
    }
    let master = &cluster[cluster.master().await];
    let mut idle = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        let mut raw = Raw::speak(master.client_address(), 65_535).await;
        // Who was told the replica's settings is settled.
        raw.frame(&raw::call(1, "/nothing")).await;
        idle.push(raw);
    }
    for raw in &mut idle {
        raw.stream_ends(1).await;
    }
    let memory = master.memory_bytes();
    assert!(memory < MEMORY_MAX, "{memory} bytes for {wanted} connections");
    honest.unharmed(&cluster).await;
}

#[tokio::test]
async fn an_end_that_never_reads_is_cut_off_and_the_memory_that_it_holds_is_bounded() {
    // Thousands of the largest answers take a master that was built for tests a while, and it is not to be deposed for it.
    let cluster = Cluster::start_with(PROGRAMS, &[("election-ms", "4000")]).await;
    let honest = Honest::begin(&cluster).await;
    let cell = cluster.cell();
    cell.set_contents("/large", vec![7; 256 << 10], WriteOptions::new().create()).await.unwrap();
    let master = &cluster[cluster.master().await];

    // A session that asks for the large file over and over, and takes nothing.
    let mut raw = Raw::speak(master.client_address(), 0).await;
    raw.frame(&raw::call(1, SESSION)).await;
    let hello = Hello::Open(holdfast_proto::client::v1::OpenSession {
        client: "deaf".to_owned(),
        ..opening(b"a secret that nobody else knows.")
    });
    let open = Open { path: "/large".to_owned(), ..Open::default() };
    let request = |number, operation| Request { number, operation: Some(operation) };
    let requests = vec![request(1, Operation::Open(Box::new(open)))];
    raw.frame(&raw::message(
        1,
        &ClientFrame { hello: Some(hello), requests, ..ClientFrame::default() },
        false,
    ))
    .await;
    for number in 2..2_000 {
        let requests = vec![request(number, Operation::GetContents(GetContents { handle: 1 }))];
        raw.frame(&raw::message(1, &ClientFrame { requests, ..ClientFrame::default() }, false)).await;
    }
    eventually("the deaf session has lost its stream", async || {
        let sessions = cell.list_sessions().await.ok()?;
        let deaf = sessions.iter().find(|info| info.client == "deaf");
        deaf.is_none_or(|deaf| !deaf.attached).then_some(())
    })
    .await;

    // Calls for it, of which nobody takes more than the first byte of the answer.
    let mut raws = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::speak(master.client_address(), 1).await;
        for stream in (1..4_000).step_by(2) {
            raw.frame(&raw::call(stream, GET_CONTENTS)).await;
            let request = GetContentsRequest { path: "/large".to_owned() };
            raw.frame(&raw::message(stream, &request, true)).await;
        }
        raws.push(raw);
    }
    for raw in &mut raws {
        raw.stream_begins(3_999).await;
    }
    let memory = master.memory_bytes();
    assert!(memory < MEMORY_MAX, "{memory} bytes");
    honest.unharmed(&cluster).await;
}
