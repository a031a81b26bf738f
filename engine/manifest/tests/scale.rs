//! A terabyte's worth of rows: 16,384 chunks with their frame tables, committed and looked up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_manifest::LmdbManifest;
use littoral_ports::Manifest;
use littoral_ports::conformance::manifest::{Dice, base, delta, id, record};
use littoral_types::{ChunkId, DeltaId, Geometry, ManifestOp, PageCount, PageNo, PageSize, Seq};
use std::time::{Duration, Instant};

const CHUNKS: u64 = 16_384;

fn a_terabyte(page_bytes: u64) {
    let dir = tempfile::tempdir().unwrap();
    let manifest = LmdbManifest::open(dir.path()).unwrap();
    let geometry = Geometry::new(PageSize::new(page_bytes).unwrap());
    let size = PageCount(geometry.pages_per_chunk() * CHUNKS);
    let span = |chunk| geometry.span(ChunkId(chunk), size).unwrap();

    let started = Instant::now();
    let mut frames = 0;
    for (seq, first) in (0..CHUNKS).step_by(2048).enumerate() {
        let ops = (first..first + 2048).map(|chunk| {
            let base = base(1, span(chunk));
            frames += base.table.frame_count();
            ManifestOp::PutBase { chunk: ChunkId(chunk), base }
        });
        let batch = littoral_ports::Batch { log: None, ..record(1, seq as u64 + 1, ops.collect()) };
        manifest.commit(&id(1), &batch).unwrap();
    }
    let filled = started.elapsed();

    // 100 random pages changed: one delta in each of up to 100 chunks.
    let mut dice = Dice(page_bytes);
    let pages: Vec<_> = (0..100).map(|_| PageNo::from_index(dice.below(size.0))).collect();
    let ops = pages.iter().map(|page| {
        let chunk = geometry.chunk_of(*page);
        ManifestOp::PutDelta { chunk, delta: delta(9, [*page], span(chunk.0).last().unwrap()) }
    });
    let ops: Vec<_> = ops.collect();
    let started = Instant::now();
    manifest.commit(&id(1), &record(1, 9, ops)).unwrap();
    let committed = started.elapsed();

    let started = Instant::now();
    for page in &pages {
        assert_eq!(manifest.newest_delta(&id(1), *page).unwrap(), Some(DeltaId(9)));
        let row = manifest.row(&id(1), geometry.chunk_of(*page)).unwrap().unwrap();
        assert_eq!(row.find(*page).unwrap().delta, Some(DeltaId(9)));
    }
    let looked_up = started.elapsed();

    let started = Instant::now();
    let (mut from, mut rows) = (ChunkId(0), 0);
    loop {
        let some = manifest.rows(&id(1), from, 1024).unwrap();
        let Some(last) = some.last() else { break };
        from = ChunkId(last.chunk.0 + 1);
        rows += some.len() as u64;
    }
    let walked = started.elapsed();
    assert_eq!(rows, CHUNKS);
    assert_eq!(manifest.changes_since(&id(1), Seq(8)).unwrap().len(), 1);

    // The last hundredth is cut off: what is behind stays untouched and the cut does not walk over it.
    let cut = PageCount(size.0 - size.0 / 100);
    let started = Instant::now();
    manifest.commit(&id(1), &record(1, 10, vec![ManifestOp::Resize { page_count: cut }])).unwrap();
    let shrunk = started.elapsed();
    assert!(manifest.row(&id(1), ChunkId(CHUNKS - 1)).unwrap().is_none());
    println!(
        "{page_bytes} bytes a page: {CHUNKS} rows with {frames} frames filled in {filled:?}; 100 deltas committed in {committed:?}, \
         looked up in {looked_up:?}; all rows read in {walked:?}; the last hundredth cut in {shrunk:?}"
    );
    // Generous: what is measured here are milliseconds, and what a scan would cost are seconds.
    assert!(committed < Duration::from_secs(2) && looked_up < Duration::from_secs(2), "{committed:?} {looked_up:?}");
}

#[test]
fn a_terabyte_of_64_kib_pages_is_committed_and_looked_up_quickly() {
    a_terabyte(65_536);
}

#[test]
#[ignore = "16,384 rows of 1,024 frames, by command: cargo test -p littoral-manifest --test scale -- --ignored --nocapture"]
fn a_terabyte_of_4_kib_pages_is_committed_and_looked_up_quickly() {
    a_terabyte(4_096);
}
