//! What every [`Manifest`] must do. [`all`] runs everything; [`World`] is the model that property tests drive further.
//!
//! The model is naive on purpose: rows are what [`ChunkRow::apply`] makes of the operations, kept in a map, and every
//! answer is found by looking at all of them.

use crate::{Batch, Manifest, ManifestError};
use littoral_types::limits::CHUNK_BYTES;
use littoral_types::{
    Base, BlobHash, BlobKind, BlobName, BlobRef, ByteSpan, Change, ChangeSeq, ChunkId, ChunkRow, ChunkSpan, Delta,
    DeltaId, Epoch, FooterFigures, Form, FrameEntry, FrameTable, Generation, Geometry, Home, IdentityKey, Incarnation,
    Intent, Lsn, LsnRange, ManifestOp, Owner, PageCount, PageIdentity, PageNo, PageSize, RecordHash, RecordKind,
    RecordSummary, Seq, StagedBlob, StoreId, TailRow, VolumeFigures, VolumeId, VolumeKind, VolumeMeta, VolumeName,
    VolumeRow,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One store's manifest, opened as often as asked.
pub trait Subject {
    /// Opens it: everything that was committed before is there. What an earlier call answered has been dropped.
    fn open(&mut self) -> Arc<dyn Manifest>;
}

/// Runs every check, each on a subject of its own.
pub fn all(fresh: &mut dyn FnMut() -> Box<dyn Subject>) {
    for (name, check) in CHECKS {
        println!("manifest conformance: {name}");
        check(fresh().as_mut());
    }
    for seed in 0..8 {
        walk(seed, 400, fresh().as_mut());
    }
}

/// A named check.
pub type Check = (&'static str, fn(&mut dyn Subject));

/// Every check that needs no seed.
pub const CHECKS: &[Check] = &[
    ("what was never committed is answered with nothing", what_was_never_committed_is_answered_with_nothing),
    ("a refused batch changes nothing", a_refused_batch_changes_nothing),
    ("the tail follows and never goes back", the_tail_follows_and_never_goes_back),
    ("page numbers and chunk ids keep all bits", page_numbers_and_chunk_ids_keep_all_bits),
    ("a cut kills versions across chunks and growth does not revive", a_cut_kills_versions_across_chunks),
    ("replaying a run over a prefix of it gives the same end", replaying_a_run_over_a_prefix_gives_the_same_end),
    ("the change log waits for every cursor", the_change_log_waits_for_every_cursor),
    ("changes of one volume are found by record", changes_of_one_volume_are_found_by_record),
    ("a reset forgets the volume and leaves the log", a_reset_forgets_the_volume_and_leaves_the_log),
    ("a job keeps its blobs until it changes", a_job_keeps_its_blobs_until_it_changes),
    ("volumes of one store do not see each other", volumes_of_one_store_do_not_see_each_other),
    ("readers see whole batches", readers_see_whole_batches),
];

/// The smallest pages there are: chunks have the most pages, and numbers grow beyond 32 bits soonest.
fn pages_of(size: u64) -> Geometry {
    Geometry::new(PageSize::new(size).unwrap())
}

/// A volume's id from a small number.
pub fn id(number: u8) -> VolumeId {
    VolumeId([number; 16])
}

/// A volume's row with its tail at `seq`.
pub fn row(number: u8, seq: u64) -> VolumeRow {
    VolumeRow {
        meta: VolumeMeta {
            id: id(number),
            name: format!("volume-{number}").parse().unwrap(),
            kind: VolumeKind::Database,
            identity_key: IdentityKey([number; 32]),
            created_ms: 1,
        },
        tail: TailRow {
            seq: Seq(seq),
            hash: RecordHash([seq as u8; 32]),
            epoch: Epoch(1),
            incarnation: Incarnation([3; 16]),
            owner: Some(Owner { store: StoreId([4; 16]), label: "here".into() }),
            lsn: Lsn(seq),
            time_ms: 1000 + seq,
            figures: VolumeFigures {
                generation: Generation(seq),
                page_size: Some(PageSize::MIN),
                page_count: PageCount(seq),
            },
            schema: None,
            snapshot: Seq::ZERO,
            index: Some((Seq(64), RecordHash([6; 32]))),
            floor: Seq::ZERO,
            seen_ms: 5,
            wal: None,
        },
        fenced: None,
    }
}

/// A blob that a number names.
pub fn blob(kind: BlobKind, number: u64) -> BlobRef {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    let home = if number % 5 == 4 { Home::Other("parent".parse().unwrap()) } else { Home::Own };
    BlobRef { home, name: BlobName { kind, hash: BlobHash(hash), birth: Seq(number) }, len: 1000 + number }
}

/// A table over these pages: every seventh is zeros, the others lie in frames of up to sixteen.
pub fn table(pages: impl IntoIterator<Item = PageNo>) -> FrameTable {
    let (zeros, stored): (Vec<_>, Vec<_>) = pages.into_iter().partition(|page| page.get() % 7 == 3);
    let frames = stored.chunks(16).enumerate().map(|(at, pages)| FrameEntry {
        span: ByteSpan { offset: 64 + at as u64 * 9000, len: 8999 },
        pages: pages.to_vec(),
    });
    let mark = if stored.is_empty() { 0 } else { 0xfeed };
    FrameTable::new(frames, zeros, mark)
}

/// A delta with these pages, alive up to `last_live`.
pub fn delta(number: u64, pages: impl IntoIterator<Item = PageNo>, last_live: PageNo) -> Delta {
    Delta { id: DeltaId(number), blob: blob(BlobKind::Pack, number), last_live, table: table(pages) }
}

/// A base over a whole span.
pub fn base(number: u64, span: ChunkSpan) -> Base {
    Base {
        generation: Generation(number),
        blob: blob(BlobKind::Chunk, number),
        span,
        last_live: span.last().unwrap(),
        table: table(span.pages()),
    }
}

fn page(number: u64) -> PageNo {
    PageNo::new(number).unwrap()
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ManifestError>) {
    assert!(matches!(answer, Err(ManifestError::Misuse(_))), "{answer:?}");
}

/// What a log entry says of a record.
pub fn summary(seq: u64, kind: RecordKind) -> RecordSummary {
    RecordSummary {
        seq: Seq(seq),
        kind,
        hash: RecordHash([seq as u8; 32]),
        epoch: Epoch(1),
        lsns: LsnRange::empty_after(Lsn(seq)),
        time_ms: 1000 + seq,
        page_count: PageCount(seq),
        added: FooterFigures { pages: seq, bytes: 3 },
    }
}

/// A log entry: records after `from` up to `to`.
pub fn log(from: u64, to: u64) -> Option<(Seq, Vec<RecordSummary>)> {
    Some((Seq(from), (from + 1..=to).map(|seq| summary(seq, RecordKind::Checkpoint)).collect()))
}

/// A batch that publishes one checkpoint record at `seq`.
pub fn record(number: u8, seq: u64, ops: Vec<ManifestOp>) -> Batch {
    Batch { volume: Some(row(number, seq)), ops, log: log(seq - 1, seq), ..Batch::default() }
}

fn what_was_never_committed_is_answered_with_nothing(subject: &mut dyn Subject) {
    let manifest = subject.open();
    assert_eq!(manifest.volumes().unwrap(), []);
    assert_eq!(manifest.volume(&row(1, 1).meta.name).unwrap(), None);
    assert_eq!(manifest.row(&id(1), ChunkId(0)).unwrap(), None);
    assert_eq!(manifest.rows(&id(1), ChunkId(0), 10).unwrap(), []);
    assert_eq!(manifest.newest_delta(&id(1), page(1)).unwrap(), None);
    assert_eq!(manifest.identities(&id(1), page(1), 3).unwrap(), [None; 3]);
    assert_eq!(manifest.identities(&id(1), page(u64::MAX), 3).unwrap(), [None; 1]);
    assert_eq!(manifest.identities(&id(1), page(1), 0).unwrap(), []);
    assert_eq!(manifest.intent(&id(1)).unwrap(), None);
    assert_eq!(manifest.job(&id(1)).unwrap(), None);
    assert_eq!(manifest.changes(ChangeSeq(0), 10).unwrap(), []);
    assert_eq!(manifest.changes_since(&id(1), Seq(0)).unwrap(), []);
    assert_eq!(manifest.trim().unwrap(), 0);
}

fn a_refused_batch_changes_nothing(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let resize = vec![ManifestOp::Resize { page_count: PageCount(9) }];
    let unknown = Batch { ops: resize.clone(), ..Batch::default() };
    refused(manifest.commit(&id(1), &unknown));
    refused(manifest.commit(&id(1), &Batch { reset: true, ..unknown }));
    refused(manifest.commit(&id(2), &record(1, 1, vec![])));
    assert_eq!(manifest.volumes().unwrap(), []);

    manifest.commit(&id(1), &record(1, 1, vec![])).unwrap();
    let mut namesake = record(2, 1, resize.clone());
    namesake.volume.as_mut().unwrap().meta.name = row(1, 1).meta.name;
    refused(manifest.commit(&id(2), &namesake));
    let mut renamed = record(1, 2, resize);
    renamed.volume.as_mut().unwrap().meta.name = "another".parse().unwrap();
    refused(manifest.commit(&id(1), &renamed));
    let staged = StagedBlob { input: [1; 32], blob: blob(BlobKind::Pack, 1), uploaded: false };
    refused(manifest.commit(&id(1), &Batch { staged: vec![staged], ..Batch::default() }));
    for cursor in ["", &"x".repeat(129)] {
        refused(manifest.subscribe(cursor));
        refused(manifest.acknowledge(cursor, ChangeSeq(0)));
        refused(manifest.unsubscribe(cursor));
    }
    drop(manifest);

    let manifest = subject.open();
    assert_eq!(manifest.volumes().unwrap(), [row(1, 1)]);
    assert_eq!(manifest.changes(ChangeSeq(0), 10).unwrap().len(), 1);
}

fn the_tail_follows_and_never_goes_back(subject: &mut dyn Subject) {
    let manifest = subject.open();
    manifest.commit(&id(1), &Batch { log: log(0, 5), ..record(1, 5, vec![]) }).unwrap();
    refused(manifest.commit(&id(1), &Batch { log: log(6, 7), ..record(1, 7, vec![]) }));
    refused(manifest.commit(&id(1), &Batch { log: log(5, 7), ..record(1, 6, vec![]) }));
    refused(manifest.commit(&id(1), &Batch { log: log(5, 5), ..record(1, 5, vec![]) }));
    let twice = vec![summary(6, RecordKind::Claim), summary(6, RecordKind::Claim)];
    refused(manifest.commit(&id(1), &Batch { log: Some((Seq(5), twice)), ..record(1, 6, vec![]) }));
    refused(manifest.commit(&id(1), &record(1, 4, vec![])));
    assert_eq!(manifest.volume(&row(1, 5).meta.name).unwrap(), Some(row(1, 5)));
    assert_eq!(manifest.changes(ChangeSeq(0), 10).unwrap().len(), 1);
    // An index record's run may begin before the tail.
    manifest.commit(&id(1), &Batch { log: log(2, 9), ..record(1, 9, vec![]) }).unwrap();
    // Fences and sightings bring no record.
    let mut fenced = row(1, 9);
    fenced.fenced = Some((Epoch(2), Owner { store: StoreId([9; 16]), label: "there".into() }));
    manifest.commit(&id(1), &Batch { volume: Some(fenced.clone()), ..Batch::default() }).unwrap();
    assert_eq!(manifest.volumes().unwrap(), [fenced]);
}

fn page_numbers_and_chunk_ids_keep_all_bits(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let geometry = pages_of(512);
    let far = [u64::from(u32::MAX) - 3, u64::from(u32::MAX), u64::from(u32::MAX) + 4, 1 << 40, u64::MAX - 3];
    let mut ops = Vec::new();
    let mut identities = Vec::new();
    for (at, number) in far.into_iter().enumerate() {
        let pages = [page(number), page(number + 1)];
        for page in pages {
            identities.push((page, PageIdentity([at as u8; 16])));
            ops.push(ManifestOp::PutDelta {
                chunk: geometry.chunk_of(page),
                delta: delta(at as u64 * 2 + 1 + page.get() % 2, [page], PageNo::new(u64::MAX).unwrap()),
            });
        }
    }
    let mut last = delta(99, [page(7)], page(7));
    last.id = DeltaId(u64::MAX);
    ops.push(ManifestOp::PutDelta { chunk: ChunkId(u64::MAX), delta: last.clone() });
    manifest.commit(&id(1), &Batch { identities, ..record(1, 1, ops) }).unwrap();
    for (at, number) in far.into_iter().enumerate() {
        for page in [page(number), page(number + 1)] {
            let expected = DeltaId(at as u64 * 2 + 1 + page.get() % 2);
            assert_eq!(manifest.newest_delta(&id(1), page).unwrap(), Some(expected), "page {page}");
            let row = manifest.row(&id(1), geometry.chunk_of(page)).unwrap().unwrap();
            assert_eq!(row.find(page).unwrap().delta, Some(expected));
            assert_eq!(manifest.identities(&id(1), page, 1).unwrap(), [Some(PageIdentity([at as u8; 16]))]);
        }
        assert_eq!(manifest.newest_delta(&id(1), page(number & 0xffff_ffff | 1 << 39)).unwrap(), None);
    }
    let rows = manifest.rows(&id(1), ChunkId(1 << 60), 10).unwrap();
    assert_eq!(rows, [ChunkRow { chunk: ChunkId(u64::MAX), base: None, deltas: vec![last] }]);
    assert_eq!(manifest.rows(&id(1), ChunkId(u64::MAX), 1).unwrap().len(), 1);
}

fn a_cut_kills_versions_across_chunks(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let geometry = pages_of(65536);
    let size = PageCount(geometry.pages_per_chunk() * 3);
    let span = |chunk| geometry.span(ChunkId(chunk), size).unwrap();
    let mut ops: Vec<_> =
        (0..3).map(|chunk| ManifestOp::PutBase { chunk: ChunkId(chunk), base: base(1, span(chunk)) }).collect();
    for chunk in 0..3 {
        let pages = span(chunk).pages().step_by(100);
        ops.push(ManifestOp::PutDelta { chunk: ChunkId(chunk), delta: delta(2, pages, size.last().unwrap()) });
    }
    let first = span(0).pages().map(|page| (page, PageIdentity([1; 16])));
    let identities = first.chain(span(1).pages().map(|page| (page, PageIdentity([2; 16])))).collect();
    manifest.commit(&id(1), &Batch { identities, ..record(1, 1, ops) }).unwrap();

    // In the middle of the second chunk: the third goes, the second is cut, the first keeps its pages.
    let end = page(span(1).first.get() + 150);
    let cut = vec![ManifestOp::Resize { page_count: PageCount(end.get()) }, ManifestOp::Resize { page_count: size }];
    manifest.commit(&id(1), &record(1, 2, cut)).unwrap();
    assert_eq!(manifest.rows(&id(1), ChunkId(0), 9).unwrap().len(), 2);
    let row = manifest.row(&id(1), ChunkId(1)).unwrap().unwrap();
    assert!(row.find(end).is_some() && row.find(end.next()).is_none(), "growing again revives nothing");
    for number in span(1).pages().chain(span(2).pages()).filter(|page| *page > end) {
        assert_eq!(manifest.newest_delta(&id(1), number).unwrap(), None);
    }
    assert_eq!(manifest.newest_delta(&id(1), span(1).first).unwrap(), Some(DeltaId(2)));
    let known = manifest.identities(&id(1), span(1).first, 200).unwrap();
    assert!(known[..151].iter().all(Option::is_some) && known[151..].iter().all(Option::is_none));
    assert!(manifest.identities(&id(1), page(1), 1024).unwrap().iter().all(Option::is_some));

    manifest.commit(&id(1), &record(1, 3, vec![ManifestOp::Resize { page_count: PageCount::ZERO }])).unwrap();
    assert_eq!(manifest.rows(&id(1), ChunkId(0), 9).unwrap(), []);
    assert_eq!(manifest.newest_delta(&id(1), page(1)).unwrap(), None);
    assert_eq!(manifest.identities(&id(1), page(1), 1024).unwrap(), [None; 1024]);
}

fn replaying_a_run_over_a_prefix_gives_the_same_end(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let mut world = World::new(1);
    let mut dice = Dice(11);
    let steps: Vec<Step> =
        std::iter::repeat_with(|| dice.step()).filter(|step| matches!(step, Step::Op(_))).take(60).collect();
    for step in &steps {
        world.perform(manifest.as_ref(), step);
    }
    let entries = manifest.changes_since(&id(1), Seq(0)).unwrap();
    let run: Vec<_> = entries.into_iter().flat_map(|change| change.ops).collect();
    let rows = manifest.rows(&id(1), ChunkId(0), usize::MAX).unwrap();
    let seq = world.seq + 1;
    manifest.commit(&id(1), &Batch { log: log(0, seq), ..record(1, seq, run) }).unwrap();
    assert_eq!(manifest.rows(&id(1), ChunkId(0), usize::MAX).unwrap(), rows);
    world.seq = seq;
    world.compare_pages(manifest.as_ref());
}

fn the_change_log_waits_for_every_cursor(subject: &mut dyn Subject) {
    let manifest = subject.open();
    assert_eq!(manifest.subscribe("gc").unwrap(), ChangeSeq(0));
    let resize = |pages| vec![ManifestOp::Resize { page_count: PageCount(pages) }];
    let numbers: Vec<_> =
        (1..=5).map(|seq| manifest.commit(&id(1), &record(1, seq, resize(seq))).unwrap().unwrap()).collect();
    assert!(numbers.is_sorted() && numbers[0] > ChangeSeq(0));
    assert_eq!(manifest.trim().unwrap(), 0, "nobody has acknowledged anything");
    let all = manifest.changes(ChangeSeq(0), 100).unwrap();
    assert_eq!(all.len(), 5);
    assert_eq!(
        all[2],
        Change {
            change: numbers[2],
            volume: id(1),
            after: Seq(2),
            records: vec![summary(3, RecordKind::Checkpoint)],
            ops: resize(3),
        }
    );
    assert_eq!(manifest.changes(numbers[1], 2).unwrap(), all[2..4]);

    manifest.acknowledge("gc", numbers[3]).unwrap();
    assert_eq!(manifest.subscribe("mirror").unwrap(), ChangeSeq(0));
    manifest.acknowledge("mirror", numbers[1]).unwrap();
    refused(manifest.acknowledge("mirror", numbers[0]));
    refused(manifest.acknowledge("mirror", ChangeSeq(numbers[4].0 + 1)));
    refused(manifest.acknowledge("nobody", numbers[0]));
    assert_eq!(manifest.trim().unwrap(), 2);
    drop(manifest);

    let manifest = subject.open();
    assert_eq!(manifest.subscribe("mirror").unwrap(), numbers[1], "a cursor outlives its subscriber");
    assert_eq!(manifest.changes(ChangeSeq(0), 100).unwrap(), all[2..]);
    assert_eq!(manifest.changes_since(&id(1), Seq(0)).unwrap(), all[2..]);
    manifest.unsubscribe("mirror").unwrap();
    manifest.unsubscribe("mirror").unwrap();
    assert_eq!(manifest.trim().unwrap(), 2);
    manifest.unsubscribe("gc").unwrap();
    assert_eq!(manifest.trim().unwrap(), 1);
    drop(manifest);

    let manifest = subject.open();
    let next = manifest.commit(&id(1), &record(1, 6, vec![])).unwrap().unwrap();
    assert!(next > numbers[4], "numbers are not given twice, even when the log is empty");
}

fn changes_of_one_volume_are_found_by_record(subject: &mut dyn Subject) {
    let manifest = subject.open();
    for (volume, from, to) in [(1, 0, 1), (2, 0, 9), (1, 1, 6), (2, 9, 10), (1, 6, 7)] {
        manifest.commit(&id(volume), &Batch { log: log(from, to), ..record(volume, to, vec![]) }).unwrap();
    }
    let found = |after| -> Vec<_> {
        let changes = manifest.changes_since(&id(1), Seq(after)).unwrap();
        assert!(changes.iter().all(|change| change.volume == id(1)));
        changes.iter().map(|change| (change.after.0, change.seq().0)).collect()
    };
    assert_eq!(found(0), [(0, 1), (1, 6), (6, 7)]);
    assert_eq!(found(1), [(1, 6), (6, 7)]);
    assert_eq!(found(3), [(1, 6), (6, 7)], "an entry that straddles the place is in");
    assert_eq!(found(6), [(6, 7)]);
    assert_eq!(found(7), []);
    assert_eq!(found(u64::MAX), []);
}

fn a_reset_forgets_the_volume_and_leaves_the_log(subject: &mut dyn Subject) {
    let manifest = subject.open();
    manifest.subscribe("gc").unwrap();
    let span = pages_of(65536).span(ChunkId(3), PageCount(1 << 20)).unwrap();
    let put = vec![
        ManifestOp::PutBase { chunk: ChunkId(3), base: base(1, span) },
        ManifestOp::PutDelta { chunk: ChunkId(3), delta: delta(2, [span.first], span.last().unwrap()) },
    ];
    let staged = StagedBlob { input: [1; 32], blob: blob(BlobKind::Pack, 1), uploaded: true };
    let intent = Intent { seq: Seq(5), record: vec![1, 2, 3], body: None, identities: vec![] };
    let batch = Batch {
        identities: vec![(span.first, PageIdentity([7; 16]))],
        intent: Some(Some(intent.clone())),
        job: Some(Some(Seq(4))),
        staged: vec![staged],
        log: log(0, 4),
        ..record(1, 4, put.clone())
    };
    manifest.commit(&id(1), &batch).unwrap();
    manifest.commit(&id(2), &Batch { log: None, ..record(2, 8, put.clone()) }).unwrap();
    assert_eq!(manifest.intent(&id(1)).unwrap(), Some(intent));

    // Rebuilt: the tail may stand anywhere, and nothing of before shines through.
    let rebuilt = Batch { reset: true, log: log(0, 2), ..record(1, 2, vec![]) };
    manifest.commit(&id(1), &rebuilt).unwrap();
    drop(manifest);
    let manifest = subject.open();
    assert_eq!(manifest.volume(&row(1, 2).meta.name).unwrap(), Some(row(1, 2)));
    assert_eq!(manifest.rows(&id(1), ChunkId(0), 9).unwrap(), []);
    assert_eq!(manifest.newest_delta(&id(1), span.first).unwrap(), None);
    assert_eq!(manifest.identities(&id(1), span.first, 1).unwrap(), [None]);
    assert_eq!((manifest.intent(&id(1)).unwrap(), manifest.job(&id(1)).unwrap()), (None, None));
    assert_eq!(manifest.changes_since(&id(1), Seq(0)).unwrap().len(), 1, "begins after the reset");
    assert_eq!(manifest.changes(ChangeSeq(0), 9).unwrap().len(), 2, "subscribers have not seen the first yet");
    assert_eq!(manifest.rows(&id(2), ChunkId(0), 9).unwrap().len(), 1, "others stay");

    // A volume that took the name of another, after a reset.
    let mut heir = Batch { reset: true, ..record(3, 1, put) };
    heir.volume.as_mut().unwrap().meta.name = row(2, 1).meta.name;
    manifest.commit(&id(3), &heir).unwrap();
    assert_eq!(manifest.volume(&row(2, 1).meta.name).unwrap().unwrap().meta.id, id(3));
    assert_eq!(manifest.rows(&id(2), ChunkId(0), 9).unwrap(), []);
    assert_eq!(manifest.rows(&id(3), ChunkId(0), 9).unwrap().len(), 1);

    // Forgotten altogether.
    manifest.commit(&id(1), &Batch { reset: true, ..Batch::default() }).unwrap();
    assert_eq!(manifest.volumes().unwrap().iter().map(|row| row.meta.id).collect::<Vec<_>>(), [id(3)]);
    manifest.acknowledge("gc", manifest.changes(ChangeSeq(0), 9).unwrap().last().unwrap().change).unwrap();
    assert_eq!(manifest.trim().unwrap(), 3);
}

fn a_job_keeps_its_blobs_until_it_changes(subject: &mut dyn Subject) {
    let manifest = subject.open();
    manifest.commit(&id(1), &record(1, 1, vec![])).unwrap();
    let staged = |input: u8, uploaded| StagedBlob {
        input: [input; 32],
        blob: blob(BlobKind::Chunk, u64::from(input)),
        uploaded,
    };
    let add = |job, blobs: &[StagedBlob]| Batch { job, staged: blobs.to_vec(), ..Batch::default() };
    manifest.commit(&id(1), &add(Some(Some(Seq(1))), &[staged(9, false), staged(2, false)])).unwrap();
    manifest.commit(&id(1), &add(None, &[staged(9, true)])).unwrap();
    manifest.commit(&id(1), &add(Some(Some(Seq(1))), &[staged(5, false)])).unwrap();
    drop(manifest);
    let manifest = subject.open();
    let expected = vec![staged(2, false), staged(5, false), staged(9, true)];
    assert_eq!(manifest.job(&id(1)).unwrap(), Some((Seq(1), expected)));
    manifest.commit(&id(1), &add(Some(Some(Seq(2))), &[staged(1, false)])).unwrap();
    assert_eq!(manifest.job(&id(1)).unwrap(), Some((Seq(2), vec![staged(1, false)])));
    manifest.commit(&id(1), &add(Some(None), &[])).unwrap();
    assert_eq!(manifest.job(&id(1)).unwrap(), None);
    manifest.commit(&id(1), &add(Some(Some(Seq(2))), &[])).unwrap();
    assert_eq!(manifest.job(&id(1)).unwrap(), Some((Seq(2), vec![])), "the blobs of a job that was dropped stay away");
}

fn volumes_of_one_store_do_not_see_each_other(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let mut worlds = [World::new(1), World::new(2), World::new(255)];
    let mut dice = Dice(5);
    for _ in 0..120 {
        let at = dice.below(3) as usize;
        let step = dice.step();
        if !matches!(step, Step::Trim | Step::Acknowledge { .. } | Step::Subscribe { .. } | Step::Unsubscribe { .. }) {
            worlds[at].perform(manifest.as_ref(), &step);
        }
    }
    for world in &worlds {
        world.compare_volume(manifest.as_ref());
    }
}

fn readers_see_whole_batches(subject: &mut dyn Subject) {
    let manifest = subject.open();
    let manifest = manifest.as_ref();
    let span = pages_of(65536).span(ChunkId(0), PageCount(1 << 20)).unwrap();
    let publish = move |seq: u64| {
        // Every batch replaces all three rows by deltas of the same id.
        let ops = (0..3).flat_map(|chunk| {
            [ManifestOp::ReplaceDeltas {
                chunk: ChunkId(chunk),
                replaced: vec![DeltaId(seq - 1)],
                delta: Some(delta(seq, [span.first], span.first)),
            }]
        });
        manifest.commit(&id(1), &record(1, seq, ops.collect())).unwrap();
    };
    publish(1);
    let written = AtomicBool::new(false);
    let written = &written;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            (2..60).for_each(publish);
            written.store(true, Ordering::Release);
        });
        for _ in 0..2 {
            scope.spawn(move || {
                let mut last = 0;
                let patience = Instant::now() + Duration::from_secs(60);
                while last < 59 {
                    let done = written.load(Ordering::Acquire);
                    let rows = manifest.rows(&id(1), ChunkId(0), 3).unwrap();
                    let ids: BTreeSet<_> = rows.iter().map(|row| row.deltas[0].id.0).collect();
                    assert!(rows.len() == 3 && ids.len() == 1, "half of a batch was seen: {ids:?}");
                    let seen = *ids.first().unwrap();
                    assert!(seen >= last, "a batch was seen and then not");
                    assert!(seen == 59 || !done, "a batch was acknowledged and is not there");
                    assert!(Instant::now() < patience, "the writer does not get on");
                    last = seen;
                }
            });
        }
    });
}

