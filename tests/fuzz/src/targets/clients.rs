//! What clients send to a replica with a master in office: frames and calls.
//!
//! Whatever one client says, the replica has no fault, its state is consistent, and whoever comes next is answered.

use holdfast_proto::client::v1 as client;
use holdfast_proto::client::v1::{ClientFrame, client_frame::Hello};
use holdfast_replica::{CallRequest, Input};
use holdfast_types::{ConnectionId, Duration};
use prost::Message;

use crate::{Office, Source, messages};

/// The streams that the bad client has.
const STREAMS: u8 = 4;
/// The stream of the client that comes afterwards.
const HONEST: u64 = 99;

/// Frames of clients' streams, and what may happen between them.
///
/// # Panics
///
/// If the replica does not take them as it must.
pub fn client_frames(data: &[u8]) {
    let source = &mut Source::new(data);
    let mut office = Office::of_one();
    while !source.is_empty() {
        let connection = u64::from(source.byte() % STREAMS);
        match source.byte() % 16 {
            0 => {
                let disconnected = Input::Disconnected { connection: ConnectionId(connection) };
                office.input(disconnected).expect("no client causes a fault");
            }
            1 => wait(&mut office, source),
            2 => {
                office.call(messages::client::call(source)).expect("no client causes a fault");
            }
            3 | 4 => {
                let length = usize::from(source.byte());
                // What does not decode does not get here.
                if let Ok(frame) = ClientFrame::decode(source.slice(length)) {
                    office.frame(connection, frame).expect("no client causes a fault");
                }
            }
            _ => {
                let frame = messages::client::frame(source);
                office.frame(connection, frame).expect("no client causes a fault");
            }
        }
    }
    check(&mut office);
}

/// Unary requests.
///
/// # Panics
///
/// If the replica does not take them as it must.
pub fn calls(data: &[u8]) {
    let source = &mut Source::new(data);
    let mut office = Office::of_one();
    while !source.is_empty() {
        match source.byte() % 8 {
            0 => wait(&mut office, source),
            1 | 2 => {
                let kind = source.byte();
                let length = usize::from(source.byte());
                if let Some(request) = decoded(kind, source.slice(length)) {
                    office.call(request).expect("no client causes a fault");
                }
            }
            _ => {
                office.call(messages::client::call(source)).expect("no client causes a fault");
            }
        }
    }
    check(&mut office);
}

/// A request of one of the kinds, if the bytes are one.
fn decoded(kind: u8, bytes: &[u8]) -> Option<CallRequest> {
    Some(match kind % 10 {
        0 => CallRequest::GetContents(Message::decode(bytes).ok()?),
        1 => CallRequest::GetStat(Message::decode(bytes).ok()?),
        2 => CallRequest::ReadDir(Message::decode(bytes).ok()?),
        3 => CallRequest::SetContents(Message::decode(bytes).ok()?),
        4 => CallRequest::Delete(Message::decode(bytes).ok()?),
        5 => CallRequest::CheckSequencer(Message::decode(bytes).ok()?),
        6 => CallRequest::SetAcl(Message::decode(bytes).ok()?),
        7 => CallRequest::ChangeSettings(Message::decode(bytes).ok()?),
        8 => CallRequest::ListSessions(Message::decode(bytes).ok()?),
        _ => CallRequest::ListHandles(Message::decode(bytes).ok()?),
    })
}

fn wait(office: &mut Office, source: &mut Source<'_>) {
    let ms = source.pick(&[0, 1, 60, 3_000]);
    office.pass(Duration::from_millis(ms)).expect("time causes no fault");
}

/// What holds whatever was said.
fn check(office: &mut Office) {
    office.replica.state().check_invariants();
    if !office.replica.is_master() {
        // The cell was given members that do not exist, which is the right of whoever administers it.
        return;
    }
    let opening = client::OpenSession {
        secret: vec![HONEST as u8; 32].into(),
        lease_ms: 10_000,
        attachment: 1,
        ..client::OpenSession::default()
    };
    let frame = ClientFrame { hello: Some(Hello::Open(opening)), ..ClientFrame::default() };
    office.frame(HONEST, frame).expect("no client causes a fault");
    let call = office.call(CallRequest::GetSettings).expect("no client causes a fault");
    // A call that must first confirm the leadership is answered when that is done.
    office.pass(Duration::from_millis(200)).expect("time causes no fault");
    if !office.replica.is_master() {
        return;
    }
    assert!(office.is_answered(call), "the honest call is answered");
    assert!(office.told.contains(&ConnectionId(HONEST)), "the honest stream is answered");
    office.replica.state().check_invariants();
}
