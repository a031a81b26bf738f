//! What a batch does to the tables, in one transaction.
//!
//! The tables say what [`ChunkRow::apply`] would make of the operations, and these hold after each of them:
//!
//! 1. A version (a base in `chunk_catalog`, a delta in `chunk_delta_index`) has exactly one entry in `life_ends`.
//! 2. `page_index` holds exactly the live pages of every delta: those in its table up to its last live one.
//! 3. `identities` holds no group without an identity.
//!
//! So a page's newest delta is the first entry of the page, and a cut finds what it touches by seeking to its end.
//!
//! [`ChunkRow::apply`]: littoral_types::ChunkRow::apply

use crate::lease;
use crate::lookup::{decoded, volume_row};
use crate::open::Fault;
use crate::table::Tables;
use heed::RwTxn;
use littoral_format::FormatError;
use littoral_format::rows::{
    base, change, delta, identities, intent, keys, number, object, owners, segment, session, staged, volume,
};
use littoral_ports::{Batch, ManifestError};
use littoral_types::{
    Base, Change, ChangeSeq, ChunkId, Delta, DeltaId, ManifestOp, ObjectMark, PageCount, PageIdentity, PageNo,
    PageOwner, Seq, SessionMark, VolumeId,
};

/// Where `meta` keeps the newest number that a change was ever given.
pub(crate) const LAST_CHANGE: &[u8] = b"last_change";

/// One transaction's changes to one volume.
pub(crate) struct Edit<'a, 'p> {
    pub(crate) tables: &'a Tables,
    pub(crate) txn: &'a mut RwTxn<'p>,
    pub(crate) volume: &'a VolumeId,
}

impl Edit<'_, '_> {
    /// Does all that a batch says, or refuses it.
    pub(crate) fn commit(&mut self, batch: &Batch) -> Result<Option<ChangeSeq>, Fault> {
        let (tables, id) = (self.tables, self.volume);
        let known = volume_row(tables, self.txn, id)?;
        let named = match &batch.volume {
            Some(row) => match tables.names.get(self.txn, row.meta.name.as_str().as_bytes())? {
                Some(other) => volume_row(tables, self.txn, &keys::parse_volume(other)?)?,
                None => None,
            },
            None => None,
        };
        let job = tables.jobs.get(self.txn, &keys::volume(id))?.map(number::decode).transpose()?.map(Seq);
        batch.check(id, known.as_ref(), named.as_ref(), job)?;
        if let Some(token) = batch.lease
            && !tables.leases.delete(self.txn, &keys::lease(token))?
        {
            return Err(Fault::Final(ManifestError::NoLease(token)));
        }

        if batch.reset {
            for row in known.iter().chain(&named) {
                self.forget(&row.meta.id, row.meta.name.as_str())?;
                // Of one that is only learnt anew they stand.
                if row.meta.id != *id || batch.volume.is_none() {
                    lease::forget(tables, self.txn, &row.meta.id)?;
                }
            }
        }
        let Some(after) = batch.volume.as_ref().or(known.as_ref().filter(|_| !batch.reset)) else {
            return Ok(None); // The volume was to be forgotten.
        };
        if batch.volume.is_some() {
            let row = volume::encode(after).map_err(misuse)?;
            tables.volumes.put(self.txn, &keys::volume(id), &row)?;
            tables.names.put(self.txn, after.meta.name.as_str().as_bytes(), &keys::volume(id))?;
        }
        for op in &batch.ops {
            self.apply(op)?;
        }
        self.remember(&batch.identities)?;
        if batch.forgets_owners() {
            tables.owners.delete_under(self.txn, &keys::volume(id))?;
        }
        self.own(batch.owners.as_deref().unwrap_or_default())?;
        match &batch.intent {
            Some(Some(intent)) => {
                let row = intent::encode(intent).map_err(misuse)?;
                tables.intents.put(self.txn, &keys::volume(id), &row)?;
            }
            Some(None) => drop(tables.intents.delete(self.txn, &keys::volume(id))?),
            None => {}
        }
        self.job(batch, if batch.reset { None } else { job })?;
        match &batch.log {
            Some((after, records)) => {
                let change = ChangeSeq(self.last_change()?.0 + 1);
                let (records, ops) = (records.clone(), batch.ops.clone());
                let entry = Change { change, volume: *id, after: *after, records, ops, undone: None };
                let row = change::encode(&entry).map_err(misuse)?;
                tables.meta.put(self.txn, LAST_CHANGE, &number::encode(change.0))?;
                tables.change_log.put(self.txn, &keys::change(change), &row)?;
                tables.changes_of.put(self.txn, &keys::change_of(id, entry.seq(), change), &[])?;
                Ok(Some(change))
            }
            None => Ok(None),
        }
    }

