//! Connections by hand: bytes that no client would send, and frames of HTTP/2 that a client would send otherwise.

use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::wait::within;

/// What HTTP/2 begins with (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames (RFC 9113 §6).
pub const DATA: u8 = 0;
/// See [`DATA`].
pub const HEADERS: u8 = 1;
/// See [`DATA`].
pub const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
/// See [`DATA`].
pub const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// The flag of the last frame of a stream.
pub const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// The error of a stream that its client wants no more (RFC 9113 §7).
const CANCEL: u32 = 8;

/// A frame of HTTP/2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its kind.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The frame as bytes.
    ///
    /// # Panics
    ///
    /// If the payload is longer than any can be.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("payloads are short").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// The settings of a client that takes so many bytes on each stream before it says more.
#[must_use]
pub fn settings(window: u32) -> Frame {
    let payload = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()].concat();
    Frame { kind: SETTINGS, flags: 0, stream: 0, payload }
}

/// The beginning of a call of this method.
///
/// # Panics
///
/// If the method's name is too long for this.
#[must_use]
pub fn call(stream: u32, method: &str) -> Frame {
    // HPACK (RFC 7541): POST and http out of the table, and everything else spelt out.
    let mut payload = vec![0x83, 0x86];
    let mut spell = |start: &[u8], text: &str| {
        payload.extend(start);
        payload.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("names are short"));
        payload.extend(text.as_bytes());
    };
    spell(&[0x04], method);
    spell(&[0x01], "raw");
    spell(&[0x0f, 0x10], "application/grpc");
    spell(&[0x00, 2, b't', b'e'], "trailers");
    Frame { kind: HEADERS, flags: END_HEADERS, stream, payload }
}

/// A message on a stream, which ends with it if `last`.
///
/// # Panics
///
/// If the message is longer than one frame.
#[must_use]
pub fn message(stream: u32, message: &impl Message, last: bool) -> Frame {
    let body = message.encode_to_vec();
    assert!(body.len() < 16_000, "one frame is enough");
    let mut payload = vec![0];
    payload.extend(u32::try_from(body.len()).expect("it is short").to_be_bytes());
    payload.extend(body);
    Frame { kind: DATA, flags: if last { END_STREAM } else { 0 }, stream, payload }
}

/// Cancels a stream.
#[must_use]
pub fn reset(stream: u32) -> Frame {
    Frame { kind: RST_STREAM, flags: 0, stream, payload: CANCEL.to_be_bytes().to_vec() }
}

/// Lets the replica send so many bytes more on a stream, or on the connection if it is 0.
#[must_use]
pub fn more(stream: u32, bytes: u32) -> Frame {
    Frame { kind: WINDOW_UPDATE, flags: 0, stream, payload: bytes.to_be_bytes().to_vec() }
}

/// A connection.
#[derive(Debug)]
pub struct Raw(TcpStream);

impl Raw {
    /// Connects.
    ///
    /// # Panics
    ///
    /// If nobody listens.
    pub async fn connect(address: &str) -> Self {
        Self(within("a connection", TcpStream::connect(address)).await.expect("the replica listens"))
    }

    /// Connects, and begins HTTP/2 with these settings.
    pub async fn speak(address: &str, window: u32) -> Self {
        let mut raw = Self::connect(address).await;
        raw.send(PREFACE).await;
        raw.send(&settings(window).encode()).await;
        raw
    }

    /// Sends bytes, if they are wanted.
    pub async fn send(&mut self, bytes: &[u8]) {
        // Whoever has closed the connection already is seen when it is read from.
        let _ = within("bytes to be taken", self.0.write_all(bytes)).await;
    }

    /// Sends a frame.
    pub async fn frame(&mut self, frame: &Frame) {
        self.send(&frame.encode()).await;
    }

    /// Sends a byte each time that this passes, until the connection is closed, over and over the same bytes.
    pub async fn dribble(&mut self, bytes: &[u8], pause: Duration) {
        let closed = async {
            let mut bytes = bytes.iter().cycle();
            let mut scratch = [0; 1024];
            loop {
                tokio::select! {
                    read = self.0.read(&mut scratch) => if !matches!(read, Ok(1..)) { return },
                    () = tokio::time::sleep(pause) => {
                        let byte = bytes.next().copied().unwrap_or_default();
                        if self.0.write_all(&[byte]).await.is_err() {
                            return;
                        }
                    }
                }
            }
        };
        within("the replica closes the connection", closed).await;
    }

    /// Waits until the other end has closed the connection, whatever it says before.
    pub async fn closed(&mut self) {
        let mut scratch = [0; 1024];
        let closed = async { while matches!(self.0.read(&mut scratch).await, Ok(1..)) {} };
        within("the replica closes the connection", closed).await;
    }

    /// The next frame that is neither about settings nor a window's; pings are answered. `None` at the end.
    ///
    /// # Panics
    ///
    /// If nothing comes.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            within("a frame", self.0.read_exact(&mut head)).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length];
            within("a frame", self.0.read_exact(&mut payload)).await.ok()?;
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => {
                    let ack = Frame { kind: SETTINGS, flags: ACK, stream: 0, payload: Vec::new() };
                    self.frame(&ack).await;
                }
                PING if frame.flags & ACK == 0 => self.frame(&Frame { flags: ACK, ..frame }).await,
                DATA | HEADERS | RST_STREAM | GOAWAY => return Some(frame),
                _ => {}
            }
        }
    }

    /// Waits until the replica says anything on a stream, or ends the connection.
    pub async fn stream_begins(&mut self, stream: u32) {
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY || frame.stream == stream {
                return;
            }
        }
    }

    /// Waits until the replica ends a stream, by its own word or by an error, or the connection.
    pub async fn stream_ends(&mut self, stream: u32) {
        while let Some(frame) = self.next().await {
            let ends = frame.kind == RST_STREAM || frame.flags & END_STREAM != 0;
            if frame.kind == GOAWAY || (frame.stream == stream && ends) {
                return;
            }
        }
    }
}
