//! A snapshot as bytes: the one format of the files and of what replicas send each other.
//!
//! ```text
//! snapshot  "HFSNAP", u16 version; then frames: one header, records, one end
//! frame     u8 kind, u32 length of the payload, u64 checksum, payload
//! header    u64 cell id, u64 index, u64 term, u32 count and u64s of voters, the same of learners
//! records   what State::snapshot_records() gives; opaque here
//! end       u64 number of record frames, u64 bytes of their payloads
//! ```
//!
//! Numbers are little-endian. A frame's checksum is xxh3 over kind, length and payload, seeded with the frame's
//! number and the frame before it: so a frame that is damaged, missing, repeated or out of place is found at that
//! frame, and what was checked frame by frame is checked as a whole.
//!
//! What other modules use: [`SnapshotEncoder`], an iterator of chunks; [`SnapshotDecoder`], which takes bytes cut
//! up in any way. Invariant: what `finish` gives is, record for record, what was encoded, or there is an error.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use holdfast_replica::StateAt;
use holdfast_state::{SnapshotError as StateError, SnapshotReader, SnapshotWriter};
use holdfast_types::Term;
use xxhash_rust::xxh3::Xxh3;

/// What a snapshot begins with. The number after it is the format's version.
const MAGIC: &[u8; 6] = b"HFSNAP";
const VERSION: u16 = 1;
const START_BYTES: usize = MAGIC.len() + 2;

const FRAME_HEADER_BYTES: usize = 1 + 4 + 8;

/// No frame is longer: a length beyond this is damage, and nothing is allocated for it.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// Why bytes are no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// They are not what was encoded.
    #[error("at byte {offset}: {what}")]
    Damaged {
        /// Where it was noticed.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// They may be right, and this program is too old to read them.
    #[error("{what}")]
    TooNew {
        /// What would be needed.
        what: String,
    },
}

