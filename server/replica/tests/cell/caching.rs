//! A client that caches, through the death of its master.

use holdfast_proto::client::v1::{
    self as client, AttachSession, ClientFrame, GetContents, Open, Reply, client_frame, outcome,
    request::Operation, server_frame::Hello,
};
use holdfast_replica::CallAnswer;
use holdfast_types::{ConnectionId, ReplicaId};

use crate::table::{Cell, defaults, open_frame};

fn request(number: u64, operation: Operation) -> ClientFrame {
    let requests = vec![client::Request { number, operation: Some(operation) }];
    ClientFrame { requests, ..ClientFrame::default() }
}

/// Opens a session that has a caching handle on `/a`, number 1; gives its id.
fn caching_session(cell: &mut Cell, master: ReplicaId, connection: ConnectionId) -> u64 {
    cell.frame(master, connection, open_frame("s"));
    cell.settle();
    let open = Open {
        path: "/a".to_owned(),
        creation: client::Creation::May.into(),
        caching: true,
        ..Open::default()
    };
    cell.frame(master, connection, request(1, Operation::Open(Box::new(open))));
    cell.settle();
    let opened = cell.host(master).frames.iter().find_map(|(_, frame)| match &frame.hello {
        Some(Hello::Opened(opened)) => Some(opened.session),
        _ => None,
    });
    opened.expect("the session is open")
}

/// Reads through the caching handle; gives the answer.
fn read(cell: &mut Cell, master: ReplicaId, connection: ConnectionId, number: u64) -> Reply {
    cell.frame(master, connection, request(number, Operation::GetContents(GetContents { handle: 1 })));
    cell.settle();
    let mut replies = cell.host(master).frames.iter().flat_map(|(_, frame)| &frame.replies);
    replies.find(|reply| reply.number == number).expect("the read was answered").clone()
}

fn contents(reply: Reply) -> bytes::Bytes {
    match reply.outcome.and_then(|outcome| outcome.result) {
        Some(outcome::Result::Contents(contents)) => contents.contents,
        other => panic!("{other:?} are no contents"),
    }
}

#[test]
fn after_a_masters_death_a_write_waits_for_the_client_that_cached_the_node_and_no_other_does() {
    let mut cell = Cell::new(defaults);
    let old = cell.elect();
    let session = caching_session(&mut cell, old, ConnectionId(1));
    assert!(read(&mut cell, old, ConnectionId(1), 2).cacheable);
    cell.crash(old);
    let new = cell.elect();
    cell.put(new, 1, "/a", "new".into());
    cell.put(new, 2, "/b", "other".into());
    assert!(matches!(cell.answer(new, 2), Some(Ok(CallAnswer::SetContents(_)))));
    assert_eq!(cell.answer(new, 1), None, "the client may be reading the old contents from its cache");
    // It comes back, with an empty cache.
    let (secret, cell_name) = ("s".repeat(16).into(), "dev".to_owned());
    let attach =
        AttachSession { cell: cell_name, session, secret, attachment: 2, ..AttachSession::default() };
    let hello = Some(client_frame::Hello::Attach(attach));
    cell.frame(new, ConnectionId(2), ClientFrame { hello, ..ClientFrame::default() });
    cell.settle();
    assert!(matches!(cell.answer(new, 1), Some(Ok(CallAnswer::SetContents(_)))));
    let reply = read(&mut cell, new, ConnectionId(2), 3);
    assert!(reply.cacheable, "the write is applied");
    assert_eq!(contents(reply), "new");
}
