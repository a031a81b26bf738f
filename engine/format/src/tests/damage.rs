//! A flipped bit, a missing end, a byte too many: always an error with a name, never a value.

use super::chance::Chance;
use super::round_trip::any_blob;
use super::samples::{KEY, Sample, all};
use crate::{FormatError, blob, record, shard, snapshot};
use littoral_types::{ByteSpan, ChunkId, RecordKind, Seq};
use proptest::prelude::*;

fn what(error: &FormatError) -> &'static str {
    match error {
        FormatError::Truncated { what }
        | FormatError::Checksum { what }
        | FormatError::Newer { what, .. }
        | FormatError::Sealed { what }
        | FormatError::Invalid { what, .. }
        | FormatError::TooLarge { what, .. } => what,
    }
}

/// Every way to damage bytes a little: `many` bounds how often, evenly over all of them.
fn each_damage(bytes: &[u8], many: usize, mut run: impl FnMut(&[u8], String)) {
    let mut damaged = bytes.to_vec();
    let bits = bytes.len() * 8;
    for bit in (0..bits).step_by(bits.div_ceil(many).max(1)) {
        damaged[bit / 8] ^= 1 << (bit % 8);
        run(&damaged, format!("bit {} of byte {} flipped", bit % 8, bit / 8));
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
    for len in (0..bytes.len()).step_by(bytes.len().div_ceil(many).max(1)) {
        run(&bytes[..len], format!("cut to {len} bytes"));
        run(&bytes[bytes.len() - len..], format!("only the last {len} bytes"));
    }
    for extra in [0, 1, 0xff] {
        damaged.push(extra);
        run(&damaged, format!("{extra} behind its end"));
        damaged.pop();
    }
    run(&[bytes, bytes].concat(), "twice".to_owned());
}

#[test]
fn no_damage_to_any_kind_of_object_goes_unnoticed() {
    // All of them on small objects; the large record's object is its header, and its blob is below.
    for Sample { name, encode, reads, .. } in all().into_iter().filter(|sample| sample.name != "record-large") {
        let bytes = encode();
        each_damage(&bytes, usize::MAX, |damaged, how| match reads(damaged) {
            Ok(same) => panic!("{name}: {how}: read as {}", if same { "the same" } else { "something else" }),
            Err(error) => assert!(!what(&error).is_empty() && !error.to_string().is_empty()),
        });
    }
}

#[test]
fn no_damage_to_a_large_body_or_its_header_goes_unnoticed() {
    let record::Encoded { object, body_blob, .. } =
        record::encode(&super::samples::a_large_record(), Seq(300)).unwrap();
    let (_, stored) = body_blob.unwrap();
    each_damage(&object, usize::MAX, |damaged, how| {
        assert!(record::decode(damaged, Some(&stored)).is_err(), "header: {how}");
    });
    each_damage(&stored, 50, |damaged, how| {
        assert!(record::decode(&object, Some(damaged)).is_err(), "body: {how}");
    });
}

#[test]
fn a_header_is_told_from_a_damaged_one_without_its_body() {
    let bytes = (all()[0].encode)();
    let header = &bytes[..record::HEADER_BYTES_MAX];
    let opened = record::open(&bytes).unwrap();
    assert_eq!(record::open(header), Ok(opened));
    for bit in 0..header.len() * 8 {
        let mut damaged = header.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(record::open(&damaged).is_err(), "bit {bit}");
    }
    for len in 0..header.len() {
        assert!(record::open(&header[..len]).is_err(), "cut to {len} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_damaged_blob_gives_its_index_or_its_pages_or_an_error(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let (bytes, index, _) = any_blob(&mut chance, &KEY);
        let len = bytes.len() as u64;
        each_damage(&bytes, 300, |damaged, how| {
            assert!(blob::verify(damaged, &KEY).is_err(), "{how}");
            // The footer of a blob that is damaged elsewhere is still right.
            if let Ok(blob::Footer::Index(found)) = blob::read_index(damaged, len) {
                assert_eq!(found, index, "{how}");
            }
        });
        let entries = |chunk: &blob::ChunkIndex| chunk.table.frames().map(|frame| (chunk.table.mark, frame.to_entry())).collect::<Vec<_>>();
        for (mark, entry) in index.chunks.iter().flat_map(entries) {
            let ByteSpan { offset, len } = entry.span;
            let frame = &bytes[offset as usize..(offset + len) as usize];
            each_damage(frame, 50, |damaged, how| {
                assert!(blob::read_frame(damaged, index.page_size, mark, &entry.pages).is_err(), "{how}");
            });
            // The right bytes of another blob.
            assert!(blob::read_frame(frame, index.page_size, mark ^ 1, &entry.pages).is_err());
            // The right bytes for other pages.
            let mut others = entry.pages.clone();
            others.pop();
            assert!(blob::read_frame(frame, index.page_size, mark, &others).is_err());
            others.push(entry.pages.last().unwrap().next());
            assert!(blob::read_frame(frame, index.page_size, mark, &others).is_err());
        }
    }

    #[test]
    fn no_damage_to_any_record_goes_unnoticed(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let kind = chance.pick(&RecordKind::ALL);
        let encoded = record::encode(&chance.record(kind), Seq(9)).unwrap();
        each_damage(&encoded.object, 300, |damaged, how| {
            assert!(record::decode(damaged, None).is_err(), "{how}");
        });
    }

    #[test]
    fn no_damage_to_a_shard_or_a_row_of_it_goes_unnoticed(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let row = chance.row(ChunkId(5));
        let (bytes, _) = shard::encode(0, std::slice::from_ref(&row)).unwrap();
        each_damage(&bytes, 300, |damaged, how| assert!(shard::decode(damaged).is_err(), "{how}"));
        let row = &bytes[shard::HEADER_BYTES as usize..];
        each_damage(row, 300, |damaged, how| assert!(shard::decode_row(damaged, ChunkId(5)).is_err(), "row: {how}"));
    }

    #[test]
    fn no_damage_to_a_snapshot_goes_unnoticed(seed in any::<u64>()) {
        let bytes = snapshot::encode(&Chance::new(seed).snapshot()).unwrap();
        each_damage(&bytes, 300, |damaged, how| assert!(snapshot::decode(damaged).is_err(), "{how}"));
    }
}
