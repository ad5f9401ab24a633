//! One client's large writes, and what others wait for meanwhile (ADR 0012).

use bytes::Bytes;
use holdfast_proto::client::v1::{self as client, ClientFrame, Open, SetContents, request::Operation};
use holdfast_proto::log::v1::{Batch, SessionRequest, command::Kind};
use holdfast_types::{ConnectionId, Duration, ReplicaId};

use prost::Message as _;

use crate::table::{Cell, defaults, open_frame};

const WRITERS: u64 = 8;
const WRITES: u64 = 16;
const BYTES: usize = 256 << 10;
const SMALL: usize = 100;
/// The stream of a session that writes little.
const HONEST: ConnectionId = ConnectionId(100);

fn request(number: u64, operation: Operation) -> client::Request {
    client::Request { number, operation: Some(operation) }
}

fn frame(requests: Vec<client::Request>) -> ClientFrame {
    ClientFrame { requests, ..ClientFrame::default() }
}

fn write(number: u64, bytes: usize) -> client::Request {
    let contents = Bytes::from(vec![7; bytes]);
    request(number, Operation::SetContents(SetContents { handle: 1, contents, if_generation: None }))
}

/// A session on this stream, with a file of its own as handle 1.
fn session(cell: &mut Cell, master: ReplicaId, connection: ConnectionId, name: &str) {
    cell.frame(master, connection, open_frame(name));
    cell.settle();
    let creation = client::Creation::Must.into();
    let open = Open { path: format!("/{name}"), creation, ..Open::default() };
    cell.frame(master, connection, frame(vec![request(1, Operation::Open(Box::new(open)))]));
    cell.settle();
}

/// A cell in which every writer has all of its writes under way.
fn burdened_cell() -> (Cell, ReplicaId) {
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    for writer in 0..WRITERS {
        let name = char::from(b'a' + u8::try_from(writer).unwrap());
        session(&mut cell, master, ConnectionId(1 + writer), &name.to_string());
    }
    session(&mut cell, master, HONEST, "z");
    (cell, master)
}

fn burden(cell: &mut Cell, master: ReplicaId) {
    for writer in 0..WRITERS {
        let writes = (2..2 + WRITES).map(|number| write(number, BYTES)).collect();
        cell.frame(master, ConnectionId(1 + writer), frame(writes));
    }
}

/// The bytes that the replica's log has on disk.
fn log_bytes(cell: &Cell, id: ReplicaId) -> usize {
    cell.host(id).disk.entries.iter().map(|entry| entry.data.len()).sum()
}

/// Whether the entry has the honest session's write.
fn has_small_write(data: &[u8]) -> bool {
    let batch = Batch::decode(data).expect("a batch");
    batch.commands.iter().any(|command| match &command.kind {
        Some(Kind::Request(SessionRequest { request: Some(request), .. })) => {
            matches!(&request.operation, Some(Operation::SetContents(write)) if write.contents.len() == SMALL)
        }
        _ => false,
    })
}

/// How many requests were answered on these streams.
fn replies(cell: &Cell, master: ReplicaId, of: impl Fn(ConnectionId) -> bool) -> u64 {
    let frames = cell.host(master).frames.iter().filter(|(to, _)| of(*to));
    frames.map(|(_, frame)| frame.replies.len() as u64).sum()
}

#[test]
fn a_small_write_does_not_wait_for_all_large_ones_that_came_before_it() {
    let (mut cell, master) = burdened_cell();
    let before = log_bytes(&cell, master);
    burden(&mut cell, master);
    cell.frame(master, HONEST, frame(vec![write(2, SMALL)]));
    cell.pass(Duration::from_millis(1));
    assert_eq!(replies(&cell, master, |to| to == HONEST), 2);
    // The log up to the entry that has it.
    let mut bytes = 0;
    for entry in &cell.host(master).disk.entries {
        bytes += entry.data.len();
        if has_small_write(&entry.data) {
            break;
        }
    }
    let bytes = bytes - before;
    // Each writer has a share: one write of each, and the one that a turn goes beyond its budget.
    let shares = (usize::try_from(WRITERS).unwrap() + 1) * (BYTES + 1_000);
    assert!(bytes < shares, "{bytes} bytes of the log came before it");
    assert_eq!(replies(&cell, master, |to| to != HONEST), WRITERS * (1 + WRITES), "all are written");
}

#[test]
fn a_small_write_does_not_wait_for_thousands_of_others_that_came_before_it() {
    let (mut cell, master) = burdened_cell();
    let before = log_bytes(&cell, master);
    cell.hosts.values_mut().for_each(|host| host.slow = true);
    for writer in 0..WRITERS {
        let writes = (2..1_002).map(|number| write(number, 1_000)).collect();
        cell.frame(master, ConnectionId(1 + writer), frame(writes));
    }
    cell.frame(master, HONEST, frame(vec![write(2, SMALL)]));
    cell.pass(Duration::from_millis(20));
    let on_the_way = &cell.host(master).disk.entries;
    assert!(on_the_way.iter().any(|entry| has_small_write(&entry.data)), "it is among the first");
    let bytes = log_bytes(&cell, master) - before;
    assert!(
        (768 << 10..1 << 20).contains(&bytes),
        "{bytes} bytes are on their way, of {}",
        1_000_000 * WRITERS
    );
    cell.hosts.values_mut().for_each(|host| host.slow = false);
    cell.pass(Duration::from_millis(200));
    assert_eq!(replies(&cell, master, |_| true), WRITERS * 1_001 + 2, "and then all are written");
}

#[test]
fn large_writes_fill_the_log_no_further_than_a_slow_disk_takes_them_and_small_ones_go_on() {
    let (mut cell, master) = burdened_cell();
    let before = log_bytes(&cell, master);
    cell.hosts.values_mut().for_each(|host| host.slow = true);
    burden(&mut cell, master);
    cell.pass(Duration::from_millis(20));
    let bytes = log_bytes(&cell, master) - before;
    assert!((256 << 10..512 << 10).contains(&bytes), "{bytes} bytes are on their way");
    cell.frame(master, HONEST, frame(vec![write(2, SMALL)]));
    cell.pass(Duration::from_millis(1));
    let more = log_bytes(&cell, master) - before - bytes;
    assert!((100..1_000).contains(&more), "{more} bytes: the small write is next");
    cell.hosts.values_mut().for_each(|host| host.slow = false);
    // The writers of large files let others go first, for as long as they have filled the log.
    cell.pass(Duration::from_millis(100));
    assert_eq!(replies(&cell, master, |_| true), WRITERS * (1 + WRITES) + 2, "and then all are written");
}