/// What a property test does to a manifest. Numbers are small; [`World`] makes valid batches of them.
#[derive(Clone, Debug)]
pub enum Step {
    /// A record with one to a few operations.
    Op(Vec<Op>),
    /// Identities for a run of pages, without a record.
    Identities {
        /// First page, as an index into the interesting ones.
        at: u64,
        /// How many.
        count: u64,
        /// What they hold.
        content: u8,
    },
    /// Sets or clears the intent.
    Intent(Option<u8>),
    /// Begins a job, or ends it.
    Job(Option<u8>),
    /// Adds a blob to the running job; none runs: nothing.
    Stage(u8, bool),
    /// Forgets the volume and begins again with these operations.
    Rebuild(Vec<Op>),
    /// Makes one of a few cursors.
    Subscribe(u8),
    /// Moves one of a few cursors, if it exists, forward by so much.
    Acknowledge(u8, u8),
    /// Forgets one of a few cursors.
    Unsubscribe(u8),
    /// Drops what is done with.
    Trim,
}

/// One manifest operation in small numbers.
#[derive(Clone, Debug)]
pub enum Op {
    /// A new page size.
    Reshape(u8),
    /// A new size, in 256ths of the world's pages.
    Resize(u8),
    /// A base for a chunk.
    Base(u8),
    /// A delta: chunk, first page in it, step, count, and how its end of life is given.
    Delta(u8, u16, u8, u8, u8),
    /// Repeats an older delta with other pages: chunk, which, and as above.
    Again(u8, u8, u16, u8, u8),
    /// Folds the deltas that a mask picks into one, or into none.
    Fold(u8, u8, bool),
}

