//! Writing a log: one record at a time, each exactly once.
//!
//! A record goes through these states; a crash in any of them is resumed by [`Writer::finish_intent`]:
//!
//! | state | what is durable | after a crash |
//! |---|---|---|
//! | drafted | blobs it names | nothing happened; the blobs are orphans or are adopted by the resumed job |
//! | intended | the record's bytes, in the manifest | the same bytes are put again: whatever the lost answer was, the name ends up holding them or another's record |
//! | landed | the record, in the object store | found under its name byte for byte, then as above |
//! | committed | the manifest, with the intent cleared | nothing is left to do |

use super::read::{Glance, Log, ReadRecord, advance, link, summary};
use crate::components::Components;
use crate::error::EngineError;
use crate::leases::{Held, Leases, Wanted};
use crate::logs::tables::Tables;
use bytes::Bytes;
use littoral_format as format;
use littoral_format::keys;
use littoral_plan::settle::{Found, Settled, settle};
use littoral_plan::{Link, compose, follows, index_span};
use littoral_ports::{Batch, BlobBody, Manifest, RemoteError};
use littoral_types::limits::{INDEX_EVERY, PRUNE_GRACE_MS, RETRY_PAUSE_MS};
use littoral_types::{
    BlobName, ByteSpan, ChunkRuns, CountedLog, FooterFigures, Incarnation, Index, Intent, Lease, LsnRange, ManifestOp,
    Owner, PageIdentity, PageNo, PageOwner, Record, RecordBody, RecordHash, RecordHeader, RecordKind, RecordSummary,
    Seq, ShardRef, Snapshot, StoreId, TailRow, VolumeFigures, VolumeId, VolumeMeta, VolumeRow, Work,
};
use std::io;
use std::sync::Arc;

/// How often a record is put that is not there afterwards, its answer lost: each time that is several requests already.
const PUTS_MAX: u32 = 3;

/// What is to be published; the writer adds everything that the chain demands.
#[derive(Debug)]
pub struct Draft {
    /// What it says.
    pub body: RecordBody,
    /// How many commits it brings.
    pub commits: u64,
    /// The volume's figures after it.
    pub figures: VolumeFigures,
    /// What it adds.
    pub added: FooterFigures,
    /// Page identities to remember once it is published.
    pub identities: Vec<(PageNo, PageIdentity)>,
    /// Whose pages are from then on, where that changed; `None` where whoever drafts it does not know. A checkpoint of who does not know makes
    /// all of it forgotten.
    pub owners: Option<Vec<(PageNo, PageOwner)>>,
}

impl Draft {
    /// A record that brings no commit and no page.
    pub fn of(body: RecordBody, figures: VolumeFigures) -> Self {
        let added = FooterFigures::default();
        Self { body, commits: 0, figures, added, identities: Vec::new(), owners: None }
    }
}

/// The one who extends a volume's log from this store.
#[derive(Debug)]
pub struct Writer {
    log: Log,
    manifest: Arc<dyn Manifest>,
    components: Components,
    /// Whose term it is to be.
    store: StoreId,
    incarnation: Incarnation,
    row: VolumeRow,
    /// When the remote's tail was last seen to be ours, by a clock that counts suspend (rule P5).
    seen_boot_ms: u64,
    /// Where the rows of the newest manifest snapshot are, once somebody asked.
    shards: Option<(Seq, Arc<Vec<ShardRef>>)>,
    /// Of its store; none where nobody else can be at work.
    leases: Option<Leases>,
    /// The way of the logs that are tables of its database.
    tables: Option<Box<Tables>>,
}

impl Writer {
    /// A writer at a tail that was just compared with the remote's. `row` is what the manifest holds, or for a new volume
    /// what it will hold.
    pub fn new(log: Log, manifest: Arc<dyn Manifest>, components: Components, store: StoreId, row: VolumeRow) -> Self {
        let incarnation = Incarnation(components.bits());
        let seen_boot_ms = components.clock.boot_ms();
        Self {
            log,
            manifest,
            components,
            store,
            incarnation,
            row,
            seen_boot_ms,
            shards: None,
            leases: None,
            tables: None,
        }
    }

    /// The same in a store where others may be at work.
    pub fn with_leases(self, leases: Leases) -> Self {
        Self { leases: Some(leases), ..self }
    }

