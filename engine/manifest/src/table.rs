//! The tables, and the few ways in which they are touched.

use heed::types::Bytes;
use heed::{Database, RoTxn, RwTxn};
use std::ops::Bound;

/// One named LMDB table of bytes to bytes. Keys and values are spelled by `littoral_format::rows`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table(Database<'static, Bytes, Bytes>);

/// All tables of a manifest. `NAMES` gives each its name, in the order of the fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    /// The layout's version, and the newest change's number.
    pub(crate) meta: Table,
    /// Volume to its row.
    pub(crate) volumes: Table,
    /// Name to volume.
    pub(crate) names: Table,
    /// Chunk to its base.
    pub(crate) chunk_catalog: Table,
    /// Chunk and delta to the delta.
    pub(crate) chunk_delta_index: Table,
    /// Page and delta, newest first, to nothing: the live pages of every delta.
    pub(crate) page_index: Table,
    /// Last live page and version to nothing: what a cut must look at.
    pub(crate) life_ends: Table,
    /// Group of pages to their identities.
    pub(crate) identities: Table,
    /// Change to what it did.
    pub(crate) change_log: Table,
    /// Volume, last record and change to nothing.
    pub(crate) changes_of: Table,
    /// Cursor to the last change it has done with.
    pub(crate) change_cursors: Table,
    /// Volume to what it is about to publish.
    pub(crate) intents: Table,
    /// Volume to the birth of its running job.
    pub(crate) jobs: Table,
    /// Volume and input to the blob that its job staged.
    pub(crate) staged: Table,
    /// Volume and named session to how far it is.
    pub(crate) sessions: Table,
    /// Lease to what is held by it.
    pub(crate) leases: Table,
    /// Place to the lease that was taken away.
    pub(crate) leases_taken: Table,
    /// Volume and table or index to what is known of it.
    pub(crate) objects: Table,
    /// Group of pages to their owners.
    pub(crate) owners: Table,
    /// Job to what was told of it.
    pub(crate) jobs_told: Table,
    /// A log's segment, by its number, to what is there of it.
    pub(crate) log_segments: Table,
}

impl Tables {
    /// Persisted; a name is never given to another table.
    pub(crate) const NAMES: [&'static str; 21] = [
        "meta",
        "volumes",
        "names",
        "chunk_catalog",
        "chunk_delta_index",
        "page_index",
        "life_ends",
        "identities",
        "change_log",
        "changes_of",
        "change_cursors",
        "intents",
        "jobs",
        "staged",
        "sessions",
        "leases",
        "leases_taken",
        "objects",
        "owners",
        "jobs_told",
        "log_segments",
    ];

    pub(crate) fn new(databases: [Database<'static, Bytes, Bytes>; 21]) -> Self {
        let [
            meta,
            volumes,
            names,
            chunk_catalog,
            chunk_delta_index,
            page_index,
            life_ends,
            identities,
            change_log,
            changes_of,
            change_cursors,
            intents,
            jobs,
            staged,
            sessions,
            leases,
            leases_taken,
            objects,
            owners,
            jobs_told,
            log_segments,
        ] = databases.map(Table);
        Self {
            meta,
            volumes,
            names,
            chunk_catalog,
            chunk_delta_index,
            page_index,
            life_ends,
            identities,
            change_log,
            changes_of,
            change_cursors,
            intents,
            jobs,
            staged,
            sessions,
            leases,
            leases_taken,
            objects,
            owners,
            jobs_told,
            log_segments,
        }
    }
}

/// A key and its value, as they lie in the map.
pub(crate) type Entry<'t> = (&'t [u8], &'t [u8]);

impl Table {
    /// The value of a key.
    pub(crate) fn get<'t>(&self, txn: &'t RoTxn<'_>, key: &[u8]) -> heed::Result<Option<&'t [u8]>> {
        steps::count();
        self.0.get(txn, key)
    }

    /// The entries from `first` to `last`, both included, ascending.
    pub(crate) fn range<'t>(
        &self,
        txn: &'t RoTxn<'_>,
        first: &[u8],
        last: &[u8],
    ) -> heed::Result<impl Iterator<Item = heed::Result<Entry<'t>>> + use<'t>> {
        steps::count();
        let range = (Bound::Included(first), Bound::Included(last));
        Ok(self.0.range(txn, &range)?.inspect(|_| steps::count()))
    }

    /// Sets a key's value.
    pub(crate) fn put(&self, txn: &mut RwTxn<'_>, key: &[u8], value: &[u8]) -> heed::Result<()> {
        steps::count();
        self.0.put(txn, key, value)
    }

    /// Forgets a key. Whether it was there.
    pub(crate) fn delete(&self, txn: &mut RwTxn<'_>, key: &[u8]) -> heed::Result<bool> {
        steps::count();
        self.0.delete(txn, key)
    }

    /// Forgets the keys from `first` to `last`, both included.
    pub(crate) fn delete_range(&self, txn: &mut RwTxn<'_>, first: &[u8], last: &[u8]) -> heed::Result<()> {
        let deleted = self.0.delete_range(txn, &(Bound::Included(first), Bound::Included(last)))?;
        (0..=deleted).for_each(|_| steps::count());
        Ok(())
    }

    /// Forgets all keys that begin with a volume's. No key of any table is longer than its volume and 64 bytes more.
    pub(crate) fn delete_under(&self, txn: &mut RwTxn<'_>, volume: &[u8; 16]) -> heed::Result<()> {
        let mut last = [0xff; 80];
        last[..16].copy_from_slice(volume);
        self.delete_range(txn, volume, &last)
    }
}

/// Counts steps of cursors and descents of trees, so that tests can say what a lookup costs whatever the machine is like.
#[cfg(test)]
pub(crate) mod steps {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<u64> = const { Cell::new(0) };
    }

    pub(crate) fn count() {
        STEPS.set(STEPS.get() + 1);
    }

    /// What `act` costs.
    pub(crate) fn of<T>(act: impl FnOnce() -> T) -> (u64, T) {
        let before = STEPS.get();
        let answer = act();
        (STEPS.get() - before, answer)
    }
}

#[cfg(not(test))]
mod steps {
    pub(crate) const fn count() {}
}
