//! What claims to be large costs no memory before it is believed; what is too large is not written either.

use super::samples::{KEY, a_record, all};
use crate::wire::{In, Out, Spell};
use crate::{FormatError, blob, codec, hash, head, pin, record, rows, shard, snapshot};
use littoral_types::limits::*;
use littoral_types::*;

fn page(number: u64) -> PageNo {
    PageNo::new(number).unwrap()
}

fn row(spell: impl FnOnce(&mut Out)) -> Vec<u8> {
    let mut out = Out::new("test", 64);
    out.u16("version", 1);
    spell(&mut out);
    out.crc();
    out.finish().unwrap()
}

#[test]
fn a_count_that_its_bytes_cannot_hold_is_refused_before_room_is_made() {
    for count in [1 << 20, 1 << 40, u64::MAX] {
        let bytes = row(|out| {
            out.varint("seq", 1);
            out.blob("record", b"");
            out.u8("no body", 0);
            out.varint("identities", count);
        });
        let read = rows::intent::decode(&bytes);
        assert!(matches!(read, Err(FormatError::Truncated { .. } | FormatError::TooLarge { .. })), "{read:?}");
        let bytes = row(|out| {
            out.varint("seq", 1);
            out.varint("record", count);
        });
        let read = rows::intent::decode(&bytes);
        assert!(matches!(read, Err(FormatError::Truncated { .. } | FormatError::TooLarge { .. })), "{read:?}");
    }
}

#[test]
fn a_database_that_no_file_could_hold_is_refused() {
    let figures =
        |page_size, pages| VolumeFigures { page_size, page_count: PageCount(pages), ..VolumeFigures::default() };
    let (small, large) = (Some(PageSize::MIN), Some(PageSize::MAX));
    for (fits, most) in [(None, i64::MAX as u64), (small, (1 << 54) - 1), (large, (1 << 47) - 1)] {
        for pages in [most, most + 1, u64::MAX] {
            let mut record = a_record(RecordKind::Release);
            record.header.figures = figures(fits, pages);
            let encoded = record::encode(&record, Seq(1));
            assert_eq!(encoded.is_ok(), pages == most, "{fits:?}, {pages} pages: {encoded:?}");
            // Nor is one believed that somebody else has written.
            record.header.figures = figures(fits, 1);
            let object = record::encode(&record, Seq(1)).unwrap().object;
            let crc_at = record::HEADER_BYTES_MAX - 8;
            let is_believed = (0..crc_at - 8).any(|at| {
                let mut forged = object.clone();
                forged[at..at + 8].copy_from_slice(&pages.to_le_bytes());
                let crc = hash::crc64(&forged[..crc_at]).to_le_bytes();
                forged[crc_at..crc_at + 8].copy_from_slice(&crc);
                record::open(&forged).is_ok_and(|opened| opened.header.figures.page_count.0 == pages)
            });
            assert_eq!(is_believed, pages == most, "{fits:?}, {pages} pages");
        }
    }
}

#[test]
fn a_few_bytes_cannot_stand_for_many_pages() {
    // Runs of zero pages, in one table and in many tables.
    let table = |out: &mut Out, run: u64| {
        out.u8("flags", 2);
        out.varint("runs", 1);
        out.varint("left out", 0);
        out.varint("more", run);
        out.varint("frames", 0);
    };
    let delta = |out: &mut Out, id: u64, run: u64| {
        out.varint("id", id);
        out.u8("kind", 1);
        out.raw("hash", &[0; 32]);
        out.varint("birth", 1);
        out.varint("len", 1);
        out.varint("last live", 1);
        table(out, run);
    };
    assert!(rows::delta::decode(&row(|out| delta(out, 1, 131_071))).is_ok(), "all pages of a chunk");
    for run in [131_072, u64::MAX - 1, u64::MAX] {
        let read = rows::delta::decode(&row(|out| delta(out, 1, run)));
        assert!(matches!(read, Err(FormatError::TooLarge { .. })), "{read:?}");
    }
    let many = row(|out| {
        out.varint("chunk", 7);
        out.u8("no base", 0);
        out.varint("deltas", DELTAS_PER_CHUNK_MAX as u64);
        (0..DELTAS_PER_CHUNK_MAX as u64).for_each(|id| delta(out, id, 131_071));
    });
    let read = shard::decode_row(&many, ChunkId(7));
    assert!(matches!(read, Err(FormatError::TooLarge { .. })), "{:?}", read.map(|row| row.deltas.len()));
}

