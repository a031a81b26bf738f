//! The table `littoral_changes`: the manifest's change log, as far as its subscribers have left it.

use super::{Cell, Refusal, Table, Target, manifest_of};
use littoral_engine::EngineError;
use littoral_types::{Change, ChangeSeq};

/// Rows read at once.
const STEP: usize = 256;

/// The table.
pub(super) const TABLE: Table = Table {
    name: "littoral_changes",
    columns: &["change INTEGER", "after_record INTEGER", "record INTEGER", "kinds TEXT", "operations INTEGER"],
    rows,
};

fn rows(target: Option<&Target>) -> Result<Vec<Vec<Cell>>, Refusal> {
    let Some((manifest, volume)) = manifest_of(target)? else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    let mut after = ChangeSeq(0);
    loop {
        let step = manifest.changes(after, STEP).map_err(EngineError::from)?;
        let Some(last) = step.last().map(|change| change.change) else { return Ok(rows) };
        after = last;
        rows.extend(step.iter().filter(|change| change.volume == volume).map(row));
    }
}

fn row(change: &Change) -> Vec<Cell> {
    let kinds: Vec<&str> = change.records.iter().map(|record| record.kind.word()).collect();
    vec![
        Cell::count(change.change.0),
        Cell::count(change.after.0),
        Cell::count(change.seq().0),
        Cell::text(kinds.join(" ")),
        Cell::count(change.ops.len() as u64),
    ]
}