    /// Logs that are tables of its database go this way.
    pub(crate) fn carries(&mut self, tables: Option<Tables>) {
        self.tables = tables.map(Box::new);
    }

    /// What its database counts rows of travels before the record that says so.
    pub(crate) async fn ship_first(&mut self, logs: &[CountedLog]) -> Result<(), EngineError> {
        if logs.is_empty() {
            return Ok(());
        }
        let Some(mut tables) = self.tables.take() else {
            let url = self.log.url();
            return Err(EngineError::Refused(format!(
                "{url}: its database has logs for tables, which only its own store ships"
            )));
        };
        let done = Box::pin(tables.ship(logs, self)).await;
        self.tables = Some(tables);
        done
    }

    /// The right to work on chunks of the volume (all, where none are said), or what stands in the way. No right is needed where nobody
    /// else can be at work.
    pub fn lease(
        &self,
        work: Work,
        chunks: Option<ChunkRuns>,
    ) -> Result<Result<Option<Arc<Held>>, Vec<Lease>>, EngineError> {
        let Some(leases) = &self.leases else { return Ok(Ok(None)) };
        let (volume, generation) = (self.row.meta.id, self.row.tail.figures.generation);
        let taken = leases.take(Wanted { volume, work, chunks, generation })?;
        Ok(taken.map(|held| Some(Arc::new(held))))
    }

    /// The same where whatever stands in the way ends the work.
    pub fn lease_or_refuse(&self, work: Work, chunks: Option<ChunkRuns>) -> Result<Option<Arc<Held>>, EngineError> {
        match (self.lease(work, chunks)?, &self.leases) {
            (Ok(held), _) => Ok(held),
            (Err(held), Some(leases)) => Err(leases.refused(&self.log.url(), work, 0, &held)),
            (Err(_), None) => Ok(None),
        }
    }

    /// The right that is held is one to these chunks, too; or whatever stands in the way ends the work.
    pub(crate) fn widen_or_refuse(&self, held: &Held, work: Work, chunks: &ChunkRuns) -> Result<(), EngineError> {
        match (held.widen(chunks)?, &self.leases) {
            (Err(others), Some(leases)) => Err(leases.refused(&self.log.url(), work, 0, &others)),
            _ => Ok(()),
        }
    }

    /// Whether the log's last record is this writer's own.
    pub fn wrote_last(&self) -> bool {
        self.row.tail.incarnation == self.incarnation
    }

    /// What the frames of its record at this place say of themselves: no other record's do.
    pub(crate) fn mark_of(&self, seq: Seq) -> u64 {
        let row = &self.row;
        format::hash::mark(&[&row.meta.identity_key.0, &self.incarnation.0, &seq.0.to_le_bytes(), &row.tail.hash.0])
    }

    /// The log it extends.
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// The volume as of the last record.
    pub const fn row(&self) -> &VolumeRow {
        &self.row
    }

    /// The manifest it keeps.
    pub fn manifest(&self) -> &Arc<dyn Manifest> {
        &self.manifest
    }

    /// Time, chance and the rest.
    pub const fn components(&self) -> &Components {
        &self.components
    }

    /// Where the newest manifest snapshot has its rows: one request, once for each snapshot.
    pub async fn shards(&mut self) -> Result<Arc<Vec<ShardRef>>, EngineError> {
        let seq = self.tail().snapshot;
        if let Some((_, shards)) = self.shards.as_ref().filter(|(of, _)| *of == seq) {
            return Ok(shards.clone());
        }
        let shards = match seq {
            Seq::ZERO => self.beginning().await?.map(|beginning| beginning.shards).unwrap_or_default(),
            seq => match self.log.snapshot(seq).await? {
                Some(snapshot) => snapshot.shards,
                None => {
                    return Err(RemoteError::Missing { path: keys::snapshot(self.log.name(), seq).to_string() }.into());
                }
            },
        };
        Ok(self.remember_shards(seq, shards))
    }

