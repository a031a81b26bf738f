//! One record of the remote log: a header of fixed layout, then its body, or the body in a `seg` blob. Between header and body of a
//! segment stand its frames, where they travel in the record.
//!
//! 1. The header comes first, is [`HEADER_BYTES_MAX`] bytes long and can be read alone; it ends with its own CRC64-NVME.
//! 2. A record's hash is the BLAKE3 of its header, which holds the BLAKE3 of the stored body, which names the frames by theirs: the
//!    chain covers every byte.
//! 3. Volume, seq, epoch and previous hash stay readable when the body is encrypted (rule P13).

use crate::wire::{In, Out, peek_version};
use crate::{FormatError, body, codec, nouns, seal};
use littoral_types::limits::{RECORD_BODY_MAX, RECORD_INLINE_MAX, SEGMENT_INLINE_MAX};
use littoral_types::{
    BlobHash, BlobKind, BlobName, BlobRef, BodyPlace, Compression, Epoch, FooterFigures, Generation, Home, Incarnation,
    Lsn, LsnRange, ManifestOp, PageCount, PageSize, Record, RecordBody, RecordHash, RecordHeader, RecordKind, Segment,
    Seq, VolumeFigures, VolumeId,
};

const WHAT: &str = "record";
const MAGIC: &[u8; 4] = b"LREC";
/// The newest layout of the header.
pub(crate) const VERSION: u16 = 1;
const INLINE: u8 = 0;
const BLOB: u8 = 1;

/// A header's length: a ranged GET of this many bytes from a record's start holds all of it, and no record is shorter.
pub const HEADER_BYTES_MAX: usize = 272;

/// A record as it goes to the object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The record's object.
    pub object: Vec<u8>,
    /// What the next record names as its predecessor.
    pub hash: RecordHash,
    /// The body where it is a blob of its own, to be stored before the record.
    pub body_blob: Option<(BlobName, Vec<u8>)>,
}

/// What can be known of a record without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The part that is chained.
    pub header: RecordHeader,
    /// What the body says.
    pub kind: RecordKind,
    /// The header's hash.
    pub hash: RecordHash,
    /// Where the body is.
    pub body: BodyPlace,
    /// Bytes of the header.
    pub header_len: usize,
    /// Whether the body is encrypted.
    pub sealed: bool,
    codec: Compression,
    raw_len: u64,
    body_hash: BlobHash,
}

/// Spells a record. `birth` names the body's blob, should it need one: the tail's seq when the job began (rule P1).
pub fn encode(record: &Record, birth: Seq) -> Result<Encoded, FormatError> {
    let raw = body::encode(&record.body)?;
    let mut stored = Vec::new();
    let codec = codec::compress(WHAT, Compression::Zstd, &raw, &mut stored)?;
    let raw_len = raw.len() as u64;
    drop(raw);
    let hash = crate::hash::blob(&stored);
    let frames = frames_of(&record.body);
    check_frames(record.header.seq, &record.body, frames)?;
    let inline = stored.len() <= RECORD_INLINE_MAX;

    let RecordHeader { volume, seq, epoch, incarnation, previous, lsns, time_ms, snapshot, figures, added } =
        &record.header;
    let mut out = Out::new(WHAT, HEADER_BYTES_MAX + frames.len() + if inline { stored.len() } else { 0 });
    if *seq == Seq::ZERO {
        out.refuse("seq 0");
    }
    if !nouns::range_fits(*lsns) {
        out.refuse("an LSN range that ends before it begins");
    }
    if !nouns::figures_fit(figures) {
        out.refuse(nouns::TOO_MANY_PAGES);
    }
    out.raw("magic", MAGIC);
    out.u16("schema version", VERSION);
    out.u16("header bytes", HEADER_BYTES_MAX as u16);
    out.u16("kind", record.body.kind() as u16);
    out.u8("body: place (0 inline, 1 blob)", if inline { INLINE } else { BLOB });
    codec::put(&mut out, codec);
    out.raw("volume", &volume.0);
    out.u64("seq", seq.0);
    out.u64("epoch", epoch.0);
    out.raw("incarnation", &incarnation.0);
    out.raw("previous", &previous.0);
    out.u64("first LSN", lsns.first.0);
    out.u64("last LSN", lsns.last.0);
    out.u64("time, ms", *time_ms);
    out.u64("snapshot", snapshot.0);
    out.u64("figures: generation", figures.generation.0);
    out.u64("figures: pages of the database", figures.page_count.0);
    out.u32("figures: page size", figures.page_size.map_or(0, |size| size.bytes() as u32));
    out.u64("added: pages", added.pages);
    out.u64("added: bytes", added.bytes);
    out.u64("body: stored bytes", stored.len() as u64);
    out.u64("body: raw bytes", raw_len);
    out.raw("body: BLAKE3 of the stored bytes", &hash.0);
    out.u64("body: birth", if inline { 0 } else { birth.0 });
    seal::put_open(&mut out);
    out.raw("zero", &[0; 3]);
    out.crc();
    let mut object = out.finish()?;
    let record_hash = RecordHash(*blake3::hash(&object).as_bytes());
    object.extend_from_slice(frames);
    let body_blob = if inline {
        object.extend_from_slice(&stored);
        None
    } else {
        Some((BlobName { kind: BlobKind::Segment, hash, birth }, stored))
    };
    Ok(Encoded { object, hash: record_hash, body_blob })
}

