//! [`LmdbManifest`]: the port, over the tables.

use crate::apply::{Edit, last_change, misuse};
use crate::lease;
use crate::lookup::{self, decoded};
use crate::open::{Environment, Fault, MAP_BYTES};
use littoral_format::rows::{change, intent, job, keys, number, object, session, staged};
use littoral_ports::manifest::{check_acknowledge, check_cursor};
use littoral_ports::{Batch, Chunks, LeaseChange, Leased, Manifest, ManifestError};
use littoral_types::{
    Change, ChangeSeq, ChunkId, ChunkRow, DeltaId, Intent, Job, JobId, Lease, ObjectMark, PageIdentity, PageNo,
    PageOwner, Seq, SessionMark, StagedBlob, TakenAway, VolumeId, VolumeName, VolumeRow,
};
use std::path::Path;
use std::sync::Arc;

/// How a manifest is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Address space to ask for at first; the map grows beyond as needed.
    pub map_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { map_bytes: MAP_BYTES }
    }
}

/// The manifest of a store, on LMDB. Clones, and others opened on the same directory in this process, are the same.
#[derive(Clone, Debug)]
pub struct LmdbManifest {
    environment: Arc<Environment>,
}

impl LmdbManifest {
    /// Opens the manifest in this directory, which is made where it is not there.
    pub fn open(dir: &Path) -> Result<Self, ManifestError> {
        Self::open_with(dir, Options::default())
    }

    /// Opens with options. Where the manifest is open in this process already, it stays as it was opened.
    pub fn open_with(dir: &Path, options: Options) -> Result<Self, ManifestError> {
        Ok(Self { environment: Environment::shared(dir, options.map_bytes)? })
    }
}

impl Manifest for LmdbManifest {
    fn volume(&self, name: &VolumeName) -> Result<Option<VolumeRow>, ManifestError> {
        self.environment.read(|tables, txn| {
            let id = decoded(&tables.names, txn, name.as_str().as_bytes(), keys::parse_volume)?;
            id.map_or(Ok(None), |id| lookup::volume_row(tables, txn, &id))
        })
    }

    fn volumes(&self) -> Result<Vec<VolumeRow>, ManifestError> {
        self.environment.read(|tables, txn| {
            let mut rows = Vec::new();
            for entry in tables.names.range(txn, &[0], &[0xff; 256])? {
                rows.extend(lookup::volume_row(tables, txn, &keys::parse_volume(entry?.1)?)?);
            }
            Ok(rows)
        })
    }

    fn commit(&self, volume: &VolumeId, batch: &Batch) -> Result<Option<ChangeSeq>, ManifestError> {
        self.environment.write(|tables, txn| Edit { tables, txn, volume }.commit(batch))
    }

    fn row(&self, volume: &VolumeId, chunk: ChunkId) -> Result<Option<ChunkRow>, ManifestError> {
        self.environment.read(|tables, txn| lookup::row(tables, txn, volume, chunk))
    }

    fn has_base(&self, volume: &VolumeId, chunk: ChunkId) -> Result<bool, ManifestError> {
        self.environment.read(|tables, txn| lookup::has_base(tables, txn, volume, chunk))
    }

    fn rows(&self, volume: &VolumeId, from: ChunkId, max: usize) -> Result<Chunks, ManifestError> {
        self.environment.read(|tables, txn| lookup::rows(tables, txn, volume, from, max))
    }

    fn deltas(&self, volume: &VolumeId, from: ChunkId, max: usize) -> Result<Chunks, ManifestError> {
        self.environment.read(|tables, txn| lookup::deltas_from(tables, txn, volume, from, max))
    }

    fn newest_delta(&self, volume: &VolumeId, page: PageNo) -> Result<Option<DeltaId>, ManifestError> {
        self.environment.read(|tables, txn| lookup::newest_delta(tables, txn, volume, page))
    }

    fn identities(
        &self,
        volume: &VolumeId,
        from: PageNo,
        max: usize,
    ) -> Result<Vec<Option<PageIdentity>>, ManifestError> {
        self.environment.read(|tables, txn| lookup::identities(tables, txn, volume, from, max))
    }

    fn sessions(&self, volume: &VolumeId) -> Result<Vec<SessionMark>, ManifestError> {
        self.environment.read(|tables, txn| {
            // No name is longer, and none holds a byte that UTF-8 has not.
            let first = keys::volume(volume);
            let last = [&first[..], &[0xff]].concat();
            let entries = tables.sessions.range(txn, &first, &last)?;
            entries.map(|entry| Ok(session::decode(entry?.1)?)).collect()
        })
    }

    fn objects(&self, volume: &VolumeId) -> Result<Vec<ObjectMark>, ManifestError> {
        self.environment.read(|tables, txn| {
            let (first, last) = (keys::group(volume, 0), keys::group(volume, u64::MAX));
            tables.objects.range(txn, &first, &last)?.map(|entry| Ok(object::decode(entry?.1)?)).collect()
        })
    }

    fn owners(&self, volume: &VolumeId, from: PageNo, max: usize) -> Result<Vec<PageOwner>, ManifestError> {
        self.environment.read(|tables, txn| lookup::owners(tables, txn, volume, from, max))
    }

    fn intent(&self, volume: &VolumeId) -> Result<Option<Intent>, ManifestError> {
        self.environment.read(|tables, txn| decoded(&tables.intents, txn, &keys::volume(volume), intent::decode))
    }