/// A naive model of one volume, and of the change log, that performs steps on a manifest and compares.
#[derive(Clone, Debug)]
pub struct World {
    number: u8,
    geometry: Geometry,
    size: PageCount,
    /// Chunks of the world: the first few, one that straddles 32 bits, and a far one.
    chunks: Vec<ChunkId>,
    rows: BTreeMap<ChunkId, ChunkRow>,
    identities: BTreeMap<PageNo, PageIdentity>,
    seq: u64,
    known: bool,
    intent: Option<Intent>,
    job: Option<(Seq, BTreeMap<[u8; 32], StagedBlob>)>,
    log: Vec<Change>,
    since_reset: ChangeSeq,
    last: ChangeSeq,
    cursors: BTreeMap<String, ChangeSeq>,
}

impl World {
    /// An empty world around a volume.
    pub fn new(number: u8) -> Self {
        let mut world = Self {
            number,
            geometry: pages_of(16384),
            size: PageCount::ZERO,
            chunks: Vec::new(),
            rows: BTreeMap::new(),
            identities: BTreeMap::new(),
            seq: 0,
            known: false,
            intent: None,
            job: None,
            log: Vec::new(),
            since_reset: ChangeSeq(0),
            last: ChangeSeq(0),
            cursors: BTreeMap::new(),
        };
        world.reshape(0);
        world
    }

