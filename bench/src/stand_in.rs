//! A database of any size that nobody stored: its chunk rows and their frame tables really exist, its pages are made up when asked for.

use crate::Machine;
use littoral_engine::exec::snapshot::{Written, write_snapshot};
use littoral_engine::log::Draft;
use littoral_ports::{Changed, PageSource, SourceError};
use littoral_types::limits::FRAME_PAGES_MAX;
use littoral_types::{
    Base, BlobHash, BlobKind, BlobName, BlobRef, ByteSpan, Checkpoint, ChunkId, ChunkSpan, FooterFigures, FrameEntry,
    FrameTable, Generation, Geometry, Home, ManifestOp, PageCount, PageNo, PageSize, RecordBody, Seq, VolumeFigures,
};

/// Pages that an application changes between two checkpoints.
const CHANGED: u64 = 100;

/// Every page says where it stands and how often it was changed.
#[derive(Debug)]
pub struct StandIn {
    page_size: PageSize,
    page_count: PageCount,
    changed: Vec<PageNo>,
    round: u64,
}

impl PageSource for StandIn {
    fn page_size(&self) -> PageSize {
        self.page_size
    }
    fn page_count(&self) -> PageCount {
        self.page_count
    }
    fn lock_page(&self) -> Option<PageNo> {
        None
    }
    fn changed(&self) -> Changed {
        Changed::Pages(self.changed.clone())
    }
    fn read(&mut self, page: PageNo, into: &mut [u8]) -> Result<(), SourceError> {
        // Of sixteen letters, so that half of it remains when it is compressed, as of text.
        let mut state = page.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (self.round << 40) | 1;
        for letters in into.chunks_mut(16) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            for (place, byte) in letters.iter_mut().enumerate() {
                *byte = b'a' + ((state >> (place * 4)) & 15) as u8;
            }
        }
        Ok(())
    }
}

impl StandIn {
    /// A database of so many bytes.
    pub fn new(page_size: PageSize, bytes: u64) -> Self {
        Self { page_size, page_count: PageCount(bytes / page_size.bytes()), changed: Vec::new(), round: 0 }
    }

    /// Changes a hundred pages, spread over the whole.
    pub fn change(&mut self) {
        self.round += 1;
        let step = self.page_count.0 / CHANGED;
        self.changed =
            (0..CHANGED).map(|at| PageNo::from_index(at * step + (self.round * 37 + at * 11) % step)).collect();
    }

    /// Its first checkpoint, without its pages: its record and its rows are real, and so is their manifest snapshot.
    pub async fn begin(&mut self, machine: &Machine) -> Written {
        std::fs::write(machine.database(), b"").unwrap();
        let mut session = machine.open().await;
        let (geometry, page_count) = (Geometry::new(self.page_size), self.page_count);
        let mut ops = vec![ManifestOp::Reshape { page_size: self.page_size }, ManifestOp::Resize { page_count }];
        ops.extend(
            (0..geometry.chunk_count(page_count))
                .map(ChunkId)
                .map(|chunk| ManifestOp::PutBase { chunk, base: base(geometry.span(chunk, page_count).unwrap()) }),
        );
        let draft = Draft {
            commits: 1,
            added: FooterFigures { pages: page_count.0, bytes: page_count.0 * self.page_size.bytes() / 2 },
            ..Draft::of(
                RecordBody::Checkpoint(Checkpoint { ops, ..Checkpoint::default() }),
                VolumeFigures { generation: Generation(1), page_size: Some(self.page_size), page_count },
            )
        };
        session.writer.publish(draft).await.unwrap();
        self.change();
        write_snapshot(&mut session.writer, None).await.unwrap()
    }
}

fn base(span: ChunkSpan) -> Base {
    let pages: Vec<PageNo> = span.pages().collect();
    let mut offset = 64;
    let frames: Vec<FrameEntry> = pages
        .chunks(FRAME_PAGES_MAX)
        .map(|pages| {
            let len = 20_000 + pages[0].get() % 4_000;
            let entry = FrameEntry { span: ByteSpan { offset, len }, pages: pages.to_vec() };
            offset += len;
            entry
        })
        .collect();
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&span.first.get().to_le_bytes());
    let name = BlobName { kind: BlobKind::Chunk, hash: BlobHash(hash), birth: Seq(1) };
    Base {
        generation: Generation(1),
        blob: BlobRef { home: Home::Own, name, len: offset + 400_000 },
        span,
        last_live: span.last().unwrap(),
        table: FrameTable::new(frames, [], 0),
    }
}
