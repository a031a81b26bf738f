//! The table `littoral_terms`: who wrote the volume, term by term, newest first, as the object store has it.

use super::{Cell, Refusal, Rows, Table, Target, of_log};
use littoral_engine::EngineError;
use littoral_engine::log::terms::{End, Term};

/// The table.
pub(super) const TABLE: Table = Table {
    name: "littoral_terms",
    columns: &[
        "epoch INTEGER",
        "owner TEXT",
        "began_ms INTEGER",
        "ended_ms INTEGER",
        "how TEXT",
        "taken_over_by TEXT",
        "last_lsn INTEGER",
    ],
    rows: Rows::OfDatabase(rows),
};

fn rows(target: Option<&Target>) -> Result<Vec<Vec<Cell>>, Refusal> {
    let terms = of_log(target, |log| async move {
        let glance = log.glance().await?.ok_or_else(|| EngineError::NoVolume(log.url()))?;
        log.terms(&glance).await
    })?;
    Ok(terms.iter().map(row).collect())
}

fn row(term: &Term) -> Vec<Cell> {
    let number = |number: Option<u64>| number.map_or(Cell::Null, Cell::count);
    let by = if let End::TakenOver(by) = &term.end { Cell::text(by) } else { Cell::Null };
    vec![
        Cell::count(term.epoch.0),
        term.owner.as_ref().map_or(Cell::Null, |owner| Cell::text(&owner.label)),
        number(term.began_ms),
        number(term.ended_ms),
        Cell::text(term.end.word()),
        by,
        Cell::count(term.last.0),
    ]
}
