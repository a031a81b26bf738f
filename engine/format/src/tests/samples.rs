//! One fixed value of every kind: what the golden files hold and `docs/format.md` draws.

use crate::patch::{self, Patch};
use crate::{FormatError, blob, head, identity, keys, pin, record, rows, segment, shard, snapshot};
use littoral_types::*;

pub(super) const KEY: IdentityKey = IdentityKey([7; 32]);

/// A kind of bytes, with a fixed value of it.
pub(super) struct Sample {
    /// The golden file's name.
    pub(super) name: &'static str,
    /// And the version of its layout, or of what lies in it.
    pub(super) version: u16,
    /// The entry that reads it.
    pub(super) entry: &'static str,
    /// Spells the value.
    pub(super) encode: fn() -> Vec<u8>,
    /// Reads bytes; whether they are the value's.
    pub(super) reads: fn(&[u8]) -> Result<bool, FormatError>,
}

fn bits<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|at| first.wrapping_add(at as u8))
}

fn page(number: u64) -> PageNo {
    PageNo::new(number).unwrap()
}

fn size() -> PageSize {
    PageSize::MIN
}

fn name(kind: BlobKind) -> BlobName {
    BlobName { kind, hash: BlobHash(bits(0xb0)), birth: Seq(300) }
}

fn own(kind: BlobKind, len: u64) -> BlobRef {
    BlobRef { home: Home::Own, name: name(kind), len }
}

fn elsewhere() -> BlobRef {
    BlobRef { home: Home::Other("parent".parse().unwrap()), name: name(BlobKind::Pack), len: 70_000 }
}

fn owner() -> Owner {
    Owner { store: StoreId(bits(0x50)), label: "host:/db/.littoral".to_owned() }
}

fn meta() -> VolumeMeta {
    VolumeMeta {
        id: VolumeId(bits(0x10)),
        name: "app.db".parse().unwrap(),
        kind: VolumeKind::Database,
        identity_key: KEY,
        created_ms: 1_700_000_000_000,
    }
}

fn schema() -> SchemaSummary {
    SchemaSummary { cookie: 12, user_version: 3, application_id: 0, encoding: 1, journal: JournalMode::Wal }
}

fn figures() -> VolumeFigures {
    VolumeFigures { generation: Generation(4), page_size: Some(size()), page_count: PageCount(40) }
}

fn natural() -> FrameTable {
    let mut pages = (1..=20).filter(|number| !(5..=6).contains(number)).map(page);
    let first: Vec<_> = pages.by_ref().take(16).collect();
    let frames = [
        FrameEntry { span: ByteSpan { offset: 16, len: 5_000 }, pages: first },
        FrameEntry { span: ByteSpan { offset: 5_016, len: 90 }, pages: pages.collect() },
    ];
    FrameTable::new(frames, [page(5), page(6), page(21)], 0x1111_2222_3333_4444)
}

fn gathered() -> FrameTable {
    let frames = [
        FrameEntry { span: ByteSpan { offset: 900, len: 700 }, pages: vec![page(9), page(30)] },
        FrameEntry { span: ByteSpan { offset: 2_000, len: 400 }, pages: vec![page(3)] },
    ];
    FrameTable::new(frames, [page(8)], 0x5555_6666_7777_8888)
}

pub(super) fn base() -> Base {
    Base {
        generation: Generation(2),
        blob: own(BlobKind::Chunk, 5_500),
        span: ChunkSpan { first: page(1), count: PageCount(21) },
        last_live: page(21),
        table: natural(),
    }
}

pub(super) fn delta() -> Delta {
    Delta { id: DeltaId(3), blob: elsewhere(), last_live: page(40), table: gathered() }
}

