//! What an encoder accepts, the decoder reads back as it was.

use super::chance::Chance;
use crate::patch::Patch;
use crate::{FormatError, blob, copy, head, identity, ops, pin, record, rows, shard, snapshot};
use littoral_types::*;
use proptest::prelude::*;
use std::fmt::Debug;

fn both_ways<T: PartialEq + Debug>(
    value: &T,
    encode: impl Fn(&T) -> Result<Vec<u8>, FormatError>,
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
) {
    let bytes = encode(value).unwrap();
    assert_eq!(decode(&bytes).as_ref(), Ok(value));
    assert_eq!(encode(value).unwrap(), bytes, "the same value became other bytes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_record_reads_back(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        for kind in RecordKind::ALL {
            let record = chance.record(kind);
            let encoded = record::encode(&record, Seq(9)).unwrap();
            let (envelope, body) = record::decode(&encoded.object, None).unwrap();
            prop_assert_eq!(&envelope.header, &record.header);
            prop_assert_eq!(&body, &record.body);
            prop_assert_eq!(envelope.hash, encoded.hash);
            prop_assert_eq!(envelope.kind, kind);
            prop_assert!(!envelope.sealed);
            let prefix = &encoded.object[..record::HEADER_BYTES_MAX];
            prop_assert_eq!(record::open(prefix).unwrap(), envelope, "the header alone is enough");
        }
    }

    #[test]
    fn every_object_reads_back(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        both_ways(&chance.snapshot(), snapshot::encode, snapshot::decode);
        both_ways(&chance.head(), head::encode, head::decode);
        both_ways(&chance.pin(), pin::encode, pin::decode);
        both_ways(&chance.copy_mark(), copy::encode, copy::decode);
    }

    #[test]
    fn every_row_reads_back(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        both_ways(&chance.volume_row(), rows::volume::encode, rows::volume::decode);
        both_ways(&chance.base(), rows::base::encode, rows::base::decode);
        both_ways(&chance.delta(), rows::delta::encode, rows::delta::decode);
        both_ways(&chance.change(), rows::change::encode, rows::change::decode);
        both_ways(&chance.lease(), rows::lease::encode, rows::lease::decode);
        both_ways(&chance.taken(), rows::lease_taken::encode, rows::lease_taken::decode);
        both_ways(&chance.intent(), rows::intent::encode, rows::intent::decode);
        both_ways(&chance.staged(), rows::staged::encode, rows::staged::decode);
        both_ways(&chance.job(), rows::job::encode, rows::job::decode);
        both_ways(&chance.job_note(), rows::job_note::encode, rows::job_note::decode);
        both_ways(&chance.mark(), rows::session::encode, rows::session::decode);
        both_ways(&chance.object_mark(), rows::object::encode, rows::object::decode);
        let owners: Vec<_> = (0..rows::owners::GROUP).map(|_| chance.owner_of_page()).collect();
        both_ways(&owners, |owners| rows::owners::encode(owners), rows::owners::decode);
        both_ways(&chance.identities(), |ids| rows::identities::encode(ids), rows::identities::decode);
        both_ways(&chance.number(), |n| Ok(rows::number::encode(*n)), rows::number::decode);
    }

    #[test]
    fn every_shard_reads_back_whole_and_row_by_row(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let shard = chance.below(1 << 30);
        let mut chunks: Vec<_> = (0..chance.below(6)).map(|_| shard * 1024 + chance.below(1024)).collect();
        chunks.sort_unstable();
        chunks.dedup();
        let written: Vec<_> = chunks.iter().map(|chunk| chance.row(ChunkId(*chunk))).collect();
        let (bytes, lengths) = shard::encode(shard, &written).unwrap();
        prop_assert_eq!(shard::decode(&bytes), Ok((shard, written.clone())));
        let shard_ref = ShardRef { shard, blob: chance.blob_ref(), checks: shard::checks(&bytes, &lengths), rows: lengths };
        for row in &written {
            let span = shard::row_span(&shard_ref, row.chunk).unwrap();
            let bytes = &bytes[span.offset as usize..span.end().unwrap() as usize];
            prop_assert_eq!(&shard::decode_row(bytes, row.chunk).unwrap(), row);
            prop_assert!(shard::decode_row(bytes, ChunkId(row.chunk.0 ^ 1)).is_err());
        }
        let end = shard::HEADER_BYTES + shard_ref.rows.iter().map(|(_, len)| u64::from(*len)).sum::<u64>();
        prop_assert_eq!(end, bytes.len() as u64);
        prop_assert_eq!(shard::row_span(&shard_ref, ChunkId(shard * 1024 + 1024)), None);
    }

    #[test]
    fn every_blob_reads_back_from_its_end_and_frame_by_frame(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let key = IdentityKey(chance.array());
        let (bytes, index, pages) = any_blob(&mut chance, &key);
        prop_assert_eq!(&blob::verify(&bytes, &key).unwrap(), &index);
        prop_assert!(
            blob::verify(&bytes, &IdentityKey([0; 32])).is_err() || pages.is_empty(),
            "another volume's key verified the identities"
        );
        // From a suffix that is too short, then from the one that was asked for.
        let short = bytes.len().min(24);
        match blob::read_index(&bytes[bytes.len() - short..], bytes.len() as u64).unwrap() {
            blob::Footer::Need(need) => {
                let suffix = &bytes[bytes.len() - need as usize..];
                prop_assert_eq!(
                    blob::read_index(suffix, bytes.len() as u64).unwrap(), blob::Footer::Index(index.clone())
                );
            }
            blob::Footer::Index(_) => prop_assert!(false, "a footer out of nothing"),
        }
        for chunk in &index.chunks {
            for entry in chunk.table.frames().map(littoral_types::Frame::to_entry) {
                let frame = &bytes[entry.span.offset as usize..entry.span.end().unwrap() as usize];
                let raw = blob::read_frame(frame, index.page_size, chunk.table.mark, &entry.pages).unwrap();
                for (page, found) in entry.pages.iter().zip(raw.chunks(index.page_size.len())) {
                    prop_assert_eq!(pages.get(page).map(Vec::as_slice), Some(found));
                }
            }
            for (page, found) in &chunk.identities {
                let zero = vec![0; index.page_size.len()];
                prop_assert_eq!(*found, identity::of(&key, pages.get(page).unwrap_or(&zero)));
            }
            prop_assert_eq!(chunk.identities.len() as u64, chunk.table.page_total());
        }
    }

    #[test]
    fn operations_are_as_long_as_they_are_said_to_be(seed in any::<u64>()) {
        let mut chance = Chance::new(seed);
        let list = chance.list(6, Chance::op);
        let one_by_one: usize = list.iter().map(|op| ops::encoded_len(std::slice::from_ref(op))).sum();
        prop_assert_eq!(ops::encoded_len(&list), one_by_one);
        let body = |ops: Vec<ManifestOp>| crate::body::encode(&RecordBody::Coalesce(Coalesce { ops })).unwrap().len();
        prop_assert_eq!(body(list.clone()) - body(Vec::new()), one_by_one);
    }
}

