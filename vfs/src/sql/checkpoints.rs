//! The table `littoral_checkpoints`: the newest records of the volume's log, as the object store has them.

use super::{Cell, DEADLINE, Refusal, Table, Target, ours};
use crate::work::{self, Ground};
use littoral_engine::live;
use littoral_types::{Position, RecordSummary};

/// Rows that are asked for.
const ROWS_MAX: usize = 1000;

/// The table.
pub(super) const TABLE: Table = Table {
    name: "littoral_checkpoints",
    columns: &[
        "record INTEGER",
        "kind TEXT",
        "position TEXT",
        "time_ms INTEGER",
        "pages_changed INTEGER",
        "bytes INTEGER",
        "pages INTEGER",
    ],
    rows,
};

fn rows(target: Option<&Target>) -> Result<Vec<Vec<Cell>>, Refusal> {
    let Target { database, said, .. } = ours(target)?;
    let Ground { place, said, components } = work::ground(database.path(), said)?;
    if place.found.is_none() {
        // Nothing was published from here yet: whatever lies under that name is somebody else's.
        return Ok(Vec::new());
    }
    let records = work::run(DEADLINE, async move || {
        let (log, _) = place.log(&said.settings, &components)?;
        live::history(&log, ROWS_MAX).await
    })?;
    Ok(records.iter().map(row).collect())
}

fn row(record: &RecordSummary) -> Vec<Cell> {
    let position = Position { epoch: record.epoch, lsn: record.lsns.last };
    vec![
        Cell::count(record.seq.0),
        Cell::text(record.kind),
        if record.lsns.is_empty() { Cell::Null } else { Cell::text(position) },
        Cell::count(record.time_ms),
        Cell::count(record.added.pages),
        Cell::count(record.added.bytes),
        Cell::count(record.page_count.0),
    ]
}
