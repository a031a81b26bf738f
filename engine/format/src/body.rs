//! What records say, before compression: one `Spell` a kind, behind a schema version.

use crate::FormatError;
use crate::interior;
use crate::nouns::{Ascending, name, record_kind};
use crate::wire::{In, Out, Spell, page_size_log2};
use crate::{ops, snapshot};
use littoral_types::limits::{RECORD_BODY_MAX, RECORD_PAGES_BYTES_MAX, SKELETON_BYTES_MAX};
use littoral_types::{
    BlobName, Checkpoint, Claim, Coalesce, Commit, Epoch, FooterFigures, Fork, Gap, GapReason, Index, Lsn, LsnRange,
    Owner, PageCount, PageSize, Parent, Position, Prune, RecordBody, RecordHash, RecordKind, RecordSummary, Release,
    SchemaSummary, Segment, Seq, SkeletonPage, VolumeFigures, VolumeId, VolumeMeta, WalMark,
};

pub(crate) const WHAT: &str = "record body";
/// Version 2 says where the WAL stood at a checkpoint, and is written where somebody knows. Version 3 says it or not, and brings
/// pages along; it is written where there are any.
pub(crate) const VERSION: u16 = 3;
/// More than any list in a body can have: its bytes bound it.
const MANY: usize = RECORD_BODY_MAX;

pub(crate) fn encode(body: &RecordBody) -> Result<Vec<u8>, FormatError> {
    let mut out = Out::new(WHAT, 4096);
    let version = match body {
        RecordBody::Checkpoint(Checkpoint { gap: Some(_), .. }) => 1,
        RecordBody::Checkpoint(Checkpoint { pages, .. }) if !pages.is_empty() => VERSION,
        RecordBody::Checkpoint(Checkpoint { wal: Some(_), .. }) => 2,
        _ => 1,
    };
    out.u16("schema version", version);
    match body {
        RecordBody::Claim(claim) => claim.put(&mut out),
        RecordBody::Release(release) => release.owner.put(&mut out),
        RecordBody::Segment(segment) => segment.put(&mut out),
        RecordBody::Checkpoint(checkpoint) => match &checkpoint.gap {
            None => put_checkpoint(&mut out, checkpoint),
            Some(gap) => put_gap(&mut out, gap, checkpoint),
        },
        RecordBody::Coalesce(coalesce) => ops::put(&mut out, &coalesce.ops),
        RecordBody::Index(index) => index.put(&mut out),
        RecordBody::Prune(prune) => prune.put(&mut out),
        RecordBody::Fork(fork) => fork.put(&mut out),
    }
    out.limit(out.len(), RECORD_BODY_MAX);
    out.finish()
}

pub(crate) fn decode(kind: RecordKind, raw: &[u8]) -> Result<RecordBody, FormatError> {
    let mut input = In::new(WHAT, raw);
    let version = input.version(VERSION)?;
    if version > 1 && kind != RecordKind::Checkpoint {
        return Err(input.invalid("a version that its kind does not have"));
    }
    let input_mut = &mut input;
    let body = match kind {
        RecordKind::Claim => RecordBody::Claim(Claim::get(input_mut)?),
        RecordKind::Release => RecordBody::Release(Release { owner: Owner::get(input_mut)? }),
        RecordKind::Segment => RecordBody::Segment(Segment::get(input_mut)?),
        RecordKind::Checkpoint => RecordBody::Checkpoint(checkpoint(input_mut, version)?),
        RecordKind::Gap => RecordBody::Checkpoint(gap(input_mut)?),
        RecordKind::Coalesce => RecordBody::Coalesce(Coalesce { ops: ops::get(input_mut)? }),
        RecordKind::Index => RecordBody::Index(Index::get(input_mut)?),
        RecordKind::Prune => RecordBody::Prune(Prune::get(input_mut)?),
        RecordKind::Fork => RecordBody::Fork(Box::new(Fork::get(input_mut)?)),
    };
    input.end()?;
    Ok(body)
}