fn ops() -> Vec<ManifestOp> {
    vec![
        ManifestOp::Reshape { page_size: size() },
        ManifestOp::Resize { page_count: PageCount(40) },
        ManifestOp::PutBase { chunk: ChunkId(0), base: base() },
        ManifestOp::PutDelta { chunk: ChunkId(0), delta: delta() },
        ManifestOp::ReplaceDeltas { chunk: ChunkId(1), replaced: vec![DeltaId(2), DeltaId(3)], delta: None },
    ]
}

fn summary() -> RecordSummary {
    RecordSummary {
        seq: Seq(63),
        kind: RecordKind::Checkpoint,
        hash: RecordHash(bits(0x70)),
        epoch: Epoch(2),
        lsns: LsnRange { first: Lsn(8), last: Lsn(9) },
        time_ms: 1_700_000_000_500,
        page_count: PageCount(40),
        added: FooterFigures { pages: 3, bytes: 1_500 },
    }
}

fn spelled(body: RecordBody) -> Record {
    Record {
        header: RecordHeader {
            volume: VolumeId(bits(0x10)),
            seq: Seq(64),
            epoch: Epoch(2),
            incarnation: Incarnation(bits(0x30)),
            previous: RecordHash(bits(0x40)),
            lsns: LsnRange { first: Lsn(10), last: Lsn(12) },
            time_ms: 1_700_000_001_000,
            snapshot: Seq(17),
            figures: figures(),
            added: FooterFigures { pages: 5, bytes: 6_000 },
        },
        body,
    }
}

pub(super) fn a_record(kind: RecordKind) -> Record {
    spelled(match kind {
        RecordKind::Claim => RecordBody::Claim(Claim { owner: owner(), takes_over: Some(Epoch(1)), volume: meta() }),
        RecordKind::Release => RecordBody::Release(Release { owner: owner() }),
        RecordKind::Segment => RecordBody::Segment(a_segment()),
        RecordKind::Checkpoint => RecordBody::Checkpoint(Checkpoint {
            ops: ops(),
            schema: Some(schema()),
            sessions: vec![("import".to_owned(), 7)],
            wal: None,
            pages: Vec::new(),
        }),
        RecordKind::Coalesce => RecordBody::Coalesce(Coalesce {
            ops: vec![ManifestOp::ReplaceDeltas {
                chunk: ChunkId(1),
                replaced: vec![DeltaId(2), DeltaId(3)],
                delta: Some(delta()),
            }],
        }),
        RecordKind::Index => RecordBody::Index(Index {
            after: Seq(32),
            previous: Some(RecordHash(bits(0x60))),
            ops: vec![ManifestOp::Resize { page_count: PageCount(40) }],
            recent: vec![summary()],
            schema: Some(schema()),
            owner: Some(owner()),
            floor: Seq(5),
        }),
        RecordKind::Prune => RecordBody::Prune(Prune {
            floor: Seq(30),
            blobs: vec![name(BlobKind::Chunk), name(BlobKind::Shard)],
            snapshots: vec![Seq(1), Seq(17)],
        }),
    })
}

fn record_bytes(kind: RecordKind) -> Vec<u8> {
    record::encode(&a_record(kind), Seq(300)).unwrap().object
}

fn reads_record(kind: RecordKind, bytes: &[u8]) -> Result<bool, FormatError> {
    let (envelope, body) = record::decode(bytes, None)?;
    Ok(a_record(kind) == Record { header: envelope.header, body })
}

/// A body of random bits: too large for its record.
pub(super) fn a_large_record() -> Record {
    let mut chance = super::chance::Chance::new(64);
    let blobs = (0..33_000).map(|_| BlobName { hash: BlobHash(chance.array()), ..name(BlobKind::Pack) }).collect();
    spelled(RecordBody::Prune(Prune { floor: Seq(30), blobs, snapshots: Vec::new() }))
}

/// What the frames of a sample blob bear.
pub(super) const MARK: u64 = 0x9999_aaaa_bbbb_cccc;

/// A page that compresses.
fn text(number: u64) -> Vec<u8> {
    let line = format!("page {number} of a database; ");
    line.bytes().cycle().take(size().len()).collect()
}

