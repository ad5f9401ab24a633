//! Streams that share a connection, as those of a gateway's clients do. Whatever one of them does, it costs the others
//! nothing: each attack here is made by the HTTP/2 frames of one connection, on which a session lives that must stay alive.

use std::collections::BTreeSet;

use holdfast::{Cell, WriteOptions};
use holdfast_e2e::raw::{self, Frame, Raw};
use holdfast_e2e::wire::opening;
use holdfast_proto::client::v1::{
    ClientFrame, GetContentsRequest, GetStat, KeepAlive, OpenSession, Request, ServerFrame,
    client_frame::Hello, request::Operation, server_frame,
};
use holdfast_server::dev::{DevCell, DevOptions};
use prost::Message as _;
use slog::{Discard, Logger, o};

const SESSION: &str = "/holdfast.client.v1.Cell/Session";
const GET_CONTENTS: &str = "/holdfast.client.v1.Cell/GetContents";
/// A client may send so much on a stream before it hears of the replica's settings.
const WINDOW: usize = 65_535;
const PREFIX_BYTES: usize = 5;

/// The stream of the session that minds its own business.
const NEIGHBOUR: u32 = 1;

/// A connection, on which nothing is taken from the replica but what the neighbour is sent.
struct Shared {
    raw: Raw,
    keep_alives: u64,
    /// What has come on the neighbour's stream and is no whole message yet.
    heard: Vec<u8>,
    /// Streams that the replica has ended by an error.
    ended: BTreeSet<u32>,
}

impl Shared {
    async fn begin(address: &str) -> Self {
        let mut raw = Raw::speak(address, 0).await;
        raw.frame(&raw::more(0, 1 << 30)).await;
        raw.frame(&raw::call(NEIGHBOUR, SESSION)).await;
        raw.frame(&raw::more(NEIGHBOUR, 1 << 20)).await;
        raw.frame(&raw::message(NEIGHBOUR, &hello(NEIGHBOUR), false)).await;
        let mut shared = Self { raw, keep_alives: 0, heard: Vec::new(), ended: BTreeSet::new() };
        let first = shared.next().await;
        assert!(matches!(first.hello, Some(server_frame::Hello::Opened(_))), "{first:?}");
        shared
    }

    /// The next frame of the neighbour's session.
    async fn next(&mut self) -> ServerFrame {
        loop {
            if let Some((prefix, rest)) = self.heard.split_first_chunk::<PREFIX_BYTES>() {
                let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
                if let Some(message) = rest.get(..length) {
                    let frame = ServerFrame::decode(message).unwrap();
                    self.heard.drain(..PREFIX_BYTES + length);
                    return frame;
                }
            }
            self.hear().await;
        }
    }

    /// Takes a frame of HTTP/2.
    async fn hear(&mut self) {
        let frame = self.raw.next().await.expect("the connection lives");
        match frame.kind {
            raw::GOAWAY => panic!("the connection ends: {}", frame.payload.escape_ascii()),
            raw::DATA if frame.stream == NEIGHBOUR => self.heard.extend(frame.payload),
            raw::RST_STREAM => {
                assert_ne!(frame.stream, NEIGHBOUR, "the neighbour's stream ends");
                self.ended.insert(frame.stream);
            }
            _ => {}
        }
    }

    /// The neighbour's session is kept alive.
    async fn neighbour_lives(&mut self) {
        self.keep_alives += 1;
        let keep_alive = Some(KeepAlive { number: self.keep_alives });
        let frame = ClientFrame { keep_alive, ..ClientFrame::default() };
        self.raw.frame(&raw::message(NEIGHBOUR, &frame, false)).await;
        while self.next().await.lease.is_none_or(|lease| lease.number != self.keep_alives) {}
    }
}

/// Opens a session of the stream's own.
fn hello(stream: u32) -> ClientFrame {
    let secret = format!("the secret of stream {stream:>10}");
    let open = OpenSession { lease_ms: 60_000, ..opening(secret.as_bytes()) };
    ClientFrame { hello: Some(Hello::Open(open)), ..ClientFrame::default() }
}

/// Frames of one small request each, of so many bytes at most without what HTTP/2 adds.
fn small_frames(stream: u32, bytes_max: usize) -> Vec<u8> {
    let (mut frames, mut bytes) = (Vec::new(), 0);
    for number in 1.. {
        let request = Request { number, operation: Some(Operation::GetStat(GetStat { handle: 1 })) };
        let frame = ClientFrame { requests: vec![request], ..ClientFrame::default() };
        let frame = raw::message(stream, &frame, false);
        bytes += frame.payload.len();
        if bytes > bytes_max {
            break;
        }
        frames.extend(frame.encode());
    }
    frames
}

/// The streams that a client begins after the neighbour's.
fn streams(count: usize) -> impl Iterator<Item = u32> {
    (NEIGHBOUR + 2..).step_by(2).take(count)
}

async fn cell() -> (DevCell, String) {
    let options = DevOptions { replicas: 1, ..DevOptions::default() };
    let mut cell = DevCell::start(options, Logger::root(Discard, o!())).await.unwrap();
    cell.master().await.unwrap();
    let address = cell.addresses().remove(0);
    (cell, address)
}