impl Spell for Claim {
    fn put(&self, out: &mut Out) {
        self.owner.put(out);
        out.optional("takes over", self.takes_over, |out, epoch| out.varint("takes over: epoch", epoch.0));
        self.volume.put(out);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            owner: Owner::get(input)?,
            takes_over: input.optional(|input| Ok(Epoch(input.varint()?)))?,
            volume: VolumeMeta::get(input)?,
        })
    }
}

pub(crate) fn put_sessions(out: &mut Out, sessions: &[(String, u64)]) {
    out.count("sessions", sessions.len());
    for (session, serial) in sessions {
        out.text("session: name", session);
        out.varint("session: serial", *serial);
    }
}

fn get_session(input: &mut In<'_>) -> Result<(String, u64), FormatError> {
    Ok((input.text()?.to_owned(), input.varint()?))
}

pub(crate) fn put_schema(out: &mut Out, schema: Option<&SchemaSummary>) {
    out.optional("has a schema summary", schema, |out, schema| schema.put(out));
}

fn put_checkpoint(out: &mut Out, checkpoint: &Checkpoint) {
    put_schema(out, checkpoint.schema.as_ref());
    put_sessions(out, &checkpoint.sessions);
    match (&checkpoint.wal, checkpoint.pages.is_empty()) {
        (Some(wal), true) => wal.put(out),
        (None, true) => {}
        (wal, false) => {
            out.optional("has a place in the WAL", wal.as_ref(), |out, wal| wal.put(out));
            put_pages(out, &checkpoint.pages, RECORD_PAGES_BYTES_MAX);
        }
    }
    ops::put(out, &checkpoint.ops);
}

fn put_pages(out: &mut Out, pages: &[SkeletonPage], bytes_max: usize) {
    let size = pages.first().and_then(|first| PageSize::new(first.image.len() as u64).ok());
    let Some(size) = size else { return out.refuse("a page that travels along and is not a page long") };
    out.u8("pages that travel along: size as a power of two", page_size_log2(size));
    out.count("pages that travel along", pages.len());
    out.limit(pages.len(), pages_max(size, bytes_max));
    let mut place = Ascending::default();
    for SkeletonPage { page, image } in pages {
        place.put(out, *page);
        if image.len() != size.len() {
            out.refuse("a page that travels along and is not a page long");
        }
        let mut image = image.clone();
        interior::turn(&mut image);
        out.raw("page: bytes, turned", &image);
    }
}

fn pages_max(size: PageSize, bytes_max: usize) -> usize {
    (bytes_max / size.len()).max(1)
}

fn get_pages(input: &mut In<'_>, bytes_max: usize) -> Result<Vec<SkeletonPage>, FormatError> {
    let size = input.page_size()?;
    let mut place = Ascending::default();
    let pages = input.list(1 + size.len(), pages_max(size, bytes_max), |input| {
        let page = place.get(input)?;
        let mut image = input.take(size.len())?.to_vec();
        interior::turn_back(&mut image);
        Ok(SkeletonPage { page, image })
    })?;
    // No pages are said by an earlier version.
    if pages.is_empty() { Err(input.invalid("no pages that travel along")) } else { Ok(pages) }
}

fn checkpoint(input: &mut In<'_>, version: u16) -> Result<Checkpoint, FormatError> {
    let schema = input.optional(SchemaSummary::get)?;
    let sessions = input.list(2, MANY, get_session)?;
    let wal = match version {
        1 => None,
        2 => Some(WalMark::get(input)?),
        _ => input.optional(WalMark::get)?,
    };
    let pages = if version > 2 { get_pages(input, RECORD_PAGES_BYTES_MAX)? } else { Vec::new() };
    Ok(Checkpoint { ops: ops::get(input)?, schema, sessions, wal, pages, gap: None })
}

