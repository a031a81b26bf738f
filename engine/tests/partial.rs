//! A machine that has nothing goes on with a volume: in a handful of requests whatever the size, and with what it needs for the
//! chunks that it touches and no more (I12).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod rig;

use littoral_engine::exec::checkpoint::{Checkpointed, Options, checkpoint};
use littoral_engine::exec::coalesce::coalesce;
use littoral_engine::exec::partial;
use littoral_engine::exec::prune::{self, prune};
use littoral_engine::exec::restore::{At, restore};
use littoral_engine::exec::snapshot::write_snapshot;
use littoral_engine::exec::verify::verify;
use littoral_engine::log::Draft;
use littoral_manifest::LmdbManifest;
use littoral_plan::KeepPolicy;
use littoral_ports::{Changed, Manifest, MemoryManifest, MemoryRemote, PageSource, Remote, SourceError};
use littoral_types::{
    Base, BlobHash, BlobKind, BlobName, BlobRef, ByteSpan, ChunkId, ChunkSpan, Compression, Epoch, FooterFigures,
    FrameEntry, FrameTable, Generation, Geometry, Home, ManifestOp, PageCount, PageNo, PageSize, RecordBody, Seq,
    VolumeFigures,
};
use rig::{Chance, Machine, Pages, cost, counted};
use std::sync::Arc;

const CHUNKS: u64 = 10_000;

/// More than half a terabyte that nobody stored; a few pages are read.
struct StandIn {
    changed: Vec<PageNo>,
    round: u64,
}

