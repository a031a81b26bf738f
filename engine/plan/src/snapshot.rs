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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p08_a_manifest_snapshot_is_due_when_there_is_none_or_enough_has_gathered_and_the_head_has_rested() {
        let rested = Some(HEAD_INTERVAL_MS);
        for (exists, changed, records, ops_bytes, head_age_ms, due) in [
            (false, false, 0, 0, None, false),
            (false, true, 1, 1, None, true),
            (false, true, 1, 1, Some(0), true),
            (true, true, 1, 1, rested, false),
            (true, true, SNAPSHOT_RECORDS - 1, SNAPSHOT_OPS_BYTES - 1, rested, false),
            (true, true, SNAPSHOT_RECORDS, 0, rested, true),
            (true, true, 0, SNAPSHOT_OPS_BYTES, rested, true),
            (true, true, SNAPSHOT_RECORDS, SNAPSHOT_OPS_BYTES, Some(HEAD_INTERVAL_MS - 1), false),
            (true, false, SNAPSHOT_RECORDS, 0, rested, false),
        ] {
            let pressure = SnapshotPressure { exists, changed, records, ops_bytes, head_age_ms };
            assert_eq!(snapshot_due(&pressure), due, "{pressure:?}");
        }
    }
}