    fn reshape(&mut self, size: u8) {
        self.geometry = pages_of([16384, 32768, 65536][usize::from(size % 3)]);
        let per = self.geometry.pages_per_chunk();
        assert_eq!(per * self.geometry.page_size.bytes(), CHUNK_BYTES);
        let middle = u64::from(u32::MAX) / per;
        self.chunks = [0, 1, 2, 3, middle, middle + 1, (1 << 52) / per].map(ChunkId).to_vec();
    }

    /// The volume this world is about.
    pub fn id(&self) -> VolumeId {
        id(self.number)
    }

    fn chunk(&self, pick: u8) -> ChunkId {
        self.chunks[usize::from(pick) % self.chunks.len()]
    }

    fn span(&self, chunk: ChunkId) -> ChunkSpan {
        ChunkSpan { first: self.geometry.first_page(chunk).unwrap(), count: PageCount(self.geometry.pages_per_chunk()) }
    }

    fn pages(&self, chunk: ChunkId, first: u16, step: u8, count: u8) -> Vec<PageNo> {
        let span = self.span(chunk);
        let start = u64::from(first) % span.count.0;
        let numbers = (0..=u64::from(count % 40)).map(|i| start + i * (u64::from(step % 30) + 1));
        numbers.filter(|at| *at < span.count.0).map(|at| PageNo::from_index(span.first.index() + at)).collect()
    }

