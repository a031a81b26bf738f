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
                intent: Some(Some(Intent { seq: Seq(2), record: vec![1], body: None, identities: vec![] })),
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
