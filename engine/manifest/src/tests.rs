//! What needs to look inside: what lookups cost, and rows that no writer of this version wrote.

use crate::open::Environment;
use crate::store::{LmdbManifest, Options};
use crate::table::{Table, Tables, steps};
use littoral_ports::conformance::manifest::{base, delta, id, log, record, row};
use littoral_ports::{Batch, Manifest, ManifestError};
use littoral_types::{
    ChangeSeq, ChunkId, DeltaId, Geometry, Intent, ManifestOp, PageCount, PageIdentity, PageNo, PageSize, Seq,
};

/// A volume with so many chunks, each with a base and so many deltas, and as many changes.
fn filled(chunks: u64, deltas: u64) -> (tempfile::TempDir, LmdbManifest) {
    let dir = tempfile::tempdir().unwrap();
    let manifest = LmdbManifest::open(dir.path()).unwrap();
    let geometry = Geometry::new(PageSize::MAX);
    let size = PageCount(geometry.pages_per_chunk() * chunks);
    let span = |chunk| geometry.span(ChunkId(chunk), size).unwrap();
    let ops = (0..chunks).map(|chunk| ManifestOp::PutBase { chunk: ChunkId(chunk), base: base(1, span(chunk)) });
    manifest.commit(&id(1), &record(1, 1, ops.collect())).unwrap();
    for number in 2..2 + deltas {
        let ops = (0..chunks).map(|chunk| {
            let pages = span(chunk).pages().take(20);
            ManifestOp::PutDelta { chunk: ChunkId(chunk), delta: delta(number, pages, span(chunk).last().unwrap()) }
        });
        let identities = (0..chunks).map(|chunk| (span(chunk).first, PageIdentity([number as u8; 16])));
        let batch = Batch { identities: identities.collect(), ..record(1, number, ops.collect()) };
        manifest.commit(&id(1), &batch).unwrap();
    }
    for other in 2..2 + chunks.min(200) {
        manifest.commit(&id(other as u8), &record(other as u8, 1, vec![])).unwrap();
    }
    (dir, manifest)
}

/// A name, and how many steps it cost.
fn costs(chunks: u64, deltas: u64) -> Vec<(&'static str, u64)> {
    let (_dir, manifest) = filled(chunks, deltas);
    let geometry = Geometry::new(PageSize::MAX);
    let middle = ChunkId(chunks / 2);
    let page = geometry.first_page(middle).unwrap();
    let last = 1 + deltas;
    let mut costs = Vec::new();
    let mut cost = |what, (steps, found): (u64, bool)| {
        assert!(found, "{what}");
        costs.push((what, steps));
    };
    cost("newest_delta", steps::of(|| manifest.newest_delta(&id(1), page).unwrap() == Some(DeltaId(last))));
    let far = geometry.span(middle, PageCount(u64::MAX)).unwrap().last().unwrap();
    cost("newest_delta of a page in no delta", steps::of(|| manifest.newest_delta(&id(1), far).unwrap().is_none()));
    cost("identities", steps::of(|| manifest.identities(&id(1), page, 1).unwrap()[0].is_some()));
    cost("volume", steps::of(|| manifest.volume(&row(1, 1).meta.name).unwrap().is_some()));
    cost("changes", steps::of(|| manifest.changes(ChangeSeq(last - 1), 1).unwrap().len() == 1));
    cost("changes_since", steps::of(|| manifest.changes_since(&id(1), Seq(last - 1)).unwrap().len() == 1));
    cost("no job, no intent", steps::of(|| manifest.job(&id(1)).unwrap().is_none()));
    let pages = [page, page.next()];
    let put = ManifestOp::PutDelta { chunk: middle, delta: delta(last + 1, pages, page.next()) };
    let publish = |seq, op| manifest.commit(&id(1), &record(1, seq, vec![op])).unwrap().is_some();
    cost("a new delta of two pages", steps::of(|| publish(last + 1, put)));
    let grown = PageCount(geometry.pages_per_chunk() * chunks * 2);
    cost("growing", steps::of(|| publish(last + 2, ManifestOp::Resize { page_count: grown })));
    // Ten pages off the last chunk: its base and its deltas are cut, and nothing else is looked at.
    let cut = PageCount(geometry.pages_per_chunk() * chunks - 10);
    if deltas == 3 {
        cost("a cut in the last chunk", steps::of(|| publish(last + 3, ManifestOp::Resize { page_count: cut })));
        cost("row", steps::of(|| manifest.row(&id(1), ChunkId(chunks - 1)).unwrap().is_some()));
        cost("rows", steps::of(|| manifest.rows(&id(1), ChunkId(chunks - 3), 2).unwrap().len() == 2));
    }
    costs
}

