//! Finding things in the tables, by seeking.

use crate::open::Fault;
use crate::table::{Entry, Table, Tables};
use heed::RoTxn;
use littoral_format::FormatError;
use littoral_format::rows::{base, change, delta, identities, keys, owners, segment, volume};
use littoral_types::{
    Change, ChunkId, ChunkRow, Delta, DeltaId, PageIdentity, PageNo, PageOwner, Seq, VolumeId, VolumeRow,
};
use std::collections::VecDeque;

/// The row of a key, read.
pub(crate) fn decoded<T>(
    table: &Table,
    txn: &RoTxn<'_>,
    key: &[u8],
    decode: impl FnOnce(&[u8]) -> Result<T, FormatError>,
) -> Result<Option<T>, Fault> {
    Ok(table.get(txn, key)?.map(decode).transpose()?)
}

pub(crate) fn volume_row(tables: &Tables, txn: &RoTxn<'_>, id: &VolumeId) -> Result<Option<VolumeRow>, Fault> {
    decoded(&tables.volumes, txn, &keys::volume(id), volume::decode)
}

/// A chunk's deltas, oldest first.
pub(crate) fn deltas(tables: &Tables, txn: &RoTxn<'_>, id: &VolumeId, chunk: ChunkId) -> Result<Vec<Delta>, Fault> {
    let [first, last] = [0, u64::MAX].map(|delta| keys::delta(id, chunk, DeltaId(delta)));
    let entries = tables.chunk_delta_index.range(txn, &first, &last)?;
    entries.map(|entry| Ok(delta::decode(entry?.1)?)).collect()
}

pub(crate) fn row(tables: &Tables, txn: &RoTxn<'_>, id: &VolumeId, chunk: ChunkId) -> Result<Option<ChunkRow>, Fault> {
    let base = decoded(&tables.chunk_catalog, txn, &keys::chunk(id, chunk), base::decode)?;
    let segment = decoded(&tables.log_segments, txn, &keys::chunk(id, chunk), segment::decode)?;
    let row = ChunkRow { chunk, base, deltas: deltas(tables, txn, id, chunk)?, segment };
    Ok((!row.is_empty()).then_some(row))
}

pub(crate) fn has_base(tables: &Tables, txn: &RoTxn<'_>, id: &VolumeId, chunk: ChunkId) -> Result<bool, Fault> {
    Ok(tables.chunk_catalog.get(txn, &keys::chunk(id, chunk))?.is_some())
}

/// Up to `max` rows from a chunk on: bases, deltas and segments are walked side by side.
pub(crate) fn rows(
    tables: &Tables,
    txn: &RoTxn<'_>,
    id: &VolumeId,
    from: ChunkId,
    max: usize,
) -> Result<Vec<ChunkRow>, Fault> {
    let last = ChunkId(u64::MAX);
    let mut bases =
        Walk::new(tables.chunk_catalog.range(txn, &keys::chunk(id, from), &keys::chunk(id, last))?, |(key, value)| {
            Ok((keys::parse_chunk(key)?.1, value))
        });
    let (first, last) = (keys::delta(id, from, DeltaId(0)), keys::delta(id, last, DeltaId(u64::MAX)));
    let mut deltas = Walk::new(tables.chunk_delta_index.range(txn, &first, &last)?, |(key, value)| {
        Ok((keys::parse_delta(key)?.1, value))
    });
    let segments = tables.log_segments.range(txn, &keys::chunk(id, from), &keys::chunk(id, ChunkId(u64::MAX)))?;
    let mut segments = Walk::new(segments, |(key, value)| Ok((keys::parse_chunk(key)?.1, value)));
    let mut rows = Vec::new();
    while rows.len() < max {
        let next = [bases.peek()?, deltas.peek()?, segments.peek()?].into_iter().flatten().min();
        let Some(chunk) = next else { break };
        let mut row = ChunkRow::new(chunk);
        row.base = bases.next_of(chunk)?.map(base::decode).transpose()?;
        row.segment = segments.next_of(chunk)?.map(segment::decode).transpose()?;
        while let Some(value) = deltas.next_of(chunk)? {
            row.deltas.push(delta::decode(value)?);
        }
        rows.push(row);
    }
    Ok(rows)
}

