//! The table `littoral_leases`: who works on which chunks of the database's volume.

use super::{Cell, Refusal, Rows, Table, Target, ours};
use crate::work::{self, Ground};
use littoral_engine::leases::{Leases, Standing};
use littoral_types::Lease;

/// The table.
pub(super) const TABLE: Table = Table {
    name: "littoral_leases",
    columns: &[
        "lease INTEGER",
        "work TEXT",
        "chunks TEXT",
        "generation INTEGER",
        "process INTEGER",
        "since_ms INTEGER",
        "stands TEXT",
    ],
    rows: Rows::OfDatabase(rows),
};

fn rows(target: Option<&Target>) -> Result<Vec<Vec<Cell>>, Refusal> {
    let Target { database, said, .. } = ours(target)?;
    let Ground { place, components, .. } = work::ground(database.path(), said)?;
    let Some(found) = &place.found else { return Ok(Vec::new()) };
    let Some(leases) = Leases::of(&place, &components)? else { return Ok(Vec::new()) };
    let mine = leases.all()?.into_iter().filter(|(lease, _)| lease.wish.volume == found.binding.id);
    Ok(mine.map(|(lease, standing)| row(&lease, standing)).collect())
}

fn row(lease: &Lease, standing: Standing) -> Vec<Cell> {
    vec![
        Cell::count(lease.token.0),
        Cell::text(lease.wish.work),
        Cell::text(lease.chunks()),
        Cell::count(lease.wish.generation.0),
        Cell::count(u64::from(lease.wish.process)),
        Cell::count(lease.wish.taken_ms),
        Cell::text(standing.word()),
    ]
}