/// A checkpoint of commits that cannot be told apart: why, and then all that a checkpoint says, whether it has it or not.
fn put_gap(out: &mut Out, gap: &Gap, checkpoint: &Checkpoint) {
    out.u8("gap: reason", gap.reason as u8);
    out.varint("gap: since, ms", gap.since_ms);
    put_schema(out, checkpoint.schema.as_ref());
    put_sessions(out, &checkpoint.sessions);
    out.optional("has a place in the WAL", checkpoint.wal.as_ref(), |out, wal| wal.put(out));
    let pages = (!checkpoint.pages.is_empty()).then_some(&checkpoint.pages);
    out.optional("has pages that travel along", pages, |out, pages| put_pages(out, pages, RECORD_PAGES_BYTES_MAX));
    ops::put(out, &checkpoint.ops);
}

fn gap(input: &mut In<'_>) -> Result<Checkpoint, FormatError> {
    let number = input.u8()?;
    let reason = GapReason::ALL.into_iter().find(|reason| *reason as u8 == number);
    let reason = reason.ok_or_else(|| input.invalid(format!("reason of a gap {number}")))?;
    let gap = Gap { reason, since_ms: input.varint()? };
    let schema = input.optional(SchemaSummary::get)?;
    let sessions = input.list(2, MANY, get_session)?;
    let wal = input.optional(WalMark::get)?;
    let pages = input.optional(|input| get_pages(input, RECORD_PAGES_BYTES_MAX))?.unwrap_or_default();
    Ok(Checkpoint { ops: ops::get(input)?, schema, sessions, wal, pages, gap: Some(gap) })
}

pub(crate) fn put_owner(out: &mut Out, owner: Option<&Owner>) {
    out.optional("has an owner", owner, |out, owner| owner.put(out));
}

/// Its frames are not part of the body: they stand before it in the record's object.
impl Spell for Segment {
    fn put(&self, out: &mut Out) {
        out.count("commits", self.commits.len());
        let mut last = 0u64;
        for (nth, commit) in self.commits.iter().enumerate() {
            if nth > 0 && commit.lsn.0 <= last {
                out.refuse("commits that do not ascend");
            }
            out.varint("commit: LSN, from the one before", commit.lsn.0.wrapping_sub(last));
            out.varint("commit: time, ms", commit.time_ms);
            out.varint("commit: pages of the database", commit.page_count.0);
            out.optional("commit: has a session", commit.session.as_ref(), |out, (session, serial)| {
                out.text("session: name", session);
                out.varint("session: serial", *serial);
            });
            last = commit.lsn.0;
        }
        out.optional("has a place in the WAL", self.wal.as_ref(), |out, wal| wal.put(out));
        ops::put(out, &self.ops);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let mut last = 0u64;
        let mut nth = 0;
        let commits = input.list(4, MANY, |input| {
            let step = input.varint()?;
            let lsn = last.checked_add(step).filter(|_| nth == 0 || step > 0);
            last = lsn.ok_or_else(|| input.invalid("commits that do not ascend"))?;
            nth += 1;
            Ok(Commit {
                lsn: Lsn(last),
                time_ms: input.varint()?,
                page_count: PageCount(input.varint()?),
                session: input.optional(get_session)?,
            })
        })?;
        let wal = input.optional(WalMark::get)?;
        Ok(Segment { commits, wal, ops: ops::get(input)?, frames: Vec::new() })
    }
}

impl Spell for WalMark {
    fn put(&self, out: &mut Out) {
        out.u32("WAL: salt 1", self.salts[0]);
        out.u32("WAL: salt 2", self.salts[1]);
        out.varint("WAL: frame", self.frame);
        out.u32("WAL: checksum 1", self.checksum[0]);
        out.u32("WAL: checksum 2", self.checksum[1]);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self { salts: [input.u32()?, input.u32()?], frame: input.varint()?, checksum: [input.u32()?, input.u32()?] })
    }
}

