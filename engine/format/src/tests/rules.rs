//! Rules of `RULES` that live in bytes.

use super::samples::{KEY, MARK, a_record, all, base};
use crate::keys::ObjectKey;
use crate::{FormatError, blob, hash, head, identity, keys, pin, record, shard, snapshot};
use littoral_types::*;

fn sample(name: &str) -> Vec<u8> {
    (all().iter().find(|sample| sample.name == name).unwrap().encode)()
}

fn mend(bytes: &mut [u8], end: usize) {
    let crc = hash::crc64(&bytes[..end - 8]).to_le_bytes();
    bytes[end - 8..end].copy_from_slice(&crc);
}

#[test]
fn p01_a_blob_is_named_by_its_bytes_and_by_the_seq_at_which_its_job_began() {
    let volume: VolumeName = "app.db".parse().unwrap();
    let bytes = sample("pack");
    let name = |birth| BlobName { kind: BlobKind::Pack, hash: hash::blob(&bytes), birth: Seq(birth) };
    let path = keys::blob(&volume, &name(300));
    let digits: String = blake3::hash(&bytes).to_hex().to_string();
    assert_eq!(path.as_str(), format!("app.db/pack/{digits}.300"));
    // The same bytes again, by a later job: another name, so that a prune of the first one cannot meet it.
    let later = keys::blob(&volume, &name(301));
    assert_ne!(path, later);
    assert_eq!(ObjectKey::parse(&later), Some((volume, ObjectKey::Blob(name(301)))));
    // A body that is a blob is born when its record's job began.
    let large = record::encode(&super::samples::a_large_record(), Seq(41)).unwrap();
    assert_eq!(large.body_blob.unwrap().0.birth, Seq(41));
    assert!(matches!(record::open(&large.object).unwrap().body, BodyPlace::Blob(blob) if blob.name.birth == Seq(41)));
}

#[test]
fn p01_a_prune_names_blobs_of_every_kind_in_full() {
    let mut record = a_record(RecordKind::Prune);
    let doomed: Vec<_> = BlobKind::ALL
        .into_iter()
        .zip(1..)
        .map(|(kind, birth)| BlobName { kind, hash: BlobHash([birth as u8; 32]), birth: Seq(birth) })
        .collect();
    record.body = RecordBody::Prune(Prune { floor: Seq(2), blobs: doomed.clone(), snapshots: vec![Seq(1)] });
    let encoded = record::encode(&record, Seq(9)).unwrap();
    let (_, body) = record::decode(&encoded.object, None).unwrap();
    assert!(matches!(body, RecordBody::Prune(prune) if prune.blobs == doomed && prune.snapshots == [Seq(1)]));
}

#[test]
fn p03_the_hash_of_a_record_covers_its_header_and_through_it_its_body() {
    let first = record::encode(&a_record(RecordKind::Release), Seq(9)).unwrap();
    assert_eq!(first.hash.0, *blake3::hash(&first.object[..record::HEADER_BYTES_MAX]).as_bytes());
    let mut other = a_record(RecordKind::Release);
    if let RecordBody::Release(release) = &mut other.body {
        release.owner.label.push('.');
    }
    assert_ne!(record::encode(&other, Seq(9)).unwrap().hash, first.hash, "the body is in the chain");
    let mut next = a_record(RecordKind::Release);
    next.header.previous = first.hash;
    let next = record::encode(&next, Seq(9)).unwrap();
    assert_eq!(record::open(&next.object).unwrap().header.previous, first.hash);
}

#[test]
fn p07_a_page_identity_is_keyed_and_has_128_bits() {
    let page = vec![1; 4096];
    let here = identity::of(&KEY, &page);
    assert_eq!(here.0[..], blake3::keyed_hash(&KEY.0, &page).as_bytes()[..16]);
    assert_eq!(PageIdentity::LEN * 8, 128);
    assert_ne!(identity::of(&IdentityKey([8; 32]), &page), here, "without the key nobody can compute it");
    let mut other = page.clone();
    other[4095] ^= 1;
    assert_ne!(identity::of(&KEY, &other), here);
}