    fn job(&self, volume: &VolumeId) -> Result<Option<(Seq, Vec<StagedBlob>)>, ManifestError> {
        self.environment.read(|tables, txn| {
            let Some(birth) = decoded(&tables.jobs, txn, &keys::volume(volume), number::decode)? else {
                return Ok(None);
            };
            let (first, last) = (keys::staged(volume, &[0; 32]), keys::staged(volume, &[0xff; 32]));
            let blobs = tables.staged.range(txn, &first, &last)?.map(|entry| Ok(staged::decode(entry?.1)?));
            Ok(Some((Seq(birth), blobs.collect::<Result<_, Fault>>()?)))
        })
    }

    fn leases(&self) -> Result<Vec<Lease>, ManifestError> {
        self.environment.read(|tables, txn| lease::all(tables, txn))
    }

    fn lease(&self, change: &LeaseChange) -> Result<Leased, ManifestError> {
        self.environment.write(|tables, txn| lease::apply(tables, txn, change))
    }

    fn taken_away(&self, max: usize) -> Result<Vec<TakenAway>, ManifestError> {
        self.environment.read(|tables, txn| lease::taken_away(tables, txn, max))
    }

    fn jobs_told(&self) -> Result<Vec<Job>, ManifestError> {
        self.environment.read(|tables, txn| {
            let entries = tables.jobs_told.range(txn, &keys::job(JobId(0)), &keys::job(JobId(u64::MAX)))?;
            entries.map(|entry| Ok(job::decode(entry?.1)?)).collect()
        })
    }

    fn tell_job(&self, id: JobId, told: Option<&Job>) -> Result<(), ManifestError> {
        self.environment.write(|tables, txn| {
            match told {
                Some(told) => tables.jobs_told.put(txn, &keys::job(id), &job::encode(told).map_err(misuse)?)?,
                None => drop(tables.jobs_told.delete(txn, &keys::job(id))?),
            }
            Ok(())
        })
    }

    fn tell_jobs(&self, all: &[Job]) -> Result<(), ManifestError> {
        self.environment.write(|tables, txn| {
            tables.jobs_told.delete_range(txn, &keys::job(JobId(0)), &keys::job(JobId(u64::MAX)))?;
            for told in all {
                tables.jobs_told.put(txn, &keys::job(told.id), &job::encode(told).map_err(misuse)?)?;
            }
            Ok(())
        })
    }

    fn changes(&self, after: ChangeSeq, max: usize) -> Result<Vec<Change>, ManifestError> {
        let Some(first) = after.0.checked_add(1) else { return Ok(Vec::new()) };
        self.environment.read(|tables, txn| {
            let (first, last) = (keys::change(ChangeSeq(first)), keys::change(ChangeSeq(u64::MAX)));
            let entries = tables.change_log.range(txn, &first, &last)?.take(max);
            entries.map(|entry| Ok(change::decode(entry?.1)?)).collect()
        })
    }

    fn changes_since(&self, volume: &VolumeId, after: Seq) -> Result<Vec<Change>, ManifestError> {
        self.environment.read(|tables, txn| lookup::changes_since(tables, txn, volume, after))
    }

    fn subscribe(&self, cursor: &str) -> Result<ChangeSeq, ManifestError> {
        check_cursor(cursor)?;
        self.environment.write(|tables, txn| {
            let cursors = &tables.change_cursors;
            if let Some(held) = decoded(cursors, txn, cursor.as_bytes(), number::decode)? {
                return Ok(ChangeSeq(held));
            }
            cursors.put(txn, cursor.as_bytes(), &number::encode(0))?;
            Ok(ChangeSeq(0))
        })
    }

    fn acknowledge(&self, cursor: &str, change: ChangeSeq) -> Result<(), ManifestError> {
        check_cursor(cursor)?;
        self.environment.write(|tables, txn| {
            let cursors = &tables.change_cursors;
            let held = decoded(cursors, txn, cursor.as_bytes(), number::decode)?.map(ChangeSeq);
            check_acknowledge(cursor, held, change, last_change(tables, txn)?)?;
            Ok(cursors.put(txn, cursor.as_bytes(), &number::encode(change.0))?)
        })
    }

    fn unsubscribe(&self, cursor: &str) -> Result<(), ManifestError> {
        check_cursor(cursor)?;
        self.environment.write(|tables, txn| {
            tables.change_cursors.delete(txn, cursor.as_bytes())?;
            Ok(())
        })
    }

    fn trim(&self) -> Result<u64, ManifestError> {
        self.environment.write(|tables, txn| {
            let mut done = last_change(tables, txn)?;
            for entry in tables.change_cursors.range(txn, &[0], &[0xff; 256])? {
                done = done.min(ChangeSeq(number::decode(entry?.1)?));
            }
            let mut doomed = Vec::new();
            for entry in tables.change_log.range(txn, &keys::change(ChangeSeq(0)), &keys::change(done))? {
                let change = change::decode(entry?.1)?;
                doomed.push((change.volume, change.seq(), change.change));
            }
            for (volume, seq, change) in &doomed {
                tables.change_log.delete(txn, &keys::change(*change))?;
                // Gone already where the volume was reset since.
                tables.changes_of.delete(txn, &keys::change_of(volume, *seq, *change))?;
            }
            Ok(doomed.len() as u64)
        })
    }
}