#[test]
fn what_decompresses_to_more_than_was_said_is_refused() {
    let zeros = vec![0; 64 << 20];
    for wanted in [Compression::Zstd, Compression::Lz4] {
        let mut packed = Vec::new();
        assert_eq!(codec::compress("test", wanted, &zeros, &mut packed), Ok(wanted));
        for said in [0, 1, 512, 1 << 20, (1 << 20) + 1, zeros.len() - 1, zeros.len() + 1] {
            let raw = codec::decompress("test", wanted, &packed, said);
            assert!(matches!(raw, Err(FormatError::Invalid { .. })), "{said} bytes of {wanted:?}");
        }
        assert_eq!(codec::decompress("test", wanted, &packed, zeros.len()).map(|raw| raw == zeros), Ok(true));
        // Nothing stands behind this length.
        assert!(codec::decompress("test", wanted, &packed[..10], RECORD_BODY_MAX).is_err());
    }
}

#[test]
fn a_body_that_claims_to_be_larger_than_any_body_is_refused_by_its_header() {
    let mut bytes = (all()[0].encode)();
    for at in [160, 168] {
        let was: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
        bytes[at..at + 8].copy_from_slice(&(RECORD_BODY_MAX as u64 + 1).to_le_bytes());
        let crc = hash::crc64(&bytes[..264]).to_le_bytes();
        bytes[264..272].copy_from_slice(&crc);
        assert!(matches!(record::open(&bytes), Err(FormatError::TooLarge { .. })), "at {at}");
        bytes[at..at + 8].copy_from_slice(&was);
    }
}

#[test]
fn a_footer_is_asked_for_only_within_its_blob() {
    let bytes = (all().iter().find(|sample| sample.name == "chunk").unwrap().encode)();
    let len = bytes.len() as u64;
    for claimed in [len, u64::MAX, len - 24 - 15] {
        let mut bytes = bytes.clone();
        let at = bytes.len() - 24;
        bytes[at..at + 8].copy_from_slice(&claimed.to_le_bytes());
        assert!(matches!(blob::read_index(&bytes, len), Err(FormatError::Invalid { .. })), "{claimed}");
    }
    assert!(matches!(blob::read_index(&bytes, len - 1), Err(FormatError::Invalid { .. })));
    assert!(matches!(blob::read_index(&bytes[1..], len + 1), Ok(blob::Footer::Need(_)) | Err(_)));
}

#[test]
fn a_number_has_one_spelling() {
    let read = |bytes: &[u8]| In::new("test", bytes).varint();
    for number in [0, 1, 127, 128, 16_383, 16_384, u64::MAX >> 1, u64::MAX - 1, u64::MAX] {
        let mut out = Out::new("test", 10);
        out.varint("number", number);
        let mut bytes = out.finish().unwrap();
        assert_eq!(read(&bytes), Ok(number));
        assert!(bytes.len() <= 10);
        // With a byte that adds nothing.
        *bytes.last_mut().unwrap() |= 0x80;
        assert!(matches!(read(&bytes), Err(FormatError::Truncated { .. } | FormatError::Invalid { .. })));
        bytes.push(0);
        assert!(matches!(read(&bytes), Err(FormatError::Invalid { .. })), "{number}");
    }
    for number in [0, 1, -1, i64::MAX, i64::MIN] {
        let mut out = Out::new("test", 10);
        out.zigzag("number", number);
        assert_eq!(In::new("test", &out.finish().unwrap()).zigzag(), Ok(number));
    }
    assert!(matches!(read(&[0xff; 10]), Err(FormatError::Invalid { .. })));
    assert!(matches!(read(&[0xff; 9]), Err(FormatError::Truncated { .. })));
}