/// Reads a record's header; `bytes` may end anywhere behind it.
pub fn open(bytes: &[u8]) -> Result<Envelope, FormatError> {
    peek_version(WHAT, bytes, MAGIC, VERSION)?;
    let header = bytes.get(..HEADER_BYTES_MAX).ok_or(FormatError::Truncated { what: WHAT })?;
    let mut input = In::checked(WHAT, header)?;
    input.magic(MAGIC)?;
    input.version(VERSION)?;
    let header_len = input.u16()?;
    if usize::from(header_len) != HEADER_BYTES_MAX {
        return Err(input.invalid(format!("a header of {header_len} bytes")));
    }
    let kind = nouns::record_kind(&mut input)?;
    let place = input.u8()?;
    let codec = codec::get(&mut input)?;
    let volume = VolumeId(input.array()?);
    let seq = Seq(input.u64()?);
    let epoch = Epoch(input.u64()?);
    let incarnation = Incarnation(input.array()?);
    let previous = RecordHash(input.array()?);
    let lsns = LsnRange { first: Lsn(input.u64()?), last: Lsn(input.u64()?) };
    let time_ms = input.u64()?;
    let snapshot = Seq(input.u64()?);
    let generation = Generation(input.u64()?);
    let page_count = PageCount(input.u64()?);
    let page_size = match input.u32()? {
        0 => None,
        bytes => Some(PageSize::new(u64::from(bytes)).map_err(|error| input.invalid(error.to_string()))?),
    };
    let figures = VolumeFigures { generation, page_size, page_count };
    if !nouns::figures_fit(&figures) {
        return Err(input.invalid(nouns::TOO_MANY_PAGES));
    }
    let added = FooterFigures { pages: input.u64()?, bytes: input.u64()? };
    let len = input.u64()?;
    let raw_len = input.u64()?;
    let body_hash = BlobHash(input.array()?);
    let birth = Seq(input.u64()?);
    let sealed = seal::get(&mut input)?;
    if input.array()? != [0; 3] || seq == Seq::ZERO || !nouns::range_fits(lsns) {
        return Err(input.invalid("a header that no writer writes"));
    }
    let body = match place {
        INLINE if birth != Seq::ZERO => return Err(input.invalid("a birth for an inline body")),
        INLINE => BodyPlace::Inline { len: within(len, RECORD_INLINE_MAX)? },
        BLOB => BodyPlace::Blob(BlobRef {
            home: Home::Own,
            name: BlobName { kind: BlobKind::Segment, hash: body_hash, birth },
            len: within(len, RECORD_BODY_MAX)?,
        }),
        other => return Err(input.invalid(format!("body place {other}"))),
    };
    within(raw_len, RECORD_BODY_MAX)?;
    input.end()?;
    Ok(Envelope {
        header: RecordHeader { volume, seq, epoch, incarnation, previous, lsns, time_ms, snapshot, figures, added },
        kind,
        hash: RecordHash(*blake3::hash(header).as_bytes()),
        body,
        header_len: HEADER_BYTES_MAX,
        sealed,
        codec,
        raw_len,
        body_hash,
    })
}

fn within(len: u64, max: usize) -> Result<u64, FormatError> {
    let max = max as u64;
    if len <= max { Ok(len) } else { Err(FormatError::TooLarge { what: body::WHAT, len, max }) }
}