#[test]
fn lookups_cost_the_same_however_much_there_is() {
    let small = costs(8, 3);
    println!("steps: {small:?}");
    assert_eq!(small, costs(1500, 3), "more rows");
    let few: Vec<_> = small.into_iter().take(9).collect();
    assert_eq!(few, costs(8, 60), "more deltas and changes");
    assert!(few.iter().take(7).all(|(_, steps)| *steps <= 4), "{few:?}");
}

#[test]
fn replacing_a_base_costs_what_it_replaces_and_not_what_others_hold() {
    for chunks in [2, 600] {
        let (_dir, manifest) = filled(chunks, 3);
        let span = Geometry::new(PageSize::MAX).span(ChunkId(1), PageCount(1 << 40)).unwrap();
        let put = vec![ManifestOp::PutBase { chunk: ChunkId(1), base: base(9, span) }];
        let (steps, _) = steps::of(|| manifest.commit(&id(1), &record(1, 5, put)).unwrap());
        // Sixty pages of three deltas, their rows and ends, the base's row and end, the volume, the log.
        assert!((60..110).contains(&steps), "{steps} steps with {chunks} chunks");
    }
}

#[test]
fn deltas_are_found_without_looking_at_a_base_however_many_there_are() {
    let steps = [2, 600].map(|chunks| {
        let (dir, manifest) = filled(chunks, 3);
        // No base can be read, and nobody asks for one.
        forge(dir.path(), |tables| tables.chunk_catalog, |value| value[..value.len() / 2].to_vec());
        assert!(matches!(manifest.rows(&id(1), ChunkId(0), 9), Err(ManifestError::Corrupt(_))));
        let found = manifest.deltas(&id(1), ChunkId(0), usize::MAX).unwrap();
        assert!(found.len() as u64 == chunks && found.iter().all(|row| row.base.is_none() && row.deltas.len() == 3));
        // Merged, all but one: what is left costs as much, whatever has a base.
        let replaced = [2, 3, 4].map(DeltaId).to_vec();
        let gone = |chunk| ManifestOp::ReplaceDeltas { chunk: ChunkId(chunk), replaced: replaced.clone(), delta: None };
        manifest.commit(&id(1), &record(1, 5, (1..chunks).map(gone).collect())).unwrap();
        steps::of(|| assert_eq!(manifest.deltas(&id(1), ChunkId(0), 64).unwrap().len(), 1)).0
    });
    assert!(steps[0] == steps[1] && steps[0] <= 5, "{steps:?}");
}

/// Puts a byte string where a row is.
fn forge(dir: &std::path::Path, table: impl Fn(&Tables) -> Table, forge: impl Fn(&[u8]) -> Vec<u8>) {
    let environment = Environment::shared(dir, Options::default().map_bytes).unwrap();
    environment
        .write(|tables, txn| {
            let table = table(tables);
            let entry = table.range(txn, &[0], &[0xff; 80])?.next().transpose()?;
            let (key, value) = entry.map(|(key, value)| (key.to_vec(), forge(value))).unwrap();
            Ok(table.put(txn, &key, &value)?)
        })
        .unwrap();
}

