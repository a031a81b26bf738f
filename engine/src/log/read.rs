//! Reading a log: its tail, any place in it, its manifest snapshots.

use crate::error::EngineError;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_format as format;
use littoral_format::keys::{self, Folder, ObjectKey};
use littoral_plan::sessions::{Recorded, SerialBreak};
use littoral_plan::{Link, follows, index_walk};
use littoral_ports::{Remote, RemoteError};
use littoral_types::limits::INDEX_EVERY;
use littoral_types::{
    BlobName, BodyPlace, ByteSpan, Checkpoint, Coalesce, Head, Home, Lsn, ManifestOp, ObjectId, ObjectMark, ObjectPath,
    RecordBody, RecordHash, RecordKind, RecordSummary, Seq, Skeleton, SkeletonPage, Snapshot, TailRow, VolumeFigures,
    VolumeId, VolumeMeta, VolumeName,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

/// Records fetched at once: all that an opening reads, the records of one index and the indexes before them, so that it waits once.
pub(crate) const RECORDS_IN_FLIGHT: usize = 2 * INDEX_EVERY as usize;
/// How many manifest snapshots are tried where the one that a record names is gone.
const SNAPSHOTS_TRIED: usize = 8;
/// How often a log is opened again because a pruner went past the reader.
const OPENS_MAX: usize = 4;

/// A volume's log under a remote.
#[derive(Clone, Debug)]
pub struct Log {
    remote: Arc<dyn Remote>,
    name: VolumeName,
}

/// A record with all that reading it told.
#[derive(Clone, Debug)]
pub struct ReadRecord {
    /// Its header, hash and kind.
    pub envelope: format::record::Envelope,
    /// What it says.
    pub body: RecordBody,
    /// Its stored bytes.
    pub object: Bytes,
}

impl ReadRecord {
    /// What a history shows of it.
    pub fn summary(&self) -> RecordSummary {
        summary(&self.envelope)
    }
}

/// What a history shows of a header.
pub fn summary(envelope: &format::record::Envelope) -> RecordSummary {
    let header = &envelope.header;
    RecordSummary {
        seq: header.seq,
        kind: envelope.kind,
        hash: envelope.hash,
        epoch: header.epoch,
        lsns: header.lsns,
        time_ms: header.time_ms,
        page_count: header.figures.page_count,
        added: header.added,
    }
}

/// A log opened at one record: enough to find any page as of it.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What never changes.
    pub meta: VolumeMeta,
    /// The log's end as of that record.
    pub tail: TailRow,
    /// The manifest snapshot it starts from.
    pub snapshot: Option<Snapshot>,
    /// What was done since, summed up where index records could.
    pub ops: Vec<ManifestOp>,
    /// The newest records, oldest first: all since the newest index, and those that the index lists.
    pub recent: Vec<RecordSummary>,
    /// Pages that came along with those records, oldest first.
    pub brought: Vec<Brought>,
    /// How far each named session is as of that record, by what the log says.
    pub sessions: Recorded,
    /// The newest record that was known when it was opened: pinners look at what came after (rule P2).
    pub seen: Seq,
}

/// Pages of a state that nearly every query needs, as a record brings them.
#[derive(Clone, Debug)]
pub struct Brought {
    /// As of that record.
    pub figures: VolumeFigures,
    /// The pages.
    pub pages: Vec<SkeletonPage>,
    /// How many operations of [`Opened::ops`] were done by then.
    pub ops: usize,
}

/// A header, and the body where a glance needs it.
type Entry = (format::record::Envelope, RecordBody);

/// A log's end and what came last, without the means to find a page: what a history and a status need, and nothing that
/// grows with the database.
#[derive(Clone, Debug)]
pub struct Glance {
    /// Which volume.
    pub volume: VolumeId,
    /// The log's end.
    pub tail: TailRow,
    /// The newest records, oldest first.
    pub recent: Vec<RecordSummary>,
}

/// Records that may have brought pages, of those that an opened log goes on with: older ones are asked for like any page.
const BROUGHT_MAX: usize = 16;

impl Opened {
    /// What is known of each table and index as of that record, ascending by number.
    pub fn objects(&self) -> Vec<ObjectMark> {
        let stands = self.snapshot.iter().flat_map(|snapshot| &snapshot.objects);
        let mut objects: BTreeMap<ObjectId, &ObjectMark> = stands.map(|mark| (mark.id, mark)).collect();
        for op in &self.ops {
            match op {
                ManifestOp::Object(mark) if mark.object.is_none() => drop(objects.remove(&mark.id)),
                ManifestOp::Object(mark) => drop(objects.insert(mark.id, mark)),
                _ => {}
            }
        }
        objects.into_values().cloned().collect()
    }

