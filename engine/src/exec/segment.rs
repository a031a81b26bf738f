//! Commits on their way: the last version of each page that they changed, in one record.
//!
//! What this room promises:
//! 1. A segment is a small checkpoint that keeps the commits apart by name: after it, the volume's newest state is that of the last
//!    one, and every reader finds its pages like any others.
//! 2. A page that changed in few bytes travels as a patch against the version before, and only where that version is known to be the
//!    volume's newest, byte for byte: by what was shipped from here, or by the identity that the manifest keeps. Chains are bounded by
//!    [`limits::PATCHES_MAX`], and never begin before the term does (rule P9).
//! 3. Nothing is shipped on top of a state that no record says the WAL's place of: then a checkpoint comes first.
//!
//! [`limits::PATCHES_MAX`]: littoral_types::limits::PATCHES_MAX

mod shipped;

pub use shipped::Shipped;

use crate::error::EngineError;
use crate::log::{Draft, Writer};
use littoral_format as format;
use littoral_format::patch::Patch;
use littoral_format::segment::{Framed, Stand};
use littoral_ports::Commits;
use littoral_types::limits::SEGMENT_INLINE_MAX;
use littoral_types::{
    Commit, Compression, FooterFigures, Lsn, ManifestOp, PageCount, PageNo, Position, RecordBody, RecordKind, Segment,
    Seq, VolumeFigures,
};

/// What was shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShippedSegment {
    /// The last commit.
    pub position: Position,
    /// The record.
    pub seq: Seq,
    /// Pages that travelled whole, zeros among them.
    pub whole: u64,
    /// Pages that travelled as patches.
    pub patched: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// What lies on top of the newest checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Records.
    pub segments: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// How much was shipped since the newest checkpoint: whoever opens the volume reads all of it.
pub fn pressure(writer: &Writer) -> Result<Pressure, EngineError> {
    let row = writer.row();
    let changes = writer.manifest().changes_since(&row.meta.id, row.tail.snapshot)?;
    let mut pressure = Pressure::default();
    for record in changes.iter().flat_map(|change| &change.records) {
        match record.kind {
            RecordKind::Checkpoint => pressure = Pressure::default(),
            RecordKind::Segment => {
                pressure.segments += 1;
                pressure.bytes += record.added.bytes;
            }
            _ => {}
        }
    }
    Ok(pressure)
}

/// What the newest version of a page may be, for who has it at hand: it is believed only where the manifest knows it by its identity.
pub type Before<'a> = &'a mut (dyn FnMut(PageNo) -> Option<Vec<u8>> + Send);

