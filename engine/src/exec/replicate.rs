//! A copy of a volume in another object store, kept a prefix of the volume's log.
//!
//! What this room promises:
//! 1. What a record names is there before the record, and the record before it is there before that: whoever opens the copy finds a state that
//!    the volume had, whole.
//! 2. What lies in the spool is sent from there; what does not is read from the primary, and verified before it is sent.
//! 3. Everything may be done twice, and be cut off anywhere. The copy says how far it has come; nothing that is there is sent again.
//! 4. The primary alone elects and fences. A folder that is no copy is never written to, nor one that was promoted: that is looked at in every
//!    round, and before anything is written over or deleted there. A copy that was not promoted is no primary.
//! 5. Nothing is deleted here ([`super::prune::prune_copy`]).
//!
//! A blob that is found at the copy under its name and with its length is not sent again. That is no exception from rule P1: a name that a
//! prune has doomed is not named by any later record, and the copy deletes nothing before it holds the record that dooms it.

use super::fetch::blob_path;
use super::prune::{CopyPruned, prune_copy};
use super::rebuild::snapshot_rows;
use super::snapshot::put_head;
use crate::components::Components;
use crate::copies::promote::refuse_copy;
use crate::error::EngineError;
use crate::log::{Glance, Log};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use littoral_format as format;
use littoral_format::keys::{self, Folder, ObjectKey};
use littoral_format::record::{Envelope, HEADER_BYTES_MAX};
use littoral_local::{Copied, CopyFile, Spool, SpoolFile};
use littoral_plan::{Link, Next, follows, replicate as next, vouched};
use littoral_ports::{BlobBody, Paced, RemoteError, Unit};
use littoral_types::limits::{COPIES_IN_FLIGHT, COPY_PRUNES_MAX, PART_BYTES, SPOOL_FILES_MAX};
use littoral_types::{
    BlobKind, BlobRef, BodyPlace, ByteSpan, ChunkRow, CopyMark, CopyState, Home, Lsn, ManifestOp, ObjectPath, Position,
    RecordBody, RecordHash, RecordKind, Seq, Snapshot, VolumeId, VolumeRow,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// What is copied, and where to.
#[derive(Debug)]
pub struct Order<'a> {
    /// The primary.
    pub from: &'a Log,
    /// What this store has published there, where it writes it: then the primary is not asked how far it is.
    pub row: Option<&'a VolumeRow>,
    /// How far the primary was when somebody else looked: so far it is copied, and no further.
    pub seen: Option<&'a Glance>,
    /// The copy.
    pub to: &'a Log,
    /// What waits here for copies.
    pub spool: &'a Spool,
    /// Where it is kept how far the copy has come.
    pub file: Option<&'a CopyFile>,
    /// Where it is kept how far other copies have come that are filled from the same spool; what all have goes from there.
    pub others: &'a [CopyFile],
    /// What a prune of the primary has doomed stays for so long at the copy.
    pub grace_ms: u64,
}