    /// What a forked volume's rows begin with, where no manifest snapshot of its own was written yet. Others are told from it by what
    /// is known of their first record: that costs no request.
    pub(crate) async fn beginning(&self) -> Result<Option<Snapshot>, EngineError> {
        let tail = self.tail();
        if tail.snapshot > Seq::ZERO || tail.seq == Seq::ZERO {
            return Ok(None);
        }
        let changes = self.manifest.changes_since(&self.row.meta.id, Seq::ZERO)?;
        let first = changes.iter().flat_map(|change| &change.records).find(|record| record.seq == Seq(1));
        if first.is_some_and(|first| first.kind != RecordKind::Fork) {
            return Ok(None);
        }
        self.log.beginning().await
    }

    /// Somebody has just read or written that manifest snapshot.
    pub(crate) fn remember_shards(&mut self, seq: Seq, shards: Vec<ShardRef>) -> Arc<Vec<ShardRef>> {
        let shards = Arc::new(shards);
        self.shards = Some((seq, shards.clone()));
        shards
    }

    fn tail(&self) -> &TailRow {
        &self.row.tail
    }

    /// Changes the manifest without a record: jobs, staged blobs, a new snapshot's place.
    pub fn note(&mut self, change: impl FnOnce(&mut VolumeRow), batch: Batch) -> Result<(), EngineError> {
        let mut row = self.row.clone();
        change(&mut row);
        let volume = (row != self.row).then(|| row.clone());
        self.keep(&self.row.meta.id, &Batch { volume, ..batch })?;
        self.row = row;
        Ok(())
    }

    fn keep(&self, volume: &VolumeId, batch: &Batch) -> Result<(), EngineError> {
        self.manifest.commit(volume, batch)?;
        Ok(())
    }

    /// Others of this store may have extended the log since, and told the manifest: goes on from there, as long as the term is ours.
    pub(crate) fn look_again(&mut self) -> Result<(), EngineError> {
        match self.manifest.volume(self.log.name())? {
            Some(row)
                if row.meta.id == self.row.meta.id
                    && row.tail.seq >= self.row.tail.seq
                    && row.tail.owner.as_ref().is_some_and(|owner| owner.store == self.store) =>
            {
                self.row = row;
                Ok(())
            }
            _ => Err(EngineError::Interrupted(format!(
                "{}: its term ended, or its manifest was begun anew: look again",
                self.log.url()
            ))),
        }
    }

    /// Finishes what failed half-way in this very process, so that the next plan stands on what came of it. Every job asks
    /// first.
    pub async fn settle(&mut self) -> Result<(), EngineError> {
        self.refuse_fenced()?;
        self.finish_intent().await.map(drop)
    }

    /// Whoever was superseded, and knows it, does nothing more (I3).
    fn refuse_fenced(&self) -> Result<(), EngineError> {
        let Some((epoch, owner)) = self.row.fenced.clone() else { return Ok(()) };
        Err(EngineError::Superseded { volume: self.log.url(), owner, epoch, seq: self.tail().seq })
    }

    /// Publishes a record, and the index record where one is due before or after it. Gives the record's place.
    pub async fn publish(&mut self, draft: Draft) -> Result<Seq, EngineError> {
        self.publish_as_of(draft, None).await
    }

    /// The same for a record whose last commit was made at another time than now.
    pub async fn publish_as_of(&mut self, draft: Draft, made_ms: Option<u64>) -> Result<Seq, EngineError> {
        self.publish_under(None, draft, made_ms).await
    }

    /// The same for what was done under a lease: only where that stands, and it ends then.
    pub async fn publish_under(
        &mut self,
        held: Option<&Held>,
        draft: Draft,
        made_ms: Option<u64>,
    ) -> Result<Seq, EngineError> {
        self.refuse_fenced()?;
        if self.finish_intent().await? {
            // What was to be published was planned on the tail before.
            let text = "an earlier publication was finished first: look again".to_owned();
            return Err(EngineError::Interrupted(text));
        }
        self.index_if_due().await?;
        let seq = self.publish_one(held, draft, made_ms).await?;
        match self.index_if_due().await {
            // The record is published, whatever becomes of the index: the next publication makes it, or learns why not.
            Err(error) if !error.is_crash() => {
                tracing::warn!(volume = %self.log.name(), %error, "an index record is due and was not published");
            }
            done => done?,
        }
        Ok(seq)
    }