    /// Goes on by one record, which was found to follow.
    pub(crate) fn extend(&mut self, record: &ReadRecord) -> Result<(), SerialBreak> {
        follow(&mut self.sessions, record)?;
        match &record.body {
            // It repeats what earlier records did.
            RecordBody::Index(index) => self.recent.clone_from(&index.recent),
            body => self.ops.extend_from_slice(body.ops()),
        }
        if let RecordBody::Claim(claim) = &record.body {
            self.meta = claim.volume.clone();
        }
        self.recent.push(record.summary());
        self.brought.extend(brought_by(record, self.ops.len()));
        self.brought.drain(..self.brought.len().saturating_sub(BROUGHT_MAX));
        self.tail = advance(&self.tail, &record.envelope, &record.body);
        self.seen = self.tail.seq;
        Ok(())
    }

    /// The part of it that a history needs.
    pub fn glance(&self) -> Glance {
        Glance { volume: self.meta.id, tail: self.tail.clone(), recent: self.recent.clone() }
    }

    /// The end of the chain.
    pub fn link(&self) -> Link {
        link(&self.meta, &self.tail)
    }
}

/// The end of the chain as a tail row says it.
pub fn link(meta: &VolumeMeta, tail: &TailRow) -> Link {
    Link { volume: Some(meta.id), seq: tail.seq, hash: tail.hash, epoch: tail.epoch, lsn: tail.lsn }
}

/// The tail after one more record.
pub fn advance(tail: &TailRow, envelope: &format::record::Envelope, body: &RecordBody) -> TailRow {
    let header = &envelope.header;
    let mut next = TailRow {
        seq: header.seq,
        hash: envelope.hash,
        epoch: header.epoch,
        incarnation: header.incarnation,
        lsn: header.lsns.last,
        time_ms: header.time_ms,
        figures: header.figures,
        snapshot: tail.snapshot.max(header.snapshot),
        ..tail.clone()
    };
    match body {
        // Another machine's WAL, or one that went on meanwhile.
        RecordBody::Claim(claim) => (next.owner, next.wal) = (Some(claim.owner.clone()), None),
        RecordBody::Release(_) => next.owner = None,
        // Nobody writes it yet.
        RecordBody::Fork(fork) => (next.owner, next.schema) = (None, fork.schema),
        RecordBody::Checkpoint(checkpoint) => {
            next.schema = checkpoint.schema.or(next.schema);
            if checkpoint.wal.is_some() || !header.lsns.is_empty() {
                next.wal = checkpoint.wal;
            }
        }
        RecordBody::Segment(segment) => next.wal = segment.wal,
        RecordBody::Index(index) => {
            next.index = Some((header.seq, envelope.hash));
            next.owner = index.owner.clone();
            next.schema = index.schema;
            next.floor = next.floor.max(index.floor);
        }
        RecordBody::Prune(prune) => next.floor = next.floor.max(prune.floor),
        RecordBody::Coalesce(_) => {}
    }
    next
}

fn brought_by(record: &ReadRecord, ops: usize) -> Option<Brought> {
    match &record.body {
        RecordBody::Checkpoint(Checkpoint { pages, .. }) if !pages.is_empty() => {
            Some(Brought { figures: record.envelope.header.figures, pages: pages.clone(), ops })
        }
        RecordBody::Fork(fork) if !fork.pages.is_empty() => {
            Some(Brought { figures: record.envelope.header.figures, pages: fork.pages.clone(), ops })
        }
        _ => None,
    }
}

/// What a forked volume's rows begin with: of no record of its own, and otherwise a manifest snapshot like any.
fn beginning(record: &ReadRecord) -> Option<Snapshot> {
    let RecordBody::Fork(fork) = &record.body else { return None };
    let before = tail_before_all();
    Some(Snapshot {
        volume: fork.volume.clone(),
        seq: before.seq,
        record: before.hash,
        epoch: before.epoch,
        incarnation: before.incarnation,
        lsn: before.lsn,
        time_ms: before.time_ms,
        figures: fork.figures,
        schema: None,
        owner: None,
        floor: before.floor,
        shards: fork.shards.clone(),
        rows: fork.rows.clone(),
        skeleton: Skeleton::default(),
        sessions: Vec::new(),
        objects: Vec::new(),
    })
}

/// What a record says of sessions follows from what was before it.
fn follow(sessions: &mut Recorded, record: &ReadRecord) -> Result<(), SerialBreak> {
    let end = record.envelope.header.lsns.last;
    record.body.ops().iter().try_for_each(|op| match op {
        ManifestOp::Session(mark) => sessions.follow(mark, end),
        _ => Ok(()),
    })
}

