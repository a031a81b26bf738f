//! Everything that a volume holds, read and checked: every record and link, every manifest snapshot, shard and row, every blob, frame
//! and page identity, every pin. Problems are collected, not stopped at.

use super::fetch::blob_path;
use super::rebuild::{Rows, apply, rows, snapshot_rows};
use crate::components::Components;
use crate::error::EngineError;
use crate::jobs::Noting;
use crate::log::Log;
use crate::log::pins::Pinned;
use futures::stream::{self, StreamExt};
use littoral_format as format;
use littoral_format::keys::{self, Folder, ObjectKey};
use littoral_plan::sessions::Recorded;
use littoral_plan::{Link, follows};
use littoral_ports::{ObjectMeta, Unit};
use littoral_types::limits::LIST_STEP;
use littoral_types::{
    BlobKind, BlobRef, BodyPlace, ChunkId, ChunkRow, FrameTable, Geometry, Head, Home, JobNote, LogRow, ManifestOp,
    ObjectPath, PageNo, PinPurpose, RecordBody, RecordKind, Seq, Snapshot, VolumeFigures, VolumeMeta,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Blobs read at once: each may be a whole chunk.
const BLOBS_IN_FLIGHT: usize = 3;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Records, and links between them.
    pub records: u64,
    /// Manifest snapshots.
    pub snapshots: u64,
    /// Rows in their shards.
    pub rows: u64,
    /// Blobs.
    pub blobs: u64,
    /// Frames in them.
    pub frames: u64,
    /// Pages in those, and zero pages.
    pub pages: u64,
    /// Pins.
    pub pins: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong, a sentence each, with the object's name.
    pub problems: Vec<String>,
    /// What is odd and harmless: blobs that nothing names.
    pub orphans: u64,
}

/// What an interrupted check had done, and who hears of what this one does.
#[derive(Debug, Default)]
pub struct Verifying {
    /// Blobs that were read and found whole: their bytes never change, and are not read again.
    pub known: Vec<JobNote>,
    /// Who notes them.
    pub noting: Option<Arc<Noting>>,
}

/// Reads and checks a part, and gives where the next one begins: `None` when nothing is left. The first part (`cursor` is `None`) reads all that
/// names something, and looks whether what is named is there; then blobs of this volume are read one after the other, as they are listed,
/// until so many bytes were. Each says by its name, and in itself, what it must hold.
pub async fn verify_part(
    log: &Log,
    components: &Components,
    cursor: Option<&str>,
    bytes: u64,
) -> Result<(Verified, Option<String>), EngineError> {
    let mut check = Check { log, found: Verified::default(), named: BTreeMap::new(), meta: None };
    match cursor {
        None => {
            let Some(newest) = log.newest().await? else { return Err(EngineError::NoVolume(log.url())) };
            let chain = check.records(newest).await?;
            check.snapshots(&chain).await?;
            check.pins(&chain).await?;
            check.head(&chain).await?;
            check.are_there().await?;
        }
        Some(_) => {
            let opened = log.open().await?.ok_or_else(|| EngineError::NoVolume(log.url()))?;
            check.meta = Some(opened.meta.clone());
        }
    }
    let next = check.listed_blobs(components, cursor, bytes).await?;
    Ok((check.found, next))
}

/// Reads and checks everything.
pub async fn verify(log: &Log, components: &Components) -> Result<Verified, EngineError> {
    verify_on(log, components, &Verifying::default()).await
}

/// The same, on from where an earlier check was interrupted.
pub async fn verify_on(log: &Log, components: &Components, verifying: &Verifying) -> Result<Verified, EngineError> {
    let Some(newest) = log.newest().await? else { return Err(EngineError::NoVolume(log.url())) };
    let mut check = Check { log, found: Verified::default(), named: BTreeMap::new(), meta: None };
    let chain = check.records(newest).await?;
    check.snapshots(&chain).await?;
    check.pins(&chain).await?;
    check.head(&chain).await?;
    check.blobs(components, verifying).await?;
    components.faults.reach("verify.checked")?;
    Ok(check.found)
}