fn a_blob(kind: BlobKind, compression: Compression) -> (Vec<u8>, blob::Index) {
    let mut writer = blob::Writer::new(kind, size(), compression, &KEY, MARK);
    let mut bytes = writer.header();
    writer.begin_chunk(ChunkId(0), ChunkSpan { first: page(1), count: PageCount(4) });
    writer.zero(page(2));
    for numbers in [&[1, 3][..], &[4]] {
        let pages: Vec<_> = numbers.iter().map(|number| (page(*number), text(*number))).collect();
        let slots: Vec<_> = pages.iter().map(|(page, raw)| (*page, raw.as_slice())).collect();
        bytes.extend(writer.frame(&slots).unwrap());
    }
    if kind == BlobKind::Pack {
        writer.begin_chunk(ChunkId(2), ChunkSpan { first: page(262_145), count: PageCount(10) });
        bytes.extend(writer.frame(&[(page(262_150), &text(9)), (page(262_154), &text(8))]).unwrap());
        writer.zero(page(262_145));
    }
    let (footer, index) = writer.finish().unwrap();
    bytes.extend(footer);
    (bytes, index)
}

fn reads_blob(kind: BlobKind, bytes: &[u8]) -> Result<bool, FormatError> {
    let index = blob::verify(bytes, &KEY)?;
    let held: Vec<_> = index.chunks.iter().flat_map(|chunk| chunk.identities.clone()).collect();
    let mut expected = vec![
        (page(1), identity::of(&KEY, &text(1))),
        (page(2), identity::of(&KEY, &[0; 512])),
        (page(3), identity::of(&KEY, &text(3))),
        (page(4), identity::of(&KEY, &text(4))),
    ];
    if kind == BlobKind::Pack {
        expected.push((page(262_145), identity::of(&KEY, &[0; 512])));
        expected.push((page(262_150), identity::of(&KEY, &text(9))));
        expected.push((page(262_154), identity::of(&KEY, &text(8))));
    }
    Ok(index.kind == kind && index.page_size == size() && held == expected)
}

fn a_segment() -> Segment {
    let segment::Framed { ops, frames, .. } = framed();
    Segment {
        commits: vec![
            Commit { lsn: Lsn(10), time_ms: 1_700_000_000_900, page_count: PageCount(39), session: None },
            Commit {
                lsn: Lsn(12),
                time_ms: 1_700_000_000_950,
                page_count: PageCount(40),
                session: Some(("import".to_owned(), 7)),
            },
        ],
        wal: Some(wal()),
        ops: [vec![ManifestOp::Resize { page_count: PageCount(40) }], ops].concat(),
        frames,
    }
}

/// A whole page, one of zeros, and two patches.
fn framed() -> segment::Framed {
    let stand = segment::Stand { generation: Generation(3), seq: Seq(64), mark: MARK, page_count: PageCount(40) };
    let mut writer = segment::Writer::new(size(), Compression::None, stand);
    writer.whole(page(1), text(1)).unwrap();
    writer.whole(page(2), vec![0; size().len()]).unwrap();
    for (number, patch) in [3, 40].into_iter().zip(patches()) {
        writer.patched(page(number), patch).unwrap();
    }
    writer.finish(1 << 20, Seq(60)).unwrap()
}

fn patches() -> [Patch; 2] {
    [3, 40].map(|number| {
        let mut after = text(number);
        after[100..110].fill(b'!');
        Patch::between(&text(number), &after, &KEY).unwrap()
    })
}

fn a_patch_frame() -> Vec<u8> {
    let slots: Vec<_> = [3, 40].map(page).into_iter().zip(patches()).collect();
    patch::encode(size(), MARK, &slots).unwrap()
}

fn reads_patch_frame(bytes: &[u8]) -> Result<bool, FormatError> {
    Ok(patch::read(bytes, size(), MARK, [3, 40].map(page).into_iter())? == patches())
}

