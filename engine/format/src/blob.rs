//! Base chunks and packs: a header, frames one after another, a footer that indexes them, a trailer to begin reading at.
//!
//! 1. A blob is written front to back in one pass; nothing is patched later.
//! 2. It is read from its end: trailer, footer, then single frames. Every byte is covered: header and footer by a CRC64-NVME
//!    each, every frame by its own, and frames lie side by side from the header to the footer.
//! 3. The footer keeps the identity of every page, zero pages included, with the blob (rule P7).

use crate::table;
use crate::wire::{CRC_LEN, In, Out, Spell, check_version, page_size_log2, peek_version};
use crate::{FormatError, frame, identity, nouns};
use littoral_types::limits::FRAME_PAGES_MAX;
use littoral_types::{
    BlobKind, ByteSpan, ChunkId, ChunkSpan, Compression, Frame, FrameEntry, FrameTable, IdentityKey, PageIdentity,
    PageNo, PageSize,
};

const WHAT: &str = "blob";
const INDEX: &str = "blob index";
const MAGIC: &[u8; 4] = b"LBLB";
const TRAILER_MAGIC: &[u8; 4] = b"LIDX";
/// The newest layout of header, footer and trailer.
pub(crate) const VERSION: u16 = 1;
/// Bytes of the header.
pub(crate) const HEADER_LEN: u64 = 16;
/// Bytes of the trailer.
pub(crate) const TRAILER_LEN: usize = 24;
/// Bytes that any chunk takes in a footer at least.
const CHUNK_LEN_MIN: usize = 6;
/// Chunks of one pack: more than a record's body can name.
const CHUNKS_MAX: usize = 1 << 24;

/// A suffix GET of this many bytes holds the whole footer of a chunk of 4 KiB pages, and of nearly every pack.
pub const SUFFIX_GUESS: u64 = 272 << 10;

/// What a blob holds: its footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Chunk or pack.
    pub kind: BlobKind,
    /// Of every page in it.
    pub page_size: PageSize,
    /// In the order of their frames. A chunk blob has one.
    pub chunks: Vec<ChunkIndex>,
}

/// What a blob holds of one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkIndex {
    /// Which chunk.
    pub chunk: ChunkId,
    /// The pages that the chunk had.
    pub span: ChunkSpan,
    /// Which frame holds which page; offsets are from the blob's start.
    pub table: FrameTable,
    /// What every page holds, zero pages included, ascending.
    pub identities: Vec<(PageNo, PageIdentity)>,
}

/// What a suffix of a blob gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Footer {
    /// All of it.
    Index(Index),
    /// It begins earlier: fetch a suffix of this many bytes.
    Need(u64),
}

/// A chunk whose frames are being made.
#[derive(Debug)]
struct Begun {
    chunk: ChunkId,
    span: ChunkSpan,
    frames: Vec<FrameEntry>,
    zeros: Vec<PageNo>,
    identities: Vec<(PageNo, PageIdentity)>,
}

impl Begun {
    fn finish(self, mark: u64) -> ChunkIndex {
        let Self { chunk, span, frames, mut zeros, mut identities } = self;
        zeros.sort_unstable();
        identities.sort_unstable_by_key(|(page, _)| *page);
        let mark = if frames.is_empty() { 0 } else { mark };
        ChunkIndex { chunk, span, table: FrameTable::new(frames, zeros, mark), identities }
    }
}

/// Spells one blob, piece by piece.
#[derive(Debug)]
pub struct Writer {
    kind: BlobKind,
    page_size: PageSize,
    compression: Compression,
    key: IdentityKey,
    mark: u64,
    zero: PageIdentity,
    end: u64,
    chunks: Vec<Begun>,
    raw: Vec<u8>,
    refused: Option<&'static str>,
}