/// What the chain says at each record that stays.
struct Chain {
    first: Seq,
    hashes: BTreeMap<Seq, littoral_types::RecordHash>,
    /// Operations by record, index records left out.
    ops: BTreeMap<Seq, Vec<ManifestOp>>,
    figures: BTreeMap<Seq, VolumeFigures>,
    /// Manifest snapshots that openers of some record start from.
    starts: BTreeSet<Seq>,
    /// Whether the first record says that it begins as another volume was.
    is_fork: bool,
}

struct Check<'a> {
    log: &'a Log,
    found: Verified,
    /// Blobs that something names, and the tables of those that hold pages.
    named: BTreeMap<String, (BlobRef, Vec<Held>)>,
    meta: Option<VolumeMeta>,
}

/// What a row says that a blob holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    chunk: ChunkId,
    table: FrameTable,
    is_patch: bool,
}

impl Check<'_> {
    fn wrong(&mut self, what: impl ToString) {
        self.found.problems.push(what.to_string());
    }

    /// A problem of the object store's data is noted; a failing object store ends the check.
    fn note<T>(&mut self, result: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_damage() => {
                self.wrong(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn name_row(&mut self, row: &ChunkRow) {
        for blob in row.segment.iter().flat_map(LogRow::blobs) {
            self.name(blob);
        }
        let base = row.base.iter().map(|base| (&base.blob, &base.table, false));
        let deltas = row.deltas.iter().map(|delta| (&delta.blob, &delta.table, delta.id.is_patch()));
        for (blob, table, is_patch) in base.chain(deltas) {
            let path = blob_path(self.log, blob).to_string();
            let (_, tables) = self.named.entry(path).or_insert_with(|| (blob.clone(), Vec::new()));
            if !tables.iter().any(|known| known.chunk == row.chunk && known.table == *table) {
                tables.push(Held { chunk: row.chunk, table: table.clone(), is_patch });
            }
        }
    }

    fn name(&mut self, blob: &BlobRef) {
        let path = blob_path(self.log, blob).to_string();
        self.named.entry(path).or_insert_with(|| (blob.clone(), Vec::new()));
    }

    async fn records(&mut self, newest: Seq) -> Result<Chain, EngineError> {
        let listed = self.log.remote().list(&keys::folder(self.log.name(), Folder::Log), None, usize::MAX).await?;
        // Below the floor stands what an interrupted prune has not deleted yet.
        let opened = self.log.open().await;
        let known_floor = self.note(opened)?.flatten().map(|opened| opened.tail.floor);
        let floor = known_floor.unwrap_or(Seq::ZERO);
        let mut seqs: BTreeSet<Seq> = BTreeSet::new();
        for meta in &listed {
            match ObjectKey::parse(&meta.path) {
                Some((_, ObjectKey::Record(seq))) => {
                    if seq >= floor {
                        seqs.insert(seq);
                    }
                }
                _ => self.wrong(format!("{}: not a record's name", meta.path)),
            }
        }
        let mut chain = Chain {
            first: seqs.first().copied().unwrap_or(newest),
            hashes: BTreeMap::new(),
            ops: BTreeMap::new(),
            figures: BTreeMap::new(),
            starts: BTreeSet::new(),
            is_fork: false,
        };
        // Nothing leads to the first of a shortened log but a manifest snapshot.
        chain.starts.extend(Some(chain.first).filter(|first| *first > Seq(1)));
        let mut sessions = Recorded::default();
        let mut end: Option<Link> = (chain.first == Seq(1)).then_some(Link::START);
        let mut expected = known_floor.map_or(chain.first, |floor| floor.max(Seq(1)));
        for seq in seqs {
            if seq != expected {
                self.wrong(format!("{}: records {expected} to {} are missing", self.log.url(), seq.0 - 1));
                end = None;
            }
            expected = seq.next();
            let read = self.log.record(seq).await;
            let Some(Some(record)) = self.note(read)? else {
                end = None;
                continue;
            };
            self.found.records += 1;
            self.found.bytes += record.object.len() as u64;
            let header = &record.envelope.header;
            if let Some(broken) = end.and_then(|end| follows(&end, header, record.envelope.kind).err()) {
                self.wrong(format!("{}: {broken}", keys::record(self.log.name(), seq)));
            }
            // An index repeats what was checked already.
            let ops = if record.envelope.kind == RecordKind::Index { &[][..] } else { record.body.ops() };
            for op in ops {
                let ManifestOp::Session(mark) = op else { continue };
                if let Err(broken) = sessions.follow(mark, header.lsns.last) {
                    self.wrong(format!("{}: {broken}", keys::record(self.log.name(), seq)));
                }
            }
            end = Some(Link::after(header, record.envelope.hash));
            chain.hashes.insert(seq, record.envelope.hash);
            chain.figures.insert(seq, header.figures);
            chain.starts.extend(Some(header.snapshot).filter(|start| *start > floor));
            if let BodyPlace::Blob(blob) = &record.envelope.body {
                self.name(&blob.clone());
            }
            match &record.body {
                RecordBody::Claim(claim) => self.meta = Some(claim.volume.clone()),
                RecordBody::Fork(fork) => {
                    self.meta = Some(fork.volume.clone());
                    chain.ops.insert(seq, fork.ops.clone());
                    chain.is_fork = true;
                }
                RecordBody::Index(index) => {
                    for entry in &index.recent {
                        if chain.hashes.get(&entry.seq).is_some_and(|hash| *hash != entry.hash) {
                            self.wrong(format!(
                                "{}: lists another record {}",
                                keys::record(self.log.name(), seq),
                                entry.seq
                            ));
                        }
                    }
                }
                RecordBody::Checkpoint(_) | RecordBody::Coalesce(_) | RecordBody::Segment(_) => {
                    chain.ops.insert(seq, record.body.ops().to_vec());
                }
                RecordBody::Release(_) | RecordBody::Prune(_) => {}
            }
        }
        Ok(chain)
    }

    /// Every manifest snapshot, and from the oldest one (or the first record) on, that records lead from each to the next.
    async fn snapshots(&mut self, chain: &Chain) -> Result<(), EngineError> {
        let listed =
            self.log.remote().list(&keys::folder(self.log.name(), Folder::Snapshots), None, usize::MAX).await?;
        let mut snapshots: BTreeMap<Seq, (Snapshot, Rows)> = BTreeMap::new();
        let there: BTreeSet<&str> = listed.iter().map(|meta| meta.path.as_str()).collect();
        for start in &chain.starts {
            let path = keys::snapshot(self.log.name(), *start);
            if !there.contains(path.as_str()) {
                self.wrong(format!("{path}: is gone, and records start from it"));
            }
        }
        for meta in listed {
            let Some((_, ObjectKey::Snapshot(seq))) = ObjectKey::parse(&meta.path) else {
                self.wrong(format!("{}: not a manifest snapshot's name", meta.path));
                continue;
            };
            let read = self.log.snapshot(seq).await;
            let Some(Some(snapshot)) = self.note(read)? else { continue };
            self.found.snapshots += 1;
            self.found.bytes += meta.len;
            self.meta.get_or_insert_with(|| snapshot.volume.clone());
            if chain.hashes.get(&seq).is_some_and(|hash| *hash != snapshot.record) {
                self.wrong(format!("{}: names another record {seq}", meta.path));
            }
            let rows = snapshot_rows(self.log, &snapshot).await;
            let gone = matches!(rows, Err(EngineError::Remote(littoral_ports::RemoteError::Missing { .. })));
            if gone && seq != chain.first && !chain.starts.contains(&seq) {
                // It landed when its writer was gone and its rows were pruned. Nothing starts from it.
                self.found.orphans += 1;
                continue;
            }
            for shard in &snapshot.shards {
                self.name(&shard.blob);
            }
            let Some(rows) = self.note(rows)? else { continue };
            self.found.rows += rows.len() as u64;
            if !snapshot.rows.is_empty() && !snapshot.rows.iter().eq(rows.values()) {
                self.wrong(format!("{}: the rows that travel with it are not those of its shards", meta.path));
            }
            rows.values().for_each(|row| self.name_row(row));
            self.covered(&rows, snapshot.figures, None, meta.path.as_str());
            // Before the first record stand the restore points of a coarser history: no record leads from them to anything.
            if seq >= chain.first {
                snapshots.insert(seq, (snapshot, rows));
            }
        }
        // Replay: what the records say must be what the next snapshot says.
        let start = snapshots.range(chain.first..).next().map(|(seq, _)| *seq).filter(|_| chain.first > Seq(1));
        let mut rows = start.and_then(|seq| snapshots.get(&seq)).map(|(_, rows)| rows.clone()).unwrap_or_default();
        let from = start.unwrap_or(Seq::ZERO);
        if from == Seq::ZERO && chain.is_fork {
            // Its parent keeps of them what the first record leaves.
            rows = self.beginning().await?;
        }
        let mut before =
            start.and_then(|seq| snapshots.get(&seq)).map(|(snapshot, _)| snapshot.figures).unwrap_or_default();
        for seq in chain.hashes.keys().copied().filter(|seq| *seq > from) {
            if let Some(ops) = chain.ops.get(&seq) {
                apply(&mut rows, ops);
                let figures = chain.figures.get(&seq).copied().unwrap_or_default();
                // What a record did not touch was looked at before: the work follows what changed.
                let touched = touched(ops, before, figures);
                match &touched {
                    Some(touched) => {
                        touched.iter().filter_map(|chunk| rows.get(chunk)).for_each(|row| self.name_row(row))
                    }
                    None => rows.values().for_each(|row| self.name_row(row)),
                }
                self.covered(&rows, figures, touched.as_ref(), keys::record(self.log.name(), seq).as_str());
                before = figures;
            }
            if let Some((_, said)) = snapshots.get(&seq)
                && *said != rows
            {
                self.wrong(format!(
                    "{}: its rows are not what the records before it say",
                    keys::snapshot(self.log.name(), seq)
                ));
            }
        }
        Ok(())
    }

    /// The rows of its parent that a fork begins with.
    async fn beginning(&mut self) -> Result<Rows, EngineError> {
        let read = self.log.beginning().await;
        let Some(Some(beginning)) = self.note(read)? else { return Ok(Rows::new()) };
        for shard in &beginning.shards {
            self.name(&shard.blob);
        }
        let rows = snapshot_rows(self.log, &beginning).await;
        Ok(self.note(rows)?.unwrap_or_default())
    }

    /// Every page of a state must be in some version: of these chunks, or of all.
    fn covered(&mut self, rows: &Rows, figures: VolumeFigures, chunks: Option<&BTreeSet<ChunkId>>, what: &str) {
        let Some(page_size) = figures.page_size else { return };
        let geometry = Geometry::new(page_size);
        let all = (0..geometry.chunk_count(figures.page_count)).map(ChunkId).filter(|_| chunks.is_none());
        for chunk in chunks.into_iter().flatten().copied().chain(all) {
            let Some(span) = geometry.span(chunk, figures.page_count) else { continue };
            let mut held: BTreeSet<PageNo> = BTreeSet::new();
            if let Some(row) = rows.get(&chunk) {
                if let Some(base) = &row.base {
                    held.extend(base.table.pages().filter(|page| *page <= base.last_live));
                }
                for delta in &row.deltas {
                    held.extend(delta.table.pages().filter(|page| *page <= delta.last_live));
                }
            }
            let patches = rows.get(&chunk).into_iter().flat_map(|row| &row.deltas).filter(|delta| delta.id.is_patch());
            let live = patches.flat_map(|delta| delta.table.stored().filter(|page| *page <= delta.last_live));
            let stands = |page: &PageNo| rows.get(&chunk).is_some_and(|row| !row.chain(*page).is_empty());
            if let Some(page) = live.collect::<BTreeSet<_>>().into_iter().find(|page| !stands(page)) {
                self.wrong(format!("{what}: page {page} of chunk {chunk} is a patch that stands on nothing"));
            }
            if let Some(page) = span.pages().find(|page| !held.contains(page)) {
                self.wrong(format!("{what}: page {page} of chunk {chunk} is in no version of it"));
            }
        }
    }

    async fn pins(&mut self, chain: &Chain) -> Result<(), EngineError> {
        let listed = self.log.pins().await;
        let Some(pins) = self.note(listed)? else { return Ok(()) };
        for pinned in pins {
            self.found.pins += 1;
            let path = keys::pin(self.log.name(), &pinned.key);
            let seq = pinned.pin.seq;
            match chain.hashes.get(&seq) {
                Some(hash) if *hash == pinned.pin.record => {}
                Some(_) => self.wrong(format!("{path}: names another record {seq}")),
                None => self.held_alone(&pinned, &path.to_string()).await?,
            }
            if let PinPurpose::Fork(child) = &pinned.pin.purpose
                && child.rows > Seq::ZERO
            {
                let read = self.log.snapshot(child.rows).await;
                match self.note(read)? {
                    Some(Some(snapshot)) => snapshot.shards.iter().for_each(|shard| self.name(&shard.blob)),
                    Some(None) => self.wrong(format!("{path}: the rows that {} reads are gone", child.name)),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// A state that only a pin keeps.
    async fn held_alone(&mut self, pinned: &Pinned, path: &str) -> Result<(), EngineError> {
        let seq = pinned.pin.seq;
        let opened = match self.log.open_snapshot(seq).await {
            Ok(None) => self.log.open_at(seq).await,
            opened => opened,
        };
        let Some(opened) = self.note(opened)? else { return Ok(()) };
        let Some(opened) = opened else {
            // One that came too late was to be taken back by its maker, who may have died before: it holds nothing.
            if !matches!(pinned.pin.purpose, PinPurpose::Restore | PinPurpose::Reader) {
                self.wrong(format!("{path}: the state of record {seq} is gone"));
            }
            return Ok(());
        };
        if opened.tail.hash != pinned.pin.record {
            self.wrong(format!("{path}: names another record {seq}"));
        }
        for shard in opened.snapshot.iter().flat_map(|snapshot| &snapshot.shards) {
            self.name(&shard.blob);
        }
        let rows = rows(self.log, &opened).await;
        if let Some(rows) = self.note(rows)? {
            rows.values().for_each(|row| self.name_row(row));
            self.covered(&rows, opened.tail.figures, None, path);
        }
        Ok(())
    }

    async fn head(&mut self, chain: &Chain) -> Result<(), EngineError> {
        let path = keys::head(self.log.name());
        match self.log.remote().get(&path).await {
            Ok(bytes) => {
                self.found.bytes += bytes.len() as u64;
                match format::head::decode(&bytes) {
                    Err(error) => self.wrong(format!("{path}: {error}")),
                    Ok(head) => self.hint(chain, &head, &path.to_string()),
                }
            }
            Err(littoral_ports::RemoteError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Openers survive a head that leads astray; nobody here wrote it.
    fn hint(&mut self, chain: &Chain, head: &Head, path: &str) {
        if self.meta.as_ref().is_some_and(|meta| meta.id != head.volume) {
            self.wrong(format!("{path}: of another volume, {}", head.volume));
        }
        let newest = chain.hashes.last_key_value().map(|(seq, _)| *seq);
        if newest.is_some_and(|newest| head.seq > newest) {
            self.wrong(format!("{path}: knows of record {}, which is gone", head.seq));
        }
        if chain.hashes.get(&head.snapshot.seq).is_some_and(|hash| *hash != head.snapshot.record) {
            self.wrong(format!("{path}: names another record {}", head.snapshot.seq));
        }
        let inline = head.inline.as_deref();
        if inline.is_some_and(|inline| (inline.seq, inline.record) != (head.snapshot.seq, head.snapshot.record)) {
            self.wrong(format!("{path}: holds another manifest snapshot than it names"));
        }
    }

    async fn blobs(&mut self, components: &Components, verifying: &Verifying) -> Result<(), EngineError> {
        let Some(meta) = self.meta.clone() else { return Ok(()) };
        let named = std::mem::take(&mut self.named);
        for kind in BlobKind::ALL {
            for meta in
                self.log.remote().list(&keys::folder(self.log.name(), Folder::Blobs(kind)), None, usize::MAX).await?
            {
                self.found.orphans += u64::from(!named.contains_key(meta.path.as_str()));
            }
        }
        let total = named.values().map(|(blob, _)| blob.len).sum();
        components.progress.phase("verifying", total, Unit::Bytes);
        let (log, key) = (self.log, meta.identity_key);
        let known: BTreeMap<&str, &JobNote> = verifying.known.iter().map(|note| (note.blob.as_str(), note)).collect();
        let mut named = named;
        named.retain(|path, (blob, _)| {
            let Some(note) = known.get(path.as_str()).filter(|note| note.bytes == blob.len) else { return true };
            self.found.blobs += 1;
            self.found.bytes += note.bytes;
            self.found.frames += note.frames;
            self.found.pages += note.pages;
            components.progress.advance(note.bytes);
            false
        });
        let mut checked = stream::iter(named.into_values())
            .map(|(blob, tables)| async move {
                let path = blob_path(log, &blob);
                let bytes = log.remote().get(&path).await.map_err(EngineError::from)?;
                let len = bytes.len() as u64;
                let checking = tokio::task::spawn_blocking(move || check_blob(&bytes, &blob, &tables, &key));
                let problem = checking.await.unwrap_or_else(|error| Err(error.to_string()));
                Ok::<_, EngineError>((path, len, problem))
            })
            .buffer_unordered(BLOBS_IN_FLIGHT);
        while let Some(done) = checked.next().await {
            match done {
                Ok((path, len, problem)) => {
                    self.found.blobs += 1;
                    self.found.bytes += len;
                    components.progress.advance(len);
                    match problem {
                        Ok((frames, pages)) => {
                            self.found.frames += frames;
                            self.found.pages += pages;
                            if let Some(noting) = &verifying.noting {
                                noting.note(JobNote { blob: path.to_string(), bytes: len, frames, pages });
                            }
                            components.faults.reach("verify.blob")?;
                        }
                        Err(problem) => self.found.problems.push(format!("{path}: {problem}")),
                    }
                }
                Err(error) => {
                    self.note::<()>(Err(error))?;
                }
            }
        }
        Ok(())
    }
}

impl Check<'_> {
    /// Whether everything that something names lies in its folder, with the bytes that it should have.
    async fn are_there(&mut self) -> Result<(), EngineError> {
        let named = std::mem::take(&mut self.named);
        let folders: BTreeSet<&str> = named.keys().filter_map(|path| Some(path.rsplit_once('/')?.0)).collect();
        let mut there: BTreeMap<String, u64> = BTreeMap::new();
        for folder in folders {
            let listed = self.log.remote().list(folder, None, usize::MAX).await?;
            there.extend(listed.into_iter().map(|meta| (meta.path.to_string(), meta.len)));
        }
        for (path, (blob, _)) in &named {
            match there.get(path) {
                None => self.wrong(format!("{path}: is gone, and is needed")),
                // A record is longer than the frames in it.
                Some(len) if *len != blob.len && blob.name.kind != BlobKind::Record => {
                    self.wrong(format!("{path}: has {len} bytes, its row says {}", blob.len));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Blobs as they are listed, from one on, until so many bytes were read.
    async fn listed_blobs(
        &mut self,
        components: &Components,
        cursor: Option<&str>,
        bytes: u64,
    ) -> Result<Option<String>, EngineError> {
        let Some(meta) = self.meta.clone() else { return Ok(None) };
        components.progress.phase("verifying", bytes, Unit::Bytes);
        let kinds = [BlobKind::Chunk, BlobKind::Pack, BlobKind::Segment, BlobKind::Shard];
        let folder_of = |kind: BlobKind| keys::folder(self.log.name(), Folder::Blobs(kind));
        let at = cursor.and_then(|cursor| kinds.iter().position(|kind| cursor.starts_with(&folder_of(*kind))));
        let mut after = cursor.and_then(ObjectPath::parse);
        let mut left = bytes;
        let mut last = None;
        for kind in kinds.into_iter().skip(at.unwrap_or(0)) {
            loop {
                let listed = self.log.remote().list(&folder_of(kind), after.as_ref(), LIST_STEP).await?;
                let Some(end) = listed.last().map(|meta| meta.path.clone()) else { break };
                for found in listed {
                    if left == 0 {
                        return Ok(last);
                    }
                    left = left.saturating_sub(found.len.max(1));
                    last = Some(found.path.to_string());
                    self.listed_blob(&meta, &found).await?;
                    components.progress.advance(found.len);
                }
                after = Some(end);
            }
            after = None;
        }
        Ok(None)
    }

    async fn listed_blob(&mut self, meta: &VolumeMeta, found: &ObjectMeta) -> Result<(), EngineError> {
        let Some((_, ObjectKey::Blob(name))) = ObjectKey::parse(&found.path) else { return Ok(()) };
        let bytes = match self.log.remote().get(&found.path).await {
            Ok(bytes) => bytes,
            // Pruned since it was listed: whether it was needed is asked when the names are read.
            Err(littoral_ports::RemoteError::Missing { .. }) => return Ok(()),
            Err(error) => return self.note::<()>(Err(error.into())).map(drop),
        };
        let blob = BlobRef { home: Home::Own, name, len: found.len };
        let key = meta.identity_key;
        self.found.blobs += 1;
        self.found.bytes += bytes.len() as u64;
        let checking = tokio::task::spawn_blocking(move || check_blob(&bytes, &blob, &[], &key));
        match checking.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok((frames, pages)) => {
                self.found.frames += frames;
                self.found.pages += pages;
            }
            Err(problem) => self.wrong(format!("{}: {problem}", found.path)),
        }
        Ok(())
    }
}

/// The chunks that operations may have changed; `None` for all.
fn touched(ops: &[ManifestOp], before: VolumeFigures, after: VolumeFigures) -> Option<BTreeSet<ChunkId>> {
    let geometry = Geometry::new(after.page_size.filter(|_| after.page_size == before.page_size)?);
    let mut touched = BTreeSet::new();
    let mut least = before.page_count.min(after.page_count);
    for op in ops {
        match op {
            ManifestOp::Reshape { .. } => return None,
            ManifestOp::Resize { page_count } => least = least.min(*page_count),
            _ => touched.extend(op.chunk()),
        }
    }
    if least < before.page_count.max(after.page_count) {
        // From the chunk in which the cut, or the old end, lies.
        let first = geometry.chunk_count(least).saturating_sub(1);
        touched.extend((first..geometry.chunk_count(after.page_count)).map(ChunkId));
    }
    Some(touched)
}

/// The name, every frame, every identity, and that the tables which rows keep are the blob's own.
fn check_blob(
    bytes: &[u8],
    blob: &BlobRef,
    tables: &[Held],
    key: &littoral_types::IdentityKey,
) -> Result<(u64, u64), String> {
    if blob.name.kind == BlobKind::Record {
        // Its frames were checked against the record's body, which the chain holds, when the record was read; those of one that a
        // prune left for its frames alone are checked here.
        let envelope = format::record::open(bytes).map_err(|error| error.to_string())?;
        if matches!(envelope.body, BodyPlace::Inline { .. }) {
            format::record::decode(bytes, None).map_err(|error| error.to_string())?;
        }
        return check_frames(bytes, tables);
    }
    if format::hash::blob(bytes) != blob.name.hash {
        return Err("its bytes are not those it is named after".to_owned());
    }
    if bytes.len() as u64 != blob.len {
        return Err(format!("has {} bytes, its row says {}", bytes.len(), blob.len));
    }
    if !matches!(blob.name.kind, BlobKind::Chunk | BlobKind::Pack) {
        return check_frames(bytes, tables);
    }
    let index = format::blob::verify(bytes, key).map_err(|error| error.to_string())?;
    for Held { chunk, table, .. } in tables {
        let own = index.chunks.iter().find(|own| own.chunk == *chunk);
        if own.is_none_or(|own| own.table != *table) {
            return Err(format!("a row of chunk {chunk} says that its frames lie elsewhere"));
        }
    }
    let frames = index.chunks.iter().map(|chunk| chunk.table.frame_count() as u64).sum();
    let pages = index.chunks.iter().map(|chunk| chunk.table.page_total()).sum();
    Ok((frames, pages))
}

/// Frames that nothing but rows tells of: a segment's.
fn check_frames(bytes: &[u8], tables: &[Held]) -> Result<(u64, u64), String> {
    let (mut frames, mut pages) = (0, 0);
    for Held { chunk, table, is_patch } in tables {
        for frame in table.frames() {
            let end = frame.span.end().and_then(|end| usize::try_from(end).ok());
            let stored =
                usize::try_from(frame.span.offset).ok().zip(end).and_then(|(from, till)| bytes.get(from..till));
            let stored = stored.ok_or_else(|| format!("a frame of chunk {chunk} lies beyond its end"))?;
            let checked = format::segment::check(stored, *is_patch, table.mark, frame.pages.iter());
            checked.map_err(|error| format!("a frame of chunk {chunk}: {error}"))?;
            frames += 1;
            pages += frame.pages.len() as u64;
        }
        pages += table.zeros().len();
    }
    Ok((frames, pages))
}
