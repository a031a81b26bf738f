//! Commits on their way: the last version of each page that they changed, in one record.
//!
//! What this room promises:
//! 1. A segment is a small checkpoint that keeps the commits apart by name: after it, the volume's newest state is that of the last
//!    one, and every reader finds its pages like any others.
//! 2. A page that changed in few bytes travels as a patch against the version before, and only where that version is known to be the
//!    volume's newest, byte for byte: by what was shipped from here, or by the identity that the manifest keeps. Chains are bounded by
//!    [`limits::PATCHES_MAX`], and never begin before the term does, or before a gap (rule P9).
//! 3. Nothing is shipped on top of a state that no record says the WAL's place of: then a checkpoint comes first.
//!
//! [`limits::PATCHES_MAX`]: littoral_types::limits::PATCHES_MAX

mod shipped;

pub use shipped::Shipped;

use super::sessions;
use crate::error::EngineError;
use crate::log::{Draft, Writer};
use crate::telemetry;
use littoral_format as format;
use littoral_format::patch::Patch;
use littoral_format::segment::{Framed, Stand};
use littoral_ports::{Commits, LiveSource};
use littoral_types::limits::SEGMENT_INLINE_MAX;
use littoral_types::{
    BlobName, Commit, Compression, FooterFigures, Lsn, ManifestOp, PageCount, PageNo, Position, RecordBody, RecordKind,
    Segment, Seq, Sessions, VolumeFigures,
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
    /// The newest gap before or among them that is known of; zero for none.
    pub gap: Seq,
    /// When the first of them was published, in milliseconds since 1970.
    pub since_ms: Option<u64>,
}

impl Pressure {
    /// Whether it is as much as this, in either way.
    pub fn reaches(&self, segments: u64, bytes: u64) -> bool {
        self.segments >= segments || self.bytes >= bytes
    }

    /// In how many milliseconds the first of them will have lain there for so long; `None` for never.
    pub fn older_in_ms(&self, than_ms: Option<u64>, now_ms: u64) -> Option<u64> {
        let (since, than) = self.since_ms.zip(than_ms)?;
        // A clock that was set back since makes nobody wait for longer.
        Some(since.saturating_add(than).saturating_sub(now_ms).min(than))
    }
}

/// How much was shipped since the newest checkpoint: whoever opens the volume reads all of it.
pub fn pressure(writer: &Writer) -> Result<Pressure, EngineError> {
    let row = writer.row();
    let changes = writer.manifest().changes_since(&row.meta.id, row.tail.snapshot)?;
    let mut pressure = Pressure::default();
    for record in changes.iter().flat_map(|change| &change.records) {
        match record.kind {
            RecordKind::Checkpoint => pressure = Pressure { gap: pressure.gap, ..Pressure::default() },
            RecordKind::Gap => pressure = Pressure { gap: record.seq, ..Pressure::default() },
            RecordKind::Segment => {
                pressure.segments += 1;
                pressure.since_ms.get_or_insert(record.time_ms);
                pressure.bytes += record.added.bytes;
            }
            _ => {}
        }
    }
    Ok(pressure)
}

/// What the newest version of a page may be, for who has it at hand: it is believed only where the manifest knows it by its identity.
pub type Before<'a> = &'a mut (dyn FnMut(PageNo) -> Option<Vec<u8>> + Send);

/// Commits as they travel.
#[derive(Debug)]
pub struct Ready {
    stand: Stand,
    draft: Draft,
    /// Frames that travel apart from the record.
    apart: Option<(BlobName, Vec<u8>)>,
    /// Pages as they will have been shipped, with the patches that they stand on.
    kept: Vec<(PageNo, Vec<u8>, u32)>,
    whole: u64,
    patched: u64,
    bytes: u64,
}

/// Frames commits that follow the volume's newest one. Nothing of the database is read after this.
pub async fn frame(
    writer: &mut Writer,
    changes: Commits,
    shipped: &mut Shipped,
    before: Before<'_>,
) -> Result<Ready, EngineError> {
    writer.settle().await?;
    // Its place is in its frames and in its deltas' names: nothing may come between.
    writer.index_if_due().await?;
    let gap = pressure(writer)?.gap;
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
    shipped.stand_at(tail.epoch, tail.figures.generation, gap);
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
    let (frames, apart) = match blob {
        None => (frames, None),
        Some(name) => (Vec::new(), Some((name, frames))),
    };
    let (mut lsn, mut time_ms) = (tail.lsn, tail.time_ms);
    let commits: Vec<Commit> = changes
        .commits
        .iter()
        .map(|noted| {
            lsn = lsn.next();
            // Whatever the clocks said: times are labels, and labels never go back.
            time_ms = time_ms.max(noted.time_ms);
            Commit { lsn, time_ms, page_count: noted.page_count, session: noted.session.clone() }
        })
        .collect();
    let figures = VolumeFigures { page_count: stand.page_count, ..tail.figures };
    let body = Segment { ops: sizes.op().into_iter().chain(ops).collect(), wal: changes.wal, frames, commits };
    // Identities are those of the newest checkpoint: the next one is compared with that.
    let (commits, added) = (body.commits.len() as u64, FooterFigures { pages: whole + patched, bytes });
    let draft = Draft { commits, added, ..Draft::of(RecordBody::Segment(body), figures) };
    Ok(Ready { stand, draft, apart, kept, whole, patched, bytes })
}

