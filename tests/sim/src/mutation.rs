//! Steps of the protocol done wrongly, one at a time: by a network, or a manifest, that lies to one machine exactly as a wrong step would
//! have it.
//!
//! What this room promises:
//! 1. The engine under test is the one that ships: nothing in it knows of this, and no build of it has another branch for it.
//! 2. Each lie is what the engine would see, and what the object store would get, if that one step were left out or done at another time;
//!    everything else is as ever.
//! 3. Whatever a mutation breaks is found by the same judges that find nothing without it: the oracle, and the look at everything.
//!
//! Read next: `tests/mutations.rs`, where each is shown to be caught.

use crate::net::{Net, now};
use bytes::Bytes;
use littoral_format as format;
use littoral_format::blob::Footer;
use littoral_format::keys::{self, Folder, ObjectKey};
use littoral_ports::{ObjectMeta, Remote, RemoteError};
use littoral_types::{BlobName, ObjectPath, PageIdentity, PageNo, RecordBody, Seq};
use std::collections::BTreeMap;
use std::mem::take;

/// A step that is done wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutation {
    /// A record is put whether its name is free or not (rule P3).
    NoFence,
    /// A blob of the same bytes that lies in the bucket is taken for one's own, under whatever name (rule P1).
    DedupByHead,
    /// What a prune dooms is deleted, then it is said (rule P1).
    DeleteBeforePrune,
    /// Whoever pinned takes the tail for what it was when he opened the log (rule P2).
    PinWithoutRereading,
    /// After a silence the tail is looked at before the record is put, and not after the answer (rule P5).
    CheckBeforeThePut,
    /// A record is put, then the blobs that it names (invariant I2).
    PublishBeforeUpload,
    /// An intent counts whether the lease stands that it was made under, or not (`Batch::lease`).
    IntentWithoutLease,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 7] = [
        Mutation::NoFence,
        Mutation::DedupByHead,
        Mutation::DeleteBeforePrune,
        Mutation::PinWithoutRereading,
        Mutation::CheckBeforeThePut,
        Mutation::PublishBeforeUpload,
        Mutation::IntentWithoutLease,
    ];
}

/// What the lies need to remember.
#[derive(Debug, Default)]
pub(crate) struct Lies {
    /// Who does what wrongly; an empty name means everybody.
    told: Vec<(String, Mutation)>,
    /// Of each process: what a look at the log showed it last.
    looked: BTreeMap<String, Vec<ObjectMeta>>,
    /// Of each process: what its next look at the log is to show.
    shows: BTreeMap<String, Vec<ObjectMeta>>,
    /// Of each process: what it believes to have uploaded.
    uploads: BTreeMap<String, Vec<(ObjectPath, Bytes)>>,
    /// Names that stand for one and the same object: whoever deletes the first deletes all.
    shared: BTreeMap<ObjectPath, Vec<ObjectPath>>,
}

impl Net {
    /// From now on this machine does this step wrongly; every machine where the name is empty.
    pub fn mutate(&self, machine: &str, mutation: Mutation) {
        self.lies().told.push((machine.to_owned(), mutation));
    }

    pub(crate) fn does(&self, process: &str, mutation: Mutation) -> bool {
        let machine = process.split('.').next().unwrap_or_default();
        self.lies().told.iter().any(|(who, what)| *what == mutation && (who.is_empty() || who == machine))
    }

    /// Whether a record goes over whatever has its name.
    pub(crate) fn goes_over(&self, process: &str, path: &ObjectPath) -> bool {
        record_of(path).is_some() && self.does(process, Mutation::NoFence)
    }

    /// A process is about to put something if it is absent.
    pub(crate) fn before_put_new(&self, process: &str, path: &ObjectPath, bytes: &Bytes) {
        if let Some(seq) = record_of(path) {
            if self.does(process, Mutation::DeleteBeforePrune) {
                self.delete_first(process, bytes);
            }
            if self.does(process, Mutation::CheckBeforeThePut) {
                let newest = self.listed(1);
                if newest.first().and_then(|newest| record_of(&newest.path)).is_some_and(|newest| newest.next() == seq)
                {
                    let meta = ObjectMeta { path: path.clone(), len: bytes.len() as u64, modified_ms: 0 };
                    self.lies().shows.insert(process.to_owned(), vec![meta]);
                }
            }
        }
        if matches!(ObjectKey::parse(path), Some((_, ObjectKey::Pin(_))))
            && self.does(process, Mutation::PinWithoutRereading)
        {
            let mut lies = self.lies();
            let machine = process.split('.').next().unwrap_or_default().to_owned();
            // Whoever opened the log may have been another process of the same machine.
            let of_machine =
                lies.looked.range(format!("{machine}.")..).take_while(|(who, _)| who.starts_with(&machine));
            let last = of_machine.last().map(|(_, listed)| listed.clone());
            if let Some(last) = last {
                lies.shows.insert(process.to_owned(), last);
            }
        }
    }