fn a_frame(compression: Compression) -> Vec<u8> {
    let (bytes, index) = a_blob(BlobKind::Chunk, compression);
    let span = index.chunks[0].table.frame(0).unwrap().span;
    bytes[span.offset as usize..span.end().unwrap() as usize].to_vec()
}

fn reads_frame(bytes: &[u8]) -> Result<bool, FormatError> {
    Ok(blob::read_frame(bytes, size(), MARK, &[page(1), page(3)])? == [text(1), text(3)].concat())
}

pub(super) fn a_row(chunk: u64) -> ChunkRow {
    ChunkRow { chunk: ChunkId(chunk), base: Some(base()), deltas: vec![delta()] }
}

fn the_rows() -> Vec<ChunkRow> {
    vec![a_row(1024), ChunkRow { base: None, ..a_row(1026) }]
}

fn a_snapshot() -> Snapshot {
    Snapshot {
        volume: meta(),
        seq: Seq(17),
        record: RecordHash(bits(0x90)),
        epoch: Epoch(2),
        incarnation: Incarnation(bits(0x30)),
        lsn: Lsn(7),
        time_ms: 1_700_000_000_000,
        figures: figures(),
        schema: Some(schema()),
        owner: Some(owner()),
        floor: Seq(5),
        shards: vec![ShardRef {
            shard: 1,
            blob: own(BlobKind::Shard, 300),
            rows: the_rows().iter().zip([155, 93]).map(|(row, len)| (row.chunk, len)).collect(),
            checks: vec![0x0403_0201, 0x0807_0605],
        }],
        rows: the_rows(),
        skeleton: Skeleton { pages: vec![SkeletonPage { page: page(1), image: text(1) }] },
    }
}

fn a_head() -> Head {
    Head {
        volume: VolumeId(bits(0x10)),
        epoch: Epoch(2),
        seq: Seq(64),
        snapshot: SnapshotRef { seq: Seq(17), record: RecordHash(bits(0x90)) },
        inline: Some(Box::new(a_snapshot())),
    }
}

fn a_pin() -> Pin {
    Pin {
        id: PinId(bits(0xd0)),
        volume: VolumeId(bits(0x10)),
        seq: Seq(64),
        record: RecordHash(bits(0x90)),
        lsn: Lsn(12),
        purpose: PinPurpose::Snapshot("before-upgrade".parse().unwrap()),
        holder: "host:/db/.littoral".to_owned(),
        created_ms: 1_700_000_002_000,
        expires_ms: Some(1_700_086_402_000),
    }
}

fn a_volume_row() -> VolumeRow {
    VolumeRow {
        meta: meta(),
        tail: TailRow {
            seq: Seq(64),
            hash: RecordHash(bits(0x90)),
            epoch: Epoch(2),
            incarnation: Incarnation(bits(0x30)),
            owner: Some(owner()),
            lsn: Lsn(12),
            time_ms: 1_700_000_001_000,
            figures: figures(),
            schema: Some(schema()),
            snapshot: Seq(17),
            index: Some((Seq(64), RecordHash(bits(0x90)))),
            floor: Seq(5),
            seen_ms: 1_700_000_003_000,
            wal: None,
        },
        fenced: Some((Epoch(3), owner())),
    }
}

fn wal() -> WalMark {
    WalMark { salts: [0x0102_0304, 0x0506_0708], frame: 200, checksum: [9, 10] }
}

fn a_volume_row_with_a_wal() -> VolumeRow {
    let row = a_volume_row();
    VolumeRow { tail: TailRow { wal: Some(wal()), ..row.tail }, ..row }
}

/// One that says where the WAL stood.
fn a_checkpoint() -> Record {
    let mut record = a_record(RecordKind::Checkpoint);
    if let RecordBody::Checkpoint(checkpoint) = &mut record.body {
        checkpoint.wal = Some(wal());
    }
    record
}