#[test]
fn a_newer_or_damaged_row_of_every_kind_is_a_named_error() {
    type Pick = fn(&Tables) -> Table;
    type Look = fn(&LmdbManifest) -> Result<bool, ManifestError>;
    let page = PageNo::FIRST;
    let kinds: [(&str, Pick, Look); 9] = [
        ("volumes", |tables| tables.volumes, |manifest| manifest.volumes().map(|_| true)),
        ("chunk_catalog", |tables| tables.chunk_catalog, |manifest| manifest.row(&id(1), ChunkId(0)).map(|_| true)),
        (
            "chunk_delta_index",
            |tables| tables.chunk_delta_index,
            |manifest| manifest.rows(&id(1), ChunkId(0), 9).map(|_| true),
        ),
        (
            "identities",
            |tables| tables.identities,
            |manifest| manifest.identities(&id(1), PageNo::FIRST, 1).map(|_| true),
        ),
        ("change_log", |tables| tables.change_log, |manifest| manifest.changes(ChangeSeq(0), 9).map(|_| true)),
        ("change_cursors", |tables| tables.change_cursors, |manifest| manifest.subscribe("gc").map(|_| true)),
        ("intents", |tables| tables.intents, |manifest| manifest.intent(&id(1)).map(|_| true)),
        ("jobs", |tables| tables.jobs, |manifest| manifest.job(&id(1)).map(|_| true)),
        ("staged", |tables| tables.staged, |manifest| manifest.job(&id(1)).map(|_| true)),
    ];
    for (name, table, look) in kinds {
        for newer in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let manifest = LmdbManifest::open(dir.path()).unwrap();
            let span = Geometry::new(PageSize::MAX).span(ChunkId(0), PageCount(99)).unwrap();
            let ops = vec![
                ManifestOp::PutBase { chunk: ChunkId(0), base: base(1, span) },
                ManifestOp::PutDelta { chunk: ChunkId(0), delta: delta(2, [page], page) },
            ];
            let blob = littoral_ports::conformance::manifest::blob(littoral_types::BlobKind::Pack, 1);
            let batch = Batch {
                identities: vec![(page, PageIdentity([1; 16]))],
                intent: Some(Some(Intent {
                    seq: Seq(2),
                    record: vec![1],
                    body: None,
                    identities: vec![],
                    owners: None,
                })),
                job: Some(Some(Seq(1))),
                staged: vec![littoral_types::StagedBlob { input: [1; 32], blob, uploaded: false }],
                log: log(0, 1),
                ..record(1, 1, ops)
            };
            manifest.commit(&id(1), &batch).unwrap();
            manifest.subscribe("gc").unwrap();
            assert!(look(&manifest).unwrap());
            forge(dir.path(), table, |value| {
                let mut value = value.to_vec();
                let at = if newer { 0..2 } else { value.len() / 2..value.len() / 2 + 1 };
                value[at].iter_mut().for_each(|byte| *byte ^= 0x7f);
                value
            });
            let refused = look(&manifest).unwrap_err();
            assert_eq!(matches!(refused, ManifestError::Newer { known: 1 | 2, .. }), newer, "{name}: {refused:?}");
            assert_eq!(matches!(refused, ManifestError::Corrupt(_)), !newer, "{name}: {refused:?}");
        }
    }
}

#[test]
fn a_logs_segments_are_kept_by_their_numbers_and_go_one_by_one() {
    use littoral_ports::MemoryManifest;
    use littoral_types::{LogRow, Lsn};
    let segment = |first: u64, records| LogRow {
        first: Lsn(first),
        created_ms: 7,
        end: 4096,
        records,
        since_ms: 8,
        until_ms: 9,
        sealed: None,
        pieces: Vec::new(),
        table: None,
        taken_back: Vec::new(),
    };
    let put = |chunk, segment| ManifestOp::PutSegment { chunk: ChunkId(chunk), segment };
    let dir = tempfile::tempdir().unwrap();
    let (kept, fake) = (LmdbManifest::open(dir.path()).unwrap(), MemoryManifest::new());
    let both: [&dyn Manifest; 2] = [&kept, &fake];
    for manifest in both {
        let ops = vec![put(0, segment(1, 5)), put(1, segment(6, 1)), put(2, segment(7, 2))];
        manifest.commit(&id(1), &record(1, 1, ops)).unwrap();
        // The same one again says all that is known of it.
        let ops = vec![put(1, segment(6, 9)), ManifestOp::DropSegment { chunk: ChunkId(0) }];
        manifest.commit(&id(1), &record(1, 2, ops)).unwrap();
        let found = manifest.rows(&id(1), ChunkId(0), 9).unwrap();
        let segments: Vec<_> = found.into_iter().map(|row| (row.chunk.0, row.segment.unwrap().records)).collect();
        assert_eq!(segments, [(1, 9), (2, 2)]);
        assert_eq!(manifest.row(&id(1), ChunkId(0)).unwrap(), None);
        assert_eq!(manifest.row(&id(1), ChunkId(2)).unwrap().unwrap().segment, Some(segment(7, 2)));
        assert_eq!(manifest.rows(&id(1), ChunkId(2), 9).unwrap().len(), 1);
        manifest.commit(&id(1), &Batch { reset: true, ..Batch::default() }).unwrap();
        assert_eq!(manifest.rows(&id(1), ChunkId(0), 9).unwrap(), []);
    }
}
