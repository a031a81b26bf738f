//! How the nouns that many formats share are spelled.

use crate::FormatError;
use crate::wire::{In, Out, Spell};
use littoral_types::limits::{DELTAS_PER_CHUNK_MAX, LOG_COLUMNS_MAX, LOG_PIECES_MAX, LOG_VOIDS_MAX, NAME_LEN_MAX};
use littoral_types::{
    Base, BlobHash, BlobKind, BlobName, BlobRef, ChunkId, ChunkRow, ChunkSpan, Delta, DeltaId, FooterFigures,
    FrameTable, Generation, Home, IdentityKey, JournalMode, LogPiece, LogRow, LogTable, Lsn, LsnRange, Owner,
    PageCount, PageNo, PageSize, RecordKind, SchemaSummary, Seq, StoreId, VolumeFigures, VolumeId, VolumeKind,
    VolumeMeta,
};

/// Bit of a blob's kind byte that says that another volume's name follows.
const ELSEWHERE: u8 = 0x80;

pub(crate) const fn kind_number(kind: BlobKind) -> u8 {
    match kind {
        BlobKind::Chunk => 0,
        BlobKind::Pack => 1,
        BlobKind::Segment => 2,
        BlobKind::Shard => 3,
        BlobKind::Record => 4,
    }
}

pub(crate) fn kind_of(number: u8) -> Option<BlobKind> {
    BlobKind::ALL.into_iter().chain([BlobKind::Record]).find(|kind| kind_number(*kind) == number)
}

pub(crate) fn record_kind(input: &mut In<'_>) -> Result<RecordKind, FormatError> {
    let number = input.u16()?;
    RecordKind::ALL
        .into_iter()
        .find(|kind| *kind as u16 == number)
        .ok_or_else(|| input.invalid(format!("record kind {number}")))
}

pub(crate) fn name<T: std::str::FromStr>(input: &mut In<'_>) -> Result<T, FormatError> {
    let bytes = input.blob(NAME_LEN_MAX)?;
    let text = std::str::from_utf8(bytes).map_err(|_| input.invalid("a name that is not UTF-8"))?;
    text.parse().map_err(|_| input.invalid(format!("not a name: {text:?}")))
}

impl Spell for BlobName {
    fn put(&self, out: &mut Out) {
        out.u8("blob: kind", kind_number(self.kind));
        out.raw("blob: BLAKE3", &self.hash.0);
        out.varint("blob: birth", self.birth.0);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let number = input.u8()?;
        let kind = kind_of(number).ok_or_else(|| input.invalid(format!("blob kind {number}")))?;
        Ok(Self { kind, hash: BlobHash(input.array()?), birth: Seq(input.varint()?) })
    }
}

impl Spell for BlobRef {
    fn put(&self, out: &mut Out) {
        let kind = kind_number(self.name.kind);
        match &self.home {
            Home::Own => out.u8("blob: kind", kind),
            Home::Other(volume) => {
                out.u8("blob: kind, and that another volume holds it", kind | ELSEWHERE);
                out.text("blob: volume", volume.as_str());
            }
        }
        out.raw("blob: BLAKE3", &self.name.hash.0);
        out.varint("blob: birth", self.name.birth.0);
        out.varint("blob: bytes", self.len);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let number = input.u8()?;
        let kind = kind_of(number & !ELSEWHERE).ok_or_else(|| input.invalid(format!("blob kind {number}")))?;
        let home = if number & ELSEWHERE == 0 { Home::Own } else { Home::Other(name(input)?) };
        let name = BlobName { kind, hash: BlobHash(input.array()?), birth: Seq(input.varint()?) };
        Ok(Self { home, name, len: input.varint()? })
    }
}

impl Spell for ChunkSpan {
    fn put(&self, out: &mut Out) {
        if !span_fits(*self) {
            out.refuse("a chunk without pages, with too many, or beyond 64 bits");
        }
        out.varint("span: first page", self.first.get());
        out.varint("span: pages", self.count.0);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let span = Self { first: input.page()?, count: PageCount(input.varint()?) };
        if span_fits(span) { Ok(span) } else { Err(input.invalid(format!("a chunk of {} pages", span.count))) }
    }
}

fn span_fits(span: ChunkSpan) -> bool {
    span.count.0 <= crate::table::PAGES_MAX && span.last().is_some()
}

impl Spell for Base {
    fn put(&self, out: &mut Out) {
        out.varint("base: generation", self.generation.0);
        self.blob.put(out);
        self.span.put(out);
        out.varint("base: last live page", self.last_live.get());
        self.table.put(out);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            generation: Generation(input.varint()?),
            blob: BlobRef::get(input)?,
            span: ChunkSpan::get(input)?,
            last_live: input.page()?,
            table: FrameTable::get(input)?,
        })
    }
}