type Pages = std::collections::BTreeMap<PageNo, Vec<u8>>;

/// A chunk or a pack, its index, and its pages that are not zero.
pub(super) fn any_blob(chance: &mut Chance, key: &IdentityKey) -> (Vec<u8>, blob::Index, Pages) {
    let page_size = PageSize::new(512 << chance.below(2)).unwrap();
    let kind = chance.pick(&[BlobKind::Chunk, BlobKind::Pack]);
    let compression = chance.pick(&[Compression::None, Compression::Lz4, Compression::Zstd]);
    let mut writer = blob::Writer::new(kind, page_size, compression, key, chance.below(u64::MAX));
    let mut bytes = writer.header();
    let mut pages = Pages::new();
    let chunks = if kind == BlobKind::Chunk { 1 } else { chance.below(4) };
    let mut first = 1;
    for chunk in 0..chunks {
        let span = ChunkSpan { first: PageNo::new(first).unwrap(), count: PageCount(1 + chance.below(40)) };
        first += span.count.0;
        writer.begin_chunk(ChunkId(chunk * 3), span);
        let mut stored = Vec::new();
        for page in span.pages() {
            match chance.below(4) {
                0 => writer.zero(page),
                1 if kind == BlobKind::Pack => {}
                _ => {
                    let mut raw = chance.bytes(page_size.len());
                    raw[0] |= 1;
                    stored.push(page);
                    pages.insert(page, raw);
                }
            }
        }
        while !stored.is_empty() {
            let many = (1 + chance.below(16) as usize).min(stored.len());
            let slots: Vec<_> = stored.drain(..many).map(|page| (page, pages[&page].as_slice())).collect();
            bytes.extend(writer.frame(&slots).unwrap());
        }
    }
    let (footer, index) = writer.finish().unwrap();
    bytes.extend(footer);
    (bytes, index, pages)
}

