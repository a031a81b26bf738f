//! A terabyte's manifest, really there: every chunk row and every frame index. 64 KiB pages here; the 4 KiB pages of
//! `LITTORAL_BENCH_PAGE=4096` make sixteen times as many frames.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use littoral_bench::{Cost, Machine};
use littoral_engine::log::Draft;
use littoral_ports::{Changed, MemoryRemote, PageSource, SourceError};
use littoral_types::limits::FRAME_PAGES_MAX;
use littoral_types::{
    Base, BlobHash, BlobKind, BlobName, BlobRef, ByteSpan, Checkpoint, ChunkSpan, FooterFigures, FrameEntry,
    FrameTable, Generation, Geometry, Home, ManifestOp, PageCount, PageNo, PageSize, RecordBody, Seq, VolumeFigures,
};

use std::sync::Arc;

const TERABYTE: u64 = 1 << 40;

/// A terabyte that nobody stored: every page says where it stands and how often it was changed.
struct StandIn {
    page_size: PageSize,
    changed: Vec<PageNo>,
    round: u64,
}

impl PageSource for StandIn {
    fn page_size(&self) -> PageSize {
        self.page_size
    }
    fn page_count(&self) -> PageCount {
        PageCount(TERABYTE / self.page_size.bytes())
    }
    fn lock_page(&self) -> Option<PageNo> {
        None
    }
    fn changed(&self) -> Changed {
        Changed::Pages(self.changed.clone())
    }
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        for (place, byte) in into.iter_mut().enumerate() {
            *byte = b'a' + ((page.get() + self.round + place as u64 / 5) % 19) as u8;
        }
        Ok(())
    }
}

impl StandIn {
    /// A hundred pages, spread over the whole.
    fn next_round(&mut self) {
        self.round += 1;
        let step = self.page_count().0 / 100;
        self.changed = (0..100).map(|at| PageNo::from_index(at * step + (self.round * 37 + at * 11) % step)).collect();
    }
}

fn base(span: ChunkSpan) -> Base {
    let pages: Vec<PageNo> = span.pages().collect();
    let mut offset = 64;
    let frames: Vec<FrameEntry> = pages
        .chunks(FRAME_PAGES_MAX)
        .map(|pages| {
            let len = 20_000 + pages[0].get() % 4_000;
            let entry = FrameEntry { span: ByteSpan { offset, len }, pages: pages.to_vec() };
            offset += len;
            entry
        })
        .collect();
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&span.first.get().to_le_bytes());
    let name = BlobName { kind: BlobKind::Chunk, hash: BlobHash(hash), birth: Seq(1) };
    Base {
        generation: Generation(1),
        blob: BlobRef { home: Home::Own, name, len: offset + 400_000 },
        span,
        last_live: span.last().unwrap(),
        table: FrameTable::new(frames, [], 0),
    }
}