impl Writer {
    /// A blob of this kind: [`BlobKind::Chunk`] or [`BlobKind::Pack`]. Blobs that differ in what they hold have different
    /// marks: see [`FrameTable::mark`].
    pub fn new(kind: BlobKind, page_size: PageSize, compression: Compression, key: &IdentityKey, mark: u64) -> Self {
        let refused = kind_number(kind).is_none().then_some("neither a chunk nor a pack");
        let zero = identity::of(key, &vec![0; page_size.len()]);
        Self {
            kind,
            page_size,
            compression,
            key: *key,
            mark,
            zero,
            end: 0,
            chunks: Vec::new(),
            raw: Vec::new(),
            refused,
        }
    }

    /// The first bytes.
    pub fn header(&mut self) -> Vec<u8> {
        if self.end != 0 {
            self.refused.get_or_insert("a second header");
        }
        let mut out = Out::new(WHAT, HEADER_LEN as usize);
        out.raw("magic", MAGIC);
        out.u16("schema version", VERSION);
        // A kind that has no number was refused already, which `finish` reports.
        out.u8("kind (0 chunk, 1 pack)", kind_number(self.kind).unwrap_or(u8::MAX));
        out.u8("page size, log2", page_size_log2(self.page_size));
        out.crc();
        let header = out.finish().unwrap_or_default();
        self.end = header.len() as u64;
        header
    }

    /// The frames and zero pages that follow belong to this chunk.
    pub fn begin_chunk(&mut self, chunk: ChunkId, span: ChunkSpan) {
        self.chunks.push(Begun { chunk, span, frames: Vec::new(), zeros: Vec::new(), identities: Vec::new() });
    }

    /// One frame's bytes, to be appended. Pages ascend; pages of zeros are not taken here but by [`Writer::zero`].
    pub fn frame(&mut self, pages: &[(PageNo, &[u8])]) -> Result<Vec<u8>, FormatError> {
        let misuse = |detail: &str| FormatError::Invalid { what: WHAT, detail: detail.to_owned() };
        if self.end == 0 {
            return Err(misuse("a frame before the header"));
        }
        let Some(chunk) = self.chunks.last_mut() else { return Err(misuse("a frame before its chunk")) };
        if pages.iter().any(|(page, _)| !chunk.span.holds(*page)) {
            return Err(misuse("a page outside its chunk"));
        }
        let bytes = frame::encode(self.page_size, self.compression, self.mark, pages, &mut self.raw)?;
        let span = ByteSpan { offset: self.end, len: bytes.len() as u64 };
        self.end += span.len;
        chunk.frames.push(FrameEntry { span, pages: pages.iter().map(|(page, _)| *page).collect() });
        chunk.identities.extend(pages.iter().map(|(page, raw)| (*page, identity::of(&self.key, raw))));
        Ok(bytes)
    }

    /// A page of the chunk that holds only zeros.
    pub fn zero(&mut self, page: PageNo) {
        match self.chunks.last_mut() {
            Some(chunk) => {
                chunk.zeros.push(page);
                chunk.identities.push((page, self.zero));
            }
            None => {
                self.refused.get_or_insert("a zero page before its chunk");
            }
        }
    }

    /// The last bytes, and what the blob holds.
    pub fn finish(self) -> Result<(Vec<u8>, Index), FormatError> {
        let chunks = self.chunks.into_iter().map(|chunk| chunk.finish(self.mark)).collect();
        let index = Index { kind: self.kind, page_size: self.page_size, chunks };
        let refused = self.refused.or((self.end == 0).then_some("no header")).or(check(&index, self.end).err());
        if let Some(detail) = refused {
            return Err(FormatError::Invalid { what: WHAT, detail: detail.to_owned() });
        }
        let pages: usize = index.chunks.iter().map(|chunk| chunk.identities.len()).sum();
        let mut out = Out::new(INDEX, pages * (PageIdentity::LEN + 1) + 128);
        out.count("chunks", index.chunks.len());
        for chunk in &index.chunks {
            out.varint("chunk", chunk.chunk.0);
            chunk.span.put(&mut out);
            chunk.table.put(&mut out);
            for (_, identity) in &chunk.identities {
                out.raw("identity of the next page by number", &identity.0);
            }
        }
        let footer_len = out.len() as u64;
        out.u64("trailer: footer bytes", footer_len);
        out.u16("trailer: schema version", VERSION);
        out.u8("trailer: kind (0 chunk, 1 pack)", kind_number(index.kind).unwrap_or(u8::MAX));
        out.u8("trailer: page size, log2", page_size_log2(index.page_size));
        let crc = crate::hash::crc64(out.bytes());
        out.u64("trailer: CRC64-NVME of footer and trailer so far", crc);
        out.raw("trailer: magic", TRAILER_MAGIC);
        Ok((out.finish()?, index))
    }
}