/// Reads a whole record. `body_blob` is the blob that [`Envelope::body`] names, where it names one.
pub fn decode(object: &[u8], body_blob: Option<&[u8]>) -> Result<(Envelope, RecordBody), FormatError> {
    let envelope = open(object)?;
    let invalid = |detail: &str| FormatError::Invalid { what: WHAT, detail: detail.to_owned() };
    let behind = &object[envelope.header_len..];
    let (frames, stored, len) = match (&envelope.body, body_blob) {
        (BodyPlace::Inline { len }, None) => {
            let frames = behind.len().saturating_sub(usize::try_from(*len).unwrap_or(usize::MAX));
            let (frames, stored) = behind.split_at(if envelope.kind == RecordKind::Segment { frames } else { 0 });
            (frames, stored, *len)
        }
        (BodyPlace::Blob(blob), Some(stored)) => (behind, stored, blob.len),
        (BodyPlace::Blob(_), None) => return Err(invalid("its body is a blob, which was not given")),
        (BodyPlace::Inline { .. }, Some(_)) => return Err(invalid("its body is inline, and a blob was given")),
    };
    match (stored.len() as u64).cmp(&len) {
        std::cmp::Ordering::Less => return Err(FormatError::Truncated { what: body::WHAT }),
        std::cmp::Ordering::Greater => return Err(invalid("bytes behind its body")),
        std::cmp::Ordering::Equal => {}
    }
    if crate::hash::blob(stored) != envelope.body_hash {
        return Err(FormatError::Checksum { what: body::WHAT });
    }
    if envelope.sealed {
        return Err(FormatError::Sealed { what: body::WHAT });
    }
    let body = match envelope.codec {
        Compression::None if envelope.raw_len == len => body::decode(envelope.kind, stored)?,
        codec => {
            body::decode(envelope.kind, &codec::decompress(body::WHAT, codec, stored, envelope.raw_len as usize)?)?
        }
    };
    check_frames(envelope.header.seq, &body, frames)?;
    let body = match body {
        RecordBody::Segment(segment) => RecordBody::Segment(Segment { frames: frames.to_vec(), ..segment }),
        body => body,
    };
    Ok((envelope, body))
}

fn frames_of(body: &RecordBody) -> &[u8] {
    match body {
        RecordBody::Segment(segment) => &segment.frames,
        _ => &[],
    }
}

/// Bytes that travel in a record are those that its deltas or its piece of a log's segment name, all of them and no others.
fn check_frames(seq: Seq, body: &RecordBody, frames: &[u8]) -> Result<(), FormatError> {
    let invalid = |detail: &str| Err(FormatError::Invalid { what: WHAT, detail: detail.to_owned() });
    let RecordBody::Segment(segment) = body else {
        return if frames.is_empty() { Ok(()) } else { invalid("bytes around its body") };
    };
    if frames.len() > SEGMENT_INLINE_MAX {
        return Err(FormatError::TooLarge { what: WHAT, len: frames.len() as u64, max: SEGMENT_INLINE_MAX as u64 });
    }
    let own = BlobName { kind: BlobKind::Record, hash: crate::hash::blob(frames), birth: seq };
    let is_own = |blob: &BlobRef| blob.home == Home::Own && blob.name == own && blob.len == frames.len() as u64;
    let mut end = HEADER_BYTES_MAX as u64;
    let mut travels = false;
    for op in &segment.ops {
        let delta = match op {
            ManifestOp::PutDelta { delta, .. } => delta,
            ManifestOp::PutSegment { segment, .. } => {
                // The others travelled before, or in a record of a log that this one was forked from.
                let here = |blob: &BlobRef| {
                    blob.home == Home::Own && blob.name.kind == BlobKind::Record && blob.name.birth == seq
                };
                for piece in segment.pieces.iter().filter(|piece| here(&piece.blob)) {
                    if !is_own(&piece.blob) || piece.at != end {
                        return invalid("a piece that names other bytes than those of its record");
                    }
                    travels = true;
                    end = end.saturating_add(piece.len());
                }
                continue;
            }
            ManifestOp::Resize { .. } | ManifestOp::Session(_) | ManifestOp::Object(_) => continue,
            _ => return invalid("a segment that does more than resize, put deltas and move sessions"),
        };
        if !delta.id.is_of_segment() {
            return invalid("a segment's delta with an id of another kind");
        }
        if delta.blob.name.kind != BlobKind::Record {
            continue;
        }
        if !is_own(&delta.blob) {
            return invalid("a delta that names other frames than those of its record");
        }
        travels = true;
        end = delta.table.frames().filter_map(|frame| frame.span.end()).fold(end, u64::max);
    }
    match end == (HEADER_BYTES_MAX + frames.len()) as u64 && (travels || frames.is_empty()) {
        true => Ok(()),
        false => invalid("frames that no delta names, or that are not there"),
    }
}
