//! A log of any size that nobody stored: its rows really exist, in records and manifest snapshots; its segments are made up, entry by entry,
//! when bytes of them are asked for. So what is read verifies like anything else.

use async_trait::async_trait;
use bytes::Bytes;
use littoral_engine::Session;
use littoral_engine::log::Draft;
use littoral_format::log::{ENTRY_HEAD_BYTES, encode_entry, encode_head, encode_index};
use littoral_ports::{ObjectMeta, Remote, RemoteError, passes_on};
use littoral_types::limits::{LOG_BLOCK_BYTES, LOG_HEAD_BYTES};
use littoral_types::{
    BlobHash, BlobKind, BlobName, BlobRef, ByteSpan, Checkpoint, ChunkId, FooterFigures, Generation, Home, LogBlock,
    LogEntryHead, LogEntryKind, LogHead, LogIndex, LogPiece, LogRow, Lsn, ManifestOp, ObjectPath, RecordBody, Seq,
    Serial, VolumeFigures, VolumeId,
};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of an entry, its head included.
pub const ENTRY_BYTES: u64 = 1024;
/// When the log began, in milliseconds since 1970. Each record is a millisecond later than the one before.
pub const BEGAN_MS: u64 = 1_700_000_000_000;

/// A remote that makes up segments, and keeps everything else.
#[derive(Debug)]
pub struct LogStandIn {
    inner: Arc<dyn Remote>,
    id: VolumeId,
    /// Blocks of a segment.
    blocks: u64,
    /// How long each request takes.
    takes: Duration,
}

impl LogStandIn {
    /// Over a remote that keeps what is really there.
    pub fn new(inner: Arc<dyn Remote>, id: VolumeId, blocks: u64, takes: Duration) -> Self {
        Self { inner, id, blocks, takes }
    }

    const fn end(&self) -> u64 {
        self.blocks * LOG_BLOCK_BYTES
    }

    /// Records of a segment.
    pub const fn records(&self) -> u64 {
        (self.end() - LOG_HEAD_BYTES) / ENTRY_BYTES
    }

    const fn first(&self, segment: u64) -> Lsn {
        Lsn(1 + segment * self.records())
    }

    fn head(&self, segment: u64) -> LogHead {
        LogHead { log: self.id, first: self.first(segment), created_ms: BEGAN_MS }
    }

    fn index(&self, segment: u64) -> Vec<u8> {
        let first = self.first(segment);
        let begins = |nth: u64| (nth * LOG_BLOCK_BYTES).max(LOG_HEAD_BYTES);
        let lsn = |offset: u64| first.0 + (offset - LOG_HEAD_BYTES) / ENTRY_BYTES;
        let blocks = (0..self.blocks).map(|nth| {
            let (from, to) = (lsn(begins(nth)), lsn(begins(nth + 1)) - 1);
            LogBlock { offset: begins(nth), first: Lsn(from), since_ms: time_of(from), until_ms: time_of(to) }
        });
        let blocks = blocks.collect();
        encode_index(&LogIndex { end: self.end(), first, records: self.records(), blocks, sessions: Vec::new() })
            .unwrap()
    }