#[test]
fn a_body_too_large_for_its_record_is_a_blob_of_its_own() {
    let mut chance = Chance::new(1);
    let mut record = chance.record(RecordKind::Prune);
    let blobs: Vec<_> = (0..40_000).map(|_| chance.blob_name()).collect();
    record.body = RecordBody::Prune(Prune { floor: Seq(3), blobs, snapshots: Vec::new() });
    let encoded = record::encode(&record, Seq(77)).unwrap();
    assert_eq!(encoded.object.len(), record::HEADER_BYTES_MAX);
    let (name, stored) = encoded.body_blob.unwrap();
    assert_eq!(name, BlobName { kind: BlobKind::Segment, hash: crate::hash::blob(&stored), birth: Seq(77) });
    let (envelope, body) = record::decode(&encoded.object, Some(&stored)).unwrap();
    assert_eq!(envelope.body, BodyPlace::Blob(BlobRef { home: Home::Own, name, len: stored.len() as u64 }));
    assert_eq!((envelope.header, body), (record.header, record.body));
    // Without it, with one that is cut, and with one that is another.
    assert!(matches!(record::decode(&encoded.object, None), Err(FormatError::Invalid { .. })));
    let cut = &stored[..stored.len() - 1];
    assert!(matches!(record::decode(&encoded.object, Some(cut)), Err(FormatError::Truncated { .. })));
    let mut other = stored.clone();
    other[1000] ^= 1;
    assert!(matches!(record::decode(&encoded.object, Some(&other)), Err(FormatError::Checksum { .. })));
}

#[test]
fn hashing_in_pieces_is_hashing_the_whole() {
    let bytes = Chance::new(5).bytes(100_000);
    let mut hasher = crate::hash::BlobHasher::new();
    bytes.chunks(777).for_each(|piece| hasher.update(piece));
    assert_eq!(hasher.finish(), (crate::hash::blob(&bytes), crate::hash::crc64(&bytes)));
    // CRC-64/NVME's check value, and BLAKE3's of nothing.
    assert_eq!(crate::hash::crc64(b"123456789"), 0xae8b_1486_0a79_9888);
    assert!(crate::hash::blob(b"").to_string().starts_with("af1349b9f5f9a1a6"));
}