    /// Publishes the index record where one is due next. Whoever looks at what is in the bucket before he publishes asks first:
    /// an index may find its body there, from an attempt that was interrupted, under the very name that it gives it.
    pub async fn index_if_due(&mut self) -> Result<(), EngineError> {
        let seq = self.tail().seq.next();
        if let Some(after) = index_span(seq) {
            let body = RecordBody::Index(self.index_body(seq, after).await?);
            let figures = self.tail().figures;
            let draft = Draft::of(body, figures);
            self.publish_one(None, draft, None).await?;
        }
        Ok(())
    }

    /// Sums up what the change log knows. Nothing before the newest manifest snapshot is summed up: whoever opens the log at
    /// this index or later starts from that snapshot or a newer one.
    async fn index_body(&self, seq: Seq, span: Seq) -> Result<Index, EngineError> {
        let tail = self.tail();
        let after = span.max(tail.snapshot);
        let listed_after = Seq(seq.0 - INDEX_EVERY);
        let mut ops: Vec<ManifestOp> = Vec::new();
        let mut recent: Vec<RecordSummary> = Vec::new();
        for change in self.manifest.changes_since(&self.row.meta.id, after.min(listed_after))? {
            recent.extend(change.records.iter().filter(|record| record.seq > listed_after).cloned());
            if change.seq() > after {
                ops.extend(change.ops);
            }
        }
        let previous = if after == Seq::ZERO { None } else { Some(self.hash_at(after).await?) };
        Ok(Index {
            after,
            previous,
            ops: compose(ops),
            recent,
            schema: tail.schema,
            owner: tail.owner.clone(),
            floor: tail.floor,
        })
    }

    /// The hash of one of our records: from the change log where it is young, else from the record itself.
    async fn hash_at(&self, seq: Seq) -> Result<RecordHash, EngineError> {
        let tail = self.tail();
        if seq == tail.seq {
            return Ok(tail.hash);
        }
        let changes = self.manifest.changes_since(&self.row.meta.id, Seq(seq.0.saturating_sub(1)))?;
        if let Some(record) = changes.iter().flat_map(|change| &change.records).find(|record| record.seq == seq) {
            return Ok(record.hash);
        }
        let envelope = self.log.envelope(seq).await?;
        envelope
            .map(|envelope| envelope.hash)
            .ok_or_else(|| self.log.inconsistent(format!("record {seq}, from which the next index counts, is gone")))
    }

    async fn publish_one(
        &mut self,
        held: Option<&Held>,
        draft: Draft,
        made_ms: Option<u64>,
    ) -> Result<Seq, EngineError> {
        let components = self.components.clone();
        let faults = &components.faults;
        let tail = self.tail();
        let is_claim = draft.body.kind() == RecordKind::Claim;
        let first = tail.lsn.next();
        let now = components.clock.wall_ms();
        let made_ms = match &draft.body {
            RecordBody::Segment(segment) => segment.commits.last().map(|last| last.time_ms),
            _ => made_ms,
        };
        let header = RecordHeader {
            volume: self.row.meta.id,
            seq: tail.seq.next(),
            epoch: if is_claim { tail.epoch.next() } else { tail.epoch },
            incarnation: self.incarnation,
            previous: tail.hash,
            lsns: LsnRange { first, last: littoral_types::Lsn(tail.lsn.0 + draft.commits) },
            // Of the last commit, which may have waited for long. Labels never go back, whatever the clocks of those who write after
            // one another say: who asks for a time is never shown a later commit in place of an earlier one.
            time_ms: made_ms.map_or(now, |made| made.min(now)).max(tail.time_ms),
            snapshot: tail.snapshot,
            figures: draft.figures,
            added: draft.added,
        };
        let record = Record { header, body: draft.body };
        let path = keys::record(self.log.name(), record.header.seq);
        let encoded = format::record::encode(&record, tail.seq).map_err(EngineError::damaged(&path))?;
        if let Some((name, bytes)) = &encoded.body_blob {
            faults.reach("publish.body")?;
            self.upload_body(name, bytes).await?;
        }
        faults.reach("publish.drafted")?;
        let intent = Intent {
            seq: record.header.seq,
            record: encoded.object,
            body: encoded.body_blob.map(|(name, bytes)| (name, bytes.len() as u64)),
            identities: draft.identities,
            owners: draft.owners,
        };
        // A new volume has no row yet; its first claim brings it, in place of whatever a lost first claim left behind.
        let reset = tail.seq == Seq::ZERO;
        let volume = reset.then(|| self.row.clone());
        let lease = held.map(Held::token);
        let intended = Batch { reset, volume, intent: Some(Some(intent.clone())), lease, ..Batch::default() };
        self.keep(&self.row.meta.id, &intended)?;
        held.into_iter().for_each(Held::decided);
        faults.reach("publish.intended")?;
        if !self.land(&intent).await? {
            return Ok(intent.seq);
        }
        faults.reach("publish.landed")?;
        self.commit(intent, record.body).await
    }