#[test]
fn p07_identities_are_kept_with_the_blob_and_a_wrong_one_is_found() {
    for name in ["chunk", "pack"] {
        let bytes = sample(name);
        let index = blob::verify(&bytes, &KEY).unwrap();
        for chunk in &index.chunks {
            let held: Vec<_> = chunk.identities.iter().map(|(page, _)| *page).collect();
            let mut pages: Vec<_> = chunk.table.pages().collect();
            pages.sort();
            assert_eq!(held, pages, "zero pages have theirs too");
        }
        // One identity changed and every checksum made right again: only the pages themselves can tell.
        let mut forged = bytes.clone();
        let at = forged.len() - 24 - 16;
        forged[at] ^= 1;
        let footer = blob_footer_start(&forged);
        let end = forged.len() - 12;
        let crc = hash::crc64(&forged[footer..end]).to_le_bytes();
        forged[end..end + 8].copy_from_slice(&crc);
        assert!(matches!(blob::read_index(&forged, forged.len() as u64), Ok(blob::Footer::Index(_))));
        assert!(matches!(blob::verify(&forged, &KEY), Err(FormatError::Invalid { .. })), "{name}");
    }
}

fn blob_footer_start(bytes: &[u8]) -> usize {
    let at = bytes.len() - 24;
    at - u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

#[test]
fn p07_one_ranged_read_of_a_shard_gives_one_chunks_row_with_its_frame_offsets() {
    let rows: Vec<_> = (0..1024)
        .map(|chunk| {
            let mut base = base();
            base.generation = Generation(chunk);
            ChunkRow { base: Some(base), ..ChunkRow::new(ChunkId(chunk)) }
        })
        .collect();
    let (bytes, lengths) = shard::encode(0, &rows).unwrap();
    let blob = BlobRef {
        home: Home::Own,
        name: BlobName { kind: BlobKind::Shard, hash: hash::blob(&bytes), birth: Seq(1) },
        len: bytes.len() as u64,
    };
    let directory = ShardRef { shard: 0, blob, checks: shard::checks(&bytes, &lengths), rows: lengths };
    for chunk in [0, 1, 511, 1023] {
        let span = shard::row_span(&directory, ChunkId(chunk)).unwrap();
        let row = shard::decode_row(&bytes[span.offset as usize..span.end().unwrap() as usize], ChunkId(chunk));
        assert_eq!(row.unwrap().base.unwrap().table.frame(1).unwrap().span, ByteSpan { offset: 5_016, len: 90 });
    }
}

/// Offsets of the cipher bytes, as `docs/format.md` draws them.
const RECORD_CIPHER: usize = 216;
const FRAME_CIPHER: usize = 3;
const OBJECT_CIPHER: usize = 7;
const SEAL_LEN: usize = 45;

#[test]
fn p13_a_sealed_frame_is_refused_by_name() {
    for name in ["frame-none", "frame-lz4", "frame-zstd"] {
        let pages = [PageNo::new(1).unwrap(), PageNo::new(3).unwrap()];
        let read = |bytes: &[u8]| blob::read_frame(bytes, PageSize::MIN, MARK, &pages);
        let mut bytes = sample(name);
        assert!(read(&bytes).is_ok());
        assert_eq!(bytes[FRAME_CIPHER..][..SEAL_LEN], [0; SEAL_LEN], "cipher, key id, nonce and tag are reserved");
        let end = bytes.len();
        bytes[FRAME_CIPHER] = 1;
        mend(&mut bytes, end);
        assert_eq!(read(&bytes), Err(FormatError::Sealed { what: "frame" }));
        // Bytes of a seal that seals nothing are not for anyone to use.
        bytes[FRAME_CIPHER] = 0;
        bytes[FRAME_CIPHER + 5] = 1;
        mend(&mut bytes, end);
        assert!(matches!(read(&bytes), Err(FormatError::Invalid { .. })));
    }
}

#[test]
fn p13_a_sealed_body_is_refused_by_name_while_the_chain_stays_readable() {
    let mut bytes = sample("record-segment");
    let clear = record::open(&bytes).unwrap();
    assert_eq!(bytes[RECORD_CIPHER..][..SEAL_LEN], [0; SEAL_LEN], "cipher, key id, nonce and tag are reserved");
    bytes[RECORD_CIPHER] = 1;
    bytes[RECORD_CIPHER + 1] = 42;
    mend(&mut bytes, record::HEADER_BYTES_MAX);
    let sealed = record::open(&bytes).unwrap();
    assert!(sealed.sealed && !clear.sealed);
    assert_eq!(sealed.header, clear.header, "epoch, seq and previous hash stay clear");
    assert_eq!(record::decode(&bytes, None), Err(FormatError::Sealed { what: "record body" }));
}

#[test]
fn p13_sealed_snapshots_heads_and_pins_are_refused_by_name() {
    type Read = fn(&[u8]) -> Option<FormatError>;
    let kinds: [(&str, &str, Read); 3] = [
        ("snapshot", "manifest snapshot", |bytes| snapshot::decode(bytes).err()),
        ("head", "head", |bytes| head::decode(bytes).err()),
        ("pin", "pin", |bytes| pin::decode(bytes).err()),
    ];
    for (name, what, error) in kinds {
        let mut bytes = sample(name);
        assert_eq!(bytes[OBJECT_CIPHER..][..SEAL_LEN], [0; SEAL_LEN], "cipher, key id, nonce and tag are reserved");
        bytes[OBJECT_CIPHER] = 1;
        let end = bytes.len();
        mend(&mut bytes, end);
        assert_eq!(error(&bytes), Some(FormatError::Sealed { what }));
    }
}

#[test]
fn p13_a_blobs_name_is_no_page_identity() {
    // Content identity is a keyed hash, apart from the object's name: knowing the name does not confirm a guessed page.
    let page = vec![3; 512];
    assert_ne!(hash::blob(&page).0[..16], identity::of(&KEY, &page).0);
}

#[test]
fn a_newer_version_is_told_from_damage() {
    // Where each kind keeps its schema version: behind four bytes of magic, or first.
    // A log's entries have the version of the segment that they stand in.
    for sample in all().into_iter().filter(|sample| !matches!(sample.name, "log-entry" | "log-session")) {
        let magic = !matches!(sample.entry, "rows" | "frame" | "patch");
        let at = if magic { 4 } else { 0 };
        let mut bytes = (sample.encode)();
        // An older layout that is still written where it says everything.
        if all().iter().any(|other| other.name == sample.name && other.version > sample.version) {
            continue;
        }
        // Heads and records are as they were; what lies in them has a version of its own.
        let newest = if sample.name == "head" || sample.entry == "record" { 1 } else { sample.version };
        assert_eq!(bytes[at..at + 2], newest.to_le_bytes(), "{}", sample.name);
        bytes[at..at + 2].copy_from_slice(&(newest + 1).to_le_bytes());
        let read = (sample.reads)(&bytes);
        let newer = |found, known| found == newest + 1 && known == newest;
        assert!(
            matches!(read, Err(FormatError::Newer { found, known, .. }) if newer(found, known)),
            "{}: {read:?}",
            sample.name
        );
        bytes[at..at + 2].copy_from_slice(&0u16.to_le_bytes());
        assert!(matches!((sample.reads)(&bytes), Err(FormatError::Invalid { .. })), "{}", sample.name);
    }
    // A blob is read from its end.
    let mut bytes = sample("chunk");
    let at = bytes.len() - 16;
    bytes[at..at + 2].copy_from_slice(&2u16.to_le_bytes());
    assert!(matches!(blob::read_index(&bytes, bytes.len() as u64), Err(FormatError::Newer { found: 2, .. })));
}