#[test]
fn the_same_pages_are_the_same_bytes_whatever_was_compressed_before() {
    // Blob names follow from bytes, and a resumed job must find its own.
    let frame = |seed: u64, compression| {
        let size = PageSize::new(4096).unwrap();
        let mut chance = Chance::new(seed);
        let pages: Vec<_> = (1..=16).map(|_| [vec![1], chance.bytes(4095)].concat()).collect();
        let slots: Vec<_> = (1..=16).map(|n| PageNo::new(n).unwrap()).zip(pages.iter().map(Vec::as_slice)).collect();
        let mut writer = blob::Writer::new(BlobKind::Pack, size, compression, &IdentityKey([7; 32]), 0);
        writer.header();
        writer.begin_chunk(ChunkId(0), ChunkSpan { first: PageNo::FIRST, count: PageCount(16) });
        writer.frame(&slots).unwrap()
    };
    for compression in [Compression::Zstd, Compression::Lz4] {
        for seed in 0..40 {
            let fresh = std::thread::spawn(move || frame(seed, compression)).join().unwrap();
            assert!(frame(seed, compression) == fresh, "{compression:?}, seed={seed}");
        }
    }
}

#[test]
fn a_patch_gives_the_newer_page_out_of_the_one_before_and_of_no_other() {
    let mut chance = Chance::new(11);
    let key = IdentityKey([7; 32]);
    for page_size in [512, 4096, 65_536] {
        let noise = |chance: &mut Chance| (0..page_size).map(|_| chance.bits() as u8).collect::<Vec<u8>>();
        let before = noise(&mut chance);
        let mut after = before.clone();
        after[page_size / 2..page_size / 2 + 20].fill(0x5a);
        let patch = Patch::between(&before, &after, &key).unwrap();
        assert!(patch.bytes.len() < 120, "{} bytes for twenty", patch.bytes.len());
        assert_eq!(patch.apply(&before, &key), Ok(after.clone()));
        // Another version, another key, other bytes of the same length: refused, or not this page.
        assert!(matches!(patch.apply(&after, &key), Err(FormatError::Invalid { .. })));
        assert!(matches!(patch.apply(&before, &IdentityKey([8; 32])), Err(FormatError::Invalid { .. })));
        let cut = Patch { bytes: patch.bytes[..patch.bytes.len() - 1].to_vec(), ..patch };
        assert!(matches!(cut.apply(&before, &key), Err(FormatError::Invalid { .. })));
        // What gains nothing is no patch: another page altogether, and zeros, which are recorded.
        assert_eq!(Patch::between(&before, &noise(&mut chance), &key), None);
        assert_eq!(Patch::between(&before, &vec![0; page_size], &key), None);
    }
    // A page that begins like a dictionary of zstd's own is either refused or comes back as it was.
    let mut before = chance.bytes(4096);
    before[..4].copy_from_slice(&0xec30_a437_u32.to_le_bytes());
    let mut after = before.clone();
    after[9] ^= 1;
    if let Some(patch) = Patch::between(&before, &after, &key) {
        assert_eq!(patch.apply(&before, &key), Ok(after));
    }
}

#[test]
fn a_segments_frames_are_found_in_its_record_where_its_deltas_say() {
    for seed in 0..200 {
        let record = Chance::new(seed).record(RecordKind::Segment);
        let encoded = record::encode(&record, Seq(7)).unwrap();
        let object = [encoded.object.clone(), encoded.body_blob.map(|(_, bytes)| bytes).unwrap_or_default()].concat();
        for op in record.body.ops() {
            let ManifestOp::PutDelta { delta, .. } = op else { continue };
            if delta.blob.name.kind != BlobKind::Record {
                continue;
            }
            assert_eq!(delta.blob.name.birth, record.header.seq);
            for frame in delta.table.frames() {
                let bytes = &object[frame.span.offset as usize..frame.span.end().unwrap() as usize];
                let sizes = [512, 1024, 2048].map(|size| PageSize::new(size).unwrap());
                let read = sizes.iter().any(|size| match delta.id.is_patch() {
                    true => crate::patch::read(bytes, *size, delta.table.mark, frame.pages.iter()).is_ok(),
                    false => blob::read_frame(bytes, *size, delta.table.mark, &frame.pages.to_vec()).is_ok(),
                });
                assert!(read, "seed {seed}");
            }
        }
    }
}