    /// A process asks for something: whatever it had believed to be done is done by now.
    pub(crate) fn before_request(&self, process: &str) {
        let pending = take(self.lies().uploads.entry(process.to_owned()).or_default());
        for (path, bytes) in pending {
            if now(self.server.put(&path, bytes.clone())).is_ok() {
                self.oracle.wrote(&self.server, &path, &bytes, process);
            }
        }
    }

    /// Whether an upload is only believed to be one. It is done after the next record.
    pub(crate) fn uploads_later(&self, process: &str, path: &ObjectPath, bytes: &Bytes) -> bool {
        let later = blob_of(path).is_some() && self.does(process, Mutation::PublishBeforeUpload);
        if later {
            self.lies().uploads.entry(process.to_owned()).or_default().push((path.clone(), bytes.clone()));
        }
        later
    }

    /// A blob was uploaded: where one of the very same pages lay there already, nothing was, and both names are one object's.
    pub(crate) fn uploaded(&self, process: &str, path: &ObjectPath) {
        let Some(name) = blob_of(path).filter(|_| self.does(process, Mutation::DedupByHead)) else { return };
        let objects = self.server.objects();
        let Some(own) = objects.iter().find(|(other, _)| other == path).and_then(|(_, bytes)| pages_of(bytes)) else {
            return;
        };
        let is_equal = |(other, bytes): &&(ObjectPath, Bytes)| {
            let is_other = blob_of(other).is_some_and(|other| other.kind == name.kind && other != name);
            is_other && pages_of(bytes).is_some_and(|pages| pages == own)
        };
        if let Some((first, _)) = objects.iter().find(is_equal) {
            self.lies().shared.entry(first.clone()).or_default().push(path.clone());
        }
    }

    /// Objects were deleted, and with them whatever is the same object.
    pub(crate) fn deleted(&self, paths: &[ObjectPath]) -> Result<(), RemoteError> {
        let gone: Vec<ObjectPath> = {
            let mut lies = self.lies();
            paths.iter().flat_map(|path| lies.shared.remove(path).unwrap_or_default()).collect()
        };
        if gone.is_empty() { Ok(()) } else { now(self.server.delete(&gone)) }
    }

    /// What a look at a folder shows in place of what is there.
    pub(crate) fn shows(&self, process: &str, folder: &str) -> Option<Vec<ObjectMeta>> {
        if folder != keys::folder(self.oracle.volume(), Folder::Log) {
            return None;
        }
        self.lies().shows.remove(process)
    }

    /// What a look at a folder showed.
    pub(crate) fn looked(&self, process: &str, folder: &str, listed: &[ObjectMeta]) {
        if folder == keys::folder(self.oracle.volume(), Folder::Log) && !listed.is_empty() {
            self.lies().looked.insert(process.to_owned(), listed.to_vec());
        }
    }

    fn listed(&self, max: usize) -> Vec<ObjectMeta> {
        now(self.server.list(&keys::folder(self.oracle.volume(), Folder::Log), None, max)).unwrap_or_default()
    }

    /// What a prune's record dooms goes before the record is there.
    fn delete_first(&self, process: &str, record: &Bytes) {
        let inline = format::record::decode(record, None);
        let Ok((_, RecordBody::Prune(prune))) = inline else { return };
        let volume = self.oracle.volume();
        let records = self.listed(usize::MAX).into_iter().map(|meta| meta.path);
        let records = records.filter(|path| record_of(path).is_some_and(|seq| seq < prune.floor));
        let blobs = prune.blobs.iter().map(|name| keys::blob(volume, name));
        let snapshots = prune.snapshots.iter().map(|seq| keys::snapshot(volume, *seq));
        let paths: Vec<ObjectPath> = records.chain(blobs).chain(snapshots).collect();
        paths.iter().for_each(|path| self.oracle.deletes(path, process));
        // A store in memory does as it is told.
        let _ = now(self.server.delete(&paths));
    }
}

/// What a blob's pages are, by identity.
fn pages_of(blob: &Bytes) -> Option<Vec<(PageNo, PageIdentity)>> {
    match format::blob::read_index(blob, blob.len() as u64).ok()? {
        Footer::Index(index) => Some(index.chunks.into_iter().flat_map(|chunk| chunk.identities).collect()),
        Footer::Need(_) => None,
    }
}

fn record_of(path: &ObjectPath) -> Option<Seq> {
    match ObjectKey::parse(path) {
        Some((_, ObjectKey::Record(seq))) => Some(seq),
        _ => None,
    }
}

fn blob_of(path: &ObjectPath) -> Option<BlobName> {
    match ObjectKey::parse(path) {
        Some((_, ObjectKey::Blob(name))) => Some(name),
        _ => None,
    }
}
