//! A manifest that lives as long as the process: for tests, and for restores on a machine that keeps nothing.
//!
//! It promises what [`Manifest`] promises, except that nothing outlives the last clone: a clone is the same manifest.

use crate::manifest::{LeaseChange, LeaseEdit, Leased, check_acknowledge, check_cursor};
use crate::{Batch, Chunks, Manifest, ManifestError};
use littoral_types::limits::TAKEN_AWAY_MAX;
use littoral_types::{
    Change, ChangeSeq, ChunkId, ChunkRow, DeltaId, Intent, Job, JobId, Lease, LeaseToken, ManifestOp, ObjectId,
    ObjectMark, PageCount, PageIdentity, PageNo, PageOwner, Seq, SessionMark, SessionName, StagedBlob, TakenAway,
    VolumeId, VolumeName, VolumeRow,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keeps a manifest in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryManifest {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    volumes: BTreeMap<VolumeId, Volume>,
    names: BTreeMap<VolumeName, VolumeId>,
    log: BTreeMap<ChangeSeq, Change>,
    /// The newest number ever given: numbers are not used again when the log has been trimmed.
    last_change: ChangeSeq,
    cursors: BTreeMap<String, ChangeSeq>,
    leases: BTreeMap<LeaseToken, Lease>,
    /// The newest number ever given.
    last_lease: LeaseToken,
    taken: Vec<TakenAway>,
    jobs: BTreeMap<JobId, Job>,
}

#[derive(Clone, Debug)]
struct Volume {
    row: VolumeRow,
    rows: BTreeMap<ChunkId, ChunkRow>,
    /// Which delta holds a page's newest live version; pages of which only a base knows are not in it.
    newest: BTreeMap<PageNo, DeltaId>,
    identities: BTreeMap<PageNo, PageIdentity>,
    intent: Option<Intent>,
    job: Option<(Seq, BTreeMap<[u8; 32], StagedBlob>)>,
    sessions: BTreeMap<SessionName, SessionMark>,
    objects: BTreeMap<ObjectId, ObjectMark>,
    owners: BTreeMap<PageNo, PageOwner>,
    /// Where in the change log this volume's entries are, by the last record each brought.
    changes: BTreeSet<(Seq, ChangeSeq)>,
}

impl Volume {
    const fn new(row: VolumeRow) -> Self {
        Self {
            row,
            rows: BTreeMap::new(),
            newest: BTreeMap::new(),
            identities: BTreeMap::new(),
            intent: None,
            job: None,
            sessions: BTreeMap::new(),
            objects: BTreeMap::new(),
            owners: BTreeMap::new(),
            changes: BTreeSet::new(),
        }
    }

    fn apply(&mut self, op: &ManifestOp) {
        match op {
            ManifestOp::Reshape { .. } => {
                self.rows.clear();
                self.newest.clear();
                self.identities.clear();
                self.owners.clear();
            }
            ManifestOp::Resize { page_count } => {
                self.rows.retain(|_, row| {
                    row.apply(op);
                    !row.is_empty()
                });
                cut(&mut self.newest, *page_count);
                cut(&mut self.identities, *page_count);
            }
            ManifestOp::PutBase { chunk, .. }
            | ManifestOp::PutDelta { chunk, .. }
            | ManifestOp::ReplaceDeltas { chunk, .. }
            | ManifestOp::PutSegment { chunk, .. }
            | ManifestOp::DropSegment { chunk } => self.edit(*chunk, op),
            ManifestOp::Session(mark) if mark.step.serial().is_none() => drop(self.sessions.remove(&mark.session)),
            ManifestOp::Session(mark) => drop(self.sessions.insert(mark.session.clone(), mark.clone())),
            ManifestOp::Object(mark) if mark.object.is_none() => drop(self.objects.remove(&mark.id)),
            ManifestOp::Object(mark) => drop(self.objects.insert(mark.id, mark.clone())),
        }
    }

    fn edit(&mut self, chunk: ChunkId, op: &ManifestOp) {
        let row = self.rows.entry(chunk).or_insert_with(|| ChunkRow::new(chunk));
        for page in row.deltas.iter().flat_map(|delta| delta.table.pages()) {
            self.newest.remove(&page);
        }
        row.apply(op);
        // Oldest first, so that the newest delta has the last word.
        for delta in &row.deltas {
            let live = delta.table.pages().filter(|page| *page <= delta.last_live);
            self.newest.extend(live.map(|page| (page, delta.id)));
        }
        if row.is_empty() {
            self.rows.remove(&chunk);
        }
    }
}

/// Forgets what lies beyond a database's end.
fn cut<T>(map: &mut BTreeMap<PageNo, T>, size: PageCount) {
    let first_dead = PageNo::from_index(size.0);
    if size.holds(first_dead) {
        return; // No page number lies beyond the largest database.
    }
    drop(map.split_off(&first_dead));
}

impl State {
    fn forget(&mut self, id: &VolumeId) {
        if let Some(volume) = self.volumes.remove(id) {
            self.names.remove(&volume.row.meta.name);
        }
    }

    /// Says in the change log that work was cut off.
    fn undone(&mut self, taken: &TakenAway) {
        let volume = taken.lease.wish.volume;
        let Some(after) = self.volumes.get(&volume).map(|volume| volume.row.tail.seq) else { return };
        let change = ChangeSeq(self.last_change.0 + 1);
        self.last_change = change;
        let (records, ops, undone) = (Vec::new(), Vec::new(), Some(taken.clone()));
        self.log.insert(change, Change { change, volume, after, records, ops, undone });
    }
}

impl MemoryManifest {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy as of now that goes its own way, as the manifest on a restored image of a machine does. (A clone is the same
    /// manifest.)
    pub fn image(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state().clone())) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave a batch half applied: checks come first and applying cannot fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Manifest for MemoryManifest {
    fn volume(&self, name: &VolumeName) -> Result<Option<VolumeRow>, ManifestError> {
        let state = self.state();
        let id = state.names.get(name);
        Ok(id.and_then(|id| state.volumes.get(id)).map(|volume| volume.row.clone()))
    }

    fn volumes(&self) -> Result<Vec<VolumeRow>, ManifestError> {
        let state = self.state();
        Ok(state.names.values().filter_map(|id| state.volumes.get(id)).map(|volume| volume.row.clone()).collect())
    }

    fn commit(&self, id: &VolumeId, batch: &Batch) -> Result<Option<ChangeSeq>, ManifestError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let known = state.volumes.get(id);
        let named = batch.volume.as_ref().and_then(|row| state.names.get(&row.meta.name));
        let named = named.and_then(|other| state.volumes.get(other)).map(|volume| volume.row.clone());
        let job = known.and_then(|volume| volume.job.as_ref()).map(|(birth, _)| *birth);
        batch.check(id, known.map(|volume| &volume.row), named.as_ref(), job)?;
        if let Some(token) = batch.lease
            && state.leases.remove(&token).is_none()
        {
            return Err(ManifestError::NoLease(token));
        }

        if batch.reset {
            state.forget(id);
            if let Some(named) = &named {
                state.forget(&named.meta.id);
            }
            // Of one that is only learnt anew they stand.
            let is_gone = |other: &VolumeId| match &batch.volume {
                Some(_) => other != id && named.as_ref().is_some_and(|named| named.meta.id == *other),
                None => other == id,
            };
            state.leases.retain(|_, lease| !is_gone(&lease.wish.volume));
        }
        if let Some(row) = &batch.volume {
            state.names.insert(row.meta.name.clone(), *id);
            state.volumes.entry(*id).or_insert_with(|| Volume::new(row.clone())).row = row.clone();
        }
        let Some(volume) = state.volumes.get_mut(id) else {
            return Ok(None); // The volume was to be forgotten.
        };
        for op in &batch.ops {
            volume.apply(op);
        }
        volume.identities.extend(batch.identities.iter().copied());
        if batch.forgets_owners() {
            volume.owners.clear();
        }
        volume.owners.extend(batch.owners.iter().flatten().copied());
        volume.owners.retain(|_, owner| owner.is_known());
        if let Some(intent) = &batch.intent {
            volume.intent.clone_from(intent);
        }
        if let Some(job) = batch.job
            && volume.job.as_ref().map(|(birth, _)| *birth) != job
        {
            volume.job = job.map(|birth| (birth, BTreeMap::new()));
        }
        if let Some((_, staged)) = &mut volume.job {
            staged.extend(batch.staged.iter().map(|blob| (blob.input, blob.clone())));
        }
        let Some((after, records)) = batch.log.clone() else {
            return Ok(None);
        };
        let change = ChangeSeq(state.last_change.0 + 1);
        state.last_change = change;
        let entry = Change { change, volume: *id, after, records, ops: batch.ops.clone(), undone: None };
        volume.changes.insert((entry.seq(), change));
        state.log.insert(change, entry);
        Ok(Some(change))
    }

    fn row(&self, volume: &VolumeId, chunk: ChunkId) -> Result<Option<ChunkRow>, ManifestError> {
        Ok(self.state().volumes.get(volume).and_then(|volume| volume.rows.get(&chunk)).cloned())
    }

    fn has_base(&self, volume: &VolumeId, chunk: ChunkId) -> Result<bool, ManifestError> {
        Ok(self.row(volume, chunk)?.is_some_and(|row| row.base.is_some()))
    }

    fn rows(&self, volume: &VolumeId, from: ChunkId, max: usize) -> Result<Chunks, ManifestError> {
        let state = self.state();
        let rows = state.volumes.get(volume).map(|volume| volume.rows.range(from..).take(max));
        Ok(rows.into_iter().flatten().map(|(_, row)| row.clone()).collect())
    }

    fn deltas(&self, volume: &VolumeId, from: ChunkId, max: usize) -> Result<Chunks, ManifestError> {
        let state = self.state();
        let rows = state.volumes.get(volume).into_iter().flat_map(|volume| volume.rows.range(from..));
        let with_some = rows.filter(|(_, row)| !row.deltas.is_empty()).take(max);
        Ok(with_some.map(|(_, row)| ChunkRow { base: None, ..row.clone() }).collect())
    }

    fn newest_delta(&self, volume: &VolumeId, page: PageNo) -> Result<Option<DeltaId>, ManifestError> {
        Ok(self.state().volumes.get(volume).and_then(|volume| volume.newest.get(&page)).copied())
    }

    fn identities(
        &self,
        volume: &VolumeId,
        from: PageNo,
        max: usize,
    ) -> Result<Vec<Option<PageIdentity>>, ManifestError> {
        let count = (max as u64).min(u64::MAX - from.index());
        let pages = (0..count).map(|i| PageNo::from_index(from.index() + i));
        let state = self.state();
        let known = state.volumes.get(volume);
        Ok(pages.map(|page| known.and_then(|volume| volume.identities.get(&page)).copied()).collect())
    }

    fn sessions(&self, volume: &VolumeId) -> Result<Vec<SessionMark>, ManifestError> {
        let state = self.state();
        let known = state.volumes.get(volume).map(|volume| volume.sessions.values().cloned().collect());
        Ok(known.unwrap_or_default())
    }

    fn objects(&self, volume: &VolumeId) -> Result<Vec<ObjectMark>, ManifestError> {
        let state = self.state();
        let known = state.volumes.get(volume).map(|volume| volume.objects.values().cloned().collect());
        Ok(known.unwrap_or_default())
    }

    fn owners(&self, volume: &VolumeId, from: PageNo, max: usize) -> Result<Vec<PageOwner>, ManifestError> {
        let count = (max as u64).min(u64::MAX - from.index());
        let pages = (0..count).map(|i| PageNo::from_index(from.index() + i));
        let state = self.state();
        let known = state.volumes.get(volume);
        let owner = |page| known.and_then(|volume| volume.owners.get(&page)).copied().unwrap_or(PageOwner::UNKNOWN);
        Ok(pages.map(owner).collect())
    }

    fn intent(&self, volume: &VolumeId) -> Result<Option<Intent>, ManifestError> {
        Ok(self.state().volumes.get(volume).and_then(|volume| volume.intent.clone()))
    }

    fn job(&self, volume: &VolumeId) -> Result<Option<(Seq, Vec<StagedBlob>)>, ManifestError> {
        let state = self.state();
        let job = state.volumes.get(volume).and_then(|volume| volume.job.as_ref());
        Ok(job.map(|(birth, staged)| (*birth, staged.values().cloned().collect())))
    }

    fn leases(&self) -> Result<Vec<Lease>, ManifestError> {
        Ok(self.state().leases.values().cloned().collect())
    }

    fn lease(&self, change: &LeaseChange) -> Result<Leased, ManifestError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let leases: Vec<Lease> = state.leases.values().cloned().collect();
        let LeaseEdit { answer, gone, taken, put } = change.over(&leases, state.last_lease)?;
        gone.iter().for_each(|token| drop(state.leases.remove(token)));
        taken.iter().for_each(|taken| state.undone(taken));
        state.taken.extend(taken);
        let beyond = state.taken.len().saturating_sub(usize::try_from(TAKEN_AWAY_MAX).unwrap_or(usize::MAX));
        state.taken.drain(..beyond);
        if let Some(lease) = put {
            state.last_lease = state.last_lease.max(lease.token);
            state.leases.insert(lease.token, lease);
        }
        Ok(answer)
    }

    fn taken_away(&self, max: usize) -> Result<Vec<TakenAway>, ManifestError> {
        let state = self.state();
        let before = state.taken.len().saturating_sub(max);
        Ok(state.taken.iter().skip(before).cloned().collect())
    }

    fn jobs_told(&self) -> Result<Vec<Job>, ManifestError> {
        Ok(self.state().jobs.values().cloned().collect())
    }

    fn tell_job(&self, id: JobId, job: Option<&Job>) -> Result<(), ManifestError> {
        let mut state = self.state();
        match job {
            Some(job) => drop(state.jobs.insert(id, job.clone())),
            None => drop(state.jobs.remove(&id)),
        }
        Ok(())
    }

    fn tell_jobs(&self, all: &[Job]) -> Result<(), ManifestError> {
        self.state().jobs = all.iter().map(|job| (job.id, job.clone())).collect();
        Ok(())
    }

    fn changes(&self, after: ChangeSeq, max: usize) -> Result<Vec<Change>, ManifestError> {
        let state = self.state();
        let entries = state.log.range((Excluded(after), Unbounded)).take(max);
        Ok(entries.map(|(_, change)| change.clone()).collect())
    }

    fn changes_since(&self, volume: &VolumeId, after: Seq) -> Result<Vec<Change>, ManifestError> {
        let state = self.state();
        let Some(known) = state.volumes.get(volume) else { return Ok(Vec::new()) };
        let keys = known.changes.range((Excluded((after, ChangeSeq(u64::MAX))), Unbounded));
        Ok(keys.filter_map(|(_, change)| state.log.get(change).cloned()).collect())
    }

    fn subscribe(&self, cursor: &str) -> Result<ChangeSeq, ManifestError> {
        check_cursor(cursor)?;
        Ok(*self.state().cursors.entry(cursor.to_owned()).or_default())
    }

    fn acknowledge(&self, cursor: &str, change: ChangeSeq) -> Result<(), ManifestError> {
        check_cursor(cursor)?;
        let mut state = self.state();
        check_acknowledge(cursor, state.cursors.get(cursor).copied(), change, state.last_change)?;
        state.cursors.insert(cursor.to_owned(), change);
        Ok(())
    }

    fn unsubscribe(&self, cursor: &str) -> Result<(), ManifestError> {
        check_cursor(cursor)?;
        self.state().cursors.remove(cursor);
        Ok(())
    }

    fn trim(&self) -> Result<u64, ManifestError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let done = state.cursors.values().min().copied().unwrap_or(state.last_change);
        let kept = state.log.split_off(&ChangeSeq(done.0.saturating_add(1)));
        let dropped = std::mem::replace(&mut state.log, kept);
        for change in dropped.values() {
            if let Some(volume) = state.volumes.get_mut(&change.volume) {
                volume.changes.remove(&(change.seq(), change.change));
            }
        }
        Ok(dropped.len() as u64)
    }
}

#[cfg(all(test, feature = "conformance"))]
mod tests {
    use super::*;
    use crate::conformance::manifest::{Subject, all};

    struct InMemory(MemoryManifest);

    impl Subject for InMemory {
        fn open(&mut self) -> Arc<dyn Manifest> {
            Arc::new(self.0.clone())
        }
    }

    #[test]
    fn a_manifest_in_memory_keeps_every_promise() {
        all(&mut || Box::new(InMemory(MemoryManifest::new())));
    }
}