    fn last_change(&self) -> Result<ChangeSeq, Fault> {
        last_change(self.tables, self.txn)
    }

    /// Forgets a volume, all but its entries in the change log, which are their subscribers'.
    fn forget(&mut self, id: &VolumeId, name: &str) -> Result<(), Fault> {
        let tables = self.tables;
        tables.names.delete(self.txn, name.as_bytes())?;
        for table in [
            &tables.volumes,
            &tables.chunk_catalog,
            &tables.chunk_delta_index,
            &tables.page_index,
            &tables.life_ends,
            &tables.identities,
            &tables.changes_of,
            &tables.intents,
            &tables.jobs,
            &tables.staged,
            &tables.sessions,
            &tables.objects,
            &tables.owners,
            &tables.log_segments,
        ] {
            table.delete_under(self.txn, &keys::volume(id))?;
        }
        Ok(())
    }

    fn job(&mut self, batch: &Batch, running: Option<Seq>) -> Result<(), Fault> {
        let (tables, id) = (self.tables, self.volume);
        if let Some(job) = batch.job.filter(|job| *job != running) {
            tables.staged.delete_under(self.txn, &keys::volume(id))?;
            match job {
                Some(birth) => tables.jobs.put(self.txn, &keys::volume(id), &number::encode(birth.0))?,
                None => drop(tables.jobs.delete(self.txn, &keys::volume(id))?),
            }
        }
        for blob in &batch.staged {
            let row = staged::encode(blob).map_err(misuse)?;
            tables.staged.put(self.txn, &keys::staged(id, &blob.input), &row)?;
        }
        Ok(())
    }

    fn apply(&mut self, op: &ManifestOp) -> Result<(), Fault> {
        match op {
            ManifestOp::Reshape { .. } => {
                self.drop_all_versions()?;
                self.tables.identities.delete_under(self.txn, &keys::volume(self.volume))?;
                self.tables.owners.delete_under(self.txn, &keys::volume(self.volume))?;
                Ok(())
            }
            ManifestOp::Resize { page_count } => self.resize(*page_count),
            ManifestOp::PutBase { chunk, base } => {
                self.drop_base(*chunk)?;
                for delta in self.deltas(*chunk)?.into_iter().filter(|delta| !base.leaves(delta.id)) {
                    self.drop_delta(*chunk, &delta)?;
                }
                self.put_base(*chunk, base)
            }
            ManifestOp::PutDelta { chunk, delta } => self.put_delta(*chunk, delta),
            ManifestOp::ReplaceDeltas { chunk, replaced, delta } => {
                for id in replaced {
                    if let Some(old) = self.delta(*chunk, *id)? {
                        self.drop_delta(*chunk, &old)?;
                    }
                }
                delta.as_ref().map_or(Ok(()), |delta| self.put_delta(*chunk, delta))
            }
            ManifestOp::Session(mark) => self.session(mark),
            ManifestOp::Object(mark) => self.object(mark),
            ManifestOp::PutSegment { chunk, segment } => {
                let row = segment::encode(segment).map_err(misuse)?;
                Ok(self.tables.log_segments.put(self.txn, &keys::chunk(self.volume, *chunk), &row)?)
            }
            ManifestOp::DropSegment { chunk } => {
                self.tables.log_segments.delete(self.txn, &keys::chunk(self.volume, *chunk))?;
                Ok(())
            }
        }
    }

    /// One that is gone has no row.
    fn session(&mut self, mark: &SessionMark) -> Result<(), Fault> {
        let key = keys::session(self.volume, &mark.session);
        match mark.step.serial() {
            None => drop(self.tables.sessions.delete(self.txn, &key)?),
            Some(_) => self.tables.sessions.put(self.txn, &key, &session::encode(mark).map_err(misuse)?)?,
        }
        Ok(())
    }

    /// One that was dropped has no row.
    fn object(&mut self, mark: &ObjectMark) -> Result<(), Fault> {
        let key = keys::group(self.volume, u64::from(mark.id.0));
        match mark.object {
            None => drop(self.tables.objects.delete(self.txn, &key)?),
            Some(_) => self.tables.objects.put(self.txn, &key, &object::encode(mark).map_err(misuse)?)?,
        }
        Ok(())
    }