impl Ready {
    /// Says along with them what became of sessions.
    fn telling(mut self, sessions: Vec<ManifestOp>) -> Self {
        if let RecordBody::Segment(segment) = &mut self.draft.body {
            segment.ops.extend(sessions);
        }
        self
    }
}

/// Publishes them.
pub async fn send(writer: &mut Writer, ready: Ready, shipped: &mut Shipped) -> Result<ShippedSegment, EngineError> {
    let Ready { stand, draft, apart, kept, whole, patched, bytes } = ready;
    if let Some((name, frames)) = apart {
        writer.upload_body(&name, &frames).await?;
        writer.components().faults.reach("segment.uploaded")?;
    }
    let seq = stand.seq;
    let published = writer.publish(draft).await?;
    let tail = &writer.row().tail;
    if published != seq {
        return Err(EngineError::Interrupted("something came between: look again".to_owned()));
    }
    shipped.keep(stand, kept);
    let position = Position { epoch: tail.epoch, lsn: Lsn(tail.lsn.0) };
    Ok(ShippedSegment { position, seq, whole, patched, bytes })
}

/// What of it was shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// In how many segments: none where there was nothing.
    pub segments: u64,
    /// Whether that is all that was committed when it was gathered.
    pub is_all: bool,
}

/// Ships what was committed since the newest record. `None` where that cannot be told apart, or is too much: then a checkpoint is due.
pub async fn ship(
    writer: &mut Writer,
    source: &mut dyn LiveSource,
    shipped: &mut Shipped,
) -> Result<Option<Sent>, EngineError> {
    let commits = match gathered(writer, source).await? {
        Gathered::Commits(commits) => commits,
        Gathered::Done(sent) => return Ok(sent),
    };
    let named = match source.sessions_gathered() {
        Some(named) => named,
        None => sessions::of_commits(writer, &commits, shipped).await?,
    };
    shipped_with(writer, source, shipped, commits, &named).await.map(Some)
}

/// The same for who fetches nothing for it. `None` also where it cannot be told without.
pub(crate) async fn ship_at_hand(
    writer: &mut Writer,
    source: &mut dyn LiveSource,
    shipped: &mut Shipped,
) -> Result<Option<Sent>, EngineError> {
    let commits = match gathered(writer, source).await? {
        Gathered::Commits(commits) => commits,
        Gathered::Done(sent) => return Ok(sent),
    };
    let named = match source.sessions_gathered() {
        Some(named) => named,
        None => match sessions::at_hand(writer, &commits, shipped)? {
            Ok(named) => named,
            Err(_) => {
                shipped.lacks();
                return Ok(None);
            }
        },
    };
    shipped_with(writer, source, shipped, commits, &named).await.map(Some)
}

enum Gathered {
    /// These are to be shipped.
    Commits(Commits),
    /// There is nothing to be shipped, or it cannot be told apart.
    Done(Option<Sent>),
}

async fn gathered(writer: &mut Writer, source: &mut dyn LiveSource) -> Result<Gathered, EngineError> {
    // What a predecessor had begun comes first: what is to be gathered follows from that.
    writer.settle().await?;
    if writer.row().tail.figures.page_size.is_none() {
        return Ok(Gathered::Done(None));
    }
    let Some(commits) = source.commits_since(writer.row())? else { return Ok(Gathered::Done(None)) };
    if commits.commits.is_empty() {
        source.has_read();
        source.shipped(writer.row());
        return Ok(Gathered::Done(Some(Sent { segments: 0, is_all: commits.is_all })));
    }
    Ok(Gathered::Commits(commits))
}

async fn shipped_with(
    writer: &mut Writer,
    source: &mut dyn LiveSource,
    shipped: &mut Shipped,
    commits: Commits,
    named: &Sessions,
) -> Result<Sent, EngineError> {
    let (is_all, count) = (commits.is_all, commits.commits.len() as u64);
    let told = sessions::told(&**writer.manifest(), writer.row(), named, commits.commits.len() as u64)?;
    let ready = frame(writer, commits, shipped, &mut |page| source.before(page)).await?.telling(told);
    let logs = source.logs()?;
    source.has_read();
    writer.ship_first(&logs).await?;
    send(writer, ready, shipped).await?;
    source.shipped(writer.row());
    let tail = &writer.row().tail;
    let position = Position { epoch: tail.epoch, lsn: tail.lsn };
    telemetry::segment_published(writer.components(), &writer.log().url(), position, count);
    Ok(Sent { segments: 1, is_all })
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
