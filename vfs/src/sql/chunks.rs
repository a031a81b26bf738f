//! The table `littoral_chunks`: how each chunk of the database lies in the object store, as the local manifest knows it.

use super::{Cell, Refusal, Rows, Table, Target, manifest_of};
use littoral_engine::EngineError;
use littoral_types::{ChunkId, ChunkRow};

/// Rows read at once.
const STEP: usize = 256;

/// The table.
pub(super) const TABLE: Table = Table {
    name: "littoral_chunks",
    columns: &[
        "chunk INTEGER",
        "first_page INTEGER",
        "pages INTEGER",
        "generation INTEGER",
        "base_bytes INTEGER",
        "deltas INTEGER",
        "delta_pages INTEGER",
    ],
    rows: Rows::OfDatabase(rows),
};

fn rows(target: Option<&Target>) -> Result<Vec<Vec<Cell>>, Refusal> {
    let Some((manifest, volume)) = manifest_of(target)? else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    let mut from = ChunkId(0);
    loop {
        let step = manifest.rows(&volume, from, STEP).map_err(EngineError::from)?;
        let Some(last) = step.last().map(|row| row.chunk) else { return Ok(rows) };
        from = ChunkId(last.0 + 1);
        rows.extend(step.iter().map(row));
    }
}

fn row(row: &ChunkRow) -> Vec<Cell> {
    let base = row.base.as_ref();
    let of_base = |number: Option<u64>| number.map_or(Cell::Null, Cell::count);
    let pages = row.deltas.iter().map(|delta| delta.table.pages().count() as u64).sum();
    vec![
        Cell::count(row.chunk.0),
        of_base(base.map(|base| base.span.first.get())),
        of_base(base.map(|base| base.span.count.0)),
        of_base(base.map(|base| base.generation.0)),
        of_base(base.map(|base| base.blob.len)),
        Cell::count(row.deltas.len() as u64),
        Cell::count(pages),
    ]
}