/// What records brought that an index sums up: those that it lists, and no other that stands in their place; without what a later one
/// of them changed.
fn summed_up(before: &[ReadRecord], listed: &[RecordSummary], ops: usize) -> Vec<Brought> {
    let is_listed = |record: &ReadRecord| listed.iter().any(|known| known.hash == record.envelope.hash);
    let mut found = Vec::new();
    for (at, record) in before.iter().enumerate() {
        let Some(mut brought) = brought_by(record, ops).filter(|_| is_listed(record)) else { continue };
        let later = before.iter().skip(at + 1);
        let numbers = brought.pages.iter().map(|kept| kept.page).collect();
        let kept = crate::lazy::state::unchanged(numbers, brought.figures, later.flat_map(|later| later.body.ops()));
        brought.pages.retain(|page| kept.contains(&page.page));
        found.push(brought);
    }
    found
}

/// Before a volume's first record.
pub fn tail_before_all() -> TailRow {
    TailRow {
        seq: Seq::ZERO,
        hash: RecordHash::NONE,
        epoch: littoral_types::Epoch::ZERO,
        incarnation: littoral_types::Incarnation([0; 16]),
        owner: None,
        lsn: Lsn::ZERO,
        time_ms: 0,
        figures: littoral_types::VolumeFigures::default(),
        schema: None,
        snapshot: Seq::ZERO,
        index: None,
        floor: Seq::ZERO,
        seen_ms: 0,
        wal: None,
    }
}

/// The tail as of the manifest snapshot that an opened log starts from.
pub fn start_of(opened: &Opened) -> TailRow {
    opened.snapshot.as_ref().map_or_else(tail_before_all, tail_of)
}

fn tail_of(snapshot: &Snapshot) -> TailRow {
    TailRow {
        seq: snapshot.seq,
        hash: snapshot.record,
        epoch: snapshot.epoch,
        incarnation: snapshot.incarnation,
        owner: snapshot.owner.clone(),
        lsn: snapshot.lsn,
        time_ms: snapshot.time_ms,
        figures: snapshot.figures,
        schema: snapshot.schema,
        snapshot: snapshot.seq,
        index: None,
        floor: snapshot.floor,
        seen_ms: 0,
        wal: None,
    }
}

impl Log {
    /// The log of this volume, whether it exists or not.
    pub const fn new(remote: Arc<dyn Remote>, name: VolumeName) -> Self {
        Self { remote, name }
    }

    /// Whose log.
    pub const fn name(&self) -> &VolumeName {
        &self.name
    }

    /// Where it is.
    pub const fn remote(&self) -> &Arc<dyn Remote> {
        &self.remote
    }

    /// The volume's URL.
    pub fn url(&self) -> String {
        format!("{}/{}", self.remote.url().trim_end_matches('/'), self.name)
    }

    /// The newest record's place: one LIST of one name.
    pub async fn newest(&self) -> Result<Option<Seq>, EngineError> {
        let listed = self.remote.list(&keys::folder(&self.name, Folder::Log), None, 1).await?;
        let Some(meta) = listed.first() else { return Ok(None) };
        match ObjectKey::parse(&meta.path) {
            Some((_, ObjectKey::Record(seq))) => Ok(Some(seq)),
            _ => Err(EngineError::NotAVolume {
                volume: self.url(),
                detail: format!("{} stands where its records would", meta.path),
            }),
        }
    }