    /// Whose pages are from here on, one read and one write per group.
    fn own(&mut self, new: &[(PageNo, PageOwner)]) -> Result<(), Fault> {
        let mut places: Vec<_> = new.iter().map(|(page, owner)| (owners::place(*page), *owner)).collect();
        places.sort_by_key(|((group, _), _)| *group);
        for run in places.chunk_by(|((one, _), _), ((other, _), _)| one == other) {
            let Some(((group, _), _)) = run.first() else { continue };
            let key = keys::group(self.volume, *group);
            let known = decoded(&self.tables.owners, self.txn, &key, owners::decode)?;
            let mut known = known.unwrap_or_else(|| vec![PageOwner::UNKNOWN; owners::GROUP]);
            for ((_, place), owner) in run {
                if let Some(slot) = known.get_mut(*place) {
                    *slot = *owner;
                }
            }
            if known.iter().any(|owner| owner.is_known()) {
                self.tables.owners.put(self.txn, &key, &owners::encode(&known).map_err(misuse)?)?;
            } else {
                self.tables.owners.delete(self.txn, &key)?;
            }
        }
        Ok(())
    }

    fn drop_all_versions(&mut self) -> Result<(), Fault> {
        let tables = self.tables;
        for table in [&tables.chunk_catalog, &tables.chunk_delta_index, &tables.page_index, &tables.life_ends] {
            table.delete_under(self.txn, &keys::volume(self.volume))?;
        }
        Ok(())
    }

    fn put_base(&mut self, chunk: ChunkId, base: &Base) -> Result<(), Fault> {
        let row = base::encode(base).map_err(misuse)?;
        self.tables.chunk_catalog.put(self.txn, &keys::chunk(self.volume, chunk), &row)?;
        self.tables.life_ends.put(self.txn, &self.base_end(chunk, base), &[])?;
        Ok(())
    }

    fn drop_base(&mut self, chunk: ChunkId) -> Result<(), Fault> {
        let key = keys::chunk(self.volume, chunk);
        if let Some(old) = decoded(&self.tables.chunk_catalog, self.txn, &key, base::decode)? {
            self.tables.life_ends.delete(self.txn, &self.base_end(chunk, &old))?;
            self.tables.chunk_catalog.delete(self.txn, &key)?;
        }
        Ok(())
    }

    fn delta(&self, chunk: ChunkId, id: DeltaId) -> Result<Option<Delta>, Fault> {
        decoded(&self.tables.chunk_delta_index, self.txn, &keys::delta(self.volume, chunk, id), delta::decode)
    }

    fn deltas(&self, chunk: ChunkId) -> Result<Vec<Delta>, Fault> {
        crate::lookup::deltas(self.tables, self.txn, self.volume, chunk)
    }

    fn put_delta(&mut self, chunk: ChunkId, delta: &Delta) -> Result<(), Fault> {
        if let Some(old) = self.delta(chunk, delta.id)? {
            self.drop_delta(chunk, &old)?;
        }
        let row = delta::encode(delta).map_err(misuse)?;
        self.tables.chunk_delta_index.put(self.txn, &keys::delta(self.volume, chunk, delta.id), &row)?;
        self.tables.life_ends.put(self.txn, &self.delta_end(chunk, delta), &[])?;
        for page in delta.table.pages().filter(|page| *page <= delta.last_live) {
            self.tables.page_index.put(self.txn, &keys::page_delta(self.volume, page, delta.id), &[])?;
        }
        Ok(())
    }

    fn drop_delta(&mut self, chunk: ChunkId, delta: &Delta) -> Result<(), Fault> {
        self.tables.chunk_delta_index.delete(self.txn, &keys::delta(self.volume, chunk, delta.id))?;
        self.tables.life_ends.delete(self.txn, &self.delta_end(chunk, delta))?;
        for page in delta.table.pages().filter(|page| *page <= delta.last_live) {
            self.tables.page_index.delete(self.txn, &keys::page_delta(self.volume, page, delta.id))?;
        }
        Ok(())
    }

    /// A version that nothing is alive in from the start goes with the next cut, wherever that cuts.
    fn base_end(&self, chunk: ChunkId, base: &Base) -> [u8; 41] {
        let dead = base.last_live < base.span.first;
        keys::life_end(self.volume, if dead { u64::MAX } else { base.last_live.get() }, chunk, None)
    }

    fn delta_end(&self, chunk: ChunkId, delta: &Delta) -> [u8; 41] {
        let dead = !delta.table.pages().any(|page| page <= delta.last_live);
        keys::life_end(self.volume, if dead { u64::MAX } else { delta.last_live.get() }, chunk, Some(delta.id))
    }

