//! The table `littoral_changes`: the manifest's change log, as far as its subscribers have left it.

use super::{Cell, Refusal, Rows, Table, Target, manifest_of};
use littoral_engine::EngineError;
use littoral_types::{Change, ChangeSeq};

/// Rows read at once.
const STEP: usize = 256;

/// The table.
pub(super) const TABLE: Table = Table {
    name: "littoral_changes",
    columns: &[
        "change INTEGER",
        "after_record INTEGER",
        "record INTEGER",
        "kinds TEXT",
        "operations INTEGER",
        "undone TEXT",
    ],
    rows: Rows::OfDatabase(rows),
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
    let mut kinds: Vec<&str> = change.records.iter().map(|record| record.kind.word()).collect();
    if change.undone.is_some() {
        kinds.push("undone");
    }
    vec![
        Cell::count(change.change.0),
        Cell::count(change.after.0),
        Cell::count(change.seq().0),
        Cell::text(kinds.join(" ")),
        Cell::count(change.ops.len() as u64),
        change.undone.as_ref().map_or(Cell::Null, |undone| {
            let (work, chunks) = (undone.lease.wish.work, undone.lease.chunks());
            Cell::text(format!("{work} of chunks {chunks}, cut off by {}: {}", undone.by, undone.why))
        }),
    ]
}
