//! What must be true, known apart from the engine: it sees each write as the object store does, and remembers.
//!
//! At every write and deletion it checks:
//! 1. A record follows from the one before it, and what it names lies in the store already (I2, P3).
//! 2. No record names what an earlier prune record doomed, and nothing is deleted that none had doomed (P1).
//! 3. A record whose place was free only because it had been pruned is no part of the log, and is never acknowledged (P5).

use crate::database::Image;
use crate::process::Process;
use bytes::Bytes;
use futures::FutureExt;
use littoral_format as format;
use littoral_format::keys::{self, ObjectKey};
use littoral_plan::{Link, follows};
use littoral_ports::{MemoryRemote, Remote};
use littoral_types::{
    BlobName, BlobRef, BodyPlace, Epoch, Lsn, ManifestOp, ObjectPath, Owner, RecordBody, RecordHash, RecordKind, Seq,
    SnapshotName, VolumeName,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A record of the log.
#[derive(Clone, Debug)]
pub struct Landed {
    /// Its place.
    pub seq: Seq,
    /// Its hash.
    pub hash: RecordHash,
    /// What it says.
    pub kind: RecordKind,
    /// Its term.
    pub epoch: Epoch,
    /// The last commit as of it.
    pub lsn: Lsn,
    /// Whether it brought a commit.
    pub commits: bool,
    /// Its writer's wall clock.
    pub time_ms: u64,
    /// The machine whose content it is.
    pub machine: String,
    /// The database as of it; `None` before the first checkpoint.
    pub image: Option<Image>,
    /// Whose term it is as of it.
    pub owner: Option<Owner>,
}

/// Knows what must be true of one volume.
#[derive(Debug)]
pub struct Oracle {
    volume: VolumeName,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    landed: BTreeMap<Seq, Landed>,
    end: Option<Link>,
    claims: BTreeMap<Epoch, Owner>,
    floor: Seq,
    doomed_blobs: BTreeMap<BlobName, Seq>,
    doomed_snapshots: BTreeSet<Seq>,
    named_blobs: BTreeSet<BlobName>,
    strays: BTreeMap<Seq, RecordHash>,
    /// What processes are about to publish, by machine.
    working_on: BTreeMap<String, Image>,
    /// What records stand for, by hash: the machine and its content.
    intended: BTreeMap<RecordHash, (String, Option<Image>)>,
    named: BTreeMap<SnapshotName, (Lsn, Image)>,
    violations: Vec<String>,
}

impl Oracle {
    /// Knows nothing yet.
    pub fn new(volume: VolumeName) -> Self {
        Self { volume, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume it watches.
    pub fn volume(&self) -> &VolumeName {
        &self.volume
    }

    /// Something is not as it must be.
    pub fn violated(&self, what: impl ToString) {
        self.state().violations.push(what.to_string());
    }

    /// What was not as it must be, so far.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// A machine is about to publish this content.
    pub fn works_on(&self, machine: &str, image: &Image) {
        self.state().working_on.insert(machine.to_owned(), image.clone());
    }

    /// A process is about to publish this record.
    pub fn intended(&self, process: &Process, record: &[u8]) {
        let Ok(envelope) = format::record::open(record) else {
            return self.violated(format!("{}: intends a record that does not decode", process.name));
        };
        let mut state = self.state();
        let machine = process.name.split('.').next().unwrap_or_default().to_owned();
        let image = state.working_on.get(&machine).cloned();
        let image = image.filter(|_| envelope.kind.folds());
        // An intent that is found again stands for what it stood for.
        state.intended.entry(envelope.hash).or_insert((machine, image));
    }

    /// An object was written.
    pub fn wrote(&self, server: &MemoryRemote, path: &ObjectPath, bytes: &Bytes, by: &str) {
        let Some((volume, key)) = ObjectKey::parse(path) else { return };
        if volume != self.volume {
            return;
        }
        if let ObjectKey::Record(seq) = key
            && let Err(what) = self.record(server, seq, bytes, by)
        {
            self.violated(format!("{by} wrote record {seq}: {what}"));
        }
    }

    fn record(&self, server: &MemoryRemote, seq: Seq, bytes: &Bytes, by: &str) -> Result<(), String> {
        let envelope = format::record::open(bytes).map_err(|error| error.to_string())?;
        let mut state = self.state();
        let end = state.end.unwrap_or(Link::START);
        if seq <= end.seq {
            // Free only because it was pruned: never part of the log (rule P5).
            state.strays.insert(seq, envelope.hash);
            return if seq < state.floor { Ok(()) } else { Err("its place was taken and not pruned".to_owned()) };
        }
        follows(&end, &envelope.header, envelope.kind).map_err(|broken| broken.to_string())?;
        let body = match &envelope.body {
            BodyPlace::Inline { .. } => None,
            BodyPlace::Blob(blob) => Some(self.lies_there(server, &state, blob)?),
        };
        let (_, body) = format::record::decode(bytes, body.as_deref()).map_err(|error| error.to_string())?;
        let mut named = Vec::new();
        for op in body.ops() {
            let blob = match op {
                ManifestOp::PutBase { base, .. } => &base.blob,
                ManifestOp::PutDelta { delta, .. } | ManifestOp::ReplaceDeltas { delta: Some(delta), .. } => {
                    &delta.blob
                }
                _ => continue,
            };
            self.lies_there(server, &state, blob)?;
            named.push(blob.name);
        }
        state.named_blobs.extend(named);
        let before = state.landed.get(&end.seq).cloned();
        let mut owner = before.as_ref().and_then(|before| before.owner.clone());
        match &body {
            RecordBody::Claim(claim) => {
                state.claims.insert(envelope.header.epoch, claim.owner.clone());
                let ended = owner.as_ref().map(|_| end.epoch);
                if claim.takes_over != ended {
                    return Err(format!("a claim that takes over from {:?} where {ended:?} ended", claim.takes_over));
                }
                owner = Some(claim.owner.clone());
            }
            RecordBody::Release(_) => owner = None,
            RecordBody::Prune(prune) => {
                if prune.floor < state.floor {
                    return Err(format!("a floor of {} below {}", prune.floor, state.floor));
                }
                state.floor = prune.floor;
                for blob in &prune.blobs {
                    if blob.birth >= seq {
                        return Err(format!("dooms {blob}, which was born after it"));
                    }
                    state.doomed_blobs.insert(*blob, seq);
                }
                state.doomed_snapshots.extend(&prune.snapshots);
            }
            _ => {}
        }
        let (machine, image) = match state.intended.get(&envelope.hash) {
            Some(known) => known.clone(),
            None => return Err(format!("no manifest held an intent of it ({by})")),
        };
        let commits = !envelope.header.lsns.is_empty();
        if commits && image.is_none() {
            return Err("a commit of which nobody knows the content".to_owned());
        }
        let image = image.or(before.and_then(|before| before.image));
        let landed = Landed {
            seq,
            hash: envelope.hash,
            kind: envelope.kind,
            epoch: envelope.header.epoch,
            lsn: envelope.header.lsns.last,
            commits,
            time_ms: envelope.header.time_ms,
            machine,
            image,
            owner,
        };
        state.landed.insert(seq, landed);
        state.end = Some(Link::after(&envelope.header, envelope.hash));
        Ok(())
    }

    fn lies_there(&self, server: &MemoryRemote, state: &State, blob: &BlobRef) -> Result<Bytes, String> {
        if let Some(prune) = state.doomed_blobs.get(&blob.name) {
            return Err(format!("names {}, which record {prune} doomed (P1)", blob.name));
        }
        match server.get(&keys::blob(&self.volume, &blob.name)).now_or_never() {
            Some(Ok(bytes)) if bytes.len() as u64 == blob.len => Ok(bytes),
            _ => Err(format!("names {}, which is not there (I2)", blob.name)),
        }
    }

    /// An object is about to be deleted.
    pub fn deletes(&self, path: &ObjectPath, by: &str) {
        let Some((volume, key)) = ObjectKey::parse(path) else { return };
        if volume != self.volume {
            return;
        }
        let mut state = self.state();
        let doomed = match key {
            ObjectKey::Record(seq) => seq < state.floor,
            ObjectKey::Snapshot(seq) => state.doomed_snapshots.contains(&seq),
            ObjectKey::Blob(name) => state.doomed_blobs.contains_key(&name),
            ObjectKey::Pin(_) | ObjectKey::Probe(_) => true,
            ObjectKey::Head | ObjectKey::Copy | ObjectKey::Promoted => false,
        };
        if !doomed {
            state.violations.push(format!("{by} deletes {path}, which no record doomed (P1)"));
        }
    }

    /// A machine was told that its content is published.
    pub fn acknowledged(&self, machine: &str, seq: Seq, lsn: Lsn, image: &Image) {
        let mut state = self.state();
        let right = state.landed.get(&seq).is_some_and(|landed| {
            landed.machine == machine && landed.commits && landed.lsn == lsn && landed.image.as_ref() == Some(image)
        });
        if !right {
            state.violations.push(format!("{machine} was told that LSN {lsn} is record {seq}, and it is not"));
        }
    }

    /// A machine was told who won.
    pub fn told_who_won(&self, machine: &str, epoch: Epoch, owner: &Owner) {
        let mut state = self.state();
        if state.claims.get(&epoch) != Some(owner) {
            state.violations.push(format!("{machine} was told that epoch {epoch} is {}'s, and it is not", owner.label));
        }
    }

    /// A machine was told that its snapshot is made; `None` when it is dropped (or about to be).
    pub fn named(&self, name: &SnapshotName, lsn: Option<Lsn>) {
        let mut state = self.state();
        match lsn.map(|lsn| (lsn, image_at(&state, lsn))) {
            Some((lsn, Some(image))) => {
                state.named.insert(name.clone(), (lsn, image));
            }
            Some((lsn, None)) => state.violations.push(format!("snapshot {name} was made of LSN {lsn}, of nothing")),
            None => {
                state.named.remove(name);
            }
        }
    }

    /// The snapshots that must be there.
    pub fn snapshots(&self) -> BTreeMap<SnapshotName, (Lsn, Image)> {
        self.state().named.clone()
    }

    /// Paths of the blobs that any record ever named.
    pub fn named_blobs(&self) -> Vec<String> {
        self.state().named_blobs.iter().map(|name| keys::blob(&self.volume, name).to_string()).collect()
    }

    /// The newest record.
    pub fn tail(&self) -> Option<Landed> {
        self.state().landed.last_key_value().map(|(_, landed)| landed.clone())
    }

    /// Records before this one may be gone.
    pub fn floor(&self) -> Seq {
        self.state().floor
    }

    /// Whether a process won a name that had been pruned.
    pub fn strays(&self) -> BTreeMap<Seq, RecordHash> {
        self.state().strays.clone()
    }

    /// All records ever, oldest first.
    pub fn records(&self) -> Vec<Landed> {
        self.state().landed.values().cloned().collect()
    }

    /// Commits that must be restorable, oldest first.
    pub fn points(&self) -> Vec<Landed> {
        let state = self.state();
        state.landed.range(state.floor..).map(|(_, landed)| landed).filter(|landed| landed.commits).cloned().collect()
    }

    /// The database as of a commit, whether it was pruned or not.
    pub fn image_at(&self, lsn: Lsn) -> Option<Image> {
        image_at(&self.state(), lsn)
    }
}

fn image_at(state: &State, lsn: Lsn) -> Option<Image> {
    state.landed.values().find(|landed| landed.commits && landed.lsn == lsn)?.image.clone()
}
