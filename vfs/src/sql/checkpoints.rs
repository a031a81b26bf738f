//! The table `littoral_checkpoints`: the newest records of the volume's log, as the object store has them.

use super::{Cell, Refusal, Rows, Table, Target, of_log};
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
    rows: Rows::OfDatabase(rows),
};

fn rows(target: Option<&Target>) -> Result<Vec<Vec<Cell>>, Refusal> {
    let records = of_log(target, |log| async move { live::history(&log, ROWS_MAX).await })?;
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