impl SnapshotError {
    fn of_state(offset: u64, error: StateError) -> Self {
        match error {
            StateError::UnknownVersion { .. } => Self::TooNew { what: error.to_string() },
            damage => Self::Damaged { offset, what: damage.to_string() },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Header = 1,
    Records = 2,
    End = 3,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Header, Self::Records, Self::End].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What chains the frames' checksums.
#[derive(Debug, Default)]
struct Chain {
    frames: u64,
    last: u64,
}

impl Chain {
    fn checksum(&mut self, kind: Kind, payload: &[u8]) -> u64 {
        let mut hash = Xxh3::with_seed(self.last ^ self.frames);
        hash.update(&[kind as u8]);
        hash.update(&(payload.len() as u64).to_le_bytes());
        hash.update(payload);
        self.frames += 1;
        self.last = hash.digest();
        self.last
    }
}

/// A snapshot's bytes, in chunks of some ten KiB. Cheap to make; the state is read as the chunks are taken.
pub struct SnapshotEncoder {
    /// Taken when it is encoded.
    header: Option<Bytes>,
    records: SnapshotWriter,
    record_frames: u64,
    record_bytes: u64,
    chain: Chain,
    /// The end was given out.
    ended: bool,
}

impl SnapshotEncoder {
    /// The snapshot of `at`.
    #[must_use]
    pub fn new(at: &StateAt) -> Self {
        Self {
            header: Some(encode_header(at)),
            records: at.state.snapshot_records(),
            record_frames: 0,
            record_bytes: 0,
            chain: Chain::default(),
            ended: false,
        }
    }

    fn frame(&mut self, kind: Kind, payload: &[u8], before: &[u8]) -> Bytes {
        let length = u32::try_from(payload.len()).expect("a frame is below its greatest length");
        let mut frame = BytesMut::with_capacity(before.len() + FRAME_HEADER_BYTES + payload.len());
        frame.put_slice(before);
        frame.put_u8(kind as u8);
        frame.put_u32_le(length);
        frame.put_u64_le(self.chain.checksum(kind, payload));
        frame.put_slice(payload);
        frame.freeze()
    }
}

impl Iterator for SnapshotEncoder {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(header) = self.header.take() {
            let start = [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat();
            return Some(self.frame(Kind::Header, &header, &start));
        }
        if let Some(records) = self.records.next() {
            assert!(records.len() <= FRAME_BYTES_MAX, "the state gives its records in small chunks");
            self.record_frames += 1;
            self.record_bytes += records.len() as u64;
            return Some(self.frame(Kind::Records, &records, &[]));
        }
        if self.ended {
            return None;
        }
        self.ended = true;
        let totals = [self.record_frames.to_le_bytes(), self.record_bytes.to_le_bytes()].concat();
        Some(self.frame(Kind::End, &totals, &[]))
    }
}

fn encode_header(at: &StateAt) -> Bytes {
    let mut header = BytesMut::new();
    header.put_u64_le(at.state.cell_id());
    header.put_u64_le(at.index);
    header.put_u64_le(at.term.0);
    for ids in [&at.voters, &at.learners] {
        header.put_u32_le(u32::try_from(ids.len()).expect("a cell has a few replicas"));
        ids.iter().for_each(|id| header.put_u64_le(*id));
    }
    header.freeze()
}

/// What a header frame says.
#[derive(Debug)]
struct Header {
    cell_id: u64,
    index: u64,
    term: Term,
    voters: Vec<u64>,
    learners: Vec<u64>,
}

/// Turns a snapshot's bytes into the state that they hold, checking everything on the way.
pub struct SnapshotDecoder {
    /// The cell that the snapshot must be of.
    cell_id: u64,
    /// Bytes that are no whole frame yet.
    pending: BytesMut,
    /// How many bytes came before `pending`.
    offset: u64,
    header: Option<Header>,
    records: SnapshotReader,
    record_frames: u64,
    record_bytes: u64,
    chain: Chain,
    ended: bool,
}

impl SnapshotDecoder {
    /// For a snapshot of the cell with this id.
    #[must_use]
    pub fn new(cell_id: u64) -> Self {
        Self {
            cell_id,
            pending: BytesMut::new(),
            offset: 0,
            header: None,
            records: SnapshotReader::new(),
            record_frames: 0,
            record_bytes: 0,
            chain: Chain::default(),
            ended: false,
        }
    }

    /// Takes the next bytes, however they were cut up.
    ///
    /// # Errors
    ///
    /// What is wrong, and where. The decoder is of no use afterwards.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.pending.extend_from_slice(bytes);
        if self.offset == 0 && !self.take_start()? {
            return Ok(());
        }
        while let Some((kind, payload)) = self.take_frame()? {
            self.handle_frame(kind, &payload)?;
        }
        Ok(())
    }

    /// The snapshot, once all its bytes were pushed.
    ///
    /// # Errors
    ///
    /// If it is not complete, or not consistent in itself.
    pub fn finish(self) -> Result<StateAt, SnapshotError> {
        let Self { cell_id, offset, pending, header, records, ended, .. } = self;
        let offset = offset + pending.len() as u64;
        let damaged = |what: &str| SnapshotError::Damaged { offset, what: what.to_owned() };
        let header = header.filter(|_| ended).ok_or_else(|| damaged("it ends before its end frame"))?;
        let state = records.finish().map_err(|error| SnapshotError::of_state(offset, error))?;
        if state.cell_id() != cell_id {
            return Err(damaged("its header and its state are of two cells"));
        }
        let Header { index, term, voters, learners, .. } = header;
        Ok(StateAt { index, term, voters, learners, state })
    }

    fn error(&self, what: impl Into<String>) -> SnapshotError {
        SnapshotError::Damaged { offset: self.offset, what: what.into() }
    }

    /// Whether magic and version have come, and are right.
    fn take_start(&mut self) -> Result<bool, SnapshotError> {
        if self.pending.len() < START_BYTES {
            return Ok(false);
        }
        if !self.pending.starts_with(MAGIC) {
            return Err(self.error("it does not begin like a snapshot"));
        }
        let version = u16::from_le_bytes([self.pending[MAGIC.len()], self.pending[MAGIC.len() + 1]]);
        if version != VERSION {
            let what = format!(
                "its format has version {version}, and this version of holdfast reads {VERSION}: upgrade this replica"
            );
            return Err(SnapshotError::TooNew { what });
        }
        self.advance(START_BYTES);
        Ok(true)
    }

    fn advance(&mut self, bytes: usize) {
        self.pending.advance(bytes);
        self.offset += bytes as u64;
    }

    /// The next frame, checked, if all of it has come.
    fn take_frame(&mut self) -> Result<Option<(Kind, Bytes)>, SnapshotError> {
        if self.ended && !self.pending.is_empty() {
            return Err(self.error("bytes follow its end"));
        }
        let Some(mut head) = self.pending.get(..FRAME_HEADER_BYTES) else { return Ok(None) };
        let (kind, length, checksum) = (head.get_u8(), head.get_u32_le() as usize, head.get_u64_le());
        let kind =
            Kind::from_byte(kind).ok_or_else(|| self.error(format!("no frame has the kind {kind}")))?;
        if length > FRAME_BYTES_MAX {
            return Err(self.error(format!("a frame of {length} bytes is longer than any")));
        }
        if self.pending.len() < FRAME_HEADER_BYTES + length {
            return Ok(None);
        }
        if self.chain.checksum(kind, &self.pending[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length])
            != checksum
        {
            return Err(self.error("a frame's checksum does not match"));
        }
        self.advance(FRAME_HEADER_BYTES);
        self.offset += length as u64;
        Ok(Some((kind, self.pending.split_to(length).freeze())))
    }

    fn handle_frame(&mut self, kind: Kind, payload: &Bytes) -> Result<(), SnapshotError> {
        match (kind, &self.header) {
            (Kind::Header, None) => {
                let header =
                    decode_header(payload.clone()).ok_or_else(|| self.error("its header is malformed"))?;
                if header.cell_id != self.cell_id {
                    return Err(self.error(format!(
                        "it is a snapshot of the cell {:016x}, and this is the cell {:016x}",
                        header.cell_id, self.cell_id
                    )));
                }
                self.header = Some(header);
            }
            (Kind::Records, Some(_)) => {
                self.record_frames += 1;
                self.record_bytes += payload.len() as u64;
                self.records.push(payload).map_err(|error| SnapshotError::of_state(self.offset, error))?;
            }
            (Kind::End, Some(_)) => {
                let totals = [self.record_frames.to_le_bytes(), self.record_bytes.to_le_bytes()].concat();
                if *payload != totals {
                    return Err(self.error("its totals do not add up"));
                }
                self.ended = true;
            }
            (Kind::Header, Some(_)) => return Err(self.error("it has two headers")),
            (Kind::Records | Kind::End, None) => return Err(self.error("it has no header")),
        }
        Ok(())
    }
}

fn decode_header(mut payload: Bytes) -> Option<Header> {
    let cell_id = payload.try_get_u64_le().ok()?;
    let index = payload.try_get_u64_le().ok()?;
    let term = Term(payload.try_get_u64_le().ok()?);
    let voters = decode_ids(&mut payload)?;
    let learners = decode_ids(&mut payload)?;
    payload.is_empty().then_some(Header { cell_id, index, term, voters, learners })
}

fn decode_ids(payload: &mut Bytes) -> Option<Vec<u64>> {
    let count = payload.try_get_u32_le().ok()?;
    // Not collected with the count's capacity: it is checked against what follows as it is read.
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(payload.try_get_u64_le().ok()?);
    }
    Some(ids)
}

#[cfg(test)]
mod tests;
