//! How large things are: rows and shards are fetched by everyone who opens.

use super::samples::KEY;
use crate::{blob, rows, shard};
use littoral_types::*;

/// A base in page order whose frames compress to 0.4 of their size, more or less.
fn base(page_size: u64) -> Base {
    let geometry = Geometry::new(PageSize::new(page_size).unwrap());
    let span = geometry.span(ChunkId(3), PageCount(u64::MAX)).unwrap();
    let pages: Vec<_> = span.pages().collect();
    let mut offset = 16;
    let frames = pages.chunks(16).zip(0u64..).map(|(pages, nth)| {
        let len = pages.len() as u64 * page_size * 4 / 10 + nth * 7919 % 1000;
        let span = ByteSpan { offset, len };
        offset += len;
        FrameEntry { span, pages: pages.to_vec() }
    });
    let table = FrameTable::new(frames, [], u64::MAX);
    let name = BlobName { kind: BlobKind::Chunk, hash: BlobHash([1; 32]), birth: Seq(1000) };
    let blob = BlobRef { home: Home::Own, name, len: offset };
    Base { generation: Generation(9), blob, span, last_live: span.last().unwrap(), table }
}

#[test]
fn a_base_in_page_order_takes_three_bytes_a_frame() {
    let small = rows::base::encode(&base(4096)).unwrap();
    assert!(small.len() < 3_300, "16,384 pages in {} bytes", small.len());
    let large = rows::base::encode(&base(65_536)).unwrap();
    assert!(large.len() < 280, "1,024 pages in {} bytes", large.len());
    let tiny = rows::base::encode(&base(512)).unwrap();
    assert!(tiny.len() < 17_000, "131,072 pages in {} bytes", tiny.len());
}

#[test]
fn zero_pages_cost_by_the_run() {
    let mut base = base(4096);
    let pages: Vec<_> = base.table.pages().collect();
    let (zeros, stored) = pages.split_at(16_000);
    let frames = stored
        .chunks(16)
        .zip(0..)
        .map(|(pages, nth)| FrameEntry { span: ByteSpan { offset: nth * 100, len: 100 }, pages: pages.to_vec() });
    base.table = FrameTable::new(frames, zeros.iter().copied(), base.table.mark);
    let row = rows::base::encode(&base).unwrap();
    assert!(row.len() < 150, "{} bytes", row.len());
    assert_eq!(rows::base::decode(&row), Ok(base));
}

#[test]
fn a_scattered_delta_takes_a_few_bytes_a_page() {
    let mut base = base(4096);
    let pages: Vec<_> = base.span.pages().step_by(161).take(100).collect();
    let frames = pages
        .chunks(16)
        .zip(0..)
        .map(|(pages, nth)| FrameEntry { span: ByteSpan { offset: nth * 20_000, len: 20_000 }, pages: pages.to_vec() });
    base.table = FrameTable::new(frames, [], base.table.mark);
    let delta = Delta { id: DeltaId(9), blob: base.blob, last_live: base.last_live, table: base.table };
    let row = rows::delta::encode(&delta).unwrap();
    assert!(row.len() < 330, "100 pages in {} bytes", row.len());
}

#[test]
fn a_shard_of_4_kib_pages_stays_below_four_megabytes() {
    let rows: Vec<_> =
        (0..1024).map(|chunk| ChunkRow { base: Some(base(4096)), ..ChunkRow::new(ChunkId(chunk)) }).collect();
    let (bytes, lengths) = shard::encode(0, &rows).unwrap();
    assert!(bytes.len() < 4 << 20, "{} bytes", bytes.len());
    assert_eq!(lengths.len(), 1024);
    assert_eq!(shard::decode(&bytes), Ok((0, rows)));
}

#[test]
fn a_full_row_of_identities_fits_into_a_page_of_the_manifest() {
    let row = rows::identities::encode(&[Some(PageIdentity([1; 16])); 64]).unwrap();
    // LMDB gives a value pages of its own from about half of a 4 KiB page on.
    assert!(row.len() < 2_000, "{} bytes", row.len());
}

#[test]
fn the_first_suffix_that_is_fetched_holds_the_footer_of_a_chunk_of_4_kib_pages() {
    let size = PageSize::new(4096).unwrap();
    let span = Geometry::new(size).span(ChunkId(0), PageCount(u64::MAX)).unwrap();
    let mut writer = blob::Writer::new(BlobKind::Chunk, size, Compression::Zstd, &KEY, u64::MAX);
    let mut bytes = writer.header();
    writer.begin_chunk(ChunkId(0), span);
    let pages: Vec<_> = span.pages().collect();
    for pages in pages.chunks(16) {
        let raw: Vec<_> = pages.iter().map(|page| (*page, vec![page.get() as u8 | 1; 4096])).collect();
        let slots: Vec<_> = raw.iter().map(|(page, raw)| (*page, raw.as_slice())).collect();
        bytes.extend(writer.frame(&slots).unwrap());
    }
    let (footer, index) = writer.finish().unwrap();
    // Frames that do not compress have longer lengths: up to two bytes more each.
    assert!(footer.len() as u64 + 2 * 1024 <= blob::SUFFIX_GUESS, "{} bytes", footer.len());
    bytes.extend(footer);
    assert_eq!(blob::verify(&bytes, &KEY), Ok(index));
}