/// A value that no reader would accept is not written.
#[test]
fn what_could_not_be_read_is_not_written() {
    let refused = |result: Result<Vec<u8>, FormatError>| {
        assert!(matches!(result, Err(FormatError::Invalid { .. } | FormatError::TooLarge { .. })), "{result:?}");
    };
    let with_table = |table: FrameTable| rows::base::encode(&Base { table, ..super::samples::base() });
    let entry = |offset, len, pages: &[u64]| FrameEntry {
        span: ByteSpan { offset, len },
        pages: pages.iter().map(|number| page(*number)).collect(),
    };
    let seventeen: Vec<_> = (1..=17).collect();
    for frames in [
        vec![entry(0, 1, &[])],
        vec![entry(0, 1, &seventeen)],
        vec![entry(0, 1, &[2, 1])],
        vec![entry(0, 1, &[1, 1])],
        vec![entry(0, 0, &[1])],
        vec![entry(0, 2 << 20, &[1])],
        vec![entry(u64::MAX, 1, &[1])],
        vec![entry(0, 10, &[1]), entry(9, 10, &[2])],
        vec![entry(10, 10, &[1]), entry(0, 10, &[2])],
        vec![entry(0, 10, &[1, 2]), entry(10, 10, &[2, 3])],
        vec![entry(0, 10, &[5]), entry(10, 10, &[1, 5])],
        vec![entry(0, 10, &[7])],
    ] {
        refused(with_table(FrameTable::new(frames, [page(7)], 1)));
    }
    refused(with_table(FrameTable::new([], [page(2), page(1)], 0)));
    refused(with_table(FrameTable::new([], (1..=131_073).map(page), 0)));
    refused(with_table(FrameTable::new([], [page(1)], 1)));

    let mut row = super::samples::a_row(5);
    row.deltas.push(row.deltas[0].clone());
    refused(shard::encode(0, &[row]).map(|(bytes, _)| bytes));
    let rows_of = |chunks: &[u64]| chunks.iter().map(|chunk| ChunkRow::new(ChunkId(*chunk))).collect::<Vec<_>>();
    for chunks in [&[1, 0][..], &[1, 1], &[1024], &[u64::MAX]] {
        refused(shard::encode(0, &rows_of(chunks)).map(|(bytes, _)| bytes));
    }
    assert!(shard::encode(u64::MAX / 1024, &rows_of(&[u64::MAX])).is_ok());

    let mut record = a_record(RecordKind::Release);
    record.header.seq = Seq::ZERO;
    refused(record::encode(&record, Seq(1)).map(|encoded| encoded.object));
    let mut record = a_record(RecordKind::Release);
    record.body =
        RecordBody::Release(Release { owner: Owner { store: StoreId([0; 16]), label: "x".repeat(TEXT_LEN_MAX + 1) } });
    refused(record::encode(&record, Seq(1)).map(|encoded| encoded.object));
    let mut record = a_record(RecordKind::Segment);
    if let RecordBody::Segment(segment) = &mut record.body {
        segment.frames.push(0);
    }
    refused(record::encode(&record, Seq(1)).map(|encoded| encoded.object));
    let mut record = a_record(RecordKind::Segment);
    if let RecordBody::Segment(segment) = &mut record.body {
        segment.ops.push(ManifestOp::Reshape { page_size: PageSize::MIN });
    }
    refused(record::encode(&record, Seq(1)).map(|encoded| encoded.object));

    refused(rows::identities::encode(&[None; 63]));
    refused(rows::identities::encode(&[None; 65]));

    let goldens = all();
    let bytes = |name: &str| (goldens.iter().find(|sample| sample.name == name).unwrap().encode)();
    let mut pin = pin::decode(&bytes("pin")).unwrap();
    pin.holder = "é".repeat(TEXT_LEN_MAX);
    refused(pin::encode(&pin));
    let mut snapshot = snapshot::decode(&bytes("snapshot")).unwrap();
    snapshot.shards.push(snapshot.shards[0].clone());
    refused(snapshot::encode(&snapshot));
    snapshot.shards.pop();
    snapshot.skeleton.pages[0].image.pop();
    refused(snapshot::encode(&snapshot));
    // A head with a snapshot that does not compress and is too large to travel in it.
    snapshot.figures.page_size = Some(PageSize::MAX);
    let mut chance = super::chance::Chance::new(2);
    snapshot.skeleton.pages = (1..=40)
        .map(|number| SkeletonPage { page: page(number), image: (0..65_536).map(|_| chance.bits() as u8).collect() })
        .collect();
    assert!(snapshot::encode(&snapshot).unwrap().len() > HEAD_INLINE_MAX);
    let mut head = head::decode(&bytes("head")).unwrap();
    head.inline = Some(Box::new(snapshot.clone()));
    refused(head::encode(&head));
    snapshot.skeleton.pages.extend((41..=65).map(|number| SkeletonPage { page: page(number), image: vec![1; 65_536] }));
    refused(snapshot::encode(&snapshot));
}