/// The deltas of up to `max` chunks that have some, from a chunk on. No base is looked at.
pub(crate) fn deltas_from(
    tables: &Tables,
    txn: &RoTxn<'_>,
    id: &VolumeId,
    from: ChunkId,
    max: usize,
) -> Result<Vec<ChunkRow>, Fault> {
    let (first, last) = (keys::delta(id, from, DeltaId(0)), keys::delta(id, ChunkId(u64::MAX), DeltaId(u64::MAX)));
    let mut deltas = Walk::new(tables.chunk_delta_index.range(txn, &first, &last)?, |(key, value)| {
        Ok((keys::parse_delta(key)?.1, value))
    });
    let mut rows = Vec::new();
    while rows.len() < max
        && let Some(chunk) = deltas.peek()?
    {
        let mut row = ChunkRow::new(chunk);
        while let Some(value) = deltas.next_of(chunk)? {
            row.deltas.push(delta::decode(value)?);
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Entries of a table by chunk, one looked at ahead.
struct Walk<'t, I, P> {
    entries: I,
    parse: P,
    ahead: VecDeque<(ChunkId, &'t [u8])>,
}

impl<'t, I, P> Walk<'t, I, P>
where
    I: Iterator<Item = heed::Result<Entry<'t>>>,
    P: Fn(Entry<'t>) -> Result<(ChunkId, &'t [u8]), FormatError>,
{
    fn new(entries: I, parse: P) -> Self {
        Self { entries, parse, ahead: VecDeque::new() }
    }

    fn peek(&mut self) -> Result<Option<ChunkId>, Fault> {
        if self.ahead.is_empty()
            && let Some(entry) = self.entries.next()
        {
            self.ahead.push_back((self.parse)(entry?)?);
        }
        Ok(self.ahead.front().map(|(chunk, _)| *chunk))
    }

    fn next_of(&mut self, chunk: ChunkId) -> Result<Option<&'t [u8]>, Fault> {
        let next = self.peek()?.filter(|next| *next == chunk);
        Ok(next.and_then(|_| self.ahead.pop_front()).map(|(_, value)| value))
    }
}

/// The first entry of a page is that of its newest delta.
pub(crate) fn newest_delta(
    tables: &Tables,
    txn: &RoTxn<'_>,
    id: &VolumeId,
    page: PageNo,
) -> Result<Option<DeltaId>, Fault> {
    let (newest, oldest) = (keys::page_delta(id, page, DeltaId(u64::MAX)), keys::page_delta(id, page, DeltaId(0)));
    let first = tables.page_index.range(txn, &newest, &oldest)?.next().transpose()?;
    Ok(first.map(|(key, _)| keys::parse_page_delta(key)).transpose()?.map(|(_, _, delta)| delta))
}

pub(crate) fn identities(
    tables: &Tables,
    txn: &RoTxn<'_>,
    id: &VolumeId,
    from: PageNo,
    max: usize,
) -> Result<Vec<Option<PageIdentity>>, Fault> {
    let count = usize::try_from(u64::MAX - from.index()).map_or(max, |left| max.min(left));
    let mut found = vec![None; count];
    let Some(last) = (count as u64).checked_sub(1).map(|more| PageNo::from_index(from.index() + more)) else {
        return Ok(found);
    };
    let (first_key, last_key) = [from, last].map(|page| keys::group(id, identities::place(page).0)).into();
    for entry in tables.identities.range(txn, &first_key, &last_key)? {
        let (key, value) = entry?;
        let (_, group) = keys::parse_group(key)?;
        let start = group.saturating_mul(identities::GROUP as u64);
        for (place, identity) in identities::decode(value)?.into_iter().enumerate() {
            let at = start.saturating_add(place as u64).checked_sub(from.index());
            if let Some(slot) = at.and_then(|at| usize::try_from(at).ok()).and_then(|at| found.get_mut(at)) {
                *slot = identity;
            }
        }
    }
    Ok(found)
}

pub(crate) fn owners(
    tables: &Tables,
    txn: &RoTxn<'_>,
    id: &VolumeId,
    from: PageNo,
    max: usize,
) -> Result<Vec<PageOwner>, Fault> {
    let count = usize::try_from(u64::MAX - from.index()).map_or(max, |left| max.min(left));
    let mut found = vec![PageOwner::UNKNOWN; count];
    let Some(last) = (count as u64).checked_sub(1).map(|more| PageNo::from_index(from.index() + more)) else {
        return Ok(found);
    };
    let (first_key, last_key) = [from, last].map(|page| keys::group(id, owners::place(page).0)).into();
    for entry in tables.owners.range(txn, &first_key, &last_key)? {
        let (key, value) = entry?;
        let (_, group) = keys::parse_group(key)?;
        let start = group.saturating_mul(owners::GROUP as u64);
        for (place, owner) in owners::decode(value)?.into_iter().enumerate() {
            let at = start.saturating_add(place as u64).checked_sub(from.index());
            if let Some(slot) = at.and_then(|at| usize::try_from(at).ok()).and_then(|at| found.get_mut(at)) {
                *slot = owner;
            }
        }
    }
    Ok(found)
}

/// The entries of one volume that brought records after this one.
pub(crate) fn changes_since(tables: &Tables, txn: &RoTxn<'_>, id: &VolumeId, after: Seq) -> Result<Vec<Change>, Fault> {
    let Some(first) = after.0.checked_add(1) else { return Ok(Vec::new()) };
    let first = keys::change_of(id, Seq(first), littoral_types::ChangeSeq(0));
    let last = keys::change_of(id, Seq(u64::MAX), littoral_types::ChangeSeq(u64::MAX));
    let mut changes = Vec::new();
    for entry in tables.changes_of.range(txn, &first, &last)? {
        let (_, _, number) = keys::parse_change_of(entry?.0)?;
        let found = decoded(&tables.change_log, txn, &keys::change(number), change::decode)?;
        changes.extend(found);
    }
    Ok(changes)
}