impl PageSource for StandIn {
    fn page_size(&self) -> PageSize {
        PageSize::MAX
    }
    fn page_count(&self) -> PageCount {
        PageCount(CHUNKS * 1024)
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
    fn next_round(&mut self, pages: u64) {
        self.round += 1;
        let step = self.page_count().0 / pages;
        self.changed =
            (0..pages).map(|at| PageNo::from_index(at * step + (self.round * 37 + at * 11) % step)).collect();
    }
}

fn base(span: ChunkSpan) -> Base {
    let pages: Vec<PageNo> = span.pages().collect();
    let mut offset = 64;
    let frames: Vec<FrameEntry> = pages
        .chunks(16)
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
        table: FrameTable::new(frames, [], 7),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_machine_goes_on_writing_in_a_handful_of_requests_and_touches_what_it_touches() {
    let memory: Arc<dyn Remote> = Arc::new(MemoryRemote::new("partial"));
    let first = Machine::new(memory.clone());
    let page_size = PageSize::MAX;
    let mut source = StandIn { changed: Vec::new(), round: 0 };
    let mut session = first.open().await.unwrap();
    let page_count = source.page_count();
    let geometry = Geometry::new(page_size);
    let mut ops = vec![ManifestOp::Reshape { page_size }, ManifestOp::Resize { page_count }];
    for chunk in (0..CHUNKS).map(ChunkId) {
        ops.push(ManifestOp::PutBase { chunk, base: base(geometry.span(chunk, page_count).unwrap()) });
    }
    let body = littoral_types::Checkpoint { ops, ..Default::default() };
    let draft = Draft {
        commits: 1,
        added: FooterFigures { pages: page_count.0, bytes: 1 << 39 },
        ..Draft::of(
            RecordBody::Checkpoint(body),
            VolumeFigures { generation: Generation(1), page_size: Some(page_size), page_count },
        )
    };
    session.writer.publish(draft).await.unwrap();
    write_snapshot(&mut session.writer, None).await.unwrap();
    for _ in 0..3 {
        source.next_round(20);
        checkpoint(&mut session.writer, &session.scratch, &mut source, &Options::default()).await.unwrap().unwrap();
    }
    drop(session);

    let remote = counted(memory.clone());
    let lmdb = tempfile::tempdir().unwrap();
    let manifest: Arc<dyn Manifest> = Arc::new(LmdbManifest::open(lmdb.path()).unwrap());
    let mut other = Machine::with(remote.clone(), manifest.clone());
    other.target.takeover = Some(Epoch(1));
    other.target.fencing = false;
    let mut session = other.open().await.unwrap();
    let opening = cost(&remote);
    println!("taking over {CHUNKS} chunks: {opening:?}");
    assert!(opening.requests <= 12 && opening.depth <= 7, "{opening:?}");
    assert!(opening.down < 256 << 10, "{opening:?}");
    let id = session.writer.row().meta.id;
    assert!(
        manifest.rows(&id, ChunkId(0), usize::MAX).unwrap().len() <= 60,
        "only what was touched since the snapshot"
    );

    // A checkpoint that knows what changed reads nothing of the chunks that it does not write whole.
    source.next_round(10);
    remote.reset();
    let done = checkpoint(&mut session.writer, &session.scratch, &mut source, &Options::default()).await.unwrap();
    let checkpointed = cost(&remote);
    println!("a checkpoint of 10 pages in 10 chunks: {checkpointed:?}");
    assert_eq!(done.unwrap().plan.changed_pages(), 10);
    assert!(checkpointed.requests <= 6 && checkpointed.down < 4096, "{checkpointed:?}");

    // Coalescing looks at the rows of the chunks it is given.
    remote.reset();
    let ten: Vec<ChunkId> = (0..10).map(|at| ChunkId(at * 997)).collect();
    coalesce(&mut session.writer, &session.scratch, Some(&ten), Compression::Zstd).await.unwrap();
    let coalesced = cost(&remote);
    println!("coalescing looks at 10 chunks: {coalesced:?}");
    // Ten rows, and the deltas of those that it merges.
    assert!(coalesced.requests <= 20 && coalesced.down < 64 << 10, "{coalesced:?}");

    // A manifest snapshot carries shards over by name, and brings up those that were touched.
    source.changed = vec![PageNo::from_index(5 * 1024 * 1024 + 17)];
    source.round += 1;
    checkpoint(&mut session.writer, &session.scratch, &mut source, &Options::default()).await.unwrap().unwrap();
    write_snapshot(&mut session.writer, None).await.unwrap();
    source.changed = vec![PageNo::from_index(5 * 1024 * 1024 + 18)];
    source.round += 1;
    checkpoint(&mut session.writer, &session.scratch, &mut source, &Options::default()).await.unwrap().unwrap();
    remote.reset();
    let written = write_snapshot(&mut session.writer, None).await.unwrap();
    println!("a manifest snapshot with one touched shard: {written:?}, {:?}", cost(&remote));
    assert_eq!((written.shards, written.rows), (1, 1024));
    assert!(cost(&remote).requests <= 8, "{:?}", cost(&remote));
    // It says what the whole says.
    let log = other.log();
    let opened = log.open().await.unwrap().unwrap();
    let theirs = littoral_engine::exec::rebuild::rows(&log, &opened).await.unwrap();
    assert_eq!(theirs.len() as u64, CHUNKS);
    let all = partial::all_chunks(session.writer.row());
    partial::rows(&mut session.writer, &all).await.unwrap();
    let ours = manifest.rows(&id, ChunkId(0), usize::MAX).unwrap();
    assert!(theirs.into_values().eq(ours), "rows that were learnt piece by piece are those of the whole");

    // Next time, with what it knows: no more than any open.
    drop(session);
    other.target.takeover = None;
    remote.reset();
    drop(other.open().await.unwrap());
    assert!(cost(&remote).requests <= 3, "{:?}", cost(&remote));
}

async fn go_on(machine: &Machine, pages: &mut Pages, chance: &mut Chance) -> Option<Checkpointed> {
    let mut session = machine.open().await.unwrap();
    let mut changed = Vec::new();
    for _ in 0..=chance.below(5) {
        let at = chance.below(pages.pages.len() as u64) as usize;
        pages.write(at, chance.next());
        changed.push(PageNo::from_index(at as u64));
    }
    match chance.below(9) {
        0 => {
            let before = pages.pages.len();
            pages.resize(700 + chance.below(1400) as usize);
            changed.extend((before..pages.pages.len()).map(|at| PageNo::from_index(at as u64)));
        }
        // Most of a chunk: it is written whole.
        1 => {
            for at in 10..700.min(pages.pages.len()) {
                pages.write(at, chance.next());
                changed.push(PageNo::from_index(at as u64));
            }
        }
        _ => {}
    }
    changed.sort_unstable();
    changed.dedup();
    pages.changed = (chance.below(3) > 0).then_some(changed);
    let done = checkpoint(&mut session.writer, &session.scratch, pages, &Options::default()).await.unwrap();
    if chance.below(3) == 0 {
        let source: Option<&mut dyn PageSource> = if chance.below(2) == 0 { Some(pages) } else { None };
        write_snapshot(&mut session.writer, source).await.unwrap();
    }
    if chance.below(3) == 0 {
        coalesce(&mut session.writer, &session.scratch, None, Compression::Zstd).await.unwrap();
    }
    if chance.below(7) == 0 {
        let options = prune::Options { keep: KeepPolicy { last: 3, within_ms: 0 }, grace_ms: 0, dry_run: false };
        prune(&mut session.writer, &options).await.unwrap();
    }
    done
}

/// Machine after machine takes over with nothing, goes on for a while, and leaves: at every end the log is whole and holds what
/// the database holds.
async fn relay(seed: u64) {
    let memory = Arc::new(MemoryRemote::new(&format!("relay-{seed}")));
    let mut chance = Chance(seed);
    let mut pages = Pages::new(65536, 1500);
    for leg in 0..7u64 {
        let manifest: Arc<dyn Manifest> = Arc::new(MemoryManifest::new());
        let mut machine = Machine::with(memory.clone(), manifest);
        // Each leg is a term.
        machine.target.takeover = (leg > 0).then_some(Epoch(leg));
        drop(machine.open().await.unwrap());
        machine.target.takeover = None;
        for _ in 0..=chance.below(4) {
            go_on(&machine, &mut pages, &mut chance).await;
        }
        if chance.below(2) == 0 {
            // Nothing that was not changed is taken for changed, although nobody watched.
            let at = chance.below(pages.pages.len() as u64) as usize;
            pages.write(at, chance.next());
            pages.changed = None;
            let mut session = machine.open().await.unwrap();
            let done =
                checkpoint(&mut session.writer, &session.scratch, &mut pages, &Options::default()).await.unwrap();
            assert_eq!(done.unwrap().plan.changed_pages(), 1, "seed {seed}, leg {leg}");
        }
        let verified = verify(&machine.log(), &machine.components).await.unwrap();
        assert_eq!(verified.problems, Vec::<String>::new(), "seed {seed}, leg {leg}");
        let dest = machine.dir.path().join("restored.db");
        restore(&machine.log(), &machine.components, &At::Newest, &dest, true).await.unwrap();
        assert!(std::fs::read(dest).unwrap() == pages.pages.concat(), "seed {seed}, leg {leg}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_begin_with_nothing_leave_a_log_that_is_whole() {
    let seeds = std::env::var("LITTORAL_LAZY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2);
    for seed in 1..=seeds {
        relay(seed).await;
    }
}
