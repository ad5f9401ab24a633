//! Snapshots, as files and as what replicas send each other, and the records in them.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_proto::log::v1::snapshot_record::Record;
use holdfast_proto::log::v1::{Batch, SnapshotEnd, SnapshotRecord};
use holdfast_replica::{Boot, StateAt};
use holdfast_server::storage::snapshot::{SnapshotDecoder, SnapshotEncoder};
use holdfast_state::{SnapshotReader, State};
use holdfast_types::{Duration, Term};
use prost::Message;
use xxhash_rust::xxh3::Xxh3;

use crate::office::genesis;
use crate::{Office, Source, messages};

const CELL_ID: u64 = 7;

/// Records, with the lengths before them.
fn records(source: &mut Source<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Record::Header(messages::log::header(source));
    let mut counts = SnapshotEnd::default();
    let mut put = |record: SnapshotRecord| record.encode_length_delimited(&mut bytes).expect("vectors grow");
    put(SnapshotRecord { record: Some(header) });
    while !source.is_empty() {
        let record = messages::log::record(source);
        match &record.record {
            Some(Record::Node(_)) => counts.nodes += 1,
            Some(Record::Session(_)) => counts.sessions += 1,
            Some(Record::Handle(_)) => counts.handles += 1,
            _ => {}
        }
        put(record);
    }
    put(SnapshotRecord { record: Some(Record::End(counts)) });
    bytes
}

/// Some state, by commands that were applied to it.
fn state(source: &mut Source<'_>) -> State {
    let mut state = genesis(1).state;
    let commands = source.list(20, messages::log::command);
    // A fault leaves a state that can still be written.
    let _ = state.apply_batch(Term(2), Batch { term: 2, commands }.encode_to_vec().into(), &mut Vec::new());
    state
}

/// What comes out of a snapshot can be gone on from: it is consistent, it can be written and read again, and commands
/// can be applied to it.
fn check_state(mut state: State, source: &mut Source<'_>) {
    state.check_invariants();
    let again = read_records(state.snapshot_records().collect::<Vec<_>>().iter());
    assert_eq!(again.expect("what was written can be read").hash(), state.hash());
    for _ in 0..8 {
        let command = messages::log::command(source);
        if state.apply(command, &mut Vec::new()).is_err() {
            return;
        }
        state.check_invariants();
    }
}

fn read_records<'c>(chunks: impl Iterator<Item = &'c Bytes>) -> Result<State, holdfast_state::SnapshotError> {
    let mut reader = SnapshotReader::new();
    for chunk in chunks {
        reader.push(chunk)?;
    }
    reader.finish()
}

/// Records of a state, cut up anywhere.
///
/// # Panics
///
/// If a state comes of them that is none.
pub fn state_records(data: &[u8]) {
    let source = &mut Source::new(data);
    let chunk_bytes = 1 + usize::from(source.byte());
    let for_later = source.slice(64);
    let bytes = match source.byte() % 4 {
        0 => source.rest().to_vec(),
        1 => {
            let state = state(source);
            let mut bytes: Vec<u8> = state.snapshot_records().flatten().collect();
            damage(&mut bytes, source);
            bytes
        }
        _ => records(source),
    };
    let chunks: Vec<Bytes> = bytes.chunks(chunk_bytes).map(Bytes::copy_from_slice).collect();
    if let Ok(state) = read_records(chunks.iter()) {
        check_state(state, &mut Source::new(for_later));
    }
}

/// Changes a few bytes, or cuts the end off.
fn damage(bytes: &mut Vec<u8>, source: &mut Source<'_>) {
    while !source.is_empty() && !bytes.is_empty() {
        let place = usize::from(source.byte()) << 8 | usize::from(source.byte());
        let place = place % bytes.len();
        match source.byte() % 8 {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, source.byte()),
            2 => drop(bytes.remove(place)),
            _ => bytes[place] ^= 1 << (source.byte() % 8),
        }
    }
}

/// A file whose checksums are right, whatever is in it: as somebody would make it who means harm, or a fault of a
/// writer would.
struct Forger {
    file: BytesMut,
    frames: u64,
    last: u64,
}

impl Forger {
    fn new() -> Self {
        Self { file: BytesMut::from(&b"HFSNAP\x01\x00"[..]), frames: 0, last: 0 }
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) {
        let mut hash = Xxh3::with_seed(self.last ^ self.frames);
        hash.update(&[kind]);
        hash.update(&(payload.len() as u64).to_le_bytes());
        hash.update(payload);
        self.frames += 1;
        self.last = hash.digest();
        self.file.put_u8(kind);
        self.file.put_u32_le(u32::try_from(payload.len()).expect("inputs are small"));
        self.file.put_u64_le(self.last);
        self.file.put_slice(payload);
    }
}

fn forged(source: &mut Source<'_>) -> Vec<u8> {
    let mut forger = Forger::new();
    let mut header = BytesMut::new();
    header.put_u64_le(if source.one_in(16) { source.number() } else { CELL_ID });
    header.put_u64_le(source.number());
    header.put_u64_le(source.number());
    for ids in [messages::raft::ids(source), source.list(3, Source::number)] {
        header.put_u32_le(if source.one_in(16) { source.small() } else { ids.len() as u32 });
        ids.iter().for_each(|id| header.put_u64_le(*id));
    }
    forger.frame(1, &header);
    let records: Vec<u8> =
        if source.one_in(4) { records(source) } else { state(source).snapshot_records().flatten().collect() };
    forger.frame(2, &records);
    forger.frame(3, &[1_u64.to_le_bytes(), (records.len() as u64).to_le_bytes()].concat());
    forger.file.to_vec()
}

/// Files of snapshots. A replica that has one on its disk starts from it, or says what is wrong.
///
/// # Panics
///
/// If not.
pub fn snapshot_files(data: &[u8]) {
    let source = &mut Source::new(data);
    let chunk_bytes = 1 + 16 * usize::from(source.byte());
    let file = match source.byte() % 4 {
        0 => source.rest().to_vec(),
        1 => {
            let at = StateAt { state: state(source), ..genesis(1) };
            let mut file: Vec<u8> = SnapshotEncoder::new(&at).flatten().collect();
            let undamaged = source.is_empty();
            damage(&mut file, source);
            assert!(!undamaged || decode(&file, chunk_bytes).is_some(), "what was written can be read");
            file
        }
        _ => forged(source),
    };
    let Some(at) = decode(&file, chunk_bytes) else { return };
    at.state.check_invariants();
    let boot = Boot { state: Some(at), ..Boot::default() };
    let Ok(mut office) = Office::boot(boot) else { return };
    let _ = office.pass(Duration::from_secs(2));
}

fn decode(file: &[u8], chunk_bytes: usize) -> Option<StateAt> {
    let mut decoder = SnapshotDecoder::new(CELL_ID);
    for chunk in file.chunks(chunk_bytes) {
        decoder.push(chunk).ok()?;
    }
    decoder.finish().ok()
}