async fn checkpoint(machine: &Machine, source: &mut StandIn) -> Cost {
    let (done, cost, jobs) = machine.checkpoint(source).await.unwrap();
    assert_eq!(done.unwrap().plan.changed_pages(), 100);
    if jobs.snapshot.is_some() || jobs.coalesced.records > 0 {
        println!("    besides: {jobs:?}");
    }
    cost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_and_an_open_of_a_terabyte_cost_what_they_cost_of_a_megabyte() {
    let page_size = std::env::var("LITTORAL_BENCH_PAGE").map_or(65536, |text| text.parse().unwrap());
    let page_size = PageSize::new(page_size).unwrap();
    let geometry = Geometry::new(page_size);
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path(), Machine::folder(&dir.path().join("remote")));
    std::fs::write(machine.database(), b"").unwrap();
    let mut source = StandIn { page_size, changed: Vec::new(), round: 0 };
    let page_count = source.page_count();

    // The first checkpoint of a terabyte, without the terabyte: its record and its rows are real.
    let mut session = machine.open().await;
    let mut ops = vec![ManifestOp::Reshape { page_size }, ManifestOp::Resize { page_count }];
    for chunk in 0..geometry.chunk_count(page_count) {
        let chunk = littoral_types::ChunkId(chunk);
        ops.push(ManifestOp::PutBase { chunk, base: base(geometry.span(chunk, page_count).unwrap()) });
    }
    let draft = Draft {
        body: RecordBody::Checkpoint(Checkpoint {
            ops,
            schema: None,
            sessions: Vec::new(),
            wal: None,
            pages: Vec::new(),
        }),
        commits: 1,
        figures: VolumeFigures { generation: Generation(1), page_size: Some(page_size), page_count },
        added: FooterFigures { pages: page_count.0, bytes: TERABYTE / 2 },
        identities: Vec::new(),
    };
    session.writer.publish(draft).await.unwrap();
    source.next_round();
    let written = littoral_engine::exec::snapshot::write_snapshot(&mut session.writer, None).await.unwrap();
    drop(session);
    println!("manifest snapshot: {written:?}");
    assert_eq!(written.rows, 16_384);

    machine.remote.reset();
    let opened = machine.log().open().await.unwrap().unwrap();
    let rows: usize = opened.snapshot.as_ref().unwrap().shards.iter().map(|shard| shard.rows.len()).sum();
    let opening = machine.cost();
    println!("{rows} chunk rows of {page_size} B pages; opening for reading: {opening}");
    machine.remote.reset();
    machine.log().glance().await.unwrap().unwrap();
    println!("opening the history: {}", machine.cost());
    assert!(machine.cost().down < 16_384 && machine.cost().gets <= 5, "{}", machine.cost());
    assert_eq!(rows, 16_384);
    assert!(opening.gets <= 3 && opening.depth <= 2, "{opening}");

    for round in 1..=20 {
        source.next_round();
        let raw = 100 * page_size.bytes();
        let cost = checkpoint(&machine, &mut source).await;
        if round == 1 || round == 20 {
            println!("checkpoint {round} of 100 pages ({raw} B): {cost}");
        }
        assert!(cost.puts <= 4, "{cost}");
        assert!(cost.up < raw / 4, "{cost}");
        // Nothing changed since: the same pages are looked at, and nothing is written.
        let (nothing, unchanged, _) = machine.checkpoint(&mut source).await.unwrap();
        assert!(nothing.is_none() && unchanged.puts == 0, "{unchanged}");
    }
}

/// An hour of commits, one record a second, and no manifest snapshot since: what an open costs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_after_3600_records_costs_no_more_than_after_a_hundred() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path(), Arc::new(MemoryRemote::new("an-hour")));
    std::fs::write(machine.database(), b"").unwrap();
    let page_size = PageSize::new(4096).unwrap();
    let page_count = PageCount(2000);
    let mut session = machine.open().await;
    let mut openings = Vec::new();
    for round in 1..=3600u64 {
        let generation = session.writer.row().tail.figures.generation.next();
        let page = PageNo::from_index(round * 13 % page_count.0);
        let name = BlobName { kind: BlobKind::Pack, hash: BlobHash([round as u8; 32]), birth: Seq(round) };
        let entry = FrameEntry { span: ByteSpan { offset: 64, len: 900 }, pages: vec![page] };
        let delta = littoral_types::Delta {
            // One delta stands for the others, as coalescing leaves it.
            id: littoral_types::DeltaId(generation.0),
            blob: BlobRef { home: Home::Own, name, len: 2000 },
            last_live: page_count.last().unwrap(),
            table: FrameTable::new([entry], [], 0),
        };
        let replaced = (generation.0.saturating_sub(1)..generation.0).map(littoral_types::DeltaId).collect();
        let mut ops = vec![ManifestOp::Resize { page_count }];
        if round == 1 {
            ops.insert(0, ManifestOp::Reshape { page_size });
        }
        ops.push(ManifestOp::ReplaceDeltas { chunk: littoral_types::ChunkId(0), replaced, delta: Some(delta) });
        let draft = Draft {
            body: RecordBody::Checkpoint(Checkpoint {
                ops,
                schema: None,
                sessions: Vec::new(),
                wal: None,
                pages: Vec::new(),
            }),
            commits: 1,
            figures: VolumeFigures { generation, page_size: Some(page_size), page_count },
            added: FooterFigures { pages: 1, bytes: 2000 },
            identities: Vec::new(),
        };
        session.writer.publish(draft).await.unwrap();
        if [100, 1000, 3600].contains(&round) {
            machine.remote.reset();
            let opened = machine.log().open().await.unwrap().unwrap();
            assert_eq!(opened.tail.lsn.0, round);
            assert_eq!(opened.snapshot, None, "the worst case: no manifest snapshot at all");
            let cost = machine.cost();
            println!("after {} records: {cost}", opened.tail.seq);
            openings.push(cost);
        }
    }
    for opening in openings {
        assert!(opening.gets <= 63 + 7 + 3, "{opening}");
    }
}