#[tokio::test]
async fn thousands_of_small_frames_at_once_whose_replies_are_not_read_cost_a_neighbour_nothing() {
    let (cell, address) = cell().await;
    let mut shared = Shared::begin(&address).await;
    let mut bytes = Vec::new();
    for stream in streams(8) {
        bytes.extend(raw::call(stream, SESSION).encode());
        let hello = raw::message(stream, &hello(stream), false);
        bytes.extend(hello.encode());
        bytes.extend(small_frames(stream, WINDOW - hello.payload.len()));
    }
    shared.raw.send(&bytes).await;
    shared.neighbour_lives().await;
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn frames_that_come_after_their_streams_have_ended_cost_a_neighbour_nothing() {
    let (cell, address) = cell().await;
    let mut shared = Shared::begin(&address).await;
    // More than HTTP/2's library remembers.
    for stream in streams(100) {
        shared.raw.frame(&raw::call(stream, SESSION)).await;
        shared.raw.frame(&raw::more(stream, 1 << 16)).await;
        // It should have a hello.
        shared.raw.frame(&raw::message(stream, &ClientFrame::default(), false)).await;
        shared.raw.stream_ends(stream).await;
    }
    for stream in streams(100) {
        shared.raw.send(&small_frames(stream, 2_000)).await;
        shared.neighbour_lives().await;
    }
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn thousands_of_cancelled_calls_cost_a_neighbour_nothing() {
    let (cell, address) = cell().await;
    let mut shared = Shared::begin(&address).await;
    let mut streams = streams(usize::MAX);
    for count in [300, 1_000, 8_000] {
        let mut bytes = Vec::new();
        for stream in streams.by_ref().take(count) {
            bytes.extend(raw::call(stream, GET_CONTENTS).encode());
            let request = GetContentsRequest { path: "/file".to_owned() };
            bytes.extend(raw::message(stream, &request, true).encode());
            bytes.extend(raw::reset(stream).encode());
        }
        shared.raw.send(&bytes).await;
        shared.neighbour_lives().await;
    }
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn any_number_of_streams_that_break_the_rules_cost_a_neighbour_nothing() {
    let (cell, address) = cell().await;
    let mut shared = Shared::begin(&address).await;
    let too_long = [&[0][..], &u32::to_be_bytes((4 << 20) + 1)].concat();
    // What follows the headers of a call in its header block, and the bytes of its message. HPACK (RFC 7541): a header of
    // the static table, and others that are spelt out.
    let longer_than_it_says = (b"\x0f\x0d\x011".to_vec(), vec![0; 64]);
    let of_a_connection = (b"\x00\x0aconnection\x01x".to_vec(), Vec::new());
    let long_headers = ([&b"\x00\x01x\x7f\xa1\x9b\x01"[..], &[b'y'; 20_000]].concat(), Vec::new());
    let mut streams = streams(usize::MAX);
    for (headers, message) in [longer_than_it_says, of_a_connection, long_headers, (Vec::new(), too_long)] {
        for stream in streams.by_ref().take(1_100) {
            let mut call = raw::call(stream, GET_CONTENTS);
            call.payload.extend(&headers);
            let (first, rest) = call.payload.split_at(call.payload.len().min(16_000));
            let flags = if rest.is_empty() { call.flags } else { 0 };
            shared.raw.frame(&Frame { flags, payload: first.to_vec(), ..call }).await;
            if !rest.is_empty() {
                const CONTINUATION: u8 = 9;
                let rest = Frame { kind: CONTINUATION, payload: rest.to_vec(), ..call };
                shared.raw.frame(&rest).await;
            }
            let flags = if message.is_empty() { raw::END_STREAM } else { 0 };
            shared.raw.frame(&Frame { kind: raw::DATA, flags, stream, payload: message.clone() }).await;
        }
        shared.neighbour_lives().await;
    }
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn streams_that_do_not_read_what_they_were_sent_end_without_their_neighbour() {
    let (cell, address) = cell().await;
    let client = Cell::connect([address.clone()]).unwrap();
    client.set_contents("/large", vec![7; 64 << 10], WriteOptions::new().create()).await.unwrap();
    let mut shared = Shared::begin(&address).await;
    // A refusal, since there is no hello; replies of a session, and a refusal, since there is a second hello; a long answer.
    let (refused, session, answered) = (3, 5, 7);
    shared.raw.frame(&raw::call(refused, SESSION)).await;
    shared.raw.frame(&raw::message(refused, &ClientFrame::default(), false)).await;
    shared.raw.frame(&raw::call(session, SESSION)).await;
    let hello = raw::message(session, &hello(session), false);
    shared.raw.frame(&hello).await;
    shared.raw.send(&small_frames(session, WINDOW / 2)).await;
    shared.raw.frame(&hello).await;
    shared.raw.frame(&raw::call(answered, GET_CONTENTS)).await;
    let request = GetContentsRequest { path: "/large".to_owned() };
    shared.raw.frame(&raw::message(answered, &request, true)).await;
    shared.neighbour_lives().await;
    while !shared.ended.is_superset(&BTreeSet::from([refused, session, answered])) {
        shared.hear().await;
    }
    shared.neighbour_lives().await;
    cell.stop().await.unwrap();
}