    fn last_live(&self, chunk: ChunkId, how: u8) -> PageNo {
        let span = self.span(chunk);
        match how % 4 {
            0 => span.last().unwrap(),
            1 => self.size.last().unwrap_or(PageNo::FIRST).max(span.first),
            2 => PageNo::from_index(span.first.index() + u64::from(how) * span.count.0 / 256),
            _ => PageNo::new(u64::MAX).unwrap(),
        }
    }

    /// The operation that small numbers stand for.
    pub fn op(&mut self, op: &Op, id: u64) -> Option<ManifestOp> {
        Some(match *op {
            Op::Reshape(size) => {
                self.reshape(size);
                ManifestOp::Reshape { page_size: self.geometry.page_size }
            }
            Op::Resize(part) => {
                let per = self.geometry.pages_per_chunk();
                // Ends within and at the edges of chunks, below and beyond 32 bits, nowhere and everywhere.
                let page_count = PageCount(match part {
                    0 => 0,
                    255 => u64::MAX,
                    1..=120 => u64::from(part) * per / 32,
                    121..=200 => (self.chunks[4].0 + 1) * per - 100 + u64::from(part - 121) * per / 40,
                    _ => (1 << 52) + u64::from(part - 201) * per / 60,
                });
                self.size = page_count;
                ManifestOp::Resize { page_count }
            }
            Op::Base(pick) => {
                let chunk = self.chunk(pick);
                let mut span = self.span(chunk);
                span.count.0 -= u64::from(pick) * 3;
                ManifestOp::PutBase { chunk, base: base(id, span) }
            }
            Op::Delta(pick, first, step, count, how) => {
                let chunk = self.chunk(pick);
                let pages = self.pages(chunk, first, step, count);
                // A checkpoint's, or a segment's on top of one or the other base.
                let id = match how % 3 {
                    0 => id,
                    _ => DeltaId::of_segment(Generation(id.saturating_sub(3).max(1)), Seq(id), Form::Whole).unwrap().0,
                };
                ManifestOp::PutDelta { chunk, delta: delta(id, pages, self.last_live(chunk, how)) }
            }
            Op::Again(pick, which, first, step, how) => {
                let chunk = self.chunk(pick);
                let deltas = &self.rows.get(&chunk)?.deltas;
                let old = deltas.get(usize::from(which) % deltas.len().max(1))?.id;
                let pages = self.pages(chunk, first, step, which);
                ManifestOp::PutDelta { chunk, delta: delta(old.0, pages, self.last_live(chunk, how)) }
            }
            Op::Fold(pick, mask, into_one) => {
                let chunk = self.chunk(pick);
                let deltas = &self.rows.get(&chunk)?.deltas;
                let picked = deltas.iter().enumerate().filter(|(at, _)| mask >> (at % 8) & 1 == 1);
                let picked: Vec<_> = picked.map(|(_, delta)| delta).collect();
                let newest = picked.last()?;
                let pages: BTreeSet<_> = picked.iter().flat_map(|delta| delta.table.pages()).collect();
                let one = delta(newest.id.0, pages, newest.last_live);
                let mut replaced: Vec<_> = picked.iter().map(|delta| delta.id).collect();
                replaced.push(DeltaId(1 << 50)); // Never was: dropping what is not there is no error.
                ManifestOp::ReplaceDeltas { chunk, replaced, delta: into_one.then_some(one) }
            }
        })
    }