/// Bytes that any delta takes at least.
const DELTA_LEN_MIN: usize = 1 + 35 + 1 + 3;

impl Spell for Delta {
    fn put(&self, out: &mut Out) {
        out.varint("delta: id", self.id.0);
        self.blob.put(out);
        out.varint("delta: last live page", self.last_live.get());
        self.table.put(out);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            id: DeltaId(input.varint()?),
            blob: BlobRef::get(input)?,
            last_live: input.page()?,
            table: FrameTable::get(input)?,
        })
    }
}

/// Zero pages of all versions of one chunk: each page of the largest chunk 32 times.
const ROW_ZEROS_MAX: u64 = 32 * crate::table::PAGES_MAX;

/// What a row of a log's segment has where others say whether they have a base.
const IS_SEGMENT: u8 = 2;
/// What the state of a table's segment has more.
const OF_A_TABLE: u8 = 2;
/// And that of one of which records were taken back, in place of it.
const TAKEN_BACK: u8 = 4;
/// Bytes that any piece takes at least.
const PIECE_LEN_MIN: usize = 1 + 1 + 35 + 1;

impl Spell for LogTable {
    fn put(&self, out: &mut Out) {
        out.limit(self.columns.len(), LOG_COLUMNS_MAX);
        out.count("table: columns", self.columns.len());
        self.columns.iter().for_each(|column| out.text("table: a column, as SQL declares it", column));
        put_voids(out, "table: runs of records that are no rows", &self.voids);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let columns = input.list(1, LOG_COLUMNS_MAX, |input| Ok(input.text()?.to_owned()))?;
        Ok(Self { columns, voids: get_voids(input)? })
    }
}

fn put_voids(out: &mut Out, what: &'static str, voids: &[(Lsn, Lsn)]) {
    out.limit(voids.len(), LOG_VOIDS_MAX);
    out.count(what, voids.len());
    let mut before = 0;
    for (from, to) in voids {
        out.varint("void: first LSN, from the end of the one before", from.0.wrapping_sub(before));
        out.varint("void: records after it", to.0.wrapping_sub(from.0));
        before = to.0;
    }
}

fn get_voids(input: &mut In<'_>) -> Result<Vec<(Lsn, Lsn)>, FormatError> {
    let mut before = 0_u64;
    input.list(2, LOG_VOIDS_MAX, |input| {
        let (from, more) = (input.varint()?, input.varint()?);
        let beyond = || input.invalid("a void beyond 64 bits");
        let from = before.checked_add(from).ok_or_else(beyond)?;
        before = from.checked_add(more).ok_or_else(beyond)?;
        Ok((Lsn(from), Lsn(before)))
    })
}

impl Spell for LogRow {
    fn put(&self, out: &mut Out) {
        if let Err(detail) = self.check() {
            out.refuse(detail);
        }
        out.varint("segment: first LSN", self.first.0);
        out.varint("segment: begun, ms", self.created_ms);
        out.varint("segment: end of the entries", self.end);
        out.varint("segment: records", self.records);
        out.varint("segment: earliest time, ms", self.since_ms);
        out.varint("segment: latest time, ms", self.until_ms);
        let more = match (&self.table, self.taken_back.is_empty()) {
            (Some(_), _) => OF_A_TABLE,
            (None, false) => TAKEN_BACK,
            (None, true) => 0,
        };
        let state = u8::from(self.sealed.is_some()) + more;
        out.u8("segment: state (0 open, 1 sealed; 2 more of a table, 4 more where records were taken back)", state);
        if let Some(bytes) = self.sealed {
            out.varint("segment: bytes of its file", bytes);
        }
        out.count("segment: pieces", self.pieces.len());
        let (mut first, mut from) = (self.first.0, self.span().0);
        for piece in &self.pieces {
            out.varint("piece: bytes", piece.to.wrapping_sub(from));
            out.varint("piece: first LSN, from the one before", piece.first.0.wrapping_sub(first));
            piece.blob.put(out);
            out.varint("piece: where in the blob", piece.at);
            (first, from) = (piece.first.0, piece.to);
        }
        if let Some(table) = &self.table {
            table.put(out);
        } else if !self.taken_back.is_empty() {
            put_voids(out, "segment: runs of records that were taken back", &self.taken_back);
        }
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let (first, created_ms) = (Lsn(input.varint()?), input.varint()?);
        let (end, records) = (input.varint()?, input.varint()?);
        let (since_ms, until_ms) = (input.varint()?, input.varint()?);
        let (is_sealed, more) = match input.u8()? {
            state @ 0..6 => (state & 1 == 1, state & !1),
            other => return Err(input.invalid(format!("a segment in state {other}"))),
        };
        let sealed = if is_sealed { Some(input.varint()?) } else { None };
        let (pieces, table, taken_back) = (Vec::new(), None, Vec::new());
        let mut row = Self { first, created_ms, end, records, since_ms, until_ms, sealed, pieces, table, taken_back };
        let (mut lsn, mut from) = (first.0, row.span().0);
        row.pieces = input.list(PIECE_LEN_MIN, LOG_PIECES_MAX, |input| {
            let beyond = |input: &In<'_>| input.invalid("a piece beyond 64 bits");
            let to = from.checked_add(input.varint()?).ok_or_else(|| beyond(input))?;
            lsn = lsn.checked_add(input.varint()?).ok_or_else(|| beyond(input))?;
            let piece = LogPiece { from, to, first: Lsn(lsn), blob: BlobRef::get(input)?, at: input.varint()? };
            from = to;
            Ok(piece)
        })?;
        match more {
            OF_A_TABLE => row.table = Some(LogTable::get(input)?),
            TAKEN_BACK => {
                row.taken_back = get_voids(input)?;
                if row.taken_back.is_empty() {
                    return Err(input.invalid(
                        "a segment of which nothing was taken back, in the state of one of which something was",
                    ));
                }
            }
            _ => {}
        }
        match row.check() {
            Ok(()) => Ok(row),
            Err(detail) => Err(input.invalid(detail)),
        }
    }
}

