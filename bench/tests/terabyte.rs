//! A terabyte's manifest, really there: every chunk row and every frame index. 64 KiB pages here; the 4 KiB pages of
//! `LITTORAL_BENCH_PAGE=4096` make sixteen times as many frames.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use littoral_bench::{Cost, Machine, StandIn};
use littoral_engine::log::Draft;
use littoral_ports::MemoryRemote;
use littoral_types::{
    BlobHash, BlobKind, BlobName, BlobRef, ByteSpan, Checkpoint, FooterFigures, FrameEntry, FrameTable, Home,
    ManifestOp, PageCount, PageNo, PageSize, RecordBody, Seq, VolumeFigures,
};
use std::sync::Arc;

const TERABYTE: u64 = 1 << 40;

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
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path(), Machine::folder(&dir.path().join("remote")));
    std::fs::write(machine.database(), b"").unwrap();
    let mut source = StandIn::new(page_size, TERABYTE);
    let written = source.begin(&machine).await;
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
        source.change();
        let raw = 100 * page_size.bytes();
        let cost = checkpoint(&machine, &mut source).await;
        if round == 1 || round == 20 {
            println!("checkpoint {round} of 100 pages ({raw} B): {cost}");
        }
        assert!(cost.puts <= 4, "{cost}");
        assert!(cost.up < raw * 6 / 10, "{cost}");
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
            commits: 1,
            added: FooterFigures { pages: 1, bytes: 2000 },
            ..Draft::of(
                RecordBody::Checkpoint(Checkpoint { ops, ..Checkpoint::default() }),
                VolumeFigures { generation, page_size: Some(page_size), page_count },
            )
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