/// Publishes commits that follow the volume's newest one.
pub async fn ship(
    writer: &mut Writer,
    changes: Commits,
    shipped: &mut Shipped,
    before: Before<'_>,
) -> Result<ShippedSegment, EngineError> {
    writer.settle().await?;
    // Its place is in its frames and in its deltas' names: nothing may come between.
    writer.index_if_due().await?;
    let row = writer.row();
    let tail = &row.tail;
    let refused =
        |why: &str| EngineError::Refused(format!("{}: a checkpoint must come first: {why}", writer.log().url()));
    if tail.figures.page_size != Some(changes.page_size) {
        return Err(refused("the volume has pages of another size, or none"));
    }
    let Some(last) = changes.commits.last() else { return Err(refused("there is no commit")) };
    if changes.pages.iter().any(|(page, image)| !last.page_count.holds(*page) || image.len() != changes.page_size.len())
    {
        return Err(refused("a page beyond the end, or one that is not a page long"));
    }
    let (seq, key) = (tail.seq.next(), row.meta.identity_key);
    let stand =
        Stand { generation: tail.figures.generation, seq, mark: writer.mark_of(seq), page_count: last.page_count };
    shipped.stand_at(tail.epoch, tail.figures.generation);
    let sizes = Sizes::of(tail.figures.page_count, &changes);
    let mut framing = format::segment::Writer::new(changes.page_size, Compression::Zstd, stand);
    let (mut whole, mut patched) = (0, 0);
    let mut kept = Vec::with_capacity(changes.pages.len());
    let mut written = changes.pages.into_iter().peekable();
    let mut grown = sizes.grown();
    let harm = || EngineError::damaged("a segment that was being framed");
    loop {
        // Pages that the database grew by and that nobody wrote are zeros, and are recorded as such (rule S11).
        while let Some(page) = grown.next_if(|page| written.peek().is_none_or(|(next, _)| page < next)) {
            framing.whole(page, vec![0; changes.page_size.len()]).map_err(harm())?;
            shipped.forget(page);
            whole += 1;
        }
        let Some((page, image)) = written.next() else { break };
        grown.next_if_eq(&page);
        let found = match sizes.lives(page) {
            true => shipped.newest(&**writer.manifest(), &row.meta.id, &key, page, before)?,
            false => None,
        };
        let patch = found.as_ref().and_then(|(newest, depth)| Some((Patch::between(newest, &image, &key)?, depth + 1)));
        match patch {
            Some((patch, depth)) => {
                framing.patched(page, patch).map_err(harm())?;
                patched += 1;
                kept.push((page, image, depth));
            }
            None => {
                framing.whole(page, image.clone()).map_err(harm())?;
                whole += 1;
                kept.push((page, image, 0));
            }
        }
    }
    let Framed { ops, frames, blob } = framing.finish(SEGMENT_INLINE_MAX, tail.seq).map_err(harm())?;
    let bytes = frames.len() as u64;
    let frames = match blob {
        None => frames,
        Some(name) => {
            writer.upload_body(&name, &frames).await?;
            writer.components().faults.reach("segment.uploaded")?;
            Vec::new()
        }
    };
    let mut lsn = tail.lsn;
    let commits: Vec<Commit> = changes
        .commits
        .iter()
        .map(|noted| {
            lsn = lsn.next();
            Commit { lsn, time_ms: noted.time_ms, page_count: noted.page_count, session: noted.session.clone() }
        })
        .collect();
    let figures = VolumeFigures { page_count: stand.page_count, ..tail.figures };
    let body = Segment { ops: sizes.op().into_iter().chain(ops).collect(), wal: changes.wal, frames, commits };
    let draft = Draft {
        commits: body.commits.len() as u64,
        body: RecordBody::Segment(body),
        figures,
        added: FooterFigures { pages: whole + patched, bytes },
        // Identities are those of the newest checkpoint: the next one is compared with that.
        identities: Vec::new(),
    };
    let published = writer.publish(draft).await?;
    let tail = &writer.row().tail;
    if published != seq {
        return Err(EngineError::Interrupted("something came between: look again".to_owned()));
    }
    shipped.keep(stand, kept);
    let position = Position { epoch: tail.epoch, lsn: Lsn(tail.lsn.0) };
    Ok(ShippedSegment { position, seq, whole, patched, bytes })
}

/// How a database's size moved.
struct Sizes {
    before: PageCount,
    least: PageCount,
    after: PageCount,
}

impl Sizes {
    fn of(before: PageCount, changes: &Commits) -> Self {
        let least = changes.commits.iter().map(|commit| commit.page_count).min();
        let after = changes.commits.last().map_or(before, |last| last.page_count);
        Self { before, least: least.map_or(before, |least| least.min(before)), after }
    }

    /// Whether a page's version before is still alive.
    fn lives(&self, page: PageNo) -> bool {
        self.least.holds(page)
    }

    /// Pages that no version of before is of.
    fn grown(&self) -> std::iter::Peekable<impl Iterator<Item = PageNo> + use<>> {
        (self.least.0..self.after.0).map(PageNo::from_index).peekable()
    }

    /// What was cut off and grew again is put anew by this very record, all of it: only the end's size is left to say.
    fn op(&self) -> Option<ManifestOp> {
        (self.after != self.before).then_some(ManifestOp::Resize { page_count: self.after })
    }
}