    /// One record, body included; `None` when there is none at this place.
    pub async fn record(&self, seq: Seq) -> Result<Option<ReadRecord>, EngineError> {
        let path = keys::record(&self.name, seq);
        let mut wrong = 0;
        loop {
            let object = match self.remote.get(&path).await {
                Ok(object) => object,
                Err(RemoteError::Missing { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            match self.read(seq, object).await {
                Err(error) if error.is_wrong() && self.remote.distrust(&path, wrong) => wrong += 1,
                read => return read.map(Some),
            }
        }
    }

    /// A blob's bytes, all of them and those that it is named after, from wherever they are right.
    pub(crate) async fn blob(&self, path: &ObjectPath, name: &BlobName) -> Result<Bytes, EngineError> {
        let mut wrong = 0;
        loop {
            let bytes = self.remote.get(path).await?;
            if format::hash::blob(&bytes) == name.hash {
                return Ok(bytes);
            }
            if !self.remote.distrust(path, wrong) {
                let detail = "its bytes are not those it is named after".into();
                return Err(RemoteError::Corrupt { path: path.to_string(), detail }.into());
            }
            wrong += 1;
        }
    }

    /// Verifies a record's bytes, and fetches its body where that is a blob.
    async fn read(&self, seq: Seq, object: Bytes) -> Result<ReadRecord, EngineError> {
        let path = keys::record(&self.name, seq);
        let envelope = format::record::open(&object).map_err(EngineError::damaged(&path))?;
        let body = match &envelope.body {
            BodyPlace::Inline { .. } => None,
            BodyPlace::Blob(blob) => {
                let home = match &blob.home {
                    Home::Own => &self.name,
                    Home::Other(name) => name,
                };
                let path = keys::blob(home, &blob.name);
                let bytes = self.remote.get(&path).await?;
                // What is wrong with it the header's hash says; another place is asked first.
                let is_other = format::hash::blob(&bytes) != blob.name.hash && self.remote.distrust(&path, 0);
                Some(if is_other { self.blob(&path, &blob.name).await? } else { bytes })
            }
        };
        let (envelope, body) = format::record::decode(&object, body.as_deref()).map_err(EngineError::damaged(&path))?;
        self.stands_at(seq, &envelope)?;
        Ok(ReadRecord { envelope, body, object })
    }

    /// A record's header alone; `None` when there is none at this place.
    pub async fn envelope(&self, seq: Seq) -> Result<Option<format::record::Envelope>, EngineError> {
        let path = keys::record(&self.name, seq);
        // Headers have one length, and no record is shorter.
        let header = ByteSpan { offset: 0, len: format::record::HEADER_BYTES_MAX as u64 };
        let object = match self.remote.get_range(&path, header).await {
            // What is shorter is no record: all of it tells what it is.
            Err(RemoteError::Corrupt { .. }) => self.remote.get(&path).await,
            object => object,
        };
        match object {
            Ok(object) => {
                let envelope = match format::record::open(&object) {
                    Ok(envelope) => envelope,
                    Err(error) if self.remote.distrust(&path, 0) => {
                        tracing::debug!(%error, %path, "is read from another place");
                        let object = self.remote.get(&path).await?;
                        format::record::open(&object).map_err(EngineError::damaged(&path))?
                    }
                    Err(error) => return Err(EngineError::damaged(&path)(error)),
                };
                self.stands_at(seq, &envelope)?;
                Ok(Some(envelope))
            }
            Err(RemoteError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses a record that says another place than the one it was found at.
    fn stands_at(&self, seq: Seq, envelope: &format::record::Envelope) -> Result<(), EngineError> {
        if envelope.header.seq == seq {
            return Ok(());
        }
        let source = littoral_plan::ChainBreak::Seq { found: envelope.header.seq, expected: seq };
        Err(EngineError::Chain { volume: self.url(), source })
    }

    /// The hint. One that is missing, damaged or of another format is no hint.
    pub async fn head(&self) -> Result<Option<Head>, EngineError> {
        let path = keys::head(&self.name);
        match self.remote.get(&path).await {
            Ok(bytes) => match format::head::decode(&bytes) {
                Ok(head) => Ok(Some(head)),
                Err(error) => {
                    tracing::warn!(%path, %error, "the head is unreadable: going on without this hint");
                    Ok(None)
                }
            },
            Err(RemoteError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A manifest snapshot; `None` when there is none for this record.
    pub async fn snapshot(&self, seq: Seq) -> Result<Option<Snapshot>, EngineError> {
        let path = keys::snapshot(&self.name, seq);
        let mut wrong = 0;
        let snapshot = loop {
            let bytes = match self.remote.get(&path).await {
                Ok(bytes) => bytes,
                Err(RemoteError::Missing { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            match format::snapshot::decode(&bytes).map_err(EngineError::damaged(&path)) {
                Err(error) if error.is_wrong() && self.remote.distrust(&path, wrong) => wrong += 1,
                snapshot => break snapshot?,
            }
        };
        if snapshot.seq != seq {
            return Err(self.inconsistent(format!("{path} says that it is the snapshot of record {}", snapshot.seq)));
        }
        Ok(Some(snapshot))
    }

    /// The newest manifest snapshots at or before a record, newest first, from a listing.
    pub async fn snapshots_at_or_before(&self, seq: Seq) -> Result<Vec<Seq>, EngineError> {
        let after = keys::snapshot(&self.name, seq.next());
        let folder = keys::folder(&self.name, Folder::Snapshots);
        let listed = self.remote.list(&folder, Some(&after), SNAPSHOTS_TRIED).await?;
        Ok(listed
            .iter()
            .filter_map(|meta| match ObjectKey::parse(&meta.path) {
                Some((_, ObjectKey::Snapshot(seq))) => Some(seq),
                _ => None,
            })
            .collect())
    }

    /// What a forked volume's rows begin with, as long as its first record is there; `None` where it is no fork.
    pub async fn beginning(&self) -> Result<Option<Snapshot>, EngineError> {
        let missing =
            || EngineError::Remote(RemoteError::Missing { path: keys::record(&self.name, Seq(1)).to_string() });
        Ok(beginning(&self.record(Seq(1)).await?.ok_or_else(missing)?))
    }

    /// The manifest snapshots that stand before a record, ascending. Before the newest prune's floor they are the restore points that a
    /// coarser history left, and what pins hold.
    pub async fn standing_before(&self, seq: Seq) -> Result<Vec<Seq>, EngineError> {
        if seq <= Seq(1) {
            return Ok(Vec::new());
        }
        let after = keys::snapshot(&self.name, seq);
        let listed = self.remote.list(&keys::folder(&self.name, Folder::Snapshots), Some(&after), usize::MAX).await?;
        let seqs = listed.iter().rev().filter_map(|meta| match ObjectKey::parse(&meta.path) {
            Some((_, ObjectKey::Snapshot(seq))) => Some(seq),
            _ => None,
        });
        Ok(seqs.collect())
    }

    /// A record that is gone.
    pub(crate) fn gone(&self, seq: Seq) -> EngineError {
        RemoteError::Missing { path: keys::record(&self.name, seq).to_string() }.into()
    }

    /// Opens the log at a manifest snapshot alone, as a named snapshot keeps it: no record is needed.
    pub async fn open_snapshot(&self, seq: Seq) -> Result<Option<Opened>, EngineError> {
        let Some(snapshot) = self.snapshot(seq).await? else { return Ok(None) };
        self.chain(snapshot.volume.clone(), Some(snapshot), Vec::new(), 0, Vec::new(), seq).map(Some)
    }

    pub(crate) fn inconsistent(&self, detail: String) -> EngineError {
        EngineError::Inconsistent { volume: self.url(), detail }
    }

    pub(crate) fn serials(&self, source: SerialBreak) -> EngineError {
        EngineError::Serials { volume: self.url(), source }
    }

    /// Opens the log at its newest record; `None` when there is no such volume.
    ///
    /// Two rounds: head and the newest name, then everything those name.
    pub async fn open(&self) -> Result<Option<Opened>, EngineError> {
        Ok(self.open_beside(|_| std::future::ready(())).await?.map(|(opened, _)| opened))
    }

    /// The same, and beside the second round does something of its own by what the head says.
    pub(crate) async fn open_beside<T, F: Future<Output = T>>(
        &self,
        beside: impl Fn(&Head) -> F,
    ) -> Result<Option<(Opened, Option<T>)>, EngineError> {
        for left in (0..OPENS_MAX).rev() {
            let (head, newest) = futures::future::try_join(self.head(), self.newest()).await?;
            let Some(tail) = newest else {
                return match head {
                    None => Ok(None),
                    Some(head) => {
                        Err(EngineError::RemoteBehind { volume: self.url(), local: head.seq, remote: Seq::ZERO })
                    }
                };
            };
            // A head beyond the tail is no hint.
            let hint = head.filter(|head| head.snapshot.seq <= tail);
            let beside = futures::future::OptionFuture::from(hint.as_ref().map(&beside));
            match futures::future::join(Box::pin(self.open_with(tail, hint)), beside).await {
                // A slow reader: what was newest was pruned meanwhile, and something newer is there.
                (Err(error), _) if left > 0 && is_missing(&error) && self.newest().await? != Some(tail) => {
                    tracing::info!(volume = %self.name, %error, "pruned while it was being opened: opening again");
                }
                (opened, done) => return opened.map(|opened| Some((opened, done))),
            }
        }
        Ok(None)
    }

    /// Opens the log as of one record. `None` when the record is gone or was never there.
    pub async fn open_at(&self, seq: Seq) -> Result<Option<Opened>, EngineError> {
        let Some(newest) = self.newest().await? else { return Ok(None) };
        if seq > newest || self.envelope(seq).await?.is_none() {
            return Ok(None);
        }
        let opened = self.open_with(seq, None).await?;
        Ok(Some(Opened { seen: newest, ..opened }))
    }

    /// What a glance needs of a record: of those that say who writes and where the log begins all, of the others the header,
    /// so that nothing is read that grows with the change.
    async fn entry(&self, seq: Seq) -> Result<Option<Entry>, EngineError> {
        let Some(envelope) = self.envelope(seq).await? else { return Ok(None) };
        let grows =
            [RecordKind::Checkpoint, RecordKind::Gap, RecordKind::Coalesce, RecordKind::Segment, RecordKind::Fork];
        if grows.contains(&envelope.kind) {
            return Ok(Some((envelope, RecordBody::Coalesce(Coalesce { ops: Vec::new() }))));
        }
        Ok(self.record(seq).await?.map(|record| (record.envelope, record.body)))
    }

    /// The log's end: a listing, then the records since the newest index, in one round. `None` when there is no such volume.
    pub async fn glance(&self) -> Result<Option<Glance>, EngineError> {
        let Some(newest) = self.newest().await? else { return Ok(None) };
        let index = newest.0 / INDEX_EVERY * INDEX_EVERY;
        let wanted: Vec<Seq> = (index.max(1)..=newest.0).map(Seq).collect();
        let records: Vec<Entry> = stream::iter(wanted)
            .map(|seq| self.entry(seq))
            .buffered(RECORDS_IN_FLIGHT)
            .try_filter_map(|entry| async move { Ok(entry) })
            .try_collect()
            .await?;
        // A prune that was cut off may have left holes.
        let complete = records.len() as u64 == newest.0 - index.max(1) + 1
            && records
                .first()
                .is_some_and(|(first, body)| first.header.seq == Seq(1) || matches!(body, RecordBody::Index(_)));
        if !complete {
            // What the end is counted from was pruned: a manifest snapshot stands for it.
            return Ok(self.open().await?.map(|opened| opened.glance()));
        }
        let mut tail = tail_before_all();
        let mut recent = Vec::new();
        let mut volume = None;
        for (envelope, body) in &records {
            let header = &envelope.header;
            if let (Some(_), Some(volume)) = (recent.last(), volume) {
                let end =
                    Link { volume: Some(volume), seq: tail.seq, hash: tail.hash, epoch: tail.epoch, lsn: tail.lsn };
                follows(&end, header, envelope.kind)
                    .map_err(|source| EngineError::Chain { volume: self.url(), source })?;
            }
            if let RecordBody::Index(index) = body {
                recent.clone_from(&index.recent);
            }
            volume.get_or_insert(header.volume);
            tail = advance(&tail, envelope, body);
            recent.push(summary(envelope));
        }
        let volume = volume.filter(|_| tail.seq == newest);
        let volume = volume.ok_or_else(|| self.inconsistent(format!("record {newest} was listed and is not there")))?;
        Ok(Some(Glance { volume, tail, recent }))
    }

    async fn open_with(&self, tail: Seq, hint: Option<Head>) -> Result<Opened, EngineError> {
        let hinted = hint.as_ref().map(|head| head.snapshot.seq);
        let inline = hint.and_then(|head| head.inline).map(|snapshot| *snapshot);
        if let Some(seq) = hinted {
            match self.load(seq, inline, tail).await {
                Ok(Some(opened)) => return Ok(opened),
                // A newer snapshot than the head says: indexes count from there.
                Ok(None) => {}
                // An old head may name what has been pruned since, a foreign one what never was part of this log. The newest
                // record knows better; if the fault is the log's own, it is found again without the hint.
                Err(
                    error @ (EngineError::Chain { .. }
                    | EngineError::Inconsistent { .. }
                    | EngineError::Damaged { .. }
                    | EngineError::NotAVolume { .. }
                    | EngineError::Remote(RemoteError::Missing { .. } | RemoteError::Corrupt { .. })),
                ) => {
                    tracing::warn!(volume = %self.name, %error, "the head leads astray: starting from the newest record");
                }
                Err(error) => return Err(error),
            }
        }
        // Listed a moment ago: a slow reader finds that it was pruned meanwhile.
        let Some(envelope) = self.envelope(tail).await? else {
            return Err(RemoteError::Missing { path: keys::record(&self.name, tail).to_string() }.into());
        };
        let start = envelope.header.snapshot;
        let opened = match self.load(start, None, tail).await {
            // Pruned since the record was written: the pruner left one at its floor. In a name that was free again, a writer
            // that had been silent may have left a record that follows nothing (rule P5).
            Err(error) if is_missing(&error) || matches!(error, EngineError::Chain { .. }) => {
                match self.snapshots_at_or_before(tail).await?.first() {
                    Some(newer) if *newer > start => self.load(*newer, None, tail).await?,
                    _ => return Err(error),
                }
            }
            opened => opened?,
        };
        opened.ok_or_else(|| self.inconsistent(format!("record {tail} was read twice and says two things")))
    }

    /// The same state from another manifest snapshot than the one it was opened from, which a pruner has taken since (rule P2).
    /// `None` where that does not lead to it.
    pub async fn reopen(&self, opened: &Opened, start: Seq) -> Result<Option<Opened>, EngineError> {
        let tail = &opened.tail;
        match self.load(start, None, tail.seq).await {
            Ok(again) => Ok(again.filter(|again| again.tail.hash == tail.hash)),
            Err(error) if is_missing(&error) || matches!(error, EngineError::Chain { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Everything between a manifest snapshot and a record, in one round. `None` when the record knows a newer snapshot.
    pub(crate) async fn load(
        &self,
        start: Seq,
        inline: Option<Snapshot>,
        tail: Seq,
    ) -> Result<Option<Opened>, EngineError> {
        let walk = index_walk(start, tail);
        let wanted: Vec<Seq> = walk.indexes.iter().chain(&walk.records).copied().collect();
        let snapshot = async {
            match inline {
                Some(snapshot) => Ok(Some(snapshot)),
                None if start == Seq::ZERO => Ok(None),
                None => match self.snapshot(start).await? {
                    Some(snapshot) => Ok(Some(snapshot)),
                    None => Err(EngineError::Remote(RemoteError::Missing {
                        path: keys::snapshot(&self.name, start).to_string(),
                    })),
                },
            }
        };
        let records = stream::iter(wanted)
            .map(|seq| async move {
                self.record(seq).await?.ok_or_else(|| {
                    EngineError::Remote(RemoteError::Missing { path: keys::record(&self.name, seq).to_string() })
                })
            })
            .buffered(RECORDS_IN_FLIGHT)
            .try_collect::<Vec<ReadRecord>>();
        // Records that the newest index sums up may have brought pages; a pruner may have taken them.
        let before = stream::iter(walk.before(start))
            .map(|seq| async move { self.record(seq).await.unwrap_or_default() })
            .buffered(RECORDS_IN_FLIGHT)
            .filter_map(|record| async move { record })
            .collect::<Vec<ReadRecord>>();
        let before = async { Ok::<_, EngineError>(before.await) };
        // Where no manifest snapshot does, the first record tells which volume it is, and what a fork begins with.
        let first = async {
            if start > Seq::ZERO || walk.records.first() == Some(&Seq(1)) {
                return Ok(None);
            }
            let path = || keys::record(&self.name, Seq(1)).to_string();
            let first = self.record(Seq(1)).await?;
            first.map(Some).ok_or_else(|| EngineError::Remote(RemoteError::Missing { path: path() }))
        };
        let all = Box::pin(futures::future::try_join4(snapshot, records, before, first));
        let (snapshot, records, before, first) = all.await?;
        let (meta, snapshot) = match (snapshot, first.as_ref().or(records.first())) {
            (Some(snapshot), _) => (snapshot.volume.clone(), Some(snapshot)),
            (None, Some(ReadRecord { body: RecordBody::Claim(claim), .. })) => (claim.volume.clone(), None),
            (None, Some(record @ ReadRecord { body: RecordBody::Fork(fork), .. })) => {
                (fork.volume.clone(), beginning(record))
            }
            (None, _) => return Err(self.inconsistent("its first record is no claim".to_owned())),
        };
        // The snapshot of the tail itself is written after it, so that the tail does not know it.
        if records.last().is_some_and(|newest: &ReadRecord| newest.envelope.header.snapshot > start) {
            return Ok(None);
        }
        self.chain(meta, snapshot, records, walk.indexes.len(), before, tail).map(Some)
    }

    /// Checks that what was read is one chain and folds it.
    fn chain(
        &self,
        meta: VolumeMeta,
        snapshot: Option<Snapshot>,
        records: Vec<ReadRecord>,
        indexes: usize,
        before: Vec<ReadRecord>,
        tail: Seq,
    ) -> Result<Opened, EngineError> {
        let broken = |source| EngineError::Chain { volume: self.url(), source };
        let mut row = snapshot.as_ref().map_or_else(tail_before_all, tail_of);
        let mut meta = meta;
        let stands = snapshot.iter().flat_map(|snapshot| &snapshot.sessions);
        let mut sessions = Recorded::of(stands.cloned());
        let mut ops = Vec::new();
        let mut recent: Vec<RecordSummary> = Vec::new();
        let mut brought: Vec<Brought> = Vec::new();
        for (at, record) in records.iter().enumerate() {
            let header = &record.envelope.header;
            if at < indexes {
                let RecordBody::Index(index) = &record.body else {
                    return Err(self.inconsistent(format!("record {} is no index, and one stands there", header.seq)));
                };
                self.check_index(&row, record, index, snapshot.as_ref())?;
                recent.clone_from(&index.recent);
                recent.push(record.summary());
            } else {
                let end = Link { volume: Some(meta.id), seq: row.seq, hash: row.hash, epoch: row.epoch, lsn: row.lsn };
                follows(&end, header, record.envelope.kind).map_err(broken)?;
                recent.push(record.summary());
            }
            if let RecordBody::Claim(claim) = &record.body {
                meta = claim.volume.clone();
            }
            follow(&mut sessions, record).map_err(|source| self.serials(source))?;
            row = advance(&row, &record.envelope, &record.body);
            ops.extend_from_slice(record.body.ops());
            if at + 1 == indexes {
                brought.extend(summed_up(&before, &recent, ops.len()));
            }
            brought.extend(brought_by(record, ops.len()));
        }
        if row.seq != tail {
            return Err(self.inconsistent(format!("the log was opened at record {} instead of {tail}", row.seq)));
        }
        if records.iter().any(|record| record.envelope.header.volume != meta.id) {
            return Err(self.inconsistent(format!("records of another volume stand in the log of {}", meta.id)));
        }
        if meta.name != self.name {
            return Err(EngineError::NotAVolume {
                volume: self.url(),
                detail: format!(
                    "its records belong to a volume called {}: a copied folder cannot be opened under a new name",
                    meta.name
                ),
            });
        }
        Ok(Opened { meta, tail: row, snapshot, ops, recent, brought, sessions, seen: tail })
    }

    /// An index does not follow from the record read before it, so that other things are checked: that nothing is missing
    /// between them, that it names the very record it counts from, and that what it lists agrees with what is known.
    fn check_index(
        &self,
        row: &TailRow,
        record: &ReadRecord,
        index: &littoral_types::Index,
        snapshot: Option<&Snapshot>,
    ) -> Result<(), EngineError> {
        let header = &record.envelope.header;
        if littoral_plan::index_span(header.seq).is_none_or(|span| index.after < span) || index.after > row.seq {
            return Err(self.inconsistent(format!(
                "the index at record {} sums up from record {}, and what was read ends at {}",
                header.seq, index.after, row.seq
            )));
        }
        let counts_from = index.after < row.seq || row.seq == Seq::ZERO || index.previous == Some(row.hash);
        let listed = snapshot.is_none_or(|snapshot| {
            index.recent.iter().all(|entry| entry.seq != snapshot.seq || entry.hash == snapshot.record)
        });
        let last =
            index.recent.last().is_none_or(|entry| entry.seq.next() == header.seq && entry.hash == header.previous);
        let forward = header.epoch >= row.epoch && header.lsns.last >= row.lsn;
        if counts_from && listed && last && forward {
            return Ok(());
        }
        Err(EngineError::Chain { volume: self.url(), source: littoral_plan::ChainBreak::Hash { seq: header.seq } })
    }

    /// Up to `max` records before `before`, newest first: what a history shows a page of.
    pub async fn history(&self, glance: &Glance, before: Seq, max: usize) -> Result<Vec<RecordSummary>, EngineError> {
        let floor = glance.tail.floor.0.max(1);
        let before = before.min(glance.tail.seq.next());
        // An index lists what a prune took since.
        let stands = |entry: &&RecordSummary| entry.seq < before && entry.seq.0 >= floor;
        let mut page: BTreeMap<Seq, RecordSummary> =
            glance.recent.iter().filter(stands).map(|entry| (entry.seq, entry.clone())).collect();
        let mut oldest = page.first_key_value().map_or(before, |(seq, _)| *seq);
        while page.len() < max && oldest.0 > floor {
            // The index at or after the gap lists the records before it: all of them, unless its writer had just rebuilt its
            // manifest and knew only the newest.
            let index = Seq((oldest.0 - 1).div_ceil(INDEX_EVERY) * INDEX_EVERY);
            let mut listed = match self.record(index).await? {
                Some(ReadRecord { body: RecordBody::Index(body), envelope, .. }) => {
                    let mut listed = body.recent;
                    listed.push(summary(&envelope));
                    listed
                }
                _ => Vec::new(),
            };
            if !listed.iter().any(|entry| entry.seq.next() == oldest) {
                let gap: Vec<Seq> = (floor.max(oldest.0.saturating_sub(INDEX_EVERY))..oldest.0).map(Seq).collect();
                let found: Vec<Option<format::record::Envelope>> =
                    stream::iter(gap).map(|seq| self.envelope(seq)).buffered(RECORDS_IN_FLIGHT).try_collect().await?;
                listed = found.iter().flatten().map(summary).collect();
            }
            let count = page.len();
            page.extend(
                listed
                    .into_iter()
                    .filter(|entry| entry.seq < oldest && entry.seq.0 >= floor)
                    .map(|entry| (entry.seq, entry)),
            );
            if page.len() == count {
                break;
            }
            oldest = page.first_key_value().map_or(oldest, |(seq, _)| *seq);
        }
        Ok(page.into_values().rev().take(max).collect())
    }

    /// Shows all records after a known end up to `last`, in order and verified to be one chain: what happened meanwhile. A few
    /// are held at a time, however many there are. Gives the end it came to; it stops where a record is missing.
    pub async fn walk(&self, mut end: Link, last: Seq, mut show: impl FnMut(&ReadRecord)) -> Result<Link, EngineError> {
        let mut records =
            stream::iter(end.seq.0 + 1..=last.0).map(|seq| self.record(Seq(seq))).buffered(RECORDS_IN_FLIGHT);
        while let Some(Some(record)) = records.try_next().await? {
            follows(&end, &record.envelope.header, record.envelope.kind)
                .map_err(|source| EngineError::Chain { volume: self.url(), source })?;
            end = Link::after(&record.envelope.header, record.envelope.hash);
            show(&record);
        }
        Ok(end)
    }
}

pub(crate) fn is_missing(error: &EngineError) -> bool {
    matches!(error, EngineError::Remote(RemoteError::Missing { .. }))
}