const fn kind_number(kind: BlobKind) -> Option<u8> {
    match kind {
        BlobKind::Chunk | BlobKind::Pack => Some(nouns::kind_number(kind)),
        BlobKind::Segment | BlobKind::Shard | BlobKind::Record => None,
    }
}

/// What every index keeps to. `frames_end` is where the footer begins.
fn check(index: &Index, frames_end: u64) -> Result<(), &'static str> {
    let mut end = HEADER_LEN;
    let mut seen: Vec<_> = index.chunks.iter().map(|chunk| chunk.chunk).collect();
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("a chunk that is indexed twice");
    }
    for ChunkIndex { span, table, .. } in &index.chunks {
        table::check(table)?;
        if span.last().is_none() || table.pages().any(|page| !span.holds(page)) {
            return Err("a page outside its chunk");
        }
        for entry in table.frames() {
            if entry.span.offset != end {
                return Err("frames that do not lie side by side");
            }
            end = entry.span.end().ok_or("a frame beyond 64 bits")?;
        }
        if index.kind == BlobKind::Chunk && table.page_total() != span.count.0 {
            return Err("a base chunk without all of its pages");
        }
    }
    if index.kind == BlobKind::Chunk && index.chunks.len() != 1 {
        return Err("a base chunk of another number of chunks than one");
    }
    if end == frames_end { Ok(()) } else { Err("bytes between the frames and the footer") }
}

/// Reads a blob's footer from the blob's last bytes.
pub fn read_index(suffix: &[u8], blob_len: u64) -> Result<Footer, FormatError> {
    let what = INDEX;
    let invalid = |detail: &str| FormatError::Invalid { what, detail: detail.to_owned() };
    if suffix.len() as u64 > blob_len {
        return Err(invalid("more bytes than the blob has"));
    }
    let (before, trailer) = suffix.split_last_chunk::<TRAILER_LEN>().ok_or(FormatError::Truncated { what })?;
    let mut input = In::new(what, trailer);
    let footer_len = input.u64()?;
    let version = input.u16()?;
    check_version(what, version, VERSION)?;
    let kind = input.u8()?;
    let page_size = input.page_size()?;
    let crc = input.u64()?;
    input.magic(TRAILER_MAGIC)?;
    let frames_end = blob_len
        .checked_sub(TRAILER_LEN as u64)
        .and_then(|end| end.checked_sub(footer_len))
        .filter(|end| *end >= HEADER_LEN)
        .ok_or_else(|| invalid("a footer larger than the blob"))?;
    let need = blob_len - frames_end;
    if need > suffix.len() as u64 {
        return Ok(Footer::Need(need));
    }
    // No more than the suffix, so it fits.
    let footer = &before[before.len() - footer_len as usize..];
    let covered = &suffix[suffix.len() - need as usize..suffix.len() - TRAILER_MAGIC.len() - CRC_LEN];
    if crate::hash::crc64(covered) != crc {
        return Err(FormatError::Checksum { what });
    }
    let kind = nouns::kind_of(kind)
        .filter(|kind| kind_number(*kind).is_some())
        .ok_or_else(|| invalid("neither a chunk nor a pack"))?;
    let mut input = In::new(what, footer);
    let chunks = input.list(CHUNK_LEN_MIN, CHUNKS_MAX, get_chunk)?;
    input.end()?;
    let index = Index { kind, page_size, chunks };
    check(&index, frames_end).map_err(invalid)?;
    Ok(Footer::Index(index))
}