/// What is known of a copy from the last time: then it is not asked again.
#[derive(Clone, Debug)]
pub struct Standing {
    end: Link,
    mark: CopyMark,
    copied: Copied,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Replicated {
    /// Where the copy stands now; `None` where nothing was ever published.
    pub position: Option<Position>,
    /// Its newest record.
    pub seq: Seq,
    /// What that is labelled with.
    pub time_ms: u64,
    /// Records that were put there.
    pub records: u64,
    /// Blobs that were sent.
    pub blobs: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// Bytes that were read from the primary for it.
    pub fetched: u64,
    /// The record at which it began anew, because those before it were pruned.
    pub filled: Option<Seq>,
    /// What went there, because a prune of the primary's doomed it.
    pub pruned: CopyPruned,
    /// Named snapshots of the primary that are not there, because somebody there has given the name to another state.
    pub names_taken: Vec<String>,
}

/// Brings a copy up to the primary.
pub async fn replicate(
    order: &Order<'_>,
    components: &Components,
    standing: &mut Option<Standing>,
) -> Result<Replicated, EngineError> {
    let known = standing.take();
    let state = match order.file {
        Some(file) => file.read()?,
        None => known.as_ref().map(|known| known.copied.clone()),
    };
    let is_new = state.is_none();
    let mut copied = state.unwrap_or_default();
    copied.url = order.to.remote().url();
    copied.tried_ms = components.clock.wall_ms();
    let mut copying = Copying {
        order,
        components,
        copied,
        is_new,
        did: Replicated::default(),
        blobs: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        fetched: AtomicU64::new(0),
    };
    let done = Box::pin(copying.run(known)).await;
    copying.count();
    let Copying { mut copied, did, .. } = copying;
    match &done {
        Ok(_) => (copied.failed, copied.failed_since_ms) = (None, None),
        Err(error) if error.is_crash() => {}
        Err(error) => {
            copied.failed = Some(littoral_local::upkeep::kept(error));
            copied.failed_since_ms = copied.failed_since_ms.or(Some(components.clock.wall_ms()));
        }
    }
    if let Some(file) = order.file
        && !done.as_ref().is_err_and(EngineError::is_crash)
    {
        file.write(&copied)?;
    }
    let (end, mark) = done?;
    *standing = Some(Standing { end, mark, copied });
    Ok(did)
}

/// The mark of a copy, as whoever promoted it left it where somebody did; `None` where there is none.
pub async fn mark_of(log: &Log) -> Result<Option<CopyMark>, EngineError> {
    match read_mark(log, keys::copy(log.name())).await? {
        Some(mark) => Ok(Some(promotion_of(log).await?.unwrap_or(mark))),
        None => Ok(None),
    }
}

/// What says that a copy was promoted, which nobody takes back; `None` where it was not.
async fn promotion_of(log: &Log) -> Result<Option<CopyMark>, EngineError> {
    read_mark(log, keys::promoted(log.name())).await
}

async fn read_mark(log: &Log, path: ObjectPath) -> Result<Option<CopyMark>, EngineError> {
    match log.remote().get(&path).await {
        Ok(bytes) => format::copy::decode(&bytes).map(Some).map_err(EngineError::damaged(&path)),
        Err(RemoteError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Says of a copy that it is a volume of its own from here on. Whoever says so first is the one who did it; what he said.
pub(crate) async fn put_promotion(log: &Log, mark: CopyMark) -> Result<CopyMark, EngineError> {
    let path = keys::promoted(log.name());
    let bytes = format::copy::encode(&mark).map_err(EngineError::damaged(&path))?;
    match log.remote().put_new(&path, Bytes::from(bytes)).await {
        Ok(()) => Ok(mark),
        Err(error @ (RemoteError::Exists { .. } | RemoteError::Unknown { .. })) => {
            promotion_of(log).await?.ok_or_else(|| error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Refuses to go on at a copy that was promoted, whatever was known of it before.
pub(super) async fn refuse_promoted(copy: &Log) -> Result<(), EngineError> {
    match promotion_of(copy).await? {
        Some(mark) => Err(promoted(copy, &mark)),
        None => Ok(()),
    }
}

fn promoted(copy: &Log, mark: &CopyMark) -> EngineError {
    let by = match &mark.state {
        CopyState::Promoted { by, .. } => by,
        CopyState::Follows | CopyState::Fills(_) => "somebody",
    };
    foreign(copy, &format!("was promoted by {by}, and is a volume of its own since"))
}

fn foreign(copy: &Log, what: &str) -> EngineError {
    let to = copy.url();
    EngineError::Refused(format!(
        "{to} {what}: nothing is copied there. Name another place (copy=URL), or leave this one out"
    ))
}

struct Copying<'a> {
    order: &'a Order<'a>,
    components: &'a Components,
    copied: Copied,
    /// Nothing is known here of how far the copy has come.
    is_new: bool,
    did: Replicated,
    blobs: AtomicU64,
    sent: AtomicU64,
    fetched: AtomicU64,
}

/// A manifest snapshot that stands at the copy now: what it consists of, and, where it was not there before, itself and its stored bytes.
type Stood = (Vec<ObjectPath>, Option<Box<(Snapshot, u64)>>);

/// What the primary has.
struct Tail {
    volume: VolumeId,
    link: Link,
    floor: Seq,
    time_ms: u64,
}

impl Copying<'_> {
    fn reach(&self, point: &'static str) -> Result<(), EngineError> {
        Ok(self.components.faults.reach(point)?)
    }

    async fn run(&mut self, known: Option<Standing>) -> Result<(Link, CopyMark), EngineError> {
        let Some(tail) = self.tail().await? else { return Err(EngineError::NoVolume(self.order.from.url())) };
        let (mut end, mut mark) = match known.filter(|known| known.mark.volume == tail.volume) {
            Some(known) => {
                refuse_promoted(self.order.to).await?;
                (known.end, known.mark)
            }
            None => self.look(&tail).await?,
        };
        let fills = match mark.state {
            CopyState::Fills(seq) => Some(seq),
            _ => None,
        };
        let there = (end.seq > Seq::ZERO).then_some(end.seq);
        let to_do = match fills {
            // What was cut off begins where records are now.
            Some(seq) => Next::Fill(seq.max(tail.floor)),
            None => next(there, tail.link.seq, tail.floor),
        };
        let last = match to_do {
            Next::Nothing => {
                if end.hash != tail.link.hash {
                    return Err(self.diverged(end.seq));
                }
                end.seq
            }
            // Somebody else writes the primary by now, and copies it.
            Next::Ahead if self.order.row.is_some() => end.seq,
            // Somebody else has copied more since it was looked.
            Next::Ahead if self.order.seen.is_some() && self.order.from.newest().await? >= Some(end.seq) => end.seq,
            Next::Ahead => {
                let (at, tail) = (end.seq, tail.link.seq);
                return Err(self.order.from.inconsistent(format!(
                    "the copy at {} ends at record {at}, and the primary at record {tail}: the primary has lost records. Nothing was copied. \
                     littoral promote makes a volume of the copy",
                    self.order.to.url()
                )));
            }
            Next::Fill(seq) => {
                end = self.fill(seq, &mut mark).await?;
                tail.link.seq
            }
            Next::Records(last) => last,
        };
        if last > end.seq {
            end = self.records(end, &tail, last, &mut mark).await?;
        }
        self.note(end, None);
        if end.seq >= tail.link.seq {
            self.copied.whole_ms = Some(self.components.clock.wall_ms());
        }
        self.did.seq = end.seq;
        self.did.position = Some(Position { epoch: end.epoch, lsn: end.lsn });
        self.did.time_ms = if end.seq == tail.link.seq { tail.time_ms } else { self.copied.time_ms };
        self.prunes(end).await?;
        Ok((end, mark))
    }

    /// How far the primary is. What this store publishes there it knows.
    async fn tail(&self) -> Result<Option<Tail>, EngineError> {
        if let Some(row) = self.order.row {
            let link = crate::log::publish::end_of(row);
            return Ok(Some(Tail { volume: row.meta.id, link, floor: row.tail.floor, time_ms: row.tail.time_ms }));
        }
        let looked = match self.order.seen {
            Some(_) => None,
            None => self.order.from.glance().await?,
        };
        let Some(glance) = self.order.seen.or(looked.as_ref()) else { return Ok(None) };
        let tail = &glance.tail;
        let link =
            Link { volume: Some(glance.volume), seq: tail.seq, hash: tail.hash, epoch: tail.epoch, lsn: tail.lsn };
        Ok(Some(Tail { volume: glance.volume, link, floor: tail.floor, time_ms: tail.time_ms }))
    }

    /// Finds the copy, or begins it.
    async fn look(&mut self, tail: &Tail) -> Result<(Link, CopyMark), EngineError> {
        let (from, to) = (self.order.from, self.order.to);
        // What this store writes it has claimed: that is no copy.
        if self.order.row.is_none() {
            refuse_copy(from).await?;
        }
        let newest = to.newest().await?;
        let mut mark = match mark_of(to).await? {
            Some(mark) => mark,
            None if newest.is_some() => return Err(foreign(to, "holds a volume of that name, and it is no copy")),
            None => self.begin(tail).await?,
        };
        self.reach("replicate.marked")?;
        if mark.volume != tail.volume {
            return Err(foreign(to, &format!("is a copy of another volume ({}, of {})", mark.volume, mark.of)));
        }
        if matches!(mark.state, CopyState::Promoted { .. }) {
            return Err(promoted(to, &mark));
        }
        let end = match newest {
            None => Link { volume: Some(tail.volume), ..Link::START },
            Some(seq) => match to.envelope(seq).await? {
                Some(envelope) => Link::after(&envelope.header, envelope.hash),
                None => return Err(to.gone(seq)),
            },
        };
        // Who put records there and died has not noted which of them were prunes.
        self.is_new |= end.seq.0 > self.copied.record;
        // The volume has moved since: whoever promotes this copy fences it where it is written now.
        let of = from.remote().url();
        if mark.of != of && self.is_prefix(&end, tail).await? {
            tracing::info!(copy = to.url(), was = mark.of, is = of, "the copy is one of another primary from here on");
            mark.of = of;
            self.put_mark(&mark).await?;
        }
        Ok((end, mark))
    }

    /// Whether the primary holds the record that the copy ends with.
    async fn is_prefix(&self, end: &Link, tail: &Tail) -> Result<bool, EngineError> {
        if end.seq == Seq::ZERO || end.seq == tail.link.seq {
            return Ok(end.seq == Seq::ZERO || end.hash == tail.link.hash);
        }
        let there = if end.seq < tail.link.seq { self.order.from.envelope(end.seq).await? } else { None };
        Ok(there.is_some_and(|envelope| envelope.hash == end.hash))
    }

    /// Says of the copy what it is by now. Where somebody promoted it meanwhile, it is no copy any more.
    async fn put_mark(&self, mark: &CopyMark) -> Result<(), EngineError> {
        let to = self.order.to;
        refuse_promoted(to).await?;
        let path = keys::copy(to.name());
        let bytes = format::copy::encode(mark).map_err(EngineError::damaged(&path))?;
        Ok(to.remote().put(&path, Bytes::from(bytes)).await?)
    }

    /// Says of the empty folder that it is a copy, before anything else is there.
    async fn begin(&self, tail: &Tail) -> Result<CopyMark, EngineError> {
        let mark = CopyMark {
            volume: tail.volume,
            of: self.order.from.remote().url(),
            began_ms: self.components.clock.wall_ms(),
            state: if tail.floor > Seq(1) { CopyState::Fills(tail.floor) } else { CopyState::Follows },
            pins: Vec::new(),
        };
        let path = keys::copy(self.order.to.name());
        let bytes = format::copy::encode(&mark).map_err(EngineError::damaged(&path))?;
        match self.order.to.remote().put_new(&path, Bytes::from(bytes)).await {
            Ok(()) => Ok(mark),
            // Somebody else has begun it, or we have.
            Err(RemoteError::Exists { .. } | RemoteError::Unknown { .. }) => {
                mark_of(self.order.to).await?.ok_or_else(|| RemoteError::Missing { path: path.to_string() }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn diverged(&self, seq: Seq) -> EngineError {
        let (to, from) = (self.order.to.url(), self.order.from.url());
        EngineError::Refused(format!(
            "{to} holds another record {seq} than {from}: it was written to, or the primary lost records and went on. Nothing was copied. \
             Look at both (littoral history URL), and name another place (copy=URL) for a new copy"
        ))
    }

    /// Records up to this one, each after all that it names.
    async fn records(
        &mut self,
        mut end: Link,
        tail: &Tail,
        last: Seq,
        mark: &mut CopyMark,
    ) -> Result<Link, EngineError> {
        let (from, to) = (self.order.from, self.order.to);
        let at_hand = self.at_hand(end, tail);
        self.components.progress.phase("copying", last.0 - end.seq.0, Unit::Objects);
        while end.seq < last {
            let seq = end.seq.next();
            let path = keys::record(from.name(), seq);
            let bytes = self.record(seq, &path, at_hand.get(&seq)).await?;
            let envelope = format::record::open(&bytes).map_err(EngineError::damaged(&path))?;
            if follows(&end, &envelope.header, envelope.kind).is_err() {
                return Err(self.diverged(end.seq));
            }
            let (body, mut sent) = self.body(&bytes, &envelope, &path).await?;
            if let RecordBody::Prune(_) = &body {
                // What its pins and restore points stand on does not travel in records.
                self.pins(mark, end.seq).await?;
                self.snapshots(end.seq).await?;
            }
            let mut blobs: Vec<&BlobRef> = match &body {
                // It repeats what its records named; what is not alive any more may be gone.
                RecordBody::Index(_) => Vec::new(),
                body => body.ops().iter().flat_map(ManifestOp::blobs).collect(),
            };
            if let RecordBody::Fork(fork) = &body {
                // The state that it begins with is its parent's.
                blobs.extend(fork.shards.iter().map(|shard| &shard.blob));
                blobs.extend(fork.rows.iter().flat_map(ChunkRow::blobs));
            }
            blobs.sort();
            blobs.dedup();
            sent.extend(self.blobs(&blobs).await.map_err(gone)?);
            sent.extend(self.snapshot_before(&envelope).await?);
            self.reach("replicate.named")?;
            self.put_record(&path, &bytes).await?;
            end = Link::after(&envelope.header, envelope.hash);
            self.note(end, Some(&envelope));
            self.reach("replicate.record")?;
            if let RecordBody::Prune(_) = body {
                if self.copied.prunes.is_empty() {
                    self.copied.pruned_ms = self.components.clock.wall_ms();
                }
                self.copied.prunes.push(seq.0);
                let over = self.copied.prunes.len().saturating_sub(COPY_PRUNES_MAX);
                self.copied.prunes.drain(..over);
            }
            if let Some(file) = self.order.file {
                self.count();
                file.write(&self.copied)?;
            }
            // Read now: of several that copy at once the last one lets go.
            if self.others()?.is_none_or(|others| others >= seq) {
                sent.push(path);
                sent.iter().for_each(|path| self.order.spool.remove(path));
            }
            self.components.progress.advance(1);
            if envelope.kind.folds()
                && let Err(error) = self.pins(mark, end.seq).await
            {
                // They come with the next checkpoint, or with the prune that they keep something from.
                tracing::debug!(%error, volume = %to.name(), "pins were not copied");
            }
        }
        Ok(end)
    }

    /// How far the least of the other copies has come.
    fn others(&self) -> Result<Option<Seq>, EngineError> {
        let mut least = None;
        for file in self.order.others {
            let record = Seq(file.read()?.unwrap_or_default().record);
            least = Some(least.map_or(record, |least: Seq| least.min(record)));
        }
        Ok(least)
    }

    /// Records that lie in the spool and are part of the log for certain.
    fn at_hand(&self, end: Link, tail: &Tail) -> BTreeMap<Seq, RecordHash> {
        if tail.link.seq.0.saturating_sub(end.seq.0) > SPOOL_FILES_MAX as u64 {
            return BTreeMap::new();
        }
        let name = self.order.from.name();
        let header = |seq: Seq| {
            let begins = self.order.spool.begins(&keys::record(name, seq), HEADER_BYTES_MAX)?;
            let envelope = format::record::open(&begins).ok()?;
            Some((envelope.hash, envelope.header.previous))
        };
        vouched(end.seq, tail.link, header).into_iter().collect()
    }

    async fn record(&self, seq: Seq, path: &ObjectPath, hash: Option<&RecordHash>) -> Result<Bytes, EngineError> {
        if let Some(hash) = hash
            && let Some(bytes) = self.order.spool.read(path)
            // The body's hash stands in the header.
            && format::record::open(&bytes).is_ok_and(|envelope| envelope.hash == *hash && is_whole(&bytes, &envelope))
        {
            return Ok(bytes);
        }
        match self.order.from.remote().get(path).await {
            Ok(bytes) => {
                self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(bytes)
            }
            Err(RemoteError::Missing { .. }) => Err(gone(self.order.from.gone(seq))),
            Err(error) => Err(error.into()),
        }
    }

    /// A record's body, read and verified, and sent where it is a blob of its own.
    async fn body(
        &self,
        bytes: &Bytes,
        envelope: &Envelope,
        path: &ObjectPath,
    ) -> Result<(RecordBody, Vec<ObjectPath>), EngineError> {
        let mut sent = Vec::new();
        let body = match &envelope.body {
            BodyPlace::Inline { .. } => None,
            BodyPlace::Blob(blob) => {
                sent.extend(self.blobs(&[blob]).await?);
                Some(self.order.to.remote().get(&blob_path(self.order.to, blob)).await?)
            }
        };
        let (_, body) = format::record::decode(bytes, body.as_deref()).map_err(EngineError::damaged(path))?;
        Ok((body, sent))
    }

    /// Sends blobs that are not there. Gives their places.
    async fn blobs(&self, blobs: &[&BlobRef]) -> Result<Vec<ObjectPath>, EngineError> {
        for blob in blobs {
            if let Home::Other(home) = &blob.home {
                return Err(EngineError::Refused(format!(
                    "{} was forked from {home}, and needs blobs that lie there: a fork is copied once it needs none any more. Copy {home} \
                     instead, or make a volume of its own (littoral restore, then a checkpoint under another name)",
                    self.order.from.url()
                )));
            }
        }
        stream::iter(blobs.iter().filter(|blob| blob.name.kind != BlobKind::Record))
            .map(|blob| self.blob(blob))
            .buffer_unordered(COPIES_IN_FLIGHT)
            .try_collect()
            .await
    }

    async fn blob(&self, blob: &BlobRef) -> Result<ObjectPath, EngineError> {
        let (from, to) = (self.order.from, self.order.to);
        let path = blob_path(from, blob);
        match to.remote().size(&path).await {
            Ok(len) if len == blob.len => return Ok(path),
            Ok(_) | Err(RemoteError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let (file, was_fetched) = self.local(blob, &path).await?;
        let rest_ms = self.components.account.take(Paced::Upload, blob.len);
        self.components.clock.sleep_ms(rest_ms).await;
        to.remote().upload(&path, &file).await?;
        self.reach("replicate.blob")?;
        self.blobs.fetch_add(1, Ordering::Relaxed);
        self.sent.fetch_add(blob.len, Ordering::Relaxed);
        self.components.progress.blob(path.as_str(), blob.len);
        if was_fetched {
            self.order.spool.remove(&path);
        }
        Ok(path)
    }

    /// A blob's bytes on this disk, verified; and whether the primary had to be read for it.
    async fn local(&self, blob: &BlobRef, path: &ObjectPath) -> Result<(SpoolFile, bool), EngineError> {
        let is_it = |file: &SpoolFile| file.len() == blob.len && file.hash() == blob.name.hash;
        let spool = self.order.spool;
        if let Some(file) = spool.open(path)?.filter(is_it) {
            return Ok((file, false));
        }
        spool.remove(path);
        let mut writer = spool.writer(path)?;
        let mut offset = 0;
        while offset < blob.len {
            let span = ByteSpan { offset, len: PART_BYTES.min(blob.len - offset) };
            let bytes = self.order.from.remote().get_range(path, span).await?;
            self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            writer.write(&bytes)?;
            offset += span.len;
        }
        writer.finish()?;
        match spool.open(path)?.filter(is_it) {
            Some(file) => Ok((file, true)),
            None => {
                spool.remove(path);
                let detail = "its bytes are not those it is named after: a copy of it is not made".to_owned();
                Err(RemoteError::Corrupt { path: path.to_string(), detail }.into())
            }
        }
    }

    async fn put_record(&mut self, path: &ObjectPath, bytes: &Bytes) -> Result<(), EngineError> {
        let remote = self.order.to.remote();
        let error = match remote.put_new(path, bytes.clone()).await {
            Ok(()) => {
                self.did.records += 1;
                self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                return Ok(());
            }
            Err(error @ (RemoteError::Exists { .. } | RemoteError::Unknown { .. })) => error,
            Err(error) => return Err(error.into()),
        };
        match remote.get(path).await {
            // Ours, or that of somebody who copies the same.
            Ok(found) if found == *bytes => Ok(()),
            Ok(_) => {
                refuse_promoted(self.order.to).await?;
                let what = "holds another record in the place of this one: somebody has written to it";
                Err(foreign(self.order.to, what))
            }
            // It never landed, or not yet: the next attempt settles it.
            Err(RemoteError::Missing { .. }) => Err(error.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The manifest snapshot that a record says to start from.
    async fn snapshot_before(&mut self, envelope: &Envelope) -> Result<Vec<ObjectPath>, EngineError> {
        let seq = envelope.header.snapshot;
        if seq == Seq::ZERO || seq.0 <= self.copied.snapshot {
            return Ok(Vec::new());
        }
        let Some((sent, head)) = self.snapshot(seq, false).await? else {
            // Pruned since. Readers of this record start from the newest one that stands, and one stands at the primary's floor.
            let newer = |standing: Vec<Seq>| standing.first().is_some_and(|standing| *standing >= seq);
            let here = envelope.header.seq;
            if !newer(self.order.to.snapshots_at_or_before(here).await?) {
                self.snapshots(here).await?;
                if !newer(self.order.to.snapshots_at_or_before(here).await?) {
                    let path = keys::snapshot(self.order.from.name(), seq).to_string();
                    return Err(RemoteError::Missing { path }.into());
                }
            }
            self.copied.snapshot = seq.0;
            return Ok(Vec::new());
        };
        self.head(head).await?;
        self.copied.snapshot = seq.0;
        Ok(sent)
    }

    /// The hint, where the manifest snapshot is one that was not there before.
    async fn head(&self, head: Option<Box<(Snapshot, u64)>>) -> Result<(), EngineError> {
        match head.map(|head| *head) {
            Some((snapshot, len)) => put_head(self.order.to, snapshot, len).await,
            None => Ok(()),
        }
    }

    /// Puts what is the same wherever it has this name. False where it was there.
    async fn put_once(&self, path: &ObjectPath, bytes: Bytes) -> Result<bool, EngineError> {
        let (remote, len) = (self.order.to.remote(), bytes.len() as u64);
        match remote.size(path).await {
            Ok(_) => return Ok(false),
            Err(RemoteError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match remote.put_new(path, bytes).await {
            Ok(()) => {
                self.sent.fetch_add(len, Ordering::Relaxed);
                Ok(true)
            }
            Err(RemoteError::Exists { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A manifest snapshot and its shards; where it is to stand alone, with all that its rows name. `None` where the primary does not have it.
    async fn snapshot(&self, seq: Seq, alone: bool) -> Result<Option<Stood>, EngineError> {
        let (from, to) = (self.order.from, self.order.to);
        let path = keys::snapshot(from.name(), seq);
        let read = |bytes: &Bytes| format::snapshot::decode(bytes).ok().filter(|found| found.seq == seq);
        let at_hand = self.order.spool.read(&path).and_then(|bytes| Some((read(&bytes)?, bytes)));
        let (snapshot, bytes) = match at_hand {
            Some(at_hand) => at_hand,
            None => match from.remote().get(&path).await {
                Ok(bytes) => {
                    self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    let snapshot = format::snapshot::decode(&bytes).map_err(EngineError::damaged(&path))?;
                    (snapshot, bytes)
                }
                Err(RemoteError::Missing { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            },
        };
        let shards: Vec<&BlobRef> = snapshot.shards.iter().map(|shard| &shard.blob).collect();
        let mut sent = match self.blobs(&shards).await {
            // It landed when a prune had gone by, and stands for nothing.
            Err(EngineError::Remote(RemoteError::Missing { .. })) => return Ok(None),
            sent => sent?,
        };
        if alone {
            let rows = snapshot_rows(to, &snapshot).await?;
            let mut named: Vec<&BlobRef> = rows.values().flat_map(ChunkRow::blobs).collect();
            named.sort();
            named.dedup();
            sent.extend(self.blobs(&named).await?);
            let holding: BTreeSet<Seq> =
                named.iter().filter(|blob| blob.name.kind == BlobKind::Record).map(|blob| blob.name.birth).collect();
            for seq in holding {
                // Whose frames hold pages.
                let path = keys::record(from.name(), seq);
                let bytes = self.record(seq, &path, None).await?;
                self.put_once(&path, bytes).await?;
            }
        }
        let len = bytes.len() as u64;
        // Another's of the same record says the same.
        let is_new = self.put_once(&path, bytes).await?;
        self.reach("replicate.snapshot")?;
        sent.push(path);
        Ok(Some((sent, is_new.then(|| Box::new((snapshot, len))))))
    }

    /// The manifest snapshots that stand at the primary up to a record, and are not at the copy: restore points of a coarser history, and what
    /// pins hold.
    async fn snapshots(&self, until: Seq) -> Result<(), EngineError> {
        let (there, here) = (self.standing(self.order.from).await?, self.standing(self.order.to).await?);
        for seq in there.difference(&here).filter(|seq| **seq <= until) {
            self.snapshot(*seq, false).await?;
        }
        Ok(())
    }

    async fn standing(&self, log: &Log) -> Result<BTreeSet<Seq>, EngineError> {
        let listed = log.remote().list(&keys::folder(log.name(), Folder::Snapshots), None, usize::MAX).await?;
        let seq = |meta: &littoral_ports::ObjectMeta| match ObjectKey::parse(&meta.path) {
            Some((_, ObjectKey::Snapshot(seq))) => Some(seq),
            _ => None,
        };
        Ok(listed.iter().filter_map(seq).collect())
    }

    /// Pins that stay until somebody drops them, as they are at the primary, of states up to a record. What the mark names is the primary's:
    /// those names are followed, whatever state they come to stand for. Any other is somebody's who holds something at the copy.
    async fn pins(&mut self, mark: &mut CopyMark, until: Seq) -> Result<(), EngineError> {
        let (from, to) = (self.order.from, self.order.to);
        let listed = from.remote().list(&keys::folder(from.name(), Folder::Pins), None, usize::MAX).await?;
        let mut names: Vec<String> = Vec::new();
        let mut come: Vec<(&ObjectPath, Bytes, bool)> = Vec::new();
        self.did.names_taken.clear();
        for meta in &listed {
            let Some((_, ObjectKey::Pin(key))) = ObjectKey::parse(&meta.path) else { continue };
            let name = key.to_string();
            let is_ours = mark.pins.contains(&name);
            let Some(bytes) = found(from.remote().get(&meta.path).await)? else { continue };
            let pin = format::pin::decode(&bytes).map_err(EngineError::damaged(&meta.path))?;
            if pin.expires_ms.is_some() || (pin.seq > until && !is_ours) {
                continue;
            }
            match found(to.remote().get(&meta.path).await)? {
                Some(there) if there == bytes => {}
                Some(_) if !is_ours => {
                    tracing::warn!(
                        copy = to.url(),
                        "{name} stands for another state there, and is not the primary's: it is not copied. Drop it there (littoral snapshot drop)"
                    );
                    self.did.names_taken.push(name);
                    continue;
                }
                // The state that it stands for by now comes later.
                _ if pin.seq > until => {}
                there => come.push((&meta.path, bytes, there.is_some())),
            }
            names.push(name);
        }
        let dropped = mark.pins.iter().filter(|name| !names.contains(name));
        let dropped: Vec<ObjectPath> =
            dropped.map(|name| ObjectPath::below(to.name(), &format!("pins/{name}"))).collect();
        // A name is said to be ours before it is there, and until it is gone: whoever is cut off in between knows it again.
        let mut all: Vec<String> = mark.pins.iter().chain(&names).cloned().collect();
        all.sort();
        all.dedup();
        if all != mark.pins {
            mark.pins = all;
            self.put_mark(mark).await?;
        }
        if come.iter().any(|(_, _, is_there)| *is_there) {
            refuse_promoted(to).await?;
        }
        for (path, bytes, is_there) in come {
            match is_there {
                true => to.remote().put(path, bytes).await?,
                false => to.remote().put_new(path, bytes).await?,
            }
        }
        if !dropped.is_empty() {
            refuse_promoted(to).await?;
            to.remote().delete(&dropped).await?;
            mark.pins = names;
            mark.pins.sort();
            self.put_mark(mark).await?;
        }
        Ok(())
    }

    /// Begins at a record whose predecessors were pruned: with everything that stands up to it.
    async fn fill(&mut self, seq: Seq, mark: &mut CopyMark) -> Result<Link, EngineError> {
        let (from, to) = (self.order.from, self.order.to);
        if let Some(envelope) = to.envelope(seq).await? {
            // Cut off after its last step but one.
            mark.state = CopyState::Follows;
            self.put_mark(mark).await?;
            let newest = to.newest().await?.unwrap_or(seq);
            let envelope = to.envelope(newest).await?.unwrap_or(envelope);
            return Ok(Link::after(&envelope.header, envelope.hash));
        }
        let of = from.remote().url();
        if mark.state != CopyState::Fills(seq) || mark.of != of {
            (mark.state, mark.of) = (CopyState::Fills(seq), of);
            self.put_mark(mark).await?;
        }
        self.reach("replicate.filling")?;
        self.pins(mark, seq).await?;
        let standing = self.standing(from).await?;
        if !standing.contains(&seq) {
            return Err(from.inconsistent(format!("no manifest snapshot stands at record {seq}, its oldest")));
        }
        let mut oldest = None;
        for standing in standing.into_iter().filter(|standing| *standing <= seq) {
            oldest = self.snapshot(standing, true).await.map_err(gone)?;
        }
        // Without it no reader could begin.
        let Some((_, head)) = oldest else {
            let path = keys::snapshot(from.name(), seq).to_string();
            return Err(gone(RemoteError::Missing { path }.into()));
        };
        let path = keys::record(from.name(), seq);
        let bytes = self.record(seq, &path, None).await?;
        let envelope = format::record::open(&bytes).map_err(EngineError::damaged(&path))?;
        if envelope.header.volume != mark.volume || envelope.header.seq != seq {
            return Err(from.inconsistent(format!("{path} is no record of this volume's")));
        }
        self.body(&bytes, &envelope, &path).await?;
        self.put_record(&path, &bytes).await?;
        self.reach("replicate.filled")?;
        mark.state = CopyState::Follows;
        self.put_mark(mark).await?;
        self.head(head).await?;
        let end = Link::after(&envelope.header, envelope.hash);
        self.copied.snapshot = seq.0;
        self.note(end, Some(&envelope));
        self.did.filled = Some(seq);
        Ok(end)
    }

    fn note(&mut self, end: Link, envelope: Option<&Envelope>) {
        (self.copied.record, self.copied.epoch, self.copied.lsn) = (end.seq.0, end.epoch.0, end.lsn.0);
        if let Some(envelope) = envelope {
            self.copied.time_ms = envelope.header.time_ms;
        }
    }

    fn count(&mut self) {
        let (blobs, sent, fetched) = (
            self.blobs.swap(0, Ordering::Relaxed),
            self.sent.swap(0, Ordering::Relaxed),
            self.fetched.swap(0, Ordering::Relaxed),
        );
        self.did.blobs += blobs;
        (self.did.bytes, self.did.fetched) = (self.did.bytes + sent, self.did.fetched + fetched);
        (self.copied.sent, self.copied.fetched) = (self.copied.sent + sent, self.copied.fetched + fetched);
    }

    /// Does at the copy what prunes of the primary have said.
    async fn prunes(&mut self, end: Link) -> Result<(), EngineError> {
        if self.is_new {
            self.copied.prunes = prunes_in(self.order.to, end).await?;
        }
        let now = self.components.clock.wall_ms();
        if !self.copied.prunes_are_due(now, self.order.grace_ms) {
            return Ok(());
        }
        self.copied.pruned_ms = now;
        let prunes: Vec<Seq> = self.copied.prunes.iter().map(|seq| Seq(*seq)).collect();
        let pruned = prune_copy(self.order.to, self.components, &prunes, self.order.grace_ms).await?;
        self.copied.prunes.retain(|seq| !pruned.done.contains(&Seq(*seq)));
        self.did.pruned = pruned;
        Ok(())
    }
}

/// What is there, if it is.
fn found(got: Result<Bytes, RemoteError>) -> Result<Option<Bytes>, RemoteError> {
    match got {
        Ok(bytes) => Ok(Some(bytes)),
        Err(RemoteError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the primary does not have any more may have been pruned since it was looked at: then the next attempt begins at the floor.
fn gone(error: EngineError) -> EngineError {
    match error {
        EngineError::Remote(error @ RemoteError::Missing { .. }) => EngineError::Interrupted(format!(
            "{error}: it is gone from the primary, pruned meanwhile or lost. The next attempt finds out (littoral verify says what is lost)"
        )),
        error => error,
    }
}

/// The prunes among a copy's records, where nobody noted them.
async fn prunes_in(log: &Log, end: Link) -> Result<Vec<u64>, EngineError> {
    if end.lsn == Lsn::ZERO {
        return Ok(Vec::new());
    }
    let Some(glance) = log.glance().await? else { return Ok(Vec::new()) };
    if glance.tail.floor == Seq::ZERO {
        return Ok(Vec::new());
    }
    let mut history = log.history(&glance, glance.tail.seq.next(), usize::MAX).await?;
    history.reverse();
    let prunes = history.iter().filter(|record| record.kind == RecordKind::Prune);
    Ok(prunes.map(|record| record.seq.0).collect())
}

/// Whether a record that was read from a disk is all there: its header says what its body hashes to.
fn is_whole(bytes: &Bytes, envelope: &Envelope) -> bool {
    match envelope.body {
        BodyPlace::Inline { .. } => format::record::decode(bytes, None).is_ok(),
        BodyPlace::Blob(_) => true,
    }
}

/// Where a log ends that is read from another place than its primary.
pub async fn position_of(log: &Log) -> Result<Option<(Position, u64)>, EngineError> {
    let Some(newest) = log.newest().await? else { return Ok(None) };
    let envelope = log.envelope(newest).await?.ok_or_else(|| log.gone(newest))?;
    let header = envelope.header;
    Ok(Some((Position { epoch: header.epoch, lsn: header.lsns.last }, header.time_ms)))
}

/// What is behind of a copy: how many commits, since when, and how many bytes at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Commits that are published and not copied.
    pub lsns: u64,
    /// Milliseconds since the first of them was published, as far as that is known.
    pub ms: u64,
    /// Bytes of the blobs that they brought.
    pub bytes: u64,
    /// Records.
    pub records: u64,
}

/// How far a copy is behind what this store has published.
pub fn lag(
    manifest: &dyn littoral_ports::Manifest,
    row: &VolumeRow,
    copied: &Copied,
    now_ms: u64,
) -> Result<Lag, EngineError> {
    let tail = &row.tail;
    let changes = manifest.changes_since(&row.meta.id, Seq(copied.record))?;
    let behind = changes.iter().flat_map(|change| &change.records).filter(|record| record.seq.0 > copied.record);
    let mut lag = Lag {
        lsns: tail.lsn.0.saturating_sub(copied.lsn),
        records: tail.seq.0.saturating_sub(copied.record),
        ..Lag::default()
    };
    let mut first = None;
    for record in behind {
        lag.bytes += record.added.bytes;
        if !record.lsns.is_empty() {
            first = Some(first.map_or(record.time_ms, |first: u64| first.min(record.time_ms)));
        }
    }
    if lag.lsns > 0 {
        // What the change log has let go of was published after what the copy has.
        let known = changes.first().is_some_and(|change| change.after.0 <= copied.record);
        let since = first.filter(|_| known || copied.time_ms == 0).unwrap_or(copied.time_ms);
        lag.ms = now_ms.saturating_sub(since);
    }
    Ok(lag)
}
