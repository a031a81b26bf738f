//! Pins: what anyone, anywhere, needs kept (rule P2).

use crate::{Lsn, PinId, RecordHash, Seq, SnapshotName, VolumeId, VolumeName};

/// One thing that must not be pruned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its own name.
    pub id: PinId,
    /// The volume it holds.
    pub volume: VolumeId,
    /// The record whose state must stay restorable.
    pub seq: Seq,
    /// That record's hash.
    pub record: RecordHash,
    /// The last commit of that state.
    pub lsn: Lsn,
    /// Why.
    pub purpose: PinPurpose,
    /// Who, for people.
    pub holder: String,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// When it ends by itself; `None` for never.
    pub expires_ms: Option<u64>,
}

/// Why something is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinPurpose {
    /// A named snapshot.
    Snapshot(SnapshotName),
    /// A restore that is running.
    Restore,
    /// A lazy reader.
    Reader,
    /// A volume that was forked from here.
    Fork(Child),
}

/// A volume that was forked, as its parent knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// What it is called, under the same remote.
    pub name: VolumeName,
    /// Which volume that is. Where a first version wrote the pin nobody knows, and it is all zeros.
    pub id: VolumeId,
    /// The manifest snapshot whose rows it reads where they are; zero for none.
    pub rows: Seq,
}