    pub(crate) async fn upload_body(&self, name: &BlobName, bytes: &[u8]) -> Result<(), EngineError> {
        let body = InMemory::new(Bytes::copy_from_slice(bytes));
        Ok(self.log.remote().upload(&keys::blob(self.log.name(), name), &body).await?)
    }

    /// The same of bytes that lie elsewhere, as they are sent.
    pub(crate) async fn upload_from(&self, name: &BlobName, body: &dyn BlobBody) -> Result<(), EngineError> {
        Ok(self.log.remote().upload(&keys::blob(self.log.name(), name), body).await?)
    }

    /// Finishes what a killed predecessor had begun: the very same bytes, never new ones (rule P3). True when there was one.
    pub async fn finish_intent(&mut self) -> Result<bool, EngineError> {
        let Some(intent) = self.manifest.intent(&self.row.meta.id)? else { return Ok(false) };
        let path = keys::record(self.log.name(), intent.seq);
        let envelope = format::record::open(&intent.record).map_err(EngineError::damaged(&path))?;
        // Whoever finds it must take it for ours.
        self.incarnation = envelope.header.incarnation;
        // Nobody knows for how long this store was silent: its name may have been taken, and pruned since (rule P5). A name
        // at or before the newest is never written, only read.
        let now = self.components.clock.boot_ms();
        let newest = self.log.newest().await?.unwrap_or(Seq::ZERO);
        if newest.next() < intent.seq {
            // What it follows is gone: a record put there now would stand behind a gap.
            let (volume, local) = (self.log.url(), self.tail().seq);
            return Err(EngineError::RemoteBehind { volume, local, remote: newest });
        }
        if newest >= intent.seq {
            match self.found(&intent, &path).await? {
                // It is part of the log if it is the newest, or if the next one follows from it.
                Found::Same if newest == intent.seq => {}
                Found::Same => {
                    let next = self.log.envelope(intent.seq.next()).await?;
                    if next.is_none_or(|next| next.header.previous != envelope.hash) {
                        return Err(self.lost(&intent).await?);
                    }
                }
                Found::Other { .. } if self.adopt_index().await? => return Ok(true),
                Found::Nothing | Found::Other { .. } => return Err(self.lost(&intent).await?),
            }
        } else {
            self.seen_boot_ms = now;
            if !self.land(&intent).await? {
                return Ok(true);
            }
        }
        let body = match &intent.body {
            None => None,
            Some((name, _)) => Some(self.log.remote().get(&keys::blob(self.log.name(), name)).await?),
        };
        let (_, body) = format::record::decode(&intent.record, body.as_deref()).map_err(EngineError::damaged(&path))?;
        self.commit(intent, body).await?;
        self.incarnation = Incarnation(self.components.bits());
        Ok(true)
    }

    /// Puts the record until its name certainly holds it, or certainly holds another. False when another index record stood in
    /// the place of ours, which was taken for ours: it changes nothing.
    async fn land(&mut self, intent: &Intent) -> Result<bool, EngineError> {
        let path = keys::record(self.log.name(), intent.seq);
        let bytes = Bytes::copy_from_slice(&intent.record);
        let mut lost = String::new();
        for attempt in 1..=PUTS_MAX {
            let found = match self.log.remote().put_new(&path, bytes.clone()).await {
                Ok(()) => return self.reread_after_silence(intent.seq).await.map(|()| true),
                Err(RemoteError::Exists { .. }) => self.found(intent, &path).await?,
                Err(RemoteError::Unknown { detail, .. }) => {
                    lost = detail;
                    self.found(intent, &path).await?
                }
                Err(error) => return Err(error.into()),
            };
            match settle(found, self.incarnation) {
                Settled::Landed => return self.reread_after_silence(intent.seq).await.map(|()| true),
                Settled::Again if attempt < PUTS_MAX => {
                    let pause = RETRY_PAUSE_MS << attempt;
                    self.components.clock.sleep_ms(self.components.entropy.below(pause)).await;
                }
                Settled::Again => break,
                Settled::Replan | Settled::Stop => {
                    return if self.adopt_index().await? { Ok(false) } else { Err(self.lost(intent).await?) };
                }
            }
        }
        let detail = format!("the record is not there, and each answer was lost: {lost}");
        Err(RemoteError::Unavailable { what: path.to_string(), tries: PUTS_MAX, detail }.into())
    }

