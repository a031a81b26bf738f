//! Any value of any kind, from a seed.

use crate::patch::Patch;
use crate::segment;
use littoral_types::limits::FRAME_PAGES_MAX;
use littoral_types::*;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// SplitMix64: small, and the same on every machine.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound.max(1)
    }

    pub(super) fn yes(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Small ones, large ones, and the edges.
    pub(super) fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX - self.below(3),
            2 => self.bits(),
            3 => 1 << self.below(64),
            _ => self.below(100_000),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.bits() as u8)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let plain = self.yes();
        (0..len).map(|at| if plain { b"the same again "[at % 15] } else { self.bits() as u8 }).collect()
    }

    pub(super) fn option<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.yes() { Some(make(self)) } else { None }
    }

    pub(super) fn list<T>(&mut self, most: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn text(&mut self) -> String {
        let len = self.below(20);
        (0..len).map(|_| self.pick(&['a', 'Z', '0', ' ', 'ü', '日', '/'])).collect()
    }

    fn name<T: std::str::FromStr<Err = NameError>>(&mut self) -> T {
        let mut name = self.pick(&["a", "Z", "0", "_", "-"]).to_owned();
        for _ in 0..self.below(12) {
            name.push(self.pick(&['a', 'Z', '0', '_', '-', '.']));
        }
        name.parse().unwrap()
    }

    pub(super) fn volume_name(&mut self) -> VolumeName {
        self.name()
    }

    pub(super) fn snapshot_name(&mut self) -> SnapshotName {
        self.name()
    }

    pub(super) fn page_size(&mut self) -> PageSize {
        PageSize::new(512 << self.below(8)).unwrap()
    }

    pub(super) fn page(&mut self) -> PageNo {
        PageNo::new(self.number().max(1)).unwrap()
    }

    pub(super) fn identity(&mut self) -> PageIdentity {
        PageIdentity(self.array())
    }

    pub(super) fn volume_id(&mut self) -> VolumeId {
        VolumeId(self.array())
    }

    pub(super) fn blob_name(&mut self) -> BlobName {
        BlobName { kind: self.pick(&BlobKind::ALL), hash: BlobHash(self.array()), birth: Seq(self.number()) }
    }

    pub(super) fn blob_ref(&mut self) -> BlobRef {
        let home = if self.below(4) == 0 { Home::Other(self.name()) } else { Home::Own };
        BlobRef { home, name: self.blob_name(), len: self.number() }
    }

    pub(super) fn span(&mut self) -> ChunkSpan {
        let count = 1 + self.below(200);
        let first = self.number().clamp(1, u64::MAX - count);
        ChunkSpan { first: PageNo::new(first).unwrap(), count: PageCount(count) }
    }

    /// Any pages of a span, ascending, as runs and as scattered ones.
    fn pages_of(&mut self, span: ChunkSpan) -> Vec<PageNo> {
        let keep = 1 + self.below(4);
        let mut pages: Vec<_> = span.pages().collect();
        if self.yes() {
            pages.retain(|_| self.below(4) < keep);
        }
        pages
    }

    pub(super) fn table(&mut self, span: ChunkSpan) -> FrameTable {
        let mut zeros = BTreeSet::new();
        let mut stored = Vec::new();
        let few = self.below(10);
        let mut run = false;
        for page in self.pages_of(span) {
            run = if self.below(10) == 0 { self.below(10) < few } else { run };
            if run {
                zeros.insert(page);
            } else {
                stored.push(page);
            }
        }
        let natural = self.yes();
        if !natural {
            // Gathered in any order, as pages of one tree would be.
            for at in (1..stored.len()).rev() {
                let other = self.below(at as u64 + 1) as usize;
                stored.swap(at, other);
            }
        }
        let contiguous = self.yes();
        let mut offset = self.below(1 << 40);
        let mut frames = Vec::new();
        while !stored.is_empty() {
            let most = if natural { FRAME_PAGES_MAX } else { 1 + self.below(FRAME_PAGES_MAX as u64) as usize };
            let mut pages: Vec<_> = stored.drain(..most.min(stored.len())).collect();
            pages.sort_unstable();
            if !contiguous {
                offset += self.below(1000);
            }
            let len = 1 + self.below(pages.len() as u64 * 4096);
            frames.push(FrameEntry { span: ByteSpan { offset, len }, pages });
            offset += len;
        }
        let mark = if frames.is_empty() { 0 } else { self.below(u64::MAX) };
        FrameTable::new(frames, zeros, mark)
    }

    pub(super) fn base(&mut self) -> Base {
        let span = self.span();
        Base {
            generation: Generation(self.number()),
            blob: self.blob_ref(),
            span,
            last_live: self.page(),
            table: self.table(span),
        }
    }

    pub(super) fn delta(&mut self) -> Delta {
        let span = self.span();
        Delta { id: DeltaId(self.number()), blob: self.blob_ref(), last_live: self.page(), table: self.table(span) }
    }

    pub(super) fn row(&mut self, chunk: ChunkId) -> ChunkRow {
        let mut deltas = self.list(4, Self::delta);
        deltas.sort_by_key(|delta| delta.id);
        deltas.dedup_by_key(|delta| delta.id);
        if self.below(4) == 0 {
            return ChunkRow { segment: Some(self.log_row()), ..ChunkRow::new(chunk) };
        }
        ChunkRow { chunk, base: self.option(Self::base), deltas, segment: None }
    }

    fn voids(&mut self, mut from: u64, end: u64) -> Vec<(Lsn, Lsn)> {
        let mut voids = Vec::new();
        while from < end && self.below(3) > 0 {
            let first = from + self.below(end - from);
            let last = first + self.below(end - first);
            voids.push((Lsn(first), Lsn(last)));
            from = last + 1;
        }
        voids
    }

    pub(super) fn log_row(&mut self) -> LogRow {
        let (first, records) = (1 + self.below(1 << 40), self.below(1 << 20));
        let end = 4_096 + 8 * self.below(100_000);
        let sealed = self.option(|chance| end + chance.below(90_000));
        let mut row = LogRow {
            first: Lsn(first),
            created_ms: self.number(),
            end,
            records,
            since_ms: self.number(),
            until_ms: self.number(),
            sealed,
            pieces: Vec::new(),
            table: None,
            taken_back: Vec::new(),
        };
        row.table = self.option(|chance| LogTable {
            columns: chance.list(3, |chance| format!("\"c{}\" TEXT", chance.number())),
            voids: chance.voids(first, first + records),
        });
        if row.table.is_none() {
            row.taken_back = self.voids(first, first + records);
        }
        let (mut from, until) = row.span();
        let mut lsn = first;
        while from < until {
            let to = if self.below(3) == 0 { until } else { from + 1 + self.below(until - from) };
            lsn += self.below(first + records + 1 - lsn);
            let (blob, at) = (self.blob_ref(), self.below(1 << 50));
            row.pieces.push(LogPiece { from, to, first: Lsn(lsn), blob, at });
            from = to;
        }
        row
    }

    pub(super) fn op(&mut self) -> ManifestOp {
        let chunk = ChunkId(self.number());
        match self.below(9) {
            8 => ManifestOp::PutSegment { chunk, segment: self.log_row() },
            7 => ManifestOp::DropSegment { chunk },
            6 => ManifestOp::Object(self.object_mark()),
            5 => ManifestOp::Session(self.mark()),
            0 => ManifestOp::Reshape { page_size: self.page_size() },
            1 => ManifestOp::Resize { page_count: PageCount(self.number()) },
            2 => ManifestOp::PutBase { chunk, base: self.base() },
            3 => ManifestOp::PutDelta { chunk, delta: self.delta() },
            _ => ManifestOp::ReplaceDeltas {
                chunk,
                replaced: self.list(4, |chance| DeltaId(chance.number())),
                delta: self.option(Self::delta),
            },
        }
    }

    fn ops(&mut self) -> Vec<ManifestOp> {
        self.list(4, Self::op)
    }

    fn owner(&mut self) -> Owner {
        Owner { store: StoreId(self.array()), label: self.text() }
    }

    pub(super) fn meta(&mut self) -> VolumeMeta {
        let kind = self.pick(&[VolumeKind::Database, VolumeKind::Log]);
        VolumeMeta {
            id: self.volume_id(),
            name: self.name(),
            kind,
            identity_key: IdentityKey(self.array()),
            created_ms: self.number(),
            began_as: (kind == VolumeKind::Log && self.below(2) == 0).then(|| self.volume_id()),
        }
    }

    fn schema(&mut self) -> SchemaSummary {
        SchemaSummary {
            cookie: self.bits() as u32,
            user_version: self.bits() as u32,
            application_id: self.bits() as u32,
            encoding: self.below(4) as u32,
            journal: self.pick(&[JournalMode::Rollback, JournalMode::Wal]),
        }
    }

    fn figures(&mut self) -> VolumeFigures {
        let page_size = self.option(Self::page_size);
        let most = i64::MAX as u64 / page_size.map_or(1, PageSize::bytes);
        VolumeFigures {
            generation: Generation(self.number()),
            page_size,
            page_count: PageCount(self.number().min(most)),
        }
    }

    fn added(&mut self) -> FooterFigures {
        FooterFigures { pages: self.number(), bytes: self.number() }
    }

    fn lsns(&mut self) -> LsnRange {
        let last = self.number();
        if self.yes() {
            return LsnRange::empty_after(Lsn(last));
        }
        LsnRange { first: Lsn(last.saturating_sub(self.below(5))), last: Lsn(last) }
    }

    fn session(&mut self) -> (String, u64) {
        (self.text(), self.number())
    }

    fn wal(&mut self) -> WalMark {
        WalMark {
            salts: [self.bits() as u32, self.bits() as u32],
            frame: self.number(),
            checksum: [self.bits() as u32, self.bits() as u32],
        }
    }

    /// The segment of a record at a place: whole pages, zeros and patches of a few chunks.
    fn segment(&mut self, seq: Seq) -> Segment {
        let page_size = PageSize::new(512 << self.below(3)).unwrap();
        let mut lsn = self.below(1000);
        let commits = self.list(4, |chance| {
            lsn += 1 + chance.below(3);
            Commit {
                lsn: Lsn(lsn),
                time_ms: chance.number(),
                page_count: PageCount(chance.number()),
                session: chance.option(Self::session),
            }
        });
        let wal = self.option(Self::wal);
        let page_count = PageCount(1 << 20);
        let generation = Generation(1 + self.below(1000));
        let stand = segment::Stand { generation, seq, mark: self.bits(), page_count };
        let mut writer = segment::Writer::new(page_size, Compression::Zstd, stand);
        let mut page = 0;
        for _ in 0..self.below(40) {
            page += 1 + self.below(3) * self.below(20_000);
            let Some(page) = PageNo::new(page).filter(|page| page_count.holds(*page)) else { break };
            let image = self.bytes(page_size.len());
            let mut after = image.clone();
            after[7] ^= 1;
            match (self.below(3), Patch::between(&image, &after, &crate::entry::KEY)) {
                (0, _) => writer.whole(page, vec![0; page_size.len()]).unwrap(),
                (1, Some(patch)) => writer.patched(page, patch).unwrap(),
                _ => writer.whole(page, image).unwrap(),
            }
        }
        let inline_max = if self.below(4) == 0 { 0 } else { 1 << 20 };
        let segment::Framed { mut ops, frames, blob } = writer.finish(inline_max, Seq(self.number())).unwrap();
        ops.insert(0, ManifestOp::Resize { page_count });
        let frames = if blob.is_some() { Vec::new() } else { frames };
        Segment { commits, wal, ops, frames }
    }

    fn summary(&mut self) -> RecordSummary {
        RecordSummary {
            seq: Seq(self.number()),
            kind: self.pick(&RecordKind::ALL),
            hash: RecordHash(self.array()),
            epoch: Epoch(self.number()),
            lsns: self.lsns(),
            time_ms: self.number(),
            page_count: PageCount(self.number()),
            added: self.added(),
        }
    }

    fn travelling(&mut self) -> Vec<SkeletonPage> {
        let size = self.pick(&[512, 4096, 65_536]);
        let numbers = self.list(((32 << 10) / size).max(1), |chance| chance.number() % 1000 + 1);
        let numbers: std::collections::BTreeSet<u64> = numbers.into_iter().collect();
        let pages = numbers
            .into_iter()
            .map(|number| SkeletonPage { page: PageNo::new(number).unwrap(), image: self.bytes(size as usize) });
        pages.collect()
    }

    pub(super) fn body(&mut self, kind: RecordKind) -> RecordBody {
        match kind {
            RecordKind::Claim => RecordBody::Claim(Claim {
                owner: self.owner(),
                takes_over: self.option(|chance| Epoch(chance.number())),
                volume: self.meta(),
            }),
            RecordKind::Release => RecordBody::Release(Release { owner: self.owner() }),
            RecordKind::Segment => RecordBody::Segment(self.segment(Seq(9))),
            RecordKind::Checkpoint => RecordBody::Checkpoint(Checkpoint {
                ops: self.ops(),
                schema: self.option(Self::schema),
                sessions: self.list(3, Self::session),
                wal: self.option(Self::wal),
                pages: self.travelling(),
                gap: None,
            }),
            RecordKind::Gap => RecordBody::Checkpoint(Checkpoint {
                ops: self.ops(),
                schema: self.option(Self::schema),
                sessions: self.list(3, Self::session),
                wal: self.option(Self::wal),
                pages: self.travelling(),
                gap: Some(Gap { reason: self.pick(&GapReason::ALL), since_ms: self.number() }),
            }),
            RecordKind::Coalesce => RecordBody::Coalesce(Coalesce { ops: self.ops() }),
            RecordKind::Fork => RecordBody::Fork(Box::new(self.fork())),
            RecordKind::Index => RecordBody::Index(Index {
                after: Seq(self.number()),
                previous: self.option(|chance| RecordHash(chance.array())),
                ops: self.ops(),
                recent: self.list(4, Self::summary),
                schema: self.option(Self::schema),
                owner: self.option(Self::owner),
                floor: Seq(self.number()),
            }),
            RecordKind::Prune => RecordBody::Prune(Prune {
                floor: Seq(self.number()),
                blobs: self.list(4, Self::blob_name),
                snapshots: self.list(4, |chance| Seq(chance.number())),
            }),
        }
    }

    fn fork(&mut self) -> Fork {
        let Snapshot { volume, figures, schema, shards, rows, .. } = self.snapshot();
        let parent = Parent {
            name: self.name(),
            id: self.volume_id(),
            seq: Seq(self.number()),
            record: RecordHash(self.array()),
            position: Position { epoch: Epoch(self.number()), lsn: Lsn(self.number()) },
        };
        let (made_by, ops, pages) = (self.owner(), self.ops(), self.travelling());
        Fork { volume, made_by, parent, figures, shards, rows, ops, schema, pages }
    }

    pub(super) fn record(&mut self, kind: RecordKind) -> Record {
        let header = RecordHeader {
            volume: self.volume_id(),
            seq: Seq(self.number().max(1)),
            epoch: Epoch(self.number()),
            incarnation: Incarnation(self.array()),
            previous: RecordHash(self.array()),
            lsns: self.lsns(),
            time_ms: self.number(),
            snapshot: Seq(self.number()),
            figures: self.figures(),
            added: self.added(),
        };
        match kind {
            RecordKind::Segment => {
                let seq = Seq(1 + self.below(1 << 30));
                Record { header: RecordHeader { seq, ..header }, body: RecordBody::Segment(self.segment(seq)) }
            }
            kind => Record { header, body: self.body(kind) },
        }
    }

    fn shard_ref(&mut self, shard: u64) -> ShardRef {
        let mut chunk = shard * 1024;
        let mut rows = Vec::new();
        loop {
            chunk += self.below(100);
            if chunk / 1024 != shard {
                break;
            }
            rows.push((ChunkId(chunk), self.bits() as u32));
            chunk += 1;
        }
        let checks = if self.below(2) == 0 { rows.iter().map(|_| self.bits() as u32).collect() } else { Vec::new() };
        ShardRef { shard, blob: self.blob_ref(), rows, checks }
    }

    pub(super) fn snapshot(&mut self) -> Snapshot {
        let figures = self.figures();
        let mut shard = 0;
        let shards = self.list(3, |chance| {
            shard += 1 + chance.below(1 << 20);
            chance.shard_ref(shard)
        });
        let chunks: Vec<ChunkId> = shards.iter().flat_map(|shard| shard.rows.iter().map(|(chunk, _)| *chunk)).collect();
        let along = chunks.len() <= 8 && self.below(2) == 0;
        let rows = if along { chunks.into_iter().map(|chunk| self.row(chunk)).collect() } else { Vec::new() };
        let skeleton = match figures.page_size {
            Some(size) => {
                let span = self.span();
                let pages = self.pages_of(span).into_iter().take(4);
                let pages = pages.map(|page| SkeletonPage { page, image: self.bytes(size.len()) }).collect();
                Skeleton { pages }
            }
            None => Skeleton::default(),
        };
        Snapshot {
            volume: self.meta(),
            seq: Seq(self.number()),
            record: RecordHash(self.array()),
            epoch: Epoch(self.number()),
            incarnation: Incarnation(self.array()),
            lsn: Lsn(self.number()),
            time_ms: self.number(),
            figures,
            schema: self.option(Self::schema),
            owner: self.option(Self::owner),
            floor: Seq(self.number()),
            shards,
            rows,
            skeleton,
            sessions: self.marks(),
            objects: self.objects(),
        }
    }

    pub(super) fn mark(&mut self) -> SessionMark {
        let serial = Serial::new(self.number() >> 1).unwrap();
        let step = self.pick(&[SessionStep::On(serial), SessionStep::Anew(serial), SessionStep::Gone]);
        let position = Position { epoch: Epoch(self.number()), lsn: Lsn(self.number()) };
        SessionMark { session: format!("worker-{}", self.below(100)).parse().unwrap(), step, position }
    }

    fn marks(&mut self) -> Vec<SessionMark> {
        let marks = self.list(4, Self::mark).into_iter().filter(|mark| mark.step != SessionStep::Gone);
        let by_name: std::collections::BTreeMap<_, _> = marks.map(|mark| (mark.session.clone(), mark)).collect();
        by_name.into_values().collect()
    }

    pub(super) fn object_mark(&mut self) -> ObjectMark {
        let mark = ObjectMark { id: ObjectId(self.below(1 << 29) as u32), object: None };
        ObjectMark { object: self.option(Self::object), ..mark }
    }

    fn object(&mut self) -> Object {
        Object {
            kind: self.pick(&ObjectKind::ALL),
            name: self.text().into(),
            table: self.text().into(),
            root: self.option(Self::page),
            pages: self.number(),
            open: self.number(),
            position: Position { epoch: Epoch(self.number()), lsn: Lsn(self.number()) },
            taken: Taken { pages: self.number(), bytes: self.number() },
            total: Taken { pages: self.number(), bytes: self.number() },
        }
    }

    fn objects(&mut self) -> Vec<ObjectMark> {
        let marks = self.list(4, Self::object_mark).into_iter().filter(|mark| mark.object.is_some());
        let by_id: std::collections::BTreeMap<_, _> = marks.map(|mark| (mark.id, mark)).collect();
        by_id.into_values().collect()
    }

    pub(super) fn owner_of_page(&mut self) -> PageOwner {
        PageOwner::of_bits(self.bits() as u32)
    }

    pub(super) fn head(&mut self) -> Head {
        Head {
            volume: self.volume_id(),
            epoch: Epoch(self.number()),
            seq: Seq(self.number()),
            snapshot: SnapshotRef { seq: Seq(self.number()), record: RecordHash(self.array()) },
            inline: self.option(|chance| Box::new(chance.snapshot())),
        }
    }

    pub(super) fn copy_mark(&mut self) -> CopyMark {
        let state = match self.below(3) {
            0 => CopyState::Follows,
            1 => CopyState::Fills(Seq(self.number())),
            _ => CopyState::Promoted { at_ms: self.number(), fenced: self.yes(), by: self.text() },
        };
        let pins = (0..self.below(4)).map(|_| self.text()).collect();
        CopyMark { volume: self.volume_id(), of: self.text(), began_ms: self.number(), state, pins }
    }

    pub(super) fn pin(&mut self) -> Pin {
        Pin {
            id: PinId(self.array()),
            volume: self.volume_id(),
            seq: Seq(self.number()),
            record: RecordHash(self.array()),
            lsn: Lsn(self.number()),
            purpose: match self.below(4) {
                0 => PinPurpose::Snapshot(self.name()),
                1 => PinPurpose::Restore,
                2 => PinPurpose::Reader,
                _ => PinPurpose::Fork(Child { name: self.name(), id: self.volume_id(), rows: Seq(self.number()) }),
            },
            holder: self.text(),
            created_ms: self.number(),
            expires_ms: self.option(Self::number),
        }
    }

    pub(super) fn volume_row(&mut self) -> VolumeRow {
        VolumeRow {
            meta: self.meta(),
            tail: TailRow {
                seq: Seq(self.number()),
                hash: RecordHash(self.array()),
                epoch: Epoch(self.number()),
                incarnation: Incarnation(self.array()),
                owner: self.option(Self::owner),
                lsn: Lsn(self.number()),
                time_ms: self.number(),
                figures: self.figures(),
                schema: self.option(Self::schema),
                snapshot: Seq(self.number()),
                index: self.option(|chance| (Seq(chance.number()), RecordHash(chance.array()))),
                floor: Seq(self.number()),
                seen_ms: self.number(),
                wal: self.option(Self::wal),
            },
            fenced: self.option(|chance| (Epoch(chance.number()), chance.owner())),
        }
    }

    pub(super) fn change(&mut self) -> Change {
        Change {
            change: ChangeSeq(self.number()),
            volume: self.volume_id(),
            after: Seq(self.number()),
            records: self.list(4, Self::summary),
            ops: self.ops(),
            undone: self.option(Self::taken),
        }
    }

    pub(super) fn lease(&mut self) -> Lease {
        let chunks = self.list(5, |chance| ChunkId(chance.number()));
        Lease {
            token: LeaseToken(self.number()),
            wish: LeaseWish {
                volume: self.volume_id(),
                work: self.pick(&Work::ALL),
                chunks: self.option(|_| chunks.into_iter().collect()),
                generation: Generation(self.number()),
                process: self.below(1 << 32) as u32,
                mark: self.text(),
                taken_ms: self.number(),
                until_boot_ms: self.number(),
            },
        }
    }

    pub(super) fn taken(&mut self) -> TakenAway {
        let (lease, at_ms) = (self.lease(), self.number());
        TakenAway { lease, at_ms, by: self.text(), why: self.text(), is_forced: self.yes() }
    }

    pub(super) fn intent(&mut self) -> Intent {
        let span = self.span();
        let pages = self.pages_of(span);
        let len = self.below(2000) as usize;
        Intent {
            seq: Seq(self.number()),
            record: self.bytes(len),
            body: self.option(|chance| (chance.blob_name(), chance.number())),
            identities: pages.iter().map(|page| (*page, self.identity())).collect(),
            owners: match self.below(3) {
                0 => None,
                1 => Some(Vec::new()),
                _ => Some(pages.into_iter().map(|page| (page, self.owner_of_page())).collect()),
            },
        }
    }

    fn log_cut(&mut self) -> Cut {
        match self.below(3) {
            0 => Cut::Before(Lsn(self.number())),
            1 => Cut::OlderThan(self.number()),
            _ => Cut::KeepBytes(self.number()),
        }
    }

    pub(super) fn job(&mut self) -> Job {
        let task = match self.below(6) {
            0 => Task::CreateCheckpoint,
            3 => Task::Replicate,
            4 => Task::TruncateAppendOnly { cut: self.log_cut(), past_cursors: self.yes() },
            1 => Task::VerifyCheckpoint { restore: self.yes() },
            2 => Task::DownloadCheckpoint,
            _ => Task::PruneCheckpoint {
                keep_last: self.option(Self::number),
                keep_within_ms: self.option(Self::number),
            },
        };
        let state = match self.below(5) {
            0 => JobState::Ready { not_before_ms: self.number() },
            1 => JobState::Running { by: self.text() },
            2 => JobState::Done { outcome: self.text() },
            3 => JobState::Cancelled,
            _ => JobState::Dead { reason: self.text() },
        };
        let path = self.bytes(30);
        Job {
            id: JobId(self.number()),
            wish: Wish { task, database: OsString::from_vec(path).into(), volume: self.text() },
            state,
            attempts: self.below(1 << 32) as u32,
            failures: self.below(1 << 32) as u32,
            error: self.option(Self::text),
            created_ms: self.number(),
            started_ms: self.option(Self::number),
            changed_ms: self.number(),
        }
    }

    pub(super) fn job_note(&mut self) -> JobNote {
        JobNote { blob: self.text(), bytes: self.number(), frames: self.number(), pages: self.number() }
    }

    pub(super) fn staged(&mut self) -> StagedBlob {
        StagedBlob { input: self.array(), blob: self.blob_ref(), uploaded: self.yes() }
    }

    pub(super) fn identities(&mut self) -> Vec<Option<PageIdentity>> {
        (0..64).map(|_| self.option(Self::identity)).collect()
    }
}