/// One that brings pages along.
fn a_travelling_checkpoint() -> Record {
    let mut record = a_checkpoint();
    if let RecordBody::Checkpoint(checkpoint) = &mut record.body {
        checkpoint.pages =
            vec![SkeletonPage { page: page(1), image: text(1) }, SkeletonPage { page: page(3), image: text(3) }];
    }
    record
}

fn a_change() -> Change {
    Change {
        change: ChangeSeq(41),
        volume: VolumeId(bits(0x10)),
        after: Seq(62),
        records: vec![summary()],
        ops: vec![ManifestOp::Resize { page_count: PageCount(40) }],
    }
}

fn an_intent() -> Intent {
    Intent {
        seq: Seq(64),
        record: bits::<40>(0).to_vec(),
        body: Some((name(BlobKind::Segment), 2_000_000)),
        identities: vec![(page(1), PageIdentity(bits(0x80))), (page(4), PageIdentity(bits(0x81)))],
    }
}

fn a_staged() -> StagedBlob {
    StagedBlob { input: bits(0xc0), blob: own(BlobKind::Pack, 70_000), uploaded: true }
}

fn the_identities() -> Vec<Option<PageIdentity>> {
    (0..64).map(|at| (at < 2 || at == 63).then(|| PageIdentity(bits(at)))).collect()
}

macro_rules! row {
    ($room:ident, $value:ident) => {
        (|| rows::$room::encode(&$value()).unwrap(), |bytes| Ok(rows::$room::decode(bytes)? == $value()))
    };
}

macro_rules! a_record_of {
    ($kind:ident) => {
        (|| record_bytes(RecordKind::$kind), |bytes| reads_record(RecordKind::$kind, bytes))
    };
}

type Reads = fn(&[u8]) -> Result<bool, FormatError>;
type Ways = (fn() -> Vec<u8>, Reads);

/// What the first version of a manifest snapshot could say.
fn an_old_snapshot() -> Snapshot {
    let mut old = Snapshot { rows: Vec::new(), ..a_snapshot() };
    old.shards.iter_mut().for_each(|shard| shard.checks.clear());
    old
}

/// Golden files that nothing writes any more: name, version, and whether bytes are read as they were meant.
pub(super) fn old() -> Vec<(&'static str, u16, Reads)> {
    vec![
        ("snapshot", 1, |bytes| Ok(snapshot::decode(bytes)? == an_old_snapshot())),
        ("head", 1, |bytes| Ok(head::decode(bytes)? == Head { inline: Some(Box::new(an_old_snapshot())), ..a_head() })),
    ]
}