fn get_chunk(input: &mut In<'_>) -> Result<ChunkIndex, FormatError> {
    let chunk = ChunkId(input.varint()?);
    let span = ChunkSpan::get(input)?;
    let table = FrameTable::get(input)?;
    let mut pages: Vec<_> = table.pages().collect();
    if !pages.is_sorted() {
        pages.sort_unstable();
    }
    let bits = input.take(pages.len().saturating_mul(PageIdentity::LEN))?;
    let (bits, _) = bits.as_chunks::<{ PageIdentity::LEN }>();
    let identities = pages.into_iter().zip(bits.iter().map(|bits| PageIdentity(*bits))).collect();
    Ok(ChunkIndex { chunk, span, table, identities })
}

/// Reads one frame: verifies its checksum, that it is of the blob with this mark, and that it holds exactly `pages`, in this
/// order; their raw bytes one after another.
pub fn read_frame(bytes: &[u8], page_size: PageSize, mark: u64, pages: &[PageNo]) -> Result<Vec<u8>, FormatError> {
    let mut raw = vec![0; pages.len().min(FRAME_PAGES_MAX) * page_size.len()];
    frame::decode(bytes, page_size, mark, pages.iter().copied(), &mut raw)?;
    Ok(raw)
}

/// The same into room that the caller has: exactly as many bytes as the pages have. What is in it after an error is no page.
pub fn read_frame_into(
    bytes: &[u8],
    page_size: PageSize,
    mark: u64,
    pages: impl ExactSizeIterator<Item = PageNo>,
    raw: &mut [u8],
) -> Result<(), FormatError> {
    frame::decode(bytes, page_size, mark, pages, raw)
}

/// Verifies a whole blob: every byte, every frame, every identity.
pub fn verify(whole: &[u8], key: &IdentityKey) -> Result<Index, FormatError> {
    let invalid = |what: &'static str, detail: String| FormatError::Invalid { what, detail };
    peek_version(WHAT, whole, MAGIC, VERSION)?;
    let header = whole.get(..HEADER_LEN as usize).ok_or(FormatError::Truncated { what: WHAT })?;
    let mut input = In::checked(WHAT, header)?;
    input.magic(MAGIC)?;
    input.version(VERSION)?;
    let kind = input.u8()?;
    let page_size = input.page_size()?;
    input.end()?;
    let Footer::Index(index) = read_index(whole, whole.len() as u64)? else {
        return Err(FormatError::Truncated { what: INDEX });
    };
    if kind_number(index.kind) != Some(kind) || index.page_size != page_size {
        return Err(invalid(WHAT, "its header and its trailer differ".to_owned()));
    }
    let zero = identity::of(key, &vec![0; page_size.len()]);
    let mut room = vec![0; FRAME_PAGES_MAX * page_size.len()];
    for chunk in &index.chunks {
        let stated = |page: PageNo| {
            let at = chunk.identities.binary_search_by_key(&page, |(page, _)| *page).ok()?;
            chunk.identities.get(at).map(|(_, identity)| *identity)
        };
        let hold = |page: PageNo, found: PageIdentity| match stated(page) == Some(found) {
            true => Ok(()),
            false => Err(invalid(INDEX, format!("page {page} is not what its identity says"))),
        };
        for Frame { span, pages } in chunk.table.frames() {
            // In bounds: the frames were checked to lie between header and footer.
            let bytes = &whole[span.offset as usize..(span.offset + span.len) as usize];
            // In bounds: frames of more pages were refused with their table.
            let raw = &mut room[..pages.len() * page_size.len()];
            read_frame_into(bytes, page_size, chunk.table.mark, pages.iter(), raw)?;
            for (page, bytes) in pages.iter().zip(raw.chunks_exact(page_size.len())) {
                if frame::is_zero(bytes) {
                    return Err(invalid(WHAT, format!("page {page} is stored and holds only zeros")));
                }
                hold(page, identity::of(key, bytes))?;
            }
        }
        for page in chunk.table.zeros().iter() {
            hold(page, zero)?;
        }
    }
    Ok(index)
}