    fn row(&self, segment: u64) -> LogRow {
        let mut hash = [7; 32];
        hash[..8].copy_from_slice(&segment.to_le_bytes());
        // Compression does not help where names are hashes.
        hash[8..16].copy_from_slice(&segment.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        let bytes = self.end() + self.index(segment).len() as u64;
        let name = BlobName { kind: BlobKind::Segment, hash: BlobHash(hash), birth: Seq(1) };
        let blob = BlobRef { home: Home::Own, name, len: bytes };
        let (first, last) = (self.first(segment), self.first(segment + 1).0 - 1);
        LogRow {
            first,
            created_ms: BEGAN_MS,
            end: self.end(),
            records: self.records(),
            since_ms: time_of(first.0),
            until_ms: time_of(last),
            sealed: Some(bytes),
            pieces: vec![LogPiece { from: 0, to: bytes, first, blob, at: 0 }],
            table: None,
            taken_back: Vec::new(),
        }
    }

    /// Publishes so many segments more, as a checkpoint that seals them.
    pub async fn seal(&self, session: &mut Session, segments: u64) {
        let from = session.writer.row().tail.figures.generation.0;
        let put = |segment| ManifestOp::PutSegment { chunk: ChunkId(segment), segment: self.row(segment) };
        let ops = (from..from + segments).map(put).collect();
        let figures = VolumeFigures { generation: Generation(from + segments), ..session.writer.row().tail.figures };
        let draft = Draft {
            commits: segments * self.records(),
            added: FooterFigures { pages: 0, bytes: segments * self.end() },
            ..Draft::of(RecordBody::Checkpoint(Checkpoint { ops, ..Checkpoint::default() }), figures)
        };
        session.writer.publish(draft).await.unwrap();
    }

    /// Which segment an object is.
    fn segment(path: &ObjectPath) -> Option<u64> {
        let hash = path.as_str().split_once("/seg/")?.1;
        let bytes: Vec<u8> =
            (0..8).filter_map(|at| u8::from_str_radix(hash.get(2 * at..2 * at + 2)?, 16).ok()).collect();
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn made_up(&self, segment: u64, span: ByteSpan) -> Bytes {
        let (from, to) = (span.offset, span.offset + span.len);
        let mut bytes = Vec::new();
        if from >= self.end() {
            let at = usize::try_from(from - self.end()).unwrap();
            bytes.extend(&self.index(segment)[at..]);
        } else {
            let head = self.head(segment);
            let mut begins = from;
            if from < LOG_HEAD_BYTES {
                let whole = encode_head(&head).unwrap();
                bytes.extend(&whole[usize::try_from(from).unwrap()..]);
                bytes.resize(usize::try_from(LOG_HEAD_BYTES - from).unwrap(), 0);
                begins = LOG_HEAD_BYTES;
            }
            assert!((begins - LOG_HEAD_BYTES).is_multiple_of(ENTRY_BYTES), "between two entries");
            for offset in (begins..to.min(self.end())).step_by(ENTRY_BYTES as usize) {
                let lsn = Lsn(head.first.0 + (offset - LOG_HEAD_BYTES) / ENTRY_BYTES);
                let mut body = [b'.'; ENTRY_BYTES as usize - ENTRY_HEAD_BYTES];
                body[..8].copy_from_slice(&lsn.0.to_le_bytes());
                let entry = LogEntryHead {
                    kind: LogEntryKind::Record,
                    session: 0,
                    len: body.len() as u32,
                    serial: Serial::ZERO,
                    time_ms: time_of(lsn.0),
                };
                bytes.extend(encode_entry(&head, lsn, &entry, &body).unwrap());
            }
        }
        bytes.truncate(usize::try_from(span.len).unwrap());
        bytes.into()
    }
}

/// When a record was appended.
pub const fn time_of(lsn: u64) -> u64 {
    BEGAN_MS + lsn
}

#[async_trait]
impl Remote for LogStandIn {
    passes_on!(inner: get_suffix, size, put, put_new, upload, delete, url, distrust, copies);

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, RemoteError> {
        tokio::time::sleep(self.takes).await;
        self.inner.get(path).await
    }

    async fn get_range(&self, path: &ObjectPath, span: ByteSpan) -> Result<Bytes, RemoteError> {
        tokio::time::sleep(self.takes).await;
        match Self::segment(path) {
            Some(segment) => Ok(self.made_up(segment, span)),
            None => self.inner.get_range(path, span).await,
        }
    }

    async fn list(&self, folder: &str, after: Option<&ObjectPath>, max: usize) -> Result<Vec<ObjectMeta>, RemoteError> {
        tokio::time::sleep(self.takes).await;
        self.inner.list(folder, after, max).await
    }
}