    /// Kills every page beyond a new end (rule S11). Touches what reaches beyond it and nothing else.
    fn resize(&mut self, size: PageCount) -> Result<(), Fault> {
        let Some(last) = size.last() else {
            self.drop_all_versions()?;
            return Ok(self.tables.identities.delete_under(self.txn, &keys::volume(self.volume))?);
        };
        let beyond = last.get().saturating_add(1);
        for (chunk, version) in self.ends_from(beyond)? {
            match version {
                None => {
                    let key = keys::chunk(self.volume, chunk);
                    let Some(mut base) = decoded(&self.tables.chunk_catalog, self.txn, &key, base::decode)? else {
                        continue;
                    };
                    self.drop_base(chunk)?;
                    base.last_live = base.last_live.min(last);
                    if base.last_live >= base.span.first {
                        self.put_base(chunk, &base)?;
                    }
                }
                Some(id) => {
                    let Some(mut delta) = self.delta(chunk, id)? else { continue };
                    self.drop_delta(chunk, &delta)?;
                    delta.last_live = delta.last_live.min(last);
                    if delta.table.pages().any(|page| page <= delta.last_live) {
                        self.put_delta(chunk, &delta)?;
                    }
                }
            }
        }
        self.forget_identities_from(last)
    }

    /// The versions whose last live page is this one or beyond.
    fn ends_from(&self, page: u64) -> Result<Vec<(ChunkId, Option<DeltaId>)>, Fault> {
        let first = keys::life_end(self.volume, page, ChunkId(0), None);
        let last = keys::life_end(self.volume, u64::MAX, ChunkId(u64::MAX), Some(DeltaId(u64::MAX)));
        let entries = self.tables.life_ends.range(self.txn, &first, &last)?;
        entries
            .map(|entry| {
                keys::parse_life_end(entry?.0).map(|(_, _, chunk, version)| (chunk, version)).map_err(Fault::from)
            })
            .collect()
    }

    /// Forgets the identities of all pages after `last`.
    fn forget_identities_from(&mut self, last: PageNo) -> Result<(), Fault> {
        let (group, place) = identities::place(last);
        let key = keys::group(self.volume, group);
        if let Some(mut known) = decoded(&self.tables.identities, self.txn, &key, identities::decode)?
            && known.iter().skip(place + 1).any(Option::is_some)
        {
            known.iter_mut().skip(place + 1).for_each(|identity| *identity = None);
            self.put_group(group, &known)?;
        }
        if let Some(next) = group.checked_add(1) {
            let last = keys::group(self.volume, u64::MAX);
            self.tables.identities.delete_range(self.txn, &keys::group(self.volume, next), &last)?;
        }
        Ok(())
    }

    /// Remembers identities, one read and one write per group whatever their order.
    fn remember(&mut self, new: &[(PageNo, PageIdentity)]) -> Result<(), Fault> {
        let mut places: Vec<_> = new.iter().map(|(page, identity)| (identities::place(*page), *identity)).collect();
        // Stable: of two identities of one page the later one stays.
        places.sort_by_key(|((group, _), _)| *group);
        for run in places.chunk_by(|((one, _), _), ((other, _), _)| one == other) {
            let Some(((group, _), _)) = run.first() else { continue };
            let key = keys::group(self.volume, *group);
            let known = decoded(&self.tables.identities, self.txn, &key, identities::decode)?;
            let mut known = known.unwrap_or_else(|| vec![None; identities::GROUP]);
            for ((_, place), identity) in run {
                if let Some(slot) = known.get_mut(*place) {
                    *slot = Some(*identity);
                }
            }
            self.put_group(*group, &known)?;
        }
        Ok(())
    }

    fn put_group(&mut self, group: u64, known: &[Option<PageIdentity>]) -> Result<(), Fault> {
        let key = keys::group(self.volume, group);
        if known.iter().all(Option::is_none) {
            self.tables.identities.delete(self.txn, &key)?;
        } else {
            self.tables.identities.put(self.txn, &key, &identities::encode(known).map_err(misuse)?)?;
        }
        Ok(())
    }
}

/// The newest number that a change was ever given.
pub(crate) fn last_change(tables: &Tables, txn: &heed::RoTxn<'_>) -> Result<ChangeSeq, Fault> {
    Ok(ChangeSeq(decoded(&tables.meta, txn, LAST_CHANGE, number::decode)?.unwrap_or(0)))
}

/// A value that cannot be spelled is its caller's fault.
pub(crate) fn misuse(error: FormatError) -> Fault {
    Fault::Final(ManifestError::Misuse(error.to_string()))
}
