//! When a manifest snapshot is due (rules P7, P8).

use littoral_types::limits::{HEAD_INTERVAL_MS, SNAPSHOT_OPS_BYTES, SNAPSHOT_RECORDS};

/// What has gathered since the last one.
#[derive(Clone, Copy, Debug, Default)]
pub struct SnapshotPressure {
    /// Whether there is one at all.
    pub exists: bool,
    /// Whether a checkpoint was published since.
    pub changed: bool,
    /// Records since.
    pub records: u64,
    /// Encoded size of what they did.
    pub ops_bytes: u64,
    /// Milliseconds since the head was written, as far as that is known.
    pub head_age_ms: Option<u64>,
}

/// Whether an opener would be better off with a new one. Its cost is the rows of the touched shards, so that it is bought
/// only when as much has been uploaded; the head is never written twice within [`HEAD_INTERVAL_MS`].
pub fn snapshot_due(pressure: &SnapshotPressure) -> bool {
    let rested = pressure.head_age_ms.is_none_or(|age| age >= HEAD_INTERVAL_MS);
    let heavy = pressure.ops_bytes >= SNAPSHOT_OPS_BYTES || pressure.records >= SNAPSHOT_RECORDS;
    pressure.changed && ((!pressure.exists) || (heavy && rested))
}