impl Spell for ChunkRow {
    fn put(&self, out: &mut Out) {
        out.varint("row: chunk", self.chunk.0);
        if let Some(segment) = &self.segment {
            if self.base.is_some() || !self.deltas.is_empty() {
                out.refuse("a log's segment that has pages");
            }
            out.u8("row: is a log's segment (2)", IS_SEGMENT);
            return segment.put(out);
        }
        out.optional("row: has a base", self.base.as_ref(), |out, base| base.put(out));
        out.limit(self.deltas.len(), DELTAS_PER_CHUNK_MAX);
        out.count("row: deltas", self.deltas.len());
        let tables = self.base.iter().map(|base| &base.table).chain(self.deltas.iter().map(|delta| &delta.table));
        out.limit(tables.map(|table| table.zeros().len() as usize).sum(), ROW_ZEROS_MAX as usize);
        if !deltas_ascend(&self.deltas) {
            out.refuse("deltas that do not ascend");
        }
        self.deltas.iter().for_each(|delta| delta.put(out));
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let row = input.within_zeros(ROW_ZEROS_MAX, |input| {
            let chunk = ChunkId(input.varint()?);
            if input.clone().u8()? == IS_SEGMENT {
                input.u8()?;
                return Ok(Self { segment: Some(LogRow::get(input)?), ..Self::new(chunk) });
            }
            let base = input.optional(Base::get)?;
            let deltas = input.list(DELTA_LEN_MIN, DELTAS_PER_CHUNK_MAX, Delta::get)?;
            Ok(Self { chunk, base, deltas, segment: None })
        })?;
        if deltas_ascend(&row.deltas) { Ok(row) } else { Err(input.invalid("deltas that do not ascend")) }
    }
}

fn deltas_ascend(deltas: &[Delta]) -> bool {
    deltas.windows(2).all(|pair| pair[0].id < pair[1].id)
}

impl Spell for VolumeMeta {
    fn put(&self, out: &mut Out) {
        out.raw("volume: id", &self.id.0);
        out.text("volume: name", self.name.as_str());
        let kind = match (self.kind, self.began_as) {
            (VolumeKind::Database, _) => 1,
            (VolumeKind::Log, None) => 2,
            (VolumeKind::Log, Some(_)) => 3,
        };
        out.u8("volume: kind (1 database, 2 log)", kind);
        match (self.kind, &self.began_as) {
            (VolumeKind::Log, Some(log)) => out.raw("volume: log that it was forked from", &log.0),
            (VolumeKind::Database, Some(_)) => out.refuse("a database that was a log"),
            (_, None) => {}
        }
        out.raw("volume: identity key", &self.identity_key.0);
        out.varint("volume: created, ms", self.created_ms);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let id = VolumeId(input.array()?);
        let name = name(input)?;
        let (kind, began_as) = match input.u8()? {
            1 => (VolumeKind::Database, None),
            2 => (VolumeKind::Log, None),
            3 => (VolumeKind::Log, Some(VolumeId(input.array()?))),
            other => return Err(input.invalid(format!("volume kind {other}"))),
        };
        Ok(Self { id, name, kind, identity_key: IdentityKey(input.array()?), created_ms: input.varint()?, began_as })
    }
}

