use proptest::prelude::*;

use super::*;
use crate::storage::testing::{CELL_ID, state_at};

fn encode(at: &StateAt) -> Vec<u8> {
    SnapshotEncoder::new(at).flatten().collect()
}

fn decode(bytes: &[u8]) -> Result<StateAt, SnapshotError> {
    let mut decoder = SnapshotDecoder::new(CELL_ID);
    decoder.push(bytes)?;
    decoder.finish()
}

#[track_caller]
fn assert_refused(bytes: &[u8], part: &str) {
    let error = decode(bytes).expect_err("the bytes are refused");
    assert!(error.to_string().contains(part), "{part:?} in {error}");
}

#[test]
fn a_snapshot_of_many_chunks_goes_out_and_in() {
    let at = state_at(77, 5, 2_000);
    assert!(SnapshotEncoder::new(&at).count() > 3, "it has several record frames");
    let decoded = decode(&encode(&at)).unwrap();
    assert_eq!(decoded.state.hash(), at.state.hash());
    assert_eq!((decoded.index, decoded.term), (77, Term(5)));
    assert_eq!((decoded.voters, decoded.learners), (vec![1, 2, 3], vec![4]));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = encode(&state_at(77, 5, 2));
    for offset in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[offset] ^= 1 << (offset % 8);
        assert!(decode(&damaged).is_err(), "byte {offset} of {}", bytes.len());
    }
}

#[test]
fn a_snapshot_that_ends_early_or_late_is_refused() {
    let bytes = encode(&state_at(77, 5, 2));
    for length in 0..bytes.len() {
        assert_refused(&bytes[..length], "it ends before its end frame");
    }
    assert_refused(&[bytes, vec![0]].concat(), "bytes follow its end");
}

#[test]
fn frames_that_are_left_out_or_change_places_are_noticed() {
    let frames: Vec<Bytes> = SnapshotEncoder::new(&state_at(77, 5, 2_000)).collect();
    for left_out in 1..frames.len() - 1 {
        let mut rest = frames.clone();
        rest.remove(left_out);
        assert_refused(&rest.concat(), "checksum");
    }
    let mut swapped = frames.clone();
    swapped.swap(1, 2);
    assert_refused(&swapped.concat(), "checksum");
}

#[test]
fn what_is_of_another_kind_cell_or_version_is_refused_by_name() {
    assert_refused(b"#!/bin/sh and so on", "does not begin like a snapshot");
    let bytes = encode(&state_at(77, 5, 2));
    let mut newer = bytes.clone();
    newer[6] = 2;
    assert!(matches!(decode(&newer), Err(SnapshotError::TooNew { .. })));
    let mut decoder = SnapshotDecoder::new(CELL_ID + 1);
    let error = decoder.push(&bytes).expect_err("the bytes are refused");
    assert!(error.to_string().contains("a snapshot of the cell"), "{error}");
}

proptest! {
    #[test]
    fn it_does_not_matter_how_the_bytes_are_cut_up(cuts in prop::collection::vec(1_usize..5_000, 1..20)) {
        let at = state_at(9, 2, 300);
        let bytes = encode(&at);
        let mut decoder = SnapshotDecoder::new(CELL_ID);
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            decoder.push(piece).unwrap();
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(decoder.finish().unwrap().state.hash(), at.state.hash());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let begun = [b"HFSNAP\x01\x00".as_slice(), &bytes].concat();
        prop_assert!(decode(&begun).is_err());
        prop_assert!(decode(&bytes).is_err());
    }
}