    fn apply(&mut self, op: &ManifestOp) {
        match op {
            ManifestOp::Reshape { .. } => {
                self.rows.clear();
                self.identities.clear();
            }
            ManifestOp::Resize { page_count } => {
                self.rows.values_mut().for_each(|row| row.apply(op));
                self.identities.retain(|page, _| page_count.holds(*page));
            }
            _ => {
                let chunk = op.chunk().unwrap();
                self.rows.entry(chunk).or_insert_with(|| ChunkRow::new(chunk)).apply(op);
            }
        }
        self.rows.retain(|_, row| !row.is_empty());
    }

    fn ops(&mut self, ops: &[Op]) -> Vec<ManifestOp> {
        let mut made = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            if let Some(op) = self.op(op, self.seq * 16 + at as u64) {
                self.apply(&op);
                made.push(op);
            }
        }
        made
    }

    fn ensure_known(&mut self, manifest: &dyn Manifest) {
        if !self.known {
            self.perform(manifest, &Step::Op(vec![]));
        }
    }

    /// Does a step to the manifest and to the model.
    pub fn perform(&mut self, manifest: &dyn Manifest, step: &Step) {
        match step {
            Step::Op(ops) => {
                self.seq += 1;
                let ops = self.ops(ops);
                let batch = record(self.number, self.seq, ops);
                self.commit_logged(manifest, batch);
            }
            Step::Rebuild(ops) => {
                let (number, last, log, cursors) =
                    (self.number, self.last, std::mem::take(&mut self.log), std::mem::take(&mut self.cursors));
                let seq = self.seq / 2 + 1; // Rebuilt to a place before the old tail: allowed, for once.
                *self = Self { last, log, cursors, since_reset: last, seq, ..Self::new(number) };
                let ops = self.ops(ops);
                let batch = Batch {
                    reset: true,
                    // A rebuild takes a sum for many records and keeps the last of them.
                    log: Some((Seq(0), vec![summary(seq, RecordKind::Index)])),
                    ..record(self.number, seq, ops)
                };
                self.commit_logged(manifest, batch);
            }
            Step::Identities { at, count, content } => {
                self.ensure_known(manifest);
                let chunk = self.chunk(*content);
                let first = self.span(chunk).first.index() + at % 300;
                let pages = (0..*count).map(|i| PageNo::from_index(first + i));
                let identities: Vec<_> = pages.map(|page| (page, PageIdentity([*content; 16]))).collect();
                self.identities.extend(identities.iter().copied());
                manifest.commit(&self.id(), &Batch { identities, ..Batch::default() }).unwrap();
            }
            Step::Intent(content) => {
                self.ensure_known(manifest);
                self.intent = content.map(|content| Intent {
                    seq: Seq(self.seq + 1),
                    record: vec![content; 100],
                    body: (content % 2 == 0).then(|| (blob(BlobKind::Segment, 5).name, 77)),
                    identities: vec![(PageNo::FIRST, PageIdentity([content; 16]))],
                });
                let batch = Batch { intent: Some(self.intent.clone()), ..Batch::default() };
                manifest.commit(&self.id(), &batch).unwrap();
            }
            Step::Job(birth) => {
                self.ensure_known(manifest);
                let birth = birth.map(|birth| Seq(u64::from(birth % 3)));
                if self.job.as_ref().map(|(birth, _)| *birth) != birth {
                    self.job = birth.map(|birth| (birth, BTreeMap::new()));
                }
                manifest.commit(&self.id(), &Batch { job: Some(birth), ..Batch::default() }).unwrap();
            }
            Step::Stage(input, uploaded) => {
                let Some((_, blobs)) = &mut self.job else { return };
                let staged = StagedBlob {
                    input: [input % 8; 32],
                    blob: blob(BlobKind::Pack, u64::from(*input)),
                    uploaded: *uploaded,
                };
                blobs.insert(staged.input, staged.clone());
                manifest.commit(&self.id(), &Batch { staged: vec![staged], ..Batch::default() }).unwrap();
            }
            Step::Subscribe(cursor) => {
                let cursor = format!("cursor-{}", cursor % 3);
                let held = *self.cursors.entry(cursor.clone()).or_default();
                assert_eq!(manifest.subscribe(&cursor).unwrap(), held);
            }
            Step::Acknowledge(cursor, by) => {
                let cursor = format!("cursor-{}", cursor % 3);
                let Some(held) = self.cursors.get_mut(&cursor) else {
                    return refused(manifest.acknowledge(&cursor, ChangeSeq(0)));
                };
                *held = ChangeSeq((held.0 + u64::from(*by)).min(self.last.0));
                manifest.acknowledge(&cursor, *held).unwrap();
            }
            Step::Unsubscribe(cursor) => {
                let cursor = format!("cursor-{}", cursor % 3);
                self.cursors.remove(&cursor);
                manifest.unsubscribe(&cursor).unwrap();
            }
            Step::Trim => {
                let done = self.cursors.values().min().copied().unwrap_or(self.last);
                let before = self.log.len();
                self.log.retain(|change| change.change > done);
                assert_eq!(manifest.trim().unwrap(), (before - self.log.len()) as u64);
            }
        }
    }

    fn commit_logged(&mut self, manifest: &dyn Manifest, batch: Batch) {
        let change = manifest.commit(&self.id(), &batch).unwrap().unwrap();
        assert!(change > self.last);
        self.last = change;
        self.known = true;
        let (after, records) = batch.log.unwrap();
        self.log.push(Change { change, volume: self.id(), after, records, ops: batch.ops });
    }

    /// Compares everything: the volume, its pages, and a change log that is all its own.
    pub fn compare(&self, manifest: &dyn Manifest) {
        self.compare_volume(manifest);
        assert_eq!(manifest.changes(ChangeSeq(0), usize::MAX).unwrap(), self.log);
        let middle = ChangeSeq(self.last.0 / 2);
        let behind: Vec<_> = self.log.iter().filter(|change| change.change > middle).take(5).cloned().collect();
        assert_eq!(manifest.changes(middle, 5).unwrap(), behind);
        for after in [0, self.seq / 2, self.seq.saturating_sub(1), self.seq] {
            let own = self.log.iter().filter(|change| change.change > self.since_reset && change.seq() > Seq(after));
            assert_eq!(manifest.changes_since(&self.id(), Seq(after)).unwrap(), own.cloned().collect::<Vec<_>>());
        }
    }

    /// Compares what is known of the volume.
    pub fn compare_volume(&self, manifest: &dyn Manifest) {
        let name: VolumeName = row(self.number, 1).meta.name;
        let expected = self.known.then(|| row(self.number, self.seq));
        assert_eq!(manifest.volume(&name).unwrap(), expected);
        let rows: Vec<_> = self.rows.values().cloned().collect();
        assert_eq!(manifest.rows(&self.id(), ChunkId(0), usize::MAX).unwrap(), rows);
        for chunk in &self.chunks {
            assert_eq!(manifest.row(&self.id(), *chunk).unwrap().as_ref(), self.rows.get(chunk));
            let behind: Vec<_> = self.rows.range(*chunk..).take(2).map(|(_, row)| row.clone()).collect();
            assert_eq!(manifest.rows(&self.id(), *chunk, 2).unwrap(), behind);
        }
        assert_eq!(manifest.intent(&self.id()).unwrap(), self.intent);
        let job = self.job.clone().map(|(birth, blobs)| (birth, blobs.into_values().collect()));
        assert_eq!(manifest.job(&self.id()).unwrap(), job);
        self.compare_pages(manifest);
    }

    /// Compares what is known of pages: all that any version holds, and their neighbours.
    pub fn compare_pages(&self, manifest: &dyn Manifest) {
        let mut pages: BTreeSet<PageNo> = self.identities.keys().copied().collect();
        for chunk in &self.chunks {
            let span = self.span(*chunk);
            pages.extend([span.first, span.last().unwrap(), span.last().unwrap().next()]);
            let deltas = self.rows.get(chunk).into_iter().flat_map(|row| &row.deltas);
            pages.extend(deltas.flat_map(|delta| delta.table.pages()));
            let known: Vec<_> = span.pages().take(700).map(|page| self.identities.get(&page).copied()).collect();
            assert_eq!(manifest.identities(&self.id(), span.first, 700.min(known.len())).unwrap(), known);
        }
        for page in pages {
            let row = self.rows.get(&self.geometry.chunk_of(page));
            let newest = row.and_then(|row| row.find(page)).and_then(|found| found.delta);
            assert_eq!(manifest.newest_delta(&self.id(), page).unwrap(), newest, "page {page}");
            let identity = self.identities.get(&page).copied();
            assert_eq!(manifest.identities(&self.id(), page, 1).unwrap(), [identity], "page {page}");
        }
    }
}