#[test]
fn a_blob_writer_refuses_what_would_be_no_blob() {
    let size = PageSize::MIN;
    let span = ChunkSpan { first: page(1), count: PageCount(2) };
    let raw = vec![1; 512];
    let begun = |kind| {
        let mut writer = blob::Writer::new(kind, size, Compression::Zstd, &KEY, 7);
        writer.header();
        writer.begin_chunk(ChunkId(0), span);
        writer
    };
    for (why, pages) in [
        ("no pages", vec![]),
        ("out of order", vec![(page(2), raw.as_slice()), (page(1), raw.as_slice())]),
        ("outside the chunk", vec![(page(3), raw.as_slice())]),
        ("short", vec![(page(1), &raw[1..])]),
        ("all zeros", vec![(page(1), &[0; 512][..])]),
    ] {
        assert!(begun(BlobKind::Pack).frame(&pages).is_err(), "{why}");
    }
    // Without a header, without a chunk.
    let mut writer = blob::Writer::new(BlobKind::Pack, size, Compression::Zstd, &KEY, 7);
    assert!(writer.frame(&[(page(1), &raw)]).is_err());
    assert!(writer.finish().is_err());
    let mut writer = blob::Writer::new(BlobKind::Pack, size, Compression::Zstd, &KEY, 7);
    writer.header();
    assert!(writer.frame(&[(page(1), &raw)]).is_err());
    // A base chunk holds all of its pages, each once.
    let mut writer = begun(BlobKind::Chunk);
    writer.zero(page(1));
    assert!(writer.finish().is_err(), "a page is missing");
    let mut writer = begun(BlobKind::Chunk);
    writer.zero(page(1));
    writer.zero(page(2));
    writer.frame(&[(page(2), &raw)]).unwrap();
    assert!(writer.finish().is_err(), "a page is there twice");
    let mut writer = begun(BlobKind::Chunk);
    writer.zero(page(2));
    writer.frame(&[(page(1), &raw)]).unwrap();
    assert!(writer.finish().is_ok());
    let mut writer = begun(BlobKind::Pack);
    writer.begin_chunk(ChunkId(0), span);
    assert!(writer.finish().is_err(), "a chunk twice");
    assert!(begun(BlobKind::Shard).finish().is_err(), "a shard is no blob of frames");
}

#[test]
fn nouns_inside_larger_things_leave_what_follows_alone() {
    let mut out = Out::new("test", 64);
    super::samples::base().put(&mut out);
    out.u8("next", 99);
    let bytes = out.finish().unwrap();
    let mut input = In::new("test", &bytes);
    assert_eq!(Base::get(&mut input), Ok(super::samples::base()));
    assert_eq!(input.rest(), [99]);
}