impl Spell for Index {
    fn put(&self, out: &mut Out) {
        out.varint("index: sums up records after", self.after.0);
        out.optional("index: has one before it", self.previous, |out, hash| out.raw("index: hash of it", &hash.0));
        put_schema(out, self.schema.as_ref());
        put_owner(out, self.owner.as_ref());
        out.varint("newest prune's floor", self.floor.0);
        out.count("index: recent records", self.recent.len());
        self.recent.iter().for_each(|summary| summary.put(out));
        ops::put(out, &self.ops);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let after = Seq(input.varint()?);
        let previous = input.optional(|input| Ok(RecordHash(input.array()?)))?;
        let schema = input.optional(SchemaSummary::get)?;
        let owner = input.optional(Owner::get)?;
        let floor = Seq(input.varint()?);
        let recent = input.list(SUMMARY_LEN_MIN, MANY, RecordSummary::get)?;
        Ok(Self { after, previous, ops: ops::get(input)?, recent, schema, owner, floor })
    }
}

/// Bytes that a summary takes at least.
pub(crate) const SUMMARY_LEN_MIN: usize = 42;

impl Spell for RecordSummary {
    fn put(&self, out: &mut Out) {
        out.varint("recent: seq", self.seq.0);
        out.u16("recent: kind", self.kind as u16);
        out.raw("recent: hash", &self.hash.0);
        out.varint("recent: epoch", self.epoch.0);
        self.lsns.put(out);
        out.varint("recent: time, ms", self.time_ms);
        out.varint("recent: pages of the database", self.page_count.0);
        self.added.put(out);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            seq: Seq(input.varint()?),
            kind: record_kind(input)?,
            hash: RecordHash(input.array()?),
            epoch: Epoch(input.varint()?),
            lsns: LsnRange::get(input)?,
            time_ms: input.varint()?,
            page_count: PageCount(input.varint()?),
            added: FooterFigures::get(input)?,
        })
    }
}

impl Spell for Parent {
    fn put(&self, out: &mut Out) {
        out.text("parent: name", self.name.as_str());
        out.raw("parent: volume", &self.id.0);
        out.varint("parent: seq", self.seq.0);
        out.raw("parent: record's hash", &self.record.0);
        out.varint("parent: epoch", self.position.epoch.0);
        out.varint("parent: LSN", self.position.lsn.0);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            name: name(input)?,
            id: VolumeId(input.array()?),
            seq: Seq(input.varint()?),
            record: RecordHash(input.array()?),
            position: Position { epoch: Epoch(input.varint()?), lsn: Lsn(input.varint()?) },
        })
    }
}

impl Spell for Fork {
    fn put(&self, out: &mut Out) {
        self.volume.put(out);
        self.made_by.put(out);
        self.parent.put(out);
        self.figures.put(out);
        snapshot::put_rows(out, &self.shards, &self.rows);
        put_schema(out, self.schema.as_ref());
        out.optional("has pages that travel along", (!self.pages.is_empty()).then_some(&self.pages), |out, pages| {
            put_pages(out, pages, SKELETON_BYTES_MAX);
        });
        ops::put(out, &self.ops);
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let (volume, made_by, parent) = (VolumeMeta::get(input)?, Owner::get(input)?, Parent::get(input)?);
        let figures = VolumeFigures::get(input)?;
        let (shards, rows) = snapshot::get_rows(input, snapshot::KIND.version)?;
        let schema = input.optional(SchemaSummary::get)?;
        let pages = input.optional(|input| get_pages(input, SKELETON_BYTES_MAX))?.unwrap_or_default();
        Ok(Self { volume, made_by, parent, figures, shards, rows, ops: ops::get(input)?, schema, pages })
    }
}

impl Spell for Prune {
    fn put(&self, out: &mut Out) {
        out.varint("prune: records before this go", self.floor.0);
        out.count("prune: snapshots", self.snapshots.len());
        self.snapshots.iter().for_each(|seq| out.varint("prune: snapshot", seq.0));
        out.count("prune: blobs", self.blobs.len());
        self.blobs.iter().for_each(|blob| blob.put(out));
    }

    fn get(input: &mut In<'_>) -> Result<Self, FormatError> {
        let floor = Seq(input.varint()?);
        let snapshots = input.list(1, MANY, |input| Ok(Seq(input.varint()?)))?;
        Ok(Self { floor, blobs: input.list(34, MANY, BlobName::get)?, snapshots })
    }
}