    /// Goes on behind an index record that somebody else wrote where ours was due: one who is about to take over, perhaps, and
    /// who may never come to it. True when that is all that followed our tail. Whoever publishes next wins.
    pub async fn adopt_index(&mut self) -> Result<bool, EngineError> {
        let seq = self.tail().seq.next();
        if index_span(seq).is_none() {
            return Ok(false);
        }
        let Some(record) = self.log.record(seq).await? else { return Ok(false) };
        let follows = follows(&end_of(&self.row), &record.envelope.header, record.envelope.kind).is_ok();
        if !follows || record.envelope.kind != RecordKind::Index {
            return Ok(false);
        }
        let Some(batch) = batch_of(&self.row, std::slice::from_ref(&record)) else { return Ok(false) };
        let row = batch.volume.clone();
        self.keep(&self.row.meta.id, &Batch { intent: Some(None), ..batch })?;
        self.row = row.unwrap_or_else(|| self.row.clone());
        Ok(true)
    }

    /// The name is another's for good: this record can never be published as it is.
    async fn lost(&mut self, intent: &Intent) -> Result<EngineError, EngineError> {
        tracing::warn!(volume = %self.log.name(), seq = %intent.seq, "another record has the name of ours");
        let won = self.find_out_who_won().await?;
        self.note(|_| {}, Batch { intent: Some(None), ..Batch::default() })?;
        Ok(won)
    }