impl Spell for Owner {
    fn put(&self, out: &mut Out) {
        out.raw("owner: store", &self.store.0);
        out.text("owner: label", &self.label);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self { store: StoreId(input.array()?), label: input.text()?.to_owned() })
    }
}

pub(crate) fn put_page_size(out: &mut Out, size: Option<PageSize>) {
    out.u8("page size, log2 (0 unknown)", size.map_or(0, crate::wire::page_size_log2));
}

pub(crate) fn get_page_size(input: &mut In<'_>) -> Result<Option<PageSize>, FormatError> {
    match input.clone().u8()? {
        0 => input.u8().map(|_| None),
        _ => input.page_size().map(Some),
    }
}

/// A database that no file could hold is none: whatever is computed from its size stays within the 63 bits of an offset.
pub(crate) fn figures_fit(figures: &VolumeFigures) -> bool {
    let page = figures.page_size.map_or(1, PageSize::bytes);
    figures.page_count.0.checked_mul(page).is_some_and(|bytes| i64::try_from(bytes).is_ok())
}

/// How they are refused.
pub(crate) const TOO_MANY_PAGES: &str = "more pages than a file can hold";

impl Spell for VolumeFigures {
    fn put(&self, out: &mut Out) {
        if !figures_fit(self) {
            out.refuse(TOO_MANY_PAGES);
        }
        out.varint("figures: generation", self.generation.0);
        put_page_size(out, self.page_size);
        out.varint("figures: pages of the database", self.page_count.0);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let figures = Self {
            generation: Generation(input.varint()?),
            page_size: get_page_size(input)?,
            page_count: PageCount(input.varint()?),
        };
        if figures_fit(&figures) { Ok(figures) } else { Err(input.invalid(TOO_MANY_PAGES)) }
    }
}

impl Spell for FooterFigures {
    fn put(&self, out: &mut Out) {
        out.varint("added: pages", self.pages);
        out.varint("added: bytes", self.bytes);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self { pages: input.varint()?, bytes: input.varint()? })
    }
}

impl Spell for LsnRange {
    fn put(&self, out: &mut Out) {
        if !range_fits(*self) {
            out.refuse("an LSN range that ends before it begins");
        }
        out.varint("LSNs: first", self.first.0);
        out.varint("LSNs: last", self.last.0);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let range = Self { first: Lsn(input.varint()?), last: Lsn(input.varint()?) };
        if range_fits(range) { Ok(range) } else { Err(input.invalid("an LSN range that ends before it begins")) }
    }
}

/// A range that is empty ends just before it begins.
pub(crate) const fn range_fits(range: LsnRange) -> bool {
    range.first.0 <= range.last.0.saturating_add(1)
}

impl Spell for SchemaSummary {
    fn put(&self, out: &mut Out) {
        out.u32("schema: cookie", self.cookie);
        out.u32("schema: user_version", self.user_version);
        out.u32("schema: application_id", self.application_id);
        out.u32("schema: encoding", self.encoding);
        let journal = match self.journal {
            JournalMode::Rollback => 1,
            JournalMode::Wal => 2,
        };
        out.u8("schema: journal (1 rollback, 2 WAL)", journal);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            cookie: input.u32()?,
            user_version: input.u32()?,
            application_id: input.u32()?,
            encoding: input.u32()?,
            journal: match input.u8()? {
                1 => JournalMode::Rollback,
                2 => JournalMode::Wal,
                other => return Err(input.invalid(format!("journal mode {other}"))),
            },
        })
    }
}

/// Pages by ascending number: each as the pages left out before it.
#[derive(Default)]
pub(crate) struct Ascending(u64);

impl Ascending {
    pub(crate) fn put(&mut self, out: &mut Out, page: PageNo) {
        match page.get().checked_sub(self.0).and_then(|step| step.checked_sub(1)) {
            Some(left_out) => out.varint("page: left out before", left_out),
            None => out.refuse("pages that do not ascend"),
        }
        self.0 = page.get();
    }

    pub(crate) fn get(&mut self, input: &mut In<'_>) -> Result<PageNo, FormatError> {
        let number = input.varint()?.checked_add(1).and_then(|step| self.0.checked_add(step));
        let page = number.and_then(PageNo::new).ok_or_else(|| input.invalid("a page beyond 64 bits"))?;
        self.0 = page.get();
        Ok(page)
    }
}
