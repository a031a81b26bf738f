//! One fixed value of every kind: what the golden files hold and `docs/format.md` draws.

use crate::patch::{self, Patch};
use crate::{FormatError, blob, copy, head, identity, keys, log, pin, record, rows, segment, shard, snapshot};
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
        began_as: None,
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

fn the_log_entries() -> [(LogEntryHead, &'static [u8]); 2] {
    let serial = |number| Serial::new(number).unwrap();
    let (session, time_ms) = (1, 1_700_000_000_500);
    let named = LogEntryHead { kind: LogEntryKind::Session, session, len: 8, serial: serial(41), time_ms };
    let record = LogEntryHead { kind: LogEntryKind::Record, session, len: 5, serial: serial(42), time_ms };
    [(named, b"worker-7"), (record, b"hello")]
}

fn a_log_entry((entry, body): &(LogEntryHead, &'static [u8])) -> Vec<u8> {
    log::encode_entry(&crate::entry::LOG, Lsn(300), entry, body).unwrap()
}

/// Whether it is that and nothing else.
fn reads_log_entry(nth: usize, bytes: &[u8]) -> Result<bool, FormatError> {
    let found = log::decode_entry(&crate::entry::LOG, Lsn(300), bytes)?;
    match found.filter(|(_, body)| log::entry_bytes(body.len()) == bytes.len()) {
        Some(found) => Ok(found == the_log_entries()[nth]),
        None => Err(FormatError::Invalid { what: "log entry", detail: "none, or more than one".to_owned() }),
    }
}

fn reads_log_head(bytes: &[u8]) -> Result<bool, FormatError> {
    match bytes.len() {
        log::HEAD_LEN => Ok(log::decode_head(bytes)? == crate::entry::LOG),
        _ => Err(FormatError::Invalid { what: "log segment", detail: "not a head alone".to_owned() }),
    }
}

fn a_log_index() -> LogIndex {
    let before = [
        ("archive".parse().unwrap(), Serial::new(7).unwrap()),
        ("worker-7".parse().unwrap(), Serial::new(41).unwrap()),
    ];
    let mut fold = log::Fold::new(crate::entry::LOG, &before.into());
    let [(named, name), (record, _)] = the_log_entries();
    fold.take(&named, Some(&std::str::from_utf8(name).unwrap().parse().unwrap())).unwrap();
    fold.take(&record, None).unwrap();
    // One that reaches into the next block, and one there.
    for (len, time_ms) in [(70_000, 1_700_000_000_400), (3, 1_700_000_000_600)] {
        let nobody = LogEntryHead { session: 0, serial: Serial::ZERO, len, time_ms, ..record };
        fold.take(&nobody, None).unwrap();
    }
    fold.index()
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
            gap: None,
        }),
        RecordKind::Gap => RecordBody::Checkpoint(Checkpoint {
            ops: vec![ManifestOp::Resize { page_count: PageCount(40) }],
            schema: Some(schema()),
            sessions: Vec::new(),
            wal: Some(wal()),
            pages: vec![SkeletonPage { page: page(1), image: text(1) }],
            gap: Some(Gap { reason: GapReason::Room, since_ms: 1_700_000_000_400 }),
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
        RecordKind::Fork => {
            let Snapshot { volume, figures, schema, shards, rows, skeleton, .. } = a_snapshot();
            let position = Position { epoch: Epoch(2), lsn: Lsn(12) };
            let parent = Parent {
                name: "parent".parse().unwrap(),
                id: VolumeId(bits(0x20)),
                seq: Seq(64),
                record: RecordHash(bits(0x90)),
                position,
            };
            let made_by = owner();
            let pages = skeleton.pages;
            RecordBody::Fork(Box::new(Fork {
                volume,
                made_by,
                parent,
                figures,
                shards,
                rows,
                ops: ops(),
                schema,
                pages,
            }))
        }
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
    ChunkRow { base: Some(base()), deltas: vec![delta()], ..ChunkRow::new(ChunkId(chunk)) }
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
        sessions: Vec::new(),
        objects: Vec::new(),
    }
}

fn a_mark(session: &str, step: SessionStep) -> SessionMark {
    SessionMark { session: session.parse().unwrap(), step, position: Position { epoch: Epoch(2), lsn: Lsn(12) } }
}

fn a_session_mark() -> SessionMark {
    a_mark("worker-7", SessionStep::On(Serial::new(4711).unwrap()))
}

/// One of a volume with named sessions.
fn a_snapshot_with_sessions() -> Snapshot {
    let other = a_mark("worker-8", SessionStep::Anew(Serial::new(3).unwrap()));
    Snapshot { sessions: vec![a_session_mark(), other], ..a_snapshot() }
}

/// A segment in which sessions went on, began anew and went.
fn a_segment_of_sessions() -> Record {
    let mut record = a_record(RecordKind::Segment);
    if let RecordBody::Segment(segment) = &mut record.body {
        segment.ops.extend([
            ManifestOp::Session(a_session_mark()),
            ManifestOp::Session(a_mark("worker-8", SessionStep::Anew(Serial::new(3).unwrap()))),
            ManifestOp::Session(a_mark("worker-9", SessionStep::Gone)),
        ]);
    }
    record
}

fn an_object_mark() -> ObjectMark {
    let object = Object {
        kind: ObjectKind::Index,
        name: "by_time".into(),
        table: "events".into(),
        root: PageNo::new(5),
        pages: 300,
        open: 2,
        position: Position { epoch: Epoch(2), lsn: Lsn(12) },
        taken: Taken { pages: 3, bytes: 4711 },
        total: Taken { pages: 900, bytes: 1_000_000 },
    };
    ObjectMark { id: ObjectId(7), object: Some(object) }
}

/// One of a volume whose tables and indexes are known.
fn a_snapshot_with_objects() -> Snapshot {
    Snapshot { objects: vec![an_object_mark()], ..a_snapshot() }
}

/// A checkpoint that took something of an index, and after which another one is gone.
fn a_checkpoint_of_objects() -> Record {
    let mut record = a_checkpoint();
    if let RecordBody::Checkpoint(checkpoint) = &mut record.body {
        let gone = ObjectMark { id: ObjectId(8), object: None };
        checkpoint.ops.extend([ManifestOp::Object(an_object_mark()), ManifestOp::Object(gone)]);
    }
    record
}

/// A log's segment that is sealed: two runs of an object of its own, and between them one that had travelled before.
fn a_log_row() -> LogRow {
    let piece = |from, to, first, blob, at| LogPiece { from, to, first: Lsn(first), blob, at };
    LogRow {
        first: Lsn(901),
        created_ms: 1_700_000_000_000,
        end: 40_000,
        records: 300,
        since_ms: 1_700_000_000_100,
        until_ms: 1_700_000_000_900,
        sealed: Some(40_200),
        pieces: vec![
            piece(0, 4_096, 901, own(BlobKind::Segment, 8_296), 0),
            piece(4_096, 36_000, 901, elsewhere(), 64),
            piece(36_000, 40_200, 1_170, own(BlobKind::Segment, 8_296), 4_096),
        ],
        table: None,
        taken_back: Vec::new(),
    }
}

/// The same of a log whose end was rolled back when it had been shipped.
fn a_log_row_that_was_taken_back() -> LogRow {
    LogRow { taken_back: vec![(Lsn(910), Lsn(919)), (Lsn(1_100), Lsn(1_200))], ..a_log_row() }
}

/// The same of a log whose records are rows of a table, with some that are none.
fn a_log_row_of_a_table() -> LogRow {
    let table = LogTable {
        columns: vec!["\"ts\" INTEGER".to_owned(), "\"größe\" TEXT".to_owned()],
        voids: vec![(Lsn(901), Lsn(903)), (Lsn(1_000), Lsn(1_000))],
    };
    LogRow { table: Some(table), ..a_log_row() }
}

/// A segment that is open, with a piece that travels in the record.
fn a_segment_of_a_log() -> Record {
    let mut record = a_record(RecordKind::Segment);
    let bytes: Vec<u8> = (0..48).collect();
    let blob = |len, hash, kind, birth| BlobRef { home: Home::Own, name: BlobName { kind, hash, birth }, len };
    let travels = blob(48, crate::hash::blob(&bytes), BlobKind::Record, record.header.seq);
    let before = LogPiece { from: 4_096, to: 8_000, first: Lsn(901), blob: own(BlobKind::Segment, 3_904), at: 0 };
    let piece =
        LogPiece { from: 8_000, to: 8_048, first: Lsn(950), blob: travels, at: record::HEADER_BYTES_MAX as u64 };
    let segment = LogRow { end: 8_048, sealed: None, records: 50, pieces: vec![before, piece], ..a_log_row() };
    if let RecordBody::Segment(body) = &mut record.body {
        body.wal = None;
        body.ops = vec![
            ManifestOp::PutSegment { chunk: ChunkId(3), segment },
            ManifestOp::PutSegment { chunk: ChunkId(2), segment: a_log_row() },
        ];
        body.frames = bytes;
    }
    record
}

/// The same said by a checkpoint, and one that is gone.
fn a_truncation() -> Record {
    let mut record = a_checkpoint_of_objects();
    if let RecordBody::Checkpoint(checkpoint) = &mut record.body {
        checkpoint.ops = vec![
            ManifestOp::PutSegment { chunk: ChunkId(2), segment: a_log_row() },
            ManifestOp::DropSegment { chunk: ChunkId(1) },
        ];
    }
    record
}

fn an_intent_with_owners() -> Intent {
    let owners = vec![
        (PageNo::FIRST, PageOwner::new(ObjectId::SCHEMA, Part::Node, false)),
        (PageNo::from_index(300), PageOwner::new(ObjectId(7), Part::Overflow, true)),
    ];
    Intent { owners: Some(owners), ..an_intent() }
}

fn the_owners() -> Vec<PageOwner> {
    let mut owners = vec![PageOwner::UNKNOWN; rows::owners::GROUP];
    owners[0] = PageOwner::new(ObjectId::SCHEMA, Part::Node, false);
    owners[2] = PageOwner::new(ObjectId(7), Part::Overflow, true);
    owners
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

fn a_pin_of_a_fork() -> Pin {
    let child = Child { name: "app-test".parse().unwrap(), id: VolumeId(bits(0x20)), rows: Seq(63) };
    Pin { purpose: PinPurpose::Fork(child), expires_ms: None, ..a_pin() }
}

fn a_copy_mark() -> CopyMark {
    CopyMark {
        volume: VolumeId(bits(0x10)),
        of: "s3://bucket/prefix".to_owned(),
        began_ms: 1_700_000_002_000,
        state: CopyState::Promoted { at_ms: 1_700_000_009_000, fenced: true, by: "host".to_owned() },
        pins: vec!["snap-before-upgrade".to_owned()],
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
        undone: None,
    }
}

fn a_lease() -> Lease {
    let chunks = [4, 5, 6, 300].into_iter().map(ChunkId).collect();
    Lease {
        token: LeaseToken(300),
        wish: LeaseWish {
            volume: VolumeId(bits(0x10)),
            work: Work::Repack,
            chunks: Some(chunks),
            generation: Generation(9),
            process: 4711,
            mark: "4711-3".to_owned(),
            taken_ms: 1_700_000_000_000,
            until_boot_ms: 9_000_000,
        },
    }
}

fn a_lease_that_was_taken_away() -> TakenAway {
    TakenAway {
        lease: a_lease(),
        at_ms: 1_700_000_009_000,
        by: "user 1000, process 4712".to_owned(),
        why: "it hangs".to_owned(),
        is_forced: true,
    }
}

/// One that says that work was cut off. (None brings records too: here it shows every byte.)
fn a_compensating_change() -> Change {
    Change { undone: Some(a_lease_that_was_taken_away()), ..a_change() }
}

fn a_job() -> Job {
    Job {
        id: JobId(300),
        wish: Wish {
            task: Task::PruneCheckpoint { keep_last: Some(3), keep_within_ms: Some(86_400_000) },
            database: "/data/app.db".into(),
            volume: "s3://bucket/prefix/app.db".to_owned(),
        },
        state: JobState::Ready { not_before_ms: 1_700_000_009_000 },
        attempts: 2,
        failures: 1,
        error: Some("no network".to_owned()),
        created_ms: 1_700_000_000_000,
        started_ms: Some(1_700_000_001_000),
        changed_ms: 1_700_000_005_000,
    }
}

fn a_job_note() -> JobNote {
    JobNote { blob: "app.db/blobs/1".to_owned(), bytes: 70_000, frames: 5, pages: 80 }
}

fn an_intent() -> Intent {
    Intent {
        seq: Seq(64),
        record: bits::<40>(0).to_vec(),
        body: Some((name(BlobKind::Segment), 2_000_000)),
        identities: vec![(page(1), PageIdentity(bits(0x80))), (page(4), PageIdentity(bits(0x81)))],
        owners: None,
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
        sample("record-gap", "record", a_record_of!(Gap)),
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
        sample(
            "record-sessions",
            "record",
            (
                || record::encode(&a_segment_of_sessions(), Seq(300)).unwrap().object,
                |bytes| {
                    let (envelope, body) = record::decode(bytes, None)?;
                    Ok(a_segment_of_sessions() == Record { header: envelope.header, body })
                },
            ),
        ),
        sample(
            "record-objects",
            "record",
            (
                || record::encode(&a_checkpoint_of_objects(), Seq(300)).unwrap().object,
                |bytes| {
                    let (envelope, body) = record::decode(bytes, None)?;
                    Ok(a_checkpoint_of_objects() == Record { header: envelope.header, body })
                },
            ),
        ),
        sample(
            "record-log",
            "record",
            (
                || record::encode(&a_segment_of_a_log(), Seq(300)).unwrap().object,
                |bytes| {
                    let (envelope, body) = record::decode(bytes, None)?;
                    Ok(a_segment_of_a_log() == Record { header: envelope.header, body })
                },
            ),
        ),
        sample(
            "record-truncation",
            "record",
            (
                || record::encode(&a_truncation(), Seq(300)).unwrap().object,
                |bytes| {
                    let (envelope, body) = record::decode(bytes, None)?;
                    Ok(a_truncation() == Record { header: envelope.header, body })
                },
            ),
        ),
        sample("record-coalesce", "record", a_record_of!(Coalesce)),
        sample("record-index", "record", a_record_of!(Index)),
        sample("record-prune", "record", a_record_of!(Prune)),
        sample("record-fork", "record", a_record_of!(Fork)),
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
        Sample {
            name: "snapshot",
            version: 3,
            entry: "snapshot",
            encode: || snapshot::encode(&a_snapshot_with_sessions()).unwrap(),
            reads: |bytes| Ok(snapshot::decode(bytes)? == a_snapshot_with_sessions()),
        },
        Sample {
            name: "snapshot",
            version: 4,
            entry: "snapshot",
            encode: || snapshot::encode(&a_snapshot_with_objects()).unwrap(),
            reads: |bytes| Ok(snapshot::decode(bytes)? == a_snapshot_with_objects()),
        },
        second("head", "head", (|| head::encode(&a_head()).unwrap(), |bytes| Ok(head::decode(bytes)? == a_head()))),
        sample("pin", "pin", (|| pin::encode(&a_pin()).unwrap(), |bytes| Ok(pin::decode(bytes)? == a_pin()))),
        second(
            "pin",
            "pin",
            (|| pin::encode(&a_pin_of_a_fork()).unwrap(), |bytes| Ok(pin::decode(bytes)? == a_pin_of_a_fork())),
        ),
        sample(
            "copy",
            "pin",
            (|| copy::encode(&a_copy_mark()).unwrap(), |bytes| Ok(copy::decode(bytes)? == a_copy_mark())),
        ),
        sample("log-head", "log", (|| log::encode_head(&crate::entry::LOG).unwrap(), reads_log_head)),
        sample("log-entry", "log", (|| a_log_entry(&the_log_entries()[1]), |bytes| reads_log_entry(1, bytes))),
        sample("log-session", "log", (|| a_log_entry(&the_log_entries()[0]), |bytes| reads_log_entry(0, bytes))),
        sample(
            "log-index",
            "log",
            (|| log::encode_index(&a_log_index()).unwrap(), |bytes| Ok(log::decode_index(bytes)? == a_log_index())),
        ),
        sample("row-volume", "rows", row!(volume, a_volume_row)),
        second("row-volume", "rows", row!(volume, a_volume_row_with_a_wal)),
        sample("row-base", "rows", row!(base, base)),
        sample("row-delta", "rows", row!(delta, delta)),
        sample("row-change", "rows", row!(change, a_change)),
        second("row-change", "rows", row!(change, a_compensating_change)),
        sample("row-lease", "rows", row!(lease, a_lease)),
        sample("row-lease-taken", "rows", row!(lease_taken, a_lease_that_was_taken_away)),
        sample("row-intent", "rows", row!(intent, an_intent)),
        second("row-intent", "rows", row!(intent, an_intent_with_owners)),
        sample("row-object", "rows", row!(object, an_object_mark)),
        sample("row-owners", "rows", row!(owners, the_owners)),
        sample("row-segment", "rows", row!(segment, a_log_row)),
        sample("row-segment-of-a-table", "rows", row!(segment, a_log_row_of_a_table)),
        sample("row-segment-taken-back", "rows", row!(segment, a_log_row_that_was_taken_back)),
        sample("row-staged", "rows", row!(staged, a_staged)),
        sample("row-session", "rows", row!(session, a_session_mark)),
        sample("row-identities", "rows", row!(identities, the_identities)),
        sample("row-job", "rows", row!(job, a_job)),
        sample("row-job-note", "rows", row!(job_note, a_job_note)),
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
        ("mark of a copy", ObjectKey::Copy),
        ("promotion of a copy", ObjectKey::Promoted),
    ]
}