    async fn found(&self, intent: &Intent, path: &littoral_types::ObjectPath) -> Result<Found, EngineError> {
        match self.log.remote().get(path).await {
            Ok(object) if object == intent.record => Ok(Found::Same),
            Ok(object) => {
                let envelope = format::record::open(&object).map_err(EngineError::damaged(path))?;
                Ok(Found::Other { incarnation: envelope.header.incarnation })
            }
            Err(RemoteError::Missing { .. }) => Ok(Found::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// A writer that was stopped for long may have won a name that was pruned since: before anybody is told, the tail is
    /// read again (rule P5).
    async fn reread_after_silence(&mut self, seq: Seq) -> Result<(), EngineError> {
        let now = self.components.clock.boot_ms();
        if now.saturating_sub(self.seen_boot_ms) > PRUNE_GRACE_MS / 4 {
            let newest = self.log.newest().await?;
            if newest != Some(seq) {
                return Err(self.find_out_who_won().await?);
            }
        }
        self.seen_boot_ms = now;
        Ok(())
    }

    /// Looks at the newest records and says who extended the log. Remembers a newer term, so that nothing is published again.
    ///
    /// Not by reading on from our tail: what follows there may be pruned, and a name that was free for that reason may hold a
    /// record of our own that is part of no log (rule P5).
    pub async fn find_out_who_won(&mut self) -> Result<EngineError, EngineError> {
        let volume = self.log.url();
        let local = self.tail().seq;
        let Some(glance) = self.log.glance().await? else {
            return Ok(EngineError::RemoteBehind { volume, local, remote: Seq::ZERO });
        };
        let newest = &glance.tail;
        let (epoch, seq) = (newest.epoch, newest.seq);
        let newer = epoch > self.tail().epoch || glance.volume != self.row.meta.id;
        let owner = match &newest.owner {
            Some(owner) => Some(owner.clone()),
            None if newer => Some(self.released_by(&glance).await?),
            // The same term has ended: whose it was is known.
            None => self.tail().owner.clone(),
        };
        // Records, or a later term, of this very store that it does not know: here is a copy of it from before.
        let Some(owner) = owner.filter(|owner| owner.store != self.store) else {
            return Ok(EngineError::Diverged { volume, local, remote: seq, epoch });
        };
        if newer && local > Seq::ZERO {
            self.note(|row| row.fenced = Some((epoch, owner.clone())), Batch::default())?;
        }
        Ok(EngineError::Superseded { volume, owner, epoch, seq })
    }

    /// Whose the newest term was that has ended in order. One that ended so long ago that it would take many requests to say whose it
    /// was is somebody's.
    async fn released_by(&self, glance: &Glance) -> Result<Owner, EngineError> {
        let newest_first = self.log.history(glance, glance.tail.seq.next(), INDEX_EVERY as usize).await?;
        for record in newest_first.iter().filter(|record| record.kind == RecordKind::Release) {
            if let Some(ReadRecord { body: RecordBody::Release(release), .. }) = self.log.record(record.seq).await? {
                return Ok(release.owner);
            }
        }
        Ok(somebody())
    }

    /// Brings the manifest up to the record that landed.
    async fn commit(&mut self, intent: Intent, body: RecordBody) -> Result<Seq, EngineError> {
        let path = keys::record(self.log.name(), intent.seq);
        let envelope = format::record::open(&intent.record).map_err(EngineError::damaged(&path))?;
        let mut row = self.row.clone();
        row.tail = advance(&row.tail, &envelope, &body);
        row.tail.seen_ms = self.components.clock.wall_ms().max(1);
        // An index repeats what its records did: the rows and the change log have it already.
        let ops = if envelope.kind == RecordKind::Index { Vec::new() } else { body.ops().to_vec() };
        let batch = Batch {
            volume: Some(row.clone()),
            ops,
            log: Some((self.tail().seq, vec![summary(&envelope)])),
            identities: intent.identities,
            owners: intent.owners,
            intent: Some(None),
            job: envelope.kind.folds().then_some(None),
            ..Batch::default()
        };
        self.keep(&row.meta.id, &batch)?;
        self.row = row;
        self.components.faults.reach("publish.committed")?;
        Ok(envelope.header.seq)
    }
}

/// An owner of whom nobody knows who it was.
pub(crate) fn somebody() -> Owner {
    Owner { store: StoreId([0; StoreId::LEN]), label: "a writer that has released it since".to_owned() }
}

/// A volume's row before its first record.
pub fn new_volume(meta: VolumeMeta) -> VolumeRow {
    VolumeRow { meta, tail: super::read::tail_before_all(), fenced: None }
}

/// Records read from a log as one manifest batch on top of a known tail.
pub fn batch_of(row: &VolumeRow, records: &[ReadRecord]) -> Option<Batch> {
    let mut next = row.clone();
    let mut ops = Vec::new();
    for record in records {
        next.tail = advance(&next.tail, &record.envelope, &record.body);
        if record.envelope.kind != RecordKind::Index {
            ops.extend_from_slice(record.body.ops());
        }
    }
    let summaries: Vec<RecordSummary> = records.iter().map(ReadRecord::summary).collect();
    (!summaries.is_empty()).then(|| Batch {
        volume: Some(next),
        ops,
        log: Some((row.tail.seq, summaries)),
        ..Batch::default()
    })
}

/// The end of the chain that a volume's row knows.
pub fn end_of(row: &VolumeRow) -> Link {
    link(&row.meta, &row.tail)
}

/// Bytes in memory as an upload's body.
#[derive(Debug)]
pub(crate) struct InMemory {
    bytes: Bytes,
    crc64: u64,
}

impl InMemory {
    pub(crate) fn new(bytes: Bytes) -> Self {
        let crc64 = format::hash::crc64(&bytes);
        Self { bytes, crc64 }
    }
}

impl BlobBody for InMemory {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn crc64(&self) -> u64 {
        self.crc64
    }

    fn read(&self, span: ByteSpan) -> io::Result<Bytes> {
        let beyond = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let start = usize::try_from(span.offset).map_err(|_| beyond())?;
        let end = span
            .end()
            .and_then(|end| usize::try_from(end).ok())
            .filter(|end| *end <= self.bytes.len())
            .ok_or_else(beyond)?;
        Ok(self.bytes.slice(start..end))
    }
}
