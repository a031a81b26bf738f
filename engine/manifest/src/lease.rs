//! What a change of leases does to the tables, in one transaction.

use crate::apply::{LAST_CHANGE, last_change, misuse};
use crate::lookup::{decoded, volume_row};
use crate::open::Fault;
use crate::table::Tables;
use heed::{RoTxn, RwTxn};
use littoral_format::rows::{change, keys, lease, lease_taken, number};
use littoral_ports::{LeaseChange, LeaseEdit, Leased};
use littoral_types::limits::TAKEN_AWAY_MAX;
use littoral_types::{Change, ChangeSeq, Lease, LeaseToken, TakenAway, VolumeId};

/// Where `meta` keeps the newest number that a lease was ever given.
const LAST_LEASE: &[u8] = b"last_lease";
/// And how many were ever taken away.
const TAKEN: &[u8] = b"leases_taken";

/// All of them, the oldest first.
pub(crate) fn all(tables: &Tables, txn: &RoTxn<'_>) -> Result<Vec<Lease>, Fault> {
    let (first, last) = (keys::lease(LeaseToken(0)), keys::lease(LeaseToken(u64::MAX)));
    tables.leases.range(txn, &first, &last)?.map(|entry| Ok(lease::decode(entry?.1)?)).collect()
}

/// The newest of those that were taken away, the oldest of them first.
pub(crate) fn taken_away(tables: &Tables, txn: &RoTxn<'_>, max: usize) -> Result<Vec<TakenAway>, Fault> {
    let taken = decoded(&tables.meta, txn, TAKEN, number::decode)?.unwrap_or(0);
    let first = taken.saturating_sub(u64::try_from(max).unwrap_or(u64::MAX));
    let entries = tables.leases_taken.range(txn, &keys::taken(first), &keys::taken(u64::MAX))?;
    entries.map(|entry| Ok(lease_taken::decode(entry?.1)?)).collect()
}

/// Does what a change says.
pub(crate) fn apply(tables: &Tables, txn: &mut RwTxn<'_>, wanted: &LeaseChange) -> Result<Leased, Fault> {
    let given = LeaseToken(decoded(&tables.meta, txn, LAST_LEASE, number::decode)?.unwrap_or(0));
    let LeaseEdit { answer, gone, taken, put } = wanted.over(&all(tables, txn)?, given)?;
    for token in &gone {
        tables.leases.delete(txn, &keys::lease(*token))?;
    }
    for taken in &taken {
        remember(tables, txn, taken)?;
    }
    if let Some(lease) = put {
        if lease.token > given {
            tables.meta.put(txn, LAST_LEASE, &number::encode(lease.token.0))?;
        }
        tables.leases.put(txn, &keys::lease(lease.token), &lease::encode(&lease).map_err(misuse)?)?;
    }
    Ok(answer)
}

/// Nobody works on a volume that is forgotten.
pub(crate) fn forget(tables: &Tables, txn: &mut RwTxn<'_>, volume: &VolumeId) -> Result<(), Fault> {
    for lease in all(tables, txn)?.into_iter().filter(|lease| lease.wish.volume == *volume) {
        tables.leases.delete(txn, &keys::lease(lease.token))?;
    }
    Ok(())
}

/// Keeps that one was taken away, and says in the change log that its work was cut off.
fn remember(tables: &Tables, txn: &mut RwTxn<'_>, taken: &TakenAway) -> Result<(), Fault> {
    let nth = decoded(&tables.meta, txn, TAKEN, number::decode)?.unwrap_or(0);
    tables.meta.put(txn, TAKEN, &number::encode(nth + 1))?;
    tables.leases_taken.put(txn, &keys::taken(nth), &lease_taken::encode(taken).map_err(misuse)?)?;
    if let Some(beyond) = nth.checked_sub(TAKEN_AWAY_MAX) {
        tables.leases_taken.delete_range(txn, &keys::taken(0), &keys::taken(beyond))?;
    }
    let volume = taken.lease.wish.volume;
    let Some(row) = volume_row(tables, txn, &volume)? else { return Ok(()) };
    let number = ChangeSeq(last_change(tables, txn)?.0 + 1);
    let (records, ops, undone) = (Vec::new(), Vec::new(), Some(taken.clone()));
    let entry = Change { change: number, volume, after: row.tail.seq, records, ops, undone };
    tables.meta.put(txn, LAST_CHANGE, &number::encode(number.0))?;
    tables.change_log.put(txn, &keys::change(number), &change::encode(&entry).map_err(misuse)?)?;
    Ok(())
}