/// All of them. A format that changes gets new ones; these stay, and are read for as long as their version is.
pub(super) fn all() -> Vec<Sample> {
    let sample = |name, entry, (encode, reads): Ways| Sample { name, version: 1, entry, encode, reads };
    let second = |name, entry, (encode, reads): Ways| Sample { name, version: 2, entry, encode, reads };
    vec![
        sample("record-claim", "record", a_record_of!(Claim)),
        sample("record-release", "record", a_record_of!(Release)),
        sample("record-segment", "record", a_record_of!(Segment)),
        sample("record-checkpoint", "record", a_record_of!(Checkpoint)),
        second(
            "record-checkpoint",
            "record",
            (
                || record::encode(&a_checkpoint(), Seq(300)).unwrap().object,
                |bytes| {
                    let (envelope, body) = record::decode(bytes, None)?;
                    Ok(a_checkpoint() == Record { header: envelope.header, body })
                },
            ),
        ),
        Sample {
            name: "record-checkpoint",
            version: 3,
            entry: "record",
            encode: || record::encode(&a_travelling_checkpoint(), Seq(300)).unwrap().object,
            reads: |bytes| {
                let (envelope, body) = record::decode(bytes, None)?;
                Ok(a_travelling_checkpoint() == Record { header: envelope.header, body })
            },
        },
        sample("record-coalesce", "record", a_record_of!(Coalesce)),
        sample("record-index", "record", a_record_of!(Index)),
        sample("record-prune", "record", a_record_of!(Prune)),
        sample(
            "record-large",
            "record",
            (
                || record::encode(&a_large_record(), Seq(300)).unwrap().object,
                |bytes| {
                    let (_, stored) = record::encode(&a_large_record(), Seq(300))?.body_blob.unwrap();
                    let (envelope, body) = record::decode(bytes, Some(&stored))?;
                    Ok(a_large_record() == Record { header: envelope.header, body })
                },
            ),
        ),
        sample("frame-none", "frame", (|| a_frame(Compression::None), reads_frame)),
        sample("frame-lz4", "frame", (|| a_frame(Compression::Lz4), reads_frame)),
        sample("frame-zstd", "frame", (|| a_frame(Compression::Zstd), reads_frame)),
        sample("frame-patch", "patch", (a_patch_frame, reads_patch_frame)),
        sample(
            "chunk",
            "blob",
            (|| a_blob(BlobKind::Chunk, Compression::Zstd).0, |bytes| reads_blob(BlobKind::Chunk, bytes)),
        ),
        sample(
            "pack",
            "blob",
            (|| a_blob(BlobKind::Pack, Compression::Lz4).0, |bytes| reads_blob(BlobKind::Pack, bytes)),
        ),
        sample(
            "shard",
            "shard",
            (|| shard::encode(1, &the_rows()).unwrap().0, |bytes| Ok(shard::decode(bytes)? == (1, the_rows()))),
        ),
        second(
            "snapshot",
            "snapshot",
            (|| snapshot::encode(&a_snapshot()).unwrap(), |bytes| Ok(snapshot::decode(bytes)? == a_snapshot())),
        ),
        second("head", "head", (|| head::encode(&a_head()).unwrap(), |bytes| Ok(head::decode(bytes)? == a_head()))),
        sample("pin", "pin", (|| pin::encode(&a_pin()).unwrap(), |bytes| Ok(pin::decode(bytes)? == a_pin()))),
        sample("row-volume", "rows", row!(volume, a_volume_row)),
        second("row-volume", "rows", row!(volume, a_volume_row_with_a_wal)),
        sample("row-base", "rows", row!(base, base)),
        sample("row-delta", "rows", row!(delta, delta)),
        sample("row-change", "rows", row!(change, a_change)),
        sample("row-intent", "rows", row!(intent, an_intent)),
        sample("row-staged", "rows", row!(staged, a_staged)),
        sample("row-identities", "rows", row!(identities, the_identities)),
        sample("row-number", "rows", (|| rows::number::encode(300), |bytes| Ok(rows::number::decode(bytes)? == 300))),
    ]
}

/// A name of every kind of object, with the key it stands for.
pub(super) fn names() -> Vec<(&'static str, keys::ObjectKey)> {
    use keys::{ObjectKey, PinKey};
    vec![
        ("record 1", ObjectKey::Record(Seq(1))),
        ("record 64", ObjectKey::Record(Seq(64))),
        ("manifest snapshot of record 64", ObjectKey::Snapshot(Seq(64))),
        ("base chunk", ObjectKey::Blob(name(BlobKind::Chunk))),
        ("pack", ObjectKey::Blob(name(BlobKind::Pack))),
        ("large body", ObjectKey::Blob(name(BlobKind::Segment))),
        ("shard", ObjectKey::Blob(name(BlobKind::Shard))),
        ("pin of a fork, a restore or a reader", ObjectKey::Pin(PinKey::Id(PinId(bits(0xd0))))),
        ("named snapshot", ObjectKey::Pin(PinKey::Snapshot("before-upgrade".parse().unwrap()))),
        ("head", ObjectKey::Head),
        ("probe", ObjectKey::Probe("00ff".to_owned())),
    ]
}