/// A small generator of numbers, the same on every machine (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn byte(&mut self) -> u8 {
        self.roll() as u8
    }

    fn ops(&mut self, max: u64) -> Vec<Op> {
        (0..self.below(max + 1)).map(|_| self.op()).collect()
    }

    fn op(&mut self) -> Op {
        match self.below(40) {
            0 => Op::Reshape(self.byte()),
            1..=7 => Op::Resize(self.byte()),
            8..=12 => Op::Base(self.byte()),
            13..=17 => Op::Again(self.byte(), self.byte(), self.roll() as u16, self.byte(), self.byte()),
            18..=23 => Op::Fold(self.byte(), self.byte(), self.below(3) > 0),
            _ => Op::Delta(self.byte(), self.roll() as u16, self.byte(), self.byte(), self.byte()),
        }
    }

    /// A step.
    pub fn step(&mut self) -> Step {
        match self.below(30) {
            0..=15 => Step::Op(self.ops(5)),
            16..=18 => Step::Identities { at: self.roll(), count: self.below(90), content: self.byte() },
            19 => Step::Intent(Some(self.byte())),
            20 => Step::Intent(None),
            21 => Step::Job((self.below(4) > 0).then(|| self.byte())),
            22 | 23 => Step::Stage(self.byte(), self.below(2) == 0),
            24 if self.below(4) == 0 => Step::Rebuild(self.ops(8)),
            25 => Step::Subscribe(self.byte()),
            26 | 27 => Step::Acknowledge(self.byte(), self.byte() % 16),
            28 if self.below(3) == 0 => Step::Unsubscribe(self.byte()),
            _ => Step::Trim,
        }
    }
}

/// A random walk: so many steps, compared as it goes, opened again now and then. The seed is printed when it fails.
pub fn walk(seed: u64, steps: usize, subject: &mut dyn Subject) {
    struct Told(u64, usize);
    impl Drop for Told {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("manifest walk failed: seed={} step={}", self.0, self.1);
            }
        }
    }
    let mut told = Told(seed, 0);
    let mut dice = Dice(seed);
    let mut world = World::new(1);
    let mut manifest = subject.open();
    for at in 0..steps {
        told.1 = at;
        world.perform(manifest.as_ref(), &dice.step());
        if dice.below(8) == 0 {
            world.compare(manifest.as_ref());
        }
        if dice.below(40) == 0 {
            drop(manifest);
            manifest = subject.open();
            world.compare(manifest.as_ref());
        }
    }
    world.compare(manifest.as_ref());
}
